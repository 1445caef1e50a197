//! TLS sessions without sockets: records in, records out. Only this module and its submodules name rustls's connection
//! types.
//!
//! rustls does the handshakes, and all of TLS 1.2. After a TLS 1.3 handshake, records are opened and sealed in place
//! (`records`). That saves two of three copies and allocations per record, and half of the memory of a waiting
//! connection.

use std::sync::Arc;

use rendezvous_core::machine::TlsFailure;
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, Error, InvalidMessage, PeerIncompatible,
    ProtocolVersion, ServerConfig,
};
use rustls_pki_types::{CertificateDer, ServerName};

use self::records::{Record, Records, Secrets};
use self::states::{Step, emit, end_step, seal_step, work};
use crate::alpn;
use crate::buffer::Buffer;
pub use crate::buffer::RECORD_MAX;
use crate::tls_config::ALPN_STREAM;

#[cfg(test)]
mod direct_tests;
mod inner;
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

/// One layer of TLS.
struct Layer {
    side: Side,
    /// Whether its records become the plaintext of an outer layer. Then they are smaller by one record's overhead, so
    /// that each fits into one outer record.
    is_inner: bool,
    /// Whether the configuration allows taking over the records from rustls.
    may_take_over: bool,
    /// The peer's end-entity certificate, if it sent one.
    certificate: Option<CertificateDer<'static>>,
    /// The negotiated application protocol.
    protocol: Protocol,
    /// What it must be.
    required: Option<Protocol>,
    secured: bool,
    end_sent: bool,
    /// Number of plaintext bytes sealed so far.
    sealed: usize,
    /// Number of bytes at the front of the wire, in whole records, that rustls has seen and may keep an offset into.
    shown: usize,
    /// Whether the peer violated TLS. rustls may keep an offset into discarded bytes and must not be called again.
    broken: bool,
}

