//! Matches claims to accepted sockets.
//!
//! An `<endpoint/>` (PF4, A6.2) is the address that was dialled, with the dialler's own port; only the port is unique
//! (docs/stream-proxy.md §5.5). A port-rewriting NAT between the two changes that number, so that no socket matches.
//!
//! A claim and its socket come over different paths, in either order. A socket waits unclaimed until its machine's
//! timeout, a claim for [`Limits::grace`].

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use self::claims::Claims;
use self::sockets::{Socket, Sockets};
use super::name::{IqId, Jid, StreamId};
use crate::machine::{ConnId, Listener};
use crate::time::{Span, Time};

mod claims;
mod sockets;

/// Limits of unmatched sockets and claims. All are inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Unclaimed sockets; beyond it, the oldest is closed. Default 10,000.
    pub unclaimed_max: u32,
    /// The same for one address (for IPv6, one /64); its oldest is closed. Default 1,000.
    pub unclaimed_per_address_max: u32,
    /// Claims without a socket; beyond it, the oldest claim of the bare JID with the most is refused. Default 1,000.
    pub early_claims_max: u32,
    /// How long a claim waits for its socket. Default 2 s.
    pub grace: Span,
}

/// The endpoints that match a socket, in addition to its remote address (docs/stream-proxy.md §5.5, a), which always
/// does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// The local address of each listener, in the order of their numbers. With the socket's remote port it matches,
    /// as in the mail's samples (5b). An unspecified address (`0.0.0.0`) is ignored: the addresses that it stands for
    /// must be announced.
    pub listeners: Vec<SocketAddr>,
    /// Further addresses under which we are dialled; equivalent to the listener's (5b).
    pub announced: Vec<IpAddr>,
    /// Whether the remote port is enough, with any address: for claimers behind a port-preserving NAT, which do not
    /// know their external address (5c). Default: off.
    pub any_address: bool,
    /// Whether our own listening address matches while there is a single unclaimed socket (5d, the mail's prose).
    /// Default: off.
    pub only_socket: bool,
}

/// A claim of a socket, which is answered once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The claimer.
    pub from: Jid,
    /// The id of its IQ.
    pub iq: IqId,
    /// The stream that it is for.
    pub sid: StreamId,
    /// The claimed endpoint.
    pub endpoint: SocketAddr,
}

/// Unclaimed sockets, and claims without a socket.
///
/// A further socket or claim costs O(log n), whatever strangers open and claim.
#[derive(Debug)]
pub struct Matching {
    limits: Limits,
    rules: Rules,
    sockets: Sockets,
    claims: Claims,
    changed: BTreeSet<Change>,
    arrivals: u64,
}

/// The claims that may have a socket now, in the order in which they are checked: a claim with the socket's own
/// remote address comes first (docs/stream-proxy.md §5.5), however long another one waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    /// With this remote address (5a).
    From(IpAddr, u16),
    /// With an address that was dialled and this remote port (5b), or with our own (5d).
    Dialled(IpAddr, u16),
    /// With this remote port (5c).
    Port(u16),
}

/// The number of sockets that match by a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fit {
    Nothing,
    One(ConnId),
    Several,
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

impl Rules {
    /// The addresses that a peer accepted by this listener may have dialled.
    fn dialled(&self, listener: Listener) -> impl Iterator<Item = IpAddr> {
        let local = self.listeners.get(usize::from(listener.0)).map(SocketAddr::ip);
        let local = local.filter(|local| !local.to_canonical().is_unspecified());
        local.into_iter().chain(self.announced.iter().copied()).map(|ip| ip.to_canonical())
    }

    /// Every listener with its port.
    fn ports(&self) -> impl Iterator<Item = (Listener, u16)> {
        (0..).map(Listener).zip(self.listeners.iter().map(SocketAddr::port))
    }

    fn are_announced(&self, ip: IpAddr) -> bool {
        self.announced.iter().any(|announced| announced.to_canonical() == ip)
    }
}

impl Fit {
    fn of(mut sockets: impl Iterator<Item = ConnId>) -> Self {
        match (sockets.next(), sockets.next()) {
            (None, _) => Self::Nothing,
            (Some(on), None) => Self::One(on),
            (Some(_), Some(_)) => Self::Several,
        }
    }

    /// The next rule, if no socket matches by this one.
    fn or_else(self, next: impl FnOnce() -> Self) -> Self {
        if self == Self::Nothing { next() } else { self }
    }
}

impl Matching {
    /// Without sockets and claims.
    #[must_use]
    pub const fn new(limits: Limits, rules: Rules) -> Self {
        Self {
            limits,
            rules,
            sockets: Sockets::new(),
            claims: Claims::new(),
            changed: BTreeSet::new(),
            arrivals: 0,
        }
    }

    /// Adds an accepted socket. Returns the one that is displaced and removed.
    pub fn open(&mut self, on: ConnId, listener: Listener, from: SocketAddr) -> Option<ConnId> {
        let goes = if self.sockets.of_source(from.ip()) >= at_least_one(self.limits.unclaimed_per_address_max)
        {
            self.sockets.oldest_of_source(from.ip())
        } else if self.sockets.len() >= at_least_one(self.limits.unclaimed_max) {
            self.sockets.oldest()
        } else {
            None
        };
        if let Some(goes) = goes {
            self.remove(goes);
        }
        let socket = Socket { on, listener, from };
        self.change(&socket);
        let arrival = self.arrive();
        self.sockets.insert(arrival, socket);
        goes
    }

