//! What all machines of this crate share: the table of connections with their ids, one deadline each, lingering
//! closes, pairs, and the queue of outputs.

use alloc::boxed::Box;
use alloc::collections::{BinaryHeap, VecDeque};
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::net::SocketAddr;

use slab::Slab;

use crate::admission::AdmissionQueue;
use crate::conn::Origin;
use crate::event::Event;
use crate::limiter::Source;
use crate::machine::{Close, ConnId, End, Output};
use crate::opaque::Opaque;
use crate::pair::{Act, Limits, Pair, PairEnd, Side};
use crate::time::{Now, Span, Time};

mod listed;

/// Closes a lingering connection after this long without bytes.
const LINGER_IDLE: Span = Span::from_secs(5);
/// Closes a lingering connection if fewer bytes arrive in this time. A peer that sends a large body reads our
/// response only after it has sent everything. The minimum rate is 8.7 kB/s on average.
const LINGER_WINDOW: (u64, Span) = (256 << 10, Span::from_secs(30));
/// Closes a lingering connection after this long, even if bytes still arrive.
const LINGER_MAX: Span = Span::from_secs(30 * 60);
/// Closes a truncated connection after this long, even if its queue is not sent.
const TRUNCATE_MAX: Span = Span::from_secs(5);

/// The limit of lingering connections if [`Conns::set_lingering_max`] was not called.
const LINGERING_MAX: u32 = 256;

/// The minimum capacity of the tables, in entries.
const SPARE_MIN: usize = 64;

/// The table of connections of a machine; `S` is the state of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Conns<S> {
    table: Slab<Conn<S>>,
    pairs: Slab<PairEntry>,
    generation: u32,
    deadlines: BinaryHeap<Reverse<(Time, ConnId)>>,
    outputs: VecDeque<Pending>,
    limits: Limits,
    /// The number of connections that are closing or gone.
    closing: usize,
    /// The lingering connections: their peers have not closed yet.
    lingering: AdmissionQueue,
    lingering_max: u32,
}

#[derive(Clone, Debug)]
struct Conn<S> {
    generation: u32,
    from: Option<SocketAddr>,
    state: S,
    phase: Phase,
    pair: Option<u32>,
    ended: bool,
    origin: Origin,
    due: Option<Time>,
    /// The time of this connection's entry in the heap. Later deadlines keep the entry (lazy re-arm).
    armed: Option<Time>,
}

/// `Open` ─`Linger` or `Truncate`─▶ `Closing` ─`Abort`─▶ `Gone`; `Open` ─`Abort`─▶ `Gone`. The driver ends the last two with
/// `handle_closed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// `Close` was returned. The connection lingers until the peer ends, sends too little, or `last` is reached.
    Closing {
        /// The end of the current window, or of the truncated close.
        until: Time,
        /// Bytes received in the current window.
        received: u64,
        /// The latest end of the linger.
        last: Time,
    },
    /// `Close::Abort` was returned; only `handle_closed` follows.
    Gone,
}

/// The two connections of a pair.
#[derive(Clone, Debug)]
struct PairEntry {
    pair: Pair,
    hidden: ConnId,
    client: ConnId,
}

#[derive(Clone, Debug)]
enum Pending {
    Send(ConnId, Opaque<Box<[u8]>>),
    Other(Output),
}

/// A pair that just ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    pub(crate) hidden: ConnId,
    pub(crate) client: ConnId,
    pub(crate) pair: Pair,
    pub(crate) over: PairEnd,
}

impl<S> Conns<S> {
    pub(crate) const fn new(limits: Limits) -> Self {
        Self {
            table: Slab::new(),
            pairs: Slab::new(),
            generation: 0,
            deadlines: BinaryHeap::new(),
            outputs: VecDeque::new(),
            limits,
            closing: 0,
            lingering: AdmissionQueue::new(),
            lingering_max: LINGERING_MAX,
        }
    }

