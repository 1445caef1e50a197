//! Rate limits as token buckets, and fair shares of a limited resource.

use alloc::collections::{BTreeMap, VecDeque};
use core::borrow::Borrow;
use core::net::IpAddr;

use crate::time::{Span, Time};

/// A rate limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many events are allowed at once.
    pub burst: u32,
    /// The time after which one more event is allowed.
    pub refill: Span,
    /// How many events beyond the limit are counted. These must be refilled first.
    pub debt_max: u32,
}

/// Limits authentication failures of one address, or of one ID with plain tokens.
pub(crate) const FAILURES: Rate = Rate::new(20, Span::from_secs(6));
/// The maximum number of addresses whose failures are remembered.
const SOURCES_MAX: usize = 8_192;

/// One party may hold this many times the number that is free.
const SHARE: u64 = 8;

/// Whether a party that holds `own` of a resource gets no more while `free` are left. A single party gets nearly all
/// of the resource, and a few parties cannot take all of it.
pub(crate) fn exceeds_share(own: u32, free: u32) -> bool {
    u64::from(own) > SHARE * u64::from(free)
}

impl Rate {
    /// A rate that does not count events beyond the limit.
    #[must_use]
    pub const fn new(burst: u32, refill: Span) -> Self {
        Self { burst, refill, debt_max: 0 }
    }
}

/// The state of one rate limit: a token bucket.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bucket {
    spent: u32,
    since: Time,
}

impl Bucket {
    /// A full bucket.
    pub(crate) const NEW: Self = Self { spent: 0, since: Time(0) };

    /// The time until the next event is allowed; `None` if one is allowed now.
    pub(crate) fn exhausted(&mut self, rate: Rate, now: Time) -> Option<Span> {
        self.refill(rate, now);
        let over = self.spent.checked_sub(rate.burst)?;
        let until = self.since + Span(rate.refill.0.saturating_mul(u64::from(over) + 1));
        Some(until.since(now))
    }

    /// Counts one event.
    pub(crate) fn spend(&mut self, rate: Rate, now: Time) {
        self.refill(rate, now);
        self.spent = self.spent.saturating_add(1).min(rate.burst.saturating_add(rate.debt_max));
    }

    fn refill(&mut self, rate: Rate, now: Time) {
        let refill = rate.refill.0.max(1);
        let periods = now.since(self.since).0 / refill;
        let forgiven = u32::try_from(periods).unwrap_or(u32::MAX).min(self.spent);
        self.spent -= forgiven;
        self.since = if self.spent == 0 { now } else { self.since + Span(u64::from(forgiven) * refill) };
    }
}

/// One bucket for each key. Of more than `keys_max` keys, the one remembered longest is forgotten.
#[derive(Clone, Debug)]
pub struct RateLimiter<K> {
    rate: Rate,
    keys_max: usize,
    buckets: BTreeMap<K, Bucket>,
    oldest: VecDeque<K>,
}

impl<K: Ord + Clone> RateLimiter<K> {
    /// A limiter of at most `keys_max` keys, with full buckets.
    #[must_use]
    pub const fn new(rate: Rate, keys_max: usize) -> Self {
        Self { rate, keys_max, buckets: BTreeMap::new(), oldest: VecDeque::new() }
    }

    /// The time until the next event of a key is allowed; `None` if one is allowed now.
    pub fn exhausted<Q: Ord + ?Sized>(&mut self, key: &Q, now: Time) -> Option<Span>
    where
        K: Borrow<Q>,
    {
        self.buckets.get_mut(key)?.exhausted(self.rate, now)
    }

    /// Counts one event of a key.
    pub fn spend(&mut self, key: K, now: Time) {
        if !self.buckets.contains_key(&key) {
            if self.oldest.len() >= self.keys_max
                && let Some(oldest) = self.oldest.pop_front()
            {
                self.buckets.remove(&oldest);
            }
            self.oldest.push_back(key.clone());
        }
        let new = Bucket { spent: 0, since: now };
        self.buckets.entry(key).or_insert(new).spend(self.rate, now);
    }
}

/// The authentication failures of each address.
#[derive(Debug)]
pub(crate) struct Sources(RateLimiter<Source>);

impl Default for Sources {
    fn default() -> Self {
        Self(RateLimiter::new(FAILURES, SOURCES_MAX))
    }
}

