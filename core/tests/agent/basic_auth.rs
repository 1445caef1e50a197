//! Each request of an HTTP client needs a password, and comes from an admitted address.

use data_encoding::BASE64;
use rendezvous_core::agent::{BasicAuth, PasswordCheck, Verdict};
use rendezvous_core::proxy_header::{Version, write};

use super::forwarding::Gated;
use super::*;

const CLIENT: &str = "198.51.100.7:40000";
const DONE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn protected() -> Harness<Agent> {
    agent_with(|config| config.upstreams[0].basic_auth = Some(BasicAuth::new("home")))
}

fn credentials(pair: &str) -> String {
    format!("Authorization: Basic {}\r\n", BASE64.encode(pair.as_bytes()))
}

fn request(start: &str, fields: &str) -> String {
    format!("{start} HTTP/1.1\r\nHost: hidden\r\n{fields}\r\n")
}

fn get(path: &str, pair: &str) -> String {
    request(&format!("GET {path}"), &credentials(pair))
}

/// The text that the service gets for such a request.
fn request_line(path: &str) -> String {
    request(&format!("GET {path}"), "")
}

fn checks(gated: &mut Gated) -> Vec<PasswordCheck> {
    gated.harness.call(|agent, _| agent.take_checks())
}

/// Runs the pending password checks: `anna` has the password `right`.
fn check(gated: &mut Gated) -> usize {
    let checks = checks(gated);
    for check in &checks {
        let pair = (check.credentials.user(), check.credentials.password());
        let verdict = if pair == ("anna", "right") { Verdict::Right } else { Verdict::Wrong };
        gated.harness.call(|agent, now| agent.handle_verified(check.on, check.ticket, verdict, now));
    }
    gated.work();
    checks.len()
}

/// The client has read everything.
fn flush(gated: &mut Gated) {
    let relay = gated.relay;
    gated.harness.call(|agent, now| agent.handle_flushed(relay, now));
    gated.work();
}

/// Checks and flushes until nothing changes.
fn settle(gated: &mut Gated) {
    while !gated.is_closed() {
        flush(gated);
        if check(gated) == 0 {
            flush(gated);
            return;
        }
    }
}

/// The statuses that the client has received.
fn statuses(gated: &Gated) -> Vec<String> {
    let text = gated.to_client();
    text.split("HTTP/1.1 ").skip(1).map(|answer| answer[..3].to_owned()).collect()
}

#[test]
fn a_request_without_a_password_gets_401_and_the_connection_stays() {
    let mut gated = Gated::new(protected(), Some(CLIENT), &request("GET /", ""));
    assert_eq!((checks(&mut gated).len(), gated.to_service().as_str()), (0, ""));
    let answer = gated.to_client();
    assert!(answer.starts_with("HTTP/1.1 401 Unauthorized\r\n"), "{answer}");
    assert!(answer.contains("\r\nWWW-Authenticate: Basic realm=\"home\", charset=\"UTF-8\"\r\n"), "{answer}");
    assert!(!answer.contains("Connection: close") && !gated.is_closed());
    flush(&mut gated);
    gated.client(&get("/2", "anna:right"));
    assert_eq!(gated.to_service(), "");
    assert_eq!(check(&mut gated), 1);
    assert_eq!(gated.to_service(), request_line("/2"));
    gated.service(DONE);
    assert_eq!(statuses(&gated), ["401", "200"]);
}

#[test]
fn the_check_has_the_address_and_shows_no_password() {
    let mut gated = Gated::new(protected(), Some(CLIENT), &get("/", "anna:ri:ght"));
    let checks = checks(&mut gated);
    let [check] = &checks[..] else { panic!("{checks:?}") };
    assert_eq!(check.from, Some("198.51.100.7".parse().unwrap()));
    assert_eq!((check.credentials.user(), check.credentials.password()), ("anna", "ri:ght"));
    assert!(!format!("{check:?}").contains("ght") && !format!("{check:?}").contains("anna"));
    assert!(!format!("{:?}", gated.harness.call(|agent, _| agent.clone())).contains("ght"));
}

#[test]
fn each_request_is_judged_by_its_own_password() {
    let all =
        [get("/1", "anna:right"), get("/2", "anna:wrong"), get("/3", "anna:right"), request("GET /4", "")];
    let mut gated = Gated::new(protected(), Some(CLIENT), &all.concat());
    assert_eq!(check(&mut gated), 1);
    assert_eq!(gated.to_service(), request_line("/1"));
    settle(&mut gated);
    // The second gets its 401 in its turn: after the response to the first.
    assert_eq!((gated.to_service(), gated.to_client()), (request_line("/1"), String::new()));
    gated.service(&DONE[..20]);
    settle(&mut gated);
    assert_eq!(gated.to_client(), "");
    gated.service(&DONE[20..DONE.len() - 1]);
    settle(&mut gated);
    assert_eq!(gated.to_client(), DONE[..DONE.len() - 1], "a 401 never stands inside of a body");
    gated.service("k");
    settle(&mut gated);
    assert_eq!(gated.to_service(), request_line("/1") + &request_line("/3"));
    assert_eq!(statuses(&gated), ["200", "401"]);
    gated.service(DONE);
    settle(&mut gated);
    assert_eq!(statuses(&gated), ["200", "401", "200", "401"]);
    assert!(!gated.is_closed());
}

