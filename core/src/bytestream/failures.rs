//! Rate limit of each JID's failed claims (docs/stream-proxy.md §5.6).

use alloc::boxed::Box;

use super::name::Jid;
use crate::limiter::{Rate, RateLimiter};
use crate::time::{Span, Time};

/// The maximum number of JIDs; the one remembered longest is dropped first.
const JIDS_MAX: usize = 1_024;
/// The time in which `per_minute_max` failures are refilled.
const MINUTE: Span = Span::from_secs(60);

/// One bucket for each bare JID, since resources are free to choose.
#[derive(Debug)]
pub(super) struct Failures(RateLimiter<Box<str>>);

impl Failures {
    pub(super) fn new(per_minute_max: u32) -> Self {
        let refill = Span((MINUTE.0 / u64::from(per_minute_max.max(1))).max(1));
        let rate = Rate { debt_max: u32::MAX, ..Rate::new(per_minute_max, refill) };
        Self(RateLimiter::new(rate, JIDS_MAX))
    }

    /// Whether the limit is exhausted.
    pub(super) fn are_exhausted(&mut self, jid: &Jid, now: Time) -> bool {
        self.0.exhausted(jid.bare(), now).is_some()
    }

    /// Counts one failure.
    pub(super) fn fail(&mut self, jid: &Jid, now: Time) {
        self.0.spend(jid.bare().into(), now);
    }
}
