//! A connector and an agent that a relay has already paired, and everything between them: the relayed wire, the
//! direct ones, and a program at either end that sends everything at once and ends.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use rendezvous_core::acl::Policy;
use rendezvous_core::agent::{self, Agent, Seeds, Upstream};
use rendezvous_core::connector::{self, Connector};
use rendezvous_core::dtcp::{Direct, Fingerprint};
use rendezvous_core::event::Event;
use rendezvous_core::id::Id;
use rendezvous_core::machine::{
    Close, ConnId, DialFailure, End, Listener, Machine, Output, Secured, TlsRole,
};
use rendezvous_core::relay_client::{HostPort, Relay};
use rendezvous_core::time::{Now, Span, Time};
use rendezvous_core::token::{Algorithm, Key};

pub(crate) const START: Now = Now { mono: Time(1_000_000), wall: 1_715_937_600 };
const ID: Id = Id(0x2f40_2f80_da50_41e1_9b23_0123_4567_89ab);
/// The listener for direct connections; any other one of a connector is local.
const DIRECT: Listener = Listener(7);

/// What the programs send: lines that a negotiation would accept.
pub(crate) const SAID: [&[u8]; 2] = [b"ok\nerror\nfrom the client", b"error\nok\nfrom the service"];

/// In all arrays, 0 is the client's side and 1 the service's.
pub(crate) const CLIENT: usize = 0;
pub(crate) const SERVICE: usize = 1;

/// The settings of a run, and what may happen in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// The sides that can be reached.
    pub(crate) listens: [bool; 2],
    /// The sides that present a certificate other than the announced one.
    pub(crate) forged: [bool; 2],
    /// Any direct dial may fail.
    pub(crate) dials_fail: bool,
    /// The connector's timeout may elapse at any time.
    pub(crate) late: bool,
    /// The relay may fail at any time, in any way.
    pub(crate) breaks: bool,
    /// Whether a direct connection is required.
    pub(crate) required: bool,
    /// How many bytes are delivered at once; `None`: one write, or all there is.
    pub(crate) cut: Option<usize>,
}

pub(crate) const BOTH: Rules = Rules {
    listens: [true; 2],
    forged: [false; 2],
    dials_fail: false,
    late: false,
    breaks: false,
    required: false,
    cut: None,
};

#[derive(Clone, Debug)]
enum Program {
    Connector(Box<Connector>),
    Agent(Box<Agent>),
}

