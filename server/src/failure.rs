//! How a command ends without its result, in words for the person who typed it.

use std::fmt;
use std::io;
use std::path::Path;

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
