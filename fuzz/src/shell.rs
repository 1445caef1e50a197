//! A driver without sockets. It keeps its side of the contract of `rendezvous_core::machine` for all choices of the
//! fuzzer, and asserts that the machine keeps the other side.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use rendezvous_core::event::Event;
use rendezvous_core::machine::{Close, ConnId, End, Listener, Machine, TlsFailure};
use rendezvous_core::time::{Now, Time};

pub(crate) use self::peers::{ConnStep, WorldStep};
use crate::sock::{Sock, Stage};

mod outputs;
mod peers;

/// Maximum of received and unconsumed bytes: the size of the event loop's small buffers.
const PARKED_MAX: usize = 32 << 10;
/// A source is not read while this much is queued for its destination.
const QUEUED_MAX: usize = 64 << 10;
/// More turns than any run of a few operations needs: finds a machine in an endless loop.
const TURNS_MAX: u32 = 100_000;

/// The answer of an agent without an offer to a connector.
pub(crate) const SWITCHING: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: octet-stream\r\n\r\n";

/// What a machine did, for the caller to interpret.
#[derive(Debug)]
pub(crate) enum Did {
    Sent(ConnId, Vec<u8>),
    Noted(Event),
    Paired { hidden: ConnId, client: ConnId },
}

#[derive(Debug)]
enum Input {
    Flushed(ConnId),
    Moved { from: ConnId, read: usize, queued: usize },
    Acked(ConnId),
    WriteFailed(ConnId),
    TlsFailed(ConnId),
    Ended(ConnId, End),
    Closed(ConnId),
}

pub(crate) struct Shell<M> {
    pub(crate) machine: M,
    pub(crate) now: Now,
    pub(crate) deadline: Option<Time>,
    pub(crate) did: Vec<Did>,
    pub(crate) socks: BTreeMap<ConnId, Sock>,
    inputs: VecDeque<Input>,
    ready: VecDeque<ConnId>,
    slow: bool,
    late: Vec<ConnId>,
}

impl<M: Machine> Shell<M> {
    pub(crate) fn new(machine: M, now: Now) -> Self {
        let (inputs, ready) = (VecDeque::new(), VecDeque::new());
        let (did, socks) = (Vec::new(), BTreeMap::new());
        let mut shell =
            Self { machine, now, deadline: None, did, socks, inputs, ready, slow: false, late: Vec::new() };
        shell.run();
        shell
    }

    pub(crate) fn call<R>(&mut self, what: impl FnOnce(&mut M, Now) -> R) -> R {
        let result = what(&mut self.machine, self.now);
        self.run();
        result
    }

