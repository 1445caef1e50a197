//! JIDs, ids of IQs, and lists of admitted JIDs.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::cmp::Ordering;
use core::fmt;

use crate::entropy::Entropy;

/// The maximum length of a part of a JID, in bytes (RFC 7622 §3.1).
const PART_BYTES_MAX: usize = 1_023;

/// A full, bare or domain JID (RFC 7622), at most 3,071 bytes.
///
/// A [parsed](Jid::parse) one is compared in its normal form, and written as it was received, since a peer may
/// compare it with its own text.
#[derive(Clone)]
pub struct Jid {
    normal: Box<str>,
    /// The text as it was received, if it differs.
    given: Option<Box<str>>,
}

impl PartialEq for Jid {
    fn eq(&self, other: &Self) -> bool {
        self.normal == other.normal
    }
}

impl Eq for Jid {}

impl PartialOrd for Jid {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Jid {
    fn cmp(&self, other: &Self) -> Ordering {
        self.normal.cmp(&other.normal)
    }
}

impl fmt::Debug for Jid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Jid").field(&self.to_text()).finish()
    }
}

/// The `id` of an IQ, at most 256 bytes; may be empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IqId(Box<str>);

/// The JIDs that are admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allow {
    /// All.
    Everybody,
    /// These: a full JID, a bare one with all its resources, or a domain with all its accounts.
    These(Vec<Jid>),
}

impl Jid {
    /// The maximum length in bytes: three parts of 1,023 bytes each, and two separators (RFC 7622 §3.1).
    pub const BYTES_MAX: usize = 3 * PART_BYTES_MAX + 2;

    /// Accepts any text of 1 to [`Jid::BYTES_MAX`] bytes.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        (1..=Self::BYTES_MAX).contains(&text.len()).then(|| Self { normal: text.into(), given: None })
    }

    /// Parses and normalises a JID: account and domain become lower case as far as they are ASCII. The other rules of
    /// RFC 7622 need tables of all of Unicode; such parts are compared unchanged. `None` if the text is not a JID.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (bare, resource) =
            text.split_once('/').map_or((text, None), |(bare, resource)| (bare, Some(resource)));
        let (account, domain) =
            bare.split_once('@').map_or((None, bare), |(account, domain)| (Some(account), domain));
        let is_part = |part: &str| (1..=PART_BYTES_MAX).contains(&part.len());
        let is_name = |part: &str| {
            is_part(part) && !part.contains(|c: char| c.is_control() || c.is_whitespace() || c == '@')
        };
        let is_resource = |part: &str| is_part(part) && !part.contains(char::is_control);
        if !is_name(domain) || !account.is_none_or(is_name) || !resource.is_none_or(is_resource) {
            return None;
        }
        let mut normal = String::from(text);
        normal[..bare.len()].make_ascii_lowercase();
        let given = (normal != text).then(|| text.into());
        Some(Self { normal: normal.into(), given })
    }

    /// The text in its normal form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.normal
    }

    /// The text as it was received.
    #[must_use]
    pub fn to_text(&self) -> &str {
        self.given.as_deref().unwrap_or(&self.normal)
    }

    /// The JID without its resource, which its owner can choose freely.
    #[must_use]
    pub fn bare(&self) -> &str {
        self.normal.split_once('/').map_or(&self.normal, |(bare, _)| bare)
    }

    /// The JID without account and resource.
    #[must_use]
    pub fn domain(&self) -> &str {
        self.bare().split_once('@').map_or(self.bare(), |(_, domain)| domain)
    }
}

impl IqId {
    /// The maximum length in bytes, which bounds the memory that strangers can use.
    pub const BYTES_MAX: usize = 256;

    /// Accepts any text of up to [`IqId::BYTES_MAX`] bytes.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        (text.len() <= Self::BYTES_MAX).then(|| Self(text.into()))
    }

    /// 128 random bits as 32 hexadecimal digits, so that only a recipient of the request can answer it.
    #[must_use]
    pub fn random(entropy: &mut Entropy) -> Self {
        Self(data_encoding::HEXLOWER.encode(&entropy.half_block()).into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Allow {
    /// Whether this JID is admitted.
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
