//! What is worth a log line or a counter, as values: the shell writes them down, tests compare them.
//!
//! A note holds no secret, no token and no byte that a peer sent.

use core::net::SocketAddr;

use crate::conn::{ConnId, DialFailure, End, TlsFailure};
use crate::http::reply::Status;
use crate::id::Id;
use crate::pair::EndReason;
use crate::time::Span;

/// Something happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Relay: a hidden server authenticated and waits.
    Waiting {
        /// Its connection.
        on: ConnId,
        /// Where it comes from.
        from: Option<SocketAddr>,
        /// Whose it is.
        id: Id,
        /// How many wait for this ID now, this one included.
        waiting: u32,
    },
    /// Relay: a connection no longer waits, though it met no client.
    WaitingEnded {
        /// The connection.
        on: ConnId,
        /// Whose it was.
        id: Id,
        /// Why.
        why: WaitingEnd,
        /// How long it had waited.
        after: Span,
    },
    /// Relay: a request was refused with an answer.
    Refused {
        /// The connection.
        on: ConnId,
        /// Where it comes from.
        from: Option<SocketAddr>,
        /// The ID, where one that is enrolled was named.
        id: Option<Id>,
        /// The answer.
        status: Status,
        /// The answer's diagnostic: fixed text.
        why: &'static str,
    },
    /// Relay: a client was asked whom it wants.
    Challenged {
        /// The connection.
        on: ConnId,
        /// Where it comes from.
        from: Option<SocketAddr>,
    },
    /// Relay: a client waits for the hidden server's next connection.
    Held {
        /// The connection.
        on: ConnId,
        /// Whom it wants.
        id: Id,
    },
    /// Relay: a rendezvous.
    Paired {
        /// The hidden server's connection.
        hidden: ConnId,
        /// The client's connection.
        client: ConnId,
        /// Where the client comes from.
        from: Option<SocketAddr>,
        /// Whose hidden server it is.
        id: Id,
    },
    /// Relay: the waiting connection failed before its first byte; `retried`: another one has the request now.
    HandOverFailed {
        /// The hidden server's connection.
        hidden: ConnId,
        /// The client's connection.
        client: ConnId,
        /// Whose hidden server it is.
        id: Id,
        /// Whether another waiting connection got the request; else the client got 502.
        retried: bool,
    },
    /// A pair ended.
    PairEnded {
        /// The hidden server's side.
        hidden: ConnId,
        /// The client's side.
        client: ConnId,
        /// Whose hidden server it is.
        id: Id,
        /// Bytes that the client's side sent, behind the request's head.
        from_client: u64,
        /// Bytes that the hidden server's side sent.
        from_hidden: u64,
        /// How long it lasted.
        after: Span,
        /// Why it ended.
        why: EndReason,
    },
    /// A connection ended, or was ended at its deadline, before anything came of it.
    Dropped {
        /// The connection.
        on: ConnId,
        /// Where it comes from.
        from: Option<SocketAddr>,
        /// Agent: the position of its relay in the list of upstreams, if it has one.
        upstream: Option<u16>,
        /// Fixed text.
        why: &'static str,
    },
    /// The TLS handshake failed.
    TlsFailed {
        /// The connection.
        on: ConnId,
        /// The peer.
        from: Option<SocketAddr>,
        /// Agent: the position of its relay in the list of upstreams.
        upstream: Option<u16>,
        /// Why.
        why: TlsFailure,
    },
    /// Agent, connector: the relay, or the local service, can't be reached.
    DialFailed {
        /// The connection that was to be.
        on: ConnId,
        /// What was dialled.
        what: Target,
        /// Why not.
        why: DialFailure,
        /// When it is tried again; `None`: it is not.
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
        /// How many wait there now.
        waiting: u32,
    },
    /// Agent: the relay refused or ended a connection before a client came.
    RelayLost {
        /// The connection.
        on: ConnId,
        /// The position in the list of upstreams.
        upstream: u16,
        /// What it did.
        why: RelayLoss,
        /// When the next one is tried; zero: at once, or one is under way.
        again: Span,
    },
    /// Agent: too many clients that this relay brought were gone before the local service had answered them: the next
    /// connection to it waits.
    Slowed {
        /// The position in the list of upstreams.
        upstream: u16,
        /// For how long.
        pause: Span,
    },
    /// Agent: a client was refused with 503.
    ClientRefused {
        /// The connection from the relay.
        on: ConnId,
        /// The client's address, where the relay says it.
        from: Option<SocketAddr>,
        /// Whose client it was to be.
        id: Id,
        /// Fixed text.
        why: &'static str,
    },
    /// Agent, connector: an address is dialled that the peer named for a direct connection.
    DirectDial {
        /// The connection that is to be.
        on: ConnId,
        /// The hidden server that the direct connection is to or of.
        id: Id,
        /// The address.
        to: SocketAddr,
    },
    /// Agent, connector: a client met the local service. `stream`: it asked for the stream service.
    Served {
        /// The connection from the relay, or the direct one.
        relay: ConnId,
        /// The connection to the local service, or of the local program.
        local: ConnId,
        /// Through which upstream.
        upstream: u16,
        /// HTTP or stream service.
        stream: bool,
    },
    /// Agent, connector: a stream goes directly, on `on`; its relayed connection is ended.
    Direct {
        /// The direct connection.
        on: ConnId,
        /// The connection to the local service, or of the local program.
        local: ConnId,
        /// The upstream that it was agreed on through.
        upstream: u16,
        /// The peer's address.
        with: Option<SocketAddr>,
    },
    /// Agent, connector: a stream stays on the relay, though a direct connection was wanted.
    Relayed {
        /// The connection from the relay.
        relay: ConnId,
        /// The connection to the local service, or of the local program.
        local: ConnId,
        /// Through which upstream.
        upstream: u16,
        /// Why.
        why: NotDirect,
    },
    /// Connector: it could not be; `status` is the relay's or the agent's answer, where there was one.
    ConnectFailed {
        /// The local connection.
        local: ConnId,
        /// What went wrong.
        why: ConnectFailure,
    },
}

