//! One run of the simulated world: processes with real event loops, and actors, scheduled in random order.

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use rendezvous::buffer::Sizes;
use rendezvous::event_loop::{EventLoop, TlsSetup};
use rendezvous_core::agent::{self, Agent, EndToEnd, Seeds, Upstream};
use rendezvous_core::connector::{self, Connector};
use rendezvous_core::engine::{
    self, ConnectionInfo, ConnectionState, Engine, Kick, Quiet, TakeOver, Transport,
};
use rendezvous_core::event::Event;
use rendezvous_core::id::Id;
use rendezvous_core::machine::Machine;
use rendezvous_core::prefix::Prefix;
use rendezvous_core::registry::Enrolment;
use rendezvous_core::relay_client::Relay;
use rendezvous_core::time::{Now, Span, Time};
use rendezvous_core::trace::Recorder;

use crate::actors::{Actor, key_of};
use crate::model::{
    ByteLedger, Compliance, ContractChecker, Steering, check_rest, check_turn, is_meant, with_peers,
};
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
    /// Whether its backlogs wait because another process takes over.
    is_paused: bool,
    compliance: Compliance,
    /// The denied addresses that it knows.
    denied: Vec<Prefix>,
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
        let listeners = u16::try_from(listen.len()).unwrap_or(0);
        let process = Self::without_listeners(world, sizes, tls, listeners, is_relay, machine);
        for at in listen {
            world.borrow_mut().listen(process.who, *at);
        }
        process
    }

    /// A process that gets its listeners from another one.
    fn without_listeners(
        world: &Shared,
        sizes: Sizes,
        tls: TlsSetup,
        listeners: u16,
        is_relay: bool,
        machine: impl FnOnce(Now) -> M,
    ) -> Self {
        let who = world.borrow_mut().settle(true);
        let in_clear = tls.server.is_none() && tls.upstreams.is_empty();
        let now = world.borrow().clocks(who);
        let watched = ContractChecker::new(machine(now), Rc::clone(world), who, in_clear);
        let net = SimNet::new(Rc::clone(world), who);
        let event_loop = EventLoop::new(net, watched, tls, sizes, listeners);
        Self {
            event_loop,
            who,
            events: Vec::new(),
            is_paused: false,
            compliance: Compliance::default(),
            denied: Vec::new(),
            sizes,
            is_relay,
            idle_turns: 0,
            turned_at: Time(0),
        }
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
        let is_untold = !self.is_paused && world.has_untold(self.who);
        assert!(!is_untold, "{:?}: a connection is in the backlog and is not accepted", self.who);
        check_rest(world, self.who, self.event_loop.machine(), self.is_relay, self.is_short());
    }

    fn is_short(&self) -> bool {
        self.event_loop.buffer_bytes() + self.sizes.bulk * 2 > self.sizes.ceiling / 2
    }

    fn steps(&self) -> u64 {
        self.event_loop.machine().steps
    }
}

/// A step of a take-over at which the new process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakeOverStep {
    /// Before it is ready.
    Load,
    /// Before it has the tokens.
    Tokens,
    /// When it has everything.
    Commit,
}

impl Process<Recorder<Engine>> {
    /// All connections.
    fn infos(&self, world: &Shared) -> Vec<ConnectionInfo> {
        self.infos_at(world.borrow().clocks(self.who))
    }

    fn infos_at(&self, now: Now) -> Vec<ConnectionInfo> {
        self.event_loop.machine().inner().machine().list(0, usize::MAX, now).0
    }

    fn end_stops(&mut self, world: &Shared) {
        self.event_loop.call(|watched, _| watched.stops.clear());
        world.borrow_mut().schedule(self.who);
    }

    fn judge(&mut self, world: &Shared, steering: &Steering) {
        self.events.append(&mut self.event_loop.take_events());
        self.compliance.judge_events(&self.events, steering);
        Compliance::check_turn(|| self.infos(world), steering);
    }

    fn check_compliance(&mut self, now: Now, world: &World, steering: &Steering) {
        let mut compliance = std::mem::take(&mut self.compliance);
        let machine = self.event_loop.machine();
        compliance.check_rest(|| self.infos_at(now), |on| machine.is_sent(on), steering, world);
        self.compliance = compliance;
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
    /// The processes that the relay has taken over from.
    pub retired: Vec<Process<Recorder<Engine>>>,
    /// What the operator has set.
    steering: Steering,
    /// The enrolled IDs.
    ids: Vec<Id>,
    config: engine::Config,
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
            retired: Vec::new(),
            steering: Steering::default(),
            ids: Vec::new(),
            config: engine::Config::default(),
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
        self.steering.pairs_max = config.pairs_per_id_max;
        self.config = config.clone();
        let relay = Process::new(&self.world, sizes, tls, &listen, true, |now| {
            Recorder::relay(config, [7; 32], now, traces)
        });
        self.relay = Some(relay);
        self.enrol(ids);
    }

