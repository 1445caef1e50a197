//! The memory of connections: charging it, waiting for it, and taking it from those that make no progress.

use std::cmp::Reverse;

use rendezvous_core::machine::{ConnId, Machine};
use rendezvous_core::time::{Span, Time};

use super::{EventLoop, find};
use crate::buffer::{BufferId, Rank};
use crate::net::{Net, Pipe};
use crate::slot::{Wait, Writing};
use crate::tls::{HANDSHAKE_MEMORY, ROOM_MIN};

/// When a connection has waited for memory for so long, a connection without progress loses its own.
const WAIT_MAX: Span = Span::from_millis(500);
/// No progress: the peer has not taken a buffer's worth of its queue for so long, while an account waits that uses much
/// less.
const STALLED: Span = Span::from_secs(1);
/// The same, while only accounts wait that use as much.
const STALLED_AMONG_EQUALS: Span = Span::from_secs(5);
/// How long it is remembered that a connection of an account lost its memory.
const STALL_MEMORY: Span = Span::from_secs(30);
/// A handshake or a head of most clients keeps no more.
const SMALL_KEPT: usize = HANDSHAKE_MEMORY + 4 * 1024;
/// How often it is looked whether somebody has waited for too long.
const TICK: Span = Span::from_millis(100);
/// Accounts that are looked at in one turn for the next connection that gets memory.
const LINES_MAX: usize = 64;
/// Connections that are called in one turn.
const CALLS_MAX: usize = 256;

/// A connection that uses memory and makes no progress.
#[derive(Clone, Copy, Debug)]
struct Holder {
    /// What its account uses that uses less.
    least: usize,
    /// Since when it has made no progress.
    since: Time,
    on: ConnId,
    bytes: usize,
}

/// Which bytes are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bytes {
    Kept,
    Any,
}

impl<N: Net> EventLoop<N, dyn Machine> {
    /// Charges what a connection uses after its turn. What it keeps takes no more memory than it needs.
    pub(super) fn charge(&mut self, on: ConnId) {
        let Some(slot) = find(&mut self.slots, on) else { return };
        if let Some(parked) = slot.parked {
            self.pool.shrink_buffer(parked);
        }
        if let Some(out) = slot.out {
            self.pool.recharge(out);
        }
        if slot.peer.is_none() {
            slot.wire.shrink_to_fit();
        }
        let handshake = if slot.is_securing() && slot.closing.is_none() { HANDSHAKE_MEMORY } else { 0 };
        // What the machine keeps of a pair's request waits for the answer: that is no lack of progress.
        let by_machine = if slot.closing.is_none() { self.machine.kept(on) } else { 0 };
        let has_progress = by_machine == 0 || slot.peer.is_some();
        let inner = slot.tls.as_ref().map_or(0, |tls| tls.kept());
        let kept = slot.wire.capacity() + inner + handshake + by_machine;
        let piped = slot.pipe.as_ref().map_or(0, Pipe::len);
        let now = self.now.mono;
        let has_queue = !slot.is_drained();
        let keeps = slot.wire.capacity() + handshake > 0 || slot.parked.is_some() || !has_progress;
        let memory = &mut slot.memory;
        if kept != memory.kept {
            self.pool.charge_kept(memory.owner, memory.kept, kept);
            memory.kept = kept;
        }
        if piped != memory.piped {
            self.pool.charge_piped(memory.owner, memory.piped, piped);
            memory.piped = piped;
        }
        memory.kept_since = if keeps { memory.kept_since.or(Some(now)) } else { None };
        if has_queue {
            memory.queued_since = memory.queued_since.or(Some(now));
        } else {
            memory.queued_since = None;
            memory.taken = 0;
        }
    }

    /// A connection is gone: it is charged no more.
    pub(super) fn discharge(&mut self, memory: crate::slot::Memory) {
        self.pool.charge_kept(memory.owner, memory.kept, 0);
        self.pool.charge_piped(memory.owner, memory.piped, 0);
        self.pool.close_account(memory.owner);
    }