    /// Sets the limit of lingering connections. Beyond it, the oldest ones of the addresses with the most lingering
    /// connections are aborted.
    pub(crate) fn set_lingering_max(&mut self, max: u32) {
        self.lingering_max = max;
    }

    pub(crate) fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// The number of connections, including closing ones.
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    pub(crate) fn pairs(&self) -> usize {
        self.pairs.len()
    }

    /// The number of connections that are closing or gone.
    pub(crate) const fn closing(&self) -> usize {
        self.closing
    }

    pub(crate) fn insert(&mut self, state: S, from: Option<SocketAddr>) -> ConnId {
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        let generation = self.generation;
        let conn = Conn {
            generation,
            from,
            state,
            phase: Phase::Open,
            pair: None,
            ended: false,
            origin: Origin::default(),
            due: None,
            armed: None,
        };
        let index =
            u32::try_from(self.table.insert(conn)).unwrap_or_else(|_| unreachable!("2³² connections"));
        ConnId { index, generation }
    }

    /// The ids of all connections that are not closing, in the order of the table.
    pub(crate) fn open_ids(&self) -> Vec<ConnId> {
        let open = self.table.iter().filter(|(_, conn)| conn.phase == Phase::Open);
        open.map(|(index, conn)| ConnId {
            index: u32::try_from(index).unwrap_or(u32::MAX),
            generation: conn.generation,
        })
        .collect()
    }

    /// The state of every connection, in the order of the table; `None` for one that is closing.
    pub(crate) fn states(&self) -> impl Iterator<Item = Option<&S>> {
        self.table.iter().map(|(_, conn)| (conn.phase == Phase::Open).then_some(&conn.state))
    }

    /// Every pair, in the order of the table, with the state of its hidden server's side.
    pub(crate) fn pair_entries(&self) -> impl Iterator<Item = (&Pair, &S)> {
        let state = |on: ConnId| self.table.get(on.index as usize).map(|conn| &conn.state);
        self.pairs.iter().filter_map(move |(_, entry)| Some((&entry.pair, state(entry.hidden)?)))
    }

    /// The state of an open connection; `None` if it is closing or gone.
    pub(crate) fn state(&mut self, on: ConnId) -> Option<&mut S> {
        self.conn(on).filter(|conn| conn.phase == Phase::Open).map(|conn| &mut conn.state)
    }

    /// The state of a connection in any phase, read-only.
    pub(crate) fn peek(&self, on: ConnId) -> Option<&S> {
        let conn = self.table.get(on.index as usize)?;
        (conn.generation == on.generation).then_some(&conn.state)
    }

    /// The state of a connection in any phase.
    pub(crate) fn any_state(&mut self, on: ConnId) -> Option<&mut S> {
        self.conn(on).map(|conn| &mut conn.state)
    }

    pub(crate) fn from(&self, on: ConnId) -> Option<SocketAddr> {
        let conn = self.table.get(on.index as usize)?;
        if conn.generation == on.generation { conn.from } else { None }
    }

    /// The address that limits count a connection for; [`Source::default`] if it has none.
    pub(crate) fn source(&self, on: ConnId) -> Source {
        self.from(on).map_or_else(Source::default, |from| Source::from(from.ip()))
    }

    /// The address of a connection that is open and in a state that `is_in` accepts.
    pub(crate) fn source_in(&self, on: ConnId, is_in: impl Fn(&S) -> bool) -> Option<Source> {
        let conn = self.table.get(on.index as usize)?;
        let fits = conn.generation == on.generation && conn.phase == Phase::Open && is_in(&conn.state);
        fits.then(|| self.source(on))
    }

    fn lingering_source(&self, on: ConnId) -> Option<Source> {
        let conn = self.table.get(on.index as usize)?;
        let lingers = conn.generation == on.generation && matches!(conn.phase, Phase::Closing { .. });
        lingers.then(|| self.source(on))
    }

    /// Sets the peer's real address, as a trusted load balancer or relay reported it.
    pub(crate) fn set_from(&mut self, on: ConnId, from: SocketAddr) {
        if let Some(conn) = self.conn(on) {
            conn.from = Some(from);
        }
    }

