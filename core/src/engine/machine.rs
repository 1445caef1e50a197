//! Events of connections: one match over the state for each kind of event.

use alloc::vec::Vec;
use core::net::SocketAddr;

use super::steer::DENIED_ADDRESS;
use super::{DISCARD_STEP, Engine, FULL, PLAIN_DELAY, Stage, State, TOO_MANY, Transport};
use crate::account::{Account, Owners};
use crate::client_hello;
use crate::event::{Event, WaitingEnd};
use crate::http::accept::AnswerForm;
use crate::http::head::{Finder, Found};
use crate::http::reply::Status;
use crate::machine::{
    Close, ConnId, DialFailure, End, Listener, Machine, Output, Secured, TlsFailure, TlsRole,
};
use crate::pair::Side;
use crate::proxy_header::{self, Parsed};
use crate::time::{Now, Span};

impl Machine for Engine {
    fn handle_open(&mut self, on: Listener, from: SocketAddr, now: Now) -> ConnId {
        let transport = self.config.listeners.get(usize::from(on.0)).copied();
        debug_assert!(transport.is_some(), "a listener that the configuration does not know");
        // A proxied connection counts for an address once its header has arrived.
        let is_proxied = transport == Some(Transport::Proxied);
        let state = if is_proxied { State::Proxied } else { State::Securing };
        let id = self.conns.insert(state, Some(from));
        self.conns.set_listener(id, on.0);
        let of_address = if is_proxied { 0 } else { self.count_address(from) };
        if self.has_overflown(now) {
            self.drop_conn(id, Close::Abort, FULL, now);
        } else if is_proxied {
            self.await_proxy(id, from, now);
        } else if self.is_denied(from) {
            self.drop_conn(id, Close::Abort, DENIED_ADDRESS, now);
        } else if self.is_too_many(of_address) {
            self.drop_conn(id, Close::Abort, TOO_MANY, now);
        } else {
            match transport {
                Some(Transport::Tls | Transport::Proxied) => self.await_tls(id, now),
                Some(Transport::Port(port)) => self.begin_by_port(id, port, now),
                Some(Transport::Plain) | None => self.await_head(id, self.config.head_timeout, now),
            }
        }
        if self.conns.state(id).is_some() {
            self.admit(id, Stage::Any, now);
        }
        id
    }

    fn handle_resolved(&mut self, _: ConnId, _: &[SocketAddr], _: Now) {
        debug_assert!(false, "a relay looks up no names");
    }

    fn handle_connected(&mut self, _: ConnId, _: Now) {
        debug_assert!(false, "a relay dials nobody");
    }

    fn handle_dial_failed(&mut self, _: ConnId, _: DialFailure, _: Now) {
        debug_assert!(false, "a relay dials nobody");
    }

    fn handle_secured(&mut self, on: ConnId, _: Secured, now: Now) {
        if let Some(State::Securing) = self.conns.state(on) {
            self.counts.handshakes += 1;
            self.await_head(on, self.config.head_timeout, now);
        }
    }

    fn handle_tls_failed(&mut self, on: ConnId, why: TlsFailure, now: Now) {
        if let Some(State::Securing) = self.conns.state(on) {
            let from = self.conns.from(on);
            if self.health_checks.contains(&on) {
                return self.conns.close(on, Close::Linger, now);
            }
            self.conns.event(Event::TlsFailed { on, from, upstream: None, why });
            match (why, self.conns.state(on)) {
                (TlsFailure::PlainHttp, Some(state)) => {
                    *state = State::PlainHttp { finder: Finder::default() };
                }
                _ => self.conns.close(on, Close::Linger, now),
            }
        }
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
        self.conns.check_invariants();
        used
    }

    fn handle_last_bytes(&mut self, on: ConnId, now: Now) {
        self.follow_last(on, now);
    }

    fn handle_moved(&mut self, from: ConnId, read: u32, queued: u32, now: Now) {
        if read > 0
            && let Some((client, Side::Hidden)) = self.conns.peer(from)
            && let Some(State::Client { request, .. }) = self.conns.state(client)
        {
            *request = None;
        }
        let ended = self.conns.moved(from, read, queued, now);
        self.pair_over(ended, now);
        self.follow_moved(from, read, now);
    }

