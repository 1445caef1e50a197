//! Listeners and sockets of the operator's server.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mio::net::{TcpListener, TcpStream};
use rustls::ServerConfig;

use super::request::Access;
use super::tls_sock::{Received, TlsSock};
use super::{Admin, LISTENERS_MAX};
use crate::failure::{Failure, reason};
use crate::linux::descriptors::{AsFd, OwnedFd};
use crate::net::mio::MioNet;
use crate::socket_file::{self, SocketFile, UnixListener, UnixStream};

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `ADDR:PORT`.
    Tcp(SocketAddr),
    /// `unix:PATH`. The socket is private to the user of this process.
    Unix(PathBuf),
}

pub(super) struct Listener {
    socket: Listening,
    /// The address of the option.
    address: Address,
    /// The file of its socket, which is removed with it.
    _file: Option<SocketFile>,
    pub(super) access: Access,
    pub(super) place: usize,
    /// Whether connections may be pending.
    pub(super) is_ready: bool,
    /// Whether it is closed at the beginning of a shutdown.
    pub(super) ends_at_stop: bool,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(on) => on.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

impl Address {
    /// Whether other machines can connect to it.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        matches!(self, Self::Tcp(on) if !on.ip().to_canonical().is_loopback())
    }
}

enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Opens a listener of the server, and logs its address. `ends_at_stop`: it is closed at the beginning of a shutdown.
///
/// # Errors
/// The address cannot be listened on.
pub fn open<B>(
    admin: &mut Admin<B>,
    net: &MioNet,
    address: &Address,
    ends_at_stop: bool,
) -> Result<(), Failure> {
    open_listener(admin, net, address, None, Replaces::Dead, ends_at_stop)
}

/// The socket of the file system that a listener replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaces {
    /// That of a dead program.
    Dead,
    /// That of any program.
    Any,
}

/// Opens a listener like [`open`], or uses this one, which another process has opened for the address.
///
/// # Errors
/// Those of [`open`].
pub fn open_listener<B>(
    admin: &mut Admin<B>,
    net: &MioNet,
    address: &Address,
    handed: Option<std::net::TcpListener>,
    replaces: Replaces,
    ends_at_stop: bool,
) -> Result<(), Failure> {
    let place = (0..LISTENERS_MAX).find(|place| admin.listeners.iter().all(|it| it.place != *place));
    let Some(place) = place else {
        return Err(Failure::Usage(format!("at most {LISTENERS_MAX} addresses for metrics")));
    };
    if address.is_remote() && admin.remote.is_none() {
        return Err(Failure::Usage("metrics for other machines need a password".to_owned()));
    }
    let listened = match address {
        Address::Tcp(on) => listen(net, *on, handed, place),
        Address::Unix(path) => bind(net, path, replaces, place),
    };
    let (socket, _file, access) = listened.map_err(|error| cannot_listen(address, &error))?;
    let address = address.clone();
    admin.listeners.push(Listener { socket, address, _file, access, place, is_ready: true, ends_at_stop });
    admin.is_pending = true;
    Ok(())
}

fn cannot_listen(address: &Address, error: &io::Error) -> Failure {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => " (another program listens there)",
        io::ErrorKind::AddrNotAvailable => " (no interface of this machine has that address)",
        _ => "",
    };
    Failure::Failed(format!("cannot listen for metrics on {address}: {}{hint}", reason(error)))
}

/// A listener, the file of its socket, and from where its clients come.
type Listened = (Listening, Option<SocketFile>, Access);

fn listen(
    net: &MioNet,
    on: SocketAddr,
    handed: Option<std::net::TcpListener>,
    place: usize,
) -> io::Result<Listened> {
    let mut listener = match handed {
        Some(listener) => TcpListener::from_std(listener),
        None => TcpListener::bind(on)?,
    };
    net.register_own(&mut listener, place)?;
    let local = listener.local_addr()?;
    let access = if Address::Tcp(local).is_remote() { Access::Remote } else { Access::Loopback };
    let tls = if access == Access::Remote { " tls=yes" } else { "" };
    log::info!("event=listening kind=metrics on={local}{tls}");
    Ok((Listening::Tcp(listener), None, access))
}