    /// Whether the reading side has ended. True if there is no such connection.
    pub(crate) fn has_ended(&mut self, on: ConnId) -> bool {
        self.conn(on).is_none_or(|conn| conn.ended)
    }

    /// Records a clean end of the reading side before the connection is paired.
    pub(crate) fn mark_ended(&mut self, on: ConnId) {
        if let Some(conn) = self.conn(on) {
            conn.ended = true;
        }
    }

    pub(crate) fn set_due(&mut self, on: ConnId, due: Option<Time>) {
        let Some(conn) = self.conn(on) else { return };
        conn.due = due;
        if let Some(due) = due
            && conn.armed.is_none_or(|armed| due < armed)
        {
            conn.armed = Some(due);
            self.forget_stale_deadlines();
            self.deadlines.push(Reverse((due, on)));
        }
    }

    /// Removes stale heap entries once most entries are stale. Until then they are dropped lazily, when their time
    /// comes.
    fn forget_stale_deadlines(&mut self) {
        if self.deadlines.len() < 64 + 4 * self.table.len() {
            return;
        }
        let table = &self.table;
        self.deadlines.retain(|&Reverse((time, on))| {
            let conn = table.get(on.index as usize);
            conn.is_some_and(|conn| conn.generation == on.generation && conn.armed == Some(time))
        });
    }

    pub(crate) fn send(&mut self, on: ConnId, bytes: Vec<u8>) {
        if !bytes.is_empty() && self.state(on).is_some() {
            self.outputs.push_back(Pending::Send(on, Opaque(bytes.into_boxed_slice())));
        }
    }

    /// Changes the state of a connection. Its deadline stays.
    pub(crate) fn set_state(&mut self, on: ConnId, state: S) {
        if let Some(old) = self.state(on) {
            *old = state;
        }
    }

    /// Changes the state of a connection, and its deadline.
    pub(crate) fn set_state_until(&mut self, on: ConnId, state: S, due: Option<Time>) {
        if let Some(old) = self.state(on) {
            *old = state;
            self.set_due(on, due);
        }
    }

    pub(crate) fn emit(&mut self, output: Output) {
        self.outputs.push_back(Pending::Other(output));
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.emit(Output::Event(event));
    }

    /// Begins to close a connection. `Abort` ends an earlier `Linger` or `Truncate` at once.
    pub(crate) fn close(&mut self, on: ConnId, how: Close, now: Now) {
        let Some(conn) = self.conn(on) else { return };
        let (phase, due) = match (conn.phase, how) {
            (Phase::Gone, _) | (Phase::Closing { .. }, Close::Linger | Close::Truncate) => return,
            (Phase::Open | Phase::Closing { .. }, Close::Abort) => (Phase::Gone, None),
            (Phase::Open, Close::Linger | Close::Truncate) => {
                let (until, last) = match how {
                    Close::Linger => (LINGER_WINDOW.1, LINGER_MAX),
                    _ => (TRUNCATE_MAX, TRUNCATE_MAX),
                };
                let phase = Phase::Closing { until: now.mono + until, received: 0, last: now.mono + last };
                (phase, Some(now.mono + LINGER_IDLE.min(until)))
            }
        };
        let was_open = conn.phase == Phase::Open;
        conn.phase = phase;
        if let Some(pair) = conn.pair {
            self.unpair(pair);
        }
        self.set_due(on, due);
        self.emit(Output::Close { on, how });
        if was_open {
            self.closing += 1;
            if phase != Phase::Gone {
                self.linger(on, now);
            }
        }
    }

    /// Counts a lingering connection against the limit. A peer that never closes holds a descriptor until the linger
    /// timeout.
    fn linger(&mut self, on: ConnId, now: Now) {
        let mut lingering = core::mem::take(&mut self.lingering);
        let displaced = lingering.enter(on, self.lingering_max, |on| self.lingering_source(on));
        self.lingering = lingering;
        for on in displaced {
            self.close(on, Close::Abort, now);
        }
    }