#[test]
fn one_answer_of_ours_is_queued_at_once() {
    let many = request("GET /", "").repeat(100);
    let mut gated = Gated::new(protected(), Some(CLIENT), &many);
    assert_eq!(statuses(&gated).len(), 1);
    for answers in 2..=100 {
        flush(&mut gated);
        assert_eq!(statuses(&gated).len(), answers);
    }
}

#[test]
fn credentials_are_removed_unless_they_are_to_be_kept() {
    let mut gated = Gated::new(protected(), Some(CLIENT), &get("/", "anna:right"));
    check(&mut gated);
    assert_eq!(gated.to_service(), request_line("/"));
    let keeps = |config: &mut Config| {
        config.upstreams[0].basic_auth = Some(BasicAuth::new("home").keeping_credentials());
    };
    let mut gated = Gated::new(agent_with(keeps), Some(CLIENT), &get("/", "anna:right"));
    check(&mut gated);
    assert_eq!(gated.to_service(), get("/", "anna:right"));
    let forwards = |config: &mut Config| {
        config.upstreams[0].basic_auth = Some(BasicAuth::new("home"));
        config.forwarded = true;
    };
    let mut gated = Gated::new(agent_with(forwards), Some(CLIENT), &get("/", "anna:right"));
    check(&mut gated);
    let text = gated.to_service();
    assert!(text.contains("X-Forwarded-For: 198.51.100.7\r\n") && !text.contains("Authorization"), "{text}");
}

#[test]
fn a_denied_head_has_no_body_in_its_answer() {
    let gated = Gated::new(protected(), Some(CLIENT), &request("HEAD /", ""));
    let answer = gated.to_client();
    assert!(answer.starts_with("HTTP/1.1 401 ") && answer.ends_with("\r\n\r\n"), "{answer}");
}

#[test]
fn the_body_of_a_denied_request_is_dropped_or_the_connection_closed() {
    // The body looks like a request.
    let inner = get("/inner", "anna:right");
    let post = |fields: &str| request("POST /", fields);
    let length = format!("Content-Length: {}\r\n", inner.len());
    let mut gated = Gated::new(protected(), Some(CLIENT), &format!("{}{}", post(&length), &inner[..9]));
    flush(&mut gated);
    gated.client(&inner[9..]);
    gated.client(&get("/next", "anna:right"));
    settle(&mut gated);
    assert_eq!((gated.to_service(), statuses(&gated)), (request_line("/next"), vec!["401".to_owned()]));
    for fields in [
        "Content-Length: 65537\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Content-Length: 3\r\nExpect: 100-continue\r\n",
        "Connection: close\r\n",
    ] {
        let mut gated = Gated::new(protected(), Some(CLIENT), &format!("{}{inner}", post(fields)));
        settle(&mut gated);
        assert!(gated.is_closed() && gated.to_service().is_empty(), "{fields}");
        assert_eq!(statuses(&gated), ["401"], "{fields}");
        assert!(gated.to_client().contains("\r\nConnection: close\r\n"), "{fields}");
        assert!(gated.closed.contains(&(gated.relay, Close::Linger)), "{:?}", gated.closed);
    }
}

#[test]
fn a_right_password_lets_a_body_pass_and_the_next_request_is_asked_again() {
    let fields = format!("{}Content-Length: 5\r\n", credentials("anna:right"));
    let mut gated = Gated::new(
        protected(),
        Some(CLIENT),
        &(request("POST /", &fields) + "hello" + &request("GET /2", "")),
    );
    settle(&mut gated);
    assert_eq!(gated.to_service(), request("POST /", "Content-Length: 5\r\n") + "hello");
    gated.service(DONE);
    settle(&mut gated);
    assert_eq!(statuses(&gated), ["200", "401"]);
}

#[test]
fn malformed_credentials_get_400_and_the_connection_is_closed() {
    for value in ["Basic !", "Basic YQ==", "Basic", "Basic YTpiCg=="] {
        let first = request("GET /", &format!("Authorization: {value}\r\n"));
        let mut gated = Gated::new(protected(), Some(CLIENT), &(first + &get("/2", "anna:right")));
        settle(&mut gated);
        assert!(gated.is_closed() && gated.to_service().is_empty(), "{value}");
        assert_eq!(statuses(&gated), ["400"], "{value}");
    }
}

