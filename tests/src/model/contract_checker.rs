//! Wraps a machine, checks all its inputs and outputs against the contract of [`rendezvous_core::machine`], and logs
//! them.

use std::collections::BTreeSet;
use std::fmt::{Debug, Write as _};
use std::net::SocketAddr;
use std::rc::Rc;

use rendezvous_core::account::Owners;
use rendezvous_core::event::Event;
use rendezvous_core::machine::{
    Close, ConnId, DialFailure, End, Listener, Machine, Output, PASS_ALL, Secured, TlsFailure,
};
use rendezvous_core::pair::HAND_OVER;
use rendezvous_core::time::{Now, Span, Time};

use super::rates::{Rates, Stream};
use crate::sim_net::{ProcessId, Shared};

/// A machine with this many outputs after one input is in an endless loop.
const OUTPUTS_MAX: u32 = 100_000;

/// Minimum time before a closing connection without progress is reset.
const PATIENCE_MIN: Span = Span::from_secs(5);

/// A peer that has unacknowledged data and is silent for this time is dead.
const SILENT: Span = Span::from_secs(30);

/// The observed state of one connection.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) id: ConnId,
    pub(super) wanted: bool,
    /// It was accepted at a port for raw clients.
    pub(super) is_raw: bool,
    pub(super) peer: Option<ConnId>,
    /// Relay: the stream that it sends as half of a pair.
    pub(super) stream: Option<Stream>,
    /// How many bytes may move before the next ones are offered; `None` if there is no gate.
    pub(super) gate: Option<u64>,
    /// In a pair: bytes at the gate that were offered to the machine, and neither consumed nor passed.
    pub(super) held: usize,
    /// It was the hidden side of a pair, and must not be again.
    pub(super) met: bool,
    pub(super) waits: bool,
    pub(super) ended: bool,
    /// It ended cleanly.
    pub(super) clean: bool,
    /// It is, or was, half of a pair.
    paired: bool,
    /// It was reset, or silent for too long.
    gone: bool,
    pub(super) end_crossed: bool,
    pub(super) write_failed: bool,
    /// Its memory was needed for others.
    stalled: bool,
    pub(super) closing: Option<Close>,
    /// When it began to close.
    closing_since: Time,
    /// Bytes queued for it that its socket has not accepted.
    pub(super) queued: u32,
    /// Bytes that it sent as half of a pair.
    moved: u64,
    /// Bytes that the machine consumed from it.
    pub(super) taken: u64,
    /// Plaintext bytes that must be sent to it.
    pub(super) owed: u64,
    /// The time of its last event.
    pub(super) since: Time,
}

/// A machine whose inputs and outputs are checked.
pub struct ContractChecker<M> {
    machine: M,
    world: Shared,
    who: ProcessId,
    pub(super) seen: Vec<Option<Seen>>,
    /// Inputs and outputs so far.
    pub steps: u64,
    in_a_row: u32,
    /// No TLS: a clean end is a FIN.
    pub in_clear: bool,
    /// Rendezvous so far.
    pub pairs: u64,
    /// Connections that lost their memory to others so far.
    pub stalled: u64,
    /// Relay: the limits of bytes.
    pub rates: Rates,
    /// Relay: the connections that the operator ends in this call.
    pub stops: BTreeSet<ConnId>,
}

impl<M> ContractChecker<M> {
    /// Wraps a machine that has had no input.
    pub const fn new(machine: M, world: Shared, who: ProcessId, in_clear: bool) -> Self {
        Self {
            machine,
            world,
            who,
            seen: Vec::new(),
            steps: 0,
            in_a_row: 0,
            in_clear,
            pairs: 0,
            stalled: 0,
            rates: Rates::NONE,
            stops: BTreeSet::new(),
        }
    }

    /// The machine itself.
    pub const fn inner(&self) -> &M {
        &self.machine
    }

    /// The machine itself, for the operator's calls.
    pub const fn inner_mut(&mut self) -> &mut M {
        &mut self.machine
    }

    /// How many connections have begun and are not closed.
    pub fn open(&self) -> usize {
        self.seen.iter().flatten().count()
    }

    /// How many connections wait for a peer.
    pub fn waiting(&self) -> usize {
        self.seen.iter().flatten().filter(|seen| seen.waits).count()
    }

    /// Whether everything for a connection is in its socket.
    pub fn is_sent(&self, on: ConnId) -> bool {
        let seen = self.seen.get(on.index as usize).and_then(Option::as_ref);
        seen.is_some_and(|seen| seen.id == on && seen.queued == 0)
    }

    fn log(&self, what: impl Debug) {
        self.world.borrow_mut().event(|log| {
            let _ = write!(log, "{:?} {what:?}", self.who);
        });
    }

