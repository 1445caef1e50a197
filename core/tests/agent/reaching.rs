//! The way to the relay.

use super::*;

fn named(config: &mut Config) {
    config.upstreams[0].relay = Relay {
        place: HostPort { host: Host::Name("relay.example".into()), port: 8443 },
        tls: true,
        host_header: "relay.example:8443".into(),
    };
}

fn resolve(rig: &mut Rig<Agent>) -> ConnId {
    let news = rig.news();
    let resolve = news.iter().find_map(|did| match did {
        Did::Asked(Output::Resolve { on, host, port: 8443 }) if host == "relay.example" => Some(*on),
        _ => None,
    });
    resolve.unwrap_or_else(|| panic!("no look-up in {news:?}"))
}

#[test]
fn a_name_is_looked_up_dialled_secured_and_only_then_spoken_to() {
    let mut rig = agent_with(named);
    let on = resolve(&mut rig);
    rig.tell(|agent, now| agent.handle_resolved(on, &[address(1, 8443)], now));
    assert_eq!(one(&rig.news()), (on, address(1, 8443)));
    rig.tell(|agent, now| agent.handle_connected(on, now));
    let role = TlsRole::Client { upstream: 0 };
    assert_eq!(rig.news(), [Did::Asked(Output::StartTls { on, role })]);
    rig.tell(|agent, now| agent.handle_secured(on, Secured::default(), now));
    assert!(sent(&rig.news(), on).contains("Host: relay.example:8443\r\n"));
}

/// An agent whose relay has these addresses, and the first dial.
fn dialling(addresses: &[SocketAddr]) -> (Rig<Agent>, ConnId) {
    let mut rig = agent_with(named);
    let on = resolve(&mut rig);
    rig.tell(|agent, now| agent.handle_resolved(on, addresses, now));
    let (on, to) = one(&rig.news());
    assert_eq!(to, addresses[0]);
    (rig, on)
}

fn secure(rig: &mut Rig<Agent>, on: ConnId) {
    rig.tell(|agent, now| agent.handle_connected(on, now));
    rig.tell(|agent, now| agent.handle_secured(on, Secured::default(), now));
}

/// The next attempt's first dial.
fn next_dial(rig: &mut Rig<Agent>, addresses: &[SocketAddr]) -> (ConnId, SocketAddr) {
    let on = resolve(rig);
    rig.tell(|agent, now| agent.handle_resolved(on, addresses, now));
    one(&rig.news())
}

#[test]
fn the_addresses_are_dialled_in_turn_and_the_one_that_was_reached_goes_first_the_next_time() {
    let all = [address(1, 8443), address(2, 8443), address(3, 8443)];
    let (mut rig, first) = dialling(&all);
    rig.tell(|agent, now| agent.handle_dial_failed(first, DialFailure::Refused, now));
    let (second, to) = one(&rig.news());
    assert_eq!(to, all[1]);
    // No answer yet: the next one is tried beside it.
    assert_eq!(rig.wait_for_deadline(), Span::from_millis(250));
    let (on, to) = one(&rig.news());
    assert_eq!(to, all[2]);
    rig.tell(|agent, now| agent.handle_connected(on, now));
    rig.news();
    rig.tell(|agent, now| agent.handle_secured(on, Secured::default(), now));
    let news = rig.news();
    assert!(asked(&news, Output::Close { on: first, how: Close::Abort }));
    assert!(asked(&news, Output::Close { on: second, how: Close::Abort }));
    assert!(sent(&news, on).starts_with("CONNECT "));
    rig.hears(on, OK);
    assert_eq!(next_dial(&mut rig, &all).1, all[2]);
}

#[test]
fn the_first_of_several_addresses_wins_though_a_later_one_is_under_way() {
    let all = [address(1, 8443), address(2, 8443)];
    let (mut rig, first) = dialling(&all);
    rig.wait_for_deadline();
    let (second, _) = one(&rig.news());
    secure(&mut rig, first);
    let news = rig.news();
    assert!(asked(&news, Output::Close { on: second, how: Close::Abort }));
    assert!(sent(&news, first).starts_with("CONNECT "));
    // What still comes of the other is nobody's.
    rig.tell(|agent, now| agent.handle_connected(second, now));
    assert_eq!(rig.news(), []);
    assert_eq!(rig.machine.connections(), 1);
}

#[test]
fn a_silent_handshake_gets_a_rival_and_the_silent_address_goes_last() {
    let all = [address(1, 8443), address(2, 8443)];
    let (mut rig, first) = dialling(&all);
    rig.tell(|agent, now| agent.handle_connected(first, now));
    rig.news();
    assert_eq!(rig.wait_for_deadline(), Span::from_millis(250));
    let (second, to) = one(&rig.news());
    assert_eq!(to, all[1]);
    secure(&mut rig, second);
    rig.hears(second, OK);
    assert_eq!(next_dial(&mut rig, &all).1, all[1]);
}

#[test]
fn a_failed_handshake_is_followed_by_the_next_address_at_once() {
    let all = [address(1, 8443), address(2, 8443)];
    for why in TlsFailure::ALL {
        let (mut rig, first) = dialling(&all);
        rig.tell(|agent, now| agent.handle_connected(first, now));
        rig.news();
        rig.tell(|agent, now| agent.handle_tls_failed(first, why, now));
        let (second, to) = one(&rig.news());
        assert_eq!(to, all[1]);
        secure(&mut rig, second);
        rig.hears(second, OK);
        assert_eq!(next_dial(&mut rig, &all).1, all[1]);
    }
}

