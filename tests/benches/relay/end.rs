//! One end of a connection to a relay, with or without TLS.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use rendezvous::tls_config::provider;
use rustls::client::{ClientConnection, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{NoServerSessionStorage, ServerConnection};
use rustls::version::TLS13;
use rustls::{CipherSuite, ClientConfig, Connection, HandshakeKind, NamedGroup, ServerConfig};
use tests::any_certificate::AnyCertificate;

use crate::Failure;
use crate::process::PATIENCE;

/// How a connection is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Below {
    Tls,
    Clear,
}

impl Below {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Clear => "clear",
        }
    }
}

/// One end of a connection of the load.
pub(crate) struct End {
    pub(crate) socket: TcpStream,
    pub(crate) tls: Option<Box<Connection>>,
}

impl End {
    /// Connects, and performs the handshake.
    pub(crate) fn connect(to: SocketAddr, tls: Option<&Arc<ClientConfig>>) -> Result<Self, Failure> {
        let socket = TcpStream::connect(to)?;
        let name = || ServerName::try_from("localhost").expect("a good name");
        let tls = tls.map(|config| ClientConnection::new(config.clone(), name())).transpose()?;
        Self::shake_hands(socket, tls.map(Connection::from))
    }

    /// Wraps an accepted connection.
    pub(crate) fn accepted(socket: TcpStream, tls: Option<&Arc<ServerConfig>>) -> Result<Self, Failure> {
        let tls = tls.map(|config| ServerConnection::new(config.clone())).transpose()?;
        Self::shake_hands(socket, tls.map(Connection::from))
    }

    fn shake_hands(mut socket: TcpStream, tls: Option<Connection>) -> Result<Self, Failure> {
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let mut tls = tls.map(Box::new);
        if let Some(tls) = &mut tls {
            while tls.is_handshaking() || tls.wants_write() {
                tls.complete_io(&mut socket)?;
            }
        }
        Ok(Self { socket, tls })
    }

    /// Whether the handshake resumed an earlier session.
    pub(crate) fn is_resumed(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.handshake_kind() == Some(HandshakeKind::Resumed))
    }

    /// Encrypts bytes. The result must be sent next, before anything else.
    pub(crate) fn seal(&mut self, plain: &[u8], times: usize) -> io::Result<Vec<u8>> {
        let Some(tls) = &mut self.tls else {
            return Ok(plain.repeat(times));
        };
        tls.set_buffer_limit(None);
        // A record of 16 KiB has 22 additional bytes.
        let mut wire = Vec::with_capacity(plain.len() * times / 16_384 * 16_406 + 65_536);
        for _ in 0..times {
            tls.writer().write_all(plain)?;
            while tls.wants_write() {
                tls.write_tls(&mut wire)?;
            }
        }
        Ok(wire)
    }

    /// Reads one HTTP message, head and body, and returns its head. No bytes may follow it.
    pub(crate) fn read_message(&mut self) -> Result<String, Failure> {
        let mut message = Vec::with_capacity(1024);
        let mut piece = [0; 2048];
        loop {
            match self.read(&mut piece)? {
                0 => return Err(format!("an end behind {:?}", String::from_utf8_lossy(&message)).into()),
                bytes => message.extend_from_slice(&piece[..bytes]),
            }
            let text = std::str::from_utf8(&message)?;
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
                if body.len() >= length.map_or(Ok(0), str::parse)? {
                    return Ok(head.to_owned());
                }
            }
        }
    }

    /// Ends this side cleanly.
    pub(crate) fn end(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
        }
        self.flush()?;
        self.socket.shutdown(std::net::Shutdown::Write)
    }

    /// Reads to the other side's end, of any kind.
    pub(crate) fn drain(&mut self) {
        let mut piece = [0; 4096];
        while self.read(&mut piece).is_ok_and(|bytes| bytes > 0) {}
    }
}

impl Read for End {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            return self.socket.read(to);
        };
        loop {
            match tls.reader().read(to) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
            tls.read_tls(&mut self.socket)?;
            tls.process_new_packets().map_err(io::Error::other)?;
        }
    }
}

impl Write for End {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            return self.socket.write(from);
        };
        let bytes = tls.writer().write(from)?;
        self.flush()?;
        Ok(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            while tls.wants_write() {
                tls.write_tls(&mut self.socket)?;
            }
        }
        Ok(())
    }
}

impl AsRawFd for End {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// The cryptography of the load: one suite and one group, so that all relays negotiate the same.
fn suite() -> Arc<CryptoProvider> {
    let mut only = CryptoProvider::clone(&provider());
    only.cipher_suites.retain(|it| it.suite() == CipherSuite::TLS13_AES_128_GCM_SHA256);
    only.kx_groups.retain(|it| it.name() == NamedGroup::X25519);
    Arc::new(only)
}

/// A client that accepts any certificate, because its checks are not the relay's work. `resumes`: with a store of
/// tickets.
pub(crate) fn client_config(resumes: bool) -> Result<Arc<ClientConfig>, Failure> {
    let provider = suite();
    let believer = AnyCertificate::of(&provider);
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(believer)
        .with_no_client_auth();
    config.enable_sni = false;
    if !resumes {
        config.resumption = Resumption::disabled();
    }
    Ok(Arc::new(config))
}

/// The server behind the other relays.
pub(crate) fn server_config(
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, Failure> {
    let mut config = ServerConfig::builder_with_provider(suite())
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}
