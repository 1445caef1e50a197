//! Bytes in readable form: quoted text with escapes, repetitions, and values that depend on the time.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::{self, Write as _};

use data_encoding::{BASE64, HEXLOWER};

use super::Identity;
use super::tokenizer::is_name;
use crate::http::date::write_date;
use crate::token::Challenge;

/// The minimum length of a run that is written as a repetition, in bytes.
const RUN_MIN: usize = 48;
/// The maximum length of all repetitions of one event, in bytes, so that a line cannot exhaust the memory.
const RUN_MAX: u32 = 1 << 20;
/// The length of `$nonce`, in lower-case hexadecimal digits.
const NONCE_DIGITS: usize = 32;
/// The length of `$challenge`, in letters, digits, `-` and `_`: that of a relay's challenge.
const CHALLENGE_BYTES: usize = 43;

/// A sequence of bytes, parts of which may depend on the wall clock or on an identity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bytes(Vec<Piece>);

/// One part of [`Bytes`].
#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(Vec<u8>),
    /// `$times(x,70000)`.
    Run {
        byte: u8,
        count: u32,
    },
    /// `$id(home)`.
    Id(String),
    /// `$totp(home)`, `$totp(home,-1)`: the token of the step with this offset from now.
    Plain {
        name: String,
        offset: i8,
    },
    /// `$bound(home,NONCE)`, `$bound(home,NONCE,+1)`.
    Bound {
        name: String,
        nonce: String,
        offset: i8,
    },
    /// `$challenged(home,CHALLENGE,NONCE)`: the token over a challenge.
    Challenged {
        name: String,
        challenge: Challenge,
        nonce: String,
    },
    /// `$basic(home,password)`: BASE64 of ID, colon, password.
    Basic {
        name: String,
        password: String,
    },
    /// `$date`.
    Date,
    /// `$nonce`: any 32 lower-case hexadecimal digits. Only in expected bytes.
    Nonce,
    /// `$challenge`: any challenge of a relay. Only in expected bytes.
    Challenge,
}

/// The values that the parts depend on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context<'a> {
    pub(super) identities: &'a [Identity],
    pub(super) wall: u64,
}

impl Bytes {
    /// These literal bytes.
    #[must_use]
    pub fn literal(bytes: &[u8]) -> Self {
        let mut pieces = Self::default();
        pieces.push(bytes);
        pieces
    }

    /// These bytes, with `$date` in place of this second's date.
    #[must_use]
    pub fn dated(bytes: &[u8], wall: u64) -> Self {
        let mut date = Vec::new();
        write_date(wall, &mut date);
        let Some(at) = bytes.windows(date.len()).position(|window| *window == *date) else {
            return Self::literal(bytes);
        };
        let mut all = Self::literal(&bytes[..at]);
        all.0.push(Piece::Date);
        all.push(&bytes[at + date.len()..]);
        all
    }

    /// Whether it matches several byte strings, as only expected bytes may.
    pub(super) fn is_pattern(&self) -> bool {
        self.0.iter().any(|piece| piece.pattern().is_some())
    }

