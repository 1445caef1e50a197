//! The error of a command, worded for the user.

use std::fmt;
use std::io;
use std::path::Path;

/// Why a command failed. Its text is one line: what failed, on which file or option, why, and what to do. It never
/// contains a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Not a failure: the text for `--help`, printed on stdout with exit code 0.
    Help(String),
    /// The arguments or the `--config` file are wrong. Exit code 2.
    Usage(String),
    /// The arguments are right, but the command could not do it. Exit code 1.
    Failed(String),
}

impl Failure {
    /// Makes a [`Failure::Failed`] for a file: `cannot WHAT PATH: reason`.
    pub fn of_file(what: &str, path: &Path, error: &io::Error) -> Failure {
        Failure::Failed(format!("cannot {what} {}: {}", path.display(), reason(error)))
    }

    /// The exit code: 0, 1 or 2.
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

/// The text of an I/O error without its number, in lower case: `permission denied`.
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error ").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}
