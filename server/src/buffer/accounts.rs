//! How much memory each account uses.

use std::collections::BTreeMap;

use rendezvous_core::account::{Account, Owners};
use rendezvous_core::time::Time;
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
    /// When one of its connections last lost its memory because it made no progress.
    stalled: Option<Time>,
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
        entries.insert(Entry { account: None, used: 0, queued: 0, connections: 1, stalled: None });
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

    /// What the account uses that uses less.
    pub(super) fn least(&self, charged: Charged) -> usize {
        charged.places().map(|place| self.entries[place as usize].used).min().unwrap_or(0)
    }

    /// The better one of the two accounts, as its place, and whether it has stalled: one that has not comes before one
    /// that has, and of two such accounts the one that uses less.
    pub(super) fn better(&self, charged: Charged) -> (u32, bool) {
        let key = |place: u32| {
            let entry = &self.entries[place as usize];
            (entry.stalled.is_some(), entry.used, place)
        };
        charged.places().map(key).min().map_or((UNATTRIBUTED, false), |(stalled, _, place)| (place, stalled))
    }

    /// What the queues of the account take whose queues take less. An account that has stalled counts as one that uses
    /// at least `stalled_min`.
    pub(super) fn least_queued(&self, charged: Charged, stalled_min: usize) -> usize {
        let queued = |place: u32| {
            let entry = &self.entries[place as usize];
            if entry.stalled.is_some() { entry.queued.max(stalled_min) } else { entry.queued }
        };
        charged.places().map(queued).min().unwrap_or(0)
    }

    /// A connection of these accounts has lost its memory.
    pub(super) fn note_stalled(&mut self, charged: Charged, now: Time) {
        for place in charged.places().filter(|&place| place != UNATTRIBUTED) {
            self.entries[place as usize].stalled = Some(now);
        }
    }

    /// Forgets what stalled before this time.
    pub(super) fn forgive(&mut self, before: Time) {
        for (_, entry) in &mut self.entries {
            entry.stalled = entry.stalled.filter(|&at| at >= before);
        }
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
            let entry = Entry { account: Some(account), used: 0, queued: 0, connections: 0, stalled: None };
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
