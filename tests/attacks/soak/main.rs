//! Soak test of the relay with thousands of connections: many that wait, clients that come and go, some with a reset,
//! agents that are killed, and reloads. No byte of a pair may be lost, and nothing may grow.
//!
//! ```text
//! cargo build --release -p rendezvous-relay
//! cargo test -p tests --test soak -- --relay target/release/rendezvous [OPTIONS]
//!
//!   --relay FILE     the program under test
//!   --seconds N      duration, after all connections wait (120)
//!   --waiting N      waiting connections (5000)
//!   --seed N         seed of all random choices (from the clock)
//! ```
//!
//! One process has all the connections: they come from all of 127.0.0.0/8, half of them with TLS. Some pairs last from
//! the beginning to the end, others move up to a megabyte each way; one in eight is broken by a reset. Beside the
//! test's own hidden servers there are real agents, of which one is killed every five seconds. Every byte is determined
//! by its pair, direction and offset, and checked. A clean end must come after the last byte of a side that ended
//! cleanly. Other ends are allowed only after a kill or a reset. The relay gets SIGHUP every ten seconds. Growth is
//! judged by the medians after a sixth of the time and at its end. When all have left, the relay must have closed every
//! connection.

#![allow(
    clippy::disallowed_methods,
    reason = "it runs against the wall: real sockets, real programs, real time"
)]

mod client;
mod clients;
mod conn;
mod ground;
mod ledger;
mod stream;
mod verdict;

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::clients::Clients;
use crate::verdict::Look;

/// Any error, to be printed.
pub(crate) type Failure = Box<dyn std::error::Error>;

/// Timeout for all connections to begin, and to end.
const PATIENCE: Duration = Duration::from_secs(90);

/// Hidden servers that connect per second at the beginning.
const COMING: usize = 250;

/// Recurring actions.
#[derive(Clone, Copy)]
enum Role {
    /// A client connects.
    Call,
    /// A waiting connection ends.
    Leave,
    /// An agent is killed.
    Kill,
    /// The relay reloads.
    Reload,
    /// The relay's resources are measured.
    Look,
}

/// The intervals of the actions.
const DUTIES: [(Role, Duration); 5] = [
    (Role::Call, Duration::from_millis(20)),
    (Role::Leave, Duration::from_millis(40)),
    (Role::Kill, Duration::from_secs(5)),
    (Role::Reload, Duration::from_secs(10)),
    (Role::Look, Duration::from_secs(1)),
];

fn main() -> ExitCode {
    match Args::read(std::env::args().skip(1)).and_then(|args| run(&args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("soak: {why}");
            ExitCode::FAILURE
        }
    }
}

/// The command line.
struct Args {
    relay: PathBuf,
    seconds: u64,
    waiting: usize,
    seed: u64,
}

impl Args {
    fn read(mut words: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let seed = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let mut args = Self { relay: PathBuf::new(), seconds: 120, waiting: 5000, seed };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
            match word.as_str() {
                "--relay" => args.relay = value()?.into(),
                "--seconds" => args.seconds = value()?.parse()?,
                "--waiting" => args.waiting = value()?.parse()?,
                "--seed" => args.seed = value()?.parse()?,
                other => return Err(format!("{other} is not known").into()),
            }
        }
        if args.relay.as_os_str().is_empty() || args.seconds < 24 {
            return Err("--relay FILE is needed, and 24 seconds at least".into());
        }
        Ok(args)
    }
}

fn run(args: &Args) -> Result<(), Failure> {
    println!("soak: {} seconds, {} waiting, seed {}", args.seconds, args.waiting, args.seed);
    raise_descriptors(2 * args.waiting as u64 + 4000)?;
    let mut clients = Clients::new(&args.relay, args.seed)?;
    let sockets = clients.relay.sockets()?;
    gather(&mut clients, args.waiting)?;
    let looks = churn(&mut clients, args.waiting, args.seconds)?;
    let mut found = verdict::growth(&looks, args.seconds);
    finish(&mut clients)?;
    found.extend(empty(&mut clients, sockets)?);
    let ledger = &clients.common.ledger;
    println!(
        "soak: {} pairs whole, {} broken on purpose, {} clients refused where somebody had just gone, {} bytes right",
        ledger.whole, ledger.broken, ledger.refused, ledger.bytes
    );
    let (reloaded, errors) = clients.relay.finish()?;
    println!("soak: the relay read its files again {reloaded} times");
    if (reloaded as u64) < args.seconds / 10 - 1 {
        found.push(format!("SIGHUP was heeded {reloaded} times only"));
    }
    found.extend(errors.into_iter().map(|line| format!("the relay said {line}")));
    let faults = clients.common.ledger.faults;
    if faults > 0 {
        found.push(format!("{faults} faults (see above); seed {}", args.seed));
    }
    if !found.is_empty() {
        return Err(found.join("\nsoak: ").into());
    }
    println!("soak: passed");
    Ok(())
}

