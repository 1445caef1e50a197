//! Followed exchanges of a client and the HTTP service, for forwarding fields and passwords: both halves of the pair
//! are gated.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use super::basic_auth::{Answer, AuthState, Decision, VERDICT_TIMEOUT};
use super::{Agent, BasicAuth, PasswordCheck, State, conn_state};
use crate::conns::Ended;
use crate::event::Event;
use crate::http::accept::AnswerForm;
use crate::http::basic::Credentials;
use crate::http::follower::{Follower, Mode, Step};
use crate::http::forwarded::{self, Origin, Rewrite};
use crate::http::head::{Limits, Refusal};
use crate::http::reply::Status;
use crate::http::reply::diagnostic::{ADDRESS, CREDENTIALS};
use crate::machine::{Close, ConnId, Output, PASS_ALL};
use crate::pair::{EndReason, Flow, PairEnd, Side};
use crate::subject::Subject;
use crate::time::Now;

/// The state of a pair's exchanges. The connection to the relay holds it.
#[derive(Clone, Debug)]
pub(super) struct Forwarding {
    follower: Follower,
    /// The contents of the forwarding fields; `None`: none are written.
    origin: Option<Origin>,
    /// The subject of the client's certificate; `None`: the service does not get it.
    subject: Option<Subject>,
    /// The host that each request must name.
    host: Option<String>,
    /// The number of bytes of the service that passed the gate and have not moved.
    unmoved: u64,
    /// Whether the client's bytes wait for the service's response.
    waits: bool,
    /// What the deadline is for.
    awaited: Awaited,
    /// Asks for a password.
    auth: Option<AuthState>,
    /// Why the client's next request is not forwarded. All further bytes of the client are discarded.
    refused: Option<(Unforwarded, AnswerForm)>,
}

/// What a client's connection waits for, other than the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaited {
    Nothing,
    /// The rest of a head.
    Head,
    /// The result of a password check.
    Verdict,
    /// The next request of a client that was refused.
    Retry,
}

/// The response to a request that is not forwarded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unforwarded {
    pub(super) status: Status,
    pub(super) why: &'static str,
}

impl Unforwarded {
    pub(super) const LATE: Self =
        Self { status: Status::Timeout408, why: "the head of the request did not arrive in time" };

    pub(super) const fn no_service(why: &'static str) -> Self {
        Self { status: Status::BadGateway502, why }
    }

    pub(super) const ADDRESS: Self = Self { status: Status::Forbidden403, why: ADDRESS };

    /// The agent lacks a resource at the moment.
    pub(super) const fn unavailable(why: &'static str) -> Self {
        Self { status: Status::Unavailable503, why }
    }

    pub(super) const fn refused(refusal: Refusal) -> Self {
        Self { status: refusal.status(), why: refusal.why() }
    }
}

/// The response to a request for a host other than that of the client's TLS: a browser repeats it on a new connection
/// (RFC 9110 §15.5.20).
const MISDIRECTED: Unforwarded = Unforwarded {
    status: Status::Misdirected421,
    why: "the request is for another host than the TLS connection",
};

const MALFORMED: Unforwarded = Unforwarded { status: Status::BadRequest400, why: CREDENTIALS };

/// The result of bytes at a gate.
#[derive(Default)]
struct Outcome {
    /// The number of bytes at the front that are replaced by `text`.
    consumed: usize,
    /// The bytes to send to the service instead.
    text: Vec<u8>,
    /// The number of bytes after those that pass the gate; may be 0.
    pass: u64,
    /// The password of the request at the front, which must be checked.
    check: Option<Credentials>,
    /// The response to the last request that was consumed.
    answer: Option<Answer>,
}

impl Forwarding {
    pub(super) fn new(
        limits: Limits,
        origin: Option<Origin>,
        subject: Option<Subject>,
        host: Option<String>,
        basic_auth: Option<BasicAuth>,
    ) -> Self {
        Self {
            follower: Follower::new(limits, Mode::Strict),
            origin,
            subject,
            host,
            unmoved: 0,
            waits: false,
            awaited: Awaited::Nothing,
            auth: basic_auth.map(AuthState::new),
            refused: None,
        }
    }

