//! One run of the simulated world: processes with real event loops, and actors, scheduled in random order.

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use rendezvous::buffer::Sizes;
use rendezvous::event_loop::{EventLoop, TlsSetup};
use rendezvous_core::agent::{self, Agent, Seeds};
use rendezvous_core::connector::{self, Connector};
use rendezvous_core::engine::{self, Engine, Transport};
use rendezvous_core::event::Event;
use rendezvous_core::id::Id;
use rendezvous_core::machine::Machine;
use rendezvous_core::registry::Enrolment;
use rendezvous_core::time::{Now, Span, Time};
use rendezvous_core::trace::Recorder;

use crate::actors::{Actor, key_of};
use crate::model::{ByteLedger, ContractChecker, check_rest, check_turn};
use crate::sim_net::{Faults, ProcessId, Shared, SimNet, World};

/// A process with this many turns at one moment without a call to the network is spinning.
const IDLE_TURNS_MAX: u32 = 64;
/// With this many turns of all at one moment, time does not advance.
const TURNS_MAX: u32 = 200_000;

/// A process: an event loop in the world.
pub struct Process<M: Machine> {
    /// Its loop.
    pub event_loop: EventLoop<SimNet, ContractChecker<M>>,
    /// Its ID in the world.
    pub who: ProcessId,
    /// The events that it emitted.
    pub events: Vec<Event>,
    sizes: Sizes,
    is_relay: bool,
    idle_turns: u32,
    turned_at: Time,
}

/// A process with any machine.
pub trait Runs {
    /// Runs one turn.
    fn turn(&mut self, world: &Shared);
    /// Checks that everything that could make progress has.
    fn check_rest(&self, world: &World);
    /// Whether a connection may lack a buffer for now.
    fn is_short(&self) -> bool;
    /// Calls into the machine so far.
    fn steps(&self) -> u64;
}

impl<M: Machine> Process<M> {
    fn new(
        world: &Shared,
        sizes: Sizes,
        tls: TlsSetup,
        listen: &[SocketAddr],
        is_relay: bool,
        machine: impl FnOnce(Now) -> M,
    ) -> Self {
        let who = world.borrow_mut().settle(true);
        for at in listen {
            world.borrow_mut().listen(who, *at);
        }
        let in_clear = tls.server.is_none() && tls.upstreams.is_empty();
        let now = world.borrow().clocks(who);
        let watched = ContractChecker::new(machine(now), Rc::clone(world), who, in_clear);
        let net = SimNet::new(Rc::clone(world), who);
        let listeners = u16::try_from(listen.len()).unwrap_or(0);
        let event_loop = EventLoop::new(net, watched, tls, sizes, listeners);
        Self { event_loop, who, events: Vec::new(), sizes, is_relay, idle_turns: 0, turned_at: Time(0) }
    }

    /// Calls the machine directly.
    pub fn call(&mut self, world: &Shared, what: impl FnOnce(&mut M, Now)) {
        self.event_loop.call(|watched, now| what(watched.inner_mut(), now));
        world.borrow_mut().schedule(self.who);
    }
}

impl<M: Machine> Runs for Process<M> {
    fn turn(&mut self, world: &Shared) {
        let before = world.borrow().moves();
        let steps = self.event_loop.machine().steps;
        self.event_loop.turn(None).expect("the simulated poll does not fail");
        self.events.append(&mut self.event_loop.take_events());
        let moved = world.borrow().moves() > before;
        // A turn that only polls makes no more calls than this.
        let told = self.event_loop.machine().steps > steps + 8;
        let now = self.event_loop.now().mono;
        let passed = std::mem::replace(&mut self.turned_at, now) < now;
        self.idle_turns = if moved || told || passed { 0 } else { self.idle_turns + 1 };
        assert!(self.idle_turns < IDLE_TURNS_MAX, "{:?} spins", self.who);
        // Answers are few and short, and are not charged to the limit.
        let bound = self.sizes.ceiling + 4_096 * self.event_loop.connections();
        assert!(self.event_loop.buffer_bytes() <= bound, "{:?}: more memory than its bound", self.who);
        let short = self.is_short();
        check_turn(&mut world.borrow_mut(), self.who, self.event_loop.machine(), short);
    }

    fn check_rest(&self, world: &World) {
        check_rest(world, self.who, self.event_loop.machine(), self.is_relay, self.is_short());
    }

    fn is_short(&self) -> bool {
        self.event_loop.buffer_bytes() + self.sizes.bulk * 2 > self.sizes.ceiling / 2
    }

    fn steps(&self) -> u64 {
        self.event_loop.machine().steps
    }
}

/// The world, and all participants.
pub struct Run {
    /// The world.
    pub world: Shared,
    /// The byte ledger.
    pub ledger: ByteLedger,
    /// The relay.
    pub relay: Option<Process<Recorder<Engine>>>,
    /// Agents.
    pub agents: Vec<Process<Agent>>,
    /// Connectors.
    pub connectors: Vec<Process<Connector>>,
    /// Records a trace of every relay that is started from now on.
    pub traces: bool,
    actors: Vec<(ProcessId, Box<dyn Actor>)>,
    turns_now: u32,
    steps_before: u64,
}

