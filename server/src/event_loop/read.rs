//! The reading side of an unpaired connection: bytes for the machine, or bytes to discard.

use std::io;

use rendezvous_core::dtcp::Fingerprint;
use rendezvous_core::machine::{ConnId, End, Machine, Secured, TlsFailure, TlsRole};

use super::{EventLoop, Input, TURN_BYTES_MAX, TURN_CALLS_MAX, find};
use crate::buffer::{Buffer, BufferId};
use crate::escape::Escaped;
use crate::net::Net;
use crate::pin::Pin;
use crate::slot::{Gate, Reading};
use crate::tls::{
    HANDSHAKE_WIRE_MAX, Opened, Protocol, RECORD_MAX, RECORD_WIRE_MAX, Take, TlsError, TlsSession,
    begins_with_method, is_hello_too_long,
};
use crate::tls_config::ClientAuth;
use crate::x509;

/// Takes plaintext into a buffer.
pub(super) struct Park(pub(super) Buffer);

/// Result of one receive call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    Bytes(usize),
    /// The socket has no data now.
    Nothing,
    /// The stream has ended.
    End(End),
}

impl Take for Park {
    fn has_room(&self) -> bool {
        self.0.room() >= RECORD_MAX
    }

    fn take(&mut self, plain: &[u8]) {
        self.0.append(plain);
    }
}

impl<N: Net> EventLoop<N, dyn Machine> {
    /// Receives bytes and offers them to the machine until the socket is empty, the machine wants no more, or the turn
    /// is over.
    pub(super) fn offer(&mut self, on: ConnId) {
        let mut bytes = 0;
        for _ in 0..TURN_CALLS_MAX {
            let Some(slot) = self.slot(on) else { return };
            if slot.closing.is_some() || slot.pairing.peer().is_some() {
                // The machine has closed or paired the connection.
                return self.enqueue(on);
            }
            if !slot.read.wanted && !slot.is_securing() {
                return self.look_for_end(on);
            }
            if std::mem::take(&mut slot.read.fresh) && slot.read.parked.is_some() {
                self.offer_parked(on);
            } else if slot.read.unopened {
                if !self.open_parked(on, 0) {
                    return;
                }
            } else if let Reading::Ending(how) = slot.read.phase {
                return self.report_end(on, how);
            } else if slot.read.ready && slot.read.phase == Reading::Open {
                match self.receive_parked(on) {
                    Some(received) => bytes += received,
                    None => return,
                }
            } else {
                return;
            }
            if bytes >= TURN_BYTES_MAX {
                break;
            }
        }
        self.enqueue(on);
    }

    /// Reports an EOF or reset with no data before it, although the machine does not want to receive now. Not possible
    /// in TLS, where the end is inside the encrypted stream.
    fn look_for_end(&mut self, on: ConnId) {
        let Some((slot, net)) = self.slot_and_net(on) else { return };
        if slot.tls.is_some() || slot.read.parked.is_some() {
            return;
        }
        if let Reading::Ending(how) = slot.read.phase {
            return self.report_end(on, how);
        }
        if !slot.read.ready || slot.read.phase != Reading::Open {
            return;
        }
        let Some(sock) = slot.sock() else { return };
        let looked = match net.peek_end(sock) {
            // The socket stays readable, for when the data is wanted.
            Ok(false) => return,
            Ok(true) => Ok(0),
            Err(error) => Err(error),
        };
        if let Received::End(how) = self.classify(on, looked) {
            self.report_end(on, how);
        }
    }

    /// Receives and discards the bytes of a connection that is closing: closing a socket with unread data would reset
    /// it.
    pub(super) fn discard(&mut self, on: ConnId) {
        self.drain(on);
        self.close_if_done(on);
    }

    /// Receives and discards what follows the end of the stream, within the limits of a turn. A reset after it fails
    /// the writing side.
    pub(super) fn drain(&mut self, on: ConnId) {
        let mut bytes = 0;
        let mut broken = false;
        let mut scratch = std::mem::take(&mut self.scratch);
        for _ in 0..TURN_CALLS_MAX {
            let Some((slot, net)) = self.slot_and_net(on) else { break };
            if !slot.read.ready || bytes >= TURN_BYTES_MAX {
                break;
            }
            if slot.read.eof_seen {
                // Further receive calls would only return EOF again.
                slot.read.ready = false;
                broken |= slot.sock().and_then(|sock| net.take_error(sock)).is_some();
                break;
            }
            match self.receive(on, &mut scratch) {
                Received::Bytes(n) => bytes += n,
                Received::Nothing => {}
                Received::End(how) => broken = how == End::Reset,
            }
        }
        self.scratch = scratch;
        if bytes > 0 && self.slot(on).is_some_and(|slot| slot.closing.is_some()) {
            // Queued before a reset that followed these bytes, because the reset may end the connection.
            let read = u32::try_from(bytes).unwrap_or(u32::MAX);
            self.inputs.push_back(Input::Moved { from: on, read, queued: 0 });
        }
        if broken {
            self.write_failed(on);
        }
        if self.slot(on).is_some_and(|slot| slot.read.ready) {
            self.enqueue(on);
        }
    }

