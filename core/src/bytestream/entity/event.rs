//! Events of an entity.

use core::net::SocketAddr;

use crate::bytestream::name::Jid;
use crate::bytestream::role::Failure;
use crate::machine::ConnId;
use crate::pair::EndReason;

/// An event to log or to count. JIDs are untrusted text and must be escaped. Stream ids are secret and not included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamEvent {
    /// A stream is clear to send.
    Clear {
        /// The peer.
        peer: Jid,
        /// Its socket.
        on: ConnId,
    },
    /// An address that the peer offered is dialled.
    Dialled {
        /// The peer.
        peer: Jid,
        /// The address.
        to: SocketAddr,
    },
    /// A stream failed.
    Failed {
        /// The peer.
        peer: Jid,
        /// The reason.
        why: Failure,
    },
    /// A stream was clear, but our own service could not be reached.
    NoService {
        /// The stream's socket.
        on: ConnId,
    },
    /// A stream ended.
    Ended {
        /// Its socket.
        on: ConnId,
        /// Bytes from the peer.
        from_peer: u64,
        /// Bytes to the peer.
        to_peer: u64,
        /// The reason. [`Side::Hidden`](crate::pair::Side::Hidden) in it is the peer's side.
        why: EndReason,
    },
}