    /// Starts a process that takes over from the relay. It ends before the step `fails_at`, if there is one, and the relay
    /// continues.
    pub fn take_over(&mut self, sizes: Sizes, tls: TlsSetup, fails_at: Option<TakeOverStep>) {
        let (world, traces) = (self.world.clone(), self.traces);
        let (config, seed) = (self.config.clone(), self.retired.len().to_le_bytes()[0]);
        let listeners = u16::try_from(config.listeners.len()).unwrap_or(0);
        let mut new = Process::without_listeners(&world, sizes, tls, listeners, true, |now| {
            Recorder::relay(config, [seed; 32], now, traces)
        });
        self.configure(&mut new);
        self.wait(Span::from_millis(50));
        let fails = |step| fails_at == Some(step);
        if !fails(TakeOverStep::Load) {
            self.quiet();
            self.call_relay(|relay, now| relay.handle_take_over(TakeOver::Freeze, now));
            self.freeze(true);
            self.wait(Span::from_millis(5));
        }
        let mut from = (!fails(TakeOverStep::Load) && !fails(TakeOverStep::Tokens)).then_some(0);
        while let Some(at) = from {
            let Some(relay) = &self.relay else { break };
            let now = world.borrow().clocks(relay.who);
            let (tokens, next) = relay.event_loop.machine().inner().machine().used_tokens(at, 2, now);
            new.call(&world, |new, now| new.handle_used_tokens(&tokens, now));
            self.wait(Span(100));
            from = next;
        }
        if fails_at.is_some() {
            self.freeze(false);
            self.call_relay(|relay, now| relay.handle_take_over(TakeOver::Cancel, now));
            self.pause(false);
            self.steps_before += new.steps();
            return world.borrow_mut().kill(new.who);
        }
        let Some(mut old) = self.relay.replace(new) else { return };
        let pairs = old.event_loop.machine().inner().machine().pairs();
        if let Some(new) = &self.relay {
            world.borrow_mut().hand_listeners(old.who, new.who);
        }
        old.is_paused = false;
        old.event_loop.stop_accepting();
        old.call(&world, |old, now| old.handle_take_over(TakeOver::Retire, now));
        let left = old.event_loop.machine().inner().machine().pairs();
        assert_eq!(left, pairs, "a pair ended because another process took over");
        self.retired.push(old);
    }

    /// Stops accepting until the relay can be frozen, as `serve` does before it hands over.
    fn quiet(&mut self) {
        for attempt in 1.. {
            self.pause(true);
            match self.poll_relay(|relay, paused| {
                Some(relay.quiet(paused, attempt)).filter(|it| *it != Quiet::Wait)
            }) {
                None | Some(Quiet::Freeze | Quiet::Wait) => return,
                Some(Quiet::Resume) => {}
            }
            self.pause(false);
            let _ = self.poll_relay(|relay, resumed| relay.may_quiet(resumed, attempt).then_some(()));
        }
    }

    /// Asks the relay every 10 ms, with the time since the first call, until it answers. Returns `None` if there is none.
    fn poll_relay<T>(&mut self, mut ask: impl FnMut(&Engine, Span) -> Option<T>) -> Option<T> {
        let since = self.now();
        loop {
            self.wait(Span::from_millis(10));
            let relay = self.relay.as_ref()?;
            if let Some(answer) = ask(relay.event_loop.machine().inner().machine(), self.now().since(since)) {
                return Some(answer);
            }
        }
    }

    fn pause(&mut self, is_paused: bool) {
        if let Some(relay) = &mut self.relay {
            relay.event_loop.pause_accepting(is_paused);
            relay.is_paused = is_paused;
            self.world.borrow_mut().schedule(relay.who);
        }
    }

    /// From now on the relay must accept no hidden server, or may again.
    fn freeze(&mut self, is_frozen: bool) {
        self.judge();
        if let Some(relay) = &mut self.relay {
            relay.compliance.is_frozen = is_frozen;
        }
    }

    fn call_relay(&mut self, what: impl FnOnce(&mut Recorder<Engine>, Now)) {
        if let Some(relay) = &mut self.relay {
            relay.call(&self.world, what);
        }
    }

    /// The operator changes settings. They are in force at once, in all processes.
    ///
    /// # Panics
    /// A relay does not comply.
    pub fn steer(&mut self, change: impl FnOnce(&mut Steering)) {
        self.judge();
        change(&mut self.steering);
        self.reconfigure();
        self.judge();
    }

