//! Spare buffers, and the fair shares of accounts.

use std::net::{Ipv4Addr, SocketAddr};

use rendezvous::buffer::{BufferId, Charged, Pool, Rank, SMALL, Sizes};
use rendezvous_core::account::{Account, Owners};
use rendezvous_core::id::Id;
use rendezvous_core::time::Time;

const SIZES: Sizes = Sizes { head: 34 * 1024, bulk: 256 * 1024, ceiling: 48 * 1024 * 1024 };

/// A pool after `n` bulk buffers were in use at once and given back.
fn after(n: usize) -> Pool {
    let mut pool = Pool::new(SIZES);
    give(take(n, &mut pool), &mut pool);
    pool
}

fn take(n: usize, pool: &mut Pool) -> Vec<BufferId> {
    (0..n).map(|_| pool.take(Charged::NOBODY).expect("room")).collect()
}

fn give(all: Vec<BufferId>, pool: &mut Pool) {
    for id in all {
        pool.give(id);
    }
}

#[test]
fn what_was_given_back_is_kept_until_nobody_needed_it_for_a_while() {
    let mut pool = after(5);
    assert_eq!(pool.release_idle(), 0, "they were in use just now");
    assert_eq!(pool.release_idle(), 5 * SIZES.bulk, "nobody needed them since");
    assert_eq!(pool.release_idle(), 0, "none is left");
}

#[test]
fn those_that_were_needed_in_between_are_kept() {
    let mut pool = after(5);
    pool.release_idle();
    for _ in 0..3 {
        let in_use = take(2, &mut pool);
        give(in_use, &mut pool);
    }
    assert_eq!(pool.release_idle(), 3 * SIZES.bulk);
    let in_use = take(2, &mut pool);
    give(in_use, &mut pool);
    assert_eq!(pool.release_idle(), 0);
}

#[test]
fn a_burst_leaves_no_more_than_a_few() {
    let mut pool = after(48);
    pool.release_idle();
    assert_eq!(pool.release_idle(), 8 * SIZES.bulk);
}

#[test]
fn both_sizes_ebb() {
    let mut pool = Pool::new(SIZES);
    let head = pool.take_working(Charged::NOBODY);
    let bulk = pool.take(Charged::NOBODY).expect("room");
    pool.give(head);
    pool.give(bulk);
    pool.release_idle();
    assert_eq!(pool.release_idle(), SIZES.head + SIZES.bulk);
}

fn owners(address: u8, id: u128) -> Owners {
    let from = SocketAddr::from((Ipv4Addr::new(192, 0, 2, address), 1));
    Owners { server: Some(Account::Id(Id(id))), ..Owners::of_peer(Some(from)) }
}

/// Takes buffers until none is left. Returns their bytes.
fn take_all(pool: &mut Pool, charged: Charged) -> usize {
    let before = pool.used();
    while pool.take(charged).is_some() {}
    pool.used() - before
}

#[test]
fn one_account_leaves_as_much_as_it_takes() {
    let mut pool = Pool::new(SIZES);
    let greedy = pool.open_account(owners(1, 1));
    let taken = take_all(&mut pool, greedy);
    // An eighth is reserved for kept bytes.
    let half = SIZES.ceiling / 8 * 7 / 2;
    assert!(taken <= half + SIZES.bulk, "{taken}");
    assert!(taken >= half - SIZES.bulk, "{taken}");
}

#[test]
fn whoever_shares_one_account_with_the_greedy_gets_memory_by_the_other() {
    let mut pool = Pool::new(SIZES);
    for _ in 0..3 {
        let greedy = pool.open_account(owners(1, 1));
        take_all(&mut pool, greedy);
    }
    for (address, id) in [(1, 2), (2, 1), (2, 2)] {
        let honest = pool.open_account(owners(address, id));
        assert!(pool.take(honest).is_some(), "address {address}, ID {id}");
    }
}

/// If very many accounts are greedy, the limit is reached, and connections without progress are cut.
#[test]
fn a_new_account_finds_memory_beside_ten_greedy_ones_and_the_ceiling_holds() {
    for (addresses, ids) in [(1, 1), (10, 1), (1, 10), (10, 10), (100, 5), (250, 1)] {
        for ceiling in [8 << 20, 48 << 20] {
            let mut pool = Pool::new(Sizes { ceiling, ..SIZES });
            for address in 0..addresses {
                for id in 0..ids {
                    let greedy = pool.open_account(owners(address, id));
                    take_all(&mut pool, greedy);
                }
            }
            assert!(pool.used() <= ceiling);
            let few = usize::from(addresses) + ids as usize <= 20;
            let honest = pool.open_account(owners(255, 255));
            if few {
                assert!(pool.take(honest).is_some(), "{addresses} addresses, {ids} IDs, {ceiling} bytes");
            }
        }
    }
}