impl Sources {
    pub(crate) fn exhausted(&mut self, source: Source, now: Time) -> Option<Span> {
        self.0.exhausted(&source, now)
    }

    pub(crate) fn fail(&mut self, source: Source, now: Time) {
        self.0.spend(source, now);
    }
}

/// Limits how often addresses that peers offer are dialled, for each account and in total. The peer chooses the
/// address, so that without a limit it could scan networks with our help.
#[derive(Clone, Debug)]
pub(crate) struct DialBudget {
    all_rate: Rate,
    all: Bucket,
    of_account: RateLimiter<alloc::boxed::Box<str>>,
}

/// The maximum number of accounts whose dials are remembered.
const ACCOUNTS_MAX: usize = 1_024;

impl DialBudget {
    /// Allows at most `per_minute` dials in any minute for one account, and four times as many in total.
    pub(crate) fn new(per_minute: u32) -> Self {
        let rate = |per_minute: u32| {
            let burst = (per_minute / 2).max(1);
            Rate::new(burst, Span(60_000_000 / u64::from(per_minute - per_minute / 2).max(1)))
        };
        Self {
            all_rate: rate(per_minute.saturating_mul(4)),
            all: Bucket::NEW,
            of_account: RateLimiter::new(rate(per_minute), ACCOUNTS_MAX),
        }
    }

    /// Takes one dial for this account. Returns false if none is left.
    pub(crate) fn take(&mut self, account: &str, now: Time) -> bool {
        if self.all.exhausted(self.all_rate, now).is_some()
            || self.of_account.exhausted(account, now).is_some()
        {
            return false;
        }
        self.all.spend(self.all_rate, now);
        self.of_account.spend(account.into(), now);
        true
    }
}

/// An address as limits count it: an IPv4 address, or the /64 of an IPv6 address, since that is what one subscriber
/// has. The default is for a connection whose address is not known.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time(ms * 1_000)
    }

    #[test]
    fn a_dial_budget_lets_at_most_so_many_through_in_any_minute() {
        let mut budget = DialBudget::new(60);
        let taken: alloc::vec::Vec<u64> =
            (0..300_000).step_by(10).filter(|ms| budget.take("a", at(*ms))).collect();
        for (first, start) in taken.iter().enumerate() {
            let within = taken[first..].iter().take_while(|it| **it < start + 60_000).count();
            assert!(within <= 60, "{within} in the minute from {start} ms on");
        }
        assert!(taken.len() >= 5 * 30, "{}", taken.len());
    }

    #[test]
    fn one_account_that_used_its_dials_up_leaves_some_for_others() {
        let mut budget = DialBudget::new(60);
        let of_a = (0..1_000).filter(|_| budget.take("a", at(0))).count();
        let of_b = (0..1_000).filter(|_| budget.take("b", at(0))).count();
        assert_eq!((of_a, of_b), (30, 30));
    }

    #[test]
    fn all_accounts_together_have_a_limit_too() {
        let mut budget = DialBudget::new(60);
        let taken = (0..10_000).filter(|account| budget.take(&alloc::format!("{account}"), at(0))).count();
        assert_eq!(taken, 120);
    }

    #[test]
    fn what_exceeds_a_limit_is_paid_off_first_as_far_as_it_counts() {
        let rate = Rate { debt_max: 3, ..Rate::new(2, Span::from_secs(1)) };
        let mut bucket = Bucket { spent: 0, since: at(0) };
        for _ in 0..100 {
            bucket.spend(rate, at(0));
        }
        assert_eq!(bucket.exhausted(rate, at(0)), Some(Span::from_secs(4)));
        assert_eq!(bucket.exhausted(rate, at(3_999)), Some(Span::from_millis(1)));
        assert_eq!(bucket.exhausted(rate, at(4_000)), None);
    }

    #[test]
    fn a_share_leaves_something_for_others() {
        let mut taken = [0_u32; 3];
        for _ in 0..10 {
            for own in 0..3 {
                while !exceeds_share(taken[own], 1_000 - taken.iter().sum::<u32>()) {
                    taken[own] += 1;
                }
            }
        }
        assert!(taken.iter().sum::<u32>() < 1_000, "{taken:?}");
    }
}
