//! A session: from the offer to its connection, or until both sides have given up.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::link::{Link, Standing};
use super::{LinkId, Negotiation, Output, SessionFailure, SessionId, Signal};
use crate::dtcp::handshake::Tls;
use crate::dtcp::{Fingerprint, HOSTS_MAX, Key, Offer, host};
use crate::endpoint::{Host, HostPort};
use crate::machine::Close;
use crate::time::Time;

/// A session without a connection so far.
#[derive(Clone, Debug)]
pub(super) struct Session {
    peer: String,
    mine: Key,
    phase: Phase,
    ours: DialState,
    theirs: DialState,
    /// Our give-up is not signalled before this time.
    concealed_until: Option<Time>,
    due: Time,
}

/// The account of a peer: the part before the first `/`.
pub(super) fn account(peer: &str) -> &str {
    peer.split('/').next().unwrap_or(peer)
}

/// Our role, and the peer's offer if it is known. `Requested` ─answer─▶ `Requestor`. A session that the peer
/// requested is a `Responder` from the start.
#[derive(Clone, Debug)]
enum Phase {
    /// We sent a request, which is unanswered.
    Requested,
    /// We sent a request, and have the peer's offer.
    Requestor(Peer),
    /// We answered the peer's request.
    Responder(Peer),
}

/// The peer's offer.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    key: Key,
    /// The certificate that it must present.
    pin: Option<Fingerprint>,
}

/// Whether an endpoint still dials. `Untried` ─the hosts are known─▶ `Trying` ─none is left─▶ `GaveUp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DialState {
    /// Not started.
    Untried,
    Trying,
    GaveUp,
}

impl Session {
    pub(super) fn request(peer: &str, ours: &Offer, due: Time) -> Self {
        Self::new(peer, ours, Phase::Requested, due)
    }

    pub(super) fn respond(peer: &str, ours: &Offer, theirs: Peer, due: Time) -> Self {
        Self::new(peer, ours, Phase::Responder(theirs), due)
    }

    fn new(peer: &str, ours: &Offer, phase: Phase, due: Time) -> Self {
        // A peer without our hosts cannot dial, which needs no signal (docs/dtcp.md §6.8).
        let theirs = if ours.hosts.is_empty() { DialState::GaveUp } else { DialState::Trying };
        Self {
            peer: peer.to_string(),
            mine: ours.key.clone(),
            phase,
            ours: DialState::Untried,
            theirs,
            concealed_until: None,
            due,
        }
    }

    pub(super) fn account(&self) -> &str {
        account(&self.peer)
    }

    /// Whether the peer requested it.
    pub(super) const fn was_asked_for(&self) -> bool {
        matches!(self.phase, Phase::Responder(_))
    }

    /// The next deadline.
    pub(super) fn next_due(&self) -> Time {
        self.concealed_until.map_or(self.due, |until| until.min(self.due))
    }

    /// Whether the concealment has just ended, so that a give-up may be signalled.
    pub(super) fn has_concealed_until(&mut self, now: Time) -> bool {
        self.concealed_until.take_if(|until| *until <= now).is_some()
    }

    pub(super) fn peer(&self) -> &str {
        &self.peer
    }

    pub(super) const fn mine(&self) -> &Key {
        &self.mine
    }

    pub(super) const fn due(&self) -> Time {
        self.due
    }

    pub(super) fn is_unanswered(&self) -> bool {
        matches!(self.phase, Phase::Requested)
    }

    pub(super) fn they_gave_up(&mut self) {
        self.theirs = DialState::GaveUp;
    }

    pub(super) fn is_over_but_for_links(&self) -> bool {
        (self.ours, self.theirs) == (DialState::GaveUp, DialState::GaveUp)
    }

    /// Whether this is the session that `peer` requested with its key.
    pub(super) fn is_from(&self, peer: &str, key: &Key) -> bool {
        match &self.phase {
            Phase::Responder(it) => self.peer == peer && it.key == *key,
            Phase::Requested | Phase::Requestor(_) => false,
        }
    }

    pub(super) fn standing(&self) -> Standing {
        match self.phase {
            Phase::Requested => Standing::Unanswered,
            Phase::Requestor(_) => Standing::Requestor,
            Phase::Responder(_) => Standing::Responder,
        }
    }

    /// The peer's key, if it is known.
    pub(super) fn theirs(&self) -> Option<&Key> {
        self.known().map(|it| &it.key)
    }

    /// Whether a connection with this certificate, or without one, can be the peer's.
    pub(super) fn trusts(&self, certificate: Option<Fingerprint>) -> bool {
        self.known().and_then(|it| it.pin).is_none_or(|pin| certificate == Some(pin))
    }

    fn is_pinned(&self) -> bool {
        self.known().is_some_and(|it| it.pin.is_some())
    }

    fn known(&self) -> Option<&Peer> {
        match &self.phase {
            Phase::Requestor(it) | Phase::Responder(it) => Some(it),
            Phase::Requested => None,
        }
    }

