//! The door between a state machine and the world: [`Machine`], what it is told and what it asks for.
//!
//! Relay, agent and connector ([`Engine`](crate::engine::Engine), [`Agent`](crate::agent::Agent),
//! [`Connector`](crate::connector::Connector)) are machines of this one kind, so that one event loop drives any of
//! them, and so that they can be run against each other in memory, without a socket.
//!
//! The contract between a machine and its driver is in the documentation of the [crate].

use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;

use crate::account::Owners;
pub use crate::conn::{Close, ConnId, DialFailure, End, Listener, Secured, TlsFailure, TlsRole};
use crate::note::Note;
use crate::time::{Now, Span, Time};

/// How long octets to a waiting connection may stay unacknowledged, where nothing else was said: with that limit Linux
/// gives an idle connection up at the first keepalive probe after it without an answer, however many probes there may
/// be. So it is half an interval less than keepalive takes with all of them (25 s + 3 × 5 s): shorter, one lost packet
/// would end a waiting connection.
pub const USER_TIMEOUT: Span = Span::from_millis(25_000 + 3 * 5_000 - 2_500);

/// [`Output::Pass`] with this many bytes removes the gate: nothing of that half is offered any more.
pub const PASS_ALL: u64 = u64::MAX;

/// What a machine asks of its shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send octets: the last `len` that `poll_output` appended to the caller's `text`.
    Send {
        /// The connection.
        to: ConnId,
        /// How many octets, at least one.
        len: u32,
    },
    /// Whether received octets are to be offered. While unwanted, nothing is received and nothing offered; when wanted
    /// again, what was kept is offered again. In clear, an end that nothing unread is in front of is told all the same.
    /// A new connection is wanted.
    Read {
        /// The connection.
        on: ConnId,
        /// Wanted or not.
        wanted: bool,
    },
    /// From now on every octet of the one goes to the other, and only lengths come back ([`Machine::handle_moved`]).
    /// It lasts until one of the two is closed; then the other's octets are offered again.
    Pair {
        /// The hidden server's side.
        hidden: ConnId,
        /// The client's side.
        client: ConnId,
    },
    /// Offer the bytes of `on`, one half of a pair, through [`Machine::handle_bytes`] before they move. Follows
    /// [`Output::Pair`] at once, before any byte of that pair has moved. It lasts until the pair does, or until
    /// [`PASS_ALL`].
    Gate {
        /// The half whose bytes are offered.
        on: ConnId,
    },
    /// Let the next bytes of `from`, a gated half of a pair, move to the other half without being offered. Adds to
    /// what was let pass before.
    Pass {
        /// The half whose bytes move.
        from: ConnId,
        /// How many bytes, at least one; [`PASS_ALL`]: all, the gate is gone.
        bytes: u64,
    },
    /// Begin TLS; what comes of it is `handle_secured` or `handle_tls_failed`. What was received and not consumed
    /// belongs to the handshake, as does all that comes.
    StartTls {
        /// The connection.
        on: ConnId,
        /// Our side of the handshake.
        role: TlsRole,
    },
    /// Look up a host name; what comes of it is `handle_resolved` or `handle_dial_failed`, and `handle_found` any number
    /// of times before `handle_resolved`.
    Resolve {
        /// The connection that it is for; from now on the shell knows it.
        on: ConnId,
        /// The host name, not an address.
        host: String,
        /// The port, to be carried into the addresses.
        port: u16,
    },
    /// Connect; what comes of it is `handle_connected` or `handle_dial_failed`.
    Dial {
        /// The connection that it is for; from now on the shell knows it.
        on: ConnId,
        /// Where to.
        to: SocketAddr,
    },
    /// How long octets may stay unacknowledged before the kernel gives the connection up (TCP_USER_TIMEOUT);
    /// `None`: the system's own patience.
    UserTimeout {
        /// The connection.
        on: ConnId,
        /// The limit.
        after: Option<Span>,
    },
    /// Ask how long the peer has owed an acknowledgement; the answer is `handle_acked`, at once.
    CheckAck {
        /// The connection.
        on: ConnId,
    },
    /// Ask for the local address of a connection that is up; the answer is `handle_local_address`, at once.
    LocalAddress {
        /// The connection.
        on: ConnId,
    },
    /// End the writing side after the last octet queued: close_notify on TLS, then FIN.
    CloseWrite {
        /// The connection.
        on: ConnId,
    },
    /// Close; `handle_closed` follows when it is done. Whatever it was paired with is unpaired.
    Close {
        /// The connection.
        on: ConnId,
        /// In which way.
        how: Close,
    },
    /// Something to log or to count.
    Note(Note),
    /// Nothing more to do until something happens, or until the deadline.
    Idle {
        /// When [`Machine::handle_timeout`] is to be called at the latest; `None`: no deadline runs.
        until: Option<Time>,
        /// Which deadline that is, for whoever debugs.
        why: &'static str,
    },
}

