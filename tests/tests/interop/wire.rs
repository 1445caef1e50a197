//! A client, or a hidden server, whose bytes, ends and resets the test controls.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned, SupportedProtocolVersion};
use tests::any_certificate::AnyCertificate;

use crate::program::PATIENCE;

/// The transport below HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Below {
    Clear,
    Tls12,
    Tls13,
}

impl Below {
    pub(crate) const fn scheme(self) -> &'static str {
        match self {
            Self::Clear => "http",
            Self::Tls12 | Self::Tls13 => "https",
        }
    }
}

/// A connection to a relay.
pub(crate) enum Wire {
    Clear(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Wire {
    pub(crate) fn open(below: Below, address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).expect("the relay listens"), below)
    }

    /// Over an existing connection.
    pub(crate) fn over(tcp: TcpStream, below: Below) -> Self {
        tcp.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        tcp.set_nodelay(true).expect("it is TCP");
        match below {
            Below::Clear => Self::Clear(tcp),
            Below::Tls12 => Self::secure(tcp, &rustls::version::TLS12),
            Below::Tls13 => Self::secure(tcp, &rustls::version::TLS13),
        }
    }

    /// A TLS client for this name.
    pub(crate) fn named(below: Below, address: SocketAddr, name: &'static str) -> Self {
        let tcp = TcpStream::connect(address).expect("the relay listens");
        tcp.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        match below {
            Below::Clear => Self::Clear(tcp),
            Below::Tls12 => Self::secure_named(tcp, &rustls::version::TLS12, name),
            Below::Tls13 => Self::secure_named(tcp, &rustls::version::TLS13, name),
        }
    }

    fn secure(tcp: TcpStream, version: &'static SupportedProtocolVersion) -> Self {
        Self::secure_named(tcp, version, "localhost")
    }

    fn secure_named(tcp: TcpStream, version: &'static SupportedProtocolVersion, name: &'static str) -> Self {
        let provider = rendezvous::tls_config::provider();
        let believer = AnyCertificate::of(&provider);
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .expect("the provider has both versions")
            .dangerous()
            .with_custom_certificate_verifier(believer)
            .with_no_client_auth();
        let name = ServerName::try_from(name).expect("it is a name");
        let tls = ClientConnection::new(Arc::new(config), name).expect("the configuration is whole");
        let mut stream = StreamOwned::new(tls, tcp);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).expect("the handshake succeeds");
        }
        Self::Tls(Box::new(stream))
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.write_all(bytes).and_then(|()| self.flush()).expect("can write");
    }

    /// Ends the writing side cleanly: `close_notify` with TLS, then FIN.
    pub(crate) fn end(&mut self) {
        if let Self::Tls(tls) = self {
            tls.conn.send_close_notify();
            while tls.conn.wants_write() {
                tls.conn.write_tls(&mut tls.sock).expect("can write");
            }
        }
        self.cut();
    }

    /// Sends FIN without close_notify.
    pub(crate) fn cut(&self) {
        self.tcp().shutdown(Shutdown::Write).expect("the connection is open");
    }

    /// Ends it with a reset: a close with `SO_LINGER` 0.
    pub(crate) fn reset(self) {
        reset(self.tcp().try_clone().expect("a descriptor more"));
        drop(self);
    }

    pub(crate) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Clear(tcp) => tcp,
            Self::Tls(tls) => &tls.sock,
        }
    }

    /// Reads everything up to the clean end.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        self.read_to_end(&mut all).expect("a clean end");
        all
    }

    /// Reads everything up to any end, and returns whether it was clean.
    pub(crate) fn rest_and_end(&mut self) -> (Vec<u8>, io::Result<()>) {
        let mut all = Vec::new();
        let end = self.read_to_end(&mut all).map(drop);
        (all, end)
    }
}

/// Resets a connection when its last descriptor is closed.
pub(crate) fn reset(stream: TcpStream) {
    let socket = socket2::SockRef::from(&stream);
    socket.set_linger(Some(std::time::Duration::ZERO)).expect("SO_LINGER can be set");
}

impl Read for Wire {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Clear(tcp) => tcp.read(into),
            Self::Tls(tls) => tls.read(into),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        match self {
            Self::Clear(tcp) => tcp.write(from),
            Self::Tls(tls) => tls.write(from),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Clear(tcp) => tcp.flush(),
            Self::Tls(tls) => tls.flush(),
        }
    }
}

/// A parsed answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) line: String,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// Reads one that ends after its `Content-Length`.
    pub(crate) fn read(from: &mut impl Read) -> Self {
        let mut answer = Self::read_head(from);
        let length = answer.field("content-length").map_or(0, |value| value.parse().expect("a number"));
        answer.body.resize(length, 0);
        from.read_exact(&mut answer.body).expect("the body is whole");
        answer
    }

    /// Reads only its head.
    pub(crate) fn read_head(from: &mut impl Read) -> Self {
        let head = String::from_utf8(crate::hidden::read_head(from)).expect("a head of ASCII");
        let mut lines = head.trim_end_matches("\r\n").split("\r\n");
        let line = lines.next().expect("a status line").to_owned();
        let field = |line: &str| {
            let (name, value) = line.split_once(": ").expect("a field");
            (name.to_owned(), value.to_owned())
        };
        Self { line, fields: lines.map(field).collect(), body: Vec::new() }
    }

    pub(crate) fn status(&self) -> u16 {
        let code = self.line.split(' ').nth(1).and_then(|code| code.parse().ok());
        code.unwrap_or_else(|| panic!("no status in {:?}", self.line))
    }

    /// The only field with this name.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut found = self.fields.iter().filter(|(own, _)| own.eq_ignore_ascii_case(name));
        let value = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "{name} twice in {self:?}");
        value
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}
