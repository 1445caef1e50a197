//! The relay, agents, connectors and everybody else in a simulated world, run after run.
//!
//! `cargo test` runs 256 seeds; `SEEDS=1000000 cargo test --release -p tests --test sim -- --nocapture` as many as one
//! likes, and shows how fast. A run that fails is made smaller as long as it fails, and told; `SEED=…` runs it again.

use std::cell::Cell;
use std::sync::Once;

use rendezvous::clock::Clock;
use tests::plan::{Failure, Outcome, Plan};
use tests::secured::Secured;

/// Runs of `cargo test`.
const SEEDS: u64 = 256;
/// Of a failed run's log, so much is shown.
const LINES: usize = 60;

fn asked(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// A run that fails is told by its story, not by each of the panics on the way to it.
fn quietly<R>(work: impl FnOnce() -> R) -> R {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                loud(info);
            }
        }));
    });
    QUIET.set(true);
    let result = work();
    QUIET.set(false);
    result
}

/// Runs it; in TLS with its story, since another run of the same seed is another run.
fn run(plan: &Plan, log: bool, secured: &Secured) -> Result<Outcome, Failure> {
    quietly(|| plan.run(log || plan.tls, secured))
}

/// What kind of failure it is: without numbers, which are others in a smaller run.
fn kind(why: &str) -> String {
    why.chars().filter(|c| !c.is_ascii_digit()).take(40).collect()
}

/// Leaves out whatever can be left out of a run that fails, while it fails.
fn shrink(plan: &Plan, why: &str, secured: &Secured) -> Plan {
    let mut plan = plan.clone();
    let mut again = true;
    while std::mem::take(&mut again) {
        for smaller in plan.smaller() {
            if run(&smaller, false, secured).is_err_and(|other| kind(&other.why) == kind(why)) {
                plan = smaller;
                again = true;
                break;
            }
        }
    }
    plan
}

fn story(plan: &Plan, failure: Failure, secured: &Secured) -> String {
    let (mut shrunk, mut last) = (plan.clone(), failure.clone());
    if !plan.tls {
        shrunk = shrink(plan, &failure.why, secured);
        last = run(&shrunk, true, secured).err().unwrap_or(failure.clone());
    }
    let lines: Vec<&str> = last.log.lines().collect();
    let end = lines[lines.len().saturating_sub(LINES)..].join("\n");
    let file = format!("{}/sim-{}.log", env!("CARGO_TARGET_TMPDIR"), plan.seed);
    let written = std::fs::write(&file, &last.log).map_or_else(|error| error.to_string(), |()| file);
    format!(
        "seed {seed}: {why}\n\nmade smaller: {shrunk:?}\n{smaller}\n\n{end}\n\nall of it: {written}\n\
         again: {var}={seed} cargo test -p tests --test sim -- --nocapture",
        seed = plan.seed,
        why = failure.why,
        smaller = last.why,
        var = if plan.tls { "SEED_TLS" } else { "SEED" },
    )
}

fn run_all(seeds: std::ops::Range<u64>, tls: bool) -> Outcome {
    let secured = Secured::new();
    let mut sum = Outcome::default();
    let mut failed = None;
    for seed in seeds {
        let plan = Plan::draw(seed, tls);
        match run(&plan, false, &secured) {
            Ok(outcome) => {
                sum.steps += outcome.steps;
                sum.octets += outcome.octets;
                sum.clean += outcome.clean;
                sum.flows += outcome.flows;
                sum.pairs += outcome.pairs;
            }
            Err(failure) => {
                failed = Some((plan, failure));
                break;
            }
        }
    }
    let story = failed.map(|(plan, failure)| story(&plan, failure, &secured));
    assert!(story.is_none(), "{}", story.unwrap_or_default());
    sum
}

#[test]
fn whatever_happens_what_must_hold_holds() {
    let seeds = match asked("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..asked("SEEDS").unwrap_or(SEEDS),
    };
    let count = seeds.end - seeds.start;
    let clock = Clock::start();
    let sum = run_all(seeds, false);
    let seconds = clock.now().mono.0 as f64 / 1e6;
    println!(
        "{count} runs, {:.1} s: {} steps ({:.0} a second), {} rendezvous, {} flows, {} clean ends, {} octets",
        seconds,
        sum.steps,
        sum.steps as f64 / seconds,
        sum.pairs,
        sum.flows,
        sum.clean,
        sum.octets
    );
}

#[test]
fn the_same_seed_gives_the_same_trace_twice() {
    let secured = Secured::new();
    for seed in 0..12 {
        let plan = Plan::draw(seed, false);
        let go = || plan.run(true, &secured).expect("what must hold holds");
        let (once, twice) = (go(), go());
        assert!(!once.log.is_empty(), "a run has a story");
        for (line, again) in once.log.lines().zip(twice.log.lines()) {
            assert_eq!(line, again, "seed {seed}");
        }
        assert_eq!(once, twice, "seed {seed}");
    }
}

/// Key exchange draws entropy of its own: what holds is the same, the octets on the wire are not.
#[test]
fn in_tls_it_holds_too() {
    let seeds = match asked("SEED_TLS") {
        Some(seed) => seed..seed + 1,
        None => 0..asked("SEEDS_TLS").unwrap_or(48),
    };
    let sum = run_all(seeds, true);
    println!("{} rendezvous in TLS, {} clean ends, {} octets", sum.pairs, sum.clean, sum.octets);
}
