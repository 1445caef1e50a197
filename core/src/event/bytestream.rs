//! Events of the stream proxy, and of both ends of its streams.

use core::net::SocketAddr;

use crate::conn::ConnId;
use crate::pair::EndReason;
use crate::time::Span;
use crate::xmpp::condition::Condition;
use crate::xmpp::jid::Jid;

/// An event of an end of streams. JIDs are untrusted text and must be escaped. Stream ids are secret and not included.
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
        why: StreamFailure,
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

/// Why there is no stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamFailure {
    /// The peer refused the offer, and made none itself.
    Refused(Condition),
    /// The peer, or a proxy, did not accept our claim (A4).
    Disowned(Condition),
    /// None of the connections could be reached (A2).
    Unreachable,
    /// The peer uses a connection that was not offered, or named none.
    UnknownConnection,
    /// The peer began another stream instead.
    Replaced,
    /// The socket was reset before the stream was clear to send.
    Reset,
    /// No answer before the timeout.
    TimedOut,
    /// Our side cancelled it.
    Cancelled,
}

/// An event of a stream proxy. JIDs are untrusted text and must be escaped. Stream ids are secret and not included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyEvent {
    /// Two sockets were joined.
    Paired {
        /// The JID of the first claim.
        first: Jid,
        /// Its socket.
        first_on: ConnId,
        /// The JID of the second claim.
        second: Jid,
        /// Its socket.
        second_on: ConnId,
    },
    /// A pair ended. [`Side::Hidden`](crate::pair::Side::Hidden) in `why` is the first one's side.
    Ended {
        /// The socket of the first.
        first_on: ConnId,
        /// The socket of the second.
        second_on: ConnId,
        /// Bytes from the first.
        from_first: u64,
        /// Bytes from the second.
        from_second: u64,
        /// The pair's duration.
        after: Span,
        /// The reason.
        why: EndReason,
    },
    /// A claim was answered with an error.
    Refused {
        /// The claimer.
        from: Jid,
        /// The error.
        condition: Condition,
    },
}
