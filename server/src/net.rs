//! The operating system interface of the event loop: sockets, readiness, clocks, names. [`mio::MioNet`] implements it;
//! so does a simulator in the tests.

use std::io;
use std::net::SocketAddr;

use rendezvous_core::machine::ConnId;
use rendezvous_core::time::{Now, Span};

#[cfg(windows)]
pub use crate::windows::stdio;

pub(crate) mod look_up;
pub mod mio;
pub(crate) mod names;
mod paths;
#[cfg(target_os = "linux")]
mod pipe;
#[cfg(not(target_os = "linux"))]
#[path = "net/no_pipe.rs"]
mod pipe;
mod resolver;
#[cfg(unix)]
pub mod stdio;

/// A readiness edge. It is only a hint to try a call; the result of the call decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// A connection may be readable, writable or both.
    Conn {
        /// The token that it was registered with. Its generation is truncated to [`GENERATION_MASK`].
        token: ConnId,
        /// Readable, at EOF, or in error.
        read: bool,
        /// Writable, closed for writing, or in error.
        write: bool,
    },
    /// A listener, by its index in order of opening, may have connections to accept.
    Listener(u16),
}

/// A result of a name look-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The connection that it is for.
    pub on: ConnId,
    /// The addresses known so far. If the last result has none, the name does not resolve.
    pub addresses: Vec<SocketAddr>,
    /// Whether this is the last result, with all addresses.
    pub is_complete: bool,
}

/// The bits of a generation that fit into a token: 32, or 12 on 32-bit machines, where the index takes 20 bits.
pub const GENERATION_MASK: u32 = if cfg!(target_pointer_width = "64") { u32::MAX } else { 0xfff };

/// A kernel pipe for spliced bytes.
pub trait Pipe {
    /// Number of bytes in the pipe.
    fn len(&self) -> usize;

    /// Whether the pipe is empty.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Whether splicing failed because it is not supported or not allowed there. The connection itself is fine.
#[must_use]
pub fn is_unspliceable(error: &io::Error) -> bool {
    // EINVAL; EPERM; ENOSYS and EOPNOTSUPP.
    matches!(
        error.kind(),
        io::ErrorKind::InvalidInput | io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported
    )
}

/// The network that an event loop runs on. All calls except [`Net::wait`] are non-blocking: they return
/// [`io::ErrorKind::WouldBlock`] if they cannot be done now.
pub trait Net {
    /// A connected socket.
    type Sock;
    /// A kernel pipe for bytes on their way between two sockets, which the program does not see.
    type Pipe: Pipe;

    /// A receive call that returns this many bytes marks its connection as bulk: splicing pays then, and other
    /// connections are served first.
    const BULK_MIN: usize;

    /// Reads both clocks; called once per turn.
    fn now(&mut self) -> Now;

    /// Waits until something is ready, for at most `at_most` (`None`: no limit), and appends the edges. May return
    /// early, without edges.
    ///
    /// # Errors
    /// Those of the polling call. Interruption by a signal is not an error.
    fn wait(&mut self, edges: &mut Vec<Edge>, at_most: Option<Span>) -> io::Result<()>;

    /// Accepts one connection from the listener with this index.
    ///
    /// # Errors
    /// `WouldBlock` if there is none; `ConnectionAborted` if it was reset. After any other error the listener reports
    /// no edges until it is [rearmed](Net::rearm).
    fn accept(&mut self, on: u16) -> io::Result<(Self::Sock, SocketAddr)>;

    /// Makes a listener report pending connections again.
    ///
    /// # Errors
    /// Those of the registration call.
    fn rearm(&mut self, on: u16) -> io::Result<()>;

    /// Closes all listeners.
    fn stop_listening(&mut self);

    /// Starts to connect.
    ///
    /// # Errors
    /// Immediate errors; later ones are returned by [`Net::connected`].
    fn connect(&mut self, to: SocketAddr) -> io::Result<Self::Sock>;

    /// Whether a connection has been established.
    ///
    /// # Errors
    /// Why connecting failed.
    fn connected(&mut self, sock: &mut Self::Sock) -> io::Result<bool>;

