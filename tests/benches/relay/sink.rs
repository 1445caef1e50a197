//! The server behind those relays that only forward.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use rustls::ServerConfig;
use socket2::{Domain, Socket, Type};

use crate::Failure;
use crate::end::{Below, End};
use crate::process::PATIENCE;

/// Listens on a port of its own. The caller of `accept` knows how a connection is protected.
pub(crate) struct Sink {
    listener: TcpListener,
    tls: Arc<ServerConfig>,
}

impl Sink {
    pub(crate) fn new(tls: Arc<ServerConfig>) -> Result<Self, Failure> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
        socket.listen(4096)?;
        // For a listener it is the timeout of `accept`.
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { listener: socket.into(), tls })
    }

    pub(crate) fn address(&self) -> Result<SocketAddr, Failure> {
        Ok(self.listener.local_addr()?)
    }

    /// Accepts the next connection.
    pub(crate) fn accept(&self, below: Below) -> Result<End, Failure> {
        let (socket, _) =
            self.listener.accept().map_err(|error| format!("nothing reaches the server: {error}"))?;
        self.take(socket, below)
    }

    /// Drops connections that only checked whether a relay listens.
    pub(crate) fn clear(&self) -> Result<(), Failure> {
        self.listener.set_nonblocking(true)?;
        while self.listener.accept().is_ok() {}
        Ok(self.listener.set_nonblocking(false)?)
    }

    fn take(&self, socket: TcpStream, below: Below) -> Result<End, Failure> {
        End::accepted(socket, (below == Below::Tls).then_some(&self.tls))
    }
}