    /// From now on a connection is charged to the accounts of `like`.
    pub(super) fn charge_like(&mut self, on: ConnId, like: ConnId) {
        let owners = self.machine.owners(like);
        let Some(slot) = find(&mut self.slots, on) else { return };
        let memory = &mut slot.memory;
        let owner = self.pool.open_account(owners);
        let before = std::mem::replace(&mut memory.owner, owner);
        for buffer in slot.parked.iter().chain(&slot.out) {
            self.pool.reown(*buffer, owner);
        }
        self.pool.charge_kept(owner, 0, memory.kept);
        self.pool.charge_kept(before, memory.kept, 0);
        self.pool.charge_piped(owner, 0, memory.piped);
        self.pool.charge_piped(before, memory.piped, 0);
        self.pool.close_account(before);
    }

    /// The peer of `on` took `n` bytes of its queue.
    pub(super) fn note_taken(&mut self, on: ConnId, n: usize) {
        let (now, worth) = (self.now.mono, self.pool.sizes().small());
        let Some(slot) = self.slot(on) else { return };
        let memory = &mut slot.memory;
        memory.taken += n;
        if memory.taken >= worth {
            memory.taken = 0;
            memory.queued_since = memory.queued_since.map(|_| now);
        }
    }

    /// Something came of the bytes that `on` sent.
    pub(super) fn note_progress(&mut self, on: ConnId) {
        let now = self.now.mono;
        if let Some(slot) = self.slot(on) {
            slot.memory.kept_since = slot.memory.kept_since.map(|_| now);
        }
    }

    // ---- waiting ----

    /// A buffer for what `on` sends to its peer in a pair; without one, `on` waits in line.
    pub(super) fn take_queue(&mut self, on: ConnId) -> Option<BufferId> {
        if !self.may_queue(on) {
            return None;
        }
        let owner = self.slot(on)?.memory.owner;
        self.end_wait(on);
        self.pool.take(owner)
    }

    /// Whether `on` may have a buffer for what it sends to its peer in a pair; if not, `on` waits in line.
    pub(super) fn may_queue(&mut self, on: ConnId) -> bool {
        let Some(slot) = find(&mut self.slots, on) else { return false };
        let memory = &mut slot.memory;
        let may_take = match memory.wait {
            Wait::InLine { .. } => return false,
            Wait::Called { .. } => true,
            Wait::No => self.waiters.is_empty() || self.waiters.may_pass(self.pool.line(memory.owner)),
        };
        if may_take && self.pool.grants(memory.owner, 0) {
            return true;
        }
        let now = self.now.mono;
        let since = match memory.wait {
            // It was called in vain: it has waited since it first came.
            Wait::Called { since, at } if now.since(at) < TICK => since,
            Wait::No | Wait::InLine { .. } | Wait::Called { .. } => now,
        };
        memory.wait = Wait::InLine { since };
        self.waiters.push(self.pool.line(memory.owner), on);
        false
    }

    /// How large the queue is that `on` may have for its peer; `None` if `on` waits in line.
    pub(super) fn granted(&mut self, on: ConnId) -> Option<usize> {
        if !self.may_queue(on) {
            return None;
        }
        let owner = self.slot(on)?.memory.owner;
        self.pool.granted(owner)
    }

    /// `on` has the buffer that it waited for, or was granted at once.
    pub(super) fn end_wait(&mut self, on: ConnId) {
        if let Some(slot) = self.slot(on) {
            slot.memory.wait = Wait::No;
        }
    }

    /// Whether there is room for a record or a segment of `on` beside what its peer is to get; if not, `on` waits: in
    /// line, or for the peer.
    pub(super) fn has_room_for(&mut self, on: ConnId, peer: ConnId) -> bool {
        match self.slot(peer).and_then(|peer| peer.out) {
            Some(out) => self.pool[out].room() >= ROOM_MIN,
            None => self.may_queue(on),
        }
    }

