//! Which of several waiting connections a client gets (docs/protocol.md §2.6).

use rendezvous_core::event::{Event, WaitingEnd};
use rendezvous_core::machine::ConnId;

use crate::world::World;
use crate::{GET, ID, OK, OTHER, bound_connect, get, plain_connect, world, world_with};

/// The connection that the next client is handed over to.
fn next(world: &mut World) -> Option<ConnId> {
    let client = world.client_sends(get(ID));
    world.peer(client)
}

fn replaced(world: &mut World) -> Vec<ConnId> {
    let events = world.take_events().into_iter();
    events
        .filter_map(|event| match event {
            Event::WaitingEnded { on, id: ID, why: WaitingEnd::Replaced, .. } => Some(on),
            _ => None,
        })
        .collect()
}

#[test]
fn a_client_gets_the_newest() {
    let mut world = world();
    let waiting = [world.register(ID), world.register(ID), world.register(ID)];
    for expected in waiting.into_iter().rev() {
        assert_eq!(next(&mut world), Some(expected));
    }
}

#[test]
fn ids_don_t_share() {
    let mut world = world();
    world.register(OTHER);
    assert_eq!(next(&mut world), None);
}

#[test]
fn past_the_cap_the_oldest_is_closed() {
    let mut world = world_with(|config| config.waiting_per_id_max = 3);
    let waiting: Vec<ConnId> = (0..5).map(|_| world.register(ID)).collect();
    let other = world.register(OTHER);
    assert_eq!(replaced(&mut world), waiting[..2]);
    assert!(waiting[..2].iter().all(|on| !world.is_open(*on)));
    assert!(waiting[2..].iter().all(|on| world.is_open(*on)));
    assert!(world.is_open(other));
}

#[test]
fn thirty_two_wait_where_nothing_else_is_said() {
    let mut world = world();
    let first = world.register(ID);
    for _ in 1..32 {
        world.register(ID);
    }
    assert!(world.is_open(first));
    world.register(ID);
    assert!(!world.is_open(first));
}

#[test]
fn who_met_a_client_counts_no_more_in_the_pool() {
    let mut world = world_with(|config| config.waiting_per_id_max = 1);
    let (first, _) = world.answered_pair(ID);
    let (second, _) = world.answered_pair(ID);
    let third = world.register(ID);
    assert!([first, second, third].iter().all(|on| world.is_open(*on)));
}

#[test]
fn a_newer_plain_connection_replaces_the_older() {
    let mut world = world();
    let first = world.register_plain(ID);
    world.wait_secs(1);
    let second = world.register_plain(ID);
    assert!(!world.is_open(first));
    assert_eq!(replaced(&mut world), [first]);
    world.wait_ms(100);
    assert_eq!(next(&mut world), Some(second));
}

#[test]
fn plain_and_bound_connections_don_t_replace_one_another() {
    let mut world = world();
    let bound = world.register(ID);
    let plain = world.register_plain(ID);
    let newest = world.register(ID);
    world.wait_ms(100);
    assert_eq!(replaced(&mut world), []);
    assert_eq!(
        [next(&mut world), next(&mut world), next(&mut world)],
        [Some(newest), Some(plain), Some(bound)]
    );
}

#[test]
fn a_plain_connection_meets_nobody_for_a_hundred_milliseconds() {
    let mut world = world();
    let hidden = world.register_plain(ID);
    let client = world.client_sends(get(ID));
    world.wait(rendezvous_core::time::Span(99_999));
    assert_eq!((world.peer(client), world.got(hidden).as_str()), (None, ""));
    world.wait(rendezvous_core::time::Span(1));
    assert_eq!((world.peer(client), world.got(hidden).as_str()), (Some(hidden), GET));
}

#[test]
fn the_hundred_milliseconds_begin_when_the_200_is_in_the_socket() {
    let mut world = world();
    let hidden = world.open();
    world.stall(hidden, true);
    world.write(hidden, plain_connect(ID, world.now.wall));
    let client = world.client_sends(get(ID));
    world.wait_secs(1);
    assert_eq!(world.peer(client), None);
    world.stall(hidden, false);
    world.wait_ms(99);
    assert_eq!(world.peer(client), None);
    world.wait_ms(1);
    assert_eq!(world.peer(client), Some(hidden));
    assert_eq!(world.got(hidden), format!("{OK}{GET}"));
}

