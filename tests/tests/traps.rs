//! The traps of edge-triggered loops (DESIGN §6), each as a case in the simulated world, where the kernel's part can be
//! made to happen. What must hold is checked all the time by the model; here it is made sure that the case happens.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use rendezvous::buffer::Sizes;
use rendezvous_core::engine::{Config, Transport};
use rendezvous_core::machine::End;
use rendezvous_core::time::{Span, Time};
use tests::actors::{Actor, Client, Ending, Habits, Hidden, Scanner, Style};
use tests::dice::Dice;
use tests::model::Ledger;
use tests::plan::id;
use tests::run::{Run, SIZES, relay_address};
use tests::secured::Secured;
use tests::sim_net::{Ep, Faults, Who, World};

const CALM: Faults = Faults {
    short_recv: 0,
    short_send: 0,
    would_block: 0,
    spurious: 0,
    stale: 0,
    late: 0,
    no_descriptor: 0,
    aborted: 0,
    latency_max: Span(1_000),
    room_max: 1 << 20,
};

/// A relay, and a hidden server that answers `octets` at most and ends so.
fn scene(seed: u64, faults: Faults, octets: u64, ending: Ending, secured: Option<&Secured>) -> Run {
    let mut run = Run::new(seed, faults);
    let tls = secured.is_some();
    let transport = if tls { Transport::Tls } else { Transport::Plain };
    let config = Config { listeners: vec![transport], ..Config::default() };
    let made;
    let setup = match secured {
        Some(secured) => secured,
        None => {
            made = Secured::new();
            &made
        }
    };
    run.start_relay(config, SIZES, setup.server(tls), &[id(0)]);
    let hidden = Hidden::new(relay_address(), id(0), Style::Modern { pool: 2 }, Dice::new(seed));
    run.add(hidden.answering(octets, &[ending]).secured(setup.client(tls)), None);
    run.wait(Span::from_secs(1));
    run
}

fn client(run: &mut Run, habits: Habits, secured: Option<&Secured>) -> Rc<RefCell<Client>> {
    let tls = secured.and_then(|secured| secured.client(true));
    let client = Client::new(relay_address(), id(0), run.now(), habits).secured(tls);
    let client = Rc::new(RefCell::new(client));
    run.add(Rc::clone(&client), None);
    client
}

fn finish(mut run: Run) -> Ledger {
    run.leave();
    run.wait(Span::from_secs(120));
    run.check_empty();
    run.ledger
}

fn in_seconds(run: &Run, seconds: u64) -> Time {
    run.now() + Span::from_secs(seconds)
}

/// Longer than what one turn may move, and all of it there at the first edge.
#[test]
fn a_turn_that_stops_early_goes_on_without_another_edge() {
    for secured in [None, Some(Secured::new())] {
        let secured = secured.as_ref();
        let mut run = scene(1, CALM, 10, Ending::HalfClose, secured);
        let until = in_seconds(&run, 100);
        let client = client(&mut run, Habits::plain(3_000_000), secured);
        assert!(run.until_or(until, |_| client.borrow().is_done()), "it never ended");
        run.wait(Span::from_secs(60));
        assert_eq!(run.ledger.flows()[0].received, 3_000_000);
        assert!(run.ledger.flows()[0].done, "a clean end");
        finish(run);
    }
}

/// Neither do octets that TLS keeps in user space make an edge: whole records behind one that had no room.
#[test]
fn records_that_wait_in_user_space_are_readiness() {
    let secured = Secured::new();
    for seed in 0..8 {
        let faults = Faults { room_max: 40_000, short_recv: 300, ..CALM };
        let mut run = scene(seed, faults, 200_000, Ending::HalfClose, Some(&secured));
        let until = in_seconds(&run, 110);
        let slow = Habits { read_most: 700, read_rest: Span::from_millis(1), ..Habits::plain(300_000) };
        let client = client(&mut run, slow, Some(&secured));
        assert!(run.until_or(until, |_| client.borrow().is_done()), "seed {seed}: it never ended");
        assert_eq!(client.borrow().heard_end(), Some(End::Clean), "seed {seed}");
        finish(run);
    }
}

#[test]
fn a_listener_without_descriptors_is_tried_again_when_there_are_some() {
    let mut run = scene(2, CALM, 100, Ending::HalfClose, None);
    let Some(relay) = &run.relay else { panic!("there is a relay") };
    let who = relay.who;
    let used = run.world.borrow().descriptors(who);
    run.world.borrow_mut().limit_descriptors(who, used);
    let clients: Vec<_> = (0..40).map(|_| client(&mut run, Habits::plain(5), None)).collect();
    run.wait(Span::from_secs(3));
    assert!(!clients.iter().any(|client| client.borrow().met), "there is no descriptor for anybody");
    run.world.borrow_mut().limit_descriptors(who, 1_000);
    run.wait(Span::from_secs(20));
    assert!(clients.iter().all(|client| client.borrow().is_done()), "somebody was forgotten in the backlog");
    finish(run);
}

#[test]
fn who_is_gone_from_the_backlog_stops_nobody_behind_him() {
    let faults = Faults { aborted: 500, no_descriptor: 200, ..CALM };
    let mut run = scene(3, faults, 100, Ending::HalfClose, None);
    for _ in 0..40 {
        run.add(Hasty { ep: None }, None);
    }
    let last = client(&mut run, Habits::plain(5), None);
    run.wait(Span::from_secs(20));
    assert!(last.borrow().met);
    finish(run);
}

/// Connects and resets at once.
struct Hasty {
    ep: Option<Ep>,
}

