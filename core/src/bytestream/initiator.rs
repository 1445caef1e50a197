//! The initiator: offers connections, and waits for the target on its own or follows it to a proxy.
//!
//! | state | docs/stream-proxy.md §2 |
//! |---|---|
//! | `Offered` | I1: the offer was sent (PF2); the target's claim (PF6) and its answer (PF5) may come in either order |
//! | `Identified` | I2: the target's socket is known, and the claim was answered (PF7); its PF5 is awaited for a short time |
//! | `Dialling`, `Claimed` | I4: on the way to the proxy that the target named (A6.3, A6.4) |
//! | `Reversing` | I5: refused; the target may make an offer itself |
//! | `Ended` | I8, I9, or the other role (I3 is left at once) |

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;
use core::net::SocketAddr;

use super::name::{IqId, Jid, StreamId};
use super::role::{Act, StreamFailure, Timeouts};
use super::stanza::{Condition, Connection, Query, Stanza};
use crate::time::Time;

/// The maximum number of connections in an offer.
pub const CONNECTIONS_MAX: usize = 8;

/// The initiator of one stream.
#[derive(Debug)]
pub struct Initiator {
    me: Jid,
    peer: Jid,
    sid: StreamId,
    offered: Vec<Connection>,
    /// The id of PF2.
    offer: IqId,
    /// Whether the peer may make an offer if it refuses ours. There is one reversal only, since two ends behind NATs
    /// would never stop.
    reversible: bool,
    timeouts: Timeouts,
    state: State,
    due: Time,
}

/// The state of an initiator.
///
/// ```text
/// Offered ─PF6 and PF5 (us)─▶ Ended (clear)
/// Offered ─PF6─▶ Identified ─PF5 (us), or 10 s─▶ Ended (clear)
/// Offered ─PF5 (a proxy)─▶ Dialling ─connected, claim sent─▶ Claimed ─clear to send─▶ Ended
/// Offered ─error─▶ Reversing ─an offer with the same sid─▶ Ended (a target takes its place)
/// any ─error, timeout, cancelled─▶ Ended (failed)
/// ```
#[derive(Debug)]
enum State {
    Offered { named: bool },
    Identified,
    Dialling { via: Jid, to: SocketAddr, rest: VecDeque<SocketAddr>, until: Time },
    Claimed { via: Jid, iq: IqId },
    Reversing(Condition),
    Ended,
}

/// The two ends of a stream, and its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parties {
    /// Our own full JID.
    pub me: Jid,
    /// The peer's full JID.
    pub peer: Jid,
    /// The stream's id.
    pub sid: StreamId,
}

impl Initiator {
    /// PF1, PF2: makes an initiator and its offer with the id `offer`. The first [`CONNECTIONS_MAX`] of `connections`
    /// are offered; an offer without any is A1.1.
    #[must_use]
    pub fn open(
        parties: Parties,
        mut connections: Vec<Connection>,
        offer: IqId,
        reversible: bool,
        timeouts: Timeouts,
        now: Time,
    ) -> (Self, Vec<Act>) {
        connections.truncate(CONNECTIONS_MAX);
        let Parties { me, peer, sid } = parties;
        let query = Query::Offer { sid: Some(sid.clone()), connections: connections.clone(), malformed: 0 };
        let say = Act::Say(Stanza { peer: peer.clone(), id: offer.clone(), query });
        let state = State::Offered { named: false };
        let due = now + timeouts.answer;
        (Self { me, peer, sid, offered: connections, offer, reversible, timeouts, state, due }, vec![say])
    }

    /// Whether a claim of the peer is awaited (I1).
    #[must_use]
    pub const fn is_listening(&self) -> bool {
        matches!(self.state, State::Offered { .. })
    }

    /// Whether an offer of the peer is awaited (I5).
    #[must_use]
    pub const fn awaits_offer(&self) -> bool {
        matches!(self.state, State::Reversing(_))
    }

    /// Whether the peer's choice of a connection is awaited (PF5).
    #[must_use]
    pub fn awaits_connection(&self, from: &Jid) -> bool {
        matches!(self.state, State::Offered { .. } | State::Identified) && *from == self.peer
    }

    /// Whether an answer of this JID to our question is awaited.
    #[must_use]
    pub fn awaits_answer(&self, from: &Jid) -> bool {
        match &self.state {
            State::Offered { .. } => *from == self.peer,
            State::Claimed { .. } => self.awaits_clearance(from),
            State::Identified | State::Dialling { .. } | State::Reversing(_) | State::Ended => false,
        }
    }

    /// Whether the answer to our claim at this JID is awaited (A6.8).
    #[must_use]
    pub fn awaits_clearance(&self, from: &Jid) -> bool {
        matches!(&self.state, State::Claimed { via, .. } if from == via)
    }

    /// Whether an answer from this JID with this id is for us.
    #[must_use]
    pub fn expects(&self, from: &Jid, id: &IqId) -> bool {
        match &self.state {
            State::Offered { .. } | State::Identified => *from == self.peer && *id == self.offer,
            State::Claimed { via, iq } => from == via && id == iq,
            State::Dialling { .. } | State::Reversing(_) | State::Ended => false,
        }
    }

    /// PF6: the target's claim with the id `iq` has found its socket. Legal while [`Initiator::is_listening`].
    #[must_use]
    pub fn on_claimed(&mut self, iq: IqId, now: Time) -> Vec<Act> {
        let State::Offered { named } = self.state else {
            debug_assert!(false, "nobody listens");
            return Vec::new();
        };
        let mut acts = vec![Act::Say(Stanza { peer: self.peer.clone(), id: iq, query: Query::CLEAR })];
        if named {
            acts.push(self.clear());
        } else {
            self.state = State::Identified;
            self.due = now + self.timeouts.named;
        }
        acts
    }