#[test]
fn the_large_size_is_for_those_who_use_little() {
    let mut pool = Pool::new(SIZES);
    let charged = pool.open_account(owners(1, 1));
    let sizes: Vec<usize> = std::iter::from_fn(|| pool.take(charged).map(|id| pool.charged(id))).collect();
    let large = sizes.iter().take_while(|&&size| size == SIZES.bulk).count();
    assert!((52..=60).contains(&large), "{large}: a third of what queues may use");
    assert!(sizes[large..].iter().all(|&size| size == SMALL), "and then the small size");
}

#[test]
fn kept_bytes_are_charged_whatever_the_ceiling_and_go_when_queues_need_them() {
    let mut pool = Pool::new(Sizes { ceiling: 1 << 20, ..SIZES });
    let charged = pool.open_account(owners(1, 1));
    let half = pool.hold(&vec![1; 512 << 10], charged);
    pool.charge_kept(charged, 0, 1_000);
    assert_eq!((pool.used(), pool.least(charged)), ((512 << 10) + 1_000, (512 << 10) + 1_000));
    assert_eq!(pool.kept_excess(), 0, "nobody else needs more than half");
    let queues: Vec<BufferId> = (0..SIZES.kept_max())
        .map_while(|address| {
            let charged = pool.open_account(owners(address as u8, address as u128));
            pool.take(charged)
        })
        .collect();
    assert!(pool.used() <= (1 << 20) + 1_000, "queues may have the other half");
    assert_eq!(pool.kept_excess(), 1_000, "what is left is for an account that uses nothing");
    give(queues, &mut pool);
    pool.give(half);
    pool.charge_kept(charged, 1_000, 0);
    assert_eq!((pool.kept_excess(), pool.excess(), pool.used()), (0, 0, 0));
}

#[test]
fn queues_leave_room_for_kept_bytes_and_what_is_above_the_ceiling_is_told() {
    let mut pool = Pool::new(Sizes { ceiling: 1 << 20, bulk: SMALL, ..SIZES });
    for address in 0..=255 {
        let charged = pool.open_account(owners(address, 1));
        pool.take(charged);
    }
    assert!(pool.used() <= (1 << 20) / 8 * 7);
    let charged = pool.open_account(owners(1, 2));
    pool.charge_kept(charged, 0, 400_000);
    assert_eq!(pool.kept_excess(), 0, "less than half");
    assert_eq!(pool.excess(), pool.used() - (1 << 20));
    assert_eq!(pool.spare_kept(), 400_000 - (128 << 10));
}

/// Even at the lowest limit, an account that uses nothing gets a queue.
#[test]
fn the_last_queue_is_for_an_account_that_uses_nothing() {
    let mut pool = Pool::new(Sizes { ceiling: 256 << 10, bulk: 64 << 10, ..SIZES });
    let greedy: Vec<Charged> = (0..4).map(|address| pool.open_account(owners(address, 1))).collect();
    for _ in 0..8 {
        for &greedy in &greedy {
            pool.take(greedy);
        }
    }
    let honest = pool.open_account(owners(200, 2));
    assert!(pool.take(honest).is_some());
}

#[test]
fn the_last_queue_is_not_for_an_account_that_stalled_until_that_is_forgotten() {
    let mut pool = Pool::new(Sizes { ceiling: 256 << 10, bulk: 64 << 10, ..SIZES });
    let stalled: Vec<Charged> = (0..10).map(|address| pool.open_account(owners(address, 1))).collect();
    for &stalled in &stalled {
        pool.note_stalled(stalled, Time(1_000));
        assert_eq!(pool.line(stalled).rank, Rank::Stalled);
    }
    let queues: Vec<BufferId> = stalled.iter().filter_map(|&stalled| pool.take(stalled)).collect();
    assert!(queues.len() >= 4, "there is room for some of them");
    // Another hidden server behind a stalled address, and another address: one account is enough.
    for (address, id) in [(0, 2), (200, 1)] {
        let honest = pool.open_account(owners(address, id));
        assert_eq!(pool.line(honest).rank, Rank::Clear);
        let queue = pool.take(honest).expect("the last one");
        pool.give(queue);
    }
    assert!(pool.take(stalled[9]).is_none());
    pool.clear_stalled(Time(1_000));
    assert!(pool.take(stalled[9]).is_none(), "it is no longer ago");
    pool.clear_stalled(Time(1_001));
    assert_eq!(pool.line(stalled[9]).rank, Rank::Clear);
    assert!(pool.take(stalled[9]).is_some());
}

#[test]
fn a_working_buffer_costs_what_is_kept_of_it() {
    let mut pool = Pool::new(SIZES);
    let charged = pool.open_account(owners(1, 1));
    let parked = pool.take_working(charged);
    assert_eq!(pool.used(), 0);
    pool[parked].append(b"GET / HT");
    pool.shrink_buffer(parked);
    assert_eq!((pool.used(), pool[parked].filled()), (8, &b"GET / HT"[..]));
    pool.grow_buffer(parked);
    assert_eq!((pool.used(), pool[parked].filled()), (0, &b"GET / HT"[..]));
    assert!(pool[parked].room() > 16 << 10);
    pool.give(parked);
    assert_eq!(pool.used(), 0);
}
