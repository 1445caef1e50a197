//! The reading side of a connection that is no half of a pair: octets for the machine, or for nobody.

use std::io;

use rendezvous_core::dtcp::Fingerprint;
use rendezvous_core::machine::{ConnId, End, Machine, Secured, TlsFailure, TlsRole};

use super::{EndToEndTls, EventLoop, Input, TURN_CALLS_MAX, TURN_OCTETS_MAX, find};
use crate::buffer::{Buffer, BufferId};
use crate::escape::Escaped;
use crate::net::Net;
use crate::slot::{Gate, Reading, Slot};
use crate::tls::{
    HANDSHAKE_WIRE_MAX, Opened, Protocol, RECORD_MAX, RECORD_WIRE_MAX, Take, TlsError, TlsSession,
    is_hello_too_long,
};
use crate::tls_config::LetIn;
use crate::x509;

/// Plaintext goes into a buffer.
pub(super) struct Park(pub(super) Buffer);

/// What one receiving call brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    Octets(usize),
    /// Nothing for now.
    Nothing,
    /// Nothing any more.
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
    /// Receives and offers to the machine, until there is nothing more, or it wants no more, or the turn is over.
    pub(super) fn offer(&mut self, on: ConnId) {
        let mut octets = 0;
        for _ in 0..TURN_CALLS_MAX {
            let Some(slot) = self.slot(on) else { return };
            if slot.closing.is_some() || slot.peer.is_some() {
                // It became something else by what it was offered.
                return self.enqueue(on);
            }
            if !slot.wanted && !slot.is_securing() {
                return self.look_for_end(on);
            }
            if std::mem::take(&mut slot.fresh) && slot.parked.is_some() {
                self.offer_parked(on);
            } else if slot.unopened {
                if !self.open_parked(on, 0) {
                    return;
                }
            } else if let Reading::Ending(how) = slot.reading {
                return self.report_end(on, how);
            } else if slot.readable && slot.reading == Reading::Open {
                match self.receive_parked(on) {
                    Some(received) => octets += received,
                    None => return,
                }
            } else {
                return;
            }
            if octets >= TURN_OCTETS_MAX {
                break;
            }
        }
        self.enqueue(on);
    }

    /// Nothing is to be received now: an end with nothing in front of it is told all the same. In TLS it is not to be
    /// seen from outside.
    fn look_for_end(&mut self, on: ConnId) {
        let Some((slot, net)) = self.slot_and_net(on) else { return };
        if slot.tls.is_some() || slot.parked.is_some() {
            return;
        }
        if let Reading::Ending(how) = slot.reading {
            return self.report_end(on, how);
        }
        if !slot.readable || slot.reading != Reading::Open {
            return;
        }
        let Some(sock) = slot.sock() else { return };
        let looked = match net.peek_end(sock) {
            // It stays readable: for when it is wanted.
            Ok(false) => return,
            Ok(true) => Ok(0),
            Err(error) => Err(error),
        };
        if let Received::End(how) = self.judge(on, looked) {
            self.report_end(on, how);
        }
    }

    /// Receives and drops: nobody wants the octets of a connection that is closing, but unread ones would make its
    /// close a reset.
    pub(super) fn discard(&mut self, on: ConnId) {
        self.drain(on);
        self.try_bury(on);
    }

    /// Receives and drops what comes after the end of the stream, as much as a turn allows. A reset there is about the
    /// writing side.
    pub(super) fn drain(&mut self, on: ConnId) {
        let mut octets = 0;
        let mut broken = false;
        let mut scratch = std::mem::take(&mut self.scratch);
        for _ in 0..TURN_CALLS_MAX {
            let Some((slot, net)) = self.slot_and_net(on) else { break };
            if !slot.readable || octets >= TURN_OCTETS_MAX {
                break;
            }
            if slot.eof_seen {
                // No receiving call would show more than the end, again and again.
                slot.readable = false;
                broken |= slot.sock().and_then(|sock| net.take_error(sock)).is_some();
                break;
            }
            match self.receive(on, &mut scratch) {
                Received::Octets(n) => octets += n,
                Received::Nothing => {}
                Received::End(how) => broken = how == End::Reset,
            }
        }
        self.scratch = scratch;
        if octets > 0 && self.slot(on).is_some_and(|slot| slot.closing.is_some()) {
            // Told before a reset that came behind them: that may be the end of the connection.
            let read = u32::try_from(octets).unwrap_or(u32::MAX);
            self.inputs.push_back(Input::Moved { from: on, read, queued: 0 });
        }
        if broken {
            self.write_failed(on);
        }
        if let Some(Slot { readable: true, .. }) = self.slot(on) {
            self.enqueue(on);
        }
    }

    /// One receiving call. `WouldBlock`, and nothing else, clears readiness.
    pub(super) fn receive(&mut self, on: ConnId, into: &mut [u8]) -> Received {
        let Some((slot, net)) = self.slot_and_net(on) else { return Received::Nothing };
        let Some(sock) = slot.sock() else { return Received::Nothing };
        let received = net.recv(sock, into);
        self.judge(on, received)
    }

    /// What a receiving call says.
    pub(super) fn judge(&mut self, on: ConnId, received: io::Result<usize>) -> Received {
        let Some(slot) = self.slot(on) else { return Received::Nothing };
        match received {
            Ok(0) => {
                slot.eof_seen = true;
                Received::End(match (slot.reset_seen, &slot.tls) {
                    (true, _) => End::Reset,
                    (false, Some(_)) => End::Truncated,
                    (false, None) => End::Clean,
                })
            }
            Ok(n) => {
                slot.bulk = n >= N::BULK_MIN;
                self.received += n as u64;
                Received::Octets(n)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                slot.readable = false;
                Received::Nothing
            }
            Err(_) => {
                slot.eof_seen = true;
                Received::End(End::Reset)
            }
        }
    }

    pub(super) fn set_reading(&mut self, on: ConnId, reading: Reading) {
        if let Some(slot) = self.slot(on) {
            slot.reading = reading;
        }
    }

    /// Everything that came before the end is where it belongs.
    pub(super) fn report_end(&mut self, on: ConnId, how: End) {
        let Some(slot) = self.slot(on) else { return };
        slot.reading = Reading::Ended;
        let input =
            if slot.is_securing() { Input::TlsFailed(on, TlsFailure::Ended) } else { Input::Ended(on, how) };
        self.inputs.push_back(input);
    }

    /// Runs TLS over octets of the wire: what was kept, and `scratch` behind it, whose first `kept` octets are the
    /// caller's copy of it. What is not consumed is kept.
    pub(super) fn open(
        &mut self,
        on: ConnId,
        wire: &mut [u8],
        taker: &mut impl Take,
    ) -> Result<Opened, TlsError> {
        // No record begins like this.
        let is_answer = wire.starts_with(b"HTTP/");
        let result = self.with_tls(on, |tls, out| tls.open(wire, out, taker));
        let Some(slot) = self.slot(on) else {
            return Ok(Opened { consumed: wire.len(), ended: true, cut: false, secured: false, full: false });
        };
        match &result {
            Some(Ok(opened)) => {
                slot.unopened = opened.full;
                slot.wire.clear();
                slot.wire.extend_from_slice(&wire[opened.consumed..]);
                if slot.wire.is_empty() {
                    slot.wire = Vec::new();
                }
                if opened.ended {
                    slot.reading = Reading::Ending(End::Clean);
                } else if opened.cut {
                    slot.reading = Reading::Ending(End::Truncated);
                }
            }
            Some(Err(error)) => {
                log::debug!(
                    "event=tls-error conn={}.{} error={}",
                    on.index,
                    on.generation,
                    Escaped(&error.to_string())
                );
                slot.unopened = false;
                slot.wire = Vec::new();
                slot.reading = Reading::Ended;
                let input = if slot.is_securing() {
                    let why = if is_answer { TlsFailure::PlainHttp } else { error.failure() };
                    Input::TlsFailed(on, why)
                } else {
                    // The stream is cut, but the connection is not: the alert is on its way, and a reset would eat it.
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

    /// Offers what is parked, unless it is to move without being offered.
    pub(super) fn offer_parked(&mut self, on: ConnId) {
        let Some(slot) = self.slot(on) else { return };
        let Some(parked) = slot.parked else { return };
        if slot.peer.is_some() && slot.gate != Gate::After(0) {
            return;
        }
        let used = self.machine.handle_bytes(on, self.pool[parked].filled(), self.now);
        self.pool[parked].consume(used);
        if self.pool[parked].is_empty() {
            if let Some(slot) = self.slot(on) {
                slot.parked = None;
            }
            self.give(Some(parked));
        }
        self.settle();
    }

    /// Receives into the parked buffer and offers it. How much came; `None` when the turn is over.
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
            if let Received::Octets(n) = received
                && self.slot(on).is_some_and(|slot| slot.is_securing())
                && is_hello_too_long(&self.scratch[..kept + n])
            {
                self.refuse_wire(on);
                return None;
            }
            return match received {
                Received::Octets(n) => self.open_parked(on, n).then_some(n),
                Received::Nothing => None,
                Received::End(how) => {
                    self.set_reading(on, Reading::Ending(how));
                    Some(0)
                }
            };
        }
        let parked = self.parked_for(on)?;
        let mut buffer = self.pool.checkout(parked);
        // Not more than one head: what is behind it waits in the system.
        let room = self.pool.sizes().in_clear().saturating_sub(buffer.filled().len()).min(buffer.room());
        let received =
            if room > 0 { self.receive(on, &mut buffer.spare()[..room]) } else { Received::Nothing };
        if let Received::Octets(n) = received {
            buffer.commit(n);
        }
        self.pool.put_back(parked, buffer);
        self.release_if_empty(on);
        match received {
            Received::Octets(n) => {
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

    /// Opens what was kept of the wire, and `received` octets that are in the scratch buffer behind it, into the
    /// parked buffer, and offers that. False when the turn is over.
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
            let tls = self.secured(on);
            self.machine.handle_secured(on, tls, self.now);
            self.settle();
            if protocol == Some(Protocol::Challenge) {
                self.end_challenge(on);
                return false;
            }
        }
        if got {
            self.offer_parked(on);
        }
        // Without room for a record, and with nobody who makes some, there is nothing to do now.
        got || !matches!(opened, Ok(Opened { full: true, .. }) | Err(_))
    }

    /// A CA's validator has what it came for. Whatever it sends is ignored, as if it had ended its side (RFC 8737 §3).
    fn end_challenge(&mut self, on: ConnId) {
        let Some(slot) = self.slot(on) else { return };
        slot.unopened = false;
        slot.wire = Vec::new();
        let parked = slot.parked.take();
        self.give(parked);
        self.report_end(on, End::Clean);
    }

    /// What the handshake that is complete now has proved.
    fn secured(&mut self, on: ConnId) -> Secured {
        let Some(slot) = find(&mut self.slots, on) else { return Secured::default() };
        let Some(tls) = slot.tls.as_deref() else { return Secured::default() };
        let shown = tls.peer_certificate();
        let is_signed = matches!(slot.role, Some(TlsRole::EndToEnd | TlsRole::EndToEndStream))
            && matches!(&self.tls.end_to_end, Some(EndToEndTls { let_in: LetIn::Signed(_), .. }));
        let subject =
            shown.filter(|_| is_signed).and_then(x509::parts).and_then(|parts| parts.subject_text());
        Secured { certificate: shown.map(Fingerprint::of), is_h2: tls.protocol() == Protocol::H2, subject }
    }

    /// Whether a client of the relay begins with HTTP where TLS should begin. It goes on in clear then.
    fn is_plain_http(&mut self, on: ConnId, wire: &[u8]) -> bool {
        let Some(slot) = self.slot(on) else { return false };
        let is_first = !wire.is_empty() && std::mem::take(&mut slot.may_be_http);
        if !is_first || !begins_with_method(wire) {
            return false;
        }
        slot.tls = None;
        slot.wire = Vec::new();
        slot.unopened = false;
        true
    }

    /// How many bytes of the wire are received at most before some of them are opened: one record, or the largest
    /// message of a handshake.
    fn wire_limit(&mut self, on: ConnId) -> usize {
        let tls = self.slot(on).and_then(|slot| slot.tls.as_deref());
        match tls {
            Some(tls) if !tls.is_secured() && tls.is_client() => self.pool.sizes().bulk,
            Some(tls) if !tls.is_secured() => HANDSHAKE_WIRE_MAX,
            Some(_) | None => RECORD_WIRE_MAX,
        }
    }

    /// What was kept of the wire is as long as it may be, and still no whole message.
    fn refuse_wire(&mut self, on: ConnId) {
        let Some(slot) = self.slot(on) else { return };
        slot.wire = Vec::new();
        slot.reading = Reading::Ended;
        let input = if slot.is_securing() {
            Input::TlsFailed(on, TlsFailure::TooLong)
        } else {
            Input::Ended(on, End::Truncated)
        };
        self.inputs.push_back(input);
    }

    /// Copies the kept octets of the wire to the front of the scratch buffer; how many they are.
    pub(super) fn recall_wire(&mut self, on: ConnId, scratch: &mut [u8]) -> usize {
        let Some(slot) = self.slot(on) else { return 0 };
        let kept = slot.wire.len();
        scratch[..kept].copy_from_slice(&slot.wire);
        kept
    }

    /// Keeps octets that are in the scratch buffer behind what is kept of the wire.
    pub(super) fn keep_wire(&mut self, on: ConnId, received: usize) {
        let scratch = std::mem::take(&mut self.scratch);
        if let Some(slot) = self.slot(on) {
            let kept = slot.wire.len();
            slot.wire.extend_from_slice(&scratch[kept..kept + received]);
            slot.unopened = true;
        }
        self.scratch = scratch;
    }

    /// The parked buffer with room in it, made if there is none. [`EventLoop::charge`] takes the room away again.
    fn parked_for(&mut self, on: ConnId) -> Option<BufferId> {
        let slot = find(&mut self.slots, on)?;
        if let Some(parked) = slot.parked {
            self.pool.grow_buffer(parked);
            // What was consumed leaves room in front, which is needed behind.
            if self.pool[parked].room() < RECORD_MAX {
                self.pool[parked].compact();
            }
            return Some(parked);
        }
        let parked = self.pool.take_working(slot.memory.owner);
        slot.parked = Some(parked);
        Some(parked)
    }

    pub(super) fn release_if_empty(&mut self, on: ConnId) {
        let Some(parked) = self.slot(on).and_then(|slot| slot.parked) else { return };
        if self.pool[parked].is_empty() {
            if let Some(slot) = self.slot(on) {
                slot.parked = None;
            }
            self.give(Some(parked));
        }
    }
}

/// Whether the bytes are the method of a request and a space, or as much of it as is there. No TLS record begins with a
/// letter.
fn begins_with_method(wire: &[u8]) -> bool {
    let method = wire.iter().take_while(|octet| octet.is_ascii_uppercase()).count();
    method > 0 && wire.get(method).is_none_or(|&octet| octet == b' ')
}
