//! The table of connections, their turns and their buffers.

use rendezvous_core::machine::{ConnId, Machine};

use super::{EventLoop, SlotOf};
use crate::buffer::BufferId;
use crate::net::Net;
use crate::slot::{Link, Slot};

impl<N: Net> EventLoop<N, dyn Machine> {
    pub(super) fn slot(&mut self, on: ConnId) -> Option<&mut SlotOf<N>> {
        find(&mut self.slots, on)
    }

    pub(super) fn slot_and_net(&mut self, on: ConnId) -> Option<(&mut SlotOf<N>, &mut N)> {
        Some((find(&mut self.slots, on)?, &mut self.net))
    }

    /// A slot for a connection that the machine made.
    pub(super) fn slot_for(&mut self, on: ConnId) {
        if self.slot(on).is_none() {
            self.put(Slot::new(on, Link::None));
        }
    }

    pub(super) fn put(&mut self, slot: SlotOf<N>) {
        let index = slot.id.index as usize;
        if index >= self.slots.len() {
            self.slots.resize_with(index + 1, || None);
        }
        debug_assert!(self.slots[index].is_none(), "two connections in one place");
        self.slots[index] = Some(Box::new(slot));
    }

    pub(super) fn enqueue(&mut self, on: ConnId) {
        let Some(slot) = find(&mut self.slots, on) else { return };
        if std::mem::replace(&mut slot.queued, true) {
            return;
        }
        let much_to_send = || slot.out.is_some_and(|out| self.pool[out].filled().len() >= N::BULK_MIN);
        let queue =
            if slot.bulk || slot.pipe.is_some() || much_to_send() { &mut self.busy } else { &mut self.ready };
        queue.push_back(on);
    }

    pub(super) fn give(&mut self, buffer: Option<BufferId>) {
        let Some(buffer) = buffer else { return };
        if self.pool.give(buffer) > 0 {
            self.feed_starved();
        }
    }

    /// Whoever waits for a buffer is queued again: all of them, since the first may need it no more, or need a larger
    /// one.
    pub(super) fn feed_starved(&mut self) {
        for on in std::mem::take(&mut self.starved) {
            if let Some(slot) = self.slot(on) {
                slot.starving = false;
                self.enqueue(on);
            }
        }
    }

    /// There is no buffer for this connection: it is queued again when there may be one.
    pub(super) fn starve(&mut self, on: ConnId) {
        if let Some(slot) = self.slot(on)
            && !std::mem::replace(&mut slot.starving, true)
        {
            self.starved.push_back(on);
        }
    }
}

/// The slot of a connection, if it is still that connection's.
pub(super) fn find<S, P>(slots: &mut [Option<Box<Slot<S, P>>>], on: ConnId) -> Option<&mut Slot<S, P>> {
    slots.get_mut(on.index as usize)?.as_deref_mut().filter(|slot| slot.id == on)
}
