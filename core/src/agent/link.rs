//! One relay and its waiting connections: opens them, handles their loss, and schedules retries.

use alloc::vec::Vec;
use core::net::SocketAddr;

use data_encoding::BASE64URL_NOPAD;

use super::decaying_debt::DecayingDebt;
use super::pool::Pool;
use super::proof::{Proof, Prover};
use super::unanswered::Unanswered;
use super::{Agent, Conn, Path, State};
use crate::backoff::{Backoff, ErrorClass, Retry};
use crate::dialer::Dialling;
use crate::event::{Event, RelayLoss, Target};
use crate::http::instance::Instance;
use crate::http::response::{RegistrationOptions, Response, write_connect};
use crate::http::target::Token;
use crate::machine::{Close, ConnId, DialFailure, End, Output, TlsFailure, TlsRole};
use crate::relay_client::Answer;
use crate::time::{Now, Span, Time};
use crate::tunnel::ProxyError;

/// The age beyond which the end of a waiting connection does not count as a failure: relays and middleboxes close
/// idle ones eventually (node-rendezvous: cleanly after 120 s).
const OLD: Span = Span::from_secs(60);
/// After a connection has waited for this long, or has brought a client, the backoff is reset. The 200 alone is not
/// enough: two agents with plain tokens replace each other's connections, each after its 200.
const SETTLED: Span = Span::from_secs(10);
/// The cost of a connection that is opened because of a path change, which is the long-term interval.
const PATH_CHANGE_COST: Span = Span::from_secs(5);
/// The tolerance of such costs: five connections.
const PATH_CHANGE_TOLERANCE: Span = Span::from_secs(20);
/// The cost of a retry at once after the relay has ended young connections, which is the long-term interval.
const RELEASE_COST: Span = Span::from_secs(10);
/// The timeout of a response at an address where no relay has answered yet, if there is another address.
const UNPROVEN_ANSWER: Span = Span::from_secs(2);

/// The state of one relay.
#[derive(Clone, Debug)]
pub(super) struct Link {
    /// Connections being established, including one in backoff.
    pub(super) connecting: u32,
    /// Waiting connections.
    pub(super) waiting: u32,
    /// Those of them on an old path.
    pub(super) old_path: u32,
    /// Connections of clients, to the relay and to the local services.
    pub(super) serving: u32,
    /// The deadline of the connection in backoff; there is at most one.
    pub(super) backing_off: Option<Time>,
    /// After a failure, no connection is begun before this time; those under way continue.
    not_before: Time,
    /// Whether the relay has accepted a connection since the last failure. Until then only one connection is tried,
    /// not the pool.
    proven: bool,
    backoff: Backoff,
    /// The pool of waiting connections.
    pub(super) pool: Pool,
    /// Chooses what the next token is bound to.
    prover: Prover,
    /// Clients that got no response.
    unanswered: Unanswered,
    /// Connections that were opened because of a path change.
    path_changes: DecayingDebt,
    /// When the relay has begun to end waiting connections cleanly, if the agent has retried at once.
    released: Option<Time>,
    /// Such retries.
    releases: DecayingDebt,
    /// The relay that answered last.
    pub(super) instance: Option<Instance>,
    /// Renewals of the pool because another relay answered.
    pub(super) relay_changes: DecayingDebt,
}

/// The states that a link counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Connecting,
    Waiting,
    /// Serves a client.
    Serving,
    Other,
}

impl Link {
    pub(super) fn new(retry: Retry, pool: Pool) -> Self {
        Self {
            connecting: 0,
            waiting: 0,
            old_path: 0,
            serving: 0,
            backing_off: None,
            not_before: Time(0),
            proven: false,
            backoff: Backoff::new(retry),
            pool,
            prover: Prover::default(),
            unanswered: Unanswered::default(),
            path_changes: DecayingDebt::default(),
            released: None,
            releases: DecayingDebt::default(),
            instance: None,
            relay_changes: DecayingDebt::default(),
        }
    }

    pub(super) fn count(&mut self, from: Stage, to: Stage) {
        match from {
            Stage::Connecting => self.connecting -= 1,
            Stage::Waiting => self.waiting -= 1,
            Stage::Serving => self.serving -= 1,
            Stage::Other => {}
        }
        match to {
            Stage::Connecting => self.connecting += 1,
            Stage::Waiting => self.waiting += 1,
            Stage::Serving => self.serving += 1,
            Stage::Other => {}
        }
    }

    /// The relay brought a client. That alone does not reset the backoff, since a byte costs the relay nothing.
    pub(super) fn take(&mut self) {
        self.proven = true;
    }

