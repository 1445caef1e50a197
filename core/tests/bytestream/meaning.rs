//! Random sockets and claims, checked against the written rules: a claim waits only if no socket matches.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use rendezvous_core::bytestream::matching::{Claim, Limits, Matching, Rules};
use rendezvous_core::entropy::Entropy;
use rendezvous_core::machine::{ConnId, Listener};
use rendezvous_core::time::{Span, Time};

use crate::{at, iq, jid, sid};

const LIMITS: Limits =
    Limits { unclaimed_max: 8, unclaimed_per_address_max: 4, early_claims_max: 6, grace: Span::from_secs(2) };

struct Walk {
    matching: Matching,
    rules: Rules,
    chance: Entropy,
    /// In the order of arrival.
    sockets: Vec<(ConnId, Listener, SocketAddr)>,
    /// Waiting claims, in the order of arrival: the bare JID and the endpoint.
    waiting: BTreeMap<u32, (String, SocketAddr)>,
    count: u32,
    matches: u32,
}

impl Walk {
    fn new(seed: u8) -> Self {
        let rules = Rules {
            listeners: vec![
                at("10.0.0.1:1000"),
                at("10.0.0.2:1001"),
                at("10.0.0.1:1002"),
                at("0.0.0.0:1003"),
            ],
            announced: vec![at("10.0.0.3:0").ip()],
            any_address: seed.is_multiple_of(2),
            only_socket: (seed / 2).is_multiple_of(2),
        };
        Self {
            matching: Matching::new(LIMITS, rules.clone()),
            rules,
            chance: Entropy::new([seed; 32]),
            sockets: Vec::new(),
            waiting: BTreeMap::new(),
            count: 0,
            matches: 0,
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.chance.below(bound as u64)).expect("small")
    }

    /// A few hosts and ports, so that they coincide.
    fn address(&mut self) -> SocketAddr {
        const HOSTS: [&str; 6] =
            ["0.0.0.0", "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "[::ffff:10.0.0.4]"];
        at(&format!("{}:{}", HOSTS[self.below(6)], 1_000 + self.below(5)))
    }

    fn step(&mut self) {
        self.count += 1;
        match self.below(8) {
            0..=2 => self.open(),
            3..=5 => self.claim(),
            6 if !self.sockets.is_empty() => {
                let gone = self.below(self.sockets.len());
                let (on, ..) = self.sockets.remove(gone);
                assert!(self.matching.remove(on));
            }
            _ => {
                let oldest = self.waiting.keys().next().copied();
                let forgotten = self.matching.forget_claim(|_| true);
                assert_eq!(forgotten.map(|claim| self.leave(&claim)), oldest);
            }
        }
        while let Some((on, claim)) = self.matching.next_match() {
            self.matches += 1;
            assert_eq!(self.meant(claim.endpoint), Some(on), "{claim:?}");
            self.leave(&claim);
            // It may be refused for another reason.
            if self.below(4) > 0 {
                self.sockets.retain(|(other, ..)| *other != on);
                assert!(self.matching.remove(on));
            }
        }
        for (_, endpoint) in self.waiting.values() {
            assert_eq!(self.meant(*endpoint), None, "a claim of {endpoint} waits, and its socket is there");
        }
        assert_eq!(self.matching.unclaimed(), self.sockets.len());
        assert_eq!(self.matching.early_claims(), self.waiting.len());
    }

    fn open(&mut self) {
        let (listener, from) = (Listener(u16::try_from(self.below(4)).expect("small")), self.address());
        let on = ConnId { index: self.count, generation: 0 };
        let same = |other: &SocketAddr| other.ip().to_canonical() == from.ip().to_canonical();
        let goes = if self.sockets.iter().filter(|(.., other)| same(other)).count() >= 4 {
            self.sockets.iter().position(|(.., other)| same(other))
        } else {
            (self.sockets.len() >= 8).then_some(0)
        };
        let goes = goes.map(|goes| self.sockets.remove(goes).0);
        self.sockets.push((on, listener, from));
        assert_eq!(self.matching.open(on, listener, from), goes);
    }

    fn claim(&mut self) {
        let (bare, endpoint) = (format!("{}@example.org", self.below(3)), self.address());
        let claim = Claim {
            from: jid(&format!("{bare}/{}", self.count)),
            iq: iq(&self.count.to_string()),
            sid: sid("s"),
            endpoint,
        };
        self.waiting.insert(self.count, (bare, endpoint));
        let goes = if self.waiting.len() > 6 { self.oldest_of_largest_share() } else { None };
        let gone = self.matching.claim(claim, Time(0));
        assert_eq!(gone.map(|claim| self.leave(&claim)), goes);
    }

    fn oldest_of_largest_share(&self) -> Option<u32> {
        let share = |bare: &str| self.waiting.values().filter(|(other, _)| *other == bare).count();
        let most = self.waiting.values().map(|(bare, _)| share(bare)).max();
        let of_largest = self.waiting.iter().find(|(_, (bare, _))| Some(share(bare)) == most);
        of_largest.map(|(number, _)| *number)
    }

    fn leave(&mut self, claim: &Claim) -> u32 {
        let number = claim.iq.as_str().parse().expect("a number");
        self.waiting.remove(&number).expect("a claim leaves once");
        number
    }

    /// docs/stream-proxy.md §5.5: (a), else (b), else (c), else (d), and only if exactly one socket fits.
    fn meant(&self, endpoint: SocketAddr) -> Option<ConnId> {
        let (ip, port) = (endpoint.ip().to_canonical(), endpoint.port());
        let of_port: Vec<_> = self.sockets.iter().filter(|(.., from)| from.port() == port).collect();
        let exact = of_port.iter().filter(|(.., from)| from.ip().to_canonical() == ip);
        let dialled = of_port.iter().filter(|(_, listener, _)| self.is_ours(*listener, ip));
        let any = of_port.iter().filter(|_| self.rules.any_address);
        let rules: [Vec<ConnId>; 3] =
            [exact.map(|it| it.0).collect(), dialled.map(|it| it.0).collect(), any.map(|it| it.0).collect()];
        match (rules.iter().find(|fits| !fits.is_empty()), &self.sockets[..]) {
            (Some(fits), _) => (fits.len() == 1).then_some(fits[0]),
            (None, [(on, listener, _)]) if self.rules.only_socket => {
                let own = self.rules.listeners[usize::from(listener.0)].port();
                (own == port && self.is_ours(*listener, ip)).then_some(*on)
            }
            (None, _) => None,
        }
    }

    fn is_ours(&self, listener: Listener, ip: IpAddr) -> bool {
        let local = self.rules.listeners[usize::from(listener.0)].ip();
        (local == ip && !local.is_unspecified()) || self.rules.announced.contains(&ip)
    }
}

#[test]
fn whoever_waits_has_no_socket_that_fits() {
    let mut matches = 0;
    for seed in 0..40 {
        let mut walk = Walk::new(seed);
        for _ in 0..1_000 {
            walk.step();
        }
        matches += walk.matches;
    }
    assert!(matches > 1_000, "only {matches} matches: the walk goes nowhere");
}
