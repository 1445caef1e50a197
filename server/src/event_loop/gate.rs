//! Gated halves of pairs: the machine inspects their bytes before they are relayed.

use rendezvous_core::machine::{ConnId, Machine};

use super::EventLoop;
use super::pump::Go;
use crate::net::Net;
use crate::slot::{Gate, Reading};
use crate::tls::RECORD_MAX;

/// Records are opened directly into the peer's buffer only while at least this many bytes beyond those at hand may
/// pass: the last record of a body may also hold bytes that the machine must inspect.
const IN_PLACE_MIN: usize = 2 * RECORD_MAX;

impl<N: Net> EventLoop<N, dyn Machine> {
    /// Offers the bytes at the gate of `on` to the machine, or receives more.
    ///
    /// Nothing is offered while the peer has a full buffer to send, because the machine may respond with bytes of its
    /// own for the peer.
    pub(super) fn offer_gated(&mut self, on: ConnId, peer: ConnId) -> Go {
        // The machine must know of moved bytes before it is offered the bytes behind them.
        self.settle();
        if self.queued(peer) as usize >= self.pool.sizes().head {
            return Go::Wait;
        }
        let Some(slot) = self.slot(on) else { return Go::Wait };
        if slot.pairing.peer() != Some(peer) || slot.read.gate != Gate::After(0) {
            return Go::On;
        }
        if std::mem::take(&mut slot.read.fresh) && slot.read.parked.is_some() {
            slot.read.last_reported = false;
            self.offer_parked(on);
            return Go::On;
        }
        match slot.read.phase {
            _ if slot.read.unopened => {
                if self.has_room_for(on, peer) && self.open_parked(on, 0) {
                    return Go::On;
                }
            }
            Reading::Ending(how) if slot.read.parked.is_none() => self.report_end(on, how),
            Reading::Ending(_) => {
                if !std::mem::replace(&mut slot.read.last_reported, true) {
                    self.machine.handle_last_bytes(on, self.now);
                    self.settle();
                }
            }
            Reading::Open if slot.read.ready => {
                if self.has_room_for(on, peer) && self.receive_parked(on).is_some() {
                    return Go::On;
                }
            }
            Reading::Open | Reading::Ended => {}
        }
        Go::Wait
    }

    /// Whether a record of `on` may hold more bytes than may pass.
    pub(super) fn may_overrun(&self, on: ConnId, passes: usize) -> bool {
        let slot = self.slots.get(on.index as usize).and_then(Option::as_deref).filter(|slot| slot.id == on);
        slot.is_some_and(|slot| {
            let Some(tls) = &slot.tls else { return false };
            passes.saturating_sub(slot.read.wire.len() + tls.kept()) < IN_PLACE_MIN
        })
    }

    /// Receives and opens records of `on` into its parked buffer, from which the bytes that may pass are moved to the
    /// peer.
    pub(super) fn receive_to_parked(&mut self, on: ConnId, peer: ConnId) -> Go {
        if !self.has_room_for(on, peer) {
            return Go::Wait;
        }
        let is_unopened = self.slot(on).is_some_and(|slot| slot.read.unopened);
        let more = if is_unopened { self.open_parked(on, 0) } else { self.receive_parked(on).is_some() };
        if more { Go::On } else { Go::Wait }
    }
}
