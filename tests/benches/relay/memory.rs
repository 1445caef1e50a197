//! Resident memory of relays that were started for it: idle, with many waiting connections, with pairs.

use std::thread;
use std::time::{Duration, Instant};

use crate::args::Args;
use crate::bulk::{self, Flow, Nothing};
use crate::end::{Below, End};
use crate::field::{Field, Ground};
use crate::pair::{self, Pair, hand_over};
use crate::peers::{Relay, Transport};
use crate::report::{Quantity, Report, median};
use crate::{Failure, Scenario};

/// Numbers of waiting connections, in steps.
const STEPS: [usize; 3] = [1_000, 5_000, 9_000];
const PER_WAITING: [Quantity; 3] = [
    Quantity { name: "a waiting one of 1000", unit: "kB" },
    Quantity { name: "a waiting one of 5000", unit: "kB" },
    Quantity { name: "a waiting one of 9000", unit: "kB" },
];
const IDLE: Quantity = Quantity { name: "idle", unit: "MB" };
const LEFT: Quantity = Quantity { name: "left after a wave", unit: "MB" };
const IDLE_OWN: Quantity = Quantity { name: "idle, its own", unit: "MB" };
const LEFT_OWN: Quantity = Quantity { name: "left after a wave, its own", unit: "MB" };
const RAISED: Quantity = Quantity { name: "peak raised by a second", unit: "MB" };
const PER_PAIR: Quantity = Quantity { name: "an idle pair", unit: "kB" };
const PER_BUSY_PAIR: Quantity = Quantity { name: "a pair under load, peak", unit: "kB" };
const LATENCY: Quantity = Quantity { name: "rendezvous", unit: "µs" };

/// Idle pairs of one measurement; pairs under load.
const PAIRS: usize = 1_000;
const BUSY_PAIRS: usize = 16;
/// Rendezvous of one round while many connections wait.
const MEETINGS: usize = 100;
/// Every process is a new one: three show the variation.
const ROUNDS_MAX: usize = 3;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario { name: "memory/waiting".to_owned(), run: Box::new(waiting) },
        Scenario { name: "memory/pairs".to_owned(), run: Box::new(pairs) },
        Scenario { name: "latency/many-waiting".to_owned(), run: Box::new(latency) },
    ]
}

/// The steps for these arguments.
fn steps(args: &Args) -> &'static [usize] {
    if args.quick { &STEPS[..1] } else { &STEPS }
}

fn waiting(field: &mut Field, args: &Args, report: &mut Report) -> Result<(), Failure> {
    let kinds: Vec<_> =
        field.kinds().iter().filter(|kind| kind.carries(Transport::TLS_TLS)).cloned().collect();
    for _ in 0..args.rounds.min(ROUNDS_MAX) {
        for kind in &kinds {
            let relay = Relay::start(kind.clone(), &field.ground)?;
            report.sample(relay.name(), IDLE, megabytes(relay.process.resident()? as f64));
            report.sample(relay.name(), IDLE_OWN, megabytes(relay.process.own()? as f64));
            if kind.is_rendezvous() {
                waves(&relay, &field.ground, report, steps(args))?;
            }
        }
    }
    Ok(())
}

fn waves(relay: &Relay, ground: &Ground, report: &mut Report, steps: &[usize]) -> Result<(), Failure> {
    let (idle, descriptors) = (relay.process.resident()? as f64, relay.process.descriptors()?);
    let own = relay.process.own()? as f64;
    let mut crowd = Vec::new();
    for (step, quantity) in steps.iter().zip(PER_WAITING) {
        gather(relay, ground, &mut crowd, *step)?;
        relay.process.settle()?;
        let each = (relay.process.resident()? as f64 - idle) / crowd.len() as f64;
        report.sample(relay.name(), quantity, each / 1e3);
    }
    crowd.clear();
    relay.process.closes_all_but(descriptors)?;
    // The relay checks once per second whether a wave is over.
    thread::sleep(Duration::from_millis(2_500));
    relay.process.settle()?;
    report.sample(relay.name(), LEFT, megabytes(relay.process.resident()? as f64 - idle));
    report.sample(relay.name(), LEFT_OWN, megabytes(relay.process.own()? as f64 - own));
    let first = relay.process.peak()?;
    gather(relay, ground, &mut crowd, *steps.last().expect("there is a step"))?;
    report.sample(relay.name(), RAISED, megabytes((relay.process.peak()? - first) as f64));
    Ok(())
}

