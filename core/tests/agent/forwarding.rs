//! Forwarding fields in every request of a connection.

use rendezvous_core::machine::PASS_ALL;
use rendezvous_core::proxy_header::{Version, write};

use super::*;

const CLIENT: &str = "198.51.100.7:40000";
const FIELDS: &str = "X-Forwarded-For: 198.51.100.7\r\nX-Forwarded-Host: hidden\r\nX-Forwarded-Proto: http\r\n\
                      Forwarded: for=198.51.100.7;host=hidden;proto=http\r\n\r\n";
const FORGED: &str =
    "GET /2 HTTP/1.1\r\nHost: hidden\r\nX_Forwarded_For: 192.0.2.9\r\nForwarded: for=x\r\n\r\n";
const DONE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: hidden\r\n\r\n")
}

fn request_line(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: hidden\r\n{FIELDS}")
}

/// One direction of a gated pair, as a driver has it.
#[derive(Default)]
struct Half {
    /// Bytes that were received, and neither consumed nor moved.
    kept: Vec<u8>,
    passes: u64,
    /// Whether `kept` must be offered.
    is_fresh: bool,
    /// What the other side has received.
    got: Vec<u8>,
}

pub(crate) struct Gated {
    pub(crate) harness: Harness<Agent>,
    pub(crate) relay: ConnId,
    pub(crate) local: ConnId,
    client: Half,
    service: Half,
    pub(crate) closed: Vec<(ConnId, Close)>,
    events: Vec<Event>,
}

fn forwarding() -> Harness<Agent> {
    agent_with(|config| config.forwarded = true)
}

fn proxy_header(source: Option<&str>) -> Vec<u8> {
    let mut header = Vec::new();
    write(Version::V2, source.map(|it| it.parse().unwrap()), &mut header);
    header
}

impl Gated {
    /// A pair whose client has sent this, after the relay's PROXY header.
    pub(crate) fn new(harness: Harness<Agent>, source: Option<&str>, first: &str) -> Self {
        let (mut harness, pool) = pool_of(harness);
        let header = proxy_header(source);
        harness.actions();
        let used = harness.receive(pool[0], &[&header, first.as_bytes()].concat());
        assert_eq!(used, header.len(), "the request stays until the service is reached");
        let (local, _) =
            dials(&harness.actions()).into_iter().find(|(_, to)| *to == service()).expect("a dial");
        harness.call(|agent, now| agent.handle_connected(local, now));
        let mut gated = Self {
            harness,
            relay: pool[0],
            local,
            client: Half { kept: first.as_bytes().to_vec(), ..Half::default() },
            service: Half::default(),
            closed: Vec::new(),
            events: Vec::new(),
        };
        gated.work();
        gated
    }

    pub(crate) fn client(&mut self, text: &str) {
        self.client.kept.extend_from_slice(text.as_bytes());
        self.client.is_fresh = true;
        self.work();
    }

    pub(crate) fn service(&mut self, text: &str) {
        self.service.kept.extend_from_slice(text.as_bytes());
        self.service.is_fresh = true;
        self.work();
    }

    /// Carries out the agent's outputs until nothing is left to do.
    pub(crate) fn work(&mut self) {
        loop {
            self.perform();
            let (relay, local) = (self.relay, self.local);
            let moves = [(relay, &mut self.client), (local, &mut self.service)];
            let mut offer = None;
            let mut moved = None;
            for (on, half) in moves {
                if self.closed.iter().any(|(closed, _)| [relay, local].contains(closed)) {
                    return;
                }
                let len = usize::try_from(half.passes).unwrap_or(usize::MAX).min(half.kept.len());
                if len > 0 {
                    half.got.extend(half.kept.drain(..len));
                    half.passes = if half.passes == PASS_ALL { PASS_ALL } else { half.passes - len as u64 };
                    half.is_fresh |= half.passes == 0;
                    moved = Some((on, u32::try_from(len).unwrap()));
                } else if half.passes == 0 && std::mem::take(&mut half.is_fresh) && !half.kept.is_empty() {
                    offer = Some((on, half.kept.clone()));
                } else {
                    continue;
                }
                break;
            }
            if let Some((on, len)) = moved {
                self.harness.call(|agent, now| agent.handle_moved(on, len, 0, now));
            } else if let Some((on, kept)) = offer {
                let used = self.harness.receive(on, &kept);
                self.half(on).kept.drain(..used);
            } else {
                return;
            }
        }
    }

