//! Buffers that were given back: how long they are kept.

use rendezvous::buffer::{BufferId, Pool, Sizes, Use};

const SIZES: Sizes = Sizes { head: 34 * 1024, bulk: 256 * 1024, ceiling: 48 * 1024 * 1024 };

/// A pool whose `n` bulk buffers were in use at once, and are no more.
fn after(n: usize) -> Pool {
    let mut pool = Pool::new(SIZES);
    give(take(n, &mut pool), &mut pool);
    pool
}

fn take(n: usize, pool: &mut Pool) -> Vec<BufferId> {
    (0..n).map(|_| pool.take(Use::Bulk).expect("room")).collect()
}

fn give(all: Vec<BufferId>, pool: &mut Pool) {
    for id in all {
        pool.give(id);
    }
}

#[test]
fn what_was_given_back_is_kept_until_nobody_needed_it_for_a_while() {
    let mut pool = after(5);
    assert_eq!(pool.ebb(), 0, "they were in use just now");
    assert_eq!(pool.ebb(), 5 * SIZES.bulk, "nobody needed them since");
    assert_eq!(pool.ebb(), 0, "none is left");
}

#[test]
fn those_that_were_needed_in_between_are_kept() {
    let mut pool = after(5);
    pool.ebb();
    for _ in 0..3 {
        let in_use = take(2, &mut pool);
        give(in_use, &mut pool);
    }
    assert_eq!(pool.ebb(), 3 * SIZES.bulk);
    let in_use = take(2, &mut pool);
    give(in_use, &mut pool);
    assert_eq!(pool.ebb(), 0);
}

#[test]
fn a_burst_leaves_no_more_than_a_few() {
    let mut pool = after(64);
    pool.ebb();
    assert_eq!(pool.ebb(), 8 * SIZES.bulk);
}

#[test]
fn both_sizes_ebb() {
    let mut pool = Pool::new(SIZES);
    let head = pool.take(Use::Head).expect("room");
    let bulk = pool.take(Use::Bulk).expect("room");
    pool.give(head);
    pool.give(bulk);
    pool.ebb();
    assert_eq!(pool.ebb(), SIZES.head + SIZES.bulk);
}
