//! Relay, agents, connectors and all other actors in a simulated world, for many seeds.
//!
//! `cargo test` runs 256 seeds. `SEEDS=1000000 cargo test --release -p tests --test sim -- --nocapture` runs more, and
//! prints the speed. A failed run is reduced while it still fails, and reported. Two files reproduce it: a plan, which
//! `PLAN=file` runs again, and a trace of the relay's machine, for `rendezvous replay`. `SEED=…` and `SEED_TLS=…` run
//! one seed. Plans that once failed are in `corpus/*.plan`.

use std::path::Path;

use rendezvous::clock::Clock;
use rendezvous_core::agent::{POOL, POOL_MAX};
use rendezvous_core::time::Span;
use rendezvous_core::trace::{Replay, Trace};
use tests::absence::{self, Agents};
use tests::burst;
use tests::plan::{END_TO_END, Outcome, Participant, Plan};
use tests::reuse;
use tests::secured::Secured;
use tests::shrinker;
use tests::siege::{self, Kind};
use tests::upgrade;

/// Runs of `cargo test`.
const SEEDS: u64 = 256;
/// With many runs, progress is printed after this many.
const TELL: usize = 10_000;

fn asked(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The folder for the files of a failure.
fn folder() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

fn run_all(plans: impl Iterator<Item = Plan>) -> Outcome {
    let secured = Secured::new();
    let mut sum = Outcome::default();
    for (number, plan) in plans.enumerate() {
        if number > 0 && number.is_multiple_of(TELL) {
            println!("{number} runs so far");
        }
        match shrinker::run(&plan, false, &secured) {
            Ok(outcome) => {
                sum.steps += outcome.steps;
                sum.bytes += outcome.bytes;
                sum.clean += outcome.clean;
                sum.flows += outcome.flows;
                sum.pairs += outcome.pairs;
            }
            Err(failure) => {
                let report = shrinker::report(&plan, failure, &secured);
                panic!("{}", report.text(&report.write(folder())));
            }
        }
    }
    sum
}

fn read(file: &Path) -> Plan {
    let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    text.parse().unwrap_or_else(|why| panic!("{}:{why}", file.display()))
}

#[test]
fn invariants_hold_in_every_run() {
    if let Some(file) = std::env::var_os("PLAN") {
        run_all(std::iter::once(read(Path::new(&file))));
        return;
    }
    let seeds = match asked("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..asked("SEEDS").unwrap_or(SEEDS),
    };
    let count = seeds.end - seeds.start;
    let clock = Clock::start();
    let sum = run_all(seeds.map(|seed| Plan::draw(seed, false)));
    let seconds = clock.now().mono.0 as f64 / 1e6;
    println!(
        "{count} runs, {:.1} s: {} steps ({:.0} a second), {} rendezvous, {} flows, {} clean ends, {} bytes",
        seconds,
        sum.steps,
        sum.steps as f64 / seconds,
        sum.pairs,
        sum.flows,
        sum.clean,
        sum.bytes
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

/// Key exchange uses its own entropy: the bytes on the wire differ between runs, the invariants are the same.
#[test]
fn invariants_hold_with_tls() {
    let seeds = match asked("SEED_TLS") {
        Some(seed) => seed..seed + 1,
        None => 0..asked("SEEDS_TLS").unwrap_or(48),
    };
    let sum = run_all(seeds.map(|seed| Plan::draw(seed, true)));
    println!("{} rendezvous in TLS, {} clean ends, {} bytes", sum.pairs, sum.clean, sum.bytes);
}

/// Only raw clients are in these runs, so each rendezvous was routed by a ClientHello.
#[test]
fn clients_that_name_their_hidden_server_by_sni_reach_it() {
    let is_agent = |it: &Participant| matches!(it, Participant::Agent { id, .. } if *id == END_TO_END);
    let is_named = |it: &Participant| matches!(it, Participant::Named { .. });
    let seeds = 0..asked("SEEDS_NAMED").unwrap_or(16);
    let mut plans: Vec<_> = seeds.map(|seed| Plan::draw(seed, true)).collect();
    for plan in &mut plans {
        plan.participants.retain(|it| is_agent(it) || is_named(it));
        plan.incidents.clear();
    }
    plans.retain(|plan| plan.participants.iter().any(is_agent));
    let clients = plans.iter().flat_map(|plan| &plan.participants).filter(|it| is_named(it)).count() as u64;
    let sum = run_all(plans.into_iter());
    assert!(sum.pairs > clients / 3, "{} of {clients}", sum.pairs);
    assert!(sum.clean > 0 && sum.bytes > 0);
}

#[test]
fn plans_that_once_failed_pass() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let entries = std::fs::read_dir(corpus).expect("the corpus is there");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("a folder can be listed").path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "plan"));
    files.sort();
    assert!(!files.is_empty(), "there are some");
    run_all(files.iter().map(|file| read(file)));
}

