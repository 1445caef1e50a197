//! The stream proxy in the simulated world: two entities and a proxy, each with a real event loop, over sockets with
//! all the faults of Linux, and an XMPP server with delays between them. `tests::model` checks the invariants of every
//! machine and loop. The tests here check that every stream is established and arrives completely, on every path.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;

use rendezvous::event_loop::{EventLoop, TlsSetup};
use rendezvous_core::bytestream::entity::{self, Entity};
use rendezvous_core::bytestream::name::Jid;
use rendezvous_core::bytestream::proxy::{self, Proxy};
use rendezvous_core::bytestream::stanza::{Connection, Stanza};
use rendezvous_core::machine::Machine;
use rendezvous_core::time::{Now, Span, Time};
use tests::model::{ContractChecker, byte, check_rest, check_turn};
use tests::run::SIZES;
use tests::sim_net::{Ep, Fate, Faults, ProcessId, Shared, SimNet, World};

const ALICE: &str = "alice@example.org/a";
const BOB: &str = "bob@example.org/b";
const PROXY: &str = "proxy.example.org";
/// Runs of each test.
const SEEDS: u64 = 48;
/// Streams of one run.
const STREAMS: usize = 6;
/// The maximum delay of a stanza, in microseconds.
const DELAY: u64 = 400_000;
/// The timeout of a run.
const PATIENCE: Span = Span::from_secs(120);

fn at(host: u8, port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(10, 0, 0, host), port))
}

fn jid(text: &str) -> Jid {
    Jid::new(text).expect("a JID")
}

/// A machine that exchanges stanzas.
trait StanzaMachine: Machine {
    fn deliver(&mut self, stanza: Stanza, now: Now);
    fn emit(&mut self) -> Option<Stanza>;
}

impl StanzaMachine for Entity {
    fn deliver(&mut self, stanza: Stanza, now: Now) {
        self.handle_stanza(stanza, now);
    }

    fn emit(&mut self) -> Option<Stanza> {
        self.poll_stanza()
    }
}

impl StanzaMachine for Proxy {
    fn deliver(&mut self, stanza: Stanza, now: Now) {
        self.handle_stanza(stanza, now);
    }

    fn emit(&mut self) -> Option<Stanza> {
        self.poll_stanza()
    }
}

/// One process.
struct Process<M: Machine> {
    who: ProcessId,
    jid: &'static str,
    event_loop: EventLoop<SimNet, ContractChecker<M>>,
}

/// A process with any machine.
trait Runs {
    fn who(&self) -> ProcessId;
    fn jid(&self) -> &'static str;
    fn turn(&mut self, world: &Shared) -> Vec<Stanza>;
    fn deliver(&mut self, stanza: Stanza, world: &Shared);
    fn check_rest(&self, world: &World);
    fn is_empty(&self, world: &World) -> bool;
    /// How many pairs it had.
    fn pairs(&self) -> u64;
}

impl<M: StanzaMachine> Process<M> {
    fn new(world: &Shared, jid: &'static str, listen: &[SocketAddr], machine: M) -> Self {
        let who = world.borrow_mut().settle(true);
        for on in listen {
            world.borrow_mut().listen(who, *on);
        }
        let watched = ContractChecker::new(machine, Rc::clone(world), who, true);
        let net = SimNet::new(Rc::clone(world), who);
        let listeners = u16::try_from(listen.len()).expect("a few");
        let event_loop = EventLoop::new(net, watched, TlsSetup::default(), SIZES, listeners);
        Self { who, jid, event_loop }
    }

    fn sent_stanzas(&mut self) -> Vec<Stanza> {
        self.event_loop.call(|watched, _| std::iter::from_fn(|| watched.inner_mut().emit()).collect())
    }
}

impl<M: StanzaMachine> Runs for Process<M> {
    fn who(&self) -> ProcessId {
        self.who
    }

    fn jid(&self) -> &'static str {
        self.jid
    }

    fn turn(&mut self, world: &Shared) -> Vec<Stanza> {
        self.event_loop.turn(None).expect("the simulated poll does not fail");
        self.event_loop.take_events();
        check_turn(&mut world.borrow_mut(), self.who, self.event_loop.machine(), false);
        self.sent_stanzas()
    }

    fn deliver(&mut self, stanza: Stanza, world: &Shared) {
        self.event_loop.call(|watched, now| watched.inner_mut().deliver(stanza, now));
        world.borrow_mut().schedule(self.who);
    }

    fn check_rest(&self, world: &World) {
        check_rest(world, self.who, self.event_loop.machine(), true, false);
    }

    fn is_empty(&self, world: &World) -> bool {
        let (slots, buffers) = (self.event_loop.connections(), self.event_loop.buffers());
        slots + buffers + self.event_loop.machine().open() == 0 && world.descriptors(self.who) == 0
    }

    fn pairs(&self) -> u64 {
        self.event_loop.machine().pairs
    }
}

