//! Limits: of guesses, connections, pairs, and remembered tokens.

use rendezvous_core::event::Event;
use rendezvous_core::machine::{Close, ConnId, End};

use crate::world::{WALL, World};
use crate::{ID, OK, OTHER, STRANGER, both, bound_connect, get, plain_connect, world, world_with};

const GUESSING: &str = "too many failures";
const FULL: &str = "the relay is full";

fn guess(id: rendezvous_core::id::Id) -> String {
    format!("CONNECT uuid:{id}?response=00000000 HTTP/1.1\r\n\r\n")
}

fn wrong_bound() -> String {
    bound_connect(STRANGER, WALL, "0123456789abcdef")
}

impl World {
    fn client_sends_from(&mut self, from: &str, bytes: &str) -> ConnId {
        let on = self.open_from(from);
        self.write(on, bytes);
        on
    }

    #[track_caller]
    fn assert_too_many(&self, on: ConnId, secs: u32) {
        let challenge = self.challenge_line(on);
        let extra = format!("Retry-After: {secs}\r\n{challenge}Connection: close\r\n");
        assert_eq!(self.got(on), self.answer("429 Too Many Requests", &extra, false, GUESSING));
        assert_eq!(self.closing(on), Some(Close::Linger));
    }
}

#[test]
fn twenty_failures_are_forgiven_and_then_one_in_six_seconds() {
    let mut world = world();
    for _ in 0..20 {
        let on = world.client_sends(guess(STRANGER));
        world.assert_refused(on, "401 Unauthorized", "not authorized");
    }
    let on = world.client_sends(guess(STRANGER));
    world.assert_too_many(on, 6);
    world.wait_ms(2_500);
    let on = world.client_sends(guess(STRANGER));
    world.assert_too_many(on, 4);
    world.wait_ms(3_500);
    let on = world.client_sends(guess(STRANGER));
    world.assert_refused(on, "401 Unauthorized", "not authorized");
    let on = world.client_sends(guess(STRANGER));
    world.assert_too_many(on, 6);
}

#[test]
fn a_right_plain_token_is_refused_as_well_while_its_address_or_its_id_is_locked() {
    let mut world = world();
    for _ in 0..20 {
        world.client_sends(guess(ID));
    }
    let on = world.client_sends(plain_connect(OTHER, WALL));
    world.assert_too_many(on, 6);
    let on = world.client_sends_from("198.51.100.7:1", &plain_connect(ID, WALL));
    world.assert_too_many(on, 6);
    let on = world.client_sends_from("198.51.100.7:1", &plain_connect(OTHER, WALL));
    assert_eq!(world.got(on), OK);
    world.wait_secs(6);
    let on = world.client_sends_from("198.51.100.7:1", &plain_connect(ID, world.now.wall));
    assert_eq!(world.got(on), OK);
}

#[test]
fn of_8192_addresses_that_failed_the_first_is_forgotten_for_one_more() {
    let mut world = world();
    let fails_from = |world: &mut World, from: &str| {
        let on = world.client_sends_from(from, &guess(STRANGER));
        world.end(on, End::Clean);
        on
    };
    for _ in 0..20 {
        fails_from(&mut world, "198.51.100.7:1");
    }
    for other in 0..8_191 {
        fails_from(&mut world, &format!("10.0.{}.{}:1", other / 256, other % 256));
    }
    let on = fails_from(&mut world, "198.51.100.7:1");
    world.assert_too_many(on, 6);
    fails_from(&mut world, "10.1.0.0:1");
    let on = fails_from(&mut world, "198.51.100.7:1");
    world.assert_refused(on, "401 Unauthorized", "not authorized");
}

#[test]
fn a_right_bound_token_is_never_locked_out() {
    let mut world = world();
    for _ in 0..100 {
        world.client_sends(guess(ID));
        world.client_sends(wrong_bound());
    }
    let on = world.client_sends(bound_connect(ID, WALL, "0123456789abcdef"));
    assert_eq!(world.got(on), OK);
    let on = world.client_sends(wrong_bound());
    world.assert_too_many(on, 6);
}

#[test]
fn wrong_bound_tokens_lock_no_id() {
    let mut world = world();
    let wrong = bound_connect(OTHER, WALL, "0123456789abcdef").replace(&OTHER.to_string(), &ID.to_string());
    for _ in 0..100 {
        world.client_sends(&wrong);
    }
    let on = world.client_sends_from("198.51.100.7:1", &plain_connect(ID, WALL));
    assert_eq!(world.got(on), OK);
}

#[test]
fn guesses_at_an_id_that_takes_no_plain_tokens_don_t_tell_it_from_an_unknown_one() {
    let mut ids = both();
    ids[0].plain_tokens = false;
    let mut world = World::new(crate::config(), ids);
    for host in 0..30 {
        let answers = [ID, STRANGER].map(|id| {
            let on = world.client_sends_from(&format!("198.51.100.{host}:1"), &guess(id));
            // Each response has a challenge of its own.
            world.got(on).replace(&world.challenge_line(on), "")
        });
        assert_eq!(answers[0], answers[1]);
    }
}