    fn see(&mut self, on: ConnId, now: Time) -> &mut Seen {
        let index = on.index as usize;
        if self.seen.len() <= index {
            self.seen.resize(index + 1, None);
        }
        let seen = self.seen[index].get_or_insert(Seen {
            id: on,
            wanted: true,
            is_raw: false,
            peer: None,
            stream: None,
            gate: None,
            held: 0,
            met: false,
            waits: false,
            ended: false,
            clean: false,
            paired: false,
            gone: false,
            end_crossed: false,
            write_failed: false,
            stalled: false,
            closing: None,
            closing_since: now,
            queued: 0,
            moved: 0,
            taken: 0,
            owed: 0,
            since: now,
        });
        assert_eq!(seen.id, on, "two connections in one place");
        seen
    }

    /// Records an output for a connection, which must exist.
    fn told(&mut self, on: ConnId, now: Now, what: impl Debug) -> &mut Seen {
        self.steps += 1;
        self.in_a_row = 0;
        self.log(format_args!("{}.{} <- {what:?}", on.index, on.generation));
        let seen = self.seen.get_mut(on.index as usize).and_then(Option::as_mut);
        let Some(seen) = seen.filter(|seen| seen.id == on) else {
            panic!("{what:?} is told of {on:?}, which is not there");
        };
        seen.since = now.mono;
        seen
    }

    fn asked(&mut self, output: &Output, now: Time) {
        match output {
            Output::Idle { .. } => {
                self.in_a_row = 0;
                return;
            }
            Output::Send { to, len } => {
                let seen = self.see(*to, now);
                assert!(*len > 0, "an empty Send");
                assert_eq!(seen.closing, None, "a Send after Close");
                seen.queued = *len;
                seen.owed += u64::from(*len);
            }
            Output::Read { on, wanted } => self.see(*on, now).wanted = *wanted,
            Output::Pair { hidden, client } => self.pair(*hidden, *client, now),
            Output::Gate { on } => {
                let seen = self.see(*on, now);
                assert!(seen.peer.is_some() && seen.gate.is_none(), "a gate without a pair, or two");
                seen.gate = Some(0);
            }
            Output::Pass { from, bytes } => {
                assert!(*bytes > 0, "nothing passes");
                let seen = self.see(*from, now);
                let gate = seen.gate.expect("something passes where there is no gate");
                seen.gate = Some(gate.saturating_add(*bytes)).filter(|gate| *gate != PASS_ALL);
                seen.held = 0;
            }
            Output::Resolve { on, .. } | Output::Dial { on, .. } => self.see(*on, now).since = now,
            Output::CloseWrite { on } => {
                let seen = self.see(*on, now);
                assert_eq!(seen.queued, 0, "an end that passes bytes");
                assert!(!seen.end_crossed, "ended twice");
                seen.end_crossed = true;
                let peer = seen.peer.expect("only a pair's side is ended");
                assert!(self.see(peer, now).clean, "an end that nobody sent");
            }
            Output::Close { on, how } => self.close(*on, *how, now),
            Output::Event(Event::Paired { hidden, client, id, .. }) => {
                self.see(*hidden, now).stream = Some((*id, false));
                self.see(*client, now).stream = Some((*id, true));
            }
            Output::Event(Event::Waiting { on, .. }) => self.see(*on, now).waits = true,
            Output::Event(Event::WaitingEnded { on, .. }) => {
                if let Some(Some(seen)) = self.seen.get_mut(on.index as usize) {
                    seen.waits = false;
                }
            }
            Output::StartTls { .. }
            | Output::UserTimeout { .. }
            | Output::CheckAck { .. }
            | Output::LocalAddress { .. }
            | Output::Event(_) => {}
        }
        self.log(format_args!("-> {output:?}"));
    }

    fn pair(&mut self, hidden: ConnId, client: ConnId, now: Time) {
        assert_ne!(hidden, client, "paired with itself");
        self.pairs += 1;
        for (on, peer) in [(hidden, client), (client, hidden)] {
            let seen = self.see(on, now);
            assert_eq!(seen.peer, None, "paired while paired");
            assert_eq!(seen.closing, None, "paired while closing");
            assert!(seen.wanted, "paired, but not read");
            // A client may leave a pair cleanly and request the next hidden server.
            assert!(on == client || seen.moved == 0, "a hidden server's connection serves a second client");
            seen.peer = Some(peer);
            seen.stream = None;
            seen.gate = None;
            seen.held = 0;
            seen.paired = true;
            seen.waits = false;
        }
        let seen = self.see(hidden, now);
        assert!(!std::mem::replace(&mut seen.met, true), "one waiting connection meets one client");
    }

