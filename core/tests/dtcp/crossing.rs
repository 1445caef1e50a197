//! Case 1: both dial at once. Every interleaving of every step, not a sample.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use rendezvous_core::dtcp::handshake::Tls;

use crate::world::{Input, Outcome, Owner, PLAIN, Rules, SAID, World};

/// All runs from one start: the worlds that were seen, with the number of runs from each.
#[derive(Default)]
struct Walk {
    seen: BTreeMap<(u64, u64), u128>,
    ways: BTreeMap<String, u64>,
}

fn name(world: &World) -> (u64, u64) {
    let text = format!("{world:?}");
    let hash = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, &text).hash(&mut hasher);
        hasher.finish()
    };
    (hash(0), hash(1))
}

impl Walk {
    fn runs(&mut self, world: World, path: &mut Vec<Input>, check: &dyn Fn(&World)) -> u128 {
        let name = name(&world);
        if let Some(runs) = self.seen.get(&name) {
            return *runs;
        }
        let inputs = world.inputs();
        if inputs.is_empty() {
            let _shown_on_panic = Path(path);
            check(&world);
            *self.ways.entry(format!("{:?}", world.outcomes[0])).or_default() += 1;
        }
        let mut runs = u128::from(inputs.is_empty());
        for input in inputs {
            let mut next = world.clone();
            path.push(input);
            {
                let _shown_on_panic = Path(path);
                next.step(input);
            }
            runs += self.runs(next, path, check);
            path.pop();
        }
        self.seen.insert(name, runs);
        runs
    }
}

/// What led to a failure.
struct Path<'a>(&'a [Input]);

impl Drop for Path<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("after {:#?}", self.0);
        }
    }
}

fn winner(world: &World) -> Option<usize> {
    match world.outcomes {
        [Some(Outcome::Established(wire, tls)), Some(Outcome::Established(other, also))] => {
            assert_eq!((wire, tls), (other, also), "they do not agree");
            Some(wire)
        }
        [Some(Outcome::Failed), Some(Outcome::Failed)] => None,
        _ => panic!("they do not agree: {:?}", world.outcomes),
    }
}

/// One connection is chosen, both know which, and all bytes of the applications arrive on it.
fn one_wins(world: &World) {
    let winner = winner(world);
    assert!(winner.is_some());
    one_or_none(world);
}

fn one_or_none(world: &World) {
    let winner = winner(world);
    for (at, wire) in world.wires.iter().enumerate() {
        for (side, end) in wire.ends.iter().enumerate() {
            if Some(at) == winner {
                assert_eq!(end.owner, Owner::Application);
                assert_eq!(end.got.escape_ascii().to_string(), SAID[1 - side].escape_ascii().to_string());
            } else {
                assert_eq!(end.got, b"", "an application's octets on a connection that lost");
                assert!(matches!(end.owner, Owner::Nobody | Owner::Closed), "{end:?}");
            }
        }
    }
    for party in &world.parties {
        assert_eq!((party.sessions(), party.links()), (0, 0));
    }
}

fn walk(rules: Rules, check: &dyn Fn(&World)) -> Walk {
    let mut walk = Walk::default();
    let runs = walk.runs(World::new(rules), &mut Vec::new(), check);
    println!("{rules:?}: {runs} runs over {} worlds, {:?}", walk.seen.len(), walk.ways);
    walk
}

#[test]
fn case_1_one_connection_wins_in_every_interleaving() {
    for resets_eat in [false, true] {
        let walk = walk(Rules { resets_eat, ..PLAIN }, &one_wins);
        // Each direction is chosen in some run.
        assert_eq!(walk.ways.len(), 2, "{:?}", walk.ways);
    }
}

#[test]
fn case_1_one_connection_wins_of_many_in_every_interleaving() {
    for hosts in [[2, 1], [1, 2], [2, 2]] {
        let walk = walk(Rules { hosts, ..PLAIN }, &one_wins);
        assert_eq!(walk.ways.len(), hosts[0] + hosts[1], "{:?}", walk.ways);
    }
}

#[test]
fn case_1_one_connection_wins_with_tls_in_every_interleaving() {
    for tls in [[Tls::Require; 2], [Tls::Prefer, Tls::Off], [Tls::Off, Tls::Prefer]] {
        let secure = tls == [Tls::Require; 2];
        walk(Rules { tls, ..PLAIN }, &|world| {
            one_wins(world);
            assert!(matches!(world.outcomes[0], Some(Outcome::Established(_, is)) if is == secure));
        });
    }
}

#[test]
fn case_9_with_failing_dials_both_agree_in_every_interleaving() {
    for hosts in [[1, 1], [2, 1], [1, 0], [0, 1]] {
        let walk = walk(Rules { hosts, dials_fail: true, ..PLAIN }, &one_or_none);
        assert!(walk.ways.contains_key("Some(Failed)"), "{:?}", walk.ways);
        assert_eq!(walk.ways.len(), 1 + hosts[0] + hosts[1], "{:?}", walk.ways);
    }
}

#[test]
fn where_only_one_side_requires_tls_both_agree_in_every_interleaving() {
    // The side that requires it dials the other in vain, since that does not support it.
    for tls in [[Tls::Require, Tls::Off], [Tls::Off, Tls::Require]] {
        walk(Rules { tls, ..PLAIN }, &|world| {
            assert_eq!(world.outcomes, [Some(Outcome::Failed); 2]);
        });
    }
}

#[test]
fn bytes_may_be_cut_everywhere() {
    for tls in [Tls::Off, Tls::Require] {
        for hosts in [[1, 1], [1, 0], [0, 1], [3, 3]] {
            for cut in 1..=50 {
                for last in [false, true] {
                    let mut world = World::new(Rules { hosts, tls: [tls; 2], cut: Some(cut), ..PLAIN });
                    while let Some(input) = pick(&world.inputs(), last) {
                        world.step(input);
                    }
                    one_wins(&world);
                }
            }
        }
    }
}

fn pick(inputs: &[Input], last: bool) -> Option<Input> {
    if last { inputs.last() } else { inputs.first() }.copied()
}
