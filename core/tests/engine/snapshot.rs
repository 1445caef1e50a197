//! Snapshots of a running relay.

use rendezvous_core::engine::{Connections, IdSnapshot};
use rendezvous_core::id::Id;
use rendezvous_core::machine::End;
use rendezvous_core::registry::Enrolment;
use rendezvous_core::time::Span;

use crate::world::World;
use crate::{ANSWER, ID, OTHER, enrolled, get, key, world};

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
    world.says(get(OTHER));
    world.says("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
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
