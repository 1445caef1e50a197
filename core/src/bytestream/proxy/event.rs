//! Events of a proxy.

use crate::bytestream::name::Jid;
use crate::bytestream::stanza::Condition;
use crate::machine::ConnId;
use crate::pair::EndReason;
use crate::time::Span;

/// An event to log or to count. JIDs are untrusted text and must be escaped. Stream ids are secret and not included.
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
