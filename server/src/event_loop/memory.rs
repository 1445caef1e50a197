//! Memory of connections: charging it, waiting for it, and reclaiming it from connections that make no progress.

use std::cmp::Reverse;

use rendezvous_core::machine::{ConnId, Machine};
use rendezvous_core::time::{Span, Time};

use super::{EventLoop, find};
use crate::buffer::{BufferId, Rank};
use crate::net::{Net, Pipe};
use crate::slot::{Wait, Writing};
use crate::tls::{HANDSHAKE_MEMORY, ROOM_MIN};

/// How long a connection waits for memory before memory is reclaimed from a stalled connection.
const WAIT_MAX: Span = Span::from_millis(500);
/// A connection is stalled if its peer has not taken a buffer's worth of its queue for this long, while an account that
/// uses much less is waiting.
const STALLED: Span = Span::from_secs(1);
/// The same limit if only accounts with a similar use are waiting.
const STALLED_AMONG_EQUALS: Span = Span::from_secs(5);
/// How long an account counts as stalled after one of its connections lost its memory.
const STALL_MEMORY: Span = Span::from_secs(30);
/// The memory of the two connections of a pair themselves, most of which is their TLS state. It is charged while the client
/// has a queue, so that slow readers use no more than their share. Other connections are bounded by their number.
const PAIR_MEMORY: usize = 6 * 1024;
/// The kept memory of a typical handshake or head.
const SMALL_KEPT: usize = HANDSHAKE_MEMORY + 4 * 1024;
/// Interval at which waiters are checked for ones that have waited too long.
const TICK: Span = Span::from_millis(100);
/// Limit of accounts tried per turn for the next grant of memory.
const LINES_MAX: usize = 64;
/// Limit of waiting connections resumed per turn.
const CALLS_MAX: usize = 256;

/// A connection that uses memory and makes no progress.
#[derive(Clone, Copy, Debug)]
struct Holder {
    /// The smaller use of its two accounts, in bytes.
    least: usize,
    /// When it last made progress.
    since: Time,
    on: ConnId,
    bytes: usize,
}

/// Which bytes are reclaimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bytes {
    Kept,
    Any,
}

