//! An XMPP entity with a single stream: it opens a direct connection to a peer, or accepts the first one from a peer,
//! and pairs it with a local connection (standard input and output).
//!
//! Offers and give-ups are sent over XMPP ([`crate::dtcp::xmpp`]); the [`negotiation`] does the rest. The local
//! connection is not read before a direct one is established.
//!
//! An opening entity fails if it cannot send its request within the timeout of a session
//! ([`session`](negotiation::Config::session)), since then there is no server. An accepting entity has no timeout:
//! servers and peers may come and go.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::endpoint::{Action, DtcpEndpoint};
use super::negotiation::{self, LinkId, Refusal, SessionFailure, SessionId, Signal};
use crate::conns::{Conns, Ended};
use crate::dtcp::xmpp::{self, Message};
use crate::endpoint::HostPort;
use crate::entropy::Entropy;
use crate::event::{ConnectError, DtcpEvent, Event, Refused};
use crate::machine::{Close, ConnId, End, Output};
use crate::pair::{self, Side};
use crate::sorted_vec_map::SortedVecMap;
use crate::time::Now;
use crate::xmpp::condition::{Condition, StanzaError};
use crate::xmpp::iq::{Iq, Kind};
use crate::xmpp::jid::{Allow, IqId, Jid};

mod machine;
mod outcome;

pub use outcome::Outcome;

/// The maximum number of concurrent requests. The first that succeeds is served, so that a request that fails does
/// not block others.
pub const SESSIONS_MAX: usize = 16;
/// The maximum number of them with one account, whatever its resource. Since the addresses that a peer offers are
/// dialled, no account may use up all sessions with unreachable addresses.
pub const SESSIONS_PER_PEER_MAX: usize = 4;

/// The configuration of an entity.
#[derive(Clone, Debug)]
pub struct Config {
    /// Our full JID.
    pub jid: Jid,
    /// Its role.
    pub role: Role,
    /// Our hosts, at most three.
    pub hosts: Vec<HostPort>,
    /// The number of the driver's first listeners that are for direct connections. All others are for the local one.
    pub listeners: u16,
    /// TLS, the addresses that may be dialled, timeouts. Its limit of sessions is ignored: see [`SESSIONS_MAX`].
    pub negotiation: negotiation::Config,
    /// Timeouts of a pair.
    pub pair: pair::Limits,
}

/// The role of an entity.
#[derive(Clone, Debug)]
pub enum Role {
    /// The requestor.
    Open {
        /// Its peer's full JID.
        to: Jid,
    },
    /// The responder, which serves the first request that succeeds.
    Accept {
        /// The peers whose requests are accepted.
        from: Allow,
    },
}

/// The state machine: a [`Machine`](crate::machine::Machine) and an [`IqHandler`](crate::component_host::IqHandler).
#[derive(Debug)]
pub struct Entity {
    config: Config,
    conns: Conns<State>,
    dtcp_endpoint: DtcpEndpoint,
    sessions: SortedVecMap<SessionId, SessionInfo>,
    local: Option<ConnId>,
    is_online: bool,
    entropy: Entropy,
    iqs: VecDeque<Iq>,
    outcome: Option<Outcome>,
    /// Whether no new session begins.
    over: bool,
}

/// The signalling state of a session.
#[derive(Debug)]
struct SessionInfo {
    peer: Jid,
    /// The id of our unanswered request, or of the peer's request.
    id: Option<IqId>,
    /// The error with which our request was refused.
    error: Option<StanzaError>,
}

/// The state of a connection.
///
/// ```text
/// accepted or dialled: Link ─established─▶ Paired
///                      Link ─another one was established, refused, timed out─▶ closed
/// local:               Local ─a direct connection is established─▶ Paired
/// not accepted:        Unwanted ─▶ closed
/// ```
#[derive(Debug)]
enum State {
    /// A direct connection that is not established.
    Link(LinkId),
    /// The local connection, which waits for the direct one.
    Local,
    /// Either half of the pair.
    Paired,
    /// A connection that is not accepted.
    Unwanted,
}

