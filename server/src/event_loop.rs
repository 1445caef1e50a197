//! The event loop: edges → ready queue → bounded turns → deadlines → outputs.
//!
//! It is generic over the world ([`Net`]) and over the protocol ([`Machine`]): it moves octets and carries out what the
//! machine asks for, and decides nothing that the protocol could care about.
//!
//! What happens on the machine's request may have consequences of its own (a send fails, a socket is closed). Those
//! are not told within the request, but queued (`Input`) and told when the machine is idle again: mutate, drain,
//! mutate.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rendezvous_core::event::Event;
use rendezvous_core::machine::{ConnId, DialFailure, End, Listener, Machine, Output, TlsFailure};
use rendezvous_core::time::{Now, Span, Time};
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::ServerName;

use crate::buffer::{Pool, Sizes, Waiters};
use crate::direct_tls::DirectTls;
#[cfg(debug_assertions)]
use crate::net::Pipe;
use crate::net::{Edge, GENERATION_MASK, Net};
use crate::slot::{Link, Reading, Slot};
use crate::tls_config::LetIn;

use self::draining::Draining;
use self::table::find;

mod accept;
mod draining;
mod gate;
mod memory;
mod perform;
mod pump;
mod read;
mod splice;
mod table;
mod write;

/// One connection moves at most so many octets in a turn…
const TURN_OCTETS_MAX: usize = 256 * 1024;
/// …in at most so many receiving calls.
const TURN_CALLS_MAX: usize = 16;
/// Connections that move much receive and send so many octets in a turn, all together and with the last one's share on
/// top: then it is looked whether anybody else is ready.
const BUSY_OCTETS_MAX: u64 = 512 * 1024;
/// How often a socket that is to be reset once its peer has everything is looked at.
const TRUNCATE_TICK: Span = Span::from_millis(10);

/// How the certificate of a peer that is dialled is checked, and under which name.
pub type ClientTls = (Arc<ClientConfig>, ServerName<'static>);

/// With what certificate, and with whom, TLS is spoken.
#[derive(Clone, Debug, Default)]
pub struct TlsSetup {
    /// For [`TlsRole::Server`](rendezvous_core::machine::TlsRole::Server).
    pub server: Option<Arc<ServerConfig>>,
    /// For [`TlsRole::EndToEnd`](rendezvous_core::machine::TlsRole::EndToEnd) and
    /// [`TlsRole::EndToEndStream`](rendezvous_core::machine::TlsRole::EndToEndStream).
    pub end_to_end: Option<EndToEndTls>,
    /// For [`TlsRole::Client`](rendezvous_core::machine::TlsRole::Client), in the order of their numbers: the upstreams, and behind
    /// them the local services that speak TLS.
    pub upstreams: Vec<ClientTls>,
    /// For [`TlsRole::DirectServer`](rendezvous_core::machine::TlsRole::DirectServer) and
    /// [`TlsRole::DirectClient`](rendezvous_core::machine::TlsRole::DirectClient).
    pub direct: Option<DirectTls>,
}

/// How an agent terminates the TLS of clients.
#[derive(Clone, Debug)]
pub struct EndToEndTls {
    /// Of clients of HTTP.
    pub http: Arc<ServerConfig>,
    /// Of connectors.
    pub connectors: Arc<ServerConfig>,
    /// Of validators of a CA, which show no key: for a ClientHello with `acme-tls/1` as its only protocol.
    pub challenges: Option<Arc<ServerConfig>>,
    /// Which of them are let in.
    pub let_in: LetIn,
}

/// What the loop has done, in numbers that only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Octets of pairs that were received, as plaintext.
    pub relayed: u64,
    /// Octets of pairs that were copied in user space by us, beside what rustls copies itself.
    pub copied: u64,
    /// Octets of pairs that went from socket to socket within the system.
    pub spliced: u64,
    /// Turns.
    pub turns: u64,
}

/// A slot of the loop over `N`.
type SlotOf<N> = Slot<<N as Net>::Sock, <N as Net>::Pipe>;

