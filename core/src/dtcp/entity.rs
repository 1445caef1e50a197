//! A Jabber entity with one stream to give away: it opens a direct connection to a peer, or accepts the first that a
//! peer opens, and pairs it with a local connection (standard input and output).
//!
//! Offers and give-ups go over XMPP ([`crate::dtcp::xmpp`]); everything else is the
//! [`negotiation`]'s. Nothing is read from the local connection before there is a direct one.
//!
//! Who opens fails if it can't ask its peer within the time that a session has
//! ([`session`](negotiation::Config::session)): then there is no server to ask through. Who accepts has all the time in
//! the world: servers and peers may come and go.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::endpoint::{Action, DtcpEndpoint};
use super::negotiation::{self, Failure, LinkId, Refusal, SessionId, Signal};
use crate::conns::{Conns, Ended};
use crate::dtcp::xmpp::{self, Message};
use crate::endpoint::HostPort;
use crate::entropy::Entropy;
use crate::event::{ConnectError, Event};
use crate::machine::{Close, ConnId, End, Output};
use crate::pair::{self, Side};
use crate::sorted_vec_map::SortedVecMap;
use crate::time::Now;
use crate::xmpp::condition::{Condition, StanzaError};
use crate::xmpp::iq::{Iq, Kind};
use crate::xmpp::jid::{Allow, IqId, Jid};

mod door;
mod event;

pub use event::{DtcpEvent, Outcome, Refused};

/// How many requests are dealt with at once. Whoever gets through first is served: one that leads nowhere keeps
/// nobody else out.
pub const SESSIONS_MAX: usize = 16;
/// How many of them with one account, whatever its resources: whom a peer names is dialled, and nobody may keep all
/// others out with addresses where nobody is.
pub const SESSIONS_PER_PEER_MAX: usize = 4;

/// Everything that can be set.
#[derive(Clone, Debug)]
pub struct Config {
    /// Our full JID.
    pub jid: Jid,
    /// Which end we are.
    pub role: Role,
    /// Where we can be reached, at most three.
    pub hosts: Vec<HostPort>,
    /// How many of the shell's first listeners are for direct connections. All behind them are for the local one.
    pub listeners: u16,
    /// TLS, whom to dial, deadlines. How many sessions there may be is not heeded: see [`SESSIONS_MAX`].
    pub negotiation: negotiation::Config,
    /// Deadlines of a pair.
    pub pair: pair::Limits,
}

/// Which end we are.
#[derive(Clone, Debug)]
pub enum Role {
    /// The requestor.
    Open {
        /// Its peer's full JID.
        to: Jid,
    },
    /// The responder, to the first that gets through.
    Accept {
        /// Whose requests are wanted.
        from: Allow,
    },
}

/// The state machine. Beside [`Machine`](crate::machine::Machine)'s door and that of
/// [`IqHandler`](crate::xmpp::component_host::IqHandler) it has [`Entity::poll_event`].
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
    events: VecDeque<DtcpEvent>,
    outcome: Option<Outcome>,
    /// Nothing new begins.
    over: bool,
}

/// What is said about a session.
#[derive(Debug)]
struct SessionInfo {
    peer: Jid,
    /// The id of the request: ours, as long as it is not answered; or the peer's.
    id: Option<IqId>,
    /// What our request was refused with.
    error: Option<StanzaError>,
}

