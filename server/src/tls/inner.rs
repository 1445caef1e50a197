//! TLS inside TLS: between a client and an agent, through a relay that cannot read it.

use rustls::Error;

use super::error::TlsError;
use super::layer::Layer;
use super::{OVERHEAD_MAX, Opened, RECORD_FIRST, RECORD_MAX, RECORD_WIRE_MAX, Take};
use crate::buffer::Buffer;

/// Limit of kept wire bytes of the inner layer: a partial handshake message or record, and one record behind it.
const WIRE_MAX: usize = 2 * RECORD_WIRE_MAX;
/// The plaintext of the inner layer's first records.
const INNER_FIRST: usize = RECORD_FIRST - OVERHEAD_MAX;

/// The inner layer and its buffers.
pub(super) struct Inner {
    pub(super) layer: Layer,
    wire: Vec<u8>,
    /// Output of the inner layer, to be sealed by the outer one.
    out: Buffer,
    outer_ended: bool,
}

/// Takes the plaintext of the outer layer as the wire of the inner one.
struct ToWire<'a>(&'a mut Vec<u8>);

impl Take for ToWire<'_> {
    fn has_room(&self) -> bool {
        self.0.len() + RECORD_MAX <= WIRE_MAX
    }

    fn take(&mut self, plain: &[u8]) {
        self.0.extend_from_slice(plain);
    }
}

/// Length of plaintext that is certain to fit into this room when it is sealed twice.
pub(super) const fn sealable(room: usize) -> usize {
    let outer = super::sealable(room);
    let record = INNER_FIRST + OVERHEAD_MAX;
    (outer / record) * INNER_FIRST + (outer % record).saturating_sub(OVERHEAD_MAX)
}

impl Inner {
    pub(super) fn new(mut layer: Layer, wire: Vec<u8>) -> Self {
        layer.become_inner();
        Self { layer, wire, out: Buffer::with_room(0), outer_ended: false }
    }

    pub(super) fn kept(&self) -> usize {
        self.wire.capacity()
    }

    /// See [`super::TlsSession::open`].
    pub(super) fn open(
        &mut self,
        outer: &mut Layer,
        wire: &mut [u8],
        out: &mut Buffer,
        taker: &mut impl Take,
    ) -> Result<Opened, TlsError> {
        let mut all = Opened { consumed: 0, ended: false, cut: false, secured: false, full: false };
        loop {
            let opened = self.layer.open(&mut self.wire, &mut self.out, taker);
            self.send(outer, out)?;
            let opened = opened?;
            self.wire.drain(..opened.consumed);
            all.secured |= opened.secured;
            all.full = opened.full;
            if opened.ended {
                all.ended = true;
                all.consumed = wire.len();
                break;
            }
            if opened.full {
                break;
            }
            if self.outer_ended {
                all.cut = true;
                all.consumed = wire.len();
                break;
            }
            let before = self.wire.len();
            let rest = wire.get_mut(all.consumed..).unwrap_or_default();
            let opened = outer.open(rest, out, &mut ToWire(&mut self.wire))?;
            all.consumed += opened.consumed;
            self.outer_ended = opened.ended;
            if self.wire.len() == before && !opened.ended {
                if opened.full {
                    self.layer.mark_broken();
                    return Err(TlsError(Error::General("inner message too long".into())));
                }
                break;
            }
        }
        if self.wire.is_empty() {
            self.wire = Vec::new();
        }
        Ok(all)
    }

    /// Seals `plain`, for which `out` must have room.
    pub(super) fn seal(&mut self, outer: &mut Layer, plain: &[u8], out: &mut Buffer) -> Result<(), TlsError> {
        // Record by record, so that little data is buffered twice.
        let len = plain.len().min(RECORD_MAX);
        self.out.reserve(len + (len / INNER_FIRST + 1) * OVERHEAD_MAX);
        for piece in plain.chunks(RECORD_MAX) {
            self.layer.seal(piece, &mut self.out)?;
            let sealed = self.out.filled();
            outer.seal(sealed, out)?;
            let len = sealed.len();
            self.out.consume(len);
        }
        self.out = Buffer::with_room(0);
        Ok(())
    }

    pub(super) fn seal_end(&mut self, outer: &mut Layer, out: &mut Buffer) {
        self.layer.seal_end(&mut self.out);
        // If the outer layer cannot send, the connection has ended anyway.
        let _ = self.send(outer, out);
    }

    /// Seals the output of the inner layer by the outer one.
    fn send(&mut self, outer: &mut Layer, out: &mut Buffer) -> Result<(), TlsError> {
        if self.out.is_empty() {
            return Ok(());
        }
        let len = self.out.filled().len();
        out.reserve(len + (len / RECORD_FIRST + 1) * OVERHEAD_MAX);
        let sent = outer.seal(self.out.filled(), out);
        self.out = Buffer::with_room(0);
        sent
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner")
            .field("layer", &self.layer)
            .field("kept", &self.wire.len())
            .finish_non_exhaustive()
    }
}
