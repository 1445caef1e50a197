//! What is told of a run that failed: the smallest plan that fails in the same way, and files that show it again.

use std::cell::Cell;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Once;

use crate::plan::{Failure, Outcome, Plan};
use crate::secured::Secured;

/// Of a failed run's log, so much is shown.
const LINES: usize = 60;
/// Key exchange has entropy of its own: in TLS a smaller plan has so many tries to fail.
const TRIES_TLS: u32 = 4;

/// A failure, made small.
pub struct FailureReport {
    /// What happens in it.
    pub plan: Plan,
    /// How it fails.
    pub failure: Failure,
}

/// Where it was written to.
#[derive(Clone, Debug)]
pub struct Files {
    /// The plan, which runs again: what the whole program does, loop and machines.
    pub plan: PathBuf,
    /// What entered the relay's machine and what it did, for `rendezvous replay`.
    pub trace: PathBuf,
    /// Everything, in the order in which it happened.
    pub log: PathBuf,
}

/// Runs a plan. A run that fails is told by its story, not by each of the panics on the way to it.
///
/// # Errors
/// Something that must hold does not.
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

/// The story of a run that failed.
#[must_use]
pub fn report(plan: &Plan, failure: Failure, secured: &Secured) -> FailureReport {
    let mut report = FailureReport { plan: plan.clone(), failure };
    // The one that is told is one that was written down.
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

/// What kind of failure it is: without numbers, which are others in a smaller run.
fn kind(why: &str) -> String {
    why.chars().filter(|c| !c.is_ascii_digit()).take(40).collect()
}

impl FailureReport {
    /// Writes it down.
    ///
    /// # Errors
    /// A file can't be written.
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

    /// Tells it.
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
