//! Counters of a relay since its start, for metrics. None of them is labelled with anything that a peer chooses.

use crate::http::reply::Status;
use crate::http::reply::diagnostic::{BUSY, DENIED, DISABLED, FULL, OFFLINE, QUOTA, STOPPING, TAKEN_OVER};
use crate::time::Span;

/// Counters since the start; they only increase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Completed TLS handshakes.
    pub handshakes: u64,
    /// Pairs that began.
    pub pairs: u64,
    /// How long clients waited from their complete request until it was handed over for the first time.
    pub hand_overs: Histogram,
}

/// The upper bounds of a [`Histogram`]'s buckets, inclusive.
pub const BOUNDS: [Span; 10] = [
    Span::from_millis(1),
    Span::from_millis(5),
    Span::from_millis(10),
    Span::from_millis(50),
    Span::from_millis(100),
    Span::from_millis(250),
    Span::from_millis(500),
    Span::from_secs(1),
    Span::from_millis(2_500),
    Span::from_secs(5),
];

/// A histogram of times with the buckets of [`BOUNDS`] and one for what is longer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// The number of times in each bucket, without those of the buckets before it.
    buckets: [u64; BOUNDS.len() + 1],
    sum: Span,
}

impl Histogram {
    /// Adds a time.
    pub fn add(&mut self, time: Span) {
        let bucket = BOUNDS.iter().position(|bound| time <= *bound).unwrap_or(BOUNDS.len());
        self.buckets[bucket] += 1;
        self.sum = self.sum + time;
    }

    /// The number of times up to each bound, and of all times, in ascending order.
    #[must_use]
    pub fn cumulative(&self) -> [u64; BOUNDS.len() + 1] {
        let mut all = 0;
        self.buckets.map(|bucket| {
            all += bucket;
            all
        })
    }

    /// The sum of all times.
    #[must_use]
    pub const fn sum(&self) -> Span {
        self.sum
    }
}

/// Why a request was refused: a fixed list, for the labels of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RefusalReason {
    /// Not HTTP, malformed, or of another version.
    Malformed,
    /// A head, a line or a number of fields beyond the limit.
    TooLarge,
    /// The head did not arrive in time.
    Timeout,
    /// A hidden server's token was missing.
    NoToken,
    /// A hidden server's ID or token is unknown, wrong or used.
    Unauthorized,
    /// Too many failures with plain tokens.
    TooManyFailures,
    /// The target may not be used in this way.
    Forbidden,
    /// No hidden server has this ID or label, or it has been away for long.
    NotFound,
    /// The connection is for another hidden server.
    Misdirected,
    /// The hidden server was connected a short time ago.
    Offline,
    /// All connections of the hidden server are in use.
    Busy,
    /// The relay is full.
    Full,
    /// The relay is shutting down, or another process takes over.
    Stopping,
    /// The operator has disabled the hidden server.
    Disabled,
    /// The operator admits no clients from the address.
    Denied,
    /// The quota of the month is used up.
    Quota,
    /// Another limit of the ID.
    Limit,
    /// The hidden server's connection failed before its response.
    HandOverFailed,
}

impl RefusalReason {
    /// All reasons.
    pub const ALL: [Self; 18] = [
        Self::Malformed,
        Self::TooLarge,
        Self::Timeout,
        Self::NoToken,
        Self::Unauthorized,
        Self::TooManyFailures,
        Self::Forbidden,
        Self::NotFound,
        Self::Misdirected,
        Self::Offline,
        Self::Busy,
        Self::Full,
        Self::Stopping,
        Self::Disabled,
        Self::Denied,
        Self::Quota,
        Self::Limit,
        Self::HandOverFailed,
    ];

    /// The reason of an [`Event::Refused`](crate::event::Event::Refused) with this status and diagnostic.
    #[must_use]
    pub fn of(status: Status, why: &str) -> Self {
        match status {
            _ if why == DISABLED => Self::Disabled,
            _ if why == DENIED => Self::Denied,
            Status::BadRequest400 | Status::Conflict409 | Status::VersionNotSupported505 => Self::Malformed,
            Status::UriTooLong414 | Status::HeadTooLarge431 => Self::TooLarge,
            Status::Timeout408 => Self::Timeout,
            Status::ProxyAuthRequired407 => Self::NoToken,
            Status::Unauthorized401 => Self::Unauthorized,
            Status::TooManyRequests429 => Self::TooManyFailures,
            Status::Forbidden403 => Self::Forbidden,
            Status::NotFound404 => Self::NotFound,
            Status::Misdirected421 => Self::Misdirected,
            Status::BadGateway502 => Self::HandOverFailed,
            Status::SwitchingProtocols101 | Status::Ok200 | Status::Unavailable503 => match why {
                OFFLINE => Self::Offline,
                BUSY => Self::Busy,
                FULL => Self::Full,
                STOPPING | TAKEN_OVER => Self::Stopping,
                QUOTA => Self::Quota,
                _ => Self::Limit,
            },
        }
    }

    /// The reason as the value of a label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
            Self::Timeout => "timeout",
            Self::NoToken => "no_token",
            Self::Unauthorized => "unauthorized",
            Self::TooManyFailures => "too_many_failures",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::Misdirected => "misdirected",
            Self::Offline => "offline",
            Self::Busy => "busy",
            Self::Full => "full",
            Self::Stopping => "stopping",
            Self::Disabled => "disabled",
            Self::Denied => "denied",
            Self::Quota => "quota",
            Self::Limit => "limit",
            Self::HandOverFailed => "hand_over_failed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_counts_in_the_first_bucket_that_holds_it_and_in_all_after_it() {
        let mut histogram = Histogram::default();
        for time in [Span::ZERO, BOUNDS[0], BOUNDS[0] + Span(1), BOUNDS[9] + Span(1)] {
            histogram.add(time);
        }
        assert_eq!(histogram.cumulative(), [2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 4]);
        assert_eq!(histogram.sum(), Span(2 * BOUNDS[0].0 + 1 + BOUNDS[9].0 + 1));
        assert!(BOUNDS.is_sorted());
    }

    #[test]
    fn each_reason_has_a_label_of_its_own() {
        let labels = RefusalReason::ALL.map(RefusalReason::label);
        for (at, label) in labels.iter().enumerate() {
            assert!(!labels[..at].contains(label), "{label}");
            assert!(label.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
        }
        assert!(RefusalReason::ALL.is_sorted(), "each reason is its own index");
    }
}