/// The third byte of the addresses of the relay's ports for raw clients.
pub(crate) const RELAY_PORTS: u8 = 4;

/// Where the relay listens.
#[must_use]
pub fn relay_address() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(10, 0, 0, 1), 443))
}

/// Buffers that are large enough for tests.
pub const SIZES: Sizes = Sizes { head: 34 * 1024, bulk: 64 * 1024, ceiling: 16 * 1024 * 1024 };

impl Run {
    /// An empty world.
    #[must_use]
    pub fn new(seed: u64, faults: Faults) -> Self {
        Self {
            world: Rc::new(RefCell::new(World::new(seed, faults))),
            ledger: ByteLedger::default(),
            relay: None,
            agents: Vec::new(),
            connectors: Vec::new(),
            traces: false,
            actors: Vec::new(),
            turns_now: 0,
            steps_before: 0,
        }
    }

    /// Starts a relay that knows these IDs.
    pub fn start_relay(&mut self, config: engine::Config, sizes: Sizes, tls: TlsSetup, ids: &[Id]) {
        let traces = self.traces;
        let ports = config.listeners.iter().filter_map(|transport| match transport {
            Transport::Port(port) => {
                Some(SocketAddr::from(([10, 0, RELAY_PORTS, port.to_le_bytes()[0] + 1], 80)))
            }
            Transport::Tls | Transport::Plain | Transport::Proxied => None,
        });
        let listen: Vec<_> = [relay_address()].into_iter().chain(ports).collect();
        let relay = Process::new(&self.world, sizes, tls, &listen, true, |now| {
            Recorder::relay(config, [7; 32], now, traces)
        });
        self.relay = Some(relay);
        self.enrol(ids);
    }

    /// Replaces the relay's list of IDs.
    pub fn enrol(&mut self, ids: &[Id]) {
        let enrolments = ids.iter().copied().map(enrolment).collect();
        if let Some(relay) = &mut self.relay {
            relay.call(&self.world, |relay, now| relay.handle_ids(enrolments, now));
        }
    }

    /// Takes the trace of the current relay; also after a failure.
    pub fn take_trace(&mut self) -> String {
        let mut trace = String::new();
        if let Some(relay) = &mut self.relay {
            // Its outputs no longer matter.
            let _ = catch_unwind(AssertUnwindSafe(|| {
                relay.event_loop.call(|watched, _| trace = watched.inner_mut().take_text());
            }));
        }
        trace
    }

    /// Whether a connector listens there.
    #[must_use]
    pub fn connects_to(&self, at: SocketAddr) -> bool {
        self.world.borrow().is_listened(at)
    }

    /// Kills the relay: its sockets are reset, its memory is lost.
    pub fn kill_relay(&mut self) {
        if let Some(relay) = self.relay.take() {
            self.steps_before += relay.steps();
            self.world.borrow_mut().kill(relay.who);
        }
    }

    /// Starts an agent.
    pub fn start_agent(&mut self, config: agent::Config, sizes: Sizes, tls: TlsSetup, seed: u8) {
        let seeds = Seeds { nonces: [seed; 32], jitter: [seed; 32] };
        let agent = Process::new(&self.world, sizes, tls, &[], false, |now| Agent::new(config, seeds, now));
        self.agents.push(agent);
    }

    /// Starts a connector that listens here.
    pub fn start_connector(
        &mut self,
        config: connector::Config,
        sizes: Sizes,
        tls: TlsSetup,
        at: SocketAddr,
    ) {
        let connector = Process::new(&self.world, sizes, tls, &[at], false, |_| Connector::new(config));
        self.connectors.push(connector);
    }

    /// Adds an actor, which may listen at that address.
    pub fn add(&mut self, actor: impl Actor + 'static, listens: Option<SocketAddr>) -> usize {
        let mut world = self.world.borrow_mut();
        let who = world.settle(false);
        if let Some(at) = listens {
            world.listen(who, at);
        }
        self.actors.push((who, Box::new(actor)));
        self.actors.len() - 1
    }

    /// The ID of an actor in the world.
    #[must_use]
    pub fn who(&self, actor: usize) -> ProcessId {
        self.actors[actor].0
    }

    /// Calls into all machines so far.
    #[must_use]
    pub fn steps(&self) -> u64 {
        let agents: u64 = self.agents.iter().map(Runs::steps).sum();
        let connectors: u64 = self.connectors.iter().map(Runs::steps).sum();
        self.steps_before + agents + connectors + self.relay.as_ref().map_or(0, Runs::steps)
    }

    /// The current time.
    #[must_use]
    pub fn now(&self) -> Time {
        self.world.borrow().now()
    }

    /// Runs until that time.
    ///
    /// # Panics
    /// An invariant is violated.
    pub fn until(&mut self, time: Time) {
        self.until_or(time, |_| false);
    }