enum Side {
    Server(Box<UnbufferedServerConnection>),
    Client(Box<UnbufferedClientConnection>),
    /// TLS 1.3 after the handshake.
    Records(Box<Records>),
    /// Nothing can be opened or sealed any more.
    Gone,
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
    /// A stream of a connector: [`ALPN_STREAM`].
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

/// A TLS error. The alert for the peer is already in the outgoing buffer.
#[derive(Debug)]
pub struct TlsError(Error);

/// A destination of opened plaintext.
pub trait Take {
    /// Whether another record of any size can be taken.
    fn has_room(&self) -> bool;
    /// Takes the plaintext of one record.
    fn take(&mut self, plain: &[u8]);
}

/// Makes one processing step, as server or client.
macro_rules! process {
    ($session:expr, $wire:expr, $status:ident => $serve:expr) => {
        match &mut $session.side {
            Side::Server(conn) => {
                let $status = conn.process_tls_records($wire);
                $serve
            }
            Side::Client(conn) => {
                let $status = conn.process_tls_records($wire);
                $serve
            }
            Side::Records(_) | Side::Gone => unreachable!("asked before"),
        }
    };
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
            Some(inner) => inner.layer.protocol,
            None => self.layer.protocol,
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

impl Layer {
    /// Makes a layer with the server role.
    ///
    /// # Errors
    /// The configuration is invalid.
    fn server(config: Arc<ServerConfig>) -> Result<Self, TlsError> {
        let may_take_over = config.enable_secret_extraction;
        let conn = UnbufferedServerConnection::new(config).map_err(TlsError)?;
        Ok(Self::new(Side::Server(Box::new(conn)), may_take_over))
    }

    /// Makes a layer with the client role. The first call of [`TlsSession::open`] produces the first flight.
    ///
    /// # Errors
    /// The configuration is invalid.
    fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, TlsError> {
        let may_take_over = config.enable_secret_extraction;
        // rustls accepts a server that selects no protocol.
        let required = (config.alpn_protocols == [ALPN_STREAM]).then_some(Protocol::Stream);
        let conn = UnbufferedClientConnection::new(config, name).map_err(TlsError)?;
        Ok(Self { required, ..Self::new(Side::Client(Box::new(conn)), may_take_over) })
    }

    const fn new(side: Side, may_take_over: bool) -> Self {
        Self {
            side,
            is_inner: false,
            may_take_over,
            certificate: None,
            protocol: Protocol::Other,
            required: None,
            secured: false,
            end_sent: false,
            sealed: 0,
            shown: 0,
            broken: false,
        }
    }

    /// Whether the handshake has the client role.
    const fn is_client(&self) -> bool {
        matches!(self.side, Side::Client(_))
    }

    /// Whether the handshake is complete.
    const fn is_secured(&self) -> bool {
        self.secured
    }

    /// The peer's end-entity certificate (DER), if received.
    fn peer_certificate(&self) -> Option<&[u8]> {
        self.certificate.as_deref()
    }

    /// Opens the whole records at the front of `wire`, as far as `taker` has room. Pending TLS messages are appended to
    /// `out`.
    ///
    /// # Errors
    /// The peer violated TLS; the alert is in `out`.
    fn open(&mut self, wire: &mut [u8], out: &mut Buffer, taker: &mut impl Take) -> Result<Opened, TlsError> {
        let mut opened = Opened { consumed: 0, ended: false, cut: false, secured: false, full: false };
        if let Side::Server(_) | Side::Client(_) = self.side {
            self.open_by_rustls(wire, out, taker, &mut opened)?;
        }
        match &mut self.side {
            Side::Records(records) if !opened.ended && !opened.full => {
                let result = open_records(records, wire, taker, &mut opened);
                result.map(|()| opened).map_err(|error| {
                    records.seal_alert(&error, out);
                    self.broken = true;
                    TlsError(error)
                })
            }
            Side::Server(_) | Side::Client(_) | Side::Records(_) => Ok(opened),
            Side::Gone => Err(gone()),
        }
    }

    /// Opens records with rustls: the handshake, and TLS 1.2. If the records are to be taken over, rustls gets one
    /// record at a time and nothing behind the handshake: it would respond to a KeyUpdate with one of its own, but keep
    /// it until there is data to seal.
    fn open_by_rustls(
        &mut self,
        wire: &mut [u8],
        out: &mut Buffer,
        taker: &mut impl Take,
        opened: &mut Opened,
    ) -> Result<(), TlsError> {
        let one_by_one = self.may_take_over && self.protocol_version() != Some(ProtocolVersion::TLSv1_2);
        let mut shown = self.shown.min(wire.len());
        let mut end = if one_by_one { shown } else { wire.len() };
        loop {
            if !taker.has_room() {
                opened.full = true;
                break;
            }
            let rest = &mut wire[opened.consumed..end];
            let (discard, step) = process!(self, rest, status => work(status, out, taker));
            opened.consumed += discard;
            match step {
                Step::Again => {}
                Step::Drained if end == wire.len() || self.can_take_over() => break,
                Step::Drained => match record_len(&wire[shown..]) {
                    Some(len) => {
                        shown += len;
                        end = shown;
                    }
                    None => end = wire.len(),
                },
                Step::Ended => {
                    // Nothing after close_notify is data (RFC 8446 §6.1).
                    opened.ended = true;
                    opened.consumed = wire.len();
                    break;
                }
                Step::Failed(error) => {
                    self.broken = true;
                    self.seal_alert(out);
                    return Err(TlsError(error));
                }
            }
        }
        self.shown = shown.saturating_sub(opened.consumed);
        if !self.secured && !self.is_handshaking() {
            self.secured = true;
            opened.secured = true;
            self.certificate = self.certificate_of_handshake();
            self.protocol = match self.alpn_protocol() {
                Some(alpn::H2) => Protocol::H2,
                Some(alpn::CHALLENGE) => Protocol::Challenge,
                Some(ALPN_STREAM) => Protocol::Stream,
                _ => Protocol::Other,
            };
            if self.required.is_some_and(|required| required != self.protocol) {
                self.broken = true;
                return Err(TlsError(Error::NoApplicationProtocol));
            }
        }
        if !self.secured || opened.full || opened.ended {
            return Ok(());
        }
        if record_len(&wire[opened.consumed..end]).is_some() {
            // rustls keeps part of a handshake message that was fragmented, and would look for it in the slice that
            // `seal` passes. No implementation fragments the short messages after the handshake.
            self.broken = true;
            return Err(TlsError(Error::General("fragmented handshake message after the handshake".into())));
        }
        if self.can_take_over() { self.take_over() } else { Ok(()) }
    }

    /// Whether the records can be taken over: TLS 1.3, after the handshake, if the configuration allows it.
    fn can_take_over(&self) -> bool {
        self.may_take_over
            && self.protocol_version() == Some(ProtocolVersion::TLSv1_3)
            && !self.is_handshaking()
    }

    /// Takes the records over from rustls, once it has nothing left to send.
    fn take_over(&mut self) -> Result<(), TlsError> {
        let (extracted, secrets) = match std::mem::replace(&mut self.side, Side::Gone) {
            Side::Server(conn) => {
                let (extracted, kernel) = conn.dangerous_into_kernel_connection().map_err(TlsError)?;
                (extracted, Secrets::Server(kernel))
            }
            Side::Client(conn) => {
                let (extracted, kernel) = conn.dangerous_into_kernel_connection().map_err(TlsError)?;
                (extracted, Secrets::Client(kernel))
            }
            Side::Records(_) | Side::Gone => return Ok(()),
        };
        self.side = Side::Records(Box::new(Records::new(secrets, extracted).map_err(TlsError)?));
        Ok(())
    }

    /// Seals `plain`, for which `out` must have room.
    ///
    /// # Errors
    /// The session cannot send any more.
    fn seal(&mut self, plain: &[u8], out: &mut Buffer) -> Result<(), TlsError> {
        debug_assert!(self.secured && !self.end_sent, "sealed before the handshake or after the end");
        if self.broken {
            return Err(TlsError(Error::General("the peer broke TLS".into())));
        }
        let mut rest = plain;
        while !rest.is_empty() {
            let record;
            let size = record_size(self.sealed) - if self.is_inner { OVERHEAD_MAX } else { 0 };
            (record, rest) = rest.split_at(rest.len().min(size));
            match &mut self.side {
                Side::Records(records) => records.seal(record, out).map_err(TlsError)?,
                Side::Gone => return Err(gone()),
                Side::Server(_) | Side::Client(_) => {
                    while !process!(self, &mut [], status => seal_step(status, record, out))
                        .map_err(TlsError)?
                    {}
                }
            }
            self.sealed = self.sealed.saturating_add(record.len());
        }
        Ok(())
    }

    /// Appends close_notify to `out`, once, if the handshake got far enough and no alert was sent.
    fn seal_end(&mut self, out: &mut Buffer) {
        if !self.secured || self.broken || std::mem::replace(&mut self.end_sent, true) {
            return;
        }
        // If close_notify cannot be sealed, the stream ends with FIN only.
        match &mut self.side {
            Side::Records(records) => return drop(records.seal_end(out)),
            Side::Gone => return,
            Side::Server(_) | Side::Client(_) => {}
        }
        while matches!(process!(self, &mut [], status => end_step(status, out)), Ok(false)) {}
    }

    /// Appends the alert for an error. rustls does not get the invalid bytes again, because they would cause the error
    /// again.
    fn seal_alert(&mut self, out: &mut Buffer) {
        while self.has_more_to_say() {
            let said = process!(self, &mut [], status => status.state.and_then(|state| emit(state, out)));
            if said.is_err() {
                return;
            }
        }
    }

    fn has_more_to_say(&self) -> bool {
        match &self.side {
            Side::Server(conn) => conn.wants_write(),
            Side::Client(conn) => conn.wants_write(),
            Side::Records(_) | Side::Gone => false,
        }
    }

    /// The negotiated version, while rustls has the records.
    fn protocol_version(&self) -> Option<ProtocolVersion> {
        match &self.side {
            Side::Server(conn) => conn.protocol_version(),
            Side::Client(conn) => conn.protocol_version(),
            Side::Records(_) | Side::Gone => None,
        }
    }

    fn is_handshaking(&self) -> bool {
        match &self.side {
            Side::Server(conn) => conn.is_handshaking(),
            Side::Client(conn) => conn.is_handshaking(),
            Side::Records(_) | Side::Gone => false,
        }
    }

    fn alpn_protocol(&self) -> Option<&[u8]> {
        match &self.side {
            Side::Server(conn) => conn.alpn_protocol(),
            Side::Client(conn) => conn.alpn_protocol(),
            Side::Records(_) | Side::Gone => None,
        }
    }

    fn certificate_of_handshake(&self) -> Option<CertificateDer<'static>> {
        let chain = match &self.side {
            Side::Server(conn) => conn.peer_certificates(),
            Side::Client(conn) => conn.peer_certificates(),
            Side::Records(_) | Side::Gone => None,
        };
        chain?.first().cloned()
    }
}

impl TlsError {
    /// The alert by which the peer ended the session, if it did.
    #[must_use]
    pub const fn alert(&self) -> Option<AlertDescription> {
        match &self.0 {
            Error::AlertReceived(alert) => Some(*alert),
            _ => None,
        }
    }

