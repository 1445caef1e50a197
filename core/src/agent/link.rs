//! One relay and the connections that wait there: opening them, losing them, and when to try again.

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
use crate::http::response::{RegistrationOptions, Response, write_connect};
use crate::http::target::Token;
use crate::machine::{Close, ConnId, DialFailure, End, Output, TlsFailure, TlsRole};
use crate::relay_client::Answer;
use crate::time::{Now, Span, Time};

/// A waiting connection that ends after this long has not failed: relays and paths in between end idle ones in time
/// (node-rendezvous: cleanly after 120 s).
const OLD: Span = Span::from_secs(60);
/// A relay that let a connection wait for this long, or brought it a client, serves us: the back-off begins anew. The
/// 200 alone does not show that: two agents with plain tokens push each other out, each after its 200.
const SETTLED: Span = Span::from_secs(10);
/// One connection that is opened because a path changed costs this much time: so often there is one in the long run.
const PATH_CHANGE_COST: Span = Span::from_secs(5);
/// Such connections that are allowed before that counts: five.
const PATH_CHANGE_TOLERANCE: Span = Span::from_secs(20);
/// How long to wait for an answer at an address where no relay has answered yet, if there is another.
const UNPROVEN_ANSWER: Span = Span::from_secs(2);

/// What is known of a relay.
#[derive(Clone, Debug)]
pub(super) struct Link {
    /// Connections on their way, one that rests included.
    pub(super) connecting: u32,
    /// Connections that wait.
    pub(super) waiting: u32,
    /// Those of them that wait over an old path.
    pub(super) old_path: u32,
    /// Connections of clients, to the relay and to the local services.
    pub(super) serving: u32,
    /// When the one that rests is due; there is one at most.
    pub(super) backing_off: Option<Time>,
    /// After a failure, nothing is begun before this time; what is under way goes on.
    not_before: Time,
    /// The relay took a connection since the last failure. While it has not, one connection tries, not the pool.
    proven: bool,
    backoff: Backoff,
    /// How many connections wait.
    pub(super) pool: Pool,
    /// What the next token is bound to.
    prover: Prover,
    /// Clients that got no answer.
    unanswered: Unanswered,
    /// Connections that were opened because a path changed.
    path_changes: DecayingDebt,
}

/// What a link counts.
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

    /// The relay brought a client. That alone does not end the back-off: a byte costs the relay nothing.
    pub(super) fn take(&mut self) {
        self.proven = true;
    }

    /// A client of the relay was answered: the relay serves us.
    fn prove(&mut self, now: Now) {
        self.proven = true;
        self.not_before = now.mono;
        self.unanswered.answered();
        self.settle();
    }

    /// The relay serves us: the next failure is the first.
    pub(super) fn settle(&mut self) {
        self.backoff.reset();
    }
}

/// When to try again.
#[derive(Clone, Copy, Debug)]
enum RetryDelay {
    AtOnce,
    After(ErrorClass),
    /// Enough other connections wait: the pool is filled where it lacks one, and nothing has failed.
    None,
}

impl Agent {
    /// Opens what the pool lacks: all of it where the relay is known to take connections, otherwise one to find out.
    /// In times of back-off, that one rests.
    pub(super) fn fill(&mut self, upstream: u16, now: Now) {
        self.fill_for(upstream, 0, now);
    }

    /// The same, for so many clients that the relay holds.
    fn fill_for(&mut self, upstream: u16, held: u32, now: Now) {
        let service_max = self.config.service_connections_max;
        let link = self.link(upstream);
        let lacking = if link.proven {
            let servable = service_max.saturating_sub(link.serving) / 2;
            link.pool.lacking(link.connecting, link.waiting - link.old_path, held.min(servable))
        } else {
            1_u32.saturating_sub(link.connecting)
        };
        // Each of them may be gone at once.
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

    /// The one that rested has rested enough.
    pub(super) fn wake(&mut self, on: ConnId, now: Now) {
        let Some(conn) = self.conns.state(on) else { return };
        let upstream = conn.upstream;
        self.begin(on, now);
        self.fill(upstream, now);
    }

    /// An address or a route has changed. A connection is opened at once, whatever the back-off, and also if another one is
    /// on its way: that one may never arrive. If paths change too often, a change is not heeded.
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
        self.dial(on, &place, how, now);
    }

