//! Requests on connections: one connection for each, TLS, HTTP/1.1, no redirects.
//!
//! ```text
//! Dialling ─TLS is up─▶ Asking ─the response is complete─▶ Closing
//! ```

use alloc::format;
use alloc::vec::Vec;
use core::net::SocketAddr;

use super::message::{Method, NoResponse, Request, Response};
use crate::account::Owners;
use crate::conns::Conns;
use crate::dialer::{ADDRESSES_MAX, DialError, Dialers, Dialling, Progress};
use crate::http::follower::whole_response::{ResponseReader, Unreadable};
use crate::http::head::Limits;
use crate::machine::{
    Close, ConnId, DialFailure, End, Listener, Machine, Output, Secured, TlsFailure, TlsRole,
};
use crate::pair;
use crate::relay_client::Deadlines;
use crate::time::{Now, Span};

/// Indices of connections are below this.
pub(super) const CONNECTIONS_MAX: usize = 64;
/// So many connections of earlier requests may linger.
const LINGERING_MAX: u32 = 8;

/// The connections to a CA. At most one request is under way.
#[derive(Debug)]
pub(super) struct Transport {
    conns: Conns<State>,
    dialers: Dialers,
    upstream: u16,
    settings: Settings,
    /// The request that waits for a connection to be made, or is under way.
    request: Option<Request>,
    /// The first connection of the race that is under way, and then the connection that has won it.
    current: Option<ConnId>,
    result: Option<(u32, Result<Response, NoResponse>)>,
}

/// What requests have in common.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) user_agent: alloc::string::String,
    pub(super) deadlines: Deadlines,
    pub(super) body_max: u32,
}

#[derive(Debug)]
enum State {
    /// On the way to the CA.
    Dialling,
    /// The request is sent.
    Asking(ResponseReader),
    Closing,
}

impl State {
    const fn why(&self) -> &'static str {
        match self {
            Self::Dialling => "dial of the CA",
            Self::Asking(_) => "the CA's response",
            Self::Closing => "closing",
        }
    }
}

impl Transport {
    /// `upstream` is the entry of the driver's list with the CA's name and trust anchors.
    pub(super) fn new(upstream: u16, settings: Settings) -> Self {
        let mut conns = Conns::new(pair::Limits::default());
        conns.set_lingering_max(LINGERING_MAX);
        Self {
            conns,
            dialers: Dialers::default(),
            upstream,
            settings,
            request: None,
            current: None,
            result: None,
        }
    }

    /// Begins a request, in place of the one that is under way, if there is one.
    pub(super) fn start(&mut self, request: Request, now: Now) {
        if let Some(on) = self.current.take() {
            self.dialers.cancel(on, &mut self.conns, now);
            self.shut(on, Close::Abort, now);
        }
        self.result = None;
        self.request = Some(request);
        self.dial_if_room(now);
    }

    /// The response to a request, or why there is none.
    pub(super) fn take_result(&mut self) -> Option<(u32, Result<Response, NoResponse>)> {
        self.result.take()
    }

    /// Dials once connections of earlier requests are closed, as far as there is no room.
    fn dial_if_room(&mut self, now: Now) {
        let Some(request) = &self.request else { return };
        if self.current.is_some() || self.conns.len() + ADDRESSES_MAX >= CONNECTIONS_MAX {
            return;
        }
        let place = request.url.place().clone();
        let lead = self.conns.insert(State::Dialling, None);
        self.current = Some(lead);
        let tls = Some(TlsRole::Client { upstream: self.upstream });
        let how = Dialling { tls, greets: false, deadlines: self.settings.deadlines };
        self.dialers.begin(lead, &place, how, &mut self.conns, now);
    }

