//! The streams that are not clear yet: their beginning, the actions of their roles, and their end.

use super::{
    Act, Claim, Close, Condition, ConnId, Connection, Entity, Event, Initiator, IqId, Jid, Now, Output,
    Parties, Query, Role, Session, SocketAddr, Stanza, State, StreamEvent, StreamFailure, StreamId, Target,
    Vec,
};
use crate::limiter::exceeds_share;

impl Entity {
    /// PF1: opens a stream to this peer. `local`: the local connection that it is for; without one it is connected to
    /// the service. A [`StreamEvent`] reports its end.
    pub fn handle_begin(&mut self, peer: Jid, local: Option<ConnId>, now: Now) {
        if self.draining || self.sessions.len() >= self.config.sessions_max as usize {
            if let Some(local) = local {
                self.unwanted(local, Close::Truncate, "too many streams, or shutting down", now);
            }
            self.conns.event(Event::Stream(StreamEvent::Failed { peer, why: StreamFailure::Cancelled }));
            return;
        }
        let sid = StreamId::random(&mut self.entropy);
        let parties = Parties { me: self.config.jid.clone(), peer, sid };
        let (role, acts) = self.initiate(parties.clone(), self.config.reversal, now);
        let session = self.insert(parties, role, local, true);
        self.act(session, acts, now);
        self.process_matches(now);
    }

    /// Handles a stanza. Legal at any time; unexpected answers are ignored.
    pub fn handle_stanza(&mut self, stanza: Stanza, now: Now) {
        let Stanza { peer, id, query } = stanza;
        match query {
            Query::Offer { sid, connections, malformed } => {
                let malformed = connections.is_empty() && malformed > 0;
                match sid.filter(|_| !malformed) {
                    Some(sid) => self.offered(peer, id, sid, connections, now),
                    None => self.refuse(peer, id, Condition::BadRequest),
                }
            }
            Query::Claim { sid: Some(sid), endpoint: Some(endpoint) } => {
                self.claimed(Claim { from: peer, iq: id, sid, endpoint }, now);
            }
            Query::Claim { .. } => self.refuse(peer, id, Condition::BadRequest),
            Query::Result { sid, connection } => {
                let session = self.session_of_result(&peer, &id, sid.as_ref(), connection.is_some());
                self.answered(session, now, |role, now| match role {
                    Role::Initiator(initiator) => initiator.on_result(connection.as_ref(), now.mono),
                    Role::Target(target) => target.on_result(),
                });
            }
            Query::Error(condition) => {
                let session = self.session_of_error(&peer, &id);
                self.answered(session, now, |role, now| match role {
                    Role::Initiator(initiator) => initiator.on_error(condition, now.mono),
                    Role::Target(target) => target.on_error(condition),
                });
            }
        }
        self.process_matches(now);
    }

    fn offered(&mut self, peer: Jid, id: IqId, sid: StreamId, connections: Vec<Connection>, now: Now) {
        let parties = Parties { me: self.config.jid.clone(), peer, sid };
        let name = (parties.peer.clone(), parties.sid.clone());
        if let Some(&session) = self.names.get(&name) {
            let Some(known) = self.sessions.get_mut(&session) else { return };
            if !known.role.awaits_offer() {
                return self.refuse(parties.peer, id, Condition::Conflict);
            }
            // A1.3, A2.2 from the other side. There is one reversal only.
            let policy = (&self.config.dial, self.config.timeouts);
            let (target, acts) = Target::accept(parties, connections, id, false, policy, now.mono);
            known.role = Role::Target(target);
            return self.act(session, acts, now);
        }
        self.replace(&parties.peer, now);
        if let Some(condition) = self.refusal_of(&parties.peer) {
            return self.refuse(parties.peer, id, condition);
        }
        let local = if self.config.service.is_none() { self.free.pop_front() } else { None };
        let reversible = self.config.reversal && !self.config.connections.is_empty();
        let policy = (&self.config.dial, self.config.timeouts);
        let (target, acts) = Target::accept(parties.clone(), connections, id, reversible, policy, now.mono);
        let session = self.insert(parties, Role::Target(target), local, false);
        self.act(session, acts, now);
    }

    /// Why an offer is refused (A5); `None` if it is accepted.
    fn refusal_of(&self, peer: &Jid) -> Option<Condition> {
        if !self.config.allow.contains(peer) {
            Some(Condition::Forbidden)
        } else if self.draining {
            Some(Condition::ServiceUnavailable)
        } else if self.config.service.is_none() && self.free.is_empty() {
            Some(Condition::NotAcceptable)
        } else if self.has_no_session_for(peer) {
            Some(Condition::ResourceConstraint)
        } else {
            None
        }
    }

    /// Whether no session is left, or none for this peer's account.
    fn has_no_session_for(&self, peer: &Jid) -> bool {
        let taken = u32::try_from(self.sessions.len()).unwrap_or(u32::MAX);
        let free = self.config.sessions_max.saturating_sub(taken);
        let own = self.sessions.values().filter(|it| it.peer.bare() == peer.bare()).count();
        free == 0 || exceeds_share(u32::try_from(own).unwrap_or(u32::MAX), free)
    }

