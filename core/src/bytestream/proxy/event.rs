//! What is worth a log line of a proxy.

use crate::bytestream::name::Jid;
use crate::bytestream::stanza::Condition;
use crate::machine::ConnId;
use crate::pair::EndReason;
use crate::time::Span;

/// Something to log or to count. JIDs are a peer's text, to be escaped; stream ids are secrets and not in here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyEvent {
    /// Two sockets were joined.
    Paired {
        /// Whose claim was first.
        first: Jid,
        /// Its socket.
        first_on: ConnId,
        /// Whose claim was second.
        second: Jid,
        /// Its socket.
        second_on: ConnId,
    },
    /// A pair ended. [`Side::Hidden`](crate::pair::Side::Hidden) in `why` means the first one's side.
    Ended {
        /// The socket of the first.
        first_on: ConnId,
        /// The socket of the second.
        second_on: ConnId,
        /// Bytes from the first.
        from_first: u64,
        /// Bytes from the second.
        from_second: u64,
        /// How long it lasted.
        after: Span,
        /// Why it ended.
        why: EndReason,
    },
    /// A claim was answered with an error.
    Refused {
        /// Whose.
        from: Jid,
        /// The error.
        condition: Condition,
    },
}
