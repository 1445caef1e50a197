//! Failed claims of each JID: a few a minute are forgiven (XMPP.md §6, reading 6).

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};

use super::name::Jid;
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
pub(super) struct Failures {
    per_minute_max: u32,
    buckets: BTreeMap<Box<str>, Bucket>,
    oldest: VecDeque<Box<str>>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    spent: u32,
    since: Time,
}

impl Failures {
    pub(super) const fn new(per_minute_max: u32) -> Self {
        Self { per_minute_max, buckets: BTreeMap::new(), oldest: VecDeque::new() }
    }

    /// Whether nothing more is forgiven now.
    pub(super) fn are_exhausted(&mut self, jid: &Jid, now: Time) -> bool {
        let (max, refill) = (self.per_minute_max, self.refill());
        self.buckets.get_mut(jid.bare()).is_some_and(|bucket| {
            bucket.forgive(refill, now);
            bucket.spent >= max
        })
    }

    /// One more failure.
    pub(super) fn fail(&mut self, jid: &Jid, now: Time) {
        let refill = self.refill();
        if !self.buckets.contains_key(jid.bare()) {
            if self.oldest.len() >= JIDS_MAX
                && let Some(oldest) = self.oldest.pop_front()
            {
                self.buckets.remove(&oldest);
            }
            self.oldest.push_back(jid.bare().into());
        }
        let bucket = self.buckets.entry(jid.bare().into()).or_insert(Bucket { spent: 0, since: now });
        bucket.forgive(refill, now);
        bucket.spent = bucket.spent.saturating_add(1);
    }

    /// How long until one more is forgiven.
    fn refill(&self) -> Span {
        Span((MINUTE.0 / u64::from(self.per_minute_max.max(1))).max(1))
    }
}

impl Bucket {
    fn forgive(&mut self, refill: Span, now: Time) {
        let periods = now.since(self.since).0 / refill.0;
        let forgiven = u32::try_from(periods).unwrap_or(u32::MAX).min(self.spent);
        self.spent -= forgiven;
        self.since = if self.spent == 0 { now } else { self.since + Span(u64::from(forgiven) * refill.0) };
    }
}
