//! Serving clients.

use super::*;

/// A client's bytes arrive on the first waiting connection. Returns the connection to the local service.
fn take(harness: &mut Harness<Agent>, on: ConnId, bytes: &[u8], used: usize) -> ConnId {
    harness.actions();
    assert_eq!(harness.receive(on, bytes), used);
    let actions = harness.actions();
    assert!(asked(&actions, Output::Read { on, wanted: false }));
    let local = dials(&actions).into_iter().find(|(_, to)| *to != relay());
    local.unwrap_or_else(|| panic!("no service dialled: {actions:?}")).0
}

#[test]
fn the_local_service_is_dialled_when_a_client_comes_and_not_before() {
    let (mut harness, pool) = pool_of(agent());
    let local = take(&mut harness, pool[0], b"G", 0);
    assert_eq!(harness.receive(pool[0], GET), 0);
    harness.call(|agent, now| agent.handle_connected(local, now));
    let actions = harness.actions();
    assert!(asked(&actions, Output::UserTimeout { on: pool[0], after: None }));
    assert!(asked(&actions, Output::Pair { hidden: local, client: pool[0] }));
    let served = Event::Served { relay: pool[0], local, upstream: 0, stream: false };
    assert!(events(&actions).contains(&served));
    assert_eq!(harness.machine.pairs(), 1);
}

#[test]
fn bytes_behind_the_200_are_the_rendezvous_already() {
    let mut harness = agent();
    let (on, _) = one(&harness.actions());
    harness.call(|agent, now| agent.handle_connected(on, now));
    assert_eq!(harness.receive(on, &[OK, GET].concat()), OK.len());
    let dials = dials(&harness.actions());
    assert!(dials.iter().any(|(_, to)| *to == service()));
    assert_eq!(dials.iter().filter(|(_, to)| *to == relay()).count(), 4);
}

