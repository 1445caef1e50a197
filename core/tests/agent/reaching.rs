//! Dialling the relay.

use super::*;

fn named(config: &mut Config) {
    config.upstreams[0].relay = Relay {
        place: HostPort { host: Host::Name("relay.example".into()), port: 8443 },
        tls: true,
        host_header: "relay.example:8443".into(),
    };
}

fn resolve(harness: &mut Harness<Agent>) -> ConnId {
    let actions = harness.actions();
    let resolve = actions.iter().find_map(|did| match did {
        Done::Asked(Output::Resolve { on, host, port: 8443 }) if host == "relay.example" => Some(*on),
        _ => None,
    });
    resolve.unwrap_or_else(|| panic!("no look-up in {actions:?}"))
}

#[test]
fn a_name_is_looked_up_dialled_secured_and_only_then_spoken_to() {
    let mut harness = agent_with(named);
    let on = resolve(&mut harness);
    harness.call(|agent, now| agent.handle_resolved(on, &[address(1, 8443)], now));
    assert_eq!(one(&harness.actions()), (on, address(1, 8443)));
    harness.call(|agent, now| agent.handle_connected(on, now));
    let role = TlsRole::Client { upstream: 0 };
    assert_eq!(harness.actions(), [Done::Asked(Output::StartTls { on, role })]);
    harness.call(|agent, now| agent.handle_secured(on, Secured::default(), now));
    assert!(sent(&harness.actions(), on).contains("Host: relay.example:8443\r\n"));
}

/// An agent whose relay has these addresses, and the first dial.
fn dialling(addresses: &[SocketAddr]) -> (Harness<Agent>, ConnId) {
    let mut harness = agent_with(named);
    let on = resolve(&mut harness);
    harness.call(|agent, now| agent.handle_resolved(on, addresses, now));
    let (on, to) = one(&harness.actions());
    assert_eq!(to, addresses[0]);
    (harness, on)
}

fn secure(harness: &mut Harness<Agent>, on: ConnId) {
    harness.call(|agent, now| agent.handle_connected(on, now));
    harness.call(|agent, now| agent.handle_secured(on, Secured::default(), now));
}

/// The next attempt's first dial.
fn next_dial(harness: &mut Harness<Agent>, addresses: &[SocketAddr]) -> (ConnId, SocketAddr) {
    let on = resolve(harness);
    harness.call(|agent, now| agent.handle_resolved(on, addresses, now));
    one(&harness.actions())
}

#[test]
fn the_addresses_are_dialled_in_turn_and_the_one_that_was_reached_goes_first_the_next_time() {
    let all = [address(1, 8443), address(2, 8443), address(3, 8443)];
    let (mut harness, first) = dialling(&all);
    harness.call(|agent, now| agent.handle_dial_failed(first, DialFailure::Refused, now));
    let (second, to) = one(&harness.actions());
    assert_eq!(to, all[1]);
    // No answer yet: the next one is tried beside it.
    assert_eq!(harness.wait_for_deadline(), Span::from_millis(250));
    let (on, to) = one(&harness.actions());
    assert_eq!(to, all[2]);
    harness.call(|agent, now| agent.handle_connected(on, now));
    harness.actions();
    harness.call(|agent, now| agent.handle_secured(on, Secured::default(), now));
    let actions = harness.actions();
    assert!(asked(&actions, Output::Close { on: first, how: Close::Abort }));
    assert!(asked(&actions, Output::Close { on: second, how: Close::Abort }));
    assert!(sent(&actions, on).starts_with("CONNECT "));
    harness.receive(on, OK);
    assert_eq!(next_dial(&mut harness, &all).1, all[2]);
}

#[test]
fn the_first_of_several_addresses_wins_though_a_later_one_is_under_way() {
    let all = [address(1, 8443), address(2, 8443)];
    let (mut harness, first) = dialling(&all);
    harness.wait_for_deadline();
    let (second, _) = one(&harness.actions());
    secure(&mut harness, first);
    let actions = harness.actions();
    assert!(asked(&actions, Output::Close { on: second, how: Close::Abort }));
    assert!(sent(&actions, first).starts_with("CONNECT "));
    // Further events of the other connection have no effect.
    harness.call(|agent, now| agent.handle_connected(second, now));
    assert_eq!(harness.actions(), []);
    assert_eq!(harness.machine.connections(), 1);
}

#[test]
fn a_silent_handshake_gets_a_rival_and_the_silent_address_goes_last() {
    let all = [address(1, 8443), address(2, 8443)];
    let (mut harness, first) = dialling(&all);
    harness.call(|agent, now| agent.handle_connected(first, now));
    harness.actions();
    assert_eq!(harness.wait_for_deadline(), Span::from_millis(250));
    let (second, to) = one(&harness.actions());
    assert_eq!(to, all[1]);
    secure(&mut harness, second);
    harness.receive(second, OK);
    assert_eq!(next_dial(&mut harness, &all).1, all[1]);
}

#[test]
fn a_failed_handshake_is_followed_by_the_next_address_at_once() {
    let all = [address(1, 8443), address(2, 8443)];
    for why in TlsFailure::ALL {
        let (mut harness, first) = dialling(&all);
        harness.call(|agent, now| agent.handle_connected(first, now));
        harness.actions();
        harness.call(|agent, now| agent.handle_tls_failed(first, why, now));
        let (second, to) = one(&harness.actions());
        assert_eq!(to, all[1]);
        secure(&mut harness, second);
        harness.receive(second, OK);
        assert_eq!(next_dial(&mut harness, &all).1, all[1]);
    }
}

