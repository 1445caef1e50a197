//! The way to the relay.

use super::*;

fn named(config: &mut Config) {
    config.upstreams[0].relay = Relay {
        place: Place { host: Host::Name("relay.example".into()), port: 8443 },
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

#[test]
fn the_addresses_are_dialled_in_turn_and_the_one_that_was_reached_goes_first_the_next_time() {
    let mut rig = agent_with(named);
    let on = resolve(&mut rig);
    let all = [address(1, 8443), address(2, 8443), address(3, 8443)];
    rig.tell(|agent, now| agent.handle_resolved(on, &all, now));
    let (on, to) = one(&rig.news());
    assert_eq!(to, all[0]);
    rig.tell(|agent, now| agent.handle_dial_failed(on, DialFailure::Refused, now));
    let (on, to) = one(&rig.news());
    assert_eq!(to, all[1]);
    // No answer at all: the deadline passes.
    assert_eq!(rig.wait_for_deadline(), Span::from_secs(10));
    let news = rig.news();
    assert!(asked(&news, Output::Close { on, how: Close::Abort }));
    let (on, to) = one(&news);
    assert_eq!(to, all[2]);
    rig.tell(|agent, now| agent.handle_connected(on, now));
    rig.tell(|agent, now| agent.handle_secured(on, Secured::default(), now));
    rig.hears(on, OK);
    let on = resolve(&mut rig);
    rig.tell(|agent, now| agent.handle_resolved(on, &all, now));
    assert_eq!(one(&rig.news()).1, all[2]);
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