#[test]
fn another_scheme_is_asked_for_a_password() {
    let mut gated = Gated::new(protected(), Some(CLIENT), &request("GET /", "Authorization: Bearer abc\r\n"));
    settle(&mut gated);
    assert_eq!(statuses(&gated), ["401"]);
}

#[test]
fn what_is_not_certainly_http_never_reaches_the_service() {
    let auth = credentials("anna:right");
    let good = get("/", "anna:right");
    let smuggled = [
        request("GET /", &format!("{auth}{auth}")),
        request("GET /", &format!("{auth}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n")),
        request("GET /", &format!("{auth}Content-Length: 3\r\nContent-Length: 3\r\n")),
        request("GET /", &format!("{auth}Content-Length: +3\r\n")),
        request("GET /", &format!("{auth}Transfer-Encoding : chunked\r\n")),
        request("GET /", &format!("{auth}Transfer-Encoding: gzip, chunked\r\n")),
        request("GET /", &format!("{auth}X: a\r\n b\r\n")),
        request("GET /", &format!("{auth}X: a\rb\r\n")),
        request("GET /", &format!("{auth}X: a\0b\r\n")),
        request("GET /", &format!("{auth}Expect: 200-ok\r\n")),
        good.replace("\r\n", "\n"),
        format!("GET / HTTP/1.0\r\n{auth}Transfer-Encoding: chunked\r\n\r\n"),
        format!("CONNECT hidden:80 HTTP/1.1\r\nHost: hidden:80\r\n{auth}\r\n"),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
    ];
    for text in smuggled {
        // After a good request, since the first one is read elsewhere.
        let mut gated = Gated::new(protected(), Some(CLIENT), &format!("{good}{text}{good}"));
        settle(&mut gated);
        gated.service(DONE);
        settle(&mut gated);
        assert!(gated.is_closed(), "{text}");
        assert_eq!(gated.to_service(), request_line("/"), "{text}");
        let statuses = statuses(&gated);
        assert!(["400", "505"].contains(&statuses[1].as_str()) && statuses.len() == 2, "{text} {statuses:?}");
    }
    for chunk in [
        "3\nabc\r\n0\r\n\r\n",
        "3;a=\"\n\"\r\nabc\r\n0\r\n\r\n",
        "+3\r\nabc\r\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
    ] {
        let head = request("POST /", &format!("{auth}Transfer-Encoding: chunked\r\n"));
        let mut gated = Gated::new(protected(), Some(CLIENT), &format!("{head}{chunk}{good}"));
        settle(&mut gated);
        assert!(gated.is_closed() && !gated.to_service().contains("GET"), "{chunk}");
        assert_eq!(statuses(&gated), ["400"], "{chunk}");
    }
    let head = request("POST /", &format!("{auth}Transfer-Encoding: chunked\r\n"));
    for trailer in ["Authorization: Basic YTpi\r\n", "Content-Length: 3\r\n"] {
        let mut gated = Gated::new(protected(), Some(CLIENT), &format!("{head}0\r\n{trailer}\r\n{good}"));
        settle(&mut gated);
        assert!(gated.is_closed() && !gated.to_service().contains("GET"), "{trailer}");
    }
}

