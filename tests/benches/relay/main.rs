//! Speed and size of the relay, beside HAProxy, nginx and rathole, on the same loads.
//!
//! ```text
//! cargo bench -p tests --bench relay [-- OPTIONS]
//!
//!   --only TEXT      only scenarios whose name contains this; may be repeated (--list shows the names)
//!   --rounds N       rounds of each scenario (7)
//!   --quick          a quarter of the load, 3 rounds
//!   --json FILE      write the results as JSON into this file, instead of after the tables
//!   --binary FILE    measure this binary, instead of building one
//!   --against FILE   one more binary of ours, to compare with
//!   --verbose        print each measurement
//! ```
//!
//! # How to read it
//!
//! Absolute figures depend on the machine and its other load. Every scenario runs in rounds. In each round every relay
//! has its turn, one after the other, so that all have the same noise. A row is one quantity at one relay: the median,
//! the minimum and the maximum of its rounds, and for each other relay the *ratio* of the first to it: the median of
//! the ratios within one round. `busy` is the part of the time in which the relay used the processor. If it is well
//! under 100 %, the load was the bottleneck and not the relay; then only the CPU rows are meaningful. CPU times are
//! those of the relay's process only, user and kernel, in nanoseconds of the scheduler's accounting.
//!
//! The relay has processor 0. The load, which is both the client and the hidden server (for the other relays: the
//! server behind them), has the other processors. So that the load is not the bottleneck, it encrypts its bytes before
//! the clock starts, and reads only the record headers of what it receives. Each pair first moves some bytes that are
//! decrypted and compared. All use TLS 1.3 with AES-128-GCM, X25519 and one ECDSA P-256 certificate, without logs of
//! single connections. HAProxy has one thread and its default buffers; nginx one process and 64 KiB buffers. Their
//! configurations are in `peers.rs`.
//!
//! `congestion` is TCP's congestion control. BBR paces by its estimate of the path, which on loopback is less than a
//! processor can do: then the relays are half idle, and throughput means little. A network namespace of its own has
//! Linux's default, and changes nothing for others:
//!
//! ```text
//! unshare -rn sh -c 'ip link set lo up; sysctl -w net.ipv4.tcp_congestion_control=cubic; cargo bench …'
//! ```
//!
//! The exit code is 1 only if it could not run; a slow result is no error. It needs `taskset`, `prlimit` and `setpriv`
//! (util-linux).

#![allow(clippy::disallowed_methods, reason = "what is measured is time")]

mod args;
mod bulk;
mod calls;
mod direct;
mod end;
mod exchange;
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
mod throughput;

use std::process::ExitCode;

use crate::args::Args;
use crate::field::Field;
use crate::report::Report;

/// Any error, to be printed.
pub(crate) type Failure = Box<dyn std::error::Error>;

/// Takes the measurements of a scenario.
type Run = Box<dyn Fn(&mut Field, &Args, &mut Report) -> Result<(), Failure>>;

/// One scenario: its name and its function.
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
        exchange::scenarios(),
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