/// One end of a stream, outside: sends its bytes, ends, and reads those of the other.
struct Script {
    ep: Ep,
    /// The flow that it sends. A program's is known; a service's is the next one after that of its program.
    flow: Option<usize>,
    sent: u64,
    got: u64,
    ended: bool,
    peer_end: bool,
}

/// The length of a flow, whose first byte contains its number.
fn length(flow: usize) -> u64 {
    1 + (flow as u64 * 919) % 3_000
}

fn content(flow: usize, position: u64) -> u8 {
    if position == 0 { u8::try_from(flow).expect("a few flows") } else { byte(flow, position) }
}

impl Script {
    const fn new(ep: Ep, flow: Option<usize>) -> Self {
        Self { ep, flow, sent: 0, got: 0, ended: false, peer_end: false }
    }

    fn act(&mut self, world: &mut World) {
        self.receive(world);
        let Some(flow) = self.flow else { return };
        while self.sent < length(flow) {
            let end = length(flow).min(self.sent + 1_000);
            let bytes: Vec<u8> = (self.sent..end).map(|position| content(flow, position)).collect();
            match world.send(self.ep, &bytes) {
                Ok(n) => self.sent += n as u64,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("flow {flow}: {error}"),
            }
        }
        if !std::mem::replace(&mut self.ended, true) {
            world.end_write(self.ep).expect("it is open");
        }
    }

    fn receive(&mut self, world: &mut World) {
        let mut bytes = [0; 700];
        while !self.peer_end {
            let n = match world.recv(self.ep, &mut bytes) {
                Ok(n) => n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("flow {:?}: {error}", self.flow),
            };
            // The first byte identifies the peer of a service.
            let other = match self.flow {
                Some(flow) => flow ^ 1,
                None => usize::from(bytes[0]),
            };
            self.flow.get_or_insert(other ^ 1);
            for got in &bytes[..n] {
                assert_eq!(*got, content(other, self.got), "flow {other} at {}", self.got);
                self.got += 1;
            }
            if n == 0 {
                assert_eq!(self.got, length(other), "flow {other}: an end before its last byte");
                self.peer_end = true;
            }
        }
    }

    const fn is_done(&self) -> bool {
        self.ended && self.peer_end
    }
}

/// All processes and ends of a run.
struct Scene {
    world: Shared,
    processes: Vec<Box<dyn Runs>>,
    /// Stanzas at the server, in order for each receiver.
    server: BTreeMap<&'static str, VecDeque<(Time, Stanza)>>,
    participants: ProcessId,
    service: SocketAddr,
    talkers: Vec<Script>,
}

impl Scene {
    /// `unreachable`: listeners that cannot be reached.
    fn new(seed: u64, faults: Faults, unreachable: &[SocketAddr]) -> Self {
        let world: Shared = Rc::new(RefCell::new(World::new(seed, faults)));
        let (alice_at, bob_at, proxy_at, service) = (at(1, 5000), at(2, 5000), at(3, 4000), at(4, 22));
        for there in unreachable {
            world.borrow_mut().fates.insert(*there, Fate::Unreachable);
        }
        let entity = |me: &str, here: SocketAddr| {
            let mut config = entity::Config::new(jid(me));
            config.rules.listeners = vec![here];
            let of = |who: &str, to| Connection { jid: jid(who), to };
            config.connections = vec![of(me, here), of(PROXY, proxy_at)];
            config.dial.private = true;
            config
        };
        let (mut alice, mut bob) = (entity(ALICE, alice_at), entity(BOB, bob_at));
        alice.peer = Some(jid(BOB));
        bob.service = Some(service);
        let mut proxy = proxy::Config::new(jid(PROXY));
        proxy.rules.listeners = vec![proxy_at];
        let processes: Vec<Box<dyn Runs>> = vec![
            Box::new(Process::new(&world, ALICE, &[alice_at, at(1, 1)], Entity::new(alice, [1; 32]))),
            Box::new(Process::new(&world, BOB, &[bob_at], Entity::new(bob, [2; 32]))),
            Box::new(Process::new(&world, PROXY, &[proxy_at], Proxy::new(proxy))),
        ];
        let participants = world.borrow_mut().settle(false);
        world.borrow_mut().listen(participants, service);
        Self { world, processes, server: BTreeMap::new(), participants, service, talkers: Vec::new() }
    }

    fn begin_streams(&mut self) {
        for stream in 0..STREAMS {
            let ep = self.world.borrow_mut().connect(self.participants, at(1, 1)).expect("there is a way");
            self.talkers.push(Script::new(ep, Some(2 * stream)));
        }
    }

