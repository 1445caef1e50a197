//! Bounds the bytes that the system holds unsent for each half of a pair.
//!
//! The send buffer of a socket grows to megabytes, and a pair has one on each hop. Over a slow path all of them fill up:
//! they take memory that every connection needs, and bytes that are sent now arrive many seconds later. So each half of
//! a pair has a limit of unsent bytes (TCP_NOTSENT_LOWAT), which is what its path carries in a quarter of a second. While
//! the socket of a slow path is full, nothing is received for it: its sender's window closes, and stays small.
//!
//! For a fast path receiving goes on: what is received meanwhile keeps the path busy while the one before it makes up
//! for a loss.

use rendezvous_core::time::{Span, Time};

/// The least limit, in bytes.
const MIN: usize = 64 * 1024;
/// The limit of a new pair, and the greatest one of a slow path, in bytes.
const SLOW: usize = 128 * 1024;
/// The greatest limit, in bytes.
const MAX: usize = 4 * 1024 * 1024;
/// The part of a second for which the limit holds enough to send.
const PER_SECOND: u64 = 4;
/// The least time between two changes of the limit. If the path carries much more than the limit allows for, the limit
/// is doubled after this time.
const GROWTH_MIN: Span = Span::from_millis(5);
/// What a path carries is measured for at least this long before its limit is set to it.
const MEASURED_MIN: Span = Span::from_millis(100);

/// The limit of unsent bytes of one connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UnsentLimit {
    /// In bytes.
    bytes: usize,
    /// Since when it is measured what the path carries; `None` if the socket has taken everything so far.
    since: Option<Time>,
    /// Bytes that the socket has taken since then.
    taken: u64,
}

impl UnsentLimit {
    /// The limit of a new pair.
    pub(crate) const NEW: Self = Self { bytes: SLOW, since: None, taken: 0 };

    /// In bytes.
    pub(crate) const fn bytes(self) -> usize {
        self.bytes
    }

    /// The socket has taken so many bytes.
    pub(crate) const fn on_taken(&mut self, bytes: usize) {
        self.taken = self.taken.saturating_add(bytes as u64);
    }

    /// The socket is full. Returns the new limit in bytes if it changes.
    pub(crate) fn on_full(&mut self, now: Time) -> Option<usize> {
        let Some(since) = self.since else {
            (self.since, self.taken) = (Some(now), 0);
            return None;
        };
        let time = now.since(since);
        if time < GROWTH_MIN {
            return None;
        }
        let carried = self.taken.saturating_mul(1_000_000 / PER_SECOND) / time.0;
        let carried = usize::try_from(carried).unwrap_or(MAX).clamp(MIN, MAX).next_power_of_two();
        let bytes = if carried > self.bytes {
            self.bytes * 2
        } else if time < MEASURED_MIN {
            return None;
        } else {
            carried
        };
        (self.since, self.taken) = (Some(now), 0);
        let is_new = std::mem::replace(&mut self.bytes, bytes) != bytes;
        is_new.then_some(bytes)
    }

    /// Whether the path carries little.
    pub(crate) const fn is_slow(self) -> bool {
        self.bytes <= SLOW
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Time = Time(1_000_000);

    /// What becomes of the limit of a path that carries so many bytes a second, in an attempt each `tick`.
    fn settled(limit: &mut UnsentLimit, now: &mut Time, rate: u64, tick: Span, times: u32) -> usize {
        for _ in 0..times {
            *now = *now + tick;
            limit.on_taken(usize::try_from(rate * tick.0 / 1_000_000).unwrap());
            limit.on_full(*now);
        }
        limit.bytes
    }

    #[test]
    fn a_limit_follows_what_the_path_carries() {
        let (mut limit, mut now) = (UnsentLimit::NEW, START);
        limit.on_full(now);
        let tick = Span::from_millis(25);
        for (rate, expected) in [
            (20_000, MIN),
            (500_000, SLOW),
            (1_000_000, 256 * 1024),
            (4_000_000, 1024 * 1024),
            (1_000_000_000, MAX),
            (4_000_000, 1024 * 1024),
            (2_000_000, 512 * 1024),
            (1_000_000, 256 * 1024),
            (20_000, MIN),
        ] {
            assert_eq!(settled(&mut limit, &mut now, rate, tick, 40), expected, "{rate} bytes a second");
            assert_eq!(limit.is_slow(), expected <= SLOW);
        }
    }

    #[test]
    fn the_limit_of_a_fast_path_grows_in_a_few_milliseconds() {
        let (mut limit, mut now) = (UnsentLimit::NEW, START);
        assert_eq!(limit.on_full(now), None);
        assert_eq!(settled(&mut limit, &mut now, 1_000_000_000, Span::from_millis(1), 30), MAX);
    }

    #[test]
    fn what_was_taken_before_the_socket_was_full_does_not_count() {
        let mut limit = UnsentLimit::NEW;
        limit.on_taken(4 * MAX);
        assert_eq!(limit.on_full(START), None);
        assert_eq!(limit.on_full(START + MEASURED_MIN), Some(MIN));
    }
}
