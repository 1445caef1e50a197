//! The relay path: moves bytes from one half of a pair to the other.
//!
//! The destination owns the bytes: cleartext is received into the destination's outgoing buffer or sealed into it.
//! Bytes that were parked before the rendezvous move by swapping the indices of the two buffers. A source is never read
//! for more than its destination has room for, so a slow reader closes the sender's TCP window.

use rendezvous_core::machine::{ConnId, Machine};

use super::read::Received;
use super::{EventLoop, Input, TURN_BYTES_MAX, TURN_CALLS_MAX, find};
use crate::buffer::{Buffer, BufferId};
use crate::net::Net;
use crate::slot::{Reading, Writing};
use crate::tls::{RECORD_MAX, ROOM_MIN, Take, TlsSession};

/// Takes plaintext into the outgoing buffer of a cleartext destination.
struct ToClear {
    out: Buffer,
    bytes: usize,
}

/// Seals plaintext into the outgoing buffer of a TLS destination.
struct ToTls {
    out: Buffer,
    tls: Box<TlsSession>,
    bytes: usize,
    failed: bool,
}

impl Take for ToClear {
    fn has_room(&self) -> bool {
        self.out.room() >= RECORD_MAX
    }

    fn take(&mut self, plain: &[u8]) {
        self.bytes += plain.len();
        self.out.append(plain);
    }
}

impl Take for ToTls {
    fn has_room(&self) -> bool {
        self.out.room() >= ROOM_MIN && !self.failed
    }

    fn take(&mut self, plain: &[u8]) {
        self.bytes += plain.len();
        match self.tls.seal(plain, &mut self.out) {
            Ok(sealed) => debug_assert_eq!(sealed, plain.len(), "there was room for one record"),
            Err(_) => self.failed = true,
        }
    }
}

/// Whether the turn continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Go {
    On,
    /// Nothing can be done until the next event.
    Wait,
}

impl<N: Net> EventLoop<N, dyn Machine> {
    /// Moves bytes from `on` to its peer, within the limits of a turn.
    pub(super) fn pump(&mut self, on: ConnId) {
        // Counts bytes on the wire, so that TLS overhead and padding count as work.
        let enough = self.received + TURN_BYTES_MAX as u64;
        for _ in 0..TURN_CALLS_MAX {
            match self.pump_once(on) {
                Go::On => {}
                Go::Wait => return self.return_grant(on),
            }
            if self.received >= enough {
                break;
            }
        }
        self.enqueue(on);
    }

    fn pump_once(&mut self, on: ConnId) -> Go {
        let Some(slot) = self.slot(on) else { return Go::Wait };
        let Some(peer) = slot.pairing.peer() else { return Go::Wait };
        if !slot.read.wanted {
            return Go::Wait;
        }
        let (parked, unopened, reading, readable) =
            (slot.read.parked, slot.read.unopened, slot.read.phase, slot.read.ready);
        let passes = slot.read.gate.passes();
        let Some(dst) = self.slot(peer) else { return Go::Wait };
        if dst.write.phase != Writing::Open {
            return Go::Wait;
        }
        if dst.write.pipe.is_some() || dst.is_clogged() {
            return Go::Wait;
        }
        let dst_tls = dst.tls.is_some();
        let passes = usize::try_from(passes).unwrap_or(usize::MAX);
        match (parked, reading) {
            _ if passes == 0 => self.offer_gated(on, peer),
            (Some(parked), _) => match self.allowance(on) {
                Some(allowed) => self.move_parked(on, peer, parked, dst_tls, passes.min(allowed)),
                None => Go::Wait,
            },
            (None, Reading::Ending(how)) if !unopened => {
                self.report_end(on, how);
                Go::Wait
            }
            (None, Reading::Ended) => Go::Wait,
            (None, _) if !unopened && !readable => Go::Wait,
            (None, _) if self.may_overrun(on, passes) => self.receive_to_parked(on, peer),
            // These bytes were charged when they arrived.
            (None, _) if unopened => self.receive_for(on, peer, dst_tls, passes, passes),
            (None, _) => match self.allowance(on) {
                Some(allowed) => self.receive_for(on, peer, dst_tls, passes, allowed),
                None => Go::Wait,
            },
        }
    }

