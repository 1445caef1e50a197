//! Bounds the number of unauthenticated connections in a given state.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use crate::machine::ConnId;

/// The connections that entered one state, in the order in which they entered it. Entries of connections that have left
/// the state are removed when the queue is full.
#[derive(Debug, Default)]
pub(crate) struct AdmissionQueue {
    came: Vec<ConnId>,
}

impl AdmissionQueue {
    /// One more comes in, of `max` at most. When so many have come, those that have left are forgotten, and if more
    /// than three quarters are still there, the oldest of them are returned: they have to go, so that who is slow, or
    /// never meant to go on, makes room for who is not. `is_there`: whether one has not left yet.
    ///
    /// Its cost is constant: between two looks at all of them a quarter of `max` comes.
    pub(crate) fn enter(
        &mut self,
        on: ConnId,
        max: u32,
        mut is_there: impl FnMut(ConnId) -> bool,
    ) -> Vec<ConnId> {
        let max = max.max(1) as usize;
        let mut gone = Vec::new();
        if self.came.len() >= max {
            // Whoever left and came again counts once, and is as old as its last coming: else one connection alone
            // would be a crowd.
            let mut seen = BTreeSet::new();
            seen.insert(on);
            self.came.reverse();
            self.came.retain(|&on| is_there(on) && seen.insert(on));
            self.came.reverse();
            let stay = max - max.div_ceil(4);
            let excess = self.came.len().saturating_sub(stay);
            gone = self.came.drain(..excess).collect();
            self.came.shrink_to(max);
        }
        self.came.push(on);
        gone
    }
}
