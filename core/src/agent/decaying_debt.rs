//! Time that is used up by what happens too often, and comes back with the clock.

use crate::time::{Now, Span, Time};

/// A rate limit: each event adds a span, and the debt decays as time passes. What is over a tolerance has to be waited
/// for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DecayingDebt {
    /// When nothing is left of it.
    until: Time,
}

impl DecayingDebt {
    pub(super) fn add(&mut self, cost: Span, now: Now) {
        self.until = self.until.max(now.mono) + cost;
    }

    /// Takes back what an event has added.
    pub(super) fn relieve(&mut self, by: Span) {
        self.until = self.until - by;
    }

    /// Drops what is over `most`.
    pub(super) fn cap(&mut self, most: Span, now: Now) {
        self.until = self.until.min(now.mono + most);
    }

    /// How much there is over `tolerance`: how long to wait.
    pub(super) fn excess(&self, tolerance: Span, now: Now) -> Span {
        self.until.since(now.mono + tolerance)
    }

    pub(super) fn is_none(&self, now: Now) -> bool {
        self.until <= now.mono
    }
}
