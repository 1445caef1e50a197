//! The events of one simulated run, drawn from its seed (swarm testing). Each run has some kinds of actors and faults
//! and not others, in random proportions, so that all combinations are tested.

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use rendezvous::buffer::Sizes;
use rendezvous_core::agent::{self, EndToEnd, Upstream};
use rendezvous_core::connector;
use rendezvous_core::engine::{self, Kick, Transport};
use rendezvous_core::id::Id;
use rendezvous_core::pair::{HAND_OVER, Limits};
use rendezvous_core::prefix::Prefix;
use rendezvous_core::registry::Access;
use rendezvous_core::relay_client::{Host, HostPort, Relay};
use rendezvous_core::time::{Span, Time};

use crate::actors::{Behaviour, Client, Ending, Hidden, Program, Scanner, Style, key_of};
use crate::model::{Settings, Steering};
use crate::rng::Rng;
use crate::run::{RELAY_PORTS, Run, TakeOverStep, relay_address};
use crate::secured::Secured;
use crate::sim_net::{Fate, Faults};

mod draw;
mod text;

/// Number of hidden servers.
const IDS: u64 = 3;
/// The ID of the hidden server that terminates TLS itself, if there are clients of it. No run has so many others.
pub const END_TO_END: Id = id(0x1_0000 + IDS);
/// The relay's domain, if there are such clients.
const DOMAIN: &str = "hidden.example";
/// Its name, with its label.
const SERVER_NAME: &str = "home.hidden.example";
/// Each has a port of the relay.
const PORTS: u16 = 3;
/// A participant of a run.
#[derive(Clone, Debug)]
pub enum Participant {
    /// An HTTP client.
    Client {
        /// The requested hidden server.
        id: Id,
        /// When it starts.
        begins: Time,
        /// Its speeds and ending.
        behaviour: Behaviour,
        /// It sends the ID only after the challenge.
        challenged: bool,
        /// The method of its request.
        method: &'static str,
    },
    /// A local program at the connector for this ID.
    Program {
        /// The requested hidden server.
        id: Id,
        /// When it starts.
        begins: Time,
        /// Its speeds and ending.
        behaviour: Behaviour,
    },
    /// A client of the relay's port for an ID. The relay does not interpret its bytes.
    Raw {
        /// The hidden server of the port.
        id: Id,
        /// When it starts.
        begins: Time,
        /// How it behaves.
        behaviour: Behaviour,
    },
    /// A client whose ClientHello names the hidden server that terminates TLS itself. The relay does not interpret the rest
    /// of its bytes.
    Named {
        /// When it starts.
        begins: Time,
        /// How it behaves.
        behaviour: Behaviour,
    },
    /// A hidden server that connects to the relay itself.
    Hidden {
        /// Its ID.
        id: Id,
        /// Its kind.
        style: Style,
        /// Its own seed.
        seed: u64,
    },
    /// An agent with its service.
    Agent {
        /// Its ID.
        id: Id,
        /// Its own seed.
        seed: u8,
        /// The size of its pool.
        pool: u16,
        /// The error of its clock, in seconds.
        skew: i64,
        /// It resolves its relay's name.
        named: bool,
    },
    /// A scanner.
    Scanner {
        /// When it starts.
        begins: Time,
        /// Its own seed.
        seed: u64,
    },
}

/// An event at the relay.
#[derive(Clone, Copy, Debug)]
pub enum Incident {
    /// Its wall clock is changed by this many seconds.
    Clock(i64),
    /// It has this many descriptors.
    Descriptors(u32),
    /// An ID is revoked, and enrolled again later.
    Revoked(Id),
    /// It is killed, and another one starts.
    Killed,
    /// Another process takes over from it. The new one ends at this step, if there is one.
    TakenOver(Option<TakeOverStep>),
    /// The operator changes a setting of an ID.
    Set(Id, Setting),
    /// The operator denies these addresses: see `hosts`.
    Denied(Option<u8>),
    /// The operator ends all connections of an ID.
    KickedId(Id),
    /// The operator ends all connections of these addresses.
    KickedHosts(u8),
    /// The operator ends one connection, and the other half of its pair.
    KickedConn(u16),
}

/// A setting of an ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// It is served, or not.
    Access(Access),
    /// The limit of its pairs.
    Pairs(Option<u32>),
    /// The limit of bytes per second, each way.
    Rate(Option<u64>),
    /// These addresses are refused: see `hosts`.
    Deny(Option<u8>),
}

