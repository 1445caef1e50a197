//! The interface of all state machines: [`Machine`] has the events, [`Output`] the actions.
//!
//! One driver can run any machine: [`Engine`](crate::engine::Engine), [`Agent`](crate::agent::Agent),
//! [`Connector`](crate::connector::Connector) and others. Machines can also run against each other in memory.
//!
//! The contract between a machine and its driver is in the documentation of the [crate].

use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;

use crate::account::Owners;
pub use crate::conn::{Close, ConnId, DialFailure, End, Listener, NamedBy, Secured, TlsFailure, TlsRole};
use crate::event::Event;
use crate::time::{Now, Span, Time};

/// The default limit of how long bytes to a waiting connection may stay unacknowledged.
///
/// With this limit Linux closes an idle connection at the first unanswered keepalive probe after it, whatever the number
/// of probes. So it is half an interval less than keepalive takes with all probes (25 s + 3 × 5 s): if it were shorter,
/// one lost packet would end a waiting connection.
pub const USER_TIMEOUT: Span = Span::from_millis(25_000 + 3 * 5_000 - 2_500);

/// [`Output::Pass`] with this number removes the gate: bytes of that half are no longer offered.
pub const PASS_ALL: u64 = u64::MAX;

/// An action that a machine asks its driver for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send bytes: the last `len` that `poll_output` appended to the caller's `text`.
    Send {
        /// The connection.
        to: ConnId,
        /// How many bytes, at least one.
        len: u32,
    },
    /// Stop or resume offering received bytes. While `wanted` is false, the driver neither receives nor offers. When it
    /// becomes true, the kept bytes are offered again. In clear, an end without unread bytes in front of it is reported
    /// even while reading is stopped. A new connection is read.
    Read {
        /// The connection.
        on: ConnId,
        /// Whether to read.
        wanted: bool,
    },
    /// Move all bytes of either connection to the other one, and report lengths ([`Machine::handle_moved`]). The pair lasts
    /// until one of the two is closed. Then the bytes of the other one are offered again.
    Pair {
        /// The hidden server's side.
        hidden: ConnId,
        /// The client's side.
        client: ConnId,
    },
    /// Offer the bytes of `on`, one half of a pair, with [`Machine::handle_bytes`] before they move. Follows
    /// [`Output::Pair`] at once, before any byte of that pair has moved. Lasts until the end of the pair, or until
    /// [`PASS_ALL`].
    Gate {
        /// The half whose bytes are offered.
        on: ConnId,
    },
    /// Move the next bytes of `from`, a gated half of a pair, without offering them. Adds to earlier ones.
    Pass {
        /// The half whose bytes move.
        from: ConnId,
        /// How many bytes, at least one; [`PASS_ALL`] removes the gate.
        bytes: u64,
    },
    /// Begin a TLS handshake. The result is `handle_secured` or `handle_tls_failed`. Bytes that were received and not
    /// consumed belong to the handshake.
    StartTls {
        /// The connection.
        on: ConnId,
        /// Our side of the handshake.
        role: TlsRole,
    },
    /// Resolve a host name. The result is `handle_resolved` or `handle_dial_failed`. `handle_found` may come any number of
    /// times before `handle_resolved`.
    Resolve {
        /// The new connection that it is for.
        on: ConnId,
        /// The host name, not an address.
        host: String,
        /// The port of the resulting addresses.
        port: u16,
    },
    /// Connect. The result is `handle_connected` or `handle_dial_failed`.
    Dial {
        /// The connection that it is for; new, or one that was resolved.
        on: ConnId,
        /// The address.
        to: SocketAddr,
    },
    /// Limit how long bytes may stay unacknowledged before the kernel closes the connection (TCP_USER_TIMEOUT).
    UserTimeout {
        /// The connection.
        on: ConnId,
        /// The limit; `None`: the system's default.
        after: Option<Span>,
    },
    /// Report when the peer last acknowledged anything, with `handle_acked` at once.
    CheckAck {
        /// The connection.
        on: ConnId,
    },
    /// Report the local address of an established connection, with `handle_local_address` at once.
    LocalAddress {
        /// The connection.
        on: ConnId,
    },
    /// Shut down the writing side after the last queued byte: close_notify on TLS, then FIN.
    CloseWrite {
        /// The connection.
        on: ConnId,
    },
    /// Close, and call `handle_closed` when that is done. Ends the connection's pair.
    Close {
        /// The connection.
        on: ConnId,
        /// How.
        how: Close,
    },
    /// An event to log or to count.
    Event(Event),
    /// Nothing more to do until the next event or the deadline.
    Idle {
        /// The next deadline: call [`Machine::handle_timeout`] by then. `None`: there is none.
        until: Option<Time>,
        /// Names the deadline, for debugging.
        why: &'static str,
    },
}

