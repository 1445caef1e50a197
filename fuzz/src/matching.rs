//! Sockets and claims against a simple model of their matches.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use arbitrary::{Arbitrary, Unstructured};
use rendezvous_core::bytestream::matching::{Claim, Limits, Matching, Rules};
use rendezvous_core::bytestream::name::{IqId, Jid, StreamId};
use rendezvous_core::machine::{ConnId, Listener};
use rendezvous_core::time::{Span, Time};

const LIMITS: Limits =
    Limits { unclaimed_max: 6, unclaimed_per_address_max: 3, early_claims_max: 4, grace: Span::from_secs(2) };

#[derive(Arbitrary, Debug)]
struct Setup {
    any_address: bool,
    only_socket: bool,
    second_listener: bool,
}

#[derive(Arbitrary, Debug)]
enum Operation {
    /// A socket is accepted.
    Open {
        listener: bool,
        host: u8,
        port: u8,
    },
    /// An unclaimed socket ends.
    Close {
        nth: u8,
    },
    /// A peer claims a socket. `keep`: the claim must be refused for another reason.
    Claim {
        host: u8,
        port: u8,
        keep: bool,
    },
    Wait {
        ms: u16,
    },
    /// A claim is withdrawn.
    Forget {
        nth: u8,
    },
}

struct Story {
    matching: Matching,
    rules: Rules,
    now: Time,
    /// In the order of their arrival.
    sockets: Vec<(ConnId, Listener, SocketAddr)>,
    /// Pending claims by number: their deadline, and whether they must not get a socket.
    waiting: BTreeMap<u32, (SocketAddr, Time, bool)>,
    opened: u32,
    claimed: u32,
}

/// The bytes are a setup and operations.
pub(crate) fn run(bytes: &[u8]) {
    let mut bytes = Unstructured::new(bytes);
    let Ok(setup) = bytes.arbitrary::<Setup>() else { return };
    let mut listeners = vec![at(1, 0)];
    if setup.second_listener {
        listeners.push("0.0.0.0:1001".parse().expect("an address"));
    }
    let rules = Rules {
        listeners,
        announced: vec![at(2, 0).ip()],
        any_address: setup.any_address,
        only_socket: setup.only_socket,
    };
    let matching = Matching::new(LIMITS, rules.clone());
    let (sockets, waiting) = (Vec::new(), BTreeMap::new());
    let mut shrinker = Story { matching, rules, now: Time(0), sockets, waiting, opened: 0, claimed: 0 };
    while !bytes.is_empty() {
        let Ok(operation) = bytes.arbitrary() else { return };
        shrinker.go(&operation);
        shrinker.take_matches();
        shrinker.check();
    }
}

/// A few hosts and ports, so that matches are likely.
fn at(host: u8, port: u8) -> SocketAddr {
    let text = match host % 6 {
        // The same host, over a dual-stack socket.
        5 => "::ffff:10.0.0.4".to_owned(),
        host => format!("10.0.0.{host}"),
    };
    SocketAddr::new(text.parse().expect("an address"), 1_000 + u16::from(port % 4))
}

impl Story {
    fn go(&mut self, operation: &Operation) {
        match *operation {
            Operation::Open { listener, host, port } => {
                self.open(Listener(u16::from(listener)), at(host, port))
            }
            Operation::Close { nth } => {
                let Some(at) = usize::from(nth).checked_rem(self.sockets.len()) else { return };
                let (on, ..) = self.sockets.remove(at);
                assert!(self.matching.remove(on), "a socket that was there");
                assert!(!self.matching.remove(on), "a socket that is gone");
            }
            Operation::Claim { host, port, keep } => self.claim(at(host, port), keep),
            Operation::Wait { ms } => {
                self.now = self.now + Span::from_millis(u64::from(ms));
                while let Some(claim) = self.matching.expired(self.now) {
                    let (_, due, _) = self.gone(&claim);
                    assert!(due <= self.now, "a claim that had time left");
                }
                assert!(self.waiting.values().all(|(_, due, _)| *due > self.now), "a claim waits for ever");
            }
            Operation::Forget { nth } => {
                let Some(at) = usize::from(nth).checked_rem(self.waiting.len()) else { return };
                let number = *self.waiting.keys().nth(at).expect("it is in there");
                let forgotten = self.matching.forget_claim(|claim| number_of(claim) == number);
                assert!(forgotten.map(|claim| self.gone(&claim).0.port()).is_some(), "it waited");
            }
        }
    }

