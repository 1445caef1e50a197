//! Failed claims of each JID: a few a minute are allowed (docs/stream-proxy.md §5.6).

use alloc::boxed::Box;

use super::name::Jid;
use crate::limiter::{Rate, RateLimiter};
use crate::time::{Span, Time};

/// JIDs remembered at most; the one remembered longest goes first.
const JIDS_MAX: usize = 1_024;
/// The time in which `per_minute_max` failures are forgiven.
const MINUTE: Span = Span::from_secs(60);

/// One bucket for each bare JID, since a resource costs its owner nothing.
///
/// Of claims that are under way together more may fail than are forgiven. All of them count: a JID in debt waits until
/// so much is forgiven that it may fail once more.
#[derive(Debug)]
pub(super) struct Failures(RateLimiter<Box<str>>);

impl Failures {
    pub(super) fn new(per_minute_max: u32) -> Self {
        let refill = Span((MINUTE.0 / u64::from(per_minute_max.max(1))).max(1));
        let rate = Rate { debt_max: u32::MAX, ..Rate::new(per_minute_max, refill) };
        Self(RateLimiter::new(rate, JIDS_MAX))
    }

    /// Whether nothing more is forgiven now.
    pub(super) fn are_exhausted(&mut self, jid: &Jid, now: Time) -> bool {
        self.0.exhausted(jid.bare(), now).is_some()
    }

    /// One more failure.
    pub(super) fn fail(&mut self, jid: &Jid, now: Time) {
        self.0.spend(jid.bare().into(), now);
    }
}
