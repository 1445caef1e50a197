//! How many log lines peers may cause.

use rendezvous_core::time::{Span, Time};

/// So many seconds' lines may come at once.
const BURST_SECS: u64 = 5;
/// How often it is said how many lines were left out.
const SAID_EVERY: Span = Span::from_secs(1);

/// A token bucket for lines: so many a second, and five times as many at once.
#[derive(Clone, Debug)]
pub struct Limiter {
    /// Lines a second; 0: no limit.
    rate: u32,
    /// Millionths of lines that there is room for.
    room: u64,
    /// When `room` was right.
    at: Time,
    /// Lines left out since that was last said, and when it was.
    left_out: u64,
    said: Time,
    /// Lines left out in all.
    total: u64,
}

impl Limiter {
    /// A bucket that is full at the time 0.
    #[must_use]
    pub const fn new(rate: u32) -> Self {
        Self { rate, room: Self::room_max(rate), at: Time(0), left_out: 0, said: Time(0), total: 0 }
    }

    /// Another rate, with a full bucket.
    pub const fn set_rate(&mut self, rate: u32) {
        self.rate = rate;
        self.room = Self::room_max(rate);
    }

    /// Whether a line may be written at this time; otherwise it is counted.
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

    /// How many lines were left out since it was asked last; 0 for none, and within a second after the last answer.
    pub fn catch_up(&mut self, now: Time) -> u64 {
        if self.left_out == 0 || now < self.said + SAID_EVERY {
            return 0;
        }
        self.said = now;
        std::mem::take(&mut self.left_out)
    }

    /// How many lines were left out in all.
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
