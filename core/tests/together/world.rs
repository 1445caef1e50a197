//! A relay, an agent beside a hidden server, a connector beside a client, and the wires between them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use rendezvous_core::agent::{self, Agent, Seeds, Upstream};
use rendezvous_core::connector::{self, Connector};
use rendezvous_core::engine::{self, Engine, Transport};
use rendezvous_core::event::Event;
use rendezvous_core::id::Id;
use rendezvous_core::machine::{End, Listener, Machine};
use rendezvous_core::registry::Enrolment;
use rendezvous_core::relay_client::Relay;
use rendezvous_core::time::{Now, Span, Time};
use rendezvous_core::token::{Algorithm, Key};

use crate::driver::{Driver, Wires};

pub(crate) const ID: Id = Id(0x2f40_2f80_da50_41e1_9b23_0123_4567_89ab);

pub(crate) struct World {
    pub(crate) relay: Driver<Engine>,
    pub(crate) agent: Driver<Agent>,
    pub(crate) connector: Driver<Connector>,
    /// The hidden server's side of the connections to it, the oldest first: to the HTTP service, to the stream service.
    pub(crate) http: Vec<Hand>,
    pub(crate) stream: Vec<Hand>,
    /// Whether the relay accepts connections.
    pub(crate) relay_up: bool,
    pub(crate) services_up: bool,
    wires: Wires,
    now: Now,
    most: usize,
    skew: i64,
    clients: u16,
}

/// The end of a wire that the test controls.
#[derive(Clone, Copy)]
pub(crate) struct Hand(usize);

pub(crate) fn relay_address() -> SocketAddr {
    address(1, 8443)
}

fn address(host: u8, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, host)), port)
}

fn key() -> Key {
    Key::new(b"12345678901234567890".to_vec(), Algorithm::Sha256, 8, 30).unwrap()
}

fn at_relay() -> Relay {
    Relay { place: relay_address().into(), tls: true, host_header: "relay:8443".into() }
}

impl World {
    /// Everything is up. No turn moves more than `most` bytes of a connection; the agent's clock is `skew` seconds
    /// ahead.
    pub(crate) fn new(most: usize, skew: i64) -> Self {
        let now = Now { mono: Time(1_000_000), wall: 1_715_937_600 };
        let theirs = Now { wall: now.wall.saturating_add_signed(skew), ..now };
        let upstream = Upstream {
            ports: Vec::new(),
            stream_takes_ports: false,
            service_h2: false,
            end_to_end: rendezvous_core::agent::EndToEnd::Off,
            basic_auth: None,
            relay: at_relay(),
            id: ID,
            key: key(),
            plain: false,
            pool: 4,
            pool_max: 64,
            service: Some(address(2, 80).into()),
            service_tls: None,
            stream: Some(address(2, 22).into()),
        };
        let config = agent::Config { upstreams: vec![upstream], ..agent::Config::default() };
        let seeds = Seeds { nonces: [1; 32], jitter: [1; 32] };
        let mut world = Self {
            relay: Driver::new(new_relay(now), now),
            agent: Driver::new(Agent::new(config, seeds, theirs), theirs),
            connector: Driver::new(Connector::new(connector::Config::new(at_relay(), ID)), now),
            http: Vec::new(),
            stream: Vec::new(),
            relay_up: true,
            services_up: true,
            wires: Wires::default(),
            now,
            most,
            skew,
            clients: 0,
        };
        world.run();
        world
    }

    /// A client of HTTP connects to the relay.
    pub(crate) fn client(&mut self) -> Hand {
        let (near, far) = self.wires.lay();
        let accepted = (Listener(0), relay_address(), self.next_client());
        self.relay.accept(&mut self.wires, far, accepted, self.now);
        Hand(near)
    }

    /// A local program connects to the connector.
    pub(crate) fn local_program(&mut self) -> Hand {
        let (near, far) = self.wires.lay();
        let accepted = (Listener(0), address(9, 1), self.next_client());
        self.connector.accept(&mut self.wires, far, accepted, self.now);
        Hand(near)
    }

    fn next_client(&mut self) -> SocketAddr {
        self.clients += 1;
        address(9, self.clients)
    }

    pub(crate) fn send(&mut self, hand: Hand, bytes: &[u8]) {
        self.wires.send(hand.0, bytes);
        self.run();
    }

    /// Sends and ends at once, before anything is read.
    pub(crate) fn send_all(&mut self, hand: Hand, bytes: &[u8]) {
        self.wires.send(hand.0, bytes);
        self.end(hand, End::Clean);
    }

    pub(crate) fn end(&mut self, hand: Hand, how: End) {
        self.wires.end(hand.0, how);
        self.run();
    }

