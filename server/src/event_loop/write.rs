//! The writing side of a connection: sending, shutting down, closing.

use std::io;

use rendezvous_core::machine::{Close, ConnId, Machine};

use super::{EventLoop, Input, find};
use crate::buffer::BufferId;
use crate::net::{Net, Pipe};
use crate::slot::{Gate, Link, Pairing, Reading, Slot, UnsentLimit, Writing};

impl<N: Net> EventLoop<N, dyn Machine> {
    /// Sends bytes of the machine: as many as the socket accepts now, the rest when it is writable.
    pub(super) fn send(&mut self, on: ConnId, bytes: &[u8]) {
        let Some(slot) = self.slot(on) else { return };
        if slot.write.phase != Writing::Open || matches!(slot.link, Link::None | Link::Dialling(_)) {
            return;
        }
        slot.write.flushed_pending = true;
        let sealed = if slot.tls.is_some() { self.seal(on, bytes) } else { self.append_out(on, bytes) };
        if sealed {
            self.flush(on)
        } else {
            self.write_failed(on)
        }
        self.charge(on);
    }

    /// Writes queued data to the socket. Once the queue is empty, continues with the pending shutdown. Queues inputs
    /// for the machine.
    pub(super) fn flush(&mut self, on: ConnId) {
        let mut progress = false;
        loop {
            let Some(slot) = find(&mut self.slots, on) else { return };
            if slot.write.phase == Writing::Failed {
                return;
            }
            let Link::Up(sock) = &mut slot.link else { break };
            if !slot.write.ready {
                break;
            }
            // The bytes in the pipe precede those in the buffer.
            let sent = match (&mut slot.write.pipe, slot.write.out) {
                (Some(pipe), _) => self.net.splice_out(pipe, sock),
                (None, Some(out)) => self.net.send(sock, self.pool[out].filled()),
                (None, None) => break,
            };
            match sent {
                Ok(0) => return self.write_failed(on),
                Ok(n) => {
                    progress = true;
                    self.sent(on, n);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    slot.write.ready = false;
                    if let Some(limit) = &mut slot.write.unsent
                        && let Some(bytes) = limit.on_full(self.now.mono)
                    {
                        self.net.limit_unsent(sock, bytes);
                        // If it takes more now, no edge need tell of it.
                        slot.write.ready = true;
                    }
                }
                Err(error) => {
                    // 'Broken pipe' follows an end that was reported before, so it is not a reset.
                    slot.write.reset_seen = error.kind() != io::ErrorKind::BrokenPipe;
                    return self.write_failed(on);
                }
            }
        }
        self.flushed(on, progress);
    }

    /// Begins to bound what the system holds unsent for a half of a pair.
    pub(super) fn limit_unsent(&mut self, on: ConnId) {
        let Some(slot) = find(&mut self.slots, on) else { return };
        slot.write.unsent = Some(UnsentLimit::NEW);
        if let Link::Up(sock) = &mut slot.link {
            self.net.limit_unsent(sock, UnsentLimit::NEW.bytes());
        }
    }

    /// Removes `n` bytes that the socket accepted from the front of the queue.
    fn sent(&mut self, on: ConnId, n: usize) {
        self.sent += n as u64;
        self.note_taken(on, n);
        let Some(slot) = find(&mut self.slots, on) else { return };
        if let Some(limit) = &mut slot.write.unsent {
            limit.on_taken(n);
        }
        if let Some(pipe) = slot.write.pipe.take_if(|pipe| pipe.is_empty()) {
            return self.net.give_pipe(pipe);
        }
        let Some(out) = slot.write.out.filter(|_| slot.write.pipe.is_none()) else { return };
        self.pool[out].consume(n);
        if self.pool[out].is_empty() {
            slot.write.out = None;
            self.give(Some(out));
        }
    }

