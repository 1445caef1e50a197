//! What the operator changes while the relay runs: disabled IDs, denied addresses, used quotas, and connections that are
//! to end now.

use alloc::collections::BTreeSet;
use core::net::SocketAddr;

use super::{Engine, State};
use crate::conns::Ended;
use crate::event::WaitingEnd;
use crate::http::reply::Status;
use crate::http::reply::diagnostic::{DENIED, DISABLED, QUOTA};
use crate::id::Id;
use crate::machine::{Close, ConnId};
use crate::pair::{EndReason, PairEnd, Side};
use crate::prefix::Prefix;
use crate::registry::Access;
use crate::time::Now;

/// The connections that an operator ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kick {
    /// One connection, and the other half of its pair.
    Conn(ConnId),
    /// All connections of an ID: its waiting connections, its held clients and its pairs.
    Id(Id),
    /// All connections from these addresses, and the other halves of their pairs.
    From(Prefix),
}

/// Why a connection is dropped.
const KICKED: &str = "ended by the operator";
/// Why a connection from a denied address is dropped.
pub(super) const DENIED_ADDRESS: &str = "a denied address";

impl Engine {
    /// Ends connections at once. Returns how many: both halves of a pair count. Nothing prevents their peers from
    /// connecting again.
    pub fn handle_kick(&mut self, what: &Kick, now: Now) -> u32 {
        let before = self.conns.open_ids();
        for on in before.iter().copied() {
            let is_meant = match what {
                Kick::Conn(meant) => *meant == on,
                Kick::Id(id) => self.id_of(on) == Some(*id),
                Kick::From(prefix) => self.conns.from(on).is_some_and(|from| prefix.contains(from.ip())),
            };
            if is_meant {
                self.stop(on, WaitingEnd::Operator, KICKED, now);
            }
        }
        let ended = before.into_iter().filter(|on| self.conns.state(*on).is_none()).count();
        u32::try_from(ended).unwrap_or(u32::MAX)
    }

    /// Whether connections from this address are dropped when they are accepted.
    pub(super) fn is_denied(&self, from: SocketAddr) -> bool {
        !self.denied.is_empty() && self.denied.contains(from.ip())
    }

    /// The reason why a hidden server is refused whose token is right, if it is.
    pub(super) fn refuses_server(&self, id: Id) -> Option<(Status, &'static str)> {
        match self.registry.enrolment(id)?.access {
            Access::Disabled => Some((Status::Forbidden403, DISABLED)),
            Access::Open | Access::QuotaUsed => None,
        }
    }

    /// The reason why a client of an enrolled ID is refused, if it is.
    pub(super) fn refuses_client(&self, on: ConnId, id: Id) -> Option<(Status, &'static str)> {
        let enrolment = self.registry.enrolment(id)?;
        match enrolment.access {
            Access::Disabled => return Some((Status::Forbidden403, DISABLED)),
            Access::QuotaUsed => return Some((Status::Unavailable503, QUOTA)),
            Access::Open => {}
        }
        let is_admitted = self.conns.from(on).is_none_or(|from| enrolment.clients.admits(from.ip()));
        (!is_admitted).then_some((Status::Forbidden403, DENIED))
    }

    /// The limit of an ID's pairs.
    pub(super) fn pairs_max(&self, id: Id) -> u32 {
        let own = self.registry.enrolment(id).and_then(|enrolment| enrolment.clients.pairs_max);
        own.unwrap_or(u32::MAX).min(self.config.pairs_per_id_max)
    }

    /// Ends what the present list of IDs and the denied addresses no longer permit.
    pub(super) fn enforce(&mut self, now: Now) {
        for on in self.conns.open_ids() {
            let is_trusted_proxy = matches!(self.conns.state(on), Some(State::Proxied));
            if !is_trusted_proxy && self.conns.from(on).is_some_and(|from| self.is_denied(from)) {
                self.stop(on, WaitingEnd::Operator, DENIED_ADDRESS, now);
                continue;
            }
            match self.conns.state(on) {
                Some(State::Waiting { id, .. }) => {
                    let id = *id;
                    if self.refuses_server(id).is_some() {
                        self.end_waiting(on, WaitingEnd::Operator, now);
                    }
                }
                Some(State::Held { id, request }) => {
                    let (id, answer) = (*id, request.answer);
                    if let Some((status, why)) = self.refuses_client(on, id) {
                        self.unhold(id, on);
                        self.refuse_client(on, Some(id), status, why, answer, now);
                    }
                }
                Some(State::Client { id, .. }) => {
                    let id = *id;
                    if self.refuses_client(on, id).is_some() {
                        self.stop(on, WaitingEnd::Operator, KICKED, now);
                    }
                }
                _ => {}
            }
        }
    }

    /// Pairs held clients for which there is a place now: the limits of pairs may have been raised.
    pub(super) fn serve_all_held(&mut self, now: Now) {
        let held = |state: &State| match state {
            State::Held { id, .. } => Some(*id),
            _ => None,
        };
        let ids: BTreeSet<Id> = self.conns.states().flatten().filter_map(held).collect();
        for id in ids {
            self.serve_held(id, now);
        }
    }

    fn id_of(&mut self, on: ConnId) -> Option<Id> {
        match self.conns.state(on)? {
            State::Waiting { id, .. }
            | State::Held { id, .. }
            | State::Hidden { id }
            | State::Client { id, .. } => Some(*id),
            _ => None,
        }
    }

    /// Ends a connection at once. The halves of a pair are reset: what is queued for a slow reader would keep it for
    /// seconds.
    fn stop(&mut self, on: ConnId, waiting: WaitingEnd, why: &'static str, now: Now) {
        match self.conns.state(on) {
            Some(State::Waiting { .. }) => self.end_waiting(on, waiting, now),
            Some(State::Held { id, .. }) => {
                let id = *id;
                self.unhold(id, on);
                self.drop_conn(on, Close::Abort, why, now);
            }
            Some(State::Hidden { .. } | State::Client { .. }) => self.stop_pair(on, now),
            Some(_) => self.drop_conn(on, Close::Abort, why, now),
            None => {}
        }
    }

    fn stop_pair(&mut self, on: ConnId, now: Now) {
        let Some((peer, side)) = self.conns.peer(on) else { return };
        let Some(pair) = self.conns.pair_of(on).copied() else { return };
        let (hidden, client) = match side {
            Side::Hidden => (on, peer),
            Side::Client => (peer, on),
        };
        let over = PairEnd { hidden: Close::Abort, client: Close::Abort, why: EndReason::Operator };
        self.conns.close(hidden, Close::Abort, now);
        self.conns.close(client, Close::Abort, now);
        self.pair_over(Some(Ended { hidden, client, pair, over }), now);
    }
}