    /// The relay is reached at this address: sends the CONNECT with a token.
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
            raw: upstream.takes_raw(),
        };
        write_connect(&mut text, upstream.id, &token, &upstream.relay.host_header, options);
        self.conns.send(on, text);
        let patience = self.answer_patience(index, at, now);
        let state = State::Registering { answer: Answer::default(), proof, at };
        self.enter(on, state, Some(now.mono + patience));
    }

    /// How long to wait for the answer of a relay at this address. A relay answers a CONNECT at once: if it has never
    /// answered there, and there is another address to try, not for long.
    fn answer_patience(&mut self, upstream: usize, at: Option<SocketAddr>, now: Now) -> Span {
        let patience = self.config.deadlines.answer;
        let book = self.dialers.book(&self.config.upstreams[upstream].relay.place);
        match at {
            Some(at) if !book.has_answered(at) && book.has_other(at, now.mono) => {
                patience.min(UNPROVEN_ANSWER)
            }
            _ => patience,
        }
    }

    /// The relay has answered.
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
        self.enter(on, State::Waiting { since: now.mono, path: Path::Current }, Some(now.mono + SETTLED));
        self.conns.emit(Output::UserTimeout { on, after: Some(self.config.user_timeout) });
        let link = self.link(upstream);
        link.proven = true;
        link.prover.accepted(proof, response.challenge, now);
        let waiting = link.waiting;
        if let Some(state) = response.pool {
            link.pool.on_state(state, waiting);
        }
        self.conns.event(Event::Registered { on, upstream, waiting });
        self.fill_for(upstream, response.pool.map_or(0, |state| state.held), now);
    }

    fn refused(&mut self, on: ConnId, upstream: u16, proof: Proof, response: &Response, now: Now) {
        let retry_after = response.retry_after.map(|secs| Span::from_secs(u64::from(secs)));
        let link = self.link(upstream);
        // Any other refusal has nothing to do with the token.
        let is_of_token = matches!(response.status, 401 | 429);
        let is_invited = is_of_token && link.prover.refused(proof, response.challenge, now);
        // If another one is under way, or rests, none is begun now.
        if is_invited && (link.connecting > 1 || link.prover.take_retry(now)) {
            self.lose_at(on, RelayLoss::Challenged, RetryDelay::AtOnce, now);
        } else {
            let loss = RelayLoss::Refused(response.status);
            self.lose_at(on, loss, RetryDelay::After(class(loss, retry_after)), now);
        }
    }

    /// A client of this upstream was gone, or had to be refused, before the local service had answered it.
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
        self.link(upstream).prove(now);
        self.fill(upstream, now);
    }

    /// A connection has waited for long enough: the relay serves us. If the pool has grown and no client came since, it
    /// shrinks: the connections that have waited longest are closed, which the relay would hand over last.
    pub(super) fn waited(&mut self, on: ConnId, now: Now) {
        let Some(&mut Conn { upstream, .. }) = self.conns.state(on) else { return };
        let link = self.link(upstream);
        link.settle();
        match link.pool.shrinks_at(link.waiting) {
            None => {}
            Some(at) if at > now.mono => self.conns.set_due(on, Some(at)),
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

    /// The connections that wait at this relay, those that have waited longest in front.
    fn waiting_since(&mut self, upstream: u16) -> Vec<(Time, ConnId)> {
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

    /// A connection came to nothing, or ended before a client came.
    pub(super) fn lose(&mut self, on: ConnId, loss: RelayLoss, now: Now) {
        if loss == RelayLoss::Ended(End::Clean)
            && let Some(&mut Conn { upstream, state: State::Waiting { .. }, .. }) = self.conns.state(on)
        {
            let link = self.link(upstream);
            if link.pool.is_replaced(link.waiting.saturating_sub(1)) {
                return self.lose_at(on, loss, RetryDelay::None, now);
            }
        }
        if let Some(&mut Conn { state: State::Waiting { path: Path::Old, .. }, .. }) = self.conns.state(on) {
            return self.lose_at(on, loss, RetryDelay::None, now);
        }
        let (waited, at) = match self.conns.state(on).map(|conn| &conn.state) {
            Some(State::Waiting { since, .. }) => (now.mono.since(*since), None),
            Some(State::Registering { at, .. }) => (Span::ZERO, *at),
            _ => (Span::ZERO, None),
        };
        let is_elsewhere = at.is_some_and(|at| self.failed_at(on, at, loss, now));
        let pace = if waited >= OLD || is_elsewhere {
            RetryDelay::AtOnce
        } else {
            RetryDelay::After(class(loss, None))
        };
        self.lose_at(on, loss, pace, now);
    }

    /// The address of the relay sent no answer. Returns whether another address is tried at once.
    fn failed_at(&mut self, on: ConnId, at: SocketAddr, loss: RelayLoss, now: Now) -> bool {
        match loss {
            RelayLoss::Refused(_) | RelayLoss::Challenged | RelayLoss::Unreachable(_) => return false,
            RelayLoss::Garbled | RelayLoss::Ended(_) | RelayLoss::Silent | RelayLoss::Tls(_) => {}
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
            // An alert may be on its way to the relay, and a reset would eat it.
            RelayLoss::Refused(_)
            | RelayLoss::Challenged
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

    /// One connection tries again, and no more than one: of a pool that fails as a whole, the first to fail sets the
    /// time. Returns how long until that one begins; zero also where one is under way.
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

/// What may be over in a moment, and what somebody has to change.
fn class(loss: RelayLoss, retry_after: Option<Span>) -> ErrorClass {
    match loss {
        RelayLoss::Refused(500..) => ErrorClass::Failure(retry_after),
        RelayLoss::Refused(_) | RelayLoss::Challenged => ErrorClass::Refusal(retry_after),
        RelayLoss::Garbled
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
        | RelayLoss::Silent
        | RelayLoss::Tls(TlsFailure::Ended)
        | RelayLoss::Unreachable(DialFailure::Local) => ErrorClass::Failure(None),
    }
}
