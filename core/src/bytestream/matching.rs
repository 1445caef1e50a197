//! Endpoint ↔ socket: which accepted socket is the one that somebody says is its own.
//!
//! Seed 003, PF4 and A6.2. What an `<endpoint/>` means is XMPP.md §6's reading 5: the address that was dialled, with
//! the dialler's own port, which alone is unique. A port-rewriting NAT between the two makes that number wrong, and no
//! socket fits.
//!
//! A claim and its socket come over different ways: either may be first. A socket waits unclaimed for as long as its
//! machine says, a claim for [`Limits::grace`].

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use super::name::{IqId, Jid, StreamId};
use crate::limiter::Source;
use crate::machine::{ConnId, Listener};
use crate::time::{Span, Time};

/// How much may wait. All are inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Sockets that nobody claimed; the oldest goes when one more comes. Default 10,000.
    pub unclaimed_max: u32,
    /// The same for one address (IPv6: one /64); that address' oldest goes. Default 1,000.
    pub unclaimed_per_address_max: u32,
    /// Claims without a socket; the oldest goes when one more comes. Default 1,000.
    pub early_claims_max: u32,
    /// How long a claim waits for its socket. Default 2 s.
    pub grace: Span,
}

/// Which endpoints mean a socket, beside its remote address (reading 5a), which always does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// The local address of each listener, in the order of their numbers. With the socket's remote port that is what
    /// the mail's samples have (5b). An unspecified address (`0.0.0.0`) means none: what it stands for has to be
    /// announced.
    pub listeners: Vec<SocketAddr>,
    /// Further addresses under which we are dialled; as good as the listener's (5b).
    pub announced: Vec<IpAddr>,
    /// The remote port alone, whatever the address: for claimers behind a NAT that keeps ports, who can't know their
    /// outer address (5c). Off by default.
    pub any_address: bool,
    /// Our own listening address, while there is one unclaimed socket and no other (5d, the mail's prose). Off by
    /// default.
    pub only_socket: bool,
}

/// 'This socket is mine': what was said, to be answered once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Who says so.
    pub from: Jid,
    /// The id of its IQ.
    pub iq: IqId,
    /// The stream that it is for.
    pub sid: StreamId,
    /// Which socket.
    pub endpoint: SocketAddr,
}

/// Sockets that nobody claimed, and claims that have no socket.
#[derive(Debug)]
pub struct Matching {
    limits: Limits,
    rules: Rules,
    /// By remote port; the number counts arrivals.
    unclaimed: BTreeMap<Place, Socket>,
    places: BTreeMap<ConnId, Place>,
    socket_ages: BTreeMap<u64, u16>,
    sources: BTreeSet<(Source, u64)>,
    /// By the endpoint's port.
    early: BTreeMap<Place, Early>,
    claim_ages: BTreeMap<u64, u16>,
    /// Ports of claims that may have a socket now.
    changed: BTreeSet<u16>,
    arrivals: u64,
}

/// A port, and the number of an arrival.
type Place = (u16, u64);

#[derive(Debug)]
struct Socket {
    on: ConnId,
    listener: Listener,
    from: SocketAddr,
}

#[derive(Debug)]
struct Early {
    claim: Claim,
    due: Time,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            unclaimed_max: 10_000,
            unclaimed_per_address_max: 1_000,
            early_claims_max: 1_000,
            grace: Span::from_secs(2),
        }
    }
}

impl Matching {
    /// Nothing waits.
    #[must_use]
    pub const fn new(limits: Limits, rules: Rules) -> Self {
        Self {
            limits,
            rules,
            unclaimed: BTreeMap::new(),
            places: BTreeMap::new(),
            socket_ages: BTreeMap::new(),
            sources: BTreeSet::new(),
            early: BTreeMap::new(),
            claim_ages: BTreeMap::new(),
            changed: BTreeSet::new(),
            arrivals: 0,
        }
    }

    /// A socket was accepted. Returns the one that makes room for it, which is forgotten.
    pub fn open(&mut self, on: ConnId, listener: Listener, from: SocketAddr) -> Option<ConnId> {
        let source = Source::from(from.ip());
        let of_source = (source, 0)..=(source, u64::MAX);
        let max = self.limits.unclaimed_per_address_max.max(1) as usize;
        let goes = if self.sources.range(of_source.clone()).nth(max - 1).is_some() {
            self.sources.range(of_source).next().map(|&(_, arrival)| arrival)
        } else if self.unclaimed.len() >= self.limits.unclaimed_max.max(1) as usize {
            self.socket_ages.keys().next().copied()
        } else {
            None
        };
        let goes = goes.and_then(|arrival| {
            let port = *self.socket_ages.get(&arrival)?;
            Some(self.unclaimed.get(&(port, arrival))?.on)
        });
        if let Some(goes) = goes {
            self.remove(goes);
        }
        let place = (from.port(), self.arrive());
        self.unclaimed.insert(place, Socket { on, listener, from });
        self.places.insert(on, place);
        self.socket_ages.insert(place.1, place.0);
        self.sources.insert((source, place.1));
        self.change(from.port());
        goes
    }

    /// A socket was claimed, or is gone. Whether it was there.
    pub fn remove(&mut self, on: ConnId) -> bool {
        let Some(place) = self.places.remove(&on) else { return false };
        self.socket_ages.remove(&place.1);
        if let Some(socket) = self.unclaimed.remove(&place) {
            self.sources.remove(&(Source::from(socket.from.ip()), place.1));
        }
        // One fewer fits: for some claim that may leave exactly one.
        self.change(place.0);
        true
    }