#[test]
fn a_service_that_is_down_is_a_502() {
    let (mut harness, pool) = pool_of(agent());
    let local = take(&mut harness, pool[0], GET, 0);
    harness.call(|agent, now| agent.handle_dial_failed(local, DialFailure::Refused, now));
    let actions = harness.actions();
    let text = sent(&actions, pool[0]);
    assert!(text.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{text}");
    assert!(text.contains("\r\nConnection: close\r\n"));
    assert!(text.contains(r#"{"error":{"permanent":false,"diagnostic":"#));
    assert!(asked(&actions, Output::Close { on: pool[0], how: Close::Linger }));
    let (what, why) = (Target::Service(0), DialFailure::Refused);
    assert!(events(&actions).contains(&Event::DialFailed { on: local, what, why, again: None }));
    assert!(dials(&actions).is_empty(), "the failure is not the relay's");
}

#[test]
fn a_client_of_an_agent_without_an_http_service_gets_502_and_nothing_is_dialled() {
    let (mut harness, pool) = pool_of(agent_with(|config| {
        config.upstreams[0].service = None;
        config.upstreams[0].stream = Some(service().into());
    }));
    harness.receive(pool[0], GET);
    let actions = harness.actions();
    let text = sent(&actions, pool[0]);
    assert!(text.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{text}");
    assert!(text.contains("no HTTP service"), "{text}");
    assert!(asked(&actions, Output::Close { on: pool[0], how: Close::Linger }));
    assert!(!dials(&actions).iter().any(|(_, to)| *to == service()));
}

#[test]
fn a_service_that_does_not_answer_is_a_502_after_ten_seconds_and_a_head_request_gets_no_body() {
    let (mut harness, pool) = pool_of(agent_with(|config| config.upstreams[0].pool = 1));
    take(&mut harness, pool[0], b"HEAD / HTTP/1.1\r\nHost: hidden\r\n\r\n", 0);
    harness.wait(Span::from_secs(10));
    let text = sent(&harness.actions(), pool[0]);
    assert!(text.starts_with("HTTP/1.1 502 Bad Gateway\r\n") && text.ends_with("\r\n\r\n"), "{text}");
}

#[test]
fn a_head_request_is_known_however_it_is_cut() {
    const HEAD: &[u8] = b"HEAD / HTTP/1.1\r\nHost: hidden\r\n\r\n";
    for first in 1..=HEAD.len() {
        let (mut harness, pool) = pool_of(agent());
        harness.actions();
        assert_eq!(harness.receive(pool[0], &HEAD[..first]), 0);
        let mut actions = harness.actions();
        assert!(dials(&actions).iter().any(|(_, to)| *to == relay()), "the next one is opened at once");
        if !dials(&actions).iter().any(|(_, to)| *to == service()) {
            assert!(first < 5, "{first}");
            harness.receive(pool[0], HEAD);
            actions = harness.actions();
        }
        let local = dials(&actions).into_iter().find(|(_, to)| *to == service()).unwrap().0;
        harness.call(|agent, now| agent.handle_dial_failed(local, DialFailure::Refused, now));
        let text = sent(&harness.actions(), pool[0]);
        assert!(text.starts_with("HTTP/1.1 502 ") && text.ends_with("\r\n\r\n"), "{first}: {text}");
    }
}

#[test]
fn what_may_become_a_head_request_is_waited_for_ten_seconds() {
    let (mut harness, pool) = pool_of(agent_with(|config| config.upstreams[0].pool = 1));
    harness.receive(pool[0], b"HEAD");
    let (next, _) = one(&harness.actions());
    accept(&mut harness, next);
    harness.wait(Span::from_secs(10));
    assert_eq!(one(&harness.actions()).1, service());
}

#[test]
fn a_service_with_two_addresses_is_reached_at_the_second() {
    let (mut harness, pool) = pool_of(agent_with(|config| {
        config.upstreams[0].service = Some(HostPort { host: Host::Name("localhost".into()), port: 8080 });
    }));
    harness.receive(pool[0], GET);
    let on = harness.actions().iter().find_map(|did| match did {
        Done::Asked(Output::Resolve { on, .. }) => Some(*on),
        _ => None,
    });
    let local = on.unwrap();
    harness.call(|agent, now| agent.handle_resolved(local, &[address(8, 8080), address(9, 8080)], now));
    let (local, to) = one(&harness.actions());
    assert_eq!(to, address(8, 8080));
    harness.call(|agent, now| agent.handle_dial_failed(local, DialFailure::Refused, now));
    let (local, to) = one(&harness.actions());
    assert_eq!(to, address(9, 8080));
    harness.call(|agent, now| agent.handle_connected(local, now));
    assert!(asked(&harness.actions(), Output::Pair { hidden: local, client: pool[0] }));
}

#[test]
fn a_client_that_goes_away_takes_the_dial_with_it() {
    let (mut harness, pool) = pool_of(agent());
    let local = take(&mut harness, pool[0], GET, 0);
    harness.call(|agent, now| agent.handle_end(pool[0], End::Reset, now));
    let actions = harness.actions();
    assert!(asked(&actions, Output::Close { on: local, how: Close::Abort }));
    assert!(asked(&actions, Output::Close { on: pool[0], how: Close::Abort }));
}

#[test]
fn a_half_close_of_either_side_is_passed_on() {
    let (mut harness, pool) = pool_of(agent());
    let (client, local) = (pool[0], take(&mut harness, pool[0], GET, 0));
    harness.call(|agent, now| agent.handle_connected(local, now));
    harness.call(|agent, now| agent.handle_moved(client, 30, 0, now));
    harness.actions();
    harness.call(|agent, now| agent.handle_end(client, End::Clean, now));
    assert!(asked(&harness.actions(), Output::CloseWrite { on: local }));
    harness.call(|agent, now| agent.handle_moved(local, 100, 0, now));
    harness.call(|agent, now| agent.handle_end(local, End::Clean, now));
    let actions = harness.actions();
    assert!(asked(&actions, Output::Close { on: client, how: Close::Linger }));
    let ended =
        |event: &Event| matches!(event, Event::PairEnded { id: ID, from_client: 30, from_hidden: 100, .. });
    assert!(events(&actions).iter().any(ended), "{actions:?}");
    assert_eq!(harness.machine.pairs(), 0);
}

mod stream {
    use super::*;

    fn with_stream(config: &mut Config) {
        config.upstreams[0].stream = Some(ssh().into());
    }

    #[test]
    fn a_connector_is_answered_101_and_taken_to_the_stream_service() {
        let (mut harness, pool) = pool_of(agent_with(with_stream));
        let on = pool[0];
        let bytes = [UPGRADE, b"SSH-2.0-x\r\n"].concat();
        harness.receive(on, &bytes[..20]);
        assert!(dials(&harness.actions()).iter().all(|(_, to)| *to == relay()));
        assert_eq!(harness.receive(on, &bytes), UPGRADE.len());
        let (local, to) = one(&harness.actions());
        assert_eq!(to, ssh());
        assert_eq!(sent(&harness.actions(), on), "");
        harness.call(|agent, now| agent.handle_connected(local, now));
        let actions = harness.actions();
        assert!(sent(&actions, on).starts_with("HTTP/1.1 101 Switching Protocols\r\n"));
        assert!(asked(&actions, Output::Pair { hidden: local, client: on }));
        assert!(events(&actions).contains(&Event::Served { relay: on, local, upstream: 0, stream: true }));
    }

    #[test]
    fn a_stream_service_that_is_down_is_a_502() {
        let (mut harness, pool) = pool_of(agent_with(with_stream));
        let local = take(&mut harness, pool[0], UPGRADE, UPGRADE.len());
        harness.call(|agent, now| agent.handle_dial_failed(local, DialFailure::Refused, now));
        let actions = harness.actions();
        assert!(sent(&actions, pool[0]).starts_with("HTTP/1.1 502 "));
        let (what, why) = (Target::Stream(0), DialFailure::Refused);
        assert!(events(&actions).contains(&Event::DialFailed { on: local, what, why, again: None }));
    }

    #[test]
    fn anything_else_goes_to_the_http_service_untouched() {
        let websocket = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        let endless = [b"GET / HTTP/1.1\r\nX: ".as_slice(), &[b'x'; 20_000]].concat();
        let nonsense = b"\x16\x03\x01\0\xee".as_slice();
        for bytes in [GET, websocket.as_slice(), &endless, nonsense] {
            let (mut harness, pool) = pool_of(agent_with(with_stream));
            take(&mut harness, pool[0], bytes, 0);
        }
    }

    #[test]
    fn a_head_that_never_ends_goes_to_the_http_service_after_ten_seconds() {
        let (mut harness, pool) = pool_of(agent_with(|config| {
            with_stream(config);
            config.upstreams[0].pool = 1;
        }));
        assert_eq!(harness.receive(pool[0], b"GET / HT"), 0);
        let (next, _) = one(&harness.actions());
        accept(&mut harness, next);
        harness.wait(Span::from_secs(10));
        assert_eq!(one(&harness.actions()).1, service());
    }

    #[test]
    fn without_a_stream_service_a_connector_is_the_http_services() {
        let (mut harness, pool) = pool_of(agent());
        take(&mut harness, pool[0], UPGRADE, 0);
    }
}

/// The maximum delay after unanswered clients.
const PAUSE_MAX: Span = Span::from_secs(4);

/// A relay that accepts every connection and brings a client on each.
struct Flood {
    harness: Harness<Agent>,
    opened: std::collections::VecDeque<ConnId>,
    /// The last connection to another relay.
    other: Option<ConnId>,
}

impl Flood {
    fn new(harness: Harness<Agent>) -> Self {
        let mut flood = Self { harness, opened: std::collections::VecDeque::new(), other: None };
        flood.actions();
        flood
    }

    /// The outputs since the last call; connections to the relay must be accepted.
    fn actions(&mut self) -> Vec<Done> {
        let actions = self.harness.actions();
        for (on, to) in dials(&actions) {
            match to.port() {
                80 => self.opened.push_back(on),
                8443 => self.other = Some(on),
                _ => {}
            }
        }
        actions
    }

    /// A client comes, if necessary after the agent's delay. Returns its connection, and the agent's outputs.
    fn bring(&mut self, bytes: &[u8]) -> (ConnId, Vec<Done>) {
        if self.opened.is_empty() {
            self.harness.wait(PAUSE_MAX);
            self.actions();
        }
        let on = self.opened.pop_front().expect("the agent opens connections as they are taken");
        accept(&mut self.harness, on);
        self.actions();
        self.harness.receive(on, bytes);
        (on, self.actions())
    }
}

/// The connection on which a local service is dialled.
fn service_dial(actions: &[Done]) -> Option<ConnId> {
    dials(actions).into_iter().find(|(_, to)| *to == service() || *to == ssh()).map(|(on, _)| on)
}

#[test]
fn clients_above_an_upstream_s_limit_get_503_with_the_reason() {
    let mut flood = Flood::new(agent_with(|config| config.service_connections_max = 10));
    let mut locals = Vec::new();
    for _ in 0..20 {
        let (on, actions) = flood.bring(GET);
        if let Some(local) = service_dial(&actions) {
            locals.push((on, local));
            continue;
        }
        assert_eq!(locals.len(), 5, "two connections for each client");
        let text = sent(&actions, on);
        assert!(text.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{text}");
        assert!(text.contains("\r\nRetry-After: ") && text.contains("as many clients"), "{text}");
        assert!(asked(&actions, Output::Close { on, how: Close::Linger }));
        let why = "the hidden server's agent serves as many clients as it can";
        assert!(events(&actions).contains(&Event::ClientRefused { on, from: None, id: ID, why }));
    }
    // Both the end of a pair and a failed service free capacity.
    let (on, local) = locals[0];
    flood.harness.call(|agent, now| agent.handle_connected(local, now));
    assert_eq!(flood.harness.machine.pairs(), 1);
    flood.harness.call(|agent, now| agent.handle_end(on, End::Reset, now));
    assert!(service_dial(&flood.bring(GET).1).is_some());
    assert!(service_dial(&flood.bring(GET).1).is_none());
    flood.harness.call(|agent, now| agent.handle_dial_failed(locals[1].1, DialFailure::Refused, now));
    assert!(service_dial(&flood.bring(GET).1).is_some());
}

#[test]
fn the_clients_of_one_upstream_leave_those_of_another_alone() {
    let mut flood = Flood::new(agent_with(|config| {
        config.service_connections_max = 100;
        let mut other = upstream();
        (other.id, other.pool) = (Id(7), 1);
        other.relay.place = address(9, 8443).into();
        config.upstreams.push(other);
    }));
    let other = flood.other;
    let served = (0..70).filter(|_| service_dial(&flood.bring(GET).1).is_some()).count();
    assert_eq!(served, 50);
    let other = other.expect("the second upstream's connection");
    accept(&mut flood.harness, other);
    flood.actions();
    flood.harness.receive(other, GET);
    assert!(service_dial(&flood.actions()).is_some());
}

#[test]
fn a_burst_of_clients_is_served_without_delay_however_short_their_requests_are() {
    let mut flood = Flood::new(agent());
    for _ in 0..2_000 {
        let (on, actions) = flood.bring(GET);
        let local = service_dial(&actions).expect("dialled at once");
        flood.harness.call(|agent, now| agent.handle_connected(local, now));
        flood.harness.call(|agent, now| agent.handle_moved(on, 30, 0, now));
        flood.harness.call(|agent, now| agent.handle_moved(local, 100, 0, now));
        flood.harness.call(|agent, now| agent.handle_end(local, End::Clean, now));
        flood.harness.call(|agent, now| agent.handle_end(on, End::Clean, now));
        flood.actions();
    }
    assert_eq!(flood.harness.machine.pairs(), 0);
}

#[test]
fn an_agent_without_descriptors_answers_503_and_not_that_the_service_is_down() {
    let (mut harness, pool) = pool_of(agent());
    let local = take(&mut harness, pool[0], GET, 0);
    harness.call(|agent, now| agent.handle_dial_failed(local, DialFailure::Local, now));
    let text = sent(&harness.actions(), pool[0]);
    assert!(text.starts_with("HTTP/1.1 503 ") && text.contains("descriptors"), "{text}");
}
