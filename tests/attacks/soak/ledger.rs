//! What each pair must deliver: the bytes of each side, and which pairs may end uncleanly.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The index of the client's side of a pair.
pub(crate) const CLIENT: usize = 0;
/// The index of the hidden server's side.
pub(crate) const HIDDEN: usize = 1;

/// A pair that is not paced must be over within this time.
const STUCK: Duration = Duration::from_secs(60);
/// A hidden server that was killed within this time may be absent.
const AWAY: Duration = Duration::from_secs(15);
/// A waiting connection that ended within this time may have been chosen at the same moment.
const CROSSED: Duration = Duration::from_secs(1);
/// Maximum number of faults that are printed.
const SHOWN: usize = 20;

/// The plan of a pair.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) identity: usize,
    /// Bytes that each side sends. A paced side is told when to stop.
    pub(crate) lengths: [u64; 2],
    /// Bytes per second, for a pair that lasts.
    pub(crate) pace: Option<u64>,
    /// The side that resets its connection, after this many bytes.
    pub(crate) breaks: Option<(usize, u64)>,
    /// Bytes follow the request's head at once. Such a request is handed over to only one hidden server.
    pub(crate) at_once: bool,
}

/// A pair that is not over.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) plan: Plan,
    opened: Instant,
    /// It is known that it does not end cleanly.
    broken: bool,
    /// What each side sent before its clean end.
    sent: [Option<u64>; 2],
    over: [bool; 2],
}

/// All pairs, and the faults.
#[derive(Debug, Default)]
pub(crate) struct ByteLedger {
    entries: BTreeMap<u64, Entry>,
    killed: BTreeMap<usize, Instant>,
    left: BTreeMap<usize, Instant>,
    next: u64,
    pub(crate) whole: u64,
    pub(crate) broken: u64,
    /// Clients that got an error for a hidden server that had been killed or had just left.
    pub(crate) refused: u64,
    pub(crate) bytes: u64,
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

    /// Whether the pair existed and is over.
    pub(crate) fn is_over(&self, pair: u64) -> bool {
        pair < self.next && !self.entries.contains_key(&pair)
    }

    pub(crate) fn is_broken(&self, pair: u64) -> bool {
        self.entries.get(&pair).is_none_or(|entry| entry.broken)
    }

    /// A side resets, or failed because the other did.
    pub(crate) fn breaks(&mut self, pair: u64) {
        if let Some(entry) = self.entries.get_mut(&pair) {
            entry.broken = true;
        }
    }

    /// All agents of this identity are dead.
    pub(crate) fn killed(&mut self, identity: usize) {
        self.killed.insert(identity, Instant::now());
        for entry in self.entries.values_mut().filter(|entry| entry.plan.identity == identity) {
            entry.broken = true;
        }
    }

    /// A waiting connection of this identity has ended.
    pub(crate) fn left(&mut self, identity: usize) {
        self.left.insert(identity, Instant::now());
    }

    /// A paced pair ends here.
    pub(crate) fn stop_paced(&mut self, pair: u64, side: usize, sent: u64) {
        if let Some(entry) = self.entries.get_mut(&pair) {
            entry.plan.lengths[side] = sent;
        }
    }

    /// A side ended cleanly after this many bytes.
    pub(crate) fn ended(&mut self, pair: u64, side: usize, sent: u64) {
        if let Some(entry) = self.entries.get_mut(&pair) {
            entry.sent[side] = Some(sent);
        }
    }

    /// A side received the other's clean end after this many bytes.
    pub(crate) fn on_end(&mut self, pair: u64, side: usize, received: u64) {
        let Some(entry) = self.entries.get(&pair) else { return };
        let sent = entry.sent[1 - side];
        // A killed process ends its local connections with a FIN, which looks like a clean end.
        let of_a_corpse = side == HIDDEN && self.killed.contains_key(&entry.plan.identity) && entry.broken;
        if sent != Some(received) && !of_a_corpse {
            self.fault(&format!(
                "pair {pair}: a clean end after {received} bytes of {sent:?}, at side {side}"
            ));
        }
    }

    /// A side's connection is gone.
    pub(crate) fn over(&mut self, pair: u64, side: usize) {
        let Some(entry) = self.entries.get_mut(&pair) else { return };
        entry.over[side] = true;
        // If a client is refused, or an agent is killed first, no hidden server knows of the pair.
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
            // If bytes may have gone to one that left, no other gets the request.
            Some("502") => lately(&self.killed, AWAY) || entry.plan.at_once && lately(&self.left, CROSSED),
            _ => false,
        };
        if excused {
            self.refused += 1;
        } else {
            self.fault(&format!("pair {pair}: refused: {answer:?} of {:?}", entry.plan));
        }
    }

    /// Each pair that exceeds its time is a fault, once.
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
