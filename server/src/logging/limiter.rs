//! Rate limit for log lines that peers cause.

use rendezvous_core::time::{Span, Time};

/// Size of a burst, in seconds of the rate.
const BURST_SECS: u64 = 5;
/// Minimum interval between two reports of suppressed lines.
const SAID_EVERY: Span = Span::from_secs(1);

/// A token bucket for lines: `rate` per second, and five times as many in a burst.
#[derive(Clone, Debug)]
pub struct Limiter {
    /// Lines per second; 0: no limit.
    rate: u32,
    /// Millionths of lines in the bucket.
    room: u64,
    /// When `room` was last updated.
    at: Time,
    /// Lines suppressed since the last report, and its time.
    left_out: u64,
    said: Time,
    /// Total of suppressed lines.
    total: u64,
}

impl Limiter {
    /// Makes a bucket that is full at time 0.
    #[must_use]
    pub const fn new(rate: u32) -> Self {
        Self { rate, room: Self::room_max(rate), at: Time(0), left_out: 0, said: Time(0), total: 0 }
    }

    /// Sets the rate and fills the bucket.
    pub const fn set_rate(&mut self, rate: u32) {
        self.rate = rate;
        self.room = Self::room_max(rate);
    }

    /// Whether a line may be written now. Otherwise it is counted as suppressed.
    pub fn take(&mut self, now: Time) -> bool {
        self.fill(now);
        if self.rate == 0 {
            return true;
        }
        match self.room.checked_sub(1_000_000) {
            Some(room) => self.room = room,
            None => {
                self.left_out += 1;
                self.total += 1;
                return false;
            }
        }
        true
    }

    /// Number of lines suppressed since the last report; 0 if there are none, or less than a second after the last
    /// report.
    pub fn catch_up(&mut self, now: Time) -> u64 {
        if self.left_out == 0 || now < self.said + SAID_EVERY {
            return 0;
        }
        self.said = now;
        std::mem::take(&mut self.left_out)
    }

    /// Total of suppressed lines.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.total
    }

    const fn room_max(rate: u32) -> u64 {
        rate as u64 * BURST_SECS * 1_000_000
    }

    fn fill(&mut self, now: Time) {
        let gained = now.since(self.at).0.saturating_mul(u64::from(self.rate));
        self.room = self.room.saturating_add(gained).min(Self::room_max(self.rate));
        self.at = now;
    }
}
