//! One TLS connection without its socket: records in, records out. This file and its submodule are the only ones that
//! name rustls's connection types.
//!
//! rustls does the handshakes, and TLS 1.2. The records of TLS 1.3 after the handshake are opened and sealed in place
//! (`records`): that saves two copies and two allocations of the three for each record, and half of the memory of a
//! connection that waits.

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

#[cfg(test)]
mod direct_tests;
mod inner;
mod records;
mod states;
#[cfg(test)]
mod tests;

/// What one record adds to its plaintext at most: header, explicit nonce, inner type, tag (RFC 8446 §5.2, RFC 5288).
pub const OVERHEAD_MAX: usize = 5 + 8 + 1 + 16 + 10;

/// One record of the wire at most (RFC 8446 §5.2, RFC 5246 §6.2.3), and its header.
pub const RECORD_WIRE_MAX: usize = 5 + RECORD_MAX + 2_048;
/// Bytes of the wire that a client's handshake may take before one of its messages is whole: a ClientHello of 16 KiB,
/// and the headers of the records that it is in. Clients of today send 2 KiB.
pub const HANDSHAKE_WIRE_MAX: usize = 5 + RECORD_MAX + 2_048;
/// A ClientHello of more bytes is refused at once, by the length that it says it has.
const HELLO_MAX: usize = RECORD_MAX;
/// What a handshake takes beside the bytes of the wire: 4.2 KB at most, as measured, and what the allocator adds.
pub const HANDSHAKE_MEMORY: usize = 6 * 1024;

/// The plaintext of a record at the beginning of a stream: with its overhead it fits one segment, so that the first
/// octets can be opened when the first segment is there.
const RECORD_FIRST: usize = 1_360;
/// Room for the plaintext of one record, sealed once or twice, in whatever pieces.
pub const ROOM_MIN: usize = RECORD_MAX + 2 * (RECORD_MAX / RECORD_FIRST + 2) * OVERHEAD_MAX;

/// Whether the first bytes of a connection are those of a ClientHello that is too long to be waited for (RFC 8446 §4,
/// §5.1).
#[must_use]
pub fn is_hello_too_long(wire: &[u8]) -> bool {
    match *wire {
        [22, 3, _, _, _, 1, high, middle, low, ..] => {
            u32::from_be_bytes([0, high, middle, low]) as usize > HELLO_MAX
        }
        _ => false,
    }
}

/// How much plaintext certainly fits into so much room when it is sealed.
#[must_use]
const fn sealable(room: usize) -> usize {
    let record = RECORD_FIRST + OVERHEAD_MAX;
    (room / record) * RECORD_FIRST + (room % record).saturating_sub(OVERHEAD_MAX)
}

/// The plaintext of the next record, after so much: small at first, large when the stream turns out to be long.
const fn record_size(sealed: usize) -> usize {
    match sealed {
        0..0x4000 => RECORD_FIRST,
        0x4000..0x1_0000 => 4_096,
        _ => RECORD_MAX,
    }
}

/// One TLS connection, or one inside of another.
#[derive(Debug)]
pub struct TlsSession {
    layer: Layer,
    inner: Option<Box<inner::Inner>>,
}

/// One layer of TLS.
struct Layer {
    side: Side,
    /// More than one record adds is left free in each: the records are plaintext of another layer, and one of them is
    /// to fit one of its records.
    is_inner: bool,
    /// The configuration lets the records be taken over.
    may_take_over: bool,
    /// The peer's own certificate, where it sent one.
    certificate: Option<CertificateDer<'static>>,
    /// The application protocol that was agreed on.
    protocol: Protocol,
    secured: bool,
    end_sent: bool,
    /// How much plaintext was sealed so far.
    sealed: usize,
    /// Octets at the front of the wire, whole records, that rustls has seen and may have kept a place in.
    shown: usize,
    /// The peer broke TLS: rustls may have kept a place in octets that are gone, and must not be asked again.
    broken: bool,
}

enum Side {
    Server(Box<UnbufferedServerConnection>),
    Client(Box<UnbufferedClientConnection>),
    /// TLS 1.3, after the handshake.
    Records(Box<Records>),
    /// Nothing can be opened or sealed any more.
    Gone,
}

/// The application protocol of a connection, as far as it is handled in a way of its own (ALPN, RFC 7301).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1, a stream of ours, or none.
    Other,
    /// HTTP/2 (RFC 9113 §3.2).
    H2,
    /// A CA validates a name: no data follows the handshake (RFC 8737 §3).
    Challenge,
}

/// How far [`TlsSession::open`] came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Octets of the wire that are done with: the caller drops so many from the front and offers the rest again.
    pub consumed: usize,
    /// The peer sent close_notify: nothing comes after it.
    pub ended: bool,
    /// The outer layer has ended, and the inner one has not: the stream was cut.
    pub cut: bool,
    /// The handshake became complete in this call.
    pub secured: bool,
    /// Whole records may be left, because the taker had no more room.
    pub full: bool,
}