    fn open(&mut self, listener: Listener, from: SocketAddr) {
        self.opened += 1;
        let on = ConnId { index: self.opened % 8, generation: self.opened };
        let same = |other: &SocketAddr| other.ip().to_canonical() == from.ip().to_canonical();
        let of_source = self.sockets.iter().filter(|(.., other)| same(other)).count();
        let goes = if of_source >= LIMITS.unclaimed_per_address_max as usize {
            self.sockets.iter().position(|(.., other)| same(other))
        } else {
            (self.sockets.len() >= LIMITS.unclaimed_max as usize).then_some(0)
        };
        let goes = goes.map(|at| self.sockets.remove(at).0);
        self.sockets.push((on, listener, from));
        assert_eq!(self.matching.open(on, listener, from), goes, "the oldest makes room, and nobody else");
    }

    fn claim(&mut self, endpoint: SocketAddr, keep: bool) {
        self.claimed += 1;
        let full = self.waiting.len() >= LIMITS.early_claims_max as usize;
        let oldest = self.waiting.keys().next().copied().filter(|_| full);
        self.waiting.insert(self.claimed, (endpoint, self.now + LIMITS.grace, keep));
        let claim = Claim {
            from: Jid::new("peer@example.org/x").expect("a JID"),
            iq: IqId::new(&self.claimed.to_string()).expect("an id"),
            sid: StreamId::new("s").expect("a stream id"),
            endpoint,
        };
        let goes = self.matching.claim(claim, self.now);
        assert_eq!(goes.as_ref().map(number_of), oldest, "the oldest makes room, and nobody else");
        if let Some(goes) = goes {
            self.gone(&goes);
        }
    }

    /// All current matches: each claim once, and each socket that is not kept once.
    fn take_matches(&mut self) {
        while let Some((on, claim)) = self.matching.next_match() {
            assert_eq!(self.meant(claim.endpoint), Some(on), "{claim:?} means another");
            let (_, _, keep) = self.gone(&claim);
            if !keep {
                self.sockets.retain(|(other, ..)| *other != on);
                assert!(self.matching.remove(on), "a match with a socket that is gone");
            }
        }
    }

    fn check(&self) {
        assert_eq!(self.matching.unclaimed(), self.sockets.len());
        assert_eq!(self.matching.early_claims(), self.waiting.len());
        assert!(self.sockets.len() <= LIMITS.unclaimed_max as usize);
        assert!(self.waiting.len() <= LIMITS.early_claims_max as usize);
        for (endpoint, ..) in self.waiting.values() {
            assert_eq!(self.meant(*endpoint), None, "a claim of {endpoint} waits, and its socket is there");
        }
        let due = self.waiting.values().map(|(_, due, _)| *due).min();
        assert_eq!(self.matching.deadline(), due, "the next claim's");
    }

    /// A claim has ended.
    fn gone(&mut self, claim: &Claim) -> (SocketAddr, Time, bool) {
        let left = self.waiting.remove(&number_of(claim)).expect("a claim leaves once");
        assert_eq!(left.0, claim.endpoint, "another claim");
        left
    }

    /// docs/stream-proxy.md §5.5: (a), else (b), else (c), else (d), and only if exactly one socket matches.
    fn meant(&self, endpoint: SocketAddr) -> Option<ConnId> {
        let ip = endpoint.ip().to_canonical();
        let of_port = || self.sockets.iter().filter(|(.., from)| from.port() == endpoint.port());
        let exact: Vec<_> = of_port().filter(|(.., from)| from.ip().to_canonical() == ip).collect();
        let dialled: Vec<_> = of_port().filter(|(_, listener, _)| self.is_ours(*listener, ip)).collect();
        let any: Vec<_> = of_port().filter(|_| self.rules.any_address).collect();
        for fitting in [exact, dialled, any] {
            match fitting[..] {
                [] => {}
                [(on, ..)] => return Some(*on),
                _ => return None,
            }
        }
        match self.sockets[..] {
            [(on, listener, _)] if self.rules.only_socket => {
                let local = self.rules.listeners.get(usize::from(listener.0))?;
                (local.port() == endpoint.port() && self.is_ours(listener, ip)).then_some(on)
            }
            _ => None,
        }
    }

    fn is_ours(&self, listener: Listener, ip: IpAddr) -> bool {
        let local = self.rules.listeners.get(usize::from(listener.0)).map(SocketAddr::ip);
        local.filter(|local| !local.is_unspecified()) == Some(ip) || self.rules.announced.contains(&ip)
    }
}

fn number_of(claim: &Claim) -> u32 {
    claim.iq.as_str().parse().expect("a number of ours")
}
