//! One connection to the operator's server.

use std::io;
use std::net::IpAddr;

use rendezvous_core::agent::{PasswordCheck, Verdict};
use rendezvous_core::http::basic::{self, Presented};
use rendezvous_core::http::head::{self, Finder, Found, Head, Limits};
use rendezvous_core::machine::ConnId;
use rendezvous_core::time::{Span, Time};

use super::listener::Sock;
use super::request::{Access, BODY_MAX, Request, body_bytes};
use super::response::{Content, Framing, Response, write_head};
use super::tls_sock::Received;
use super::{CLOSE_TIMEOUT, IDLE_TIMEOUT, REQUEST_TIMEOUT, RESPONSE_TIMEOUT, SLICE, Site, Turn};
use crate::net::mio::MioNet;

/// Limits of a request's head.
const LIMITS: Limits = Limits { head_bytes_max: 8 * 1024, line_bytes_max: 4 * 1024 };
/// Limit of what one connection does in a turn: requests, slices, calls.
const STEPS_MAX: usize = 16;
/// Bytes that are received in one call.
const RECEIVE: usize = 4 * 1024;
/// What a step of TLS without data counts in a turn, in bytes: a handshake takes as long as many bytes.
const TLS_STEP: usize = SLICE;

/// What a connection needs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// An edge, or its deadline.
    Wait,
    /// Another turn.
    Again,
    /// To be closed.
    Close,
}

#[derive(Debug)]
enum State<B> {
    /// A request is awaited.
    Reading(Finder),
    /// The password of a complete request is checked; this is the number of the check.
    Checking(u64),
    /// A response is sent; `None`: all of it is made.
    Responding(Option<(B, Framing)>),
    /// Everything was sent. What still arrives is discarded, so that it does not reset the connection.
    Closing,
}

pub(super) struct Conn<B> {
    sock: Sock,
    access: Access,
    /// The client's address, if it is another machine.
    pub(super) from: Option<IpAddr>,
    /// Whether its client is local, or has sent a right password.
    is_trusted: bool,
    /// The result of the check of the present request's password.
    verdict: Option<Verdict>,
    state: State<B>,
    received: Vec<u8>,
    unsent: Vec<u8>,
    /// How many bytes of `unsent` are sent.
    sent: usize,
    /// Whether another request may follow.
    keeps: bool,
    is_readable: bool,
    is_writable: bool,
    /// The beginning of the present request or of the time without one.
    pub(super) since: Time,
    /// The deadline.
    pub(super) due: Time,
}

impl<B> Conn<B> {
    pub(super) fn new(sock: Sock, access: Access, from: Option<IpAddr>, now: Time) -> Self {
        Self {
            sock,
            access,
            from,
            is_trusted: access != Access::Remote,
            verdict: None,
            state: State::Reading(Finder::default()),
            received: Vec::new(),
            unsent: Vec::new(),
            sent: 0,
            keeps: true,
            is_readable: true,
            is_writable: true,
            since: now,
            due: now + REQUEST_TIMEOUT,
        }
    }

    pub(super) fn on_edge(&mut self, read: bool, write: bool) {
        self.is_readable |= read;
        self.is_writable |= write;
    }

    /// Whether it has a request or a part of one.
    fn is_busy(&self) -> bool {
        !matches!(self.state, State::Reading(_)) || !self.received.is_empty()
    }

    /// The order in which connections are closed for new ones: strangers first, then idle ones, then the oldest.
    pub(super) fn rank(&self) -> (bool, bool, Time) {
        (self.is_trusted, self.is_busy(), self.since)
    }

    /// Handles the result of a check. Returns whether the connection has work.
    pub(super) fn on_verdict(&mut self, ticket: u64, verdict: Verdict) -> bool {
        let is_awaited = matches!(self.state, State::Checking(of) if of == ticket);
        if is_awaited {
            self.is_trusted |= verdict == Verdict::Right;
            self.verdict = Some(verdict);
            // The request is read again.
            self.state = State::Reading(Finder::default());
        }
        is_awaited
    }

    pub(super) fn close(mut self, net: &MioNet) {
        self.sock.deregister(net);
    }

