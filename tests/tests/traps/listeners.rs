//! Listeners: backlogs, descriptors, events of closed connections.

use rendezvous_core::time::Span;
use tests::actors::{Actor, Behaviour, Ending, Scanner};
use tests::model::ByteLedger;
use tests::rng::Rng;
use tests::run::{Run, relay_address};
use tests::sim_net::{Ep, Faults, ProcessId, World};

use crate::{CALM, client, finish, in_seconds, scene};

#[test]
fn a_listener_without_descriptors_is_tried_again_when_there_are_some() {
    let mut run = scene(2, CALM, 100, Ending::HalfClose, None);
    let Some(relay) = &run.relay else { panic!("there is a relay") };
    let who = relay.who;
    let used = run.world.borrow().descriptors(who);
    run.world.borrow_mut().limit_descriptors(who, used);
    let clients: Vec<_> = (0..40).map(|_| client(&mut run, Behaviour::plain(5), None)).collect();
    run.wait(Span::from_secs(3));
    assert!(!clients.iter().any(|client| client.borrow().met), "there is no descriptor for anybody");
    run.world.borrow_mut().limit_descriptors(who, 1_000);
    run.wait(Span::from_secs(20));
    assert!(clients.iter().all(|client| client.borrow().is_done()), "a client was forgotten in the backlog");
    finish(run);
}

#[test]
fn connections_reset_in_the_backlog_do_not_block_later_ones() {
    let faults = Faults { aborted: 500, no_descriptor: 200, ..CALM };
    let mut run = scene(3, faults, 100, Ending::HalfClose, None);
    for _ in 0..40 {
        run.add(Hasty { ep: None }, None);
    }
    let last = client(&mut run, Behaviour::plain(5), None);
    run.wait(Span::from_secs(20));
    assert!(last.borrow().met);
    finish(run);
}

/// Each closed socket gives one more event, which comes when another connection has its index.
#[test]
fn events_of_closed_sockets_reach_nobody() {
    let mut run = scene(12, Faults { stale: 1_000, ..CALM }, 3_000, Ending::Close, None);
    for _ in 0..40 {
        run.add(Hasty { ep: None }, None);
    }
    let clients: Vec<_> = (0..10).map(|_| client(&mut run, Behaviour::plain(2_000), None)).collect();
    let until = in_seconds(&run, 100);
    let all = |_: &mut Run| clients.iter().all(|client| client.borrow().is_done());
    assert!(run.until_or(until, all), "a client is kept waiting");
    assert!(run.ledger.clean >= 10, "{} clean ends", run.ledger.clean);
    finish(run);
}

#[test]
fn scanners_leave_no_connections() {
    let mut run =
        scene(9, Faults { short_recv: 300, spurious: 100, stale: 300, ..CALM }, 10, Ending::Close, None);
    let mut rng = Rng::new(9);
    for _ in 0..100 {
        let begins = run.now() + Span(rng.below(10_000_000));
        run.add(Scanner::new(relay_address(), begins, rng.fork()), None);
    }
    let until = in_seconds(&run, 150);
    run.until_done(until);
    finish(run);
}

/// Connects and resets at once.
struct Hasty {
    ep: Option<Ep>,
}

impl Actor for Hasty {
    fn act(&mut self, who: ProcessId, world: &mut World, _: &mut ByteLedger) {
        match self.ep {
            None => self.ep = world.connect(who, relay_address()).ok(),
            Some(ep) if world.connected(ep).is_ok_and(|up| up) && world.can_send(ep) => world.abort(ep),
            Some(_) => {}
        }
    }

    fn retire(&mut self) {}

    fn leave(&mut self, _: &mut World) {}

    fn is_done(&self) -> bool {
        true
    }
}
