//! Listeners and sockets of the operator's server.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use mio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::request::Access;
use super::{Admin, LISTENERS_MAX};
use crate::failure::{Failure, reason};
use crate::net::mio::MioNet;
use crate::socket_file::{self, SocketFile};

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
    /// The file of its socket, which is removed with it.
    _file: Option<SocketFile>,
    pub(super) access: Access,
    pub(super) place: usize,
    /// Whether connections may be pending.
    pub(super) is_ready: bool,
    /// Whether it is closed at the beginning of a shutdown.
    pub(super) ends_at_stop: bool,
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
    let place = (0..LISTENERS_MAX).find(|place| admin.listeners.iter().all(|it| it.place != *place));
    let Some(place) = place else {
        return Err(Failure::Usage(format!("at most {LISTENERS_MAX} addresses for metrics")));
    };
    let listened = match address {
        Address::Tcp(on) => listen(net, *on, place),
        Address::Unix(path) => bind(net, path, place),
    };
    let (socket, _file, access) = listened.map_err(|error| cannot_listen(address, &error))?;
    admin.listeners.push(Listener { socket, _file, access, place, is_ready: true, ends_at_stop });
    admin.is_pending = true;
    Ok(())
}

fn cannot_listen(address: &Address, error: &io::Error) -> Failure {
    let shown = match address {
        Address::Tcp(on) => on.to_string(),
        Address::Unix(path) => path.display().to_string(),
    };
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => " (another program listens there)",
        io::ErrorKind::AddrNotAvailable => " (no interface of this machine has that address)",
        _ => "",
    };
    Failure::Failed(format!("cannot listen for metrics on {shown}: {}{hint}", reason(error)))
}

/// A listener, the file of its socket, and from where its clients come.
type Listened = (Listening, Option<SocketFile>, Access);

fn listen(net: &MioNet, on: SocketAddr, place: usize) -> io::Result<Listened> {
    let mut listener = TcpListener::bind(on)?;
    net.register_own(&mut listener, place)?;
    let local = listener.local_addr()?;
    log::info!("event=listening kind=metrics on={local}");
    let access = if local.ip().to_canonical().is_loopback() { Access::Loopback } else { Access::Remote };
    if access == Access::Remote {
        log::warn!(
            "event=metrics-exposed on={local} reason=\"whoever can connect there sees names and numbers\" \
             hint=\"use a firewall, or 127.0.0.1 or unix:PATH\""
        );
    }
    Ok((Listening::Tcp(listener), None, access))
}

/// Binds a socket of the file system. That of a dead program is replaced.
fn bind(net: &MioNet, path: &Path, place: usize) -> io::Result<Listened> {
    if socket_file::is_alive(path) {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    let mut listener = socket_file::bind(path)?;
    net.register_own(&mut listener, place)?;
    log::debug!("event=listening kind=metrics on={}", crate::logging::Escaped(&path.to_string_lossy()));
    Ok((Listening::Unix(listener), SocketFile::of(path), Access::Socket))
}

impl Listener {
    pub(super) fn accept(&mut self) -> Option<Sock> {
        if !self.is_ready {
            return None;
        }
        let accepted = match &self.socket {
            Listening::Tcp(listener) => listener.accept().map(|(sock, _)| Sock::Tcp(sock)),
            Listening::Unix(listener) => listener.accept().map(|(sock, _)| Sock::Unix(sock)),
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
}

impl Sock {
    pub(super) fn register(&mut self, net: &MioNet, place: usize) -> io::Result<()> {
        match self {
            Self::Tcp(sock) => {
                let _ = sock.set_nodelay(true);
                net.register_own(sock, place)
            }
            Self::Unix(sock) => net.register_own(sock, place),
        }
    }

    pub(super) fn deregister(&mut self, net: &MioNet) {
        match self {
            Self::Tcp(sock) => net.deregister_own(sock),
            Self::Unix(sock) => net.deregister_own(sock),
        }
    }

    pub(super) fn recv(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(sock) => sock.read(into),
            Self::Unix(sock) => sock.read(into),
        }
    }

    pub(super) fn send(&mut self, from: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(sock) => sock.write(from),
            Self::Unix(sock) => sock.write(from),
        }
    }

    pub(super) fn end_write(&self) -> io::Result<()> {
        match self {
            Self::Tcp(sock) => sock.shutdown(std::net::Shutdown::Write),
            Self::Unix(sock) => sock.shutdown(std::net::Shutdown::Write),
        }
    }
}
