//! Opaque names of bounded length: stream ids, and XMPP's JIDs and ids of IQs.

use alloc::boxed::Box;
use core::fmt;

use crate::entropy::Entropy;
pub use crate::xmpp::jid::{Allow, IqId, Jid};

/// The id that pairs two sockets at a proxy, at most 256 bytes. It is secret: whoever knows it can claim a side.
///
/// The mail's samples use `A01`; ours have 128 random bits (docs/stream-proxy.md §5.6).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId(Box<str>);

impl StreamId {
    /// The maximum length in bytes, which bounds the memory that strangers can use.
    pub const BYTES_MAX: usize = 256;

    /// Accepts any text of 1 to [`StreamId::BYTES_MAX`] bytes.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        (1..=Self::BYTES_MAX).contains(&text.len()).then(|| Self(text.into()))
    }

    /// 128 random bits as 32 hexadecimal digits.
    #[must_use]
    pub fn random(entropy: &mut Entropy) -> Self {
        Self(data_encoding::HEXLOWER.encode(&entropy.half_block()).into())
    }

    /// The text, for the stanza that carries it only.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StreamId(…)")
    }
}
