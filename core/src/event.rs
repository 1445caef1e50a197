//! Events to log or to count: all that machines report. The driver writes them to the log; tests compare them.
//!
//! An event has no secret and no token. Those of XMPP have names and texts of peers, which must be escaped; all others
//! have no byte that a peer sent.

use core::net::SocketAddr;

use crate::conn::{ConnId, DialFailure, End, TlsFailure};
use crate::http::reply::Status;
use crate::id::Id;
use crate::pair::EndReason;
use crate::time::Span;
use crate::tunnel::ProxyError;

#[cfg(feature = "xmpp")]
mod bytestream;
#[cfg(feature = "xmpp")]
mod component;
#[cfg(feature = "xmpp")]
mod dtcp;

#[cfg(feature = "xmpp")]
pub use bytestream::{ProxyEvent, StreamEvent, StreamFailure};
#[cfg(feature = "xmpp")]
pub use component::ComponentEvent;
#[cfg(feature = "xmpp")]
pub use dtcp::{DtcpEvent, Refused};

/// An event to log or to count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Relay: a hidden server authenticated, and its connection waits.
    Waiting {
        /// Its connection.
        on: ConnId,
        /// Its peer.
        from: Option<SocketAddr>,
        /// The hidden server's ID.
        id: Id,
        /// How many connections wait for this ID now, including this one.
        waiting: u32,
    },
    /// Relay: a waiting connection ended without a client.
    WaitingEnded {
        /// The connection.
        on: ConnId,
        /// The hidden server's ID.
        id: Id,
        /// The reason.
        why: WaitingEnd,
        /// How long it had waited.
        after: Span,
    },
    /// Relay: a request was refused.
    Refused {
        /// The connection.
        on: ConnId,
        /// Its peer.
        from: Option<SocketAddr>,
        /// The ID, if the request named an enrolled one.
        id: Option<Id>,
        /// The status of the response.
        status: Status,
        /// The diagnostic of the response: fixed text.
        why: &'static str,
    },
    /// Relay: a client that named no hidden server got a 401.
    Challenged {
        /// The connection.
        on: ConnId,
        /// Its peer.
        from: Option<SocketAddr>,
    },
    /// Relay: a client waits for the hidden server's next connection.
    Held {
        /// The connection.
        on: ConnId,
        /// The hidden server's ID.
        id: Id,
    },
    /// Relay: a client was paired with a hidden server.
    Paired {
        /// The hidden server's connection.
        hidden: ConnId,
        /// The client's connection.
        client: ConnId,
        /// The client's address.
        from: Option<SocketAddr>,
        /// The hidden server's ID.
        id: Id,
    },
    /// Relay: a waiting connection failed before its first byte of a response.
    HandOverFailed {
        /// The hidden server's connection.
        hidden: ConnId,
        /// The client's connection.
        client: ConnId,
        /// The hidden server's ID.
        id: Id,
        /// Whether another waiting connection got the request. If not, the client got a 502.
        retried: bool,
    },
    /// A pair ended.
    PairEnded {
        /// The hidden server's side.
        hidden: ConnId,
        /// The client's side.
        client: ConnId,
        /// The client's address, as far as it is known.
        from: Option<SocketAddr>,
        /// The hidden server's ID.
        id: Id,
        /// Bytes received from the client's side, without the request's head.
        from_client: u64,
        /// Bytes received from the hidden server's side.
        from_hidden: u64,
        /// The pair's duration.
        after: Span,
        /// The reason.
        why: EndReason,
    },
    /// A connection ended, or was closed at its deadline, before it was used.
    Dropped {
        /// The connection.
        on: ConnId,
        /// Its peer.
        from: Option<SocketAddr>,
        /// Agent: the position of its relay in the list of upstreams, if it has one.
        upstream: Option<u16>,
        /// The reason: fixed text.
        why: &'static str,
    },
    /// A TLS handshake failed.
    TlsFailed {
        /// The connection.
        on: ConnId,
        /// The peer.
        from: Option<SocketAddr>,
        /// Agent: the position of its relay in the list of upstreams.
        upstream: Option<u16>,
        /// The reason.
        why: TlsFailure,
    },
    /// Agent, connector: the relay or the local service cannot be reached.
    DialFailed {
        /// The connection that failed.
        on: ConnId,
        /// What was dialled.
        what: Target,
        /// The reason.
        why: DialFailure,
        /// The delay until the next attempt; `None`: there is none.
        again: Option<Span>,
    },
    /// Agent: the TLS handshake with the local HTTP service failed.
    ServiceTlsFailed {
        /// The connection to it.
        on: ConnId,
        /// The position of its relay in the list of upstreams.
        upstream: u16,
        /// Why.
        why: TlsFailure,
    },
    /// Agent: one more connection waits at the relay.
    Registered {
        /// The connection.
        on: ConnId,
        /// The position in the list of upstreams.
        upstream: u16,
        /// How many connections wait there now.
        waiting: u32,
    },
    /// Agent: the relay refused or ended a connection before a client came.
    RelayLost {
        /// The connection.
        on: ConnId,
        /// The position in the list of upstreams.
        upstream: u16,
        /// What the relay did.
        why: RelayLoss,
        /// The delay until the next attempt. Zero: it is made at once, or one is under way.
        again: Span,
    },
    /// Agent: too many clients of this relay left before the local service had answered, so the next connection to
    /// the relay is delayed.
    Slowed {
        /// The position in the list of upstreams.
        upstream: u16,
        /// The delay.
        pause: Span,
    },
    /// Agent: a client was refused with 503.
    ClientRefused {
        /// The connection from the relay.
        on: ConnId,
        /// The client's address, if the relay reports it.
        from: Option<SocketAddr>,
        /// The ID of the hidden server.
        id: Id,
        /// The reason: fixed text.
        why: &'static str,
    },
    /// Agent, connector: an address that the peer offered for a direct connection is dialled.
    DirectDial {
        /// The new connection.
        on: ConnId,
        /// The ID of the hidden server.
        id: Id,
        /// The address.
        to: SocketAddr,
    },
    /// Agent, connector: a client was connected to the local service.
    Served {
        /// The connection from the relay, or the direct one.
        relay: ConnId,
        /// The connection to the local service, or from the local program.
        local: ConnId,
        /// The upstream's position in the list.
        upstream: u16,
        /// Whether the client asked for the stream service, not for HTTP.
        stream: bool,
    },
    /// Agent, connector: a stream moved to the direct connection `on`. Its relayed connection is closed.
    Direct {
        /// The direct connection.
        on: ConnId,
        /// The connection to the local service, or from the local program.
        local: ConnId,
        /// The position of the upstream that it was negotiated through.
        upstream: u16,
        /// The peer's address.
        with: Option<SocketAddr>,
    },
    /// Agent, connector: a stream stays on the relay, although a direct connection was wanted.
    Relayed {
        /// The connection from the relay.
        relay: ConnId,
        /// The connection to the local service, or from the local program.
        local: ConnId,
        /// The upstream's position in the list.
        upstream: u16,
        /// The reason.
        why: NotDirect,
    },
    /// Connector: a stream could not be established.
    ConnectFailed {
        /// The local connection.
        local: ConnId,
        /// The reason.
        why: ConnectFailure,
    },
    /// A component's connection to its XMPP server.
    #[cfg(feature = "xmpp")]
    Component(ComponentEvent),
    /// A DTCP entity over XMPP.
    #[cfg(feature = "xmpp")]
    Dtcp(DtcpEvent),
    /// An end of streams through the stream proxy.
    #[cfg(feature = "xmpp")]
    Stream(StreamEvent),
    /// The stream proxy.
    #[cfg(feature = "xmpp")]
    StreamProxy(ProxyEvent),
}

