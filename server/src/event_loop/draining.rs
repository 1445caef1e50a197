//! Sockets of closed connections whose peers have not acknowledged everything yet.
//!
//! After close(2) the kernel goes on sending, but the result is unknown; if it runs short of TCP memory, it drops the
//! remaining data of orphaned sockets. So a socket is closed only when its send queue is empty.

use std::collections::VecDeque;

use rendezvous_core::machine::Machine;
use rendezvous_core::time::{Span, Time};

use super::EventLoop;
use crate::net::Net;

/// Limit of draining sockets. Beyond it the oldest one is closed, and the kernel sends the rest.
const DRAINING_MAX: usize = 256;
/// A draining socket is closed if its peer acknowledges nothing for this long.
const DRAINING_IDLE: Span = Span::from_secs(10);
/// A draining socket is closed after this time, even if its peer still makes progress.
const DRAINING_TIMEOUT: Span = Span::from_secs(5 * 60);
/// Bounds of the polling interval, which grows with the time that a socket has drained. No event reports an empty send
/// queue.
const LOOK_MIN: Span = Span::from_millis(1);
const LOOK_MAX: Span = Span::from_millis(50);

/// The draining sockets, oldest first.
#[derive(Debug)]
pub(super) struct Draining<S> {
    sockets: VecDeque<Socket<S>>,
    /// Number of paired sockets that were closed with data in their send queue.
    undelivered: u64,
}

#[derive(Debug)]
struct Socket<S> {
    sock: S,
    /// Whether the connection was half of a pair.
    was_paired: bool,
    /// Unacknowledged bytes.
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

    /// Removes all sockets, to be closed now.
    pub(super) fn take(&mut self) -> impl Iterator<Item = S> + use<S> {
        let sockets = std::mem::take(&mut self.sockets);
        self.undelivered += sockets.iter().filter(|socket| socket.was_paired).count() as u64;
        sockets.into_iter().map(|socket| socket.sock)
    }

    /// Time until the sockets are polled again. It grows with the age of the newest one.
    pub(super) fn due(&self, now: Time) -> Option<Span> {
        let last = self.sockets.back()?;
        Some(Span(now.since(last.since).0 / 2).clamp(LOOK_MIN, LOOK_MAX))
    }
}

impl<N: Net> EventLoop<N, dyn Machine> {
    /// Closes the socket of a closed connection as soon as its peer has acknowledged everything.
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

    /// Closes the sockets whose peer has acknowledged everything or has timed out.
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
            self.end_backoff();
        }
    }

    /// Closes all draining sockets to free descriptors. The kernel sends what is left.
    pub(super) fn close_draining(&mut self) {
        for sock in self.draining.take() {
            self.net.close(sock);
        }
    }
}
