//! Reports a failed run: the smallest plan that fails in the same way, and files that reproduce it.

use std::cell::Cell;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Once;

use crate::plan::{Failure, Outcome, Plan};
use crate::secured::Secured;

/// How many lines of a failed run's log are shown.
const LINES: usize = 60;
/// Key exchange uses its own entropy, so a smaller plan with TLS is tried this many times.
const TRIES_TLS: u32 = 4;

/// A failure with a reduced plan.
pub struct FailureReport {
    /// The plan that fails.
    pub plan: Plan,
    /// How it fails.
    pub failure: Failure,
}

/// The files of a report.
#[derive(Clone, Debug)]
pub struct Files {
    /// The plan, which reproduces the run of the whole program, loop and machines.
    pub plan: PathBuf,
    /// The inputs and outputs of the relay's machine, for `rendezvous replay`.
    pub trace: PathBuf,
    /// All events, in order.
    pub log: PathBuf,
}

/// Runs a plan. A failed run is reported once, without the output of each panic.
///
/// # Errors
/// An invariant is violated.
pub fn run(plan: &Plan, log: bool, secured: &Secured) -> Result<Outcome, Failure> {
    thread_local! {
        static QUIET: Cell<bool> = const { Cell::new(false) };
    }
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
    let result = plan.run(log, secured);
    QUIET.set(false);
    result
}

/// Makes the report of a failed run.
#[must_use]
pub fn report(plan: &Plan, failure: Failure, secured: &Secured) -> FailureReport {
    let mut report = FailureReport { plan: plan.clone(), failure };
    // The reported failure must be one with a log.
    if let Some(failure) = fails(plan, &report.failure, secured) {
        report.failure = failure;
    }
    while let Some(smaller) = smaller(&report, secured) {
        report = smaller;
    }
    report
}

fn smaller(report: &FailureReport, secured: &Secured) -> Option<FailureReport> {
    report.plan.smaller().into_iter().find_map(|plan| {
        let failure = fails(&plan, &report.failure, secured)?;
        Some(FailureReport { plan, failure })
    })
}

/// Whether this plan fails in the same way.
fn fails(plan: &Plan, how: &Failure, secured: &Secured) -> Option<Failure> {
    let tries = if plan.tls { TRIES_TLS } else { 1 };
    (0..tries).find_map(|_| run(plan, true, secured).err().filter(|other| kind(&other.why) == kind(&how.why)))
}

/// The kind of a failure: its text without numbers, which differ in a smaller run.
fn kind(why: &str) -> String {
    why.chars().filter(|c| !c.is_ascii_digit()).take(40).collect()
}

impl FailureReport {
    /// Writes the files.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write(&self, folder: &Path) -> io::Result<Files> {
        let seed = self.plan.seed;
        let kind = if self.plan.tls { "tls" } else { "plain" };
        let file = |extension| folder.join(format!("sim-{kind}-{seed}.{extension}"));
        let files = Files { plan: file("plan"), trace: file("trace"), log: file("log") };
        let why: String = self.failure.why.lines().map(|line| format!("# {line}\n")).collect();
        std::fs::write(&files.plan, format!("{why}{}", self.plan))?;
        std::fs::write(&files.trace, format!("{why}{}", self.failure.trace))?;
        std::fs::write(&files.log, &self.failure.log)?;
        Ok(files)
    }

    /// The report as text.
    #[must_use]
    pub fn text(&self, files: &io::Result<Files>) -> String {
        let lines: Vec<&str> = self.failure.log.lines().collect();
        let end = lines[lines.len().saturating_sub(LINES)..].join("\n");
        let files = match files {
            Ok(Files { plan, trace, log }) => format!(
                "again: PLAN={} cargo test -p tests --test sim\n\
                 the relay's part of it: rendezvous replay {}\nall of it: {}",
                plan.display(),
                trace.display(),
                log.display()
            ),
            Err(error) => format!("it can't be written down: {error}"),
        };
        format!("seed {}: {}\n\n{}\n{end}\n\n{files}", self.plan.seed, self.failure.why, self.plan)
    }
}
