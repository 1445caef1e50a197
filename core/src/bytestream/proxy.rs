//! The proxy: joins two sockets that were claimed with the same stream id (A6).
//!
//! It treats its two sides alike. The states of a socket (docs/stream-proxy.md §4):
//!
//! | state of a socket | event | response | next |
//! |---|---|---|---|
//! | – | accepted | reads nothing | unclaimed, 30 s |
//! | unclaimed | claimed, with an unused stream id (A6.1, A6.2) | nothing yet | claimed, 60 s |
//! | unclaimed | claimed, with the stream id of another full JID's socket (A6.5–A6.7) | joined, then `result` to both (A6.8) | paired |
//! | unclaimed | the end, or 30 s | | closed |
//! | claimed | the end, or 60 s | `error` 404, or 504 | closed |
//! | any | the same JID claims again, or a third one | `error` 409 | the same |
//! | none | no socket matches for 2 s | `error` 404 | |
//! | none | no stream id or no endpoint; not allowed; too many failures, or claims at a time | `error` 400; 403; 500 | |
//!
//! A claim counts as failed if no socket matches, if it is answered with 409, or if it is displaced (500). Otherwise
//! many claims could guess sockets and stream ids for free.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use core::net::SocketAddr;

use super::failures::Failures;
use super::matching::{self, Claim, Matching, Rules};
use super::name::{Allow, IqId, Jid, StreamId};
use super::stanza::{Condition, Query, Stanza};
use super::streams::{Claimant, Streams};
use crate::bytestream::xmpp::NAMESPACE;
use crate::conns::{Conns, Ended};
use crate::event::{Event, ProxyEvent};
use crate::limiter::{Source, exceeds_share};
use crate::machine::{Close, ConnId, Output};
use crate::pair::{self, Side};
use crate::time::{Now, Span};
use crate::xmpp::iq::Iq;

mod iqs;
mod machine;

/// The configuration of a proxy. All limits are inclusive.
#[derive(Clone, Debug)]
pub struct Config {
    /// Our JID, to which claims must be addressed.
    pub jid: Jid,
    /// The namespace of the stanzas. Default [`NAMESPACE`].
    pub namespace: Box<str>,
    /// Our listening addresses; one for each of the driver's listeners.
    pub rules: Rules,
    /// The JIDs that may claim sockets. Default: all.
    pub allow: Allow,
    /// Limits of unmatched sockets and claims.
    pub matching: matching::Limits,
    /// Limit of all connections, including pairs; further ones are reset. The fewer are left, the fewer one address
    /// may have. Default 40,000.
    pub connections_max: u32,
    /// Limit of sockets that are claimed and wait for the other side. Default 10,000.
    pub claimed_max: u32,
    /// Limit of unanswered claims of one bare JID. Default 32.
    pub claims_per_jid_max: u32,
    /// Limit of failed claims of one bare JID per minute; beyond it, claims are refused until the limit has refilled.
    /// Default 5.
    pub failures_per_minute_max: u32,
    /// Timeout of an unclaimed socket. Default 30 s.
    pub unclaimed: Span,
    /// Timeout of a claimed socket that waits for the other side. Default 60 s.
    pub claimed: Span,
    /// Timeouts of a pair.
    pub pair: pair::Limits,
}

impl Config {
    /// The defaults for a JID.
    #[must_use]
    pub fn new(jid: Jid) -> Self {
        Self {
            jid,
            namespace: NAMESPACE.into(),
            rules: Rules::default(),
            allow: Allow::Everybody,
            matching: matching::Limits::default(),
            connections_max: 40_000,
            claimed_max: 10_000,
            claims_per_jid_max: 32,
            failures_per_minute_max: 5,
            unclaimed: Span::from_secs(30),
            claimed: Span::from_secs(60),
            pair: pair::Limits::default(),
        }
    }
}

/// The proxy's state machine.
///
/// In addition to [`Machine`](crate::machine::Machine) it has [`Proxy::handle_stanza`]. After that, after any other
/// `handle_*`, and after the outputs, the driver calls [`Proxy::poll_stanza`] until it returns `None`: a 'clear to send' is sent when the pair is made. As an
/// [`IqHandler`](crate::component_host::IqHandler) it gets its stanzas as IQs.
#[derive(Debug)]
pub struct Proxy {
    config: Config,
    conns: Conns<State>,
    matching: Matching,
    streams: Streams,
    failures: Failures,
    /// The number of connections of each address.
    per_address: BTreeMap<Source, u32>,
    /// The number of unanswered claims of each bare JID.
    claims: BTreeMap<Box<str>, u32>,
    stanzas: VecDeque<Stanza>,
    /// Answers to IQs that are not our stanzas.
    answers: VecDeque<Iq>,
    draining: bool,
}