#[test]
fn if_all_addresses_fail_the_failure_of_the_one_that_came_furthest_is_noted() {
    let all = [address(1, 8443), address(2, 8443)];
    let (mut harness, first) = dialling(&all);
    harness.call(|agent, now| agent.handle_connected(first, now));
    harness.actions();
    harness.call(|agent, now| agent.handle_tls_failed(first, TlsFailure::Certificate, now));
    let (second, _) = one(&harness.actions());
    harness.call(|agent, now| agent.handle_dial_failed(second, DialFailure::Refused, now));
    let events = events(&harness.actions());
    let [Event::RelayLost { why: RelayLoss::Tls(TlsFailure::Certificate), .. }] = events[..] else {
        panic!("{events:?}");
    };
}

#[test]
fn an_address_whose_answer_is_garbage_or_missing_is_left_at_once_for_another() {
    let all = [address(1, 8443), address(2, 8443)];
    let lose: [fn(&mut Harness<Agent>, ConnId); 3] = [
        |harness, on| assert_eq!(harness.receive(on, b"SSH-2.0-x\r\n\r\n"), 0),
        |harness, on| harness.call(|agent, now| agent.handle_end(on, End::Clean, now)),
        |harness, _| assert_eq!(harness.wait_for_deadline(), Span::from_secs(2)),
    ];
    for lose in lose {
        let (mut harness, first) = dialling(&all);
        secure(&mut harness, first);
        harness.actions();
        lose(&mut harness, first);
        let (second, to) = next_dial(&mut harness, &all);
        assert_eq!(to, all[1], "and at once, without a pause");
        secure(&mut harness, second);
        harness.actions();
        // It is the last one: now there is a delay.
        harness.call(|agent, now| agent.handle_end(second, End::Clean, now));
        let events = events(&harness.actions());
        assert!(matches!(events[..], [Event::RelayLost { again, .. }] if again > Span::ZERO), "{events:?}");
    }
}

#[test]
fn addresses_of_an_earlier_look_up_are_dialled_while_the_name_server_is_silent() {
    let mut harness = agent_with(named);
    let on = resolve(&mut harness);
    harness.call(|agent, now| agent.handle_found(on, &[address(1, 8443)], now));
    let (on, to) = one(&harness.actions());
    assert_eq!(to, address(1, 8443));
    secure(&mut harness, on);
    harness.receive(on, OK);
    // The look-up ends when the connection is waiting already.
    harness.actions();
    harness.call(|agent, now| agent.handle_resolved(on, &[address(2, 8443)], now));
    assert_eq!(harness.actions(), []);
}

#[test]
fn a_look_up_that_brings_another_address_helps_an_attempt_at_a_dead_one() {
    let mut harness = agent_with(named);
    let on = resolve(&mut harness);
    harness.call(|agent, now| agent.handle_found(on, &[address(1, 8443)], now));
    harness.actions();
    harness.call(|agent, now| agent.handle_resolved(on, &[address(2, 8443)], now));
    assert_eq!(harness.wait_for_deadline(), Span::from_millis(250));
    assert_eq!(one(&harness.actions()).1, address(2, 8443));
}

#[test]
fn a_stopping_agent_gives_up_all_attempts() {
    let all = [address(1, 8443), address(2, 8443)];
    let (mut harness, _) = dialling(&all);
    harness.wait_for_deadline();
    harness.call(Agent::handle_drain);
    assert_eq!(harness.machine.connections(), 0);
    assert!(harness.machine.is_done());
}

#[test]
fn a_handshake_or_an_answer_that_does_not_come_is_given_up_after_ten_seconds() {
    let mut harness = agent_with(|config| config.upstreams[0].relay.tls = true);
    let (on, _) = one(&harness.actions());
    harness.call(|agent, now| agent.handle_connected(on, now));
    assert_eq!(harness.wait_for_deadline(), Span::from_secs(10));
    let silent = |event: &Event| matches!(event, Event::RelayLost { why: RelayLoss::TimedOut, .. });
    assert!(events(&harness.actions()).iter().any(silent));
    harness.wait_for_deadline();
    let (on, _) = one(&harness.actions());
    harness.call(|agent, now| agent.handle_connected(on, now));
    harness.call(|agent, now| agent.handle_secured(on, Secured::default(), now));
    assert_eq!(harness.receive(on, b"HTTP/1.1 20"), 0);
    assert_eq!(harness.wait_for_deadline(), Span::from_secs(10));
    assert!(events(&harness.actions()).iter().any(silent));
}

#[test]
fn a_wrong_certificate_is_said_and_tried_again_slowly() {
    let mut harness = agent_with(|config| config.upstreams[0].relay.tls = true);
    let (on, _) = one(&harness.actions());
    harness.call(|agent, now| agent.handle_connected(on, now));
    harness.call(|agent, now| agent.handle_tls_failed(on, TlsFailure::Certificate, now));
    let actions = harness.actions();
    assert!(asked(&actions, Output::Close { on, how: Close::Linger }), "the alert arrives");
    let events = events(&actions);
    let [Event::RelayLost { why: RelayLoss::Tls(TlsFailure::Certificate), again, .. }] = events[..] else {
        panic!("{events:?}");
    };
    assert!(again >= Span::from_secs(4), "{again:?}");
}
