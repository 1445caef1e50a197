//! A listener behind a load balancer, and agents that ask for their clients' addresses.

use rendezvous_core::engine::Transport;
use rendezvous_core::event::Event;
use rendezvous_core::machine::{Close, ConnId, End};
use rendezvous_core::proxy_header::{Version, write};

use crate::world::{WALL, World};
use crate::{ID, OK, bound_connect, get, world_with};

const PROXIED: u16 = 2;
const BALANCER: &str = "10.0.0.1:5000";
const CLIENT: &str = "198.51.100.7:40000";

fn proxied() -> World {
    world_with(|config| {
        config.listeners.push(Transport::Proxied);
        config.proxies = vec!["10.0.0.0/24".parse().expect("a prefix")];
        config.connections_per_address_max = 2;
    })
}

fn header(source: Option<&str>) -> Vec<u8> {
    let mut header = Vec::new();
    write(Version::V2, source.map(|it| it.parse().expect("an address")), &mut header);
    header
}

impl World {
    /// A connection of the load balancer for a client, up to the beginning of TLS.
    fn proxied(&mut self, source: &str) -> ConnId {
        let on = self.open_on(PROXIED, BALANCER);
        self.write(on, header(Some(source)));
        on
    }

    fn dropped(&self, on: ConnId) -> Option<(Option<String>, &'static str)> {
        self.events.iter().find_map(|event| match event {
            Event::Dropped { on: which, from, why, .. } if *which == on => {
                Some((from.map(|from| from.to_string()), *why))
            }
            _ => None,
        })
    }
}

/// An agent's request that asks for the header.
fn asking(nonce: &str) -> String {
    bound_connect(ID, WALL, nonce).replace("\r\n\r\n", "\r\nProxy-protocol: v1, V2\r\n\r\n")
}

