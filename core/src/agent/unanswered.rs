//! Clients that left before the local service had answered. Too many of them slow the agent down.
//!
//! A relay that accepts a connection, sends a byte and closes costs the agent a TLS handshake each time, and perhaps
//! a connection to the local service. But clients that leave early are common, and a port scan brings many. So some
//! are tolerated, answered clients make up for others, and the longest delay is short.

use super::decaying_debt::DecayingDebt;
use crate::time::{Now, Span};

/// The cost of one.
const COST: Span = Span::from_millis(500);
/// The cost doubles after this many in a row.
const ROW: u32 = 32;
/// The maximum number of doublings, to 4 s.
const DOUBLED_MAX: u32 = 3;
/// The tolerated cost: 20 of them at once.
const TOLERANCE: Span = Span::from_secs(10);
/// The maximum delay.
const PAUSE_MAX: Span = Span::from_secs(4);

/// The cost of a relay's unanswered clients.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Unanswered {
    debt: DecayingDebt,
    /// Their number since the last answered client, or since the debt was zero.
    row: u32,
}

impl Unanswered {
    /// Adds one. Returns the delay before the next connection to the relay.
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
        self.debt.subtract(COST);
    }

    /// Whether connections are opened one at a time, not the whole pool.
    pub(super) fn is_heavy(&self, now: Now) -> bool {
        self.debt.excess(Span(TOLERANCE.0 / 2), now) > Span::ZERO
    }
}
