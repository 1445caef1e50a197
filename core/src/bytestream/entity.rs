//! A Jabber entity at one end of its streams: initiator or target, or one after the other, and what the stream is for.
//!
//! Each stream is a session until it is clear to send; then its socket and a local connection are a pair. The local
//! connection is one that was accepted for it (standard input and output, a local listener), or is dialled when the
//! stream is clear (the mail's last wish: 'pass the IP/port off to an entirely different process').

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::net::SocketAddr;

use super::failures::Failures;
use super::initiator::{Initiator, Parties};
use super::matching::{self, Claim, Matching, Rules};
use super::name::{Allow, IqId, Jid, StreamId};
use super::role::{Act, Failure, Timeouts};
use super::stanza::{Condition, Connection, Query, Stanza};
use super::target::Target;
use crate::acl::Policy;
use crate::bytestream::xmpp::NAMESPACE;
use crate::conns::{Conns, Ended};
use crate::entropy::Entropy;
use crate::event::Event;
use crate::limiter::DialBudget;
use crate::machine::{Close, ConnId, End, Output};
use crate::pair::{self, Side};
use crate::time::{Now, Span, Time};
use crate::xmpp::iq::Iq;

mod event;
mod iqs;
mod machine;
mod sessions;

pub use self::event::StreamEvent;

/// Everything that can be set. All limits are inclusive.
#[derive(Clone, Debug)]
pub struct Config {
    /// Our full JID.
    pub jid: Jid,
    /// The namespace of the stanzas. Default [`NAMESPACE`].
    pub namespace: Box<str>,
    /// Where streams are accepted, and what we are called there; one address for each of the shell's first listeners.
    /// All listeners behind them are for local connections.
    pub rules: Rules,
    /// What is offered, in this order: our own addresses first, proxies next. At most 8.
    pub connections: Vec<Connection>,
    /// With whom a local connection opens a stream; `None`: it waits for a peer that opens one.
    pub peer: Option<Jid>,
    /// Where streams are taken that have no local connection.
    pub service: Option<SocketAddr>,
    /// Whose offers are wanted. Default: everybody's.
    pub allow: Allow,
    /// What is dialled for a peer, of what it offers. Default: the public Internet.
    pub dial: Policy,
    /// Whether roles may be changed once, where the first way did not work out (A1.3, A2.2). Default: yes.
    pub reversal: bool,
    /// What may wait for its other half of a match.
    pub matching: matching::Limits,
    /// Claims of one bare JID that wait for their sockets. Default 32.
    pub claims_per_jid_max: u32,
    /// Failed claims of one bare JID in a minute; then it is refused until enough are forgiven: whoever waits for one
    /// peer's socket could else have it guessed by another. Default 5.
    pub failures_per_minute_max: u32,
    /// Streams that are not clear yet. Default 256. The fewer are left, the fewer one bare JID may offer.
    pub sessions_max: u32,
    /// How many addresses of offers are dialled in a minute for one bare JID; four times as many for all. Default 60.
    pub dials_per_minute_max: u32,
    /// How long a socket may be nobody's. Default 30 s.
    pub unclaimed: Span,
    /// How long what is waited for.
    pub patience: Timeouts,
    /// Deadlines of a pair.
    pub pair: pair::Limits,
}

impl Config {
    /// The defaults for a JID: nothing is offered, nothing is wanted.
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
            patience: Timeouts::default(),
            pair: pair::Limits::default(),
        }
    }
}

/// The state machine of an entity.
///
/// Beside the [`Machine`](crate::machine::Machine)'s door it has [`Entity::handle_stanza`] and
/// [`Entity::handle_begin`]. After those, as after any other `handle_*`, and after the outputs,
/// [`Entity::poll_stanza`] and [`Entity::poll_event`] are to be called until `None`. As an
/// [`IqHandler`](crate::xmpp::component_host::IqHandler) it takes its stanzas as IQs.
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
    /// Answers to what is none of our stanzas.
    answers: VecDeque<Iq>,
    events: VecDeque<StreamEvent>,
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
    /// Whether it was our wish; else a local connection outlives its failure.
    ours: bool,
}

#[derive(Debug)]
enum Role {
    Initiator(Initiator),
    Target(Target),
}