    fn handle_flushed(&mut self, on: ConnId, now: Now) {
        match self.conns.state(on) {
            Some(State::Answering { discard }) => {
                let discard = *discard;
                if self.conns.has_ended(on) {
                    return self.conns.close(on, Close::Linger, now);
                }
                if discard > 0 {
                    let due = now.mono + self.config.answer;
                    self.conns.set_state_until(on, State::Discarding { left: discard }, Some(due));
                } else {
                    self.keep(on, now);
                }
                if self.conns.state(on).is_some() {
                    self.conns.emit(Output::Read { on, wanted: true });
                }
            }
            Some(State::Waiting { kind, flushed: flushed @ false, .. }) => {
                *flushed = true;
                let eligible_at = kind.plain.then(|| now.mono + PLAIN_DELAY);
                let due = eligible_at.or_else(|| self.release_at());
                self.conns.set_due(on, due);
            }
            _ => {
                let ended = self.conns.flushed(on, now);
                self.pair_over(ended, now);
                // The end of a followed pair may have waited for the empty queue.
                self.settle_followed(on, now);
            }
        }
    }

    fn handle_round_trip(&mut self, on: ConnId, round_trip: Span, _: Now) {
        if let Some((client, Side::Hidden)) = self.conns.peer(on)
            && let Some(State::Client { request: Some(request), .. }) = self.conns.state(client)
        {
            request.round_trip = round_trip;
        }
    }

    fn handle_acked(&mut self, on: ConnId, age: Option<Span>, now: Now) {
        if self.is_hand_over_lost(on, age, now) {
            return;
        }
        let silent = self.conns.pair_of(on).is_some_and(|pair| pair.is_silent(age));
        if silent && self.hand_over_failed(on, Close::Abort, now) {
            return;
        }
        let ended = self.conns.acked(on, age, now);
        self.pair_over(ended, now);
    }

    fn handle_end(&mut self, on: ConnId, how: End, now: Now) {
        let close = self.close_after_hand_over(on, how);
        if self.hand_over_failed(on, close, now) {
            return;
        }
        match self.conns.state(on) {
            // Usually a health check.
            Some(State::Proxied) => self.conns.close(on, Close::Abort, now),
            // The peer may have broken TLS right after its last handshake message.
            Some(State::Hello { .. } | State::Securing | State::PlainHttp { .. }) => {
                self.drop_conn(on, close_after(how), "ended in the TLS handshake", now);
            }
            Some(State::Head { begun, .. }) => {
                let how = close_after(how);
                if *begun {
                    self.drop_conn(on, how, "ended within a request's head", now);
                } else {
                    self.conns.close(on, how, now);
                }
            }
            // A client may shut down its side and still wait for the response.
            Some(State::Answering { .. } | State::Held { .. }) if how == End::Clean => {
                self.conns.mark_ended(on);
            }
            Some(State::Answering { .. } | State::Discarding { .. }) => {
                self.drop_conn(on, Close::Linger, "ended within a challenged request", now);
            }
            Some(State::Held { id, .. }) => {
                let id = *id;
                self.unhold(id, on);
                self.drop_conn(on, close_after(how), "a held client went away", now);
            }
            Some(State::Waiting { .. }) => self.end_waiting(on, WaitingEnd::Ended(how), now),
            Some(State::Hidden { .. } | State::Client { .. }) => {
                if how == End::Clean && self.follow_end(on, now) {
                    return;
                }
                let ended = self.conns.end(on, how, now);
                self.pair_over(ended, now);
            }
            None => {}
        }
        self.conns.check_invariants();
    }

    fn handle_write_failed(&mut self, on: ConnId, now: Now) {
        match self.conns.state(on) {
            Some(State::Waiting { .. }) => self.end_waiting(on, WaitingEnd::Ended(End::Reset), now),
            Some(State::Held { id, .. }) => {
                let id = *id;
                self.unhold(id, on);
                self.drop_conn(on, Close::Abort, "a held client went away", now);
            }
            // A server that refuses a body may have answered before; the reading side decides.
            Some(State::Hidden { .. } | State::Client { .. }) => {
                let ended = self.conns.write_failed(on, now);
                self.pair_over(ended, now);
            }
            Some(
                State::Proxied
                | State::Hello { .. }
                | State::Securing
                | State::PlainHttp { .. }
                | State::Head { .. }
                | State::Answering { .. }
                | State::Discarding { .. },
            ) => self.drop_conn(on, Close::Abort, "the answer could not be sent", now),
            None => {}
        }
    }

