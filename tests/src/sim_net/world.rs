//! The world that all simulated processes and actors share: time, links, listeners.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::fmt::Write as _;

use std::net::SocketAddr;

use rendezvous_core::machine::ConnId;
use rendezvous_core::time::{Now, Span, Time};

use super::tcp::{Ep, Link, Segment, Tcp};
use crate::rng::Rng;

/// A participant of the world: a process with an event loop, or an actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProcessId(pub(crate) usize);

/// Rates of faults, per thousand calls, and latencies.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// A receive returns fewer bytes than available.
    pub short_recv: u32,
    /// A send accepts fewer bytes than there is room for.
    pub short_send: u32,
    /// A call blocks as a fault; an edge follows.
    pub would_block: u32,
    /// Spurious edges.
    pub spurious: u32,
    /// Events of closed connections.
    pub stale: u32,
    /// Polls that return late or early.
    pub late: u32,
    /// Accepts that fail for lack of a descriptor.
    pub no_descriptor: u32,
    /// Connections that were reset in the backlog are reported as aborted.
    pub aborted: u32,
    /// Minimum latency of a link, in one direction.
    pub latency_min: Span,
    /// Maximum latency of a link.
    pub latency_max: Span,
    /// The largest window.
    pub room_max: usize,
}

impl Faults {
    /// No faults: only a path with this round-trip time, and windows of 32 KiB.
    #[must_use]
    pub fn path(round_trip: Span) -> Self {
        let latency = Span(round_trip.0 / 2);
        Self { latency_min: latency, latency_max: latency, room_max: 32_768, ..Self::default() }
    }
}

/// The result of connecting to an address without a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Never an answer.
    Silent,
    /// No route.
    Unreachable,
}

/// A scheduled event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum What {
    Arrive(Ep),
    Syn(Ep),
    Opened(Ep),
    Wake(Ep),
    Alarm(Ep),
    Nap(ProcessId),
    Named(ProcessId),
}

/// A listener.
#[derive(Debug)]
pub(crate) struct Listening {
    pub(crate) who: ProcessId,
    /// Its number in its process.
    pub(crate) number: u16,
    pub(crate) backlog: VecDeque<Ep>,
    pub(crate) backlog_max: usize,
    pub(crate) told: bool,
    /// It gives no edges until it is rearmed.
    pub(crate) muted: bool,
    pub(crate) open: bool,
}

/// The state of a participant.
#[derive(Debug, Default)]
pub(crate) struct Resident {
    pub(crate) is_process: bool,
    pub(crate) woken: Vec<Ep>,
    pub(crate) stale: Vec<ConnId>,
    pub(crate) listeners: Vec<SocketAddr>,
    pub(crate) wake_at: Option<Time>,
    pub(crate) turned_at: Option<Time>,
    pub(crate) ready: bool,
    pub(crate) descriptors: u32,
    pub(crate) descriptors_max: u32,
    pub(crate) skew: i64,
    /// The last part of its address, if it is not its number.
    pub(crate) host: Option<u8>,
    pub(crate) names: VecDeque<(Time, ConnId, Vec<SocketAddr>)>,
    /// The sockets of a process by the indices of their tokens.
    pub(crate) watched: Vec<Option<Ep>>,
    /// How often it has waited.
    pub(crate) turns: u64,
    /// Sockets that gave an edge, or were called successfully, and may have more to do.
    pub(crate) pending: Vec<Ep>,
}

/// The world.
pub struct World {
    pub(crate) now: Time,
    /// The source of randomness.
    pub rng: Rng,
    /// Rates of faults.
    pub faults: Faults,
    pub(crate) events: BinaryHeap<Reverse<(Time, u64, What)>>,
    order: u64,
    pub(crate) ends: Vec<Tcp>,
    pub(crate) links: Vec<Link>,
    pub(crate) listening: BTreeMap<SocketAddr, Listening>,
    pub(crate) residents: Vec<Resident>,
    pub(crate) ready: Vec<ProcessId>,
    /// Results for addresses without a listener.
    pub fates: BTreeMap<SocketAddr, Fate>,
    /// Names and their addresses. Other names are never resolved.
    pub names: BTreeMap<String, Vec<SocketAddr>>,
    log: Option<String>,
    /// Calls and events so far.
    pub(crate) moves: u64,
    /// When a byte was last received by any participant.
    pub bytes_at: Time,
}

/// The wall clock at the beginning.
pub const WALL: u64 = 1_795_219_200;