    /// Makes one receive call. Only `WouldBlock` clears readiness.
    pub(super) fn receive(&mut self, on: ConnId, into: &mut [u8]) -> Received {
        let Some((slot, net)) = self.slot_and_net(on) else { return Received::Nothing };
        let Some(sock) = slot.sock() else { return Received::Nothing };
        let received = net.recv(sock, into);
        self.classify(on, received)
    }

    /// Interprets the result of a receive call.
    pub(super) fn classify(&mut self, on: ConnId, received: io::Result<usize>) -> Received {
        let Some(slot) = self.slot(on) else { return Received::Nothing };
        match received {
            Ok(0) => {
                slot.read.eof_seen = true;
                Received::End(match (slot.write.reset_seen, &slot.tls) {
                    (true, _) => End::Reset,
                    (false, Some(_)) => End::Truncated,
                    (false, None) => End::Clean,
                })
            }
            Ok(n) => {
                slot.read.bulk = n >= N::BULK_MIN;
                self.received += n as u64;
                Received::Bytes(n)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                slot.read.ready = false;
                Received::Nothing
            }
            Err(_) => {
                slot.read.eof_seen = true;
                Received::End(End::Reset)
            }
        }
    }

    pub(super) fn set_reading(&mut self, on: ConnId, reading: Reading) {
        if let Some(slot) = self.slot(on) {
            slot.read.phase = reading;
        }
    }

    /// Reports the end of the stream, after everything before it has been delivered.
    pub(super) fn report_end(&mut self, on: ConnId, how: End) {
        let Some(slot) = self.slot(on) else { return };
        slot.read.phase = Reading::Ended;
        let input =
            if slot.is_securing() { Input::TlsFailed(on, TlsFailure::Ended) } else { Input::Ended(on, how) };
        self.inputs.push_back(input);
    }

    /// Runs TLS over wire bytes. `wire` holds a copy of the kept bytes, followed by newly received ones. What is not
    /// consumed is kept.
    pub(super) fn open(
        &mut self,
        on: ConnId,
        wire: &mut [u8],
        taker: &mut impl Take,
    ) -> Result<Opened, TlsError> {
        // No TLS record begins like this.
        let is_answer = wire.starts_with(b"HTTP/");
        let result = self.with_tls(on, |tls, out| tls.open(wire, out, taker));
        let Some(slot) = self.slot(on) else {
            return Ok(Opened { consumed: wire.len(), ended: true, cut: false, secured: false, full: false });
        };
        match &result {
            Some(Ok(opened)) => {
                slot.read.unopened = opened.full;
                slot.read.wire.clear();
                slot.read.wire.extend_from_slice(&wire[opened.consumed..]);
                if slot.read.wire.is_empty() {
                    slot.read.wire = Vec::new();
                }
                if opened.ended {
                    slot.read.phase = Reading::Ending(End::Clean);
                } else if opened.cut {
                    slot.read.phase = Reading::Ending(End::Truncated);
                }
            }
            Some(Err(error)) => {
                log::debug!(
                    "event=tls-error conn={}.{} reason={}",
                    on.index,
                    on.generation,
                    Escaped(&error.to_string())
                );
                slot.read.unopened = false;
                slot.read.wire = Vec::new();
                slot.read.phase = Reading::Ended;
                let input = if slot.is_securing() {
                    let why = if is_answer { TlsFailure::PlainHttp } else { error.failure() };
                    Input::TlsFailed(on, why)
                } else {
                    // The stream is cut, but the socket is not reset: the alert is still on its way, and a reset would
                    // discard it.
                    Input::Ended(on, End::Truncated)
                };
                self.inputs.push_back(input);
            }
            None => {}
        }
        self.flush(on);
        let gone = Opened { consumed: wire.len(), ended: true, cut: false, secured: false, full: false };
        result.unwrap_or(Ok(gone))
    }