/// What a connection is. Initiator and target decide when it changes (docs/stream-proxy.md §2, §3).
///
/// ```text
/// accepted:        Unclaimed ─claimed by the target─▶ Stream
/// dialled:         Dialling ─connected, local address known─▶ Stream
/// Stream ─clear to send, there is a local connection─▶ Paired
/// Stream ─clear to send, there is a service─▶ Ready ─service reached─▶ Paired
/// local:           Local ─its stream is clear─▶ Paired
/// to our service:  Service ─connected─▶ Paired
/// not taken:       Unwanted ─▶ closed
/// ```
#[derive(Debug)]
enum State {
    /// Accepted, and nobody's.
    Unclaimed,
    /// A local connection; of a session, or waiting for one.
    Local { session: Option<u64> },
    /// Under way to a connection of an offer, or there without its local address being known.
    Dialling { session: u64 },
    /// A session's socket, known to be. `has_ended`: the peer, who may be clear before us, has said all it had to say.
    Stream { session: u64, has_ended: bool },
    /// A stream that is clear and waits for our service.
    Ready { service: ConnId, has_ended: bool },
    /// Under way to our service.
    Service { stream: ConnId },
    /// Either half of a pair.
    Paired,
    /// Not taken.
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

    /// Whether the answer to a claim of ours to this JID is to come.
    fn awaits_clearance(&self, from: &Jid) -> bool {
        match self {
            Self::Initiator(initiator) => initiator.awaits_clearance(from),
            Self::Target(target) => target.awaits_clearance(from),
        }
    }

    /// Whether the answer to a question of ours to this JID is to come.
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
    /// An entity without streams. `seed` is from the operating system and makes stream ids unguessable.
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
            events: VecDeque::new(),
            draining: false,
            config,
        }
    }

    /// The next stanza to send.
    pub fn poll_stanza(&mut self) -> Option<Stanza> {
        self.stanzas.pop_front()
    }

    /// The next thing to log.
    pub fn poll_event(&mut self) -> Option<StreamEvent> {
        self.events.pop_front()
    }

    /// How many connections there are, closing ones included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.conns.len()
    }

    /// How many pairs there are.
    #[must_use]
    pub fn pairs(&self) -> usize {
        self.conns.pairs()
    }

    /// How many streams are not clear yet.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    fn pair(&mut self, stream: ConnId, local: ConnId, has_ended: bool, now: Now) {
        for on in [stream, local] {
            self.conns.emit(Output::Read { on, wanted: true });
            self.enter(on, State::Paired, None);
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
        self.events.push_back(StreamEvent::Ended { on: hidden, from_peer, to_peer, why: over.why });
    }

    /// The service is not there: the peer must not take that for the end of a stream in order.
    fn no_service(&mut self, service: ConnId, now: Now) {
        let Some(&mut State::Service { stream }) = self.conns.state(service) else { return };
        self.conns.close(service, Close::Abort, now);
        self.conns.close(stream, Close::Truncate, now);
        self.events.push_back(StreamEvent::NoService { on: stream });
    }

    fn unwanted(&mut self, on: ConnId, how: Close, why: &'static str, now: Now) {
        let from = self.conns.from(on);
        self.conns.event(Event::Dropped { on, from, upstream: None, why });
        self.enter(on, State::Unwanted, None);
        self.conns.close(on, how, now);
    }

    fn end_unclaimed(&mut self, on: ConnId, how: Close, why: &'static str, now: Now) {
        self.matching.remove(on);
        self.unwanted(on, how, why, now);
    }

    /// A claim was none.
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

    fn enter(&mut self, on: ConnId, state: State, due: Option<Time>) {
        if let Some(old) = self.conns.state(on) {
            *old = state;
            self.conns.set_due(on, due);
        }
    }

    fn is_anyone_listening(&self) -> bool {
        self.sessions.values().any(|session| session.role.is_listening())
    }

    /// Claims that found their sockets; and where no session waits for any, nobody listens (A6.3).
    fn settle(&mut self, now: Now) {
        while let Some((on, claim)) = self.matching.next_match() {
            self.identify(on, claim, now);
        }
        if self.matching.unclaimed() > 0 && !self.is_anyone_listening() {
            for on in self.conns.open_ids() {
                if let Some(State::Unclaimed) = self.conns.state(on) {
                    self.end_unclaimed(on, Close::Abort, "nobody listens any more", now);
                }
            }
            // Nothing is left that could fit, but the changes are to be looked at all the same.
            while let Some((_, claim)) = self.matching.next_match() {
                debug_assert!(false, "a socket that is gone fits");
                self.refuse(claim.from, claim.iq, Condition::NotFound404);
            }
        }
        self.check_invariants();
    }

    /// What must hold between two calls.
    fn check_invariants(&self) {
        if !cfg!(debug_assertions) {
            return;
        }
        self.matching.check_invariants();
        assert_eq!(self.sessions.len(), self.names.len(), "a session without its name");
        assert!(self.sessions.values().all(|it| it.role.deadline().is_some()), "a session that never ends");
        assert!(self.matching.unclaimed() == 0 || self.is_anyone_listening(), "accepted for nobody");
        if self.conns.len() <= 256 {
            self.conns.check_invariants();
        }
    }
}
