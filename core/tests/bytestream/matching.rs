//! The socket that an endpoint matches (docs/stream-proxy.md §5.5).

use std::net::SocketAddr;

use rendezvous_core::bytestream::matching::{Claim, Limits, Matching, Rules};
use rendezvous_core::bytestream::proxy::Proxy;
use rendezvous_core::bytestream::stanza::Condition;
use rendezvous_core::machine::{ConnId, End, Listener, Machine};
use rendezvous_core::time::{Span, Time};

use crate::harness::Harness;
use crate::{INITIATOR, TARGET, at, claim, error, iq, jid, proxy, proxy_with, sid, stanza};

/// Whether a claim of this endpoint has a socket at once.
fn fits(harness: &mut Harness<Proxy>, endpoint: &str) -> bool {
    let before = harness.machine.unclaimed();
    harness.claims(TARGET, "t", endpoint);
    harness.machine.unclaimed() < before
}

#[test]
fn reading_5a_the_remote_address_of_the_socket() {
    let mut harness = proxy();
    harness.accept("10.0.0.2:1001");
    assert!(fits(&mut harness, "10.0.0.2:1001"));
}

#[test]
fn reading_5b_the_address_dialled_with_the_diallers_port() {
    let mut harness = proxy();
    harness.accept("10.0.0.2:1001");
    assert!(fits(&mut harness, "10.0.0.1:1001"));
}

#[test]
fn reading_5b_with_an_announced_address() {
    let mut harness = proxy_with(|config| {
        config.rules.listeners = vec![at("0.0.0.0:4000")];
        config.rules.announced = vec![at("192.0.2.1:0").ip()];
    });
    harness.accept("10.0.0.2:1001");
    assert!(!fits(&mut harness, "0.0.0.0:1001"), "an unspecified address is no address");
    assert!(fits(&mut harness, "192.0.2.1:1001"));
}

#[test]
fn an_ipv4_address_in_an_ipv6_socket_is_the_same() {
    let mut harness = proxy_with(|config| config.rules.listeners = vec![at("[::ffff:10.0.0.1]:4000")]);
    harness.accept("[::ffff:10.0.0.2]:1001");
    assert!(fits(&mut harness, "10.0.0.1:1001"));
}

#[test]
fn another_port_or_another_address_is_none() {
    for endpoint in ["10.0.0.1:1002", "10.0.0.9:1001", "10.0.0.1:4000", "10.0.0.2:4000"] {
        let mut harness = proxy();
        harness.accept("10.0.0.2:1001");
        assert!(!fits(&mut harness, endpoint), "{endpoint}");
    }
}

#[test]
fn the_remote_address_goes_before_the_port() {
    let mut harness = proxy();
    harness.accept("10.0.0.2:1001");
    harness.accept("10.0.0.3:1001");
    assert!(fits(&mut harness, "10.0.0.3:1001"));
    harness.deliver(stanza(INITIATOR, "i", claim("other", "10.0.0.1:1001")));
    assert_eq!(harness.machine.unclaimed(), 0, "only the first one's is left, and it fits");
}

#[test]
fn of_two_that_fit_none_is_taken() {
    let mut harness = proxy();
    harness.accept("10.0.0.2:1001");
    let other = harness.accept("10.0.0.3:1001");
    assert!(!fits(&mut harness, "10.0.0.1:1001"));
    harness.call(|proxy, now| proxy.handle_end(other, End::Reset, now));
    assert_eq!(harness.machine.claimed(), 1, "until one of them is left");
}

#[test]
fn reading_5c_any_address_is_off_by_default() {
    let mut harness = proxy();
    harness.accept("10.0.0.2:1001");
    assert!(!fits(&mut harness, "192.168.1.1:1001"));
    let mut harness = proxy_with(|config| config.rules.any_address = true);
    harness.accept("10.0.0.2:1001");
    assert!(fits(&mut harness, "192.168.1.1:1001"));
}

#[test]
fn reading_5d_the_only_socket_is_off_by_default() {
    let mut harness = proxy();
    harness.accept("10.0.0.2:1001");
    assert!(!fits(&mut harness, "10.0.0.1:4000"));
    let mut harness = proxy_with(|config| config.rules.only_socket = true);
    harness.accept("10.0.0.2:1001");
    assert!(!fits(&mut harness, "10.0.0.1:4001"));
    assert!(fits(&mut harness, "10.0.0.1:4000"));
}