    /// Makes the working buffer that `on` received into a queue of its peer; false if `on` waits in line.
    pub(super) fn queue_working(&mut self, on: ConnId, working: BufferId) -> bool {
        if !self.may_queue(on) {
            return false;
        }
        self.end_wait(on);
        self.pool.charge_as_queue(working);
        true
    }

    /// Calls the connections that can have memory now: of each rank one account after the other.
    pub(super) fn call_waiters(&mut self) {
        let (mut promised, mut calls) = (0, 0);
        for rank in Rank::ALL {
            let mut in_vain = 0;
            while calls < CALLS_MAX
                && in_vain < self.waiters.lines(rank).min(LINES_MAX)
                && self.pool.has_free(promised)
            {
                let Some(on) = self.waiters.first(rank) else { break };
                let memory = find(&mut self.slots, on).map(|slot| slot.memory);
                let Some((owner, Wait::InLine { since })) = memory.map(|it| (it.owner, it.wait)) else {
                    self.waiters.pop(rank);
                    continue;
                };
                if self.pool.line(owner).rank > rank {
                    self.waiters.demote();
                } else if self.pool.grants(owner, promised) {
                    self.waiters.pop(rank);
                    promised += self.pool.sizes().small();
                    (calls, in_vain) = (calls + 1, 0);
                    let at = self.now.mono;
                    if let Some(slot) = self.slot(on) {
                        slot.memory.wait = Wait::Called { since, at };
                        self.enqueue(on);
                    }
                } else {
                    in_vain += 1;
                    self.waiters.skip(rank);
                }
            }
        }
    }

    /// When it is looked again whether somebody has waited for too long.
    pub(super) fn memory_due(&self) -> Option<Span> {
        (!self.waiters.is_empty()).then(|| self.waiters_due.since(self.now.mono))
    }

    /// If a connection has waited for too long, those that make no progress make room.
    pub(super) fn relieve_waiters(&mut self) {
        if self.waiters.is_empty() || self.now.mono < self.waiters_due {
            return;
        }
        let now = self.now.mono;
        self.waiters_due = now + TICK;
        self.pool.forgive(Time(now.0.saturating_sub(STALL_MEMORY.0)));
        let slots = &self.slots;
        let since = |on: ConnId| {
            let slot = slots.get(on.index as usize)?.as_ref().filter(|slot| slot.id == on)?;
            if let Wait::InLine { since } = slot.memory.wait { Some(since) } else { None }
        };
        let is_late = |on| since(on).is_some_and(|since| now.since(since) >= WAIT_MAX);
        let late = self.waiters.late(|on| since(on).is_some(), is_late);
        if late.is_empty() {
            return;
        }
        let mut holders = self.holders(Bytes::Any);
        holders.retain(|holder| now.since(holder.since) >= STALLED);
        let Some(worst) = holders.first().map(|holder| holder.least) else { return };
        let small = self.pool.sizes().small();
        // An account that waits is entitled to half of what the largest one has.
        let (mut entitled, mut equal) = (0, 0);
        for (on, waiting) in late {
            let Some(slot) = find(&mut self.slots, on) else { continue };
            let least = self.pool.least(slot.memory.owner);
            equal += small;
            if least <= worst / 2 {
                entitled += (waiting * small).min(worst / 2 - least).max(small);
            }
        }
        let freed = self.cut(&holders, entitled);
        holders.retain(|holder| now.since(holder.since) >= STALLED_AMONG_EQUALS);
        self.cut(&holders, equal.saturating_sub(freed));
    }