    fn race(
        &mut self,
        on: ConnId,
        now: Now,
        happened: impl FnOnce(&mut Dialers, &mut Conns<State>) -> Progress,
    ) {
        if !matches!(self.conns.state(on), Some(State::Dialling)) {
            return;
        }
        match happened(&mut self.dialers, &mut self.conns) {
            Progress::Pending => {}
            Progress::Greet(_) => debug_assert!(false, "nothing is sent in clear before TLS"),
            Progress::Late { on, why } => self.attempt_failed(on, why, now),
            Progress::Reached { lead, on } => self.reached(lead, on, now),
            Progress::Failed { lead, why } => {
                self.finish(Err(NoResponse::Unreachable(why)));
                self.shut(lead, why.close(), now);
            }
        }
    }

    fn attempt_failed(&mut self, on: ConnId, why: DialError, now: Now) {
        self.race(on, now, |dialers, conns| dialers.failed(on, why, conns, || State::Dialling, now));
    }

    /// TLS has shown that it is the CA: the request is sent there, and nowhere else.
    fn reached(&mut self, lead: ConnId, on: ConnId, now: Now) {
        let Some(request) = &self.request else { return };
        let text = write_request(request, &self.settings.user_agent);
        let is_head = request.method == Method::Head;
        let place = request.url.place().clone();
        if let Some(at) = self.dialers.settle(on, &mut self.conns, now) {
            self.dialers.book(&place).answered(at);
        }
        if lead != on {
            self.shut(lead, Close::Abort, now);
        }
        self.current = Some(on);
        let limits = Limits { head_bytes_max: 16 << 10, line_bytes_max: 1 << 10 };
        let body_max = self.settings.body_max.min(1 << 20) as usize;
        if let Some(state) = self.conns.state(on) {
            *state = State::Asking(ResponseReader::new(limits, body_max, is_head));
        }
        self.conns.set_due(on, Some(now.mono + self.settings.deadlines.answer));
        self.conns.send(on, text);
    }

    /// The request that is under way has this result.
    fn finish(&mut self, result: Result<Response, NoResponse>) {
        self.current = None;
        if let Some(request) = self.request.take() {
            self.result = Some((request.id, result));
        }
    }

    fn answered(
        &mut self,
        on: ConnId,
        response: Result<crate::http::follower::whole_response::WholeResponse, Unreadable>,
        now: Now,
    ) {
        let (result, how) = match response {
            Ok(it) => {
                let fields = it.fields.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
                (Ok(Response::read(it.status, fields, it.body)), Close::Linger)
            }
            Err(Unreadable::Malformed) => (Err(NoResponse::Malformed), Close::Abort),
            Err(Unreadable::TooLarge) => (Err(NoResponse::TooLarge), Close::Abort),
            Err(Unreadable::Ended) => (Err(NoResponse::Ended), Close::Abort),
        };
        self.finish(result);
        self.shut(on, how, now);
    }

    fn shut(&mut self, on: ConnId, how: Close, now: Now) {
        if let Some(state) = self.conns.state(on) {
            *state = State::Closing;
        }
        self.conns.close(on, how, now);
    }
}

fn write_request(request: &Request, user_agent: &str) -> Vec<u8> {
    let mut text = format!(
        "{} {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: {user_agent}\r\nAccept: */*\r\nConnection: close\r\n",
        request.method.as_str(),
        request.url.target(),
        request.url.authority(),
    );
    if request.method == Method::Post {
        text.push_str(&format!(
            "Content-Type: application/jose+json\r\nContent-Length: {}\r\n",
            request.body.len()
        ));
    }
    text.push_str("\r\n");
    text.push_str(&request.body);
    text.into_bytes()
}

impl Machine for Transport {
    fn handle_open(&mut self, _: Listener, from: SocketAddr, now: Now) -> ConnId {
        debug_assert!(false, "a transport has no listener");
        let on = self.conns.insert(State::Closing, Some(from));
        self.conns.close(on, Close::Abort, now);
        on
    }

