//! One connection of the crowd, which never blocks: in clear or in TLS.

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

/// A socket, and TLS where the relay wants it.
pub(crate) struct Conn {
    socket: TcpStream,
    tls: Option<Box<ClientConnection>>,
    /// What the socket did not take yet, in clear.
    queued: Vec<u8>,
    ending: Ending,
}

/// How far our own end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Open,
    /// Once all is in the socket.
    Asked,
    Shut,
}

impl Conn {
    /// Connects from an address of this machine's own network, 127.0.0.0/8.
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

    /// One that was accepted, in clear.
    pub(crate) fn accepted(socket: TcpStream) -> Self {
        Self::of(socket, None)
    }

    fn of(socket: TcpStream, tls: Option<ClientConnection>) -> Self {
        // Not while it connects: where this fails nothing but a delay comes of it.
        let _ = socket.set_nodelay(true);
        Self { socket, tls: tls.map(Box::new), queued: Vec::new(), ending: Ending::Open }
    }

    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut self.socket, token, Interest::READABLE | Interest::WRITABLE)
    }

    /// Says something short, however full the socket is.
    pub(crate) fn emit(&mut self, words: &[u8]) -> io::Result<()> {
        match &mut self.tls {
            Some(tls) => tls.writer().write_all(words)?,
            None => self.queued.extend_from_slice(words),
        }
        self.flush()
    }

    /// Takes a prefix, 0 octets where the socket is full; then it is to be flushed when it is writable.
    pub(crate) fn give(&mut self, octets: &[u8]) -> io::Result<usize> {
        if !self.flush_pending()? {
            return Ok(0);
        }
        match &mut self.tls {
            Some(tls) => {
                let taken = tls.writer().write(octets)?;
                self.flush()?;
                Ok(taken)
            }
            None => match self.socket.write(octets) {
                Err(error) if waits(&error) => Ok(0),
                other => other,
            },
        }
    }

    /// Ends our side in order, behind all that was given.
    pub(crate) fn end(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
        }
        self.ending = Ending::Asked;
        self.flush()
    }

    /// Whether our end is in the socket, behind everything.
    pub(crate) fn is_shut(&self) -> bool {
        self.ending == Ending::Shut
    }

    /// Sends on what is left.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if self.flush_pending()? && self.ending == Ending::Asked {
            self.ending = Ending::Shut;
            self.socket.shutdown(Shutdown::Write)?;
        }
        Ok(())
    }

    /// Whether nothing is left.
    fn flush_pending(&mut self) -> io::Result<bool> {
        while self.tls.as_ref().is_some_and(|tls| tls.wants_write()) || !self.queued.is_empty() {
            let sent = match &mut self.tls {
                Some(tls) => tls.write_tls(&mut self.socket).map(|_| 0),
                None => self.socket.write(&self.queued),
            };
            match sent {
                Ok(octets) => drop(self.queued.drain(..octets)),
                Err(error) if waits(&error) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// What is there: `Ok(0)` is a clean end, `WouldBlock` nothing yet, any other error a broken end.
    pub(crate) fn hear(&mut self, into: &mut [u8]) -> io::Result<usize> {
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
        // Where it fails the connection is reset already.
        let _ = SockRef::from(&self.socket).set_linger(Some(Duration::ZERO));
    }
}

/// The connect is under way (`asm-generic/errno.h`).
const EINPROGRESS: i32 = 115;

/// Not now; a connection that is not there yet says so in its own words.
fn waits(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected | ErrorKind::Interrupted)
}

/// TLS of a client that takes any certificate.
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
