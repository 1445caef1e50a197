//! Two entities, a proxy, the network and the XMPP server between them, in memory.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use rendezvous_core::bytestream::entity::{self, Entity};
use rendezvous_core::bytestream::proxy::Proxy;
use rendezvous_core::bytestream::stanza::Stanza;
use rendezvous_core::event::{Event, StreamEvent};
use rendezvous_core::machine::{End, Listener, Machine};
use rendezvous_core::time::{Now, Span};

use crate::driver::{Driver, Wires};
use crate::ends::{PROXY, connection};
use crate::harness::beginning;
use crate::{at, jid};

pub(crate) const ALICE: &str = "alice@example.org/a";
pub(crate) const BOB: &str = "bob@example.net/b";

/// The addresses of all entities.
const ALICE_AT: &str = "10.0.0.1:5000";
const BOB_AT: &str = "10.0.0.2:5000";
const PROXY_AT: &str = "10.0.0.9:4000";
const SERVICE_AT: &str = "10.0.0.2:22";

pub(crate) struct World {
    pub(crate) alice: Driver<Entity>,
    pub(crate) bob: Driver<Entity>,
    pub(crate) proxy: Driver<Proxy>,
    pub(crate) alice_reports: Vec<StreamEvent>,
    pub(crate) bob_reports: Vec<StreamEvent>,
    /// Bob's service: its side of the connections to it.
    pub(crate) service: Vec<Hand>,
    /// The addresses that cannot be connected to.
    pub(crate) unreachable: Vec<SocketAddr>,
    /// Whether a NAT in front of all gives every connection a port of its own.
    pub(crate) nat: bool,
    /// The JIDs whose stanzas wait at the server.
    pub(crate) held: Vec<&'static str>,
    server: BTreeMap<&'static str, VecDeque<Stanza>>,
    wires: Wires,
    now: Now,
    most: usize,
    ports: u16,
}

/// The end of a wire that the test controls.
#[derive(Clone, Copy)]
pub(crate) struct Hand(usize);

impl World {
    /// Everybody can be reached, and offers itself and the proxy. Alice's local connections open streams to Bob, who
    /// connects them to his service. No turn moves more than `most` bytes of a connection.
    pub(crate) fn new(most: usize) -> Self {
        Self::with(most, |_, _| ())
    }

    pub(crate) fn with(most: usize, change: impl FnOnce(&mut entity::Config, &mut entity::Config)) -> Self {
        let entity = |me: &str, here: &str| {
            let mut config = entity::Config::new(jid(me));
            config.rules.listeners = vec![at(here)];
            config.connections = vec![connection(me, here), connection(PROXY, PROXY_AT)];
            config.dial.private = true;
            config.timeouts.concealed = None;
            config.dials_per_minute_max = u32::MAX;
            config
        };
        let (mut alice, mut bob) = (entity(ALICE, ALICE_AT), entity(BOB, BOB_AT));
        alice.peer = Some(jid(BOB));
        bob.service = Some(at(SERVICE_AT));
        change(&mut alice, &mut bob);
        let mut proxy = rendezvous_core::bytestream::proxy::Config::new(jid(PROXY));
        proxy.rules.listeners = vec![at(PROXY_AT)];
        Self {
            alice: Driver::new(Entity::new(alice, [1; 32]), beginning()),
            bob: Driver::new(Entity::new(bob, [2; 32]), beginning()),
            proxy: Driver::new(Proxy::new(proxy), beginning()),
            alice_reports: Vec::new(),
            bob_reports: Vec::new(),
            service: Vec::new(),
            unreachable: Vec::new(),
            nat: false,
            held: Vec::new(),
            server: BTreeMap::new(),
            wires: Wires::default(),
            now: beginning(),
            most,
            ports: 30_000,
        }
    }

    /// Nobody can connect to the entities.
    pub(crate) fn behind_firewalls(most: usize) -> Self {
        let mut world = Self::new(most);
        world.unreachable = vec![at(ALICE_AT), at(BOB_AT)];
        world
    }

    /// A program beside Alice connects, which begins a stream.
    pub(crate) fn open(&mut self) -> Hand {
        let (near, far) = self.wires.lay();
        let from = self.port_of("127.0.0.1");
        self.alice.accept(&mut self.wires, far, (Listener(1), at("127.0.0.1:1"), from), self.now);
        self.run();
        Hand(near)
    }

    /// A stranger's socket at the proxy, and its own address.
    pub(crate) fn connect_to_proxy(&mut self) -> (Hand, SocketAddr) {
        let (near, far) = self.wires.lay();
        let from = self.port_of("10.0.0.7");
        self.proxy.accept(&mut self.wires, far, (Listener(0), at(PROXY_AT), from), self.now);
        self.run();
        (Hand(near), from)
    }

    pub(crate) fn tell_proxy(&mut self, stanza: Stanza) {
        self.proxy.call(&mut self.wires, self.now, |proxy, now| proxy.handle_stanza(stanza, now));
        self.run();
    }

    /// The number of stanzas that wait at the server for this one.
    pub(crate) fn waiting_for(&self, who: &str) -> usize {
        self.server.get(who).map_or(0, VecDeque::len)
    }

    pub(crate) fn send(&mut self, hand: Hand, bytes: &[u8]) {
        self.wires.send(hand.0, bytes);
        self.run();
    }

    pub(crate) fn end(&mut self, hand: Hand, how: End) {
        self.wires.end(hand.0, how);
        self.run();
    }

    /// All bytes received at this end since the last call.
    pub(crate) fn received(&mut self, hand: Hand) -> Vec<u8> {
        self.wires.receive(hand.0, usize::MAX)
    }

    pub(crate) fn ended(&self, hand: Hand) -> Option<End> {
        self.wires.ended(hand.0)
    }

