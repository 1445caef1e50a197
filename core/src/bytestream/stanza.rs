//! The stanzas as values, independent of their XML.

use alloc::vec::Vec;
use core::net::SocketAddr;

use super::name::{IqId, Jid, StreamId};
pub use crate::xmpp::condition::Condition;

/// An IQ with its `<query/>`, to or from a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stanza {
    /// The recipient, or the sender.
    pub peer: Jid,
    /// Its `id`. An answer has that of its question, and nothing else identifies the question.
    pub id: IqId,
    /// The contents.
    pub query: Query,
}

/// The three uses of a `<query/>`, which differ by the IQ's type and the children, and the error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// `set` without `<endpoint/>`: PF2. Without connections: A1.1.
    Offer {
        /// `sid`, or `side` if that is missing (docs/stream-proxy.md §5.1).
        sid: Option<StreamId>,
        /// `<connection/>`s in the order of the document.
        connections: Vec<Connection>,
        /// The number of further ones without `jid`, `ip` or `port`, or whose `ip` is not a literal address.
        malformed: u32,
    },
    /// `set` with `<endpoint/>`: PF4, A6.4. Claims a socket.
    Claim {
        /// `sid`, or `side` if that is missing, as in the samples (docs/stream-proxy.md §5.1).
        sid: Option<StreamId>,
        /// The dialled address with the dialler's own port (docs/stream-proxy.md §5.5); `None`: missing or malformed.
        endpoint: Option<SocketAddr>,
    },
    /// `result`. With a connection it is PF5, without one 'clear to send' (PF7, A6.8).
    Result {
        /// `sid`, which PF5 has; an empty `<query/>` has none.
        sid: Option<StreamId>,
        /// The connection that the target uses.
        connection: Option<Jid>,
    },
    /// `error`. One of a peer or a server on the way is read as the most general condition of its kind
    /// ([`xmpp::read`](super::xmpp::read)). The mail has no codes (docs/stream-proxy.md §5.11).
    Error(Condition),
}

/// A `<connection/>`: an address at which an entity can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The JID to which claims must be sent: the initiator itself, or a proxy.
    pub jid: Jid,
    /// The literal address (docs/stream-proxy.md §5.13).
    pub to: SocketAddr,
}

impl Query {
    /// The empty `result`: clear to send.
    pub const CLEAR: Self = Self::Result { sid: None, connection: None };
}
