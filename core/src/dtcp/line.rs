//! Lines of the DTCP handshake: `command` or `command:argument`, each ended by one LF (XEP-0046 §3.3).
//!
//! Commands are exact, in lower case, and nothing is trimmed but one CR before the LF (docs/dtcp.md §6.21, §6.23).
//! The argument begins behind the first colon; an empty one is none (docs/dtcp.md §6.22).

use alloc::vec::Vec;
use core::fmt;

/// The longest line with its LF (docs/dtcp.md §6.19).
pub const BYTES_MAX: usize = 512;

/// One of the four commands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Command<'a> {
    /// Asks for TLS. An argument is ignored.
    StartTls,
    /// Shows the serving party's key, which is not empty.
    Key(&'a [u8]),
    /// Agrees: to `starttls` and as the requestor's ack without an argument, to `key` with the dialling party's key.
    Ok(&'a [u8]),
    /// Disagrees. An argument, which some peers give for humans, is ignored.
    Error,
}

/// What the front of the bytes received is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// Not a whole line yet.
    Partial,
    /// A line of `len` bytes, LF included. What is behind is not looked at.
    Command {
        /// What it says.
        command: Command<'a>,
        /// How many bytes it takes.
        len: usize,
    },
    /// A line of `len` bytes, LF included, that is no command: unknown, empty, or `key` without an argument.
    Unknown {
        /// How many bytes it takes.
        len: usize,
    },
    /// More than [`BYTES_MAX`] bytes without a whole line: where the next line begins is not known.
    TooLong,
}

/// Reads the first line of everything that was received and not consumed, however it was cut.
#[must_use]
pub fn find(bytes: &[u8]) -> Found<'_> {
    let front = &bytes[..bytes.len().min(BYTES_MAX)];
    let Some(end) = front.iter().position(|byte| *byte == b'\n') else {
        return if front.len() == BYTES_MAX { Found::TooLong } else { Found::Partial };
    };
    let len = end + 1;
    let line = &front[..end];
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let colon = line.iter().position(|byte| *byte == b':');
    let (word, argument) = colon.map_or((line, &b""[..]), |at| (&line[..at], &line[at + 1..]));
    let command = match word {
        b"starttls" => Command::StartTls,
        b"key" if !argument.is_empty() => Command::Key(argument),
        b"ok" => Command::Ok(argument),
        b"error" => Command::Error,
        _ => return Found::Unknown { len },
    };
    Found::Command { command, len }
}

impl Command<'_> {
    /// Appends the line: no CR, and no colon where there is no argument.
    pub fn write(&self, out: &mut Vec<u8>) {
        let (word, argument): (&[u8], &[u8]) = match self {
            Self::StartTls => (b"starttls", b""),
            Self::Key(key) => (b"key", key),
            Self::Ok(argument) => (b"ok", argument),
            Self::Error => (b"error", b""),
        };
        out.extend_from_slice(word);
        if !argument.is_empty() {
            out.push(b':');
            out.extend_from_slice(argument);
        }
        out.push(b'\n');
    }
}

/// Keys are secrets: the argument is not shown.
impl fmt::Debug for Command<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StartTls => "StartTls",
            Self::Key(_) => "Key(…)",
            Self::Ok(b"") => "Ok",
            Self::Ok(_) => "Ok(…)",
            Self::Error => "Error",
        })
    }
}