    fn half(&mut self, on: ConnId) -> &mut Half {
        if on == self.relay { &mut self.client } else { &mut self.service }
    }

    fn perform(&mut self) {
        for did in self.harness.actions() {
            match did {
                Done::Sent(to, text) if to == self.local => self.client.got.extend(text),
                Done::Sent(to, text) if to == self.relay => self.service.got.extend(text),
                Done::Asked(Output::Pass { from, bytes }) => {
                    let half = self.half(from);
                    half.passes = half.passes.saturating_add(bytes);
                }
                Done::Asked(Output::Gate { on } | Output::Read { on, wanted: true }) => {
                    self.half(on).is_fresh = true;
                }
                Done::Asked(Output::Close { on, how }) if [self.relay, self.local].contains(&on) => {
                    self.closed.push((on, how));
                }
                Done::Asked(Output::Event(event)) => self.events.push(event),
                _ => {}
            }
        }
    }

    /// What the service has received.
    pub(crate) fn to_service(&self) -> String {
        String::from_utf8_lossy(&self.client.got).into_owned()
    }

    /// What the client has received.
    pub(crate) fn to_client(&self) -> String {
        String::from_utf8_lossy(&self.service.got).into_owned()
    }

    pub(crate) fn is_closed(&self) -> bool {
        !self.closed.is_empty()
    }
}

#[test]
fn the_relay_is_asked_for_addresses() {
    let mut harness = forwarding();
    let (on, _) = one(&harness.actions());
    harness.call(|agent, now| agent.handle_connected(on, now));
    assert!(sent(&harness.actions(), on).contains("\r\nPROXY-Protocol: v2\r\n"));
}

#[test]
fn every_request_of_a_connection_gets_the_fields() {
    let mut gated = Gated::new(forwarding(), Some(CLIENT), &get("/1"));
    assert_eq!(gated.to_service(), request_line("/1"));
    gated.service(DONE);
    gated.client(FORGED);
    gated.service(DONE);
    gated.client(&get("/3"));
    assert_eq!(gated.to_service(), request_line("/1") + &request_line("/2") + &request_line("/3"));
    assert_eq!(gated.to_client(), DONE.repeat(2));
    assert!(!gated.is_closed());
}

#[test]
fn so_does_every_pipelined_request_behind_a_body() {
    let post = "POST /1 HTTP/1.1\r\nHost: hidden\r\nContent-Length: 27\r\n\r\n";
    // The body looks like a request.
    let body = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let chunked = "POST /2 HTTP/1.1\r\nHost: hidden\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunks = "3\r\nabc\r\n0\r\nX: y\r\n\r\n";
    let all = format!("{post}{body}{chunked}{chunks}{FORGED}");
    let head = |head: &str| format!("{}{FIELDS}", head.strip_suffix("\r\n").unwrap());
    let expected = format!("{}{body}{}{chunks}{}", head(post), head(chunked), request_line("/2"));
    let gated = Gated::new(forwarding(), Some(CLIENT), &all);
    assert_eq!(gated.to_service(), expected);
    // Byte by byte.
    let (first, rest) = all.split_at(post.len());
    let mut gated = Gated::new(forwarding(), Some(CLIENT), first);
    for byte in rest.chars() {
        gated.client(&byte.to_string());
    }
    assert_eq!(gated.to_service(), expected);
}

