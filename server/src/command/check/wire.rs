//! A blocking connection to a relay, for one request and the head of its response.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rendezvous_core::http::head::{Finder, Limits};
use rendezvous_core::http::response::{Response, parse_response};
use rendezvous_core::tunnel::ProxyError;
use rustls::{AlertDescription, ClientConfig};
use rustls_pki_types::ServerName;

use crate::buffer::Buffer;
use crate::clock::Clock;
use crate::failure::{Failure, reason};
use crate::logging::reasons;
use crate::options::value::public_host;
use crate::tls::{Protocol, Take, TlsError, TlsSession};
use crate::tls_config;
use crate::trust::Trust;

/// Limit of a body, in bytes.
const BODY_MAX: u64 = 1024;

/// The deadline of a step.
#[derive(Clone, Copy)]
pub(super) struct Deadline {
    clock: Clock,
    after: Duration,
}

impl Deadline {
    pub(super) fn after(span: Duration) -> Self {
        Self { clock: Clock::start(), after: span }
    }

    /// The remaining time; zero after the deadline.
    pub(super) fn left(self) -> Duration {
        self.after.saturating_sub(Duration::from_micros(self.clock.now().mono.0))
    }
}

/// A blocking stream that fails after its deadline, even if its peer continues to make little progress.
pub(super) struct Timed {
    pub(super) stream: TcpStream,
    pub(super) deadline: Deadline,
}

impl Timed {
    /// The remaining time as a socket timeout. It is never zero, which would mean no timeout.
    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.deadline.left();
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}

impl Read for Timed {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        self.stream.read(bytes)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// A connection that blocks until its deadline.
pub(super) struct Wire {
    stream: Timed,
    tls: Option<TlsSession>,
    /// Received wire bytes.
    wire: Vec<u8>,
    plain: Plain,
}

/// Takes plaintext.
struct Plain(Vec<u8>);

/// Why there is no response.
pub(super) enum WireError {
    /// A socket error.
    Io(io::Error),
    /// A TLS or certificate error.
    Tls(String),
    /// The peer refused the handshake with this alert.
    Alert(AlertDescription),
    /// The trust cannot be set up, for example because the CA file is missing.
    Setup(Failure),
    /// The proxy on the way opened no tunnel.
    Proxy(ProxyError),
    /// The connection ended too early, or the response is not HTTP.
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
    /// Connects, and completes the TLS handshake if `tls` has the server's name and trust.
    pub(super) fn connect(
        to: SocketAddr,
        tls: Option<(&str, &Trust)>,
        deadline: Deadline,
    ) -> Result<Self, WireError> {
        let stream = TcpStream::connect_timeout(&to, deadline.left().max(Duration::from_millis(1)))?;
        Self::over(stream, tls, deadline)
    }

    /// Completes the TLS handshake on a connection, if there is to be one.
    pub(super) fn over(
        stream: TcpStream,
        tls: Option<(&str, &Trust)>,
        deadline: Deadline,
    ) -> Result<Self, WireError> {
        let Some((host, trust)) = tls else { return Ok(Self::clear(stream, deadline)) };
        let config = tls_config::client_config(trust, &tls_config::provider()).map_err(WireError::Setup)?;
        Self::with_config(stream, host, config, deadline)
    }

    /// Completes the TLS handshake with this configuration.
    pub(super) fn with_config(
        stream: TcpStream,
        host: &str,
        config: Arc<ClientConfig>,
        deadline: Deadline,
    ) -> Result<Self, WireError> {
        let mut wire = Self::clear(stream, deadline);
        let name = ServerName::try_from(public_host(host).to_owned())
            .map_err(|_| WireError::Tls(format!("'{host}' is not a valid name for a certificate")))?;
        let mut tls = TlsSession::client(config, name)?;
        while !tls.is_secured() {
            wire.step(&mut tls)?;
        }
        wire.tls = Some(tls);
        Ok(wire)
    }

    fn clear(stream: TcpStream, deadline: Deadline) -> Self {
        let stream = Timed { stream, deadline };
        Self { stream, tls: None, wire: Vec::new(), plain: Plain(Vec::new()) }
    }

    /// The negotiated application protocol.
    pub(super) fn protocol(&self) -> Protocol {
        self.tls.as_ref().map_or(Protocol::Other, TlsSession::protocol)
    }

    /// The peer's end-entity certificate, DER.
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

