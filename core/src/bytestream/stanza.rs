//! The stanzas as values, independent of their XML.

use alloc::vec::Vec;
use core::net::SocketAddr;

use super::name::{IqId, Jid, StreamId};

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
    /// `error`.
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

/// Why a request is refused, with the numbers of XEP-0086 and the names of RFC 6120 §8.3.3. The mail has no codes
/// (docs/stream-proxy.md §5.11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// bad-request: a part is missing.
    BadRequest400,
    /// forbidden: by policy.
    Forbidden403,
    /// item-not-found: no such socket, no such stream, nothing that could be reached.
    NotFound404,
    /// not-acceptable: no stream is wanted.
    NotAcceptable406,
    /// conflict: the stream id is in use.
    Conflict409,
    /// resource-constraint: too many at a time, or too many failures.
    Resource500,
    /// service-unavailable: shutting down.
    Unavailable503,
    /// remote-server-timeout: the other side did not come.
    Timeout504,
    /// remote-server-not-found: there is no such domain, or its server cannot be reached.
    NoServer404,
    /// Any other, from a peer or an intermediate server.
    Other,
}

impl Condition {
    /// Whether a peer that makes an offer itself next (A1.3, A2.2) may have sent it.
    #[must_use]
    pub const fn may_precede_an_offer(self) -> bool {
        match self {
            Self::NotFound404
            | Self::NotAcceptable406
            | Self::Conflict409
            | Self::Resource500
            | Self::Other => true,
            Self::BadRequest400
            | Self::Forbidden403
            | Self::Unavailable503
            | Self::Timeout504
            | Self::NoServer404 => false,
        }
    }

    /// Its number in XEP-0086; `None` for [`Condition::Other`].
    #[must_use]
    pub const fn code(self) -> Option<u16> {
        Some(match self {
            Self::BadRequest400 => 400,
            Self::Forbidden403 => 403,
            Self::NotFound404 | Self::NoServer404 => 404,
            Self::NotAcceptable406 => 406,
            Self::Conflict409 => 409,
            Self::Resource500 => 500,
            Self::Unavailable503 => 503,
            Self::Timeout504 => 504,
            Self::Other => return None,
        })
    }
}

impl Query {
    /// The empty `result`: clear to send.
    pub const CLEAR: Self = Self::Result { sid: None, connection: None };
}
