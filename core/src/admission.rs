//! Bounds the number of unauthenticated connections in a given state, fairly by address.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::cmp::Reverse;

use crate::limiter::Source;
use crate::machine::ConnId;

/// The connections that entered one state, in the order in which they entered it.
///
/// Entries of connections that have left the state are removed lazily, when the queue is full. If too many are left
/// then, the oldest connections of the addresses with the most connections in the state are displaced: an address
/// with many connections displaces its own, and an address with few keeps them as long as another has more.
#[derive(Clone, Debug, Default)]
pub(crate) struct AdmissionQueue {
    entered: Vec<ConnId>,
}

impl AdmissionQueue {
    /// A queue without connections.
    pub(crate) const fn new() -> Self {
        Self { entered: Vec::new() }
    }

    /// Adds a connection to a queue of at most `max`, and returns the connections that must leave the state.
    ///
    /// `source` is the address of a connection that is in the state, and `None` for one that has left it.
    ///
    /// If the queue is full and more than three quarters of its connections are still in the state, the rest of them
    /// are returned. So a look at all entries, which costs O(`max` log `max`), happens once in `max / 4` calls.
    pub(crate) fn enter(
        &mut self,
        on: ConnId,
        max: u32,
        source: impl FnMut(ConnId) -> Option<Source>,
    ) -> Vec<ConnId> {
        let max = max.max(1) as usize;
        let displaced = if self.entered.len() >= max {
            self.keep(max - max.div_ceil(4), Some(on), source)
        } else {
            Vec::new()
        };
        self.entered.shrink_to(max);
        self.entered.push(on);
        displaced
    }

    /// Keeps at most `stay` connections that are in the state, and returns those that must leave it. `newest` is about
    /// to be added and counts for its address.
    pub(crate) fn keep(
        &mut self,
        stay: usize,
        newest: Option<ConnId>,
        mut source: impl FnMut(ConnId) -> Option<Source>,
    ) -> Vec<ConnId> {
        let mut of_source = BTreeMap::<Source, u32>::new();
        let mut seen = BTreeSet::new();
        if let Some(newest) = newest {
            seen.insert(newest);
            of_source.extend(source(newest).map(|source| (source, 1)));
        }
        // From the newest to the oldest: a connection that left and entered again counts once, since its last entry.
        let mut present = Vec::new();
        for &on in self.entered.iter().rev() {
            let Some(source) = source(on) else { continue };
            if seen.insert(on) {
                let newer = of_source.entry(source).or_insert(0);
                present.push((*newer, on));
                *newer += 1;
            }
        }
        present.reverse();
        let excess = present.len().saturating_sub(stay);
        let mut displaced = Vec::new();
        if excess > 0 {
            // The more newer connections its address has, the earlier a connection is displaced. Of equals, the
            // oldest is first.
            let mut order: Vec<_> =
                present.iter().enumerate().map(|(age, &(newer, on))| (Reverse(newer), age, on)).collect();
            order.sort_unstable();
            displaced.extend(order.iter().take(excess).map(|&(.., on)| on));
        }
        let gone: BTreeSet<ConnId> = displaced.iter().copied().collect();
        self.entered = present.into_iter().map(|(_, on)| on).filter(|on| !gone.contains(on)).collect();
        displaced
    }
}

#[cfg(test)]
mod tests {
    use core::net::{IpAddr, Ipv4Addr};

    use super::*;

    /// A state whose connections have an address each; `None` for one that has left.
    #[derive(Default)]
    struct State {
        queue: AdmissionQueue,
        sources: Vec<Option<u32>>,
    }

    impl State {
        /// A connection of an address enters. Returns the addresses of those that must leave.
        fn enter(&mut self, address: u32, max: u32) -> Vec<u32> {
            let index = u32::try_from(self.sources.len()).expect("few");
            self.sources.push(Some(address));
            let sources = &self.sources;
            let gone = self.queue.enter(ConnId { index, generation: 1 }, max, |on| {
                let address = sources[on.index as usize]?;
                Some(Source::from(IpAddr::V4(Ipv4Addr::from_bits(address))))
            });
            gone.into_iter().filter_map(|on| self.sources[on.index as usize].take()).collect()
        }

        fn of(&self, address: u32) -> usize {
            self.sources.iter().filter(|source| **source == Some(address)).count()
        }
    }

    #[test]
    fn one_address_displaces_its_own_connections_and_no_others() {
        for attackers in [1_000, 4_000] {
            let mut state = State::default();
            state.enter(1, 800);
            for _ in 0..attackers {
                assert!(state.enter(2, 800).iter().all(|address| *address == 2));
            }
            assert_eq!(state.of(1), 1, "the connection of the other address stays");
            assert!((600..=800).contains(&state.of(2)), "{}", state.of(2));
        }
    }

    #[test]
    fn an_address_keeps_what_it_has_while_another_has_more() {
        let mut state = State::default();
        for round in 0..4_000_u32 {
            // Forty attackers, and one honest client that enters again from time to time and never leaves.
            state.enter(100 + round % 40, 200);
            if round % 400 == 0 {
                state.enter(1, 200);
            }
            assert_eq!(state.of(1), (round as usize / 400 + 1).min(3), "in round {round}");
            if state.of(1) == 3 {
                return;
            }
        }
        panic!("it never had three");
    }

    #[test]
    fn many_addresses_displace_at_most_the_difference() {
        let mut state = State::default();
        for _ in 0..30 {
            state.enter(1, 100);
        }
        for address in 0..1_000 {
            state.enter(1_000 + address % 50, 100);
        }
        // 51 addresses share 100 places, about two each.
        assert!((1..=3).contains(&state.of(1)), "{}", state.of(1));
    }

    #[test]
    fn of_one_address_the_oldest_goes_first() {
        let mut state = State::default();
        for _ in 0..9 {
            state.enter(1, 8);
        }
        let first_present = state.sources.iter().position(Option::is_some);
        assert_eq!(first_present, Some(2), "six of eight stay, and the new one comes");
    }

    #[test]
    fn the_queue_is_never_longer_than_its_limit() {
        let mut state = State::default();
        for address in 0..10_000 {
            state.enter(address % 7, 64);
            assert!(state.queue.entered.len() <= 64 && state.queue.entered.capacity() <= 128);
        }
    }
}
