//! Token buckets that count failures: a few are forgiven, a flood is not.

use alloc::collections::{BTreeMap, VecDeque};
use core::net::IpAddr;

use crate::time::{Span, Time};

/// How many failures are forgiven at once.
const BURST: u32 = 20;
/// One more is forgiven after this long.
const REFILL: Span = Span::from_secs(6);
/// Sources remembered at most; the one remembered longest goes first.
const SOURCES_MAX: usize = 8_192;

/// The failures of one source or one ID.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bucket {
    spent: u32,
    since: Time,
}

impl Bucket {
    /// Nothing failed yet.
    pub(crate) const NEW: Self = Self { spent: 0, since: Time(0) };

    /// Whether nothing more is forgiven; how long until something is.
    pub(crate) fn exhausted(&mut self, now: Time) -> Option<Span> {
        self.refill(now);
        (self.spent >= BURST).then(|| (self.since + REFILL).since(now))
    }

    /// One more failure.
    pub(crate) fn fail(&mut self, now: Time) {
        self.refill(now);
        self.spent = (self.spent + 1).min(BURST);
    }

    fn refill(&mut self, now: Time) {
        let periods = now.since(self.since).0 / REFILL.0;
        let forgiven = u32::try_from(periods).unwrap_or(u32::MAX).min(self.spent);
        self.spent -= forgiven;
        self.since = if self.spent == 0 { now } else { self.since + Span(u64::from(forgiven) * REFILL.0) };
    }
}

/// One bucket for each source: an IPv4 address, or the /64 of an IPv6 address, which is what one subscriber has.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    buckets: BTreeMap<Source, Bucket>,
    oldest: VecDeque<Source>,
}

/// An address as limits count it: an IPv4 address, or the /64 of an IPv6 address, which is what one subscriber has. The
/// default is for a connection whose address is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source(u128);

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self(v4.to_ipv6_mapped().to_bits()),
            IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Self(v6.to_bits()),
            IpAddr::V6(v6) => Self(v6.to_bits() >> 64 << 64),
        }
    }
}

impl Sources {
    pub(crate) fn exhausted(&mut self, source: Source, now: Time) -> Option<Span> {
        self.buckets.get_mut(&source)?.exhausted(now)
    }

    pub(crate) fn fail(&mut self, source: Source, now: Time) {
        if !self.buckets.contains_key(&source) {
            if self.oldest.len() >= SOURCES_MAX
                && let Some(oldest) = self.oldest.pop_front()
            {
                self.buckets.remove(&oldest);
            }
            self.oldest.push_back(source);
        }
        self.buckets.entry(source).or_default().fail(now);
    }
}
