//! Everything that the event loop asks of the world: sockets, readiness, clocks, names. [`mio::MioNet`] is the real
//! one; a simulator is another.

use std::io;
use std::net::SocketAddr;

use rendezvous_core::machine::ConnId;
use rendezvous_core::time::{Now, Span};

pub(crate) mod look_up;
pub mod mio;
pub(crate) mod names;
mod paths;
mod pipe;
mod resolver;
pub mod stdio;

/// What became ready. An edge only says that it is worth trying: what a socket really does, its calls say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// A connection may be read from, or written to, or both.
    Conn {
        /// The token that it is watched with. Its generation is cut to [`GENERATION_MASK`].
        token: ConnId,
        /// Readable, or ended, or in error.
        read: bool,
        /// Writable, or unwritable for ever, or in error.
        write: bool,
    },
    /// A listener has connections to accept; its position in the order in which they were opened.
    Listener(u16),
}

/// An answer to a look-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The connection that it is for.
    pub on: ConnId,
    /// The addresses that are known. None in the last answer if the name has none.
    pub addresses: Vec<SocketAddr>,
    /// Whether this is the last answer: it has all addresses.
    pub is_complete: bool,
}

/// The bits of a generation that fit into an event's token: 32, or 12 beside 20 bits of index on 32-bit machines.
pub const GENERATION_MASK: u32 = if cfg!(target_pointer_width = "64") { u32::MAX } else { 0xfff };

/// What is in a pipe.
pub trait Pipe {
    /// How many octets.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Whether splicing failed because it can't be done there, or is not allowed: it says nothing about the connection.
#[must_use]
pub fn is_unspliceable(error: &io::Error) -> bool {
    // EINVAL; EPERM; ENOSYS and EOPNOTSUPP.
    matches!(
        error.kind(),
        io::ErrorKind::InvalidInput | io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported
    )
}

/// A world to run in. All calls are non-blocking, but for [`Net::wait`]: what cannot be done now is
/// [`io::ErrorKind::WouldBlock`].
pub trait Net {
    /// One connection.
    type Sock;
    /// A place in the system for octets on their way between two connections, which the program itself never sees.
    type Pipe: Pipe;

    /// A connection on which so many octets come at once moves much: splicing pays then, and whoever moves less goes
    /// first.
    const BULK_MIN: usize;

    /// Both clocks, read once a turn.
    fn now(&mut self) -> Now;

    /// Waits until something is ready, for `at_most` this long (`None`: for ever), and appends what is. May return
    /// early, with nothing.
    ///
    /// # Errors
    /// Those of the polling call; an interruption by a signal is no error.
    fn wait(&mut self, edges: &mut Vec<Edge>, at_most: Option<Span>) -> io::Result<()>;

    /// Accepts one connection from the listener at this position.
    ///
    /// # Errors
    /// `WouldBlock` when none is there; `ConnectionAborted` for one that is gone already; anything else leaves the
    /// listener silent until it is [rearmed](Net::rearm).
    fn accept(&mut self, on: u16) -> io::Result<(Self::Sock, SocketAddr)>;

    /// Makes a listener tell again about connections that it has told of before.
    ///
    /// # Errors
    /// Those of the registration call.
    fn rearm(&mut self, on: u16) -> io::Result<()>;

    /// Accepts nothing any more: closes all listeners.
    fn stop_listening(&mut self);

    /// Begins to connect.
    ///
    /// # Errors
    /// Those that show at once; the others show in [`Net::connected`].
    fn connect(&mut self, to: SocketAddr) -> io::Result<Self::Sock>;

    /// Whether a connection that was begun is up.
    ///
    /// # Errors
    /// Why it can't be.
    fn connected(&mut self, sock: &mut Self::Sock) -> io::Result<bool>;

    /// Our own address of a connection that is up.
    ///
    /// # Errors
    /// It has none.
    fn local_address(&mut self, sock: &mut Self::Sock) -> io::Result<SocketAddr>;

    /// Watches a connection for both directions, edge-triggered, once and for good.
    ///
    /// # Errors
    /// Those of the registration call.
    fn watch(&mut self, sock: &mut Self::Sock, token: ConnId) -> io::Result<()>;

    /// Receives what is there, at most `into.len()` octets; 0 is the end.
    ///
    /// # Errors
    /// `WouldBlock`, or why nothing will come any more.
    fn recv(&mut self, sock: &mut Self::Sock, into: &mut [u8]) -> io::Result<usize>;

    /// Whether nothing will come any more and nothing is unread: looks, and leaves everything where it is. False where
    /// octets are there, and where nobody can look without receiving.
    ///
    /// # Errors
    /// As [`Net::recv`].
    fn peek_end(&mut self, sock: &mut Self::Sock) -> io::Result<bool>;

    /// Sends as much as there is room for.
    ///
    /// # Errors
    /// `WouldBlock`, or why nothing can be sent any more.
    fn send(&mut self, sock: &mut Self::Sock, from: &[u8]) -> io::Result<usize>;

    /// An empty pipe for octets of `from` on their way to `to`; `None` where these can't be spliced, or none is left.
    fn take_pipe(&mut self, from: &Self::Sock, to: &Self::Sock) -> Option<Self::Pipe>;

    /// Gives a pipe back, with what may still be in it.
    fn give_pipe(&mut self, pipe: Self::Pipe);

    /// Receives what is there into an empty pipe, as much as fits and at most `at_most` bytes; 0 is the end.
    ///
    /// # Errors
    /// `WouldBlock`, or why nothing will come any more; [`is_unspliceable`] where a receiving call has to get it.
    fn splice_in(
        &mut self,
        sock: &mut Self::Sock,
        pipe: &mut Self::Pipe,
        at_most: usize,
    ) -> io::Result<usize>;

    /// Sends what is in a pipe, as much as there is room for.
    ///
    /// # Errors
    /// `WouldBlock`, or why nothing can be sent any more.
    fn splice_out(&mut self, pipe: &mut Self::Pipe, sock: &mut Self::Sock) -> io::Result<usize>;

    /// Ends the writing side: FIN. There is no way to end both sides at once.
    ///
    /// # Errors
    /// The peer is gone.
    fn end_write(&mut self, sock: &mut Self::Sock) -> io::Result<()>;

    /// Closes. What was sent is still delivered, unless octets are unread.
    fn close(&mut self, sock: Self::Sock);

    /// Closes with a reset: what was not delivered is lost.
    fn abort(&mut self, sock: Self::Sock);

    /// Takes a pending error of the socket, one that no receiving call would show.
    fn take_error(&mut self, sock: &mut Self::Sock) -> Option<io::Error>;

    /// How long octets may stay unacknowledged before the system gives up; `None`: its own default.
    fn user_timeout(&mut self, sock: &mut Self::Sock, after: Option<Span>);

    /// How long ago the last acknowledgement came, if the peer owes one; `None` if it owes none, or can't be known.
    fn last_ack(&mut self, sock: &mut Self::Sock) -> Option<Span>;

    /// How long a round trip takes; `None` where that can't be known.
    fn round_trip(&mut self, sock: &mut Self::Sock) -> Option<Span> {
        let _ = sock;
        None
    }

    /// How many octets sent the peer has not acknowledged; 0 where that can't be known.
    fn unacknowledged(&mut self, sock: &mut Self::Sock) -> usize;

    /// Begins to look up a host name; the answers come from [`Net::resolved`] after some later [`Net::wait`].
    fn resolve(&mut self, on: ConnId, host: &str, port: u16);

    /// The next answer to a look-up.
    fn resolved(&mut self) -> Option<Resolved>;
}