#[test]
fn if_all_addresses_fail_the_failure_of_the_one_that_came_furthest_is_noted() {
    let all = [address(1, 8443), address(2, 8443)];
    let (mut rig, first) = dialling(&all);
    rig.tell(|agent, now| agent.handle_connected(first, now));
    rig.news();
    rig.tell(|agent, now| agent.handle_tls_failed(first, TlsFailure::Certificate, now));
    let (second, _) = one(&rig.news());
    rig.tell(|agent, now| agent.handle_dial_failed(second, DialFailure::Refused, now));
    let notes = notes(&rig.news());
    let [Note::RelayLost { why: RelayLoss::Tls(TlsFailure::Certificate), .. }] = notes[..] else {
        panic!("{notes:?}");
    };
}

#[test]
fn an_address_whose_answer_is_garbage_or_missing_is_left_at_once_for_another() {
    let all = [address(1, 8443), address(2, 8443)];
    let lose: [fn(&mut Rig<Agent>, ConnId); 3] = [
        |rig, on| assert_eq!(rig.hears(on, b"SSH-2.0-x\r\n\r\n"), 0),
        |rig, on| rig.tell(|agent, now| agent.handle_end(on, End::Clean, now)),
        |rig, _| assert_eq!(rig.wait_for_deadline(), Span::from_secs(2)),
    ];
    for lose in lose {
        let (mut rig, first) = dialling(&all);
        secure(&mut rig, first);
        rig.news();
        lose(&mut rig, first);
        let (second, to) = next_dial(&mut rig, &all);
        assert_eq!(to, all[1], "and at once, without a pause");
        secure(&mut rig, second);
        rig.news();
        // It is the last one: now there is a pause.
        rig.tell(|agent, now| agent.handle_end(second, End::Clean, now));
        let notes = notes(&rig.news());
        assert!(matches!(notes[..], [Note::RelayLost { again, .. }] if again > Span::ZERO), "{notes:?}");
    }
}

#[test]
fn addresses_of_an_earlier_look_up_are_dialled_while_the_name_server_is_silent() {
    let mut rig = agent_with(named);
    let on = resolve(&mut rig);
    rig.tell(|agent, now| agent.handle_found(on, &[address(1, 8443)], now));
    let (on, to) = one(&rig.news());
    assert_eq!(to, address(1, 8443));
    secure(&mut rig, on);
    rig.hears(on, OK);
    // The look-up ends when the connection waits already.
    rig.news();
    rig.tell(|agent, now| agent.handle_resolved(on, &[address(2, 8443)], now));
    assert_eq!(rig.news(), []);
}

#[test]
fn a_look_up_that_brings_another_address_helps_an_attempt_at_a_dead_one() {
    let mut rig = agent_with(named);
    let on = resolve(&mut rig);
    rig.tell(|agent, now| agent.handle_found(on, &[address(1, 8443)], now));
    rig.news();
    rig.tell(|agent, now| agent.handle_resolved(on, &[address(2, 8443)], now));
    assert_eq!(rig.wait_for_deadline(), Span::from_millis(250));
    assert_eq!(one(&rig.news()).1, address(2, 8443));
}

#[test]
fn a_stopping_agent_gives_up_all_attempts() {
    let all = [address(1, 8443), address(2, 8443)];
    let (mut rig, _) = dialling(&all);
    rig.wait_for_deadline();
    rig.tell(Agent::handle_drain);
    assert_eq!(rig.machine.connections(), 0);
    assert!(rig.machine.is_done());
}

#[test]
fn a_handshake_or_an_answer_that_does_not_come_is_given_up_after_ten_seconds() {
    let mut rig = agent_with(|config| config.upstreams[0].relay.tls = true);
    let (on, _) = one(&rig.news());
    rig.tell(|agent, now| agent.handle_connected(on, now));
    assert_eq!(rig.wait_for_deadline(), Span::from_secs(10));
    let silent = |note: &Note| matches!(note, Note::RelayLost { why: RelayLoss::Silent, .. });
    assert!(notes(&rig.news()).iter().any(silent));
    rig.wait_for_deadline();
    let (on, _) = one(&rig.news());
    rig.tell(|agent, now| agent.handle_connected(on, now));
    rig.tell(|agent, now| agent.handle_secured(on, Secured::default(), now));
    assert_eq!(rig.hears(on, b"HTTP/1.1 20"), 0);
    assert_eq!(rig.wait_for_deadline(), Span::from_secs(10));
    assert!(notes(&rig.news()).iter().any(silent));
}

#[test]
fn a_wrong_certificate_is_said_and_tried_again_slowly() {
    let mut rig = agent_with(|config| config.upstreams[0].relay.tls = true);
    let (on, _) = one(&rig.news());
    rig.tell(|agent, now| agent.handle_connected(on, now));
    rig.tell(|agent, now| agent.handle_tls_failed(on, TlsFailure::Certificate, now));
    let news = rig.news();
    assert!(asked(&news, Output::Close { on, how: Close::Linger }), "the alert arrives");
    let notes = notes(&news);
    let [Note::RelayLost { why: RelayLoss::Tls(TlsFailure::Certificate), again, .. }] = notes[..] else {
        panic!("{notes:?}");
    };
    assert!(again >= Span::from_secs(4), "{again:?}");
}
