//! A local service with TLS.

use rendezvous_core::proxy_header::Version;

use super::*;

/// The service's number in the driver's list.
const NUMBER: u16 = 7;
const ROLE: TlsRole = TlsRole::Client { upstream: NUMBER };

fn with_tls(config: &mut Config) {
    config.upstreams[0].service_tls = Some(NUMBER);
}

/// A client came, and the connection to the service is established.
fn met(harness: &mut Harness<Agent>, pool: &[ConnId], request: &[u8]) -> (ConnId, ConnId) {
    harness.actions();
    harness.receive(pool[0], request);
    let local = dials(&harness.actions()).into_iter().find(|(_, to)| *to == service()).unwrap().0;
    harness.call(|agent, now| agent.handle_connected(local, now));
    (pool[0], local)
}

fn start_tls(on: ConnId) -> Output {
    Output::StartTls { on, role: ROLE }
}

#[test]
fn the_pair_begins_behind_the_handshake() {
    let (mut harness, pool) = pool_of(agent_with(with_tls));
    let (relay, local) = met(&mut harness, &pool, GET);
    let actions = harness.actions();
    let pair = Output::Pair { hidden: local, client: relay };
    assert!(asked(&actions, start_tls(local)) && !asked(&actions, pair.clone()), "{actions:?}");
    harness.call(|agent, now| agent.handle_secured(local, Secured::default(), now));
    assert!(asked(&harness.actions(), pair));
}

#[test]
fn a_failed_handshake_is_502_and_says_why() {
    for why in [TlsFailure::Certificate, TlsFailure::Ended, TlsFailure::Protocol] {
        let (mut harness, pool) = pool_of(agent_with(with_tls));
        let (relay, local) = met(&mut harness, &pool, GET);
        harness.actions();
        harness.call(|agent, now| agent.handle_tls_failed(local, why, now));
        let actions = harness.actions();
        assert!(sent(&actions, relay).starts_with("HTTP/1.1 502 "), "{actions:?}");
        assert!(events(&actions).contains(&Event::ServiceTlsFailed { on: local, upstream: 0, why }));
        assert!(asked(&actions, Output::Close { on: local, how: Close::Abort }));
        assert!(asked(&actions, Output::Close { on: relay, how: Close::Linger }));
        assert_eq!(harness.machine.waiting(0), 3, "the relay has done nothing wrong");
    }
}

#[test]
fn a_handshake_that_ends_or_takes_too_long_is_502() {
    for how in [Some(End::Clean), Some(End::Reset), None] {
        let (mut harness, pool) = pool_of(agent_with(with_tls));
        let (relay, local) = met(&mut harness, &pool, GET);
        match how {
            Some(how) => harness.call(|agent, now| agent.handle_end(local, how, now)),
            None => harness.wait(Span::from_secs(10)),
        }
        assert!(sent(&harness.actions(), relay).starts_with("HTTP/1.1 502 "), "{how:?}");
    }
}

#[test]
fn the_proxy_header_is_sent_in_clear_before_the_handshake() {
    let (mut harness, pool) = pool_of(agent_with(|config| {
        with_tls(config);
        config.send_proxy = Some(Version::V1);
    }));
    let (relay, local) = met(&mut harness, &pool, GET);
    let actions = harness.actions();
    assert_eq!(sent(&actions, local), "PROXY UNKNOWN\r\n");
    assert!(!asked(&actions, start_tls(local)), "it is not in the socket yet");
    harness.call(|agent, now| agent.handle_flushed(local, now));
    assert!(asked(&harness.actions(), start_tls(local)));
    harness.call(|agent, now| agent.handle_secured(local, Secured::default(), now));
    let actions = harness.actions();
    assert_eq!(sent(&actions, local), "", "it is sent once");
    assert!(asked(&actions, Output::Pair { hidden: local, client: relay }));
}

#[test]
fn a_client_that_goes_away_in_the_handshake_ends_it() {
    let (mut harness, pool) = pool_of(agent_with(with_tls));
    let (relay, local) = met(&mut harness, &pool, GET);
    harness.call(|agent, now| agent.handle_end(relay, End::Reset, now));
    assert!(asked(&harness.actions(), Output::Close { on: local, how: Close::Abort }));
}

#[test]
fn a_stream_service_beside_it_stays_in_clear() {
    let (mut harness, pool) = pool_of(agent_with(|config| {
        with_tls(config);
        config.upstreams[0].stream = Some(ssh().into());
    }));
    harness.receive(pool[0], UPGRADE);
    let local = dials(&harness.actions()).into_iter().find(|(_, to)| *to == ssh()).unwrap().0;
    harness.call(|agent, now| agent.handle_connected(local, now));
    assert!(asked(&harness.actions(), Output::Pair { hidden: local, client: pool[0] }));
}