    fn close(&mut self, on: ConnId, how: Close, now: Time) {
        let world = Rc::clone(&self.world);
        let who = self.who;
        let is_stopped = self.stops.contains(&on);
        let seen = self.see(on, now);
        if !is_stopped && seen.paired && seen.closing.is_none() && how == Close::Abort {
            let world = world.borrow();
            let is_dead = world.socket(who, on).is_none_or(|ep| world.is_dead(ep));
            // A hidden server that ended before its first byte gets no more input: the request goes to another one.
            let is_passed_over = seen.met && seen.ended && seen.moved == 0;
            // A raw client that gets no hidden server is reset, since nothing that the relay sends would be of its protocol.
            let is_refused = seen.is_raw && seen.queued == 0;
            let is_well = !seen.gone
                && !seen.stalled
                && !seen.write_failed
                && !is_dead
                && !is_passed_over
                && !is_refused;
            assert!(!is_well, "reset at once, whatever is queued for it, though it is well: {seen:?}");
        }
        match seen.closing {
            None => seen.closing_since = now,
            Some(closing @ (Close::Linger | Close::Truncate)) => {
                assert_eq!(how, Close::Abort, "closed twice");
                let patience = now.since(seen.closing_since);
                assert!(
                    seen.stalled || patience >= PATIENCE_MIN,
                    "{closing:?} had {patience:?} only: {seen:?}"
                );
            }
            Some(Close::Abort) => panic!("closed after it was aborted"),
        }
        seen.closing = Some(how);
        seen.gate = None;
        seen.since = now;
        seen.waits = false;
        if let Some(peer) = seen.peer.take() {
            let peer = self.see(peer, now);
            peer.peer = None;
            peer.gate = None;
            peer.since = now;
        }
    }
}

impl<M: Machine> Machine for ContractChecker<M> {
    fn handle_open(&mut self, on: Listener, from: SocketAddr, now: Now) -> ConnId {
        let id = self.machine.handle_open(on, from, now);
        let known = self.seen.get(id.index as usize).is_some_and(Option::is_some);
        assert!(!known, "opened in the place of another");
        // The first listener is for hidden servers and clients of all kinds, the others are ports.
        self.see(id, now.mono).is_raw = on != Listener(0);
        self.told(id, now, format_args!("open {on:?} {from}"));
        id
    }

    fn handle_found(&mut self, on: ConnId, addresses: &[SocketAddr], now: Now) {
        self.told(on, now, format_args!("found {addresses:?}"));
        self.machine.handle_found(on, addresses, now);
    }

    fn handle_resolved(&mut self, on: ConnId, addresses: &[SocketAddr], now: Now) {
        self.told(on, now, format_args!("resolved {addresses:?}"));
        self.machine.handle_resolved(on, addresses, now);
    }

    fn handle_connected(&mut self, on: ConnId, now: Now) {
        self.told(on, now, "connected");
        self.machine.handle_connected(on, now);
    }

    fn handle_dial_failed(&mut self, on: ConnId, why: DialFailure, now: Now) {
        self.told(on, now, why);
        self.machine.handle_dial_failed(on, why, now);
    }

    fn handle_secured(&mut self, on: ConnId, tls: Secured, now: Now) {
        self.told(on, now, "secured");
        self.machine.handle_secured(on, tls, now);
    }

    fn handle_tls_failed(&mut self, on: ConnId, why: TlsFailure, now: Now) {
        // A dialler keeps the connection whose attempt failed first until the other attempts have ended. Nothing follows on
        // it, except for the bytes of a client without TLS.
        self.told(on, now, why).ended |= why != TlsFailure::PlainHttp;
        self.machine.handle_tls_failed(on, why, now);
    }

    fn handle_bytes(&mut self, on: ConnId, bytes: &[u8], now: Now) -> usize {
        let seen = self.told(on, now, format_args!("bytes {}", bytes.len()));
        assert!(seen.wanted, "bytes are offered that nobody wanted");
        assert!(seen.peer.is_none() || seen.gate == Some(0), "bytes are offered that are to move");
        assert!(!seen.ended, "bytes after the end");
        assert!(!bytes.is_empty(), "nothing is offered");
        let used = self.machine.handle_bytes(on, bytes, now);
        assert!(used <= bytes.len(), "more consumed than there was");
        let seen = self.see(on, now.mono);
        seen.taken += used as u64;
        seen.held = bytes.len() - used;
        used
    }

    fn handle_last_bytes(&mut self, on: ConnId, now: Now) {
        let seen = self.told(on, now, "last bytes");
        assert_eq!(seen.gate, Some(0), "held bytes without a gate");
        assert!(!seen.ended, "ended twice");
        self.machine.handle_last_bytes(on, now);
    }

