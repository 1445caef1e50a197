//! The event loop: edges → ready queue → bounded turns → deadlines → outputs.
//!
//! The loop is generic over the network ([`Net`]) and the protocol ([`Machine`]). It moves bytes and performs the
//! machine's outputs. It makes no protocol decisions.
//!
//! Performing an output may cause further inputs: a send fails, a socket is closed. Those are not handed to the machine
//! at once but queued (`Input`), and handed in once the machine is idle: mutate, drain, mutate.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rendezvous_core::event::Event;
use rendezvous_core::id::Id;
use rendezvous_core::machine::{ConnId, DialFailure, End, Listener, Machine, Output, TlsFailure};
use rendezvous_core::pacer::Pacer;
use rendezvous_core::time::{Now, Span, Time};
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::ServerName;

use crate::buffer::{Pool, Sizes, Waiters};
use crate::direct_tls::DirectTls;
#[cfg(debug_assertions)]
use crate::net::Pipe;
use crate::net::{Edge, GENERATION_MASK, Net};
use crate::slot::{Link, Reading, Slot};
use crate::tls_config::ClientAuth;

use self::draining::Draining;
use self::ready::{ReadyQueues, Work};
use self::table::find;

mod accept;
mod draining;
mod gate;
mod memory;
mod pace;
mod perform;
mod pump;
mod read;
mod ready;
mod splice;
mod table;
mod write;

/// Limit of bytes that one connection moves in a turn.
const TURN_BYTES_MAX: usize = 256 * 1024;
/// Limit of receive calls for one connection in a turn.
const TURN_CALLS_MAX: usize = 16;
/// Bytes after which the busy connections stop for this turn, received and sent by all of them together. The last
/// connection may exceed it.
const BUSY_BYTES_MAX: u64 = 512 * 1024;
/// Interval at which the send queue of a socket that is to be reset is polled.
const TRUNCATE_TICK: Span = Span::from_millis(10);

/// The TLS configuration for a peer that is dialled, and the name that its certificate is checked for.
pub type ClientTls = (Arc<ClientConfig>, ServerName<'static>);

/// TLS configurations by role.
#[derive(Clone, Debug, Default)]
pub struct TlsSetup {
    /// For [`TlsRole::Server`](rendezvous_core::machine::TlsRole::Server).
    pub server: Option<Arc<ServerConfig>>,
    /// For [`TlsRole::EndToEnd`](rendezvous_core::machine::TlsRole::EndToEnd) and
    /// [`TlsRole::EndToEndStream`](rendezvous_core::machine::TlsRole::EndToEndStream).
    pub end_to_end: Option<EndToEndTls>,
    /// For [`TlsRole::Client`](rendezvous_core::machine::TlsRole::Client), by index: the upstreams, followed by the
    /// local services that speak TLS.
    pub upstreams: Vec<ClientTls>,
    /// For [`TlsRole::DirectServer`](rendezvous_core::machine::TlsRole::DirectServer) and
    /// [`TlsRole::DirectClient`](rendezvous_core::machine::TlsRole::DirectClient).
    pub direct: Option<DirectTls>,
}

/// TLS configurations with which an agent terminates the TLS of clients.
#[derive(Clone, Debug)]
pub struct EndToEndTls {
    /// For HTTP clients.
    pub http: Arc<ServerConfig>,
    /// For connectors.
    pub connectors: Arc<ServerConfig>,
    /// For the validators of a CA, which present no client certificate: used if the ClientHello offers `acme-tls/1` as
    /// its only protocol.
    pub challenges: Option<Arc<ServerConfig>>,
    /// Which of them must present a certificate.
    pub client_auth: ClientAuth,
}

/// Counters of the loop; they only increase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes of pairs received, as plaintext.
    pub relayed: u64,
    /// Bytes of pairs copied in user space, apart from the copies that rustls makes.
    pub copied: u64,
    /// Bytes of pairs spliced from socket to socket in the kernel.
    pub spliced: u64,
    /// Number of turns.
    pub turns: u64,
}

/// The slot type of a loop over `N`.
type SlotOf<N> = Slot<<N as Net>::Sock, <N as Net>::Pipe>;

/// An input that is handed to the machine once it is idle.
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

