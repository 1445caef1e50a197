//! DTCP: a direct TCP connection between two parties that already have a way to signal to each other (XEP-0046, and
//! `docs/dtcp.md` where its text leaves something open).
//!
//! The *requestor* sends an offer, the *responder* answers with its own: a key and up to three hosts each. Then
//! whoever can dials whomever it can, and on each connection a few lines are said until one of them is established.
//! Which one is for the requestor alone to say, and it says so once:
//!
//! | | serving | dialling |
//! |---|---|---|
//! | requestor commits | when it writes `ok:` with the responder's key | when it reads `ok:` with its own key, and writes `ok` |
//! | responder follows | when it reads `ok` | when it reads `ok:` with its own key |
//!
//! A serving responder has answered a right key and awaits the ack: such a connection is *tentative*, and there may be
//! more than one.
//!
//! | module | what it is |
//! |---|---|
//! | [`mod@line`] | the lines |
//! | [`handshake`] | one connection |
//! | [`negotiation`] | the sessions of one party, with their connections |
//! | [`host`] | `host:port` |
//! | [`acl`](crate::acl) | which addresses may be dialled |
//! | [`xmpp`] | offers and give-ups as IQs |
//! | [`entity`] | one session over XMPP, with a local connection |
//!
//! How offers and give-ups travel only the last of these knows.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use data_encoding::HEXLOWER;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::acl::Policy;
use crate::endpoint::Place;
use crate::entropy::Entropy;
pub use crate::fingerprint::Fingerprint;
use crate::machine::Listener;
use crate::time::Span;

pub mod entity;
pub mod handshake;
pub mod host;
pub mod line;
pub mod negotiation;
pub(crate) mod party;
pub mod xmpp;

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
    /// The longest key that is accepted, in octets.
    pub const OCTETS_MAX: usize = 255;

    /// A key as it was offered.
    ///
    /// # Errors
    ///
    /// It is empty, longer than [`Key::OCTETS_MAX`], or has a CR or LF in it, which a line could not carry
    /// (docs/dtcp.md §6.20).
    pub fn new(octets: &[u8]) -> Result<Self, KeyError> {
        let octets = Zeroizing::new(octets.to_vec());
        let fits = (1..=Self::OCTETS_MAX).contains(&octets.len());
        let is_line = !octets.iter().any(|octet| matches!(octet, b'\r' | b'\n'));
        if fits && is_line { Ok(Self(octets)) } else { Err(KeyError) }
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
    /// Where it can be reached, as written: [`host::parse`]. Of a peer's, the first [`HOSTS_MAX`] count, usable or
    /// not (docs/dtcp.md §6.5).
    pub hosts: Vec<String>,
    /// Its certificate, where the channel carries that.
    pub fingerprint: Option<Fingerprint>,
}

/// How long a direct connection of an agent or a connector may take, from the dial or the accept until it is
/// established.
pub const HANDSHAKE_MAX: Span = Span::from_secs(10);

/// How an agent or a connector takes and makes direct connections, which are always in TLS and pinned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Direct {
    /// Where it can be reached, which it tells the other party; the first [`HOSTS_MAX`] count. None: it dials alone.
    pub hosts: Vec<Place>,
    /// On which of the shell's listeners direct connections are accepted.
    pub listener: Option<Listener>,
    /// Of the shell's certificate for them.
    pub fingerprint: Fingerprint,
    /// Whom to dial.
    pub policy: Policy,
    /// A connector: how long to try, from the 101 on; [`Direct::TRIED`]. An agent: how long to wait for what the
    /// connector decides; [`Direct::AWAITED`].
    pub patience: Span,
}

impl Direct {
    /// How long a connector tries.
    pub const TRIED: Span = Span::from_secs(1);
    /// How long a connector may try at most: an agent waits longer.
    pub const TRIED_MAX: Span = Span::from_secs(20);
    /// How long an agent waits.
    pub const AWAITED: Span = Span::from_secs(30);

    /// What this means for a negotiator whose sessions last as long as `session`.
    pub(crate) fn negotiation(&self, session: Span) -> negotiation::Config {
        negotiation::Config {
            tls: handshake::Tls::Require,
            fingerprint: Some(self.fingerprint),
            policy: self.policy.clone(),
            handshake: HANDSHAKE_MAX,
            concealed: Some(HANDSHAKE_MAX),
            session,
            ..negotiation::Config::default()
        }
    }
}