    pub(crate) fn open(&mut self, listener: u16, host: u8) -> ConnId {
        let from = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, host)), 1000);
        let on = self.machine.handle_open(Listener(listener), from, self.now);
        assert!(self.socks.insert(on, Sock::new(Stage::Up)).is_none(), "an id is used twice");
        self.run();
        on
    }

    /// One of the existing connections.
    pub(crate) fn pick(&self, nth: u8) -> Option<ConnId> {
        let nth = usize::from(nth).checked_rem(self.socks.len())?;
        self.socks.keys().nth(nth).copied()
    }

    /// The peer sends these bytes.
    pub(crate) fn give(&mut self, on: ConnId, bytes: &[u8]) {
        if let Some(sock) = self.socks.get_mut(&on)
            && sock.end.is_none()
            && matches!(sock.stage, Stage::Up)
        {
            sock.incoming.extend(bytes);
            self.ready.push_back(on);
            self.run();
        }
    }

    fn run(&mut self) {
        for _ in 0..TURNS_MAX {
            self.drain();
            if let Some(input) = self.inputs.pop_front() {
                self.hand_in(&input);
            } else if let Some(on) = self.ready.pop_front() {
                self.serve(on);
            } else {
                return;
            }
        }
        panic!("no end of it");
    }

    fn hand_in(&mut self, input: &Input) {
        let now = self.now;
        let short = |bytes: usize| u32::try_from(bytes).expect("far below 4 GiB");
        match *input {
            Input::Flushed(on) => self.machine.handle_flushed(on, now),
            Input::Moved { from, read, queued } => {
                self.machine.handle_moved(from, short(read), short(queued), now);
            }
            Input::Acked(on) => {
                let age = self.socks.get(&on).and_then(|sock| sock.age);
                self.machine.handle_acked(on, age, now);
            }
            Input::WriteFailed(on) => self.machine.handle_write_failed(on, now),
            Input::TlsFailed(on) => self.machine.handle_tls_failed(on, TlsFailure::Ended, now),
            Input::Ended(on, how) => self.machine.handle_end(on, how, now),
            Input::Closed(on) => {
                self.socks.remove(&on);
                self.machine.handle_closed(on, now);
            }
        }
    }

    /// One turn of one connection.
    fn serve(&mut self, on: ConnId) {
        let Some(sock) = self.socks.get_mut(&on) else { return };
        if sock.buried || matches!(sock.stage, Stage::Resolving | Stage::Dialling) {
            return;
        }
        if let Some(how) = sock.closing {
            let read = std::mem::take(&mut sock.incoming).len();
            let said = sock.queued == 0 || sock.write_failed;
            let over = said && (sock.end.is_some() || how == Close::Truncate);
            if read > 0 {
                self.inputs.push_back(Input::Moved { from: on, read, queued: 0 });
            }
            if over {
                self.bury(on);
            }
        } else if sock.stage == Stage::Securing {
            if sock.end.is_some() && !std::mem::replace(&mut sock.end_told, true) {
                self.inputs.push_back(Input::TlsFailed(on));
            }
        } else if sock.wanted {
            match sock.peer {
                Some(peer) if sock.gate != Some(0) => self.pump(on, peer),
                Some(_) => self.offer(on),
                None => self.offer(on),
            }
        }
    }

    fn offer(&mut self, on: ConnId) {
        let Some(sock) = self.socks.get_mut(&on) else { return };
        let came = sock.receive(PARKED_MAX - sock.parked.len());
        sock.parked.extend_from_slice(&came);
        let offered = !came.is_empty() || std::mem::take(&mut sock.fresh) && !sock.parked.is_empty();
        if offered {
            (sock.fresh, sock.last_told) = (false, false);
            let parked = std::mem::take(&mut sock.parked);
            let used = self.machine.handle_bytes(on, &parked, self.now);
            assert!(used <= parked.len(), "more consumed than there was");
            if let Some(sock) = self.socks.get_mut(&on) {
                sock.parked = parked[used..].to_vec();
            }
            self.ready.push_back(on);
        } else if sock.peer.is_some() && !sock.parked.is_empty() {
            if sock.untold_end().is_some() && !std::mem::replace(&mut sock.last_told, true) {
                self.machine.handle_last_bytes(on, self.now);
            }
        } else if let Some(how) = sock.untold_end() {
            sock.end_told = true;
            self.inputs.push_back(Input::Ended(on, how));
        }
    }

    fn pump(&mut self, on: ConnId, peer: ConnId) {
        let Some(dst) = self.socks.get(&peer) else { return };
        let (queued, stalled, takes) = (dst.queued, dst.stalled, !dst.write_failed && !dst.write_ended);
        let Some(sock) = self.socks.get_mut(&on) else { return };
        if !takes || queued >= QUEUED_MAX {
            return;
        }
        let passes = sock.gate.and_then(|gate| usize::try_from(gate).ok()).unwrap_or(usize::MAX);
        let bytes: Vec<u8> = if sock.parked.is_empty() {
            sock.receive(PARKED_MAX.min(passes))
        } else {
            sock.parked.drain(..passes.min(sock.parked.len())).collect()
        };
        sock.gate = sock.gate.map(|gate| gate - bytes.len() as u64);
        sock.fresh |= sock.gate == Some(0);
        if bytes.is_empty() {
            if let Some(how) = sock.untold_end() {
                sock.end_told = true;
                self.inputs.push_back(Input::Ended(on, how));
            }
            return;
        }
        let queued = queued + bytes.len();
        self.inputs.push_back(Input::Moved { from: on, read: bytes.len(), queued });
        if stalled {
            self.socks.entry(peer).and_modify(|dst| dst.queued = queued);
        } else {
            self.inputs.push_back(Input::Flushed(peer));
        }
        self.ready.push_back(on);
    }
}

/// The address of a name or a service.
pub(crate) fn address(host: u8) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, host)), 443)
}
