//! The settings of an ACME client.

use alloc::string::String;
use alloc::vec::Vec;

use data_encoding::{BASE64URL_NOPAD, Encoding};

use super::url::Url;
use crate::opaque::Opaque;
use crate::relay_client::Deadlines;
use crate::time::Span;

/// The settings of an ACME client.
#[derive(Clone, Debug)]
pub struct Config {
    /// The URL of the CA's directory. All other URLs of the CA must have the same host and port.
    pub directory: Url,
    /// The public key of the account. The driver has stored the private key before it makes a client.
    pub account_key: PublicKey,
    /// Whether the operator agrees to the CA's terms of service. Without it no account is registered.
    pub agrees_to_terms: bool,
    /// Contacts of the account, `mailto:` URLs; default none. Only sent when the account is registered.
    pub contacts: Vec<String>,
    /// The external account that the CA binds the account to (RFC 8555 §7.3.4).
    pub external_account: Option<ExternalAccount>,
    /// The profile of certificates. Only sent if the CA's directory lists it.
    pub profile: Option<String>,
    /// The common name of the issuer of the topmost certificate of the chain that is wanted. If the CA has no such chain,
    /// its default is taken.
    pub preferred_chain: Option<String>,
    /// The kinds of challenges that are answered, the preferred one first; default TLS-ALPN-01 alone. After a failure the
    /// next attempt uses the next kind.
    pub challenges: Vec<ChallengeKind>,
    /// The value of `User-Agent`.
    pub user_agent: String,
    /// The time at which the program was built, in seconds since 1970. As long as the clock is before it, nothing is done.
    pub built: u64,
    /// How long each step of a request may take; default 20 s to connect, 20 s for TLS, 60 s for the answer.
    pub deadlines: Deadlines,
    /// The longest body of an answer, in bytes; default 256 KiB, at most 1 MiB.
    pub body_max: u32,
}

impl Config {
    /// The defaults for a CA and an account key. The operator does not agree to anything by default.
    #[must_use]
    pub fn new(directory: Url, account_key: PublicKey) -> Self {
        let dial = Span::from_secs(20);
        Self {
            directory,
            account_key,
            agrees_to_terms: false,
            contacts: Vec::new(),
            external_account: None,
            profile: None,
            preferred_chain: None,
            challenges: [ChallengeKind::TlsAlpn01].into(),
            user_agent: String::from("rendezvous"),
            built: 0,
            deadlines: Deadlines { dial, handshake: dial, answer: Span::from_secs(60) },
            body_max: 256 << 10,
        }
    }
}

/// A public key of the curve P-256: the coordinates, big-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey {
    /// The x coordinate.
    pub x: [u8; 32],
    /// The y coordinate.
    pub y: [u8; 32],
}

/// An account at a CA that an ACME account is bound to. The CA gives both values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalAccount {
    /// The key identifier.
    pub key_id: String,
    /// The MAC key, decoded.
    pub mac_key: Opaque<Vec<u8>>,
}

impl ExternalAccount {
    /// Reads the two values as CAs show them: the MAC key in base64url (RFC 8555 §7.3.4), with or without padding; base64
    /// is accepted as well. `None` if the key cannot be decoded or is empty.
    #[must_use]
    pub fn parse(key_id: &str, mac_key: &str) -> Option<Self> {
        let text: String = mac_key
            .trim()
            .trim_end_matches('=')
            .chars()
            .map(|it| match it {
                '+' => '-',
                '/' => '_',
                other => other,
            })
            .collect();
        let mac_key = lenient()?.decode(text.as_bytes()).ok().filter(|key| !key.is_empty())?;
        Some(Self { key_id: key_id.into(), mac_key: Opaque(mac_key) })
    }
}

/// Base64url whose last character may have trailing bits, as some CAs write it.
fn lenient() -> Option<Encoding> {
    let mut specification = BASE64URL_NOPAD.specification();
    specification.check_trailing_bits = false;
    specification.encoding().ok()
}

/// A kind of challenge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChallengeKind {
    /// TLS-ALPN-01 (RFC 8737): validators come to port 443.
    TlsAlpn01,
    /// HTTP-01 (RFC 8555 §8.3): validators come to port 80.
    Http01,
}

impl ChallengeKind {
    /// The type in the CA's JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TlsAlpn01 => "tls-alpn-01",
            Self::Http01 => "http-01",
        }
    }

    /// The inverse of [`ChallengeKind::as_str`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::TlsAlpn01, Self::Http01].into_iter().find(|it| it.as_str() == text)
    }
}
