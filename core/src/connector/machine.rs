//! Events of connections: one match over the state for each kind of event.

use alloc::vec::Vec;
use core::net::SocketAddr;

use super::{Connector, State};
use crate::account::Owners;
use crate::dialer::{DialError, Dialling};
use crate::event::{ConnectFailure, Event};
use crate::machine::{
    Close, ConnId, DialFailure, End, Listener, Machine, Output, Secured, TlsFailure, TlsRole,
};
use crate::relay_client::AnswerState;
use crate::time::{Now, Span};

impl Machine for Connector {
    fn handle_open(&mut self, on: Listener, from: SocketAddr, now: Now) -> ConnId {
        if self.direct.as_ref().is_some_and(|direct| direct.listens_on(on)) {
            return self.accept(from, now);
        }
        let local = self.conns.insert(State::Unwanted, Some(from));
        if self.stopping {
            self.conns.close(local, Close::Abort, now);
            return local;
        }
        if self.conns.len() as u64 > 2 * u64::from(self.config.locals_max) {
            const WHY: &str = "too many local connections";
            self.conns.event(Event::Dropped { on: local, from: Some(from), upstream: None, why: WHY });
            self.conns.close(local, Close::Truncate, now);
            return local;
        }
        self.stopping = self.config.once;
        self.conns.emit(Output::Read { on: local, wanted: false });
        let relay = self.conns.insert(State::Unwanted, None);
        let tls = self.config.relay.tls.then_some(TlsRole::Client { upstream: 0 });
        let how = Dialling { tls, greets: false, deadlines: self.config.deadlines };
        self.conns.set_state(local, State::Local { relay });
        self.conns.set_state(relay, State::Reaching { local });
        let proxy = self.config.proxy.as_ref();
        self.dialers.begin_through(relay, proxy, &self.config.relay.place, how, &mut self.conns, now);
        local
    }

    fn handle_found(&mut self, on: ConnId, addresses: &[SocketAddr], now: Now) {
        self.resolved(on, addresses, false, now);
    }

    fn handle_resolved(&mut self, on: ConnId, addresses: &[SocketAddr], now: Now) {
        self.resolved(on, addresses, true, now);
    }

    fn handle_connected(&mut self, on: ConnId, now: Now) {
        match self.conns.state(on) {
            Some(&mut State::Link(link)) => {
                self.with_dtcp_endpoint(now, |dtcp_endpoint| dtcp_endpoint.connected(link))
            }
            _ => self.race(on, now, |dialers, conns, _| dialers.connected(on, conns, now)),
        }
    }

    fn handle_dial_failed(&mut self, on: ConnId, why: DialFailure, now: Now) {
        match self.conns.state(on) {
            Some(&mut State::Link(link)) => {
                self.with_dtcp_endpoint(now, |dtcp_endpoint| dtcp_endpoint.dial_failed(link, why))
            }
            _ => self.race(on, now, |dialers, conns, rival| dialers.dial_failed(on, why, conns, rival, now)),
        }
    }

    fn handle_secured(&mut self, on: ConnId, tls: Secured, now: Now) {
        match self.conns.state(on) {
            Some(&mut State::Link(link)) => {
                self.with_dtcp_endpoint(now, |dtcp_endpoint| dtcp_endpoint.secured(link, tls))
            }
            Some(State::Sealing { .. }) => self.sealed(on, now),
            _ => self.race(on, now, |dialers, _, _| dialers.secured(on, now)),
        }
    }

    fn handle_tls_failed(&mut self, on: ConnId, why: TlsFailure, now: Now) {
        match self.conns.state(on) {
            Some(&mut State::Link(link)) => {
                self.with_dtcp_endpoint(now, |dtcp_endpoint| dtcp_endpoint.tls_failed(link, why))
            }
            Some(State::Reaching { .. }) => self.attempt_failed(on, DialError::Tls(why), now),
            Some(State::Sealing { .. }) => self.fail(on, ConnectFailure::EndToEnd(why), now),
            _ => self.fail(on, ConnectFailure::Tls(why), now),
        }
    }