    /// If more memory is used than there is, connections that make no progress are cut.
    pub(super) fn relieve(&mut self) {
        let is_enough = self.pool.kept_excess() == 0 && self.pool.excess() == 0;
        // Some more than need be: all connections are looked at for it.
        let more = self.pool.sizes().kept_max() / 8;
        let has_grown = self.pool.used() >= self.relief_used + more;
        if is_enough || (self.now.mono < self.relief_due && !has_grown) {
            return;
        }
        if self.pool.kept_excess() > 0 {
            let holders = self.holders(Bytes::Kept);
            self.cut(&holders, self.pool.kept_excess() + more);
        }
        if self.pool.excess() > 0 {
            let mut holders = self.holders(Bytes::Any);
            holders.retain(|holder| self.now.mono.since(holder.since) >= STALLED);
            self.cut(&holders, self.pool.excess() + more);
        }
        let last = self.pool.excess().min(self.pool.spare_kept());
        if last > 0 {
            let holders = self.holders(Bytes::Kept);
            self.cut(&holders, last + more);
        }
        if self.pool.kept_excess() > 0 || self.pool.excess() > 0 {
            self.relief_due = self.now.mono + TICK;
        }
        self.relief_used = self.pool.used();
    }

    /// Connections that use memory; the accounts that use most come first, and of one account those that have made no
    /// progress for longest. Of kept bytes, those who keep many come before those who keep as few as most clients do.
    fn holders(&self, which: Bytes) -> Vec<Holder> {
        let mut holders = Vec::new();
        for slot in self.slots.iter().flatten() {
            let of_buffer = |id: &BufferId| match which {
                Bytes::Kept if !self.pool.is_tight(*id) => 0,
                Bytes::Kept | Bytes::Any => self.pool.charged(*id),
            };
            let memory = &slot.memory;
            let buffers: usize = slot.parked.iter().chain(&slot.out).map(of_buffer).sum();
            let since = memory.kept_since.into_iter().chain(memory.queued_since).min();
            // The two halves of a pair may both be well, and have parts of records.
            let is_fresh = |since| slot.peer.is_some() && self.now.mono.since(since) < STALLED;
            let since = since.filter(|&since| which == Bytes::Any || !is_fresh(since));
            let piped = if which == Bytes::Any { memory.piped } else { 0 };
            let bytes = buffers + memory.kept + piped;
            // A handshake or a head that has just begun, and is not large, is no reason for too little memory.
            let is_innocent = |since| bytes <= SMALL_KEPT && self.now.mono.since(since) < STALLED;
            let since = since.filter(|&since| which == Bytes::Any || !is_innocent(since));
            if let (Some(since), 1..) = (since, bytes) {
                holders.push(Holder { least: self.pool.least(memory.owner), since, on: slot.id, bytes });
            }
        }
        let order = |holder: &Holder| {
            let is_small = which == Bytes::Kept && holder.bytes <= SMALL_KEPT;
            (Reverse(holder.least), is_small, holder.since, holder.on)
        };
        holders.sort_by_key(order);
        holders
    }

    /// Cuts connections in this order until so many bytes are free; how many are.
    fn cut(&mut self, holders: &[Holder], bytes: usize) -> usize {
        let mut freed = 0;
        // An account that has lost half of its memory is passed over as long as others have more.
        for half in [true, false] {
            for holder in holders {
                if freed >= bytes {
                    return freed;
                }
                let Some(slot) = find(&mut self.slots, holder.on) else { continue };
                if half && self.pool.least(slot.memory.owner) < holder.least / 2 {
                    continue;
                }
                if self.now.mono.since(holder.since) >= STALLED {
                    self.pool.note_stalled(slot.memory.owner, self.now.mono);
                }
                self.machine.handle_stalled(holder.on, self.now);
                self.settle();
                if let Some(slot) = self.slot(holder.on)
                    && slot.writing != Writing::Failed
                {
                    debug_assert!(slot.closing.is_some(), "a stalled connection that the machine keeps");
                    self.write_failed(holder.on);
                }
                freed += holder.bytes;
            }
        }
        freed
    }
}
