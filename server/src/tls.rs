//! TLS sessions without sockets: records in, records out. Only this module and its submodules name rustls's connection
//! types.
//!
//! rustls does the handshakes, and all of TLS 1.2. After a TLS 1.3 handshake, records are opened and sealed in place
//! (`records`). That saves two of three copies and allocations per record, and half of the memory of a waiting
//! connection.

use std::sync::Arc;

use rustls::{ClientConfig, Error, ServerConfig};
use rustls_pki_types::ServerName;

pub use self::error::TlsError;
use self::layer::Layer;
use crate::buffer::Buffer;
pub use crate::buffer::RECORD_MAX;

#[cfg(test)]
mod direct_tests;
mod error;
mod inner;
mod layer;
mod records;
mod states;
#[cfg(test)]
mod tests;

/// Limit of a record's overhead: header, explicit nonce, inner type, tag (RFC 8446 §5.2, RFC 5288).
pub const OVERHEAD_MAX: usize = 5 + 8 + 1 + 16 + 10;

/// Limit of a record on the wire (RFC 8446 §5.2, RFC 5246 §6.2.3), with its header.
pub const RECORD_WIRE_MAX: usize = 5 + RECORD_MAX + 2_048;
/// Limit of wire bytes before a handshake message of a client is complete: a ClientHello of 16 KiB and the headers of
/// its records. Present-day clients send 2 KiB.
pub const HANDSHAKE_WIRE_MAX: usize = 5 + RECORD_MAX + 2_048;
/// Limit of a ClientHello: a longer one is refused as soon as its length is known.
const HELLO_MAX: usize = RECORD_MAX;
/// Memory of a handshake besides the wire bytes: at most 4.2 KB as measured, and the allocator's overhead.
pub const HANDSHAKE_MEMORY: usize = 6 * 1024;

/// The plaintext of a record at the beginning of a stream. With its overhead it fits into one TCP segment, so that the
/// first bytes can be opened as soon as that segment arrives.
const RECORD_FIRST: usize = 1_360;
/// Room for the plaintext of one record, sealed once or twice, in pieces of any size.
pub const ROOM_MIN: usize = RECORD_MAX + 2 * (RECORD_MAX / RECORD_FIRST + 2) * OVERHEAD_MAX;

/// Whether the first bytes of a connection belong to a ClientHello that exceeds the limit (RFC 8446 §4, §5.1).
#[must_use]
pub fn is_hello_too_long(wire: &[u8]) -> bool {
    match *wire {
        [22, 3, _, _, _, 1, high, middle, low, ..] => {
            u32::from_be_bytes([0, high, middle, low]) as usize > HELLO_MAX
        }
        _ => false,
    }
}

/// Whether the bytes are a request method and a space, or a prefix of them. No TLS record begins with a letter.
#[must_use]
pub fn begins_with_method(wire: &[u8]) -> bool {
    let method = wire.iter().take_while(|byte| byte.is_ascii_uppercase()).count();
    method > 0 && wire.get(method).is_none_or(|&byte| byte == b' ')
}

/// Length of plaintext that is certain to fit into this room when it is sealed.
#[must_use]
const fn sealable(room: usize) -> usize {
    let record = RECORD_FIRST + OVERHEAD_MAX;
    (room / record) * RECORD_FIRST + (room % record).saturating_sub(OVERHEAD_MAX)
}

/// Size of the next record's plaintext after `sealed` bytes: small at first, large in a long stream.
const fn record_size(sealed: usize) -> usize {
    match sealed {
        0..0x4000 => RECORD_FIRST,
        0x4000..0x1_0000 => 4_096,
        _ => RECORD_MAX,
    }
}

/// A TLS session, possibly with another one inside of it.
#[derive(Debug)]
pub struct TlsSession {
    layer: Layer,
    inner: Option<Box<inner::Inner>>,
}

/// The negotiated application protocol, as far as it is handled specially (ALPN, RFC 7301).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1, or none.
    Other,
    /// HTTP/2 (RFC 9113 §3.2).
    H2,
    /// The validation of a name by a CA: no data follows the handshake (RFC 8737 §3).
    Challenge,
    /// A stream of a connector: [`ALPN_STREAM`](crate::tls_config::ALPN_STREAM).
    Stream,
}

/// The result of [`TlsSession::open`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Consumed wire bytes: the caller removes them from the front and offers the rest again.
    pub consumed: usize,
    /// The peer sent close_notify; nothing follows it.
    pub ended: bool,
    /// The outer layer has ended, but the inner one has not: the stream was cut.
    pub cut: bool,
    /// The handshake was completed by this call.
    pub secured: bool,
    /// Whole records may be left because the taker has no more room.
    pub full: bool,
}