    /// The names of the identities that it depends on.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Id(name)
            | Piece::Plain { name, .. }
            | Piece::Bound { name, .. }
            | Piece::Challenged { name, .. }
            | Piece::Basic { name, .. } => Some(name.as_str()),
            Piece::Literal(_) | Piece::Run { .. } | Piece::Date | Piece::Nonce | Piece::Challenge => None,
        })
    }

    /// The bytes at this time. `$nonce` and `$challenge` are zeroes.
    pub(super) fn resolve(&self, context: Context<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        for piece in &self.0 {
            piece.resolve(context, &mut out);
        }
        out
    }

    /// Whether it matches these bytes at this time.
    pub(super) fn fits(&self, bytes: &[u8], context: Context<'_>) -> bool {
        let mut rest = bytes;
        let mut part = Vec::new();
        for piece in &self.0 {
            let front = if let Some(Pattern { len, fits }) = piece.pattern() {
                rest.get(..len).filter(|text| text.iter().all(fits)).map(<[u8]>::len)
            } else {
                part.clear();
                piece.resolve(context, &mut part);
                rest.starts_with(&part).then_some(part.len())
            };
            let Some(len) = front else { return false };
            rest = &rest[len..];
        }
        rest.is_empty()
    }

    /// Parses one or more quoted strings and appends them.
    ///
    /// # Errors
    ///
    /// A description of the error.
    pub(super) fn read(&mut self, text: &str) -> Result<(), String> {
        let mut rest = text.trim();
        while !rest.is_empty() {
            let inner = rest.strip_prefix('"').ok_or("bytes must be quoted: \"…\"")?;
            rest = self.read_quoted(inner)?.trim_start();
        }
        Ok(())
    }

    /// Parses up to the closing quote. Returns the rest.
    fn read_quoted<'a>(&mut self, text: &'a str) -> Result<&'a str, String> {
        let mut letters = text.char_indices();
        while let Some((at, letter)) = letters.next() {
            match letter {
                '"' => return Ok(&text[at + 1..]),
                '\\' => self.push_literal(&[escape(&mut letters)?]),
                '$' => {
                    let rest = &text[at + 1..];
                    let word_len = rest.find(|it: char| !it.is_ascii_lowercase()).unwrap_or(rest.len());
                    let (word, behind) = rest.split_at(word_len);
                    let (arguments, behind) = match behind.strip_prefix('(') {
                        Some(inner) => {
                            inner.split_once(')').ok_or_else(|| format!("${word}( is never closed"))?
                        }
                        None => ("", behind),
                    };
                    let piece = Piece::read(word, arguments)?;
                    if let Piece::Run { count, .. } = piece
                        && !self.has_room(count)
                    {
                        return Err(format!("$times: more than {RUN_MAX} bytes in total"));
                    }
                    self.0.push(piece);
                    letters = text.char_indices();
                    let skip = text.len() - behind.len();
                    while letters.offset() < skip {
                        letters.next();
                    }
                }
                ' '..='~' => self.push_literal(&[u8::try_from(letter).unwrap_or(b'?')]),
                _ => return Err(format!("{:?} must be written as \\xHH", letter)),
            }
        }
        Err("the closing quote is missing".to_string())
    }

    /// Appends literal bytes; long runs as repetitions, within the limit.
    fn push(&mut self, bytes: &[u8]) {
        for run in bytes.chunk_by(|a, b| a == b) {
            match (run, u32::try_from(run.len())) {
                (&[byte, ..], Ok(count)) if run.len() >= RUN_MIN && self.has_room(count) => {
                    self.0.push(Piece::Run { byte, count });
                }
                _ => self.push_literal(run),
            }
        }
    }

    /// Whether a repetition of this length is within the limit.
    fn has_room(&self, count: u32) -> bool {
        let counts = self.0.iter().map(|piece| if let Piece::Run { count, .. } = piece { *count } else { 0 });
        counts.fold(count, u32::saturating_add) <= RUN_MAX
    }

    fn push_literal(&mut self, bytes: &[u8]) {
        if let Some(Piece::Literal(last)) = self.0.last_mut() {
            last.extend_from_slice(bytes);
        } else if !bytes.is_empty() {
            self.0.push(Piece::Literal(bytes.to_vec()));
        }
    }

    /// Writes it with one string for each line of the bytes. `indent` begins every line but the first.
    pub(super) fn write(&self, out: &mut impl fmt::Write, indent: &str) -> fmt::Result {
        out.write_char('"')?;
        // Whether the last literal ended with a line feed. The next byte decides whether the line is broken there.
        let mut line_ended = false;
        for (place, piece) in self.0.iter().enumerate() {
            if let Piece::Literal(bytes) = piece {
                for &byte in bytes {
                    if line_ended && byte != b'\r' {
                        write!(out, "\"\n{indent}\"")?;
                    }
                    line_ended = byte == b'\n';
                    write_escaped(out, byte)?;
                }
            } else {
                if core::mem::take(&mut line_ended) {
                    write!(out, "\"\n{indent}\"")?;
                }
                self.write_piece(out, place)?;
            }
        }
        out.write_char('"')
    }

    /// Writes a piece. A `$date` before a letter is written as `$date()`, so that it does not become another word.
    fn write_piece(&self, out: &mut impl fmt::Write, place: usize) -> fmt::Result {
        write!(out, "{}", self.0[place])?;
        match (&self.0[place], self.0.get(place + 1)) {
            (Piece::Date | Piece::Nonce | Piece::Challenge, Some(Piece::Literal(bytes)))
                if bytes.first().is_some_and(|byte| matches!(byte, b'a'..=b'z' | b'(')) =>
            {
                out.write_str("()")
            }
            _ => Ok(()),
        }
    }
}

