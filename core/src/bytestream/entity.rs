//! An XMPP entity at one end of its streams: initiator or target, or one after the other, and the use of the stream.
//!
//! Each stream is a session until it is clear to send; then its socket and a local connection are a pair. The local
//! connection was accepted for it (standard input and output, a local listener), or is dialled when the stream is
//! clear (the mail: 'pass the IP/port off to an entirely different process').

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::net::SocketAddr;

use super::failures::Failures;
use super::initiator::{Initiator, Parties};
use super::matching::{self, Claim, Matching, Rules};
use super::name::{Allow, IqId, Jid, StreamId};
use super::role::{Act, StreamFailure, Timeouts};
use super::stanza::{Condition, Connection, Query, Stanza};
use super::target::Target;
use crate::acl::Policy;
use crate::bytestream::xmpp::NAMESPACE;
use crate::conns::{Conns, Ended};
use crate::entropy::Entropy;
use crate::event::{Event, StreamEvent};
use crate::limiter::DialBudget;
use crate::machine::{Close, ConnId, End, Output};
use crate::pair::{self, Side};
use crate::time::{Now, Span, Time};
use crate::xmpp::iq::Iq;

mod iqs;
mod machine;
mod sessions;

/// The configuration of an entity. All limits are inclusive.
#[derive(Clone, Debug)]
pub struct Config {
    /// Our full JID.
    pub jid: Jid,
    /// The namespace of the stanzas. Default [`NAMESPACE`].
    pub namespace: Box<str>,
    /// Our listening addresses; one for each of the driver's first listeners. All further listeners are for local
    /// connections.
    pub rules: Rules,
    /// The connections that we offer, in this order: our own addresses first, proxies next. At most 8.
    pub connections: Vec<Connection>,
    /// The peer with which a local connection opens a stream; `None`: it waits for a peer that opens one.
    pub peer: Option<Jid>,
    /// The local service for streams without a local connection.
    pub service: Option<SocketAddr>,
    /// The peers whose offers are accepted. Default: all.
    pub allow: Allow,
    /// The addresses of a peer's offer that may be dialled. Default: global ones.
    pub dial: Policy,
    /// Whether roles may be reversed once if the first direction fails (A1.3, A2.2). Default: yes.
    pub reversal: bool,
    /// Limits of unmatched sockets and claims.
    pub matching: matching::Limits,
    /// Limit of claims of one bare JID that wait for their sockets. Default 32.
    pub claims_per_jid_max: u32,
    /// Limit of failed claims of one bare JID per minute; beyond it, claims are refused until the limit has refilled.
    /// Otherwise a peer could guess the socket of another. Default 5.
    pub failures_per_minute_max: u32,
    /// Limit of streams that are not clear yet. Default 256. The fewer are left, the fewer one bare JID may offer.
    pub sessions_max: u32,
    /// Limit of addresses dialled per minute for one bare JID; four times as many in total. Default 60.
    pub dials_per_minute_max: u32,
    /// Timeout of an unclaimed socket. Default 30 s.
    pub unclaimed: Span,
    /// Timeouts of the roles.
    pub timeouts: Timeouts,
    /// Timeouts of a pair.
    pub pair: pair::Limits,
}

impl Config {
    /// The defaults for a JID, without any connections to offer.
    #[must_use]
    pub fn new(jid: Jid) -> Self {
        Self {
            jid,
            namespace: NAMESPACE.into(),
            rules: Rules::default(),
            connections: Vec::new(),
            peer: None,
            service: None,
            allow: Allow::Everybody,
            dial: Policy::default(),
            reversal: true,
            matching: matching::Limits::default(),
            claims_per_jid_max: 32,
            failures_per_minute_max: 5,
            sessions_max: 256,
            dials_per_minute_max: 60,
            unclaimed: Span::from_secs(30),
            timeouts: Timeouts::default(),
            pair: pair::Limits::default(),
        }
    }
}