    /// A client of the relay was answered, which resets the backoff.
    fn on_answered(&mut self, now: Now) {
        self.proven = true;
        self.not_before = now.mono;
        self.unanswered.answered();
        self.reset_backoff();
    }

    /// The relay has ended a connection cleanly that has waited since `since`.
    fn on_release(&mut self, since: Time, now: Now) -> Release {
        // Connections that were opened later do not belong to it.
        if self.released.is_some_and(|released| since < released) {
            return Release::Continues;
        }
        if self.releases.excess(Span::ZERO, now) > Span::ZERO {
            return Release::TooSoon;
        }
        self.releases.add(RELEASE_COST, now);
        self.released = Some(now.mono);
        Release::Begins
    }

    /// The relay works: resets the backoff.
    pub(super) fn reset_backoff(&mut self) {
        self.backoff.reset();
    }
}

/// What the clean end of a waiting connection is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Release {
    /// The first of the connections that the relay releases.
    Begins,
    /// A further one of them.
    Continues,
    /// A failure: the relay ended others a short time ago, and this one was opened since.
    TooSoon,
}

/// When to retry.
#[derive(Clone, Copy, Debug)]
enum RetryDelay {
    AtOnce,
    After(ErrorClass),
    /// Not because of this loss: enough other connections wait, and nothing has failed.
    None,
}

impl Agent {
    /// Opens the connections that the pool lacks: all of them if the relay is known to accept connections, otherwise
    /// one. During a backoff, that one waits.
    pub(super) fn fill(&mut self, upstream: u16, now: Now) {
        self.fill_for(upstream, 0, now);
    }

    /// The same, with connections for this many clients that the relay holds.
    fn fill_for(&mut self, upstream: u16, held: u32, now: Now) {
        let service_max = self.config.service_connections_max;
        let link = self.link(upstream);
        let lacking = if link.proven {
            let servable = service_max.saturating_sub(link.serving) / 2;
            link.pool.lacking(link.connecting, link.waiting - link.old_path, held.min(servable))
        } else {
            1_u32.saturating_sub(link.connecting)
        };
        // Each of them may be lost at once.
        let lacking = if link.unanswered.is_heavy(now) { lacking.min(1) } else { lacking };
        let (not_before, rests) = (link.not_before, link.backing_off.is_some());
        if self.stopping || lacking == 0 {
            return;
        }
        if now.mono < not_before {
            if !rests {
                let on = self.conns.insert(Conn::new(upstream, State::Ended), None);
                self.enter(on, State::Backoff, Some(not_before));
            }
            return;
        }
        for _ in 0..lacking {
            let on = self.conns.insert(Conn::new(upstream, State::Ended), None);
            self.begin(on, now);
        }
    }

    /// The backoff has elapsed: reconnect.
    pub(super) fn wake(&mut self, on: ConnId, now: Now) {
        let Some(conn) = self.conns.state(on) else { return };
        let upstream = conn.upstream;
        self.begin(on, now);
        self.fill(upstream, now);
    }

    /// The ticket was replaced: failures with the old one are forgotten, and an attempt that is backing off begins.
    pub(super) fn renew(&mut self, upstream: u16, now: Now) {
        let link = self.link(upstream);
        link.not_before = now.mono;
        link.prover = Prover::default();
        link.reset_backoff();
        for on in self.conns.open_ids() {
            match self.conns.state(on) {
                Some(Conn { upstream: of, state: State::Backoff, .. }) if *of == upstream => {
                    return self.wake(on, now);
                }
                _ => {}
            }
        }
        self.fill(upstream, now);
    }

    /// An address or a route has changed. A connection is opened at once, regardless of the backoff and of
    /// connections being established, which may never succeed. If paths change too often, the change is ignored.
    pub(super) fn change_path(&mut self, upstream: u16, now: Now) {
        let link = self.link(upstream);
        if link.path_changes.excess(PATH_CHANGE_TOLERANCE, now) > Span::ZERO {
            return;
        }
        link.path_changes.add(PATH_CHANGE_COST, now);
        link.proven = false;
        link.not_before = now.mono;
        let mut backing_off = None;
        for on in self.conns.open_ids() {
            match self.conns.state(on) {
                Some(Conn { upstream: of, .. }) if *of != upstream => {}
                Some(Conn { state: State::Waiting { path: path @ Path::Current, .. }, .. }) => {
                    *path = Path::Old;
                    self.link(upstream).old_path += 1;
                }
                Some(Conn { state: State::Backoff, .. }) => backing_off = Some(on),
                _ => {}
            }
        }
        let on = backing_off.unwrap_or_else(|| self.conns.insert(Conn::new(upstream, State::Ended), None));
        self.begin(on, now);
    }