    fn handle_bytes(&mut self, on: ConnId, bytes: &[u8], now: Now) -> usize {
        let limits = self.config.head;
        let mut used = 0;
        while used < bytes.len() {
            let rest = &bytes[used..];
            let step = match self.conns.state(on) {
                Some(State::Asking { answer, .. } | State::Inside { answer, .. }) => {
                    match answer.read(rest, &limits) {
                        AnswerState::Partial => 0,
                        AnswerState::Interim(len) => len,
                        // The bytes after a 101 are the stream: they stay, and go to the local side first.
                        AnswerState::Final(response) => {
                            self.answered(on, &response, &rest[..response.len], now);
                            response.len
                        }
                        AnswerState::NotHttp => {
                            self.garbled(on, now);
                            0
                        }
                    }
                }
                Some(State::Deciding { .. } | State::Staying { .. }) => self.read_line(on, rest, now),
                Some(&mut State::Link(link)) => {
                    self.with_dtcp_endpoint(now, |dtcp_endpoint| dtcp_endpoint.bytes(link, rest))
                }
                Some(State::Reaching { .. }) => self.tunnel(on, rest, now),
                // The bytes after the 101 to an end-to-end stream belong to the handshake.
                Some(State::Local { .. } | State::Sealing { .. } | State::Paired | State::Unwanted)
                | None => 0,
            };
            if step == 0 {
                break;
            }
            used += step;
        }
        self.conns.check_invariants();
        used
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
        match self.conns.state(on) {
            // It may have sent everything already: its end is forwarded once it is paired.
            Some(State::Local { .. }) if how == End::Clean => self.conns.mark_ended(on),
            Some(&mut State::Local { relay }) => self.abandon(on, relay, Close::Abort, now),
            Some(State::Reaching { .. }) => self.attempt_failed(on, DialError::Ended(how), now),
            Some(State::Asking { answer, .. }) => match answer.refusal() {
                Some(status) => {
                    self.settle_race(on, now);
                    self.fail(on, ConnectFailure::Refused(status), now);
                }
                None => self.attempt_failed(on, DialError::Ended(how), now),
            },
            Some(State::Sealing { .. }) => self.fail(on, ConnectFailure::EndToEnd(TlsFailure::Ended), now),
            Some(State::Inside { answer, .. }) => {
                let why = answer.refusal().map_or(ConnectFailure::NotAllowed(how), ConnectFailure::Refused);
                self.fail(on, why, now);
            }
            Some(State::Deciding { .. } | State::Staying { .. }) => {
                self.fail(on, ConnectFailure::Ended(how), now);
            }
            Some(&mut State::Link(link)) => {
                self.with_dtcp_endpoint(now, |dtcp_endpoint| dtcp_endpoint.ended(link, how))
            }
            Some(State::Paired) => {
                let ended = self.conns.end(on, how, now);
                self.pair_over(ended, now);
            }
            Some(State::Unwanted) | None => {}
        }
        self.conns.check_invariants();
    }

    fn handle_write_failed(&mut self, on: ConnId, now: Now) {
        match self.conns.state(on) {
            Some(&mut State::Local { relay }) => self.abandon(on, relay, Close::Abort, now),
            Some(State::Reaching { .. }) => self.attempt_failed(on, DialError::Ended(End::Reset), now),
            // A relay may refuse and close before it has read everything; its response can still be readable.
            Some(
                State::Asking { .. }
                | State::Sealing { .. }
                | State::Inside { .. }
                | State::Deciding { .. }
                | State::Staying { .. },
            ) => {}
            Some(&mut State::Link(link)) => {
                self.with_dtcp_endpoint(now, |dtcp_endpoint| dtcp_endpoint.ended(link, End::Reset))
            }
            Some(State::Paired) => {
                let ended = self.conns.write_failed(on, now);
                self.pair_over(ended, now);
            }
            Some(State::Unwanted) | None => {}
        }
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
        self.conns.forget(on);
    }

    fn handle_timeout(&mut self, now: Now) {
        while let Some(on) = self.conns.expired(now) {
            self.expire(on, now);
        }
        self.with_dtcp_endpoint(now, |dtcp_endpoint| dtcp_endpoint.timeout(now));
        self.conns.check_invariants();
    }

    fn poll_output(&mut self, text: &mut Vec<u8>) -> Output {
        let output = self.conns.poll(text, State::why);
        match &self.direct {
            Some(direct) => direct.merge_idle(output),
            None => output,
        }
    }
}

impl Connector {
    /// The response is not HTTP. Outside of TLS with the agent another address of the relay may work; inside, the
    /// agent sent it.
    fn garbled(&mut self, on: ConnId, now: Now) {
        match self.conns.state(on) {
            Some(State::Inside { .. }) => self.fail(on, ConnectFailure::NotHttp, now),
            _ => self.attempt_failed(on, DialError::NotHttp, now),
        }
    }
}