    fn run(&mut self) {
        let until = self.world.borrow().now() + PATIENCE;
        while !self.is_done() {
            while let Some(who) = self.next_ready() {
                self.turn(who);
            }
            let world = self.world.borrow();
            self.processes.iter().for_each(|process| process.check_rest(&world));
            drop(world);
            let next = self.server.values().filter_map(|waiting| Some(waiting.front()?.0)).min();
            let to = next.unwrap_or(until).min(until);
            self.world.borrow_mut().advance(to);
            self.deliver();
            assert!(self.world.borrow().now() < until, "it takes too long: {}", self.state());
        }
    }

    fn state(&self) -> String {
        let done = self.talkers.iter().filter(|script| script.is_done()).count();
        let world = self.world.borrow();
        let left = self.processes.iter().filter(|process| !process.is_empty(&world));
        let left: Vec<_> = left.map(|process| process.jid()).collect();
        format!("{done} of {} are done, {left:?} have something left", self.talkers.len())
    }

    fn is_done(&self) -> bool {
        let world = self.world.borrow();
        self.talkers.len() == 2 * STREAMS
            && self.talkers.iter().all(Script::is_done)
            && self.processes.iter().all(|process| process.is_empty(&world))
    }

    fn next_ready(&mut self) -> Option<ProcessId> {
        self.world.borrow_mut().next_ready()
    }

    fn turn(&mut self, who: ProcessId) {
        if who == self.participants {
            return self.act();
        }
        let process = self.processes.iter_mut().find(|process| process.who() == who).expect("one of them");
        let from = process.jid();
        for stanza in process.turn(&self.world) {
            self.post(from, stanza);
        }
    }

    /// All ends outside make as much progress as possible.
    fn act(&mut self) {
        let mut world = self.world.borrow_mut();
        world.clear_edges(self.participants);
        while let Some(ep) = world.accept(self.service) {
            self.talkers.push(Script::new(ep, None));
        }
        for script in self.talkers.iter_mut().filter(|script| !script.is_done()) {
            if !world.connected(script.ep).expect("it listens") {
                continue;
            }
            script.act(&mut world);
            if script.is_done() {
                world.close(script.ep);
            }
        }
    }

    fn post(&mut self, from: &'static str, stanza: Stanza) {
        let to = [ALICE, BOB, PROXY].into_iter().find(|to| *to == stanza.peer.as_str()).expect("one of them");
        let waiting = self.server.entry(to).or_default();
        let mut world = self.world.borrow_mut();
        let delay = world.rng.below(DELAY);
        let due = waiting.back().map_or(Time(0), |(due, _)| *due).max(world.now() + Span(delay));
        waiting.push_back((due, Stanza { peer: jid(from), ..stanza }));
    }

    fn deliver(&mut self) {
        let now = self.world.borrow().now();
        for process in &mut self.processes {
            let Some(waiting) = self.server.get_mut(process.jid()) else { continue };
            while waiting.front().is_some_and(|(due, _)| *due <= now) {
                let (_, stanza) = waiting.pop_front().expect("just seen");
                process.deliver(stanza, &self.world);
            }
        }
    }
}

fn faults(seed: u64) -> Faults {
    let often = [0, 30, 150][usize::try_from(seed % 3).expect("small")];
    Faults {
        short_recv: often,
        short_send: often,
        would_block: often,
        spurious: often,
        late: often / 3,
        latency_max: Span(if seed.is_multiple_of(2) { 20_000 } else { 2_000 }),
        room_max: if seed.is_multiple_of(5) { 2_000 } else { 60_000 },
        ..Faults::default()
    }
}

/// Checks that everything arrives, with this many pairs at the proxy for each stream.
fn arrives(unreachable: &[SocketAddr], by_proxy: u64) {
    for seed in 0..SEEDS {
        println!("seed {seed}");
        let mut scene = Scene::new(seed, faults(seed), unreachable);
        scene.begin_streams();
        scene.run();
        let pairs: Vec<_> = scene.processes.iter().map(|process| process.pairs()).collect();
        let streams = STREAMS as u64;
        assert_eq!(pairs, [streams, streams, by_proxy * streams], "Alice, Bob, the proxy");
    }
}

#[test]
fn direct_streams_arrive_completely() {
    arrives(&[], 0);
}

#[test]
fn streams_by_proxy_arrive_completely() {
    arrives(&[at(1, 5000)], 1);
}

/// Neither Alice nor the proxy can be reached: Bob makes an offer, and she dials him.
#[test]
fn streams_with_changed_roles_arrive_completely() {
    arrives(&[at(1, 5000), at(3, 4000)], 0);
}