    fn on_client_bytes(&mut self, bytes: &[u8], now: Now) -> Outcome {
        self.waits = false;
        self.awaited = Awaited::Nothing;
        let outcome = self.take_client_bytes(bytes, now);
        let auth = self.auth.as_ref();
        if self.awaited == Awaited::Nothing && self.refused.is_none() {
            if outcome.check.is_some() || auth.is_some_and(AuthState::is_asking) {
                self.awaited = Awaited::Verdict;
            } else if auth.is_some_and(AuthState::awaits_retry) {
                self.awaited = Awaited::Retry;
            }
        }
        outcome
    }

    fn take_client_bytes(&mut self, bytes: &[u8], now: Now) -> Outcome {
        let mut outcome = Outcome::default();
        loop {
            if self.refused.is_some() {
                outcome.consumed = bytes.len();
                return outcome;
            }
            let mut rest = bytes.get(outcome.consumed..).unwrap_or_default();
            if let Some(auth) = &mut self.auth {
                let dropped = auth.drop_body(rest);
                outcome.consumed += dropped;
                rest = rest.get(dropped..).unwrap_or_default();
                if auth.is_answer_queued() {
                    self.waits = true;
                    return outcome;
                }
            }
            match self.follower.on_client(rest) {
                Step::Request { head, .. }
                    if self.host.as_ref().is_some_and(|host| !head.names_host(host)) =>
                {
                    self.refused = Some((MISDIRECTED, AnswerForm::of(rest)));
                }
                Step::Request { len, head } => {
                    let is_answerable = self.follower.is_answerable() && self.unmoved == 0;
                    let raw = rest.get(..len).unwrap_or_default();
                    let decision = match &mut self.auth {
                        Some(auth) => auth.decide(&head, raw, is_answerable, now),
                        None => Decision::Pass,
                    };
                    match decision {
                        Decision::Pass => {
                            let how = self.rewrite();
                            let written = forwarded::rewrite(&head, how, &mut outcome.text);
                            self.follower.request_passed(&written);
                        }
                        Decision::Hold => {
                            self.waits = true;
                            return outcome;
                        }
                        Decision::Ask(credentials) => {
                            self.waits = true;
                            outcome.check = Some(credentials);
                            return outcome;
                        }
                        Decision::Malformed => {
                            self.refused = Some((MALFORMED, AnswerForm::of(rest)));
                            continue;
                        }
                        Decision::Answer(answer) => outcome.answer = Some(answer),
                    }
                    outcome.consumed += len;
                }
                Step::Skip(bytes) => {
                    outcome.pass = bytes;
                    return outcome;
                }
                Step::More | Step::Response { .. } => {
                    if !rest.is_empty() {
                        self.awaited = Awaited::Head;
                    }
                    return outcome;
                }
                Step::Hold => {
                    self.waits = true;
                    return outcome;
                }
                Step::Opaque => {
                    outcome.pass = PASS_ALL;
                    return outcome;
                }
                Step::Refused(refusal) => {
                    let is_head = self.follower.is_at_request_head();
                    let form = if is_head { AnswerForm::of(rest) } else { AnswerForm::default() };
                    self.refused = Some((Unforwarded::refused(refusal), form));
                }
            }
        }
    }

    /// The changes to the heads of requests. An Upgrade to `h2c` is always removed, since requests after it would not
    /// be inspected.
    fn rewrite(&self) -> Rewrite<'_> {
        let removes_credentials = self.auth.as_ref().is_some_and(|auth| !auth.basic_auth.keeps_credentials());
        Rewrite { origin: self.origin.as_ref(), subject: self.subject.as_ref(), removes_credentials }
    }

    /// Returns how many bytes of the service pass the gate.
    fn on_service_bytes(&mut self, bytes: &[u8]) -> u64 {
        let mut pass = 0_u64;
        while let Some(rest) =
            usize::try_from(pass).ok().and_then(|at| bytes.get(at..)).filter(|it| !it.is_empty())
        {
            match self.follower.on_hidden(rest) {
                Step::Response { len } => pass += len as u64,
                Step::Skip(bytes) => pass += bytes,
                Step::Opaque => return PASS_ALL,
                // Bytes that answer no request end the connection.
                Step::More | Step::Hold | Step::Request { .. } | Step::Refused(_) => break,
            }
        }
        self.unmoved += pass;
        pass
    }
}

