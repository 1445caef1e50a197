//! What an operator has set, and whether a relay complies: who may have a pair, how many pairs an ID has, that kicked
//! connections end, and that held clients get the places that are free.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use rendezvous_core::engine::{ConnectionInfo, ConnectionState, Kick};
use rendezvous_core::event::Event;
use rendezvous_core::id::Id;
use rendezvous_core::machine::ConnId;
use rendezvous_core::pair::EndReason;
use rendezvous_core::prefix::Prefix;
use rendezvous_core::registry::{Access, ClientLimits, Enrolment};
use rendezvous_core::time::{Span, Time};

use crate::sim_net::{Ep, World};

/// A held client must be handed over within this time if a connection waits and a pair is free. It exceeds the delay of
/// plain tokens.
const HELD_MAX: Span = Span::from_millis(500);
/// The peer of a reset connection must see that within this time and the latency of its link.
const NOTICED_MAX: Span = Span::from_secs(1);
/// The peer of a waiting connection, which is closed after unsent bytes.
const LINGERING_MAX: Span = Span::from_secs(40);

const DISABLED: &str = "the relay's operator has disabled this hidden server";
const DENIED: &str = "the relay admits no clients from this address to this hidden server";
const QUOTA: &str = "the hidden server's transfer quota of this month is used up";
/// Answers to clients that were admitted.
const OF_ADMITTED: [&str; 4] = [
    "no hidden server waits under this ID",
    "the hidden server is offline",
    "all connections of the hidden server are taken",
    "too many pairs",
];

/// The settings of an ID.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Whether it is served.
    pub access: Access,
    /// The limit of its pairs.
    pub pairs_max: Option<u32>,
    /// The addresses of clients that are refused.
    pub deny: Vec<Prefix>,
    /// The limit of bytes per second, each way.
    pub rate: Option<u64>,
}

/// All settings.
#[derive(Clone, Debug)]
pub struct Steering {
    of: BTreeMap<Id, Settings>,
    /// The addresses whose connections are dropped.
    pub denied: Vec<Prefix>,
    /// The relay's limit of pairs for each ID.
    pub pairs_max: u32,
}

impl Default for Steering {
    fn default() -> Self {
        Self { of: BTreeMap::new(), denied: Vec::new(), pairs_max: u32::MAX }
    }
}

impl Steering {
    /// The settings of an ID, for a change.
    pub fn set(&mut self, id: Id) -> &mut Settings {
        self.of.entry(id).or_default()
    }

    /// Removes all settings.
    pub fn lift(&mut self) {
        *self = Self { pairs_max: self.pairs_max, ..Self::default() };
    }

    /// The rates of all limited IDs.
    #[must_use]
    pub fn rates(&self) -> Vec<(Id, u64)> {
        self.of.iter().filter_map(|(id, of)| Some((*id, of.rate?))).collect()
    }

    /// Adds the settings to an enrolment.
    #[must_use]
    pub fn apply(&self, enrolment: Enrolment) -> Enrolment {
        let Some(of) = self.of.get(&enrolment.id) else { return enrolment };
        let clients = ClientLimits { pairs_max: of.pairs_max, allow: Vec::new(), deny: of.deny.clone() };
        Enrolment { access: of.access, clients, ..enrolment }
    }

    fn is_used(&self) -> bool {
        !self.of.is_empty() || !self.denied.is_empty()
    }

    fn pairs_max(&self, id: Id) -> u32 {
        self.of.get(&id).and_then(|of| of.pairs_max).unwrap_or(u32::MAX).min(self.pairs_max)
    }

    fn admits(&self, id: Id, from: Option<SocketAddr>) -> bool {
        let Some(of) = self.of.get(&id) else { return true };
        of.access == Access::Open
            && from.is_none_or(|from| !of.deny.iter().any(|prefix| prefix.contains(from.ip())))
    }

    /// Whether a connection must have ended.
    #[must_use]
    pub fn forbids(&self, info: &ConnectionInfo) -> bool {
        let is_denied = |from: SocketAddr| self.denied.iter().any(|prefix| prefix.contains(from.ip()));
        if info.from.is_some_and(is_denied) {
            return true;
        }
        let Some(id) = info.id else { return false };
        match info.state {
            ConnectionState::Waiting => self.of.get(&id).is_some_and(|of| of.access == Access::Disabled),
            ConnectionState::Held | ConnectionState::Client => !self.admits(id, info.from),
            _ => false,
        }
    }
}

/// The connections that must end, and the other halves of their pairs.
#[must_use]
pub fn with_peers(infos: &[ConnectionInfo], ends: impl Fn(&ConnectionInfo) -> bool) -> BTreeSet<ConnId> {
    let open = infos.iter().filter(|info| info.state != ConnectionState::Closing);
    open.filter(|info| ends(info)).flat_map(|info| [Some(info.conn), info.peer]).flatten().collect()
}

/// Whether a connection is meant.
#[must_use]
pub fn is_meant(kick: &Kick, info: &ConnectionInfo) -> bool {
    match kick {
        Kick::Conn(on) => info.conn == *on,
        Kick::Id(id) => info.id == Some(*id),
        Kick::From(prefix) => info.from.is_some_and(|from| prefix.contains(from.ip())),
    }
}

