//! Quotas: bytes of an ID in a calendar month (UTC), both directions together.

use std::collections::{BTreeMap, BTreeSet};

use rendezvous_core::engine::Snapshot;
use rendezvous_core::http::date::civil;
use rendezvous_core::id::Id;

use crate::ids::Ids;

/// What the IDs with a quota have used in the present month. It is kept in memory: a restart begins at zero.
#[derive(Debug, Default)]
pub(super) struct Quotas {
    /// Months since year 0.
    month: Option<u64>,
    /// The totals at the beginning of the month.
    before: BTreeMap<Id, u64>,
    used_up: BTreeSet<Id>,
}

impl Quotas {
    /// Whether the quota of an ID is used up.
    pub(super) fn is_used_up(&self, id: Id) -> bool {
        self.used_up.contains(&id)
    }

    /// Compares the totals since the start with the quotas. `wall`: seconds since 1970. Returns whether an ID has used up
    /// its quota, or has one again.
    pub(super) fn update(&mut self, ids: &Ids, snapshot: &Snapshot, wall: u64) -> bool {
        let total = |id: Id| {
            let place = snapshot.ids.binary_search_by_key(&id, |of| of.id);
            place.map_or(0, |place| {
                let of = &snapshot.ids[place];
                of.from_client.saturating_add(of.from_hidden)
            })
        };
        let month = month(wall);
        if self.month.replace(month).is_some_and(|before| before != month) {
            self.before = snapshot.ids.iter().map(|of| (of.id, total(of.id))).collect();
        }
        let is_over = |id: Id, quota: u64| {
            let before = self.before.get(&id).copied().unwrap_or(0);
            // A total that fell is that of an ID that was removed and added again.
            total(id).checked_sub(before).unwrap_or_else(|| total(id)) >= quota
        };
        let limited = ids.entries.iter().filter_map(|entry| Some((entry.id, entry.steering.quota?)));
        let used_up = limited.filter(|(id, quota)| is_over(*id, *quota)).map(|(id, _)| id).collect();
        let has_changed = self.used_up != used_up;
        for id in used_up.difference(&self.used_up) {
            let name = ids.entries.iter().find(|entry| entry.id == *id).map_or("", |entry| &entry.name);
            log::warn!("event=quota-used id_name={name:?} hint=\"rendezvous id set {name} --quota BYTES\"");
        }
        self.used_up = used_up;
        has_changed
    }
}

/// The month of a second of the wall clock, in months since year 0.
fn month(wall: u64) -> u64 {
    let (year, month, _) = civil(wall / 86_400);
    year * 12 + month
}

#[cfg(test)]
mod tests {
    use rendezvous_core::engine::{Config, Engine, IdSnapshot};
    use rendezvous_core::time::{Now, Time};

    use super::*;

    const HOME: Id = Id(0x2f40_2f80_da50_41e1_9b23_0123_4567_89ab);
    const DECEMBER: u64 = 1_796_083_200 - 86_400;

    fn ids(quota: &str) -> Ids {
        let uri = "otpauth://totp/rendezvous:2f402f80-da50-41e1-9b23-0123456789ab?secret=JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP";
        Ids::parse(format!("home {uri} {quota}\n").as_bytes(), "ids")
    }

    fn snapshot(from_client: u64, from_hidden: u64) -> Snapshot {
        let of = IdSnapshot {
            id: HOME,
            waiting: 0,
            held: 0,
            pairs: 0,
            pairs_ended: 0,
            from_client,
            from_hidden,
            seen: None,
        };
        let now = Now { mono: Time(0), wall: DECEMBER };
        let empty = Engine::new(Config::default(), [0; 32], now).snapshot(now);
        Snapshot { ids: vec![of], ..empty }
    }

    #[test]
    fn months_begin_at_their_first_second() {
        for (second, year, of_year) in [
            (0, 1970, 1),
            (951_782_399, 2000, 2),
            (951_868_800, 2000, 3),
            (1_798_761_599, 2026, 12),
            (1_798_761_600, 2027, 1),
            (4_107_542_399, 2100, 2),
            (4_107_542_400, 2100, 3),
        ] {
            assert_eq!(month(second), year * 12 + of_year - 1, "{second}");
        }
    }

    #[test]
    fn both_directions_count_and_a_new_month_begins_at_zero() {
        let mut quotas = Quotas::default();
        let (limited, free) = (ids("quota=1000"), ids(""));
        assert!(!quotas.update(&limited, &snapshot(400, 599), DECEMBER));
        assert!(quotas.update(&limited, &snapshot(400, 600), DECEMBER + 1));
        assert!(quotas.is_used_up(HOME));
        assert!(!quotas.update(&limited, &snapshot(400, 700), DECEMBER + 2), "it is known");
        assert!(quotas.update(&limited, &snapshot(400, 700), DECEMBER + 40 * 86_400), "a new month");
        assert!(!quotas.is_used_up(HOME));
        assert!(quotas.update(&limited, &snapshot(900, 1_200), DECEMBER + 41 * 86_400));
        assert!(quotas.update(&free, &snapshot(900, 1_200), DECEMBER + 41 * 86_400), "without a quota");
        assert!(!quotas.is_used_up(HOME));
    }
}
