//! The memory of connections: charging it, waiting for it, and taking it from those that make no progress.

use std::cmp::Reverse;

use rendezvous_core::machine::{ConnId, Machine};
use rendezvous_core::time::{Span, Time};

use super::{EventLoop, find};
use crate::buffer::BufferId;
use crate::net::Net;
use crate::slot::{Wait, Writing};
use crate::tls::HANDSHAKE_MEMORY;

/// When a connection has waited for memory for so long, a connection without progress loses its own.
const WAIT_MAX: Span = Span::from_millis(500);
/// No progress: the peer has not taken a buffer's worth of its queue for so long, while an account waits that uses much
/// less.
const STALLED: Span = Span::from_secs(1);
/// The same, while only accounts wait that use as much.
const STALLED_AMONG_EQUALS: Span = Span::from_secs(5);
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
            self.pool.tighten(parked);
        }
        if let Some(out) = slot.out {
            self.pool.recharge(out);
        }
        if slot.mate.is_none() {
            slot.wire.shrink_to_fit();
        }
        let handshake = if slot.is_securing() && slot.closing.is_none() { HANDSHAKE_MEMORY } else { 0 };
        let kept = slot.wire.capacity() + handshake;
        let now = self.now.mono;
        let has_queue = !slot.is_drained();
        let keeps = kept > 0 || slot.parked.is_some();
        let memory = &mut slot.memory;
        if kept != memory.kept {
            self.pool.charge_kept(memory.owner, memory.kept, kept);
            memory.kept = kept;
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
        let memory = self.slot(on)?.memory;
        let may_take = match memory.wait {
            Wait::InLine { .. } => return None,
            Wait::Called { .. } => true,
            Wait::No => self.waiters.is_empty() || !self.waiters.has(self.pool.line(memory.owner)),
        };
        let taken = if may_take { self.pool.take(memory.owner) } else { None };
        let (now, line) = (self.now.mono, self.pool.line(memory.owner));
        let wait = match (taken, memory.wait) {
            (Some(_), _) => Wait::No,
            // It was called in vain: it has waited since it first came.
            (None, Wait::Called { since, at }) if now.since(at) < TICK => Wait::InLine { since },
            (None, _) => Wait::InLine { since: now },
        };
        if let Some(slot) = self.slot(on) {
            slot.memory.wait = wait;
        }
        if taken.is_none() {
            self.waiters.push(line, on);
        }
        taken
    }

    /// Calls the connections that can have memory now, one account after the other.
    pub(super) fn call_waiters(&mut self) {
        let (mut promised, mut calls, mut in_vain) = (0, 0, 0);
        while calls < CALLS_MAX && in_vain < self.waiters.lines().min(LINES_MAX) {
            let Some(on) = self.waiters.first() else { return };
            let memory = find(&mut self.slots, on).map(|slot| slot.memory);
            let Some(memory) = memory.filter(|memory| matches!(memory.wait, Wait::InLine { .. })) else {
                self.waiters.pop();
                continue;
            };
            if !self.pool.grants(memory.owner, promised) {
                in_vain += 1;
                self.waiters.next();
                continue;
            }
            let lines = self.waiters.lines();
            self.waiters.pop();
            if self.waiters.lines() == lines {
                self.waiters.next();
            }
            promised += self.pool.sizes().small();
            (calls, in_vain) = (calls + 1, 0);
            let now = self.now.mono;
            if let (Some(slot), Wait::InLine { since }) = (self.slot(on), memory.wait) {
                slot.memory.wait = Wait::Called { since, at: now };
                self.enqueue(on);
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
        let mut late = Vec::new();
        for on in self.waiters.iter() {
            let Some(slot) = find(&mut self.slots, on) else { continue };
            if let Wait::InLine { since } = slot.memory.wait
                && now.since(since) >= WAIT_MAX
            {
                late.push(self.pool.least(slot.memory.owner));
            }
        }
        if late.is_empty() {
            return;
        }
        let mut holders = self.holders(Bytes::Any);
        holders.retain(|holder| now.since(holder.since) >= STALLED);
        let Some(worst) = holders.first().map(|holder| holder.least) else { return };
        let small = self.pool.sizes().small();
        let poor = late.iter().filter(|&&least| least <= worst / 2).count();
        let freed = self.cut(&holders, poor * small);
        holders.retain(|holder| now.since(holder.since) >= STALLED_AMONG_EQUALS);
        self.cut(&holders, (late.len() * small).saturating_sub(freed));
    }

    /// If more is kept than may be, the connections that make no progress are cut.
    pub(super) fn relieve(&mut self) {
        let excess = self.pool.excess();
        if excess == 0 || self.now.mono < self.relief_due {
            return;
        }
        // Some more than need be: all connections are looked at for it.
        let bytes = excess + self.pool.sizes().kept_max() / 8;
        let holders = self.holders(Bytes::Kept);
        if self.cut(&holders, bytes) < excess {
            self.relief_due = self.now.mono + TICK;
        }
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
            let is_fresh = |since| slot.mate.is_some() && self.now.mono.since(since) < STALLED;
            let since = since.filter(|&since| which == Bytes::Any || !is_fresh(since));
            if let (Some(since), bytes @ 1..) = (since, buffers + memory.kept) {
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
