//! A blocking connection to a relay, for one request and the head of its answer.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rendezvous_core::http::head::{Finder, Limits};
use rendezvous_core::http::response::{Response, parse_response};
use rustls_pki_types::ServerName;

use crate::buffer::Buffer;
use crate::failure::{Failure, reason};
use crate::relay_url::RelayUrl;
use crate::tls::{Take, TlsError, TlsSession};
use crate::tls_config;
use crate::trust::Trust;

/// A connection that waits for what it needs.
pub(super) struct Wire {
    stream: TcpStream,
    tls: Option<TlsSession>,
    /// Octets as they came.
    wire: Vec<u8>,
    plain: Plain,
}

/// What was opened.
struct Plain(Vec<u8>);

/// Why there is no answer.
pub(super) enum WireError {
    /// The socket.
    Io(io::Error),
    /// TLS, or the certificate.
    Tls(String),
    /// The trust can't be set up: a CA file is missing.
    Setup(Failure),
    /// It ended too early, or what came is no HTTP.
    NoHttp,
}

impl Take for Plain {
    fn has_room(&self) -> bool {
        true
    }

    fn take(&mut self, plain: &[u8]) {
        self.0.extend_from_slice(plain);
    }
}

impl Wire {
    /// Connects, and goes through the TLS handshake where the relay has TLS.
    pub(super) fn connect(
        to: SocketAddr,
        relay: &RelayUrl,
        trust: &Trust,
        patience: Duration,
    ) -> Result<Self, WireError> {
        let stream = TcpStream::connect_timeout(&to, patience)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        let mut wire = Self { stream, tls: None, wire: Vec::new(), plain: Plain(Vec::new()) };
        if relay.tls {
            let config =
                tls_config::client_config(trust, &tls_config::provider()).map_err(WireError::Setup)?;
            let name = ServerName::try_from(relay.host.clone())
                .map_err(|_| WireError::Tls(format!("'{}' is no name for a certificate", relay.host)))?;
            let mut tls = TlsSession::client(config, name)?;
            while !tls.is_secured() {
                wire.step(&mut tls)?;
            }
            wire.tls = Some(tls);
        }
        Ok(wire)
    }

    /// The peer's own certificate, DER.
    pub(super) fn peer_certificate(&self) -> Option<&[u8]> {
        self.tls.as_ref()?.peer_certificate()
    }

    /// Sends a request.
    pub(super) fn send(&mut self, request: &[u8]) -> Result<(), WireError> {
        match &mut self.tls {
            None => self.stream.write_all(request)?,
            Some(tls) => {
                let mut out = Buffer::with_room(request.len() + 1024);
                let sealed = tls.seal(request, &mut out)?;
                debug_assert_eq!(sealed, request.len(), "there was room for one short request");
                self.stream.write_all(out.filled())?;
            }
        }
        Ok(())
    }

    /// Receives the head of the answer.
    pub(super) fn response(&mut self) -> Result<Response, WireError> {
        let mut finder = Finder::default();
        loop {
            let parsed = parse_response(&self.plain.0, &mut finder, &Limits::default());
            match parsed {
                Ok(Some(response)) => return Ok(response),
                Ok(None) => {}
                Err(_) => return Err(WireError::NoHttp),
            }
            match self.tls.take() {
                None => {
                    let mut octets = [0; 4096];
                    match self.stream.read(&mut octets)? {
                        0 => return Err(WireError::NoHttp),
                        n => self.plain.0.extend_from_slice(&octets[..n]),
                    }
                }
                Some(mut tls) => {
                    let stepped = self.step(&mut tls);
                    self.tls = Some(tls);
                    stepped?;
                }
            }
        }
    }

    /// Lets TLS say what it has to say, and hear what comes next.
    fn step(&mut self, tls: &mut TlsSession) -> Result<(), WireError> {
        if self.open(tls)? {
            return Ok(());
        }
        let mut octets = [0; 4096];
        match self.stream.read(&mut octets)? {
            0 => Err(WireError::NoHttp),
            n => {
                self.wire.extend_from_slice(&octets[..n]);
                self.open(tls).map(drop)
            }
        }
    }

    /// Whether anything came of the octets that are there.
    fn open(&mut self, tls: &mut TlsSession) -> Result<bool, WireError> {
        let mut out = Buffer::with_room(4096);
        let before = self.plain.0.len();
        let opened = tls.open(&mut self.wire, &mut out, &mut self.plain);
        self.stream.write_all(out.filled())?;
        let opened = opened?;
        self.wire.drain(..opened.consumed);
        Ok(self.plain.0.len() > before || opened.secured)
    }
}

impl From<io::Error> for WireError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<TlsError> for WireError {
    fn from(error: TlsError) -> Self {
        Self::Tls(error.to_string())
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error)
                if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) =>
            {
                f.write_str("no answer in time")
            }
            Self::Io(error) => f.write_str(&reason(error)),
            Self::Tls(why) => f.write_str(why),
            Self::Setup(failure) => failure.fmt(f),
            Self::NoHttp => f.write_str("it ended the connection, or answered something that is not HTTP"),
        }
    }
}
