//! Connections that wait for memory, ordered so that no account can fill the queue.

use std::collections::{BTreeMap, VecDeque};

use rendezvous_core::machine::ConnId;

/// The line of one account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// The index of the account.
    pub account: u32,
    /// The rank of the account.
    pub rank: Rank,
}

/// The order in which accounts are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// Accounts without a recent stall.
    Clear,
    /// Accounts with a connection that recently lost its memory because it made no progress.
    Stalled,
}

impl Rank {
    /// All ranks, in the order in which they are served.
    pub const ALL: [Self; 2] = [Self::Clear, Self::Stalled];
}

/// One line per account, served round-robin within each rank.
#[derive(Debug, Default)]
pub struct Waiters {
    lines: BTreeMap<u32, VecDeque<ConnId>>,
    turns: [VecDeque<u32>; 2],
}

impl Waiters {
    /// Appends a connection to the line of an account. A line keeps its initial rank until it is
    /// [demoted](Waiters::demote).
    pub fn push(&mut self, Line { account, rank }: Line, on: ConnId) {
        let waiting = self.lines.entry(account).or_default();
        if waiting.is_empty() {
            self.turns[rank as usize].push_back(account);
        }
        waiting.push_back(on);
    }

    /// Whether a connection that is not waiting may take memory now, because no connection waits in its line or in one
    /// that comes before it.
    #[must_use]
    pub fn may_pass(&self, Line { account, rank }: Line) -> bool {
        self.lines.is_empty()
            || !self.lines.contains_key(&account)
                && Rank::ALL.into_iter().filter(|it| *it <= rank).all(|it| self.turns[it as usize].is_empty())
    }

    /// Whether no connection waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Number of lines of this rank.
    #[must_use]
    pub fn lines(&self, rank: Rank) -> usize {
        self.turns[rank as usize].len()
    }

    /// The first connection of the current line of this rank.
    #[must_use]
    pub fn first(&self, rank: Rank) -> Option<ConnId> {
        self.lines.get(self.turns[rank as usize].front()?)?.front().copied()
    }

    /// Removes the first connection of the current line and advances to the next line.
    pub fn pop(&mut self, rank: Rank) {
        let turns = &mut self.turns[rank as usize];
        let Some(account) = turns.pop_front() else { return };
        if let Some(waiting) = self.lines.get_mut(&account) {
            waiting.pop_front();
            if waiting.is_empty() {
                self.lines.remove(&account);
            } else {
                turns.push_back(account);
            }
        }
    }

    /// Advances to the next line of this rank.
    pub fn skip(&mut self, rank: Rank) {
        let turns = &mut self.turns[rank as usize];
        turns.rotate_left(usize::from(turns.len() > 1));
    }

    /// Moves the current line of the first rank to the second rank.
    pub fn demote(&mut self) {
        let [clear, stalled] = &mut self.turns;
        stalled.extend(clear.pop_front());
    }

    /// Removes connections that no longer wait. Returns the first late connection of each line, with the number of late
    /// ones.
    pub fn late(
        &mut self,
        mut is_waiting: impl FnMut(ConnId) -> bool,
        is_late: impl Fn(ConnId) -> bool,
    ) -> Vec<(ConnId, usize)> {
        let mut late = Vec::new();
        self.lines.retain(|_, waiting| {
            waiting.retain(|&on| is_waiting(on));
            let mut of_line = waiting.iter().copied().filter(|&on| is_late(on));
            if let Some(first) = of_line.next() {
                late.push((first, 1 + of_line.count()));
            }
            !waiting.is_empty()
        });
        for turns in &mut self.turns {
            turns.retain(|account| self.lines.contains_key(account));
        }
        late
    }

    /// Releases unused capacity.
    pub fn shrink(&mut self) {
        self.turns.iter_mut().for_each(VecDeque::shrink_to_fit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn conn(index: u32) -> ConnId {
        ConnId { index, generation: 1 }
    }

    const fn line(account: u32, rank: Rank) -> Line {
        Line { account, rank }
    }

    /// The next `n` connections to be resumed.
    fn called(waiters: &mut Waiters, rank: Rank, n: usize) -> Vec<u32> {
        let mut order = Vec::new();
        for _ in 0..n {
            let Some(first) = waiters.first(rank) else { break };
            order.push(first.index);
            waiters.pop(rank);
        }
        order
    }

    #[test]
    fn accounts_take_turns_however_many_wait_in_one_line() {
        let mut waiters = Waiters::default();
        (0..1_000).for_each(|index| waiters.push(line(1, Rank::Clear), conn(index)));
        waiters.push(line(2, Rank::Clear), conn(5_000));
        waiters.push(line(3, Rank::Clear), conn(6_000));
        assert_eq!(called(&mut waiters, Rank::Clear, 6), [0, 5_000, 6_000, 1, 2, 3]);
        assert_eq!(waiters.lines(Rank::Clear), 1);
    }

    #[test]
    fn a_newcomer_passes_those_that_come_after_it_only() {
        let mut waiters = Waiters::default();
        assert!(waiters.may_pass(line(1, Rank::Stalled)));
        waiters.push(line(1, Rank::Stalled), conn(1));
        assert!(waiters.may_pass(line(2, Rank::Clear)));
        assert!(!waiters.may_pass(line(2, Rank::Stalled)) && !waiters.may_pass(line(1, Rank::Clear)));
        waiters.push(line(3, Rank::Clear), conn(3));
        assert!(!waiters.may_pass(line(2, Rank::Clear)));
    }

    #[test]
    fn a_demoted_line_comes_after_the_others() {
        let mut waiters = Waiters::default();
        (0..3).for_each(|account| waiters.push(line(account, Rank::Clear), conn(account)));
        waiters.demote();
        assert_eq!(called(&mut waiters, Rank::Clear, 3), [1, 2]);
        assert_eq!(called(&mut waiters, Rank::Stalled, 3), [0]);
        assert!(waiters.is_empty());
    }

    #[test]
    fn late_ones_are_counted_by_line_and_those_that_left_are_forgotten() {
        let mut waiters = Waiters::default();
        (0..10).for_each(|index| waiters.push(line(1, Rank::Clear), conn(index)));
        waiters.push(line(2, Rank::Clear), conn(20));
        waiters.push(line(3, Rank::Stalled), conn(30));
        let late = waiters.late(|on| on.index % 10 < 4 && on.index != 20, |on| on.index >= 2);
        assert_eq!(late, [(conn(2), 2), (conn(30), 1)]);
        assert_eq!((waiters.lines(Rank::Clear), waiters.lines(Rank::Stalled)), (1, 1));
        assert_eq!(called(&mut waiters, Rank::Clear, 9), [0, 1, 2, 3]);
    }
}
