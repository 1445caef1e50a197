//! Accepting connections: bounded batches, and a retry after accept errors.

use std::io;
use std::net::SocketAddr;

use rendezvous_core::machine::{ConnId, End, Listener, Machine};
use rendezvous_core::time::{Span, Time};

use super::{EventLoop, Input};
use crate::net::Net;
use crate::slot::{Link, Reading, Slot};

/// Limit of connections that one listener accepts in one turn.
const ACCEPTS_MAX: usize = 128;
/// Delay before a listener is tried again after an accept error (no descriptors or no memory).
const BACKOFF: Span = Span::from_millis(100);

/// State of a listener's backlog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Backlog {
    /// Empty until the next edge.
    Empty,
    /// There may be connections to accept.
    Some,
    /// Accepting failed. The poll is edge-triggered and reports no further edge, so the listener is tried again at
    /// `until`.
    BackingOff { until: Time },
}

impl Backlog {
    /// The initial states: connections may have arrived before the loop started, without an edge.
    pub(super) fn all(listeners: u16) -> Vec<Self> {
        vec![Self::Some; usize::from(listeners)]
    }
}

impl<N: Net, M: Machine> EventLoop<N, M> {
    /// Pauses or resumes accepting. Connections wait in the backlogs meanwhile.
    pub fn pause_accepting(&mut self, paused: bool) {
        self.accept_paused = paused;
        if !paused {
            // Connections may have arrived, or another process may have accepted them.
            self.accepting.fill(Backlog::Some);
        }
    }
}

impl<N: Net> EventLoop<N, dyn Machine> {
    pub(super) fn accept_edge(&mut self, on: u16) {
        if let Some(backlog) = self.accepting.get_mut(usize::from(on))
            && *backlog == Backlog::Empty
        {
            *backlog = Backlog::Some;
        }
    }

    pub(super) fn accept_all(&mut self) {
        if self.accept_paused {
            return;
        }
        for listener in 0..self.accepting.len() {
            let on = u16::try_from(listener).unwrap_or(u16::MAX);
            match self.accepting.get(listener) {
                Some(Backlog::Some) => self.accept_some(on),
                Some(Backlog::BackingOff { until }) if *until <= self.now.mono => self.accept_again(on),
                _ => {}
            }
        }
    }

    /// Time until a listener is to be tried again.
    pub(super) fn accept_retry(&self) -> Option<Span> {
        if self.accept_paused {
            return None;
        }
        let wait = |backlog: &Backlog| match backlog {
            Backlog::Empty => None,
            Backlog::Some => Some(Span::ZERO),
            Backlog::BackingOff { until } => Some(until.since(self.now.mono)),
        };
        self.accepting.iter().filter_map(wait).min()
    }

    /// Retries listeners after accept errors at once, because a descriptor has become free.
    pub(super) fn end_backoff(&mut self) {
        for backlog in &mut self.accepting {
            if let Backlog::BackingOff { until } = backlog {
                *until = self.now.mono;
            }
        }
    }

    pub(super) fn admit(&mut self, on: Listener, mut sock: N::Sock, from: SocketAddr) -> io::Result<ConnId> {
        let id = self.machine.handle_open(on, from, self.now);
        let watched = self.net.watch(&mut sock, id);
        self.put(Slot::new(id, Link::Up(sock)));
        self.enqueue(id);
        self.settle();
        if watched.is_err()
            && let Some(slot) = self.slot(id)
            && slot.read.phase == Reading::Open
        {
            slot.read.phase = Reading::Ended;
            self.inputs.push_back(Input::Ended(id, End::Reset));
            self.settle();
        }
        watched.map(|()| id)
    }

    fn accept_again(&mut self, on: u16) {
        if self.net.rearm(on).is_ok() {
            self.accept_some(on);
        } else {
            self.back_off(on);
        }
    }

    fn accept_some(&mut self, on: u16) {
        for _ in 0..ACCEPTS_MAX {
            match self.net.accept(on) {
                Ok((sock, from)) => {
                    if let Err(error) = self.admit(Listener(on), sock, from) {
                        log::warn!("event=accept reason={:?}", error.to_string());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return self.set_backlog(on, Backlog::Empty);
                }
                // The connection was reset before it was accepted, or the call was interrupted: accept the next one.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted
                    ) => {}
                // Draining sockets hold descriptors: close them and try again.
                Err(_) if !self.draining.is_empty() => {
                    self.close_draining();
                    self.back_off(on);
                    return self.end_backoff();
                }
                Err(error) => {
                    // Logged once until the backlog is empty.
                    if !matches!(self.accepting.get(usize::from(on)), Some(Backlog::BackingOff { .. })) {
                        log::warn!(
                            "event=accept reason={:?} hint=\"more descriptors: ulimit -n\"",
                            error.to_string()
                        );
                    }
                    return self.back_off(on);
                }
            }
        }
        self.set_backlog(on, Backlog::Some);
    }

    fn back_off(&mut self, on: u16) {
        self.set_backlog(on, Backlog::BackingOff { until: self.now.mono + BACKOFF });
    }

    fn set_backlog(&mut self, on: u16, to: Backlog) {
        if let Some(backlog) = self.accepting.get_mut(usize::from(on)) {
            *backlog = to;
        }
    }
}