/// What is to be told to the machine when it is idle.
#[derive(Clone, Copy, Debug)]
enum Input {
    Flushed(ConnId),
    Moved { from: ConnId, read: u32, queued: u32 },
    RoundTrip { on: ConnId, round_trip: Span },
    Acked { on: ConnId, age: Option<Span> },
    LocalAddress { on: ConnId, local: SocketAddr },
    WriteFailed(ConnId),
    DialFailed(ConnId, DialFailure),
    TlsFailed(ConnId, TlsFailure),
    Ended(ConnId, End),
    Closed(ConnId),
}

/// The loop over one world and one machine.
///
/// The machine comes last, for what needs not know which one it is is written once for all of them
/// (`EventLoop<N, dyn Machine>`): a program with seven kinds of machines has one loop in it, not seven.
pub struct EventLoop<N: Net, M: Machine + ?Sized> {
    net: N,
    tls: TlsSetup,
    slots: Vec<Option<Box<SlotOf<N>>>>,
    pool: Pool,
    /// Connections that something can be done for.
    ready: VecDeque<ConnId>,
    /// Those among them that move much: they come after the others, and not all in one turn.
    busy: VecDeque<ConnId>,
    inputs: VecDeque<Input>,
    events: Vec<Event>,
    accepting: Vec<accept::Backlog>,
    /// Connections that wait for a buffer.
    waiters: Waiters,
    /// When it is looked whether one of them has waited for too long.
    waiters_due: Time,
    /// If more is kept than may be, and nobody could be cut: when it is looked again.
    relief_due: Time,
    /// How many bytes were used when that was done last.
    relief_used: usize,
    /// Connections that are reset as soon as their peer has everything.
    truncating: Vec<ConnId>,
    /// Sockets that are closed as soon as their peer has everything.
    draining: Draining<N::Sock>,
    edges: Vec<Edge>,
    text: Vec<u8>,
    scratch: Vec<u8>,
    deadline: Option<Time>,
    now: Now,
    stats: Stats,
    /// Octets that came from sockets, and that sockets took.
    received: u64,
    sent: u64,
    machine: M,
}

impl<N: Net, M: Machine> EventLoop<N, M> {
    /// A loop over `net` with so many listeners, which the machine knows as 0, 1, 2…
    pub fn new(mut net: N, machine: M, tls: TlsSetup, sizes: Sizes, listeners: u16) -> Self {
        let now = net.now();
        Self {
            net,
            tls,
            slots: Vec::new(),
            pool: Pool::new(sizes),
            ready: VecDeque::new(),
            busy: VecDeque::new(),
            inputs: VecDeque::new(),
            events: Vec::new(),
            accepting: accept::Backlog::all(listeners),
            waiters: Waiters::default(),
            waiters_due: Time::default(),
            relief_due: Time::default(),
            relief_used: 0,
            truncating: Vec::new(),
            draining: Draining::new(),
            edges: Vec::new(),
            text: Vec::new(),
            scratch: vec![0; sizes.bulk],
            deadline: None,
            now,
            stats: Stats::default(),
            received: 0,
            sent: 0,
            machine,
        }
    }

    /// One turn: waits until something is ready or due, for `at_most` this long, and deals with it.
    ///
    /// # Errors
    /// The system's polling call failed: nothing can be done any more.
    pub fn turn(&mut self, at_most: Option<Span>) -> io::Result<()> {
        self.any().turn_once(at_most)
    }

    /// Tells the machine something that is not of a connection (the operator's wishes), and does what it asks.
    pub fn call<R>(&mut self, what: impl FnOnce(&mut M, Now) -> R) -> R {
        self.now = self.net.now();
        let result = what(&mut self.machine, self.now);
        self.any().settle();
        result
    }

    /// Takes a connection that was not accepted by a listener of ours, as if it was by listener `on`.
    ///
    /// # Errors
    /// It can't be watched.
    pub fn adopt(&mut self, on: Listener, sock: N::Sock, from: SocketAddr) -> io::Result<ConnId> {
        self.now = self.net.now();
        self.any().admit(on, sock, from)
    }

    /// Accepts nothing any more.
    pub fn stop_accepting(&mut self) {
        self.accepting.clear();
        self.net.stop_listening();
    }

    /// Whether the peers of all connections that are over have acknowledged everything.
    pub fn is_drained(&self) -> bool {
        self.draining.is_empty()
    }

    /// How many connections of pairs were closed in order although their peers did not acknowledge everything in time.
    pub const fn undelivered(&self) -> u64 {
        self.draining.undelivered()
    }

