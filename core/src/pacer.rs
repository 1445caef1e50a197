//! Rate limits of bytes: token buckets that several connections share in turns.
//!
//! A bucket fills by monotonic time and keeps the remainder of each refill, so its rate is exact in the long run. A
//! connection [takes](Pacer::take) a grant before it moves bytes, and [returns](Pacer::put_back) what it did not use. If
//! there are no tokens, it waits in the bucket's queue. One [deadline](Pacer::due) serves all buckets; when it has passed,
//! [`Pacer::wake`] hands the tokens to the waiting connections, a quantum each.
//!
//! A connection that did not use up its last grant comes before those that did, every other time. So a small request does
//! not wait for the bulk data of others, and many small ones do not stop the bulk data.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use crate::conn::ConnId;
use crate::id::Id;
use crate::time::{Span, Time};

/// How much a bucket without demand holds, as time at its rate.
const BURST: Span = Span::from_millis(20);
/// How much a bucket holds while connections wait for it: a driver that is late makes up for that.
const BACKLOG: Span = Span::from_millis(250);
/// A connection is woken when the bucket has tokens for this time.
const WAKE: Span = Span::from_millis(10);
/// A slow bucket with only bulk data to move waits longer: for [`WORTHWHILE`] bytes, but no longer than this.
const WAKE_MAX: Span = Span::from_millis(40);
/// A grant of so many bytes costs little compared with moving them.
const WORTHWHILE: u64 = 16_384;
/// The smallest share of a connection when several wait, in bytes.
const QUANTUM_MIN: u64 = 1_024;
/// The smallest share in a fast bucket, where connections get it often nevertheless.
const QUANTUM_FAST: u64 = 4_096;
/// A bucket with [`QUANTUM_FAST`] tokens for this time is fast.
const FAST: Span = Span::from_millis(1);
/// The unit of a bucket's level: a millionth of a byte, so that a refill has no remainder.
const UNIT: u64 = 1_000_000;

/// The direction of a limited stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// From clients to the hidden server.
    FromClient,
    /// From the hidden server to clients.
    FromHidden,
}

/// Names a bucket. Unlimited connections have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BucketId {
    id: Id,
    direction: Direction,
}

/// The buckets of all limited IDs.
#[derive(Clone, Debug, Default)]
pub struct Pacer {
    buckets: BTreeMap<BucketId, Bucket>,
    /// When the waiting connections of a bucket are woken.
    due: BTreeSet<(Time, BucketId)>,
}

#[derive(Clone, Debug)]
struct Bucket {
    /// Bytes per second.
    rate: u64,
    /// In [`UNIT`]s. Negative if more was charged than there was.
    level: i64,
    filled: Time,
    /// Granted bytes that were neither used nor returned.
    granted: u64,
    /// Waiting connections that did not use up their last grant.
    light: VecDeque<ConnId>,
    /// The others.
    heavy: VecDeque<ConnId>,
    /// Whether the next one comes from `light`, if both wait.
    is_light_next: bool,
    /// Its entry in [`Pacer::due`].
    due: Option<Time>,
}

/// A connection that was woken, and its grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Woken {
    /// Its bucket.
    pub of: BucketId,
    /// The connection.
    pub on: ConnId,
    /// Its grant in bytes, at least one.
    pub bytes: u64,
}

impl Pacer {
    /// Replaces the rates, in bytes per second and for each direction. Returns the waiting connections of buckets that are
    /// gone: they need no tokens any more.
    pub fn set_rates(&mut self, rates: &[(Id, u64)], now: Time) -> Vec<ConnId> {
        let mut old = core::mem::take(&mut self.buckets);
        self.due.clear();
        for &(id, rate) in rates {
            for direction in [Direction::FromClient, Direction::FromHidden] {
                let of = BucketId { id, direction };
                let mut bucket = old.remove(&of).unwrap_or_else(|| Bucket::new(now));
                bucket.fill(now);
                bucket.rate = rate.max(1);
                bucket.level = bucket.level.min(bucket.tokens_in(BURST)).max(-bucket.tokens_in(BACKLOG));
                bucket.due = None;
                self.buckets.insert(of, bucket);
                self.arm(of, now);
            }
        }
        old.into_values().flat_map(|bucket| bucket.light.into_iter().chain(bucket.heavy)).collect()
    }

