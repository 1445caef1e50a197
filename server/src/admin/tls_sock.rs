//! A TCP connection of another machine, with TLS.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::sync::Arc;

use mio::net::TcpStream;
use rustls::ServerConfig;

use crate::buffer::{Buffer, RECORD_MAX};
use crate::tls::{HANDSHAKE_WIRE_MAX, Take, TlsSession, begins_with_method};

/// Bytes that are received in one call.
const RECEIVE: usize = 4 * 1024;

/// The result of a receive call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// This many bytes, at least one.
    Bytes(usize),
    /// No data: TLS has made progress.
    Nothing,
    /// The end of the stream.
    End,
}

pub(super) struct TlsSock {
    tcp: TcpStream,
    layer: Layer,
    /// Received bytes of records that are not complete.
    wire: Vec<u8>,
    /// Data that was not taken yet: at most that of one record and of one call.
    plain: Plain,
    out: Buffer,
    /// Whether the client sent close_notify.
    has_ended: bool,
}

enum Layer {
    /// Nothing was received yet.
    Undecided(TlsSession),
    Tls(TlsSession),
    /// The client sends plain HTTP.
    Clear,
}

#[derive(Default)]
struct Plain(Vec<u8>);

impl Take for Plain {
    fn has_room(&self) -> bool {
        true
    }

    fn take(&mut self, plain: &[u8]) {
        self.0.extend_from_slice(plain);
    }
}

impl TlsSock {
    pub(super) fn new(tcp: TcpStream, config: Arc<ServerConfig>) -> io::Result<Self> {
        let session = TlsSession::server(config).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Self {
            tcp,
            layer: Layer::Undecided(session),
            wire: Vec::new(),
            plain: Plain::default(),
            out: Buffer::with_room(0),
            has_ended: false,
        })
    }

    pub(super) const fn tcp(&mut self) -> &mut TcpStream {
        &mut self.tcp
    }

    /// Whether the client sends plain HTTP.
    pub(super) const fn is_clear(&self) -> bool {
        matches!(self.layer, Layer::Clear)
    }

    /// Whether sealed bytes wait to be sent.
    pub(super) const fn has_unsent(&self) -> bool {
        !self.out.is_empty()
    }

    /// Receives once, and opens what is complete.
    pub(super) fn recv(&mut self, into: &mut [u8]) -> io::Result<Received> {
        if !self.plain.0.is_empty() {
            let count = self.plain.0.len().min(into.len());
            into[..count].copy_from_slice(&self.plain.0[..count]);
            self.plain.0.drain(..count);
            return Ok(Received::Bytes(count));
        }
        if self.has_ended {
            return Ok(Received::End);
        }
        if self.wire.len() > HANDSHAKE_WIRE_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut bytes = [0; RECEIVE];
        let count = self.tcp.read(&mut bytes)?;
        if count == 0 {
            return Ok(Received::End);
        }
        let bytes = &bytes[..count];
        self.layer = match std::mem::replace(&mut self.layer, Layer::Clear) {
            Layer::Undecided(_) if begins_with_method(bytes) => Layer::Clear,
            Layer::Undecided(session) | Layer::Tls(session) => Layer::Tls(session),
            Layer::Clear => Layer::Clear,
        };
        let Layer::Tls(session) = &mut self.layer else {
            self.plain.take(bytes);
            return Ok(Received::Nothing);
        };
        self.wire.extend_from_slice(bytes);
        let opened = session.open(&mut self.wire, &mut self.out, &mut self.plain);
        // What cannot be sent now is sent before the next data.
        let _ = self.flush();
        let opened = opened.map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        self.wire.drain(..opened.consumed);
        self.has_ended = opened.ended;
        Ok(Received::Nothing)
    }

    /// Seals at most one record, and sends as much as possible. Returns how many bytes of `from` are sealed.
    pub(super) fn send(&mut self, from: &[u8]) -> io::Result<usize> {
        self.flush()?;
        let Layer::Tls(session) = &mut self.layer else { return self.tcp.write(from) };
        let record = &from[..from.len().min(RECORD_MAX)];
        session
            .seal_all(record, &mut self.out)
            .map_err(|_| io::Error::from(io::ErrorKind::ConnectionAborted))?;
        match self.flush() {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            Ok(()) | Err(_) => Ok(record.len()),
        }
    }

    /// Sends sealed bytes.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while !self.out.is_empty() {
            match self.tcp.write(self.out.filled()) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.out.consume(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    pub(super) fn end_write(&mut self) -> io::Result<()> {
        if let Layer::Tls(session) = &mut self.layer {
            session.seal_end(&mut self.out);
        }
        let _ = self.flush();
        self.tcp.shutdown(Shutdown::Write)
    }
}
