//! The subject of a client's certificate, as text.

use alloc::sync::Arc;
use core::fmt;

/// The subject of a certificate as a distinguished name in text form (RFC 4514): printable ASCII, at most
/// [`Subject::LEN_MAX`] bytes. Everything else must be escaped by the caller. It may be empty (RFC 5280 §4.1.2.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject(Arc<str>);

impl Subject {
    /// The longest subject, in bytes.
    pub const LEN_MAX: usize = 2_048;

    /// Takes a text; `None` if it is too long, or has other bytes than printable ASCII and the space.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let is_plain = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        (is_plain && text.len() <= Self::LEN_MAX).then(|| Self(text.into()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// For traces: another subject of the same length.
    #[must_use]
    #[cfg(feature = "trace")]
    pub(crate) fn stand_in(len: usize) -> Option<Self> {
        const LETTERS: [u8; Subject::LEN_MAX] = [b'x'; Subject::LEN_MAX];
        core::str::from_utf8(LETTERS.get(..len)?).ok().and_then(Self::new)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
