//! Agents that violate the protocol, and strangers.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use rendezvous_core::acl::Policy;
use rendezvous_core::connector::{Config, Connector, Outcome};
use rendezvous_core::dtcp::{Direct, Fingerprint, HANDSHAKE_MAX};
use rendezvous_core::event::{ConnectFailure, Event, NotDirect};
use rendezvous_core::http::offer::{self, Offered};
use rendezvous_core::id::Id;
use rendezvous_core::machine::{Close, ConnId, End, Listener, Machine, Output};
use rendezvous_core::pair::EndReason;
use rendezvous_core::relay_client::Relay;

use crate::harness::{Done, Harness, address, asked, dials, events, sent};

const LOCAL: Listener = Listener(0);
const DIRECT: Listener = Listener(1);

fn connector(hosts: usize) -> Harness<Connector> {
    let relay = Relay { place: address(1, 80).into(), tls: false, host_header: "relay".into() };
    let direct = Direct {
        hosts: (0..hosts).map(|_| address(3, 7_000).into()).collect(),
        listener: Some(DIRECT),
        fingerprint: Fingerprint([1; 32]),
        policy: Policy { private: true, ..Policy::default() },
        timeout: Direct::TRIED,
    };
    let config = Config { direct: Some(direct), ..Config::new(relay, Id(7)) };
    Harness::new(Connector::with_direct(config, [5; 32]))
}

/// A local connection, and the one to the relay, on which the request was sent.
fn asking(harness: &mut Harness<Connector>) -> (ConnId, ConnId) {
    let local = harness.call(|connector, now| connector.handle_open(LOCAL, address(9, 9), now));
    let (on, _) = dials(&harness.actions())[0];
    harness.call(|connector, now| connector.handle_connected(on, now));
    (local, on)
}

fn switching(fields: &str) -> Vec<u8> {
    let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: octet-stream\r\n";
    format!("{head}{fields}\r\n").into_bytes()
}

fn fingerprint() -> String {
    "0123456789abcdefABCDEF0123456789abcdef0123456789abcdef0123456789".to_owned()
}

fn agreed(hosts: &str) -> Vec<u8> {
    switching(&format!("DTCP-Key: theirs\r\n{hosts}DTCP-Fingerprint: {}\r\n", fingerprint()))
}

fn failed(harness: &mut Harness<Connector>, local: ConnId, why: ConnectFailure) {
    let actions = harness.actions();
    assert!(events(&actions).contains(&Event::ConnectFailed { local, why }), "{actions:?}");
    assert!(asked(&actions, Output::Close { on: local, how: Close::Truncate }), "no clean end");
    assert_eq!(harness.machine.last(), Some(Outcome::Failed(why)));
    assert_eq!(harness.machine.connections(), 0);
}

#[test]
fn an_offer_is_read_in_whatever_form_it_crosses_a_relay() {
    let plain = agreed("DTCP-Host: 192.0.2.1:1\r\nDTCP-Host: [2001:db8::1]:2\r\n");
    let merged = switching(&format!(
        "dtcp-fingerprint: {}\r\ndtcp-host:192.0.2.1:1 ,, [2001:db8::1]:2\r\ndtcp-key:  theirs \r\n",
        fingerprint().to_uppercase()
    ));
    let Offered::Offer(offer) = offer::read(&plain) else { panic!("it is one") };
    assert_eq!(offer.hosts, ["192.0.2.1:1", "[2001:db8::1]:2"]);
    assert_eq!(offer.key.as_bytes(), b"theirs");
    assert_eq!(offer::read(&merged), Offered::Offer(offer.clone()));
    let mut written = b"HTTP/1.1 101 x\r\n".to_vec();
    offer::write(&offer, &mut written);
    written.extend_from_slice(b"\r\n");
    assert_eq!(offer::read(&written), Offered::Offer(offer));
}

