//! Rate limits of pairs: how many bytes a limited half may move now.
//!
//! The buckets are in [`Pacer`]. A limited half takes a grant before it moves bytes, returns the rest at the end of its
//! turn, and is enqueued again when the bucket grants it more. TLS records are charged as their bytes arrive, and
//! corrected to their plaintext once they are opened.

use rendezvous_core::account::{Account, Owners};
use rendezvous_core::id::Id;
use rendezvous_core::machine::{ConnId, Machine};
use rendezvous_core::pacer::{BucketId, Direction, Woken};

use super::{EventLoop, find};
use crate::net::Net;
use crate::slot::Pace;

impl<N: Net> EventLoop<N, dyn Machine> {
    /// Replaces the rates of IDs. Present pairs are limited at once, and those without a limit go on at once.
    pub(super) fn set_id_rates(&mut self, rates: &[(Id, u64)]) {
        let released = self.pacer.set_rates(rates, self.now.mono);
        for on in released {
            if let Some(slot) = self.slot(on) {
                slot.pace = None;
            }
            self.enqueue(on);
        }
        let paired = self.slots.iter().flatten().filter(|slot| slot.pairing.peer().is_some());
        for on in paired.map(|slot| slot.id).collect::<Vec<_>>() {
            self.limit_rate(on);
        }
    }

    /// Assigns a half of a pair to its bucket. Without rates this costs one comparison.
    pub(super) fn limit_rate(&mut self, on: ConnId) {
        let bucket = if self.pacer.is_empty() { None } else { self.bucket_of(on) };
        let Some(slot) = find(&mut self.slots, on) else { return };
        match (bucket, &slot.pace) {
            (None, None) => {}
            (Some(bucket), Some(pace)) if pace.bucket == bucket => {}
            (Some(bucket), _) => slot.pace = Some(Box::new(Pace::new(bucket))),
            (None, Some(_)) => slot.pace = None,
        }
    }

    fn bucket_of(&self, on: ConnId) -> Option<BucketId> {
        let slot = self.slots.get(on.index as usize)?.as_deref().filter(|slot| slot.id == on)?;
        let Owners { server: Some(Account::Id(id)), .. } = self.machine.owners(on) else { return None };
        self.pacer.bucket(id, if slot.is_client { Direction::FromClient } else { Direction::FromHidden })
    }

    /// How many bytes this half may move now; `None` if it waits for tokens. An unlimited half may move any number.
    pub(super) fn allowance(&mut self, on: ConnId) -> Option<usize> {
        let slot = find(&mut self.slots, on)?;
        let Some(pace) = &mut slot.pace else { return Some(usize::MAX) };
        if pace.is_waiting {
            return None;
        }
        if pace.left() == 0 {
            let now = self.now.mono;
            if pace.granted > 0 {
                self.pacer.put_back(pace.bucket, pace.granted, pace.used, now);
                pace.is_light = false;
            }
            (pace.granted, pace.used) = (self.pacer.take(pace.bucket, on, pace.is_light, now), 0);
            pace.is_waiting = pace.granted == 0;
        }
        (!pace.is_waiting).then(|| usize::try_from(pace.left()).unwrap_or(usize::MAX))
    }

    /// Charges a limited half for bytes that moved; a negative number is returned to it.
    pub(super) fn spend(&mut self, on: ConnId, bytes: i64) {
        let Some(pace) = find(&mut self.slots, on).and_then(|slot| slot.pace.as_deref_mut()) else { return };
        if pace.granted > 0 {
            pace.used = pace.used.saturating_add(bytes);
        } else {
            self.pacer.charge(pace.bucket, bytes, self.now.mono);
        }
    }

    /// Returns the unused part of a grant at the end of a turn, if the half has nothing more to move.
    pub(super) fn return_grant(&mut self, on: ConnId) {
        let Some(pace) = find(&mut self.slots, on).and_then(|slot| slot.pace.as_deref_mut()) else { return };
        if pace.granted > 0 {
            pace.is_light = pace.left() > 0;
            self.pacer.put_back(pace.bucket, pace.granted, pace.used, self.now.mono);
            (pace.granted, pace.used) = (0, 0);
        }
    }

    /// Ends the limit of a half whose pair has ended.
    pub(super) fn unlimit_rate(&mut self, on: ConnId) {
        let Some(pace) = find(&mut self.slots, on).and_then(|slot| slot.pace.take()) else { return };
        let now = self.now.mono;
        if pace.is_waiting {
            self.pacer.forget(pace.bucket, on, now);
        } else if pace.granted > 0 {
            self.pacer.put_back(pace.bucket, pace.granted, pace.used, now);
        }
    }

    /// Enqueues the halves that got tokens.
    pub(super) fn wake_paced(&mut self) {
        if self.pacer.due().is_none_or(|due| due > self.now.mono) {
            return;
        }
        for Woken { of, on, bytes } in self.pacer.wake(self.now.mono) {
            let pace = find(&mut self.slots, on).and_then(|slot| slot.pace.as_deref_mut());
            match pace.filter(|pace| pace.is_waiting && pace.bucket == of) {
                Some(pace) => {
                    pace.is_waiting = false;
                    (pace.granted, pace.used) = (bytes, 0);
                    self.enqueue(on);
                }
                None => {
                    debug_assert!(false, "a connection that does not wait was woken");
                    self.pacer.put_back(of, bytes, 0, self.now.mono);
                }
            }
        }
    }
}
