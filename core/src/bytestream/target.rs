//! The target: dials the offered connections in order, and claims its socket. It does not know which of the
//! connections are proxies (A6, 'unknowingly').
//!
//! | state | docs/stream-proxy.md §3 |
//! |---|---|
//! | `Dialling` | T1 |
//! | `Claimed` | T2: the claim (PF4) and the answer to the initiator (PF5) were sent together |
//! | `Ended` | T8, T9, or the other role |
//!
//! The caller decides whether an offer is accepted at all (T0: A5, 400).

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;
use core::net::SocketAddr;

use super::initiator::{CONNECTIONS_MAX, Parties};
use super::name::{IqId, Jid};
use super::role::{Act, StreamFailure, Timeouts};
use super::stanza::{Condition, Connection, Query, Stanza};
use crate::acl::Policy;
use crate::time::Time;

/// The target of one stream.
#[derive(Debug)]
pub struct Target {
    parties: Parties,
    /// The id of the initiator's PF2.
    offer: IqId,
    reversible: bool,
    timeouts: Timeouts,
    state: State,
    due: Time,
}

/// The state of a target.
///
/// ```text
/// Dialling ─connected, PF4 and PF5 sent─▶ Claimed ─clear to send─▶ Ended
/// Dialling ─failed─▶ Dialling (the next address)
/// Dialling ─no address is left─▶ Ended (404, or an initiator takes its place)
/// Claimed ─error, reset, timeout─▶ Ended (failed)
/// ```
#[derive(Debug)]
enum State {
    Dialling { current: Connection, rest: VecDeque<Connection>, until: Time },
    Claimed { at: Jid, iq: IqId },
    Ended,
}

impl Target {
    /// T0: accepts an offer. The first [`CONNECTIONS_MAX`] of `connections` that may be dialled count (docs/dtcp.md
    /// §6.35). `reversible`: if none of them can be reached, we make an offer ourselves (A1.3, A2.2).
    #[must_use]
    pub fn accept(
        parties: Parties,
        connections: Vec<Connection>,
        offer: IqId,
        reversible: bool,
        (policy, timeouts): (&Policy, Timeouts),
        now: Time,
    ) -> (Self, Vec<Act>) {
        let mut rest: VecDeque<Connection> =
            connections.into_iter().filter(|it| policy.allows(it.to)).take(CONNECTIONS_MAX).collect();
        let until = now + timeouts.answer;
        let due = (now + timeouts.of_target()).min(until);
        match rest.pop_front() {
            Some(current) => {
                let dial = Act::Dial(current.to);
                let state = State::Dialling { current, rest, until };
                (Self { parties, offer, reversible, timeouts, state, due }, vec![dial])
            }
            None => {
                let state = State::Ended;
                let mut target = Self { parties, offer, reversible, timeouts, state, due };
                let acts = target.give_up();
                (target, acts)
            }
        }
    }

    /// Whether the answer to our claim at this JID is awaited (PF7, A6.8).
    #[must_use]
    pub fn awaits_clearance(&self, from: &Jid) -> bool {
        matches!(&self.state, State::Claimed { at, .. } if from == at)
    }

    /// Whether an answer from this JID with this id is for us.
    #[must_use]
    pub fn expects(&self, from: &Jid, id: &IqId) -> bool {
        matches!(&self.state, State::Claimed { at, iq } if from == at && id == iq)
    }

    /// Connected from this local port: sends PF4 with the id `iq`, and PF5 at once, since a proxy answers the former
    /// only after the initiator has acted on the latter (docs/stream-proxy.md §5.4).
    #[must_use]
    pub fn on_connected(&mut self, local_port: u16, iq: IqId, now: Time) -> Vec<Act> {
        let State::Dialling { current, .. } = &self.state else { return Vec::new() };
        let Connection { jid: at, to } = current.clone();
        let sid = Some(self.parties.sid.clone());
        let endpoint = Some(SocketAddr::new(to.ip(), local_port));
        let claim =
            Stanza { peer: at.clone(), id: iq.clone(), query: Query::Claim { sid: sid.clone(), endpoint } };
        let used = self.answer(Query::Result { sid, connection: Some(at.clone()) });
        self.state = State::Claimed { at, iq };
        self.due = now + self.timeouts.answer;
        vec![Act::Say(claim), used]
    }

    /// An address could not be reached. Unless that is concealed, the next one is dialled at once.
    #[must_use]
    pub fn on_dial_failed(&mut self, now: Time) -> Vec<Act> {
        if self.timeouts.concealed.is_some() { Vec::new() } else { self.dial_next(now) }
    }

    fn dial_next(&mut self, now: Time) -> Vec<Act> {
        let State::Dialling { current, rest, until } = &mut self.state else { return Vec::new() };
        match rest.pop_front() {
            Some(next) => {
                let to = next.to;
                *current = next;
                self.due = (now + self.timeouts.of_target()).min(*until);
                vec![Act::Dial(to)]
            }
            None => self.give_up(),
        }
    }

    /// PF7: handles an [expected](Target::expects) result.
    #[must_use]
    pub fn on_result(&mut self) -> Vec<Act> {
        debug_assert!(matches!(self.state, State::Claimed { .. }), "an answer to nothing");
        self.state = State::Ended;
        vec![Act::Clear]
    }

    /// A4: handles an [expected](Target::expects) error.
    #[must_use]
    pub fn on_error(&mut self, condition: Condition) -> Vec<Act> {
        self.fail(StreamFailure::Disowned(condition))
    }

    /// The socket was reset before the stream was clear. A clean end is handled by the table of the
    /// [module](crate::bytestream), since the peer may be clear before us and have nothing to send.
    #[must_use]
    pub fn on_reset(&mut self) -> Vec<Act> {
        match self.state {
            State::Claimed { .. } => self.fail(StreamFailure::Reset),
            State::Dialling { .. } | State::Ended => Vec::new(),
        }
    }

    /// Handles a deadline that has passed.
    #[must_use]
    pub fn on_timeout(&mut self, now: Time) -> Vec<Act> {
        if self.deadline().is_none_or(|due| due > now) {
            return Vec::new();
        }
        match self.state {
            State::Dialling { until, .. } if until > now => self.dial_next(now),
            State::Dialling { .. } => self.give_up(),
            State::Claimed { .. } => self.fail(StreamFailure::TimedOut),
            State::Ended => Vec::new(),
        }
    }

    /// When [`Target::on_timeout`] must be called.
    #[must_use]
    pub const fn deadline(&self) -> Option<Time> {
        match self.state {
            State::Ended => None,
            _ => Some(self.due),
        }
    }

    /// A1.2, A2.1: none of the addresses could be reached.
    fn give_up(&mut self) -> Vec<Act> {
        self.state = State::Ended;
        let refusal = self.answer(Query::Error(Condition::ItemNotFound));
        vec![refusal, if self.reversible { Act::Reverse } else { Act::Fail(StreamFailure::Unreachable) }]
    }

    fn fail(&mut self, why: StreamFailure) -> Vec<Act> {
        self.state = State::Ended;
        vec![Act::Fail(why)]
    }

    /// An answer to the initiator has the id of its offer.
    fn answer(&self, query: Query) -> Act {
        Act::Say(Stanza { peer: self.parties.peer.clone(), id: self.offer.clone(), query })
    }
}
