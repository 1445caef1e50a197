//! Records of a TLS 1.3 connection after its handshake (RFC 8446 §5). They are opened in the receive buffer and sealed
//! in the send buffer, with one copy and no allocation in between.
//!
//! rustls made the connection and keeps its secrets: it derives the next keys on a key update, and opens records. This
//! module does what rustls's 'kernel connection' leaves to its user: framing, sealing, key updates, alerts.

use rustls::client::ClientConnectionData;
use rustls::crypto::cipher::{InboundOpaqueMessage, MessageDecrypter, NONCE_LEN, Nonce as Sequenced};
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{
    AlertDescription, ConnectionTrafficSecrets, ContentType, Error, ExtractedSecrets, InvalidMessage,
    PeerMisbehaved, ProtocolVersion, SupportedCipherSuite, Tls13CipherSuite,
};

use super::RECORD_MAX;
use crate::buffer::Buffer;
use crate::tls_config::aead::{
    AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, Tag, UnboundKey,
};

const HEADER: usize = 5;
const TAG: usize = 16;
/// Limit of a record's expansion (§5.2).
const EXPANSION_MAX: usize = 256;
/// Limit of consecutive records and messages without data: empty records, key updates, tickets. The same as in
/// BoringSSL and rustls.
const IDLE_MAX: u8 = 32;
/// Limit of consecutive alerts that do not end the connection (user_canceled), as in BoringSSL and rustls.
const WARNINGS_MAX: u8 = 4;
/// Types of handshake messages after the handshake (§4.6).
const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;
/// The level of all alerts except close_notify and user_canceled (§6).
const FATAL: u8 = 2;
/// Limit of a fragmented message, header included. Tickets may be larger, but in practice none are.
const MESSAGE_MAX: usize = 16 * 1024;

/// Both directions of a connection.
pub(super) struct Records {
    secrets: Secrets,
    opener: Box<dyn MessageDecrypter>,
    opened: u64,
    sealer: Sealer,
    /// The peer requested a key update, which must precede the next data.
    update_pending: bool,
    /// How many more records and messages may arrive without data.
    idle_left: u8,
    warnings_left: u8,
    /// The beginning of a handshake message that continues in the next records.
    piece: Vec<u8>,
}

/// The source of new keys.
pub(super) enum Secrets {
    Server(KernelConnection<ServerConnectionData>),
    Client(KernelConnection<ClientConnectionData>),
}

/// The record at the front.
pub(super) enum Record<'w> {
    /// Incomplete.
    Partial,
    /// Data, in a record of `len` bytes.
    Data { len: usize, plain: &'w [u8] },
    /// A message of TLS itself, in a record of `len` bytes.
    Done { len: usize },
    /// close_notify.
    End,
}

/// The sending direction.
struct Sealer {
    key: LessSafeKey,
    iv: rustls::crypto::cipher::Iv,
    sequence: u64,
    /// Number of records that the keys may seal (§5.5).
    sequence_max: u64,
}

impl Records {
    /// Continues where rustls stopped.
    pub(super) fn new(
        secrets: Secrets,
        ExtractedSecrets { tx, rx }: ExtractedSecrets,
    ) -> Result<Self, Error> {
        let suite = secrets.suite()?;
        Ok(Self {
            opener: opener(suite, rx.1)?,
            opened: rx.0,
            sealer: Sealer::new(suite, tx)?,
            secrets,
            update_pending: false,
            idle_left: IDLE_MAX,
            warnings_left: WARNINGS_MAX,
            piece: Vec::new(),
        })
    }

