//! Both clocks: the one place that reads them.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rendezvous_core::time::{Now, Time};

/// The monotonic clock, from its start.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// Starts at zero.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the place that the ban leaves for it")]
    pub fn start() -> Self {
        Self { origin: Instant::now() }
    }

    /// What both clocks say.
    #[must_use]
    pub fn now(&self) -> Now {
        let mono = u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX);
        Now { mono: Time(mono), wall: wall() }
    }
}

/// Seconds since 1970 (UTC) as the system has them, which on a router may be far off; 0 for a clock before 1970.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the place that the ban leaves for it")]
pub fn wall() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