/// Opens waiting connections up to this number.
fn gather(relay: &Relay, ground: &Ground, crowd: &mut Vec<End>, until: usize) -> Result<(), Failure> {
    while crowd.len() < until {
        let identity = &ground.identities[crowd.len() % ground.identities.len()];
        crowd.push(pair::wait(relay, ground, identity, Below::Tls)?);
    }
    Ok(())
}

fn pairs(field: &mut Field, args: &Args, report: &mut Report) -> Result<(), Failure> {
    let kinds: Vec<_> =
        field.kinds().iter().filter(|kind| kind.carries(Transport::TLS_TLS)).cloned().collect();
    let ground = &field.ground;
    for _ in 0..args.rounds.min(ROUNDS_MAX) {
        for kind in &kinds {
            let relay = Relay::start(kind.clone(), ground)?;
            let idle = relay.process.resident()? as f64;
            let open = || Pair::open(&relay, ground, Transport::TLS_TLS);
            let all = (0..args.load(PAIRS)).map(|_| open()).collect::<Result<Vec<_>, _>>()?;
            relay.process.settle()?;
            let each = (relay.process.resident()? as f64 - idle) / all.len() as f64;
            report.sample(relay.name(), PER_PAIR, each / 1e3);
            drop(all);

            let relay = Relay::start(kind.clone(), ground)?;
            let mut flows = Vec::new();
            for _ in 0..BUSY_PAIRS {
                let pair = Pair::open(&relay, ground, Transport::TLS_TLS)?;
                flows.extend(Flow::pair(pair, 4 << 20, 4 << 20)?);
            }
            bulk::run(&mut flows, &mut Nothing)?;
            let each = (relay.process.peak()? as f64 - idle) / BUSY_PAIRS as f64;
            report.sample(relay.name(), PER_BUSY_PAIR, each / 1e3);
        }
    }
    Ok(())
}

/// The same rendezvous at a relay with many waiting connections and at one with few.
fn latency(field: &mut Field, args: &Args, report: &mut Report) -> Result<(), Failure> {
    let kind = field.kinds().first().cloned().ok_or("no relay of ours")?;
    let ground = &field.ground;
    let many = *steps(args).last().expect("there is a step");
    let name = if args.quick { "of 1000 waiting" } else { "of 9000 waiting" };
    let mut crowds = Vec::new();
    for (name, size) in [(name, many), ("of 10 waiting", 10)] {
        let relay = Relay::start(kind.clone(), ground)?;
        let mut crowd = Vec::new();
        gather(&relay, ground, &mut crowd, size)?;
        relay.process.settle()?;
        crowds.push((name, relay, crowd));
    }
    for _ in 0..args.rounds {
        let mut times: Vec<Vec<f64>> = vec![Vec::new(); crowds.len()];
        for _ in 0..args.load(MEETINGS) {
            for ((_, relay, _), times) in crowds.iter().zip(&mut times) {
                times.push(meet(relay, ground)?.as_secs_f64() * 1e6);
            }
        }
        for ((name, ..), times) in crowds.iter().zip(times) {
            report.sample(name, LATENCY, median(times));
        }
    }
    Ok(())
}

/// The time from a client's first packet to its response.
fn meet(relay: &Relay, ground: &Ground) -> Result<Duration, Failure> {
    let identity = &ground.identities[0];
    let mut hidden = pair::wait(relay, ground, identity, Below::Tls)?;
    let clock = Instant::now();
    let mut client = End::connect(relay.entrance(Transport::TLS_TLS), Some(&ground.client))?;
    std::io::Write::write_all(&mut client, identity.get().as_bytes())?;
    hand_over(&mut client, &mut hidden)?;
    let time = clock.elapsed();
    client.end()?;
    hidden.drain();
    hidden.end()?;
    client.drain();
    Ok(time)
}

fn megabytes(bytes: f64) -> f64 {
    bytes / 1e6
}
