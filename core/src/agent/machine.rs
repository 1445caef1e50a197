//! Events of connections: one match over the state for each kind of event.

use alloc::vec::Vec;
use core::net::SocketAddr;

use super::forwarding::Unforwarded;
use super::{Agent, Conn, ServiceKind, State, conn_state, raw};
use crate::account::{Account, Owners};
use crate::dialer::DialError;
use crate::event::RelayLoss;
use crate::http::accept::AnswerForm;
use crate::machine::{Close, ConnId, DialFailure, End, Listener, Machine, Output, Secured, TlsFailure};
use crate::relay_client::AnswerState;
use crate::time::{Now, Span};

impl Machine for Agent {
    fn handle_open(&mut self, on: Listener, from: SocketAddr, now: Now) -> ConnId {
        let conn = self.accept(on, from, now);
        self.check_invariants();
        conn
    }

    fn handle_found(&mut self, on: ConnId, addresses: &[SocketAddr], now: Now) {
        self.resolved(on, addresses, false, now);
        self.check_invariants();
    }

    fn handle_resolved(&mut self, on: ConnId, addresses: &[SocketAddr], now: Now) {
        self.resolved(on, addresses, true, now);
        self.check_invariants();
    }

    fn handle_connected(&mut self, on: ConnId, now: Now) {
        match conn_state(&mut self.conns, on) {
            Some(&mut State::Link(link)) => {
                self.with_dtcp_endpoint(now, |dtcp_endpoint| dtcp_endpoint.connected(link))
            }
            _ => self.race(on, now, |dialers, conns, _| dialers.connected(on, conns, now)),
        }
        self.check_invariants();
    }

    fn handle_dial_failed(&mut self, on: ConnId, why: DialFailure, now: Now) {
        match conn_state(&mut self.conns, on) {
            Some(&mut State::Link(link)) => {
                self.with_dtcp_endpoint(now, |dtcp_endpoint| dtcp_endpoint.dial_failed(link, why))
            }
            _ => self.race(on, now, |dialers, conns, rival| dialers.dial_failed(on, why, conns, rival, now)),
        }
        self.check_invariants();
    }

    fn handle_secured(&mut self, on: ConnId, tls: Secured, now: Now) {
        match conn_state(&mut self.conns, on) {
            Some(&mut State::Link(link)) => {
                self.with_dtcp_endpoint(now, |dtcp_endpoint| dtcp_endpoint.secured(link, tls))
            }
            Some(State::Sealing) => self.sealed(on, tls, now),
            _ => self.race(on, now, |dialers, _, _| dialers.secured(on, now)),
        }
        self.check_invariants();
    }

    fn handle_tls_failed(&mut self, on: ConnId, why: TlsFailure, now: Now) {
        match conn_state(&mut self.conns, on) {
            Some(&mut State::Link(link)) => {
                self.with_dtcp_endpoint(now, |dtcp_endpoint| dtcp_endpoint.tls_failed(link, why))
            }
            Some(State::Sealing) => self.not_sealed(on, why, now),
            _ if self.dialers.lead(on).is_some() => self.attempt_failed(on, DialError::Tls(why), now),
            _ => self.lose(on, RelayLoss::Tls(why), now),
        }
        self.check_invariants();
    }

    fn handle_bytes(&mut self, on: ConnId, bytes: &[u8], now: Now) -> usize {
        let mut used = 0;
        while used < bytes.len() {
            let (step, more) = self.step(on, &bytes[used..], now);
            used += step;
            if !more {
                break;
            }
        }
        self.check_invariants();
        used
    }

    fn handle_moved(&mut self, from: ConnId, read: u32, queued: u32, now: Now) {
        if read > 0 && self.conns.is_unanswered_by(from) {
            self.answered_client(from, now);
        }
        let ended = self.conns.moved(from, read, queued, now);
        self.pair_over(ended, now);
        self.moved_gated(from, read, now);
    }

    fn handle_last_bytes(&mut self, on: ConnId, now: Now) {
        self.last_gated(on, now);
        self.check_invariants();
    }

    fn handle_flushed(&mut self, on: ConnId, now: Now) {
        self.dialers.greeted(on, &mut self.conns, now);
        let ended = self.conns.flushed(on, now);
        self.pair_over(ended, now);
        self.flushed_gated(on);
    }

    fn handle_acked(&mut self, on: ConnId, age: Option<Span>, now: Now) {
        let ended = self.conns.acked(on, age, now);
        self.pair_over(ended, now);
    }