#[test]
fn without_an_address_the_client_is_unknown() {
    let gated = Gated::new(forwarding(), None, &get("/"));
    assert!(gated.to_service().contains("\r\nForwarded: for=unknown;host=hidden;proto=http\r\n"));
    assert!(!gated.to_service().contains("X-Forwarded-For"));
}

#[test]
fn the_scheme_is_that_of_the_relay() {
    let harness = agent_with(|config| {
        config.forwarded = true;
        config.upstreams[0].relay.tls = true;
        config.upstreams[0].pool = 1;
    });
    let mut harness = harness;
    let (on, _) = one(&harness.actions());
    harness.call(|agent, now| agent.handle_connected(on, now));
    harness.call(|agent, now| agent.handle_secured(on, Secured::default(), now));
    assert_eq!(harness.receive(on, OK), OK.len());
    let header = proxy_header(Some(CLIENT));
    harness.actions();
    assert_eq!(harness.receive(on, &[&header, GET].concat()), header.len());
    let (local, _) = dials(&harness.actions()).into_iter().find(|(_, to)| *to == service()).expect("a dial");
    harness.call(|agent, now| agent.handle_connected(local, now));
    assert_eq!(harness.receive(on, GET), GET.len());
    assert!(sent(&harness.actions(), local).contains("X-Forwarded-Proto: https\r\n"));
}

#[test]
fn a_web_socket_passes_after_the_101_alone() {
    let upgrade = "GET /ws HTTP/1.1\r\nHost: hidden\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let told_upgrade = format!("{}{FIELDS}", upgrade.strip_suffix("\r\n").unwrap());
    let mut gated = Gated::new(forwarding(), Some(CLIENT), upgrade);
    gated.client("frames");
    assert_eq!(gated.to_service(), told_upgrade);
    gated
        .service("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nmore");
    gated.client(FORGED);
    assert_eq!(gated.to_service(), format!("{told_upgrade}frames{FORGED}"));
    assert!(gated.to_client().ends_with("\r\n\r\nmore"));

    let mut gated = Gated::new(forwarding(), Some(CLIENT), upgrade);
    gated.client(FORGED);
    gated.service(DONE);
    assert_eq!(gated.to_service(), told_upgrade + &request_line("/2"));
}

#[test]
fn h2c_is_not_offered_to_the_service() {
    let upgrade = "GET /2 HTTP/1.1\r\nHost: hidden\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
                   HTTP2-Settings: x\r\n\r\n";
    let mut gated = Gated::new(forwarding(), Some(CLIENT), upgrade);
    gated.client(&get("/3"));
    assert_eq!(gated.to_service(), request_line("/2") + &request_line("/3"));
}

#[test]
fn a_first_request_that_is_not_http_is_answered_without_the_service() {
    for (first, status) in [
        ("GET / HTTP/1.1\nHost: a\n\n", "400"),
        ("GET / HTTP/1.1\r\n\r\n", "400"),
        ("CONNECT a:1 HTTP/1.1\r\n\r\n", "400"),
        ("PRI * HTTP/2.0\r\n\r\n", "505"),
        ("\x16\x03\x01", "400"),
        ("HEAD / HTTP/1.1\r\n\r\n", "400"),
    ] {
        let (mut harness, pool) = pool_of(forwarding());
        let header = proxy_header(Some(CLIENT));
        harness.receive(pool[0], &[&header, first.as_bytes()].concat());
        let actions = harness.actions();
        let answer = sent(&actions, pool[0]);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{first:?}");
        assert_eq!(answer.ends_with("\r\n\r\n"), first.starts_with("HEAD "), "{answer}");
        assert!(asked(&actions, Output::Close { on: pool[0], how: Close::Linger }), "{first:?}");
        assert!(dials(&actions).iter().all(|(_, to)| *to != service()), "{first:?}");
    }
}