#[test]
fn while_a_plain_connection_is_not_ready_an_older_bound_one_goes() {
    let mut world = world();
    let bound = world.register(ID);
    let plain = world.register_plain(ID);
    assert_eq!(next(&mut world), Some(bound));
    world.wait_ms(100);
    assert_eq!(next(&mut world), Some(plain));
}

#[test]
fn a_plain_connection_that_goes_within_its_hundred_milliseconds_leaves_nothing_behind() {
    use rendezvous_core::machine::End;
    let mut world = world();
    let hidden = world.register_plain(ID);
    let client = world.client_sends(get(ID));
    world.end(hidden, End::Clean);
    world.wait_secs(1);
    assert!(world.is_open(client) && world.peer(client).is_none());
    let again = world.register_plain(ID);
    world.wait_ms(100);
    assert_eq!(world.peer(client), Some(again));
}

#[test]
fn a_hidden_server_of_2013_serves_one_client_after_the_other() {
    let mut world = world();
    let mut hidden = world.register_plain(ID);
    for _ in 0..10 {
        let client = world.client_sends(get(ID));
        world.wait_ms(100);
        assert_eq!(world.peer(client), Some(hidden));
        world.write(hidden, crate::ANSWER);
        assert_eq!(world.got(client), crate::ANSWER);
        // It comes back at once, with the same digits.
        hidden = world.register_plain(ID);
    }
}

#[test]
fn a_note_says_how_many_wait() {
    let mut world = world();
    world.register(ID);
    world.register(ID);
    let counts: Vec<u32> = world
        .take_events()
        .iter()
        .filter_map(|event| match event {
            Event::Waiting { waiting, .. } => Some(*waiting),
            _ => None,
        })
        .collect();
    assert_eq!(counts, [1, 2]);
}

/// An agent registers and asks for the state of the pool. Returns the relay's value.
fn state(world: &mut World) -> String {
    let nonce = world.fresh_nonce();
    let connect = bound_connect(ID, world.now.wall, &nonce);
    let asking = connect.replacen("\r\n\r\n", "\r\nRendezvous-Pool: ?\r\n\r\n", 1);
    let on = world.client_sends(asking);
    let answer = world.take(on);
    let state = answer.strip_prefix("HTTP/1.1 200 OK\r\nRendezvous-Pool: ");
    let state = state.unwrap_or_else(|| panic!("{answer}"));
    state.split("\r\n").next().expect("a value").to_owned()
}

#[test]
fn an_agent_that_asks_is_told_how_many_clients_are_held_and_how_many_connections_may_wait() {
    let mut world = world_with(|config| config.waiting_per_id_max = 8);
    assert_eq!(state(&mut world), "held=0 room=7");
    assert_eq!(state(&mut world), "held=0 room=6");
    let _clients: Vec<ConnId> = (0..9).map(|_| world.client_sends(get(ID))).collect();
    // Two were waiting, seven clients are held; one of them gets the connection.
    assert_eq!(state(&mut world), "held=6 room=7");
    assert_eq!(state(&mut world), "held=5 room=7");
}

#[test]
fn an_agent_is_not_told_of_clients_that_its_connections_could_not_serve() {
    let mut world = world_with(|config| config.pairs_per_id_max = 4);
    state(&mut world);
    let _clients: Vec<ConnId> = (0..9).map(|_| world.client_sends(get(ID))).collect();
    assert_eq!(state(&mut world), "held=3 room=31");
    let mut world = world_with(|config| config.handshakes_max = 8);
    state(&mut world);
    let _clients: Vec<ConnId> = (0..9).map(|_| world.client_sends(get(ID))).collect();
    assert_eq!(state(&mut world), "held=2 room=2");
}

#[test]
fn a_plain_token_gets_the_bare_200() {
    let mut world = world();
    let connect = plain_connect(ID, world.now.wall).replacen("\r\n\r\n", "\r\nRendezvous-Pool: ?\r\n\r\n", 1);
    let on = world.client_sends(connect);
    world.expect(on, OK);
}
