//! The known addresses of one host.

use alloc::vec::Vec;
use core::net::SocketAddr;

use crate::time::{Span, Time};

/// The maximum number of addresses of a host; further ones are ignored.
pub const ADDRESSES_MAX: usize = 16;
/// The time for which an address that failed is tried after all others.
const FAILED_FOR: Span = Span::from_secs(10 * 60);

/// The addresses of one host, and the results of the last attempts.
///
/// It determines the order in which they are tried: the one that worked last, then the two families in turns (RFC
/// 8305 §4), and at last those that failed within the last ten minutes, the oldest failure first.
#[derive(Clone, Debug, Default)]
pub struct AddressBook {
    /// The addresses of the last look-up, and those that were tried before.
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    address: SocketAddr,
    /// Whether the last look-up returned it.
    is_current: bool,
    worked: Option<Worked>,
    failed_at: Option<Time>,
}

#[derive(Clone, Copy, Debug)]
struct Worked {
    at: Time,
    /// The duration of connecting.
    connect: Span,
    /// Whether the server has also answered a request there.
    has_answered: bool,
}

impl AddressBook {
    /// Sets the host's addresses, in the resolver's order. If the look-up is not complete, more may follow.
    pub fn resolved(&mut self, addresses: &[SocketAddr], is_complete: bool) {
        if is_complete {
            self.entries.iter_mut().for_each(|it| it.is_current = addresses.contains(&it.address));
        }
        for address in addresses.iter().take(ADDRESSES_MAX) {
            self.entry(*address).is_current = true;
        }
    }

    /// The order in which to try these addresses. Duplicates are removed.
    #[must_use]
    pub fn order(&self, addresses: &[SocketAddr], now: Time) -> Vec<SocketAddr> {
        let mut rest = Vec::new();
        for address in addresses.iter().take(ADDRESSES_MAX) {
            if !rest.contains(address) {
                rest.push(*address);
            }
        }
        let mut failed: Vec<_> =
            rest.iter().filter_map(|it| Some((self.failed_at(*it, now)?, *it))).collect();
        failed.sort_by_key(|(at, _)| *at);
        rest.retain(|it| failed.iter().all(|(_, failed)| failed != it));
        let mut order = Vec::new();
        if let Some(last) = self.last_that_worked(&rest) {
            rest.retain(|it| *it != last);
            order.push(last);
        }
        // The other family comes next, since failures often affect a whole family.
        let is_v6_next = match (order.first(), rest.first()) {
            (Some(last), _) => last.is_ipv4(),
            (None, first) => first.is_some_and(SocketAddr::is_ipv6),
        };
        let (v6, v4): (Vec<_>, Vec<_>) = rest.into_iter().partition(SocketAddr::is_ipv6);
        let (one, other) = if is_v6_next { (v6, v4) } else { (v4, v6) };
        let (mut one, mut other) = (one.into_iter(), other.into_iter());
        loop {
            match (one.next(), other.next()) {
                (None, None) => break,
                (a, b) => order.extend(a.into_iter().chain(b)),
            }
        }
        order.extend(failed.into_iter().map(|(_, address)| address));
        order
    }

    /// An address was connected to in this time, and secured if TLS is used.
    pub fn connected(&mut self, address: SocketAddr, connect: Span, now: Time) {
        let entry = self.entry(address);
        let has_answered = entry.worked.is_some_and(|worked| worked.has_answered);
        entry.worked = Some(Worked { at: now, connect, has_answered });
        entry.failed_at = None;
    }

    /// The server answered a request at this address.
    pub fn answered(&mut self, address: SocketAddr) {
        if let Some(worked) = &mut self.entry(address).worked {
            worked.has_answered = true;
        }
    }

    /// An address could not be connected to, or the server behind it is not the expected one: TLS failed, or the
    /// response was invalid or timed out.
    pub fn failed(&mut self, address: SocketAddr, now: Time) {
        let entry = self.entry(address);
        entry.worked = None;
        entry.failed_at = Some(now);
    }

    /// The duration of the last connect to this address; `None` if it is not known to work.
    #[must_use]
    pub fn connect_time(&self, address: SocketAddr) -> Option<Span> {
        self.get(address)?.worked.map(|worked| worked.connect)
    }

    /// Whether a request was answered at this address since its last failure.
    #[must_use]
    pub fn has_answered(&self, address: SocketAddr) -> bool {
        self.get(address).and_then(|it| it.worked).is_some_and(|worked| worked.has_answered)
    }

    /// Whether the host has another address without a recent failure.
    #[must_use]
    pub fn has_other(&self, than: SocketAddr, now: Time) -> bool {
        let is_usable = |it: &Entry| it.is_current && self.failed_at(it.address, now).is_none();
        self.entries.iter().any(|it| it.address != than && is_usable(it))
    }

    fn last_that_worked(&self, among: &[SocketAddr]) -> Option<SocketAddr> {
        let working = among.iter().filter_map(|it| Some((self.get(*it)?.worked?.at, *it)));
        working.max_by_key(|(at, _)| *at).map(|(_, address)| address)
    }

    /// The time of the address's failure, if it is recent.
    fn failed_at(&self, address: SocketAddr, now: Time) -> Option<Time> {
        self.get(address)?.failed_at.filter(|at| now.since(*at) < FAILED_FOR)
    }

    fn get(&self, address: SocketAddr) -> Option<&Entry> {
        self.entries.iter().find(|it| it.address == address)
    }

    fn entry(&mut self, address: SocketAddr) -> &mut Entry {
        let place = self.entries.iter().position(|it| it.address == address).unwrap_or_else(|| {
            if self.entries.len() >= 2 * ADDRESSES_MAX {
                // Drop the oldest address that the host no longer has, or else the oldest.
                let place = self.entries.iter().position(|it| !it.is_current).unwrap_or(0);
                self.entries.remove(place);
            }
            self.entries.push(Entry { address, is_current: false, worked: None, failed_at: None });
            self.entries.len() - 1
        });
        &mut self.entries[place]
    }
}