/// The event loop over one network and one machine.
///
/// `M` is the last field and may be unsized, so the code that is independent of the machine is compiled once, for
/// `EventLoop<N, dyn Machine>`, and not once for each of the seven kinds of machine.
pub struct EventLoop<N: Net, M: Machine + ?Sized> {
    net: N,
    tls: TlsSetup,
    slots: Vec<Option<Box<SlotOf<N>>>>,
    pool: Pool,
    /// Connections with work to do.
    ready: ReadyQueues,
    inputs: VecDeque<Input>,
    events: Vec<Event>,
    accepting: Vec<accept::Backlog>,
    accept_paused: bool,
    /// Connections that wait for a buffer.
    waiters: Waiters,
    /// When the waiters are next checked for ones that have waited too long.
    waiters_due: Time,
    /// When memory is next relieved, if the last attempt found too little to cut.
    relief_due: Time,
    /// Bytes in use at the last relief.
    relief_used: usize,
    /// Rate limits of pairs.
    pacer: Pacer,
    /// Connections that are reset once their peer has acknowledged everything.
    truncating: Vec<ConnId>,
    /// Sockets that are closed once their peer has acknowledged everything.
    draining: Draining<N::Sock>,
    edges: Vec<Edge>,
    text: Vec<u8>,
    scratch: Vec<u8>,
    deadline: Option<Time>,
    now: Now,
    stats: Stats,
    /// Bytes received from sockets, and bytes accepted by sockets.
    received: u64,
    sent: u64,
    machine: M,
}

impl<N: Net, M: Machine> EventLoop<N, M> {
    /// Creates a loop over `net` with this many listeners, which the machine knows as 0, 1, 2…
    pub fn new(mut net: N, machine: M, tls: TlsSetup, sizes: Sizes, listeners: u16) -> Self {
        let now = net.now();
        Self {
            net,
            tls,
            slots: Vec::new(),
            pool: Pool::new(sizes),
            ready: ReadyQueues::default(),
            inputs: VecDeque::new(),
            events: Vec::new(),
            accepting: accept::Backlog::all(listeners),
            accept_paused: false,
            waiters: Waiters::default(),
            waiters_due: Time::default(),
            relief_due: Time::default(),
            relief_used: 0,
            pacer: Pacer::default(),
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

    /// Runs one turn: waits for readiness or a deadline, for at most `at_most`, and handles what is due.
    ///
    /// # Errors
    /// The polling call failed; the loop cannot continue.
    pub fn turn(&mut self, at_most: Option<Span>) -> io::Result<()> {
        self.any().turn_once(at_most)
    }

    /// Calls the machine for an event that belongs to no connection, such as an operator's request, and performs its
    /// outputs.
    pub fn call<R>(&mut self, what: impl FnOnce(&mut M, Now) -> R) -> R {
        self.now = self.net.now();
        let result = what(&mut self.machine, self.now);
        self.any().settle();
        result
    }

    /// Admits a connection that no listener of the loop accepted, as if listener `on` had accepted it.
    ///
    /// # Errors
    /// The socket cannot be registered for polling.
    pub fn adopt(&mut self, on: Listener, sock: N::Sock, from: SocketAddr) -> io::Result<ConnId> {
        self.now = self.net.now();
        self.any().admit(on, sock, from)
    }

    /// Stops accepting connections and closes the listeners.
    pub fn stop_accepting(&mut self) {
        self.accepting.clear();
        self.net.stop_listening();
    }

    /// Whether the peers of all closed connections have acknowledged everything.
    pub fn is_drained(&self) -> bool {
        self.draining.is_empty()
    }

    /// Number of paired connections that ended cleanly but whose peers did not acknowledge everything in time.
    pub const fn undelivered(&self) -> u64 {
        self.draining.undelivered()
    }

    /// Resets every connection, so that its peer sees an unclean end.
    pub fn abort_all(&mut self) {
        self.any().close_draining();
        for slot in std::mem::take(&mut self.slots).into_iter().flatten() {
            if let Link::Up(sock) | Link::Dialling(sock) = slot.link {
                self.net.abort(sock);
            }
        }
    }

    /// Sets the TLS configurations for new handshakes.
    pub fn set_tls(&mut self, tls: TlsSetup) {
        self.tls = tls;
    }

    /// Replaces how the certificate of an upstream is checked, for later handshakes.
    pub fn set_upstream_tls(&mut self, upstream: u16, tls: ClientTls) {
        if let Some(of) = self.tls.upstreams.get_mut(usize::from(upstream)) {
            *of = tls;
        }
    }

    /// Replaces how clients' TLS is terminated, for later handshakes.
    pub fn set_end_to_end(&mut self, tls: EndToEndTls) {
        self.tls.end_to_end = Some(tls);
    }

    /// The machine's events since the last call.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// The machine.
    pub const fn machine(&self) -> &M {
        &self.machine
    }

    /// The network.
    pub const fn net(&mut self) -> &mut N {
        &mut self.net
    }

    /// The loop's counters.
    pub const fn stats(&self) -> Stats {
        self.stats
    }

    /// Bytes in buffers.
    pub const fn buffer_bytes(&self) -> usize {
        self.pool.used()
    }

    /// Number of buffers in use.
    pub fn buffers(&self) -> usize {
        self.pool.count()
    }

    /// Number of pipes in use.
    pub fn pipes(&self) -> usize {
        self.slots.iter().flatten().filter(|slot| slot.write.pipe.is_some()).count()
    }

    /// Number of connections, including those that are closing.
    pub fn connections(&self) -> usize {
        self.slots.iter().flatten().count()
    }

    /// Releases capacity that is no longer used after a burst of connections.
    pub fn shrink(&mut self) {
        let used = self.slots.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        self.slots.truncate(used);
        self.slots.shrink_to_fit();
        self.ready.shrink();
        self.inputs.shrink_to_fit();
        self.waiters.shrink();
        self.pool.shrink();
    }

    /// Limits the bytes of IDs, in bytes per second for each direction. All pairs of an ID share its rate.
    pub fn set_rates(&mut self, rates: &[(Id, u64)]) {
        self.now = self.net.now();
        self.any().set_id_rates(rates);
    }

    /// Sets the limit of request heads, including one TLS record behind the head.
    pub fn set_head(&mut self, bytes: usize) {
        self.pool.set_head(bytes);
    }

    /// Releases spare buffers that were not used since the last call. Returns the number of bytes released.
    pub fn release_idle(&mut self) -> usize {
        self.pool.release_idle()
    }

    /// The time of the last turn.
    pub const fn now(&self) -> Now {
        self.now
    }

    /// The loop with its machine's type erased.
    fn any(&mut self) -> &mut EventLoop<N, dyn Machine> {
        self
    }
}

impl<N: Net> EventLoop<N, dyn Machine> {
    fn turn_once(&mut self, at_most: Option<Span>) -> io::Result<()> {
        self.settle();
        let timeout = self.timeout(at_most);
        let mut edges = std::mem::take(&mut self.edges);
        let waited = self.net.wait(&mut edges, timeout);
        self.now = self.net.now();
        self.stats.turns += 1;
        for edge in edges.drain(..) {
            self.note_edge(edge);
        }
        self.edges = edges;
        waited?;
        self.wake_paced();
        self.accept_all();
        self.handle_resolved();
        for _ in 0..self.ready.of_turn(Work::Light) {
            let Some(on) = self.ready.pop(Work::Light) else { break };
            self.serve(on);
        }
        self.serve_busy();
        self.finish_truncating();
        self.finish_draining();
        if !self.waiters.is_empty() {
            self.relieve_waiters();
            self.call_waiters();
        }
        // A connection that was closed in this turn must not time out.
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

    /// Performs the machine's outputs until it is idle, then hands in the next queued input, until none is left.
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
            // The machine may have sent more since. The input is repeated when those bytes are flushed too.
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

    /// Serves connections with bulk data until the limit of bytes for this turn is reached.
    fn serve_busy(&mut self) {
        let enough = self.received + self.sent + BUSY_BYTES_MAX;
        for _ in 0..self.ready.of_turn(Work::Bulk) {
            let Some(on) = self.ready.pop(Work::Bulk) else { break };
            self.serve(on);
            if self.received + self.sent >= enough {
                break;
            }
        }
    }

    /// Serves one connection, within the limits of a turn.
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
        } else if slot.read.phase == Reading::Ended && slot.read.ready {
            self.drain(on);
        } else if let Some(peer) = slot.pairing.peer() {
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
                slot.read.ready |= read;
                slot.write.ready |= write;
                let on = slot.id;
                self.enqueue(on);
            }
        }
    }