impl State {
    const fn why(&self) -> &'static str {
        match self {
            Self::Link(_) => "a direct connection",
            Self::Local => "local",
            Self::Paired => "pair",
            Self::Unwanted => "closing",
        }
    }
}

impl Entity {
    /// An entity without sessions. `seed` comes from the operating system; keys are derived from it.
    #[must_use]
    pub fn new(config: Config, seed: [u8; 32]) -> Self {
        let mut entropy = Entropy::new(seed);
        let sessions_max = match config.role {
            Role::Open { .. } => 1,
            Role::Accept { .. } => SESSIONS_MAX,
        };
        let negotiation = negotiation::Config { sessions_max, ..config.negotiation.clone() };
        Self {
            conns: Conns::new(config.pair),
            dtcp_endpoint: DtcpEndpoint::new(negotiation, entropy.block()),
            sessions: SortedVecMap::default(),
            local: None,
            is_online: false,
            entropy,
            iqs: VecDeque::new(),
            outcome: None,
            over: false,
            config,
        }
    }

    /// The result of the local connection; `None` while it is open.
    #[must_use]
    pub const fn outcome(&self) -> Option<&Outcome> {
        self.outcome.as_ref()
    }

    /// Handles the new local connection. For an opening entity the timeout of the session also bounds the wait for
    /// the server.
    fn on_local(&mut self, local: ConnId, now: Now) {
        self.conns.emit(Output::Read { on: local, wanted: false });
        self.conns.set_state(local, State::Local);
        self.local = Some(local);
        if let Role::Open { .. } = self.config.role {
            self.conns.set_due(local, Some(now.mono + self.config.negotiation.session));
        }
        self.begin(now);
    }

    /// The local connection has waited too long. If there is a session, its own timeout applies.
    fn expire(&mut self, now: Now) {
        let Role::Open { to } = &self.config.role else { return };
        if self.sessions.is_empty() {
            let refused = Refused { why: SessionFailure::Deadline, error: None, connect_error: None };
            self.conns.event(Event::Dtcp(DtcpEvent::Failed { peer: to.clone(), refused: refused.clone() }));
            self.finish(Outcome::Failed(refused), now);
        }
    }

    /// Sends the request, once there are a server and a local connection.
    fn begin(&mut self, now: Now) {
        let Role::Open { to } = &self.config.role else { return };
        if self.over || !self.is_online || self.local.is_none() || !self.sessions.is_empty() {
            return;
        }
        let peer = to.clone();
        let session = self.dtcp_endpoint.negotiation().request(peer.as_str(), &self.config.hosts, now.mono);
        self.conns.event(Event::Dtcp(DtcpEvent::Begun { peer: peer.clone() }));
        self.sessions.insert(session, SessionInfo { peer, id: None, error: None });
    }

    fn requested(&mut self, iq: &Iq, theirs: &super::Offer, now: Now) {
        let refusal = match &self.config.role {
            Role::Open { .. } => Some((Condition::Forbidden, "Rejected")),
            Role::Accept { from } if !from.contains(&iq.from) => Some((Condition::Forbidden, "Rejected")),
            Role::Accept { .. } if self.over => Some((Condition::ServiceUnavailable, "Rejected")),
            Role::Accept { .. } if self.local.is_none() => Some((Condition::ResourceConstraint, "Rejected")),
            Role::Accept { .. } if self.has_enough_of(&iq.from) => Some(xmpp::refusal(Refusal::Busy)),
            Role::Accept { .. } => None,
        };
        if let Some((condition, text)) = refusal {
            return self.decline(iq, condition, text);
        }
        let peer = iq.from.clone();
        let hosts = &self.config.hosts;
        let session = self.dtcp_endpoint.negotiation().handle_request(peer.as_str(), theirs, hosts, now.mono);
        self.sessions.insert(session, SessionInfo { peer, id: iq.id.clone(), error: None });
    }