    /// Resets every connection: whoever is left sees that it did not end in order.
    pub fn abort_all(&mut self) {
        self.any().close_draining();
        for slot in std::mem::take(&mut self.slots).into_iter().flatten() {
            if let Link::Up(sock) | Link::Dialling(sock) = slot.link {
                self.net.abort(sock);
            }
        }
    }

    /// New certificates, for handshakes from now on.
    pub fn set_tls(&mut self, tls: TlsSetup) {
        self.tls = tls;
    }

    /// What the machine noted since the last call.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// The machine.
    pub const fn machine(&self) -> &M {
        &self.machine
    }

    /// The world.
    pub const fn net(&mut self) -> &mut N {
        &mut self.net
    }

    /// What was done so far.
    pub const fn stats(&self) -> Stats {
        self.stats
    }

    /// Octets in buffers at the moment.
    pub const fn buffer_octets(&self) -> usize {
        self.pool.used()
    }

    /// How many buffers are in use at the moment.
    pub fn buffers(&self) -> usize {
        self.pool.count()
    }

    /// How many pipes of the system are in use at the moment.
    pub fn pipes(&self) -> usize {
        self.slots.iter().flatten().filter(|slot| slot.pipe.is_some()).count()
    }

    /// How many connections there are at the moment, closing ones included.
    pub fn connections(&self) -> usize {
        self.slots.iter().flatten().count()
    }

    /// Gives back what a wave of connections has left behind, as far as nobody uses it.
    pub fn shrink(&mut self) {
        let used = self.slots.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        self.slots.truncate(used);
        self.slots.shrink_to_fit();
        self.ready.shrink_to_fit();
        self.busy.shrink_to_fit();
        self.inputs.shrink_to_fit();
        self.waiters.shrink();
        self.pool.shrink();
    }

    /// Heads may be this large from now on, with one TLS record behind them.
    pub fn set_head(&mut self, bytes: usize) {
        self.pool.set_head(bytes);
    }

    /// Gives up spare buffers that nobody needed since this was called last. How many octets they had.
    pub fn release_idle(&mut self) -> usize {
        self.pool.release_idle()
    }

    /// The time of the last turn.
    pub const fn now(&self) -> Now {
        self.now
    }

    /// The loop over whatever machine.
    fn any(&mut self) -> &mut EventLoop<N, dyn Machine> {
        self
    }
}

impl<N: Net> EventLoop<N, dyn Machine> {
    fn turn_once(&mut self, at_most: Option<Span>) -> io::Result<()> {
        self.settle();
        let patience = self.patience(at_most);
        let mut edges = std::mem::take(&mut self.edges);
        let waited = self.net.wait(&mut edges, patience);
        self.now = self.net.now();
        self.stats.turns += 1;
        for edge in edges.drain(..) {
            self.note_edge(edge);
        }
        self.edges = edges;
        waited?;
        self.accept_all();
        self.hear_names();
        for _ in 0..self.ready.len() {
            let Some(on) = self.ready.pop_front() else { break };
            self.serve(on);
        }
        self.serve_busy();
        self.finish_truncating();
        self.finish_draining();
        if !self.waiters.is_empty() {
            self.relieve_waiters();
            self.call_waiters();
        }
        // Whoever is gone by now has no deadline any more.
        self.settle();
        if self.deadline.is_some_and(|deadline| deadline <= self.now.mono) {
            self.machine.handle_timeout(self.now);
        }
        self.settle();
        #[cfg(debug_assertions)]
        self.check_invariants();
        Ok(())
    }

    // ---- the machine ----

    /// Drains the machine to idleness, tells it what that led to, and again until nothing is left to tell.
    fn settle(&mut self) {
        loop {
            loop {
                self.text.clear();
                match self.machine.poll_output(&mut self.text) {
                    Output::Idle { until, .. } => {
                        self.deadline = until;
                        break;
                    }
                    output => self.perform(output),
                }
            }
            match self.inputs.pop_front() {
                Some(input) => self.hand_in(input),
                None => return,
            }
        }
    }