impl Agent {
    /// For traces: a copy of the follower of the pair of `on`, and the side of `on`.
    #[cfg(feature = "trace")]
    pub(crate) fn follower(&mut self, on: ConnId) -> Option<(Follower, Side)> {
        let (peer, side) = self.conns.peer(on)?;
        let relay = if side == Side::Client { on } else { peer };
        forwarding(self, relay).map(|it| (it.follower.clone(), side))
    }

    /// Gates a new pair of a client and the HTTP service, if its exchanges are followed.
    pub(super) fn gate(&mut self, local: ConnId, relay: ConnId) {
        let Some(conn) = self.conns.state(relay) else { return };
        let upstream = conn.upstream;
        if !self.follows(relay) || self.conns.peer(relay).is_none() {
            return;
        }
        let is_https = self.upstream(upstream).relay.tls || self.is_sealed(relay);
        let client = self.conns.from(relay).map(|from| from.ip());
        let origin = self.forwards(relay).then_some(Origin { client, is_https });
        let host = self.name_of(relay).map(String::from);
        let basic_auth = self.basic_auth(relay).cloned();
        let sealed = self.conns.state(relay).and_then(|conn| conn.sealed.as_deref());
        let subject = sealed.and_then(|sealed| sealed.subject.clone());
        let forwarding = Forwarding::new(self.config.head, origin, subject, host, basic_auth);
        if let Some(state) = conn_state(&mut self.conns, relay) {
            *state = State::Paired(Some(Box::new(forwarding)));
        }
        for on in [relay, local] {
            self.conns.emit(Output::Gate { on });
        }
    }

    /// Handles bytes of a gated half. Returns how many were consumed.
    pub(super) fn read_gated(&mut self, on: ConnId, bytes: &[u8], now: Now) -> usize {
        match self.conns.peer(on) {
            Some((local, Side::Client)) => self.read_client(on, local, bytes, now),
            Some((relay, Side::Hidden)) => {
                self.read_service(on, relay, bytes, now);
                0
            }
            None => 0,
        }
    }

    fn read_client(&mut self, relay: ConnId, local: ConnId, bytes: &[u8], now: Now) -> usize {
        let Some(forwarding) = forwarding(self, relay) else { return 0 };
        let before = forwarding.awaited;
        let Outcome { consumed, text, pass, check, answer } = forwarding.on_client_bytes(bytes, now);
        let awaited = forwarding.awaited;
        let sent = u32::try_from(text.len()).unwrap_or(u32::MAX);
        self.conns.send(local, text);
        if consumed > 0 {
            let consumed = u32::try_from(consumed).unwrap_or(u32::MAX);
            let ended = self.conns.moved(relay, consumed, sent, now);
            self.pair_over(ended, now);
        }
        if pass > 0 {
            self.conns.emit(Output::Pass { from: relay, bytes: pass });
        }
        let timeout = match awaited {
            Awaited::Nothing => None,
            Awaited::Head | Awaited::Retry => Some(self.config.head_timeout),
            Awaited::Verdict => Some(VERDICT_TIMEOUT),
        };
        if timeout.is_none() || awaited != before || consumed > 0 {
            self.conns.set_due(relay, timeout.map(|timeout| now.mono + timeout));
        }
        if let Some(credentials) = check {
            self.ask(relay, credentials);
        }
        if let Some(answer) = answer {
            return self.answer(relay, local, answer, consumed, bytes.len(), now);
        }
        self.conclude(relay, now);
        consumed
    }

