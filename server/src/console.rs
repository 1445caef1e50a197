//! Console output: results on stdout, errors and panics on stderr.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, Write};
use std::panic;

use crate::escape::Line;
use crate::failure::{Failure, reason};
use crate::logging;

/// Prints `rendezvous: COMMAND: TEXT` as one line on stderr; without `command`, `rendezvous: TEXT`. Unprintable text,
/// which may come from a peer, a file or an argument, is escaped. Write errors are ignored. If the command logs, the
/// line follows the log's lines, and [`logging::flush`] waits for it.
pub fn print_error(command: Option<&str>, text: &str) {
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

/// Installs a panic hook that prints one line like [`print_error`], and a backtrace if `RUST_BACKTRACE` is set. A blocked
/// stderr delays the exit no longer than [`logging::flush`] waits.
pub fn report_panics() {
    panic::set_hook(Box::new(|panic| {
        print_error(None, &panic.to_string());
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            backtrace.to_string().lines().for_each(|line| print_error(None, line));
        }
        logging::flush();
    }));
}

/// Writes a result to stdout. A closed pipe (`… | head -1`) is not an error.
///
/// # Errors
///
/// [`Failure::Failed`] if stdout cannot be written, for example on a full disk.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::Failed(format!("cannot write to stdout: {}", reason(&error))))
        }
        _ => Ok(()),
    }
}
