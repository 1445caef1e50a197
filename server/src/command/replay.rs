//! `rendezvous replay`: replays a recorded trace.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use rendezvous_core::trace::{Difference, Played, Replay, Trace};

use crate::console::print;
use crate::failure::Failure;
use crate::files::{self, FileKind};
use crate::options::{Opt, Spec, parse};

pub(super) const SPEC: Spec = Spec {
    command: "replay",
    operands: &["FILE"],
    summary: "Replays a trace of 'serve --trace' or 'agent --trace', or one written by hand, and prints it with every action of the machine; \
nothing is sent anywhere.",
    options: &[Opt::flag("check", "print nothing, but compare the actions with those in the trace")],
    footer: "\
With --check the exit code is 0 if every action is as recorded; otherwise it is 1 and the first difference
is printed. The output without --check is again a trace: the same events, with the actions of this program.
The format is described in the documentation of rendezvous_core::trace.",
};

/// Runs the command with the arguments after its name.
///
/// # Errors
/// [`Failure`] for invalid options, a malformed trace, or an impossible event; with `--check` also for an action that
/// differs from the trace.
pub fn run(args: &[String]) -> Result<(), Failure> {
    let matches = parse(&SPEC, args)?;
    let shown = &matches.operands()[0];
    let text = files::read_text(Path::new(shown), FileKind::TRACE)?
        .map_err(|line| Failure::Failed(format!("{shown}:{line}: not UTF-8")))?;
    let trace = Trace::parse(&text)
        .map_err(|error| Failure::Failed(format!("{shown}:{}: {}", error.line, error.why)))?;
    if matches.flag("check") {
        return match Replay::new(&trace).find_map(|played| played.difference()) {
            Some(difference) => Err(Failure::Failed(complaint(shown, &difference))),
            None => Ok(()),
        };
    }
    print(&played(shown, &text, &trace)?)
}

/// Formats a difference: `FILE:LINE: expected …, got …`.
fn complaint(file: &str, difference: &Difference) -> String {
    let Difference { line, expected, got } = difference;
    let expected = expected.as_deref().unwrap_or("nothing more");
    let got = got.as_deref().unwrap_or("nothing more");
    format!("{file}:{line}: expected: {expected}; got: {got}")
}

/// The trace with the actions of this machine instead of the recorded ones.
fn played(file: &str, text: &str, trace: &Trace) -> Result<String, Failure> {
    let mut actions = BTreeMap::new();
    for Played { step, actions: done, .. } in Replay::new(trace) {
        let done = done.map_err(|why| Failure::Failed(format!("{file}:{}: {why}", step.line)))?;
        let shown: String = done.iter().map(|action| action.outcome(step.now).to_string()).collect();
        actions.insert(step.line as usize, shown);
    }
    let mut out = String::new();
    let mut pending: Option<String> = None;
    let mut is_action = false;
    for (before, line) in text.lines().enumerate() {
        let bytes = line.trim_start().starts_with('"');
        is_action = if bytes { is_action } else { line.trim_start().starts_with("->") };
        if !bytes {
            out.push_str(&pending.take().unwrap_or_default());
        }
        if !is_action {
            let _ = writeln!(out, "{line}");
        }
        pending = actions.remove(&(before + 1)).or(pending);
    }
    out.push_str(&pending.unwrap_or_default());
    Ok(out)
}
