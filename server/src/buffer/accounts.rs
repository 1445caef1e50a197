//! Memory use by account.

use std::collections::BTreeMap;

use rendezvous_core::account::{Account, Owners};
use rendezvous_core::time::Time;
use slab::Slab;

/// The accounts of one connection, as indices into the table of accounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charged {
    peer: Option<u32>,
    server: Option<u32>,
}

/// Whether a connection is new to the event loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// It has had few turns: enough for a handshake and a request.
    New,
    /// It has had more.
    Old,
}

#[derive(Debug)]
struct Entry {
    /// `None` for the entry of connections without an account.
    account: Option<Account>,
    /// Bytes charged to the account.
    used: usize,
    /// Those of `used` that are in queues.
    queued: usize,
    /// Number of connections charged to the account.
    connections: usize,
    /// When one of its connections last lost its memory because it made no progress.
    stalled: Option<Time>,
    /// The first round that is free for its next connection with work to do, by [`Age`].
    next_rounds: [u64; 2],
}

/// The table of accounts. An account that uses nothing and has no connections is removed.
#[derive(Debug)]
pub(super) struct Accounts {
    entries: Slab<Entry>,
    places: BTreeMap<Account, u32>,
}

/// Index of the entry for connections without an account.
const UNATTRIBUTED: u32 = 0;

impl Charged {
    /// The accounts of a connection whose peer is unknown.
    pub const NOBODY: Self = Self { peer: Some(UNATTRIBUTED), server: None };

    fn places(self) -> impl Iterator<Item = u32> {
        self.peer.into_iter().chain(self.server)
    }
}

impl Accounts {
    pub(super) fn new() -> Self {
        let mut entries = Slab::new();
        entries.insert(Entry {
            account: None,
            used: 0,
            queued: 0,
            connections: 1,
            stalled: None,
            next_rounds: [0; 2],
        });
        Self { entries, places: BTreeMap::new() }
    }

    /// Charges a connection to these accounts from now on.
    pub(super) fn open(&mut self, owners: Owners) -> Charged {
        if owners == Owners::default() {
            return Charged::NOBODY;
        }
        let Owners { peer, server } = owners;
        Charged { peer: peer.map(|it| self.entry(it)), server: server.map(|it| self.entry(it)) }
    }

    /// Stops charging a connection to these accounts.
    pub(super) fn close(&mut self, charged: Charged) {
        for place in charged.places().filter(|&place| place != UNATTRIBUTED) {
            self.entries[place as usize].connections -= 1;
            self.remove_if_unused(place);
        }
    }

    /// Changes a connection's charge from `before` to `after` bytes.
    pub(super) fn charge(&mut self, charged: Charged, before: usize, after: usize, is_queue: bool) {
        for place in charged.places() {
            let entry = &mut self.entries[place as usize];
            entry.used = entry.used - before + after;
            if is_queue {
                entry.queued = entry.queued - before + after;
            }
            if entry.used == 0 {
                self.remove_if_unused(place);
            }
        }
    }

    /// The smaller use of the two accounts, in bytes.
    pub(super) fn least(&self, charged: Charged) -> usize {
        charged.places().map(|place| self.entries[place as usize].used).min().unwrap_or(0)
    }

    /// The preferred account of the two (its index), and whether it has stalled. Accounts that have not stalled come
    /// first, then those that use less.
    pub(super) fn better(&self, charged: Charged) -> (u32, bool) {
        let key = |place: u32| {
            let entry = &self.entries[place as usize];
            (entry.stalled.is_some(), entry.used, place)
        };
        charged.places().map(key).min().map_or((UNATTRIBUTED, false), |(stalled, _, place)| (place, stalled))
    }

    /// The smaller queue use of the two accounts, in bytes. An account that has stalled counts as using at least
    /// `stalled_min`.
    pub(super) fn least_queued(&self, charged: Charged, stalled_min: usize) -> usize {
        let queued = |place: u32| {
            let entry = &self.entries[place as usize];
            if entry.stalled.is_some() { entry.queued.max(stalled_min) } else { entry.queued }
        };
        charged.places().map(queued).min().unwrap_or(0)
    }

    /// Marks the accounts as stalled: a connection of theirs has lost its memory.
    pub(super) fn note_stalled(&mut self, charged: Charged, now: Time) {
        for place in charged.places().filter(|&place| place != UNATTRIBUTED) {
            self.entries[place as usize].stalled = Some(now);
        }
    }

    /// Clears the marks of accounts that stalled before this time.
    pub(super) fn clear_stalled(&mut self, before: Time) {
        for (_, entry) in &mut self.entries {
            entry.stalled = entry.stalled.filter(|&at| at >= before);
        }
    }

    /// The round in which a connection with these accounts is served next, and not before `round`. An account is served
    /// once a round for its new connections, and once for its old ones, so that a new one does not wait for thousands
    /// that are busy with other requests. A connection has two accounts, and the one that was served less decides: the clients of one
    /// address delay no other address, and the clients of one hidden server delay no other hidden server, even behind
    /// one address. Connections without an account are not delayed.
    pub(super) fn schedule(&mut self, charged: Charged, age: Age, round: u64) -> u64 {
        let attributed = || charged.places().filter(|&place| place != UNATTRIBUTED);
        let next = attributed().map(|place| self.entries[place as usize].next_rounds[age as usize]).min();
        let at = next.unwrap_or(0).max(round);
        for place in attributed() {
            let next = &mut self.entries[place as usize].next_rounds[age as usize];
            *next = (at + 1).max(*next);
        }
        at
    }

    pub(super) fn shrink(&mut self) {
        self.entries.shrink_to_fit();
    }

    /// Number of accounts.
    #[cfg(debug_assertions)]
    pub(super) fn count(&self) -> usize {
        self.places.len()
    }

    fn entry(&mut self, account: Account) -> u32 {
        let place = *self.places.entry(account).or_insert_with(|| {
            let entry = Entry {
                account: Some(account),
                used: 0,
                queued: 0,
                connections: 0,
                stalled: None,
                next_rounds: [0; 2],
            };
            u32::try_from(self.entries.insert(entry)).unwrap_or_else(|_| unreachable!("2³² accounts"))
        });
        self.entries[place as usize].connections += 1;
        place
    }

    fn remove_if_unused(&mut self, place: u32) {
        if let Entry { account: Some(account), used: 0, connections: 0, .. } = self.entries[place as usize] {
            self.entries.remove(place as usize);
            self.places.remove(&account);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn owners(host: u8) -> Owners {
        Owners::of_peer(Some(SocketAddr::from(([192, 0, 2, host], 1))))
    }

    #[test]
    fn a_new_connection_does_not_wait_for_the_old_ones_of_its_account() {
        let mut accounts = Accounts::new();
        let (many, other) = (accounts.open(owners(1)), accounts.open(owners(2)));
        for round in 0..1_000 {
            assert_eq!(accounts.schedule(many, Age::Old, 0), round);
        }
        assert_eq!(accounts.schedule(many, Age::New, 3), 3);
        assert_eq!(accounts.schedule(many, Age::New, 3), 4, "new ones wait for each other");
        assert_eq!(accounts.schedule(other, Age::Old, 3), 3, "another account waits for neither");
        assert_eq!(accounts.schedule(many, Age::Old, 3), 1_000);
    }
}