#[test]
fn a_later_request_that_is_not_http_is_answered_in_its_turn() {
    for later in ["GET / HTTP/1.1\nX-Forwarded-For: 1\n\n", "\x16\x03\x01", "CONNECT a:1 HTTP/1.1\r\n\r\n"] {
        let mut gated = Gated::new(forwarding(), Some(CLIENT), &get("/1"));
        gated.client(later);
        assert_eq!((gated.to_service(), gated.to_client()), (request_line("/1"), String::new()), "{later:?}");
        gated.service(&DONE[..DONE.len() - 1]);
        assert!(!gated.is_closed(), "{later:?}");
        gated.service("k");
        let answer = gated.to_client();
        assert!(answer.starts_with(&format!("{DONE}HTTP/1.1 400 Bad Request\r\n")), "{answer}");
        assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
        assert_eq!(gated.to_service(), request_line("/1"), "{later:?}");
        assert_eq!(gated.closed, [(gated.local, Close::Linger), (gated.relay, Close::Linger)]);
    }
}

#[test]
fn the_answer_to_a_later_request_has_the_form_that_its_client_prefers() {
    for (method, accept, kind) in [
        ("GET", "text/html", "text/html"),
        ("HEAD", "text/html", "text/html"),
        ("HEAD", "*/*", "application/json"),
    ] {
        let mut gated = Gated::new(forwarding(), Some(CLIENT), &get("/1"));
        gated.service(DONE);
        let request =
            format!("{method} /2 HTTP/1.1\r\nHost: hidden\r\nAccept: {accept}\r\nExpect: x\r\n\r\n");
        gated.client(&request);
        let answer = gated.to_client();
        let (head, body) =
            answer.strip_prefix(DONE).and_then(|it| it.split_once("\r\n\r\n")).expect("a head");
        assert!(
            head.starts_with("HTTP/1.1 400 ") && head.contains(&format!("Content-Type: {kind}")),
            "{head}"
        );
        assert_eq!(body.is_empty(), method == "HEAD", "{body}");
    }
}

#[test]
fn a_malformed_chunk_or_trailer_is_answered_and_the_service_sees_a_cut() {
    let post = "POST /1 HTTP/1.1\r\nHost: hidden\r\nTransfer-Encoding: chunked\r\n\r\n";
    for wrong in ["x\r\n", "1\r\nabc", "0\r\nX-Forwarded-For: 1\r\n\r\n", "0\r\nContent-Length: 1\r\n\r\n"] {
        let mut gated = Gated::new(forwarding(), Some(CLIENT), post);
        gated.client(wrong);
        assert!(gated.to_client().starts_with("HTTP/1.1 400 Bad Request\r\n"), "{wrong:?}");
        assert!(
            !gated.to_service().contains("0\r\n\r\n") && !gated.to_service().contains("For: 1\r\n"),
            "{wrong:?}"
        );
        assert_eq!(gated.closed, [(gated.local, Close::Truncate), (gated.relay, Close::Linger)]);
    }
}

#[test]
fn half_a_head_has_to_become_a_whole_one_in_time() {
    let (mut harness, pool) = pool_of(forwarding());
    harness.receive(pool[0], &[&proxy_header(Some(CLIENT)), &GET[..9]].concat());
    harness.wait(Span::from_secs(10));
    assert!(sent(&harness.actions(), pool[0]).starts_with("HTTP/1.1 408 "));

    let mut gated = Gated::new(forwarding(), Some(CLIENT), &get("/1"));
    gated.service(DONE);
    // Between two requests there is time.
    gated.harness.wait(Span::from_secs(60));
    gated.client("GET /2");
    gated.harness.wait(Span::from_secs(9));
    gated.client(" HTTP/1.1\r\n");
    assert!(!gated.is_closed());
    gated.harness.wait(Span::from_secs(1));
    gated.work();
    assert!(gated.to_client().starts_with(&format!("{DONE}HTTP/1.1 408 ")), "{}", gated.to_client());
    assert_eq!(gated.closed, [(gated.local, Close::Linger), (gated.relay, Close::Linger)]);
    assert_eq!(gated.to_service(), request_line("/1"));
}

