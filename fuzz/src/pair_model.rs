//! An independent model of the half-close table, written from its description. It derives every answer from the events
//! of each direction, without states, so that a mistake in the states of `rendezvous_core::pair` is found.

use rendezvous_core::machine::{Close, End};
use rendezvous_core::pair::{Act, EndReason, Flow, PairEnd, Side};

/// One direction.
#[derive(Clone, Copy, Debug, Default)]
struct Way {
    /// The sender has ended cleanly.
    ended: bool,
    /// Bytes wait for the receiver.
    queued: bool,
    /// The end was forwarded to the receiver.
    told: bool,
    /// The receiver accepts nothing any more.
    lost: bool,
}

/// A pair, indexed by the sender of each direction.
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

    /// Whether bytes wait for a side that may still accept them.
    pub(crate) fn is_expected(&self) -> bool {
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
        // Bytes for a lost receiver do not wait.
        way.queued = queued && !way.lost;
        self.call(from)
    }

    pub(crate) fn ended(&mut self, from: Side, how: End) -> Option<Act> {
        match how {
            End::Clean => {
                // An end for a lost receiver changes nothing.
                let way = self.way(from);
                way.ended |= !way.lost;
                self.call(from)
            }
            End::Truncated => {
                // The receiver may still read, and is cut as well, unless its direction has ended or is lost.
                let back = *self.way(from.other());
                let own = if back.ended || back.lost { Close::Linger } else { Close::Truncate };
                Some(self.cut(from, own, EndReason::Truncated(from)))
            }
            End::Reset => Some(self.cut(from, Close::Abort, EndReason::Reset(from))),
        }
    }

    /// `side` was truncated: the other one gets what is queued, and then a truncation.
    pub(crate) fn cut(&mut self, side: Side, own: Close, why: EndReason) -> Act {
        self.finish(side, own, Close::Truncate, why)
    }

    pub(crate) fn write_failed(&mut self, to: Side) -> Option<Act> {
        let way = self.way(to.other());
        let sends_still = !way.ended && !way.lost;
        (way.lost, way.queued) = (true, false);
        self.finished().or(sends_still.then_some(Act::StopReading(to.other())))
    }

    /// The timeout. A side that has not ended is cut. A side that has ended, or for which nothing is queued, gets a
    /// clean end.
    pub(crate) fn given_up(&mut self, why: EndReason) -> Act {
        let close = |way: Way| if way.ended || way.lost { Close::Linger } else { Close::Truncate };
        let (to_client, to_hidden) = (close(self.from_hidden), close(self.from_client));
        self.finish(Side::Hidden, to_hidden, to_client, why)
    }

    /// The end is forwarded after the last byte.
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
        // A side whose writes failed is reset.
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