    /// Offers the parked bytes to the machine, unless they are to be relayed without inspection.
    pub(super) fn offer_parked(&mut self, on: ConnId) {
        let Some(slot) = self.slot(on) else { return };
        let Some(parked) = slot.read.parked else { return };
        if slot.pairing.peer().is_some() && slot.read.gate != Gate::After(0) {
            return;
        }
        let used = self.machine.handle_bytes(on, self.pool[parked].filled(), self.now);
        self.pool[parked].consume(used);
        if self.pool[parked].is_empty() {
            if let Some(slot) = self.slot(on) {
                slot.read.parked = None;
            }
            self.give(Some(parked));
        }
        self.settle();
    }

    /// Receives into the parked buffer and offers it to the machine. Returns the number of bytes received, or `None` if
    /// the turn is over.
    pub(super) fn receive_parked(&mut self, on: ConnId) -> Option<usize> {
        if self.slot(on)?.tls.is_some() {
            let limit = self.wire_limit(on);
            let mut scratch = std::mem::take(&mut self.scratch);
            let kept = self.recall_wire(on, &mut scratch);
            let received =
                if kept < limit { Some(self.receive(on, &mut scratch[kept..limit])) } else { None };
            self.scratch = scratch;
            let Some(received) = received else {
                self.refuse_wire(on);
                return None;
            };
            if let Received::Bytes(n) = received
                && self.slot(on).is_some_and(|slot| slot.is_securing())
                && is_hello_too_long(&self.scratch[..kept + n])
            {
                self.refuse_wire(on);
                return None;
            }
            return match received {
                Received::Bytes(n) => self.open_parked(on, n).then_some(n),
                Received::Nothing => None,
                Received::End(how) => {
                    self.set_reading(on, Reading::Ending(how));
                    Some(0)
                }
            };
        }
        let parked = self.parked_for(on)?;
        let mut buffer = self.pool.checkout(parked);
        // At most one head; the rest stays in the kernel's receive buffer.
        let room = self.pool.sizes().in_clear().saturating_sub(buffer.filled().len()).min(buffer.room());
        let received =
            if room > 0 { self.receive(on, &mut buffer.spare()[..room]) } else { Received::Nothing };
        if let Received::Bytes(n) = received {
            buffer.commit(n);
        }
        self.pool.put_back(parked, buffer);
        self.release_if_empty(on);
        match received {
            Received::Bytes(n) => {
                self.offer_parked(on);
                Some(n)
            }
            Received::Nothing => None,
            Received::End(how) => {
                self.set_reading(on, Reading::Ending(how));
                Some(0)
            }
        }
    }

    /// Opens the kept wire bytes and the `received` bytes behind them in the scratch buffer into the parked buffer, and
    /// offers the plaintext. Returns false if the turn is over.
    pub(super) fn open_parked(&mut self, on: ConnId, received: usize) -> bool {
        let Some(parked) = self.parked_for(on) else {
            self.keep_wire(on, received);
            return false;
        };
        let mut scratch = std::mem::take(&mut self.scratch);
        let kept = self.recall_wire(on, &mut scratch);
        let mut park = Park(self.pool.checkout(parked));
        if park.0.room() >= kept + received && self.is_plain_http(on, &scratch[..kept + received]) {
            park.0.append(&scratch[..kept + received]);
            self.pool.put_back(parked, park.0);
            self.scratch = scratch;
            self.machine.handle_tls_failed(on, TlsFailure::PlainHttp, self.now);
            self.settle();
            self.offer_parked(on);
            return true;
        }
        let before = park.0.filled().len();
        let opened = self.open(on, &mut scratch[..kept + received], &mut park);
        let got = park.0.filled().len() > before;
        self.pool.put_back(parked, park.0);
        self.scratch = scratch;
        self.release_if_empty(on);
        if let Ok(Opened { secured: true, .. }) = opened {
            let protocol = self.slot(on).and_then(|slot| slot.tls.as_deref()).map(TlsSession::protocol);
            match self.secured(on) {
                Ok(tls) => self.machine.handle_secured(on, tls, self.now),
                Err(why) => self.machine.handle_tls_failed(on, why, self.now),
            }
            self.settle();
            if protocol == Some(Protocol::Challenge) {
                self.end_challenge(on);
                return false;
            }
        }
        if got {
            self.offer_parked(on);
        }
        // If there was no room for a record, nothing can be done until the machine consumes bytes.
        got || !matches!(opened, Ok(Opened { full: true, .. }) | Err(_))
    }

    /// Ends the connection of a CA's validator after its handshake. Anything that it sends is ignored, as if it had
    /// sent close_notify (RFC 8737 §3).
    fn end_challenge(&mut self, on: ConnId) {
        let Some(slot) = self.slot(on) else { return };
        slot.read.unopened = false;
        slot.read.wire = Vec::new();
        let parked = slot.read.parked.take();
        self.give(parked);
        self.report_end(on, End::Clean);
    }