    fn read_service(&mut self, local: ConnId, relay: ConnId, bytes: &[u8], now: Now) {
        let Some(forwarding) = forwarding(self, relay) else { return };
        let pass = forwarding.on_service_bytes(bytes);
        if pass == 0 {
            return;
        }
        let waits = core::mem::take(&mut forwarding.waits);
        let is_opaque = forwarding.follower.is_opaque();
        self.conns.emit(Output::Pass { from: local, bytes: pass });
        if is_opaque {
            self.conns.emit(Output::Pass { from: relay, bytes: PASS_ALL });
            self.conns.set_due(relay, None);
            if let Some(state) = conn_state(&mut self.conns, relay) {
                *state = State::Paired(None);
            }
        } else if waits {
            self.offer_again(relay);
        }
        self.conclude(relay, now);
    }

    /// Bytes that passed the gate of a half have moved.
    pub(super) fn moved_gated(&mut self, from: ConnId, read: u32, now: Now) {
        let Some((relay, Side::Hidden)) = self.conns.peer(from) else { return };
        let Some(forwarding) = forwarding(self, relay) else { return };
        forwarding.unmoved = forwarding.unmoved.saturating_sub(u64::from(read));
        if forwarding.unmoved == 0 {
            forwarding.follower.hidden_passed(u64::MAX);
            self.conclude(relay, now);
        }
    }

    /// No bytes follow those that are kept of a gated half.
    pub(super) fn last_gated(&mut self, on: ConnId, now: Now) {
        match self.conns.peer(on) {
            Some((_, Side::Client)) => {
                let Some(forwarding) = forwarding(self, on) else { return };
                if !forwarding.waits {
                    self.refuse_next(on, Unforwarded::refused(Refusal::Incomplete), now);
                }
            }
            // Part of a response head, or bytes that answer no request. The client handles them.
            Some((_, Side::Hidden)) => self.conns.emit(Output::Pass { from: on, bytes: PASS_ALL }),
            None => {}
        }
    }

    /// Handles the deadline of a followed client. Returns false if there is none.
    pub(super) fn expire_gated(&mut self, relay: ConnId, now: Now) -> bool {
        let Some(awaited) = forwarding(self, relay).map(|it| it.awaited) else { return false };
        match awaited {
            Awaited::Nothing => return false,
            Awaited::Head => self.refuse_next(relay, Unforwarded::LATE, now),
            Awaited::Verdict => {
                const LATE: &str = "the password was not checked in time";
                self.refuse_next(relay, Unforwarded::unavailable(LATE), now);
            }
            Awaited::Retry => self.end_idle(relay, now),
        }
        true
    }

    /// Ends the pair of a client that is between two exchanges.
    fn end_idle(&mut self, relay: ConnId, now: Now) {
        let over = PairEnd { hidden: Close::Linger, client: Close::Linger, why: EndReason::Done };
        let ended = self.conns.end_pair(relay, over, now);
        self.pair_over(ended, now);
    }

    /// Requests the check of a password.
    fn ask(&mut self, on: ConnId, credentials: Credentials) {
        self.checked += 1;
        let ticket = self.checked;
        let from = self.conns.from(on).map(|from| from.ip());
        if let Some(auth) = self.auth(on) {
            auth.asked(ticket);
            self.checks.push(PasswordCheck { on, ticket, from, credentials });
        }
    }

    /// Sends a 401 or 429 to a request of which `consumed` bytes were discarded. Returns how many are
    /// discarded now.
    fn answer(
        &mut self,
        relay: ConnId,
        local: ConnId,
        answer: Answer,
        consumed: usize,
        offered: usize,
        now: Now,
    ) -> usize {
        let from = self.conns.from(relay);
        let upstream = self.conns.state(relay).map(|conn| conn.upstream);
        self.conns.event(Event::Dropped { on: relay, from, upstream, why: answer.why });
        let len = u32::try_from(answer.text.len()).unwrap_or(u32::MAX);
        let is_open = self.conns.pair_of(relay).is_some_and(|it| it.flow_from(Side::Hidden) == Flow::Open);
        if is_open {
            self.conns.send(relay, answer.text);
            // It replaces the service's response.
            let ended = self.conns.moved(local, len, len, now);
            self.pair_over(ended, now);
        }
        if answer.closes || !is_open {
            self.end_idle(relay, now);
            return offered;
        }
        consumed
    }

