//! Pins of public keys, in the format of curl's `--pinnedpubkey`.

use std::fmt;

use data_encoding::BASE64;
use sha2::{Digest, Sha256};

use crate::x509;

/// The SHA-256 hash of a public key (its SubjectPublicKeyInfo in DER). It does not change when a certificate is renewed
/// with the same key. Displayed as `sha256//BASE64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pin(pub [u8; 32]);

impl Pin {
    /// The pin of a SubjectPublicKeyInfo (DER).
    pub fn of_spki(spki: &[u8]) -> Pin {
        Pin(Sha256::digest(spki).into())
    }

    /// The pin of a certificate (DER); `None` if it is malformed.
    pub fn of_certificate(certificate: &[u8]) -> Option<Pin> {
        x509::parts(certificate).map(|parts| Pin::of_spki(parts.spki))
    }

    /// Reads `sha256//BASE64`.
    ///
    /// # Errors
    ///
    /// A message that describes the format of a pin.
    pub fn parse(text: &str) -> Result<Pin, String> {
        let bytes = text.strip_prefix("sha256//").and_then(|base64| BASE64.decode(base64.as_bytes()).ok());
        let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
        bytes.map(Pin).ok_or_else(|| format!("'{text}' is not a pin: sha256// and 44 characters of BASE64"))
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256//{}", BASE64.encode(&self.0))
    }
}