    /// The operator ends connections, in all processes.
    ///
    /// # Panics
    /// A connection remains, or others end.
    pub fn kick(&mut self, kick: &Kick) -> u32 {
        self.judge();
        let (world, mut all) = (self.world.clone(), 0);
        for relay in self.relay.iter_mut().chain(&mut self.retired) {
            let infos = relay.infos(&world);
            let meant = with_peers(&infos, |info| is_meant(kick, info));
            let find = |on| infos.iter().find(|info| info.conn == on);
            for info in meant.iter().filter_map(|on| find(*on)) {
                let ep = world.borrow().watched(relay.who, info.conn);
                if let Some(ep) = ep {
                    let is_waiting = info.state == ConnectionState::Waiting;
                    relay.compliance.notify(ep.peer(), is_waiting, &world.borrow());
                }
            }
            let halves =
                infos.iter().filter(|info| info.peer.is_some() && meant.contains(&info.conn)).count();
            let before = relay.compliance.stopped();
            let mut ended = 0;
            relay.event_loop.call(|watched, now| {
                watched.stops.clone_from(&meant);
                ended = watched.inner_mut().handle_kick(kick, now);
            });
            relay.end_stops(&world);
            relay.judge(&world, &self.steering);
            assert_eq!(ended as usize, meant.len(), "the number of kicked connections");
            let stopped = relay.compliance.stopped() - before;
            assert!(stopped >= halves as u64 / 2, "{halves} halves were kicked, {stopped} pairs ended so");
            let left = relay.infos(&world);
            let mut left = left.iter().filter(|info| info.state != ConnectionState::Closing);
            assert!(!left.any(|info| meant.contains(&info.conn)), "a kicked connection is still there");
            all += ended;
        }
        all
    }

    /// A connection of the relay, the `nth` one.
    #[must_use]
    pub fn nth_conn(&self, nth: usize) -> Option<rendezvous_core::machine::ConnId> {
        let infos = self.relay.as_ref()?.infos(&self.world);
        infos.get(nth.checked_rem(infos.len())?).map(|info| info.conn)
    }

    fn judge(&mut self) {
        for relay in self.relay.iter_mut().chain(&mut self.retired) {
            relay.judge(&self.world, &self.steering);
        }
    }

    fn reconfigure(&mut self) {
        let (mut relay, mut retired) = (self.relay.take(), std::mem::take(&mut self.retired));
        for relay in relay.iter_mut().chain(&mut retired) {
            self.configure(relay);
        }
        (self.relay, self.retired) = (relay, retired);
    }

    /// Gives a relay the list of IDs and the settings.
    fn configure(&self, relay: &mut Process<Recorder<Engine>>) {
        let steering = &self.steering;
        let enrolments = self.ids.iter().map(|id| steering.apply(enrolment(*id))).collect();
        let config = engine::Config { denied: steering.denied.clone(), ..self.config.clone() };
        let is_other = relay.denied != steering.denied;
        relay.denied.clone_from(&steering.denied);
        let stops = with_peers(&relay.infos(&self.world), |info| steering.forbids(info));
        relay.event_loop.call(|watched, now| {
            watched.stops = stops;
            watched.inner_mut().handle_ids(enrolments, now);
            if is_other {
                watched.inner_mut().handle_config(config, now);
            }
            watched.rates.set(&steering.rates(), now.mono);
        });
        relay.event_loop.set_rates(&steering.rates());
        relay.end_stops(&self.world);
    }

    /// Replaces the relay's list of IDs.
    pub fn enrol(&mut self, ids: &[Id]) {
        self.ids = ids.to_vec();
        self.reconfigure();
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
        let relays: u64 = self.relay.iter().chain(&self.retired).map(Runs::steps).sum();
        self.steps_before + agents + connectors + relays
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
        for relay in self.relay.iter().chain(&self.retired) {
            check_process(relay, &world);
            let engine = relay.event_loop.machine().inner().machine();
            assert_eq!((engine.connections(), engine.pairs()), (0, 0), "the relay still has connections");
        }
        for connector in &self.connectors {
            check_process(connector, &world);
            let machine = connector.event_loop.machine().inner();
            assert_eq!(
                (machine.connections(), machine.pairs()),
                (0, 0),
                "the connector still has connections"
            );
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
        let mut relays = self.relay.iter_mut().chain(&mut self.retired);
        if let Some(relay) = relays.find(|relay| relay.who == who) {
            relay.turn(world);
            relay.judge(world, &self.steering);
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
        self.relay.iter().chain(&self.retired).for_each(|relay| check(relay));
        self.agents.iter().for_each(|agent| check(agent));
        self.connectors.iter().for_each(|connector| check(connector));
        let is_tls = self.relay.as_ref().is_some_and(|relay| !relay.event_loop.machine().in_clear);
        let wire = match (short, is_tls) {
            (true, _) => world.now(),
            (false, true) => world.bytes_at,
            (false, false) => Time(0),
        };
        self.ledger.check_rest(world.now(), wire);
        for relay in self.relay.iter_mut().chain(&mut self.retired) {
            let now = world.clocks(relay.who);
            relay.check_compliance(now, &world, &self.steering);
        }
    }
}

/// An agent's upstream without services and with a pool that does not grow.
pub(crate) fn upstream(id: Id, is_tls: bool, pool: u16) -> Upstream {
    Upstream {
        ports: Vec::new(),
        stream_takes_ports: false,
        service_h2: false,
        end_to_end: EndToEnd::Off,
        basic_auth: None,
        relay: Relay { place: relay_address().into(), tls: is_tls, host_header: "relay".to_owned() },
        id,
        key: key_of(id),
        plain: false,
        pool,
        pool_max: pool,
        service: None,
        service_tls: None,
        stream: None,
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