/// The state machine of an entity.
///
/// In addition to [`Machine`](crate::machine::Machine) it has [`Entity::handle_stanza`] and [`Entity::handle_begin`].
/// After these, after any other `handle_*`, and after the outputs, the driver calls [`Entity::poll_stanza`] until it
/// returns `None`. As an [`IqHandler`](crate::component_host::IqHandler) it
/// gets its stanzas as IQs.
#[derive(Debug)]
pub struct Entity {
    config: Config,
    conns: Conns<State>,
    matching: Matching,
    failures: Failures,
    dials: DialBudget,
    sessions: BTreeMap<u64, Session>,
    names: BTreeMap<(Jid, StreamId), u64>,
    begun: u64,
    /// Local connections that wait for a peer, the oldest first.
    free: VecDeque<ConnId>,
    entropy: Entropy,
    stanzas: VecDeque<Stanza>,
    /// Answers to IQs that are not our stanzas.
    answers: VecDeque<Iq>,
    draining: bool,
}

/// A stream that is not clear yet.
#[derive(Debug)]
struct Session {
    peer: Jid,
    sid: StreamId,
    role: Role,
    stream: Option<ConnId>,
    local: Option<ConnId>,
    /// Whether we opened it; otherwise a local connection outlives its failure.
    ours: bool,
}

#[derive(Debug)]
enum Role {
    Initiator(Initiator),
    Target(Target),
}

/// The state of a connection. Initiator and target decide about its transitions (docs/stream-proxy.md §2, §3).
///
/// ```text
/// accepted:        Unclaimed ─claimed by the target─▶ Stream
/// dialled:         Dialling ─connected, local address known─▶ Stream
/// Stream ─clear to send, there is a local connection─▶ Paired
/// Stream ─clear to send, there is a service─▶ Ready ─service reached─▶ Paired
/// local:           Local ─its stream is clear─▶ Paired
/// to our service:  Service ─connected─▶ Paired
/// not accepted:    Unwanted ─▶ closed
/// ```
#[derive(Debug)]
enum State {
    /// Accepted and not claimed.
    Unclaimed,
    /// A local connection with a session, or waiting for one.
    Local { session: Option<u64> },
    /// Being dialled, or connected without a known local address.
    Dialling { session: u64 },
    /// A session's socket. `has_ended`: the peer, which may be clear before us, has ended its side.
    Stream { session: u64, has_ended: bool },
    /// A stream that is clear and waits for our service.
    Ready { service: ConnId, has_ended: bool },
    /// Our service, being dialled.
    Service { stream: ConnId },
    /// Either half of a pair.
    Paired,
    /// A connection that is not accepted.
    Unwanted,
}

impl State {
    const fn why(&self) -> &'static str {
        match self {
            Self::Unclaimed => "unclaimed",
            Self::Local { .. } => "local",
            Self::Dialling { .. } => "dial",
            Self::Stream { .. } => "clear to send",
            Self::Ready { .. } | Self::Service { .. } => "service",
            Self::Paired => "pair",
            Self::Unwanted => "closing",
        }
    }
}

impl Role {
    const fn deadline(&self) -> Option<Time> {
        match self {
            Self::Initiator(initiator) => initiator.deadline(),
            Self::Target(target) => target.deadline(),
        }
    }

    fn expects(&self, from: &Jid, id: &IqId) -> bool {
        match self {
            Self::Initiator(initiator) => initiator.expects(from, id),
            Self::Target(target) => target.expects(from, id),
        }
    }

    /// Whether the answer to our claim at this JID is awaited.
    fn awaits_clearance(&self, from: &Jid) -> bool {
        match self {
            Self::Initiator(initiator) => initiator.awaits_clearance(from),
            Self::Target(target) => target.awaits_clearance(from),
        }
    }

    /// Whether an answer of this JID to our question is awaited.
    fn awaits_answer(&self, from: &Jid) -> bool {
        match self {
            Self::Initiator(initiator) => initiator.awaits_answer(from),
            Self::Target(target) => target.awaits_clearance(from),
        }
    }

    const fn is_listening(&self) -> bool {
        matches!(self, Self::Initiator(initiator) if initiator.is_listening())
    }

    const fn awaits_offer(&self) -> bool {
        matches!(self, Self::Initiator(initiator) if initiator.awaits_offer())
    }
}