/// Four addresses, among them that of this participant.
fn hosts(number: u8) -> Prefix {
    format!("10.9.0.{}/30", number & !3).parse().expect("a prefix")
}

/// The description of a run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed of all randomness during the run.
    pub seed: u64,
    /// TLS wherever possible.
    pub tls: bool,
    /// Rates of faults.
    pub faults: Faults,
    /// Limits of the relay: see [`engine::Config`].
    pub waiting_max: u32,
    /// See [`engine::Config`].
    pub pairs_max: u32,
    /// See [`engine::Config`].
    pub held_max: u32,
    /// See [`engine::Config`].
    pub hold: Span,
    /// The relay's limit of buffer memory.
    pub ceiling: usize,
    /// Maximum length of responses.
    pub bytes_max: u64,
    /// The relay's name resolves first to an address that never answers.
    pub silent: bool,
    /// The possible endings of connections.
    pub endings: Vec<Ending>,
    /// A limit of bytes that come out: a check that a test makes fail, to test the report of a failure.
    pub received_max: Option<u64>,
    /// The participants.
    pub participants: Vec<Participant>,
    /// The relay's incidents, with their times.
    pub incidents: Vec<(Time, Incident)>,
}

/// The result of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Calls into machines.
    pub steps: u64,
    /// Bytes that arrived at their destination.
    pub bytes: u64,
    /// Clean ends that arrived.
    pub clean: u64,
    /// Flows of clients.
    pub flows: u64,
    /// Rendezvous at the relay.
    pub pairs: u64,
    /// The log.
    pub log: String,
    /// The trace of the relay's machine, for `rendezvous replay`, if it was recorded.
    pub trace: String,
}

/// Why a run failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The violated invariant.
    pub why: String,
    /// The log until then.
    pub log: String,
    /// See [`Outcome::trace`].
    pub trace: String,
}

/// The ID with this number.
#[must_use]
pub const fn id(number: u64) -> Id {
    Id(0x2f40_2f80_da50_41e1_9b23_0123_4567_0000 + number as u128)
}

impl Setting {
    fn apply(self, to: &mut Settings) {
        match self {
            Self::Access(access) => to.access = access,
            Self::Pairs(most) => to.pairs_max = most,
            Self::Rate(rate) => to.rate = rate,
            Self::Deny(number) => to.deny = number.map(hosts).into_iter().collect(),
        }
    }
}

impl Plan {
    /// Runs the plan to its end. `log`: records the log and the relay's trace.
    ///
    /// # Errors
    /// An invariant is violated.
    pub fn run(&self, log: bool, secured: &Secured) -> Result<Outcome, Failure> {
        let mut run = Run::new(self.seed, self.faults.clone());
        if log {
            run.world.borrow_mut().keep_log();
            run.traces = true;
        }
        run.ledger.bytes_max = self.received_max;
        let result = catch_unwind(AssertUnwindSafe(|| self.run_in(&mut run, secured)));
        let trace = run.take_trace();
        // The failure may have happened while the world was borrowed.
        let log = run.world.try_borrow().map_or_else(|_| String::new(), |world| world.log().to_owned());
        match result {
            Ok(outcome) => Ok(Outcome { log, trace, ..outcome }),
            Err(panic) => {
                let why = panic.downcast_ref::<String>().cloned();
                let why = why.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                Err(Failure { why: why.unwrap_or_default(), log, trace })
            }
        }
    }

    fn run_in(&self, run: &mut Run, secured: &Secured) -> Outcome {
        let name = SocketAddr::from((Ipv4Addr::new(10, 0, 0, 1), 0));
        let mut names = vec![name];
        if self.silent {
            let nobody = SocketAddr::from((Ipv4Addr::new(10, 0, 0, 9), 0));
            run.world
                .borrow_mut()
                .fates
                .insert(SocketAddr::new(nobody.ip(), relay_address().port()), Fate::Silent);
            names.insert(0, nobody);
        }
        run.world.borrow_mut().names.insert("relay".to_owned(), names);
        self.start_relay(run, secured);
        for participant in &self.participants {
            self.add_participant(run, participant, secured);
        }
        let mut pairs = 0;
        for (at, incident) in &self.incidents {
            run.until(*at);
            pairs += self.apply_incident(run, *incident, secured);
        }
        run.until_done(Time(300_000_000));
        run.retire();
        run.world.borrow_mut().faults =
            Faults { latency_max: self.faults.latency_max, room_max: 65_536, ..Faults::default() };
        for relay in run.relay.iter().chain(&run.retired) {
            run.world.borrow_mut().limit_descriptors(relay.who, u32::MAX);
        }
        run.steer(Steering::lift);
        run.wait(Span::from_secs(5));
        run.leave();
        let world = run.world.clone();
        for agent in &mut run.agents {
            agent.call(&world, agent::Agent::handle_drain);
        }
        run.wait(Span::from_secs(200));
        run.check_empty();
        self.return_once(run, secured);
        pairs += run.relay.iter().chain(&run.retired).map(|it| it.event_loop.machine().pairs).sum::<u64>();
        Outcome {
            steps: run.steps(),
            bytes: run.ledger.bytes,
            clean: run.ledger.clean,
            flows: run.ledger.flows().len() as u64,
            pairs,
            ..Outcome::default()
        }
    }

