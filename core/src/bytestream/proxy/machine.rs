//! Events of sockets: one match over the state for each kind of event.

use alloc::vec::Vec;
use core::net::SocketAddr;

use super::{Proxy, State};
use crate::account::Owners;
use crate::bytestream::stanza::Condition;
use crate::machine::{Close, ConnId, DialFailure, End, Listener, Machine, Output, Secured, TlsFailure};
use crate::time::{Now, Span};

const ENDED: &str = "ended before anybody claimed it";

impl Machine for Proxy {
    fn handle_open(&mut self, listener: Listener, from: SocketAddr, now: Now) -> ConnId {
        let on = self.conns.insert(State::Unwanted, Some(from));
        *self.per_address.entry(self.conns.source(on)).or_insert(0) += 1;
        if self.draining || self.is_too_many(on) {
            let why = if self.draining { "shutting down" } else { "too many connections" };
            self.unwanted(on, Close::Abort, why, now);
            return on;
        }
        self.conns.emit(Output::Read { on, wanted: false });
        self.conns.set_state_until(on, State::Unclaimed, Some(now.mono + self.config.unclaimed));
        if let Some(oldest) = self.matching.open(on, listener, from) {
            const WHY: &str = "too many sockets that nobody claimed, and this one was the oldest";
            self.unwanted(oldest, Close::Abort, WHY, now);
        }
        self.process_matches(now);
        on
    }

    fn handle_resolved(&mut self, _: ConnId, _: &[SocketAddr], _: Now) {
        debug_assert!(false, "a proxy looks up no names");
    }

    fn handle_connected(&mut self, _: ConnId, _: Now) {
        debug_assert!(false, "a proxy dials nobody");
    }

    fn handle_dial_failed(&mut self, _: ConnId, _: DialFailure, _: Now) {
        debug_assert!(false, "a proxy dials nobody");
    }

    fn handle_secured(&mut self, _: ConnId, _: Secured, _: Now) {
        debug_assert!(false, "a proxy speaks no TLS");
    }

    fn handle_tls_failed(&mut self, _: ConnId, _: TlsFailure, _: Now) {
        debug_assert!(false, "a proxy speaks no TLS");
    }

    fn handle_bytes(&mut self, _: ConnId, _: &[u8], _: Now) -> usize {
        // The bytes are for the other side, if one comes.
        0
    }

    fn handle_moved(&mut self, from: ConnId, read: u32, queued: u32, now: Now) {
        let ended = self.conns.moved(from, read, queued, now);
        self.pair_over(ended, now);
    }

    fn handle_flushed(&mut self, on: ConnId, now: Now) {
        let ended = self.conns.flushed(on, now);
        self.pair_over(ended, now);
    }

    fn handle_acked(&mut self, on: ConnId, age: Option<Span>, now: Now) {
        let ended = self.conns.acked(on, age, now);
        self.pair_over(ended, now);
    }

    fn handle_end(&mut self, on: ConnId, how: End, now: Now) {
        let close = if how == End::Clean { Close::Linger } else { Close::Abort };
        match self.conns.state(on) {
            Some(State::Unclaimed) => self.end_unclaimed(on, close, ENDED, now),
            Some(State::Claimed { .. }) => self.end_claimed(on, close, Condition::ItemNotFound, now),
            Some(State::Paired { .. }) => {
                let ended = self.conns.end(on, how, now);
                self.pair_over(ended, now);
            }
            Some(State::Unwanted) | None => {}
        }
        self.process_matches(now);
    }

    fn handle_write_failed(&mut self, on: ConnId, now: Now) {
        match self.conns.state(on) {
            Some(State::Unclaimed) => self.end_unclaimed(on, Close::Abort, ENDED, now),
            Some(State::Claimed { .. }) => self.end_claimed(on, Close::Abort, Condition::ItemNotFound, now),
            Some(State::Paired { .. }) => {
                let ended = self.conns.write_failed(on, now);
                self.pair_over(ended, now);
            }
            Some(State::Unwanted) | None => {}
        }
        self.process_matches(now);
    }

    fn handle_stalled(&mut self, on: ConnId, now: Now) {
        let ended = self.conns.stalled(on, now);
        self.pair_over(ended, now);
        if self.conns.state(on).is_some() {
            self.handle_end(on, End::Reset, now);
        }
    }

    fn owners(&self, on: ConnId) -> Owners {
        Owners::of_peer(self.conns.from(on))
    }

    fn handle_closed(&mut self, on: ConnId, _: Now) {
        let source = self.conns.source(on);
        if let Some(connections) = self.per_address.get_mut(&source) {
            *connections -= 1;
            if *connections == 0 {
                self.per_address.remove(&source);
            }
        }
        self.conns.forget(on);
    }

    fn handle_timeout(&mut self, now: Now) {
        while let Some(on) = self.conns.expired(now) {
            match self.conns.state(on) {
                Some(State::Unclaimed) => self.end_unclaimed(on, Close::Abort, "nobody claimed it", now),
                Some(State::Claimed { .. }) => {
                    self.end_claimed(on, Close::Abort, Condition::RemoteServerTimeout, now)
                }
                Some(State::Paired { .. }) => {
                    let ended = self.conns.pair_timeout(on, now);
                    self.pair_over(ended, now);
                }
                Some(State::Unwanted) | None => {}
            }
        }
        // A socket that was just closed may have left a single match for a claim.
        self.process_matches(now);
        while let Some(claim) = self.matching.expired(now.mono) {
            self.fail(claim, Condition::ItemNotFound, now);
        }
        self.process_matches(now);
    }

    fn poll_output(&mut self, text: &mut Vec<u8>) -> Output {
        match self.conns.poll(text, State::why) {
            Output::Idle { until, why } => match self.matching.deadline() {
                Some(grace) if until.is_none_or(|until| grace < until) => {
                    Output::Idle { until: Some(grace), why: "a claim's socket" }
                }
                _ => Output::Idle { until, why },
            },
            output => output,
        }
    }
}
