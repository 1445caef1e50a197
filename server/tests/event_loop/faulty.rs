//! A network with faults: behaviour that systems may show but seldom do.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use rendezvous::net::{Edge, Net, Resolved};
use rendezvous_core::machine::ConnId;
use rendezvous_core::time::{Now, Span};

/// The faults.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    /// Limit of bytes per receive or send call; 0: none.
    pub(crate) cut: usize,
    /// One in so many calls returns `WouldBlock` although the socket is ready; 0: none.
    pub(crate) would_block: u32,
    /// Edges for connections that are not ready or no longer exist.
    pub(crate) spurious: bool,
    /// Errors of the first accept calls, the last one first.
    pub(crate) accept: Vec<i32>,
    /// The send call with this number, on the connection with this number, fails with `ConnectionReset`.
    pub(crate) broken_send: Option<(u32, u32)>,
    /// The error of splicing: not allowed, not available, not for this socket.
    pub(crate) unspliceable: Option<i32>,
}

/// `N` with faults.
pub(crate) struct Faulty<N: Net> {
    net: N,
    faults: Faults,
    /// The edges that follow a false `WouldBlock`.
    owed: Vec<Edge>,
    seen: Vec<ConnId>,
    accepted: u32,
    refused: BTreeMap<u16, (N::Sock, SocketAddr)>,
    dice: u32,
}

/// A socket with the state of its faults.
pub(crate) struct Sock<S> {
    sock: S,
    token: Option<ConnId>,
    number: u32,
    sends: u32,
}

impl<N: Net> Faulty<N> {
    pub(crate) const fn new(net: N, faults: Faults) -> Self {
        Self {
            net,
            faults,
            owed: Vec::new(),
            seen: Vec::new(),
            accepted: 0,
            refused: BTreeMap::new(),
            dice: 1,
        }
    }

    fn is_unlucky(&mut self, one_in: u32) -> bool {
        self.dice = self.dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        one_in > 0 && (self.dice >> 16).is_multiple_of(one_in)
    }

    fn block(&mut self, sock: &Sock<N::Sock>) -> io::Result<usize> {
        if let Some(token) = sock.token {
            self.owed.push(Edge::Conn { token, read: true, write: true });
        }
        Err(ErrorKind::WouldBlock.into())
    }

    const fn at_most(&self, bytes: usize) -> usize {
        if self.faults.cut > 0 && self.faults.cut < bytes { self.faults.cut } else { bytes }
    }
}

impl<N: Net> Net for Faulty<N> {
    type Sock = Sock<N::Sock>;
    type Pipe = N::Pipe;

    const BULK_MIN: usize = N::BULK_MIN;

    fn now(&mut self) -> Now {
        self.net.now()
    }

    fn wait(&mut self, edges: &mut Vec<Edge>, at_most: Option<Span>) -> io::Result<()> {
        let at_most = if self.owed.is_empty() { at_most } else { Some(Span::ZERO) };
        self.net.wait(edges, at_most)?;
        edges.append(&mut self.owed);
        if self.faults.spurious {
            let all = self.seen.iter().rev().take(8);
            edges.extend(all.map(|&token| Edge::Conn { token, read: true, write: true }));
            edges.push(Edge::Listener(0));
        }
        Ok(())
    }

    fn accept(&mut self, on: u16) -> io::Result<(Self::Sock, SocketAddr)> {
        let (sock, from) = match self.refused.remove(&on) {
            Some(refused) => refused,
            None => self.net.accept(on)?,
        };
        if let Some(errno) = self.faults.accept.pop() {
            // The connection is still pending, but there is no further edge for it.
            self.refused.insert(on, (sock, from));
            return Err(io::Error::from_raw_os_error(errno));
        }
        self.accepted += 1;
        Ok((Sock { sock, token: None, number: self.accepted, sends: 0 }, from))
    }

    fn rearm(&mut self, on: u16) -> io::Result<()> {
        self.net.rearm(on)
    }

    fn stop_listening(&mut self) {
        self.net.stop_listening();
    }

    fn connect(&mut self, to: SocketAddr) -> io::Result<Self::Sock> {
        self.net.connect(to).map(|sock| Sock { sock, token: None, number: 0, sends: 0 })
    }