    /// The local address of an established connection.
    ///
    /// # Errors
    /// The socket has none.
    fn local_address(&mut self, sock: &mut Self::Sock) -> io::Result<SocketAddr>;

    /// Registers a socket once for both directions, edge-triggered.
    ///
    /// # Errors
    /// Those of the registration call.
    fn watch(&mut self, sock: &mut Self::Sock, token: ConnId) -> io::Result<()>;

    /// Receives at most `into.len()` bytes. Returns 0 at EOF.
    ///
    /// # Errors
    /// `WouldBlock`, or why the connection failed.
    fn recv(&mut self, sock: &mut Self::Sock, into: &mut [u8]) -> io::Result<usize>;

    /// Whether the socket is at EOF with no unread data, without consuming anything. Returns false if there is unread
    /// data, or if the socket does not allow peeking.
    ///
    /// # Errors
    /// As [`Net::recv`].
    fn peek_end(&mut self, sock: &mut Self::Sock) -> io::Result<bool>;

    /// Sends as much as there is room for.
    ///
    /// # Errors
    /// `WouldBlock`, or why the connection failed.
    fn send(&mut self, sock: &mut Self::Sock, from: &[u8]) -> io::Result<usize>;

    /// Bounds how many bytes the system holds that were not sent yet: a sending call takes no more, and the socket is
    /// writable again when half of them are sent. Does nothing where the system has no such bound.
    fn limit_unsent(&mut self, sock: &mut Self::Sock, bytes: usize) {
        let _ = (sock, bytes);
    }

    /// Takes an empty pipe for bytes from `from` to `to`. Returns `None` if they cannot be spliced or no pipe is left.
    fn take_pipe(&mut self, from: &Self::Sock, to: &Self::Sock) -> Option<Self::Pipe>;

    /// Gives a pipe back and discards its content.
    fn give_pipe(&mut self, pipe: Self::Pipe);

    /// Receives into an empty pipe, as much as fits and at most `at_most` bytes. Returns 0 at EOF.
    ///
    /// # Errors
    /// `WouldBlock`; why the connection failed; or an error for which [`is_unspliceable`] is true, if the data must be
    /// received by [`Net::recv`].
    fn splice_in(
        &mut self,
        sock: &mut Self::Sock,
        pipe: &mut Self::Pipe,
        at_most: usize,
    ) -> io::Result<usize>;

    /// Sends from a pipe, as much as there is room for.
    ///
    /// # Errors
    /// `WouldBlock`, or why the connection failed.
    fn splice_out(&mut self, pipe: &mut Self::Pipe, sock: &mut Self::Sock) -> io::Result<usize>;

    /// Shuts down the writing side: sends FIN. No call shuts down both sides.
    ///
    /// # Errors
    /// The peer is gone.
    fn end_write(&mut self, sock: &mut Self::Sock) -> io::Result<()>;

    /// Closes a socket. Sent data is still delivered, unless there is unread data.
    fn close(&mut self, sock: Self::Sock);

    /// Resets a connection; undelivered data is lost.
    fn abort(&mut self, sock: Self::Sock);

    /// Takes a pending socket error that receive calls would not return.
    fn take_error(&mut self, sock: &mut Self::Sock) -> Option<io::Error>;

    /// Sets how long sent data may stay unacknowledged before the connection fails; `None`: the system's default.
    fn user_timeout(&mut self, sock: &mut Self::Sock, after: Option<Span>);

    /// Time since the last acknowledgement if one is outstanding; `None` if none is, or if unknown.
    fn last_ack(&mut self, sock: &mut Self::Sock) -> Option<Span>;

    /// The round-trip time; `None` if unknown.
    fn round_trip(&mut self, sock: &mut Self::Sock) -> Option<Span> {
        let _ = sock;
        None
    }

    /// Number of unacknowledged bytes; 0 if unknown.
    fn unacknowledged(&mut self, sock: &mut Self::Sock) -> usize;

    /// Starts to resolve a host name. [`Net::resolved`] returns the results after later calls of [`Net::wait`].
    fn resolve(&mut self, on: ConnId, host: &str, port: u16);

    /// The next result of a name look-up.
    fn resolved(&mut self) -> Option<Resolved>;
}
