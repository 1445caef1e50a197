//! Events of connections: one match over the state for each kind of event.

use alloc::vec::Vec;
use core::net::SocketAddr;

use super::{Entity, Role, State};
use crate::account::Owners;
use crate::bytestream::name::IqId;
use crate::bytestream::stanza::Condition;
use crate::machine::{Close, ConnId, DialFailure, End, Listener, Machine, Output, Secured, TlsFailure};
use crate::time::{Now, Span};

impl Machine for Entity {
    fn handle_open(&mut self, listener: Listener, from: SocketAddr, now: Now) -> ConnId {
        let on = self.conns.insert(State::Unwanted, Some(from));
        self.conns.emit(Output::Read { on, wanted: false });
        let is_local = usize::from(listener.0) >= self.config.rules.listeners.len();
        if self.draining {
            self.unwanted(on, Close::Abort, "shutting down", now);
        } else if is_local {
            self.conns.set_state_until(on, State::Local { session: None }, None);
            match self.config.peer.clone() {
                Some(peer) => self.handle_begin(peer, Some(on), now),
                None => self.free.push_back(on),
            }
        } else if self.awaits_socket() {
            self.conns.set_state_until(on, State::Unclaimed, Some(now.mono + self.config.unclaimed));
            if let Some(oldest) = self.matching.open(on, listener, from) {
                const WHY: &str = "too many sockets that nobody claimed, and this one was the oldest";
                self.unwanted(oldest, Close::Abort, WHY, now);
            }
        } else {
            self.unwanted(on, Close::Abort, "nobody waits for a stream", now);
        }
        self.process_matches(now);
        on
    }

    fn handle_resolved(&mut self, _: ConnId, _: &[SocketAddr], _: Now) {
        debug_assert!(false, "an entity looks up no names");
    }

    fn handle_connected(&mut self, on: ConnId, now: Now) {
        match self.conns.state(on) {
            Some(State::Dialling { .. }) => {
                self.conns.emit(Output::Read { on, wanted: false });
                self.conns.emit(Output::LocalAddress { on });
            }
            Some(&mut State::Service { stream }) => {
                if let Some(&mut State::Ready { has_ended, .. }) = self.conns.state(stream) {
                    self.pair(stream, on, has_ended, now);
                }
            }
            _ => {}
        }
        self.process_matches(now);
    }

    fn handle_dial_failed(&mut self, on: ConnId, _: DialFailure, now: Now) {
        match self.conns.state(on) {
            Some(&mut State::Dialling { session }) => self.dial_failed(on, session, now),
            Some(State::Service { .. }) => self.no_service(on, now),
            _ => {}
        }
        self.process_matches(now);
    }

    fn handle_secured(&mut self, _: ConnId, _: Secured, _: Now) {
        debug_assert!(false, "a stream has no protocol of ours");
    }

    fn handle_tls_failed(&mut self, _: ConnId, _: TlsFailure, _: Now) {
        debug_assert!(false, "a stream has no protocol of ours");
    }

    fn handle_bytes(&mut self, _: ConnId, _: &[u8], _: Now) -> usize {
        // The bytes are for the other side, when the stream is clear.
        0
    }

    fn handle_moved(&mut self, from: ConnId, read: u32, queued: u32, now: Now) {
        let ended = self.conns.moved(from, read, queued, now);
        self.pair_over(ended);
    }

    fn handle_flushed(&mut self, on: ConnId, now: Now) {
        let ended = self.conns.flushed(on, now);
        self.pair_over(ended);
    }

    fn handle_acked(&mut self, on: ConnId, age: Option<Span>, now: Now) {
        let ended = self.conns.acked(on, age, now);
        self.pair_over(ended);
    }

    fn handle_local_address(&mut self, on: ConnId, local: SocketAddr, now: Now) {
        let Some(&mut State::Dialling { session }) = self.conns.state(on) else { return };
        self.conns.set_state_until(on, State::Stream { session, has_ended: false }, None);
        let iq = IqId::random(&mut self.entropy);
        self.with_role(session, now, |role, now| match role {
            Role::Initiator(initiator) => initiator.on_connected(local.port(), iq, now.mono),
            Role::Target(target) => target.on_connected(local.port(), iq, now.mono),
        });
        self.process_matches(now);
    }

