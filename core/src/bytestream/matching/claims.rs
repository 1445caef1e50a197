//! Claims that came before their sockets, indexed by endpoint and by claimer.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use core::cmp::Reverse;
use core::net::{IpAddr, SocketAddr};

use super::Claim;
use crate::bytestream::name::Jid;
use crate::time::Time;

/// The claims by the number of their arrival: the oldest has the lowest.
#[derive(Debug)]
pub(super) struct Claims {
    all: BTreeMap<u64, Early>,
    /// By the endpoint: its port, and its address in canonical form.
    endpoints: BTreeSet<(u16, IpAddr, u64)>,
    /// By the endpoint's port.
    ports: BTreeSet<(u16, u64)>,
    /// By bare JID, since resources are free to choose.
    shares: BTreeMap<Box<str>, BTreeSet<u64>>,
    /// The size of each share and its oldest claim. The last is the largest share; of equal ones, that with the
    /// oldest claim.
    sizes: BTreeSet<(usize, Reverse<u64>)>,
}

#[derive(Debug)]
struct Early {
    claim: Claim,
    due: Time,
}

impl Claims {
    pub(super) const fn new() -> Self {
        Self {
            all: BTreeMap::new(),
            endpoints: BTreeSet::new(),
            ports: BTreeSet::new(),
            shares: BTreeMap::new(),
            sizes: BTreeSet::new(),
        }
    }

    /// Adds a claim. `due` is never before that of an older one.
    pub(super) fn insert(&mut self, arrival: u64, claim: Claim, due: Time) {
        let (ip, port) = (claim.endpoint.ip().to_canonical(), claim.endpoint.port());
        self.endpoints.insert((port, ip, arrival));
        self.ports.insert((port, arrival));
        self.change_share(&claim.from, |share| share.insert(arrival));
        self.all.insert(arrival, Early { claim, due });
    }

    pub(super) fn remove(&mut self, arrival: u64) -> Option<Claim> {
        let Early { claim, .. } = self.all.remove(&arrival)?;
        let (ip, port) = (claim.endpoint.ip().to_canonical(), claim.endpoint.port());
        self.endpoints.remove(&(port, ip, arrival));
        self.ports.remove(&(port, arrival));
        self.change_share(&claim.from, |share| share.remove(&arrival));
        Some(claim)
    }

    /// The oldest claim of the JID with the most claims, so that many claims of one JID do not displace the few of
    /// another.
    pub(super) fn remove_of_largest_share(&mut self) -> Option<Claim> {
        let &(_, Reverse(oldest)) = self.sizes.last()?;
        self.remove(oldest)
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// The number of claims of this bare JID.
    pub(super) fn of(&self, jid: &Jid) -> usize {
        self.shares.get(jid.bare()).map_or(0, BTreeSet::len)
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.all.first_key_value().map(|(_, early)| early.due)
    }

    pub(super) fn find(&self, is_it: impl Fn(&Claim) -> bool) -> Option<u64> {
        self.all.iter().find(|(_, early)| is_it(&early.claim)).map(|(&arrival, _)| arrival)
    }

    /// The oldest claim of an endpoint. `ip` is canonical.
    pub(super) fn oldest_of(&self, ip: IpAddr, port: u16) -> Option<(u64, SocketAddr)> {
        let oldest = self.endpoints.range((port, ip, 0)..=(port, ip, u64::MAX)).next();
        oldest.map(|&(.., arrival)| (arrival, SocketAddr::new(ip, port)))
    }

    /// The oldest claim of a port, and its endpoint.
    pub(super) fn oldest_of_port(&self, port: u16) -> Option<(u64, SocketAddr)> {
        let &(_, arrival) = self.ports.range((port, 0)..=(port, u64::MAX)).next()?;
        self.all.get(&arrival).map(|early| (arrival, early.claim.endpoint))
    }

    fn change_share(&mut self, jid: &Jid, change: impl FnOnce(&mut BTreeSet<u64>) -> bool) {
        let share = self.shares.remove_entry(jid.bare());
        let (name, mut share) = share.unwrap_or_else(|| (jid.bare().into(), BTreeSet::new()));
        if let Some(&oldest) = share.first() {
            self.sizes.remove(&(share.len(), Reverse(oldest)));
        }
        let is_changed = change(&mut share);
        debug_assert!(is_changed, "a claim comes once and goes once");
        if let Some(&oldest) = share.first() {
            self.sizes.insert((share.len(), Reverse(oldest)));
            self.shares.insert(name, share);
        }
    }

    pub(super) fn check_invariants(&self) {
        debug_assert_eq!(self.all.len(), self.endpoints.len(), "a claim without an endpoint");
        debug_assert_eq!(self.all.len(), self.ports.len(), "a claim without a port");
        debug_assert_eq!(self.shares.len(), self.sizes.len(), "a share without a size");
    }
}
