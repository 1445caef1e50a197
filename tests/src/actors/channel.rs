//! One connection of an actor, with or without TLS.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;

use rendezvous_core::machine::End;
use rustls::ClientConnection;
use rustls::pki_types::ServerName;

use crate::sim_net::{Ep, World};

/// The configuration of a TLS client.
pub type Tls = Arc<rustls::ClientConfig>;

/// The result of a receiving call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// This number of bytes.
    Bytes(usize),
    /// No data for now.
    Nothing,
    /// No more data: the connection has ended.
    End(End),
}

/// A connection.
pub struct Channel {
    ep: Ep,
    tls: Option<Box<ClientConnection>>,
    /// The end of the TCP connection below TLS.
    wire_end: Option<End>,
    /// A send has already reported the reset.
    reset_seen: bool,
    closed: bool,
}

/// Adapts the simulated socket to rustls.
struct Wire<'a>(&'a mut World, Ep);

impl Read for Wire<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.recv(self.1, into)
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.0.send(self.1, from)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Channel {
    /// Wraps a connection, in TLS if there is a configuration.
    ///
    /// # Panics
    /// The configuration is invalid.
    #[must_use]
    pub fn new(ep: Ep, tls: Option<&Tls>) -> Self {
        let tls = tls.map(|config| {
            let name = ServerName::try_from("relay").expect("a good name");
            let mut tls = ClientConnection::new(Arc::clone(config), name).expect("a good configuration");
            tls.set_buffer_limit(Some(20_000));
            Box::new(tls)
        });
        Self { ep, tls, wire_end: None, reset_seen: false, closed: false }
    }

    /// Its simulated socket.
    #[must_use]
    pub const fn ep(&self) -> Ep {
        self.ep
    }

    /// Whether this side has closed it.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.closed
    }

    /// Receives bytes.
    pub fn recv(&mut self, world: &mut World, into: &mut [u8]) -> Received {
        let Some(tls) = &mut self.tls else {
            return match world.recv(self.ep, into) {
                Ok(0) if self.reset_seen => Received::End(End::Reset),
                Ok(0) => Received::End(End::Clean),
                Ok(n) => Received::Bytes(n),
                Err(error) if error.kind() == ErrorKind::WouldBlock => Received::Nothing,
                Err(_) => Received::End(End::Reset),
            };
        };
        loop {
            match tls.reader().read(into) {
                Ok(0) => return Received::End(End::Clean),
                Ok(n) => return Received::Bytes(n),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return Received::End(self.wire_end.unwrap_or(End::Truncated)),
            }
            if let Some(end) = self.wire_end {
                return Received::End(end);
            }
            match tls.read_tls(&mut Wire(world, self.ep)) {
                Ok(0) => self.wire_end = Some(End::Truncated),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    flush(tls, world, self.ep);
                    return Received::Nothing;
                }
                Err(_) => self.wire_end = Some(End::Reset),
            }
            if tls.process_new_packets().is_err() {
                flush(tls, world, self.ep);
                self.wire_end = Some(End::Reset);
            }
        }
    }

    /// Sends as many bytes as there is room for.
    pub fn send(&mut self, world: &mut World, from: &[u8]) -> usize {
        let Some(tls) = &mut self.tls else {
            return match world.send(self.ep, from) {
                Ok(n) => n,
                Err(error) => {
                    // The kernel reports a reset once: a caller that got it from a send does not get it from a receive.
                    self.reset_seen |= !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::BrokenPipe);
                    0
                }
            };
        };
        flush(tls, world, self.ep);
        // Bytes that would be queued here are not sent: the ledger counts only what is on the wire.
        if tls.is_handshaking() || tls.wants_write() || !world.can_send(self.ep) {
            return 0;
        }
        let n = tls.writer().write(from).unwrap_or(0);
        flush(tls, world, self.ep);
        n
    }

    /// Sends what TLS has queued. Returns whether everything is on the wire.
    pub fn flush(&mut self, world: &mut World) -> bool {
        let Some(tls) = &mut self.tls else { return true };
        flush(tls, world, self.ep);
        !tls.wants_write()
    }

    /// Ends the writing side cleanly. Returns false if the caller has to try again.
    pub fn end_write(&mut self, world: &mut World, notify: bool) -> bool {
        if !self.flush(world) {
            return false;
        }
        if let Some(tls) = self.tls.as_mut().filter(|_| notify) {
            tls.send_close_notify();
            flush(tls, world, self.ep);
            if tls.wants_write() && world.can_send(self.ep) {
                return false;
            }
        }
        let _ = world.end_write(self.ep);
        true
    }

    /// Closes the connection.
    pub fn close(&mut self, world: &mut World) {
        if !std::mem::replace(&mut self.closed, true) {
            world.close(self.ep);
        }
    }

    /// Resets the connection.
    pub fn abort(&mut self, world: &mut World) {
        if !std::mem::replace(&mut self.closed, true) {
            world.abort(self.ep);
        }
    }

    /// Whether it uses TLS.
    #[must_use]
    pub const fn is_tls(&self) -> bool {
        self.tls.is_some()
    }
}

fn flush(tls: &mut ClientConnection, world: &mut World, ep: Ep) {
    while tls.wants_write() && tls.write_tls(&mut Wire(world, ep)).is_ok_and(|n| n > 0) {}
}
