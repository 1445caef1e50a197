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
//! | `xmpp` | offers and give-ups as IQs |
//! | `entity` | one session over XMPP, with a local connection |
//!
//! How offers and give-ups travel only the last of these knows.

use alloc::vec::Vec;

use crate::acl::Policy;
use crate::endpoint::HostPort;
pub use crate::fingerprint::Fingerprint;
use crate::machine::Listener;
pub use crate::offer::{HOSTS_MAX, Key, KeyError, Offer};
use crate::time::Span;

pub(crate) mod endpoint;
#[cfg(feature = "xmpp")]
pub mod entity;
pub mod handshake;
pub mod host;
pub mod line;
pub mod negotiation;
#[cfg(feature = "xmpp")]
pub mod xmpp;

/// How long a direct connection of an agent or a connector may take, from the dial or the accept until it is
/// established.
pub const HANDSHAKE_MAX: Span = Span::from_secs(10);

/// How an agent or a connector takes and makes direct connections, which are always in TLS and pinned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Direct {
    /// Where it can be reached, which it tells the other party; the first [`HOSTS_MAX`] count. None: it dials alone.
    pub hosts: Vec<HostPort>,
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
