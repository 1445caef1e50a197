//! Many unauthenticated connections: the oldest ones of the address with the most are displaced.

use rendezvous_core::event::Event;
use rendezvous_core::machine::{Close, ConnId};

use crate::world::World;
use crate::{BUSY, ID, get, world_with};

impl World {
    fn slow_ones(&mut self) -> Vec<(ConnId, &'static str)> {
        let events = self.take_events();
        let dropped = events.into_iter().filter_map(|event| match event {
            Event::Dropped { on, why, .. } => Some((on, why)),
            _ => None,
        });
        dropped.collect()
    }
}

#[test]
fn the_oldest_handshakes_make_room_for_new_ones() {
    let mut world = world_with(|config| config.handshakes_max = 8);
    let all: Vec<_> = (0..8).map(|_| world.open_on(1, "192.0.2.1:1")).collect();
    world.secured(all[0]);
    assert_eq!(world.slow_ones(), []);
    world.open_on(1, "192.0.2.1:1");
    let why = "too many handshakes in progress, and this one was slow";
    assert_eq!(
        world.slow_ones(),
        [(all[1], why)],
        "of seven that were left, three quarters of eight may stay"
    );
    assert!(world.is_open(all[0]) && world.is_open(all[2]));
}

#[test]
fn a_handshake_in_time_is_never_in_the_way() {
    let mut world = world_with(|config| config.handshakes_max = 4);
    for _ in 0..1_000 {
        let on = world.open_on(1, "192.0.2.1:1");
        world.secured(on);
        world.write(on, "GET / HTTP/1.0\r\n\r\n");
    }
    assert_eq!(world.slow_ones(), []);
}

#[test]
fn the_oldest_requests_make_room_for_new_ones() {
    let mut world = world_with(|config| config.heads_max = 4);
    let all: Vec<_> = (0..5).map(|_| world.open()).collect();
    let why = "too many requests in progress, and this one was slow";
    assert_eq!(world.slow_ones(), [(all[0], why)]);
    world.write(all[4], "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(world.got(all[4]).starts_with("HTTP/1.1 401 "));
}

#[test]
fn one_connection_with_many_requests_is_no_crowd() {
    let mut world = world_with(|config| config.heads_max = 8);
    let quiet: Vec<_> = (0..5).map(|_| world.open()).collect();
    let busy = world.open();
    for _ in 0..100 {
        world.write(busy, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    assert_eq!(world.slow_ones(), []);
    assert!(world.is_open(busy) && quiet.into_iter().all(|on| world.is_open(on)));
}

/// Slow connections of this many attackers' addresses, and one of another address that is as slow.
fn flooded(attackers: usize, addresses: usize, mut open: impl FnMut(&mut World, &str) -> ConnId) {
    let mut world = world_with(|config| {
        config.handshakes_max = 800;
        config.heads_max = 800;
    });
    let honest = open(&mut world, "192.0.2.7:1");
    let all: Vec<_> = (0..attackers)
        .map(|attacker| open(&mut world, &format!("198.51.100.{}:{attacker}", attacker % addresses)))
        .collect();
    assert!(world.is_open(honest), "{attackers} attackers of {addresses} addresses");
    let open = all.iter().filter(|on| world.is_open(**on)).count();
    assert!((600..=800).contains(&open), "{open} of {attackers} are left");
}

#[test]
fn a_slow_connection_stays_while_another_address_has_more_of_them() {
    for (attackers, addresses) in [(1_000, 1), (1_000, 50), (4_000, 4), (4_000, 100)] {
        // In the TLS handshake, before the first byte of a head, and within one.
        flooded(attackers, addresses, |world, from| world.open_on(1, from));
        flooded(attackers, addresses, World::open_from);
        flooded(attackers, addresses, |world, from| {
            let on = world.open_from(from);
            world.write(on, "GET / HTTP/1.1\r\n");
            on
        });
    }
}

#[test]
fn a_connection_that_takes_no_answer_or_sends_no_body_counts_as_a_request_in_progress() {
    let body = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n";
    for (attackers, addresses) in [(1_000, 1), (4_000, 4)] {
        flooded(attackers, addresses, |world, from| {
            let on = world.open_from(from);
            world.stall(on, true);
            world.write(on, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            on
        });
        flooded(attackers, addresses, |world, from| {
            let on = world.open_from(from);
            world.write(on, body);
            on
        });
    }
}

#[test]
fn lingering_connections_are_bounded_and_those_of_the_largest_address_go_first() {
    let mut world = world_with(|config| config.connections_max = 800);
    let refused = |world: &mut World, from: &str| {
        let on = world.open_from(from);
        world.write(on, "nonsense\r\n\r\n");
        assert_eq!(world.closing(on), Some(Close::Linger));
        on
    };
    let honest = refused(&mut world, "192.0.2.7:1");
    let all: Vec<_> = (0..500).map(|port| refused(&mut world, &format!("198.51.100.1:{port}"))).collect();
    let linger = all.iter().filter(|on| !world.wire(**on).closed).count();
    assert!((75..=100).contains(&linger), "{linger}");
    assert!(!world.wire(honest).closed, "its answer is still on its way");
}

#[test]
fn held_clients_of_one_address_leave_places_for_another_and_addresses_take_turns() {
    let mut world = world_with(|config| config.held_per_id_max = 4);
    world.pair(ID);
    let held = |world: &mut World, from: &str| {
        let on = world.open_from(from);
        world.write(on, get(ID));
        on
    };
    let flood: Vec<_> = (0..10).map(|port| held(&mut world, &format!("198.51.100.1:{port}"))).collect();
    let honest = held(&mut world, "192.0.2.7:1");
    assert!(world.is_open(honest) && world.is_open(flood[0]) && !world.is_open(flood[3]));
    world.assert_refused(flood[3], "503 Service Unavailable", BUSY);
    world.register(ID);
    assert!(world.peer(flood[0]).is_some(), "its address came first");
    world.register(ID);
    assert!(world.peer(honest).is_some(), "and then it is the other's turn");
}