/// What is known of one relay, by its events.
#[derive(Debug, Default)]
pub struct Compliance {
    /// Another process takes over: no hidden server is accepted.
    pub is_frozen: bool,
    /// How many events have been judged.
    judged: usize,
    pairs: BTreeMap<Id, u32>,
    /// Hand-overs that continue an existing pair.
    retried: BTreeMap<Id, u32>,
    /// The pairs that the operator ended.
    stopped: u64,
    /// Ends whose peer was closed by the operator, and when they must know.
    notified: Vec<(Ep, Time)>,
    /// Since when an ID has had a held client, a waiting connection and a free pair.
    servable: BTreeMap<Id, Time>,
}

impl Compliance {
    /// The number of pairs that the operator has ended.
    #[must_use]
    pub const fn stopped(&self) -> u64 {
        self.stopped
    }

    /// Judges the events since the last call.
    ///
    /// # Panics
    /// An event contradicts the settings.
    pub fn judge_events(&mut self, events: &[Event], steering: &Steering) {
        for event in &events[self.judged..] {
            match event {
                Event::Paired { client, from, id, .. } => {
                    let pairs = self.pairs.entry(*id).or_default();
                    let retried = self.retried.entry(*id).or_default();
                    if *retried > 0 {
                        *retried -= 1;
                    } else {
                        assert!(*pairs < steering.pairs_max(*id), "more pairs than the operator permits");
                    }
                    *pairs += 1;
                    assert!(steering.admits(*id, *from), "{client:?} got a pair that the operator forbids");
                }
                Event::Waiting { .. } => assert!(!self.is_frozen, "a token was accepted during a take-over"),
                Event::HandOverFailed { id, retried, .. } => {
                    *self.pairs.entry(*id).or_default() -= 1;
                    *self.retried.entry(*id).or_default() += u32::from(*retried);
                }
                Event::PairEnded { id, why, .. } => {
                    *self.pairs.entry(*id).or_default() -= 1;
                    self.stopped += u64::from(*why == EndReason::Operator);
                }
                Event::Refused { id: Some(id), from, why, .. } => {
                    let of = steering.of.get(id).cloned().unwrap_or_default();
                    match *why {
                        DISABLED => assert_eq!(of.access, Access::Disabled, "refused as disabled"),
                        QUOTA => assert_eq!(of.access, Access::QuotaUsed, "refused because of its quota"),
                        DENIED => assert!(!steering.admits(*id, *from), "refused as denied"),
                        why if OF_ADMITTED.contains(&why) => {
                            assert!(
                                steering.admits(*id, *from),
                                "the refusal does not give the reason: {why}"
                            );
                        }
                        _ => {}
                    }
                }
                _ => {}
            }
        }
        self.judged = events.len();
    }

    /// Checks after a turn that no connection exists that the settings forbid.
    ///
    /// # Panics
    /// One does.
    pub fn check_turn(infos: impl FnOnce() -> Vec<ConnectionInfo>, steering: &Steering) {
        if steering.is_used() {
            for info in infos().iter().filter(|info| info.state != ConnectionState::Closing) {
                assert!(!steering.forbids(info), "the operator forbids it: {info:?}");
            }
        }
    }

    /// The operator has closed this end's peer.
    pub fn notify(&mut self, ep: Ep, is_waiting: bool, world: &World) {
        let bound = if is_waiting { LINGERING_MAX } else { NOTICED_MAX };
        self.notified.push((ep, world.now() + world.round_trip(ep) + bound));
    }

    /// Checks, while all sleep, that the peers of ended connections know, and that no client is held for nothing.
    /// `is_sent`: whether everything that was sent to a connection is in its socket.
    ///
    /// # Panics
    /// One does not know, or one is held.
    pub fn check_rest(
        &mut self,
        infos: impl FnOnce() -> Vec<ConnectionInfo>,
        is_sent: impl Fn(ConnId) -> bool,
        steering: &Steering,
        world: &World,
    ) {
        self.notified.retain(|(ep, due)| {
            let knows = world.knows_end(*ep);
            assert!(
                knows || *due > world.now(),
                "{ep:?} was ended by the operator, and its peer does not know"
            );
            !knows
        });
        if !steering.is_used() {
            return self.servable.clear();
        }
        let (mut held, mut waiting) = (BTreeSet::new(), BTreeSet::new());
        for info in infos() {
            let Some(id) = info.id else { continue };
            match info.state {
                ConnectionState::Held => held.insert(id),
                ConnectionState::Waiting => is_sent(info.conn) && waiting.insert(id),
                _ => false,
            };
        }
        let is_free = |id: Id| self.pairs.get(&id).copied().unwrap_or(0) < steering.pairs_max(id);
        let servable: BTreeSet<Id> = held.intersection(&waiting).copied().filter(|id| is_free(*id)).collect();
        self.servable.retain(|id, _| servable.contains(id));
        for id in servable {
            let since = *self.servable.entry(id).or_insert(world.now());
            assert!(
                world.now().since(since) <= HELD_MAX,
                "a client is held although there is a place for it"
            );
        }
    }
}