    /// I5: an offer with another stream id is another stream. The awaited one will not come.
    fn replace(&mut self, peer: &Jid, now: Now) {
        let waits = |it: &Session| it.peer == *peer && it.role.awaits_offer();
        let replaced: Vec<u64> =
            self.sessions.iter().filter(|(_, it)| waits(it)).map(|(&session, _)| session).collect();
        for session in replaced {
            self.fail(session, StreamFailure::Replaced, now);
        }
    }

    fn claimed(&mut self, claim: Claim, now: Now) {
        let waiting = self.matching.early_claims_of(&claim.from);
        if waiting >= self.config.claims_per_jid_max as usize
            || self.failures.are_exhausted(&claim.from, now.mono)
        {
            return self.refuse(claim.from, claim.iq, Condition::ResourceConstraint);
        }
        let session = self.names.get(&(claim.from.clone(), claim.sid.clone()));
        let session = session.and_then(|session| self.sessions.get(session));
        if !session.is_some_and(|session| session.role.is_listening()) {
            return self.fail_claim(claim, Condition::ItemNotFound, now);
        }
        if let Some(displaced) = self.matching.claim(claim, now.mono) {
            self.fail_claim(displaced, Condition::ResourceConstraint, now);
        }
    }

    /// PF6: a claim has found its socket.
    pub(super) fn identify(&mut self, on: ConnId, claim: Claim, now: Now) {
        let session = self.names.get(&(claim.from.clone(), claim.sid.clone())).copied();
        let known = session.and_then(|session| self.sessions.get_mut(&session));
        let (Some(session), Some(known)) = (session, known.filter(|it| it.role.is_listening())) else {
            return self.fail_claim(claim, Condition::ItemNotFound, now);
        };
        let iq = claim.iq;
        known.stream = Some(on);
        self.matching.remove(on);
        self.conns.set_state_until(on, State::Stream { session, has_ended: false }, None);
        self.with_role(session, now, |role, now| match role {
            Role::Initiator(initiator) => initiator.on_claimed(iq, now.mono),
            Role::Target(_) => Vec::new(),
        });
    }

    fn answered(&mut self, session: Option<u64>, now: Now, event: impl FnOnce(&mut Role, Now) -> Vec<Act>) {
        if let Some(session) = session {
            self.with_role(session, now, event);
        }
    }

    /// The stream of a result, identified by its id. The mail's samples have no ids: then PF5 is identified by its
    /// sender and stream id, and 'clear to send', which has neither, by its sender, if only one answer of that sender
    /// is awaited.
    fn session_of_result(
        &self,
        from: &Jid,
        id: &IqId,
        sid: Option<&StreamId>,
        names_connection: bool,
    ) -> Option<u64> {
        if let Some(session) = self.session_of_question(from, id) {
            return Some(session);
        }
        let named = |session: &Session| sid.is_some_and(|sid| session.sid == *sid);
        if names_connection {
            return self.only_session(|it| {
                named(it)
                    && matches!(&it.role, Role::Initiator(initiator) if initiator.awaits_connection(from))
            });
        }
        if sid.is_some() {
            return self.only_session(|it| named(it) && it.role.awaits_clearance(from));
        }
        if !id.as_str().is_empty() {
            return None;
        }
        self.only_session(|it| it.role.awaits_clearance(from))
    }

    /// The stream of an error. One without an id belongs to the only unanswered question of its sender.
    fn session_of_error(&self, from: &Jid, id: &IqId) -> Option<u64> {
        let session = self.session_of_question(from, id);
        session.or_else(|| {
            if id.as_str().is_empty() { self.only_session(|it| it.role.awaits_answer(from)) } else { None }
        })
    }

    fn session_of_question(&self, from: &Jid, id: &IqId) -> Option<u64> {
        self.sessions.iter().find(|(_, it)| it.role.expects(from, id)).map(|(&session, _)| session)
    }

    /// The only session for which this is true; `None` if there is none, or more than one.
    fn only_session(&self, is_it: impl Fn(&Session) -> bool) -> Option<u64> {
        let mut all = self.sessions.iter().filter(|(_, it)| is_it(it)).map(|(&session, _)| session);
        all.next().filter(|_| all.next().is_none())
    }

    pub(super) fn with_role(
        &mut self,
        session: u64,
        now: Now,
        event: impl FnOnce(&mut Role, Now) -> Vec<Act>,
    ) {
        if let Some(known) = self.sessions.get_mut(&session) {
            let acts = event(&mut known.role, now);
            self.act(session, acts, now);
        }
    }

    fn initiate(&mut self, parties: Parties, reversible: bool, now: Now) -> (Role, Vec<Act>) {
        let offer = IqId::random(&mut self.entropy);
        let (connections, timeouts) = (self.config.connections.clone(), self.config.timeouts);
        let (role, acts) = Initiator::open(parties, connections, offer, reversible, timeouts, now.mono);
        (Role::Initiator(role), acts)
    }