    fn begin(&mut self, on: ConnId, now: Now) {
        let Some(conn) = self.conns.state(on) else { return };
        let upstream = conn.upstream;
        let relay = &self.config.upstreams[usize::from(upstream)].relay;
        let tls = relay.tls.then_some(TlsRole::Client { upstream });
        let how = Dialling { tls, greets: false, deadlines: self.config.deadlines };
        let place = relay.place.clone();
        self.enter(on, State::Reaching, None);
        let proxy = self.config.proxies.get(usize::from(upstream)).and_then(Option::as_ref);
        self.dialers.begin_through(on, proxy, &place, how, &mut self.conns, now);
    }

    /// The relay was reached at this address: sends the CONNECT with a token.
    pub(super) fn register(&mut self, on: ConnId, at: Option<SocketAddr>, now: Now) {
        let Some(conn) = self.conns.state(on) else { return };
        let index = usize::from(conn.upstream);
        let (upstream, link) = (&self.config.upstreams[index], &mut self.links[index]);
        let proof = if upstream.plain { Proof::Plain } else { link.prover.next(now) };
        let (key, step) = (&upstream.key, upstream.key.step(now.wall));
        let plain;
        let mut nonce = alloc::string::String::new();
        if proof != Proof::Plain {
            nonce = BASE64URL_NOPAD.encode(&self.nonces.half_block());
        }
        let nonce = nonce.as_bytes();
        let token = match proof {
            Proof::Plain => {
                plain = key.plain(step);
                Token::Plain(plain.as_bytes())
            }
            Proof::Time => Token::Bound { response: key.bound(step, nonce), nonce },
            Proof::Challenge { challenge, .. } => {
                Token::Challenged { response: key.over_challenge(&challenge, nonce), nonce, challenge }
            }
        };
        let mut text = Vec::new();
        let options = RegistrationOptions {
            proxy_header: self.config.asks_for_address(),
            pool: link.pool.grows(),
            instance: self.config.renew.is_some(),
            raw: upstream.takes_raw(),
        };
        write_connect(&mut text, upstream.id, &token, &upstream.relay.host_header, options);
        self.conns.send(on, text);
        let timeout = self.answer_timeout(index, at, now);
        let state = State::Registering { answer: Answer::default(), proof, at };
        self.enter(on, state, Some(now.mono + timeout));
    }

    /// The timeout of a response from a relay at this address. A relay answers a CONNECT at once. If it has never
    /// answered there, and there is another address, the timeout is short.
    fn answer_timeout(&mut self, upstream: usize, at: Option<SocketAddr>, now: Now) -> Span {
        let timeout = self.config.deadlines.answer;
        let book = self.dialers.book(&self.config.upstreams[upstream].relay.place);
        match at {
            Some(at) if !book.has_answered(at) && book.has_other(at, now.mono) => {
                timeout.min(UNPROVEN_ANSWER)
            }
            _ => timeout,
        }
    }

    /// Handles the relay's response.
    pub(super) fn answered(&mut self, on: ConnId, response: &Response, now: Now) {
        let Some(&mut Conn { upstream, state: State::Registering { proof, at, .. }, .. }) =
            self.conns.state(on)
        else {
            return;
        };
        if let Some(at) = at {
            self.dialers.book(&self.config.upstreams[usize::from(upstream)].relay.place).answered(at);
        }
        if !(200..300).contains(&response.status) {
            return self.refused(on, upstream, proof, response, now);
        }
        let renew = self.renew_at(now);
        let due = renew.map_or(now.mono + SETTLED, |renew| renew.min(now.mono + SETTLED));
        self.enter(on, State::Waiting { since: now.mono, path: Path::Current, renew }, Some(due));
        self.conns.emit(Output::UserTimeout { on, after: Some(self.config.user_timeout) });
        let link = self.link(upstream);
        link.proven = true;
        link.prover.accepted(proof, response.challenge, now);
        let waiting = link.waiting;
        if let Some(state) = response.pool {
            link.pool.on_state(state, waiting);
        }
        self.conns.event(Event::Registered { on, upstream, waiting });
        self.met_relay(on, response.instance, now);
        self.fill_for(upstream, response.pool.map_or(0, |state| state.held), now);
    }

