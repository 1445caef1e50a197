//! Attackers that make a relay hold bytes: they send parts of messages, or messages whose answers they never read.

use std::net::SocketAddr;

use rendezvous_core::time::{Span, Time};

use super::Actor;
use crate::model::ByteLedger;
use crate::sim_net::{Ep, ProcessId, World};

/// Maximum number of sends per turn.
const CALLS_MAX: usize = 8;
/// How long it waits before it reconnects.
const PAUSE: Span = Span::from_millis(500);

/// An attacker: connects, sends its text, reads nothing, and reconnects when it is disconnected.
pub struct Greedy {
    to: SocketAddr,
    text: Vec<u8>,
    /// The text is sent repeatedly.
    again: bool,
    sent: usize,
    next: Time,
    ep: Option<Ep>,
    over: bool,
}

impl Greedy {
    /// An attacker that starts at this time.
    #[must_use]
    pub const fn new(to: SocketAddr, begins: Time, text: Vec<u8>, again: bool) -> Self {
        Self { to, text, again, sent: 0, next: begins, ep: None, over: false }
    }

    fn pause(&mut self, who: ProcessId, world: &mut World) {
        self.next = world.now() + PAUSE;
        world.sleep_until(who, self.next);
    }
}

impl Actor for Greedy {
    fn act(&mut self, who: ProcessId, world: &mut World, _: &mut ByteLedger) {
        if self.over {
            return;
        }
        if world.now() < self.next {
            return world.sleep_until(who, self.next);
        }
        let ep = match self.ep {
            Some(ep) => ep,
            None => match world.connect(who, self.to) {
                Ok(ep) => {
                    self.sent = 0;
                    *self.ep.insert(ep)
                }
                Err(_) => return self.pause(who, world),
            },
        };
        if world.connected(ep).is_err() || world.is_dead(ep) || world.has_fin(ep) {
            world.abort(ep);
            self.ep = None;
            return self.pause(who, world);
        }
        for _ in 0..CALLS_MAX {
            if self.sent == self.text.len() {
                if !self.again {
                    return;
                }
                self.sent = 0;
            }
            match world.send(ep, &self.text[self.sent..]) {
                Ok(n) => self.sent += n,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    world.abort(ep);
                    self.ep = None;
                    return self.pause(who, world);
                }
            }
        }
        self.next = world.now() + Span::from_millis(1);
        world.sleep_until(who, self.next);
    }

    fn retire(&mut self) {
        self.over |= self.ep.is_none();
    }

    fn leave(&mut self, world: &mut World) {
        if let Some(ep) = self.ep.take().filter(|_| !self.over) {
            world.abort(ep);
        }
        self.over = true;
    }

    fn is_done(&self) -> bool {
        self.over
    }
}