/// Binds a socket of the file system.
fn bind(net: &MioNet, path: &Path, replaces: Replaces, place: usize) -> io::Result<Listened> {
    if replaces == Replaces::Dead && socket_file::is_alive(path) {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    let mut listener = socket_file::bind(path)?;
    net.register_own(&mut listener, place)?;
    log::debug!("event=listening kind=metrics on={}", crate::logging::Escaped(&path.to_string_lossy()));
    Ok((Listening::Unix(listener), SocketFile::of(path), Access::Socket))
}

impl Listener {
    pub(super) const fn is_tcp(&self) -> bool {
        matches!(self.socket, Listening::Tcp(_))
    }

    /// A duplicate of the descriptor of a TCP listener, with the address of the option.
    pub(super) fn duplicate(&self) -> Option<io::Result<(SocketAddr, OwnedFd)>> {
        match (&self.socket, &self.address) {
            (Listening::Tcp(listener), Address::Tcp(on)) => {
                Some(listener.as_fd().try_clone_to_owned().map(|descriptor| (*on, descriptor)))
            }
            _ => None,
        }
    }

    /// Closes it. If another process has the same socket, closing alone would not end its edges.
    pub(super) fn close(mut self, net: &MioNet) {
        match &mut self.socket {
            Listening::Tcp(listener) => net.deregister_own(listener),
            Listening::Unix(listener) => net.deregister_own(listener),
        }
    }

    /// Accepts a connection. With `tls` it is one of another machine, whose address is returned as well.
    pub(super) fn accept(&mut self, tls: Option<&Arc<ServerConfig>>) -> Option<(Sock, Option<IpAddr>)> {
        if !self.is_ready {
            return None;
        }
        let accepted = match &self.socket {
            Listening::Tcp(listener) => listener.accept().and_then(|(sock, from)| match tls {
                Some(tls) => {
                    let sock = TlsSock::new(sock, tls.clone())?;
                    Ok((Sock::Tls(Box::new(sock)), Some(from.ip().to_canonical())))
                }
                None => Ok((Sock::Tcp(sock), None)),
            }),
            Listening::Unix(listener) => listener.accept().map(|(sock, _)| (Sock::Unix(sock), None)),
        };
        // After any error, wait for the next edge: one connection more causes it.
        self.is_ready = accepted.is_ok();
        accepted.ok()
    }
}

/// A connection's socket.
pub(super) enum Sock {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsSock>),
}

impl Sock {
    pub(super) fn register(&mut self, net: &MioNet, place: usize) -> io::Result<()> {
        match self {
            Self::Tcp(sock) => {
                let _ = sock.set_nodelay(true);
                net.register_own(sock, place)
            }
            Self::Tls(sock) => {
                let _ = sock.tcp().set_nodelay(true);
                net.register_own(sock.tcp(), place)
            }
            Self::Unix(sock) => net.register_own(sock, place),
        }
    }

    pub(super) fn deregister(&mut self, net: &MioNet) {
        match self {
            Self::Tcp(sock) => net.deregister_own(sock),
            Self::Tls(sock) => net.deregister_own(sock.tcp()),
            Self::Unix(sock) => net.deregister_own(sock),
        }
    }

    pub(super) fn recv(&mut self, into: &mut [u8]) -> io::Result<Received> {
        let count = match self {
            Self::Tcp(sock) => sock.read(into)?,
            Self::Unix(sock) => sock.read(into)?,
            Self::Tls(sock) => return sock.recv(into),
        };
        Ok(if count == 0 { Received::End } else { Received::Bytes(count) })
    }

    /// Whether the client sends plain HTTP where it should use TLS.
    pub(super) fn is_clear(&self) -> bool {
        matches!(self, Self::Tls(sock) if sock.is_clear())
    }

    /// Whether bytes that [`Sock::send`] has taken wait for [`Sock::flush`].
    pub(super) fn has_unsent(&self) -> bool {
        matches!(self, Self::Tls(sock) if sock.has_unsent())
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tls(sock) => sock.flush(),
            Self::Tcp(_) | Self::Unix(_) => Ok(()),
        }
    }

    pub(super) fn send(&mut self, from: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(sock) => sock.write(from),
            Self::Tls(sock) => sock.send(from),
            Self::Unix(sock) => sock.write(from),
        }
    }

    pub(super) fn end_write(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(sock) => sock.shutdown(std::net::Shutdown::Write),
            Self::Tls(sock) => sock.end_write(),
            Self::Unix(sock) => sock.shutdown(std::net::Shutdown::Write),
        }
    }
}
