//! Unclaimed sockets, indexed by everything that an endpoint may match.

use alloc::collections::{BTreeMap, BTreeSet};
use core::net::{IpAddr, SocketAddr};

use crate::limiter::Source;
use crate::machine::{ConnId, Listener};

/// The sockets by the number of their arrival: the oldest has the lowest.
#[derive(Debug)]
pub(super) struct Sockets {
    all: BTreeMap<u64, Socket>,
    arrivals: BTreeMap<ConnId, u64>,
    /// By remote port and address (docs/stream-proxy.md §5.5, a).
    from: BTreeSet<(u16, IpAddr, u64)>,
    /// By remote port and listener (5b, and 5c for all listeners).
    accepted: BTreeSet<(u16, Listener, u64)>,
    sources: BTreeMap<Source, BTreeSet<u64>>,
}

/// An accepted socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Socket {
    pub(super) on: ConnId,
    pub(super) listener: Listener,
    /// Its remote address.
    pub(super) from: SocketAddr,
}

impl Socket {
    fn address(&self) -> (u16, IpAddr) {
        (self.from.port(), self.from.ip().to_canonical())
    }
}

impl Sockets {
    pub(super) const fn new() -> Self {
        Self {
            all: BTreeMap::new(),
            arrivals: BTreeMap::new(),
            from: BTreeSet::new(),
            accepted: BTreeSet::new(),
            sources: BTreeMap::new(),
        }
    }

    pub(super) fn insert(&mut self, arrival: u64, socket: Socket) {
        let (port, ip) = socket.address();
        self.arrivals.insert(socket.on, arrival);
        self.from.insert((port, ip, arrival));
        self.accepted.insert((port, socket.listener, arrival));
        self.sources.entry(Source::from(ip)).or_default().insert(arrival);
        self.all.insert(arrival, socket);
    }

    pub(super) fn remove(&mut self, on: ConnId) -> Option<Socket> {
        let arrival = self.arrivals.remove(&on)?;
        let socket = self.all.remove(&arrival)?;
        let (port, ip) = socket.address();
        self.from.remove(&(port, ip, arrival));
        self.accepted.remove(&(port, socket.listener, arrival));
        let source = Source::from(ip);
        if let Some(arrivals) = self.sources.get_mut(&source) {
            arrivals.remove(&arrival);
            if arrivals.is_empty() {
                self.sources.remove(&source);
            }
        }
        Some(socket)
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// The number of sockets from this address; an IPv6 /64 counts as one.
    pub(super) fn of_source(&self, ip: IpAddr) -> usize {
        self.sources.get(&Source::from(ip)).map_or(0, BTreeSet::len)
    }

    pub(super) fn oldest_of_source(&self, ip: IpAddr) -> Option<ConnId> {
        let oldest = self.sources.get(&Source::from(ip))?.first()?;
        self.all.get(oldest).map(|socket| socket.on)
    }

    pub(super) fn oldest(&self) -> Option<ConnId> {
        self.all.first_key_value().map(|(_, socket)| socket.on)
    }

    /// The socket, if it is the only one.
    pub(super) fn only(&self) -> Option<&Socket> {
        self.all.values().next().filter(|_| self.all.len() == 1)
    }

    /// The sockets with this remote address. `ip` is canonical.
    pub(super) fn from(&self, ip: IpAddr, port: u16) -> impl Iterator<Item = ConnId> {
        self.named(self.from.range((port, ip, 0)..=(port, ip, u64::MAX)).map(|(.., arrival)| *arrival))
    }

    /// The sockets of this listener with this remote port.
    pub(super) fn accepted(&self, listener: Listener, port: u16) -> impl Iterator<Item = ConnId> {
        let range = (port, listener, 0)..=(port, listener, u64::MAX);
        self.named(self.accepted.range(range).map(|(.., arrival)| *arrival))
    }

    /// The sockets with this remote port.
    pub(super) fn of_port(&self, port: u16) -> impl Iterator<Item = ConnId> {
        let range = (port, Listener(0), 0)..=(port, Listener(u16::MAX), u64::MAX);
        self.named(self.accepted.range(range).map(|(.., arrival)| *arrival))
    }

    fn named(&self, arrivals: impl Iterator<Item = u64>) -> impl Iterator<Item = ConnId> {
        arrivals.filter_map(|arrival| self.all.get(&arrival).map(|socket| socket.on))
    }

    pub(super) fn check_invariants(&self) {
        debug_assert_eq!(self.all.len(), self.arrivals.len(), "a socket without a name");
        debug_assert_eq!(self.all.len(), self.from.len(), "a socket without an address");
        debug_assert_eq!(self.all.len(), self.accepted.len(), "a socket without a listener");
    }
}
