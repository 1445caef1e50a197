//! One layer of TLS: the handshake and TLS 1.2 by rustls, records of TLS 1.3 by [`records`](super::records).

use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::{ClientConfig, Error, ProtocolVersion, ServerConfig};
use rustls_pki_types::{CertificateDer, ServerName};

use super::error::TlsError;
use super::records::{Record, Records, Secrets};
use super::states::{Step, emit, end_step, seal_step, work};
use super::{OVERHEAD_MAX, Opened, Protocol, Take, record_size};
use crate::alpn;
use crate::buffer::Buffer;
use crate::tls_config::ALPN_STREAM;

/// One layer of TLS.
pub(super) struct Layer {
    pub(super) side: Side,
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

pub(super) enum Side {
    Server(Box<UnbufferedServerConnection>),
    Client(Box<UnbufferedClientConnection>),
    /// TLS 1.3 after the handshake.
    Records(Box<Records>),
    /// Nothing can be opened or sealed any more.
    Gone,
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

impl Layer {
    /// Makes a layer with the server role.
    ///
    /// # Errors
    /// The configuration is invalid.
    pub(super) fn server(config: Arc<ServerConfig>) -> Result<Self, TlsError> {
        let may_take_over = config.enable_secret_extraction;
        let conn = UnbufferedServerConnection::new(config).map_err(TlsError)?;
        Ok(Self::new(Side::Server(Box::new(conn)), may_take_over))
    }

    /// Makes a layer with the client role. The first call of [`TlsSession::open`] produces the first flight.
    ///
    /// # Errors
    /// The configuration is invalid.
    pub(super) fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, TlsError> {
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
    pub(super) const fn is_client(&self) -> bool {
        matches!(self.side, Side::Client(_))
    }

    /// Whether the handshake is complete.
    pub(super) const fn is_secured(&self) -> bool {
        self.secured
    }

    /// The peer's end-entity certificate (DER), if received.
    /// The negotiated application protocol.
    pub(super) const fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// From now on its records become the plaintext of an outer layer.
    pub(super) const fn become_inner(&mut self) {
        self.is_inner = true;
    }

    /// The peer has violated TLS outside of this layer.
    pub(super) const fn mark_broken(&mut self) {
        self.broken = true;
    }

    pub(super) fn peer_certificate(&self) -> Option<&[u8]> {
        self.certificate.as_deref()
    }

    /// Opens the whole records at the front of `wire`, as far as `taker` has room. Pending TLS messages are appended to
    /// `out`.
    ///
    /// # Errors
    /// The peer violated TLS; the alert is in `out`.
    pub(super) fn open(
        &mut self,
        wire: &mut [u8],
        out: &mut Buffer,
        taker: &mut impl Take,
    ) -> Result<Opened, TlsError> {
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
    pub(super) fn seal(&mut self, plain: &[u8], out: &mut Buffer) -> Result<(), TlsError> {
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
    pub(super) fn seal_end(&mut self, out: &mut Buffer) {
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