    /// Does what can be done now.
    pub(super) fn serve(&mut self, site: &mut impl Site<Body = B>, turn: &mut Turn<'_>) -> Step {
        for _ in 0..STEPS_MAX {
            match self.send() {
                Ok(true) => {}
                Ok(false) => return Step::Wait,
                Err(_) => return Step::Close,
            }
            match &mut self.state {
                State::Checking(_) => return Step::Wait,
                State::Responding(Some(_)) if turn.room == 0 => return Step::Again,
                State::Responding(Some(_)) => turn.room = turn.room.saturating_sub(self.make(site)),
                State::Responding(None) => {
                    let now = site.now().mono;
                    if self.keeps {
                        // The beginning of the next request may be there already.
                        let is_idle = self.received.is_empty();
                        let timeout = if is_idle { IDLE_TIMEOUT } else { REQUEST_TIMEOUT };
                        self.begin(State::Reading(Finder::default()), timeout, now);
                    } else if self.sock.end_write().is_err() {
                        return Step::Close;
                    } else {
                        self.received = Vec::new();
                        self.begin(State::Closing, CLOSE_TIMEOUT, now);
                    }
                }
                State::Closing => {
                    return match self.receive() {
                        Ok(Some(Received::Bytes(_) | Received::Nothing)) => Step::Again,
                        Ok(None) => Step::Wait,
                        Ok(Some(Received::End)) | Err(_) => Step::Close,
                    };
                }
                State::Reading(_) => {
                    if self.request(site, turn) {
                        continue;
                    }
                    if self.access == Access::Remote && turn.room == 0 {
                        return Step::Again;
                    }
                    let is_first = self.received.is_empty();
                    match self.receive() {
                        Ok(Some(Received::Bytes(_))) if is_first => {
                            let now = site.now().mono;
                            (self.since, self.due) = (now, now + REQUEST_TIMEOUT);
                        }
                        Ok(Some(Received::Bytes(_))) => {}
                        Ok(Some(Received::Nothing)) => turn.room = turn.room.saturating_sub(TLS_STEP),
                        Ok(None) => return Step::Wait,
                        Ok(Some(Received::End)) | Err(_) => return Step::Close,
                    }
                }
            }
        }
        Step::Again
    }

    fn begin(&mut self, state: State<B>, timeout: Span, now: Time) {
        (self.state, self.since, self.due) = (state, now, now + timeout);
    }