/// TLS went wrong. What is to be told to the peer is in the outgoing buffer already.
#[derive(Debug)]
pub struct TlsError(Error);

/// Where opened plaintext goes.
pub trait Take {
    /// Whether one more record of any size can be taken.
    fn has_room(&self) -> bool;
    /// Takes the plaintext of one record.
    fn take(&mut self, plain: &[u8]);
}

/// One step of whichever side we are.
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
    /// Our side is the server's.
    ///
    /// # Errors
    /// The configuration does not fit.
    pub fn server(config: Arc<ServerConfig>) -> Result<Self, TlsError> {
        Layer::server(config).map(Self::from)
    }

    /// Our side is the client's; the first flight comes with the first [`TlsSession::open`].
    ///
    /// # Errors
    /// The configuration does not fit.
    pub fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, TlsError> {
        Layer::client(config, name).map(Self::from)
    }

    /// Whether our side of the handshake that is under way is the client's.
    #[must_use]
    pub const fn is_client(&self) -> bool {
        match &self.inner {
            Some(inner) => inner.layer.is_client(),
            None => self.layer.is_client(),
        }
    }

    /// Whether the handshake is complete, the inner one too.
    #[must_use]
    pub fn is_secured(&self) -> bool {
        match &self.inner {
            Some(inner) => inner.layer.is_secured(),
            None => self.layer.is_secured(),
        }
    }

    /// The peer's own certificate (DER), once it was sent; the inner one, if there is an inner layer.
    #[must_use]
    pub fn peer_certificate(&self) -> Option<&[u8]> {
        match &self.inner {
            Some(inner) => inner.layer.peer_certificate(),
            None => self.layer.peer_certificate(),
        }
    }

    /// The application protocol that was agreed on; inside, if there is an inner layer.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        match &self.inner {
            Some(inner) => inner.layer.protocol,
            None => self.layer.protocol,
        }
    }

    /// How many bytes of the inner layer's wire are kept.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.inner.as_ref().map_or(0, |inner| inner.kept())
    }

    /// Goes on with `session` inside of this one, whose handshake is complete. `wire` was opened already and belongs to
    /// the inner layer.
    ///
    /// # Errors
    /// There is an inner layer already, or `session` has one.
    pub fn begin_inner(&mut self, session: Self, wire: Vec<u8>) -> Result<(), TlsError> {
        if self.inner.is_some() || session.inner.is_some() || !self.layer.is_secured() {
            return Err(TlsError(Error::General(
                "TLS can be nested once, in a session that is secured".into(),
            )));
        }
        self.inner = Some(Box::new(inner::Inner::new(session.layer, wire)));
        Ok(())
    }

    /// Opens the records at the front of `wire`, as many as are whole and as `taker` has room for. What TLS itself has
    /// to say is appended to `out`.
    ///
    /// # Errors
    /// The peer broke TLS; the alert is in `out`.
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

    /// How much plaintext certainly fits into so much room when it is sealed.
    #[must_use]
    pub fn sealable(&self, room: usize) -> usize {
        if self.inner.is_some() { inner::sealable(room) } else { sealable(room) }
    }

    /// Seals as much of `plain` as there is room for in `out`, and says how much that was.
    ///
    /// # Errors
    /// The session can't send any more.
    pub fn seal(&mut self, plain: &[u8], out: &mut Buffer) -> Result<usize, TlsError> {
        let fits = plain.get(..plain.len().min(self.sealable(out.room()))).unwrap_or_default();
        self.seal_all(fits, out)?;
        Ok(fits.len())
    }

    /// Seals all of `plain`. `out` grows if it must.
    ///
    /// # Errors
    /// The session can't send any more.
    pub fn seal_all(&mut self, plain: &[u8], out: &mut Buffer) -> Result<(), TlsError> {
        if plain.is_empty() {
            return Ok(());
        }
        match &mut self.inner {
            None => self.layer.seal(plain, out),
            Some(inner) => inner.seal(&mut self.layer, plain, out),
        }
    }

    /// Appends close_notify to `out`, once, if the handshake came far enough and nothing went wrong: an alert was the
    /// last word then. The inner layer ends first.
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
    /// Our side is the server's.
    ///
    /// # Errors
    /// The configuration does not fit.
    fn server(config: Arc<ServerConfig>) -> Result<Self, TlsError> {
        let may_take_over = config.enable_secret_extraction;
        let conn = UnbufferedServerConnection::new(config).map_err(TlsError)?;
        Ok(Self::new(Side::Server(Box::new(conn)), may_take_over))
    }

    /// Our side is the client's; the first flight comes with the first [`TlsSession::open`].
    ///
    /// # Errors
    /// The configuration does not fit.
    fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, TlsError> {
        let may_take_over = config.enable_secret_extraction;
        let conn = UnbufferedClientConnection::new(config, name).map_err(TlsError)?;
        Ok(Self::new(Side::Client(Box::new(conn)), may_take_over))
    }

    const fn new(side: Side, may_take_over: bool) -> Self {
        Self {
            side,
            is_inner: false,
            may_take_over,
            certificate: None,
            protocol: Protocol::Other,
            secured: false,
            end_sent: false,
            sealed: 0,
            shown: 0,
            broken: false,
        }
    }

    /// Whether our side of the handshake is the client's.
    const fn is_client(&self) -> bool {
        matches!(self.side, Side::Client(_))
    }

    /// Whether the handshake is complete.
    const fn is_secured(&self) -> bool {
        self.secured
    }

    /// The peer's own certificate (DER), once it was sent.
    fn peer_certificate(&self) -> Option<&[u8]> {
        self.certificate.as_deref()
    }

    /// Opens the records at the front of `wire`, as many as are whole and as `taker` has room for. What TLS itself has
    /// to say is appended to `out`.
    ///
    /// # Errors
    /// The peer broke TLS; the alert is in `out`.
    fn open(&mut self, wire: &mut [u8], out: &mut Buffer, taker: &mut impl Take) -> Result<Opened, TlsError> {
        let mut opened = Opened { consumed: 0, ended: false, cut: false, secured: false, full: false };
        if let Side::Server(_) | Side::Client(_) = self.side {
            self.open_by_rustls(wire, out, taker, &mut opened)?;
        }
        match &mut self.side {
            Side::Records(records) if !opened.ended && !opened.full => {
                let result = open_records(records, wire, taker, &mut opened);
                result.map(|()| opened).map_err(|error| {
                    records.say_why(&error, out);
                    self.broken = true;
                    TlsError(error)
                })
            }
            Side::Server(_) | Side::Client(_) | Side::Records(_) => Ok(opened),
            Side::Gone => Err(gone()),
        }
    }

    /// What is rustls's to open: the handshake, and TLS 1.2. Of a connection whose records are to be taken over, it is
    /// shown one record more at a time and nothing behind the handshake: it would answer an update of the keys that is
    /// there with an update of ours, which it keeps to itself until there is something to be sealed.
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
                    // Nothing that follows close_notify is data (RFC 8446 §6.1).
                    opened.ended = true;
                    opened.consumed = wire.len();
                    break;
                }
                Step::Failed(error) => {
                    self.broken = true;
                    self.say_why(out);
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
                _ => Protocol::Other,
            };
        }
        if !self.secured || opened.full || opened.ended {
            return Ok(());
        }
        if record_len(&wire[opened.consumed..end]).is_some() {
            // rustls keeps part of a handshake message that was cut over records, and would look for it in the slice
            // that `seal` passes. Nobody cuts the short messages that come after the handshake.
            self.broken = true;
            return Err(TlsError(Error::General("a handshake message in pieces after the handshake".into())));
        }
        if self.can_take_over() { self.take_over() } else { Ok(()) }
    }

    /// TLS 1.3, after the handshake, in a configuration that lets the records be taken over.
    fn can_take_over(&self) -> bool {
        self.may_take_over
            && self.protocol_version() == Some(ProtocolVersion::TLSv1_3)
            && !self.is_handshaking()
    }

    /// Takes the records over from rustls, once it has nothing left to say.
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

    /// Seals `plain`, for which there must be room in `out`.
    ///
    /// # Errors
    /// The session can't send any more.
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

    /// Appends close_notify to `out`, once, if the handshake came far enough and nothing went wrong: an alert was the
    /// last word then.
    fn seal_end(&mut self, out: &mut Buffer) {
        if !self.secured || self.broken || std::mem::replace(&mut self.end_sent, true) {
            return;
        }
        // A session that can't even say goodbye is ended by the FIN alone.
        match &mut self.side {
            Side::Records(records) => return drop(records.seal_end(out)),
            Side::Gone => return,
            Side::Server(_) | Side::Client(_) => {}
        }
        while matches!(process!(self, &mut [], status => end_step(status, out)), Ok(false)) {}
    }

    /// Appends the alert for what went wrong. Without the octets that were wrong: they would be so a second time.
    fn say_why(&mut self, out: &mut Buffer) {
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

    /// Once it is agreed on, and for as long as rustls has the records.
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
    /// Which kind of failure it is.
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
        // It is looked for before the version; clients older than TLS 1.2 do not send it.
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
                // Nothing that follows close_notify is data (RFC 8446 §6.1).
                opened.ended = true;
                opened.consumed = wire.len();
                return Ok(());
            }
        }
    }
}

fn gone() -> TlsError {
    TlsError(Error::General("the keys of this connection are gone".into()))
}

/// The length of the record at the front, if it is whole.
fn record_len(wire: &[u8]) -> Option<usize> {
    let &[_, _, _, high, low] = wire.first_chunk()?;
    let len = 5 + usize::from(u16::from_be_bytes([high, low]));
    (len <= wire.len()).then_some(len)
}
