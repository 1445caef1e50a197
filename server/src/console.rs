//! Console output: results on stdout, errors and panics on stderr.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, Write};
use std::panic;

use crate::escape::Line;
use crate::failure::{Failure, reason};
use crate::logging;

/// The width of lines, in characters: a terminal has 80 columns, and some break a line in the last one.
const WIDTH: usize = 79;

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

/// Writes a help text to stdout, in lines of the width of a terminal.
///
/// # Errors
///
/// [`Failure::Failed`] if stdout cannot be written.
pub fn print_help(text: &str) -> Result<(), Failure> {
    print(&wrap(text))
}

/// Breaks the paragraphs of a text into lines of at most [`WIDTH`] characters. Indented and empty lines stay as they are.
fn wrap(text: &str) -> String {
    let mut wrapped = String::new();
    let mut lines = text.lines().peekable();
    let is_fixed = |line: &str| line.is_empty() || line.starts_with(' ');
    while let Some(line) = lines.next() {
        if is_fixed(line) {
            wrapped.push_str(line);
            wrapped.push('\n');
            continue;
        }
        let mut paragraph = line.to_owned();
        while let Some(next) = lines.next_if(|next| !is_fixed(next)) {
            paragraph.push(' ');
            paragraph.push_str(next);
        }
        fill(&paragraph, 0, &mut wrapped);
    }
    wrapped
}

/// Appends the words in lines of at most [`WIDTH`] characters with this indentation, unless one word is longer.
pub(crate) fn fill(words: &str, indent: usize, text: &mut String) {
    let mut column = 0;
    for word in words.split(' ').filter(|word| !word.is_empty()) {
        let len = word.chars().count();
        if column > 0 && column + 1 + len > WIDTH {
            text.push('\n');
            column = 0;
        }
        if column == 0 {
            text.push_str(&" ".repeat(indent));
            column = indent;
        } else {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += len;
    }
    text.push('\n');
}
