//! The half-close table once more, written from its description: for each direction what was said, sent and lost, and
//! every answer worked out from that. No states, so that a slip in the states of `rendezvous_core::pair` shows.

use rendezvous_core::machine::{Close, End};
use rendezvous_core::pair::{Act, EndReason, Flow, PairEnd, Side};

/// One direction.
#[derive(Clone, Copy, Debug, Default)]
struct Way {
    /// The sender has ended, in order.
    ended: bool,
    /// Bytes wait for the receiver.
    queued: bool,
    /// The receiver was told of the end.
    told: bool,
    /// The receiver takes nothing any more.
    lost: bool,
}

/// A pair, by whom its directions begin at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Model {
    from_hidden: Way,
    from_client: Way,
    pub(crate) over: bool,
}

impl Model {
    pub(crate) fn new(head_queued: bool) -> Self {
        let from_client = Way { queued: head_queued, ..Way::default() };
        Self { from_hidden: Way::default(), from_client, over: false }
    }

    fn way(&mut self, from: Side) -> &mut Way {
        match from {
            Side::Hidden => &mut self.from_hidden,
            Side::Client => &mut self.from_client,
        }
    }

    pub(crate) fn has_ended(&mut self, side: Side) -> bool {
        self.way(side).ended
    }

    /// Somebody is owed bytes, and may take them; where one way is lost, that is no reason to wait.
    pub(crate) fn is_owed(&self) -> bool {
        let ways = [self.from_hidden, self.from_client];
        ways.iter().any(|way| way.queued) && !ways.iter().any(|way| way.lost)
    }

    pub(crate) fn is_half_closed(&self) -> bool {
        [self.from_hidden, self.from_client].iter().any(|way| way.ended || way.lost)
    }

    pub(crate) fn flow(&mut self, from: Side) -> Flow {
        match *self.way(from) {
            Way { lost: true, .. } => Flow::Dead,
            Way { told: true, .. } => Flow::Shut,
            Way { ended: true, .. } => Flow::Draining,
            _ => Flow::Open,
        }
    }

    pub(crate) fn moved(&mut self, from: Side, queued: bool) -> Option<Act> {
        let way = self.way(from);
        // What nobody takes does not wait.
        way.queued = queued && !way.lost;
        self.call(from)
    }

    pub(crate) fn ended(&mut self, from: Side, how: End) -> Option<Act> {
        match how {
            End::Clean => {
                // Where nobody takes anything any more, an end is no news.
                let way = self.way(from);
                way.ended |= !way.lost;
                self.call(from)
            }
            End::Truncated => {
                // It may read still, and is cut as well, unless what goes to it has ended, or is lost.
                let back = *self.way(from.other());
                let own = if back.ended || back.lost { Close::Linger } else { Close::Truncate };
                Some(self.cut(from, own, EndReason::Truncated(from)))
            }
            End::Reset => Some(self.cut(from, Close::Abort, EndReason::Reset(from))),
        }
    }

    /// `side` broke off: the other one gets what is queued, and can tell.
    pub(crate) fn cut(&mut self, side: Side, own: Close, why: EndReason) -> Act {
        self.finish(side, own, Close::Truncate, why)
    }

    pub(crate) fn write_failed(&mut self, to: Side) -> Option<Act> {
        let way = self.way(to.other());
        let sends_still = !way.ended && !way.lost;
        (way.lost, way.queued) = (true, false);
        self.finished().or(sends_still.then_some(Act::StopReading(to.other())))
    }

    /// It lasted too long. Who has not ended is cut; who has, or is owed nothing, sees an end in order.
    pub(crate) fn given_up(&mut self, why: EndReason) -> Act {
        let close = |way: Way| if way.ended || way.lost { Close::Linger } else { Close::Truncate };
        let (to_client, to_hidden) = (close(self.from_hidden), close(self.from_client));
        self.finish(Side::Hidden, to_hidden, to_client, why)
    }

    /// The end is passed on behind the last byte.
    fn call(&mut self, from: Side) -> Option<Act> {
        let way = self.way(from);
        let now = way.ended && !way.queued && !way.told && !way.lost;
        if !now {
            return None;
        }
        way.told = true;
        self.finished().or(Some(Act::CloseWrite(from.other())))
    }

    /// Nothing can move any more, either way.
    fn finished(&mut self) -> Option<Act> {
        let still = |way: Way| !way.told && !way.lost;
        if still(self.from_hidden) || still(self.from_client) {
            return None;
        }
        // Whoever could not be written to is reset.
        let close = |way: Way| if way.lost { Close::Abort } else { Close::Linger };
        let (to_client, to_hidden) = (close(self.from_hidden), close(self.from_client));
        let why = match (self.from_hidden.lost, self.from_client.lost) {
            (false, false) => EndReason::Done,
            (false, true) => EndReason::Reset(Side::Hidden),
            (true, _) => EndReason::Reset(Side::Client),
        };
        Some(self.finish(Side::Hidden, to_hidden, to_client, why))
    }

    fn finish(&mut self, side: Side, own: Close, other: Close, why: EndReason) -> Act {
        self.over = true;
        Act::PairEnd(match side {
            Side::Hidden => PairEnd { hidden: own, client: other, why },
            Side::Client => PairEnd { hidden: other, client: own, why },
        })
    }
}
