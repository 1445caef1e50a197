//! The half-close table: what the end of one side of a pair means for the other.
//!
//! A pair is two directions, client → hidden server and hidden server → client, and one table ([`Flow`]) that both
//! follow. It sees lengths and ends, never bytes, and does not know which program it runs in: relay, agent and
//! connector use it alike.
//!
//! | in state | src data | src clean end | src truncated or reset | dst's queue empties | write to dst fails |
//! |---|---|---|---|---|---|
//! | `Open` | queue | → `Draining`; queue empty: → `Shut`, end dst's writing | over: dst is cut | – | → `Dead`, stop reading src |
//! | `Draining` | – | – | over: dst is cut | → `Shut`, end dst's writing | → `Dead` |
//! | `Shut` | – | – | over, for the other direction | – | → `Dead` |
//! | `Dead` | dropped | – | over, for the other direction | – | – |
//!
//! Both `Shut` or `Dead`: over. One of them not `Open`: the half-closed deadline runs from then on, put off by whatever
//! moves, and stayed by a queue unless one of them is `Dead`. A truncation is never made a clean end (RFC 8446 §6.1).

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
    /// src ended; what it sent is still queued for dst.
    Draining,
    /// src ended, and dst was told so after the last byte.
    Shut,
    /// dst takes nothing any more.
    Dead,
}

/// How long a pair may be in which condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Half-closed and nothing moves; default 60 s.
    pub half_closed: Span,
    /// Open and nothing moves; `None`, the default: for ever.
    pub idle: Option<Span>,
    /// This long after bytes were sent, and again after as long, it is looked at whether they were acknowledged;
    /// default 10 s.
    pub check: Span,
    /// A peer that owes acknowledgements and gave none for this long is dead; default 30 s. A peer that merely reads
    /// slowly acknowledges, the kernel's zero-window probes too.
    pub silent: Span,
    /// This long after a request was handed over it is looked at whether its head was acknowledged, if no byte of an
    /// answer came; `None`, the default: it is looked at as with any bytes. `rendezvous serve` has [`HAND_OVER`].
    pub hand_over: Option<Span>,
}

/// [`Limits::hand_over`] of a relay.
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

/// What is to be done about an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// End the writing side of this end.
    CloseWrite(Side),
    /// Read nothing more from this end: nobody takes it.
    StopReading(Side),
    /// Look at this end's last acknowledgement.
    CheckAck(Side),
    /// The pair is over; close both ends.
    PairEnd(PairEnd),
}

/// How a pair ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PairEnd {
    /// How the hidden server's side is to be closed.
    pub hidden: Close,
    /// How the client's side is to be closed.
    pub client: Close,
    /// Why.
    pub why: EndReason,
}

/// Why a pair ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// Both sides ended in order, or the client broke off after its last exchange ([`Pair::reason`]).
    Done,
    /// This side's stream was cut: FIN without close_notify.
    Truncated(Side),
    /// This side reset the connection or failed.
    Reset(Side),
    /// Nothing moved for too long after one side had ended.
    HalfClosed,
    /// Nothing moved for too long.
    Idle,
    /// This side acknowledged nothing for too long.
    Silent(Side),
    /// This side took too little of what was queued for it while others waited for that memory.
    SlowReader(Side),
}

#[derive(Clone, Copy, Debug)]
struct Direction {
    flow: Flow,
    /// Bytes wait to be sent to dst.
    queued: bool,
    /// Since when bytes sent to dst may be unacknowledged; `None`: they were seen to be acknowledged.
    owed: Option<Time>,
    /// Bytes received from src so far.
    bytes: u64,
    /// When bytes last moved in this direction.
    moved: Time,
}

/// The state machine of one pair.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    limits: Limits,
    to_hidden: Direction,
    to_client: Direction,
    began: Time,
    /// When it is looked at whether the request that was handed over was acknowledged.
    hand_over_check: Option<Time>,
}