    /// Sends what is unsent. Returns whether all of it is sent.
    fn send(&mut self) -> io::Result<bool> {
        while self.sent < self.unsent.len() || self.sock.has_unsent() {
            if !self.is_writable {
                return Ok(false);
            }
            let sent = match &self.unsent[self.sent..] {
                [] => self.sock.flush().map(|()| None),
                bytes => self.sock.send(bytes).map(Some),
            };
            match sent {
                Ok(None) => {}
                Ok(Some(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(Some(bytes)) => self.sent += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.is_writable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        (self.unsent, self.sent) = (Vec::new(), 0);
        Ok(true)
    }

    /// Receives once; `None` if there is nothing now.
    fn receive(&mut self) -> io::Result<Option<Received>> {
        if !self.is_readable {
            return Ok(None);
        }
        let mut bytes = [0; RECEIVE];
        loop {
            match self.sock.recv(&mut bytes) {
                Ok(received) => {
                    if let Received::Bytes(count) = received
                        && !matches!(self.state, State::Closing)
                    {
                        self.received.extend_from_slice(&bytes[..count]);
                    }
                    return Ok(Some(received));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.is_readable = false;
                    return Ok(None);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Makes the next slice of a response. Returns its length.
    fn make(&mut self, site: &mut impl Site<Body = B>) -> usize {
        let State::Responding(Some((body, framing))) = &mut self.state else { return 0 };
        let mut slice = String::with_capacity(SLICE + 1024);
        let more = site.slice(body, &mut slice);
        let bytes = slice.len();
        if *framing == Framing::Chunked {
            if bytes > 0 {
                self.unsent.extend_from_slice(format!("{bytes:x}\r\n").as_bytes());
                self.unsent.extend_from_slice(slice.as_bytes());
                self.unsent.extend_from_slice(b"\r\n");
            }
            if !more {
                self.unsent.extend_from_slice(b"0\r\n\r\n");
            }
        } else {
            self.unsent.extend_from_slice(slice.as_bytes());
        }
        if !more {
            self.state = State::Responding(None);
        }
        bytes.max(1)
    }

    /// Answers the request that was received, if it is complete. Returns whether there was one.
    fn request(&mut self, site: &mut impl Site<Body = B>, turn: &mut Turn<'_>) -> bool {
        let State::Reading(finder) = &mut self.state else { return false };
        if self.received.is_empty() {
            return false;
        }
        let received = std::mem::take(&mut self.received);
        let found = match finder.find(&received, &LIMITS) {
            Found::Partial => {
                self.received = received;
                return false;
            }
            Found::Complete(_) if self.sock.is_clear() => {
                self.refuse(site, (400, "Bad Request", "plain HTTP on a port for HTTPS: use https"));
                return true;
            }
            Found::Complete(whole) => whole.parse().map(|head| (head, whole.bytes().len())),
            Found::Refused(refusal) => Err(refusal),
        };
        let (head, head_bytes) = match found {
            Ok(found) => found,
            Err(refusal) => {
                let status = refusal.status();
                self.refuse(site, (status.code(), status.reason(), refusal.why()));
                return true;
            }
        };
        let body_bytes = match body_bytes(&head) {
            Ok(bytes) => bytes,
            Err(refusal) => {
                self.refuse(site, refusal);
                return true;
            }
        };
        let end = head_bytes + body_bytes;
        debug_assert!(end <= LIMITS.head_bytes_max as usize + BODY_MAX, "bounded");
        if received.len() < end {
            self.received = received;
            return false;
        }
        let names = if self.access == Access::Remote { turn.remote_names } else { turn.names };
        let checked = Request::check(&head, &received[head_bytes..end], self.access, names);
        match checked {
            Err(refusal) => self.refuse(site, refusal),
            Ok(request) if request.needs_password() && !self.is_admitted(&head, site, turn) => {
                // The request is read again after the check.
                if matches!(self.state, State::Checking(_)) {
                    self.received = received;
                }
            }
            Ok(request) => {
                let response = site.respond(&request);
                let is_http11 = head.version == head::Version::Http11;
                self.respond(site, response, head.method == "HEAD", is_http11, head.persists);
                self.received = received[end..].to_vec();
            }
        }
        true
    }

    /// Whether the password of a request is right. If it is not known yet, a check is begun; if it is wrong or missing,
    /// the request is refused.
    fn is_admitted(&mut self, head: &Head<'_>, site: &mut impl Site<Body = B>, turn: &mut Turn<'_>) -> bool {
        let values = head.values("Authorization");
        let presented = match values.as_slice() {
            [] => Presented::Nothing,
            [value] => basic::read(Some(value)),
            _ => Presented::Malformed,
        };
        match (self.verdict.take(), presented) {
            (Some(Verdict::Right), _) => return true,
            (Some(Verdict::Busy { retry_after }), _) => {
                let response = Response {
                    fields: format!("Retry-After: {retry_after}\r\n").into(),
                    ..Response::text(
                        (429, "Too Many Requests"),
                        "too many wrong passwords from this address\n",
                    )
                };
                self.end_with(site, response);
            }
            (None, Presented::Basic(credentials)) => {
                let ticket = turn.ticket();
                let on = ConnId { index: turn.place, generation: 0 };
                turn.checks.push(PasswordCheck { on, ticket, from: self.from, credentials });
                self.begin(State::Checking(ticket), RESPONSE_TIMEOUT, site.now().mono);
            }
            (Some(Verdict::Wrong), _) | (None, Presented::Nothing | Presented::Malformed) => {
                let mut challenge = Vec::new();
                basic::write_challenge("rendezvous", &mut challenge);
                let response = Response {
                    fields: String::from_utf8_lossy(&challenge).into_owned().into(),
                    ..Response::text((401, "Unauthorized"), "a user name and a password are required\n")
                };
                self.end_with(site, response);
            }
        }
        false
    }

    /// Refuses a request, and closes the connection after the response.
    fn refuse(&mut self, site: &mut impl Site<Body = B>, (code, reason, why): super::request::Refusal) {
        self.end_with(site, Response::text((code, reason), format!("{why}\n")));
    }

    /// Sends a response, and closes the connection.
    fn end_with(&mut self, site: &mut impl Site<Body = B>, response: Response<B>) {
        self.received = Vec::new();
        self.respond(site, response, false, false, false);
    }

    fn respond(
        &mut self,
        site: &mut impl Site<Body = B>,
        response: Response<B>,
        is_head: bool,
        is_http11: bool,
        persists: bool,
    ) {
        let framing = match &response.content {
            Content::Whole(bytes) => Framing::Length(bytes.len()),
            Content::Sliced(_) if is_http11 => Framing::Chunked,
            Content::Sliced(_) => Framing::Close,
        };
        // Without a field of its own, HTTP/1.0 ends with the response.
        self.keeps = persists && is_http11 && framing != Framing::Close;
        let now = site.now();
        write_head(&response, framing, self.keeps, now.wall, &mut self.unsent);
        let rest = match response.content {
            _ if is_head => None,
            Content::Whole(bytes) => {
                self.unsent.extend_from_slice(&bytes);
                None
            }
            Content::Sliced(body) => Some((body, framing)),
        };
        self.begin(State::Responding(rest), RESPONSE_TIMEOUT, now.mono);
    }
}
