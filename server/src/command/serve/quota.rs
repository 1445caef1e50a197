//! Quotas: bytes of an ID in a calendar month (UTC), both directions together.

use std::collections::BTreeSet;

use rendezvous_core::id::Id;

use crate::ids::Ids;
use crate::usage::Usage;

/// The IDs whose quota is used up.
#[derive(Debug, Default)]
pub(super) struct Quotas {
    used_up: BTreeSet<Id>,
}

impl Quotas {
    /// Whether the quota of an ID is used up.
    pub(super) fn is_used_up(&self, id: Id) -> bool {
        self.used_up.contains(&id)
    }

    /// Compares the traffic of the month with the quotas. `wall`: seconds since 1970. Returns whether an ID has used up
    /// its quota, or has one again.
    pub(super) fn update(&mut self, ids: &Ids, usage: &Usage, wall: u64) -> bool {
        let mut used_up = BTreeSet::new();
        for entry in &ids.entries {
            let Some(quota) = entry.steering.quota else { continue };
            let used = usage.month(entry.id, wall).bytes();
            if used < quota {
                continue;
            }
            used_up.insert(entry.id);
            if !self.used_up.contains(&entry.id) {
                let name = &entry.name;
                log::warn!(
                    "event=quota-used id_name={name:?} bytes={used} quota={quota} hint=\"rendezvous id set {name} --quota BYTES\""
                );
            }
        }
        let has_changed = self.used_up != used_up;
        self.used_up = used_up;
        has_changed
    }
}

#[cfg(test)]
mod tests {
    use rendezvous_core::engine::IdSnapshot;
    use rendezvous_core::time::{Now, Time};

    use super::*;

    const HOME: Id = Id(0x2f40_2f80_da50_41e1_9b23_0123_4567_89ab);
    const DAY: u64 = 86_400;
    /// The last day of November 2026.
    const NOVEMBER: u64 = 1_796_083_200 - DAY;
    const DECEMBER: u64 = NOVEMBER + DAY;

    fn ids(name: &str, quota: &str) -> Ids {
        let uri = "otpauth://totp/rendezvous:2f402f80-da50-41e1-9b23-0123456789ab?secret=JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP";
        Ids::parse(format!("{name} {uri} {quota}\n").as_bytes(), "ids")
    }

    /// What moved since the start, at this second.
    fn gather(usage: &mut Usage, from_client: u64, from_hidden: u64, wall: u64) {
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
        usage.gather(&[of], Now { mono: Time(0), wall });
    }

    #[test]
    fn both_directions_count_and_a_new_month_begins_at_zero() {
        let (mut quotas, mut usage) = (Quotas::default(), Usage::in_memory("", Time(0)));
        let (limited, free) = (ids("home", "quota=1000"), ids("home", ""));
        gather(&mut usage, 400, 599, NOVEMBER);
        assert!(!quotas.update(&limited, &usage, NOVEMBER));
        gather(&mut usage, 400, 600, NOVEMBER + 1);
        assert!(quotas.update(&limited, &usage, NOVEMBER + 1));
        assert!(quotas.is_used_up(HOME));
        assert!(
            !quotas.update(&ids("house", "quota=1000"), &usage, NOVEMBER + 2),
            "a new name changes nothing"
        );
        assert!(quotas.is_used_up(HOME));
        assert!(quotas.update(&ids("house", "quota=1001"), &usage, NOVEMBER + 2), "a higher quota");
        assert!(quotas.update(&limited, &usage, NOVEMBER + 3));
        // A pair is open beyond the end of the month: only what moves after it counts.
        gather(&mut usage, 400, 1_599, DECEMBER);
        assert!(quotas.update(&limited, &usage, DECEMBER), "a new month");
        assert!(!quotas.is_used_up(HOME));
        gather(&mut usage, 401, 1_599, DECEMBER + 1);
        assert!(quotas.update(&limited, &usage, DECEMBER + 1));
        assert!(quotas.update(&free, &usage, DECEMBER + 1), "without a quota");
        assert!(!quotas.is_used_up(HOME));
    }

    #[test]
    fn a_clock_set_back_counts_to_the_date_that_it_shows() {
        let (mut quotas, mut usage) = (Quotas::default(), Usage::in_memory("", Time(0)));
        let limited = ids("home", "quota=1000");
        gather(&mut usage, 900, 0, DECEMBER + DAY);
        gather(&mut usage, 950, 0, DECEMBER - 1);
        assert!(!quotas.update(&limited, &usage, DECEMBER - 1), "50 bytes in November");
        gather(&mut usage, 1_050, 0, DECEMBER + 1);
        assert!(quotas.update(&limited, &usage, DECEMBER + 1), "1,000 bytes in December");
        // The clock is not set: what moves counts when it is.
        assert!(quotas.update(&limited, &usage, 0));
        gather(&mut usage, 2_050, 0, 1);
        assert!(quotas.update(&limited, &usage, 1), "1,000 bytes without a date");
        assert!(quotas.is_used_up(HOME));
    }
}