    fn has_enough_of(&self, peer: &Jid) -> bool {
        let of_peer = self.sessions.values().filter(|info| info.peer.bare() == peer.bare());
        of_peer.count() >= SESSIONS_PER_PEER_MAX
    }

    fn decline(&mut self, iq: &Iq, condition: Condition, text: &str) {
        self.conns.event(Event::Dtcp(DtcpEvent::Declined { peer: iq.from.clone(), condition }));
        self.iqs.extend(iq.refusal(condition, text));
    }

    /// The session whose request this IQ answers.
    fn asked(&self, iq: &Iq) -> Option<SessionId> {
        let Role::Open { .. } = self.config.role else { return None };
        let is_ours = |info: &&SessionInfo| info.id.is_some() && info.id == iq.id && info.peer == iq.from;
        self.sessions.iter().find(|(_, info)| is_ours(info)).map(|(session, _)| *session)
    }

    fn answered(&mut self, session: SessionId, theirs: Result<super::Offer, super::KeyError>, now: Now) {
        if let Some(info) = self.sessions.get_mut(&session) {
            info.id = None;
        }
        match theirs {
            Ok(theirs) => self.dtcp_endpoint.negotiation().handle_answer(session, &theirs, now.mono),
            Err(_) => self.dtcp_endpoint.negotiation().handle_refused(session),
        }
    }

    fn refused(&mut self, session: SessionId, error: StanzaError) {
        if let Some(info) = self.sessions.get_mut(&session) {
            info.id = None;
            info.error = Some(error);
        }
        self.dtcp_endpoint.negotiation().handle_refused(session);
    }

    /// Handles an IQ for our JID.
    fn on_iq(&mut self, iq: &Iq, now: Now) {
        match xmpp::read(iq) {
            None => self.iqs.extend(iq.not_understood()),
            Some(Message::Request(Ok(theirs))) => self.requested(iq, &theirs, now),
            Some(Message::Request(Err(error))) => {
                self.decline(iq, Condition::BadRequest, &alloc::format!("{error}"));
            }
            Some(Message::Answer(theirs)) => {
                if let Some(session) = self.asked(iq) {
                    self.answered(session, theirs, now);
                }
            }
            Some(Message::Error { error, key }) => match (self.asked(iq), key) {
                (Some(session), _) => self.refused(session, error),
                (None, Some(key)) => {
                    if let Some(session) =
                        self.dtcp_endpoint.negotiation().session_of(iq.from.as_str(), key.as_bytes())
                    {
                        self.dtcp_endpoint.negotiation().handle_give_up(session);
                    }
                }
                (None, None) => {}
            },
        }
    }

    /// Carries out the actions of the negotiation since the last call.
    fn apply_actions(&mut self, now: Now) {
        while let Some(action) = self.dtcp_endpoint.poll(&mut self.conns, State::Link, now) {
            match action {
                Action::Signal { session, signal } => self.signal(session, signal),
                Action::Established { session, on, tls } => self.established(session, on, tls, now),
                Action::Dialled { session, to, .. } => {
                    if let Some(info) = self.sessions.get(&session) {
                        self.conns.event(Event::Dtcp(DtcpEvent::Dialled { peer: info.peer.clone(), to }));
                    }
                }
                Action::Failed { session, why, connect_error } => {
                    self.failed(session, why, connect_error, now)
                }
            }
        }
        self.conns.check_invariants();
    }

