//! The queues of connections with work to do: start-time fair queueing over accounts.
//!
//! Each entry has a start tag: the number of the round in which it is served. An account's next connection gets the
//! round after its last one (Goyal, Vin and Cheng, 'Start-time fair queueing', 1996, with turns of equal cost). New and
//! old connections of an account have rounds of their own ([`Age`](crate::buffer::Age)). So a connection waits for at
//! most two turns of each other account, however many connections those have, and a new one for no old one of its own.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rendezvous_core::machine::ConnId;

/// Limit of connections without bulk data that are served in one turn. Then those that have become ready in the meantime
/// are queued, by account.
const SERVES_MAX: usize = 64;

/// Connections with work to do.
#[derive(Debug, Default)]
pub(super) struct ReadyQueues {
    /// Those without bulk data.
    light: BinaryHeap<Entry>,
    /// Those that move bulk data. They are served after those of `light` that a turn serves.
    bulk: BinaryHeap<Entry>,
    /// The highest round of a connection that was served.
    round: u64,
    /// Number of entries so far: entries of one round are served in the order in which they were added.
    entered: u64,
}

/// Round, position and connection.
type Entry = Reverse<(u64, u64, ConnId)>;

/// What a connection is going to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    Light,
    Bulk,
}

impl ReadyQueues {
    /// Adds a connection. `schedule` gets the present round and returns the round of the connection.
    pub(super) fn push(&mut self, on: ConnId, work: Work, schedule: impl FnOnce(u64) -> u64) {
        let round = schedule(self.round);
        self.entered += 1;
        let entry = Reverse((round, self.entered, on));
        self.of(work).push(entry);
    }

    /// Removes the next connection with this kind of work.
    pub(super) fn pop(&mut self, work: Work) -> Option<ConnId> {
        let Reverse((round, _, on)) = self.of(work).pop()?;
        self.round = self.round.max(round);
        Some(on)
    }

    /// Number of connections that this turn may serve.
    pub(super) fn of_turn(&self, work: Work) -> usize {
        match work {
            Work::Light => self.light.len().min(SERVES_MAX),
            Work::Bulk => self.bulk.len(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.light.is_empty() && self.bulk.is_empty()
    }

    pub(super) fn shrink(&mut self) {
        self.light.shrink_to_fit();
        self.bulk.shrink_to_fit();
    }

    const fn of(&mut self, work: Work) -> &mut BinaryHeap<Entry> {
        match work {
            Work::Light => &mut self.light,
            Work::Bulk => &mut self.bulk,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn conn(index: u32) -> ConnId {
        ConnId { index, generation: 1 }
    }

    /// Accounts by number, with the next round of each.
    fn schedule(next: &mut u64) -> impl FnOnce(u64) -> u64 {
        move |round| {
            let at = round.max(*next);
            *next = at + 1;
            at
        }
    }

    fn served(queues: &mut ReadyQueues, work: Work, n: usize) -> Vec<u32> {
        (0..n).map_while(|_| queues.pop(work)).map(|on| on.index).collect()
    }

    #[test]
    fn a_connection_waits_for_one_turn_of_each_other_account() {
        let (mut queues, mut many, mut few) = (ReadyQueues::default(), 0, 0);
        (0..1_000).for_each(|index| queues.push(conn(index), Work::Light, schedule(&mut many)));
        assert_eq!(served(&mut queues, Work::Light, 3), [0, 1, 2]);
        queues.push(conn(5_000), Work::Light, schedule(&mut few));
        queues.push(conn(5_001), Work::Light, schedule(&mut few));
        assert_eq!(served(&mut queues, Work::Light, 4), [5_000, 3, 5_001, 4]);
    }

    #[test]
    fn rounds_of_light_work_do_not_put_an_account_back_in_the_bulk_queue_for_ever() {
        let (mut queues, mut active, mut other) = (ReadyQueues::default(), 0, 0);
        for index in 0..1_000 {
            queues.push(conn(index), Work::Light, schedule(&mut active));
            assert_eq!(served(&mut queues, Work::Light, 1), [index]);
        }
        queues.push(conn(1), Work::Bulk, schedule(&mut active));
        for _ in 0..3 {
            queues.push(conn(2), Work::Bulk, schedule(&mut other));
        }
        assert_eq!(served(&mut queues, Work::Bulk, 4), [2, 1, 2, 2]);
    }

    #[test]
    fn connections_of_one_round_are_served_in_their_order() {
        let mut queues = ReadyQueues::default();
        (0..100).for_each(|index| queues.push(conn(index), Work::Light, |round| round));
        assert_eq!(queues.of_turn(Work::Light), SERVES_MAX);
        assert_eq!(served(&mut queues, Work::Light, 100), (0..100).collect::<Vec<_>>());
        assert!(queues.is_empty());
    }
}