/// A pattern: this many bytes, each of which matches.
struct Pattern {
    len: usize,
    fits: fn(&u8) -> bool,
}

impl Piece {
    /// Its pattern, if it matches several byte strings.
    fn pattern(&self) -> Option<Pattern> {
        match self {
            Self::Nonce => {
                Some(Pattern { len: NONCE_DIGITS, fits: |it| matches!(it, b'0'..=b'9' | b'a'..=b'f') })
            }
            Self::Challenge => Some(Pattern {
                len: CHALLENGE_BYTES,
                fits: |it| it.is_ascii_alphanumeric() || matches!(it, b'-' | b'_'),
            }),
            _ => None,
        }
    }

    fn read(word: &str, arguments: &str) -> Result<Self, String> {
        let arguments: Vec<&str> = arguments.split(',').collect();
        let offset = |text: &str| match text {
            "+1" => Ok(1),
            "-1" => Ok(-1),
            "+2" => Ok(2),
            "-2" => Ok(-2),
            _ => Err(format!("'{text}' is not a number of steps: +1, -1, +2 or -2")),
        };
        let name = |name: &str| {
            let fits = is_name(name).then(|| name.to_string());
            fits.ok_or_else(|| format!("'{name}' in ${word}() is not a name: letters, digits, - and _"))
        };
        match (word, &*arguments) {
            ("times", [byte, count]) => {
                let count = count.parse().ok().filter(|count| (1..=RUN_MAX).contains(count));
                let count = count.ok_or_else(|| format!("$times: not a count from 1 to {RUN_MAX}"))?;
                let byte = match byte.as_bytes() {
                    &[byte @ b'!'..=b'~'] => Some(byte),
                    [b'\\', b'x', digits @ ..] => hex_byte(digits),
                    _ => None,
                };
                Ok(Self::Run { byte: byte.ok_or("$times: not one byte, such as x or \\x00")?, count })
            }
            ("id", [of]) => Ok(Self::Id(name(of)?)),
            ("totp", [of]) => Ok(Self::Plain { name: name(of)?, offset: 0 }),
            ("totp", [of, steps]) => Ok(Self::Plain { name: name(of)?, offset: offset(steps)? }),
            ("bound", [of, nonce, steps @ ..]) if steps.len() < 2 => {
                let offset = steps.first().map_or(Ok(0), |steps| offset(steps))?;
                Ok(Self::Bound { name: name(of)?, nonce: name(nonce)?, offset })
            }
            ("challenged", [of, challenge, nonce]) => {
                let parsed = Challenge::parse(challenge.as_bytes());
                let challenge =
                    parsed.ok_or_else(|| format!("'{challenge}' in $challenged() is not a challenge"))?;
                Ok(Self::Challenged { name: name(of)?, challenge, nonce: name(nonce)? })
            }
            ("basic", [of, password]) => {
                if password.contains(['"', '\\']) || !password.bytes().all(|it| matches!(it, b' '..=b'~')) {
                    return Err("$basic: the password may have no quotes and no escapes".to_string());
                }
                Ok(Self::Basic { name: name(of)?, password: (*password).to_string() })
            }
            ("date", [""]) => Ok(Self::Date),
            ("nonce", [""]) => Ok(Self::Nonce),
            ("challenge", [""]) => Ok(Self::Challenge),
            _ => Err(format!(
                "'${word}' is not one of $times(x,N) $id(NAME) $totp(NAME,±1) $bound(NAME,NONCE,±1) \
                 $challenged(NAME,CHALLENGE,NONCE) $basic(NAME,PASSWORD) $date $nonce $challenge, with these arguments (a dollar is \\$)"
            )),
        }
    }

