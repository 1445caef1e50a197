//! Octets of a pair in clear, through a pipe of the system: received into it and sent from it, never seen here.
//!
//! A pipe is the destination's as long as octets are in it, and nobody's otherwise. It is received into when it is
//! empty, and only then: so what waits for a slow reader is bounded, and 'nothing there' is never 'no room'.

use std::io;

use rendezvous_core::machine::{ConnId, Machine};

use super::EventLoop;
use super::read::Received;
use crate::net::{Net, is_unspliceable};
use crate::slot::Link;

impl<N: Net> EventLoop<N, dyn Machine> {
    /// Receives at most `at_most` bytes into a pipe for the mate; `None` where that can't be, or does not pay.
    pub(super) fn splice(&mut self, on: ConnId, peer: ConnId, at_most: usize) -> Option<Received> {
        if !self.slot(on)?.bulk || !self.slot(peer)?.is_drained() {
            return None;
        }
        let Some(room) = self.granted(on) else { return Some(Received::Nothing) };
        let mut pipe = {
            let link = |on: ConnId| self.slots.get(on.index as usize)?.as_ref().map(|slot| &slot.link);
            let (Some(Link::Up(from)), Some(Link::Up(to))) = (link(on), link(peer)) else { return None };
            self.net.take_pipe(from, to)?
        };
        let (slot, net) = self.slot_and_net(on)?;
        let received = match slot.sock() {
            Some(sock) => net.splice_in(sock, &mut pipe, at_most.min(room)),
            None => Err(io::ErrorKind::Unsupported.into()),
        };
        if received.as_ref().is_err_and(is_unspliceable) {
            self.net.give_pipe(pipe);
            return None;
        }
        let received = self.judge(on, received);
        if let Received::Octets(octets) = received {
            self.stats.spliced += octets as u64;
        }
        match (received, self.slot(peer)) {
            (Received::Octets(_), Some(dst)) => {
                dst.pipe = Some(pipe);
                self.end_wait(on);
            }
            _ => self.net.give_pipe(pipe),
        }
        Some(received)
    }

    /// Gives the pipe back that a connection has, with what is in it: nobody takes that any more.
    pub(super) fn drop_pipe(&mut self, on: ConnId) {
        if let Some(pipe) = self.slot(on).and_then(|slot| slot.pipe.take()) {
            self.net.give_pipe(pipe);
        }
    }
}
