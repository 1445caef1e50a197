//! The state machine of a pair: what the end of one side means for the other (half-close).
//!
//! A pair is two directions, client → hidden server and hidden server → client. Both follow one table ([`Flow`]). The
//! machine sees lengths and ends, never bytes. Relay, agent and connector all use it.
//!
//! | in state | src data | src clean end | src truncated or reset | dst's queue empties | write to dst fails |
//! |---|---|---|---|---|---|
//! | `Open` | queue | → `Draining`; queue empty: → `Shut`, shut down writing to dst | pair ends, dst is truncated | – | → `Dead`, stop reading src |
//! | `Draining` | – | – | pair ends, dst is truncated | → `Shut`, shut down writing to dst | → `Dead` |
//! | `Shut` | – | – | pair ends, because of the other direction | – | → `Dead` |
//! | `Dead` | dropped | – | pair ends, because of the other direction | – | – |
//!
//! When both directions are `Shut` or `Dead`, the pair ends. When one of them is not `Open`, the half-closed timeout
//! runs. It restarts whenever bytes move, and does not run while bytes are queued unless a direction is `Dead`. A
//! truncation is never turned into a clean end (RFC 8446 §6.1).

use crate::conn::{Close, End};
use crate::time::{Span, Time};

/// One of the two ends of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The hidden server's.
    Hidden,
    /// The client's.
    Client,
}

/// The state of one direction, src → dst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// src may send.
    Open,
    /// src has ended; its last bytes are still queued for dst.
    Draining,
    /// src has ended, and writing to dst was shut down after the last byte.
    Shut,
    /// dst no longer accepts bytes.
    Dead,
}

/// The timeouts of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Closes a half-closed pair in which nothing has moved for this long; default 60 s.
    pub half_closed: Span,
    /// Closes an open pair in which nothing has moved for this long. `None`, the default, is no limit.
    pub idle: Option<Span>,
    /// The interval at which the driver is asked whether sent bytes were acknowledged; default 10 s.
    pub check: Span,
    /// Closes a pair whose peer has left bytes unacknowledged for this long; default 30 s. A peer that only reads
    /// slowly still acknowledges, including the kernel's zero-window probes.
    pub silent: Span,
    /// The time after a hand-over at which the first such check is made, if no byte of a response has come. `None`,
    /// the default, is the normal interval. `rendezvous serve` uses [`HAND_OVER`].
    pub hand_over: Option<Span>,
}

/// The relay's [`Limits::hand_over`].
pub const HAND_OVER: Span = Span::from_secs(1);

impl Default for Limits {
    fn default() -> Self {
        Self {
            half_closed: Span::from_secs(60),
            idle: None,
            check: Span::from_secs(10),
            silent: Span::from_secs(30),
            hand_over: None,
        }
    }
}

/// An action in response to an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Shut down the writing side of this end.
    CloseWrite(Side),
    /// Stop reading this end: its bytes cannot be delivered.
    StopReading(Side),
    /// Check this end's last acknowledgement.
    CheckAck(Side),
    /// The pair has ended; close both ends.
    PairEnd(PairEnd),
}

/// How a pair ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PairEnd {
    /// How to close the hidden server's side.
    pub hidden: Close,
    /// How to close the client's side.
    pub client: Close,
    /// The reason.
    pub why: EndReason,
}

/// The reason why a pair ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// Both sides ended cleanly, or the client closed after its last exchange ([`Pair::reason`]).
    Done,
    /// This side's stream was truncated: FIN without close_notify.
    Truncated(Side),
    /// This side reset the connection, or its connection failed.
    Reset(Side),
    /// The half-closed timeout elapsed.
    HalfClosed,
    /// The idle timeout elapsed.
    Idle,
    /// This side acknowledged nothing for too long.
    Unreachable(Side),
    /// This side read too little of its queue while other connections needed that memory.
    SlowReader(Side),
    /// The client's key was removed from the list of allowed keys.
    KeyRemoved,
    /// The relay's operator ended it, or no longer permits it.
    Operator,
}