/// The state of a socket (docs/stream-proxy.md §4).
///
/// ```text
/// Unclaimed ─first claim─▶ Claimed ─second claim, for another socket─▶ Paired
///     └──────second claim──────────────────────────────────────────────▲
/// Unwanted ─▶ closed
/// ```
#[derive(Debug)]
enum State {
    /// Not claimed.
    Unclaimed,
    /// Claimed. The claim is unanswered until the other side comes.
    Claimed { by: Jid, iq: IqId, sid: StreamId },
    /// Either half of a pair.
    Paired { sid: StreamId },
    /// A connection that is not accepted.
    Unwanted,
}

impl State {
    const fn why(&self) -> &'static str {
        match self {
            Self::Unclaimed => "unclaimed",
            Self::Claimed { .. } => "claimed",
            Self::Paired { .. } => "pair",
            Self::Unwanted => "closing",
        }
    }
}

impl Proxy {
    /// A proxy without sockets.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            conns: Conns::new(config.pair),
            matching: Matching::new(config.matching, config.rules.clone()),
            streams: Streams::default(),
            failures: Failures::new(config.failures_per_minute_max),
            per_address: BTreeMap::new(),
            claims: BTreeMap::new(),
            stanzas: VecDeque::new(),
            answers: VecDeque::new(),
            draining: false,
            config,
        }
    }

    /// Handles a stanza. Legal at any time; unexpected answers are ignored.
    pub fn handle_stanza(&mut self, stanza: Stanza, now: Now) {
        let Stanza { peer, id, query } = stanza;
        match query {
            Query::Claim { sid, endpoint } => match self.judge(&peer, sid, endpoint, now) {
                Ok((sid, endpoint)) => {
                    *self.claims.entry(peer.bare().into()).or_insert(0) += 1;
                    let claim = Claim { from: peer, iq: id, sid, endpoint };
                    if let Some(displaced) = self.matching.claim(claim, now.mono) {
                        self.fail(displaced, Condition::ResourceConstraint, now);
                    }
                }
                Err(condition) => self.refuse(peer, id, condition),
            },
            // A proxy accepts no offers.
            Query::Offer { .. } => self.refuse(peer, id, Condition::BadRequest),
            Query::Result { .. } | Query::Error(_) => {}
        }
        self.process_matches(now);
    }

    /// The next stanza to send. It may be sent late, since claims time out.
    pub fn poll_stanza(&mut self) -> Option<Stanza> {
        self.stanzas.pop_front()
    }

    /// The number of connections, including closing ones.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.conns.len()
    }

    /// The number of pairs.
    #[must_use]
    pub fn pairs(&self) -> usize {
        self.conns.pairs()
    }

    /// The number of unclaimed sockets.
    #[must_use]
    pub fn unclaimed(&self) -> usize {
        self.matching.unclaimed()
    }

    /// The number of sockets that are claimed and wait for the other side.
    #[must_use]
    pub const fn claimed(&self) -> usize {
        self.streams.claimed()
    }

    /// Checks a claim before its socket is known.
    fn judge(
        &mut self,
        from: &Jid,
        sid: Option<StreamId>,
        endpoint: Option<SocketAddr>,
        now: Now,
    ) -> Result<(StreamId, SocketAddr), Condition> {
        let (Some(sid), Some(endpoint)) = (sid, endpoint) else { return Err(Condition::BadRequest) };
        if !self.config.allow.contains(from) {
            return Err(Condition::Forbidden);
        }
        if self.draining {
            return Err(Condition::ServiceUnavailable);
        }
        let open = self.claims.get(from.bare()).copied().unwrap_or(0);
        if open >= self.config.claims_per_jid_max || self.failures.are_exhausted(from, now.mono) {
            return Err(Condition::ResourceConstraint);
        }
        if self.streams.claimant(&sid, from) == Claimant::Refused {
            self.failures.fail(from, now.mono);
            return Err(Condition::Conflict);
        }
        Ok((sid, endpoint))
    }

    /// Handles all claims that have found their sockets since the last call.
    fn process_matches(&mut self, now: Now) {
        while let Some((on, claim)) = self.matching.next_match() {
            match self.streams.claimant(&claim.sid, &claim.from) {
                Claimant::First if self.streams.claimed() >= self.config.claimed_max as usize => {
                    self.answer(claim, Condition::ResourceConstraint);
                }
                Claimant::First => self.hold(on, claim, now),
                Claimant::Second(first) => self.join(first, on, claim, now),
                Claimant::Refused => self.fail(claim, Condition::Conflict, now),
            }
        }
        self.check_invariants();
    }

    /// Holds the first of two claims until the other comes.
    fn hold(&mut self, on: ConnId, claim: Claim, now: Now) {
        self.matching.remove(on);
        let Claim { from, iq, sid, .. } = claim;
        self.streams.claim(sid.clone(), on, from.clone());
        self.conns.set_state_until(
            on,
            State::Claimed { by: from, iq, sid },
            Some(now.mono + self.config.claimed),
        );
    }

    /// Joins the two sockets, and then answers both claims.
    fn join(&mut self, first: ConnId, second: ConnId, claim: Claim, now: Now) {
        let Some(state) = self.conns.state(first) else { return debug_assert!(false, "claimed, but gone") };
        let held = core::mem::replace(state, State::Paired { sid: claim.sid.clone() });
        let State::Claimed { by, iq, .. } = held else { return debug_assert!(false, "not claimed") };
        self.matching.remove(second);
        self.streams.pair(&claim.sid);
        self.conns.set_state_until(second, State::Paired { sid: claim.sid }, None);
        for on in [first, second] {
            self.conns.emit(Output::Read { on, wanted: true });
        }
        self.conns.pair(first, second, false, now);
        self.conns.event(Event::StreamProxy(ProxyEvent::Paired {
            first: by.clone(),
            first_on: first,
            second: claim.from.clone(),
            second_on: second,
        }));
        for (jid, iq) in [(by, iq), (claim.from, claim.iq)] {
            self.uncount(&jid);
            self.stanzas.push_back(Stanza { peer: jid, id: iq, query: Query::CLEAR });
        }
    }

    fn pair_over(&mut self, ended: Option<Ended>, now: Now) {
        let Some(Ended { hidden, client, pair, over }) = ended else { return };
        if let Some(State::Paired { sid }) = self.conns.any_state(hidden) {
            self.streams.end(sid);
        }
        self.conns.event(Event::StreamProxy(ProxyEvent::Ended {
            first_on: hidden,
            second_on: client,
            from_first: pair.bytes_from(Side::Hidden),
            from_second: pair.bytes_from(Side::Client),
            after: now.mono.since(pair.began()),
            why: over.why,
        }));
    }

    fn end_unclaimed(&mut self, on: ConnId, how: Close, why: &'static str, now: Now) {
        self.matching.remove(on);
        self.unwanted(on, how, why, now);
    }

    fn unwanted(&mut self, on: ConnId, how: Close, why: &'static str, now: Now) {
        let from = self.conns.from(on);
        self.conns.event(Event::Dropped { on, from, upstream: None, why });
        self.conns.set_state_until(on, State::Unwanted, None);
        self.conns.close(on, how, now);
    }

    fn end_claimed(&mut self, on: ConnId, how: Close, condition: Condition, now: Now) {
        let Some(state) = self.conns.state(on) else { return };
        let State::Claimed { by, iq, sid } = core::mem::replace(state, State::Unwanted) else { return };
        self.streams.end(&sid);
        self.uncount(&by);
        self.refuse(by, iq, condition);
        self.conns.close(on, how, now);
    }

    /// An admitted claim has failed.
    fn fail(&mut self, claim: Claim, condition: Condition, now: Now) {
        self.failures.fail(&claim.from, now.mono);
        self.answer(claim, condition);
    }

    /// Answers an admitted claim.
    fn answer(&mut self, claim: Claim, condition: Condition) {
        self.uncount(&claim.from);
        self.refuse(claim.from, claim.iq, condition);
    }

    fn refuse(&mut self, peer: Jid, id: IqId, condition: Condition) {
        self.conns.event(Event::StreamProxy(ProxyEvent::Refused { from: peer.clone(), condition }));
        self.stanzas.push_back(Stanza { peer, id, query: Query::Error(condition) });
    }

    /// Whether a connection that was just accepted exceeds the limit of all, or the share of its address.
    fn is_too_many(&self, on: ConnId) -> bool {
        let others = u32::try_from(self.conns.len() - 1).unwrap_or(u32::MAX);
        let free = self.config.connections_max.saturating_sub(others);
        let of_address = self.per_address.get(&self.conns.source(on)).copied().unwrap_or(0);
        free == 0 || exceeds_share(of_address.saturating_sub(1), free)
    }

    fn uncount(&mut self, jid: &Jid) {
        let Some(claims) = self.claims.get_mut(jid.bare()) else { return };
        *claims -= 1;
        if *claims == 0 {
            self.claims.remove(jid.bare());
        }
    }

    /// Checks what must hold between two calls.
    fn check_invariants(&self) {
        if !cfg!(debug_assertions) {
            return;
        }
        self.matching.check_invariants();
        let open: usize = self.claims.values().map(|claims| *claims as usize).sum();
        assert_eq!(open, self.matching.early_claims() + self.streams.claimed(), "a claim without an answer");
        assert_eq!(self.streams.len(), self.streams.claimed() + self.conns.pairs(), "a stream of nobody's");
        // Checking all of them costs too much if there are thousands.
        if self.conns.len() <= 256 {
            self.conns.check_invariants();
        }
    }
}
