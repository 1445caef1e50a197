//! Requests of a client to its driver, and the driver's answers.

use alloc::string::String;
use alloc::vec::Vec;

use data_encoding::BASE64URL_NOPAD;

use super::config::ChallengeKind;
use super::config::PublicKey;
use super::event::Event;
use super::names::Names;

/// The number of a question. Questions of earlier processes have other documents, not other numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct QuestionId(pub u32);

/// Something that the driver does for the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Answer a question. At most one is open: the next one comes after the answer.
    Ask {
        /// The id that the answer has.
        id: QuestionId,
        /// The question.
        question: Question,
    },
    /// Stop answering this challenge.
    Withdraw(Challenge),
    /// An event to log.
    Event(Event),
}

/// A question to the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Store this document in place of the one before: whole, on disk (fsync of file and folder), mode 0600. The
    /// answer is [`Answer::Done`] or [`Answer::Failed`].
    Store {
        /// UTF-8 text for [`State::parse`](super::State::parse).
        document: String,
    },
    /// Sign bytes with ES256 (RFC 7518 §3.4). The answer is [`Answer::Signed`].
    Sign {
        /// The key.
        with: AccountKey,
        /// What is signed.
        bytes: Vec<u8>,
    },
    /// Make a new key pair, P-256, and a certificate request: these names as SAN and nothing else. The private key is on
    /// disk before the answer, as the pending key of these names. If there is a pending key already, it is
    /// replaced. A driver that keeps keys over renewals takes that key. The answer is [`Answer::Request`].
    MakeRequest {
        /// The names, in this order.
        names: Names,
    },
    /// Answer this challenge from now on, until [`Action::Withdraw`]; for HTTP-01 only if [`With::with_http`](super::With::with_http) is
    /// not used. The same challenge may be provided more than once. The
    /// answer is [`Answer::Done`], once connections are answered so.
    Provide(Challenge),
    /// Read the topmost certificate of a chain. The answer is [`Answer::Inspected`] or [`Answer::Refused`].
    Inspect {
        /// The chain in PEM, the leaf first.
        chain: String,
    },
    /// Check this chain, store it together with the pending key of its names in one file, and serve it. The driver checks
    /// that the public key is the pending key's, the names are exactly these, the dates are acceptable, and that each
    /// certificate is signed by the next. The answer is [`Answer::Installed`]; [`Answer::Refused`] if the certificate is
    /// not acceptable, so that another is ordered; [`Answer::Failed`] if it could not be stored, so that it is downloaded
    /// again.
    Install {
        /// The names.
        names: Names,
        /// The chain in PEM, the leaf first: only certificates, each with `\n` at the end of its lines.
        chain: String,
    },
    /// Make a new key pair for the account, P-256, store it as the account's next key, and keep the current one. If there is
    /// a next key already, it is that one. The answer is [`Answer::AccountKey`].
    MakeAccountKey,
    /// The next account key is the current one from now on: store that, and forget the old one. The answer is
    /// [`Answer::Done`].
    ReplaceAccountKey,
}

/// One of the keys of the account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccountKey {
    /// The key that the CA knows.
    Current,
    /// The key of [`Question::MakeAccountKey`].
    Next,
}

/// The driver's answer to a [`Question`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is done.
    Done,
    /// The signature: r and s, 32 bytes each, big-endian.
    Signed([u8; 64]),
    /// The certificate request.
    Request {
        /// In DER (RFC 2986).
        der: Vec<u8>,
    },
    /// The issuer of the topmost certificate of the chain.
    Inspected {
        /// The common name of its issuer; empty if it has none.
        topmost_issuer: String,
    },
    /// The certificate is on disk, and is served.
    Installed(Certificate),
    /// The public key of the account's next key.
    AccountKey(PublicKey),
    /// The certificate is not acceptable: another one has to be ordered.
    Refused {
        /// Why, for the log.
        why: String,
    },
    /// It could not be done; it may succeed later.
    Failed {
        /// Why, for the log.
        why: String,
    },
}

/// The answer to a challenge, for the CA's validators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// The name that is validated.
    pub name: String,
    /// What is answered.
    pub proof: Proof,
}

/// The answer for validators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// TLS-ALPN-01 (RFC 8737 §3): a handshake with this server name and the protocol `acme-tls/1` alone gets a self-signed
    /// certificate with the name as its only SAN, and the digest in the critical extension 1.3.6.1.5.5.7.1.31.
    TlsAlpn01 {
        /// The SHA-256 of the key authorization.
        digest: [u8; 32],
    },
    /// HTTP-01 (RFC 8555 §8.3): a GET of `/.well-known/acme-challenge/TOKEN` gets the key authorization.
    Http01 {
        /// The token: base64url characters only.
        token: String,
        /// The body, `application/octet-stream`.
        key_authorization: String,
    },
}

impl Proof {
    /// The kind of its challenge.
    #[must_use]
    pub const fn kind(&self) -> ChallengeKind {
        match self {
            Self::TlsAlpn01 { .. } => ChallengeKind::TlsAlpn01,
            Self::Http01 { .. } => ChallengeKind::Http01,
        }
    }
}

/// The properties of a certificate, as the driver has read them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The beginning of its validity, in seconds since 1970.
    pub not_before: u64,
    /// The end of its validity, in seconds since 1970.
    pub not_after: u64,
    /// The keyIdentifier of its Authority Key Identifier; empty if it has none.
    pub authority_key_id: Vec<u8>,
    /// The content of its serial number's INTEGER, with a leading zero byte where DER has one.
    pub serial: Vec<u8>,
}

impl Certificate {
    /// Its identifier for renewal information (RFC 9773 §4.1); `None` if the certificate has no authority key
    /// identifier or no serial number.
    #[must_use]
    pub fn renewal_id(&self) -> Option<String> {
        if self.authority_key_id.is_empty() || self.serial.is_empty() {
            return None;
        }
        let mut id = BASE64URL_NOPAD.encode(&self.authority_key_id);
        id.push('.');
        id.push_str(&BASE64URL_NOPAD.encode(&self.serial));
        Some(id)
    }

    /// How many seconds it is valid.
    #[must_use]
    pub const fn lifetime(&self) -> u64 {
        self.not_after.saturating_sub(self.not_before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 9773 §4.1.
    #[test]
    fn the_renewal_id_keeps_the_leading_zero_of_the_serial() {
        let certificate = Certificate {
            not_before: 0,
            not_after: 0,
            authority_key_id: [
                0x69, 0x88, 0x5b, 0x6b, 0x87, 0x46, 0x40, 0x41, 0xe1, 0xb3, 0x7b, 0x84, 0x7b, 0xa0, 0xae,
                0x2c, 0xde, 0x01, 0xc8, 0xd4,
            ]
            .into(),
            serial: [0x00, 0x87, 0x65, 0x43, 0x21].into(),
        };
        assert_eq!(certificate.renewal_id().as_deref(), Some("aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"));
    }
}
