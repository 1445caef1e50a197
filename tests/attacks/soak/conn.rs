//! One non-blocking connection of the load, with or without TLS.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustls::ClientConfig;
use rustls::client::{ClientConnection, Resumption};
use rustls::pki_types::ServerName;
use socket2::{Domain, SockRef, Socket, Type};
use tests::any_certificate::AnyCertificate;

use crate::Failure;

/// A socket, with TLS if the relay requires it.
pub(crate) struct Conn {
    socket: TcpStream,
    tls: Option<Box<ClientConnection>>,
    /// Bytes that the socket did not accept yet, without TLS.
    queued: Vec<u8>,
    ending: Ending,
}

/// The state of our own end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Open,
    /// Ends when everything is in the socket.
    Asked,
    Shut,
}

impl Conn {
    /// Connects from an address in 127.0.0.0/8.
    pub(crate) fn connect(
        from: Ipv4Addr,
        to: SocketAddr,
        tls: Option<&Arc<ClientConfig>>,
    ) -> Result<Self, Failure> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SocketAddr::V4(SocketAddrV4::new(from, 0)).into())?;
        match socket.connect(&to.into()) {
            Err(error) if error.raw_os_error() != Some(EINPROGRESS) => return Err(error.into()),
            _ => {}
        }
        let name = || ServerName::try_from("localhost").expect("a good name");
        let tls = tls.map(|config| ClientConnection::new(config.clone(), name())).transpose()?;
        Ok(Self::of(TcpStream::from_std(socket.into()), tls))
    }

    /// An accepted connection without TLS.
    pub(crate) fn accepted(socket: TcpStream) -> Self {
        Self::of(socket, None)
    }

    fn of(socket: TcpStream, tls: Option<ClientConnection>) -> Self {
        // It may fail while the socket connects. That only causes a delay.
        let _ = socket.set_nodelay(true);
        Self { socket, tls: tls.map(Box::new), queued: Vec::new(), ending: Ending::Open }
    }

    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut self.socket, token, Interest::READABLE | Interest::WRITABLE)
    }

    /// Sends something short, however full the socket is.
    pub(crate) fn emit(&mut self, words: &[u8]) -> io::Result<()> {
        match &mut self.tls {
            Some(tls) => tls.writer().write_all(words)?,
            None => self.queued.extend_from_slice(words),
        }
        self.flush()
    }

    /// Sends a prefix; 0 bytes if the socket is full. Then call `flush` when it is writable.
    pub(crate) fn give(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.flush_pending()? {
            return Ok(0);
        }
        match &mut self.tls {
            Some(tls) => {
                let taken = tls.writer().write(bytes)?;
                self.flush()?;
                Ok(taken)
            }
            None => match self.socket.write(bytes) {
                Err(error) if waits(&error) => Ok(0),
                other => other,
            },
        }
    }

    /// Ends our side cleanly, after all bytes.
    pub(crate) fn end(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
        }
        self.ending = Ending::Asked;
        self.flush()
    }

    /// Whether our end is in the socket, after everything.
    pub(crate) fn is_shut(&self) -> bool {
        self.ending == Ending::Shut
    }

    /// Sends the queued bytes.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if self.flush_pending()? && self.ending == Ending::Asked {
            self.ending = Ending::Shut;
            self.socket.shutdown(Shutdown::Write)?;
        }
        Ok(())
    }

    /// Whether nothing is queued.
    fn flush_pending(&mut self) -> io::Result<bool> {
        while self.tls.as_ref().is_some_and(|tls| tls.wants_write()) || !self.queued.is_empty() {
            let sent = match &mut self.tls {
                Some(tls) => tls.write_tls(&mut self.socket).map(|_| 0),
                None => self.socket.write(&self.queued),
            };
            match sent {
                Ok(bytes) => drop(self.queued.drain(..bytes)),
                Err(error) if waits(&error) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Receives: `Ok(0)` is a clean end, `WouldBlock` nothing yet, any other error a truncation or a reset.
    pub(crate) fn receive(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            return match self.socket.read(into) {
                Err(error) if waits(&error) => Err(ErrorKind::WouldBlock.into()),
                other => other,
            };
        };
        loop {
            match tls.reader().read(into) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                done => return done,
            }
            match tls.read_tls(&mut self.socket) {
                Err(error) if waits(&error) => return Err(ErrorKind::WouldBlock.into()),
                Err(error) => return Err(error),
                Ok(_) => {}
            }
            tls.process_new_packets().map_err(io::Error::other)?;
            while tls.wants_write() {
                match tls.write_tls(&mut self.socket) {
                    Err(error) if waits(&error) => break,
                    other => other?,
                };
            }
        }
    }

    /// Ends it with a reset.
    pub(crate) fn reset(self) {
        // If it fails, the connection is reset already.
        let _ = SockRef::from(&self.socket).set_linger(Some(Duration::ZERO));
    }
}

/// The connect is in progress (`asm-generic/errno.h`).
const EINPROGRESS: i32 = 115;

/// Not ready; a socket that still connects reports it with its own error.
fn waits(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected | ErrorKind::Interrupted)
}

/// A TLS client that accepts any certificate.
pub(crate) fn client_config() -> Result<Arc<ClientConfig>, Failure> {
    let provider = rendezvous::tls_config::provider();
    let believer = AnyCertificate::of(&provider);
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(believer)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}
