//! The connector: it sends nothing before the 101, and a failed stream never has a clean end.

use std::net::SocketAddr;

use rendezvous_core::connector::{Config, Connector, Outcome};
use rendezvous_core::event::{ConnectFailure, Event};
use rendezvous_core::id::Id;
use rendezvous_core::machine::{
    Close, ConnId, DialFailure, End, Listener, Machine, Output, Secured, TlsFailure, TlsRole,
};
use rendezvous_core::pair::{EndReason, Side};
use rendezvous_core::relay_client::{Host, HostPort, Relay};
use rendezvous_core::time::Span;

#[path = "common/harness.rs"]
mod harness;

use harness::{Done, Harness, address, asked, beginning, dials, events, sent};

const ID: Id = Id(0x2f40_2f80_da50_41e1_9b23_0123_4567_89ab);
const SWITCHING: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: octet-stream\r\n\r\n";

fn relay() -> SocketAddr {
    address(1, 8443)
}

fn connector_with(change: impl FnOnce(&mut Config)) -> Harness<Connector> {
    let relay = Relay { place: relay().into(), tls: true, host_header: "relay:8443".into() };
    let mut config = Config::new(relay, ID);
    change(&mut config);
    Harness::new(Connector::new(config))
}

fn open(harness: &mut Harness<Connector>) -> ConnId {
    harness.call(|connector, now| connector.handle_open(Listener(0), address(9, 9), now))
}

/// A local connection, and the one to the relay, on which the request was sent.
fn asking(harness: &mut Harness<Connector>) -> (ConnId, ConnId) {
    let local = open(harness);
    let (on, _) = dials(&harness.actions())[0];
    harness.call(|connector, now| connector.handle_connected(on, now));
    harness.call(|connector, now| connector.handle_secured(on, Secured::default(), now));
    (local, on)
}

fn assert_failed(harness: &mut Harness<Connector>, local: ConnId, why: ConnectFailure) {
    let actions = harness.actions();
    assert!(events(&actions).contains(&Event::ConnectFailed { local, why }), "{actions:?}");
    assert!(asked(&actions, Output::Close { on: local, how: Close::Truncate }), "no clean end");
    assert_eq!(harness.machine.last(), Some(Outcome::Failed(why)));
    assert_eq!(harness.machine.failed(), 1);
    assert_eq!(harness.machine.connections(), 0);
}

#[test]
fn the_request_is_sent_at_once_and_the_local_side_is_not_read_before_the_answer() {
    let mut harness = connector_with(|_| ());
    let local = open(&mut harness);
    let actions = harness.actions();
    assert!(asked(&actions, Output::Read { on: local, wanted: false }));
    let (on, to) = dials(&actions)[0];
    assert_eq!(to, relay());
    harness.call(|connector, now| connector.handle_connected(on, now));
    assert_eq!(
        harness.actions(),
        [Done::Asked(Output::StartTls { on, role: TlsRole::Client { upstream: 0 } })]
    );
    harness.call(|connector, now| connector.handle_secured(on, Secured::default(), now));
    assert_eq!(
        sent(&harness.actions(), on),
        "GET / HTTP/1.1\r\nHost: relay:8443\r\n\
         Authorization: Basic MmY0MDJmODAtZGE1MC00MWUxLTliMjMtMDEyMzQ1Njc4OWFiOg==\r\n\
         Connection: Upgrade\r\nUpgrade: octet-stream\r\n\r\n"
    );
}

#[test]
fn with_the_101_the_two_are_a_pair() {
    let mut harness = connector_with(|_| ());
    let (local, on) = asking(&mut harness);
    assert_eq!(harness.receive(on, &SWITCHING[..40]), 0);
    assert_eq!(harness.receive(on, SWITCHING), SWITCHING.len());
    let actions = harness.actions();
    assert!(asked(&actions, Output::Read { on: local, wanted: true }));
    assert!(asked(&actions, Output::Pair { hidden: on, client: local }));
    assert!(events(&actions).contains(&Event::Served { relay: on, local, upstream: 0, stream: true }));
}

#[test]
fn bytes_behind_the_101_are_left_for_the_local_side() {
    let mut harness = connector_with(|_| ());
    let (_, on) = asking(&mut harness);
    assert_eq!(harness.receive(on, &[SWITCHING, b"SSH-2.0-x\r\n"].concat()), SWITCHING.len());
    assert_eq!(harness.machine.pairs(), 1);
}

