//! A driver in memory: carries out one machine's outputs, on wires instead of sockets. A test connects several of them
//! by laying wires between them.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use rendezvous_core::event::Event;
use rendezvous_core::machine::{
    Close, ConnId, DialFailure, End, Listener, Machine, Output, PASS_ALL, Secured, TlsRole,
};
use rendezvous_core::time::{Now, Time};

/// All wires. Each has two ends, 2n and 2n + 1.
#[derive(Default)]
pub(crate) struct Wires(Vec<Inbox>);

/// The items in flight to one end.
#[derive(Default)]
struct Inbox {
    bytes: VecDeque<u8>,
    end: Option<End>,
}

impl Wires {
    pub(crate) fn lay(&mut self) -> (usize, usize) {
        let at = self.0.len();
        self.0.resize_with(at + 2, Inbox::default);
        (at, at + 1)
    }

    /// Sends from this end.
    pub(crate) fn send(&mut self, from: usize, bytes: &[u8]) {
        let inbox = &mut self.0[from ^ 1];
        assert_eq!(inbox.end, None, "sent after the end");
        inbox.bytes.extend(bytes);
    }

    /// Ends the stream from this end.
    pub(crate) fn end(&mut self, from: usize, how: End) {
        let inbox = &mut self.0[from ^ 1];
        inbox.end = inbox.end.or(Some(how));
    }

    /// At most this many of the bytes received at this end.
    pub(crate) fn receive(&mut self, at: usize, most: usize) -> Vec<u8> {
        let bytes = &mut self.0[at].bytes;
        bytes.drain(..most.min(bytes.len())).collect()
    }

    /// The number of unread bytes at this end.
    pub(crate) fn unread(&self, at: usize) -> usize {
        self.0[at].bytes.len()
    }

    /// How the stream to this end has ended, once everything sent is received.
    pub(crate) fn ended(&self, at: usize) -> Option<End> {
        self.0[at].end.filter(|_| self.0[at].bytes.is_empty())
    }
}

pub(crate) struct Driver<M> {
    pub(crate) machine: M,
    pub(crate) events: Vec<Event>,
    pub(crate) idle: Option<Time>,
    /// The addresses that it dials; the world connects it.
    pub(crate) dials: Vec<(ConnId, SocketAddr)>,
    socks: BTreeMap<ConnId, Sock>,
    inputs: VecDeque<Input>,
}

struct Sock {
    wire: usize,
    /// Our address of the connection.
    local: SocketAddr,
    tls: bool,
    wanted: bool,
    /// Received and not consumed.
    parked: Vec<u8>,
    /// Whether `parked` must be offered.
    fresh: bool,
    peer: Option<ConnId>,
    /// How many bytes move before the next are offered; `None`: none are offered.
    gate: Option<u64>,
    last_told: bool,
    ended: bool,
    closing: bool,
}

enum Input {
    Flushed(ConnId),
    Secured(ConnId),
    Closed(ConnId),
}

impl<M: Machine> Driver<M> {
    pub(crate) fn new(machine: M, now: Now) -> Self {
        let mut driver = Self {
            machine,
            events: Vec::new(),
            idle: None,
            dials: Vec::new(),
            socks: BTreeMap::new(),
            inputs: VecDeque::new(),
        };
        driver.settle(&mut Wires::default(), now);
        driver
    }

    pub(crate) fn call<R>(&mut self, wires: &mut Wires, now: Now, what: impl FnOnce(&mut M, Now) -> R) -> R {
        let result = what(&mut self.machine, now);
        self.settle(wires, now);
        result
    }

    /// A connection is accepted: the end of its wire, its listener, our address and its peer.
    pub(crate) fn accept(
        &mut self,
        wires: &mut Wires,
        wire: usize,
        (listener, local, from): (Listener, SocketAddr, SocketAddr),
        now: Now,
    ) {
        let on = self.machine.handle_open(listener, from, now);
        self.socks.insert(on, Sock::new(wire, local));
        self.settle(wires, now);
    }

