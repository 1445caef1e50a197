//! Events of a DTCP entity over XMPP.

use core::net::SocketAddr;

use super::{ConnectError, SessionFailure};
use crate::pair::EndReason;
use crate::xmpp::condition::{Condition, StanzaError};
use crate::xmpp::jid::Jid;

/// Why there is no direct connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why the session failed.
    pub why: SessionFailure,
    /// The error of the peer or of a server on the way. Its text is untrusted and must be escaped.
    pub error: Option<StanzaError>,
    /// Why our own dials failed.
    pub connect_error: Option<ConnectError>,
}

/// An event of a DTCP entity. JIDs are untrusted text and must be escaped. Keys are secret and not included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DtcpEvent {
    /// A session has begun, requested by us or by the peer.
    Begun {
        /// The peer.
        peer: Jid,
    },
    /// A request was refused.
    Declined {
        /// The peer.
        peer: Jid,
        /// The error condition.
        condition: Condition,
    },
    /// An address that the peer offered is dialled.
    Dialled {
        /// The peer.
        peer: Jid,
        /// The address.
        to: SocketAddr,
    },
    /// A direct connection is established.
    Established {
        /// The peer.
        peer: Jid,
        /// Whether it uses TLS.
        tls: bool,
    },
    /// There is no direct connection.
    Failed {
        /// The peer.
        peer: Jid,
        /// The reason.
        refused: Refused,
    },
    /// The direct connection ended.
    Ended {
        /// Bytes from the peer.
        from_peer: u64,
        /// Bytes to the peer.
        to_peer: u64,
        /// The reason. [`Side::Hidden`](crate::pair::Side::Hidden) in it is the peer's side.
        why: EndReason,
    },
}