/// A destination of opened plaintext.
pub trait Take {
    /// Whether another record of any size can be taken.
    fn has_room(&self) -> bool;
    /// Takes the plaintext of one record.
    fn take(&mut self, plain: &[u8]);
}

impl TlsSession {
    /// Makes a session with the server role.
    ///
    /// # Errors
    /// The configuration is invalid.
    pub fn server(config: Arc<ServerConfig>) -> Result<Self, TlsError> {
        Layer::server(config).map(Self::from)
    }

    /// Makes a session with the client role. The first call of [`TlsSession::open`] produces the first flight.
    ///
    /// # Errors
    /// The configuration is invalid.
    pub fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, TlsError> {
        Layer::client(config, name).map(Self::from)
    }

    /// Whether the present handshake has the client role.
    #[must_use]
    pub const fn is_client(&self) -> bool {
        match &self.inner {
            Some(inner) => inner.layer.is_client(),
            None => self.layer.is_client(),
        }
    }

    /// Whether the handshake is complete, including that of an inner layer.
    #[must_use]
    pub fn is_secured(&self) -> bool {
        match &self.inner {
            Some(inner) => inner.layer.is_secured(),
            None => self.layer.is_secured(),
        }
    }

    /// The peer's end-entity certificate (DER), if received; that of the inner layer, if there is one.
    #[must_use]
    pub fn peer_certificate(&self) -> Option<&[u8]> {
        match &self.inner {
            Some(inner) => inner.layer.peer_certificate(),
            None => self.layer.peer_certificate(),
        }
    }

    /// The negotiated application protocol; that of the inner layer, if there is one.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        match &self.inner {
            Some(inner) => inner.layer.protocol(),
            None => self.layer.protocol(),
        }
    }

    /// Number of wire bytes kept for the inner layer.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.inner.as_ref().map_or(0, |inner| inner.kept())
    }

    /// Starts `session` inside of this one, whose handshake is complete. `wire` is opened plaintext that belongs to the
    /// inner layer.
    ///
    /// # Errors
    /// There is already an inner layer, or `session` has one.
    pub fn begin_inner(&mut self, session: Self, wire: Vec<u8>) -> Result<(), TlsError> {
        if self.inner.is_some() || session.inner.is_some() || !self.layer.is_secured() {
            return Err(TlsError(Error::General(
                "TLS can be nested once, in a session that is secured".into(),
            )));
        }
        self.inner = Some(Box::new(inner::Inner::new(session.layer, wire)));
        Ok(())
    }

    /// Opens the whole records at the front of `wire`, as far as `taker` has room. Pending TLS messages are appended to
    /// `out`.
    ///
    /// # Errors
    /// The peer violated TLS; the alert is in `out`.
    pub fn open(
        &mut self,
        wire: &mut [u8],
        out: &mut Buffer,
        taker: &mut impl Take,
    ) -> Result<Opened, TlsError> {
        match &mut self.inner {
            None => self.layer.open(wire, out, taker),
            Some(inner) => inner.open(&mut self.layer, wire, out, taker),
        }
    }

    /// Length of plaintext that is certain to fit into this room when it is sealed.
    #[must_use]
    pub fn sealable(&self, room: usize) -> usize {
        if self.inner.is_some() { inner::sealable(room) } else { sealable(room) }
    }

    /// Seals as much of `plain` as `out` has room for. Returns the number of bytes sealed.
    ///
    /// # Errors
    /// The session cannot send any more.
    pub fn seal(&mut self, plain: &[u8], out: &mut Buffer) -> Result<usize, TlsError> {
        let fits = plain.get(..plain.len().min(self.sealable(out.room()))).unwrap_or_default();
        self.seal_all(fits, out)?;
        Ok(fits.len())
    }

    /// Seals all of `plain`. Grows `out` if necessary.
    ///
    /// # Errors
    /// The session cannot send any more.
    pub fn seal_all(&mut self, plain: &[u8], out: &mut Buffer) -> Result<(), TlsError> {
        if plain.is_empty() {
            return Ok(());
        }
        match &mut self.inner {
            None => self.layer.seal(plain, out),
            Some(inner) => inner.seal(&mut self.layer, plain, out),
        }
    }

    /// Appends close_notify to `out`, once, if the handshake got far enough and no alert was sent. The inner layer ends
    /// first.
    pub fn seal_end(&mut self, out: &mut Buffer) {
        if let Some(inner) = &mut self.inner {
            inner.seal_end(&mut self.layer, out);
        }
        self.layer.seal_end(out);
    }
}

impl From<Layer> for TlsSession {
    fn from(layer: Layer) -> Self {
        Self { layer, inner: None }
    }
}
