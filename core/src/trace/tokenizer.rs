//! Splits a line of a trace into words: times, connections, `key=value`.

use alloc::format;
use alloc::string::{String, ToString};
use core::fmt;
use core::net::SocketAddr;

use crate::machine::ConnId;
use crate::relay_client::{Host, HostPort};
use crate::time::Span;

/// The rest of a line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tokenizer<'a> {
    pub(super) rest: &'a str,
}

impl<'a> Tokenizer<'a> {
    pub(super) fn new(line: &'a str) -> Self {
        Self { rest: line.trim() }
    }

    pub(super) fn next(&mut self) -> Option<&'a str> {
        let (word, rest) = match self.rest.find(char::is_whitespace) {
            Some(end) => self.rest.split_at(end),
            None => (self.rest, ""),
        };
        self.rest = rest.trim_start();
        (!word.is_empty()).then_some(word)
    }

    /// Parses the next word; `what` describes it in errors.
    pub(super) fn read<T>(&mut self, what: &str, read: impl FnOnce(&str) -> Option<T>) -> Result<T, String> {
        let word = self.next().ok_or_else(|| format!("{what} is missing"))?;
        read(word).ok_or_else(|| format!("'{word}' is not {what}"))
    }

    /// Parses the value of the next word, which must be `key=VALUE`.
    pub(super) fn keyed<T>(&mut self, key: &str, read: impl FnOnce(&str) -> Option<T>) -> Result<T, String> {
        let word = self.next().ok_or_else(|| format!("{key}= is missing"))?;
        let value = word.strip_prefix(key).and_then(|rest| rest.strip_prefix('='));
        let value = value.ok_or_else(|| format!("'{word}': expected {key}="))?;
        read(value).ok_or_else(|| format!("{key}: invalid value '{value}'"))
    }

    pub(super) fn conn(&mut self) -> Result<ConnId, String> {
        self.read("a connection, such as 0.1", conn)
    }

    pub(super) fn end(&self) -> Result<(), String> {
        if self.rest.is_empty() { Ok(()) } else { Err(format!("unexpected '{}'", self.rest)) }
    }
}

/// The line without its comment: a `#` at its beginning or after white space, outside of quotes.
pub(super) fn without_comment(line: &str) -> &str {
    let (mut is_quoted, mut is_escaped, mut before) = (false, false, ' ');
    for (at, letter) in line.char_indices() {
        match letter {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            '#' if !is_quoted && before.is_whitespace() => return line[..at].trim_end(),
            _ => {}
        }
        before = letter;
    }
    line.trim_end()
}

pub(super) fn is_name(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|it| it.is_ascii_alphanumeric() || matches!(it, b'-' | b'_'))
}

/// Parses a number of digits only.
pub(super) fn number<T: core::str::FromStr>(word: &str) -> Option<T> {
    if word.bytes().all(|it| it.is_ascii_digit()) { word.parse().ok() } else { None }
}

pub(super) fn conn(word: &str) -> Option<ConnId> {
    let (index, generation) = word.split_once('.')?;
    Some(ConnId { index: number(index)?, generation: number(generation)? })
}

pub(super) fn address(word: &str) -> Option<SocketAddr> {
    word.parse().ok()
}

/// Parses a span: `90s`, `100ms`, `17us`, `0`.
pub(super) fn span(word: &str) -> Option<Span> {
    if word == "0" {
        return Some(Span::ZERO);
    }
    let digits = word.trim_end_matches(|it: char| it.is_ascii_alphabetic());
    let unit = match &word[digits.len()..] {
        "us" => 1,
        "ms" => 1_000,
        "s" => 1_000_000,
        _ => return None,
    };
    number::<u64>(digits)?.checked_mul(unit).map(Span)
}

/// Parses an address or a host name, with a port.
pub(super) fn place(word: &str) -> Option<HostPort> {
    if let Some(address) = address(word) {
        return Some(address.into());
    }
    let (host, port) = word.rsplit_once(':')?;
    // An address with a zone counts as a name.
    let is_host =
        |it: u8| it.is_ascii_alphanumeric() || matches!(it, b'-' | b'.' | b'_' | b'%' | b':' | b'~' | b'@');
    let fits = !host.is_empty() && host.bytes().all(is_host);
    Some(HostPort { host: Host::Name(fits.then(|| host.to_string())?), port: number(port)? })
}

/// Displays a connection.
pub(super) struct ConnText(pub(super) ConnId);

impl fmt::Display for ConnText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0.index, self.0.generation)
    }
}

/// Displays a span in the largest exact unit.
pub(super) struct SpanText(pub(super) Span);

impl fmt::Display for SpanText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.0 {
            0 => f.write_str("0"),
            us if us % 1_000_000 == 0 => write!(f, "{}s", us / 1_000_000),
            us if us % 1_000 == 0 => write!(f, "{}ms", us / 1_000),
            us => write!(f, "{us}us"),
        }
    }
}

/// Displays a host and port.
pub(super) struct HostPortText<'a>(pub(super) &'a HostPort);

impl fmt::Display for HostPortText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.host {
            Host::Address(address) => write!(f, "{}", SocketAddr::new(*address, self.0.port)),
            Host::Name(name) => write!(f, "{name}:{}", self.0.port),
        }
    }
}