    /// All bytes received at this end since the last call.
    pub(crate) fn received(&mut self, hand: Hand) -> String {
        String::from_utf8(self.wires.receive(hand.0, usize::MAX)).unwrap()
    }

    pub(crate) fn ended(&self, hand: Hand) -> Option<End> {
        self.wires.ended(hand.0)
    }

    /// The relay's process is killed: every connection to it is reset, and none is accepted.
    pub(crate) fn kill_relay(&mut self) {
        let config = engine::Config { listeners: vec![Transport::Tls], ..engine::Config::default() };
        self.relay_up = false;
        let fresh = Driver::new(Engine::new(config, [3; 32], self.now), self.now);
        let dead = std::mem::replace(&mut self.relay, fresh);
        for wire in dead.wires() {
            self.wires.end(wire, End::Reset);
        }
        self.run();
    }

    /// A relay without state listens again.
    pub(crate) fn start_relay(&mut self) {
        self.relay = Driver::new(new_relay(self.now), self.now);
        self.relay_up = true;
        self.run();
    }

    pub(crate) fn drain_agent(&mut self) {
        let now = self.agents_now();
        self.agent.call(&mut self.wires, now, Agent::handle_drain);
        self.run();
    }

    /// Lets time pass, from deadline to deadline.
    pub(crate) fn wait(&mut self, span: Span) {
        let until = self.now.mono + span;
        loop {
            let idle = [self.relay.idle, self.agent.idle, self.connector.idle];
            let next = idle.into_iter().flatten().min().filter(|next| *next <= until);
            let to = next.unwrap_or(until).max(self.now.mono);
            let passed = to.since(self.now.mono).0 + self.now.mono.0 % 1_000_000;
            self.now = Now { mono: to, wall: self.now.wall + passed / 1_000_000 };
            if next.is_none() {
                return;
            }
            let theirs = self.agents_now();
            self.relay.call(&mut self.wires, self.now, Machine::handle_timeout);
            self.agent.call(&mut self.wires, theirs, Machine::handle_timeout);
            self.connector.call(&mut self.wires, self.now, Machine::handle_timeout);
            self.run();
        }
    }

    /// Runs turns until nothing changes without time passing.
    pub(crate) fn run(&mut self) {
        let theirs = self.agents_now();
        for _ in 0..1_000_000 {
            let mut happened = self.connect();
            happened |= self.relay.turn(&mut self.wires, self.most, self.now);
            happened |= self.agent.turn(&mut self.wires, self.most, theirs);
            happened |= self.connector.turn(&mut self.wires, self.most, self.now);
            if !happened {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    fn connect(&mut self) -> bool {
        let theirs = self.agents_now();
        let of_agent = std::mem::take(&mut self.agent.dials);
        let of_connector = std::mem::take(&mut self.connector.dials);
        let any = !of_agent.is_empty() || !of_connector.is_empty();
        for (on, to) in of_agent {
            let up = self.relay_client(to);
            self.agent.connected(&mut self.wires, on, up, theirs);
        }
        for (on, to) in of_connector {
            let up = self.relay_client(to);
            self.connector.connected(&mut self.wires, on, up, self.now);
        }
        any
    }

    /// The near end of a new wire, and our address there.
    fn relay_client(&mut self, to: SocketAddr) -> Option<(usize, SocketAddr)> {
        let is_relay = to == relay_address();
        if !if is_relay { self.relay_up } else { self.services_up } {
            return None;
        }
        let (near, far) = self.wires.lay();
        match to.port() {
            _ if is_relay => {
                let accepted = (Listener(0), to, self.next_client());
                self.relay.accept(&mut self.wires, far, accepted, self.now);
            }
            80 => self.http.push(Hand(far)),
            22 => self.stream.push(Hand(far)),
            _ => panic!("nobody is at {to}"),
        }
        Some((near, address(3, 1)))
    }

    fn agents_now(&self) -> Now {
        Now { wall: self.now.wall.saturating_add_signed(self.skew), ..self.now }
    }

    /// How the agent's pairs have ended.
    pub(crate) fn ends(&self) -> Vec<rendezvous_core::pair::EndReason> {
        let end = |event: &Event| match event {
            Event::PairEnded { why, .. } => Some(*why),
            _ => None,
        };
        self.agent.events.iter().filter_map(end).collect()
    }
}

fn new_relay(now: Now) -> Engine {
    // The world's clients do not use TLS, the others do; here all share a listener.
    let config = engine::Config { listeners: vec![Transport::Tls], ..engine::Config::default() };
    let mut relay = Engine::new(config, [2; 32], now);
    let enrolment = Enrolment::new(ID, key());
    relay.handle_ids(vec![enrolment], now);
    relay
}