#[test]
fn reading_5d_not_while_there_are_two() {
    let mut harness = proxy_with(|config| config.rules.only_socket = true);
    harness.accept("10.0.0.2:1001");
    let other = harness.accept("10.0.0.3:1002");
    assert!(!fits(&mut harness, "10.0.0.1:4000"));
    harness.call(|proxy, now| proxy.handle_end(other, End::Reset, now));
    assert_eq!(harness.machine.claimed(), 1);
}

#[test]
fn each_listener_has_its_own_address() {
    let mut harness = proxy_with(|config| config.rules.listeners.push(at("10.0.1.1:4000")));
    harness.call(|proxy, now| proxy.handle_open(Listener(1), at("10.0.0.2:1001"), now));
    assert!(!fits(&mut harness, "10.0.0.1:1001"));
    assert!(fits(&mut harness, "10.0.1.1:1001"));
}

#[test]
fn a_socket_that_times_out_may_leave_one_that_fits() {
    let mut harness = proxy();
    harness.accept("10.0.0.2:1001");
    harness.wait(Span::from_secs(29));
    harness.accept("10.0.0.3:1001");
    assert!(!fits(&mut harness, "10.0.0.1:1001"));
    harness.wait(Span::from_secs(1));
    assert_eq!(harness.machine.claimed(), 1);
}

#[test]
fn the_remote_address_goes_before_the_port_whoever_came_first() {
    let mut harness = proxy();
    harness.deliver(stanza(INITIATOR, "i", claim("other", "10.0.0.1:1001")));
    harness.claims(TARGET, "t", "10.0.0.2:1001");
    harness.accept("10.0.0.2:1001");
    harness.wait(Span::from_secs(2));
    assert_eq!(harness.sent_stanzas(), [error(INITIATOR, "i", Condition::ItemNotFound)]);
    assert_eq!(harness.machine.claimed(), 1);
}

/// The maximum number of sockets and claims of one port, by strangers with enough addresses. Checking all of them for
/// each further socket would take 10,000 × 1,000 steps for each of 20,000: hours.
#[test]
fn strangers_that_fill_one_port_make_nothing_slow() {
    for (any_address, only_socket) in [(false, false), (true, true)] {
        let mut matching = crowded(any_address, only_socket);
        for n in 0..20_000 {
            let on = ConnId { index: n, generation: 1 };
            let from = SocketAddr::new([0x2001, 0xdb8, 1, (n % 1_000) as u16, 0, 0, 0, 1].into(), 7_000);
            let goes = matching.open(on, Listener(0), from).expect("it is full");
            assert_ne!(goes, on);
            assert_eq!(matching.next_match(), None);
        }
        assert_eq!((matching.unclaimed(), matching.early_claims()), (10_000, 1_000));
    }
}

/// 10,000 sockets with one remote port, and 1,000 claims of that port, none of which has a socket.
fn crowded(any_address: bool, only_socket: bool) -> Matching {
    let rules = Rules { listeners: vec![at("10.0.0.1:4000")], any_address, only_socket, ..Rules::default() };
    let mut matching = Matching::new(Limits::default(), rules);
    for n in 0..10_000 {
        let network = (n / 1_000) as u16;
        let from = SocketAddr::new([0x2001, 0xdb8, 2, network, 0, 0, 0, (n % 1_000) as u16].into(), 7_000);
        assert_eq!(matching.open(ConnId { index: n, generation: 0 }, Listener(0), from), None);
        assert_eq!(matching.next_match(), None);
    }
    for n in 0..1_000_u16 {
        let [high, low] = (n / 2).to_be_bytes();
        let ip = if n % 2 == 0 { [10, 0, 0, 1] } else { [10, 1, high, low] };
        let claim = Claim {
            from: jid(&format!("{}@example.com/x", n % 32)),
            iq: iq(&n.to_string()),
            sid: sid("s"),
            endpoint: SocketAddr::new(ip.into(), 7_000),
        };
        assert_eq!(matching.claim(claim, Time(0)), None);
        assert_eq!(matching.next_match(), None);
    }
    matching
}