    /// Runs for this long.
    pub fn wait(&mut self, span: Span) {
        self.until(self.now() + span);
    }

    /// Runs until that time, or until the condition holds while all sleep.
    ///
    /// # Panics
    /// An invariant is violated.
    pub fn until_or(&mut self, time: Time, mut enough: impl FnMut(&mut Self) -> bool) -> bool {
        loop {
            while let Some(who) = self.next_ready() {
                self.turns_now += 1;
                assert!(self.turns_now < TURNS_MAX, "time stands still");
                self.turn(who);
            }
            self.check_rest();
            if enough(self) {
                return true;
            }
            let before = self.now();
            let has_more = self.world.borrow_mut().advance(time);
            self.ledger.now = self.now();
            if !has_more {
                return false;
            }
            if self.now() > before {
                self.turns_now = 0;
            }
        }
    }

    /// Runs until every actor is done, or until that time.
    pub fn until_done(&mut self, time: Time) -> bool {
        self.until_or(time, |run| run.actors.iter().all(|(_, actor)| actor.is_done()))
    }

    /// Actors start nothing new.
    pub fn retire(&mut self) {
        for (_, actor) in &mut self.actors {
            actor.retire();
        }
    }

    /// Actors reset their connections and leave.
    pub fn leave(&mut self) {
        self.ledger.all_left();
        let mut world = self.world.borrow_mut();
        for (who, actor) in &mut self.actors {
            actor.leave(&mut world);
            world.stop_listening(*who);
        }
    }

    /// Checks that nothing is left after all have left and enough time has passed.
    ///
    /// # Panics
    /// Something is left.
    pub fn check_empty(&self) {
        let world = self.world.borrow();
        if let Some(relay) = &self.relay {
            check_process(relay, &world);
            let engine = relay.event_loop.machine().inner().machine();
            assert_eq!((engine.connections(), engine.pairs()), (0, 0), "the relay remembers somebody");
        }
        for connector in &self.connectors {
            check_process(connector, &world);
            let machine = connector.event_loop.machine().inner();
            assert_eq!((machine.connections(), machine.pairs()), (0, 0), "the connector remembers somebody");
        }
        for agent in &self.agents {
            check_process(agent, &world);
            let machine = agent.event_loop.machine().inner();
            assert!(machine.is_done(), "the agent is not done: {} left", machine.connections());
        }
    }

    fn next_ready(&mut self) -> Option<ProcessId> {
        self.world.borrow_mut().next_ready()
    }

    fn turn(&mut self, who: ProcessId) {
        if let Some((_, actor)) = self.actors.iter_mut().find(|(actor, _)| *actor == who) {
            let mut world = self.world.borrow_mut();
            world.clear_edges(who);
            actor.act(who, &mut world, &mut self.ledger);
            return;
        }
        let world = &self.world;
        if let Some(relay) = self.relay.as_mut().filter(|relay| relay.who == who) {
            relay.turn(world);
        } else if let Some(agent) = self.agents.iter_mut().find(|agent| agent.who == who) {
            agent.turn(world);
        } else if let Some(connector) = self.connectors.iter_mut().find(|it| it.who == who) {
            connector.turn(world);
        }
    }

    fn check_rest(&mut self) {
        let world = self.world.borrow();
        let mut short = false;
        let mut check = |process: &dyn Runs| {
            process.check_rest(&world);
            short |= process.is_short();
        };
        if let Some(relay) = &self.relay {
            check(relay);
        }
        self.agents.iter().for_each(|agent| check(agent));
        self.connectors.iter().for_each(|connector| check(connector));
        let is_tls = self.relay.as_ref().is_some_and(|relay| !relay.event_loop.machine().in_clear);
        let wire = match (short, is_tls) {
            (true, _) => world.now(),
            (false, true) => world.bytes_at,
            (false, false) => Time(0),
        };
        self.ledger.check_rest(world.now(), wire);
    }
}

fn enrolment(id: Id) -> Enrolment {
    // Each ID has a port if the relay has so many.
    let port = u16::from(crate::plan::number_of(id));
    let end_to_end = id == crate::plan::END_TO_END;
    let labels = if end_to_end { vec!["home".to_owned()] } else { Vec::new() };
    Enrolment { plain_tokens: true, ports: vec![port], end_to_end, labels, ..Enrolment::new(id, key_of(id)) }
}

fn check_process<M: Machine>(process: &Process<M>, world: &World) {
    let event_loop = &process.event_loop;
    let who = process.who;
    assert_eq!(event_loop.connections(), 0, "{who:?}: slots are left");
    assert_eq!((event_loop.buffers(), event_loop.buffer_bytes()), (0, 0), "{who:?}: buffers are left");
    assert_eq!(event_loop.pipes(), 0, "{who:?}: pipes are left");
    assert_eq!(event_loop.machine().open(), 0, "{who:?}: connections are left");
    assert_eq!(world.descriptors(who), 0, "{who:?}: descriptors are left");
    assert_eq!(world.wake_at(who), None, "{who:?}: a timer is left");
}
