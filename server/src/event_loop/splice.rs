//! Splicing: moves the bytes of a cleartext pair through a kernel pipe, without copying them to user space.
//!
//! A pipe belongs to the destination while bytes are in it, and to the pool otherwise. It is filled only when it is
//! empty: so the bytes queued for a slow reader are bounded, and `WouldBlock` always means 'no data', never 'no room'.

use std::io;

use rendezvous_core::machine::{ConnId, Machine};

use super::EventLoop;
use super::read::Received;
use crate::net::{Net, is_unspliceable};
use crate::slot::Link;

impl<N: Net> EventLoop<N, dyn Machine> {
    /// Receives at most `at_most` bytes into a pipe for the peer. Returns `None` if splicing is impossible or not worth
    /// it.
    pub(super) fn splice(&mut self, on: ConnId, peer: ConnId, at_most: usize) -> Option<Received> {
        if !self.slot(on)?.read.bulk || !self.slot(peer)?.is_drained() {
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
        let received = self.classify(on, received);
        if let Received::Bytes(bytes) = received {
            self.stats.spliced += bytes as u64;
        }
        match (received, self.slot(peer)) {
            (Received::Bytes(_), Some(dst)) => {
                dst.write.pipe = Some(pipe);
                self.end_wait(on);
            }
            _ => self.net.give_pipe(pipe),
        }
        Some(received)
    }

    /// Releases the pipe of a connection and discards the bytes in it.
    pub(super) fn drop_pipe(&mut self, on: ConnId) {
        if let Some(pipe) = self.slot(on).and_then(|slot| slot.write.pipe.take()) {
            self.net.give_pipe(pipe);
        }
    }
}
