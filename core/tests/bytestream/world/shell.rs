//! A driver in memory: carries out the outputs of one machine, on wires instead of sockets. It does not read a
//! connection outside of a pair, and sees its end only if nothing unread precedes it.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use rendezvous_core::event::{Event, StreamEvent};
use rendezvous_core::machine::{Close, ConnId, DialFailure, End, Listener, Machine, Output};
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

    pub(crate) fn send(&mut self, from: usize, bytes: &[u8]) {
        let inbox = &mut self.0[from ^ 1];
        assert_eq!(inbox.end, None, "sent after the end");
        inbox.bytes.extend(bytes);
    }

    pub(crate) fn end(&mut self, from: usize, how: End) {
        let inbox = &mut self.0[from ^ 1];
        inbox.end = inbox.end.or(Some(how));
    }

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

pub(crate) struct Shell<M> {
    pub(crate) machine: M,
    pub(crate) idle: Option<Time>,
    pub(crate) dials: Vec<(ConnId, SocketAddr)>,
    /// The events of an entity that were not taken yet, except for the dials.
    pub(crate) stream_events: Vec<StreamEvent>,
    socks: BTreeMap<ConnId, Sock>,
    inputs: VecDeque<Input>,
}

struct Sock {
    wire: usize,
    local: SocketAddr,
    wanted: bool,
    peer: Option<ConnId>,
    ended: bool,
    closing: bool,
}

enum Input {
    Flushed(ConnId),
    Closed(ConnId),
}

impl<M: Machine> Shell<M> {
    pub(crate) fn new(machine: M) -> Self {
        Self {
            machine,
            idle: None,
            dials: Vec::new(),
            stream_events: Vec::new(),
            socks: BTreeMap::new(),
            inputs: VecDeque::new(),
        }
    }

    pub(crate) fn call(&mut self, wires: &mut Wires, now: Now, what: impl FnOnce(&mut M, Now)) {
        what(&mut self.machine, now);
        self.settle(wires, now);
    }

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
        let Some(sock) = self.socks.get(&on) else { return false };
        if sock.closing {
            let dropped = !wires.receive(sock.wire, usize::MAX).is_empty();
            let over = wires.ended(sock.wire).is_some();
            if over {
                self.socks.remove(&on);
                self.inputs.push_back(Input::Closed(on));
            }
            return dropped || over;
        }
        if let Some(peer) = sock.peer
            && sock.wanted
        {
            let bytes = wires.receive(sock.wire, most);
            if !bytes.is_empty() {
                wires.send(self.socks[&peer].wire, &bytes);
                self.machine.handle_moved(on, u32::try_from(bytes.len()).unwrap(), 0, now);
                self.inputs.push_back(Input::Flushed(peer));
                return true;
            }
        } else {
            assert!(!sock.wanted, "octets of a stream that is not clear would be read");
        }
        let Some(how) = wires.ended(sock.wire) else { return false };
        let sock = self.socks.get_mut(&on).expect("just seen");
        if std::mem::replace(&mut sock.ended, true) {
            return false;
        }
        self.machine.handle_end(on, how, now);
        true
    }

    pub(crate) fn settle(&mut self, wires: &mut Wires, now: Now) {
        loop {
            match self.machine.poll_output(&mut Vec::new()) {
                Output::Idle { until, .. } => {
                    self.idle = until;
                    match self.inputs.pop_front() {
                        Some(Input::Flushed(on)) => self.machine.handle_flushed(on, now),
                        Some(Input::Closed(on)) => self.machine.handle_closed(on, now),
                        None => return,
                    }
                }
                output => self.perform(wires, output, now),
            }
        }
    }

    fn perform(&mut self, wires: &mut Wires, output: Output, now: Now) {
        match output {
            Output::Read { on, wanted } => {
                if let Some(sock) = self.socks.get_mut(&on) {
                    sock.wanted = wanted;
                }
            }
            Output::Pair { hidden, client } => {
                for (on, peer) in [(hidden, client), (client, hidden)] {
                    let sock = self.socks.get_mut(&on).expect("only what is there can be paired");
                    sock.peer = Some(peer);
                    assert!(sock.wanted, "paired, but not read");
                }
            }
            Output::Dial { on, to } => self.dials.push((on, to)),
            Output::CheckAck { on } => self.machine.handle_acked(on, None, now),
            Output::LocalAddress { on } => self.machine.handle_local_address(on, self.socks[&on].local, now),
            Output::CloseWrite { on } => wires.end(self.socks[&on].wire, End::Clean),
            Output::Close { on, how } => self.close(wires, on, how),
            Output::Event(Event::Stream(StreamEvent::Dialled { .. })) => {}
            Output::Event(Event::Stream(event)) => self.stream_events.push(event),
            Output::Event(_) => {}
            Output::Send { .. }
            | Output::Gate { .. }
            | Output::Pass { .. }
            | Output::StartTls { .. }
            | Output::Resolve { .. }
            | Output::UserTimeout { .. }
            | Output::Idle { .. } => panic!("not of a stream: {output:?}"),
        }
    }

    fn close(&mut self, wires: &mut Wires, on: ConnId, how: Close) {
        self.dials.retain(|(dialled, _)| *dialled != on);
        let Some(sock) = self.socks.get_mut(&on) else {
            return self.inputs.push_back(Input::Closed(on));
        };
        sock.closing = true;
        let end = if how == Close::Linger { End::Clean } else { End::Reset };
        wires.end(sock.wire, end);
        if let Some(peer) = sock.peer.take().and_then(|peer| self.socks.get_mut(&peer)) {
            peer.peer = None;
            peer.wanted = false;
        }
        if how == Close::Abort {
            self.socks.remove(&on);
            self.inputs.push_back(Input::Closed(on));
        }
    }
}

impl Sock {
    /// Its first outputs come after it is registered here.
    const fn new(wire: usize, local: SocketAddr) -> Self {
        Self { wire, local, wanted: true, peer: None, ended: false, closing: false }
    }
}