    fn refused(&mut self, on: ConnId, upstream: u16, proof: Proof, response: &Response, now: Now) {
        let retry_after = response.retry_after.map(|secs| Span::from_secs(u64::from(secs)));
        let link = self.link(upstream);
        // Other refusals are not about the token.
        let is_of_token = matches!(response.status, 401 | 429);
        let is_invited = is_of_token && link.prover.refused(proof, response.challenge, now);
        // If another connection is being established or in backoff, none is begun now.
        if is_invited && (link.connecting > 1 || link.prover.take_retry(now)) {
            self.lose_at(on, RelayLoss::Challenged, RetryDelay::AtOnce, now);
        } else {
            let loss = RelayLoss::Refused(response.status);
            self.lose_at(on, loss, RetryDelay::After(class(loss, retry_after)), now);
        }
    }

    /// A client of this upstream left, or had to be refused, before the local service had answered it.
    pub(super) fn unanswered_client(&mut self, upstream: u16, now: Now) {
        let link = self.link(upstream);
        let pause = link.unanswered.add(now);
        if pause == Span::ZERO {
            return;
        }
        let is_news = link.not_before <= now.mono;
        link.not_before = link.not_before.max(now.mono + pause);
        if is_news {
            self.conns.event(Event::Slowed { upstream, pause });
        }
    }

    /// The local service begins to answer a client.
    pub(super) fn answered_client(&mut self, local: ConnId, now: Now) {
        let Some(&mut Conn { upstream, .. }) = self.conns.state(local) else { return };
        self.link(upstream).on_answered(now);
        self.fill(upstream, now);
    }

    /// A connection has waited long enough: resets the backoff. If the pool has grown and no client came since, it
    /// shrinks: the connections that have waited longest are closed, which the relay would hand over last.
    pub(super) fn waited(&mut self, on: ConnId, now: Now) {
        let Some(&mut Conn { upstream, state: State::Waiting { since, renew, .. }, .. }) =
            self.conns.state(on)
        else {
            return;
        };
        if renew.is_some_and(|renew| renew <= now.mono) {
            return self.renew_conn(on, now);
        }
        let link = self.link(upstream);
        if now.mono.since(since) >= SETTLED {
            link.reset_backoff();
        }
        match link.pool.shrinks_at(link.waiting) {
            None => self.conns.set_due(on, renew),
            Some(at) if at > now.mono => {
                self.conns.set_due(on, Some(renew.map_or(at, |renew| renew.min(at))));
            }
            Some(_) => {
                let stay = self.link(upstream).pool.shrink();
                let mut waiting = self.waiting_since(upstream);
                waiting.truncate(waiting.len().saturating_sub(stay));
                for (_, on) in waiting {
                    self.close(on, Close::Linger, now);
                }
            }
        }
    }

    /// The waiting connections at this relay, the oldest first.
    pub(super) fn waiting_since(&mut self, upstream: u16) -> Vec<(Time, ConnId)> {
        let mut waiting = Vec::new();
        for on in self.conns.open_ids() {
            match self.conns.state(on) {
                Some(&mut Conn { upstream: of, state: State::Waiting { since, .. }, .. })
                    if of == upstream =>
                {
                    waiting.push((since, on));
                }
                _ => {}
            }
        }
        waiting.sort_unstable();
        waiting
    }

    /// A connection failed, or ended before a client came.
    pub(super) fn lose(&mut self, on: ConnId, loss: RelayLoss, now: Now) {
        if loss == RelayLoss::Ended(End::Clean)
            && let Some(&mut Conn { upstream, state: State::Waiting { .. }, .. }) = self.conns.state(on)
        {
            let link = self.link(upstream);
            if link.pool.is_replaced(link.waiting.saturating_sub(1)) {
                return self.lose_at(on, loss, RetryDelay::None, now);
            }
        }
        if let Some(&mut Conn { state: State::Waiting { path: Path::Old | Path::Renewing, .. }, .. }) =
            self.conns.state(on)
        {
            return self.lose_at(on, loss, RetryDelay::None, now);
        }
        let (waited, at) = match self.conns.state(on).map(|conn| &conn.state) {
            Some(State::Waiting { since, .. }) => (now.mono.since(*since), None),
            Some(State::Registering { at, .. }) => (Span::ZERO, *at),
            _ => (Span::ZERO, None),
        };
        let is_elsewhere = at.is_some_and(|at| self.failed_at(on, at, loss, now));
        let release = match self.conns.state(on) {
            Some(&mut Conn { upstream, state: State::Waiting { since, .. }, .. })
                if waited < OLD && loss == RelayLoss::Ended(End::Clean) =>
            {
                self.link(upstream).on_release(since, now)
            }
            _ => Release::TooSoon,
        };
        if release == Release::Continues {
            return self.lose_at(on, RelayLoss::Released, RetryDelay::AtOnce, now);
        }
        let pace = if waited >= OLD || is_elsewhere || release == Release::Begins {
            RetryDelay::AtOnce
        } else {
            RetryDelay::After(class(loss, None))
        };
        self.lose_at(on, loss, pace, now);
    }