impl Program {
    fn get(&mut self) -> &mut dyn Machine {
        match self {
            Self::Connector(connector) => &mut **connector,
            Self::Agent(agent) => &mut **agent,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Item {
    Bytes(Vec<u8>),
    End(End),
}

/// One end of a wire.
#[derive(Clone, Debug)]
struct WireEnd {
    /// Its owner: a connection of that side's, or only the test.
    at: Option<(usize, ConnId)>,
    /// Nothing more is received here.
    closed: bool,
    coming: VecDeque<Item>,
    /// What the test received.
    got: Vec<u8>,
    ended: Option<End>,
}

impl WireEnd {
    fn new(at: Option<(usize, ConnId)>) -> Self {
        Self { at, closed: false, coming: VecDeque::new(), got: Vec::new(), ended: None }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dial {
    Begun {
        by: usize,
    },
    /// The serving end is connected, the dialling end does not know yet.
    Accepted {
        by: usize,
    },
    Ended,
}

#[derive(Clone, Debug)]
pub(crate) struct Wire {
    dial: Dial,
    ends: [WireEnd; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Securing {
    Clear,
    Begun,
    Up,
}

/// A driver's state of one connection.
#[derive(Clone, Debug)]
struct Sock {
    wire: usize,
    end: usize,
    tls: Securing,
    wanted: bool,
    parked: Vec<u8>,
    other: Option<ConnId>,
    /// Its end was received.
    ended: bool,
    closing: bool,
    write_ended: bool,
}

#[derive(Clone, Copy, Debug)]
enum Told {
    Flushed(ConnId),
    Offer(ConnId),
    Closed(ConnId),
}

#[derive(Clone, Debug)]
struct Side {
    program: Program,
    socks: BTreeMap<ConnId, Sock>,
    idle: Option<Time>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Input {
    Accept { wire: usize },
    Refuse { wire: usize },
    Connected { wire: usize },
    Deliver { wire: usize, end: usize, all: bool },
    TlsUp { wire: usize, end: usize },
    TlsFailed { wire: usize, end: usize },
    Late,
    Break(End),
}

#[derive(Clone)]
pub(crate) struct World {
    rules: Rules,
    sides: [Side; 2],
    pub(crate) wires: Vec<Wire>,
    now: Now,
    was_late: bool,
    was_broken: bool,
    /// The events of each side; they do not affect what follows.
    pub(crate) events: [Vec<Event>; 2],
}

/// The state that determines the future of a world.
impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}{:?}{:?}{:?}", self.sides, self.wires, self.was_late, self.was_broken)
    }
}

/// The wire of the local program, of the relay, and of the service.
pub(crate) const LOCAL: usize = 0;
pub(crate) const RELAYED: usize = 1;
pub(crate) const STREAM: usize = 2;

fn address(host: u8, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, host)), port)
}

fn relay() -> Relay {
    Relay { place: address(1, 80).into(), tls: false, host_header: "relay".into() }
}

fn certificate(side: usize, forged: bool) -> Fingerprint {
    Fingerprint([u8::try_from(side).unwrap() + if forged { 100 } else { 0 }; 32])
}

fn direct(side: usize, rules: &Rules) -> Direct {
    let hosts: Vec<HostPort> = rules.listens[side]
        .then(|| address(2, 7_000 + u16::try_from(side).unwrap()).into())
        .into_iter()
        .collect();
    Direct {
        hosts,
        listener: Some(DIRECT),
        fingerprint: certificate(side, false),
        policy: Policy { private: true, ..Policy::default() },
        timeout: if side == CLIENT { Direct::TRIED } else { Direct::AWAITED },
    }
}

impl World {
    /// The client's request has crossed the relay, the agent has reached its service, and both programs have sent
    /// everything.
    pub(crate) fn new(rules: Rules) -> Self {
        Self::with(rules, |_| (), |_| ())
    }

    /// The same, with another configuration.
    pub(crate) fn with(
        rules: Rules,
        connector: impl FnOnce(&mut connector::Config),
        agent: impl FnOnce(&mut agent::Config),
    ) -> Self {
        let mut of_connector = connector::Config {
            direct: Some(direct(CLIENT, &rules)),
            direct_only: rules.required,
            ..connector::Config::new(relay(), ID)
        };
        connector(&mut of_connector);
        let upstream = Upstream {
            ports: Vec::new(),
            stream_takes_ports: false,
            service_h2: false,
            end_to_end: rendezvous_core::agent::EndToEnd::Off,
            basic_auth: None,
            relay: relay(),
            id: ID,
            key: Key::new(b"12345678901234567890".to_vec(), Algorithm::Sha256, 8, 30).unwrap(),
            plain: false,
            pool: 1,
            pool_max: 4,
            service: None,
            service_tls: None,
            stream: Some(address(4, 22).into()),
        };
        let mut of_agent = agent::Config {
            upstreams: vec![upstream],
            once: true,
            direct: Some(direct(SERVICE, &rules)),
            ..agent::Config::default()
        };
        agent(&mut of_agent);
        let side = |program| Side { program, socks: BTreeMap::new(), idle: None };
        let connector = Connector::with_direct(of_connector, [1; 32]);
        let agent = Agent::new(of_agent, Seeds { nonces: [2; 32], jitter: [2; 32] }, START);
        let mut world = Self {
            rules,
            sides: [side(Program::Connector(Box::new(connector))), side(Program::Agent(Box::new(agent)))],
            wires: (0..3)
                .map(|_| Wire { dial: Dial::Ended, ends: [WireEnd::new(None), WireEnd::new(None)] })
                .collect(),
            now: START,
            was_late: false,
            was_broken: false,
            events: [Vec::new(), Vec::new()],
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        self.perform_all(SERVICE);
        let waiting = self.lay(RELAYED, 1, SERVICE);
        self.call(SERVICE, |agent, now| agent.handle_connected(waiting, now));
        // The agent's registration is for the relay.
        self.wires[RELAYED].ends[0].coming.clear();
        self.come(RELAYED, 1, Item::Bytes(b"HTTP/1.1 200 OK\r\n\r\n".to_vec()));
        self.deliver(RELAYED, 1, true);
        let local = self.program(CLIENT).handle_open(Listener(0), address(9, 9), START);
        self.attach(LOCAL, 1, CLIENT, local);
        self.perform_all(CLIENT);
        let asking = self.lay(RELAYED, 0, CLIENT);
        self.call(CLIENT, |connector, now| connector.handle_connected(asking, now));
        self.deliver(RELAYED, 1, true);
        let service = self.lay(STREAM, 0, SERVICE);
        self.call(SERVICE, |agent, now| agent.handle_connected(service, now));
        for (wire, end, side) in [(LOCAL, 1, CLIENT), (STREAM, 0, SERVICE)] {
            self.come(wire, end, Item::Bytes(SAID[side].to_vec()));
            self.come(wire, end, Item::End(End::Clean));
        }
    }

    fn program(&mut self, side: usize) -> &mut dyn Machine {
        self.sides[side].program.get()
    }

    /// The connection that this side has just dialled gets this end of a wire.
    fn lay(&mut self, wire: usize, end: usize, side: usize) -> ConnId {
        let dialled =
            self.sides[side].socks.iter().filter(|(_, sock)| sock.wire == usize::MAX).map(|(on, _)| *on);
        let on = dialled.max_by_key(|on| on.generation).expect("something was dialled");
        self.sides[side].socks.remove(&on);
        self.attach(wire, end, side, on);
        on
    }

    fn attach(&mut self, wire: usize, end: usize, side: usize, on: ConnId) {
        self.wires[wire].ends[end].at = Some((side, on));
        self.sides[side].socks.insert(on, Sock::new(wire, end));
    }

    fn call(&mut self, side: usize, what: impl FnOnce(&mut dyn Machine, Now)) {
        let now = self.now;
        what(self.program(side), now);
        self.perform_all(side);
    }

    /// Everything that may happen next; empty at the end.
    pub(crate) fn inputs(&self) -> Vec<Input> {
        let mut inputs = Vec::new();
        let waits = self.sides[CLIENT].idle.is_some_and(|idle| idle <= self.now.mono + Direct::TRIED);
        if self.rules.late && !self.was_late && waits {
            inputs.push(Input::Late);
        }
        if self.rules.breaks && !self.was_broken {
            inputs.extend([End::Clean, End::Truncated, End::Reset].map(Input::Break));
        }
        for (wire, it) in self.wires.iter().enumerate() {
            match it.dial {
                Dial::Begun { .. } => {
                    inputs.push(Input::Accept { wire });
                    if self.rules.dials_fail {
                        inputs.push(Input::Refuse { wire });
                    }
                }
                Dial::Accepted { .. } => inputs.push(Input::Connected { wire }),
                Dial::Ended => {}
            }
            for end in 0..2 {
                self.events_at(wire, end, &mut inputs);
            }
        }
        inputs
    }

    fn events_at(&self, wire: usize, end: usize, inputs: &mut Vec<Input>) {
        let it = &self.wires[wire].ends[end];
        let Some(sock) = it.at.and_then(|(side, on)| self.sides[side].socks.get(&on)) else { return };
        if sock.tls == Securing::Begun {
            match self.sock_at(wire, 1 - end).map(|sock| sock.tls) {
                Some(Securing::Begun | Securing::Up) => inputs.push(Input::TlsUp { wire, end }),
                _ if it.coming.iter().any(|it| matches!(it, Item::End(_))) => {
                    inputs.push(Input::TlsFailed { wire, end });
                }
                _ => {}
            }
            return;
        }
        let is_up = !matches!(self.wires[wire].dial, Dial::Accepted { by } | Dial::Begun { by } if by == end);
        if !it.coming.is_empty() && (sock.wanted || sock.closing) && is_up {
            inputs.push(Input::Deliver { wire, end, all: false });
            if self.rules.cut.is_none() && it.coming.len() > 1 {
                inputs.push(Input::Deliver { wire, end, all: true });
            }
        }
    }

    fn sock_at(&self, wire: usize, end: usize) -> Option<&Sock> {
        let (side, on) = self.wires[wire].ends[end].at?;
        self.sides[side].socks.get(&on)
    }

    /// Applies an input, and carries out the resulting outputs.
    pub(crate) fn step(&mut self, input: Input) {
        match input {
            Input::Accept { wire } => {
                let Dial::Begun { by } = self.wires[wire].dial else { unreachable!("of a dial") };
                self.wires[wire].dial = Dial::Accepted { by };
                let server = 1 - by;
                let now = self.now;
                let on = self.program(server).handle_open(DIRECT, address(8, 8), now);
                self.attach(wire, server, server, on);
                self.perform_all(server);
            }
            Input::Refuse { wire } => {
                let Dial::Begun { by } = self.wires[wire].dial else { unreachable!("of a dial") };
                self.wires[wire].dial = Dial::Ended;
                let (_, on) = self.wires[wire].ends[by].at.expect("a dialler");
                self.sides[by].socks.remove(&on);
                self.call(by, |machine, now| machine.handle_dial_failed(on, DialFailure::Refused, now));
            }
            Input::Connected { wire } => {
                let Dial::Accepted { by } = self.wires[wire].dial else { unreachable!("of a dial") };
                self.wires[wire].dial = Dial::Ended;
                let (_, on) = self.wires[wire].ends[by].at.expect("a dialler");
                if self.sides[by].socks.contains_key(&on) {
                    self.call(by, |machine, now| machine.handle_connected(on, now));
                }
            }
            Input::Deliver { wire, end, all } => self.deliver(wire, end, all),
            Input::TlsUp { wire, end } => {
                let (side, on) = self.wires[wire].ends[end].at.expect("a connection");
                let peer = 1 - side;
                let certificate = Some(certificate(peer, self.rules.forged[peer]));
                self.sock(side, on).expect("a socket").tls = Securing::Up;
                self.call(side, |machine, now| {
                    machine.handle_secured(on, Secured { certificate, ..Secured::default() }, now)
                });
            }
            Input::TlsFailed { wire, end } => {
                let (side, on) = self.wires[wire].ends[end].at.expect("a connection");
                let why = rendezvous_core::machine::TlsFailure::Ended;
                self.sock(side, on).expect("a socket").tls = Securing::Up;
                self.call(side, |machine, now| machine.handle_tls_failed(on, why, now));
            }
            Input::Late => {
                self.was_late = true;
                self.wait(Direct::TRIED);
            }
            Input::Break(how) => {
                self.was_broken = true;
                for end in 0..2 {
                    self.wires[RELAYED].ends[end].coming.clear();
                    self.come(RELAYED, end, Item::End(how));
                    // What is sent from now on is lost.
                    self.wires[RELAYED].ends[end].closed = true;
                }
            }
        }
    }

    /// Lets time pass.
    pub(crate) fn wait(&mut self, span: Span) {
        self.now = Now { mono: self.now.mono + span, ..self.now };
        for side in [CLIENT, SERVICE] {
            self.call(side, |machine, now| machine.handle_timeout(now));
        }
    }

    fn come(&mut self, wire: usize, end: usize, item: Item) {
        let to = &mut self.wires[wire].ends[end];
        if to.closed {
            return;
        }
        match (to.at, item) {
            (None, Item::Bytes(bytes)) if wire == LOCAL || wire == STREAM => to.got.extend(bytes),
            (None, Item::End(how)) if wire == LOCAL || wire == STREAM => to.ended = to.ended.or(Some(how)),
            (_, item) => to.coming.push_back(item),
        }
    }

    fn sock(&mut self, side: usize, on: ConnId) -> Option<&mut Sock> {
        self.sides[side].socks.get_mut(&on)
    }

    fn deliver(&mut self, wire: usize, end: usize, all: bool) {
        let cut = self.rules.cut;
        let it = &mut self.wires[wire].ends[end];
        let Some((side, on)) = it.at else { return };
        let mut bytes = Vec::new();
        let mut ended = None;
        while ended.is_none() {
            match it.coming.pop_front() {
                Some(Item::Bytes(mut came)) => {
                    if let Some(cut) = cut.filter(|cut| *cut < came.len()) {
                        it.coming.push_front(Item::Bytes(came.split_off(cut)));
                    }
                    bytes.append(&mut came);
                }
                Some(Item::End(how)) => ended = Some(how),
                None => break,
            }
            if !all {
                break;
            }
        }
        let Some(sock) = self.sock(side, on) else { return };
        if sock.closing {
            if ended.is_some() {
                self.bury(side, on);
            }
            return self.perform_all(side);
        }
        // After its end a connection reports nothing more, not even a reset.
        let ended = ended.filter(|_| !std::mem::replace(&mut sock.ended, true));
        sock.parked.append(&mut bytes);
        self.offer(side, on);
        self.perform_all(side);
        if let Some(how) = ended
            && self.sock(side, on).is_some_and(|sock| !sock.closing)
        {
            self.call(side, |machine, now| machine.handle_end(on, how, now));
        }
    }

    /// Passes received bytes to the machine, or to the other side of the pair.
    fn offer(&mut self, side: usize, on: ConnId) {
        let now = self.now;
        let Some(sock) = self.sock(side, on) else { return };
        if sock.closing || sock.parked.is_empty() || sock.tls == Securing::Begun {
            return;
        }
        let bytes = std::mem::take(&mut sock.parked);
        if let Some(other) = sock.other {
            let len = u32::try_from(bytes.len()).unwrap();
            self.send(side, other, bytes);
            self.program(side).handle_moved(on, len, 0, now);
            self.program(side).handle_flushed(other, now);
        } else if sock.wanted {
            let used = self.program(side).handle_bytes(on, &bytes, now);
            let sock = self.sock(side, on).expect("it is closed by nobody but the machine");
            sock.parked = bytes[used..].to_vec();
        } else {
            sock.parked = bytes;
        }
    }

    fn send(&mut self, side: usize, on: ConnId, bytes: Vec<u8>) {
        let sock = self.sock(side, on).expect("a connection that there is");
        assert!(!sock.write_ended && !sock.closing, "octets behind the end");
        assert_ne!(sock.tls, Securing::Begun, "octets in the middle of a handshake");
        let (wire, end) = (sock.wire, sock.end);
        self.come(wire, 1 - end, Item::Bytes(bytes));
    }

    fn perform_all(&mut self, side: usize) {
        let mut told = VecDeque::new();
        loop {
            let mut text = Vec::new();
            let now = self.now;
            match self.program(side).poll_output(&mut text) {
                Output::Idle { until, .. } => {
                    self.sides[side].idle = until;
                    match told.pop_front() {
                        Some(Told::Flushed(on)) => self.program(side).handle_flushed(on, now),
                        Some(Told::Offer(on)) => self.offer(side, on),
                        Some(Told::Closed(on)) => self.program(side).handle_closed(on, now),
                        None => return,
                    }
                }
                output => self.perform(side, output, text, &mut told),
            }
        }
    }

    fn perform(&mut self, side: usize, output: Output, text: Vec<u8>, told: &mut VecDeque<Told>) {
        match output {
            Output::Send { to, .. } => {
                self.send(side, to, text);
                told.push_back(Told::Flushed(to));
            }
            Output::Read { on, wanted } => {
                if let Some(sock) = self.sock(side, on) {
                    sock.wanted = wanted;
                    told.push_back(Told::Offer(on));
                }
            }
            Output::Pair { hidden, client } => {
                for (on, other) in [(hidden, client), (client, hidden)] {
                    let sock = self.sock(side, on).expect("a connection that there is");
                    assert!(sock.other.is_none() && sock.wanted && sock.tls != Securing::Begun);
                    sock.other = Some(other);
                    told.push_back(Told::Offer(on));
                }
            }
            Output::StartTls { on, role } => {
                assert!(matches!(role, TlsRole::DirectServer | TlsRole::DirectClient));
                let sock = self.sock(side, on).expect("a connection that there is");
                assert!(sock.parked.is_empty() && sock.tls == Securing::Clear);
                sock.tls = Securing::Begun;
            }
            Output::Dial { on, to } if to.port() >= 7_000 => {
                let mut ends = [WireEnd::new(None), WireEnd::new(None)];
                ends[side].at = Some((side, on));
                self.sides[side].socks.insert(on, Sock::new(self.wires.len(), side));
                self.wires.push(Wire { dial: Dial::Begun { by: side }, ends });
            }
            // To the relay or to the service: see `lay`.
            Output::Dial { on, .. } => {
                self.sides[side].socks.insert(on, Sock::new(usize::MAX, 0));
            }
            Output::Close { on, how } => self.close(side, on, how, told),
            Output::CloseWrite { on } => {
                let sock = self.sock(side, on).expect("a connection that there is");
                assert!(!std::mem::replace(&mut sock.write_ended, true), "ended twice");
                let (wire, end) = (sock.wire, sock.end);
                self.come(wire, 1 - end, Item::End(End::Clean));
            }
            Output::Event(event) => self.events[side].push(event),
            Output::UserTimeout { .. } => {}
            Output::Resolve { .. }
            | Output::Gate { .. }
            | Output::Pass { .. }
            | Output::LocalAddress { .. }
            | Output::CheckAck { .. }
            | Output::Idle { .. } => panic!("not here"),
        }
    }

    fn close(&mut self, side: usize, on: ConnId, how: Close, told: &mut VecDeque<Told>) {
        let Some(sock) = self.sock(side, on) else { return told.push_back(Told::Closed(on)) };
        sock.closing = true;
        sock.parked.clear();
        let ended = std::mem::replace(&mut sock.write_ended, true);
        let (wire, end, other, is_done) = (sock.wire, sock.end, sock.other.take(), sock.ended);
        if let Some(other) = other.and_then(|other| self.sock(side, other)) {
            other.other = None;
        }
        if wire == usize::MAX {
            self.sides[side].socks.remove(&on);
            return told.push_back(Told::Closed(on));
        }
        if let Dial::Begun { by } = self.wires[wire].dial
            && by == side
        {
            self.wires[wire].dial = Dial::Ended;
            self.sides[side].socks.remove(&on);
            return told.push_back(Told::Closed(on));
        }
        match how {
            Close::Linger if !ended => self.come(wire, 1 - end, Item::End(End::Clean)),
            Close::Truncate if !ended => self.come(wire, 1 - end, Item::End(End::Truncated)),
            Close::Linger | Close::Truncate => {}
            Close::Abort => {
                self.come(wire, 1 - end, Item::End(End::Reset));
                self.wires[wire].ends[end].closed = true;
                self.wires[wire].ends[end].coming.clear();
                self.sides[side].socks.remove(&on);
                told.push_back(Told::Closed(on));
            }
        }
        if is_done && how != Close::Abort {
            self.sides[side].socks.remove(&on);
            self.wires[wire].ends[end].closed = true;
            told.push_back(Told::Closed(on));
        }
    }

    fn bury(&mut self, side: usize, on: ConnId) {
        let Some(sock) = self.sides[side].socks.remove(&on) else { return };
        self.wires[sock.wire].ends[sock.end].closed = true;
        let now = self.now;
        self.program(side).handle_closed(on, now);
    }

    /// What the program of this side has received, and how that ended.
    pub(crate) fn got(&self, side: usize) -> (&[u8], Option<End>) {
        let (wire, end) = if side == CLIENT { (LOCAL, 0) } else { (STREAM, 1) };
        let it = &self.wires[wire].ends[end];
        (&it.got, it.ended)
    }

    /// The local program's connection.
    pub(crate) fn local(&self) -> ConnId {
        self.wires[LOCAL].ends[1].at.expect("a connection").1
    }

    /// The number of connections of this side's machine, including closing ones.
    pub(crate) fn connections(&self, side: usize) -> usize {
        match &self.sides[side].program {
            Program::Connector(connector) => connector.connections(),
            Program::Agent(agent) => agent.connections(),
        }
    }
}

impl Sock {
    fn new(wire: usize, end: usize) -> Self {
        Self {
            wire,
            end,
            tls: Securing::Clear,
            wanted: true,
            parked: Vec::new(),
            other: None,
            ended: false,
            closing: false,
            write_ended: false,
        }
    }
}