    /// Opens the record at the front of `wire` in place.
    pub(super) fn open<'w>(&mut self, wire: &'w mut [u8]) -> Result<Record<'w>, Error> {
        let Some(&[typ, _, _, high, low]) = wire.first_chunk::<HEADER>() else { return Ok(Record::Partial) };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if typ != u8::from(ContentType::ApplicationData) {
            return Err(Error::InappropriateMessage {
                expect_types: vec![ContentType::ApplicationData],
                got_type: typ.into(),
            });
        }
        if length > RECORD_MAX + EXPANSION_MAX {
            return Err(Error::PeerSentOversizedRecord);
        }
        let len = HEADER + length;
        let Some(sealed) = wire.get_mut(HEADER..len) else { return Ok(Record::Partial) };
        let sealed =
            InboundOpaqueMessage::new(ContentType::ApplicationData, ProtocolVersion::TLSv1_2, sealed);
        let record = self.opener.decrypt(sealed, self.opened)?;
        self.opened += 1;
        // No other record may come between the fragments of a message (§5.1).
        if !self.piece.is_empty() && record.typ != ContentType::Handshake {
            return Err(PeerMisbehaved::MessageInterleavedWithHandshakeMessage.into());
        }
        match record.typ {
            ContentType::ApplicationData => {
                if record.payload.is_empty() {
                    take_one(&mut self.idle_left, PeerMisbehaved::TooManyEmptyFragments)?;
                } else {
                    (self.idle_left, self.warnings_left) = (IDLE_MAX, WARNINGS_MAX);
                }
                Ok(Record::Data { len, plain: record.payload })
            }
            ContentType::Alert => match alert(record.payload)? {
                Alert::Closed => Ok(Record::End),
                Alert::Warning => {
                    take_one(&mut self.warnings_left, PeerMisbehaved::TooManyWarningAlertsReceived)?;
                    Ok(Record::Done { len })
                }
            },
            ContentType::Handshake => {
                self.messages(record.payload)?;
                Ok(Record::Done { len })
            }
            got_type => Err(Error::InappropriateMessage {
                expect_types: vec![ContentType::ApplicationData, ContentType::Alert, ContentType::Handshake],
                got_type,
            }),
        }
    }

    /// Appends one record with all of `plain`, which must not exceed the limit of a record.
    pub(super) fn seal(&mut self, plain: &[u8], out: &mut Buffer) -> Result<(), Error> {
        self.update_keys(out)?;
        self.sealer.seal(ContentType::ApplicationData, plain, out)
    }

    /// Appends close_notify.
    pub(super) fn seal_end(&mut self, out: &mut Buffer) -> Result<(), Error> {
        self.update_keys(out)?;
        self.sealer.seal(ContentType::Alert, &[1, AlertDescription::CloseNotify.into()], out)
    }

    /// Appends the alert for the peer's error.
    pub(super) fn seal_alert(&mut self, error: &Error, out: &mut Buffer) {
        let Some(alert) = alert_for(error) else { return };
        // Without an alert, only the end of the connection reports the error.
        let _ = self.sealer.seal(ContentType::Alert, &[FATAL, alert.into()], out);
    }

    /// Handles the handshake messages in one record, the first of which may have begun in earlier records.
    fn messages(&mut self, payload: &[u8]) -> Result<(), Error> {
        if payload.is_empty() {
            return Err(PeerMisbehaved::IllegalTlsInnerPlaintext.into());
        }
        let mut joined = std::mem::take(&mut self.piece);
        let is_first = joined.is_empty();
        if !is_first {
            joined.extend_from_slice(payload);
        }
        let mut rest = if is_first { payload } else { &joined };
        while let Some((&[typ, a, b, c], body)) = rest.split_first_chunk::<4>() {
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            // Checked before the message is complete, so that a message that will be refused is not buffered.
            if typ != KEY_UPDATE && (typ != NEW_SESSION_TICKET || matches!(self.secrets, Secrets::Server(_)))
            {
                return Err(Error::InappropriateHandshakeMessage {
                    expect_types: vec![KEY_UPDATE.into()],
                    got_type: typ.into(),
                });
            }
            if length > MESSAGE_MAX || typ == KEY_UPDATE && length != 1 {
                return Err(InvalidMessage::HandshakePayloadTooLarge.into());
            }
            let Some((body, behind)) = body.split_at_checked(length) else { break };
            rest = behind;
            take_one(&mut self.idle_left, PeerMisbehaved::TooManyKeyUpdateRequests)?;
            // Tickets are ignored: sessions are not resumed.
            match (typ, body) {
                (NEW_SESSION_TICKET, _) => {}
                // Nothing sealed with the old keys may follow it (§5.1).
                (_, [0 | 1]) if !rest.is_empty() => {
                    return Err(PeerMisbehaved::KeyEpochWithPendingFragment.into());
                }
                (_, &[request @ (0 | 1)]) => self.keys_updated(request == 1)?,
                _ => return Err(InvalidMessage::InvalidKeyUpdate.into()),
            }
        }
        // Appended without copying what is kept: a message may come in as many fragments as it has bytes.
        self.piece = if is_first {
            rest.to_vec()
        } else {
            let used = joined.len() - rest.len();
            joined.drain(..used);
            joined
        };
        Ok(())
    }

    /// Handles a key update of the peer's sending keys.
    fn keys_updated(&mut self, wants_ours: bool) -> Result<(), Error> {
        if wants_ours {
            self.update_pending = true;
        }
        let (sequence, keys) = self.secrets.next_to_open()?;
        self.opener = opener(self.secrets.suite()?, keys)?;
        self.opened = sequence;
        Ok(())
    }

    /// Updates the sending keys if the peer requested it or the old ones are exhausted.
    fn update_keys(&mut self, out: &mut Buffer) -> Result<(), Error> {
        if self.update_pending || self.sealer.sequence >= self.sealer.sequence_max {
            self.sealer.seal(ContentType::Handshake, &[KEY_UPDATE, 0, 0, 1, 0], out)?;
            self.sealer = Sealer::new(self.secrets.suite()?, self.secrets.next_to_seal()?)?;
            self.update_pending = false;
        }
        Ok(())
    }

    /// Appends a key update that requests one from the peer (§4.6.3).
    #[cfg(test)]
    pub(super) fn ask_for_keys(&mut self, out: &mut Buffer) -> Result<(), Error> {
        self.sealer.seal(ContentType::Handshake, &[KEY_UPDATE, 0, 0, 1, 1], out)?;
        self.sealer = Sealer::new(self.secrets.suite()?, self.secrets.next_to_seal()?)?;
        Ok(())
    }

    /// Appends one record of any type and content.
    #[cfg(test)]
    pub(super) fn seal_as(
        &mut self,
        typ: ContentType,
        content: &[u8],
        out: &mut Buffer,
    ) -> Result<(), Error> {
        self.sealer.seal(typ, content, out)
    }

    /// Appends a handshake message, fragmented into records of `of` bytes.
    #[cfg(test)]
    pub(super) fn seal_fragmented(
        &mut self,
        message: &[u8],
        of: usize,
        out: &mut Buffer,
    ) -> Result<(), Error> {
        message.chunks(of).try_for_each(|piece| self.sealer.seal(ContentType::Handshake, piece, out))
    }

    /// Limits the number of records that the keys may seal.
    #[cfg(test)]
    pub(super) const fn wear_out_after(&mut self, records: u64) {
        self.sealer.sequence_max = records;
    }
}