    fn connected(&mut self, sock: &mut Self::Sock) -> io::Result<bool> {
        self.net.connected(&mut sock.sock)
    }

    fn local_address(&mut self, sock: &mut Self::Sock) -> io::Result<SocketAddr> {
        self.net.local_address(&mut sock.sock)
    }

    fn watch(&mut self, sock: &mut Self::Sock, token: ConnId) -> io::Result<()> {
        sock.token = Some(token);
        self.seen.push(token);
        self.net.watch(&mut sock.sock, token)
    }

    fn recv(&mut self, sock: &mut Self::Sock, into: &mut [u8]) -> io::Result<usize> {
        if self.is_unlucky(self.faults.would_block) {
            return self.block(sock);
        }
        let n = self.at_most(into.len());
        self.net.recv(&mut sock.sock, &mut into[..n])
    }

    fn peek_end(&mut self, sock: &mut Self::Sock) -> io::Result<bool> {
        if self.is_unlucky(self.faults.would_block) {
            return self.block(sock).map(|_| false);
        }
        self.net.peek_end(&mut sock.sock)
    }

    fn send(&mut self, sock: &mut Self::Sock, from: &[u8]) -> io::Result<usize> {
        if self.is_unlucky(self.faults.would_block) {
            return self.block(sock);
        }
        sock.sends += 1;
        if self.faults.broken_send == Some((sock.number, sock.sends)) {
            return Err(ErrorKind::ConnectionReset.into());
        }
        self.net.send(&mut sock.sock, &from[..self.at_most(from.len())])
    }

    fn take_pipe(&mut self, from: &Self::Sock, to: &Self::Sock) -> Option<N::Pipe> {
        // Pipes may run out at any time.
        if self.is_unlucky(self.faults.would_block) {
            return None;
        }
        self.net.take_pipe(&from.sock, &to.sock)
    }

    fn give_pipe(&mut self, pipe: N::Pipe) {
        self.net.give_pipe(pipe);
    }

    fn splice_in(&mut self, sock: &mut Self::Sock, pipe: &mut N::Pipe, at_most: usize) -> io::Result<usize> {
        if self.is_unlucky(self.faults.would_block) {
            return self.block(sock);
        }
        if let Some(error) = self.faults.unspliceable {
            return Err(io::Error::from_raw_os_error(error));
        }
        self.net.splice_in(&mut sock.sock, pipe, at_most)
    }

    fn splice_out(&mut self, pipe: &mut N::Pipe, sock: &mut Self::Sock) -> io::Result<usize> {
        if self.is_unlucky(self.faults.would_block) {
            return self.block(sock);
        }
        sock.sends += 1;
        if self.faults.broken_send == Some((sock.number, sock.sends)) {
            return Err(ErrorKind::ConnectionReset.into());
        }
        self.net.splice_out(pipe, &mut sock.sock)
    }

    fn end_write(&mut self, sock: &mut Self::Sock) -> io::Result<()> {
        self.net.end_write(&mut sock.sock)
    }

    fn close(&mut self, sock: Self::Sock) {
        self.net.close(sock.sock);
    }

    fn abort(&mut self, sock: Self::Sock) {
        self.net.abort(sock.sock);
    }

    fn take_error(&mut self, sock: &mut Self::Sock) -> Option<io::Error> {
        self.net.take_error(&mut sock.sock)
    }

    fn user_timeout(&mut self, sock: &mut Self::Sock, after: Option<Span>) {
        self.net.user_timeout(&mut sock.sock, after);
    }

    fn last_ack(&mut self, sock: &mut Self::Sock) -> Option<Span> {
        self.net.last_ack(&mut sock.sock)
    }

    fn unacknowledged(&mut self, sock: &mut Self::Sock) -> usize {
        self.net.unacknowledged(&mut sock.sock)
    }

    fn resolve(&mut self, on: ConnId, host: &str, port: u16) {
        self.net.resolve(on, host, port);
    }

    fn resolved(&mut self) -> Option<Resolved> {
        self.net.resolved()
    }
}