    /// Handles an [expected](Initiator::expects) result, with the connection that it names.
    #[must_use]
    pub fn on_result(&mut self, connection: Option<&Jid>, now: Time) -> Vec<Act> {
        match &mut self.state {
            State::Offered { named } if connection == Some(&self.me) && offers(&self.offered, &self.me) => {
                *named = true;
                Vec::new()
            }
            State::Offered { .. } => self.follow(connection, now),
            State::Identified if connection == Some(&self.me) => vec![self.clear()],
            State::Identified => self.fail(StreamFailure::UnknownConnection),
            State::Claimed { .. } => vec![self.clear()],
            State::Dialling { .. } | State::Reversing(_) | State::Ended => Vec::new(),
        }
    }

    /// Handles an [expected](Initiator::expects) error.
    #[must_use]
    pub fn on_error(&mut self, condition: Condition, now: Time) -> Vec<Act> {
        match self.state {
            State::Offered { .. } if self.reversible && may_precede_an_offer(condition) => {
                self.state = State::Reversing(condition);
                self.due = now + self.timeouts.reversal;
                Vec::new()
            }
            State::Offered { .. } | State::Identified => self.fail(StreamFailure::Refused(condition)),
            State::Claimed { .. } => self.fail(StreamFailure::Disowned(condition)),
            State::Dialling { .. } | State::Reversing(_) | State::Ended => Vec::new(),
        }
    }

    /// A6.4: the proxy was connected to from this local port. `iq` is the id for the claim.
    #[must_use]
    pub fn on_connected(&mut self, local_port: u16, iq: IqId, now: Time) -> Vec<Act> {
        let State::Dialling { via, to, until, .. } = &self.state else { return Vec::new() };
        let (via, endpoint, until) = (via.clone(), SocketAddr::new(to.ip(), local_port), *until);
        let query = Query::Claim { sid: Some(self.sid.clone()), endpoint: Some(endpoint) };
        self.state = State::Claimed { via: via.clone(), iq: iq.clone() };
        self.due = until.max(now);
        vec![Act::Say(Stanza { peer: via, id: iq, query })]
    }

    /// An address could not be reached: tries the next one.
    #[must_use]
    pub fn on_dial_failed(&mut self, now: Time) -> Vec<Act> {
        let State::Dialling { to, rest, until, .. } = &mut self.state else { return Vec::new() };
        match rest.pop_front() {
            Some(next) => {
                *to = next;
                self.due = (now + self.timeouts.dial).min(*until);
                vec![Act::Dial(next)]
            }
            None => self.fail(StreamFailure::Unreachable),
        }
    }

    /// The socket was reset before the stream was clear. A clean end is handled by the table of the
    /// [module](crate::bytestream), since the peer may be clear before us and have nothing to send.
    #[must_use]
    pub fn on_reset(&mut self) -> Vec<Act> {
        match self.state {
            State::Identified | State::Claimed { .. } | State::Dialling { .. } => {
                self.fail(StreamFailure::Reset)
            }
            State::Offered { .. } | State::Reversing(_) | State::Ended => Vec::new(),
        }
    }

    /// Handles a deadline that has passed.
    #[must_use]
    pub fn on_timeout(&mut self, now: Time) -> Vec<Act> {
        if self.deadline().is_none_or(|due| due > now) {
            return Vec::new();
        }
        match self.state {
            State::Identified => vec![self.clear()],
            State::Dialling { until, .. } if until > now => self.on_dial_failed(now),
            State::Dialling { .. } => self.fail(StreamFailure::Unreachable),
            State::Reversing(condition) => self.fail(StreamFailure::Refused(condition)),
            State::Offered { .. } | State::Claimed { .. } => self.fail(StreamFailure::TimedOut),
            State::Ended => Vec::new(),
        }
    }

    /// When [`Initiator::on_timeout`] must be called.
    #[must_use]
    pub const fn deadline(&self) -> Option<Time> {
        match self.state {
            State::Ended => None,
            _ => Some(self.due),
        }
    }

    /// A6.3: the target is at a proxy, without knowing it. All addresses of the proxy are tried in order.
    fn follow(&mut self, connection: Option<&Jid>, now: Time) -> Vec<Act> {
        let of_proxy = self.offered.iter().filter(|it| Some(&it.jid) == connection && it.jid != self.me);
        let mut rest: VecDeque<SocketAddr> = of_proxy.map(|it| it.to).collect();
        let (Some(via), Some(to)) = (connection, rest.pop_front()) else {
            return self.fail(StreamFailure::UnknownConnection);
        };
        let until = now + self.timeouts.answer;
        self.state = State::Dialling { via: via.clone(), to, rest, until };
        self.due = (now + self.timeouts.dial).min(until);
        vec![Act::Dial(to)]
    }

    fn clear(&mut self) -> Act {
        self.state = State::Ended;
        Act::Clear
    }

    fn fail(&mut self, why: StreamFailure) -> Vec<Act> {
        self.state = State::Ended;
        vec![Act::Fail(why)]
    }
}

fn offers(offered: &[Connection], jid: &Jid) -> bool {
    offered.iter().any(|connection| connection.jid == *jid)
}

/// Whether a peer that makes an offer itself next (A1.3, A2.2) may have refused ours so. The condition is one that
/// [`xmpp::read`](super::xmpp::read) gives.
const fn may_precede_an_offer(condition: Condition) -> bool {
    matches!(
        condition,
        Condition::ItemNotFound
            | Condition::NotAcceptable
            | Condition::Conflict
            | Condition::ResourceConstraint
            | Condition::Undefined
    )
}