    /// Whether there are no limits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// The bucket of an ID's stream; `None` if its rate is not limited.
    #[must_use]
    pub fn bucket(&self, id: Id, direction: Direction) -> Option<BucketId> {
        let of = BucketId { id, direction };
        self.buckets.contains_key(&of).then_some(of)
    }

    /// Takes a grant for a connection that has bytes to move. Returns 0 if it has to wait; it is then in the bucket's
    /// queue. `is_light`: it did not use up its last grant. A bucket that is gone grants everything.
    pub fn take(&mut self, of: BucketId, on: ConnId, is_light: bool, now: Time) -> u64 {
        let Some(bucket) = self.buckets.get_mut(&of) else { return u64::MAX };
        bucket.fill(now);
        // One that moves bulk data waits for a worthwhile grant: otherwise each call would move what came since the last.
        let least = if is_light { bucket.least() } else { bucket.worthwhile() };
        if bucket.is_idle()
            && bucket.level >= least
            && let Some(bytes) = bucket.grant(1)
        {
            return bytes;
        }
        let queue = if is_light { &mut bucket.light } else { &mut bucket.heavy };
        queue.push_back(on);
        self.arm(of, now);
        0
    }

    /// Ends a grant, and returns what was not used. `used` may be more than was granted, or negative.
    pub fn put_back(&mut self, of: BucketId, granted: u64, used: i64, now: Time) {
        let Some(bucket) = self.buckets.get_mut(&of) else { return };
        bucket.granted = bucket.granted.saturating_sub(granted);
        bucket.add(i64::try_from(granted).unwrap_or(i64::MAX).saturating_sub(used));
        self.arm(of, now);
    }

    /// Charges bytes that moved without a grant; a negative number returns bytes.
    pub fn charge(&mut self, of: BucketId, bytes: i64, now: Time) {
        if let Some(bucket) = self.buckets.get_mut(&of) {
            bucket.fill(now);
            bucket.add(bytes.saturating_neg());
            self.arm(of, now);
        }
    }

    /// Removes a waiting connection.
    pub fn forget(&mut self, of: BucketId, on: ConnId, now: Time) {
        if let Some(bucket) = self.buckets.get_mut(&of) {
            bucket.light.retain(|other| *other != on);
            bucket.heavy.retain(|other| *other != on);
            self.arm(of, now);
        }
    }

    /// When [`Pacer::wake`] is to be called next.
    #[must_use]
    pub fn due(&self) -> Option<Time> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Grants the tokens of all buckets that are due to their waiting connections.
    pub fn wake(&mut self, now: Time) -> Vec<Woken> {
        let mut woken = Vec::new();
        while let Some(&(due, of)) = self.due.first()
            && due <= now
        {
            self.due.pop_first();
            let Some(bucket) = self.buckets.get_mut(&of) else { continue };
            bucket.due = None;
            bucket.fill(now);
            let mut waiting = bucket.waiting();
            while waiting > 0
                && let Some(bytes) = bucket.grant(waiting)
                && let Some(on) = bucket.next()
            {
                woken.push(Woken { of, on, bytes });
                waiting -= 1;
            }
            self.arm(of, now);
        }
        woken
    }

    /// Sets the deadline of a bucket.
    fn arm(&mut self, of: BucketId, now: Time) {
        let Some(bucket) = self.buckets.get_mut(&of) else { return };
        let due = (!bucket.is_idle()).then(|| bucket.ready_at(now));
        if bucket.due == due {
            return;
        }
        if let Some(old) = bucket.due {
            self.due.remove(&(old, of));
        }
        if let Some(new) = due {
            self.due.insert((new, of));
        }
        bucket.due = due;
    }
}

