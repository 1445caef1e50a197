//! DTCP: a direct TCP connection between two endpoints that already have a signalling channel (XEP-0046;
//! `docs/dtcp.md` resolves what its text leaves open).
//!
//! The *requestor* sends an offer, the *responder* answers with its own: a key and up to three hosts each. Both dial
//! the hosts that they can reach, and exchange a few lines on each connection until one is established. The requestor
//! alone chooses which, and signals its choice once:
//!
//! | | serving | dialling |
//! |---|---|---|
//! | requestor commits | when it writes `ok:` with the responder's key | when it reads `ok:` with its own key, and writes `ok` |
//! | responder follows | when it reads `ok` | when it reads `ok:` with its own key |
//!
//! A connection on which a serving responder has answered a correct key and waits for the ack is *tentative*. There
//! may be more than one.
//!
//! | module | contents |
//! |---|---|
//! | [`mod@line`] | the lines |
//! | [`handshake`] | the handshake on one connection |
//! | [`negotiation`] | the sessions of one endpoint, with their connections |
//! | [`host`] | `host:port` |
//! | [`acl`](crate::acl) | the addresses that may be dialled |
//! | `xmpp` | offers and give-ups as IQs |
//! | `entity` | one session over XMPP, with a local connection |
//!
//! Only the last module depends on how offers and give-ups are carried.

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

/// The timeout of a direct connection of an agent or a connector, from the dial or the accept until it is
/// established.
pub const HANDSHAKE_MAX: Span = Span::from_secs(10);

/// Configures direct connections of an agent or a connector. They always use TLS with pinned certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Direct {
    /// Our hosts for the offer; the first [`HOSTS_MAX`] count. Empty: we only dial.
    pub hosts: Vec<HostPort>,
    /// The driver's listener on which direct connections are accepted.
    pub listener: Option<Listener>,
    /// The fingerprint of the driver's certificate for them.
    pub fingerprint: Fingerprint,
    /// The addresses that may be dialled.
    pub policy: Policy,
    /// For a connector, how long to try after the 101; [`Direct::TRIED`]. For an agent, how long to wait for the
    /// connector's decision; [`Direct::AWAITED`].
    pub timeout: Span,
}

impl Direct {
    /// The default time for which a connector tries.
    pub const TRIED: Span = Span::from_secs(1);
    /// The maximum time for which a connector may try; an agent waits longer.
    pub const TRIED_MAX: Span = Span::from_secs(20);
    /// The default time for which an agent waits.
    pub const AWAITED: Span = Span::from_secs(30);

    /// The configuration of a negotiation whose sessions time out after `session`.
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
