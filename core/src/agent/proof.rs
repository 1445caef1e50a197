//! How an agent authenticates to its relay: what the next token is bound to, and which refusals are followed by an
//! immediate retry.
//!
//! If a challenge of the relay is available and has not expired, the token is bound to it. The relay sends a
//! challenge with each 200, so that a busy agent has one. Otherwise the token is bound to the time of the agent's own
//! clock: that takes one round trip if the clock is right, and an older relay accepts nothing else. If the relay
//! refuses it and sends a challenge, the next attempt is made at once with that challenge.
//!
//! A token is never made for a time that a peer sends.

use super::decaying_debt::DecayingDebt;
use crate::time::{Now, Span, Time};
use crate::token::Challenge;

/// The age beyond which a challenge may be refused: the relay accepts it for at least 60 s.
const FRESH: Span = Span::from_secs(50);
/// The cost of an immediate retry after a refusal, which is the long-term interval.
const RETRY_COST: Span = Span::from_secs(10);
/// The tolerance of such costs: seven immediate retries. A relay that is upgraded several times in a row refuses the
/// challenges of the process before.
const RETRY_TOLERANCE: Span = Span::from_secs(60);
/// A wall clock that moved by more than this against the monotonic one was set, in seconds.
const SET_SECS: u64 = 5;

/// What a token is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// Only the time: a plain token.
    Plain,
    /// The time of our own clock, and a nonce.
    Time,
    /// A challenge, and a nonce.
    Challenge {
        /// The relay's challenge.
        challenge: Challenge,
        /// Whether it came with a recent refusal. If the relay refuses a token over it, the refusal is final.
        answers_refusal: bool,
    },
}

/// The state of a relay's challenges and of our own clock.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Prover {
    /// The newest challenge.
    given: Option<Given>,
    clock: OwnClock,
    retries: DecayingDebt,
}

#[derive(Clone, Copy, Debug)]
struct Given {
    challenge: Challenge,
    at: Time,
    with_refusal: bool,
}

/// Whether the relay agrees with our own clock.
#[derive(Clone, Copy, Debug, Default)]
enum OwnClock {
    /// It has refused no token because of its time.
    #[default]
    Trusted,
    /// It refused a token of our time, possibly for another reason.
    Suspected,
    /// It refused a token of our time and accepted one over a challenge. `ahead` is the difference of the wall clock
    /// and the monotonic clock then, in seconds; while it does not change, the clock is still wrong.
    Wrong { ahead: i64 },
}

impl Prover {
    /// What the next token is bound to.
    pub(super) fn next(&self, now: Now) -> Proof {
        match self.given {
            Some(given) if given.is_fresh(now) => {
                Proof::Challenge { challenge: given.challenge, answers_refusal: given.with_refusal }
            }
            // It is probably refused, but so is a token of our time; and the refusal brings the next challenge.
            Some(given) if self.clock.is_wrong(now) => {
                Proof::Challenge { challenge: given.challenge, answers_refusal: false }
            }
            Some(_) | None => Proof::Time,
        }
    }

    /// The relay accepted the token.
    pub(super) fn accepted(&mut self, proof: Proof, next: Option<Challenge>, now: Now) {
        match (proof, self.clock) {
            (Proof::Plain, _) => return,
            (Proof::Time, _) => self.clock = OwnClock::Trusted,
            (Proof::Challenge { .. }, OwnClock::Suspected) => {
                self.clock = OwnClock::Wrong { ahead: ahead(now) }
            }
            (Proof::Challenge { .. }, OwnClock::Trusted | OwnClock::Wrong { .. }) => {}
        }
        self.give(next, false, now);
    }

    /// The relay refused the token. Returns whether to retry: it sent a challenge, and the token was not over a
    /// challenge that came with a refusal.
    pub(super) fn refused(&mut self, proof: Proof, next: Option<Challenge>, now: Now) -> bool {
        let is_final = match proof {
            Proof::Plain => return false,
            Proof::Time => {
                if next.is_some() && !self.clock.is_wrong(now) {
                    self.clock = OwnClock::Suspected;
                }
                false
            }
            Proof::Challenge { answers_refusal, .. } => {
                if answers_refusal && matches!(self.clock, OwnClock::Suspected) {
                    self.clock = OwnClock::Trusted;
                }
                answers_refusal
            }
        };
        if next.is_none() {
            // An older relay, without challenges.
            self.given = None;
        }
        self.give(next, true, now);
        next.is_some() && !is_final
    }

    /// Takes one of the few immediate retries. Returns false if none is left for now.
    pub(super) fn take_retry(&mut self, now: Now) -> bool {
        let is_left = self.retries.excess(RETRY_TOLERANCE, now) == Span::ZERO;
        if is_left {
            self.retries.add(RETRY_COST, now);
        }
        is_left
    }

    fn give(&mut self, next: Option<Challenge>, with_refusal: bool, now: Now) {
        if let Some(challenge) = next {
            self.given = Some(Given { challenge, at: now.mono, with_refusal });
        }
    }
}

impl Given {
    fn is_fresh(&self, now: Now) -> bool {
        now.mono.since(self.at) < FRESH
    }
}

impl OwnClock {
    fn is_wrong(self, now: Now) -> bool {
        matches!(self, Self::Wrong { ahead: then } if then.abs_diff(ahead(now)) <= SET_SECS)
    }
}

/// The difference of the wall clock and the monotonic one, in seconds.
fn ahead(now: Now) -> i64 {
    let seconds = |of: u64| i64::try_from(of).unwrap_or(i64::MAX);
    seconds(now.wall) - seconds(now.mono.0 / 1_000_000)
}
