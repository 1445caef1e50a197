//! A local service that speaks TLS.

use rendezvous_core::proxy_header::Version;

use super::*;

/// What the shell's list has for the service.
const NUMBER: u16 = 7;
const ROLE: TlsRole = TlsRole::Client { upstream: NUMBER };

fn with_tls(config: &mut Config) {
    config.upstreams[0].service_tls = Some(NUMBER);
}

/// A client came, and the connection to the service is up.
fn met(rig: &mut Rig<Agent>, pool: &[ConnId], request: &[u8]) -> (ConnId, ConnId) {
    rig.news();
    rig.hears(pool[0], request);
    let local = dials(&rig.news()).into_iter().find(|(_, to)| *to == service()).unwrap().0;
    rig.tell(|agent, now| agent.handle_connected(local, now));
    (pool[0], local)
}

fn start_tls(on: ConnId) -> Output {
    Output::StartTls { on, role: ROLE }
}

#[test]
fn the_pair_begins_behind_the_handshake() {
    let (mut rig, pool) = pool_of(agent_with(with_tls));
    let (relay, local) = met(&mut rig, &pool, GET);
    let news = rig.news();
    let pair = Output::Pair { hidden: local, client: relay };
    assert!(asked(&news, start_tls(local)) && !asked(&news, pair.clone()), "{news:?}");
    rig.tell(|agent, now| agent.handle_secured(local, Secured::default(), now));
    assert!(asked(&rig.news(), pair));
}

#[test]
fn a_failed_handshake_is_502_and_says_why() {
    for why in [TlsFailure::Certificate, TlsFailure::Ended, TlsFailure::Protocol] {
        let (mut rig, pool) = pool_of(agent_with(with_tls));
        let (relay, local) = met(&mut rig, &pool, GET);
        rig.news();
        rig.tell(|agent, now| agent.handle_tls_failed(local, why, now));
        let news = rig.news();
        assert!(sent(&news, relay).starts_with("HTTP/1.1 502 "), "{news:?}");
        assert!(notes(&news).contains(&Note::ServiceTlsFailed { on: local, upstream: 0, why }));
        assert!(asked(&news, Output::Close { on: local, how: Close::Abort }));
        assert!(asked(&news, Output::Close { on: relay, how: Close::Linger }));
        assert_eq!(rig.machine.waiting(0), 3, "the relay has done nothing wrong");
    }
}

#[test]
fn a_handshake_that_ends_or_takes_too_long_is_502() {
    for how in [Some(End::Clean), Some(End::Reset), None] {
        let (mut rig, pool) = pool_of(agent_with(with_tls));
        let (relay, local) = met(&mut rig, &pool, GET);
        match how {
            Some(how) => rig.tell(|agent, now| agent.handle_end(local, how, now)),
            None => rig.wait(Span::from_secs(10)),
        }
        assert!(sent(&rig.news(), relay).starts_with("HTTP/1.1 502 "), "{how:?}");
    }
}

#[test]
fn the_proxy_header_is_sent_in_clear_before_the_handshake() {
    let (mut rig, pool) = pool_of(agent_with(|config| {
        with_tls(config);
        config.send_proxy = Some(Version::V1);
    }));
    let (relay, local) = met(&mut rig, &pool, GET);
    let news = rig.news();
    assert_eq!(sent(&news, local), "PROXY UNKNOWN\r\n");
    assert!(!asked(&news, start_tls(local)), "it is not in the socket yet");
    rig.tell(|agent, now| agent.handle_flushed(local, now));
    assert!(asked(&rig.news(), start_tls(local)));
    rig.tell(|agent, now| agent.handle_secured(local, Secured::default(), now));
    let news = rig.news();
    assert_eq!(sent(&news, local), "", "it is sent once");
    assert!(asked(&news, Output::Pair { hidden: local, client: relay }));
}

#[test]
fn a_client_that_goes_away_in_the_handshake_ends_it() {
    let (mut rig, pool) = pool_of(agent_with(with_tls));
    let (relay, local) = met(&mut rig, &pool, GET);
    rig.tell(|agent, now| agent.handle_end(relay, End::Reset, now));
    assert!(asked(&rig.news(), Output::Close { on: local, how: Close::Abort }));
}

#[test]
fn a_stream_service_beside_it_stays_in_clear() {
    let (mut rig, pool) = pool_of(agent_with(|config| {
        with_tls(config);
        config.upstreams[0].stream = Some(ssh().into());
    }));
    rig.hears(pool[0], UPGRADE);
    let local = dials(&rig.news()).into_iter().find(|(_, to)| *to == ssh()).unwrap().0;
    rig.tell(|agent, now| agent.handle_connected(local, now));
    assert!(asked(&rig.news(), Output::Pair { hidden: local, client: pool[0] }));
}
