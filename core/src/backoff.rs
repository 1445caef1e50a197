//! How long to wait before the next attempt: exponential back-off with jitter, and nothing about what is attempted.

use crate::entropy::Entropy;
use crate::time::Span;

/// The longest `Retry-After` that is kept to, however long a peer asks for: a wrong or hostile one keeps nobody away for
/// longer than the back-off does by itself.
const RETRY_AFTER_MAX: Span = Span::from_secs(60);

/// The longest delay while a peer has been unreachable for a short time: it may be restarting, and an attempt costs
/// neither side more than a few packets.
const RESTART_DELAY_MAX: Span = Span::from_millis(1_800);
/// So many attempts are made at that pace, which is about a minute, before the delay doubles again.
const RESTART_ATTEMPTS: u32 = 40;

/// The bounds of a back-off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// The shortest delay after a failure to connect; default 0.5 s.
    pub first: Span,
    /// The shortest delay after a refusal, which seldom passes by itself; default 4 s.
    pub first_refused: Span,
    /// The longest delay, but for a `Retry-After`, which is kept to for up to 60 s and a quarter more; default 60 s.
    pub max: Span,
}

impl Default for Retry {
    fn default() -> Self {
        Self { first: Span::from_millis(500), first_refused: Span::from_secs(4), max: Span::from_secs(60) }
    }
}

/// What went wrong, as far as the pace of further attempts goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ErrorClass {
    /// No connection came about: a restart or a lost route, which may be over in a moment.
    Unreachable,
    /// It may be over in a moment: a lack of room, a broken connection. With the peer's `Retry-After`.
    Failure(Option<Span>),
    /// Somebody has to change something first. With the peer's `Retry-After`.
    Refusal(Option<Span>),
}

/// The back-off towards one peer.
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

    /// What was attempted succeeded, and lasted.
    pub(crate) fn reset(&mut self) {
        self.ceiling = Span::ZERO;
        self.unreachable = 0;
    }

    /// The delay after one more failure: evenly spread over the upper third of a range that doubles each time, so
    /// that many who failed at once do not come back at once.
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