/// What a connection is.
///
/// ```text
/// accepted or dialled: Link ─established─▶ Paired
///                      Link ─another one was established, refused, timed out─▶ closed
/// local:               Local ─a direct connection is established─▶ Paired
/// not taken:           Unwanted ─▶ closed
/// ```
#[derive(Debug)]
enum State {
    /// On the way to be the direct connection.
    Link(LinkId),
    /// The local one, which waits for it.
    Local,
    /// Either half of the pair.
    Paired,
    /// Not taken.
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
    /// An entity without sessions. `seed` is from the operating system: keys are made of it.
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
            events: VecDeque::new(),
            outcome: None,
            over: false,
            config,
        }
    }

    /// The next thing to log.
    pub fn poll_event(&mut self) -> Option<DtcpEvent> {
        self.events.pop_front()
    }

    /// What became of the local connection; `None` as long as that is open.
    #[must_use]
    pub const fn outcome(&self) -> Option<&Outcome> {
        self.outcome.as_ref()
    }

    /// The local connection is there. Who opens waits for the server no longer than for the peer.
    fn welcome(&mut self, local: ConnId, now: Now) {
        self.conns.emit(Output::Read { on: local, wanted: false });
        self.enter(local, State::Local);
        self.local = Some(local);
        if let Role::Open { .. } = self.config.role {
            self.conns.set_due(local, Some(now.mono + self.config.negotiation.session));
        }
        self.begin(now);
    }

    /// The local connection has waited for too long. Whether the session has the session itself watches.
    fn expire(&mut self, now: Now) {
        let Role::Open { to } = &self.config.role else { return };
        if self.sessions.is_empty() {
            let refused = Refused { why: Failure::Deadline, error: None, connect_error: None };
            self.events.push_back(DtcpEvent::Failed { peer: to.clone(), refused: refused.clone() });
            self.finish(Outcome::Failed(refused), now);
        }
    }

    /// Asks the peer, once there is a server to ask through and a local connection to ask for.
    fn begin(&mut self, now: Now) {
        let Role::Open { to } = &self.config.role else { return };
        if self.over || !self.is_online || self.local.is_none() || !self.sessions.is_empty() {
            return;
        }
        let peer = to.clone();
        let session = self.dtcp_endpoint.negotiation().request(peer.as_str(), &self.config.hosts, now.mono);
        self.events.push_back(DtcpEvent::Begun { peer: peer.clone() });
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
        let of_peer = self.sessions.values().filter(|talk| talk.peer.bare() == peer.bare());
        of_peer.count() >= SESSIONS_PER_PEER_MAX
    }

    fn decline(&mut self, iq: &Iq, condition: Condition, text: &str) {
        self.events.push_back(DtcpEvent::Declined { peer: iq.from.clone(), condition });
        self.iqs.extend(iq.refusal(condition, text));
    }

    /// The session whose request of ours this answers.
    fn asked(&self, iq: &Iq) -> Option<SessionId> {
        let Role::Open { .. } = self.config.role else { return None };
        let is_ours = |talk: &&SessionInfo| talk.id.is_some() && talk.id == iq.id && talk.peer == iq.from;
        self.sessions.iter().find(|(_, talk)| is_ours(talk)).map(|(session, _)| *session)
    }

    fn answered(&mut self, session: SessionId, theirs: Result<super::Offer, super::KeyError>, now: Now) {
        if let Some(talk) = self.sessions.get_mut(&session) {
            talk.id = None;
        }
        match theirs {
            Ok(theirs) => self.dtcp_endpoint.negotiation().handle_answer(session, &theirs, now.mono),
            Err(_) => self.dtcp_endpoint.negotiation().handle_refused(session),
        }
    }

    fn refused(&mut self, session: SessionId, error: StanzaError) {
        if let Some(talk) = self.sessions.get_mut(&session) {
            talk.id = None;
            talk.error = Some(error);
        }
        self.dtcp_endpoint.negotiation().handle_refused(session);
    }

    /// An IQ for our JID.
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

    /// Says and does what the negotiation has come to since the last call.
    fn settle(&mut self, now: Now) {
        while let Some(word) = self.dtcp_endpoint.poll(&mut self.conns, State::Link, now) {
            match word {
                Action::Signal { session, signal } => self.signal(session, signal),
                Action::Established { session, on, tls } => self.established(session, on, tls, now),
                Action::Dialled { session, to, .. } => {
                    if let Some(talk) = self.sessions.get(&session) {
                        self.events.push_back(DtcpEvent::Dialled { peer: talk.peer.clone(), to });
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
        let Some(talk) = self.sessions.get_mut(&session) else { return };
        let (me, peer) = (&self.config.jid, talk.peer.clone());
        let iq = match signal {
            Signal::Request(ours) => {
                let id = IqId::random(&mut self.entropy);
                talk.id = Some(id.clone());
                xmpp::request(me, &peer, id, &ours)
            }
            Signal::Answer(ours) => {
                self.events.push_back(DtcpEvent::Begun { peer: peer.clone() });
                xmpp::answer(me, &peer, talk.id.take(), &ours)
            }
            Signal::GiveUp(key) => xmpp::give_up(me, &peer, IqId::random(&mut self.entropy), &key),
            Signal::Refuse(why) => {
                let (condition, text) = xmpp::refusal(why);
                let id = talk.id.take();
                self.sessions.remove(&session);
                self.events.push_back(DtcpEvent::Declined { peer: peer.clone(), condition });
                let kind = Kind::Error(StanzaError::new(condition, text));
                Iq { from: me.clone(), to: peer, id, kind, payload: None }
            }
        };
        self.iqs.push_back(iq);
    }

    fn established(&mut self, session: SessionId, on: ConnId, tls: bool, now: Now) {
        let Some(SessionInfo { peer, .. }) = self.sessions.remove(&session) else { return };
        let Some(local) = self.local.take() else { return self.conns.close(on, Close::Abort, now) };
        self.events.push_back(DtcpEvent::Established { peer, tls });
        for half in [on, local] {
            self.conns.emit(Output::Read { on: half, wanted: true });
            self.enter(half, State::Paired);
        }
        self.conns.pair(on, local, false, now);
        self.over = true;
        for talk in self.sessions.values() {
            let refused = Refused { why: Failure::Busy, error: None, connect_error: None };
            self.events.push_back(DtcpEvent::Failed { peer: talk.peer.clone(), refused });
        }
        self.cancel_all();
    }

    fn failed(&mut self, session: SessionId, why: Failure, connect_error: Option<ConnectError>, now: Now) {
        let Some(SessionInfo { peer, error, .. }) = self.sessions.remove(&session) else { return };
        let refused = Refused { why, error, connect_error };
        self.events.push_back(DtcpEvent::Failed { peer, refused: refused.clone() });
        // Who accepts goes on: the next may get through.
        if let Role::Open { .. } = self.config.role {
            self.finish(Outcome::Failed(refused), now);
        }
    }

    fn pair_over(&mut self, ended: Option<Ended>, now: Now) {
        let Some(Ended { pair, over, .. }) = ended else { return };
        self.events.push_back(DtcpEvent::Ended {
            from_peer: pair.bytes_from(Side::Hidden),
            to_peer: pair.bytes_from(Side::Client),
            why: over.why,
        });
        self.finish(Outcome::Ended(over.why), now);
    }

    /// The local connection is of no use any more, and with it everything else but a pair.
    fn finish(&mut self, outcome: Outcome, now: Now) {
        self.over = true;
        self.outcome.get_or_insert(outcome);
        if let Some(local) = self.local.take() {
            // Its end must not look like that of a stream in order.
            self.conns.close(local, Close::Truncate, now);
        }
        self.cancel_all();
        for on in self.conns.open_ids() {
            if let Some(&mut State::Link(link)) = self.conns.state(on) {
                self.dtcp_endpoint.ended(link, End::Reset);
            }
        }
    }

    /// The others are told that we dial no more.
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

    fn enter(&mut self, on: ConnId, state: State) {
        if let Some(old) = self.conns.state(on) {
            *old = state;
        }
    }
}
