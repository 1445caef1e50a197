//! A relay's process: its processor, and the kernel's accounting of it.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::Failure;

/// Timeout for everything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A program on a processor of its own. It is killed when it is dropped.
pub(crate) struct Process {
    child: Child,
    /// From the start to the first accepted connection.
    pub(crate) start_up: Duration,
}

impl Process {
    /// Starts it on that processor, with its output in a file, and waits until it listens at `ready`.
    pub(crate) fn start(
        command: &mut Command,
        processor: usize,
        log: &Path,
        ready: SocketAddr,
    ) -> Result<Self, Failure> {
        let shown = command.get_program().to_string_lossy().into_owned();
        let out = File::create(log)?;
        let mut pinned = Command::new("taskset");
        // If this process is killed, its children are too.
        pinned.args(["-c", &processor.to_string(), "setpriv", "--pdeathsig", "KILL"]);
        pinned.arg(command.get_program()).args(command.get_args());
        pinned.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        let begun = Instant::now();
        let child = pinned.spawn().map_err(|error| format!("cannot run taskset {shown}: {error}"))?;
        let mut process = Self { child, start_up: Duration::ZERO };
        while TcpStream::connect(ready).is_err() {
            if process.child.try_wait()?.is_some() || begun.elapsed() > PATIENCE {
                let said = fs::read_to_string(log).unwrap_or_default();
                return Err(format!("{shown} does not come up at {ready}; it says:\n{said}").into());
            }
            thread::sleep(Duration::from_micros(100));
        }
        process.start_up = begun.elapsed();
        Ok(process)
    }

    /// Its process ID (`taskset` and `setpriv` replace themselves by the program).
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The processor time that it has used, user and kernel, all threads.
    pub(crate) fn cpu(&self) -> Result<Duration, Failure> {
        let mut nanos = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.pid()))? {
            let text = fs::read_to_string(task?.path().join("schedstat"))?;
            let first = text.split_whitespace().next().and_then(|word| word.parse::<u64>().ok());
            nanos += first.ok_or("no times in schedstat: the kernel keeps none")?;
        }
        Ok(Duration::from_nanos(nanos))
    }

    /// Its resident memory, in bytes.
    pub(crate) fn resident(&self) -> Result<u64, Failure> {
        self.status("VmRSS:")
    }

    /// Its anonymous resident memory, in bytes. The rest is pages of the program and libc, which the kernel can drop.
    pub(crate) fn own(&self) -> Result<u64, Failure> {
        self.status("RssAnon:")
    }

    /// Its peak resident memory, in bytes.
    pub(crate) fn peak(&self) -> Result<u64, Failure> {
        self.status("VmHWM:")
    }

    fn status(&self, field: &str) -> Result<u64, Failure> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = text.lines().find_map(|line| line.strip_prefix(field));
        let kib =
            line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|kib| kib.parse::<u64>().ok());
        Ok(kib.ok_or_else(|| format!("no {field} in /proc/{}/status", self.pid()))? * 1024)
    }

    /// How many descriptors it has open.
    pub(crate) fn descriptors(&self) -> Result<usize, Failure> {
        Ok(fs::read_dir(format!("/proc/{}/fd", self.pid()))?.count())
    }

    /// Waits until it has at most this many descriptors open.
    pub(crate) fn closes_all_but(&self, descriptors: usize) -> Result<(), Failure> {
        let begun = Instant::now();
        while self.descriptors()? > descriptors {
            if begun.elapsed() > PATIENCE {
                return Err("a relay keeps connections whose peers have left".into());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Waits until it uses less than a hundredth of a processor: its pending work is done.
    pub(crate) fn settle(&self) -> Result<(), Failure> {
        let begun = Instant::now();
        let mut before = self.cpu()?;
        while begun.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(50));
            let after = self.cpu()?;
            if after.saturating_sub(before) < Duration::from_micros(500) {
                return Ok(());
            }
            before = after;
        }
        Err("a relay does not come to rest".into())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Binds this process to all processors except the relays' processor 0, and raises its limit of descriptors, which must
/// be at least this.
pub(crate) fn prepare(descriptors: u64, processors: usize) -> Result<(), Failure> {
    let pid = std::process::id().to_string();
    if processors < 2 {
        eprintln!(
            "relay: one processor alone: relay and load share it, and nothing but CPU times means anything"
        );
    } else {
        let others = format!("1-{}", processors - 1);
        call(Command::new("taskset").args(["-cp", &others, &pid]))?;
    }
    let limits = fs::read_to_string("/proc/self/limits")?;
    let limits = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let hard = limits.and_then(|limits| limits.split_whitespace().nth(1)).unwrap_or_default();
    if hard.parse::<u64>().is_ok_and(|hard| hard < descriptors) {
        return Err(format!("{hard} descriptors are too few: ulimit -Hn {descriptors} at least").into());
    }
    call(Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={hard}:{hard}")]))
}

fn call(command: &mut Command) -> Result<(), Failure> {
    let output =
        command.output().map_err(|error| format!("cannot run {command:?}: {error} (util-linux has it)"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()).into())
}