#[derive(Clone, Copy, Debug)]
struct Direction {
    flow: Flow,
    /// Bytes are queued for dst.
    queued: bool,
    /// The time since which bytes sent to dst may be unacknowledged; `None` if all were acknowledged.
    unacked_since: Option<Time>,
    /// Bytes received from src so far.
    bytes: u64,
    /// The time at which bytes last moved in this direction.
    moved: Time,
}

/// The state machine of one pair.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    limits: Limits,
    to_hidden: Direction,
    to_client: Direction,
    began: Time,
    /// The time at which to check whether the handed-over request was acknowledged.
    hand_over_check: Option<Time>,
}

impl Side {
    /// The other side.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Hidden => Self::Client,
            Self::Client => Self::Hidden,
        }
    }
}

impl Pair {
    /// A pair with both directions open. `head_queued`: the request that is handed over may not be in the hidden
    /// server's socket yet.
    #[must_use]
    pub const fn new(limits: Limits, head_queued: bool, now: Time) -> Self {
        let open = Direction { flow: Flow::Open, queued: false, unacked_since: None, bytes: 0, moved: now };
        let to_hidden = Direction { queued: head_queued, unacked_since: Some(now), ..open };
        let hand_over_check = match limits.hand_over {
            Some(after) if head_queued => Some(Time(now.0.saturating_add(after.0))),
            _ => None,
        };
        Self { limits, to_hidden, to_client: open, began: now, hand_over_check }
    }

    /// `read` bytes were received from `from`, and `queued` bytes wait for the other side. `read` is 0 if only some
    /// of the queue was sent.
    #[must_use]
    pub fn on_moved(&mut self, from: Side, read: u32, queued: u32, now: Time) -> Option<Act> {
        if from == Side::Hidden && read > 0 {
            self.hand_over_check = None;
        }
        let direction = self.from(from);
        debug_assert!(
            read == 0 || !matches!(direction.flow, Flow::Draining | Flow::Shut),
            "bytes after the end"
        );
        direction.bytes = direction.bytes.saturating_add(u64::from(read));
        if direction.flow == Flow::Dead {
            // The bytes are dropped, so nothing has moved and nothing is queued.
            return None;
        }
        direction.moved = now;
        direction.queued = queued > 0;
        direction.unacked_since = direction.unacked_since.or(Some(now));
        self.drained(from)
    }

    /// The queue to `dst` is empty: all bytes are in its socket.
    #[must_use]
    pub fn on_flushed(&mut self, dst: Side, now: Time) -> Option<Act> {
        let direction = self.from(dst.other());
        if direction.flow == Flow::Dead {
            return None;
        }
        direction.moved = now;
        direction.queued = false;
        self.drained(dst.other())
    }

    /// The stream from `src` has ended.
    #[must_use]
    pub fn on_end(&mut self, src: Side, how: End, now: Time) -> Option<Act> {
        let direction = self.from(src);
        direction.moved = now;
        match (how, direction.flow) {
            (End::Clean, Flow::Open) => {
                direction.flow = Flow::Draining;
                self.drained(src)
            }
            (End::Clean, Flow::Draining | Flow::Shut | Flow::Dead) => self.over_if_finished(),
            (End::Truncated, _) => {
                // It may still read. What goes to it is truncated too, unless that direction has ended cleanly.
                let whole = self.from(src.other()).flow != Flow::Open;
                let own = if whole { Close::Linger } else { Close::Truncate };
                Some(self.cut(src, own, EndReason::Truncated(src)))
            }
            (End::Reset, _) => Some(self.cut(src, Close::Abort, EndReason::Reset(src))),
        }
    }

    /// The bytes that are queued for `dst` cannot be sent.
    #[must_use]
    pub fn on_write_failed(&mut self, dst: Side, now: Time) -> Option<Act> {
        let direction = self.from(dst.other());
        let was = core::mem::replace(&mut direction.flow, Flow::Dead);
        direction.moved = now;
        direction.queued = false;
        direction.unacked_since = None;
        let over = self.over_if_finished();
        if over.is_none() && was == Flow::Open { Some(Act::StopReading(dst.other())) } else { over }
    }