    fn signal(&mut self, session: SessionId, signal: Signal) {
        let Some(info) = self.sessions.get_mut(&session) else { return };
        let (me, peer) = (&self.config.jid, info.peer.clone());
        let iq = match signal {
            Signal::Request(ours) => {
                let id = IqId::random(&mut self.entropy);
                info.id = Some(id.clone());
                xmpp::request(me, &peer, id, &ours)
            }
            Signal::Answer(ours) => {
                self.conns.event(Event::Dtcp(DtcpEvent::Begun { peer: peer.clone() }));
                xmpp::answer(me, &peer, info.id.take(), &ours)
            }
            Signal::GiveUp(key) => xmpp::give_up(me, &peer, IqId::random(&mut self.entropy), &key),
            Signal::Refuse(why) => {
                let (condition, text) = xmpp::refusal(why);
                let id = info.id.take();
                self.sessions.remove(&session);
                self.conns.event(Event::Dtcp(DtcpEvent::Declined { peer: peer.clone(), condition }));
                let kind = Kind::Error(StanzaError::new(condition, text));
                Iq { from: me.clone(), to: peer, id, kind, payload: None }
            }
        };
        self.iqs.push_back(iq);
    }

    fn established(&mut self, session: SessionId, on: ConnId, tls: bool, now: Now) {
        let Some(SessionInfo { peer, .. }) = self.sessions.remove(&session) else { return };
        let Some(local) = self.local.take() else { return self.conns.close(on, Close::Abort, now) };
        self.conns.event(Event::Dtcp(DtcpEvent::Established { peer, tls }));
        for half in [on, local] {
            self.conns.emit(Output::Read { on: half, wanted: true });
            self.conns.set_state(half, State::Paired);
        }
        self.conns.pair(on, local, false, now);
        self.over = true;
        for info in self.sessions.values() {
            let refused = Refused { why: SessionFailure::Busy, error: None, connect_error: None };
            self.conns.event(Event::Dtcp(DtcpEvent::Failed { peer: info.peer.clone(), refused }));
        }
        self.cancel_all();
    }

    fn failed(
        &mut self,
        session: SessionId,
        why: SessionFailure,
        connect_error: Option<ConnectError>,
        now: Now,
    ) {
        let Some(SessionInfo { peer, error, .. }) = self.sessions.remove(&session) else { return };
        let refused = Refused { why, error, connect_error };
        self.conns.event(Event::Dtcp(DtcpEvent::Failed { peer, refused: refused.clone() }));
        // An accepting entity continues: the next request may succeed.
        if let Role::Open { .. } = self.config.role {
            self.finish(Outcome::Failed(refused), now);
        }
    }

    fn pair_over(&mut self, ended: Option<Ended>, now: Now) {
        let Some(Ended { pair, over, .. }) = ended else { return };
        self.conns.event(Event::Dtcp(DtcpEvent::Ended {
            from_peer: pair.bytes_from(Side::Hidden),
            to_peer: pair.bytes_from(Side::Client),
            why: over.why,
        }));
        self.finish(Outcome::Ended(over.why), now);
    }

    /// Closes the local connection and everything else except a pair.
    fn finish(&mut self, outcome: Outcome, now: Now) {
        self.over = true;
        self.outcome.get_or_insert(outcome);
        if let Some(local) = self.local.take() {
            // The local side must not take it for a clean end.
            self.conns.close(local, Close::Truncate, now);
        }
        self.cancel_all();
        for on in self.conns.open_ids() {
            if let Some(&mut State::Link(link)) = self.conns.state(on) {
                self.dtcp_endpoint.ended(link, End::Reset);
            }
        }
    }

    /// Cancels all sessions, and signals that we have stopped dialling.
    fn cancel_all(&mut self) {
        let sessions: Vec<_> = self.sessions.keys().copied().collect();
        for session in sessions {
            self.dtcp_endpoint.cancel(session);
        }
    }

    fn unwanted(&mut self, on: ConnId, why: &'static str, now: Now) {
        let from = self.conns.from(on);
        self.conns.event(Event::Dropped { on, from, upstream: None, why });
        self.conns.close(on, Close::Abort, now);
    }
}