    /// How long this turn may wait for readiness.
    fn timeout(&self, at_most: Option<Span>) -> Option<Span> {
        if !self.ready.is_empty() {
            return Some(Span::ZERO);
        }
        let until = self.deadline.map(|deadline| deadline.since(self.now.mono));
        let tick = (!self.truncating.is_empty()).then_some(TRUNCATE_TICK);
        let draining = self.draining.due(self.now.mono);
        let accept = self.accept_retry();
        let memory = self.memory_due();
        let paced = self.pacer.due().map(|due| due.since(self.now.mono));
        [at_most, until, tick, draining, accept, memory, paced].into_iter().flatten().min()
    }

    #[cfg(debug_assertions)]
    fn check_invariants(&self) {
        let (mut held, mut kept, mut connections) = (0, 0, 0);
        for slot in self.slots.iter().flatten() {
            connections += 1;
            kept += slot.memory.kept + slot.memory.piped;
            held += usize::from(slot.read.parked.is_some()) + usize::from(slot.write.out.is_some());
            for buffer in slot.read.parked.iter().chain(&slot.write.out) {
                assert!(!self.pool[*buffer].is_empty(), "an idle buffer is held");
            }
            assert!(!slot.write.pipe.as_ref().is_some_and(Pipe::is_empty), "an idle pipe is held");
            if let Some(peer) = slot.pairing.peer() {
                let peer = self.slots.get(peer.index as usize).and_then(Option::as_deref);
                assert!(
                    peer.is_some_and(|peer| peer.pairing.peer() == Some(slot.id)),
                    "a pair that one side does not know"
                );
            }
            assert!(slot.closing != Some(rendezvous_core::machine::Close::Abort), "aborted, but still there");
        }
        assert_eq!(held, self.pool.count(), "a buffer that nobody owns");
        self.pool.check_invariants(kept, connections);
    }
}