    /// The result of a dial: the end of its wire and our address; `None`: it was refused.
    pub(crate) fn connected(
        &mut self,
        wires: &mut Wires,
        on: ConnId,
        up: Option<(usize, SocketAddr)>,
        now: Now,
    ) {
        match up {
            Some((wire, local)) => {
                self.socks.insert(on, Sock::new(wire, local));
                self.machine.handle_connected(on, now);
            }
            None => self.machine.handle_dial_failed(on, DialFailure::Refused, now),
        }
        self.settle(wires, now);
    }

    /// The open wires that end here.
    pub(crate) fn wires(&self) -> Vec<usize> {
        self.socks.values().filter(|sock| !sock.closing).map(|sock| sock.wire).collect()
    }

    /// One turn for each connection, of at most `most` bytes. Returns whether anything happened.
    pub(crate) fn turn(&mut self, wires: &mut Wires, most: usize, now: Now) -> bool {
        let all: Vec<ConnId> = self.socks.keys().copied().collect();
        let mut happened = false;
        for on in all {
            happened |= self.serve(wires, on, most, now);
            self.settle(wires, now);
        }
        happened
    }

    fn serve(&mut self, wires: &mut Wires, on: ConnId, most: usize, now: Now) -> bool {
        let Some(sock) = self.socks.get_mut(&on) else { return false };
        if sock.closing {
            let dropped = !wires.receive(sock.wire, usize::MAX).is_empty();
            let over = wires.ended(sock.wire).is_some();
            if over {
                self.socks.remove(&on);
                self.inputs.push_back(Input::Closed(on));
            }
            return dropped || over;
        }
        if !sock.wanted {
            // In clear, an end is noticed without reading if nothing unread precedes it.
            return !sock.tls && sock.parked.is_empty() && self.report_end(wires, on, now);
        }
        if let Some(peer) = sock.peer.filter(|_| sock.gate != Some(0)) {
            return self.pump(wires, on, peer, most, now);
        }
        let received = wires.receive(sock.wire, most);
        let offered = !received.is_empty() || std::mem::take(&mut sock.fresh) && !sock.parked.is_empty();
        sock.parked.extend_from_slice(&received);
        if offered {
            (sock.fresh, sock.last_told) = (false, false);
            let used = self.machine.handle_bytes(on, &sock.parked, now);
            sock.parked.drain(..used);
            return true;
        }
        if sock.peer.is_some() && !sock.parked.is_empty() {
            let is_last = wires.ended(sock.wire).is_some() && !std::mem::replace(&mut sock.last_told, true);
            if is_last {
                self.machine.handle_last_bytes(on, now);
            }
            return is_last;
        }
        self.report_end(wires, on, now)
    }

    fn pump(&mut self, wires: &mut Wires, on: ConnId, peer: ConnId, most: usize, now: Now) -> bool {
        let Some(sock) = self.socks.get_mut(&on) else { return false };
        let passes = sock.gate.and_then(|gate| usize::try_from(gate).ok()).unwrap_or(usize::MAX);
        let bytes: Vec<u8> = if sock.parked.is_empty() {
            wires.receive(sock.wire, most.min(passes))
        } else {
            sock.parked.drain(..passes.min(sock.parked.len())).collect()
        };
        sock.gate = sock.gate.map(|gate| gate - bytes.len() as u64);
        sock.fresh |= sock.gate == Some(0);
        if bytes.is_empty() {
            return self.report_end(wires, on, now);
        }
        wires.send(self.socks[&peer].wire, &bytes);
        self.machine.handle_moved(on, u32::try_from(bytes.len()).unwrap(), 0, now);
        self.inputs.push_back(Input::Flushed(peer));
        true
    }

    fn report_end(&mut self, wires: &Wires, on: ConnId, now: Now) -> bool {
        let Some(sock) = self.socks.get_mut(&on) else { return false };
        let Some(how) = wires.ended(sock.wire) else { return false };
        if std::mem::replace(&mut sock.ended, true) {
            return false;
        }
        self.machine.handle_end(on, how, now);
        true
    }

