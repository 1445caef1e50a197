//! The relay's own answers: status, fields, body.

use std::io::{Read as _, Write as _};

use crate::harness::{Case, case};
use crate::hidden::{Raw, read_head};
use crate::wire::{Answer, Below};
use crate::world::{World, basic, lines};

pub(crate) const CASES: &[Case] = &[
    case("refusals_of_hidden_servers_match_the_table", &[], refusals_of_hidden_servers_match_the_table),
    case("refusals_of_clients_match_the_table", &[], refusals_of_clients_match_the_table),
    case(
        "unknown_id_and_wrong_token_get_the_same_answer",
        &[],
        unknown_id_and_wrong_token_get_the_same_answer,
    ),
    case("a_bound_token_is_accepted_once", &[], a_bound_token_is_accepted_once),
    case("a_plain_token_is_accepted_again_unless_strict", &[], a_plain_token_is_accepted_again_unless_strict),
    case("plain_tokens_are_refused_where_not_enrolled", &[], plain_tokens_are_refused_where_not_enrolled),
    case("too_many_failures_are_429_with_retry_after", &[], too_many_failures_are_429_with_retry_after),
    case("the_challenge_keeps_or_closes_the_connection_by_the_request", &[], the_challenge_keeps_or_closes),
    case("a_head_that_stops_is_408", &[], a_head_that_stops_is_408),
    case("a_busy_hidden_server_is_503_after_the_hold", &[], a_busy_hidden_server_is_503_after_the_hold),
    case(
        "a_hidden_server_that_ends_without_an_answer_is_502",
        &[],
        a_hidden_server_that_ends_without_an_answer_is_502,
    ),
    case("a_get_goes_to_the_next_hidden_server_instead", &[], a_get_goes_to_the_next_hidden_server_instead),
    case("a_label_needs_no_challenge", &[], a_label_needs_no_challenge),
    case("a_removed_id_is_revoked_within_seconds", &[], a_removed_id_is_revoked_within_seconds),
];

const NOBODY: &str = "00000000-0000-4000-8000-000000000000";

/// Checks the fields that every answer except a success has.
fn is_well_formed(of: &str, answer: &Answer) {
    let show = format!("{of:?} → {answer:?}");
    assert!(answer.field("date").is_some_and(|date| date.ends_with(" GMT")), "Date: {show}");
    assert_eq!(answer.field("content-type"), Some("application/json"), "{show}");
    assert_eq!(answer.field("cache-control"), Some("no-store"), "{show}");
    assert!(answer.field("content-length").is_some(), "{show}");
    let body = answer.text();
    let start = body.trim().strip_prefix("{\"error\":{\"permanent\":").unwrap_or_else(|| panic!("{show}"));
    let rest = start
        .strip_prefix("false")
        .or_else(|| start.strip_prefix("true"))
        .unwrap_or_else(|| panic!("{show}"));
    assert!(rest.starts_with(",\"diagnostic\":\"") && rest.ends_with("\"}}"), "{show}");
    assert!(
        answer.line.splitn(3, ' ').nth(2).is_some_and(|reason| !reason.is_empty()),
        "reason phrase: {show}"
    );
}

fn refusals_of_hidden_servers_match_the_table() {
    let world = World::new();
    let home = world.enrol("home", &["--tokens", "any"]);
    let relay = world.relay(&[]);
    let id = &home.id;
    let connect = |target: &str| format!("CONNECT {target} HTTP/1.1\r\n\r\n");
    let token = || world.token(&relay, &home);
    let table = [
        (400, connect("uuid:not-one?response=1")),
        (400, connect(&format!("uuid:{id}?response=12345678&response=12345678"))),
        (400, connect(&format!("uuid:{id}?response=!"))),
        (400, connect(&format!("uuid:{id}?response=00000000000000000000000000000000&nonce=short"))),
        (
            400,
            connect(&format!(
                "uuid:{id}?response=00000000000000000000000000000000&nonce=not/these/characters"
            )),
        ),
        (400, format!("CONNECT uuid:{id}?{} HTTP/1.1\r\nContent-Length: 0\r\n\r\n", token())),
        (400, format!("CONNECT uuid:{id}?{} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", token())),
        (400, format!("CONNECT uuid:{id}?{} HTTP/1.1\nHost: x\n\n\r\n\r\n", token())),
        (401, connect(&format!("uuid:{NOBODY}?{}", token()))),
        (
            401,
            connect(&format!("uuid:{id}?response=00000000000000000000000000000000&nonce=0123456789abcdef")),
        ),
        (403, connect("example.com:443")),
        (407, connect(&format!("uuid:{id}"))),
        (407, connect(&format!("uuid:{id}?other=1"))),
        (409, format!("CONNECT uuid:{id}?{} HTTP/1.1\r\n\r\ntoo early", token())),
        (505, format!("CONNECT uuid:{id}?{} HTTP/1.0\r\n\r\n", token())),
    ];
    for (status, bytes) in table {
        let mut wire = relay.open(Below::Clear);
        wire.send(bytes.as_bytes());
        let answer = Answer::read(&mut wire);
        assert_eq!(answer.status(), status, "{bytes:?} → {answer:?}");
        is_well_formed(&bytes, &answer);
        assert_eq!(answer.field("connection"), Some("close"), "{bytes:?}");
        wire.end();
        assert_eq!(wire.rest(), b"", "{bytes:?}: it closes behind the answer");
    }
}

