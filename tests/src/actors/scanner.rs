//! Scanners: garbage, half a head, silence.

use std::net::SocketAddr;

use rendezvous_core::time::{Span, Time};

use super::Actor;
use crate::model::ByteLedger;
use crate::rng::Rng;
use crate::sim_net::{Ep, ProcessId, World};

/// What scanners send.
const TEXTS: [&[u8]; 12] = [
    b"",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET / HTTP/1.0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /",
    b"\r\n\r\n\r\n\0\0\0\0",
    b"CONNECT uuid:00000000-0000-0000-0000-000000000000?response=12345678 HTTP/1.1\r\n\r\n",
    b"CONNECT google.com:443 HTTP/1.1\r\nHost: google.com\r\n\r\nmore",
    b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 40000\r\n\r\nbody",
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n",
    b"SSH-2.0-Go\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Basic =\r\n\r\n",
];

/// A scanner: connects, sends some text, and stays for a while.
pub struct Scanner {
    to: SocketAddr,
    begins: Time,
    stays: Span,
    rng: Rng,
    text: Vec<u8>,
    slow: bool,
    unread: bool,
    next: Time,
    ep: Option<Ep>,
    over: bool,
}

impl Scanner {
    /// A scanner that starts at this time.
    #[must_use]
    pub fn new(to: SocketAddr, begins: Time, mut rng: Rng) -> Self {
        let which = usize::try_from(rng.below(TEXTS.len() as u64 + 2)).unwrap_or(0);
        let text = match TEXTS.get(which) {
            Some(text) => text.to_vec(),
            None => (0..rng.length(40_000)).map(|_| rng.next_u64().to_le_bytes()[0]).collect(),
        };
        let stays = Span::from_secs(rng.between(0, 100));
        let (slow, unread) = (rng.below(3) == 0, rng.below(4) == 0);
        Self { to, begins, stays, rng, text, slow, unread, next: begins, ep: None, over: false }
    }
}

impl Actor for Scanner {
    fn act(&mut self, who: ProcessId, world: &mut World, _: &mut ByteLedger) {
        if self.over {
            return;
        }
        if world.now() < self.begins {
            return world.sleep_until(who, self.begins);
        }
        let ep = match self.ep {
            Some(ep) => ep,
            None => match world.connect(who, self.to) {
                Ok(ep) => *self.ep.insert(ep),
                Err(_) => return self.over = true,
            },
        };
        let leaves = self.begins + self.stays;
        let up = world.connected(ep);
        if world.now() >= leaves || up.is_err() {
            self.over = true;
            return if self.rng.below(2) == 0 { world.close(ep) } else { world.abort(ep) };
        }
        world.sleep_until(who, leaves);
        if !matches!(up, Ok(true)) {
            return;
        }
        if world.now() >= self.next {
            let most = if self.slow { 1 } else { self.text.len() };
            let n = world.send(ep, &self.text[..most.min(self.text.len())]).unwrap_or(0);
            self.text.drain(..n);
            self.next = world.now() + if self.slow { Span::from_millis(700) } else { Span::ZERO };
            if self.slow && !self.text.is_empty() {
                world.sleep_until(who, self.next);
            }
        }
        let mut buffer = [0; 4_096];
        while !self.unread {
            match world.recv(ep, &mut buffer) {
                Ok(n) if n > 0 => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                _ => {
                    self.over = true;
                    return world.close(ep);
                }
            }
        }
    }

    fn retire(&mut self) {
        self.over |= self.ep.is_none();
    }

    fn leave(&mut self, world: &mut World) {
        if let Some(ep) = self.ep.filter(|_| !self.over) {
            world.abort(ep);
        }
        self.over = true;
    }

    fn is_done(&self) -> bool {
        self.over
    }
}