    /// Receives the head of the response.
    pub(super) fn response(&mut self) -> Result<Response, WireError> {
        let mut finder = Finder::default();
        loop {
            let parsed = parse_response(&self.plain.0, &mut finder, &Limits::default());
            match parsed {
                Ok(Some(response)) => return Ok(response),
                Ok(None) => {}
                Err(_) => return Err(WireError::NoHttp),
            }
            self.receive()?;
        }
    }

    /// Receives the response with the start of its body, enough for a relay's error.
    pub(super) fn answer(&mut self) -> Result<(Response, Vec<u8>), WireError> {
        let response = self.response()?;
        let wanted = response.content_length.unwrap_or(0).min(BODY_MAX);
        let end = response.len + usize::try_from(wanted).unwrap_or(0);
        while self.plain.0.len() < end {
            self.receive()?;
        }
        Ok((response, self.plain.0[response.len..end].to_vec()))
    }

    /// Receives and opens the next bytes.
    fn receive(&mut self) -> Result<(), WireError> {
        match self.tls.take() {
            None => {
                let mut bytes = [0; 4096];
                match self.stream.read(&mut bytes)? {
                    0 => return Err(WireError::NoHttp),
                    n => self.plain.0.extend_from_slice(&bytes[..n]),
                }
                Ok(())
            }
            Some(mut tls) => {
                let stepped = self.step(&mut tls);
                self.tls = Some(tls);
                stepped
            }
        }
    }

    /// Sends pending TLS data and receives the next bytes.
    fn step(&mut self, tls: &mut TlsSession) -> Result<(), WireError> {
        if self.open(tls)? {
            return Ok(());
        }
        let mut bytes = [0; 4096];
        match self.stream.read(&mut bytes)? {
            0 => Err(WireError::NoHttp),
            n => {
                self.wire.extend_from_slice(&bytes[..n]);
                self.open(tls).map(drop)
            }
        }
    }

    /// Opens the received bytes. Returns whether that made progress.
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
        error.alert().map_or_else(|| Self::Tls(error.to_string()), Self::Alert)
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
            Self::Alert(alert) => write!(f, "it refuses the TLS handshake (alert {alert:?})"),
            Self::Setup(failure) => failure.fmt(f),
            Self::Proxy(why) => f.write_str(&reasons::proxy(*why)),
            Self::NoHttp => f.write_str("it ended the connection, or answered something that is not HTTP"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// A peer that sends these bytes, one every few milliseconds, and never ends.
    fn drip(bytes: impl Iterator<Item = u8> + Send + 'static) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("the test connects");
            for byte in bytes {
                if stream.write_all(&[byte]).is_err() {
                    return;
                }
                thread::sleep(Duration::from_millis(5));
            }
        });
        address
    }

    /// The result of a request with a timeout of one second.
    fn ask(to: SocketAddr, tls: Option<(&str, &Trust)>) -> String {
        let clock = Clock::start();
        let asked = Wire::connect(to, tls, Deadline::after(Duration::from_secs(1))).and_then(|mut wire| {
            wire.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")?;
            wire.response()
        });
        let took = Duration::from_micros(clock.now().mono.0);
        assert!(took >= Duration::from_secs(1), "it ended by itself after {took:?}");
        asked.map(|response| response.status.to_string()).unwrap_or_else(|error| error.to_string())
    }

    #[test]
    fn a_peer_that_drips_a_head_without_end_is_left_at_the_deadline() {
        let head = b"HTTP/1.1 200 OK\r\nX: ".iter().copied().chain(std::iter::repeat(b'x'));
        assert_eq!(ask(drip(head), None), "no answer in time");
    }

    #[test]
    fn a_peer_that_drips_interim_answers_without_end_is_left_at_the_deadline() {
        let fields = std::iter::repeat(&b"X: x\r\n"[..]).flatten().copied();
        assert_eq!(
            ask(drip(b"HTTP/1.1 103 Early Hints\r\n".iter().copied().chain(fields)), None),
            "no answer in time"
        );
    }

    #[test]
    fn a_peer_that_drips_a_handshake_without_end_is_left_at_the_deadline() {
        // The beginning of a record of 16 KiB.
        let record = [22, 3, 3, 64, 0].into_iter().chain(std::iter::repeat(2));
        assert_eq!(ask(drip(record), Some(("localhost", &Trust::Insecure))), "no answer in time");
    }

    #[test]
    fn a_silent_peer_is_left_at_the_deadline() {
        let late = std::iter::once_with(|| {
            thread::sleep(Duration::from_secs(3));
            b'H'
        });
        assert_eq!(ask(drip(late), None), "no answer in time");
    }
}