fn refusals_of_clients_match_the_table() {
    let world = World::new();
    let relay = world.relay(&["--domain", "example.test"]);
    let basic = basic(NOBODY);
    let get = |fields: &str| format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
    let digest = format!(
        "Authorization: Digest username=\"{NOBODY}\", realm=\"rendezvous\", nonce=\"x\", uri=\"/\"\r\n"
    );
    let long = "x".repeat(9000);
    let many = "X-Field: x\r\n".repeat(200);
    let table = [
        (400, get(&format!("{basic}{basic}"))),
        (400, get(&format!("{basic}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"))),
        (400, get(&format!("{basic}Content-Length: +5\r\n"))),
        (400, format!("GET / HTTP/1.1\r\n{basic}\r\n")),
        (400, format!("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n{basic}\r\n")),
        (400, format!("GET http://other/ HTTP/1.1\r\nHost: h\r\n{basic}\r\n")),
        (400, get(&format!("{basic}X-Field : x\r\n"))),
        (400, get(&format!("{basic}X-Field: x\r\n folded\r\n"))),
        (400, get(&format!("{basic}X-Field: \x01\r\n"))),
        (400, format!("GET / HTTP/1.1\nHost: h\n{basic}\r\n\r\n")),
        (400, format!("GET /a\"b HTTP/1.1\r\nHost: h\r\n{basic}\r\n")),
        (400, format!("GET /\u{e9} HTTP/1.1\r\nHost: h\r\n{basic}\r\n")),
        (401, get("")),
        (401, get("Authorization: Bearer x\r\n")),
        (401, get("Authorization: Digest realm=\"rendezvous\"\r\n")),
        (401, get("Authorization: Digest username=\"me\", realm=\"rendezvous\"\r\n")),
        (401, "GET / HTTP/1.0\r\n\r\n".to_owned()),
        (404, get(&basic)),
        (404, get(&digest)),
        (
            404,
            format!(
                "GET /?rendezvous={NOBODY} HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
            ),
        ),
        (404, "GET / HTTP/1.1\r\nHost: unknown.example.test\r\n\r\n".to_owned()),
        (414, format!("GET /{long} HTTP/1.1\r\nHost: h\r\n{basic}\r\n")),
        (431, get(&format!("X-Long: {long}{long}\r\n"))),
        (431, get(&many)),
        (505, format!("GET / HTTP/2.0\r\nHost: h\r\n{basic}\r\n")),
    ];
    for (status, bytes) in table {
        let answer = relay.ask(&bytes);
        assert_eq!(answer.status(), status, "{bytes:?} → {answer:?}");
        is_well_formed(&bytes, &answer);
        let is_challenge = |name: &str| name.eq_ignore_ascii_case("www-authenticate");
        let offered = answer.fields.iter().filter(|(name, _)| is_challenge(name));
        let offered: Vec<&str> = offered.map(|(_, value)| value.as_str()).collect();
        match (status, &offered[..]) {
            (401, [digest, basic]) => {
                is_the_challenge(digest);
                assert_eq!(*basic, "Basic realm=\"rendezvous\"", "{bytes:?}");
            }
            (401, _) => panic!("{bytes:?} → {answer:?}"),
            (_, offered) => assert!(offered.is_empty(), "{bytes:?} → {answer:?}"),
        }
        if offered.is_empty() {
            assert_eq!(answer.field("connection"), Some("close"), "{bytes:?}");
        }
    }
}

/// `Digest realm="rendezvous", qop="auth, auth-int", nonce="…", opaque="…"`
fn is_the_challenge(value: &str) {
    let rest = value.strip_prefix("Digest realm=\"rendezvous\", qop=\"auth, auth-int\", nonce=\"");
    let rest = rest.and_then(|rest| rest.split_once("\", opaque=\""));
    let (nonce, opaque) = rest.unwrap_or_else(|| panic!("{value}"));
    assert!(
        nonce.len() >= 16 && opaque.ends_with('"') && !opaque.trim_end_matches('"').contains('"'),
        "{value}"
    );
}