    /// When all have left, the replay cache has no expired token: a relay that may remember only one token accepts a
    /// new one.
    fn return_once(&self, run: &mut Run, secured: &Secured) {
        // Tokens of a future time stay in the replay cache until that time has passed.
        if self.incidents.iter().any(|(_, incident)| matches!(incident, Incident::Clock(_))) {
            return;
        }
        let world = run.world.clone();
        let config = engine::Config { tokens_per_id_max: 1, ..self.config() };
        let Some(relay) = &mut run.relay else { return };
        relay.call(&world, |relay, now| relay.handle_config(config, now));
        for number in 0..IDS {
            let style = Style::Modern { pool: 1 };
            let hidden = Hidden::new(relay_address(), id(number), style, Rng::new(number));
            run.add(hidden.secured(secured.client(self.tls)), None);
        }
        run.wait(Span::from_secs(20));
        let waiting = run.relay.as_ref().map_or(0, |relay| relay.event_loop.machine().waiting());
        assert_eq!(waiting as u64, IDS, "tokens of those who left are remembered");
        // Whatever the operator has set before, all are served now.
        let clients: Vec<_> = (0..IDS)
            .map(|number| {
                let client = Client::new(relay_address(), id(number), run.now(), Behaviour::plain(3));
                let client = Rc::new(RefCell::new(client.secured(secured.client(self.tls))));
                run.add(Rc::clone(&client), None);
                client
            })
            .collect();
        run.wait(Span::from_secs(5));
        assert!(clients.iter().all(|client| client.borrow().met), "a hidden server that waits is not served");
        run.leave();
        run.wait(Span::from_secs(40));
        run.check_empty();
    }

    fn config(&self) -> engine::Config {
        engine::Config {
            listeners: [if self.tls { Transport::Tls } else { Transport::Plain }]
                .into_iter()
                .chain((0..PORTS).map(Transport::Port))
                .collect(),
            ports: (0..PORTS).map(|port| format!("port-{port}")).collect(),
            domain: self.has_end_to_end().then(|| DOMAIN.to_owned()),
            waiting_per_id_max: self.waiting_max,
            pairs_per_id_max: self.pairs_max,
            held_per_id_max: self.held_max,
            hold: self.hold,
            pair: Limits { hand_over: Some(HAND_OVER), ..Limits::default() },
            ..engine::Config::default()
        }
    }

    fn has_end_to_end(&self) -> bool {
        self.participants.iter().any(|it| matches!(it, Participant::Named { .. }))
    }

    /// The enrolled IDs.
    fn ids(&self) -> Vec<Id> {
        let end_to_end = self.has_end_to_end().then_some(END_TO_END);
        (0..IDS).map(id).chain(end_to_end).collect()
    }

    const fn sizes(&self) -> Sizes {
        Sizes { head: 34 * 1024, bulk: 64 * 1024, ceiling: self.ceiling }
    }

    fn start_relay(&self, run: &mut Run, secured: &Secured) {
        let sizes = self.sizes();
        run.start_relay(self.config(), sizes, secured.server(self.tls), &self.ids());
    }