    /// The send queue of a gated half is empty.
    pub(super) fn flushed_gated(&mut self, on: ConnId) {
        if self.auth(on).is_some_and(AuthState::flushed) {
            self.offer_again(on);
        }
    }

    /// The state of a client's connection whose requests need a password.
    pub(super) fn auth(&mut self, relay: ConnId) -> Option<&mut AuthState> {
        forwarding(self, relay)?.auth.as_mut()
    }

    /// For traces: the number of the client's next bytes that belong to the body of a refused request.
    #[cfg(feature = "trace")]
    pub(crate) fn unread_body(&mut self, on: ConnId) -> u64 {
        self.auth(on).map_or(0, |auth| auth.unread_body())
    }

    /// Stops forwarding requests of the client: its bytes are discarded, and the next request gets this response.
    fn refuse_next(&mut self, relay: ConnId, why: Unforwarded, now: Now) {
        let Some(forwarding) = forwarding(self, relay) else { return };
        forwarding.refused.get_or_insert((why, AnswerForm::default()));
        self.offer_again(relay);
        self.conclude(relay, now);
    }

    /// Offers the kept bytes of the client again.
    pub(super) fn offer_again(&mut self, relay: ConnId) {
        let is_read =
            self.conns.pair_of(relay).is_some_and(|pair| pair.flow_from(Side::Client) != Flow::Dead);
        if is_read {
            self.conns.emit(Output::Read { on: relay, wanted: true });
        }
    }

    /// Ends the pair if no request follows, or if it is the turn of the one that is not forwarded.
    pub(super) fn conclude(&mut self, relay: ConnId, now: Now) {
        let Some(forwarding) = forwarding(self, relay) else { return };
        let (follower, refused) = (&forwarding.follower, forwarding.refused);
        if forwarding.unmoved > 0 {
            return;
        }
        let in_request = follower.is_in_request();
        if refused.is_none()
            && follower.is_answerable()
            && forwarding.auth.as_ref().is_some_and(AuthState::has_denied)
        {
            return self.offer_again(relay);
        }
        let Some(forwarding) = self::forwarding(self, relay) else { return };
        let follower = &forwarding.follower;
        let over = match refused {
            Some((refused, form)) if follower.is_answerable() => {
                let from = self.conns.from(relay);
                let upstream = self.conns.any_state(relay).map(|conn| conn.upstream);
                self.conns.event(Event::Dropped { on: relay, from, upstream, why: refused.why });
                self.send_reply(relay, refused, form.is_head, form.form, now);
                // A service must not take a part of a request for the whole.
                let hidden = if in_request { Close::Truncate } else { Close::Linger };
                PairEnd { hidden, client: Close::Linger, why: EndReason::Done }
            }
            _ if follower.is_over() => {
                PairEnd { hidden: Close::Linger, client: Close::Linger, why: EndReason::Done }
            }
            _ => return,
        };
        let ended: Option<Ended> = self.conns.end_pair(relay, over, now);
        self.pair_over(ended, now);
    }
}

/// The state of the exchanges of the client on `relay`; `None` if they are not followed.
impl Agent {
    /// Whether the exchanges of this client are followed, and all of them are complete.
    pub(super) fn is_answered(&mut self, relay: ConnId) -> bool {
        match self.conns.any_state(relay).map(|conn| &conn.state) {
            Some(State::Paired(Some(forwarding))) => forwarding.follower.is_complete(),
            _ => false,
        }
    }
}

fn forwarding(agent: &mut Agent, relay: ConnId) -> Option<&mut Forwarding> {
    match conn_state(&mut agent.conns, relay) {
        Some(State::Paired(Some(forwarding))) => Some(forwarding),
        _ => None,
    }
}
