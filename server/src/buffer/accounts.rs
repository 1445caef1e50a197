//! How much memory each account uses.

use std::collections::BTreeMap;

use rendezvous_core::account::{Account, Owners};
use slab::Slab;

/// The accounts of one connection, by their places in the table of accounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charged {
    peer: Option<u32>,
    server: Option<u32>,
}

#[derive(Debug)]
struct Entry {
    /// `None` for the one that stands for connections without an account.
    account: Option<Account>,
    /// All bytes that it is charged with.
    used: usize,
    /// Those of them that are in queues.
    queued: usize,
    /// Connections that are charged to it.
    connections: usize,
}

/// A table of accounts. One that uses nothing, and that no connection is charged to, is removed.
#[derive(Debug)]
pub(super) struct Accounts {
    entries: Slab<Entry>,
    places: BTreeMap<Account, u32>,
}

/// The place of the entry for connections without an account.
const UNATTRIBUTED: u32 = 0;

impl Charged {
    /// No account that is known.
    pub const NOBODY: Self = Self { peer: Some(UNATTRIBUTED), server: None };

    fn places(self) -> impl Iterator<Item = u32> {
        self.peer.into_iter().chain(self.server)
    }
}

impl Accounts {
    pub(super) fn new() -> Self {
        let mut entries = Slab::new();
        entries.insert(Entry { account: None, used: 0, queued: 0, connections: 1 });
        Self { entries, places: BTreeMap::new() }
    }

    /// A connection is charged to these from now on.
    pub(super) fn open(&mut self, owners: Owners) -> Charged {
        if owners == Owners::default() {
            return Charged::NOBODY;
        }
        let Owners { peer, server } = owners;
        Charged { peer: peer.map(|it| self.entry(it)), server: server.map(|it| self.entry(it)) }
    }

    /// A connection is no longer charged to these.
    pub(super) fn close(&mut self, charged: Charged) {
        for place in charged.places().filter(|&place| place != UNATTRIBUTED) {
            self.entries[place as usize].connections -= 1;
            self.remove_if_unused(place);
        }
    }

    /// `before` bytes of a connection became `after`.
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

    /// What the account uses that uses less, and its place.
    pub(super) fn least(&self, charged: Charged) -> (usize, u32) {
        let used = charged.places().map(|place| (self.entries[place as usize].used, place));
        used.min().unwrap_or((0, UNATTRIBUTED))
    }

    /// What the queues of the account take whose queues take less.
    pub(super) fn least_queued(&self, charged: Charged) -> usize {
        charged.places().map(|place| self.entries[place as usize].queued).min().unwrap_or(0)
    }

    pub(super) fn shrink(&mut self) {
        self.entries.shrink_to_fit();
    }

    /// How many accounts there are.
    #[cfg(debug_assertions)]
    pub(super) fn count(&self) -> usize {
        self.places.len()
    }

    fn entry(&mut self, account: Account) -> u32 {
        let place = *self.places.entry(account).or_insert_with(|| {
            let entry = Entry { account: Some(account), used: 0, queued: 0, connections: 0 };
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
