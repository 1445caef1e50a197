//! One relay and the connections that wait there: opening them, losing them, and when to try again.

use alloc::vec::Vec;
use core::net::SocketAddr;

use data_encoding::BASE64URL_NOPAD;

use super::{Agent, Conn, State};
use crate::backoff::{Backoff, Grade, Retry};
use crate::http::response::{Response, write_connect};
use crate::http::target::Token;
use crate::machine::{Close, ConnId, DialFailure, End, Output, TlsFailure, TlsRole};
use crate::note::{Note, RelayLoss, Target};
use crate::reach::{Answer, Reach};
use crate::time::{Now, Span, Time};

/// A waiting connection that ends after this long has not failed: relays and paths in between end idle ones in time
/// (node-rendezvous: cleanly after 120 s).
const OLD: Span = Span::from_secs(60);
/// A relay that let a connection wait for this long, or brought it a client, serves us: the back-off begins anew. The
/// 200 alone does not show that: two agents with plain tokens push each other out, each after its 200.
const SETTLED: Span = Span::from_secs(10);

/// What is known of a relay.
#[derive(Clone, Debug)]
pub(super) struct Link {
    /// Connections on their way, one that rests included.
    pub(super) connecting: u32,
    /// Connections that wait.
    pub(super) waiting: u32,
    /// When the one that rests is due; there is one at most.
    pub(super) resting: Option<Time>,
    /// After a failure, nothing is begun before this time; what is under way goes on.
    not_before: Time,
    /// The relay took a connection since the last failure. While it has not, one connection tries, not the pool.
    proven: bool,
    backoff: Backoff,
    /// What is added to our wall clock to have the relay's.
    clock: i64,
    /// The clock was set right since a connection was last accepted: if it is refused now, that was not the reason.
    clock_tried: bool,
    /// The address that was reached last: tried first the next time, for the one before it may be dead and slow.
    pub(super) reached: Option<SocketAddr>,
}

/// What a link counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Connecting,
    Waiting,
    Other,
}

impl Link {
    pub(super) const fn new(retry: Retry) -> Self {
        Self {
            connecting: 0,
            waiting: 0,
            resting: None,
            not_before: Time(0),
            proven: false,
            backoff: Backoff::new(retry),
            clock: 0,
            clock_tried: false,
            reached: None,
        }
    }

    pub(super) fn count(&mut self, from: Stage, to: Stage) {
        match from {
            Stage::Connecting => self.connecting -= 1,
            Stage::Waiting => self.waiting -= 1,
            Stage::Other => {}
        }
        match to {
            Stage::Connecting => self.connecting += 1,
            Stage::Waiting => self.waiting += 1,
            Stage::Other => {}
        }
    }

    /// The relay brought a client.
    pub(super) fn prove(&mut self, now: Now) {
        self.proven = true;
        self.not_before = now.mono;
        self.settle();
    }

    /// The relay serves us: the next failure is the first.
    pub(super) fn settle(&mut self) {
        self.backoff.reset();
    }

    /// The relay's wall clock, as far as we know.
    pub(super) const fn wall(&self, now: Now) -> u64 {
        now.wall.saturating_add_signed(self.clock)
    }
}

/// When to try again.
#[derive(Clone, Copy, Debug)]
enum Pace {
    AtOnce,
    After(Grade),
}