    fn apply_incident(&self, run: &mut Run, incident: Incident, secured: &Secured) -> u64 {
        let world = run.world.clone();
        let Some(relay) = &mut run.relay else { return 0 };
        match incident {
            Incident::Clock(seconds) => {
                world.borrow_mut().jump(relay.who, seconds);
                run.ledger.forget_tokens();
            }
            Incident::Descriptors(most) => world.borrow_mut().limit_descriptors(relay.who, most),
            Incident::Revoked(gone) => {
                let ids = self.ids();
                run.enrol(&ids.iter().copied().filter(|id| *id != gone).collect::<Vec<_>>());
                run.wait(Span::from_millis(700));
                run.enrol(&ids);
                run.ledger.forget_tokens();
            }
            Incident::Killed => {
                let pairs = relay.event_loop.machine().pairs;
                run.kill_relay();
                run.wait(Span::from_millis(300));
                run.ledger.forget_tokens();
                self.start_relay(run, secured);
                return pairs;
            }
            Incident::TakenOver(fails_at) => run.take_over(self.sizes(), secured.server(self.tls), fails_at),
            Incident::Set(id, setting) => run.steer(|steering| setting.apply(steering.set(id))),
            Incident::Denied(number) => {
                run.steer(|steering| steering.denied = number.map(hosts).into_iter().collect());
            }
            Incident::KickedId(id) => drop(run.kick(&Kick::Id(id))),
            Incident::KickedHosts(number) => drop(run.kick(&Kick::From(hosts(number)))),
            Incident::KickedConn(nth) => {
                if let Some(on) = run.nth_conn(usize::from(nth)) {
                    run.kick(&Kick::Conn(on));
                }
            }
        }
        0
    }

    fn add_participant(&self, run: &mut Run, participant: &Participant, secured: &Secured) {
        let relay = relay_address();
        let tls = secured.client(self.tls);
        match *participant {
            Participant::Client { id, begins, behaviour, challenged, method } => {
                let client = Client::new(relay, id, begins, behaviour)
                    .challenged(challenged)
                    .method(method)
                    .secured(tls);
                run.add(client, None);
            }
            Participant::Program { id, begins, behaviour } => {
                let at = address(3, id);
                if !run.connects_to(at) {
                    let config = connector::Config::new(self.relay(false), id);
                    run.start_connector(config, Sizes::for_peer(), secured.peer(self.tls), at);
                }
                run.add(Program::new(at, id, begins, behaviour), None);
            }
            Participant::Raw { id, begins, behaviour } => {
                run.add(Program::new(address(RELAY_PORTS, id), id, begins, behaviour), None);
            }
            Participant::Named { begins, behaviour } => {
                let client = Program::new(relay, END_TO_END, begins, behaviour).naming(SERVER_NAME);
                run.add(client, None);
            }
            Participant::Hidden { id, style, seed } => {
                let hidden = Hidden::new(relay, id, style, Rng::new(seed));
                run.add(hidden.answering(self.bytes_max, &self.endings).secured(tls), None);
            }
            Participant::Agent { id, seed, pool, skew, named } => {
                let at = address(2, id);
                let service = Hidden::new(at, id, Style::Service, Rng::new(u64::from(seed)));
                run.add(service.answering(self.bytes_max, &self.endings), Some(at));
                let upstream = Upstream {
                    ports: Vec::new(),
                    stream_takes_ports: true,
                    service_h2: false,
                    end_to_end: if id == END_TO_END { EndToEnd::PassTo(at.into()) } else { EndToEnd::Off },
                    basic_auth: None,
                    relay: self.relay(named),
                    id,
                    key: key_of(id),
                    plain: false,
                    pool,
                    pool_max: 4 * pool,
                    service: Some(at.into()),
                    service_tls: None,
                    stream: Some(at.into()),
                };
                let config = agent::Config { upstreams: vec![upstream], ..agent::Config::default() };
                run.start_agent(config, Sizes::for_peer(), secured.peer(self.tls), seed);
                if let Some(agent) = run.agents.last() {
                    run.world.borrow_mut().jump(agent.who, skew);
                }
            }
            Participant::Scanner { begins, seed } => {
                run.add(Scanner::new(relay, begins, Rng::new(seed)), None);
            }
        }
    }

    fn relay(&self, named: bool) -> Relay {
        let at = relay_address();
        let host = if named { Host::Name("relay".to_owned()) } else { Host::Address(at.ip()) };
        Relay { place: HostPort { host, port: at.port() }, tls: self.tls, host_header: "relay".to_owned() }
    }
}

/// The number of an ID of a plan.
pub(crate) const fn number_of(id: Id) -> u8 {
    id.0.to_le_bytes()[0]
}

pub(crate) fn address(net: u8, id: Id) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(10, 0, net, id.0.to_le_bytes()[0] + 1), 80))
}