    /// The answer to [`Act::CheckAck`]: how long bytes to `side` have been unacknowledged. `None` if there are none,
    /// or if the system cannot tell.
    #[must_use]
    pub fn on_acked(&mut self, side: Side, age: Option<Span>, now: Time) -> Option<Act> {
        let direction = self.from(side.other());
        direction.unacked_since = if age.is_some() || direction.queued { Some(now) } else { None };
        self.is_silent(age).then(|| self.cut(side, Close::Abort, EndReason::Unreachable(side)))
    }

    /// Others need the memory of the queue to `side`, which reads too little of it. The queue is dropped: `side` is
    /// reset and the other side is truncated.
    #[must_use]
    pub fn on_stalled(&mut self, side: Side) -> Act {
        self.cut(side, Close::Abort, EndReason::SlowReader(side))
    }

    /// Whether a peer with bytes unacknowledged for so long counts as dead.
    #[must_use]
    pub fn is_silent(&self, age: Option<Span>) -> bool {
        age.is_some_and(|age| age >= self.limits.silent)
    }

    /// Sets the time of the next check whether the handed-over request was acknowledged.
    pub fn check_hand_over_at(&mut self, time: Time) {
        self.hand_over_check = Some(time);
    }

    /// Handles timeouts that have passed.
    #[must_use]
    pub fn on_timeout(&mut self, now: Time) -> Option<Act> {
        if self.hand_over_check.is_some_and(|due| due <= now) {
            self.hand_over_check = None;
            if let Some((due, Side::Hidden)) = self.next_check()
                && due <= now
            {
                self.to_hidden.unacked_since = Some(now);
            }
            return Some(Act::CheckAck(Side::Hidden));
        }
        if let Some((due, side)) = self.next_check()
            && due <= now
        {
            // The next check is a full interval later, whatever the result.
            self.from(side.other()).unacked_since = Some(now);
            return Some(Act::CheckAck(side));
        }
        let (due, why) = self.idle_deadline()?;
        (due <= now).then(|| self.give_up(why))
    }