    /// Moves at most `passes` of the bytes that were parked before the rendezvous or at a gate.
    fn move_parked(
        &mut self,
        on: ConnId,
        peer: ConnId,
        parked: BufferId,
        dst_tls: bool,
        passes: usize,
    ) -> Go {
        let bytes = self.pool[parked].filled().len().min(passes);
        let is_all = bytes == self.pool[parked].filled().len();
        let has_queue = self.slot(peer).is_some_and(|dst| dst.write.out.is_some());
        if !dst_tls && is_all && !has_queue && self.pool.is_movable(parked) {
            if !self.pool.is_tight(parked) && !self.queue_working(on, parked) {
                return Go::Wait;
            }
            if let Some(dst) = self.slot(peer) {
                dst.write.out = Some(parked);
            }
            if let Some(slot) = self.slot(on) {
                slot.read.parked = None;
            }
            return self.account(on, peer, bytes);
        }
        let Some(out) = self.out_for(on, peer) else { return Go::Wait };
        let mut buffer = self.pool.checkout(out);
        let sealed = match find(&mut self.slots, peer).and_then(|dst| dst.tls.as_deref_mut()) {
            Some(_) if buffer.room() < ROOM_MIN => Some(0),
            Some(tls) => tls.seal(&self.pool[parked].filled()[..bytes], &mut buffer).ok(),
            None if dst_tls => None,
            None => {
                let bytes = bytes.min(buffer.room());
                buffer.append(&self.pool[parked].filled()[..bytes]);
                Some(bytes)
            }
        };
        self.pool.put_back(out, buffer);
        self.settle_out(peer);
        match sealed {
            Some(0) => Go::Wait,
            Some(n) => {
                self.pool[parked].consume(n);
                self.release_if_empty(on);
                self.account(on, peer, n)
            }
            None => {
                self.write_failed(peer);
                Go::Wait
            }
        }
    }

    /// Receives into the outgoing buffer of the peer: at most `passes` bytes, and at most `allowed` new bytes of the wire.
    fn receive_for(&mut self, on: ConnId, peer: ConnId, dst_tls: bool, passes: usize, allowed: usize) -> Go {
        let src_tls = self.slot(on).is_some_and(|slot| slot.tls.is_some());
        if !src_tls
            && !dst_tls
            && let Some(received) = self.splice(on, peer, passes.min(allowed))
        {
            return self.received(on, peer, received);
        }
        let Some(out) = self.out_for(on, peer) else { return Go::Wait };
        let room = self.pool[out].room();
        let enough = match (src_tls, dst_tls) {
            (false, false) => 1,
            (true, false) => RECORD_MAX,
            (_, true) => ROOM_MIN,
        };
        if room < enough {
            self.settle_out(peer);
            return Go::Wait;
        }
        let received = match (src_tls, dst_tls) {
            (false, false) => self.clear_to_clear(on, out, passes.min(allowed)),
            (false, true) => self.clear_to_tls(on, peer, out, room, passes.min(allowed)),
            (true, _) => self.tls_to(on, peer, out, room, dst_tls, (passes, allowed)),
        };
        self.settle_out(peer);
        self.received(on, peer, received)
    }

    fn received(&mut self, on: ConnId, peer: ConnId, received: Received) -> Go {
        match received {
            Received::Bytes(n) => self.account(on, peer, n),
            Received::Nothing => Go::Wait,
            Received::End(how) => {
                self.set_reading(on, Reading::Ending(how));
                Go::On
            }
        }
    }

    fn clear_to_clear(&mut self, on: ConnId, out: BufferId, passes: usize) -> Received {
        let mut buffer = self.pool.checkout(out);
        let limit = buffer.room().min(passes);
        let received = self.receive(on, &mut buffer.spare()[..limit]);
        if let Received::Bytes(n) = received {
            buffer.commit(n);
        }
        self.pool.put_back(out, buffer);
        received
    }

    fn clear_to_tls(
        &mut self,
        on: ConnId,
        peer: ConnId,
        out: BufferId,
        room: usize,
        passes: usize,
    ) -> Received {
        let mut scratch = std::mem::take(&mut self.scratch);
        let tls = self.slot(peer).and_then(|dst| dst.tls.as_deref());
        let limit = tls.map_or(0, |tls| tls.sealable(room)).min(scratch.len()).min(passes);
        let received = self.receive(on, &mut scratch[..limit]);
        if let Received::Bytes(n) = received {
            let mut buffer = self.pool.checkout(out);
            let sealed = self
                .slot(peer)
                .and_then(|dst| dst.tls.as_deref_mut())
                .is_some_and(|tls| tls.seal(&scratch[..n], &mut buffer).is_ok_and(|sealed| sealed == n));
            self.pool.put_back(out, buffer);
            if !sealed {
                self.write_failed(peer);
            }
        }
        self.scratch = scratch;
        received
    }

