//! What becomes of sessions and of the local connection.

use core::net::SocketAddr;

use crate::dtcp::negotiation::Failure;
use crate::event::ConnectError;
use crate::pair::EndReason;
use crate::xmpp::condition::{Condition, StanzaError};
use crate::xmpp::jid::Jid;

/// Why there is no direct connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why the session came to nothing.
    pub why: Failure,
    /// What the peer, or a server on the way, said about it. Its text is theirs, to be escaped.
    pub error: Option<StanzaError>,
    /// What was in the way of our own dials.
    pub connect_error: Option<ConnectError>,
}

/// Something to log. JIDs are a peer's text, to be escaped; keys are secrets and not in here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DtcpEvent {
    /// A session was begun, by us or by the peer.
    Begun {
        /// With whom.
        peer: Jid,
    },
    /// A request was refused.
    Declined {
        /// Whose.
        peer: Jid,
        /// With what.
        condition: Condition,
    },
    /// An address is dialled that the peer named.
    Dialled {
        /// The peer.
        peer: Jid,
        /// The address.
        to: SocketAddr,
    },
    /// There is a direct connection.
    Established {
        /// With whom.
        peer: Jid,
        /// Whether it is in TLS.
        tls: bool,
    },
    /// There is none.
    Failed {
        /// With whom it was to be.
        peer: Jid,
        /// Why not.
        refused: Refused,
    },
    /// It ended.
    Ended {
        /// Bytes from the peer.
        from_peer: u64,
        /// Bytes to the peer.
        to_peer: u64,
        /// Why. [`Side::Hidden`](crate::pair::Side::Hidden) in it is the peer's side.
        why: EndReason,
    },
}

/// What became of the local connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It met the peer, and the pair ended so.
    Ended(EndReason),
    /// It could not be.
    Failed(Refused),
    /// It went away, or was told to stop, before anything came of it.
    Abandoned,
}
