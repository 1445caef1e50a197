//! Time as numbers that the driver passes with every call.

use core::ops::{Add, Sub};

/// A point on the driver's monotonic clock, in microseconds since an origin that the driver chooses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

/// A length of time in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub u64);

/// Both clocks at the time of an event.
///
/// Deadlines follow `mono` only; `wall` is for tokens (RFC 6238) and `Date` fields (RFC 9110 §5.6.7) only,
/// so a wall clock that is set while the program runs moves no deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// The monotonic clock.
    pub mono: Time,
    /// The wall clock: whole seconds since 1970-01-01T00:00:00Z, without leap seconds.
    pub wall: u64,
}

impl Span {
    /// The empty span.
    pub const ZERO: Self = Self(0);

    /// A span of whole milliseconds; saturates at the largest span.
    #[must_use]
    pub const fn from_millis(ms: u64) -> Self {
        Self(ms.saturating_mul(1_000))
    }

    /// A span of whole seconds; saturates at the largest span.
    #[must_use]
    pub const fn from_secs(s: u64) -> Self {
        Self(s.saturating_mul(1_000_000))
    }

    /// Whole milliseconds, rounded up, so that a sleep of that length never ends early.
    #[must_use]
    pub const fn as_millis_up(self) -> u64 {
        self.0.div_ceil(1_000)
    }

    /// Whole seconds, rounded up: the value of a `Retry-After` field.
    #[must_use]
    pub const fn as_secs_up(self) -> u64 {
        self.0.div_ceil(1_000_000)
    }
}

impl Time {
    /// How long ago `earlier` was; zero if it is not earlier.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

impl Add for Span {
    type Output = Self;

    /// Saturates at the largest span.
    fn add(self, span: Self) -> Self {
        Self(self.0.saturating_add(span.0))
    }
}

impl Add<Span> for Time {
    type Output = Self;

    /// Saturates: a deadline that cannot be represented never comes.
    fn add(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.0))
    }
}

impl Sub<Span> for Time {
    type Output = Self;

    /// Saturates at the origin.
    fn sub(self, span: Span) -> Self {
        Self(self.0.saturating_sub(span.0))
    }
}
