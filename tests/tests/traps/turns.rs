//! Turns: progress without an edge, fairness, and idleness.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use rendezvous::buffer::Sizes;
use rendezvous_core::engine::{Config, Transport};
use rendezvous_core::machine::End;
use rendezvous_core::time::{Span, Time};
use tests::actors::{Actor, Behaviour, Ending, Hidden, Style};
use tests::model::ByteLedger;
use tests::plan::id;
use tests::rng::Rng;
use tests::run::{Run, relay_address};
use tests::secured::Secured;
use tests::sim_net::{Ep, Faults, ProcessId, World};

use crate::{CALM, client, fast_scene, finish, in_seconds, scene, scene_with};

/// More bytes than one turn may move, all available at the first edge.
#[test]
fn a_turn_that_stops_early_continues_without_another_edge() {
    for secured in [None, Some(Secured::new())] {
        let secured = secured.as_ref();
        let mut run = scene(1, CALM, 10, Ending::HalfClose, secured);
        let until = in_seconds(&run, 100);
        let client = client(&mut run, Behaviour::plain(3_000_000), secured);
        assert!(run.until_or(until, |_| client.borrow().is_done()), "it never ended");
        run.wait(Span::from_secs(60));
        assert_eq!(run.ledger.flows()[0].received, 3_000_000);
        assert!(run.ledger.flows()[0].done, "a clean end");
        finish(run);
    }
}

/// Bytes that TLS holds in user space give no edge either: complete records after one that had no room.
#[test]
fn buffered_tls_records_count_as_readiness() {
    let secured = Secured::new();
    for seed in 0..8 {
        let faults = Faults { room_max: 40_000, short_recv: 300, ..CALM };
        let hidden = Hidden::new(relay_address(), id(0), Style::Modern { pool: 2 }, Rng::new(seed));
        // Small records: there is room for some of the available ones, but not for all.
        let hidden = hidden.holding(Behaviour { send_most: 400, ..Behaviour::plain(200_000) });
        let mut run = scene_with(hidden, seed, faults, Some(&secured));
        let until = in_seconds(&run, 110);
        let slow = Behaviour { read_most: 700, read_rest: Span::from_millis(1), ..Behaviour::plain(300_000) };
        let client = client(&mut run, slow, Some(&secured));
        assert!(run.until_or(until, |_| client.borrow().is_done()), "seed {seed}: it never ended");
        assert_eq!(client.borrow().peer_end(), Some(End::Clean), "seed {seed}");
        finish(run);
    }
}

/// How long a client takes from its start while others read slowly.
fn time_beside(seed: u64, others: u32, slow: Behaviour) -> Span {
    let faults = Faults { room_max: 40_000, ..CALM };
    let mut run = fast_scene(seed, faults, 1 << 18);
    let steady = Behaviour { send_most: 1_000, send_rest: Span(500), ..Behaviour::plain(1_000_000) };
    let quick = client(&mut run, steady, None);
    let begun = run.now();
    run.wait(Span::from_millis(50));
    for _ in 0..others {
        client(&mut run, slow, None);
    }
    let until = in_seconds(&run, 100);
    assert!(run.until_or(until, |_| quick.borrow().is_done()), "seed {seed}: it waits for others");
    let took = run.now().since(begun);
    run.wait(Span::from_secs(1));
    assert_eq!(run.ledger.flows()[0].received, 1_000_000, "seed {seed}");
    finish(run);
    took
}

/// A slow reader stops its own sender: twenty of them delay no other client.
#[test]
fn slow_readers_delay_no_others() {
    let silent_reader = Behaviour { read_most: 0, patience: Span::from_secs(3), ..Behaviour::plain(10) };
    let slow = Behaviour { read_most: 10, read_rest: Span(2_000), ..silent_reader };
    for seed in 0..3 {
        let alone = time_beside(seed, 0, silent_reader);
        for behaviour in [silent_reader, slow] {
            let beside = time_beside(seed, 8, behaviour);
            assert!(beside.0 <= alone.0 + alone.0 / 20, "seed {seed}: {beside:?} instead of {alone:?}");
        }
    }
}