#[test]
fn any_other_answer_is_the_error_that_it_is() {
    for status in [200, 401, 404, 502, 503] {
        let mut harness = connector_with(|_| ());
        let (local, on) = asking(&mut harness);
        let answer = format!("HTTP/1.1 {status} Whatever\r\nContent-Length: 2\r\n\r\n");
        assert_eq!(harness.receive(on, format!("{answer}{{}}").as_bytes()), answer.len());
        assert_failed(&mut harness, local, ConnectFailure::Refused(status));
    }
}

#[test]
fn a_101_to_another_protocol_is_a_refusal() {
    let mut harness = connector_with(|_| ());
    let (local, on) = asking(&mut harness);
    let _ = harness.receive(on, b"HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_failed(&mut harness, local, ConnectFailure::Refused(101));
}

#[test]
fn an_interim_answer_is_no_answer() {
    let mut harness = connector_with(|_| ());
    let (_, on) = asking(&mut harness);
    let _ = harness.receive(on, &[b"HTTP/1.1 102 Processing\r\n\r\n", SWITCHING].concat());
    assert_eq!(harness.machine.pairs(), 1);
}

#[test]
fn a_refusal_without_its_last_line_is_one() {
    let mut harness = connector_with(|_| ());
    let (local, on) = asking(&mut harness);
    assert_eq!(harness.receive(on, b"HTTP/1.1 404\r\nConte"), 0);
    harness.call(|connector, now| connector.handle_end(on, End::Clean, now));
    assert_failed(&mut harness, local, ConnectFailure::Refused(404));
}

#[test]
fn an_end_garbage_and_silence_are_told_apart() {
    let mut harness = connector_with(|_| ());
    let (local, on) = asking(&mut harness);
    harness.call(|connector, now| connector.handle_end(on, End::Truncated, now));
    assert_failed(&mut harness, local, ConnectFailure::Ended(End::Truncated));

    let mut harness = connector_with(|_| ());
    let (local, on) = asking(&mut harness);
    let _ = harness.receive(on, b"220 mail.example ESMTP\r\n");
    assert_failed(&mut harness, local, ConnectFailure::NotHttp);

    let mut harness = connector_with(|_| ());
    let (local, _) = asking(&mut harness);
    harness.wait(Span::from_secs(30));
    assert_failed(&mut harness, local, ConnectFailure::TimedOut);
}

/// A local connection of a connector whose relay has two addresses, and the first dial.
fn dialling_two(change: impl FnOnce(&mut Config)) -> (Harness<Connector>, ConnId, ConnId) {
    let mut harness = connector_with(|config| {
        config.relay.place = HostPort { host: Host::Name("relay".into()), port: 8443 };
        change(config);
    });
    let local = open(&mut harness);
    let on = harness.actions().iter().find_map(|did| match did {
        Done::Asked(Output::Resolve { on, .. }) => Some(*on),
        _ => None,
    });
    let on = on.unwrap();
    harness.call(|connector, now| connector.handle_resolved(on, &[address(1, 8443), address(2, 8443)], now));
    let (on, to) = dials(&harness.actions())[0];
    assert_eq!(to, address(1, 8443));
    (harness, local, on)
}

fn secure(harness: &mut Harness<Connector>, on: ConnId) {
    harness.call(|connector, now| connector.handle_connected(on, now));
    harness.call(|connector, now| connector.handle_secured(on, Secured::default(), now));
}

/// The only dial of the second address.
fn second(harness: &mut Harness<Connector>) -> ConnId {
    let dials = dials(&harness.actions());
    let [(on, to)] = dials[..] else { panic!("{dials:?}") };
    assert_eq!(to, address(2, 8443));
    on
}

fn assert_paired(harness: &mut Harness<Connector>, local: ConnId, on: ConnId) {
    secure(harness, on);
    assert!(sent(&harness.actions(), on).starts_with("GET / HTTP/1.1\r\n"));
    assert_eq!(harness.receive(on, SWITCHING), SWITCHING.len());
    assert!(asked(&harness.actions(), Output::Pair { hidden: on, client: local }));
    assert_eq!(harness.machine.connections(), 2, "all other attempts are closed");
}

#[test]
fn a_relay_that_can_not_be_reached_is_tried_at_each_address() {
    let (mut harness, local, _) = dialling_two(|_| ());
    assert_eq!(harness.wait_for_deadline(), Span::from_millis(250));
    let on = second(&mut harness);
    harness.call(|connector, now| connector.handle_dial_failed(on, DialFailure::Refused, now));
    assert_eq!(harness.machine.last(), None, "the first may still answer");
    assert_eq!(harness.wait_for_deadline(), Span::from_millis(9_750));
    assert_failed(&mut harness, local, ConnectFailure::Unreachable(DialFailure::Unreachable));
}

#[test]
fn a_dead_first_address_costs_250_ms() {
    let (mut harness, local, _) = dialling_two(|_| ());
    assert_eq!(harness.wait_for_deadline(), Span::from_millis(250));
    let on = second(&mut harness);
    assert_paired(&mut harness, local, on);
}

#[test]
fn a_silent_handshake_gets_a_rival_and_the_next_connection_begins_with_that() {
    let (mut harness, local, first) = dialling_two(|_| ());
    harness.call(|connector, now| connector.handle_connected(first, now));
    harness.actions();
    assert_eq!(harness.wait_for_deadline(), Span::from_millis(250));
    let on = second(&mut harness);
    assert_paired(&mut harness, local, on);
    let _ = open(&mut harness);
    let resolve = harness.actions().iter().find_map(|did| match did {
        Done::Asked(Output::Resolve { on, .. }) => Some(*on),
        _ => None,
    });
    let all = [address(1, 8443), address(2, 8443)];
    harness.call(|connector, now| connector.handle_resolved(resolve.unwrap(), &all, now));
    second(&mut harness);
}

#[test]
fn a_first_address_that_fails_in_whatever_way_is_followed_by_the_second_at_once() {
    let fail: [fn(&mut Harness<Connector>, ConnId); 6] = [
        |harness, on| harness.call(|it, now| it.handle_dial_failed(on, DialFailure::Refused, now)),
        |harness, on| {
            harness.call(|it, now| it.handle_connected(on, now));
            harness.call(|it, now| it.handle_tls_failed(on, TlsFailure::Protocol, now));
        },
        |harness, on| {
            harness.call(|it, now| it.handle_connected(on, now));
            harness.call(|it, now| it.handle_end(on, End::Reset, now));
        },
        |harness, on| {
            secure(harness, on);
            assert_eq!(harness.receive(on, b"220 smtp.example\r\n\r\n"), 0);
        },
        |harness, on| {
            secure(harness, on);
            harness.call(|it, now| it.handle_end(on, End::Clean, now));
        },
        |harness, on| {
            secure(harness, on);
            harness.actions();
            assert_eq!(harness.wait_for_deadline(), Span::from_secs(30), "the answer");
        },
    ];
    for fail in fail {
        let (mut harness, local, first) = dialling_two(|_| ());
        fail(&mut harness, first);
        let on = second(&mut harness);
        assert_paired(&mut harness, local, on);
        // Further events of the first connection have no effect.
        assert_eq!(harness.receive(first, SWITCHING), 0);
    }
}

#[test]
fn a_relay_in_clear_that_does_not_answer_within_a_second_gets_a_rival_and_may_still_win() {
    for first_wins in [false, true] {
        let (mut harness, local, first) = dialling_two(|config| config.relay.tls = false);
        harness.call(|connector, now| connector.handle_connected(first, now));
        harness.actions();
        assert_eq!(harness.wait_for_deadline(), Span::from_secs(1));
        let on = second(&mut harness);
        harness.call(|connector, now| connector.handle_connected(on, now));
        let winner = if first_wins { first } else { on };
        assert_eq!(harness.receive(winner, SWITCHING), SWITCHING.len());
        assert!(asked(&harness.actions(), Output::Pair { hidden: winner, client: local }));
        assert_eq!(harness.machine.connections(), 2);
    }
}

#[test]
fn an_answer_is_an_answer_though_another_address_is_left() {
    let (mut harness, local, on) = dialling_two(|_| ());
    secure(&mut harness, on);
    let _ = harness.receive(on, b"HTTP/1.1 404 Not Found\r\n\r\n");
    assert_failed(&mut harness, local, ConnectFailure::Refused(404));
}

#[test]
fn a_local_side_that_goes_away_takes_all_attempts_with_it() {
    let (mut harness, local, _) = dialling_two(|_| ());
    harness.wait_for_deadline();
    harness.call(|connector, now| connector.handle_end(local, End::Reset, now));
    assert_eq!(harness.machine.connections(), 0);
    assert_eq!(harness.machine.last(), Some(Outcome::Abandoned));
}

#[test]
fn a_wrong_certificate_ends_it() {
    let mut harness = connector_with(|_| ());
    let local = open(&mut harness);
    let (on, _) = dials(&harness.actions())[0];
    harness.call(|connector, now| connector.handle_connected(on, now));
    harness.call(|connector, now| connector.handle_tls_failed(on, TlsFailure::Certificate, now));
    let actions = harness.actions();
    assert!(sent(&actions, on).is_empty());
    assert!(asked(&actions, Output::Close { on, how: Close::Linger }), "the alert arrives");
    assert_eq!(
        harness.machine.last(),
        Some(Outcome::Failed(ConnectFailure::Tls(TlsFailure::Certificate))),
        "for {local:?}"
    );
}

#[test]
fn a_local_end_before_the_101_is_passed_on_after_it() {
    let mut harness = connector_with(|_| ());
    let (local, on) = asking(&mut harness);
    harness.call(|connector, now| connector.handle_end(local, End::Clean, now));
    harness.actions();
    let _ = harness.receive(on, SWITCHING);
    let actions = harness.actions();
    let pair = actions.iter().position(|did| *did == Done::Asked(Output::Pair { hidden: on, client: local }));
    let end = actions.iter().position(|did| *did == Done::Asked(Output::CloseWrite { on }));
    assert!(pair.is_some() && pair < end, "{actions:?}");
}

#[test]
fn a_local_reset_before_the_101_drops_the_connection_to_the_relay() {
    let mut harness = connector_with(|config| config.once = true);
    let (local, on) = asking(&mut harness);
    harness.call(|connector, now| connector.handle_end(local, End::Reset, now));
    assert!(asked(&harness.actions(), Output::Close { on, how: Close::Abort }));
    assert_eq!((harness.machine.last(), harness.machine.is_done()), (Some(Outcome::Abandoned), true));
}

#[test]
fn a_stream_that_both_sides_ended_is_a_success() {
    let mut harness = connector_with(|config| config.once = true);
    let (local, on) = asking(&mut harness);
    let _ = harness.receive(on, SWITCHING);
    harness.call(|connector, now| connector.handle_end(local, End::Clean, now));
    assert!(asked(&harness.actions(), Output::CloseWrite { on }));
    assert!(!harness.machine.is_done());
    harness.call(|connector, now| connector.handle_moved(on, 7, 0, now));
    harness.call(|connector, now| connector.handle_end(on, End::Clean, now));
    assert_eq!(harness.machine.last(), Some(Outcome::Ended(EndReason::Done)));
    assert_eq!((harness.machine.failed(), harness.machine.is_done()), (0, true));
}

#[test]
fn a_stream_that_was_cut_does_not_end_cleanly() {
    let mut harness = connector_with(|_| ());
    let (local, on) = asking(&mut harness);
    let _ = harness.receive(on, SWITCHING);
    harness.call(|connector, now| connector.handle_end(on, End::Truncated, now));
    assert!(asked(&harness.actions(), Output::Close { on: local, how: Close::Truncate }));
    assert_eq!(harness.machine.last(), Some(Outcome::Ended(EndReason::Truncated(Side::Hidden))));
}

#[test]
fn each_local_connection_has_its_own_and_once_takes_no_second() {
    let mut harness = connector_with(|_| ());
    open(&mut harness);
    open(&mut harness);
    assert_eq!(dials(&harness.actions()).len(), 2);
    let mut harness = connector_with(|config| config.once = true);
    open(&mut harness);
    let second = open(&mut harness);
    let actions = harness.actions();
    assert_eq!(dials(&actions).len(), 1);
    assert!(asked(&actions, Output::Close { on: second, how: Close::Abort }));
}

#[test]
fn a_drain_ends_what_waits_for_its_answer_and_lets_pairs_go_on() {
    let mut harness = connector_with(|_| ());
    let (_, paired) = asking(&mut harness);
    let _ = harness.receive(paired, SWITCHING);
    let (local, _) = asking(&mut harness);
    harness.call(Connector::handle_drain);
    assert!(asked(&harness.actions(), Output::Close { on: local, how: Close::Truncate }));
    assert_eq!((harness.machine.pairs(), harness.machine.connections()), (1, 2));
    assert_eq!(harness.now.wall, beginning().wall);
}