impl Bucket {
    const fn new(now: Time) -> Self {
        Self {
            rate: 1,
            level: 0,
            filled: now,
            granted: 0,
            light: VecDeque::new(),
            heavy: VecDeque::new(),
            is_light_next: true,
            due: None,
        }
    }

    fn is_idle(&self) -> bool {
        self.light.is_empty() && self.heavy.is_empty()
    }

    fn waiting(&self) -> u64 {
        (self.light.len() + self.heavy.len()) as u64
    }

    /// The tokens of this time at the present rate, in [`UNIT`]s.
    fn tokens_in(&self, time: Span) -> i64 {
        i64::try_from(self.rate.saturating_mul(time.0)).unwrap_or(i64::MAX)
    }

    /// Adds the tokens since the last call.
    fn fill(&mut self, now: Time) {
        let elapsed = Span(now.since(self.filled).0.min(BACKLOG.0));
        self.filled = self.filled.max(now);
        let room = if self.is_idle() { BURST } else { BACKLOG };
        let granted = i64::try_from(self.granted.saturating_mul(UNIT)).unwrap_or(i64::MAX);
        // What is granted counts, so that returned bytes never exceed the burst.
        let most = self.tokens_in(room).saturating_sub(granted);
        if self.level < most {
            self.level = self.level.saturating_add(self.tokens_in(elapsed)).min(most);
        }
    }

    fn add(&mut self, bytes: i64) {
        self.level = self.level.saturating_add(bytes.saturating_mul(UNIT as i64));
    }

    /// The tokens for one grant at least, in [`UNIT`]s: smaller ones would cost more than they move.
    fn least(&self) -> i64 {
        self.tokens_in(WAKE).clamp(UNIT as i64, (QUANTUM_MIN * UNIT) as i64)
    }

    /// The tokens for a grant of bulk data, in [`UNIT`]s.
    fn worthwhile(&self) -> i64 {
        let enough = i64::try_from(WORTHWHILE * UNIT).unwrap_or(i64::MAX);
        self.tokens_in(WAKE_MAX).min(enough).max(self.tokens_in(WAKE))
    }

    /// The smallest share of a connection when several wait, in bytes.
    fn quantum(&self) -> u64 {
        let tokens = u64::try_from(self.tokens_in(FAST)).unwrap_or(u64::MAX) / UNIT;
        tokens.clamp(QUANTUM_MIN, QUANTUM_FAST)
    }

    /// Grants one of `waiting` connections its share of the tokens, if there are enough.
    fn grant(&mut self, waiting: u64) -> Option<u64> {
        if self.level < self.least() {
            return None;
        }
        let tokens = u64::try_from(self.level).unwrap_or(0) / UNIT;
        let quantum = self.quantum();
        // The rest of a round is kept for the next one, if that comes soon: the connection in this place would often get
        // less than the others.
        if waiting > 1
            && tokens < quantum
            && self.tokens_in(WAKE) >= i64::try_from(quantum * UNIT).unwrap_or(i64::MAX)
        {
            return None;
        }
        let bytes = (tokens / waiting.max(1)).max(quantum).min(tokens);
        self.level -= i64::try_from(bytes * UNIT).unwrap_or(i64::MAX);
        self.granted += bytes;
        Some(bytes)
    }

    /// Removes the waiting connection that is next.
    fn next(&mut self) -> Option<ConnId> {
        let is_light = !self.light.is_empty() && (self.is_light_next || self.heavy.is_empty());
        self.is_light_next = !is_light;
        if is_light { self.light.pop_front() } else { self.heavy.pop_front() }
    }

    /// When there are enough tokens to wake a connection, at least one.
    fn ready_at(&self, now: Time) -> Time {
        let wanted =
            if self.light.is_empty() { self.worthwhile() } else { self.tokens_in(WAKE) }.max(UNIT as i64);
        let missing = u64::try_from(wanted.saturating_sub(self.level)).unwrap_or(0);
        now.max(self.filled) + Span(missing.div_ceil(self.rate))
    }
}

#[cfg(test)]
mod tests;
