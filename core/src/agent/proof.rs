//! How an agent proves to its relay that the ID is its own: which token comes next, and which refusal is worth an
//! attempt at once.
//!
//! A token over a challenge of the relay is sent where there is one that still lives. The relay gives a challenge with
//! each 200, so that a busy agent has one. Otherwise the token is bound to the time of the agent's own clock: that takes
//! one round trip where the clock is right, and an older relay accepts nothing else. If the relay refuses it and gives
//! a challenge, the next attempt comes at once and is over that challenge.
//!
//! No token is ever made for a time that a peer names.

use super::decaying_debt::DecayingDebt;
use crate::time::{Now, Span, Time};
use crate::token::Challenge;

/// A challenge that is older than this may be refused: the relay keeps to one for 60 s at least.
const FRESH: Span = Span::from_secs(50);
/// One attempt at once after a refusal costs this much time: so often there is one in the long run.
const RETRY_COST: Span = Span::from_secs(10);
/// Attempts at once that are allowed before that counts: three.
const RETRY_TOLERANCE: Span = Span::from_secs(20);
/// A wall clock that moved by more than this against the monotonic one was set, in seconds.
const SET_SECS: u64 = 5;

/// What a token is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// Nothing but the time: a plain token.
    Plain,
    /// The time of our own clock, and a nonce.
    Time,
    /// A challenge, and a nonce.
    Challenge {
        /// What the relay sent.
        challenge: Challenge,
        /// It came with a refusal not long ago: a relay that refuses a token over it means it.
        answers_refusal: bool,
    },
}

/// What is known of a relay's challenges and of our own clock.
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

/// What the relay thinks of the time by our own clock.
#[derive(Clone, Copy, Debug, Default)]
enum OwnClock {
    /// It has refused no token for its time.
    #[default]
    Trusted,
    /// It refused a token of our time. That may have other reasons.
    Suspected,
    /// It refused a token of our time and accepted one over a challenge. What the wall clock was ahead of the monotonic
    /// clock then, in seconds: as long as it is that, the clock is as wrong as it was.
    Wrong { ahead: i64 },
}

impl Prover {
    /// What the next token is bound to.
    pub(super) fn next(&self, now: Now) -> Proof {
        match self.given {
            Some(given) if given.is_fresh(now) => {
                Proof::Challenge { challenge: given.challenge, answers_refusal: given.with_refusal }
            }
            // It is refused most likely, but so is the other; and the refusal brings the next challenge.
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

    /// The relay refused the token. Whether it invites to another attempt: with a challenge, unless that is the answer
    /// to a token over a challenge which came the same way.
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
            // An older relay, which knows no challenges any more.
            self.given = None;
        }
        self.give(next, true, now);
        next.is_some() && !is_final
    }

    /// Takes one of the few attempts that come at once; false if there is none left for now.
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

/// How far the wall clock is ahead of the monotonic one, in seconds.
fn ahead(now: Now) -> i64 {
    let seconds = |of: u64| i64::try_from(of).unwrap_or(i64::MAX);
    seconds(now.wall) - seconds(now.mono.0 / 1_000_000)
}