    /// Queues the inputs that follow from a shorter or empty queue, and resumes the peer.
    fn flushed(&mut self, on: ConnId, progress: bool) {
        let Some(slot) = self.slot(on) else { return };
        let peer = slot.pairing.peer();
        if slot.is_drained() {
            let pending = std::mem::take(&mut slot.write.flushed_pending);
            if pending || (progress && peer.is_some()) {
                self.inputs.push_back(Input::Flushed(on));
            }
            self.finish_writing(on);
        } else if let (true, Some(peer)) = (progress, peer) {
            let queued = self.queued(on);
            self.inputs.push_back(Input::Moved { from: peer, read: 0, queued });
        }
        if progress && let Some(peer) = peer {
            // The peer can send again now that there is room.
            self.enqueue(peer);
        }
    }

    /// Continues with the pending shutdown once the queue is empty: close_notify, FIN or reset.
    fn finish_writing(&mut self, on: ConnId) {
        let Some(slot) = self.slot(on) else { return };
        let to_be_reset = slot.tls.is_none() && slot.closing == Some(Close::Truncate);
        match slot.write.phase {
            Writing::Open | Writing::Failed => {}
            Writing::Cutting | Writing::Ended if to_be_reset => {
                // A reset would discard what the peer has not acknowledged yet, so it is delayed.
                if !self.truncating.contains(&on) {
                    self.truncating.push(on);
                }
            }
            Writing::Cutting => self.end_write(on),
            Writing::Ended => {}
            Writing::Ending => {
                slot.write.phase = Writing::Cutting;
                if slot.tls.is_some() && self.seal_end(on) {
                    return self.flush(on);
                }
                self.end_write(on);
            }
        }
        self.close_if_done(on);
    }

    fn end_write(&mut self, on: ConnId) {
        let Some((slot, net)) = self.slot_and_net(on) else { return };
        slot.write.phase = Writing::Ended;
        if let Some(sock) = slot.sock()
            && net.end_write(sock).is_err()
        {
            self.write_failed(on);
        }
    }

    /// Resets the cleartext connections that end with a reset and whose peers have acknowledged everything.
    pub(super) fn finish_truncating(&mut self) {
        for on in std::mem::take(&mut self.truncating) {
            let Some((slot, net)) = self.slot_and_net(on) else { continue };
            let left = slot.sock().map_or(0, |sock| net.unacknowledged(sock));
            if left == 0 || slot.write.phase == Writing::Failed {
                self.remove_slot(on, true);
            } else {
                self.truncating.push(on);
            }
        }
    }

    /// Handles a failed write: discards the queue and reports the failure.
    pub(super) fn write_failed(&mut self, on: ConnId) {
        let Some(slot) = self.slot(on) else { return };
        if slot.write.phase == Writing::Failed {
            return;
        }
        let is_unreported = slot.closing.is_none();
        slot.write.phase = Writing::Failed;
        slot.write.flushed_pending = false;
        let out = slot.write.out.take();
        self.drop_pipe(on);
        self.give(out);
        if is_unreported {
            self.inputs.push_back(Input::WriteFailed(on));
        }
        self.close_if_done(on);
    }

    /// Starts closing a connection, or closes it faster than before.
    pub(super) fn close(&mut self, on: ConnId, how: Close) {
        let Some(slot) = self.slot(on) else {
            // It never had a socket.
            return self.inputs.push_back(Input::Closed(on));
        };
        let peer = slot.pairing.end();
        let first = slot.closing.is_none();
        slot.closing = Some(how);
        slot.read.phase = Reading::Ended;
        let parked = slot.read.parked.take();
        slot.read.wire = Vec::new();
        slot.read.unopened = false;
        let up = matches!(slot.link, Link::Up(_));
        let fin_sent = slot.write.phase == Writing::Ended;
        if let Some(peer) = peer {
            self.unlimit_rate(on);
            self.unpair(peer);
        }
        self.give(parked);
        if how == Close::Abort || !up {
            return self.remove_slot(on, up && !fin_sent);
        }
        debug_assert!(first, "closed twice in the same way");
        if let Some(slot) = self.slot(on) {
            slot.write.phase = match (slot.write.phase, how) {
                (Writing::Open | Writing::Ending, Close::Linger) => Writing::Ending,
                (Writing::Open | Writing::Ending, _) => Writing::Cutting,
                (other, _) => other,
            };
        }
        self.flush(on);
        self.enqueue(on);
        self.charge(on);
        self.close_if_done(on);
    }