#[test]
fn no_more_than_three_hosts_count() {
    let hosts = "DTCP-Host: a:1, b:2\r\nDTCP-Host: c:3, d:4\r\n";
    let Offered::Offer(offer) = offer::read(&agreed(hosts)) else { panic!("it is one") };
    assert_eq!(offer.hosts, ["a:1", "b:2", "c:3"]);
}

#[test]
fn what_lacks_something_or_says_it_twice_is_no_offer() {
    let pin = format!("DTCP-Fingerprint: {}\r\n", fingerprint());
    for fields in [
        "DTCP-Key: a\r\n".to_owned(),
        format!("DTCP-Key: \r\n{pin}"),
        format!("DTCP-Key: a\r\nDTCP-Key: a\r\n{pin}"),
        format!("DTCP-Key: a, a\r\n{pin}"),
        format!("DTCP-Key: a b\r\n{pin}"),
        format!("DTCP-Key: {}\r\n{pin}", "k".repeat(256)),
        format!("DTCP-Key: a\r\n{pin}{pin}"),
        "DTCP-Key: a\r\nDTCP-Fingerprint: 00\r\n".to_owned(),
        format!("DTCP-Key: a\r\nDTCP-Fingerprint: sha-256 {}\r\n", fingerprint()),
    ] {
        assert_eq!(offer::read(&switching(&fields)), Offered::Malformed, "{fields}");
    }
    for nothing in [&b""[..], b"\r\n", b"HTTP/1.1 101 x\r\n", b"\xff\r\n\r\n"] {
        assert_eq!(offer::read(nothing), Offered::Nothing);
    }
    assert_eq!(offer::read(&switching(&pin)), Offered::Nothing, "without a key");
}

/// The agent expects lines: it gets one.
#[test]
fn an_answer_that_is_no_offer_is_stayed_with() {
    let mut harness = connector(0);
    let (local, on) = asking(&mut harness);
    let _ = harness.actions();
    let _ = harness.receive(on, &switching("DTCP-Key: a\r\n"));
    let actions = harness.actions();
    assert_eq!(sent(&actions, on), "error\n");
    assert!(asked(&actions, Output::Pair { hidden: on, client: local }));
}

#[test]
fn an_agent_may_say_error_once_and_nothing_else() {
    for said in [&b"ok\n"[..], b"error\nerror\n", b"key:theirs\n", b"SSH-2.0\n", b"\n", &[b'x'; 512]] {
        let mut harness = connector(1);
        let (local, on) = asking(&mut harness);
        let _ = harness.receive(on, &agreed("DTCP-Host: 10.0.0.2:7000\r\n"));
        let _ = harness.receive(on, said);
        failed(&mut harness, local, ConnectFailure::InvalidOffer);
    }
}

/// Our dials have failed already, and the agent was told so: its line is awaited, and no byte is taken for it.
#[test]
fn the_agents_line_is_awaited_before_its_bytes() {
    let mut harness = connector(1);
    let (local, on) = asking(&mut harness);
    let _ = harness.receive(on, &agreed(""));
    let _ = harness.actions();
    harness.wait(Direct::TRIED);
    assert_eq!(sent(&harness.actions(), on), "error\n");
    assert_eq!(harness.receive(on, b"err"), 0);
    assert_eq!(harness.receive(on, b"error\nerror\n"), 6, "what is behind the line is the service's");
    let actions = harness.actions();
    assert!(asked(&actions, Output::Pair { hidden: on, client: local }));
    assert!(events(&actions).contains(&Event::Relayed {
        relay: on,
        local,
        upstream: 0,
        why: NotDirect::TimedOut
    }));
}

#[test]
fn an_agent_that_never_says_its_line_is_given_up() {
    let mut harness = connector(1);
    let (local, on) = asking(&mut harness);
    let _ = harness.receive(on, &agreed(""));
    harness.wait(Direct::TRIED + Config::DEADLINES.answer);
    failed(&mut harness, local, ConnectFailure::TimedOut);
}

