//! Metrics of the process, by the names that Prometheus's client libraries use.

use std::fs;

use super::{Family, Format, Kind, float};
use crate::linux;

const BUILD: Family = Family { name: "rendezvous_build", kind: Kind::Info, help: "The running program." };
const START: Family =
    Family::gauge("process_start_time_seconds", "Start of the process, in seconds since 1970.");
const CPU: Family = Family::counter("process_cpu_seconds", "CPU time, of user and system.");
const MEMORY: Family = Family::gauge("process_resident_memory_bytes", "Resident memory.");
const OPEN: Family = Family::gauge("process_open_fds", "Open file descriptors.");
const MAX: Family = Family::gauge("process_max_fds", "Limit of open file descriptors.");

/// The unit of the CPU times in `/proc`, in microseconds. It is the same on all architectures.
const TICK: u64 = 10_000;

/// What the metrics of a process need.
#[derive(Clone, Copy, Debug)]
pub struct Process {
    /// `relay` or `agent`.
    pub role: &'static str,
    /// The start, in seconds since 1970.
    pub started: u64,
    /// The limit of descriptors, if it is known.
    pub descriptors_max: Option<u64>,
}

impl Process {
    /// Appends the families of the process.
    pub fn write(&self, format: Format, out: &mut String) {
        let version = env!("CARGO_PKG_VERSION");
        BUILD.begin(format, out).sample(&[("version", version), ("role", self.role)], 1);
        START.begin(format, out).sample(&[], self.started);
        if let Some(micros) = cpu() {
            CPU.begin(format, out).sample(&[], float(micros));
        }
        if let Some(bytes) = linux::resident_memory() {
            MEMORY.begin(format, out).sample(&[], bytes);
        }
        if let Some(open) = linux::descriptors() {
            OPEN.begin(format, out).sample(&[], open);
        }
        if let Some(max) = self.descriptors_max {
            MAX.begin(format, out).sample(&[], max);
        }
    }
}

/// The CPU time of the process in microseconds; `None` if it is unknown.
fn cpu() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program may contain spaces and parentheses.
    let (_, fields) = text.rsplit_once(") ")?;
    let mut times = fields.split(' ').skip(11).map_while(|field| field.parse::<u64>().ok());
    Some((times.next()? + times.next()?) * TICK)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_process_knows_its_memory_time_and_descriptors() {
        let mut text = String::new();
        Process { role: "relay", started: 7, descriptors_max: Some(99) }.write(Format::Prometheus, &mut text);
        for family in [START, MEMORY, OPEN, MAX] {
            let value = text.lines().find_map(|line| line.strip_prefix(family.name)?.strip_prefix(' '));
            let value: u64 = value.expect("it is there").parse().expect("a number");
            assert!(value > 0, "{}", family.name);
        }
        assert!(text.contains("\nprocess_cpu_seconds_total "), "{text}");
        assert!(text.contains("rendezvous_build_info{version=\""), "{text}");
    }
}