    /// Somebody says that a socket is its own; [`Matching::next_match`] says which it is. Returns the claim that makes
    /// room for it, which is forgotten.
    pub fn claim(&mut self, claim: Claim, now: Time) -> Option<Claim> {
        let full = self.early.len() >= self.limits.early_claims_max.max(1) as usize;
        let goes = if full { self.forget_oldest_claim() } else { None };
        let place = (claim.endpoint.port(), self.arrive());
        self.early.insert(place, Early { claim, due: now + self.limits.grace });
        self.claim_ages.insert(place.1, place.0);
        self.changed.insert(place.0);
        goes
    }

    /// The next claim whose socket is there, and that socket. The claim is forgotten; the socket stays until
    /// [`Matching::remove`], since the claim may be refused for another reason.
    pub fn next_match(&mut self) -> Option<(ConnId, Claim)> {
        while let Some(&port) = self.changed.first() {
            let mut waiting = self.early.range((port, 0)..=(port, u64::MAX));
            let hit = waiting.find_map(|(&place, early)| Some((place, self.find(early.claim.endpoint)?)));
            if let Some((place, on)) = hit {
                self.claim_ages.remove(&place.1);
                return self.early.remove(&place).map(|early| (on, early.claim));
            }
            self.changed.pop_first();
        }
        None
    }

    /// The next claim whose grace is over; it is forgotten.
    pub fn expired(&mut self, now: Time) -> Option<Claim> {
        if self.deadline()? <= now { self.forget_oldest_claim() } else { None }
    }

    /// When [`Matching::expired`] has something next.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let (&arrival, &port) = self.claim_ages.first_key_value()?;
        self.early.get(&(port, arrival)).map(|early| early.due)
    }

    /// Forgets the first claim for which this holds.
    pub fn forget_claim(&mut self, is_it: impl Fn(&Claim) -> bool) -> Option<Claim> {
        let (&place, _) = self.early.iter().find(|(_, early)| is_it(&early.claim))?;
        self.claim_ages.remove(&place.1);
        self.early.remove(&place).map(|early| early.claim)
    }

    /// How many sockets nobody claimed.
    #[must_use]
    pub fn unclaimed(&self) -> usize {
        self.unclaimed.len()
    }

    /// How many claims wait for their socket.
    #[must_use]
    pub fn early_claims(&self) -> usize {
        self.early.len()
    }

    /// The one unclaimed socket that an endpoint means, by the first rule under which any fits. Two are none.
    fn find(&self, endpoint: SocketAddr) -> Option<ConnId> {
        let ip = endpoint.ip().to_canonical();
        let port = endpoint.port();
        let of_port = || self.unclaimed.range((port, 0)..=(port, u64::MAX)).map(|(_, socket)| socket);
        let mut exact = of_port().filter(|socket| socket.from.ip().to_canonical() == ip);
        if let Some(first) = exact.next() {
            return exact.next().is_none().then_some(first.on);
        }
        let mut dialled = of_port().filter(|socket| self.is_ours(socket.listener, ip));
        if let Some(first) = dialled.next() {
            return dialled.next().is_none().then_some(first.on);
        }
        let mut any = of_port().filter(|_| self.rules.any_address);
        if let Some(first) = any.next() {
            return any.next().is_none().then_some(first.on);
        }
        let mut all = self.unclaimed.values();
        let first = all.next().filter(|socket| self.rules.only_socket && self.listens(socket, endpoint))?;
        all.next().is_none().then_some(first.on)
    }

    /// Whether somebody who was accepted there may have dialled this address.
    fn is_ours(&self, listener: Listener, ip: IpAddr) -> bool {
        let local = self.rules.listeners.get(usize::from(listener.0));
        let local = local.map(|local| local.ip().to_canonical()).filter(|local| !local.is_unspecified());
        local == Some(ip) || self.rules.announced.iter().any(|announced| announced.to_canonical() == ip)
    }

    /// Whether a socket was accepted on this address and port.
    fn listens(&self, socket: &Socket, endpoint: SocketAddr) -> bool {
        let local = self.rules.listeners.get(usize::from(socket.listener.0));
        local.is_some_and(|local| local.port() == endpoint.port())
            && self.is_ours(socket.listener, endpoint.ip().to_canonical())
    }

    fn change(&mut self, port: u16) {
        self.changed.insert(port);
        if self.rules.only_socket {
            self.changed.extend(self.rules.listeners.iter().map(SocketAddr::port));
        }
    }

    fn arrive(&mut self) -> u64 {
        self.arrivals += 1;
        self.arrivals
    }

    fn forget_oldest_claim(&mut self) -> Option<Claim> {
        let (arrival, port) = self.claim_ages.pop_first()?;
        self.early.remove(&(port, arrival)).map(|early| early.claim)
    }

    /// What must hold between two calls.
    pub(super) fn check_invariants(&self) {
        debug_assert!(self.unclaimed.len() <= self.limits.unclaimed_max.max(1) as usize, "too many sockets");
        debug_assert!(self.early.len() <= self.limits.early_claims_max.max(1) as usize, "too many claims");
        debug_assert_eq!(self.unclaimed.len(), self.places.len(), "a socket without a place");
        debug_assert_eq!(self.unclaimed.len(), self.socket_ages.len(), "a socket without an age");
        debug_assert_eq!(self.unclaimed.len(), self.sources.len(), "a socket without a source");
        debug_assert_eq!(self.early.len(), self.claim_ages.len(), "a claim without an age");
        debug_assert!(self.changed.is_empty(), "a match that nobody looked for");
    }
}