    /// Our request was answered.
    pub(super) fn on_answered(&mut self, theirs: Peer) {
        debug_assert!(self.is_unanswered(), "answered twice");
        self.phase = Phase::Requestor(theirs);
    }
}

impl Peer {
    /// Takes the peer's key and certificate from an offer; `tls` is our own policy.
    pub(super) fn new(offer: &Offer, tls: Tls) -> Self {
        Self { key: offer.key.clone(), pin: offer.fingerprint.filter(|_| tls != Tls::Off) }
    }
}

impl Negotiation {
    /// The session of this key of ours. All sessions are compared, to take constant time.
    pub(super) fn find(&self, shown: &[u8]) -> Option<SessionId> {
        let mut found = None;
        for (id, session) in self.sessions.iter() {
            if session.mine().is(shown) {
                found = Some(*id);
            }
        }
        found
    }

    /// Dials all hosts of the peer's offer at once (docs/dtcp.md §6.36).
    pub(super) fn dial_all(&mut self, id: SessionId, theirs: &Offer, now: Time) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        // Without hosts of the peer we cannot dial, which needs no signal (docs/dtcp.md §6.6).
        session.ours = if theirs.hosts.is_empty() { DialState::GaveUp } else { DialState::Trying };
        let tls = if session.is_pinned() { Tls::Require } else { self.config.tls };
        let account = session.account().to_string();
        let concealed = self.config.concealed.filter(|_| session.was_asked_for());
        let due = now + concealed.unwrap_or(self.config.handshake);
        let mut dials = false;
        let mut dialled: Vec<HostPort> = Vec::new();
        for place in theirs.hosts.iter().take(HOSTS_MAX).filter_map(|text| host::parse(text)) {
            if !dialled.contains(&place) {
                dials |= self.dial(id, &account, &place, (tls, due), now);
                dialled.push(place);
            }
        }
        if let Some(session) = self.sessions.get_mut(&id)
            && dials
        {
            session.concealed_until = concealed.map(|_| due);
        }
        self.review(id);
    }

    /// Dials a host if that is allowed. Returns whether it does.
    fn dial(
        &mut self,
        session: SessionId,
        account: &str,
        place: &HostPort,
        (tls, due): (Tls, Time),
        now: Time,
    ) -> bool {
        let link = LinkId(self.number());
        let output = match &place.host {
            Host::Address(address) => {
                let to = (*address, place.port).into();
                self.config.policy.allows(to).then_some(Output::Dial { link, to })
            }
            Host::Name(name) => {
                let may = self.config.policy.names && place.port != 0;
                may.then(|| Output::Resolve { link, host: name.clone(), port: place.port })
            }
        };
        let Some(output) = output else { return false };
        if !self.may_dial(account, now) {
            self.emit(Output::Withheld { session });
            return false;
        }
        self.links.insert(link, Link::dialled(session, tls, due));
        self.emit(output);
        true
    }

    /// Checks after a failed connection whether we give up, and whether the session has failed.
    pub(super) fn review(&mut self, id: SessionId) {
        let is_ours = |link: &Link| link.session() == Some(id);
        let lives = self.links.values().any(is_ours);
        let dials = self.links.values().any(|link| is_ours(link) && link.is_dialled());
        let Some(session) = self.sessions.get(&id) else { return };
        if !dials && session.ours == DialState::Trying && session.concealed_until.is_none() {
            self.signal_give_up(id);
        }
        if !lives && self.sessions.get(&id).is_some_and(Session::is_over_but_for_links) {
            self.fail(id, SessionFailure::Unreachable);
        }
    }

    /// Signals that we have stopped dialling, once, and if the peer's key is known.
    pub(super) fn signal_give_up(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(key) = session.theirs().cloned() else { return };
        if core::mem::replace(&mut session.ours, DialState::GaveUp) != DialState::GaveUp {
            self.emit(Output::Signal { session: id, signal: Signal::GiveUp(key) });
        }
    }

    /// The connection was chosen; all others of the session are discarded.
    pub(super) fn commit(&mut self, id: SessionId, on: LinkId) {
        let Some(link) = self.links.remove(&on) else { return };
        self.emit(Output::Established { session: id, link: on, tls: link.is_secure() });
        if let Some(session) = self.discard(id) {
            self.remember_used_key(session.mine);
        }
    }

    pub(super) fn fail(&mut self, id: SessionId, why: SessionFailure) {
        self.discard(id);
        self.emit(Output::Failed { session: id, why });
    }

    /// Removes a session and closes its connections.
    pub(super) fn discard(&mut self, id: SessionId) -> Option<Session> {
        let session = self.sessions.remove(&id)?;
        let links: Vec<_> =
            self.links.iter().filter(|(_, it)| it.session() == Some(id)).map(|(link, _)| *link).collect();
        for link in links {
            if self.links.remove(&link).is_some_and(|it| it.is_parked()) {
                self.write_error(link);
                self.emit(Output::Close { link, how: Close::Linger });
            } else {
                self.emit(Output::Close { link, how: Close::Abort });
            }
        }
        Some(session)
    }
}
