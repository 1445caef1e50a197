//! System calls per MiB, counted by `perf`, or by `strace`, which slows the relay down and so counts a little fewer.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::args::Args;
use crate::bulk::{self, Flow, Nothing};
use crate::field::Field;
use crate::pair::Pair;
use crate::peers::{Transport, find};
use crate::process::PATIENCE;
use crate::report::{Quantity, Report};
use crate::{Failure, Scenario};

/// Bytes of one measurement.
const BYTES: usize = 64 << 20;

const CALLS: Quantity = Quantity { name: "system calls", unit: "1/MiB" };

pub(crate) fn scenarios() -> Vec<Scenario> {
    let scenario = |transport: Transport| Scenario {
        name: format!("system-calls/{}", transport.name()),
        run: Box::new(move |field, args, report| run(field, args, report, transport)),
    };
    Transport::ALL.into_iter().map(scenario).collect()
}

fn run(field: &mut Field, args: &Args, report: &mut Report, transport: Transport) -> Result<(), Failure> {
    let Some(counter) = Counter::choose() else {
        eprintln!("relay: system calls cannot be counted: apt-get install strace (or linux-perf)");
        return Ok(());
    };
    let (relays, ground) = field.cast(|kind| kind.carries(transport))?;
    for _ in 0..args.rounds.min(3) {
        for relay in &relays {
            let down = args.load(BYTES);
            let mut flows: Vec<Flow> =
                Flow::pair(Pair::open(relay, ground, transport)?, down as u64, 0)?.into_iter().collect();
            relay.process.settle()?;
            let counting = counter.start(relay.process.pid(), &ground.new_folder()?.join("calls"))?;
            bulk::run(&mut flows, &mut Nothing)?;
            let calls = counting.finish()?;
            report.sample(relay.name(), CALLS, calls as f64 / (down as f64 / f64::from(1 << 20)));
        }
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Counter {
    Perf,
    Strace,
}

impl Counter {
    /// perf if tracepoints are permitted; else strace, if it is installed.
    fn choose() -> Option<Self> {
        let sees = || {
            let mut perf = Command::new("perf");
            perf.args(["stat", "-e", "raw_syscalls:sys_enter", "true"]);
            perf.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
        };
        if find("perf").is_some() && sees() {
            return Some(Self::Perf);
        }
        find("strace").map(|_| Self::Strace)
    }

    /// Attaches to a process. When it returns, calls are counted.
    fn start(self, pid: u32, to: &Path) -> Result<Counting, Failure> {
        let mut command = match self {
            Self::Perf => {
                let mut perf = Command::new("perf");
                perf.args(["stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-p", &pid.to_string(), "-o"]);
                perf
            }
            Self::Strace => {
                let mut strace = Command::new("strace");
                strace.args(["-c", "-f", "-p", &pid.to_string(), "-o"]);
                strace
            }
        };
        let child =
            command.arg(to).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let mut counting = Counting { counter: self, child, to: to.to_owned() };
        let begun = Instant::now();
        while !counting.is_attached(pid)? {
            if counting.child.try_wait()?.is_some() || begun.elapsed() > PATIENCE {
                return Err(format!("{command:?} does not attach").into());
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(counting)
    }
}

struct Counting {
    counter: Counter,
    child: Child,
    to: PathBuf,
}

impl Counting {
    fn is_attached(&self, pid: u32) -> Result<bool, Failure> {
        match self.counter {
            Counter::Perf => {
                let open = fs::read_dir(format!("/proc/{}/fd", self.child.id()))?;
                let is_event = |path: PathBuf| path.to_string_lossy().contains("perf_event");
                Ok(open.flatten().any(|entry| fs::read_link(entry.path()).is_ok_and(is_event)))
            }
            Counter::Strace => {
                let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
                Ok(status.lines().any(|line| line == format!("TracerPid:\t{}", self.child.id())))
            }
        }
    }

    fn finish(mut self) -> Result<u64, Failure> {
        Command::new("kill").args(["-INT", &self.child.id().to_string()]).status()?;
        self.child.wait()?;
        let text = fs::read_to_string(&self.to)?;
        let number = match self.counter {
            Counter::Perf => {
                text.lines().find(|line| line.contains("sys_enter")).and_then(|it| it.split(',').next())
            }
            Counter::Strace => {
                let total = text.lines().find(|line| line.ends_with("total"));
                total.and_then(|line| line.split_whitespace().nth(3))
            }
        };
        Ok(number.and_then(|it| it.parse().ok()).ok_or_else(|| format!("no count in {text:?}"))?)
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