impl Side {
    /// The other end.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Hidden => Self::Client,
            Self::Client => Self::Hidden,
        }
    }
}

impl Pair {
    /// A pair whose directions are both open. `head_queued`: the request that the hidden server gets first is not in
    /// the socket yet, as far as is known.
    #[must_use]
    pub const fn new(limits: Limits, head_queued: bool, now: Time) -> Self {
        let open = Direction { flow: Flow::Open, queued: false, owed: None, bytes: 0, moved: now };
        let to_hidden = Direction { queued: head_queued, owed: Some(now), ..open };
        let hand_over_check = match limits.hand_over {
            Some(after) if head_queued => Some(Time(now.0.saturating_add(after.0))),
            _ => None,
        };
        Self { limits, to_hidden, to_client: open, began: now, hand_over_check }
    }

    /// Bytes came from `from` (`read` may be 0: some of the queue was sent) and `queued` wait for the other side.
    #[must_use]
    pub fn on_moved(&mut self, from: Side, read: u32, queued: u32, now: Time) -> Option<Act> {
        if from == Side::Hidden && read > 0 {
            self.hand_over_check = None;
        }
        let direction = self.from(from);
        debug_assert!(
            read == 0 || !matches!(direction.flow, Flow::Draining | Flow::Shut),
            "octets after the end"
        );
        direction.bytes = direction.bytes.saturating_add(u64::from(read));
        if direction.flow == Flow::Dead {
            // They are dropped: nothing moved, and nothing waits.
            return None;
        }
        direction.moved = now;
        direction.queued = queued > 0;
        direction.owed = direction.owed.or(Some(now));
        self.drained(from)
    }

    /// Everything for `dst` is in its socket.
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