#[test]
fn a_plan_that_is_written_parses_to_the_same() {
    for seed in 0..200 {
        let plan = Plan::draw(seed, seed % 2 == 0);
        let again: Plan = plan.to_string().parse().expect("it is a plan");
        assert_eq!(format!("{again:?}"), format!("{plan:?}"));
    }
    for bad in ["", "rendezvous-plan 2", "rendezvous-plan 1\nrun seed=x", "rendezvous-plan 1\nking id=0"] {
        assert!(bad.parse::<Plan>().is_err(), "{bad:?}");
    }
}

/// A check that is made to fail, with and without TLS: the report is small, and reproduces it.
#[test]
fn a_failure_is_reduced_recorded_and_reproduced() {
    let secured = Secured::new();
    for tls in [false, true] {
        let drawn = (0..).map(|seed| Plan { received_max: Some(5), ..Plan::draw(seed, tls) });
        let failing =
            drawn.filter_map(|plan| shrinker::run(&plan, false, &secured).err().map(|it| (plan, it)));
        // How small a plan becomes depends on chance, so the smallest of a few is taken.
        let told = failing.filter(|(plan, _)| plan.participants.len() > 6).take(4).map(|(plan, failure)| {
            assert_eq!(failure.why, "more bytes than the test allows");
            (shrinker::report(&plan, failure.clone(), &secured), failure)
        });
        let (report, failure) =
            told.min_by_key(|(report, _)| report.plan.participants.len()).expect("there are enough seeds");
        assert!(report.plan.participants.len() <= 3, "one who sends and one who receives: {}", report.plan);

        let folder = folder().join(if tls { "shown-tls" } else { "shown" });
        std::fs::create_dir_all(&folder).expect("a folder can be made");
        let files = report.write(&folder).expect("files can be written");
        let text = report.text(&Ok(files.clone()));
        assert!(text.contains(&failure.why) && text.contains("PLAN="), "{text}");

        let again = shrinker::run(&read(&files.plan), false, &secured).expect_err("it fails again");
        assert_eq!(again.why, failure.why);

        let recorded = std::fs::read_to_string(&files.trace).expect("it was written");
        let trace = Trace::parse(&recorded).unwrap_or_else(|error| panic!("{error}\n{recorded}"));
        assert!(recorded.contains("    -> pair "), "{recorded}");
        assert_eq!(Replay::new(&trace).find_map(|played| played.difference()), None, "{recorded}");
    }
}

/// A recorded run is the same run, and its trace replays to its recorded actions.
#[test]
fn the_trace_of_a_run_replays() {
    let secured = Secured::new();
    for seed in 0..24 {
        let plan = Plan::draw(seed, false);
        let plain = plan.run(false, &secured).expect("what must hold holds");
        let told = plan.run(true, &secured).expect("what must hold holds");
        let bare = Outcome { log: String::new(), trace: String::new(), ..told.clone() };
        assert_eq!(bare, plain, "seed {seed}: to be recorded changes nothing");
        let trace = Trace::parse(&told.trace).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let difference = Replay::new(&trace).find_map(|played| played.difference());
        assert_eq!(difference, None, "seed {seed}");
    }
}

/// However many attackers there are, an honest client waits no longer than the constant [`siege::WAIT_MAX`]: with the
/// minimum of memory, and with less.
fn besiege(kinds: &[Kind]) {
    for ceiling in [256 << 10, 1 << 20] {
        for attackers in [15, 60, 150] {
            let siege = siege::lay(kinds, attackers, 6, ceiling);
            println!("{kinds:?}, {attackers}, {ceiling} bytes: {siege:?}");
            assert!(siege.waited <= siege::WAIT_MAX);
        }
    }
}

#[test]
fn an_honest_client_waits_no_longer_the_more_slow_readers_there_are() {
    besiege(&[Kind::SlowReader]);
}

#[test]
fn an_honest_client_waits_no_longer_the_more_drip_readers_there_are() {
    besiege(&[Kind::DripReader]);
}

#[test]
fn an_honest_client_waits_no_longer_the_more_half_heads_there_are() {
    besiege(&[Kind::HalfHead]);
}