#[test]
fn a_relay_that_ends_in_the_middle_is_a_failure() {
    for how in [End::Clean, End::Truncated, End::Reset] {
        let mut harness = connector(1);
        let (local, on) = asking(&mut harness);
        let _ = harness.receive(on, &agreed("DTCP-Host: 10.0.0.2:7000\r\n"));
        harness.call(|connector, now| connector.handle_end(on, how, now));
        failed(&mut harness, local, ConnectFailure::Ended(how));
    }
}

#[test]
fn a_local_program_that_goes_away_takes_everything_with_it() {
    let mut harness = connector(1);
    let (local, on) = asking(&mut harness);
    let _ = harness.receive(on, &agreed("DTCP-Host: 10.0.0.2:7000\r\n"));
    harness.call(|connector, now| connector.handle_end(local, End::Reset, now));
    assert_eq!(harness.machine.last(), Some(Outcome::Abandoned));
    assert_eq!(harness.machine.connections(), 0);
}

fn stranger(harness: &mut Harness<Connector>, from: u32) -> ConnId {
    let from = SocketAddr::new(IpAddr::V4(Ipv4Addr::from_bits(from)), 9);
    harness.call(|connector, now| connector.handle_open(DIRECT, from, now))
}

fn is_closed(actions: &[Done], on: ConnId) -> bool {
    asked(actions, Output::Close { on, how: Close::Abort })
}

#[test]
fn strangers_are_closed_at_once_while_nothing_is_negotiated() {
    let mut harness = connector(1);
    let on = stranger(&mut harness, 1);
    assert!(is_closed(&harness.actions(), on));
}

#[test]
fn of_one_address_no_more_than_sixteen_may_wait() {
    let mut harness = connector(1);
    asking(&mut harness);
    for n in 0..20 {
        let on = stranger(&mut harness, 1);
        assert_eq!(is_closed(&harness.actions(), on), n >= 16);
    }
    let on = stranger(&mut harness, 2);
    assert!(!is_closed(&harness.actions(), on), "of another there may be");
}

#[test]
fn of_too_many_the_oldest_that_has_shown_nothing_goes() {
    let mut harness = connector(1);
    asking(&mut harness);
    let first = stranger(&mut harness, 0);
    for n in 1..256 {
        stranger(&mut harness, n);
    }
    assert!(!is_closed(&harness.actions(), first));
    let last = stranger(&mut harness, 1_000);
    let actions = harness.actions();
    assert!(is_closed(&actions, first) && !is_closed(&actions, last));
}

#[test]
fn strangers_do_not_wait_for_ever() {
    let mut harness = connector(1);
    asking(&mut harness);
    let on = stranger(&mut harness, 1);
    let _ = harness.actions();
    assert_eq!(harness.wait_for_deadline(), HANDSHAKE_MAX);
    assert!(is_closed(&harness.actions(), on));
}

/// Otherwise a connector whose only stream has ended would not end before they do.
#[test]
fn strangers_go_when_nothing_is_negotiated_any_more() {
    let mut harness = connector(1);
    let (_, on) = asking(&mut harness);
    let silent = stranger(&mut harness, 1);
    assert!(!is_closed(&harness.actions(), silent));
    let _ = harness.receive(on, &switching(""));
    assert!(is_closed(&harness.actions(), silent));
}

/// As many as the limit allows; further ones do not ask for a direct connection, and go through the relay.
#[test]
fn too_many_at_once_go_through_the_relay() {
    let mut harness = connector(1);
    let mut last = None;
    for _ in 0..1_025 {
        let (_, on) = asking(&mut harness);
        last = Some(on);
    }
    let last = last.unwrap();
    let request = sent(&harness.actions(), last);
    assert!(request.starts_with("GET / HTTP/1.1\r\n") && !request.contains("DTCP"));
    let _ = harness.receive(last, &switching(""));
    harness.call(|connector, now| connector.handle_end(last, End::Reset, now));
    assert_eq!(
        harness.machine.last(),
        Some(Outcome::Ended(EndReason::Reset(rendezvous_core::pair::Side::Hidden)))
    );
}
