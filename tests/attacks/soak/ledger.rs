//! What every pair owes: who sent how much, and who may end otherwise than in order.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The client's side of a pair.
pub(crate) const CLIENT: usize = 0;
/// The hidden server's.
pub(crate) const HIDDEN: usize = 1;

/// A pair that is not paced is over after this long, or it is stuck.
const STUCK: Duration = Duration::from_secs(60);
/// A hidden server that was killed so lately may be away.
const AWAY: Duration = Duration::from_secs(15);
/// A waiting connection that left so lately may have been chosen in the same instant.
const CROSSED: Duration = Duration::from_secs(1);
/// Faults that are shown; more say nothing new.
const SHOWN: usize = 20;

/// How a pair is meant to go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) identity: usize,
    /// Octets that each side sends; a paced one is told when to stop.
    pub(crate) lengths: [u64; 2],
    /// Octets a second, for a pair that lasts.
    pub(crate) pace: Option<u64>,
    /// The side that resets its connection, after so many octets sent.
    pub(crate) breaks: Option<(usize, u64)>,
    /// Octets follow the request's head at once; such a request is for one hidden server alone.
    pub(crate) at_once: bool,
}

/// A pair that is not over.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) plan: Plan,
    opened: Instant,
    /// It is known that it does not end in order.
    broken: bool,
    /// What each side sent before its clean end.
    sent: [Option<u64>; 2],
    over: [bool; 2],
}

/// Every pair, and what went wrong.
#[derive(Debug, Default)]
pub(crate) struct ByteLedger {
    entries: BTreeMap<u64, Entry>,
    killed: BTreeMap<usize, Instant>,
    left: BTreeMap<usize, Instant>,
    next: u64,
    pub(crate) whole: u64,
    pub(crate) broken: u64,
    /// Clients that were told that a hidden server is not there, which had been killed or had just left.
    pub(crate) refused: u64,
    pub(crate) octets: u64,
    pub(crate) faults: u64,
}

impl ByteLedger {
    pub(crate) fn open(&mut self, plan: Plan) -> u64 {
        let pair = self.next;
        self.next += 1;
        let entry = Entry { plan, opened: Instant::now(), broken: false, sent: [None; 2], over: [false; 2] };
        self.entries.insert(pair, entry);
        pair
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn plan(&self, pair: u64) -> Option<Plan> {
        self.entries.get(&pair).map(|entry| entry.plan)
    }

    /// There was such a pair.
    pub(crate) fn is_over(&self, pair: u64) -> bool {
        pair < self.next && !self.entries.contains_key(&pair)
    }

    pub(crate) fn is_broken(&self, pair: u64) -> bool {
        self.entries.get(&pair).is_none_or(|entry| entry.broken)
    }

    /// A side resets, or could not go on because the other did.
    pub(crate) fn breaks(&mut self, pair: u64) {
        if let Some(entry) = self.entries.get_mut(&pair) {
            entry.broken = true;
        }
    }

    /// Every agent of this identity is dead.
    pub(crate) fn killed(&mut self, identity: usize) {
        self.killed.insert(identity, Instant::now());
        for entry in self.entries.values_mut().filter(|entry| entry.plan.identity == identity) {
            entry.broken = true;
        }
    }

    /// A waiting connection of this identity went.
    pub(crate) fn left(&mut self, identity: usize) {
        self.left.insert(identity, Instant::now());
    }

    /// Paced pairs end here.
    pub(crate) fn stop_paced(&mut self, pair: u64, side: usize, sent: u64) {
        if let Some(entry) = self.entries.get_mut(&pair) {
            entry.plan.lengths[side] = sent;
        }
    }

    /// A side ended in order after so many octets.
    pub(crate) fn ended(&mut self, pair: u64, side: usize, sent: u64) {
        if let Some(entry) = self.entries.get_mut(&pair) {
            entry.sent[side] = Some(sent);
        }
    }

    /// A side heard the other's clean end after so many octets.
    pub(crate) fn heard_end(&mut self, pair: u64, side: usize, received: u64) {
        let Some(entry) = self.entries.get(&pair) else { return };
        let sent = entry.sent[1 - side];
        // A process that is killed ends its local connections in clear: no clean end is to be had of that one.
        let of_a_corpse = side == HIDDEN && self.killed.contains_key(&entry.plan.identity) && entry.broken;
        if sent != Some(received) && !of_a_corpse {
            self.fault(&format!(
                "pair {pair}: a clean end after {received} octets of {sent:?}, at side {side}"
            ));
        }
    }

    /// A side's connection is gone.
    pub(crate) fn over(&mut self, pair: u64, side: usize) {
        let Some(entry) = self.entries.get_mut(&pair) else { return };
        entry.over[side] = true;
        // Where a client is refused, or an agent is killed first, no hidden server has ever heard of it.
        if entry.over != [true; 2] && !(entry.broken && side == CLIENT) {
            return;
        }
        if entry.broken {
            self.broken += 1;
        } else {
            self.whole += 1;
        }
        self.entries.remove(&pair);
    }

    /// A client got another answer than its hidden server's.
    pub(crate) fn refused(&mut self, pair: u64, answer: &str) {
        let Some(entry) = self.entries.remove(&pair) else { return };
        let lately = |of: &BTreeMap<usize, Instant>, within| {
            of.get(&entry.plan.identity).is_some_and(|at| at.elapsed() < within)
        };
        let excused = match answer.split(' ').nth(1) {
            Some("404" | "503") => lately(&self.killed, AWAY),
            // Where octets may have gone to one that left, no other gets the request.
            Some("502") => lately(&self.killed, AWAY) || entry.plan.at_once && lately(&self.left, CROSSED),
            _ => false,
        };
        if excused {
            self.refused += 1;
        } else {
            self.fault(&format!("pair {pair}: refused: {answer:?} of {:?}", entry.plan));
        }
    }

    /// Every pair that should be over long ago is a fault, once.
    pub(crate) fn look_for_stuck(&mut self) {
        let is_stuck = |entry: &Entry| entry.plan.pace.is_none() && entry.opened.elapsed() > STUCK;
        let stuck: Vec<u64> =
            self.entries.iter().filter(|(_, entry)| is_stuck(entry)).map(|(pair, _)| *pair).collect();
        for pair in stuck {
            let entry = self.entries.remove(&pair);
            self.fault(&format!("pair {pair}: stuck: {entry:?}"));
        }
    }

    /// Pairs that are not over.
    pub(crate) fn open_pairs(&self) -> String {
        format!("{:?}", self.entries.iter().take(SHOWN).collect::<Vec<_>>())
    }

    pub(crate) fn fault(&mut self, what: &str) {
        self.faults += 1;
        if self.faults <= SHOWN as u64 {
            eprintln!("soak: FAULT {what}");
        }
    }
}