#[test]
fn half_a_head_at_the_end_is_not_forwarded() {
    let mut gated = Gated::new(forwarding(), Some(CLIENT), &get("/1"));
    gated.client("GET /2 HT");
    let relay = gated.relay;
    gated.harness.call(|agent, now| agent.handle_last_bytes(relay, now));
    gated.work();
    // The end can be reported: nothing is kept.
    assert!(gated.client.kept.is_empty());
    gated.harness.call(|agent, now| agent.handle_end(relay, End::Clean, now));
    gated.service(DONE);
    assert_eq!(gated.to_service(), request_line("/1"));
    assert!(gated.to_client().starts_with(DONE));
}

#[test]
fn the_last_bytes_of_the_service_reach_the_client() {
    let mut gated = Gated::new(forwarding(), Some(CLIENT), &get("/1"));
    gated.service("HTTP/1.1 200 OK\r\nX-Half");
    assert_eq!(gated.to_client(), "");
    let local = gated.local;
    gated.harness.call(|agent, now| agent.handle_last_bytes(local, now));
    gated.work();
    assert_eq!(gated.to_client(), "HTTP/1.1 200 OK\r\nX-Half");
}

#[test]
fn a_response_without_a_length_passes_to_its_end() {
    let mut gated = Gated::new(forwarding(), Some(CLIENT), &get("/1"));
    gated.service("HTTP/1.1 200 OK\r\n\r\nbody");
    gated.client(FORGED);
    gated.service("HTTP/1.1 body");
    assert_eq!(gated.to_client(), "HTTP/1.1 200 OK\r\n\r\nbodyHTTP/1.1 body");
    assert_eq!(gated.to_service(), request_line("/1") + &request_line("/2"));
}

#[test]
fn after_the_last_exchange_the_pair_ends() {
    let mut gated = Gated::new(forwarding(), Some(CLIENT), &get("/1"));
    gated.service("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
    assert!(gated.to_client().ends_with("\r\n\r\nok"));
    assert_eq!(gated.closed, [(gated.local, Close::Linger), (gated.relay, Close::Linger)]);
    // The client waited to be asked for the body, and was answered: whether it sends the body is unknown.
    let expecting = "POST /1 HTTP/1.1\r\nHost: hidden\r\nExpect: 100-continue\r\nContent-Length: 400\r\n\r\n";
    let mut gated = Gated::new(forwarding(), Some(CLIENT), expecting);
    gated.service(DONE);
    gated.client(FORGED);
    assert!(gated.is_closed() && !gated.to_service().contains("/2"));
}

#[test]
fn streams_are_left_alone() {
    let harness = agent_with(|config| {
        config.forwarded = true;
        config.upstreams[0].stream = Some(ssh().into());
    });
    let (mut harness, pool) = pool_of(harness);
    let header = proxy_header(Some(CLIENT));
    harness.actions();
    assert_eq!(harness.receive(pool[0], &[&header, UPGRADE].concat()), header.len() + UPGRADE.len());
    let (local, to) = dials(&harness.actions()).into_iter().find(|(_, to)| *to != relay()).expect("a dial");
    assert_eq!(to, ssh());
    harness.call(|agent, now| agent.handle_connected(local, now));
    let actions = harness.actions();
    assert!(asked(&actions, Output::Pair { hidden: local, client: pool[0] }));
    assert!(!actions.iter().any(|did| matches!(did, Done::Asked(Output::Gate { .. }))));
}

#[test]
fn a_proxy_header_can_come_in_front() {
    let harness = agent_with(|config| {
        config.forwarded = true;
        config.send_proxy = Some(Version::V1);
    });
    let gated = Gated::new(harness, Some(CLIENT), &get("/1"));
    let header = "PROXY TCP4 198.51.100.7 0.0.0.0 40000 0\r\n";
    assert_eq!(gated.to_service(), format!("{header}{}", request_line("/1")));
}