impl Secrets {
    fn suite(&self) -> Result<&'static Tls13CipherSuite, Error> {
        let suite = match self {
            Self::Server(kernel) => kernel.negotiated_cipher_suite(),
            Self::Client(kernel) => kernel.negotiated_cipher_suite(),
        };
        match suite {
            SupportedCipherSuite::Tls13(suite) => Ok(suite),
            SupportedCipherSuite::Tls12(_) => Err(Error::General("not TLS 1.3".into())),
        }
    }

    fn next_to_open(&mut self) -> Result<(u64, ConnectionTrafficSecrets), Error> {
        match self {
            Self::Server(kernel) => kernel.update_rx_secret(),
            Self::Client(kernel) => kernel.update_rx_secret(),
        }
    }

    fn next_to_seal(&mut self) -> Result<(u64, ConnectionTrafficSecrets), Error> {
        match self {
            Self::Server(kernel) => kernel.update_tx_secret(),
            Self::Client(kernel) => kernel.update_tx_secret(),
        }
    }
}

impl Sealer {
    fn new(
        suite: &Tls13CipherSuite,
        (sequence, keys): (u64, ConnectionTrafficSecrets),
    ) -> Result<Self, Error> {
        let (algorithm, key, iv) = match keys {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(Error::General("unknown cipher suite".into())),
        };
        let key = UnboundKey::new(algorithm, key.as_ref()).map_err(|_| Error::EncryptError)?;
        let sequence_max = suite.common.confidentiality_limit;
        Ok(Self { key: LessSafeKey::new(key), iv, sequence, sequence_max })
    }