#[test]
fn an_honest_client_waits_no_longer_the_more_half_hellos_there_are() {
    besiege(&[Kind::HalfHello]);
}

#[test]
fn an_honest_client_waits_no_longer_the_more_pipeliners_there_are() {
    besiege(&[Kind::Pipeliner]);
}

#[test]
fn an_honest_client_waits_no_longer_the_more_attackers_of_all_kinds_there_are() {
    besiege(&Kind::IN_CLEAR);
}

/// Clients that reuse their connections for requests to several hidden servers: each request is answered by the one
/// that it names. `SEED_REUSE=…` runs one seed, `SEEDS_REUSE=…` this many.
#[test]
fn each_request_of_a_reused_connection_is_answered_by_the_hidden_server_that_it_names() {
    let seeds = match asked("SEED_REUSE") {
        Some(seed) => seed..seed + 1,
        None => 0..asked("SEEDS_REUSE").unwrap_or(16),
    };
    let secured = Secured::new();
    let (mut connections, mut pairs, mut requests) = (0, 0, 0);
    for seed in seeds {
        let run = reuse::run(seed, seed % 4 == 0, &secured);
        connections += run.connections;
        pairs += run.pairs;
        requests += run.requests;
    }
    println!("{requests} requests over {connections} connections, {pairs} pairs");
    assert!(pairs > 2 * connections as usize, "clients move between hidden servers on one connection");
}

/// 150 clients at once with a round trip of 100 ms; 60 and 120 with 200 ms. These are more connections than may be
/// opened at once.
#[test]
fn a_growing_pool_serves_a_whole_burst_of_clients() {
    let secured = Secured::new();
    for (clients, round_trip, slowest) in [(150, 100, 3_150), (60, 200, 4_500), (120, 200, 6_000)] {
        let burst = burst::run(clients, Span::from_millis(round_trip), POOL_MAX, &secured);
        println!("{clients} clients, {round_trip} ms: {burst:?}");
        assert_eq!(burst.refusals, [], "{clients} clients, {round_trip} ms");
        assert!(burst.slowest <= Span::from_millis(slowest), "{clients} clients: {:?}", burst.slowest);
        assert_eq!((burst.lost, burst.waiting), (0, u32::from(POOL)), "the pool has grown and shrunk");
    }
    let fixed = burst::run(150, Span::from_millis(100), POOL, &secured);
    assert!(fixed.refusals.len() > 20, "a pool that does not grow can't serve them: {fixed:?}");
}

#[test]
fn take_overs_lose_no_request_and_no_transfer_and_leave_idle_processes() {
    let secured = Secured::new();
    for (is_tls, count, round_trip) in [(false, 4, 40), (true, 2, 100), (true, 2, 200)] {
        let upgrades = upgrade::run(count, Span::from_millis(round_trip), is_tls, &secured);
        println!("TLS {is_tls}: {upgrades:?}");
        assert_eq!((upgrades.refusals.clone(), upgrades.lost, upgrades.transferred), (vec![], 0, true));
        assert_eq!(upgrades.idle_steps, 0, "processes that were taken over from");
    }
    let once = upgrade::run(1, Span::from_millis(40), false, &secured);
    assert_eq!((once.backoffs, once.reported), (0, 1), "one line, and the agent is back at once: {once:?}");
}

/// An agent tries a relay that is away every two seconds for the first minute, and less often later.
#[test]
fn agents_are_back_soon_after_their_relay_was_away() {
    let secured = Secured::new();
    let agents = Agents { count: 3, pool: POOL, round_trip: Span::from_millis(100), is_tls: true };
    for (absence, at_most) in [(20, 3), (50, 3), (600, 65)] {
        let back = absence::run(agents, Span::from_secs(absence), agents.count, &secured);
        println!("away for {absence} s: {back:?}");
        assert!(back.agents_after <= Span::from_secs(at_most), "away for {absence} s: {back:?}");
    }
}

/// Many agents come back at once, and clients come in the same moment. `AGENTS=1500 cargo test …` runs as many as one
/// likes.
#[test]
fn many_agents_are_back_within_10_s_of_a_restart_and_no_client_is_refused() {
    let count = asked("AGENTS").unwrap_or(150);
    let agents = Agents { count, pool: 1, round_trip: Span::from_millis(100), is_tls: false };
    let back = absence::run(agents, Span::from_secs(3), 100, &Secured::new());
    println!("{count} agents: {back:?}");
    assert!(back.agents_after.max(back.clients_after) <= Span::from_secs(10), "{back:?}");
    assert_eq!(back.refusals, []);
}