/// Why a waiting connection ended without a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitingEnd {
    /// The peer ended it.
    Ended(End),
    /// The peer sent bytes: a protocol error.
    UnexpectedBytes,
    /// A newer connection replaced it, or the pool was full.
    Replaced,
    /// The ID was removed, or its secret changed.
    Revoked,
    /// The relay shuts down.
    Drained,
    /// The operator disabled the ID, denied the address, or ended the connection.
    Operator,
}

/// What was dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The relay: the position in the list of upstreams.
    Relay(u16),
    /// The local HTTP service of that upstream.
    Service(u16),
    /// The local stream service of that upstream.
    Stream(u16),
}

/// What a relay did to an agent's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayLoss {
    /// It refused with this status code.
    Refused(u16),
    /// It refused the token and gave a challenge; the next attempt, with a token over it, begins at once.
    Challenged,
    /// The response is not HTTP.
    NotHttp,
    /// The relay ended the connection before its response, or while it waited.
    Ended(End),
    /// The relay ended a waiting connection cleanly, shortly after another one: it releases its connections, as it does
    /// when another process takes over. The first one is reported as [`RelayLoss::Ended`].
    Released,
    /// No response before the timeout.
    TimedOut,
    /// TLS failed, or the relay's certificate is not trusted.
    Tls(TlsFailure),
    /// The relay could not be reached.
    Unreachable(DialFailure),
    /// The HTTP proxy on the way to the relay opened no tunnel.
    Proxy(ProxyError),
}

