//! Lines of the DTCP handshake: `command` or `command:argument`, each terminated by one LF (XEP-0046 §3.3).
//!
//! Commands are case-sensitive, in lower case, and only one CR before the LF is trimmed (docs/dtcp.md §6.21, §6.23).
//! The argument begins after the first colon; an empty one counts as none (docs/dtcp.md §6.22).

use alloc::vec::Vec;
use core::fmt;

/// The maximum length of a line with its LF, in bytes (docs/dtcp.md §6.19).
pub const BYTES_MAX: usize = 512;

/// One of the four commands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Command<'a> {
    /// Asks for TLS. An argument is ignored.
    StartTls,
    /// Sends the serving endpoint's key, which is not empty.
    Key(&'a [u8]),
    /// Agrees: without an argument to `starttls` and as the requestor's ack, with the dialling endpoint's key to
    /// `key`.
    Ok(&'a [u8]),
    /// Refuses. An argument, which some peers send for humans, is ignored.
    Error,
}

/// The result of parsing the front of the received bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// An incomplete line.
    Partial,
    /// A line of `len` bytes including the LF. The bytes after it are not read.
    Command {
        /// The command.
        command: Command<'a>,
        /// The length of the line in bytes.
        len: usize,
    },
    /// A line of `len` bytes including the LF that is not a command: unknown, empty, or `key` without an argument.
    Unknown {
        /// The length of the line in bytes.
        len: usize,
    },
    /// More than [`BYTES_MAX`] bytes without a complete line, so that the beginning of the next line is unknown.
    TooLong,
}

/// Parses the first line of all bytes that were received and not consumed.
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
    /// Appends the line, without CR, and without a colon if there is no argument.
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

/// Hides the argument, since keys are secret.
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
