//! Names that peers choose, or that are chosen for them: JIDs, stream ids, ids of IQs. Opaque and bounded.

use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;

use crate::entropy::Entropy;

/// A full, bare or domain JID (RFC 7622), at most 3,071 octets. Whoever reads it off the wire normalises it: here two
/// JIDs are the same if their octets are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Jid(Box<str>);

/// What pairs two sockets at a proxy: at most 256 octets, and a secret, since whoever knows it can take part.
///
/// The mail's samples use `A01`; ours have 128 random bits (XMPP.md §6, reading 6).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId(Box<str>);

/// The `id` of an IQ, at most 256 octets; may be empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IqId(Box<str>);

/// Who may ask for something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allow {
    /// Whoever comes.
    Everybody,
    /// These JIDs: a full one, a bare one with all its resources, a domain with all its accounts.
    These(alloc::vec::Vec<Jid>),
}

impl Jid {
    /// RFC 7622 §3.1: three parts of 1,023 octets each, and two separators.
    pub const OCTETS_MAX: usize = 3_071;

    /// Takes any text of 1 to [`Jid::OCTETS_MAX`] octets.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        (1..=Self::OCTETS_MAX).contains(&text.len()).then(|| Self(text.into()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Without the resource, which its owner can choose as it likes.
    #[must_use]
    pub fn bare(&self) -> &str {
        self.0.split_once('/').map_or(&self.0, |(bare, _)| bare)
    }

    /// Without account and resource.
    #[must_use]
    pub fn domain(&self) -> &str {
        self.bare().split_once('@').map_or(self.bare(), |(_, domain)| domain)
    }
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
        Self(hex(entropy))
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

impl IqId {
    /// More is refused, so that what strangers make us keep has a bound.
    pub const OCTETS_MAX: usize = 256;

    /// Takes any text of up to [`IqId::OCTETS_MAX`] octets.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        (text.len() <= Self::OCTETS_MAX).then(|| Self(text.into()))
    }

    /// 128 random bits as 32 hexadecimal digits: who does not get the question can't forge its answer.
    #[must_use]
    pub fn random(entropy: &mut Entropy) -> Self {
        Self(hex(entropy))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
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

fn hex(entropy: &mut Entropy) -> Box<str> {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
    let octets = entropy.half_block();
    octets.iter().flat_map(|octet| [digit(octet >> 4), digit(octet & 15)]).collect::<String>().into()
}