/// Waits until all connections wait. They do not start at once: keepalive would then probe all of them at the same
/// moment, which exceeds loopback's queue (`net.core.netdev_max_backlog`).
fn gather(clients: &mut Clients, waiting: usize) -> Result<(), Failure> {
    let begun = Instant::now();
    clients.start_agents()?;
    let mut there = 0;
    while there < waiting {
        let so_far = begun.elapsed().as_millis() as usize * COMING / 1000;
        there = clients.fill_up(so_far.min(waiting))?.waiting;
        clients.turn()?;
        if begun.elapsed() > PATIENCE || clients.common.ledger.faults > 0 {
            return Err(format!("the crowd does not come together: {:?}", clients.counts()).into());
        }
    }
    println!("soak: {waiting} wait after {:.1} s", begun.elapsed().as_secs_f64());
    Ok(())
}

/// Runs for the requested time.
fn churn(clients: &mut Clients, waiting: usize, seconds: u64) -> Result<Vec<Look>, Failure> {
    let begun = Instant::now();
    let mut looks = Vec::new();
    let mut duties = DUTIES.map(|(liveness, period)| (liveness, period, period));
    clients.call_for_long()?;
    while begun.elapsed().as_secs() < seconds {
        clients.turn()?;
        clients.fill_up(waiting)?;
        clients.revive_in_time()?;
        for &mut (liveness, ref mut due, period) in &mut duties {
            while *due <= begun.elapsed() {
                *due += period;
                match liveness {
                    Role::Call => clients.call_any()?,
                    Role::Leave => clients.one_leaves(),
                    Role::Kill => clients.kill_agent()?,
                    Role::Reload => clients.relay.signal("HUP")?,
                    Role::Look => looks.push(look(clients, begun.elapsed().as_secs())?),
                }
            }
        }
    }
    Ok(looks)
}

fn look(clients: &mut Clients, second: u64) -> Result<Look, Failure> {
    clients.common.ledger.look_for_stuck();
    let (counts, descriptors) = (clients.counts(), clients.relay.descriptors()?);
    let resident = clients.relay.resident()?;
    if second.is_multiple_of(10) {
        let ledger = &clients.common.ledger;
        println!(
            "soak: {second} s: relay {descriptors} descriptors, {resident} KiB; {} waiting, {} pairs, {} whole, \
             {} broken, {} refused, {} MiB, {} faults",
            counts.waiting,
            ledger.len(),
            ledger.whole,
            ledger.broken,
            ledger.refused,
            ledger.bytes >> 20,
            ledger.faults
        );
    }
    let others = descriptors as i64 - counts.connections as i64;
    Ok(Look { second, descriptors: others, resident: resident as i64 })
}

/// Waits until every pair is over.
fn finish(clients: &mut Clients) -> Result<(), Failure> {
    let begun = Instant::now();
    clients.common.stopping = true;
    while clients.common.ledger.len() > 0 && begun.elapsed() < PATIENCE {
        clients.turn()?;
        clients.revive_in_time()?;
        clients.common.ledger.look_for_stuck();
    }
    let left = clients.common.ledger.len();
    if left > 0 {
        let which = clients.common.ledger.open_pairs();
        clients.common.ledger.fault(&format!("{left} pairs do not end: {which}"));
    }
    Ok(())
}

/// Whether the relay closes every connection after all have left.
fn empty(clients: &mut Clients, sockets: u64) -> Result<Option<String>, Failure> {
    let begun = Instant::now();
    clients.leave();
    while clients.relay.sockets()? > sockets && begun.elapsed() < PATIENCE {
        clients.turn()?;
    }
    let left = clients.relay.sockets()?;
    println!("soak: sockets when all had left: {left}, at the start: {sockets}");
    Ok((left > sockets).then(|| format!("{} connections were never closed", left - sockets)))
}

/// Raises the limit of descriptors for this process and its children.
fn raise_descriptors(wanted: u64) -> Result<(), Failure> {
    let pid = std::process::id().to_string();
    let limit = Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={wanted}:")]).output()?;
    let limit = if limit.status.success() {
        limit
    } else {
        Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={wanted}:{wanted}")]).output()?
    };
    if limit.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&limit.stderr).into_owned();
    Err(format!("{wanted} descriptors are needed: {}", why.trim()).into())
}
