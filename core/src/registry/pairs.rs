//! The number of pairs of each ID, and of each client address within it.

use alloc::collections::BTreeMap;

use crate::id::Id;
use crate::limiter::Source;

/// The pairs of all IDs. They are kept apart from an ID's entry, since they outlive it if the operator removes the
/// ID.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    of_id: BTreeMap<Id, OfId>,
}

#[derive(Debug, Default)]
struct OfId {
    all: u32,
    of_source: BTreeMap<Source, u32>,
}

impl Pairs {
    pub(super) fn of(&self, id: Id) -> u32 {
        self.of_id.get(&id).map_or(0, |pairs| pairs.all)
    }

    pub(super) fn of_source(&self, id: Id, source: Source) -> u32 {
        self.of_id.get(&id).and_then(|pairs| pairs.of_source.get(&source)).copied().unwrap_or(0)
    }

    pub(super) fn begin(&mut self, id: Id, source: Source) {
        let pairs = self.of_id.entry(id).or_default();
        pairs.all += 1;
        *pairs.of_source.entry(source).or_insert(0) += 1;
    }

    pub(super) fn end(&mut self, id: Id, source: Source) {
        let Some(pairs) = self.of_id.get_mut(&id) else { return };
        pairs.all -= 1;
        if let Some(of_source) = pairs.of_source.get_mut(&source) {
            *of_source -= 1;
            if *of_source == 0 {
                pairs.of_source.remove(&source);
            }
        }
        if pairs.all == 0 {
            self.of_id.remove(&id);
        }
    }
}
