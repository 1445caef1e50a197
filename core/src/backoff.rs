//! Exponential backoff with jitter, independent of what is retried.

use crate::entropy::Entropy;
use crate::time::Span;

/// The longest `Retry-After` that is obeyed. A wrong or hostile value delays for no longer than the backoff itself
/// does.
const RETRY_AFTER_MAX: Span = Span::from_secs(60);

/// The longest delay while a peer has been unreachable for a short time. It may be restarting, and an attempt costs a
/// few packets only.
const RESTART_DELAY_MAX: Span = Span::from_millis(1_800);
/// The number of attempts at that delay, about a minute, before the delay doubles again.
const RESTART_ATTEMPTS: u32 = 40;

/// The bounds of a backoff.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// The minimum delay after a failure to connect; default 0.5 s.
    pub first: Span,
    /// The minimum delay after a refusal, which is seldom transient; default 4 s.
    pub first_refused: Span,
    /// The maximum delay; default 60 s. A `Retry-After` of up to 60 s may exceed it by a quarter.
    pub max: Span,
}

impl Default for Retry {
    fn default() -> Self {
        Self { first: Span::from_millis(500), first_refused: Span::from_secs(4), max: Span::from_secs(60) }
    }
}

/// The class of an error, as far as the backoff depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ErrorClass {
    /// No connection was established: a restart or a lost route, often transient.
    Unreachable,
    /// A transient failure: the relay is full, or the connection broke. Has the peer's `Retry-After`.
    Failure(Option<Span>),
    /// A failure that needs an operator. Has the peer's `Retry-After`.
    Refusal(Option<Span>),
}

/// The backoff of one peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    bounds: Retry,
    /// The upper bound of the last delay; zero after a success.
    ceiling: Span,
    /// Attempts since the last success that found the peer unreachable.
    unreachable: u32,
}

impl Backoff {
    pub(crate) const fn new(bounds: Retry) -> Self {
        Self { bounds, ceiling: Span::ZERO, unreachable: 0 }
    }

    /// Resets the delay after a success that lasted.
    pub(crate) fn reset(&mut self) {
        self.ceiling = Span::ZERO;
        self.unreachable = 0;
    }

    /// The delay after one more failure: uniform in the upper third of a range that doubles each time. The jitter
    /// keeps clients that failed together from returning together.
    pub(crate) fn next(&mut self, class: ErrorClass, entropy: &mut Entropy) -> Span {
        let (first, retry_after) = match class {
            ErrorClass::Unreachable => (self.bounds.first, None),
            ErrorClass::Failure(retry_after) => (self.bounds.first, retry_after),
            ErrorClass::Refusal(retry_after) => (self.bounds.first_refused, retry_after),
        };
        let floor = Span(first.0.saturating_add(first.0 / 2));
        let doubled = Span(self.ceiling.0.saturating_mul(2)).max(floor).min(self.bounds.max);
        self.ceiling = match class {
            ErrorClass::Unreachable if self.unreachable < RESTART_ATTEMPTS => {
                self.unreachable += 1;
                doubled.min(RESTART_DELAY_MAX)
            }
            ErrorClass::Unreachable | ErrorClass::Failure(_) | ErrorClass::Refusal(_) => doubled,
        };
        let third = self.ceiling.0 / 3;
        let delay = Span(self.ceiling.0 - entropy.below(third + 1));
        let asked = retry_after.unwrap_or(Span::ZERO).min(RETRY_AFTER_MAX);
        delay.max(Span(asked.0 + entropy.below(asked.0 / 4 + 1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_is_unreachable_is_tried_every_two_seconds_for_a_minute_and_seldom_after_an_hour() {
        let mut backoff = Backoff::new(Retry::default());
        let mut entropy = Entropy::new([7; 32]);
        let mut sum = 0;
        while sum < 40_000_000 {
            let delay = backoff.next(ErrorClass::Unreachable, &mut entropy);
            assert!(delay <= Span::from_secs(2), "{delay:?}");
            sum += delay.0;
        }
        let late = (0..60).map(|_| backoff.next(ErrorClass::Unreachable, &mut entropy)).last();
        assert!(late.is_some_and(|late| late >= Span::from_secs(40)), "{late:?}");
        backoff.reset();
        assert!(backoff.next(ErrorClass::Unreachable, &mut entropy) < Span::from_secs(1));
        assert!(backoff.next(ErrorClass::Failure(None), &mut entropy) < Span::from_secs(2));
        assert!(backoff.next(ErrorClass::Failure(None), &mut entropy) >= Span::from_secs(2), "doubled");
    }
}
