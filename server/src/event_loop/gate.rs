//! Gated halves of pairs: their bytes are offered to the machine before they move.

use rendezvous_core::machine::{ConnId, Machine};

use super::EventLoop;
use super::pump::Go;
use crate::net::Net;
use crate::slot::{Gate, Reading};
use crate::tls::RECORD_MAX;

/// Records are opened in place for the mate as long as so many more bytes than those at hand may pass: the last record
/// of a body may hold bytes that are to be offered.
const IN_PLACE_MIN: usize = 2 * RECORD_MAX;

impl<N: Net> EventLoop<N, dyn Machine> {
    /// Offers what is at the gate of `on`, or receives more for it.
    ///
    /// Nothing is offered while the mate has a whole buffer to send: the machine may answer what it is offered with
    /// bytes of its own for the mate.
    pub(super) fn offer_gated(&mut self, on: ConnId, peer: ConnId) -> Go {
        // What has moved is told before what is behind it is offered.
        self.settle();
        if self.queued(peer) as usize >= self.pool.sizes().head {
            return Go::Wait;
        }
        let Some(slot) = self.slot(on) else { return Go::Wait };
        if slot.peer != Some(peer) || slot.gate != Gate::After(0) {
            return Go::On;
        }
        if std::mem::take(&mut slot.fresh) && slot.parked.is_some() {
            slot.last_told = false;
            self.offer_parked(on);
            return Go::On;
        }
        match slot.reading {
            _ if slot.unopened => {
                if self.has_room_for(on, peer) && self.open_parked(on, 0) {
                    return Go::On;
                }
            }
            Reading::Ending(how) if slot.parked.is_none() => self.report_end(on, how),
            Reading::Ending(_) => {
                if !std::mem::replace(&mut slot.last_told, true) {
                    self.machine.handle_last_bytes(on, self.now);
                    self.settle();
                }
            }
            Reading::Open if slot.readable => {
                if self.has_room_for(on, peer) && self.receive_parked(on).is_some() {
                    return Go::On;
                }
            }
            Reading::Open | Reading::Ended => {}
        }
        Go::Wait
    }

    /// Whether a record of `on` may hold more bytes than those that pass.
    pub(super) fn may_overrun(&self, on: ConnId, passes: usize) -> bool {
        let slot = self.slots.get(on.index as usize).and_then(Option::as_deref).filter(|slot| slot.id == on);
        slot.is_some_and(|slot| {
            let Some(tls) = &slot.tls else { return false };
            passes.saturating_sub(slot.wire.len() + tls.kept()) < IN_PLACE_MIN
        })
    }

    /// Receives and opens records of `on` beside the mate's buffer, for the bytes that pass to be moved from there.
    pub(super) fn receive_beside(&mut self, on: ConnId, peer: ConnId) -> Go {
        if !self.has_room_for(on, peer) {
            return Go::Wait;
        }
        let is_unopened = self.slot(on).is_some_and(|slot| slot.unopened);
        let more = if is_unopened { self.open_parked(on, 0) } else { self.receive_parked(on).is_some() };
        if more { Go::On } else { Go::Wait }
    }
}