    fn insert(&mut self, parties: Parties, role: Role, local: Option<ConnId>, ours: bool) -> u64 {
        self.begun += 1;
        let Parties { peer, sid, .. } = parties;
        self.names.insert((peer.clone(), sid.clone()), self.begun);
        self.sessions.insert(self.begun, Session { peer, sid, role, stream: None, local, ours });
        if let Some(local) = local {
            self.conns.set_state_until(local, State::Local { session: Some(self.begun) }, None);
        }
        self.begun
    }

    fn act(&mut self, session: u64, acts: Vec<Act>, now: Now) {
        for act in acts {
            match act {
                Act::Say(stanza) => self.stanzas.push_back(stanza),
                Act::Dial(to) => self.dial(session, to, now),
                Act::Clear => self.clear(session, now),
                Act::Reverse => self.reverse(session, now),
                Act::Fail(why) => self.fail(session, why, now),
            }
        }
    }

    /// Dials. An earlier dial that timed out is still in progress under the old id and is aborted. The addresses that
    /// a peer offers are dialled within the budget; beyond it, the dial counts as failed.
    fn dial(&mut self, session: u64, to: SocketAddr, now: Now) {
        let Some(known) = self.sessions.get_mut(&session) else { return };
        if let Role::Target(_) = known.role {
            if !self.dials.take(known.peer.bare(), now.mono) {
                if let Some(old) = known.stream.take() {
                    self.conns.close(old, Close::Abort, now);
                }
                return self.with_role(session, now, |role, now| match role {
                    Role::Target(target) => target.on_dial_failed(now.mono),
                    Role::Initiator(_) => Vec::new(),
                });
            }
            self.conns.event(Event::Stream(StreamEvent::Dialled { peer: known.peer.clone(), to }));
        }
        let on = self.conns.insert(State::Dialling { session }, None);
        if let Some(old) = known.stream.replace(on) {
            self.conns.close(old, Close::Abort, now);
        }
        self.conns.emit(Output::Dial { on, to });
    }

    /// A1.3, A2.2: we make the offer now, with the same stream id.
    fn reverse(&mut self, session: u64, now: Now) {
        let Some(known) = self.sessions.get_mut(&session) else { return };
        if let Some(old) = known.stream.take() {
            self.conns.close(old, Close::Abort, now);
        }
        let (peer, sid) = (known.peer.clone(), known.sid.clone());
        let parties = Parties { me: self.config.jid.clone(), peer, sid };
        let (role, acts) = self.initiate(parties, false, now);
        if let Some(known) = self.sessions.get_mut(&session) {
            known.role = role;
        }
        self.act(session, acts, now);
    }

    /// PF7: the socket is paired, or waits for the service.
    fn clear(&mut self, session: u64, now: Now) {
        let Some(known) = self.remove(session) else { return };
        let Some(stream) = known.stream else { return debug_assert!(false, "clear, but no socket") };
        self.conns.event(Event::Stream(StreamEvent::Clear { peer: known.peer, on: stream }));
        let has_ended = matches!(self.conns.state(stream), Some(State::Stream { has_ended: true, .. }));
        match (known.local, self.config.service) {
            (Some(local), _) => self.pair(stream, local, has_ended, now),
            (None, Some(to)) => {
                let service = self.conns.insert(State::Service { stream }, None);
                self.conns.set_due(service, Some(now.mono + self.config.timeouts.dial));
                self.conns.set_state_until(stream, State::Ready { service, has_ended }, None);
                self.conns.emit(Output::Dial { on: service, to });
            }
            (None, None) => self.unwanted(stream, Close::Truncate, "nobody here to take the stream", now),
        }
    }

    /// The stream has failed. The local side gets a truncated stream, not a clean end.
    pub(super) fn fail(&mut self, session: u64, why: StreamFailure, now: Now) {
        let Some(known) = self.remove(session) else { return };
        if let Some(stream) = known.stream {
            self.conns.close(stream, Close::Abort, now);
        }
        match known.local {
            Some(local) if known.ours || self.draining => self.conns.close(local, Close::Truncate, now),
            Some(local) if self.conns.state(local).is_some() => {
                self.conns.set_state_until(local, State::Local { session: None }, None);
                self.free.push_front(local);
            }
            _ => {}
        }
        self.conns.event(Event::Stream(StreamEvent::Failed { peer: known.peer, why }));
    }

    fn remove(&mut self, session: u64) -> Option<Session> {
        let known = self.sessions.remove(&session)?;
        self.names.remove(&(known.peer.clone(), known.sid.clone()));
        Some(known)
    }

    /// A local connection was closed before its stream was clear.
    pub(super) fn abandon(&mut self, local: ConnId, session: Option<u64>, now: Now) {
        let from = self.conns.from(local);
        self.conns.event(Event::Dropped {
            on: local,
            from,
            upstream: None,
            why: "ended before the stream was clear",
        });
        self.conns.close(local, Close::Abort, now);
        self.free.retain(|free| *free != local);
        if let Some(session) = session {
            self.fail(session, StreamFailure::Cancelled, now);
        }
    }
}
