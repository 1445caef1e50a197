//! A rate limit as a debt of time that decays.

use crate::time::{Now, Span, Time};

/// A rate limit: each event adds a span, and the debt decays as time passes. Whatever exceeds a tolerance must be
/// waited for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DecayingDebt {
    /// When the debt is zero.
    until: Time,
}

impl DecayingDebt {
    pub(super) fn add(&mut self, cost: Span, now: Now) {
        self.until = self.until.max(now.mono) + cost;
    }

    /// Takes back the cost of an event.
    pub(super) fn subtract(&mut self, by: Span) {
        self.until = self.until - by;
    }

    /// Limits the debt to `most`.
    pub(super) fn cap(&mut self, most: Span, now: Now) {
        self.until = self.until.min(now.mono + most);
    }

    /// The debt beyond `tolerance`: how long to wait.
    pub(super) fn excess(&self, tolerance: Span, now: Now) -> Span {
        self.until.since(now.mono + tolerance)
    }

    pub(super) fn is_none(&self, now: Now) -> bool {
        self.until <= now.mono
    }
}