    /// Removes a socket that was claimed or closed. Returns whether it was there.
    pub fn remove(&mut self, on: ConnId) -> bool {
        let Some(socket) = self.sockets.remove(on) else { return false };
        // One socket fewer matches, which may leave exactly one for a claim.
        self.change(&socket);
        true
    }

    /// Adds a claim; [`Matching::next_match`] returns its socket. Returns the claim that is displaced and removed:
    /// the oldest of the bare JID with the most.
    pub fn claim(&mut self, claim: Claim, now: Time) -> Option<Claim> {
        let endpoint = claim.endpoint;
        self.changed.insert(Change::From(endpoint.ip().to_canonical(), endpoint.port()));
        let arrival = self.arrive();
        self.claims.insert(arrival, claim, now + self.limits.grace);
        let is_over = self.claims.len() > at_least_one(self.limits.early_claims_max);
        if is_over { self.claims.remove_of_largest_share() } else { None }
    }

    /// The next claim with a socket, and that socket. The claim is removed. The socket stays until
    /// [`Matching::remove`], since the claim may be refused for another reason.
    pub fn next_match(&mut self) -> Option<(ConnId, Claim)> {
        while let Some(&change) = self.changed.first() {
            // All claims of one endpoint have the same socket. By (c), so do all claims of one port.
            let oldest = match change {
                Change::From(ip, port) | Change::Dialled(ip, port) => self.claims.oldest_of(ip, port),
                Change::Port(port) => self.claims.oldest_of_port(port),
            };
            if let Some((arrival, endpoint)) = oldest
                && let Fit::One(on) = self.find(endpoint)
            {
                return self.claims.remove(arrival).map(|claim| (on, claim));
            }
            self.changed.pop_first();
        }
        None
    }

    /// Removes and returns the next claim whose grace has elapsed.
    pub fn expired(&mut self, now: Time) -> Option<Claim> {
        if self.deadline()? <= now { self.forget_claim(|_| true) } else { None }
    }

    /// When [`Matching::expired`] returns the next claim.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        self.claims.deadline()
    }

    /// Removes and returns the oldest claim for which this is true.
    pub fn forget_claim(&mut self, is_it: impl Fn(&Claim) -> bool) -> Option<Claim> {
        let arrival = self.claims.find(is_it)?;
        self.claims.remove(arrival)
    }

    /// The number of unclaimed sockets.
    #[must_use]
    pub fn unclaimed(&self) -> usize {
        self.sockets.len()
    }

    /// The number of claims without a socket.
    #[must_use]
    pub fn early_claims(&self) -> usize {
        self.claims.len()
    }

    /// The number of claims without a socket of this bare JID.
    #[must_use]
    pub fn early_claims_of(&self, jid: &Jid) -> usize {
        self.claims.of(jid)
    }

    /// The unclaimed sockets of an endpoint, by the first rule with a match. Several sockets count as none.
    fn find(&self, endpoint: SocketAddr) -> Fit {
        let (ip, port) = (endpoint.ip().to_canonical(), endpoint.port());
        Fit::of(self.sockets.from(ip, port)).or_else(|| self.dialled(ip, port)).or_else(|| {
            let any = if self.rules.any_address { Fit::of(self.sockets.of_port(port)) } else { Fit::Nothing };
            any.or_else(|| self.only_socket(ip, port))
        })
    }

    /// Rule 5b.
    fn dialled(&self, ip: IpAddr, port: u16) -> Fit {
        if self.rules.are_announced(ip) {
            return Fit::of(self.sockets.of_port(port));
        }
        let of_it = self.rules.ports().filter(|(on, _)| self.rules.dialled(*on).any(|dialled| dialled == ip));
        Fit::of(of_it.flat_map(|(on, _)| self.sockets.accepted(on, port)))
    }

    /// Rule 5d.
    fn only_socket(&self, ip: IpAddr, port: u16) -> Fit {
        let Some(socket) = self.sockets.only().filter(|_| self.rules.only_socket) else {
            return Fit::Nothing;
        };
        let mut listens = self.rules.ports().filter(|(on, own)| *on == socket.listener && *own == port);
        let fits = listens.any(|(on, _)| self.rules.dialled(on).any(|dialled| dialled == ip));
        if fits { Fit::One(socket.on) } else { Fit::Nothing }
    }

    /// A socket was added or removed: records the claims that may match now.
    fn change(&mut self, socket: &Socket) {
        let Socket { listener, from, .. } = *socket;
        let (rules, port) = (&self.rules, from.port());
        self.changed.insert(Change::From(from.ip().to_canonical(), port));
        self.changed.extend(rules.dialled(listener).map(|ip| Change::Dialled(ip, port)));
        if rules.any_address {
            self.changed.insert(Change::Port(port));
        }
        if rules.only_socket {
            let own = rules.ports().flat_map(|(on, port)| rules.dialled(on).map(move |ip| (ip, port)));
            self.changed.extend(own.map(|(ip, port)| Change::Dialled(ip, port)));
        }
    }

    fn arrive(&mut self) -> u64 {
        self.arrivals += 1;
        self.arrivals
    }

    /// Checks what must hold between two calls.
    pub(super) fn check_invariants(&self) {
        debug_assert!(self.sockets.len() <= at_least_one(self.limits.unclaimed_max), "too many sockets");
        debug_assert!(self.claims.len() <= at_least_one(self.limits.early_claims_max), "too many claims");
        self.sockets.check_invariants();
        self.claims.check_invariants();
        debug_assert!(self.changed.is_empty(), "a match that nobody looked for");
    }
}

/// A limit of zero would leave no room for the newest entry.
const fn at_least_one(limit: u32) -> usize {
    if limit == 0 { 1 } else { limit as usize }
}