    /// The kind of failure.
    #[must_use]
    pub fn failure(&self) -> TlsFailure {
        match &self.0 {
            Error::InvalidCertificate(why) => certificate(why),
            Error::NoCertificatesPresented | Error::UnsupportedNameType => TlsFailure::Certificate,
            Error::NoApplicationProtocol | Error::AlertReceived(AlertDescription::NoApplicationProtocol) => {
                TlsFailure::Alpn
            }
            Error::AlertReceived(AlertDescription::ProtocolVersion) => TlsFailure::Version,
            Error::AlertReceived(
                AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity,
            ) => TlsFailure::Cipher,
            Error::PeerIncompatible(why) => incompatible(why),
            Error::InvalidMessage(
                InvalidMessage::HandshakePayloadTooLarge
                | InvalidMessage::CertificatePayloadTooLarge
                | InvalidMessage::MessageTooLarge,
            ) => TlsFailure::TooLong,
            _ => TlsFailure::Protocol,
        }
    }
}

fn certificate(why: &CertificateError) -> TlsFailure {
    match why {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => TlsFailure::CertificateExpired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            TlsFailure::CertificateNotYetValid
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            TlsFailure::CertificateName
        }
        CertificateError::UnknownIssuer => TlsFailure::CertificateIssuer,
        _ => TlsFailure::Certificate,
    }
}