    /// Closes the socket once both sides have ended. With unread data, close(2) would send a reset, which could discard
    /// data in flight.
    pub(super) fn close_if_done(&mut self, on: ConnId) {
        let Some(slot) = self.slot(on) else { return };
        let written = matches!(slot.write.phase, Writing::Ended | Writing::Failed);
        if slot.closing.is_some() && written && slot.read.eof_seen {
            self.remove_slot(on, false);
        }
    }

    /// Closes the socket now.
    fn remove_slot(&mut self, on: ConnId, abort: bool) {
        let Some(place) = self.slots.get_mut(on.index as usize) else { return };
        let Some(slot) = place.take_if(|slot| slot.id == on) else { return };
        let Slot { link, read, write, pairing, memory, .. } = *slot;
        debug_assert!(pairing.peer().is_none(), "removed while paired");
        self.give(read.parked);
        self.give(write.out);
        self.discharge(memory);
        if let Some(pipe) = write.pipe {
            self.net.give_pipe(pipe);
        }
        match link {
            Link::Up(sock) if abort => self.net.abort(sock),
            Link::Up(sock) if write.phase == Writing::Ended => {
                self.close_delivered(sock, pairing != Pairing::Never);
            }
            Link::Up(sock) | Link::Dialling(sock) => self.net.close(sock),
            Link::None => {}
        }
        self.end_backoff();
        self.inputs.push_back(Input::Closed(on));
    }

    /// Detaches the other half of an ended pair: its bytes go to the machine again.
    fn unpair(&mut self, on: ConnId) {
        self.unlimit_rate(on);
        if let Some(slot) = self.slot(on) {
            slot.pairing.end();
            slot.read.gate = Gate::Open;
            slot.read.fresh = true;
            self.enqueue(on);
        }
    }

    /// Number of bytes queued for the socket.
    pub(super) fn queued(&mut self, on: ConnId) -> u32 {
        let Some(slot) = find(&mut self.slots, on) else { return 0 };
        let buffered = slot.write.out.map_or(0, |out| self.pool[out].filled().len());
        let piped = slot.write.pipe.as_ref().map_or(0, Pipe::len);
        u32::try_from(buffered + piped).unwrap_or(u32::MAX)
    }

    fn append_out(&mut self, on: ConnId, bytes: &[u8]) -> bool {
        let Some(slot) = self.slot(on) else { return false };
        match slot.write.out {
            Some(out) => self.pool[out].append(bytes),
            None => {
                let owner = slot.memory.owner;
                let out = self.pool.hold(bytes, owner);
                if let Some(slot) = self.slot(on) {
                    slot.write.out = Some(out);
                }
            }
        }
        true
    }

    /// Seals all of `bytes`, even beyond the buffer's size: the machine's own messages are few and short.
    fn seal(&mut self, on: ConnId, bytes: &[u8]) -> bool {
        self.with_tls(on, |tls, out| tls.seal_all(bytes, out).is_ok()).unwrap_or(false)
    }

    /// Appends close_notify. Returns false if nothing was appended.
    fn seal_end(&mut self, on: ConnId) -> bool {
        self.with_tls(on, |tls, out| {
            let before = out.filled().len();
            tls.seal_end(out);
            out.filled().len() > before
        })
        .unwrap_or(false)
    }

    /// Calls `work` with the TLS session of a connection and its outgoing buffer, allocated if there is none.
    pub(super) fn with_tls<R>(
        &mut self,
        on: ConnId,
        work: impl FnOnce(&mut crate::tls::TlsSession, &mut crate::buffer::Buffer) -> R,
    ) -> Option<R> {
        let slot = find(&mut self.slots, on)?;
        let owner = slot.memory.owner;
        let out: BufferId = *slot.write.out.get_or_insert_with(|| self.pool.hold(&[], owner));
        let result = work(slot.tls.as_deref_mut()?, &mut self.pool[out]);
        if self.pool[out].is_empty() {
            slot.write.out = None;
            self.give(Some(out));
        }
        Some(result)
    }
}
