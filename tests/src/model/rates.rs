//! The bytes of rate-limited IDs: never more than the burst and what the rate allows, and never stopped for longer.

use std::collections::BTreeMap;

use rendezvous_core::id::Id;
use rendezvous_core::time::{Span, Time};

/// How much a bucket may hold, as time at its rate.
const BURST: Span = Span::from_millis(250);
/// A bucket moves bytes at least this often if it has tokens and demand.
const STOPPED_MAX: Span = Span::from_secs(2);
/// TLS: a record whose bytes were charged as they arrived, and that moves at once, for each connection.
const RECORD: u64 = 17 * 1024;
/// Microseconds per second: levels are in millionths of a byte.
const UNIT: u64 = 1_000_000;

/// A limited stream of an ID: from its clients, or to them.
pub(super) type Stream = (Id, bool);

/// All limited streams of a relay.
#[derive(Debug, Default)]
pub struct Rates(BTreeMap<Stream, Bucket>);

#[derive(Debug)]
struct Bucket {
    rate: u64,
    /// What moved beyond the rate.
    level: u64,
    filled: Time,
    moved: Time,
}

impl Bucket {
    fn drain(&mut self, now: Time) {
        let passed = now.since(self.filled).0;
        self.level = self.level.saturating_sub(self.rate.saturating_mul(passed));
        self.filled = now;
    }
}

impl Rates {
    /// No limits.
    pub const NONE: Self = Self(BTreeMap::new());

    /// Replaces the limits, in bytes per second.
    pub fn set(&mut self, rates: &[(Id, u64)], now: Time) {
        let streams = rates.iter().flat_map(|(id, rate)| [((*id, true), *rate), ((*id, false), *rate)]);
        self.0 = streams
            .map(|(stream, rate)| (stream, Bucket { rate, level: 0, filled: now, moved: now }))
            .collect();
    }

    /// Whether a stream is limited.
    #[must_use]
    pub fn limits(&self, stream: Stream) -> bool {
        self.0.contains_key(&stream)
    }

    /// Records bytes that moved. `records`: how many TLS connections may have a partial record.
    ///
    /// # Panics
    /// They exceed the burst and what the rate allows.
    pub fn moved(&mut self, stream: Stream, bytes: u32, records: u64, now: Time) {
        let Some(bucket) = self.0.get_mut(&stream) else { return };
        bucket.drain(now);
        bucket.level += u64::from(bytes) * UNIT;
        bucket.moved = now;
        let most = bucket.rate * BURST.0 + (1 + records * RECORD) * UNIT;
        assert!(
            bucket.level <= most,
            "{} bytes above the rate of {} bytes/s, {} are allowed",
            bucket.level / UNIT,
            bucket.rate,
            most / UNIT
        );
    }

    /// Whether a stream has moved nothing for longer than its rate explains, although it could since `since`.
    #[must_use]
    pub fn is_stopped(&self, stream: Stream, since: Time, now: Time) -> bool {
        self.0.get(&stream).is_none_or(|bucket| {
            let debt = Span(bucket.level / bucket.rate);
            now.since(bucket.moved.max(since)) > STOPPED_MAX + debt
        })
    }
}