    fn handle_stalled(&mut self, on: ConnId, now: Now) {
        const WHY: &str = "memory for requests is used up, and this one was slow";
        let ended = self.conns.stalled(on, now);
        self.pair_over(ended, now);
        match self.conns.state(on) {
            Some(State::Waiting { .. }) => self.end_waiting(on, WaitingEnd::Ended(End::Reset), now),
            Some(State::Held { id, .. }) => {
                let id = *id;
                self.unhold(id, on);
                self.drop_conn(on, Close::Abort, WHY, now);
            }
            Some(State::Hidden { .. } | State::Client { .. }) => {
                debug_assert!(false, "a pair that is not over")
            }
            Some(
                State::Proxied
                | State::Hello { .. }
                | State::Securing
                | State::PlainHttp { .. }
                | State::Head { .. }
                | State::Answering { .. }
                | State::Discarding { .. },
            ) => self.drop_conn(on, Close::Abort, WHY, now),
            None => {}
        }
    }

    fn owners(&self, on: ConnId) -> Owners {
        let id = match self.conns.peek(on) {
            Some(
                State::Waiting { id, .. }
                | State::Held { id, .. }
                | State::Hidden { id }
                | State::Client { id, .. },
            ) => Some(*id),
            _ => None,
        };
        Owners { server: id.map(Account::Id), ..Owners::of_peer(self.conns.from(on)) }
    }

    fn kept(&self, on: ConnId) -> usize {
        match self.conns.peek(on) {
            Some(State::Held { request, .. } | State::Client { request: Some(request), .. }) => {
                request.head.len()
            }
            _ => 0,
        }
    }

    fn handle_closed(&mut self, on: ConnId, _: Now) {
        let is_check = self.health_checks.remove(&on);
        self.server_names.remove(&on);
        let is_counted = !is_check && !matches!(self.conns.any_state(on), Some(State::Proxied));
        if let Some(from) = self.conns.from(on).filter(|_| is_counted) {
            self.uncount_address(from);
        }
        self.conns.forget(on);
    }

    fn handle_timeout(&mut self, now: Now) {
        while let Some(on) = self.conns.expired(now) {
            self.expire(on, now);
        }
        self.conns.check_invariants();
    }

    fn poll_output(&mut self, text: &mut Vec<u8>) -> Output {
        self.conns.poll(text, State::why)
    }
}

/// How to close a connection that ended in this way. A truncated one may still read: if the peer broke TLS, an alert
/// is in flight.
const fn close_after(how: End) -> Close {
    match how {
        End::Clean | End::Truncated => Close::Linger,
        End::Reset => Close::Abort,
    }
}

impl Engine {
    /// Waits for the PROXY header of a trusted peer; drops other peers.
    fn await_proxy(&mut self, on: ConnId, from: SocketAddr, now: Now) {
        if self.config.proxies.iter().any(|proxies| proxies.contains(from.ip())) {
            self.conns.set_due(on, Some(now.mono + self.config.head_timeout));
            self.admit(on, Stage::ProxyHeader, now);
        } else {
            self.drop_conn(on, Close::Abort, "not a trusted proxy", now);
        }
    }

    /// A trusted load balancer checks the relay's health: the connection counts for no address, and its end is not an
    /// event.
    fn begin_health_check(&mut self, on: ConnId, now: Now) {
        self.health_checks.insert(on);
        self.conns.set_state_until(on, State::Securing, None);
        self.await_tls(on, now);
    }

    /// A trusted peer sent its header: the connection counts for `source` from now on. A connection of the peer's own
    /// (`UNKNOWN`) counts for the peer.
    fn proxied(&mut self, on: ConnId, source: Option<SocketAddr>, now: Now) {
        let Some(source) = source.or_else(|| self.conns.from(on)) else { return };
        self.conns.set_from(on, source);
        self.conns.set_state_until(on, State::Securing, None);
        let of_address = self.count_address(source);
        if self.is_denied(source) {
            return self.drop_conn(on, Close::Abort, DENIED_ADDRESS, now);
        }
        if self.is_too_many(of_address) {
            return self.drop_conn(on, Close::Abort, TOO_MANY, now);
        }
        self.await_tls(on, now);
    }

    /// Waits for a TLS handshake. If there are hidden servers that terminate TLS themselves, the ClientHello is read
    /// before it is answered.
    fn await_tls(&mut self, on: ConnId, now: Now) {
        let due = Some(now.mono + self.config.handshake);
        if self.config.domain.is_some() && (self.config.group || self.registry.has_end_to_end()) {
            self.conns.set_state_until(on, State::Hello { reader: client_hello::Reader::default() }, due);
        } else {
            self.conns.set_due(on, due);
            self.conns.emit(Output::StartTls { on, role: TlsRole::Server });
        }
        if !self.health_checks.contains(&on) {
            self.admit(on, Stage::Handshake, now);
        }
    }

