//! How a command ends without its result, in words for the person who typed it.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt;
use std::io::{self, Write};
use std::panic;
use std::path::Path;

use crate::escape::Line;
use crate::logging;

/// Why a command did not do what it was asked. Its text is one line: what happened, to which file or option, and
/// what to do about it. It never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No failure: the text that `--help` asked for. Stdout, exit code 0.
    Help(String),
    /// What was typed, or a `--config` file, is wrong. Exit code 2.
    Usage(String),
    /// What was typed is right, and it could not be done. Exit code 1.
    Failed(String),
}

impl Failure {
    /// A [`Failure::Failed`] of a file: `cannot WHAT PATH: reason`.
    pub fn of_file(what: &str, path: &Path, error: &io::Error) -> Failure {
        Failure::Failed(format!("cannot {what} {}: {}", path.display(), reason(error)))
    }

    /// The exit code that tells scripts which kind it is: 0, 1 or 2.
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::Help(_) => 0,
            Failure::Failed(_) => 1,
            Failure::Usage(_) => 2,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Help(text) | Failure::Usage(text) | Failure::Failed(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Failure {}

/// What an I/O error says, without the number, as part of a sentence: `permission denied`.
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error ").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

/// Prints `rendezvous: COMMAND: TEXT` as one line on stderr; without `command`, `rendezvous: TEXT`. What
/// does not print, which may come from a peer, a file or an argument, is escaped. A closed stderr is nothing to fail for.
/// In a command that logs, the line comes behind those of the log, and [`logging::flush`] waits for it.
pub fn complain(command: Option<&str>, text: &str) {
    let mut line = String::from("rendezvous: ");
    if let Some(command) = command {
        line.push_str(command);
        line.push_str(": ");
    }
    line.push_str(&Line(text).to_string());
    if !logging::write_line(&line) {
        let _ = writeln!(io::stderr(), "{line}");
    }
}

/// From now on a panic is one line like that of [`complain`], and a backtrace where `RUST_BACKTRACE` asks for one.
/// Nothing that reads standard error can hold up the end of the program for longer than [`logging::flush`] waits.
pub fn complain_of_panics() {
    panic::set_hook(Box::new(|panic| {
        complain(None, &panic.to_string());
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            backtrace.to_string().lines().for_each(|line| complain(None, line));
        }
        logging::flush();
    }));
}

/// Writes a result to stdout. A reader that went away (`… | head -1`) has what it wanted, and is no error.
///
/// # Errors
///
/// [`Failure::Failed`] where stdout cannot be written: a full disk.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::Failed(format!("cannot write to stdout: {}", reason(&error))))
        }
        _ => Ok(()),
    }
}
