//! What a command prints: its result on stdout, complaints and panics on stderr.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, Write};
use std::panic;

use crate::escape::Line;
use crate::failure::{Failure, reason};
use crate::logging;

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