    pub(crate) fn settle(&mut self, wires: &mut Wires, now: Now) {
        loop {
            let mut text = Vec::new();
            match self.machine.poll_output(&mut text) {
                Output::Idle { until, .. } => {
                    self.idle = until;
                    match self.inputs.pop_front() {
                        Some(Input::Flushed(on)) => self.machine.handle_flushed(on, now),
                        Some(Input::Secured(on)) => self.machine.handle_secured(on, Secured::default(), now),
                        Some(Input::Closed(on)) => self.machine.handle_closed(on, now),
                        None => return,
                    }
                }
                output => self.perform(wires, output, &text, now),
            }
        }
    }

    fn perform(&mut self, wires: &mut Wires, output: Output, text: &[u8], now: Now) {
        match output {
            Output::Send { to, len } => {
                assert_eq!(len as usize, text.len());
                wires.send(self.socks[&to].wire, text);
                self.inputs.push_back(Input::Flushed(to));
            }
            Output::Read { on, wanted } => {
                if let Some(sock) = self.socks.get_mut(&on) {
                    sock.wanted = wanted;
                    sock.fresh = wanted;
                }
            }
            Output::Pair { hidden, client } => {
                for (on, peer) in [(hidden, client), (client, hidden)] {
                    let sock = self.socks.get_mut(&on).expect("only what is there can be paired");
                    (sock.peer, sock.gate) = (Some(peer), None);
                    assert!(sock.wanted, "paired, but not read");
                }
            }
            Output::Gate { on } => {
                let sock = self.socks.get_mut(&on).expect("half of a pair");
                (sock.gate, sock.fresh, sock.last_told) = (Some(0), true, false);
            }
            Output::Pass { from, bytes } => {
                let sock = self.socks.get_mut(&from).expect("half of a pair");
                let gate = sock.gate.expect("a gate that something passes");
                sock.gate = Some(gate.saturating_add(bytes)).filter(|gate| *gate != PASS_ALL);
            }
            Output::StartTls { on, role } => {
                assert!(!matches!(role, TlsRole::Client { upstream: 1.. }));
                self.socks.get_mut(&on).expect("TLS on a connection").tls = true;
                self.inputs.push_back(Input::Secured(on));
            }
            Output::Resolve { .. } => panic!("there are no names here"),
            Output::Dial { on, to } => self.dials.push((on, to)),
            Output::UserTimeout { .. } => {}
            Output::LocalAddress { on } => {
                self.machine.handle_local_address(on, self.socks[&on].local, now);
            }
            Output::CheckAck { on } => self.machine.handle_acked(on, None, now),
            Output::CloseWrite { on } => wires.end(self.socks[&on].wire, End::Clean),
            Output::Close { on, how } => self.close(wires, on, how),
            Output::Event(event) => self.events.push(event),
            Output::Idle { .. } => {}
        }
    }

    fn close(&mut self, wires: &mut Wires, on: ConnId, how: Close) {
        self.dials.retain(|(dialled, _)| *dialled != on);
        let Some(sock) = self.socks.get_mut(&on) else {
            return self.inputs.push_back(Input::Closed(on));
        };
        sock.closing = true;
        let (wire, tls) = (sock.wire, sock.tls);
        wires.end(
            wire,
            match how {
                Close::Linger => End::Clean,
                Close::Truncate if tls => End::Truncated,
                Close::Truncate | Close::Abort => End::Reset,
            },
        );
        if let Some(peer) = sock.peer.take().and_then(|peer| self.socks.get_mut(&peer)) {
            (peer.peer, peer.gate) = (None, None);
            peer.fresh = true;
        }
        if how == Close::Abort {
            self.socks.remove(&on);
            self.inputs.push_back(Input::Closed(on));
        }
    }
}

impl Sock {
    fn new(wire: usize, local: SocketAddr) -> Self {
        Self {
            wire,
            local,
            tls: false,
            wanted: true,
            parked: Vec::new(),
            fresh: false,
            peer: None,
            gate: None,
            last_told: false,
            ended: false,
            closing: false,
        }
    }
}