impl World {
    /// An empty world.
    #[must_use]
    pub fn new(seed: u64, faults: Faults) -> Self {
        Self {
            now: Time(1_000_000),
            rng: Rng::new(seed),
            faults,
            events: BinaryHeap::new(),
            order: 0,
            ends: Vec::new(),
            links: Vec::new(),
            listening: BTreeMap::new(),
            residents: Vec::new(),
            ready: Vec::new(),
            fates: BTreeMap::new(),
            names: BTreeMap::new(),
            log: None,
            moves: 0,
            bytes_at: Time(0),
        }
    }

    /// Records everything from now on.
    pub fn keep_log(&mut self) {
        self.log = Some(String::new());
    }

    /// The recorded log.
    #[must_use]
    pub fn log(&self) -> &str {
        self.log.as_deref().unwrap_or_default()
    }

    /// Adds a line to the log, if it is recorded.
    pub fn event(&mut self, line: impl FnOnce(&mut String)) {
        if let Some(log) = &mut self.log {
            let _ = write!(log, "{:>12} ", self.now.0);
            line(log);
            log.push('\n');
        }
    }

    /// The current time.
    #[must_use]
    pub const fn now(&self) -> Time {
        self.now
    }

    /// Both clocks of this participant.
    #[must_use]
    pub fn clocks(&self, who: ProcessId) -> Now {
        let wall = (WALL + self.now.0 / 1_000_000).saturating_add_signed(self.residents[who.0].skew);
        Now { mono: self.now, wall }
    }

    /// Changes the wall clock of a participant by this many seconds.
    pub fn jump(&mut self, who: ProcessId, seconds: i64) {
        self.event(|log| {
            let _ = write!(log, "{who:?} clock {seconds:+}");
        });
        self.residents[who.0].skew += seconds;
    }

    /// Adds a participant.
    pub fn settle(&mut self, is_process: bool) -> ProcessId {
        let who = ProcessId(self.residents.len());
        self.residents.push(Resident { is_process, descriptors_max: u32::MAX, ..Resident::default() });
        self.schedule(who);
        who
    }

    /// Connections of a participant come from this address from now on, which others may share.
    pub fn place(&mut self, who: ProcessId, host: u8) {
        self.residents[who.0].host = Some(host);
    }

    /// Sets how many descriptors a process may have.
    pub fn limit_descriptors(&mut self, who: ProcessId, most: u32) {
        self.residents[who.0].descriptors_max = most;
    }

    /// How many descriptors it has.
    #[must_use]
    pub fn descriptors(&self, who: ProcessId) -> u32 {
        self.residents[who.0].descriptors
    }

    /// Whether there is a listener at this address.
    #[must_use]
    pub fn is_listened(&self, at: SocketAddr) -> bool {
        self.listening.contains_key(&at)
    }

    /// Adds a listener.
    pub fn listen(&mut self, who: ProcessId, at: SocketAddr) {
        let resident = &mut self.residents[who.0];
        let number = u16::try_from(resident.listeners.len()).unwrap_or(u16::MAX);
        resident.listeners.push(at);
        let backlog = VecDeque::new();
        let listening =
            Listening { who, number, backlog, backlog_max: 128, told: false, muted: false, open: true };
        self.listening.insert(at, listening);
    }

    /// Removes the listeners; connections in the backlog are reset.
    pub fn stop_listening(&mut self, who: ProcessId) {
        for at in std::mem::take(&mut self.residents[who.0].listeners) {
            for ep in self.listening.remove(&at).map(|gone| gone.backlog).into_iter().flatten() {
                self.abort(ep);
            }
        }
    }

    /// Hands the listeners over to another process, with the connections in their backlogs.
    pub fn hand_listeners(&mut self, from: ProcessId, to: ProcessId) {
        let listeners = std::mem::take(&mut self.residents[from.0].listeners);
        for at in &listeners {
            if let Some(listening) = self.listening.get_mut(at) {
                listening.who = to;
                (listening.told, listening.muted) = (false, false);
            }
        }
        self.residents[to.0].listeners = listeners;
        self.schedule(to);
    }

    /// Whether the owner of this end knows that the connection has ended, can no longer learn it, or will once it has read
    /// what arrived before.
    #[must_use]
    pub fn knows_end(&self, ep: Ep) -> bool {
        let tcp = &self.ends[ep.0];
        let is_told = tcp.fin || tcp.wire.iter().any(|(_, segment)| !matches!(segment, Segment::Bytes(_)));
        tcp.closed || tcp.dead || is_told || tcp.error.is_some() || self.links[ep.0 / 2].lost
    }

