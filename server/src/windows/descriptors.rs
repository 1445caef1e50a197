//! Descriptors that pass between processes: not available. A process does not take over from another one.

use std::fs::File;
use std::io;
use std::marker::PhantomData;

use socket2::Socket;

/// A descriptor that can be handed over, of which there are none.
#[derive(Debug)]
pub enum OwnedFd {}

/// A descriptor of something that is open, which cannot be handed over.
#[derive(Clone, Copy, Debug)]
pub struct BorrowedFd<'a>(PhantomData<&'a ()>);

/// Something that is open.
pub trait AsFd {
    /// Its descriptor.
    fn as_fd(&self) -> BorrowedFd<'_> {
        BorrowedFd(PhantomData)
    }
}

impl<T> AsFd for T {}

impl BorrowedFd<'_> {
    /// Duplicates it: not available.
    pub(crate) fn try_clone_to_owned(&self) -> io::Result<OwnedFd> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl OwnedFd {
    /// Duplicates it.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        match *self {}
    }
}

impl From<OwnedFd> for File {
    fn from(none: OwnedFd) -> Self {
        match none {}
    }
}

impl From<OwnedFd> for Socket {
    fn from(none: OwnedFd) -> Self {
        match none {}
    }
}

/// Sends bytes together with descriptors: not available.
pub(crate) fn send<S>(_: &S, _: &[u8], _: &[BorrowedFd<'_>]) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Receives bytes and descriptors: not available.
pub(crate) fn receive<S>(_: &S, _: &mut [u8], _: &mut Vec<OwnedFd>, _: usize) -> io::Result<usize> {
    Err(io::ErrorKind::Unsupported.into())
}

/// A process at the other end of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PeerProcess {
    /// Its effective user ID.
    pub(crate) user: u32,
    /// Its process ID.
    pub(crate) pid: Option<u32>,
}

/// The process at the other end: not available.
pub(crate) fn peer_process<S>(_: &S) -> io::Result<PeerProcess> {
    Err(io::ErrorKind::Unsupported.into())
}
