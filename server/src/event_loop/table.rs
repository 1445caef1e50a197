//! The table of connections, the ready queues and the buffers.

use rendezvous_core::machine::{ConnId, Machine};

use super::ready::Work;
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

    /// Makes the slot of a connection that the machine opened.
    pub(super) fn slot_for(&mut self, on: ConnId) {
        if self.slot(on).is_none() {
            self.put(Slot::new(on, Link::None));
        }
    }

    pub(super) fn put(&mut self, mut slot: SlotOf<N>) {
        let index = slot.id.index as usize;
        slot.memory.owner = self.pool.open_account(self.machine.owners(slot.id));
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
        let much_to_send = || slot.write.out.is_some_and(|out| self.pool[out].filled().len() >= N::BULK_MIN);
        let is_bulk = slot.read.bulk || slot.write.pipe.is_some() || much_to_send();
        let work = if is_bulk { Work::Bulk } else { Work::Light };
        let (owner, age) = (slot.memory.owner, slot.next_turn());
        self.ready.push(on, work, |round| self.pool.schedule(owner, age, round));
    }

    pub(super) fn give(&mut self, buffer: Option<BufferId>) {
        if let Some(buffer) = buffer {
            self.pool.give(buffer);
        }
    }
}

/// The slot of a connection, if it still belongs to that connection.
pub(super) fn find<S, P>(slots: &mut [Option<Box<Slot<S, P>>>], on: ConnId) -> Option<&mut Slot<S, P>> {
    slots.get_mut(on.index as usize)?.as_deref_mut().filter(|slot| slot.id == on)
}