    /// Appends one record (§5.2): header, then sealed plaintext and type, then the tag.
    fn seal(&mut self, typ: ContentType, plain: &[u8], out: &mut Buffer) -> Result<(), Error> {
        debug_assert!(plain.len() <= RECORD_MAX, "more than one record");
        let inner = plain.len() + 1;
        let length = u16::try_from(inner + TAG).map_err(|_| Error::EncryptError)?;
        let [high, low] = length.to_be_bytes();
        let header = [ContentType::ApplicationData.into(), 3, 3, high, low];
        let record = &mut out.reserve(HEADER + inner + TAG)[..HEADER + inner + TAG];
        let (front, tag) = record.split_at_mut(HEADER + inner);
        let (front, body) = front.split_at_mut(HEADER);
        front.copy_from_slice(&header);
        body[..plain.len()].copy_from_slice(plain);
        body[plain.len()] = typ.into();
        let nonce: [u8; NONCE_LEN] = Sequenced::new(&self.iv, self.sequence).0;
        let nonce = Nonce::assume_unique_for_key(nonce);
        let sealed: Tag = self
            .key
            .seal_in_place_separate_tag(nonce, Aad::from(header), body)
            .map_err(|_| Error::EncryptError)?;
        tag.copy_from_slice(sealed.as_ref());
        out.commit(HEADER + inner + TAG);
        // A sequence number is used only once. After the last one, nothing can be sealed, not even an alert.
        self.sequence = self.sequence.checked_add(1).ok_or(Error::EncryptError)?;
        Ok(())
    }
}

fn opener(
    suite: &Tls13CipherSuite,
    keys: ConnectionTrafficSecrets,
) -> Result<Box<dyn MessageDecrypter>, Error> {
    match keys {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv }
        | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
        | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => Ok(suite.aead_alg.decrypter(key, iv)),
        _ => Err(Error::General("unknown cipher suite".into())),
    }
}

/// An alert that is not an error.
enum Alert {
    /// close_notify.
    Closed,
    /// user_canceled.
    Warning,
}

/// Parses an alert. In TLS 1.3 every alert ends the connection, whatever its level, except user_canceled, which only
/// announces close_notify (§6).
fn alert(payload: &[u8]) -> Result<Alert, Error> {
    match *payload {
        // §5.4.
        [] => Err(PeerMisbehaved::IllegalTlsInnerPlaintext.into()),
        [_, description] => match AlertDescription::from(description) {
            AlertDescription::CloseNotify => Ok(Alert::Closed),
            AlertDescription::UserCanceled => Ok(Alert::Warning),
            other => Err(Error::AlertReceived(other)),
        },
        // Truncated, or more than one (§5.1).
        _ => Err(InvalidMessage::TrailingData("alert").into()),
    }
}

/// The alert for an error of the peer; `None` if the peer sent an alert itself.
fn alert_for(error: &Error) -> Option<AlertDescription> {
    Some(match error {
        Error::AlertReceived(_) => return None,
        // §5.2.
        Error::DecryptError => AlertDescription::BadRecordMac,
        Error::PeerSentOversizedRecord => AlertDescription::RecordOverflow,
        // §4.6.3.
        Error::InvalidMessage(InvalidMessage::InvalidKeyUpdate) => AlertDescription::IllegalParameter,
        // §6.2.
        Error::InvalidMessage(_) => AlertDescription::DecodeError,
        // Wrong order (§4.6, §5, §5.4), or exceeded limits.
        _ => AlertDescription::UnexpectedMessage,
    })
}

fn take_one(left: &mut u8, or: PeerMisbehaved) -> Result<(), Error> {
    *left = left.checked_sub(1).ok_or(or)?;
    Ok(())
}
