//! How fast, and how small, the relay is: beside HAProxy, nginx and rathole, on the same loads.
//!
//! ```text
//! cargo bench -p tests --bench relay [-- OPTIONS]
//!
//!   --only TEXT      only scenarios whose name has this in it; may be repeated (--list shows the names)
//!   --rounds N       rounds of each scenario (7)
//!   --quick          a quarter of the load, 3 rounds
//!   --json FILE      the results as JSON into this file, instead of behind the tables
//!   --binary FILE    measure this binary, instead of one that is built first
//!   --against FILE   one more binary of ours, to compare with
//!   --verbose        each measurement as it is made
//! ```
//!
//! # How to read it
//!
//! There are no absolute figures to reach here: machines differ, and what else runs on them. Every scenario runs in
//! rounds, and in each round every relay has its turn, one after the other, so that all of them see the same noise.
//! A row is one quantity at one relay: the median of its rounds, the least and the most, and for each other relay the
//! *ratio* of the first to it: the median of the ratios within one round. `busy` is the part of the time in which the
//! relay had the processor: where it is well under 100 %, the load and not the relay was the limit, and only the CPU
//! rows judge. CPU times are those of the relay's process alone, in user and kernel, in nanoseconds of the scheduler's
//! account.
//!
//! Processor 0 is the relay's; the load, which is both the client and the hidden server (for the other relays: the
//! server behind them), has the others. So that the load is no limit it seals what it is going to send before the clock
//! starts, and of what it receives it reads the record headers alone; each pair first moves some octets that are
//! opened and compared. Everybody speaks TLS 1.3 with AES-128-GCM, X25519 and one ECDSA P-256 certificate, with no
//! log of single connections. HAProxy has one thread and the buffers it comes with; nginx one process and 64 KiB
//! buffers. Their configurations are in `peers.rs`.
//!
//! `congestion` is TCP's congestion control. BBR paces what is sent by what it believes of the path, which on loopback is
//! less than a processor can do: the relays are half idle then, and throughput says little. A network of its own has
//! what Linux comes with, and changes nothing for others:
//!
//! ```text
//! unshare -rn sh -c 'ip link set lo up; sysctl -w net.ipv4.tcp_congestion_control=cubic; cargo bench …'
//! ```
//!
//! It ends with 1 only if it could not run: slow is no error. It needs `taskset`, `prlimit` and `setpriv`
//! (util-linux).

#![allow(clippy::disallowed_methods, reason = "what is measured is time")]

mod args;
mod bulk;
mod calls;
mod direct;
mod end;
mod fair;
mod field;
mod footprint;
mod handshakes;
mod memory;
mod pair;
mod peers;
mod process;
mod report;
mod sink;
mod talk;
mod throughput;

use std::process::ExitCode;

use crate::args::Args;
use crate::field::Field;
use crate::report::Report;

/// What went wrong, to be shown.
pub(crate) type Failure = Box<dyn std::error::Error>;

/// Takes the measurements of a scenario.
type Run = Box<dyn Fn(&mut Field, &Args, &mut Report) -> Result<(), Failure>>;

/// One scenario: its name, and what runs it.
pub(crate) struct Scenario {
    pub(crate) name: String,
    pub(crate) run: Run,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("relay: {why}");
            ExitCode::FAILURE
        }
    }
}

fn scenarios() -> Vec<Scenario> {
    [
        throughput::scenarios(),
        handshakes::scenarios(),
        talk::scenarios(),
        fair::scenarios(),
        memory::scenarios(),
        calls::scenarios(),
        direct::scenarios(),
        footprint::scenarios(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn run() -> Result<(), Failure> {
    let args = Args::read(std::env::args().skip(1))?;
    let mut wanted = scenarios();
    wanted.retain(|it| args.wants(&it.name));
    if args.list {
        wanted.iter().for_each(|it| println!("{}", it.name));
        return Ok(());
    }
    if wanted.is_empty() {
        return Err("no scenario has such a name; --list shows them".into());
    }
    let mut field = Field::new(&args)?;
    let mut report = Report::new(field.about(), args.verbose);
    for scenario in &wanted {
        report.begin(&scenario.name);
        (scenario.run)(&mut field, &args, &mut report).map_err(|why| format!("{}: {why}", scenario.name))?;
        report.show();
    }
    report.write_json(args.json.as_deref())
}
