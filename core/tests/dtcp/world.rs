//! Two endpoints in memory, and everything that may happen next. A run is a sequence of choices; [`crate::crossing`]
//! takes all of them.

use std::collections::VecDeque;
use std::fmt;

use rendezvous_core::dtcp::handshake::Tls;
use rendezvous_core::dtcp::negotiation::{Config, LinkId, Negotiation, Output, SessionId, Signal};
use rendezvous_core::machine::Close;

use crate::{START, place};

/// The settings of the endpoints and of the network.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// How many hosts requestor and responder offer.
    pub hosts: [usize; 2],
    /// Their policies for TLS.
    pub tls: [Tls; 2],
    /// Any dial may fail.
    pub dials_fail: bool,
    /// A reset discards what is in flight.
    pub resets_eat: bool,
    /// How many bytes are delivered at once; `None`: one write, or all there is.
    pub cut: Option<usize>,
}

pub(crate) const PLAIN: Rules =
    Rules { hosts: [1, 1], tls: [Tls::Off; 2], dials_fail: false, resets_eat: false, cut: None };

/// What the applications send at once: lines that a handshake would accept, and no end.
pub(crate) const SAID: [&[u8]; 2] = [b"ok\nkey:requestor\nerror", b"ok\nstarttls\nresponder"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// No connection yet.
    Nobody,
    Negotiation,
    Application,
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Securing {
    Clear,
    Begun,
    Up,
}

#[derive(Clone, Debug)]
enum Item {
    Bytes(Vec<u8>),
    End,
}

/// One end of a wire; 0 is the requestor's, 1 the responder's, like everywhere here.
#[derive(Clone, Debug)]
pub(crate) struct WireEnd {
    link: Option<LinkId>,
    pub(crate) owner: Owner,
    securing: Securing,
    /// In flight to this end.
    coming: VecDeque<Item>,
    /// Received, not consumed.
    kept: Vec<u8>,
    paused: bool,
    /// Received by the application.
    pub(crate) got: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dial {
    Begun,
    /// The serving end is connected, the dialling end does not know yet.
    Accepted,
    /// The dialling end was closed at once. The other may connect and see that, or not.
    CalledOff,
    Ended,
}

#[derive(Clone, Debug)]
pub(crate) struct Wire {
    dialler: usize,
    dial: Dial,
    pub(crate) ends: [WireEnd; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// With the number of the wire, and whether in TLS.
    Established(usize, bool),
    Failed,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Input {
    Signal {
        to: usize,
    },
    Accept {
        wire: usize,
    },
    Refuse {
        wire: usize,
    },
    Vanish {
        wire: usize,
    },
    Connected {
        wire: usize,
    },
    /// The next write, or everything.
    Bytes {
        wire: usize,
        to: usize,
        all: bool,
    },
    TlsUp {
        wire: usize,
        at: usize,
    },
    TlsFailed {
        wire: usize,
        at: usize,
    },
}

#[derive(Clone)]
pub(crate) struct World {
    rules: Rules,
    pub(crate) parties: [Negotiation; 2],
    sessions: [Option<SessionId>; 2],
    signals: [VecDeque<Signal>; 2],
    pub(crate) wires: Vec<Wire>,
    pub(crate) outcomes: [Option<Outcome>; 2],
}

/// The state that determines the future of a world.
impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}{:?}{:?}{:?}", self.parties, self.signals, self.wires, self.outcomes)
    }
}

impl WireEnd {
    const fn new() -> Self {
        Self {
            link: None,
            owner: Owner::Nobody,
            securing: Securing::Clear,
            coming: VecDeque::new(),
            kept: Vec::new(),
            paused: false,
            got: Vec::new(),
        }
    }

    fn reads(&self) -> bool {
        let open = matches!(self.owner, Owner::Negotiation | Owner::Application);
        open && !self.paused && self.securing != Securing::Begun && !self.coming.is_empty()
    }

    /// Whether the other end's TLS handshake can complete: this one is in it, or has finished its part.
    fn answers_tls(&self) -> bool {
        match self.securing {
            Securing::Clear => false,
            Securing::Begun => self.owner == Owner::Negotiation,
            Securing::Up => true,
        }
    }

    fn queued_bytes(&self) -> usize {
        self.coming.iter().filter(|it| matches!(it, Item::Bytes(_))).count()
    }
}

impl World {
    /// The requestor has sent its request.
    pub(crate) fn new(rules: Rules) -> Self {
        let party = |at: usize| {
            let config = Config { tls: rules.tls[at], concealed: None, ..Config::default() };
            Negotiation::new(config, [u8::try_from(at).unwrap(); 32])
        };
        let mut world = Self {
            rules,
            parties: [party(0), party(1)],
            sessions: [None; 2],
            signals: Default::default(),
            wires: Vec::new(),
            outcomes: [None; 2],
        };
        let hosts = world.hosts(0);
        world.sessions[0] = Some(world.parties[0].request("responder", &hosts, START));
        world.perform_all(0);
        world
    }

    fn hosts(&self, at: usize) -> Vec<rendezvous_core::relay_client::HostPort> {
        (0..self.rules.hosts[at]).map(|host| place(&format!("192.0.2.{host}:800{at}"))).collect()
    }

    /// Everything that may happen next; empty at the end.
    pub(crate) fn inputs(&self) -> Vec<Input> {
        let mut inputs = Vec::new();
        for to in 0..2 {
            if !self.signals[to].is_empty() {
                inputs.push(Input::Signal { to });
            }
        }
        for (wire, it) in self.wires.iter().enumerate() {
            match it.dial {
                Dial::Begun => {
                    inputs.push(Input::Accept { wire });
                    if self.rules.dials_fail {
                        inputs.push(Input::Refuse { wire });
                    }
                }
                Dial::Accepted => inputs.push(Input::Connected { wire }),
                Dial::CalledOff => inputs.extend([Input::Accept { wire }, Input::Vanish { wire }]),
                Dial::Ended => {}
            }
            for (at, end) in it.ends.iter().enumerate() {
                if end.securing == Securing::Begun && end.owner == Owner::Negotiation {
                    if it.ends[1 - at].answers_tls() {
                        inputs.push(Input::TlsUp { wire, at });
                    }
                    if end.coming.iter().any(|item| matches!(item, Item::End)) {
                        inputs.push(Input::TlsFailed { wire, at });
                    }
                }
                if end.reads() {
                    inputs.push(Input::Bytes { wire, to: at, all: false });
                    if self.rules.cut.is_none() && end.queued_bytes() > 1 {
                        inputs.push(Input::Bytes { wire, to: at, all: true });
                    }
                }
            }
        }
        inputs
    }

    /// Applies an input, and carries out the resulting outputs.
    pub(crate) fn step(&mut self, input: Input) {
        match input {
            Input::Signal { to } => self.signal(to),
            Input::Accept { wire } => {
                let server = 1 - self.wires[wire].dialler;
                let was = self.wires[wire].dial;
                self.wires[wire].dial = if was == Dial::Begun { Dial::Accepted } else { Dial::Ended };
                let link = self.parties[server].handle_accepted(START);
                let end = &mut self.wires[wire].ends[server];
                (end.link, end.owner) = (Some(link), Owner::Negotiation);
                self.perform_all(server);
            }
            Input::Refuse { wire } => {
                let dialler = self.wires[wire].dialler;
                self.wires[wire].dial = Dial::Ended;
                self.parties[dialler].handle_dial_failed(self.link(wire, dialler));
                self.perform_all(dialler);
            }
            Input::Vanish { wire } => self.wires[wire].dial = Dial::Ended,
            Input::Connected { wire } => {
                let dialler = self.wires[wire].dialler;
                self.wires[wire].dial = Dial::Ended;
                self.wires[wire].ends[dialler].owner = Owner::Negotiation;
                self.parties[dialler].handle_connected(self.link(wire, dialler));
                self.perform_all(dialler);
            }
            Input::Bytes { wire, to, all } => self.deliver(wire, to, all),
            Input::TlsUp { wire, at } => {
                self.wires[wire].ends[at].securing = Securing::Up;
                self.parties[at].handle_tls_up(self.link(wire, at), None);
                self.perform_all(at);
            }
            Input::TlsFailed { wire, at } => {
                self.parties[at].handle_tls_failed(self.link(wire, at));
                self.perform_all(at);
            }
        }
    }

    fn link(&self, wire: usize, at: usize) -> LinkId {
        self.wires[wire].ends[at].link.unwrap()
    }

    fn signal(&mut self, to: usize) {
        let party = &mut self.parties[to];
        match self.signals[to].pop_front().unwrap() {
            Signal::Request(offer) => {
                let hosts = self.hosts(to);
                let session = self.parties[to].handle_request("requestor", &offer, &hosts, START);
                self.sessions[to] = Some(session);
            }
            Signal::Answer(offer) => party.handle_answer(self.sessions[to].unwrap(), &offer, START),
            Signal::Refuse(_) => party.handle_refused(self.sessions[to].unwrap()),
            Signal::GiveUp(key) => {
                let peer = if to == 0 { "responder" } else { "requestor" };
                if let Some(session) = party.session_of(peer, key.as_bytes()) {
                    party.handle_give_up(session);
                }
            }
        }
        self.perform_all(to);
    }

    fn deliver(&mut self, wire: usize, to: usize, all: bool) {
        let end = &mut self.wires[wire].ends[to];
        let mut is_end = false;
        loop {
            match end.coming.pop_front() {
                Some(Item::Bytes(mut bytes)) => {
                    if let Some(cut) = self.rules.cut.filter(|cut| *cut < bytes.len()) {
                        end.coming.push_front(Item::Bytes(bytes.split_off(cut)));
                    }
                    end.kept.append(&mut bytes);
                }
                Some(Item::End) => is_end = true,
                None => {}
            }
            if !all || !matches!(end.coming.front(), Some(Item::Bytes(_))) {
                break;
            }
        }
        self.offer(wire, to);
        if is_end {
            let end = &mut self.wires[wire].ends[to];
            if end.owner == Owner::Negotiation {
                self.parties[to].handle_end(self.link(wire, to));
                self.perform_all(to);
            }
        }
    }

    /// Offers the kept bytes to the owner of the end.
    fn offer(&mut self, wire: usize, at: usize) {
        let end = &mut self.wires[wire].ends[at];
        match end.owner {
            Owner::Negotiation if !end.paused => {
                let kept = std::mem::take(&mut end.kept);
                let link = end.link.unwrap();
                let used = self.parties[at].handle_bytes(link, &kept);
                self.wires[wire].ends[at].kept = kept[used..].to_vec();
                self.perform_all(at);
                let end = &mut self.wires[wire].ends[at];
                if end.owner == Owner::Application {
                    let rest = std::mem::take(&mut end.kept);
                    end.got.extend(rest);
                }
            }
            Owner::Application => {
                let rest = std::mem::take(&mut end.kept);
                end.got.extend(rest);
            }
            Owner::Negotiation | Owner::Nobody | Owner::Closed => {}
        }
    }

    fn perform_all(&mut self, at: usize) {
        loop {
            match self.parties[at].poll_output() {
                Output::Idle { .. } => return,
                Output::Signal { signal, .. } => self.signals[1 - at].push_back(signal),
                Output::Resolve { .. } => panic!("no host is a name"),
                Output::Dial { link, .. } => {
                    let mut ends = [WireEnd::new(), WireEnd::new()];
                    ends[at].link = Some(link);
                    self.wires.push(Wire { dialler: at, dial: Dial::Begun, ends });
                }
                Output::Write { link, bytes } => {
                    let wire = self.wire(at, link);
                    self.send(wire, at, &bytes);
                }
                Output::StartTls { link, .. } => {
                    let wire = self.wire(at, link);
                    let end = &mut self.wires[wire].ends[at];
                    assert_eq!(end.securing, Securing::Clear);
                    end.securing = Securing::Begun;
                }
                Output::Read { link, wanted } => {
                    let wire = self.wire(at, link);
                    self.wires[wire].ends[at].paused = !wanted;
                    self.offer(wire, at);
                }
                Output::Close { link, how } => self.close(at, link, how),
                Output::Established { link, tls, .. } => {
                    let wire = self.wire(at, link);
                    self.settle(at, Outcome::Established(wire, tls));
                    let end = &mut self.wires[wire].ends[at];
                    (end.owner, end.paused) = (Owner::Application, false);
                    self.send(wire, at, SAID[at]);
                }
                Output::Withheld { .. } => panic!("more dials than a minute has"),
                Output::Failed { .. } => self.settle(at, Outcome::Failed),
            }
        }
    }

    fn settle(&mut self, at: usize, outcome: Outcome) {
        assert_eq!(self.outcomes[at], None, "settled twice, now {outcome:?}");
        self.outcomes[at] = Some(outcome);
    }

    fn wire(&self, at: usize, link: LinkId) -> usize {
        self.wires.iter().position(|it| it.ends[at].link == Some(link)).expect("a link that there is")
    }

    fn send(&mut self, wire: usize, from: usize, bytes: &[u8]) {
        assert_ne!(self.wires[wire].ends[from].owner, Owner::Closed, "octets behind the end");
        let other = &mut self.wires[wire].ends[1 - from];
        if other.owner != Owner::Closed {
            other.coming.push_back(Item::Bytes(bytes.to_vec()));
        }
    }

    fn close(&mut self, at: usize, link: LinkId, how: Close) {
        let wire = self.wire(at, link);
        let eats = self.rules.resets_eat && how == Close::Abort;
        let Wire { ends, dial, dialler } = &mut self.wires[wire];
        if *dialler == at {
            *dial = if *dial == Dial::Begun { Dial::CalledOff } else { Dial::Ended };
        }
        ends[at].owner = Owner::Closed;
        ends[at].coming.clear();
        let other = &mut ends[1 - at];
        if other.owner != Owner::Closed {
            if eats {
                other.coming.clear();
            }
            other.coming.push_back(Item::End);
        }
    }
}