    fn handle_moved(&mut self, from: ConnId, read: u32, queued: u32, now: Now) {
        let seen = self.told(from, now, format_args!("moved {read} queued {queued}"));
        if let Some(gate) = &mut seen.gate {
            *gate = gate.checked_sub(u64::from(read)).expect("more moved than was let pass");
        }
        assert!(read == 0 || !seen.ended || seen.closing.is_some(), "bytes after the end");
        let stream = seen.stream.filter(|_| seen.peer.is_some());
        if let Some(peer) = seen.peer {
            seen.moved += u64::from(read);
            let peer = self.see(peer, now.mono);
            peer.queued = queued;
            peer.owed += u64::from(read);
        }
        if let Some(stream) = stream.filter(|stream| self.rates.limits(*stream)) {
            let halves = self.seen.iter().flatten().filter(|seen| seen.stream == Some(stream)).count() as u64;
            let records = if self.in_clear { 0 } else { halves };
            self.rates.moved(stream, read, records, now.mono);
        }
        self.machine.handle_moved(from, read, queued, now);
    }

    fn handle_flushed(&mut self, on: ConnId, now: Now) {
        self.told(on, now, "flushed").queued = 0;
        self.machine.handle_flushed(on, now);
    }

    fn handle_round_trip(&mut self, on: ConnId, round_trip: Span, now: Now) {
        self.told(on, now, format_args!("round trip {round_trip:?}"));
        self.machine.handle_round_trip(on, round_trip, now);
    }

    fn handle_acked(&mut self, on: ConnId, age: Option<Span>, now: Now) {
        let seen = self.told(on, now, format_args!("acked {age:?}"));
        // A hidden server that acknowledges nothing of the head that it got is given up early.
        let least = if seen.moved == 0 { Span(HAND_OVER.0 / 2) } else { SILENT };
        seen.gone |= age.is_some_and(|age| age >= least);
        self.machine.handle_acked(on, age, now);
    }

    fn handle_local_address(&mut self, on: ConnId, local: SocketAddr, now: Now) {
        self.told(on, now, format_args!("local address {local}"));
        self.machine.handle_local_address(on, local, now);
    }

    fn handle_end(&mut self, on: ConnId, how: End, now: Now) {
        let in_clear = self.in_clear;
        let seen = self.told(on, now, how);
        assert!(!std::mem::replace(&mut seen.ended, true), "ended twice");
        seen.clean = how == End::Clean;
        seen.gone |= how == End::Reset;
        if in_clear {
            let seen = seen.clone();
            let world = self.world.borrow();
            let ep = world.socket(self.who, on).expect("who ends had a socket");
            assert!(!seen.clean || world.has_fin(ep), "a clean end without a FIN: {on:?}");
            let is_whole = world.moved(ep).0 == seen.taken + seen.moved;
            assert!(seen.peer.is_none() || is_whole, "an end that passes bytes: {seen:?}");
        }
        self.machine.handle_end(on, how, now);
    }

    fn handle_write_failed(&mut self, on: ConnId, now: Now) {
        let seen = self.told(on, now, "write failed");
        assert!(!std::mem::replace(&mut seen.write_failed, true), "writing failed twice");
        seen.queued = 0;
        self.machine.handle_write_failed(on, now);
    }

    fn handle_stalled(&mut self, on: ConnId, now: Now) {
        let seen = self.told(on, now, "stalled");
        assert!(seen.closing != Some(Close::Abort), "stalled, but it is gone");
        seen.stalled = true;
        self.stalled += 1;
        self.machine.handle_stalled(on, now);
    }

    fn owners(&self, on: ConnId) -> Owners {
        self.machine.owners(on)
    }

    fn kept(&self, on: ConnId) -> usize {
        self.machine.kept(on)
    }

    fn handle_closed(&mut self, on: ConnId, now: Now) {
        let in_clear = self.in_clear;
        let seen = self.told(on, now, "closed").clone();
        assert!(seen.closing.is_some(), "closed, but not by the machine");
        let world = self.world.borrow();
        if let Some(ep) = world.socket(self.who, on).filter(|ep| !world.is_dead(*ep))
            && seen.closing != Some(Close::Abort)
        {
            let sent = world.moved(ep).1;
            assert!(sent >= seen.owed, "closed before {} bytes were sent: {seen:?}", seen.owed - sent);
            assert!(sent == seen.owed || !in_clear, "more was sent than there was: {seen:?}");
            assert_eq!(world.lost(ep), 0, "reset while bytes were on their way: {seen:?}");
        }
        drop(world);
        self.seen[on.index as usize] = None;
        self.machine.handle_closed(on, now);
    }

    fn handle_timeout(&mut self, now: Now) {
        self.steps += 1;
        self.in_a_row = 0;
        self.log("timeout");
        self.machine.handle_timeout(now);
    }

    fn poll_output(&mut self, text: &mut Vec<u8>) -> Output {
        self.steps += 1;
        self.in_a_row += 1;
        assert!(self.in_a_row < OUTPUTS_MAX, "outputs without end");
        let output = self.machine.poll_output(text);
        let now = self.world.borrow().now();
        self.asked(&output, now);
        output
    }
}