    /// Resets everything that a process has, as the system does when it is killed.
    pub fn kill(&mut self, who: ProcessId) {
        self.stop_listening(who);
        for at in 0..self.ends.len() {
            if self.ends[at].owner == Some(who) && !self.ends[at].closed {
                self.abort(Ep(at));
            }
        }
        let resident = &mut self.residents[who.0];
        resident.woken.clear();
        resident.stale.clear();
        resident.wake_at = None;
        resident.names.clear();
    }

    /// Reports to an actor that something has happened: it checks all its connections.
    pub fn clear_edges(&mut self, who: ProcessId) {
        for ep in std::mem::take(&mut self.residents[who.0].woken) {
            self.ends[ep.0].queued = false;
        }
    }

    /// Marks a participant as ready to run.
    pub fn schedule(&mut self, who: ProcessId) {
        if !std::mem::replace(&mut self.residents[who.0].ready, true) {
            self.ready.push(who);
        }
    }

    /// Schedules a participant for this time.
    pub fn sleep_until(&mut self, who: ProcessId, until: Time) {
        self.at(until, What::Nap(who));
    }

    /// A random participant that is ready; `None` if all sleep.
    pub fn next_ready(&mut self) -> Option<ProcessId> {
        let at = usize::try_from(self.rng.below(self.ready.len() as u64)).unwrap_or(0);
        if self.ready.is_empty() {
            return None;
        }
        let who = self.ready.swap_remove(at);
        self.residents[who.0].ready = false;
        Some(who)
    }

    /// The socket that a process watches with this token.
    #[must_use]
    pub fn watched(&self, who: ProcessId, token: ConnId) -> Option<Ep> {
        self.socket(who, token).filter(|ep| !self.ends[ep.0].closed)
    }

    /// The same, also if it was closed.
    #[must_use]
    pub fn socket(&self, who: ProcessId, token: ConnId) -> Option<Ep> {
        let ep = self.residents[who.0].watched.get(token.index as usize).copied().flatten()?;
        (self.ends[ep.0].token == Some(token)).then_some(ep)
    }

    /// When a process wants to run next, if nothing happens before.
    #[must_use]
    pub fn wake_at(&self, who: ProcessId) -> Option<Time> {
        self.residents[who.0].wake_at
    }

    /// Calls and events so far.
    #[must_use]
    pub const fn moves(&self) -> u64 {
        self.moves
    }

    /// Whether a listener has a connection without an edge for it.
    #[must_use]
    pub fn has_untold(&self, who: ProcessId) -> bool {
        self.listening.values().any(|it| it.who == who && !it.muted && !it.backlog.is_empty())
    }

    /// The time of the next event.
    #[must_use]
    pub fn next_event(&self) -> Option<Time> {
        self.events.peek().map(|Reverse((at, _, _))| *at)
    }

    /// Advances to the next event, if it is before `until`, and performs it.
    pub fn advance(&mut self, until: Time) -> bool {
        let Some(next) = self.next_event().filter(|next| *next <= until) else {
            self.now = self.now.max(until);
            return false;
        };
        self.now = self.now.max(next);
        while let Some(&Reverse((at, _, what))) = self.events.peek()
            && at <= self.now
        {
            self.events.pop();
            self.happen(what);
        }
        true
    }

    pub(crate) fn at(&mut self, at: Time, what: What) {
        self.order += 1;
        self.events.push(Reverse((at, self.order, what)));
    }

    fn happen(&mut self, what: What) {
        self.moves += 1;
        match what {
            What::Arrive(ep) => self.arrive(ep),
            What::Syn(ep) => self.syn(ep),
            What::Opened(ep) => {
                self.ends[ep.0].opening = self.links[ep.0 / 2].verdict;
                self.wake(ep);
            }
            What::Wake(ep) => self.wake(ep),
            What::Alarm(ep) => self.alarm(ep),
            What::Nap(who) => {
                let resident = &self.residents[who.0];
                if !resident.is_process || resident.wake_at.is_some_and(|at| at <= self.now) {
                    self.schedule(who);
                }
            }
            What::Named(who) => self.schedule(who),
        }
    }

    /// This end has changed: its owner gets an edge.
    pub(crate) fn wake(&mut self, ep: Ep) {
        let tcp = &mut self.ends[ep.0];
        if let Some(who) = tcp.owner
            && !tcp.closed
            && !std::mem::replace(&mut tcp.queued, true)
        {
            self.residents[who.0].woken.push(ep);
            self.schedule(who);
        }
    }
}