    fn handle_end(&mut self, on: ConnId, how: End, now: Now) {
        match conn_state(&mut self.conns, on) {
            Some(State::Registering { answer, .. }) => {
                let loss = answer.refusal().map_or(RelayLoss::Ended(how), RelayLoss::Refused);
                self.lose(on, loss, now);
            }
            Some(State::Waiting { .. }) => self.lose(on, RelayLoss::Ended(how), now),
            Some(State::Reaching | State::Rival | State::Local { .. }) => {
                self.attempt_failed(on, DialError::Ended(how), now);
            }
            // An incomplete head, which no service could answer.
            Some(State::Header | State::Hello { .. } | State::Sealing | State::Head(_))
                if how == End::Clean =>
            {
                self.client_gone(on, Close::Linger, now);
            }
            // A client may shut down its side and still wait for the response.
            Some(State::Meeting { .. } | State::Ready { .. }) if how == End::Clean => {
                self.conns.mark_ended(on)
            }
            Some(State::Ready { .. }) => self.lose_ready(on, "the local service ended the connection", now),
            Some(State::Deciding { .. }) => self.undecided_ended(on, how, now),
            Some(State::Leaving) => self.close(on, Close::Linger, now),
            Some(&mut State::Link(link)) => {
                self.with_dtcp_endpoint(now, |dtcp_endpoint| dtcp_endpoint.ended(link, how))
            }
            Some(
                State::Header | State::Hello { .. } | State::Sealing | State::Head(_) | State::Meeting { .. },
            ) => {
                let how = if how == End::Truncated { Close::Linger } else { Close::Abort };
                self.client_gone(on, how, now);
            }
            Some(State::Paired(_)) => {
                let ended = self.conns.end(on, how, now);
                self.pair_over(ended, now);
            }
            Some(State::Backoff) => debug_assert!(false, "the end of no connection"),
            Some(State::Ended) | None => {}
        }
        self.check_invariants();
    }

    fn handle_write_failed(&mut self, on: ConnId, now: Now) {
        match conn_state(&mut self.conns, on) {
            Some(State::Waiting { .. }) => self.lose(on, RelayLoss::Ended(End::Reset), now),
            Some(State::Reaching | State::Rival | State::Local { .. }) => {
                self.attempt_failed(on, DialError::Ended(End::Reset), now);
            }
            // A relay may refuse and close before it has read everything; its response can still be readable.
            Some(State::Registering { .. }) => {}
            Some(
                State::Header | State::Hello { .. } | State::Sealing | State::Head(_) | State::Meeting { .. },
            ) => {
                self.client_gone(on, Close::Abort, now);
            }
            Some(State::Paired(_)) => {
                let ended = self.conns.write_failed(on, now);
                self.pair_over(ended, now);
            }
            Some(State::Ready { .. }) => self.lose_ready(on, "the local service ended the connection", now),
            Some(&mut State::Link(link)) => {
                self.with_dtcp_endpoint(now, |dtcp_endpoint| dtcp_endpoint.ended(link, End::Reset))
            }
            // The peer's decision may still be readable.
            Some(State::Deciding { .. } | State::Leaving) => {}
            Some(State::Backoff | State::Ended) | None => {}
        }
        self.check_invariants();
    }

    fn handle_stalled(&mut self, on: ConnId, now: Now) {
        let ended = self.conns.stalled(on, now);
        self.pair_over(ended, now);
        if self.conns.state(on).is_some_and(|conn| !matches!(conn.state, State::Ended)) {
            self.handle_end(on, End::Reset, now);
        }
    }

    fn owners(&self, on: ConnId) -> Owners {
        let server = match self.conns.peek(on) {
            // It is not known yet which hidden server an accepted connection is for.
            Some(Conn { state: State::Link(_), .. }) | None => None,
            Some(conn) => Some(Account::Upstream(conn.upstream)),
        };
        Owners { server, ..Owners::of_peer(self.conns.from(on)) }
    }

    fn handle_closed(&mut self, on: ConnId, _: Now) {
        self.conns.forget(on);
    }

    fn handle_timeout(&mut self, now: Now) {
        while let Some(on) = self.conns.expired(now) {
            self.expire(on, now);
        }
        self.with_dtcp_endpoint(now, |dtcp_endpoint| dtcp_endpoint.timeout(now));
        self.check_invariants();
    }

