//! Strangers in numbers: who is slow makes room.

use rendezvous_core::machine::ConnId;
use rendezvous_core::note::Note;

use crate::world::World;
use crate::world_with;

impl World {
    fn slow_ones(&mut self) -> Vec<(ConnId, &'static str)> {
        let notes = self.take_notes();
        let dropped = notes.into_iter().filter_map(|note| match note {
            Note::Dropped { on, why, .. } => Some((on, why)),
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