    /// The number of unread bytes in front of the machines.
    pub(crate) fn unread(&self) -> usize {
        let all = [self.alice.wires(), self.bob.wires(), self.proxy.wires()].concat();
        all.into_iter().map(|wire| self.wires.unread(wire)).sum()
    }

    /// Whether nothing is left anywhere.
    pub(crate) fn is_empty(&self) -> bool {
        let sessions = self.alice.machine.sessions() + self.bob.machine.sessions();
        let connections = self.alice.machine.connections() + self.bob.machine.connections();
        sessions + connections + self.proxy.machine.connections() == 0
    }

    /// Stanzas are delivered again.
    pub(crate) fn release(&mut self) {
        self.held.clear();
        self.run();
    }

    /// Lets time pass, from deadline to deadline.
    pub(crate) fn wait(&mut self, span: Span) {
        let until = self.now.mono + span;
        loop {
            let idle = [self.alice.idle, self.bob.idle, self.proxy.idle];
            let next = idle.into_iter().flatten().min().filter(|next| *next <= until);
            self.now.mono = next.unwrap_or(until).max(self.now.mono);
            if next.is_none() {
                return;
            }
            self.alice.call(&mut self.wires, self.now, Machine::handle_timeout);
            self.bob.call(&mut self.wires, self.now, Machine::handle_timeout);
            self.proxy.call(&mut self.wires, self.now, Machine::handle_timeout);
            self.run();
        }
    }

    /// Runs turns until nothing changes without time passing.
    pub(crate) fn run(&mut self) {
        for _ in 0..1_000_000 {
            let mut happened = self.connect() | self.collect() | self.deliver();
            happened |= self.alice.turn(&mut self.wires, self.most, self.now);
            happened |= self.bob.turn(&mut self.wires, self.most, self.now);
            happened |= self.proxy.turn(&mut self.wires, self.most, self.now);
            if !happened {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    fn connect(&mut self) -> bool {
        let of_alice = std::mem::take(&mut self.alice.dials);
        let of_bob = std::mem::take(&mut self.bob.dials);
        let any = !of_alice.is_empty() || !of_bob.is_empty();
        for (on, to) in of_alice {
            let up = self.relay_client("10.0.0.1", to);
            self.alice.connected(&mut self.wires, on, up, self.now);
        }
        for (on, to) in of_bob {
            let up = self.relay_client("10.0.0.2", to);
            self.bob.connected(&mut self.wires, on, up, self.now);
        }
        any
    }

    /// A connection from this host. Returns its near end, and its own address.
    fn relay_client(&mut self, host: &str, to: SocketAddr) -> Option<(usize, SocketAddr)> {
        if self.unreachable.contains(&to) {
            return None;
        }
        let (near, far) = self.wires.lay();
        let own = self.port_of(host);
        let seen = if self.nat { self.port_of("192.0.2.1") } else { own };
        let accepted = (Listener(0), to, seen);
        match to.to_string().as_str() {
            ALICE_AT => self.alice.accept(&mut self.wires, far, accepted, self.now),
            BOB_AT => self.bob.accept(&mut self.wires, far, accepted, self.now),
            PROXY_AT => self.proxy.accept(&mut self.wires, far, accepted, self.now),
            SERVICE_AT => self.service.push(Hand(far)),
            _ => panic!("nobody is at {to}"),
        }
        Some((near, own))
    }

    fn port_of(&mut self, host: &str) -> SocketAddr {
        self.ports += 1;
        SocketAddr::new(at(&format!("{host}:0")).ip(), self.ports)
    }

    /// Collects the stanzas of the machines.
    fn collect(&mut self) -> bool {
        let mut happened = false;
        while let Some(stanza) = self.alice.machine.poll_stanza() {
            happened = true;
            self.post(ALICE, stanza);
        }
        while let Some(stanza) = self.bob.machine.poll_stanza() {
            happened = true;
            self.post(BOB, stanza);
        }
        while let Some(stanza) = self.proxy.machine.poll_stanza() {
            happened = true;
            self.post(PROXY, stanza);
        }
        self.alice_reports.extend(stream_events(&mut self.alice));
        self.bob_reports.extend(stream_events(&mut self.bob));
        happened
    }

    /// The server replaces the receiver's name by the sender's.
    fn post(&mut self, from: &str, stanza: Stanza) {
        let known = [ALICE, BOB, PROXY].into_iter().find(|who| *who == stanza.peer.as_str());
        if let Some(to) = known {
            self.server.entry(to).or_default().push_back(Stanza { peer: jid(from), ..stanza });
        }
    }

    fn deliver(&mut self) -> bool {
        let is_held = |who| self.held.contains(who);
        let next = self.server.iter().find(|(who, stanzas)| !stanzas.is_empty() && !is_held(who));
        let Some(who) = next.map(|(who, _)| *who) else { return false };
        let Some(stanza) = self.server.get_mut(who).and_then(VecDeque::pop_front) else { return false };
        let (wires, now) = (&mut self.wires, self.now);
        match who {
            ALICE => self.alice.call(wires, now, |alice, now| alice.handle_stanza(stanza, now)),
            BOB => self.bob.call(wires, now, |bob, now| bob.handle_stanza(stanza, now)),
            _ => self.proxy.call(wires, now, |proxy, now| proxy.handle_stanza(stanza, now)),
        }
        true
    }
}

/// The events of an entity since the last call, except for the dials.
fn stream_events(entity: &mut Driver<Entity>) -> impl Iterator<Item = StreamEvent> {
    std::mem::take(&mut entity.events).into_iter().filter_map(|event| match event {
        Event::Stream(StreamEvent::Dialled { .. }) => None,
        Event::Stream(event) => Some(event),
        _ => None,
    })
}