/// Why a connector's stream could not be established.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectFailure {
    /// The relay or the hidden server answered with this status code.
    Refused(u16),
    /// The relay answered that the hidden server was there a short time ago and is not there now.
    Offline,
    /// The response is not HTTP.
    NotHttp,
    /// The relay ended the connection before a response.
    Ended(End),
    /// No response before the timeout.
    TimedOut,
    /// TLS failed, or the relay's certificate is not trusted.
    Tls(TlsFailure),
    /// The relay could not be reached.
    Unreachable(DialFailure),
    /// The HTTP proxy on the way to the relay opened no tunnel.
    Proxy(ProxyError),
    /// The agent's offer of a direct connection cannot be parsed.
    InvalidOffer,
    /// There is no direct connection, and one is required.
    NotDirect(NotDirect),
    /// End to end: the relay or the agent answered with this status code, without end-to-end TLS.
    NotSealed(u16),
    /// End to end: TLS with the agent failed. [`TlsFailure::Certificate`]: its key is not the pinned one.
    EndToEnd(TlsFailure),
    /// End to end: the connection ended between the handshake with the agent and its answer. In TLS 1.3 a client completes
    /// the handshake before the server checks the client's certificate: the agent may not allow our key.
    NotAllowed(End),
}

/// Why there is no direct connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotDirect {
    /// The other side does not support it, or its offer cannot be parsed.
    Unsupported,
    /// Neither side has an address that the other may dial.
    NoAddress,
    /// Too many direct connections are being negotiated.
    Busy,
    /// The negotiation timed out.
    TimedOut,
    /// The other side declined.
    Declined,
    /// Our dial failed.
    Failed(ConnectError),
}

/// Why a direct connection that we dialled failed. If several dials failed, the error that is most useful to the
/// user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectError {
    /// Connecting failed.
    Dial(DialFailure),
    /// The connection ended, or the peer did not send the expected key.
    Handshake,
    /// The limit of dials per minute is reached, for this peer or for all.
    Budget,
    /// TLS failed. [`TlsFailure::Certificate`]: the certificate is not the announced one.
    Tls(TlsFailure),
    /// One side requires TLS, and the other side has it off.
    NoTls,
}

/// Why a session of DTCP failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionFailure {
    /// Neither side reached the other.
    Unreachable,
    /// The peer refused.
    Refused,
    /// The session timed out.
    Deadline,
    /// There are too many sessions, or no more are needed.
    Busy,
}
