//! The monotonic and the wall clock. Only this module reads them.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rendezvous_core::time::{Now, Time};

/// A monotonic clock that starts at zero.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// Starts the clock at zero.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the place that the ban leaves for it")]
    pub fn start() -> Self {
        Self { origin: Instant::now() }
    }

    /// Reads both clocks.
    #[must_use]
    pub fn now(&self) -> Now {
        let mono = u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX);
        Now { mono: Time(mono), wall: wall() }
    }
}

/// The system's wall clock, in seconds since 1970 (UTC); 0 for a time before 1970. On a router it may be far off.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the place that the ban leaves for it")]
pub fn wall() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