/// A protocol state machine without a world. See the [crate] for the contract.
///
/// It borrows nothing, so that one event loop can be for all of them.
pub trait Machine: 'static {
    /// A connection was accepted on listener `on`; `from` is its peer. Legal at any time.
    fn handle_open(&mut self, on: Listener, from: SocketAddr, now: Now) -> ConnId;

    /// Some of what [`Output::Resolve`] asked for, at least one address: those of an earlier look-up, or of one family. The
    /// look-up goes on, and `handle_resolved` follows with all addresses. A machine that can wait for them ignores it.
    fn handle_found(&mut self, on: ConnId, addresses: &[SocketAddr], now: Now) {
        let _ = (on, addresses, now);
    }

    /// What [`Output::Resolve`] asked for: all addresses, in the resolver's order of preference, at least one. The
    /// connection may have been dialled by then ([`Machine::handle_found`]).
    fn handle_resolved(&mut self, on: ConnId, addresses: &[SocketAddr], now: Now);

    /// The connection of an [`Output::Dial`] is up.
    fn handle_connected(&mut self, on: ConnId, now: Now);

    /// What [`Output::Resolve`] or [`Output::Dial`] asked for did not work out.
    fn handle_dial_failed(&mut self, on: ConnId, why: DialFailure, now: Now);

    /// The handshake that [`Output::StartTls`] began is complete.
    fn handle_secured(&mut self, on: ConnId, tls: Secured, now: Now);

    /// The handshake that [`Output::StartTls`] began failed.
    fn handle_tls_failed(&mut self, on: ConnId, why: TlsFailure, now: Now);

    /// Octets were received and are offered, from the first that was not consumed yet. Returns how many were consumed
    /// from the front; the rest is offered again when more has come or reading is wanted anew. Legal until `Pair` and
    /// after its end, and in a pair for a half with a [gate](Output::Gate).
    #[must_use]
    fn handle_bytes(&mut self, on: ConnId, bytes: &[u8], now: Now) -> usize;

    /// The stream of a gated half has ended, and bytes in front of the end are held: they were offered, and were
    /// neither consumed nor let pass. No more bytes come. The end itself (`handle_end`) is told once they are gone. A
    /// machine without gates has no use for it.
    fn handle_last_bytes(&mut self, on: ConnId, now: Now) {
        let _ = (on, now);
    }

    /// Octets of a pair moved: `read` octets were received from `from`, and `queued` octets wait to be sent to the
    /// other side now. Also legal on a connection that is closing: what was received and dropped. Lengths only.
    fn handle_moved(&mut self, from: ConnId, read: u32, queued: u32, now: Now);

    /// Everything that was to be sent on this connection is in the socket. Comes after every `Send`, and in a pair
    /// whenever a queue becomes empty.
    fn handle_flushed(&mut self, on: ConnId, now: Now);

    /// The answer to [`Output::CheckAck`]: how long ago the peer's last acknowledgement came, if it owes one for octets
    /// in flight or for zero-window probes; `None`: it owes none, or the system can't tell.
    fn handle_acked(&mut self, on: ConnId, age: Option<Span>, now: Now);

    /// The answer to [`Output::LocalAddress`]. Where there is none any more, it is `handle_end` instead. A machine that
    /// never asks need not listen.
    fn handle_local_address(&mut self, on: ConnId, local: SocketAddr, now: Now) {
        let _ = (on, local, now);
        debug_assert!(false, "nobody asked for an address");
    }

    /// The reading side ended, after everything received was offered (in a pair: was moved); an end that comes behind
    /// octets kept while reading is unwanted waits with them. Once for a connection.
    fn handle_end(&mut self, on: ConnId, how: End, now: Now);

    /// Sending failed: what is queued for this connection is lost. What was received before can still be read. Once
    /// for a connection.
    fn handle_write_failed(&mut self, on: ConnId, now: Now);

    /// Others need the memory that the shell keeps for this connection, and the connection has made no progress: its
    /// peer takes too little of what is queued for it, or has not sent the rest of a head, a record or a handshake. The
    /// machine closes the connection so that its memory is free at once. Legal while the connection is closing, too.
    fn handle_stalled(&mut self, on: ConnId, now: Now);

    /// The accounts that the memory of a connection is charged to. It changes nothing. The shell asks when the
    /// connection begins, at [`Output::StartTls`] and at [`Output::Pair`]; in a pair both halves are charged to the
    /// accounts of the client's half.
    #[must_use]
    fn owners(&self, on: ConnId) -> Owners;

    /// How many bytes of what a connection sent the machine itself keeps: of a request that it may have to hand over
    /// again. It changes nothing. The shell asks after each turn of the connection and charges them like those that it
    /// keeps.
    #[must_use]
    fn kept(&self, _: ConnId) -> usize {
        0
    }

    /// The connection is gone, its id is free. Once for every id, after [`Output::Close`].
    fn handle_closed(&mut self, on: ConnId, now: Now);

    /// A deadline may have passed. Early, late and spurious calls do no harm.
    fn handle_timeout(&mut self, now: Now);

    /// The next thing to do. `text` is the caller's: octets of a [`Output::Send`] are appended to it.
    #[must_use]
    fn poll_output(&mut self, text: &mut Vec<u8>) -> Output;
}