impl Agent {
    /// Opens what the pool lacks: all of it where the relay is known to take connections, otherwise one to find out.
    /// In times of back-off, that one rests.
    pub(super) fn fill(&mut self, upstream: u16, now: Now) {
        let of_upstream = self.upstream(upstream);
        let pool = if self.config.once || of_upstream.plain { 1 } else { of_upstream.pool.max(1) };
        let link = self.link(upstream);
        let lacking = if link.proven {
            u32::from(pool).saturating_sub(link.connecting + link.waiting)
        } else {
            1_u32.saturating_sub(link.connecting)
        };
        let (not_before, rests) = (link.not_before, link.resting.is_some());
        if self.stopping || lacking == 0 {
            return;
        }
        if now.mono < not_before {
            if !rests {
                let on = self.conns.insert(Conn { upstream, state: State::Over }, None);
                self.enter(on, State::Resting, Some(not_before));
            }
            return;
        }
        for _ in 0..lacking {
            let on = self.conns.insert(Conn { upstream, state: State::Over }, None);
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

    fn begin(&mut self, on: ConnId, now: Now) {
        let Some(conn) = self.conns.state(on) else { return };
        let upstream = conn.upstream;
        let relay = &self.config.upstreams[usize::from(upstream)].relay;
        let tls = relay.tls.then_some(TlsRole::Client { upstream });
        let (reach, output) = Reach::begin(on, &relay.place, tls);
        self.enter(on, State::Reaching(reach), Some(now.mono + self.config.deadlines.dial));
        self.conns.say(output);
    }

    /// The relay is reached: we say who we are.
    pub(super) fn register(&mut self, on: ConnId, now: Now) {
        let Some(conn) = self.conns.state(on) else { return };
        let index = usize::from(conn.upstream);
        let (upstream, link) = (&self.config.upstreams[index], &mut self.links[index]);
        if let State::Reaching(reach) = &conn.state {
            link.reached = reach.address();
        }
        let step = upstream.key.step(link.wall(now));
        let mut text = Vec::new();
        let host = &upstream.relay.host_header;
        let proxy_header = self.config.asks_for_address();
        if upstream.plain {
            let token = upstream.key.plain(step);
            write_connect(&mut text, upstream.id, &Token::Plain(token.as_bytes()), host, proxy_header);
        } else {
            let nonce = BASE64URL_NOPAD.encode(&self.nonces.half_block());
            let nonce = nonce.as_bytes();
            let token = Token::Bound { response: upstream.key.bound(step, nonce), nonce };
            write_connect(&mut text, upstream.id, &token, host, proxy_header);
        }
        self.conns.send(on, text);
        self.enter(on, State::Registering(Answer::default()), Some(now.mono + self.config.deadlines.answer));
    }

    /// The relay has answered.
    pub(super) fn answered(&mut self, on: ConnId, response: &Response, now: Now) {
        if !(200..300).contains(&response.status) {
            return self.refused(on, response, now);
        }
        let Some(conn) = self.conns.state(on) else { return };
        let upstream = conn.upstream;
        self.enter(on, State::Waiting { since: now.mono }, Some(now.mono + SETTLED));
        self.conns.say(Output::UserTimeout { on, after: Some(self.config.user_timeout) });
        let link = self.link(upstream);
        link.proven = true;
        link.clock_tried = false;
        let waiting = link.waiting;
        self.conns.note(Note::Registered { on, upstream, waiting });
        self.fill(upstream, now);
    }

    fn refused(&mut self, on: ConnId, response: &Response, now: Now) {
        let Some(conn) = self.conns.state(on) else { return };
        let upstream = conn.upstream;
        let loss = RelayLoss::Refused(response.status);
        let adopted = response.date.filter(|_| response.status == 401);
        let adopted = adopted.and_then(|date| self.adopt_clock(upstream, date, now));
        let retry_after = response.retry_after.map(|secs| Span::from_secs(u64::from(secs)));
        let pace = match adopted {
            Some((_, true)) => Pace::AtOnce,
            _ => Pace::After(grade(loss, retry_after)),
        };
        self.lose_at(on, loss, pace, now);
        if let Some((seconds, _)) = adopted {
            self.conns.note(Note::ClockAdopted { upstream, seconds });
        }
    }

    /// If the relay's clock is more than a step off the one that our tokens are made by, they are made by the relay's
    /// from now on. What was added to ours, and whether that is worth an attempt at once.
    fn adopt_clock(&mut self, upstream: u16, date: u64, now: Now) -> Option<(i64, bool)> {
        let period = u64::from(self.upstream(upstream).key.period());
        let link = self.link(upstream);
        if link.wall(now).abs_diff(date) <= period {
            return None;
        }
        link.clock = i64::try_from(i128::from(date) - i128::from(now.wall)).ok()?;
        Some((link.clock, !core::mem::replace(&mut link.clock_tried, true)))
    }

    /// A connection came to nothing, or ended before a client came.
    pub(super) fn lose(&mut self, on: ConnId, loss: RelayLoss, now: Now) {
        let waited = match self.conns.state(on).map(|conn| &conn.state) {
            Some(State::Waiting { since }) => now.mono.since(*since),
            _ => Span::ZERO,
        };
        let pace = if waited >= OLD { Pace::AtOnce } else { Pace::After(grade(loss, None)) };
        self.lose_at(on, loss, pace, now);
    }

    fn lose_at(&mut self, on: ConnId, why: RelayLoss, pace: Pace, now: Now) {
        let Some(conn) = self.conns.state(on) else { return };
        let upstream = conn.upstream;
        let how = match why {
            // An alert may be on its way to the relay, and a reset would eat it.
            RelayLoss::Refused(_) | RelayLoss::Ended(End::Clean | End::Truncated) | RelayLoss::Tls(_) => {
                Close::Linger
            }
            _ => Close::Abort,
        };
        self.close(on, how, now);
        let again = self.try_again(upstream, pace, now);
        self.conns.note(match why {
            RelayLoss::Unreachable(why) => {
                Note::DialFailed { on, what: Target::Relay(upstream), why, again: Some(again) }
            }
            _ => Note::RelayLost { on, upstream, why, again },
        });
    }

    /// One connection tries again, and no more than one: of a pool that fails as a whole, the first to fail sets the
    /// time. Returns how long until that one begins; zero also where one is under way.
    fn try_again(&mut self, upstream: u16, pace: Pace, now: Now) -> Span {
        let link = &mut self.links[usize::from(upstream)];
        link.proven = false;
        if let Pace::After(grade) = pace
            && link.not_before <= now.mono
        {
            link.not_before = now.mono + link.backoff.next(grade, &mut self.jitter);
        }
        self.fill(upstream, now);
        self.link(upstream).resting.map_or(Span::ZERO, |due| due.since(now.mono))
    }
}

/// What may be over in a moment, and what somebody has to change.
fn grade(loss: RelayLoss, retry_after: Option<Span>) -> Grade {
    match loss {
        RelayLoss::Refused(500..) => Grade::Failure(retry_after),
        RelayLoss::Refused(_) => Grade::Refusal(retry_after),
        RelayLoss::Garbled
        | RelayLoss::Tls(
            TlsFailure::Certificate
            | TlsFailure::PlainHttp
            | TlsFailure::Version
            | TlsFailure::Alpn
            | TlsFailure::Cipher
            | TlsFailure::Protocol,
        ) => Grade::Refusal(None),
        RelayLoss::Ended(_)
        | RelayLoss::Silent
        | RelayLoss::Tls(TlsFailure::Ended)
        | RelayLoss::Unreachable(
            DialFailure::Name | DialFailure::Refused | DialFailure::Unreachable | DialFailure::Local,
        ) => Grade::Failure(None),
    }
}