    /// Aborts lingering connections until at most `stay` are left, in the same order as at the limit.
    pub(crate) fn cut_lingering(&mut self, stay: usize, now: Now) {
        let mut lingering = core::mem::take(&mut self.lingering);
        let displaced = lingering.keep(stay, None, |on| self.lingering_source(on));
        self.lingering = lingering;
        for on in displaced {
            self.close(on, Close::Abort, now);
        }
    }

    /// Removes a closed connection. Returns its state if it existed.
    pub(crate) fn forget(&mut self, on: ConnId) -> Option<S> {
        let conn = self.conn(on)?;
        debug_assert!(conn.phase != Phase::Open, "closed, but not by the machine");
        if let Some(pair) = conn.pair {
            self.unpair(pair);
        }
        let Conn { state, phase, .. } = self.table.remove(on.index as usize);
        if phase != Phase::Open {
            self.closing -= 1;
        }
        self.shrink();
        Some(state)
    }

    /// Shrinks the tables after a burst of connections. Checked only when the number of connections has halved, so
    /// that it costs little.
    fn shrink(&mut self) {
        let len = self.table.len();
        if (len == 0 || len.is_power_of_two()) && self.table.capacity() > 4 * len.max(SPARE_MIN) {
            self.table.shrink_to_fit();
            self.pairs.shrink_to_fit();
            self.outputs.shrink_to(SPARE_MIN);
            self.forget_stale_deadlines();
            self.deadlines.shrink_to(SPARE_MIN);
        }
    }

    /// Makes a pair. If the client has ended already, that end applies at once.
    pub(crate) fn pair(&mut self, hidden: ConnId, client: ConnId, head_queued: bool, now: Now) {
        let pair = Pair::new(self.limits, head_queued, now.mono);
        let entry = self.pairs.insert(PairEntry { pair, hidden, client });
        let index = u32::try_from(entry).unwrap_or_else(|_| unreachable!("fewer pairs than connections"));
        for on in [hidden, client] {
            if let Some(conn) = self.conn(on) {
                debug_assert!(conn.pair.is_none(), "paired twice");
                conn.pair = Some(index);
            }
            self.set_due(on, None);
        }
        self.emit(Output::Pair { hidden, client });
        let act = if self.has_ended(client) {
            self.pairs[entry].pair.on_end(Side::Client, End::Clean, now.mono)
        } else {
            None
        };
        let over = self.act(index, act, now);
        debug_assert!(over.is_none(), "a new pair is not over by one end");
    }

    /// Applies a clean end of the hidden server's side that came before the pair was made. Returns the end of the
    /// pair if the client's side has ended as well.
    pub(crate) fn pair_ended(&mut self, hidden: ConnId, now: Now) -> Option<Ended> {
        if !self.has_ended(hidden) {
            return None;
        }
        self.with_pair(hidden, now, |pair, side| pair.on_end(side, End::Clean, now.mono))
    }

    /// The other end of a pair, and the side of `on` itself.
    pub(crate) fn peer(&mut self, on: ConnId) -> Option<(ConnId, Side)> {
        let pair = self.conn(on)?.pair?;
        let entry = self.pairs.get(pair as usize)?;
        Some(if entry.hidden == on { (entry.client, Side::Hidden) } else { (entry.hidden, Side::Client) })
    }

    /// The pair of a connection.
    pub(crate) fn pair_of(&mut self, on: ConnId) -> Option<&Pair> {
        let pair = self.conn(on)?.pair?;
        self.pairs.get(pair as usize).map(|entry| &entry.pair)
    }

    /// Whether this is the hidden server's side of a pair and has sent nothing yet.
    pub(crate) fn is_unanswered_by(&mut self, hidden: ConnId) -> bool {
        let Some(pair) = self.conn(hidden).and_then(|conn| conn.pair) else { return false };
        let entry = self.pairs.get(pair as usize);
        entry.is_some_and(|entry| entry.hidden == hidden && entry.pair.bytes_from(Side::Hidden) == 0)
    }

