//! Names that peers choose, or that are chosen for them: stream ids, beside XMPP's JIDs and ids of IQs. Opaque and
//! bounded.

use alloc::boxed::Box;
use core::fmt;

use crate::entropy::Entropy;
pub use crate::xmpp::jid::{IqId, Jid};

/// What pairs two sockets at a proxy: at most 256 octets, and a secret, since whoever knows it can take part.
///
/// The mail's samples use `A01`; ours have 128 random bits (docs/stream-proxy.md §5.6).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId(Box<str>);

/// Who may ask for something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allow {
    /// Whoever comes.
    Everybody,
    /// These JIDs: a full one, a bare one with all its resources, a domain with all its accounts.
    These(alloc::vec::Vec<Jid>),
}

impl StreamId {
    /// More is refused, so that what strangers make us keep has a bound.
    pub const OCTETS_MAX: usize = 256;

    /// Takes any text of 1 to [`StreamId::OCTETS_MAX`] octets.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        (1..=Self::OCTETS_MAX).contains(&text.len()).then(|| Self(text.into()))
    }

    /// 128 random bits as 32 hexadecimal digits.
    #[must_use]
    pub fn random(entropy: &mut Entropy) -> Self {
        Self(data_encoding::HEXLOWER.encode(&entropy.half_block()).into())
    }

    /// The text, for the stanza that carries it and for nothing else.
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

impl Allow {
    /// Whether this JID is among them.
    #[must_use]
    pub fn contains(&self, jid: &Jid) -> bool {
        match self {
            Self::Everybody => true,
            Self::These(these) => {
                these.iter().any(|one| [jid.as_str(), jid.bare(), jid.domain()].contains(&one.as_str()))
            }
        }
    }
}