    fn handle_found(&mut self, on: ConnId, addresses: &[SocketAddr], now: Now) {
        self.race(on, now, |dialers, conns| {
            dialers.resolved(on, addresses, false, conns, || State::Dialling, now)
        });
    }

    fn handle_resolved(&mut self, on: ConnId, addresses: &[SocketAddr], now: Now) {
        self.race(on, now, |dialers, conns| {
            dialers.resolved(on, addresses, true, conns, || State::Dialling, now)
        });
    }

    fn handle_connected(&mut self, on: ConnId, now: Now) {
        self.race(on, now, |dialers, conns| dialers.connected(on, conns, now));
    }

    fn handle_dial_failed(&mut self, on: ConnId, why: DialFailure, now: Now) {
        self.race(on, now, |dialers, conns| dialers.dial_failed(on, why, conns, || State::Dialling, now));
    }

    fn handle_secured(&mut self, on: ConnId, _: Secured, now: Now) {
        self.race(on, now, |dialers, _| dialers.secured(on, now));
    }

    fn handle_tls_failed(&mut self, on: ConnId, why: TlsFailure, now: Now) {
        self.attempt_failed(on, DialError::Tls(why), now);
    }

    fn handle_bytes(&mut self, on: ConnId, bytes: &[u8], now: Now) -> usize {
        let Some(State::Asking(reader)) = self.conns.state(on) else { return 0 };
        let mut used = 0;
        match reader.read(bytes, &mut used) {
            Ok(None) => {}
            Ok(Some(response)) => self.answered(on, Ok(response), now),
            Err(why) => self.answered(on, Err(why), now),
        }
        used
    }

    fn handle_moved(&mut self, from: ConnId, read: u32, queued: u32, now: Now) {
        let ended = self.conns.moved(from, read, queued, now);
        debug_assert!(ended.is_none(), "a transport has no pairs");
    }

    fn handle_flushed(&mut self, _: ConnId, _: Now) {}

    fn handle_acked(&mut self, _: ConnId, _: Option<Span>, _: Now) {}

    fn handle_end(&mut self, on: ConnId, how: End, now: Now) {
        match self.conns.state(on) {
            Some(State::Dialling) => self.attempt_failed(on, DialError::Ended(how), now),
            Some(State::Asking(reader)) => {
                let response = reader.end(how == End::Clean);
                self.answered(on, response, now);
            }
            Some(State::Closing) | None => {}
        }
    }

    fn handle_write_failed(&mut self, on: ConnId, now: Now) {
        // A CA may refuse a request before it has read all of it: its response can still be there to be read.
        if let Some(State::Dialling) = self.conns.state(on) {
            self.attempt_failed(on, DialError::Ended(End::Reset), now);
        }
    }

    fn handle_stalled(&mut self, on: ConnId, now: Now) {
        if self.conns.state(on).is_some() {
            self.handle_end(on, End::Reset, now);
        } else {
            let ended = self.conns.stalled(on, now);
            debug_assert!(ended.is_none(), "a transport has no pairs");
        }
    }

    fn owners(&self, on: ConnId) -> Owners {
        Owners::of_peer(self.conns.from(on))
    }

    fn handle_closed(&mut self, on: ConnId, now: Now) {
        self.conns.forget(on);
        self.dial_if_room(now);
    }

    fn handle_timeout(&mut self, now: Now) {
        while let Some(on) = self.conns.expired(now) {
            match self.conns.state(on) {
                Some(State::Dialling) => {
                    self.race(on, now, |dialers, conns| dialers.expired(on, conns, || State::Dialling, now));
                }
                Some(State::Asking(_)) => {
                    self.finish(Err(NoResponse::TimedOut));
                    self.shut(on, Close::Abort, now);
                }
                Some(State::Closing) | None => {}
            }
        }
        self.conns.check_invariants();
    }

    fn poll_output(&mut self, text: &mut Vec<u8>) -> Output {
        self.conns.poll(text, State::why)
    }
}
