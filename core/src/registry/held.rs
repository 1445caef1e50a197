//! The clients held for one ID, shared fairly by address.

use alloc::collections::{BTreeMap, VecDeque};

use crate::conn::ConnId;
use crate::limiter::Source;

/// Held clients. Addresses take turns; for one address, the client that came first is served first.
#[derive(Debug, Default)]
pub(super) struct Held {
    of_source: BTreeMap<Source, VecDeque<ConnId>>,
    /// Each address that has a client, in the order in which they are served.
    turns: VecDeque<Source>,
    len: usize,
}

/// The result of holding a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holding {
    /// The client is held.
    Held,
    /// The client is held, and this one is removed, whose address had the most clients.
    Displaced(ConnId),
    /// The client is not held: no other address has more clients than its own.
    Refused,
}

impl Held {
    pub(super) const fn new() -> Self {
        Self { of_source: BTreeMap::new(), turns: VecDeque::new(), len: 0 }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Holds a client; at most `max` are held. If the queue is full, the last client of the address with the most
    /// clients is removed in favour of an address with fewer.
    pub(super) fn hold(&mut self, on: ConnId, source: Source, max: u32) -> Holding {
        let mut holding = Holding::Held;
        if self.len >= max as usize {
            let own = self.of_source.get(&source).map_or(0, VecDeque::len);
            let largest = self.of_source.iter().max_by_key(|(_, clients)| clients.len());
            let Some((&largest, _)) = largest.filter(|(_, clients)| clients.len() > own + 1) else {
                return Holding::Refused;
            };
            let Some(last) = self.of_source.get(&largest).and_then(|clients| clients.back().copied()) else {
                return Holding::Refused;
            };
            self.remove(last, largest);
            holding = Holding::Displaced(last);
        }
        let clients = self.of_source.entry(source).or_default();
        if clients.is_empty() {
            self.turns.push_back(source);
        }
        clients.push_back(on);
        self.len += 1;
        holding
    }

    /// Removes and returns the client that is next.
    pub(super) fn release(&mut self) -> Option<ConnId> {
        let source = self.turns.pop_front()?;
        let clients = self.of_source.get_mut(&source)?;
        let first = clients.pop_front()?;
        self.len -= 1;
        if clients.is_empty() {
            self.of_source.remove(&source);
        } else {
            self.turns.push_back(source);
        }
        Some(first)
    }

    /// Removes a client.
    pub(super) fn remove(&mut self, on: ConnId, source: Source) {
        let Some(clients) = self.of_source.get_mut(&source) else { return };
        let Some(place) = clients.iter().position(|held| *held == on) else { return };
        clients.remove(place);
        self.len -= 1;
        if clients.is_empty() {
            self.of_source.remove(&source);
            self.turns.retain(|turn| *turn != source);
        }
    }

    /// All clients, by address.
    pub(super) fn into_ids(self) -> impl Iterator<Item = ConnId> {
        self.of_source.into_values().flatten()
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;
    use core::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn on(index: u32) -> ConnId {
        ConnId { index, generation: 1 }
    }

    fn source(address: u32) -> Source {
        Source::from(IpAddr::V4(Ipv4Addr::from_bits(address)))
    }

    #[test]
    fn addresses_take_turns_and_each_is_served_in_its_order() {
        let mut held = Held::new();
        for (index, address) in [7, 7, 7, 8, 9].into_iter().enumerate() {
            let on = on(u32::try_from(index).expect("few"));
            assert_eq!(held.hold(on, source(address), 10), Holding::Held);
        }
        let order: Vec<_> = core::iter::from_fn(|| held.release()).map(|on| on.index).collect();
        assert_eq!(order, [0, 3, 4, 1, 2]);
        assert_eq!(held.len(), 0);
    }

    #[test]
    fn a_full_queue_has_room_for_an_address_with_fewer_clients() {
        let mut held = Held::new();
        for index in 0..4 {
            held.hold(on(index), source(7), 4);
        }
        assert_eq!(held.hold(on(10), source(7), 4), Holding::Refused);
        assert_eq!(held.hold(on(11), source(8), 4), Holding::Displaced(on(3)));
        assert_eq!(held.hold(on(12), source(8), 4), Holding::Displaced(on(2)));
        assert_eq!(held.hold(on(13), source(8), 4), Holding::Refused, "both have two");
        assert_eq!(held.hold(on(14), source(9), 4), Holding::Displaced(on(12)), "the last of equals");
        assert_eq!(held.len(), 4);
    }

    #[test]
    fn a_client_that_left_is_not_served_and_its_address_has_no_turn() {
        let mut held = Held::new();
        held.hold(on(0), source(7), 4);
        held.hold(on(1), source(8), 4);
        held.remove(on(0), source(7));
        held.remove(on(0), source(7));
        assert_eq!((held.release(), held.release(), held.len()), (Some(on(1)), None, 0));
    }
}
