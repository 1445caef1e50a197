//! Random events in random order: every claim is answered once, and nothing is left. The proxy's own
//! `check_invariants` runs as well.

use std::collections::BTreeMap;

use rendezvous_core::bytestream::proxy::Proxy;
use rendezvous_core::bytestream::stanza::Query;
use rendezvous_core::entropy::Entropy;
use rendezvous_core::machine::{ConnId, End, Machine, Output};
use rendezvous_core::time::Span;

use crate::harness::{Done, Harness};
use crate::{claim, proxy_with, stanza};

/// A few of everything, so that they coincide.
const WHO: [&str; 5] = ["a@a/1", "a@a/2", "b@b/1", "c@c/1", "d@d/1"];

struct Walk {
    harness: Harness<Proxy>,
    chance: Entropy,
    open: Vec<ConnId>,
    claims: u32,
    pairs: u32,
    answers: BTreeMap<String, u32>,
}

impl Walk {
    fn step(&mut self) {
        match self.chance.below(10) {
            0..=3 => {
                let from = format!("10.0.0.{}:{}", self.below(3) + 2, self.below(6) + 1_000);
                let on = self.harness.accept(&from);
                self.open.push(on);
            }
            4..=7 => {
                let endpoint = format!("10.0.0.{}:{}", self.below(4) + 1, self.below(6) + 1_000);
                let (sid, who) = (self.below(4).to_string(), WHO[self.below(5)]);
                self.claims += 1;
                self.harness.deliver(stanza(who, &self.claims.to_string(), claim(&sid, &endpoint)));
            }
            8 if !self.open.is_empty() => {
                let at = self.below(self.open.len());
                let on = self.open.swap_remove(at);
                let how = if self.below(2) == 0 { End::Clean } else { End::Reset };
                self.harness.call(|proxy, now| proxy.handle_end(on, how, now));
            }
            _ => {
                let span = Span(self.chance.below(4_000_000));
                self.harness.wait(span);
            }
        }
        self.look();
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.chance.below(bound as u64)).expect("small")
    }

    fn look(&mut self) {
        for did in self.harness.actions() {
            match did {
                Done::Asked(Output::Close { on, .. }) => self.open.retain(|open| *open != on),
                Done::Asked(Output::Pair { .. }) => self.pairs += 1,
                _ => {}
            }
        }
        for answer in self.harness.sent_stanzas() {
            assert!(matches!(answer.query, Query::Error(_) | Query::CLEAR), "{answer:?}");
            *self.answers.entry(answer.id.as_str().to_owned()).or_insert(0) += 1;
        }
    }
}

#[test]
fn every_claim_is_answered_once_and_nothing_is_left() {
    let mut pairs = 0;
    for seed in 0..40 {
        let harness = proxy_with(|config| {
            config.failures_per_minute_max = 1_000;
            (config.connections_max, config.claimed_max, config.claims_per_jid_max) = (12, 3, 4);
            (config.matching.unclaimed_max, config.matching.unclaimed_per_address_max) = (6, 3);
            config.matching.early_claims_max = 3;
            (config.rules.any_address, config.rules.only_socket) = (seed % 2 == 0, seed % 4 == 0);
        });
        let mut walk = Walk {
            harness,
            chance: Entropy::new([seed; 32]),
            open: Vec::new(),
            claims: 0,
            pairs: 0,
            answers: BTreeMap::new(),
        };
        for _ in 0..400 {
            walk.step();
        }
        for on in std::mem::take(&mut walk.open) {
            walk.harness.call(|proxy, now| proxy.handle_end(on, End::Reset, now));
        }
        walk.harness.wait(Span::from_secs(600));
        walk.look();
        assert_eq!(walk.answers.len(), walk.claims as usize, "seed {seed}: a claim without an answer");
        assert!(walk.answers.values().all(|times| *times == 1), "seed {seed}: answered twice");
        assert_eq!((walk.harness.machine.connections(), walk.harness.machine.pairs()), (0, 0), "seed {seed}");
        assert_eq!(walk.harness.idle, None, "seed {seed}");
        pairs += walk.pairs;
    }
    assert!(pairs > 100, "only {pairs} pairs: the walk goes nowhere");
}

#[test]
fn a_stream_id_is_not_shown() {
    let claim = format!("{:?}", claim("a secret", "10.0.0.1:1"));
    assert!(!claim.contains("secret"), "{claim}");
}