    fn is_too_many(&self, of_address: u32) -> bool {
        let max = self.config.connections_per_address_max;
        max > 0 && of_address > max
    }

    /// One step over the received bytes. Returns how many it consumed, and whether another step may follow.
    fn step(&mut self, on: ConnId, bytes: &[u8], now: Now) -> (usize, bool) {
        let limits = self.config.head;
        match self.conns.state(on) {
            Some(State::Proxied) => match proxy_header::parse(bytes) {
                Parsed::Partial => (0, false),
                Parsed::Complete { len, .. } if proxy_header::is_local(bytes) => {
                    self.begin_health_check(on, now);
                    (len, true)
                }
                Parsed::Complete { len, source } => {
                    self.proxied(on, source, now);
                    // A ClientHello may have come with it.
                    (len, true)
                }
                Parsed::Refused(why) => {
                    self.drop_conn(on, Close::Abort, why, now);
                    (0, false)
                }
            },
            Some(State::Hello { reader }) => {
                let hello = reader.read(bytes);
                (self.hello(on, hello, bytes, now), false)
            }
            Some(State::Head { finder, begun }) => match finder.find(bytes, &limits) {
                Found::Partial => {
                    if !core::mem::replace(begun, true) {
                        self.conns.set_due(on, Some(now.mono + self.config.head_timeout));
                    }
                    (0, false)
                }
                Found::Complete(whole) => {
                    let len = whole.bytes().len();
                    self.request(on, whole, bytes.len() > len, now);
                    (len, true)
                }
                Found::Refused(refusal) => {
                    let form = AnswerForm::of(bytes);
                    self.refuse(on, None, refusal.status(), refusal.why(), form, None, now);
                    (0, false)
                }
            },
            Some(State::PlainHttp { finder }) => {
                let found = finder.find(bytes, &limits);
                if found != Found::Partial {
                    self.answer_plain_http(on, found, bytes, now);
                }
                (0, false)
            }
            Some(State::Discarding { left }) => {
                let used = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                let before = left.div_ceil(DISCARD_STEP);
                *left -= used as u64;
                if *left == 0 {
                    self.keep(on, now);
                } else if left.div_ceil(DISCARD_STEP) < before {
                    self.conns.set_due(on, Some(now.mono + self.config.answer));
                }
                (used, true)
            }
            Some(State::Waiting { .. }) => {
                self.end_waiting(on, WaitingEnd::UnexpectedBytes, now);
                (0, false)
            }
            Some(State::Client { .. }) => {
                self.follow_client(on, bytes, now);
                (0, false)
            }
            Some(State::Hidden { .. }) => {
                self.follow_hidden(on, bytes, now);
                (0, false)
            }
            Some(State::Securing | State::Answering { .. } | State::Held { .. }) | None => (0, false),
        }
    }

    fn expire(&mut self, on: ConnId, now: Now) {
        match self.conns.state(on) {
            Some(State::Proxied) => {
                self.drop_conn(on, Close::Abort, "the proxy's header did not arrive in time", now);
            }
            Some(State::Hello { .. } | State::Securing | State::PlainHttp { .. }) => {
                self.drop_conn(on, Close::Abort, "the TLS handshake took too long", now);
            }
            Some(State::Head { begun: false, .. }) => {
                self.drop_conn(on, Close::Linger, "no request came", now);
            }
            Some(State::Head { begun: true, .. }) => {
                const WHY: &str = "the request's head did not arrive in time";
                self.refuse(on, None, Status::Timeout408, WHY, AnswerForm::default(), None, now);
            }
            Some(State::Answering { .. }) => {
                self.drop_conn(on, Close::Abort, "the answer was not taken in time", now);
            }
            Some(State::Discarding { .. }) => {
                self.drop_conn(on, Close::Linger, "the request's body did not arrive in time", now);
            }
            Some(State::Waiting { flushed: false, .. }) => {
                self.end_waiting(on, WaitingEnd::Ended(End::Reset), now);
            }
            Some(State::Waiting { id, .. }) => {
                let id = *id;
                self.expire_waiting(on, id, now);
            }
            Some(State::Held { id, request }) => {
                let (id, answer) = (*id, request.answer);
                self.unhold(id, on);
                self.refuse_unserved(on, id, answer, now);
            }
            Some(State::Hidden { .. } | State::Client { .. }) => {
                let ended = self.conns.pair_timeout(on, now);
                self.pair_over(ended, now);
            }
            None => {}
        }
    }
}