#[test]
fn an_upgrade_needs_a_password_and_what_follows_waits_for_its_answer() {
    let upgrade =
        |more: &str| request("GET /ws", &format!("{more}Connection: Upgrade\r\nUpgrade: websocket\r\n"));
    let mut gated = Gated::new(protected(), Some(CLIENT), &upgrade(""));
    settle(&mut gated);
    assert_eq!((gated.to_service().as_str(), statuses(&gated)), ("", vec!["401".to_owned()]));
    gated.client(&upgrade(&credentials("anna:right")));
    settle(&mut gated);
    gated.client(&request("GET /behind", ""));
    settle(&mut gated);
    assert_eq!(gated.to_service(), upgrade(""));
    gated.service(DONE);
    settle(&mut gated);
    assert_eq!(statuses(&gated), ["401", "200", "401"], "the service did not switch");
    gated.client(&upgrade(&credentials("anna:right")));
    settle(&mut gated);
    gated.service("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    gated.client("frames");
    settle(&mut gated);
    assert_eq!(gated.to_service(), upgrade("").repeat(2) + "frames");
}

#[test]
fn an_upgrade_to_http_2_is_removed() {
    let fields = credentials("anna:right")
        + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n";
    let mut gated = Gated::new(protected(), Some(CLIENT), &request("GET /", &fields));
    settle(&mut gated);
    assert_eq!(gated.to_service(), request_line("/"));
}

#[test]
fn a_busy_door_answers_429_and_a_late_result_means_nothing() {
    let mut gated = Gated::new(protected(), Some(CLIENT), &get("/", "anna:right"));
    let asked = checks(&mut gated).remove(0);
    let busy = Verdict::Busy { retry_after: 7 };
    gated.harness.call(|agent, now| agent.handle_verified(asked.on, asked.ticket, busy, now));
    gated.work();
    assert!(gated.to_client().contains("\r\nRetry-After: 7\r\n"), "{}", gated.to_client());
    assert!(!gated.to_client().contains("WWW-Authenticate"));
    flush(&mut gated);
    gated.client(&get("/2", "anna:wrong"));
    gated.harness.call(|agent, now| agent.handle_verified(asked.on, asked.ticket, Verdict::Right, now));
    gated.work();
    assert_eq!(gated.to_service(), "");
    settle(&mut gated);
    assert_eq!(statuses(&gated), ["429", "401"]);
}

#[test]
fn a_check_that_takes_too_long_gets_503() {
    let mut gated = Gated::new(protected(), Some(CLIENT), &get("/", "anna:right"));
    gated.harness.wait(Span::from_secs(31));
    gated.work();
    assert!(gated.is_closed());
    assert_eq!((gated.to_service().as_str(), statuses(&gated)), ("", vec!["503".to_owned()]));
}

#[test]
fn a_denied_client_that_sends_no_more_is_closed() {
    let mut gated = Gated::new(protected(), Some(CLIENT), &request("GET /", ""));
    flush(&mut gated);
    gated.harness.wait(Span::from_secs(11));
    gated.work();
    assert!(gated.is_closed());
    assert_eq!(statuses(&gated), ["401"]);
}

#[test]
fn a_client_that_is_served_may_be_idle() {
    let mut gated = Gated::new(protected(), Some(CLIENT), &get("/", "anna:right"));
    settle(&mut gated);
    gated.service(DONE);
    gated.harness.wait(Span::from_secs(3_600));
    gated.work();
    assert!(!gated.is_closed());
}

#[test]
fn every_cut_of_a_request_is_judged_alike() {
    let text = get("/", "anna:right");
    for cut in 1..text.len() {
        // The first head is read before there is a pair.
        let mut gated = Gated::new(protected(), Some(CLIENT), &request("GET /", ""));
        flush(&mut gated);
        gated.client(&text[..cut]);
        settle(&mut gated);
        assert_eq!(gated.to_service(), "", "{cut}");
        gated.client(&text[cut..]);
        settle(&mut gated);
        assert_eq!(gated.to_service(), request_line("/"), "{cut}");
    }
}

/// A client with this address. Returns whether the service is dialled, and what the client receives.
fn comes_from(address: Option<&str>, allow: &[&str], deny: &[&str], first: &[u8]) -> (bool, String) {
    let parse = |list: &[&str]| list.iter().map(|it| it.parse().unwrap()).collect();
    let harness = agent_with(|config| (config.allow, config.deny) = (parse(allow), parse(deny)));
    let (mut harness, pool) = pool_of(harness);
    harness.actions();
    let mut text = Vec::new();
    write(Version::V2, address.map(|it| it.parse().unwrap()), &mut text);
    text.extend_from_slice(first);
    let _ = harness.receive(pool[0], &text);
    let actions = harness.actions();
    (dials(&actions).iter().any(|(_, to)| *to == service()), sent(&actions, pool[0]))
}

#[test]
fn clients_are_let_in_by_their_addresses() {
    let known = Some("198.51.100.7:1");
    for (address, allow, deny, is_in) in [
        (known, &[][..], &["192.0.2.0/24"][..], true),
        (known, &["198.51.100.0/24"], &[], true),
        (known, &["192.0.2.0/24", "198.51.100.7"], &[], true),
        (None, &[], &["192.0.2.0/24"], true),
        (known, &[], &["198.51.100.0/24"], false),
        (known, &["198.51.100.0/24"], &["198.51.100.7/32"], false),
        (known, &["192.0.2.0/24"], &[], false),
        (None, &["0.0.0.0/0", "::/0"], &[], false),
        (Some("[2001:db8::1]:1"), &["2001:db8::/32"], &[], true),
        (Some("[2001:db9::1]:1"), &["2001:db8::/32"], &[], false),
        (Some("[::ffff:198.51.100.7]:1"), &[], &["198.51.100.0/24"], false),
    ] {
        let (is_dialled, answer) = comes_from(address, allow, deny, GET);
        assert_eq!(is_dialled, is_in, "{address:?} {allow:?} {deny:?}");
        assert_eq!(answer.starts_with("HTTP/1.1 403 Forbidden\r\n"), !is_in, "{answer}");
    }
}