    fn resolve(&self, context: Context<'_>, out: &mut Vec<u8>) {
        let identity = |name: &str| context.identities.iter().find(|identity| identity.name == name);
        match self {
            Self::Literal(bytes) => out.extend_from_slice(bytes),
            Self::Run { byte, count } => out.extend(core::iter::repeat_n(*byte, *count as usize)),
            Self::Id(name) => {
                out.extend(
                    identity(name).into_iter().flat_map(|it| it.enrolment.id.to_string().into_bytes()),
                );
            }
            Self::Plain { name, offset } => {
                let Some(identity) = identity(name) else { return };
                let key = &identity.enrolment.key;
                let step = key.step(context.wall).saturating_add_signed(i64::from(*offset));
                out.extend_from_slice(key.plain(step).as_bytes());
            }
            Self::Bound { name, nonce, offset } => {
                let Some(identity) = identity(name) else { return };
                let key = &identity.enrolment.key;
                let step = key.step(context.wall).saturating_add_signed(i64::from(*offset));
                out.extend_from_slice(HEXLOWER.encode(&key.bound(step, nonce.as_bytes())).as_bytes());
            }
            Self::Challenged { name, challenge, nonce } => {
                let Some(identity) = identity(name) else { return };
                let token = identity.enrolment.key.over_challenge(challenge, nonce.as_bytes());
                out.extend_from_slice(HEXLOWER.encode(&token).as_bytes());
            }
            Self::Basic { name, password } => {
                let Some(identity) = identity(name) else { return };
                let pair = format!("{}:{password}", identity.enrolment.id);
                out.extend_from_slice(BASE64.encode(pair.as_bytes()).as_bytes());
            }
            Self::Date => write_date(context.wall, out),
            Self::Nonce => out.extend_from_slice(&[b'0'; NONCE_DIGITS]),
            Self::Challenge => out.extend_from_slice(&[b'0'; CHALLENGE_BYTES]),
        }
    }
}

impl fmt::Display for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps = |offset: i8| if offset == 0 { String::new() } else { format!(",{offset:+}") };
        match self {
            Self::Literal(bytes) => bytes.iter().try_for_each(|byte| write_escaped(f, *byte)),
            Self::Run {
                byte: byte @ (b'!' | b'#' | b'%'..=b'\'' | b'*' | b'+' | b'-'..=b'[' | b']'..=b'~'),
                count,
            } => {
                write!(f, "$times({},{count})", char::from(*byte))
            }
            Self::Run { byte, count } => write!(f, "$times(\\x{byte:02x},{count})"),
            Self::Id(name) => write!(f, "$id({name})"),
            Self::Plain { name, offset } => write!(f, "$totp({name}{})", steps(*offset)),
            Self::Bound { name, nonce, offset } => write!(f, "$bound({name},{nonce}{})", steps(*offset)),
            Self::Challenged { name, challenge, nonce } => {
                write!(f, "$challenged({name},{challenge},{nonce})")
            }
            Self::Basic { name, password } => write!(f, "$basic({name},{password})"),
            Self::Date => f.write_str("$date"),
            Self::Nonce => f.write_str("$nonce"),
            Self::Challenge => f.write_str("$challenge"),
        }
    }
}

impl fmt::Display for Bytes {
    /// On one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        (0..self.0.len()).try_for_each(|place| self.write_piece(f, place))?;
        f.write_char('"')
    }
}

fn escape(letters: &mut core::str::CharIndices<'_>) -> Result<u8, String> {
    match letters.next().map(|(_, letter)| letter) {
        Some('r') => Ok(b'\r'),
        Some('n') => Ok(b'\n'),
        Some('t') => Ok(b'\t'),
        Some(letter @ ('"' | '\\' | '$')) => Ok(u8::try_from(letter).unwrap_or(b'?')),
        Some('x') => {
            let mut digit = || letters.next().and_then(|(_, digit)| u8::try_from(digit).ok()).unwrap_or(b' ');
            hex_byte(&[digit(), digit()]).ok_or_else(|| "\\x needs two hexadecimal digits".to_string())
        }
        _ => Err("an escape is one of \\r \\n \\t \\\" \\\\ \\$ \\xHH".to_string()),
    }
}

fn hex_byte(digits: &[u8]) -> Option<u8> {
    let &[high, low] = digits else { return None };
    let digit = |it: u8| char::from(it).to_digit(16);
    u8::try_from(digit(high)? << 4 | digit(low)?).ok()
}

fn write_escaped(out: &mut impl fmt::Write, byte: u8) -> fmt::Result {
    match byte {
        b'\r' => out.write_str("\\r"),
        b'\n' => out.write_str("\\n"),
        b'\t' => out.write_str("\\t"),
        b'"' | b'\\' | b'$' => write!(out, "\\{}", char::from(byte)),
        b' '..=b'~' => out.write_char(char::from(byte)),
        _ => write!(out, "\\x{byte:02x}"),
    }
}