impl Output {
    /// The same action on connections whose ids are translated by `id`. A machine that contains another one emits the
    /// actions of that one so.
    #[must_use]
    pub fn map_ids(self, id: impl Fn(ConnId) -> ConnId) -> Self {
        match self {
            Self::Send { to, len } => Self::Send { to: id(to), len },
            Self::Read { on, wanted } => Self::Read { on: id(on), wanted },
            Self::Pair { hidden, client } => Self::Pair { hidden: id(hidden), client: id(client) },
            Self::Gate { on } => Self::Gate { on: id(on) },
            Self::Pass { from, bytes } => Self::Pass { from: id(from), bytes },
            Self::StartTls { on, role } => Self::StartTls { on: id(on), role },
            Self::Resolve { on, host, port } => Self::Resolve { on: id(on), host, port },
            Self::Dial { on, to } => Self::Dial { on: id(on), to },
            Self::UserTimeout { on, after } => Self::UserTimeout { on: id(on), after },
            Self::CheckAck { on } => Self::CheckAck { on: id(on) },
            Self::LocalAddress { on } => Self::LocalAddress { on: id(on) },
            Self::CloseWrite { on } => Self::CloseWrite { on: id(on) },
            Self::Close { on, how } => Self::Close { on: id(on), how },
            Self::Event(_) | Self::Idle { .. } => self,
        }
    }
}