    /// This address of the relay gave no response. Returns whether another address is tried at once.
    fn failed_at(&mut self, on: ConnId, at: SocketAddr, loss: RelayLoss, now: Now) -> bool {
        match loss {
            RelayLoss::Refused(_)
            | RelayLoss::Challenged
            | RelayLoss::Released
            | RelayLoss::Unreachable(_)
            | RelayLoss::Proxy(_) => return false,
            RelayLoss::NotHttp | RelayLoss::Ended(_) | RelayLoss::TimedOut | RelayLoss::Tls(_) => {}
        }
        let Some(&mut Conn { upstream, .. }) = self.conns.state(on) else { return false };
        let book = self.dialers.book(&self.config.upstreams[usize::from(upstream)].relay.place);
        book.failed(at, now.mono);
        book.has_other(at, now.mono)
    }

    fn lose_at(&mut self, on: ConnId, why: RelayLoss, pace: RetryDelay, now: Now) {
        let Some(conn) = self.conns.state(on) else { return };
        let upstream = conn.upstream;
        let how = match why {
            // An alert may be in flight to the relay; a reset would discard it.
            RelayLoss::Refused(_)
            | RelayLoss::Challenged
            | RelayLoss::Released
            | RelayLoss::Ended(End::Clean | End::Truncated)
            | RelayLoss::Tls(_) => Close::Linger,
            _ => Close::Abort,
        };
        self.close(on, how, now);
        let again = self.try_again(upstream, pace, now);
        self.conns.event(match why {
            RelayLoss::Unreachable(why) => {
                Event::DialFailed { on, what: Target::Relay(upstream), why, again: Some(again) }
            }
            _ => Event::RelayLost { on, upstream, why, again },
        });
    }

    /// Schedules one retry, and no more: if the whole pool fails, the first failure sets the time. Returns the delay
    /// until it begins; zero also if one is under way.
    fn try_again(&mut self, upstream: u16, pace: RetryDelay, now: Now) -> Span {
        let link = &mut self.links[usize::from(upstream)];
        match pace {
            RetryDelay::None => {}
            RetryDelay::AtOnce => link.proven = false,
            RetryDelay::After(class) => {
                link.proven = false;
                if link.not_before <= now.mono {
                    link.not_before = now.mono + link.backoff.next(class, &mut self.jitter);
                }
            }
        }
        self.fill(upstream, now);
        self.link(upstream).backing_off.map_or(Span::ZERO, |due| due.since(now.mono))
    }
}

/// Classifies a loss: transient, or needing a change by an operator.
fn class(loss: RelayLoss, retry_after: Option<Span>) -> ErrorClass {
    match loss {
        RelayLoss::Refused(500..) => ErrorClass::Failure(retry_after),
        RelayLoss::Refused(_) | RelayLoss::Challenged => ErrorClass::Refusal(retry_after),
        RelayLoss::Proxy(
            ProxyError::Unreachable(DialFailure::Local)
            | ProxyError::Ended
            | ProxyError::TimedOut
            | ProxyError::Refused(500..),
        ) => ErrorClass::Failure(None),
        RelayLoss::Proxy(ProxyError::Unreachable(_)) => ErrorClass::Unreachable,
        RelayLoss::Proxy(_) => ErrorClass::Refusal(None),
        RelayLoss::NotHttp
        | RelayLoss::Tls(
            TlsFailure::Certificate
            | TlsFailure::CertificateExpired
            | TlsFailure::CertificateNotYetValid
            | TlsFailure::CertificateName
            | TlsFailure::CertificateIssuer
            | TlsFailure::PlainHttp
            | TlsFailure::Version
            | TlsFailure::Alpn
            | TlsFailure::Cipher
            | TlsFailure::TooLong
            | TlsFailure::Protocol,
        ) => ErrorClass::Refusal(None),
        RelayLoss::Unreachable(DialFailure::Name | DialFailure::Refused | DialFailure::Unreachable) => {
            ErrorClass::Unreachable
        }
        RelayLoss::Ended(_)
        | RelayLoss::Released
        | RelayLoss::TimedOut
        | RelayLoss::Tls(TlsFailure::Ended)
        | RelayLoss::Unreachable(DialFailure::Local) => ErrorClass::Failure(None),
    }
}