    /// Bytes of a pair moved, or bytes of a closing connection were discarded.
    pub(crate) fn moved(&mut self, from: ConnId, read: u32, queued: u32, now: Now) -> Option<Ended> {
        if let Some(conn) = self.conn(from)
            && let Phase::Closing { until, received, last } = &mut conn.phase
        {
            let (enough, window) = LINGER_WINDOW;
            *received += u64::from(read);
            if *received >= enough {
                (*until, *received) = ((now.mono + window).min(*last), 0);
            }
            conn.due = Some((now.mono + LINGER_IDLE).min(*until));
            return None;
        }
        self.with_pair(from, now, |pair, side| pair.on_moved(side, read, queued, now.mono))
    }

    pub(crate) fn flushed(&mut self, on: ConnId, now: Now) -> Option<Ended> {
        self.with_pair(on, now, |pair, side| pair.on_flushed(side, now.mono))
    }

    pub(crate) fn acked(&mut self, on: ConnId, age: Option<Span>, now: Now) -> Option<Ended> {
        self.with_pair(on, now, |pair, side| pair.on_acked(side, age, now.mono))
    }

    /// Sets the time of the next check whether the handed-over request was acknowledged.
    pub(crate) fn check_hand_over_at(&mut self, hidden: ConnId, time: Time, now: Now) {
        let ended = self.with_pair(hidden, now, |pair, _| {
            pair.check_hand_over_at(time);
            None
        });
        debug_assert!(ended.is_none(), "a pair is not over by a deadline that is set");
    }

    /// Others need the memory of a connection that makes no progress. A pair is ended, and a closing connection is
    /// aborted. For any other connection the machine decides.
    pub(crate) fn stalled(&mut self, on: ConnId, now: Now) -> Option<Ended> {
        if let Some(Conn { phase: Phase::Closing { .. }, .. }) = self.conn(on) {
            self.close(on, Close::Abort, now);
        }
        self.with_pair(on, now, |pair, side| Some(pair.on_stalled(side)))
    }

    pub(crate) fn write_failed(&mut self, on: ConnId, now: Now) -> Option<Ended> {
        self.with_pair(on, now, |pair, side| pair.on_write_failed(side, now.mono))
    }

    /// The reading side of a connection has ended. Returns the end of its pair, if that ends.
    pub(crate) fn end(&mut self, on: ConnId, how: End, now: Now) -> Option<Ended> {
        if let Some(conn) = self.conn(on) {
            debug_assert!(!conn.ended || conn.phase != Phase::Open, "ended twice");
            conn.ended = true;
        }
        self.with_pair(on, now, |pair, side| pair.on_end(side, how, now.mono))
    }

    /// The next open connection whose deadline has passed. Closing connections are aborted here.
    pub(crate) fn expired(&mut self, now: Now) -> Option<ConnId> {
        while let Some(&Reverse((time, on))) = self.deadlines.peek() {
            if time > now.mono {
                return None;
            }
            self.deadlines.pop();
            let Some(conn) = self.conn(on) else { continue };
            if conn.armed != Some(time) {
                continue;
            }
            conn.armed = None;
            match (conn.due, conn.phase) {
                (None, _) => {}
                (Some(due), _) if due > now.mono => self.set_due(on, Some(due)),
                (Some(_), Phase::Open) => {
                    conn.due = None;
                    return Some(on);
                }
                (Some(_), Phase::Closing { .. } | Phase::Gone) => self.close(on, Close::Abort, now),
            }
        }
        None
    }

    /// Ends the pair of a connection.
    pub(crate) fn end_pair(&mut self, on: ConnId, over: PairEnd, now: Now) -> Option<Ended> {
        let index = self.conn(on)?.pair?;
        self.act(index, Some(Act::PairEnd(over)), now)
    }

    /// Handles the deadline of a paired connection.
    pub(crate) fn pair_timeout(&mut self, on: ConnId, now: Now) -> Option<Ended> {
        self.with_pair(on, now, |pair, _| pair.on_timeout(now.mono))
    }

