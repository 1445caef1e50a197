//! Sockets of connections that are over, whose peer has not acknowledged everything yet.
//!
//! After a close the system goes on sending, but nobody learns whether it succeeds; and if it is short of memory for TCP
//! it drops what is left, since nobody owns it. So a socket is closed when its send queue is empty.

use std::collections::VecDeque;

use rendezvous_core::machine::Machine;
use rendezvous_core::time::{Span, Time};

use super::EventLoop;
use crate::net::Net;

/// How many such sockets are kept. If there are more, the oldest are closed, and the system goes on by itself.
const DRAINING_MAX: usize = 256;
/// A socket is closed if its peer acknowledges nothing for this long.
const DRAINING_IDLE: Span = Span::from_secs(10);
/// A socket is closed after this long, whatever its peer acknowledges.
const DRAINING_TIMEOUT: Span = Span::from_secs(5 * 60);
/// How often it is looked, depending on how long it takes: no event tells that a queue is empty.
const LOOK_MIN: Span = Span::from_millis(1);
const LOOK_MAX: Span = Span::from_millis(50);

/// The sockets, those that were closed first in front.
#[derive(Debug)]
pub(super) struct Draining<S> {
    sockets: VecDeque<Socket<S>>,
    /// How many sockets of pairs were closed although their queue was not empty.
    undelivered: u64,
}

#[derive(Debug)]
struct Socket<S> {
    sock: S,
    /// It was half of a pair.
    was_paired: bool,
    /// Bytes that are not acknowledged.
    left: usize,
    since: Time,
    /// When the peer last acknowledged something.
    progress: Time,
}

impl<S> Draining<S> {
    pub(super) const fn new() -> Self {
        Self { sockets: VecDeque::new(), undelivered: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    pub(super) const fn undelivered(&self) -> u64 {
        self.undelivered
    }

    /// All of them, to be closed now.
    pub(super) fn take(&mut self) -> impl Iterator<Item = S> + use<S> {
        let sockets = std::mem::take(&mut self.sockets);
        self.undelivered += sockets.iter().filter(|socket| socket.was_paired).count() as u64;
        sockets.into_iter().map(|socket| socket.sock)
    }

    /// How long until it is to be looked again: the longer the last one takes, the longer.
    pub(super) fn due(&self, now: Time) -> Option<Span> {
        let last = self.sockets.back()?;
        Some(Span(now.since(last.since).0 / 2).clamp(LOOK_MIN, LOOK_MAX))
    }
}

impl<N: Net> EventLoop<N, dyn Machine> {
    /// Closes a socket whose connection is over, as soon as its peer has everything.
    pub(super) fn close_delivered(&mut self, mut sock: N::Sock, was_paired: bool) {
        let left = self.net.unacknowledged(&mut sock);
        if left == 0 {
            return self.net.close(sock);
        }
        if self.draining.sockets.len() >= DRAINING_MAX
            && let Some(oldest) = self.draining.sockets.pop_front()
        {
            self.draining.undelivered += u64::from(oldest.was_paired);
            self.net.close(oldest.sock);
        }
        let now = self.now.mono;
        self.draining.sockets.push_back(Socket { sock, was_paired, left, since: now, progress: now });
    }

    /// Closes the sockets whose peer has everything by now, or takes too long.
    pub(super) fn finish_draining(&mut self) {
        if self.draining.is_empty() {
            return;
        }
        let now = self.now.mono;
        for mut socket in std::mem::take(&mut self.draining.sockets) {
            let left = self.net.unacknowledged(&mut socket.sock);
            if left < socket.left {
                (socket.left, socket.progress) = (left, now);
            }
            let is_late =
                now.since(socket.progress) >= DRAINING_IDLE || now.since(socket.since) >= DRAINING_TIMEOUT;
            if left > 0 && !is_late && self.net.take_error(&mut socket.sock).is_none() {
                self.draining.sockets.push_back(socket);
                continue;
            }
            self.draining.undelivered += u64::from(left > 0 && socket.was_paired);
            self.net.close(socket.sock);
            self.end_rest();
        }
    }

    /// Makes room for new connections: the system goes on by itself with what is left.
    pub(super) fn close_draining(&mut self) {
        for sock in self.draining.take() {
            self.net.close(sock);
        }
    }
}
