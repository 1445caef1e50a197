//! Sockets of the file system: not available. A relay runs without its control socket, so `status`, `kick` and `usage` of
//! a running relay need `--metrics`.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::windows::io::{AsSocket, BorrowedSocket};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use mio::event::Source;
use mio::{Interest, Registry, Token};
use socket2::Socket;

/// A listening socket, of which there are none.
#[derive(Debug)]
pub enum UnixListener {}

/// A connected socket, of which there are none.
#[derive(Debug)]
pub enum UnixStream {}

impl UnixListener {
    /// Accepts a connection.
    pub(crate) fn accept(&self) -> io::Result<(UnixStream, ())> {
        match *self {}
    }
}

impl UnixStream {
    /// Ends a direction.
    pub(crate) fn shutdown(&self, _: Shutdown) -> io::Result<()> {
        match *self {}
    }
}

macro_rules! source {
    ($kind:ty) => {
        impl Source for $kind {
            fn register(&mut self, _: &Registry, _: Token, _: Interest) -> io::Result<()> {
                match *self {}
            }

            fn reregister(&mut self, _: &Registry, _: Token, _: Interest) -> io::Result<()> {
                match *self {}
            }

            fn deregister(&mut self, _: &Registry) -> io::Result<()> {
                match *self {}
            }
        }
    };
}

source!(UnixListener);
source!(UnixStream);

impl Read for UnixStream {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        match *self {}
    }
}

impl Write for UnixStream {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        match *self {}
    }

    fn flush(&mut self) -> io::Result<()> {
        match *self {}
    }
}

impl AsSocket for UnixStream {
    fn as_socket(&self) -> BorrowedSocket<'_> {
        match *self {}
    }
}

/// Binds a socket: not available.
///
/// # Errors
/// Always.
pub(crate) fn bind(_: &Path) -> io::Result<UnixListener> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Whether a process listens there: none can.
pub(crate) const fn is_alive(_: &Path) -> bool {
    false
}

/// Connects to a socket: not available.
///
/// # Errors
/// Always.
pub(crate) fn connect(_: &Path, _: Duration) -> io::Result<Socket> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Connects to a socket without blocking: not available.
///
/// # Errors
/// Always.
pub(crate) fn connect_now(_: &Path) -> io::Result<UnixStream> {
    Err(io::ErrorKind::Unsupported.into())
}

/// A connected socket for the event loop: not available.
///
/// # Errors
/// Always.
pub(crate) fn into_stream(_: &Socket) -> io::Result<UnixStream> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The file of a socket, of which there are none.
#[derive(Debug)]
pub enum SocketFile {}

impl SocketFile {
    /// The file that was made there by a process that listens now: none.
    #[must_use]
    pub const fn of(_: &Path) -> Option<Self> {
        None
    }

    /// Removes the file on another thread.
    #[must_use]
    pub fn remove_in_background(self) -> Receiver<()> {
        drop(channel::<()>());
        match self {}
    }
}