impl Entity {
    /// An entity without streams. `seed` comes from the operating system and makes stream ids unguessable.
    #[must_use]
    pub fn new(config: Config, seed: [u8; 32]) -> Self {
        Self {
            conns: Conns::new(config.pair),
            matching: Matching::new(config.matching, config.rules.clone()),
            failures: Failures::new(config.failures_per_minute_max),
            dials: DialBudget::new(config.dials_per_minute_max),
            sessions: BTreeMap::new(),
            names: BTreeMap::new(),
            begun: 0,
            free: VecDeque::new(),
            entropy: Entropy::new(seed),
            stanzas: VecDeque::new(),
            answers: VecDeque::new(),
            draining: false,
            config,
        }
    }

    /// The next stanza to send.
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

    /// The number of streams that are not clear yet.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    fn pair(&mut self, stream: ConnId, local: ConnId, has_ended: bool, now: Now) {
        for on in [stream, local] {
            self.conns.emit(Output::Read { on, wanted: true });
            self.conns.set_state_until(on, State::Paired, None);
        }
        self.conns.pair(stream, local, false, now);
        if has_ended {
            let ended = self.conns.end(stream, End::Clean, now);
            self.pair_over(ended);
        }
    }

    fn pair_over(&mut self, ended: Option<Ended>) {
        let Some(Ended { hidden, pair, over, .. }) = ended else { return };
        let (from_peer, to_peer) = (pair.bytes_from(Side::Hidden), pair.bytes_from(Side::Client));
        self.conns.event(Event::Stream(StreamEvent::Ended { on: hidden, from_peer, to_peer, why: over.why }));
    }

    /// The service cannot be reached. The peer gets a truncated stream, not a clean end.
    fn no_service(&mut self, service: ConnId, now: Now) {
        let Some(&mut State::Service { stream }) = self.conns.state(service) else { return };
        self.conns.close(service, Close::Abort, now);
        self.conns.close(stream, Close::Truncate, now);
        self.conns.event(Event::Stream(StreamEvent::NoService { on: stream }));
    }

    fn unwanted(&mut self, on: ConnId, how: Close, why: &'static str, now: Now) {
        let from = self.conns.from(on);
        self.conns.event(Event::Dropped { on, from, upstream: None, why });
        self.conns.set_state_until(on, State::Unwanted, None);
        self.conns.close(on, how, now);
    }

    fn end_unclaimed(&mut self, on: ConnId, how: Close, why: &'static str, now: Now) {
        self.matching.remove(on);
        self.unwanted(on, how, why, now);
    }

    /// A claim failed.
    fn fail_claim(&mut self, claim: Claim, condition: Condition, now: Now) {
        self.failures.fail(&claim.from, now.mono);
        self.refuse(claim.from, claim.iq, condition);
    }

    fn emit(&mut self, peer: Jid, id: IqId, query: Query) {
        self.stanzas.push_back(Stanza { peer, id, query });
    }

    fn refuse(&mut self, peer: Jid, id: IqId, condition: Condition) {
        self.emit(peer, id, Query::Error(condition));
    }

    fn awaits_socket(&self) -> bool {
        self.sessions.values().any(|session| session.role.is_listening())
    }

    /// Handles claims that have found their sockets. Closes unclaimed sockets if no session waits for one (A6.3).
    fn process_matches(&mut self, now: Now) {
        while let Some((on, claim)) = self.matching.next_match() {
            self.identify(on, claim, now);
        }
        if self.matching.unclaimed() > 0 && !self.awaits_socket() {
            for on in self.conns.open_ids() {
                if let Some(State::Unclaimed) = self.conns.state(on) {
                    self.end_unclaimed(on, Close::Abort, "nobody listens any more", now);
                }
            }
            // No claim can match, but the changes must be consumed.
            while let Some((_, claim)) = self.matching.next_match() {
                debug_assert!(false, "a socket that is gone fits");
                self.refuse(claim.from, claim.iq, Condition::ItemNotFound);
            }
        }
        self.check_invariants();
    }

    /// Checks what must hold between two calls.
    fn check_invariants(&self) {
        if !cfg!(debug_assertions) {
            return;
        }
        self.matching.check_invariants();
        assert_eq!(self.sessions.len(), self.names.len(), "a session without its name");
        assert!(self.sessions.values().all(|it| it.role.deadline().is_some()), "a session that never ends");
        assert!(self.matching.unclaimed() == 0 || self.awaits_socket(), "accepted for nobody");
        if self.conns.len() <= 256 {
            self.conns.check_invariants();
        }
    }
}
