//! What a negotiator asks of its driver.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;

use super::{LinkId, SessionId};
use crate::machine::Close;
use crate::offer::{Key, Offer, Refusal};
use crate::opaque::Opaque;
use crate::time::Time;

/// What the other party is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signal {
    /// We ask for a session.
    Request(Offer),
    /// We answer a request.
    Answer(Offer),
    /// We refuse a request.
    Refuse(Refusal),
    /// We dial no more. Names the session by the other party's key.
    GiveUp(Key),
}

/// Why a session came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Neither side reached the other.
    Unreachable,
    /// The other party refused.
    Refused,
    /// The session took too long.
    Deadline,
    /// We have too many sessions already, or all that we want.
    Busy,
}

/// Which side of TLS a connection takes: who dialled is the client (docs/dtcp.md §6.26).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsRole {
    /// With our certificate. The client's, if it shows one, is reported with [`Negotiation::handle_tls_up`](super::Negotiation::handle_tls_up).
    Server,
    /// The server may have any certificate: it is reported, and judged here.
    Client,
}

/// What a negotiator asks of its driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Tell the other party.
    Signal {
        /// The session.
        session: SessionId,
        /// What.
        signal: Signal,
    },
    /// Look up a name; what comes of it is `handle_resolved` or `handle_dial_failed`.
    Resolve {
        /// The connection that it is for; from now on the driver knows it.
        link: LinkId,
        /// The host name, not an address.
        host: String,
        /// The port, to be carried into the addresses.
        port: u16,
    },
    /// Connect; what comes of it is `handle_connected` or `handle_dial_failed`.
    Dial {
        /// The connection that it is for; from now on the driver knows it.
        link: LinkId,
        /// Where to.
        to: SocketAddr,
    },
    /// An address of the other party's is not dialled: the budget is used up.
    Withheld {
        /// The session.
        session: SessionId,
    },
    /// Send.
    Write {
        /// The connection.
        link: LinkId,
        /// What, at least one byte.
        bytes: Opaque<Vec<u8>>,
    },
    /// Begin TLS, with every byte received and not consumed; then `handle_tls_up` or `handle_tls_failed`.
    StartTls {
        /// The connection.
        link: LinkId,
        /// Our side of it.
        role: TlsRole,
    },
    /// Whether received bytes are to be offered; when wanted again, what was kept is offered again.
    Read {
        /// The connection.
        link: LinkId,
        /// Wanted or not.
        wanted: bool,
    },
    /// Close; nothing more is said of it. After `Linger` the driver's own patience counts.
    Close {
        /// The connection.
        link: LinkId,
        /// In which way.
        how: Close,
    },
    /// The session has its connection; both are the driver's from now on.
    Established {
        /// The session.
        session: SessionId,
        /// The connection.
        link: LinkId,
        /// Whether it is in TLS.
        tls: bool,
    },
    /// The session is over, without a connection.
    Failed {
        /// The session.
        session: SessionId,
        /// Why.
        why: Failure,
    },
    /// Nothing more to do until something happens, or until the deadline.
    Idle {
        /// When [`Negotiation::handle_timeout`](super::Negotiation::handle_timeout) is to be called at the latest; `None`: no deadline runs.
        until: Option<Time>,
    },
}
