//! What is worth a log line of an entity.

use core::net::SocketAddr;

use crate::bytestream::name::Jid;
use crate::bytestream::role::Failure;
use crate::machine::ConnId;
use crate::pair::EndReason;

/// Something to log or to count. JIDs are a peer's text, to be escaped; stream ids are secrets and not in here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamEvent {
    /// A stream is clear to send.
    Clear {
        /// With whom.
        peer: Jid,
        /// Its socket.
        on: ConnId,
    },
    /// An address is dialled that the peer offers.
    Dialled {
        /// The peer.
        peer: Jid,
        /// The address.
        to: SocketAddr,
    },
    /// There is no stream.
    Failed {
        /// With whom it was to be.
        peer: Jid,
        /// Why not.
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
        /// Why. [`Side::Hidden`](crate::pair::Side::Hidden) in it is the peer's side.
        why: EndReason,
    },
}