#[test]
fn what_a_challenged_client_does_is_no_failure() {
    let mut world = world();
    for _ in 0..50 {
        world.client_sends("GET / HTTP/1.1\r\nHost: relay\r\n\r\n");
        world.client_sends(get(STRANGER));
    }
    let on = world.client_sends(plain_connect(ID, WALL));
    assert_eq!(world.got(on), OK);
}

#[test]
fn ipv6_addresses_count_by_their_64() {
    let mut world = world();
    for host in 1..=20 {
        world.client_sends_from(&format!("[2001:db8:0:1::{host:x}]:1"), &guess(STRANGER));
    }
    let on = world.client_sends_from("[2001:db8:0:1:ffff::]:1", &guess(STRANGER));
    world.assert_too_many(on, 6);
    let on = world.client_sends_from("[2001:db8:0:2::1]:1", &guess(STRANGER));
    world.assert_refused(on, "401 Unauthorized", "not authorized");
}

#[test]
fn a_mapped_ipv4_address_is_that_ipv4_address() {
    let mut world = world();
    for port in 1..=10 {
        world.client_sends_from(&format!("192.0.2.9:{port}"), &guess(STRANGER));
        world.client_sends_from(&format!("[::ffff:192.0.2.9]:{port}"), &guess(STRANGER));
    }
    let on = world.client_sends_from("[::ffff:192.0.2.9]:99", &guess(STRANGER));
    world.assert_too_many(on, 6);
    let on = world.client_sends_from("[::ffff:192.0.2.10]:99", &guess(STRANGER));
    world.assert_refused(on, "401 Unauthorized", "not authorized");
}

#[test]
fn an_address_has_its_connections_and_no_more() {
    let mut world = world_with(|config| config.connections_per_address_max = 2);
    let first = world.open_from("192.0.2.1:1");
    world.open_from("192.0.2.1:2");
    world.take_events();
    let third = world.open_from("192.0.2.1:3");
    assert_eq!((world.got(third).as_str(), world.closing(third)), ("", Some(Close::Abort)));
    let from = "192.0.2.1:3".parse().ok();
    let why = "too many connections from this address";
    assert_eq!(world.take_events(), [Event::Dropped { on: third, from, upstream: None, why }]);
    let neighbour = world.open_from("192.0.2.2:1");
    assert!(world.is_open(neighbour));
    world.end(first, End::Reset);
    let again = world.open_from("192.0.2.1:4");
    assert!(world.is_open(again));
}

#[test]
fn zero_connections_of_an_address_are_no_limit() {
    let mut world = world_with(|config| config.connections_per_address_max = 0);
    for _ in 0..2_000 {
        let on = world.open();
        assert!(world.is_open(on));
    }
}

#[test]
fn a_full_relay_answers_503_and_keeps_what_is_established() {
    let mut world = world_with(|config| config.connections_max = 3);
    let (waiting, served) = (world.register(ID), world.client_sends(get(ID)));
    assert_eq!(world.peer(served), Some(waiting));
    let last = world.register(ID);
    let nonce = "0123456789abcdef";
    for request in
        [get(ID), bound_connect(ID, WALL, nonce), "GET / HTTP/1.1\r\nHost: relay\r\n\r\n".to_owned()]
    {
        let on = world.client_sends(request);
        world.assert_refused(on, "503 Service Unavailable", FULL);
    }
    let silent: Vec<ConnId> = (0..100).map(|_| world.open()).collect();
    assert!(silent.iter().filter(|on| world.is_open(**on)).count() <= 1, "silent ones make room");
    let on = world.client_sends(get(ID));
    world.assert_refused(on, "503 Service Unavailable", FULL);
    assert!([waiting, served, last].iter().all(|on| world.is_open(*on)));
    world.end(served, End::Reset);
    let on = world.client_sends(get(ID));
    assert_eq!(world.peer(on), Some(last));
}

#[test]
fn silent_connections_never_keep_hidden_servers_and_clients_out() {
    let mut world = world_with(|config| {
        config.connections_max = 200;
        config.connections_per_address_max = 0;
    });
    let (mut clients, mut silent) = (Vec::new(), Vec::new());
    for port in 0..40 {
        // Each time more silent connections than the limit, of two addresses.
        silent.extend((0..150).map(|own| world.open_from(&format!("198.51.100.{}:{own}", port % 2))));
        world.register(ID);
        let client = world.open_from(&format!("192.0.2.2:{port}"));
        world.write(client, get(ID));
        assert!(world.peer(client).is_some(), "client {port}: {:?}", world.got(client));
        clients.push(client);
        assert!(world.engine.connections() <= 200 + 64, "{}", world.engine.connections());
        let held_by_silent = silent.iter().filter(|on| world.is_open(**on)).count();
        assert!(held_by_silent + 2 * clients.len() <= 201, "{held_by_silent} beside {port} pairs");
    }
    assert!(clients.iter().all(|on| world.is_open(*on)));
}

