//! Offers of direct connections, and refusals: what two parties tell each other about themselves before they connect.
//!
//! DTCP ([`dtcp`](crate::dtcp)) negotiates with them. They travel over XMPP or in HTTP fields.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use data_encoding::HEXLOWER;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::entropy::Entropy;
use crate::fingerprint::Fingerprint;

/// How many hosts an offer has, and how many of a longer one are acted on (XEP-0046 §3.1).
pub const HOSTS_MAX: usize = 3;

/// What a party wants to be shown for one session.
///
/// It is wiped when it is dropped, is not shown by `Debug`, and is compared in constant time.
#[derive(Clone)]
pub struct Key(Zeroizing<Vec<u8>>);

/// A text that can be no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyError;

impl Key {
    /// The longest key that is accepted, in bytes.
    pub const BYTES_MAX: usize = 255;

    /// A key as it was offered.
    ///
    /// # Errors
    ///
    /// It is empty, longer than [`Key::BYTES_MAX`], or has a CR or LF in it, which a line could not carry
    /// (docs/dtcp.md §6.20).
    pub fn new(bytes: &[u8]) -> Result<Self, KeyError> {
        let bytes = Zeroizing::new(bytes.to_vec());
        let fits = (1..=Self::BYTES_MAX).contains(&bytes.len());
        let is_line = !bytes.iter().any(|byte| matches!(byte, b'\r' | b'\n'));
        if fits && is_line { Ok(Self(bytes)) } else { Err(KeyError) }
    }

    /// A new key: 128 bits in 32 hexadecimal digits.
    pub fn generate(entropy: &mut Entropy) -> Self {
        let text = HEXLOWER.encode(&entropy.half_block());
        Self(Zeroizing::new(text.into_bytes()))
    }

    /// The key, for an offer or a line and for nothing else.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether this is what was shown. How long it takes depends on the lengths alone.
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
        f.write_str("a DTCP key must have 1 to 255 octets and neither CR nor LF")
    }
}

impl core::error::Error for KeyError {}

/// What a party tells the other about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// What it wants to be shown.
    pub key: Key,
    /// Where it can be reached, as written: [`host::parse`](crate::dtcp::host::parse). Of a peer's, the first [`HOSTS_MAX`] count, usable or
    /// not (docs/dtcp.md §6.5).
    pub hosts: Vec<String>,
    /// Its certificate, where the channel carries that.
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