/// A protocol state machine that does no I/O. See the [crate] for the contract.
///
/// It is `'static`, so that one event loop can run any machine.
pub trait Machine: 'static {
    /// A connection was accepted on listener `on`; `from` is its peer. Returns its id. Legal at any time.
    fn handle_open(&mut self, on: Listener, from: SocketAddr, now: Now) -> ConnId;

    /// First results of an [`Output::Resolve`], at least one address: those of an earlier look-up, or of one family. The
    /// look-up continues, and `handle_resolved` follows with all addresses. A machine may ignore this.
    fn handle_found(&mut self, on: ConnId, addresses: &[SocketAddr], now: Now) {
        let _ = (on, addresses, now);
    }

    /// The result of an [`Output::Resolve`]: all addresses, at least one, in the resolver's order of preference. The
    /// connection may have been dialled by then ([`Machine::handle_found`]).
    fn handle_resolved(&mut self, on: ConnId, addresses: &[SocketAddr], now: Now);

    /// The connection of an [`Output::Dial`] is established.
    fn handle_connected(&mut self, on: ConnId, now: Now);

    /// An [`Output::Resolve`] or [`Output::Dial`] has failed.
    fn handle_dial_failed(&mut self, on: ConnId, why: DialFailure, now: Now);

    /// The handshake that [`Output::StartTls`] began is complete.
    fn handle_secured(&mut self, on: ConnId, tls: Secured, now: Now);

    /// The handshake that [`Output::StartTls`] began failed.
    fn handle_tls_failed(&mut self, on: ConnId, why: TlsFailure, now: Now);

    /// Offers received bytes, from the first that was not consumed yet. Returns how many are consumed from the front. The
    /// rest is offered again when more bytes have arrived or reading is resumed. Legal outside of a pair, and in a pair
    /// for a half with a [gate](Output::Gate).
    #[must_use]
    fn handle_bytes(&mut self, on: ConnId, bytes: &[u8], now: Now) -> usize;

    /// The stream of a gated half has ended, and bytes in front of the end are kept: they were offered, and neither
    /// consumed nor let pass. No more bytes follow. The end itself (`handle_end`) is reported once they are gone. A
    /// machine without gates ignores this.
    fn handle_last_bytes(&mut self, on: ConnId, now: Now) {
        let _ = (on, now);
    }

    /// Bytes of a pair moved: `read` bytes were received from `from`, and `queued` bytes wait to be sent to the other
    /// half. Also legal on a connection that is closing, for bytes that were received and discarded.
    fn handle_moved(&mut self, from: ConnId, read: u32, queued: u32, now: Now);

    /// The send queue of this connection is empty: all bytes are in the socket. Follows every `Send`; in a pair, called
    /// whenever the queue becomes empty.
    fn handle_flushed(&mut self, on: ConnId, now: Now);

    /// The answer to [`Output::CheckAck`]: the age of the peer's last acknowledgement, if bytes or zero-window probes are
    /// unacknowledged. `None`: nothing is unacknowledged, or the system cannot tell.
    fn handle_acked(&mut self, on: ConnId, age: Option<Span>, now: Now);

    /// How long a round trip to the peer takes, as the system has measured it. Comes before `handle_acked` where it is
    /// known. A machine that has no use for it ignores it.
    fn handle_round_trip(&mut self, on: ConnId, round_trip: Span, now: Now) {
        let _ = (on, round_trip, now);
    }

    /// The answer to [`Output::LocalAddress`]. If the socket has none any more, the driver calls `handle_end` instead. A
    /// machine that never asks need not implement it.
    fn handle_local_address(&mut self, on: ConnId, local: SocketAddr, now: Now) {
        let _ = (on, local, now);
        debug_assert!(false, "nobody asked for an address");
    }

    /// The reading side ended, and all bytes in front of the end were offered or moved. While reading is stopped, an end
    /// behind kept bytes waits with them. Called once for a connection.
    fn handle_end(&mut self, on: ConnId, how: End, now: Now);

    /// Sending failed: the send queue of this connection is lost. Bytes may still be received. Called once for a
    /// connection.
    fn handle_write_failed(&mut self, on: ConnId, now: Now);

    /// Other connections wait for the memory of this one, and it makes no progress: its peer does not read what is queued,
    /// or has not sent the rest of a head, a record or a handshake. The machine closes it, so that its memory is free at
    /// once. Legal while the connection is closing, too.
    fn handle_stalled(&mut self, on: ConnId, now: Now);

    /// Returns the accounts that the memory of a connection is charged to. The driver asks when the connection begins, at
    /// [`Output::StartTls`] and at [`Output::Pair`]. Both halves of a pair are charged to the accounts of the client's.
    #[must_use]
    fn owners(&self, on: ConnId) -> Owners;

    /// The memory of a connection that the machine itself keeps, in bytes: of a request that may have to be sent
    /// again. The driver asks after each turn of the connection, and charges it like its own buffers.
    #[must_use]
    fn kept(&self, _: ConnId) -> usize {
        0
    }

    /// The connection is closed, and its id is free. Called once for every id, after [`Output::Close`].
    fn handle_closed(&mut self, on: ConnId, now: Now);

    /// A deadline may have passed. Early, late and spurious calls are harmless.
    fn handle_timeout(&mut self, now: Now);

    /// Returns the next action. The bytes of an [`Output::Send`] are appended to `text`.
    #[must_use]
    fn poll_output(&mut self, text: &mut Vec<u8>) -> Output;
}
