//! Connections that wait for memory, in an order that no account can fill.

use std::collections::{BTreeMap, VecDeque};

use rendezvous_core::machine::ConnId;

/// One line for each account, and the accounts in turn.
#[derive(Debug, Default)]
pub struct Waiters {
    lines: BTreeMap<u32, VecDeque<ConnId>>,
    turns: VecDeque<u32>,
}

impl Waiters {
    /// A connection waits in the line of an account.
    pub fn push(&mut self, line: u32, on: ConnId) {
        let waiting = self.lines.entry(line).or_default();
        if waiting.is_empty() {
            self.turns.push_back(line);
        }
        waiting.push_back(on);
    }

    /// Whether somebody waits in the line of an account.
    #[must_use]
    pub fn has(&self, line: u32) -> bool {
        !self.lines.is_empty() && self.lines.contains_key(&line)
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// How many accounts have a line.
    #[must_use]
    pub fn lines(&self) -> usize {
        self.turns.len()
    }

    /// The line whose turn it is and its first connection. [`Waiters::next`] ends the turn.
    #[must_use]
    pub fn first(&self) -> Option<ConnId> {
        self.lines.get(self.turns.front()?)?.front().copied()
    }

    /// Removes the first connection of the line whose turn it is.
    pub fn pop(&mut self) {
        let Some(&line) = self.turns.front() else { return };
        if let Some(waiting) = self.lines.get_mut(&line) {
            waiting.pop_front();
            if waiting.is_empty() {
                self.lines.remove(&line);
                self.turns.pop_front();
            }
        }
    }

    /// The next account has its turn.
    pub fn next(&mut self) {
        self.turns.rotate_left(usize::from(self.turns.len() > 1));
    }

    /// All that wait.
    pub fn iter(&self) -> impl Iterator<Item = ConnId> + '_ {
        self.lines.values().flatten().copied()
    }

    /// Gives back what many waiters have left behind.
    pub fn shrink(&mut self) {
        self.turns.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn conn(index: u32) -> ConnId {
        ConnId { index, generation: 1 }
    }

    #[test]
    fn accounts_take_turns_however_many_wait_in_one_line() {
        let mut waiters = Waiters::default();
        (0..1_000).for_each(|index| waiters.push(1, conn(index)));
        waiters.push(2, conn(5_000));
        waiters.push(3, conn(6_000));
        let mut order = Vec::new();
        for _ in 0..6 {
            let Some(first) = waiters.first() else { break };
            order.push(first.index);
            let lines = waiters.lines();
            waiters.pop();
            // The turn is over with the line, if nobody is left in it.
            if waiters.lines() == lines {
                waiters.next();
            }
        }
        assert_eq!(order, [0, 5_000, 6_000, 1, 2, 3]);
        assert!(waiters.has(1) && !waiters.has(2) && !waiters.has(3));
        assert_eq!(waiters.iter().count(), 996);
    }
}