    /// What the handshake that is complete now has proved. A key may have been removed since it was checked.
    fn secured(&mut self, on: ConnId) -> Result<Secured, TlsFailure> {
        let Some(slot) = find(&mut self.slots, on) else { return Ok(Secured::default()) };
        let Some(tls) = slot.tls.as_deref() else { return Ok(Secured::default()) };
        let shown = tls.peer_certificate();
        let (mut key, mut subject) = (None, None);
        if let Some(TlsRole::EndToEnd | TlsRole::EndToEndStream) = slot.role
            && let Some(parts) = shown.and_then(x509::parts)
        {
            match self.tls.end_to_end.as_ref().map(|end_to_end| &end_to_end.client_auth) {
                Some(ClientAuth::Keys(keys)) => {
                    let pin = Pin::of_spki(parts.spki);
                    if !keys.contains(&pin) {
                        return Err(TlsFailure::Certificate);
                    }
                    key = Some(Fingerprint(pin.0));
                }
                Some(ClientAuth::Ca(_)) => subject = parts.subject_text(),
                Some(ClientAuth::Off) | None => {}
            }
        }
        let certificate = shown.map(Fingerprint::of);
        Ok(Secured { certificate, key, is_h2: tls.protocol() == Protocol::H2, subject })
    }

    /// Whether a client of the relay begins with plain HTTP instead of TLS. If so, the connection goes on in clear.
    fn is_plain_http(&mut self, on: ConnId, wire: &[u8]) -> bool {
        let Some(slot) = self.slot(on) else { return false };
        let is_first = !wire.is_empty() && std::mem::take(&mut slot.may_be_http);
        if !is_first || !begins_with_method(wire) {
            return false;
        }
        slot.tls = None;
        slot.read.wire = Vec::new();
        slot.read.unopened = false;
        true
    }

    /// Limit of wire bytes received before some of them are opened: one record, or the largest handshake message.
    fn wire_limit(&mut self, on: ConnId) -> usize {
        let tls = self.slot(on).and_then(|slot| slot.tls.as_deref());
        match tls {
            Some(tls) if !tls.is_secured() && tls.is_client() => self.pool.sizes().bulk,
            Some(tls) if !tls.is_secured() => HANDSHAKE_WIRE_MAX,
            Some(_) | None => RECORD_WIRE_MAX,
        }
    }

    /// Refuses a message that exceeds the limit of wire bytes.
    fn refuse_wire(&mut self, on: ConnId) {
        let Some(slot) = self.slot(on) else { return };
        slot.read.wire = Vec::new();
        slot.read.phase = Reading::Ended;
        let input = if slot.is_securing() {
            Input::TlsFailed(on, TlsFailure::TooLong)
        } else {
            Input::Ended(on, End::Truncated)
        };
        self.inputs.push_back(input);
    }

    /// Copies the kept wire bytes to the front of the scratch buffer. Returns how many they are.
    pub(super) fn recall_wire(&mut self, on: ConnId, scratch: &mut [u8]) -> usize {
        let Some(slot) = self.slot(on) else { return 0 };
        let kept = slot.read.wire.len();
        scratch[..kept].copy_from_slice(&slot.read.wire);
        kept
    }

    /// Appends received bytes in the scratch buffer to the kept wire bytes.
    pub(super) fn keep_wire(&mut self, on: ConnId, received: usize) {
        let scratch = std::mem::take(&mut self.scratch);
        if let Some(slot) = self.slot(on) {
            let kept = slot.read.wire.len();
            slot.read.wire.extend_from_slice(&scratch[kept..kept + received]);
            slot.read.unopened = true;
        }
        self.scratch = scratch;
    }

    /// The parked buffer with room for a record, allocated if there is none. [`EventLoop::charge`] shrinks it after the
    /// turn.
    fn parked_for(&mut self, on: ConnId) -> Option<BufferId> {
        let slot = find(&mut self.slots, on)?;
        if let Some(parked) = slot.read.parked {
            self.pool.grow_buffer(parked);
            // Consumed bytes leave room in front, but the room is needed behind.
            if self.pool[parked].room() < RECORD_MAX {
                self.pool[parked].compact();
            }
            return Some(parked);
        }
        let parked = self.pool.take_working(slot.memory.owner);
        slot.read.parked = Some(parked);
        Some(parked)
    }

    pub(super) fn release_if_empty(&mut self, on: ConnId) {
        let Some(parked) = self.slot(on).and_then(|slot| slot.read.parked) else { return };
        if self.pool[parked].is_empty() {
            if let Some(slot) = self.slot(on) {
                slot.read.parked = None;
            }
            self.give(Some(parked));
        }
    }
}