fn unknown_id_and_wrong_token_get_the_same_answer() {
    let world = World::new();
    let home = world.enrol("home", &["--tokens", "any"]);
    let relay = world.relay(&[]);
    let nonce = "response=00000000000000000000000000000000&nonce=0123456789abcdef";
    let ask = |id: &str, query: &str| {
        let mut answer = relay.ask(format!("CONNECT uuid:{id}?{query} HTTP/1.1\r\n\r\n"));
        // Each answer has one challenge, and all differ.
        assert_eq!(answer.field("Rendezvous-Challenge").map(str::len), Some(43));
        let of_its_own = ["date", "rendezvous-challenge"];
        answer.fields.retain(|(name, _)| !of_its_own.iter().any(|it| name.eq_ignore_ascii_case(it)));
        answer
    };
    let used = world.token(&relay, &home);
    let mut first = relay.open(Below::Clear);
    first.send(format!("CONNECT uuid:{}?{used} HTTP/1.1\r\n\r\n", home.id).as_bytes());
    assert!(read_head(&mut first).starts_with(b"HTTP/1.1 200 "));

    let unknown = ask(NOBODY, nonce);
    assert_eq!(unknown.status(), 401);
    assert_eq!(unknown, ask(&home.id, nonce), "wrong bound token");
    assert_eq!(unknown, ask(&home.id, "response=00000000"), "wrong plain token");
    assert_eq!(unknown, ask(&home.id, "response=000000"), "wrong number of digits");
    assert_eq!(unknown, ask(&home.id, &used), "used token");
}

fn a_bound_token_is_accepted_once() {
    let world = World::new();
    let home = world.enrol("home", &[]);
    let relay = world.relay(&[]);
    let connect =
        format!("CONNECT uuid:{}?{} HTTP/1.1\r\nHost: h\r\n\r\n", home.id, world.token(&relay, &home));
    let mut first = relay.open(Below::Clear);
    first.send(connect.as_bytes());
    assert_eq!(String::from_utf8_lossy(&read_head(&mut first)), "HTTP/1.1 200 OK\r\n\r\n");
    assert_eq!(relay.ask(&connect).status(), 401);
}

fn a_plain_token_is_accepted_again_unless_strict() {
    for (options, second) in [(&[][..], 200), (&["--one-time", "strict"][..], 401)] {
        let world = World::new();
        let home = world.enrol("home", &["--tokens", "any"]);
        let relay = world.relay(options);
        let token = world.plain_token(&relay, &home);
        let connect = format!("CONNECT uuid:{}?response={token} HTTP/1.1\r\n\r\n", home.id);
        let mut first = relay.open(Below::Clear);
        first.send(connect.as_bytes());
        assert_eq!(Answer::read_head(&mut first).status(), 200);
        let mut again = relay.open(Below::Clear);
        again.send(connect.as_bytes());
        assert_eq!(Answer::read_head(&mut again).status(), second, "{options:?}");
        if second == 200 {
            assert_eq!(first.rest(), b"", "the newer replaces the older");
        }
    }
}

fn plain_tokens_are_refused_where_not_enrolled() {
    let world = World::new();
    let home = world.enrol("home", &[]);
    let relay = world.relay(&[]);
    let token = world.plain_token(&relay, &home);
    assert_eq!(
        relay.ask(format!("CONNECT uuid:{}?response={token} HTTP/1.1\r\n\r\n", home.id)).status(),
        401
    );
}

fn too_many_failures_are_429_with_retry_after() {
    let world = World::new();
    let home = world.enrol("home", &["--tokens", "any"]);
    let relay = world.relay(&[]);
    let answers =
        (0..200).map(|n| relay.ask(format!("CONNECT uuid:{}?response={n:08} HTTP/1.1\r\n\r\n", home.id)));
    let limited = answers.inspect(|answer| assert!([401, 429].contains(&answer.status()), "{answer:?}"));
    let limited =
        limited.into_iter().find(|answer| answer.status() != 401).expect("a limit before 200 failures");
    is_well_formed("too many", &limited);
    let seconds = limited.field("retry-after").and_then(|value| value.parse::<u32>().ok());
    assert!(seconds.is_some_and(|seconds| seconds > 0), "{limited:?}");
}

fn the_challenge_keeps_or_closes() {
    let world = World::new();
    let relay = world.relay(&[]);
    let head = |fields: &str| format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
    for (fields, body) in [("", ""), ("Content-Length: 5\r\n", "12345")] {
        let mut wire = relay.open(Below::Clear);
        for _ in 0..3 {
            wire.send(format!("{}{body}", head(fields)).as_bytes());
            let answer = Answer::read(&mut wire);
            assert_eq!((answer.status(), answer.field("connection")), (401, None), "{fields:?}");
        }
    }
    for fields in [
        "Connection: close\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Content-Length: 5\r\nExpect: 100-continue\r\n",
        "Content-Length: 10000000\r\n",
    ] {
        let mut wire = relay.open(Below::Clear);
        wire.send(head(fields).as_bytes());
        // The answer comes at once: no byte of the body was sent.
        let answer = Answer::read(&mut wire);
        assert_eq!((answer.status(), answer.field("connection")), (401, Some("close")), "{fields:?}");
        // The close lingers: the relay reads the body, so that no reset destroys the answer.
        wire.send(b"12345");
        wire.end();
        assert_eq!(wire.rest(), b"", "{fields:?}");
    }
}

