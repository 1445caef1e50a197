//! Names of entities and of IQs, and lists of entities that may do something.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::cmp::Ordering;
use core::fmt;

use crate::entropy::Entropy;

/// The longest part of a JID, in bytes (RFC 7622 §3.1).
const PART_BYTES_MAX: usize = 1_023;

/// A full, bare or domain JID (RFC 7622), at most 3,071 bytes.
///
/// One that was [parsed](Jid::parse) is compared in its normal form, and written as it came: a peer may compare it with
/// its own text.
#[derive(Clone)]
pub struct Jid {
    normal: Box<str>,
    /// As it came, if that is another text.
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

/// Who may ask for something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allow {
    /// Whoever comes.
    Everybody,
    /// These JIDs: a full one, a bare one with all its resources, a domain with all its accounts.
    These(Vec<Jid>),
}

impl Jid {
    /// RFC 7622 §3.1: three parts of 1,023 bytes each, and two separators.
    pub const BYTES_MAX: usize = 3 * PART_BYTES_MAX + 2;

    /// Takes any text of 1 to [`Jid::BYTES_MAX`] bytes.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        (1..=Self::BYTES_MAX).contains(&text.len()).then(|| Self { normal: text.into(), given: None })
    }

    /// Reads and normalises: account and domain in lower case as far as they are ASCII. What else RFC 7622 asks for
    /// needs tables of all of Unicode; such parts are compared as they are. `None` for what is no JID.
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

    /// The text as it came.
    #[must_use]
    pub fn to_text(&self) -> &str {
        self.given.as_deref().unwrap_or(&self.normal)
    }

    /// Without the resource, which its owner can choose as it likes.
    #[must_use]
    pub fn bare(&self) -> &str {
        self.normal.split_once('/').map_or(&self.normal, |(bare, _)| bare)
    }

    /// Without account and resource.
    #[must_use]
    pub fn domain(&self) -> &str {
        self.bare().split_once('@').map_or(self.bare(), |(_, domain)| domain)
    }
}

impl IqId {
    /// More is refused, so that what strangers make us keep has a bound.
    pub const BYTES_MAX: usize = 256;

    /// Takes any text of up to [`IqId::BYTES_MAX`] bytes.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        (text.len() <= Self::BYTES_MAX).then(|| Self(text.into()))
    }

    /// 128 random bits as 32 hexadecimal digits: who does not get the question can't forge its answer.
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