    /// The time at which [`Pair::on_timeout`] must be called next.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let check = self.next_check().map(|(due, _)| due);
        let idle = self.idle_deadline().map(|(due, _)| due);
        check.into_iter().chain(idle).chain(self.hand_over_check).min()
    }

    /// The number of bytes received from `side`.
    #[must_use]
    pub const fn bytes_from(&self, side: Side) -> u64 {
        match side {
            Side::Client => self.to_hidden.bytes,
            Side::Hidden => self.to_client.bytes,
        }
    }

    /// Whether bytes are queued for `side` that can still be sent.
    #[must_use]
    pub const fn has_queue_to(&self, side: Side) -> bool {
        let direction = match side {
            Side::Client => &self.to_client,
            Side::Hidden => &self.to_hidden,
        };
        direction.queued && !matches!(direction.flow, Flow::Dead)
    }

    /// The reason to report for a pair that ended because of `why`. Many clients close without close_notify, or reset
    /// the connection because they have not read our close_notify. If the client's last request was answered
    /// completely (`is_answered`) and the whole response was in its socket, that counts as a success:
    /// [`EndReason::Done`].
    #[must_use]
    pub fn reason(&self, why: EndReason, is_answered: bool) -> EndReason {
        let is_sent = self.to_client.flow != Flow::Dead && !self.to_client.queued;
        match why {
            EndReason::Truncated(Side::Client) | EndReason::Reset(Side::Client) if is_answered && is_sent => {
                EndReason::Done
            }
            _ => why,
        }
    }

    /// The state of the direction that begins at `src`.
    #[must_use]
    pub const fn flow_from(&self, src: Side) -> Flow {
        match src {
            Side::Client => self.to_hidden.flow,
            Side::Hidden => self.to_client.flow,
        }
    }

    /// When the pair began.
    #[must_use]
    pub const fn began(&self) -> Time {
        self.began
    }

    fn from(&mut self, src: Side) -> &mut Direction {
        match src {
            Side::Client => &mut self.to_hidden,
            Side::Hidden => &mut self.to_client,
        }
    }

    /// Moves from `Draining` to `Shut` if the queue is empty.
    fn drained(&mut self, src: Side) -> Option<Act> {
        let direction = self.from(src);
        if direction.flow != Flow::Draining || direction.queued {
            return None;
        }
        direction.flow = Flow::Shut;
        self.over_if_finished().or(Some(Act::CloseWrite(src.other())))
    }

    fn over_if_finished(&self) -> Option<Act> {
        use Flow::{Dead, Draining, Open, Shut};
        match (self.to_hidden.flow, self.to_client.flow) {
            (Shut, Shut) => Some(Act::PairEnd(PairEnd {
                hidden: Close::Linger,
                client: Close::Linger,
                why: EndReason::Done,
            })),
            // The side that accepts nothing any more is reset. The other side has had its clean end, after its last
            // byte.
            (Dead, Shut) => Some(Act::PairEnd(PairEnd {
                hidden: Close::Abort,
                client: Close::Linger,
                why: EndReason::Reset(Side::Hidden),
            })),
            (Shut, Dead) => Some(Act::PairEnd(PairEnd {
                hidden: Close::Linger,
                client: Close::Abort,
                why: EndReason::Reset(Side::Client),
            })),
            (Dead, Dead) => Some(Act::PairEnd(PairEnd {
                hidden: Close::Abort,
                client: Close::Abort,
                why: EndReason::Reset(Side::Client),
            })),
            (Open, _) | (_, Open) | (Draining, _) | (_, Draining) => None,
        }
    }

    /// Ends the pair because `src` was truncated, reset or dropped. The other side gets what is queued for it, and a
    /// truncated end.
    fn cut(&mut self, src: Side, own: Close, why: EndReason) -> Act {
        self.from(src).flow = Flow::Dead;
        Act::PairEnd(match src {
            Side::Hidden => PairEnd { hidden: own, client: Close::Truncate, why },
            Side::Client => PairEnd { hidden: Close::Truncate, client: own, why },
        })
    }

    /// Ends the pair after a timeout. A side whose sender has not ended sees a truncated stream, never a clean end.
    fn give_up(&self, why: EndReason) -> Act {
        let close = |flow| if flow == Flow::Open { Close::Truncate } else { Close::Linger };
        Act::PairEnd(PairEnd { hidden: close(self.to_hidden.flow), client: close(self.to_client.flow), why })
    }

    const fn half_closed(&self) -> bool {
        !matches!((self.to_hidden.flow, self.to_client.flow), (Flow::Open, Flow::Open))
    }

    /// When the half-closed or idle timeout elapses. A non-empty queue does not count as idle; the reader's liveness
    /// is checked by its ACKs instead. If a direction is dead, queues do not stop the timeout: its source is not read
    /// any more, and a peer in the same state would not read us, so that both would wait for each other forever.
    fn idle_deadline(&self) -> Option<(Time, EndReason)> {
        let dead = self.to_hidden.flow == Flow::Dead || self.to_client.flow == Flow::Dead;
        if !dead && (self.to_hidden.queued || self.to_client.queued) {
            return None;
        }
        let last_moved = self.to_hidden.moved.max(self.to_client.moved);
        if self.half_closed() {
            return Some((last_moved + self.limits.half_closed, EndReason::HalfClosed));
        }
        self.limits.idle.map(|idle| (last_moved + idle, EndReason::Idle))
    }

    /// The side whose acknowledgements are checked next, and the time of that check.
    fn next_check(&self) -> Option<(Time, Side)> {
        let due = |direction: &Direction| direction.unacked_since.map(|since| since + self.limits.check);
        match (due(&self.to_hidden), due(&self.to_client)) {
            // `<=` would do the same: of two at one moment either may be first, the other is next.
            (Some(hidden), Some(client)) if client < hidden => Some((client, Side::Client)),
            (Some(hidden), _) => Some((hidden, Side::Hidden)),
            (None, client) => client.map(|due| (due, Side::Client)),
        }
    }
}