impl<N: Net> EventLoop<N, dyn Machine> {
    /// Charges the memory that a connection uses after its turn, and shrinks what it keeps to its size.
    pub(super) fn charge(&mut self, on: ConnId) {
        let Some(slot) = find(&mut self.slots, on) else { return };
        if let Some(parked) = slot.read.parked {
            self.pool.shrink_buffer(parked);
        }
        if let Some(out) = slot.write.out {
            self.pool.recharge(out);
        }
        if slot.pairing.peer().is_none() {
            slot.read.wire.shrink_to_fit();
        }
        let handshake = if slot.is_securing() && slot.closing.is_none() { HANDSHAKE_MEMORY } else { 0 };
        // What the machine keeps of a paired request waits for the response: that is not a lack of progress.
        let by_machine = if slot.closing.is_none() { self.machine.kept(on) } else { 0 };
        let has_progress = by_machine == 0 || slot.pairing.peer().is_some();
        let inner = slot.tls.as_ref().map_or(0, |tls| tls.kept());
        let now = self.now.mono;
        let has_queue = !slot.is_drained();
        let keeps = slot.read.wire.capacity() + handshake > 0 || slot.read.parked.is_some() || !has_progress;
        let pair = if has_queue && slot.is_client && slot.pairing.peer().is_some() { PAIR_MEMORY } else { 0 };
        let piped = slot.write.pipe.as_ref().map_or(0, Pipe::len) + pair;
        let kept = slot.read.wire.capacity() + inner + handshake + by_machine;
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

    /// Releases all charges of a closed connection.
    pub(super) fn discharge(&mut self, memory: crate::slot::Memory) {
        self.pool.charge_kept(memory.owner, memory.kept, 0);
        self.pool.charge_piped(memory.owner, memory.piped, 0);
        self.pool.close_account(memory.owner);
    }

    /// Charges a connection to the accounts of `like` from now on.
    pub(super) fn charge_like(&mut self, on: ConnId, like: ConnId) {
        let owners = self.machine.owners(like);
        let Some(slot) = find(&mut self.slots, on) else { return };
        let memory = &mut slot.memory;
        let owner = self.pool.open_account(owners);
        let before = std::mem::replace(&mut memory.owner, owner);
        for buffer in slot.read.parked.iter().chain(&slot.write.out) {
            self.pool.reown(*buffer, owner);
        }
        self.pool.charge_kept(owner, 0, memory.kept);
        self.pool.charge_kept(before, memory.kept, 0);
        self.pool.charge_piped(owner, 0, memory.piped);
        self.pool.charge_piped(before, memory.piped, 0);
        self.pool.close_account(before);
    }

    /// Records that the peer of `on` took `n` bytes of its queue.
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

    /// Records that the bytes received from `on` made progress.
    pub(super) fn note_progress(&mut self, on: ConnId) {
        let now = self.now.mono;
        if let Some(slot) = self.slot(on) {
            slot.memory.kept_since = slot.memory.kept_since.map(|_| now);
        }
    }

    // ---- waiting ----

    /// A buffer for what `on` sends to its peer. Returns `None` if `on` has to wait.
    pub(super) fn take_queue(&mut self, on: ConnId) -> Option<BufferId> {
        if !self.may_queue(on) {
            return None;
        }
        let owner = self.slot(on)?.memory.owner;
        self.end_wait(on);
        self.pool.take(owner)
    }

    /// Whether `on` may have a buffer for what it sends to its peer. If not, `on` is queued as a waiter.
    pub(super) fn may_queue(&mut self, on: ConnId) -> bool {
        let Some(slot) = find(&mut self.slots, on) else { return false };
        let memory = &mut slot.memory;
        let may_take = match memory.wait {
            Wait::InLine { .. } => return false,
            Wait::Called { .. } => true,
            Wait::No => self.waiters.is_empty() || self.waiters.may_pass(self.pool.line(memory.owner)),
        };
        if may_take && self.pool.grants(memory.owner, PAIR_MEMORY) {
            return true;
        }
        let now = self.now.mono;
        let since = match memory.wait {
            // It was resumed but got no memory: it keeps its place in time.
            Wait::Called { since, at } if now.since(at) < TICK => since,
            Wait::No | Wait::InLine { .. } | Wait::Called { .. } => now,
        };
        memory.wait = Wait::InLine { since };
        self.waiters.push(self.pool.line(memory.owner), on);
        false
    }

    /// Size of the queue that `on` may have for its peer; `None` if `on` has to wait.
    pub(super) fn granted(&mut self, on: ConnId) -> Option<usize> {
        if !self.may_queue(on) {
            return None;
        }
        let owner = self.slot(on)?.memory.owner;
        self.pool.granted(owner)
    }

    /// Records that `on` has got its buffer and no longer waits.
    pub(super) fn end_wait(&mut self, on: ConnId) {
        if let Some(slot) = self.slot(on) {
            slot.memory.wait = Wait::No;
        }
    }

    /// Whether the peer's queue has room for a record or segment of `on`. If not, `on` waits for memory or for the
    /// peer.
    pub(super) fn has_room_for(&mut self, on: ConnId, peer: ConnId) -> bool {
        match self.slot(peer).and_then(|peer| peer.write.out) {
            Some(out) => self.pool[out].room() >= ROOM_MIN,
            None => self.may_queue(on),
        }
    }

    /// Makes the working buffer, into which `on` received, a queue of its peer. Returns false if `on` has to wait.
    pub(super) fn queue_working(&mut self, on: ConnId, working: BufferId) -> bool {
        if !self.may_queue(on) {
            return false;
        }
        self.end_wait(on);
        self.pool.charge_as_queue(working);
        true
    }

    /// Resumes waiting connections for which there is memory now, by rank, one account after the other.
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
                } else if self.pool.grants(owner, promised + PAIR_MEMORY) {
                    self.waiters.pop(rank);
                    promised += self.pool.sizes().small() + PAIR_MEMORY;
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

    /// Time until the waiters are checked again.
    pub(super) fn memory_due(&self) -> Option<Span> {
        (!self.waiters.is_empty()).then(|| self.waiters_due.since(self.now.mono))
    }

    /// If a connection has waited too long, reclaims memory from connections that make no progress.
    pub(super) fn relieve_waiters(&mut self) {
        if self.waiters.is_empty() || self.now.mono < self.waiters_due {
            return;
        }
        let now = self.now.mono;
        self.waiters_due = now + TICK;
        self.pool.clear_stalled(Time(now.0.saturating_sub(STALL_MEMORY.0)));
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
        // A waiting account is entitled to half of what the largest one uses.
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

    /// If more memory is used than allowed, cuts connections that make no progress.
    pub(super) fn relieve(&mut self) {
        let is_enough = self.pool.kept_excess() == 0 && self.pool.excess() == 0;
        // Frees some more than necessary, because it scans all connections.
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

    /// Connections that use memory, in the order in which they are cut: by descending use of their account, then by
    /// descending time without progress. For kept bytes, connections that keep many bytes come before those that keep
    /// as few as a typical client.
    fn holders(&self, which: Bytes) -> Vec<Holder> {
        let mut holders = Vec::new();
        for slot in self.slots.iter().flatten() {
            let of_buffer = |id: &BufferId| match which {
                Bytes::Kept if !self.pool.is_tight(*id) => 0,
                Bytes::Kept | Bytes::Any => self.pool.charged(*id),
            };
            let memory = &slot.memory;
            let buffers: usize = slot.read.parked.iter().chain(&slot.write.out).map(of_buffer).sum();
            let since = memory.kept_since.into_iter().chain(memory.queued_since).min();
            // Both halves of a pair may be making progress and hold partial records.
            let is_fresh = |since| slot.pairing.peer().is_some() && self.now.mono.since(since) < STALLED;
            let since = since.filter(|&since| which == Bytes::Any || !is_fresh(since));
            let piped = if which == Bytes::Any { memory.piped } else { 0 };
            let bytes = buffers + memory.kept + piped;
            // A small handshake or head that has just begun is not the cause of a shortage.
            let is_small_and_new = |since| bytes <= SMALL_KEPT && self.now.mono.since(since) < STALLED;
            let since = since.filter(|&since| which == Bytes::Any || !is_small_and_new(since));
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

    /// Cuts connections in this order until `bytes` bytes are free. Returns how many were freed.
    fn cut(&mut self, holders: &[Holder], bytes: usize) -> usize {
        let mut freed = 0;
        // In the first pass, an account that has lost half of its memory is skipped.
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
                    && slot.write.phase != Writing::Failed
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