fn incompatible(why: &PeerIncompatible) -> TlsFailure {
    match why {
        PeerIncompatible::ServerDoesNotSupportTls12Or13
        | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
        | PeerIncompatible::SupportedVersionsExtensionRequired
        // rustls checks this extension before the version, and clients older than TLS 1.2 do not send it.
        | PeerIncompatible::SignatureAlgorithmsExtensionRequired
        | PeerIncompatible::Tls12NotOffered
        | PeerIncompatible::Tls12NotOfferedOrEnabled
        | PeerIncompatible::Tls13RequiredForQuic => TlsFailure::Version,
        PeerIncompatible::NoCipherSuitesInCommon
        | PeerIncompatible::NoKxGroupsInCommon
        | PeerIncompatible::NoSignatureSchemesInCommon
        | PeerIncompatible::NamedGroupsExtensionRequired
        | PeerIncompatible::EcPointsExtensionRequired
        | PeerIncompatible::UncompressedEcPointsRequired => TlsFailure::Cipher,
        _ => TlsFailure::Protocol,
    }
}

impl std::fmt::Display for TlsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::fmt::Debug for Layer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Layer").field("secured", &self.secured).finish_non_exhaustive()
    }
}

/// Opens the records at the front of `wire`, as far as `taker` has room.
fn open_records(
    records: &mut Records,
    wire: &mut [u8],
    taker: &mut impl Take,
    opened: &mut Opened,
) -> Result<(), Error> {
    loop {
        if !taker.has_room() {
            opened.full = true;
            return Ok(());
        }
        match records.open(&mut wire[opened.consumed..])? {
            Record::Partial => return Ok(()),
            Record::Data { len, plain } => {
                opened.consumed += len;
                taker.take(plain);
            }
            Record::Done { len } => opened.consumed += len,
            Record::End => {
                // Nothing after close_notify is data (RFC 8446 §6.1).
                opened.ended = true;
                opened.consumed = wire.len();
                return Ok(());
            }
        }
    }
}

fn gone() -> TlsError {
    TlsError(Error::General("the session has failed".into()))
}

/// Length of the record at the front, if it is complete.
fn record_len(wire: &[u8]) -> Option<usize> {
    let &[_, _, _, high, low] = wire.first_chunk()?;
    let len = 5 + usize::from(u16::from_be_bytes([high, low]));
    (len <= wire.len()).then_some(len)
}