#[test]
fn a_few_addresses_with_many_pairs_leave_connections_for_another() {
    let mut world = world_with(|config| {
        config.connections_max = 400;
        config.pairs_per_id_max = 400;
    });
    let mut refused = 0;
    for port in 0..200 {
        let hidden = world.open_from(&format!("203.0.113.1:{port}"));
        let nonce = world.fresh_nonce();
        world.write(hidden, bound_connect(ID, WALL, &nonce));
        let client = world.open_from(&format!("198.51.100.{}:{port}", port % 3));
        world.write(client, get(ID));
        refused += u32::from(world.got(client).starts_with("HTTP/1.1 503 "));
    }
    assert!(refused > 0, "the relay is not full");
    let client = world.open_from("192.0.2.2:1");
    world.write(client, get(ID));
    assert!(world.peer(client).is_some(), "{:?}", world.got(client));
}

#[test]
fn the_largest_limit_of_connections_is_one() {
    let mut world = world_with(|config| config.connections_max = u32::MAX);
    let on = world.open();
    assert!(world.is_open(on));
}

#[test]
fn an_id_has_its_pairs_and_no_more() {
    let mut world = world_with(|config| config.pairs_per_id_max = 2);
    let (_, client) = world.answered_pair(ID);
    world.answered_pair(ID);
    let waiting = world.register(ID);
    let third = world.client_sends(get(ID));
    world.assert_refused(third, "503 Service Unavailable", "too many pairs");
    world.pair(OTHER);
    world.end(client, End::Reset);
    let third = world.client_sends(get(ID));
    assert_eq!(world.peer(third), Some(waiting));
}

#[test]
fn one_address_never_has_all_pairs_of_an_id() {
    let mut world = world_with(|config| config.pairs_per_id_max = 100);
    let mut pairs = 0;
    for port in 0..120 {
        world.register(ID);
        let client = world.open_from(&format!("198.51.100.7:{port}"));
        world.write(client, get(ID));
        pairs += usize::from(world.peer(client).is_some());
    }
    assert_eq!(pairs, 89, "eight for each one that is free, and one");
    for address in 1..=10 {
        let client = world.open_from(&format!("192.0.2.{address}:9"));
        world.write(client, get(ID));
        assert!(world.peer(client).is_some(), "{address}: {:?}", world.got(client));
    }
}

#[test]
fn held_clients_meet_nobody_either_while_the_id_has_all_its_pairs() {
    let mut world = world_with(|config| config.pairs_per_id_max = 1);
    let plain = world.register_plain(ID);
    let (first, second) = (world.client_sends(get(ID)), world.client_sends(get(ID)));
    world.wait_ms(100);
    assert_eq!(world.peer(plain), Some(first));
    let waiting = world.register(ID);
    assert_eq!(world.peer(second), None);
    world.end(first, End::Reset);
    assert_eq!(world.peer(second), Some(waiting));
}

#[test]
fn a_failed_hand_over_makes_room_for_a_held_client() {
    let mut world = world_with(|config| config.pairs_per_id_max = 1);
    let plain = world.register_plain(ID);
    let (first, second) = (world.client_sends(crate::post(ID, "")), world.client_sends(get(ID)));
    world.wait_ms(100);
    let waiting = world.register(ID);
    world.end(plain, End::Reset);
    world.assert_refused(first, "502 Bad Gateway", crate::FAILED);
    assert_eq!(world.peer(second), Some(waiting));
}

#[test]
fn more_tokens_than_are_remembered_are_503_until_their_steps_are_over() {
    let mut world = world_with(|config| config.tokens_per_id_max = 3);
    let first = bound_connect(ID, WALL, "nonce-of-the-first");
    let on = world.client_sends(&first);
    assert_eq!(world.got(on), OK);
    for _ in 0..2 {
        world.register(ID);
    }
    let on = world.client_sends(bound_connect(ID, WALL, "nonce-of-the-last-"));
    let extra = "Retry-After: 30\r\nConnection: close\r\n";
    let full = world.answer("503 Service Unavailable", extra, false, "too many tokens remembered");
    assert_eq!(world.got(on), full);
    let on = world.client_sends(&first);
    world.assert_refused(on, "401 Unauthorized", "not authorized");
    world.register(OTHER);
    // 7 s into a step: the token is acceptable for another 23 + 30 s.
    world.wait_secs(52);
    let on = world.client_sends(bound_connect(ID, world.now.wall, "nonce-of-the-last-"));
    assert!(world.got(on).starts_with("HTTP/1.1 503 "));
    world.wait_secs(1);
    world.register(ID);
}

#[test]
fn deadlines_that_wake_nobody_are_not_kept_for_ever() {
    use rendezvous_core::time::Span;
    let mut world = world_with(|config| config.pair.idle = Some(Span::from_secs(24 * 3_600)));
    let (hidden, client) = world.answered_pair(ID);
    // Each iteration leaves an entry for the end of the day, unless stale entries are removed.
    for _ in 0..2_000 {
        world.write(client, "x");
        world.wait_secs(20);
    }
    assert!(world.is_open(hidden));
    let entries = format!("{:?}", world.engine).matches("Reverse(").count();
    assert!(entries < 200, "{entries} deadlines for one pair");
}