    /// The next output. If there is none, the next deadline; `why` names the state of its connection.
    pub(crate) fn poll(&mut self, text: &mut Vec<u8>, why: impl Fn(&S) -> &'static str) -> Output {
        match self.outputs.pop_front() {
            Some(Pending::Other(output)) => output,
            Some(Pending::Send(to, bytes)) => {
                text.extend_from_slice(&bytes);
                Output::Send { to, len: u32::try_from(bytes.len()).unwrap_or_else(|_| unreachable!("4 GiB")) }
            }
            None => {
                let Some(&Reverse((until, on))) = self.deadlines.peek() else {
                    return Output::Idle { until: None, why: "nothing" };
                };
                let why = match self.conn(on) {
                    Some(Conn { phase: Phase::Open, state, .. }) => why(state),
                    Some(_) => "linger",
                    None => "a deadline that was put off",
                };
                Output::Idle { until: Some(until), why }
            }
        }
    }

    /// Checks what must hold between two calls.
    pub(crate) fn check_invariants(&self) {
        for (index, entry) in &self.pairs {
            debug_assert!(entry.hidden != entry.client, "paired with itself");
            for on in [entry.hidden, entry.client] {
                let conn = self.table.get(on.index as usize);
                debug_assert!(
                    conn.is_some_and(|conn| conn.generation == on.generation
                        && conn.pair.map(|pair| pair as usize) == Some(index)),
                    "a pair is known to both of its ends"
                );
            }
        }
        for (_, conn) in &self.table {
            debug_assert!(
                conn.due.is_none_or(|due| conn.armed.is_some_and(|armed| armed <= due)),
                "a deadline that nothing wakes for"
            );
            debug_assert!(
                !matches!(conn.phase, Phase::Closing { .. }) || conn.due.is_some(),
                "a closing connection has a deadline"
            );
        }
        debug_assert_eq!(
            self.closing,
            self.table.iter().filter(|(_, conn)| conn.phase != Phase::Open).count(),
            "the number of closing connections"
        );
    }

    fn conn(&mut self, on: ConnId) -> Option<&mut Conn<S>> {
        self.table.get_mut(on.index as usize).filter(|conn| conn.generation == on.generation)
    }

    fn unpair(&mut self, pair: u32) {
        let Some(entry) = self.pairs.try_remove(pair as usize) else { return };
        for on in [entry.hidden, entry.client] {
            if let Some(conn) = self.conn(on) {
                conn.pair = None;
                if conn.phase == Phase::Open {
                    conn.due = None;
                }
            }
        }
    }

    fn with_pair(
        &mut self,
        on: ConnId,
        now: Now,
        event: impl FnOnce(&mut Pair, Side) -> Option<Act>,
    ) -> Option<Ended> {
        let index = self.conn(on)?.pair?;
        let entry = self.pairs.get_mut(index as usize)?;
        let side = if entry.hidden == on { Side::Hidden } else { Side::Client };
        let act = event(&mut entry.pair, side);
        self.act(index, act, now)
    }

    fn act(&mut self, index: u32, act: Option<Act>, now: Now) -> Option<Ended> {
        let &PairEntry { pair, hidden, client } = self.pairs.get(index as usize)?;
        let end = |side| if side == Side::Hidden { hidden } else { client };
        match act {
            Some(Act::PairEnd(over)) => {
                self.close(hidden, over.hidden, now);
                self.close(client, over.client, now);
                return Some(Ended { hidden, client, pair, over });
            }
            Some(Act::CloseWrite(side)) => self.emit(Output::CloseWrite { on: end(side) }),
            Some(Act::StopReading(side)) => self.emit(Output::Read { on: end(side), wanted: false }),
            Some(Act::CheckAck(side)) => self.emit(Output::CheckAck { on: end(side) }),
            None => {}
        }
        self.set_due(hidden, pair.deadline());
        None
    }
}
