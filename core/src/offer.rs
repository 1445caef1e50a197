//! Offers of direct connections, and refusals: what two endpoints exchange before they connect.
//!
//! DTCP ([`dtcp`](crate::dtcp)) negotiates with them. They are carried over XMPP or in HTTP fields.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use data_encoding::HEXLOWER;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::entropy::Entropy;
use crate::fingerprint::Fingerprint;

/// The maximum number of hosts in an offer. Of a longer one, only the first are used (XEP-0046 §3.1).
pub const HOSTS_MAX: usize = 3;

/// The secret that the peer must send to authenticate a session.
///
/// It is zeroed on drop, hidden from `Debug`, and compared in constant time.
#[derive(Clone)]
pub struct Key(Zeroizing<Vec<u8>>);

/// The error for bytes that cannot be a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyError;

impl Key {
    /// The maximum length of a key, in bytes.
    pub const BYTES_MAX: usize = 255;

    /// Parses a key from an offer.
    ///
    /// # Errors
    ///
    /// The key is empty, longer than [`Key::BYTES_MAX`], or contains CR or LF, which a line could not carry
    /// (docs/dtcp.md §6.20).
    pub fn new(bytes: &[u8]) -> Result<Self, KeyError> {
        let bytes = Zeroizing::new(bytes.to_vec());
        let fits = (1..=Self::BYTES_MAX).contains(&bytes.len());
        let is_line = !bytes.iter().any(|byte| matches!(byte, b'\r' | b'\n'));
        if fits && is_line { Ok(Self(bytes)) } else { Err(KeyError) }
    }

    /// Generates a key: 128 random bits as 32 hexadecimal digits.
    pub fn generate(entropy: &mut Entropy) -> Self {
        let text = HEXLOWER.encode(&entropy.half_block());
        Self(Zeroizing::new(text.into_bytes()))
    }

    /// The key's bytes, to be put into an offer or a line only.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether this is the key that a peer sent. The time depends on the lengths only.
    #[must_use]
    pub fn is(&self, shown: &[u8]) -> bool {
        self.0.ct_eq(shown).into()
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.is(&other.0)
    }
}

impl Eq for Key {}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a DTCP key must have 1 to 255 bytes and neither CR nor LF")
    }
}

impl core::error::Error for KeyError {}

/// An endpoint's offer to its peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The key that the peer must send.
    pub key: Key,
    /// The addresses at which it can be reached, as written; see [`host::parse`](crate::dtcp::host::parse). Of a
    /// peer's, the first [`HOSTS_MAX`] count, usable or not (docs/dtcp.md §6.5).
    pub hosts: Vec<String>,
    /// Its certificate's fingerprint, if the channel carries that.
    pub fingerprint: Option<Fingerprint>,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Neither side has an address: 503 (docs/dtcp.md §6.6).
    Unreachable,
    /// The same peer has a session with the same key: 409 (docs/dtcp.md §6.38).
    Conflict,
    /// Too many sessions: 500 (docs/dtcp.md §6.15).
    Busy,
}