/// Why a waiting connection met no client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitingEnd {
    /// The peer ended it.
    Ended(End),
    /// It sent something: a protocol error.
    Talked,
    /// A newer one replaced it, or pushed it out of the pool.
    Replaced,
    /// The ID was removed, or its secret changed.
    Revoked,
    /// The relay shuts down.
    Drained,
}

/// What was to be reached.
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
    /// It answered with something that is not HTTP.
    Garbled,
    /// It ended the connection before its answer, or while it waited.
    Ended(End),
    /// It did not answer in time.
    Silent,
    /// Its certificate is not the one we trust, or TLS failed.
    Tls(TlsFailure),
    /// It could not be reached.
    Unreachable(DialFailure),
}

/// Why a connector's connection could not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectFailure {
    /// The relay or the hidden server answered with this status code.
    Refused(u16),
    /// The relay answered that the hidden server was there a short time ago and is not there now.
    Offline,
    /// The answer is not HTTP.
    Garbled,
    /// The relay ended the connection before an answer.
    Ended(End),
    /// No answer in time.
    Silent,
    /// Its certificate is not the one we trust, or TLS failed.
    Tls(TlsFailure),
    /// The relay could not be reached.
    Unreachable(DialFailure),
    /// What the agent said about a direct connection makes no sense.
    Misspoken,
    /// No direct connection came about, and nothing else would do.
    NotDirect(NotDirect),
    /// End to end: the relay or the agent answered with this status code, and without TLS between the ends.
    NotSealed(u16),
    /// End to end: TLS with the agent failed. [`TlsFailure::Certificate`]: its key is not the pinned one.
    EndToEnd(TlsFailure),
    /// End to end: the connection ended between the handshake with the agent and its answer. In TLS 1.3 a client completes
    /// the handshake before the server judges the client's certificate: the agent may not allow our key.
    NotAllowed(End),
}

/// Why there is no direct connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotDirect {
    /// The other side does not take part, or what it offers cannot be read.
    Unsupported,
    /// Neither side has an address that the other may dial.
    Nowhere,
    /// Too many direct connections are being agreed on.
    Busy,
    /// It took too long.
    Late,
    /// The other side says so.
    Declined,
    /// A dial of ours met this.
    Met(ConnectError),
}

/// What was in the way of a direct connection that we dialled. Of several, the one that somebody should know of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectError {
    /// It could not be connected to.
    Dial(DialFailure),
    /// It ended, or said something else than the right peer would.
    Handshake,
    /// Too many addresses were dialled for the other party, or for all, in the last minute.
    Budget,
    /// TLS failed; [`TlsFailure::Certificate`]: that is not the certificate which was announced.
    Tls(TlsFailure),
    /// One side requires TLS, and the other one has it off.
    NoTls,
}
