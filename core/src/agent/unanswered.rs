//! Clients that were gone before the local service had answered. Too many of them slow the agent down.
//!
//! A relay that accepts a connection, sends a byte and closes costs the agent a TLS handshake each time, and perhaps a
//! connection to the local service. But clients that go early are ordinary, and a port scan brings many of them: so some
//! are forgiven at once, answered clients make up for others, and the longest pause is short.

use super::decaying_debt::DecayingDebt;
use crate::time::{Now, Span};

/// What the first of them cost.
const COST: Span = Span::from_millis(500);
/// After so many in a row the cost is doubled.
const ROW: u32 = 32;
/// How often it is doubled at most: then it is 4 s.
const DOUBLED_MAX: u32 = 3;
/// What is forgiven: 20 of them at once.
const TOLERANCE: Span = Span::from_secs(10);
/// The longest pause.
const PAUSE_MAX: Span = Span::from_secs(4);

/// What the clients of a relay that got no answer have cost.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Unanswered {
    debt: DecayingDebt,
    /// How many there were since the last answered one, or since all was forgiven.
    row: u32,
}

impl Unanswered {
    /// One more. How long to wait before the next connection to the relay.
    pub(super) fn add(&mut self, now: Now) -> Span {
        if self.debt.is_none(now) {
            self.row = 0;
        }
        let cost = Span(COST.0 << (self.row / ROW).min(DOUBLED_MAX));
        self.row = self.row.saturating_add(1);
        self.debt.add(cost, now);
        self.debt.cap(TOLERANCE + PAUSE_MAX, now);
        self.debt.excess(TOLERANCE, now)
    }

    /// The local service has answered a client.
    pub(super) fn answered(&mut self) {
        self.row = 0;
        self.debt.relieve(COST);
    }

    /// Whether connections are opened one by one, not by the pool.
    pub(super) fn is_heavy(&self, now: Now) -> bool {
        self.debt.excess(Span(TOLERANCE.0 / 2), now) > Span::ZERO
    }
}
