//! The size of the pool of waiting connections, which grows while clients use all of them and shrinks when no client
//! comes.

use crate::http::pool::PoolState;
use crate::time::{Now, Span, Time};

/// If no client comes for this long, the pool shrinks to its configured size.
pub(super) const IDLE: Span = Span::from_secs(60);

/// A pool whose size follows demand.
///
/// It grows in two ways. When clients have taken as many connections as the pool has, and none waits, the size
/// doubles. And if the relay reports how many clients it holds, as many connections are opened at once; these do not
/// wait, so the size does not change.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pool {
    least: u32,
    most: u32,
    size: u32,
    /// Connections taken since the size was changed.
    taken: u32,
    /// When the last client came.
    taken_at: Time,
    /// The maximum number of waiting connections, as far as the relay has reported since the pool was shrunk. One
    /// more would replace a waiting one.
    waiting_max: u32,
}

impl Pool {
    /// A pool of `least` connections that grows up to `most`.
    pub(super) fn new(least: u16, most: u16) -> Self {
        let least = u32::from(least.max(1));
        let most = u32::from(most).max(least);
        Self { least, most, size: least, taken: 0, taken_at: Time(0), waiting_max: u32::MAX }
    }

    /// Whether the pool can grow.
    pub(super) const fn grows(&self) -> bool {
        self.most > self.least
    }

    /// A client has taken a connection, and `waiting` still wait.
    pub(super) fn on_taken(&mut self, waiting: u32, now: Now) {
        self.taken_at = now.mono;
        self.taken = self.taken.saturating_add(1);
        if waiting == 0 && self.taken >= self.size {
            self.taken = 0;
            self.size = self.size.saturating_mul(2).min(self.most);
        }
    }

    /// Handles the state that the relay reports with a new connection, the last of `waiting`.
    pub(super) fn on_state(&mut self, state: PoolState, waiting: u32) {
        // Clients may have taken some of the connections that wait here already.
        self.waiting_max = self.waiting_max.min(waiting.saturating_add(state.room));
    }

    /// The relay has ended a connection cleanly, and `left` still wait. If these are enough, the relay has replaced
    /// it because it has no room for so many: the size shrinks. Returns whether that is so.
    pub(super) fn is_replaced(&mut self, left: u32) -> bool {
        let is_replaced = left >= self.least;
        if is_replaced {
            self.size = self.size.min(left);
            self.waiting_max = left;
        }
        is_replaced
    }

    /// How many connections to open, if `connecting` are being established, `waiting` wait, and the relay holds
    /// `held` clients. In total there are at most twice as many as the pool may grow to, whatever the relay reports.
    pub(super) fn lacking(&self, connecting: u32, waiting: u32, held: u32) -> u32 {
        let size = self.size.min(self.waiting_max).max(self.least);
        let for_held = if self.grows() { held.min(self.most) } else { 0 };
        let there = connecting + waiting;
        let for_held = for_held.saturating_sub(connecting).min((size + self.most).saturating_sub(there));
        size.saturating_sub(there).max(for_held)
    }

    /// When the pool shrinks if no client comes until then; `None` if it has its configured size.
    pub(super) fn shrinks_at(&self, waiting: u32) -> Option<Time> {
        (self.size.max(waiting) > self.least).then(|| self.taken_at + IDLE)
    }

    /// Shrinks to the configured size. Returns how many connections stay.
    pub(super) fn shrink(&mut self) -> usize {
        (self.size, self.taken, self.waiting_max) = (self.least, 0, u32::MAX);
        self.least as usize
    }
}