    /// Receives records into the scratch buffer, behind the kept wire bytes, and opens them from there.
    fn tls_to(
        &mut self,
        on: ConnId,
        peer: ConnId,
        out: BufferId,
        room: usize,
        dst_tls: bool,
        (passes, allowed): (usize, usize),
    ) -> Received {
        let mut scratch = std::mem::take(&mut self.scratch);
        let kept = self.recall_wire(on, &mut scratch);
        let readable = self
            .slot(on)
            .is_some_and(|slot| slot.read.ready && slot.read.phase == Reading::Open && !slot.read.unopened);
        let mut end = None;
        let mut wire = kept;
        if readable {
            // A record's plaintext is shorter than the record.
            let limit = scratch.len().min(kept + room).min(passes).min(kept.saturating_add(allowed));
            match self.receive(on, &mut scratch[kept..limit]) {
                Received::Bytes(n) => wire += n,
                Received::Nothing => {
                    self.scratch = scratch;
                    return Received::Nothing;
                }
                Received::End(how) => end = Some(how),
            }
        }
        let bytes =
            if end.is_none() { self.open_for(on, peer, out, &mut scratch[..wire], dst_tls) } else { 0 };
        self.scratch = scratch;
        let left = self.slot(on).map_or(0, |slot| slot.read.wire.len());
        if end.is_none() && left != kept {
            // Plaintext is charged when it moves: what stays on the wire is charged now, and credited then.
            self.spend(on, left as i64 - kept as i64);
        }
        end.map_or(Received::Bytes(bytes), Received::End)
    }

    /// Opens records of `on` into the outgoing buffer of its peer. Returns the length of the plaintext.
    fn open_for(&mut self, on: ConnId, peer: ConnId, out: BufferId, wire: &mut [u8], dst_tls: bool) -> usize {
        let buffer = self.pool.checkout(out);
        let tls = if dst_tls { self.slot(peer).and_then(|dst| dst.tls.take()) } else { None };
        let Some(tls) = tls else {
            let mut taker = ToClear { out: buffer, bytes: 0 };
            // `open` has already queued an input for the error.
            let _ = self.open(on, wire, &mut taker);
            self.pool.put_back(out, taker.out);
            self.stats.copied += taker.bytes as u64;
            return taker.bytes;
        };
        let mut taker = ToTls { out: buffer, tls, bytes: 0, failed: false };
        let _ = self.open(on, wire, &mut taker);
        self.pool.put_back(out, taker.out);
        if let Some(dst) = self.slot(peer) {
            dst.tls = Some(taker.tls);
        }
        if taker.failed {
            self.write_failed(peer);
        }
        taker.bytes
    }

    /// Accounts for `bytes` bytes moved from `on` to the outgoing buffer of its peer, and flushes that buffer.
    fn account(&mut self, on: ConnId, peer: ConnId, bytes: usize) -> Go {
        self.stats.relayed += bytes as u64;
        if bytes > 0 {
            self.note_progress(on);
            self.spend(on, bytes as i64);
            // Queued before the flush: if the flush fails, the machine must already know that the bytes were taken.
            let queued = self.queued(peer);
            let read = u32::try_from(bytes).unwrap_or(u32::MAX);
            self.inputs.push_back(Input::Moved { from: on, read, queued });
            if let Some(slot) = self.slot(on) {
                slot.read.fresh |= slot.read.gate.moved(bytes);
            }
        }
        self.flush(peer);
        Go::On
    }

    /// The outgoing buffer of a destination, allocated if there is none. Returns `None` if the source has to wait for
    /// memory.
    fn out_for(&mut self, on: ConnId, peer: ConnId) -> Option<BufferId> {
        if let Some(out) = self.slot(peer)?.write.out {
            return Some(out);
        }
        let out = self.take_queue(on)?;
        self.slot(peer)?.write.out = Some(out);
        Some(out)
    }

    /// Releases the outgoing buffer if it is still empty.
    fn settle_out(&mut self, on: ConnId) {
        let Some(out) = self.slot(on).and_then(|slot| slot.write.out) else { return };
        if self.pool[out].is_empty() {
            if let Some(slot) = self.slot(on) {
                slot.write.out = None;
            }
            self.give(Some(out));
        }
    }
}