    /// The stream from `src` ended.
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
                // It may still read: what goes to it is cut as well, unless that has ended in order.
                let whole = self.from(src.other()).flow != Flow::Open;
                let own = if whole { Close::Linger } else { Close::Truncate };
                Some(self.cut(src, own, EndReason::Truncated(src)))
            }
            (End::Reset, _) => Some(self.cut(src, Close::Abort, EndReason::Reset(src))),
        }
    }

    /// What was queued for `dst` can't be sent.
    #[must_use]
    pub fn on_write_failed(&mut self, dst: Side, now: Time) -> Option<Act> {
        let direction = self.from(dst.other());
        let was = core::mem::replace(&mut direction.flow, Flow::Dead);
        direction.moved = now;
        direction.queued = false;
        direction.owed = None;
        let over = self.over_if_finished();
        if over.is_none() && was == Flow::Open { Some(Act::StopReading(dst.other())) } else { over }
    }

    /// How long `side` has owed an acknowledgement; `None` if it owes none, or the system can't tell.
    #[must_use]
    pub fn on_acked(&mut self, side: Side, age: Option<Span>, now: Time) -> Option<Act> {
        let direction = self.from(side.other());
        direction.owed = if age.is_some() || direction.queued { Some(now) } else { None };
        self.is_silent(age).then(|| self.cut(side, Close::Abort, EndReason::Silent(side)))
    }

    /// Others wait for the memory of what is queued for `side`, which takes too little of it. That queue is dropped:
    /// `side` is reset, the other side is cut.
    #[must_use]
    pub fn on_stalled(&mut self, side: Side) -> Act {
        self.cut(side, Close::Abort, EndReason::SlowReader(side))
    }

    /// Whether a peer that has owed an acknowledgement for so long is dead.
    #[must_use]
    pub fn is_silent(&self, age: Option<Span>) -> bool {
        age.is_some_and(|age| age >= self.limits.silent)
    }

    /// At this time it is looked at again whether the request that was handed over was acknowledged.
    pub fn check_hand_over_at(&mut self, time: Time) {
        self.hand_over_check = Some(time);
    }

    /// A deadline may have passed.
    #[must_use]
    pub fn on_timeout(&mut self, now: Time) -> Option<Act> {
        if self.hand_over_check.is_some_and(|due| due <= now) {
            self.hand_over_check = None;
            if let Some((due, Side::Hidden)) = self.next_check()
                && due <= now
            {
                self.to_hidden.owed = Some(now);
            }
            return Some(Act::CheckAck(Side::Hidden));
        }
        if let Some((due, side)) = self.next_check()
            && due <= now
        {
            // Whatever comes of it, it is not asked again before its time.
            self.from(side.other()).owed = Some(now);
            return Some(Act::CheckAck(side));
        }
        let (due, why) = self.patience()?;
        (due <= now).then(|| self.give_up(why))
    }

    /// When [`Pair::on_timeout`] is to be called next.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let check = self.next_check().map(|(due, _)| due);
        let patience = self.patience().map(|(due, _)| due);
        check.into_iter().chain(patience).chain(self.hand_over_check).min()
    }

    /// Bytes received from `side` so far.
    #[must_use]
    pub const fn bytes_from(&self, side: Side) -> u64 {
        match side {
            Side::Client => self.to_hidden.bytes,
            Side::Hidden => self.to_client.bytes,
        }
    }

    /// Whether bytes for `side` are queued that it may still take.
    #[must_use]
    pub const fn has_queue_to(&self, side: Side) -> bool {
        let direction = match side {
            Side::Client => &self.to_client,
            Side::Hidden => &self.to_hidden,
        };
        direction.queued && !matches!(direction.flow, Flow::Dead)
    }

    /// The reason to report for a pair that ended because of `why`. Many clients close without close_notify, or reset
    /// the connection because they have not read ours. If the client did so when its last request had been answered
    /// completely (`is_answered`) and the whole answer was in its socket, the exchange is a success: [`EndReason::Done`].
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

    /// `Draining` with an empty queue becomes `Shut`.
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
            // The side that takes nothing any more is reset; the other had its clean end, after its last byte.
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

    /// `src` is gone in disorder: the other side gets what is queued for it, and then sees that something is missing.
    fn cut(&mut self, src: Side, own: Close, why: EndReason) -> Act {
        self.from(src).flow = Flow::Dead;
        Act::PairEnd(match src {
            Side::Hidden => PairEnd { hidden: own, client: Close::Truncate, why },
            Side::Client => PairEnd { hidden: Close::Truncate, client: own, why },
        })
    }

    /// Nobody ended in disorder, but it is over: whose sender has not ended sees a cut, never a clean end.
    fn give_up(&self, why: EndReason) -> Act {
        let close = |flow| if flow == Flow::Open { Close::Truncate } else { Close::Linger };
        Act::PairEnd(PairEnd { hidden: close(self.to_hidden.flow), client: close(self.to_client.flow), why })
    }

    const fn half_closed(&self) -> bool {
        !matches!((self.to_hidden.flow, self.to_client.flow), (Flow::Open, Flow::Open))
    }

    /// When nothing has moved for too long. A queue is no idleness: whether its reader lives is checked instead. But
    /// where one direction is dead its source is not read any more, and a peer in the same state would not read us:
    /// each would wait for the other, alive and for ever.
    fn patience(&self) -> Option<(Time, EndReason)> {
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

    /// Whose acknowledgements are to be looked at next, and when.
    fn next_check(&self) -> Option<(Time, Side)> {
        let due = |direction: &Direction| direction.owed.map(|since| since + self.limits.check);
        match (due(&self.to_hidden), due(&self.to_client)) {
            // `<=` would do the same: of two at one moment either may be first, the other is next.
            (Some(hidden), Some(client)) if client < hidden => Some((client, Side::Client)),
            (Some(hidden), _) => Some((hidden, Side::Hidden)),
            (None, client) => client.map(|due| (due, Side::Client)),
        }
    }
}
