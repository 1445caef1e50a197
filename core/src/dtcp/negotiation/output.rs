//! The outputs of a negotiation.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;

use super::{LinkId, SessionId};
use crate::machine::Close;
use crate::offer::{Key, Offer, Refusal};
use crate::opaque::Opaque;
use crate::time::Time;

/// A signal to the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Our request for a session.
    Request(Offer),
    /// Our answer to a request.
    Answer(Offer),
    /// Our refusal of a request.
    Refuse(Refusal),
    /// We have stopped dialling. Identifies the session by the peer's key.
    GiveUp(Key),
}

/// The side of TLS that a connection takes: the dialling endpoint is the client (docs/dtcp.md §6.26).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsRole {
    /// The server, with our certificate. The client's, if it sends one, is passed to
    /// [`Negotiation::handle_tls_up`](super::Negotiation::handle_tls_up).
    Server,
    /// The client. Any server certificate is accepted by the driver, and checked here.
    Client,
}

/// An output of a negotiation for its driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a signal to the peer.
    Signal {
        /// The session.
        session: SessionId,
        /// The signal.
        signal: Signal,
    },
    /// Resolve a name. The result is `handle_resolved` or `handle_dial_failed`.
    Resolve {
        /// The new connection that it is for.
        link: LinkId,
        /// The host name, not an address.
        host: String,
        /// The port of the resulting addresses.
        port: u16,
    },
    /// Connect. The result is `handle_connected` or `handle_dial_failed`.
    Dial {
        /// The connection that it is for; new, or one that was resolved.
        link: LinkId,
        /// The address.
        to: SocketAddr,
    },
    /// An address of the peer is not dialled because the budget is used up.
    Withheld {
        /// The session.
        session: SessionId,
    },
    /// Send bytes.
    Write {
        /// The connection.
        link: LinkId,
        /// The bytes, at least one.
        bytes: Opaque<Vec<u8>>,
    },
    /// Begin TLS with all bytes received and not consumed. The result is `handle_tls_up` or `handle_tls_failed`.
    StartTls {
        /// The connection.
        link: LinkId,
        /// Our side of TLS.
        role: TlsRole,
    },
    /// Stop or resume offering received bytes. When resumed, the kept bytes are offered again.
    Read {
        /// The connection.
        link: LinkId,
        /// Whether to read.
        wanted: bool,
    },
    /// Close; there are no further outputs for the connection. For `Linger`, the driver's own timeout applies.
    Close {
        /// The connection.
        link: LinkId,
        /// How.
        how: Close,
    },
    /// The session has its connection; both belong to the driver from now on.
    Established {
        /// The session.
        session: SessionId,
        /// The connection.
        link: LinkId,
        /// Whether it uses TLS.
        tls: bool,
    },
    /// The session has ended without a connection.
    Failed {
        /// The session.
        session: SessionId,
        /// The reason.
        why: crate::event::SessionFailure,
    },
    /// Nothing more to do until the next event or the deadline.
    Idle {
        /// The next deadline: call [`Negotiation::handle_timeout`](super::Negotiation::handle_timeout) by then.
        /// `None`: there is none.
        until: Option<Time>,
    },
}