    fn poll_output(&mut self, text: &mut Vec<u8>) -> Output {
        let output = self.conns.poll(text, |conn| conn.state.why());
        match &self.direct {
            Some(direct) => direct.merge_idle(output),
            None => output,
        }
    }
}

impl Agent {
    /// One step over the received bytes. Returns how many it consumed, and whether another step may follow.
    fn step(&mut self, on: ConnId, bytes: &[u8], now: Now) -> (usize, bool) {
        let limits = self.config.head;
        match conn_state(&mut self.conns, on) {
            Some(State::Registering { answer, .. }) => match answer.read(bytes, &limits) {
                AnswerState::Partial => (0, false),
                AnswerState::Interim(len) => (len, true),
                // The bytes after a 200 belong to the rendezvous.
                AnswerState::Final(response) => {
                    self.answered(on, &response, now);
                    (response.len, true)
                }
                AnswerState::NotHttp => {
                    self.lose(on, RelayLoss::NotHttp, now);
                    (0, false)
                }
            },
            Some(State::Waiting { .. }) => {
                self.taken(on, bytes, now);
                (0, true)
            }
            Some(State::Header) => self.read_header(on, bytes, now),
            Some(State::Hello { name, reader }) => {
                let is_named = raw::is_named(&reader.read(bytes), name);
                self.read_hello(on, is_named, now);
                (0, false)
            }
            Some(State::Head(_)) => (self.read_head(on, bytes, now), false),
            Some(State::Paired(_)) => (self.read_gated(on, bytes, now), false),
            Some(State::Deciding { .. } | State::Leaving) => (self.read_decision(on, bytes, now), false),
            Some(&mut State::Link(link)) => {
                (self.with_dtcp_endpoint(now, |dtcp_endpoint| dtcp_endpoint.bytes(link, bytes)), false)
            }
            Some(State::Reaching | State::Rival) => self.tunnel(on, bytes, now),
            Some(
                State::Backoff
                | State::Sealing
                | State::Meeting { .. }
                | State::Local { .. }
                | State::Ready { .. }
                | State::Ended,
            )
            | None => (0, false),
        }
    }

    /// Handles addresses of a name. If the look-up is not complete, more may follow.
    fn resolved(&mut self, on: ConnId, addresses: &[SocketAddr], is_complete: bool, now: Now) {
        match conn_state(&mut self.conns, on) {
            Some(&mut State::Link(link)) if is_complete => {
                self.with_dtcp_endpoint(now, |dtcp_endpoint| dtcp_endpoint.resolved(link, addresses));
            }
            _ => self.race(on, now, |dialers, conns, rival| {
                dialers.resolved(on, addresses, is_complete, conns, rival, now)
            }),
        }
    }

    fn expire(&mut self, on: ConnId, now: Now) {
        let reads_head = self.reads_head(on);
        let refuses_clear = self.refuses_clear(on);
        let Some(conn) = self.conns.state(on) else { return };
        match &conn.state {
            State::Backoff => self.wake(on, now),
            State::Reaching | State::Local { .. } => {
                self.race(on, now, |dialers, conns, rival| dialers.expired(on, conns, rival, now));
            }
            State::Registering { .. } => self.lose(on, RelayLoss::TimedOut, now),
            State::Waiting { .. } => self.waited(on, now),
            State::Header => {
                self.lose_client(on, "the relay's PROXY header did not arrive in time", Close::Abort, now);
            }
            State::Hello { .. } | State::Sealing => {
                self.lose_client(on, "the client's TLS handshake took too long", Close::Abort, now);
            }
            State::Head(_) if refuses_clear => self.refuse_clear(on, now),
            State::Head(_) if reads_head => {
                self.refuse_request(on, Unforwarded::LATE, AnswerForm::default(), now)
            }
            // The bytes received by now go to the HTTP service.
            State::Head(_) => self.serve_client(on, ServiceKind::OTHER, None, now),
            State::Deciding { .. } => {
                self.lose_undecided(
                    on,
                    "the client neither accepted nor declined the direct connection in time",
                    Close::Abort,
                    now,
                );
            }
            State::Leaving => self.close(on, Close::Abort, now),
            State::Ready { .. } => self.lose_ready(on, "the client did not connect directly in time", now),
            State::Paired(_) => {
                if self.expire_gated(on, now) {
                    return;
                }
                let ended = self.conns.pair_timeout(on, now);
                self.pair_over(ended, now);
            }
            State::Meeting { .. } | State::Rival | State::Link(_) | State::Ended => {}
        }
    }
}
