//! New connections: full and resumed TLS handshakes, and whole rendezvous.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustls::ClientConfig;

use crate::args::Args;
use crate::end::{self, Below, End};
use crate::field::{Field, Ground, Identity};
use crate::pair::{self, expect, hand_over};
use crate::peers::{Kind, Relay, Transport};
use crate::report::{BUSY, Quantity, Report};
use crate::{Failure, Scenario};

/// Concurrent connections: enough that the relay is never idle.
const AT_A_TIME: usize = 8;
/// Handshakes, or rendezvous, of one measurement.
const COUNT: usize = 2_000;

const HANDSHAKES: Quantity = Quantity { name: "handshakes", unit: "1/s" };
const HANDSHAKES_CPU: Quantity = Quantity { name: "handshakes by cpu time", unit: "1/s" };
const RENDEZVOUS: Quantity = Quantity { name: "rendezvous", unit: "1/s" };
const RENDEZVOUS_CPU: Quantity = Quantity { name: "cpu of a rendezvous", unit: "µs" };

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario { name: "handshakes/full".to_owned(), run: Box::new(|a, b, c| handshakes(a, b, c, false)) },
        Scenario {
            name: "handshakes/resumed".to_owned(),
            run: Box::new(|a, b, c| handshakes(a, b, c, true)),
        },
        Scenario { name: "handshakes/rendezvous".to_owned(), run: Box::new(rendezvous) },
    ]
}

fn tells_handshakes(kind: &Kind) -> bool {
    kind.carries(Transport::TLS_TLS)
}

fn handshakes(field: &mut Field, args: &Args, report: &mut Report, resumes: bool) -> Result<(), Failure> {
    let (relays, _) = field.cast(tells_handshakes)?;
    for _ in 0..args.rounds {
        for relay in &relays {
            let spent = shake(relay, args.load(COUNT), resumes)?;
            spent.note(report, relay.name(), 1.0);
        }
    }
    Ok(())
}

/// Beside the full handshakes of HAProxy and nginx: a rendezvous has two.
fn rendezvous(field: &mut Field, args: &Args, report: &mut Report) -> Result<(), Failure> {
    let (relays, ground) = field.cast(tells_handshakes)?;
    for _ in 0..args.rounds {
        for relay in &relays {
            if relay.kind.is_rendezvous() {
                let spent = meet(relay, ground, args.load(COUNT) / 2)?;
                report.sample(relay.name(), RENDEZVOUS, spent.count / spent.wall.as_secs_f64());
                report.sample(relay.name(), RENDEZVOUS_CPU, spent.cpu.as_secs_f64() * 1e6 / spent.count);
                spent.note(report, relay.name(), 2.0);
            } else {
                shake(relay, args.load(COUNT), false)?.note(report, relay.name(), 1.0);
            }
        }
    }
    Ok(())
}

/// A count and its duration.
struct Spent {
    count: f64,
    wall: Duration,
    cpu: Duration,
}

impl Spent {
    fn note(&self, report: &mut Report, relay: &'static str, handshakes_of_each: f64) {
        let handshakes = self.count * handshakes_of_each;
        report.sample(relay, HANDSHAKES, handshakes / self.wall.as_secs_f64());
        report.sample(relay, HANDSHAKES_CPU, handshakes / self.cpu.as_secs_f64());
        report.sample(relay, BUSY, self.cpu.as_secs_f64() / self.wall.as_secs_f64() * 100.0);
    }
}

/// Runs an operation this often, some concurrently; `one` gets the number of its lane.
fn repeat(
    relay: &Relay,
    count: usize,
    one: impl Fn(usize) -> Result<(), Failure> + Sync,
) -> Result<Spent, Failure> {
    let each = count.div_ceil(AT_A_TIME);
    relay.process.settle()?;
    let (cpu, clock) = (relay.process.cpu()?, Instant::now());
    thread::scope(|scope| {
        let lane = |lane| {
            let one = &one;
            // A failure need not be Send; its text is.
            scope.spawn(move || (0..each).try_for_each(|_| one(lane)).map_err(|why| why.to_string()))
        };
        let lanes: Vec<_> = (0..AT_A_TIME).map(lane).collect();
        lanes.into_iter().try_for_each(|lane| lane.join().expect("no lane panics"))
    })?;
    let wall = clock.elapsed();
    relay.process.settle()?;
    Ok(Spent { count: (each * AT_A_TIME) as f64, wall, cpu: relay.process.cpu()? - cpu })
}

fn shake(relay: &Relay, count: usize, resumes: bool) -> Result<Spent, Failure> {
    let configs = (0..AT_A_TIME).map(|_| end::client_config(resumes)).collect::<Result<Vec<_>, _>>()?;
    if resumes {
        // The first handshake of each has no ticket yet.
        configs.iter().try_for_each(|config| handshake(relay, config).map(drop))?;
    }
    repeat(relay, count, |lane| match handshake(relay, &configs[lane])? == resumes {
        true => Ok(()),
        false => {
            Err(format!("{}: a handshake is resumed, or is not, against what was asked", relay.name()).into())
        }
    })
}

/// Performs a handshake, and returns whether it was resumed. It awaits the relay's own end, when the relay's work is
/// done.
fn handshake(relay: &Relay, config: &Arc<ClientConfig>) -> Result<bool, Failure> {
    let mut end = End::connect(relay.alone(), Some(config))?;
    if relay.kind != Kind::Nginx {
        end.end()?;
    }
    end.drain();
    Ok(end.is_resumed())
}

fn meet(relay: &Relay, ground: &Ground, count: usize) -> Result<Spent, Failure> {
    repeat(relay, count, |lane| meet_once(relay, ground, &ground.identities[lane]))
}

/// A hidden server connects, a client connects, is challenged, and gets a response; both leave.
fn meet_once(relay: &Relay, ground: &Ground, identity: &Identity) -> Result<(), Failure> {
    let mut hidden = pair::wait(relay, ground, identity, Below::Tls)?;
    let mut client = End::connect(relay.entrance(Transport::TLS_TLS), Some(&ground.client))?;
    std::io::Write::write_all(&mut client, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    expect(&mut client, "HTTP/1.1 401")?;
    std::io::Write::write_all(&mut client, identity.get().as_bytes())?;
    hand_over(&mut client, &mut hidden)?;
    client.end()?;
    hidden.drain();
    hidden.end()?;
    client.drain();
    Ok(())
}