/// The model checks that it is served within a number of turns. This test checks that it finishes while the others
/// continue.
#[test]
fn a_fast_pair_does_not_delay_others() {
    let mut run = fast_scene(6, CALM, 100);
    let fast: Vec<_> = (0..2).map(|_| client(&mut run, Behaviour::plain(6_000_000), None)).collect();
    let drop_by_drop = Behaviour { send_most: 1, send_rest: Span::from_millis(1), ..Behaviour::plain(10) };
    let interactive = client(&mut run, drop_by_drop, None);
    let until = in_seconds(&run, 100);
    assert!(run.until_or(until, |_| interactive.borrow().is_done()), "it waits for others");
    assert!(!fast.iter().any(|fast| fast.borrow().is_done()), "the fast ones were to go on meanwhile");
    assert!(run.until_or(until, |_| fast.iter().all(|fast| fast.borrow().is_done())));
    finish(run);
}

/// When the destination's buffer is full, its source is not read and gives no edge. Room in the buffer resumes it.
#[test]
fn room_in_a_destination_resumes_its_source() {
    for seed in 0..6 {
        let faults = Faults { room_max: 9_000, short_send: 300, ..CALM };
        let mut run = scene(seed, faults, 300_000, Ending::HalfClose, None);
        let slow = Behaviour { read_most: 3_000, read_rest: Span::from_millis(2), ..Behaviour::plain(20) };
        let client = client(&mut run, slow, None);
        let until = in_seconds(&run, 110);
        assert!(run.until_or(until, |_| client.borrow().is_done()), "seed {seed}: it never ended");
        assert_eq!(client.borrow().peer_end(), Some(End::Clean), "seed {seed}");
        finish(run);
    }
}

/// Buffers for two at most: a slow reader keeps one, and the others still complete.
#[test]
fn all_complete_with_few_buffers() {
    let mut run = Run::new(6, Faults { room_max: 3_000, ..CALM });
    let config = Config { listeners: vec![Transport::Plain], ..Config::default() };
    let sizes = Sizes { head: 34 * 1024, bulk: 40 * 1024, ceiling: 300 * 1024 };
    run.start_relay(config, sizes, Secured::new().server(false), &[id(0)]);
    let hidden = Hidden::new(relay_address(), id(0), Style::Modern { pool: 8 }, Rng::new(6));
    run.add(hidden.answering(20_000, &[Ending::HalfClose]), None);
    run.wait(Span::from_secs(1));
    let clients: Vec<_> = (0..30).map(|_| client(&mut run, Behaviour::plain(30_000), None)).collect();
    let until = in_seconds(&run, 115);
    let all = |_: &mut Run| clients.iter().all(|client| client.borrow().is_done());
    assert!(run.until_or(until, all), "a client starves");
    assert!(run.ledger.clean > 10, "{} clean ends", run.ledger.clean);
    finish(run);
}

#[test]
fn early_late_and_spurious_polls_hardly_move_deadlines() {
    let faults = Faults { late: 1_000, spurious: 500, stale: 1_000, ..CALM };
    let mut run = scene(7, faults, 10, Ending::HalfClose, None);
    let silent = Silent { to: relay_address(), ep: None, ended: None };
    let silent = Rc::new(RefCell::new(silent));
    run.add(Rc::clone(&silent), None);
    let begun = run.now();
    run.wait(Span::from_secs(30));
    let ended = silent.borrow().ended.expect("silence is ended");
    let after = ended.since(begun);
    assert!(after > Span::from_millis(9_990) && after < Span::from_millis(10_100), "{after:?}");
    finish(run);
}

/// Connects, and sends nothing.
struct Silent {
    to: SocketAddr,
    ep: Option<Ep>,
    ended: Option<Time>,
}

impl Actor for Silent {
    fn act(&mut self, who: ProcessId, world: &mut World, _: &mut ByteLedger) {
        match self.ep {
            None => self.ep = world.connect(who, self.to).ok(),
            Some(ep) if world.has_end(ep) && self.ended.is_none() => {
                self.ended = Some(world.now());
                world.close(ep);
            }
            Some(_) => {}
        }
    }

    fn retire(&mut self) {}

    fn leave(&mut self, world: &mut World) {
        if let (Some(ep), None) = (self.ep, self.ended) {
            world.abort(ep);
        }
    }

    fn is_done(&self) -> bool {
        self.ended.is_some()
    }
}