impl Actor for Hasty {
    fn act(&mut self, who: Who, world: &mut World, _: &mut Ledger) {
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

/// The client has ended its side: the answer's last octets and its end come as one hang-up.
#[test]
fn octets_in_front_of_a_hang_up_are_read() {
    for seed in 0..20 {
        let mut run = scene(seed, CALM, 50_000, Ending::Close, None);
        let client = client(&mut run, Habits::plain(20), None);
        run.wait(Span::from_secs(60));
        assert_eq!(client.borrow().heard_end(), Some(End::Clean), "seed {seed}");
        let answer = &run.ledger.flows()[1];
        assert!(answer.done && answer.received == answer.sent, "seed {seed}");
        finish(run);
    }
}

#[test]
fn octets_in_front_of_a_reset_arrive_and_the_reset_is_no_clean_end() {
    let mut octets = 0;
    for seed in 0..40 {
        let faults = Faults { spurious: 100, ..CALM };
        let mut run = scene(seed, faults, 5_000, Ending::Reset, None);
        let client = client(&mut run, Habits::plain(100_000), None);
        run.wait(Span::from_secs(60));
        // Before the first octet of an answer it is a 502 of the relay's own, which ends in order.
        if client.borrow().met {
            assert_eq!(client.borrow().heard_end(), Some(End::Reset), "seed {seed}");
        }
        octets += run.ledger.flows().get(1).map_or(0, |answer| answer.received);
        finish(run);
    }
    assert!(octets > 10_000, "{octets}");
}

/// The first write after it succeeds, the second is a broken pipe: neither is the end of what the peer sent.
#[test]
fn writing_to_who_has_closed_costs_not_an_octet_of_what_he_sent() {
    for seed in 0..40 {
        let mut run = scene(seed, CALM, 2_000, Ending::Close, None);
        let drops = Habits { send_most: 100, send_rest: Span::from_millis(3), ..Habits::plain(20_000) };
        let client = client(&mut run, Habits { ending: Ending::AfterPeer, ..drops }, None);
        run.wait(Span::from_secs(60));
        assert!(client.borrow().is_done(), "seed {seed}");
        finish(run);
    }
}

#[test]
fn a_reader_who_reads_nothing_stops_nobody_else() {
    let mut run = scene(5, CALM, 1 << 18, Ending::HalfClose, None);
    let deaf = Habits { read_most: 0, patience: Span::from_secs(100), ..Habits::plain(10) };
    for _ in 0..4 {
        client(&mut run, deaf, None);
    }
    run.wait(Span::from_secs(2));
    let begun = run.now();
    let quick = client(&mut run, Habits::plain(1_000_000), None);
    let until = in_seconds(&run, 20);
    assert!(run.until_or(until, |_| quick.borrow().is_done()), "it waits for others");
    let took = run.now().since(begun);
    assert!(took < Span::from_secs(10), "{took:?}");
    finish(run);
}

/// Buffers for two at most: who reads slowly keeps one, and the others still come through.
#[test]
fn with_few_buffers_all_come_through() {
    let mut run = Run::new(6, Faults { room_max: 3_000, ..CALM });
    let config = Config { listeners: vec![Transport::Plain], ..Config::default() };
    let sizes = Sizes { head: 34 * 1024, bulk: 40 * 1024, ceiling: 300 * 1024 };
    run.start_relay(config, sizes, Secured::new().server(false), &[id(0)]);
    let hidden = Hidden::new(relay_address(), id(0), Style::Modern { pool: 8 }, Dice::new(6));
    run.add(hidden.answering(20_000, &[Ending::HalfClose]), None);
    run.wait(Span::from_secs(1));
    let clients: Vec<_> = (0..30).map(|_| client(&mut run, Habits::plain(30_000), None)).collect();
    let until = in_seconds(&run, 115);
    let all = |_: &mut Run| clients.iter().all(|client| client.borrow().is_done());
    assert!(run.until_or(until, all), "somebody starves");
    assert!(run.ledger.clean > 10, "{} clean ends", run.ledger.clean);
    finish(run);
}

#[test]
fn polls_that_return_early_late_or_for_nothing_move_no_deadline_by_much() {
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

/// Connects, and says nothing.
struct Silent {
    to: SocketAddr,
    ep: Option<Ep>,
    ended: Option<Time>,
}

impl Actor for Silent {
    fn act(&mut self, who: Who, world: &mut World, _: &mut Ledger) {
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

/// A NAT forgets: nobody is told, and who waits there is dead within the bound of the keepalive.
#[test]
fn who_was_forgotten_by_a_nat_is_noticed() {
    for ending in [Ending::Lost, Ending::AfterPeer] {
        let mut run = scene(8, CALM, 100, Ending::AfterPeer, None);
        let patient = Habits { ending, patience: Span::from_secs(90), ..Habits::plain(50) };
        let client = client(&mut run, patient, None);
        run.wait(Span::from_secs(80));
        let Some(relay) = &run.relay else { panic!("there is a relay") };
        let pairs = relay.event_loop.machine().inner().pairs();
        assert_eq!(pairs == 0, ending == Ending::Lost, "{ending:?}");
        drop(client);
        finish(run);
    }
}

#[test]
fn scanners_leave_nothing_behind() {
    let mut run =
        scene(9, Faults { short_recv: 300, spurious: 100, stale: 300, ..CALM }, 10, Ending::Close, None);
    let mut dice = Dice::new(9);
    for _ in 0..100 {
        let begins = run.now() + Span(dice.below(10_000_000));
        run.add(Scanner::new(relay_address(), begins, dice.fork()), None);
    }
    let until = in_seconds(&run, 150);
    run.until_done(until);
    finish(run);
}