    fn hand_in(&mut self, input: Input) {
        let now = self.now;
        match input {
            // The machine may have said more since; then it is told when that is in the socket too.
            Input::Flushed(on) if self.queued(on) > 0 => {}
            Input::Flushed(on) => self.machine.handle_flushed(on, now),
            Input::Moved { from, read, queued } => self.machine.handle_moved(from, read, queued, now),
            Input::RoundTrip { on, round_trip } => self.machine.handle_round_trip(on, round_trip, now),
            Input::Acked { on, age } => self.machine.handle_acked(on, age, now),
            Input::LocalAddress { on, local } => self.machine.handle_local_address(on, local, now),
            Input::WriteFailed(on) => self.machine.handle_write_failed(on, now),
            Input::DialFailed(on, why) => self.machine.handle_dial_failed(on, why, now),
            Input::TlsFailed(on, why) => self.machine.handle_tls_failed(on, why, now),
            Input::Ended(on, how) => self.machine.handle_end(on, how, now),
            Input::Closed(on) => self.machine.handle_closed(on, now),
        }
    }

    // ---- turns ----

    /// Bulk, for as long as nobody else need wait for it.
    fn serve_busy(&mut self) {
        let enough = self.received + self.sent + BUSY_OCTETS_MAX;
        for _ in 0..self.busy.len() {
            let Some(on) = self.busy.pop_front() else { break };
            self.serve(on);
            if self.received + self.sent >= enough {
                break;
            }
        }
    }

    /// One bounded turn of one connection.
    fn serve(&mut self, on: ConnId) {
        let Some(slot) = self.slot(on) else { return };
        slot.queued = false;
        match slot.link {
            Link::None => return,
            Link::Dialling(_) => return self.finish_dial(on),
            Link::Up(_) => {}
        }
        self.flush(on);
        let Some(slot) = self.slot(on) else { return };
        if slot.closing.is_some() {
            self.discard(on);
        } else if slot.reading == Reading::Ended && slot.readable {
            self.drain(on);
        } else if let Some(peer) = slot.peer {
            self.pump(on);
            self.charge(peer);
        } else {
            self.offer(on);
        }
        self.charge(on);
        self.settle();
        self.relieve();
    }

    fn note_edge(&mut self, edge: Edge) {
        match edge {
            Edge::Listener(on) => self.accept_edge(on),
            Edge::Conn { token, read, write } => {
                let Some(Some(slot)) = self.slots.get_mut(token.index as usize) else { return };
                if slot.id.generation & GENERATION_MASK != token.generation {
                    return;
                }
                slot.readable |= read;
                slot.writable |= write;
                let on = slot.id;
                self.enqueue(on);
            }
        }
    }

    /// How long the turn may wait.
    fn patience(&self, at_most: Option<Span>) -> Option<Span> {
        if !self.ready.is_empty() || !self.busy.is_empty() {
            return Some(Span::ZERO);
        }
        let until = self.deadline.map(|deadline| deadline.since(self.now.mono));
        let tick = (!self.truncating.is_empty()).then_some(TRUNCATE_TICK);
        let draining = self.draining.due(self.now.mono);
        let accept = self.accept_retry();
        let memory = self.memory_due();
        [at_most, until, tick, draining, accept, memory].into_iter().flatten().min()
    }

    #[cfg(debug_assertions)]
    fn check_invariants(&self) {
        let (mut held, mut kept, mut connections) = (0, 0, 0);
        for slot in self.slots.iter().flatten() {
            connections += 1;
            kept += slot.memory.kept + slot.memory.piped;
            held += usize::from(slot.parked.is_some()) + usize::from(slot.out.is_some());
            for buffer in slot.parked.iter().chain(&slot.out) {
                assert!(!self.pool[*buffer].is_empty(), "an idle buffer is held");
            }
            assert!(!slot.pipe.as_ref().is_some_and(Pipe::is_empty), "an idle pipe is held");
            if let Some(peer) = slot.peer {
                let peer = self.slots.get(peer.index as usize).and_then(Option::as_deref);
                assert!(
                    peer.is_some_and(|peer| peer.peer == Some(slot.id)),
                    "a pair that one side does not know"
                );
            }
            assert!(slot.closing != Some(rendezvous_core::machine::Close::Abort), "aborted, but still there");
        }
        assert_eq!(held, self.pool.count(), "a buffer that nobody owns");
        self.pool.check_invariants(kept, connections);
    }
}
