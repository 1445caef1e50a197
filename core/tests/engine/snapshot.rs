//! Snapshots of a running relay.

use rendezvous_core::engine::{ConnectionState, Connections, IdSnapshot};
use rendezvous_core::id::Id;
use rendezvous_core::machine::{End, NamedBy};
use rendezvous_core::registry::Enrolment;
use rendezvous_core::time::Span;

use crate::world::World;
use crate::{ANSWER, ID, OTHER, enrolled, get, key, post, world};

fn of(world: &World, id: Id) -> IdSnapshot {
    let snapshot = world.engine.snapshot(world.now);
    *snapshot.ids.iter().find(|of| of.id == id).expect("it is enrolled")
}

#[test]
fn each_connection_is_counted_as_what_it_is() {
    let mut world = world();
    world.open();
    world.register(ID);
    world.register_plain(OTHER);
    world.pair(OTHER);
    world.client_sends(get(OTHER));
    world.client_sends("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    world.open_on(1, "192.0.2.7:7");
    let snapshot = world.engine.snapshot(world.now);
    let of = snapshot.connections;
    let expected =
        Connections { handshakes: 1, heads: 2, answers: 0, waiting: 2, held: 1, paired: 2, closing: 0 };
    assert_eq!(of, expected);
    assert_eq!(of.all() as usize, world.engine.connections());
    assert_eq!(of.paired as usize, 2 * world.engine.pairs());
    assert_eq!(snapshot.ids.iter().map(|of| of.waiting).sum::<u32>(), of.waiting);
    assert_eq!(snapshot.ids.iter().map(|of| of.held).sum::<u32>(), of.held);
    assert_eq!(snapshot.ids.iter().map(|of| of.pairs).sum::<u32>() * 2, of.paired);
    assert_eq!(snapshot.connections_max, 10_000);
    assert!(!snapshot.draining);
}

#[test]
fn an_empty_relay_shows_its_ids_in_order_and_nothing_else() {
    let world = world();
    let snapshot = world.engine.snapshot(world.now);
    assert_eq!(snapshot.connections, Connections::default());
    let ids: Vec<_> = snapshot.ids.iter().map(|of| of.id).collect();
    assert_eq!(ids, [ID, OTHER]);
    let nothing = |of: &IdSnapshot| (of.waiting, of.pairs, of.pairs_ended, of.from_client, of.seen);
    assert!(snapshot.ids.iter().all(|of| nothing(of) == (0, 0, 0, 0, None)), "{:?}", snapshot.ids);
}

#[test]
fn bytes_count_each_way_in_pairs_of_now_and_in_those_that_ended() {
    let mut world = world();
    let (hidden, client) = world.pair(ID);
    world.write(hidden, ANSWER);
    world.write(client, "12345");
    let now = of(&world, ID);
    assert_eq!((now.from_client, now.from_hidden, now.pairs), (5, ANSWER.len() as u64, 1));
    assert_eq!((now.pairs_ended, now.seen), (0, Some(Span::ZERO)));
    world.end(client, End::Clean);
    world.end(hidden, End::Clean);
    world.wait_secs(7);
    let (hidden, client) = world.pair(ID);
    world.write(hidden, "1");
    let now = of(&world, ID);
    assert_eq!((now.from_client, now.from_hidden), (5, ANSWER.len() as u64 + 1));
    assert_eq!((now.pairs, now.pairs_ended), (1, 1));
    world.end(client, End::Clean);
    world.end(hidden, End::Clean);
    world.wait_secs(3);
    let now = of(&world, ID);
    assert_eq!((now.pairs, now.pairs_ended, now.seen), (0, 2, Some(Span::from_secs(3))));
}

#[test]
fn another_secret_keeps_what_was_counted_and_a_new_id_has_nothing() {
    let mut world = world();
    let (hidden, client) = world.pair(ID);
    world.write(hidden, ANSWER);
    world.end(client, End::Clean);
    world.end(hidden, End::Clean);
    world.enrol(vec![Enrolment { key: key(9), ..enrolled(ID, &[]) }]);
    assert_eq!((of(&world, ID).pairs_ended, of(&world, ID).from_hidden), (1, ANSWER.len() as u64));
    world.enrol(Vec::new());
    world.enrol(vec![enrolled(ID, &[])]);
    assert_eq!((of(&world, ID).pairs_ended, of(&world, ID).seen), (0, None));
}

#[test]
fn a_pair_of_a_removed_id_is_counted_among_the_connections_alone() {
    let mut world = world();
    let (hidden, client) = world.pair(ID);
    world.enrol(Vec::new());
    let snapshot = world.engine.snapshot(world.now);
    assert_eq!((snapshot.connections.paired, snapshot.ids.len()), (2, 0));
    world.end(client, End::Clean);
    world.end(hidden, End::Clean);
}

#[test]
fn a_relay_that_shuts_down_says_so() {
    let mut world = world();
    world.register(ID);
    world.drain();
    let snapshot = world.engine.snapshot(world.now);
    assert!(snapshot.draining);
    assert_eq!((snapshot.connections.waiting, snapshot.connections.closing), (0, 1));
}

#[test]
fn a_failed_hand_over_leaves_the_bytes_of_its_client_counted() {
    let mut world = world();
    let hidden = world.register(ID);
    world.client_sends(post(ID, "body") + "behind");
    let before = of(&world, ID).from_client;
    assert!(before > 0);
    world.end(hidden, End::Reset);
    let after = of(&world, ID);
    assert_eq!((after.pairs, after.pairs_ended, after.from_client), (0, 0, before));
}

#[test]
fn pairs_tokens_and_the_time_until_a_hand_over_are_counted() {
    let mut world = world();
    let counts = |world: &World| world.engine.snapshot(world.now).counts;
    world.pair(ID);
    world.client_sends(get(ID));
    world.wait_secs(2);
    world.register(ID);
    let hand_overs = counts(&world).hand_overs.cumulative();
    assert_eq!((counts(&world).pairs, counts(&world).hand_overs.sum()), (2, Span::from_secs(2)));
    assert_eq!(hand_overs, [1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2], "2 s are within 2.5 s");
    assert_eq!(world.engine.snapshot(world.now).tokens, 2);
}

#[test]
fn every_connection_is_listed_once_however_short_the_parts() {
    let mut world = world();
    world.register(OTHER);
    let (hidden, client) = world.answered_pair(ID);
    world.write(client, "12345");
    world.client_sends(get(ID));
    world.open_on(1, "192.0.2.7:7");
    world.wait_secs(3);
    let mut listed = Vec::new();
    let mut start = Some(0);
    while let Some(from) = start {
        let (part, next) = world.engine.list(from, 1, world.now);
        listed.extend(part);
        start = next;
    }
    assert_eq!(listed, world.engine.list(0, usize::MAX, world.now).0);
    assert_eq!(listed.len(), world.engine.connections());
    let of = |conn| listed.iter().find(|info| info.conn == conn).expect("it is listed");
    assert_eq!((of(client).state, of(client).named_by), (ConnectionState::Client, NamedBy::UserName));
    assert_eq!((of(client).received, of(client).sent), (5, ANSWER.len() as u64));
    assert_eq!((of(hidden).received, of(hidden).sent), (ANSWER.len() as u64, 5));
    assert_eq!((of(hidden).peer, of(hidden).named_by), (Some(client), NamedBy::Token));
    assert_eq!((of(client).id, of(client).age), (Some(ID), Some(Span::from_secs(3))));
    let states: Vec<_> = listed.iter().map(|info| info.state).collect();
    for state in [ConnectionState::Waiting, ConnectionState::Held, ConnectionState::Handshake] {
        assert_eq!(states.iter().filter(|of| **of == state).count(), 1, "{state:?}");
    }
}