    fn handle_end(&mut self, on: ConnId, how: End, now: Now) {
        let close = if how == End::Clean { Close::Linger } else { Close::Abort };
        match self.conns.state(on) {
            Some(State::Unclaimed) => self.end_unclaimed(on, close, "ended before anybody claimed it", now),
            // It may have sent everything already: its end is forwarded when the stream is clear.
            Some(State::Local { .. }) if how == End::Clean => self.conns.mark_ended(on),
            // The peer may be clear before us, and may have nothing to send: this is its half-close.
            Some(State::Stream { has_ended, .. } | State::Ready { has_ended, .. }) if how == End::Clean => {
                *has_ended = true;
            }
            Some(&mut State::Local { session }) => self.abandon(on, session, now),
            Some(&mut State::Ready { service, .. }) => {
                self.conns.close(service, Close::Abort, now);
                self.unwanted(on, Close::Abort, "ended before the service was reached", now);
            }
            Some(&mut State::Dialling { session }) => self.dial_failed(on, session, now),
            Some(&mut State::Stream { session, .. }) => self.stream_reset(session, now),
            Some(State::Service { .. }) => self.no_service(on, now),
            Some(State::Paired) => {
                let ended = self.conns.end(on, how, now);
                self.pair_over(ended);
            }
            Some(State::Unwanted) | None => {}
        }
        self.process_matches(now);
    }

    fn handle_write_failed(&mut self, on: ConnId, now: Now) {
        if let Some(State::Paired) = self.conns.state(on) {
            let ended = self.conns.write_failed(on, now);
            self.pair_over(ended);
        } else {
            self.handle_end(on, End::Reset, now);
        }
    }

    fn handle_stalled(&mut self, on: ConnId, now: Now) {
        let ended = self.conns.stalled(on, now);
        self.pair_over(ended);
        if self.conns.state(on).is_some() {
            self.handle_end(on, End::Reset, now);
        }
    }

    fn owners(&self, on: ConnId) -> Owners {
        Owners::of_peer(self.conns.from(on))
    }

    fn handle_closed(&mut self, on: ConnId, _: Now) {
        self.conns.forget(on);
    }

    fn handle_timeout(&mut self, now: Now) {
        while let Some(on) = self.conns.expired(now) {
            match self.conns.state(on) {
                Some(State::Unclaimed) => self.end_unclaimed(on, Close::Abort, "nobody claimed it", now),
                Some(State::Service { .. }) => self.no_service(on, now),
                Some(State::Paired) => {
                    let ended = self.conns.pair_timeout(on, now);
                    self.pair_over(ended);
                }
                Some(
                    State::Local { .. }
                    | State::Dialling { .. }
                    | State::Stream { .. }
                    | State::Ready { .. }
                    | State::Unwanted,
                )
                | None => {}
            }
        }
        self.process_matches(now);
        while let Some(claim) = self.matching.expired(now.mono) {
            self.fail_claim(claim, Condition::ItemNotFound, now);
        }
        let is_due = |role: &Role| role.deadline().is_some_and(|due| due <= now.mono);
        let due: Vec<u64> =
            self.sessions.iter().filter(|(_, it)| is_due(&it.role)).map(|(&session, _)| session).collect();
        for session in due {
            self.with_role(session, now, |role, now| match role {
                Role::Initiator(initiator) => initiator.on_timeout(now.mono),
                Role::Target(target) => target.on_timeout(now.mono),
            });
        }
        self.process_matches(now);
    }

    fn poll_output(&mut self, text: &mut Vec<u8>) -> Output {
        let output = self.conns.poll(text, State::why);
        let Output::Idle { until, why } = output else { return output };
        let grace = self.matching.deadline().map(|due| (due, "a claim's socket"));
        let roles = self.sessions.values().filter_map(|session| session.role.deadline());
        let next = roles.map(|due| (due, "an answer")).chain(grace).min_by_key(|(due, _)| *due);
        match next {
            Some((due, why)) if until.is_none_or(|until| due < until) => {
                Output::Idle { until: Some(due), why }
            }
            _ => Output::Idle { until, why },
        }
    }
}

impl Entity {
    fn dial_failed(&mut self, on: ConnId, session: u64, now: Now) {
        self.conns.close(on, Close::Abort, now);
        if let Some(known) = self.sessions.get_mut(&session)
            && known.stream == Some(on)
        {
            known.stream = None;
        }
        self.with_role(session, now, |role, now| match role {
            Role::Initiator(initiator) => initiator.on_dial_failed(now.mono),
            Role::Target(target) => target.on_dial_failed(now.mono),
        });
    }

    fn stream_reset(&mut self, session: u64, now: Now) {
        self.with_role(session, now, |role, _| match role {
            Role::Initiator(initiator) => initiator.on_reset(),
            Role::Target(target) => target.on_reset(),
        });
    }
}