#[test]
fn the_header_says_whose_the_connection_is_and_then_comes_tls() {
    let mut world = proxied();
    let on = world.open_on(PROXIED, BALANCER);
    assert!(!world.wire(on).securing, "before the header");
    let header = header(Some(CLIENT));
    world.write(on, &header[..20]);
    assert!(!world.wire(on).securing, "within the header");
    world.write(on, [&header[20..], b"hello"].concat());
    assert!(world.wire(on).securing);
    assert_eq!(world.wire(on).unread, b"hello", "what is behind it is for TLS");
    world.wire_mut(on).unread.clear();
    world.secured(on);
    world.write(on, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let asked = Event::Challenged { on, from: Some(CLIENT.parse().expect("an address")) };
    assert!(world.events.contains(&asked), "{:?}", world.events);
}

#[test]
fn only_a_trusted_peer_is_believed() {
    let mut world = proxied();
    let on = world.open_on(PROXIED, "10.0.1.1:5000");
    assert_eq!(world.closing(on), Some(Close::Abort));
    assert_eq!(world.dropped(on), Some((Some("10.0.1.1:5000".to_owned()), "not a trusted proxy")));
}

#[test]
fn without_a_header_there_is_no_connection() {
    let mut world = proxied();
    let on = world.open_on(PROXIED, BALANCER);
    world.write(on, b"\x16\x03\x01");
    assert_eq!(world.closing(on), Some(Close::Abort));
    assert_eq!(world.dropped(on).map(|it| it.1), Some("no PROXY header"));
    let on = world.open_on(PROXIED, BALANCER);
    world.wait_secs(9);
    assert!(world.is_open(on));
    world.wait_secs(1);
    assert_eq!(world.dropped(on).map(|it| it.1), Some("the proxy's header did not arrive in time"));
    // A probe of the port is not logged.
    let on = world.open_on(PROXIED, BALANCER);
    world.end(on, End::Clean);
    assert_eq!((world.closing(on), world.dropped(on)), (Some(Close::Abort), None));
}

#[test]
fn connections_count_for_the_client_and_not_for_the_balancer() {
    let mut world = proxied();
    let own = world.open_on(PROXIED, BALANCER);
    world.write(own, header(None));
    let all: Vec<_> = (0..3).map(|port| world.proxied(&format!("198.51.100.7:{port}"))).collect();
    assert!(world.is_open(own) && world.is_open(all[0]) && world.is_open(all[1]));
    let too_many = (Some("198.51.100.7:2".to_owned()), "too many connections from this address");
    assert_eq!(world.dropped(all[2]), Some(too_many));
    let other = world.proxied("198.51.100.8:1");
    assert!(world.is_open(other));
    world.end(all[0], End::Reset);
    let again = world.proxied("198.51.100.7:9");
    assert!(world.is_open(again), "one has gone");
}

#[test]
fn a_connection_of_the_balancer_s_own_counts_for_the_balancer() {
    let mut world = proxied();
    // UNKNOWN, and a family without addresses.
    let other_family = || {
        let mut other = header(Some("198.51.100.9:7"));
        other[13] = 0x31;
        other
    };
    let unknown = || b"PROXY UNKNOWN\r\n".to_vec();
    let own = [other_family(), unknown(), other_family(), unknown()];
    let all = own.map(|header| {
        let on = world.open_on(PROXIED, BALANCER);
        world.write(on, header);
        on
    });
    let open: Vec<bool> = all.iter().map(|on| world.is_open(*on)).collect();
    assert_eq!(open, [true, true, false, false], "two connections of one address");
    let too_many = (Some(BALANCER.to_owned()), "too many connections from this address");
    assert_eq!(world.dropped(all[2]), Some(too_many));
    let client = world.proxied("198.51.100.9:7");
    assert!(world.is_open(client), "the address of another family means nothing");
    world.end(all[0], End::Reset);
    let on = world.open_on(PROXIED, BALANCER);
    world.write(on, unknown());
    assert!(world.is_open(on), "one has gone");
}

#[test]
fn a_balancer_may_open_more_connections_than_an_address_as_long_as_their_headers_come() {
    let mut world = proxied();
    let all: Vec<_> = (0..50).map(|_| world.open_on(PROXIED, BALANCER)).collect();
    assert!(all.iter().all(|on| world.is_open(*on)), "they count for nobody yet");
    for (address, on) in (0..).zip(all) {
        world.write(on, header(Some(&format!("198.51.{address}.1:1"))));
        assert!(world.wire(on).securing);
    }
}

#[test]
fn connections_without_a_header_make_room_for_each_other() {
    let mut world = world_with(|config| {
        config.listeners.push(Transport::Proxied);
        config.proxies = vec!["10.0.0.0/24".parse().expect("a prefix")];
        config.handshakes_max = 8;
    });
    let honest = world.open_on(PROXIED, "10.0.0.2:1");
    let all: Vec<_> = (0..100).map(|_| world.open_on(PROXIED, BALANCER)).collect();
    let open = all.iter().filter(|on| world.is_open(**on)).count();
    assert!((6..=8).contains(&open), "{open}");
    assert!(world.is_open(honest), "another balancer's connection stays");
}

#[test]
fn an_agent_that_asks_hears_where_its_client_comes_from_before_the_first_byte() {
    let mut world = proxied();
    let hidden = world.open();
    world.write(hidden, asking("0123456789abcdef"));
    world.expect(hidden, OK);
    let client = world.open_from(CLIENT);
    world.write(client, get(ID));
    assert_eq!(world.peer(client), Some(hidden));
    let got = &world.wire(hidden).got;
    let header = header(Some(CLIENT));
    assert_eq!(&got[..header.len()], header);
    assert!(got[header.len()..].starts_with(b"GET / HTTP/1.1\r\n"), "{:?}", world.got(hidden));
}

#[test]
fn a_second_agent_that_gets_the_request_gets_what_it_asked_for() {
    let mut world = proxied();
    let plain = world.open();
    world.write(plain, bound_connect(ID, WALL, "0123456789abcdef"));
    let asking_one = world.open();
    world.write(asking_one, asking("fedcba9876543210"));
    world.expect(plain, OK);
    world.expect(asking_one, OK);
    let client = world.open_from(CLIENT);
    world.write(client, get(ID));
    // The newest connection is used first.
    assert_eq!(world.peer(client), Some(asking_one));
    world.end(asking_one, End::Reset);
    assert_eq!(world.peer(client), Some(plain));
    assert!(world.got(plain).starts_with("GET / HTTP/1.1\r\n"), "without a header: {:?}", world.got(plain));
}

#[test]
fn a_client_asks_for_no_header() {
    let mut world = proxied();
    let hidden = world.open();
    world.write(hidden, bound_connect(ID, WALL, "0123456789abcdef"));
    world.expect(hidden, OK);
    let client = world.open_from(CLIENT);
    world.write(client, get(ID).replace("\r\n\r\n", "\r\nPROXY-Protocol: v2\r\n\r\n"));
    assert!(world.got(hidden).starts_with("GET / HTTP/1.1\r\n"));
}