fn a_head_that_stops_is_408() {
    let world = World::new();
    let relay = world.relay(&["--head-timeout", "1"]);
    let answer = relay.ask("GET / HTTP/1.1\r\nHost: h\r\n");
    assert_eq!(answer.status(), 408);
    is_well_formed("half a head", &answer);
}

fn a_busy_hidden_server_is_503_after_the_hold() {
    let world = World::new();
    let home = world.enrol("home", &[]);
    let relay = world.relay(&["--wait", "1"]);
    let mut hidden = world.waiting(&relay, &home, Below::Clear);
    let get = format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", basic(&home.id));
    let mut first = relay.open(Below::Clear);
    first.send(get.as_bytes());
    assert!(read_head(&mut hidden).starts_with(b"GET / "));
    let answer = relay.ask(&get);
    assert_eq!(answer.status(), 503);
    assert!(answer.field("retry-after").is_some(), "{answer:?}");
    is_well_formed("held for too long", &answer);
    relay.program.expect_exactly(lines::HELD, 1);
    drop(first);
}

fn a_hidden_server_that_ends_without_an_answer_is_502() {
    let world = World::new();
    let home = world.enrol("home", &[]);
    let relay = world.relay(&[]);
    let mut hidden = world.waiting(&relay, &home, Below::Clear);
    let mut client = relay.open(Below::Clear);
    client.send(
        format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n{}\r\nab", basic(&home.id)).as_bytes(),
    );
    assert!(read_head(&mut hidden).starts_with(b"POST / "));
    hidden.end();
    drop(hidden);
    let answer = Answer::read(&mut client);
    assert_eq!(answer.status(), 502);
    is_well_formed("unheard", &answer);
}

fn a_get_goes_to_the_next_hidden_server_instead() {
    let world = World::new();
    let home = world.enrol("home", &[]);
    let relay = world.relay(&[]);
    let mut older = world.waiting(&relay, &home, Below::Clear);
    let mut newer = world.waiting(&relay, &home, Below::Clear);
    let mut client = relay.open(Below::Clear);
    client.send(format!("GET /it HTTP/1.1\r\nHost: h\r\n{}\r\n", basic(&home.id)).as_bytes());
    let head = read_head(&mut newer);
    newer.end();
    drop(newer);
    assert_eq!(read_head(&mut older), head, "the same head");
    older.send(b"HTTP/1.1 204 No Content\r\n\r\n");
    assert_eq!(Answer::read_head(&mut client).status(), 204);
}

fn a_label_needs_no_challenge() {
    let world = World::new();
    let home = world.enrol("home", &["--label", "home"]);
    let relay = world.relay(&["--domain", "example.test"]);
    let service = Raw::start();
    let _agent = world.agent(&relay, &home, Below::Tls13, &["--to", &service.address.to_string()]);
    for host in ["home.example.test", "HOME.example.test:8443", &format!("{}.example.test", home.id)] {
        let head = format!("GET / HTTP/1.1\r\nHost: {host}\r\nAuthorization: Basic of-the-service\r\n\r\n");
        let mut client = relay.open(Below::Clear);
        client.send(head.as_bytes());
        let mut hidden = service.accept();
        let mut got = vec![0; head.len()];
        hidden.read_exact(&mut got).expect("the head arrives");
        assert_eq!(String::from_utf8_lossy(&got), head, "nothing is left out");
        // Without a response the request would go to the next waiting connection.
        hidden.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").expect("can write");
        assert_eq!(Answer::read_head(&mut client).status(), 204);
    }
}

fn a_removed_id_is_revoked_within_seconds() {
    let world = World::new();
    let home = world.enrol("home", &[]);
    let relay = world.relay(&["--wait", "0"]);
    let mut hidden = world.waiting(&relay, &home, Below::Tls13);
    let removed = crate::program::run(
        crate::world::rendezvous().args(["id", "remove", "home", "--state"]).arg(world.state()),
    );
    assert!(removed.status.success());
    relay.program.expect_line(lines::WAITING_ENDED);
    assert_eq!(hidden.rest(), b"");
    let token = "response=00000000000000000000000000000000&nonce=0123456789abcdef";
    assert_eq!(relay.ask(format!("CONNECT uuid:{}?{token} HTTP/1.1\r\n\r\n", home.id)).status(), 401);
}
