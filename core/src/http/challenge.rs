//! The HTTP challenge that asks a client for a hidden server, and the user name in its response.
//!
//! Only the user name matters. Password, digest, nonce and all other parameters are ignored, since they authenticate
//! nothing here. So credentials are parsed as leniently as possible, provided that the user name is unambiguous:
//! clients omit quotes, separators and padding, and origin servers have always accepted that.

use alloc::string::String;
use alloc::vec::Vec;

use data_encoding::{BASE64, BASE64_NOPAD, HEXLOWER};

use super::syntax::{is_blank, is_tchar, trim, trim_start};
use crate::id::Id;

/// The user name in an `Authorization` field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identified {
    /// An ID: alone, as `uuid:ID`, or as `urn:uuid:ID`. Surrounding spaces are ignored.
    Id(Id),
    /// Anything else that may be a host name: 1 to 253 letters, digits, hyphens, underscores and dots. The caller
    /// looks it up as a label. Surrounding spaces are removed.
    Name(String),
    /// Another scheme, or a user name that is missing, hashed (RFC 7616 §3.4.4) or neither of the above. The client
    /// gets another challenge.
    Unidentified,
    /// Several different user names, or a user name whose end is ambiguous: Basic without a colon or with invalid
    /// BASE64, or an unclosed quoted string. The response is 400.
    Malformed,
}

/// The maximum length of a host name, in bytes (RFC 1035 §2.3.4).
const NAME_MAX: usize = 253;

/// Parses the value of an `Authorization` field: Digest (RFC 7616) or Basic (RFC 7617), in any case.
///
/// In Digest the user name is a quoted string, a token, or `username*=UTF-8''…` (RFC 8187). In Basic it ends at the
/// first colon, except after `uuid:`.
#[must_use]
pub fn identify(authorization: &[u8]) -> Identified {
    let authorization = trim(authorization);
    let scheme_bytes = authorization.iter().take_while(|&&byte| !is_blank(byte)).count();
    let (scheme, credentials) = authorization.split_at(scheme_bytes);
    if scheme.eq_ignore_ascii_case(b"Digest") {
        digest(trim(credentials))
    } else if scheme.eq_ignore_ascii_case(b"Basic") {
        basic(trim(credentials))
    } else {
        Identified::Unidentified
    }
}

/// Appends the fields that challenge a client for a hidden server. Each is on one line, since clients fail on folded
/// ones.
///
/// Digest comes first, without `algorithm` and `charset`: every client supports the default, and some nothing else.
/// The nonce is not checked when it comes back, so it needs no state. Basic has a line of its own for clients without
/// Digest: lynx, wget2, Python's `HTTPBasicAuthHandler`.
pub fn write_challenge(nonce: &[u8; 16], opaque: &[u8; 16], out: &mut Vec<u8>) {
    out.extend_from_slice(b"WWW-Authenticate: Digest realm=\"rendezvous\", qop=\"auth, auth-int\", nonce=\"");
    out.extend_from_slice(HEXLOWER.encode(nonce).as_bytes());
    out.extend_from_slice(b"\", opaque=\"");
    out.extend_from_slice(HEXLOWER.encode(opaque).as_bytes());
    out.extend_from_slice(b"\"\r\nWWW-Authenticate: Basic realm=\"rendezvous\"\r\n");
}

/// The error of a missing or misplaced quote.
struct Malformed;

/// Decodes the credentials of Basic: with or without padding, in the standard or the URL-safe alphabet (RFC 4648 §5).
/// Returns `None` for anything else.
pub(crate) fn decode_basic(credentials: &[u8]) -> Option<Vec<u8>> {
    let standard: Vec<u8> = credentials
        .iter()
        .map(|&byte| match byte {
            b'-' => b'+',
            b'_' => b'/',
            _ => byte,
        })
        .collect();
    let encoding = if standard.ends_with(b"=") { BASE64 } else { BASE64_NOPAD };
    encoding.decode(&standard).ok()
}

fn basic(credentials: &[u8]) -> Identified {
    let Some(pair) = decode_basic(credentials) else { return Identified::Malformed };
    let Some(colon) = pair.iter().position(|&byte| byte == b':') else { return Identified::Malformed };
    match prefixed_id(&pair) {
        Some(id) => Identified::Id(id),
        None => of_user_name(&pair[..colon]),
    }
}

/// The ID in `uuid:ID:password` or `urn:uuid:ID:password`. The colon after the ID may be missing.
fn prefixed_id(pair: &[u8]) -> Option<Id> {
    let rest = without_scheme(pair)?;
    let end = rest.iter().position(|&byte| byte == b':').unwrap_or(rest.len());
    Id::parse(rest[..end].trim_ascii())
}

/// The part after `uuid:` or `urn:uuid:`, in any case; `None` if the name begins with neither.
fn without_scheme(name: &[u8]) -> Option<&[u8]> {
    let name = name.trim_ascii_start();
    strip_caseless(strip_caseless(name, b"urn:").unwrap_or(name), b"uuid:")
}

fn strip_caseless<'a>(text: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let (front, rest) = text.split_at_checked(prefix.len())?;
    front.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// Classifies a decoded user name.
fn of_user_name(name: &[u8]) -> Identified {
    let name = name.trim_ascii();
    if let Some(id) = Id::parse(without_scheme(name).unwrap_or(name).trim_ascii()) {
        return Identified::Id(id);
    }
    let is_name = (1..=NAME_MAX).contains(&name.len())
        && name.iter().all(|it| it.is_ascii_alphanumeric() || matches!(it, b'-' | b'_' | b'.'));
    match core::str::from_utf8(name) {
        Ok(name) if is_name => Identified::Name(name.into()),
        _ => Identified::Unidentified,
    }
}

/// Parses the parameters of Digest.
///
/// If they form a list, user names are those of its parameters, and strings may contain anything. If a quote is
/// missing or misplaced, parsers disagree about where strings begin. Then every `username=` counts, even inside what
/// may be a string. All user names must be the same.
fn digest(credentials: &[u8]) -> Identified {
    let mut found = Names::default();
    let mut is_hashed = false;
    let mut parameters = Parameters { rest: credentials };
    let is_list = loop {
        match parameters.next() {
            Ok(Some((name, value))) => {
                found.parameter(name, value);
                is_hashed |= name.eq_ignore_ascii_case(b"userhash") && value.bytes().eq(*b"true");
            }
            Ok(None) => break true,
            Err(Malformed) => break false,
        }
    };
    if !is_list {
        found = Names::anywhere(credentials);
    }
    match found {
        Names::None => Identified::Unidentified,
        Names::One(Identified::Malformed) | Names::Different => Identified::Malformed,
        Names::One(_) if is_hashed => Identified::Unidentified,
        Names::One(name) => name,
    }
}

/// The user names found so far.
#[derive(Default)]
enum Names {
    #[default]
    None,
    One(Identified),
    Different,
}

impl Names {
    fn add(&mut self, name: Identified) {
        *self = match core::mem::take(self) {
            Self::None => Self::One(name),
            Self::One(known) if known == name && name != Identified::Unidentified => Self::One(name),
            Self::One(_) | Self::Different => Self::Different,
        };
    }

    fn parameter(&mut self, name: &[u8], value: Value<'_>) {
        if name.eq_ignore_ascii_case(b"username") {
            self.add(of_user_name(&value.bytes().collect::<Vec<_>>()));
        } else if name.eq_ignore_ascii_case(b"username*") {
            self.add(extended(value));
        }
    }

    /// Every `username=` and `username*=`, in any context.
    fn anywhere(credentials: &[u8]) -> Self {
        let mut found = Self::default();
        let mut is_start = true;
        for (at, &byte) in credentials.iter().enumerate() {
            let text = credentials.get(at..).unwrap_or_default();
            let name_bytes = if is_start { text.iter().take_while(|&&it| is_tchar(it)).count() } else { 0 };
            is_start = !is_tchar(byte);
            let (name, rest) = text.split_at(name_bytes);
            let is_user = name.eq_ignore_ascii_case(b"username") || name.eq_ignore_ascii_case(b"username*");
            let value = trim_start(rest).strip_prefix(b"=").filter(|_| is_user);
            let Some(value) = value else { continue };
            match Value::parse(trim_start(value)) {
                Ok((value, rest)) if value.is_whole(rest) => found.parameter(name, value),
                Ok(_) | Err(Malformed) => found.add(Identified::Malformed),
            }
        }
        found
    }
}

/// The rest of a list of parameters.
struct Parameters<'a> {
    rest: &'a [u8],
}

impl<'a> Parameters<'a> {
    /// The next `name = value`; `None` at the end. Commas, semicolons and whitespace separate parameters. Words
    /// without a value are skipped, such as `stale` or the rest of an unquoted list.
    fn next(&mut self) -> Result<Option<(&'a [u8], Value<'a>)>, Malformed> {
        loop {
            let start = self.rest.iter().take_while(|&&byte| is_separator(byte)).count();
            let list = self.rest.get(start..).unwrap_or_default();
            if list.is_empty() {
                return Ok(None);
            }
            let name_bytes =
                list.iter().take_while(|&&byte| !is_separator(byte) && !matches!(byte, b'=' | b'"')).count();
            let (name, behind) = list.split_at(name_bytes);
            let Some(value) = trim_start(behind).strip_prefix(b"=") else {
                if behind.starts_with(b"\"") {
                    return Err(Malformed);
                }
                self.rest = behind;
                continue;
            };
            let (value, rest) = Value::parse(trim_start(value))?;
            self.rest = rest;
            return match rest.first() {
                Some(&byte) if !is_separator(byte) => Err(Malformed),
                _ => Ok(Some((name, value))),
            };
        }
    }
}

fn is_separator(byte: u8) -> bool {
    is_blank(byte) || matches!(byte, b',' | b';')
}

/// A parameter's value without its quotes, with escapes.
#[derive(Clone, Copy)]
struct Value<'a> {
    raw: &'a [u8],
    is_quoted: bool,
}

impl<'a> Value<'a> {
    /// Parses the value at the front of `text`; also returns the rest. Without quotes it ends at a separator or a
    /// quote, since some clients omit the quotes of `uri` or `opaque`.
    fn parse(text: &'a [u8]) -> Result<(Self, &'a [u8]), Malformed> {
        let Some(inner) = text.strip_prefix(b"\"") else {
            let len = text.iter().take_while(|&&byte| !is_separator(byte) && byte != b'"').count();
            let (raw, rest) = text.split_at(len);
            return Ok((Self { raw, is_quoted: false }, rest));
        };
        let mut is_escaped = false;
        let end = inner.iter().position(|&byte| {
            let is_end = byte == b'"' && !is_escaped;
            is_escaped = byte == b'\\' && !is_escaped;
            is_end
        });
        let (raw, rest) = end.and_then(|end| inner.split_at_checked(end)).ok_or(Malformed)?;
        Ok((Self { raw, is_quoted: true }, rest.strip_prefix(b"\"").unwrap_or(rest)))
    }

    /// Whether the end of the value is certain if quotes are missing elsewhere; `rest` is the text after it. For
    /// example, the string in `"name, realm="rendezvous"` ends after the name.
    fn is_whole(self, rest: &[u8]) -> bool {
        let is_separated = rest.first().is_none_or(|&byte| is_separator(byte));
        is_separated || self.is_quoted && !self.raw.iter().any(|&byte| is_separator(byte))
    }

    /// The value without escapes (quoted-pair, RFC 9110 §5.6.4).
    fn bytes(self) -> impl Iterator<Item = u8> + 'a {
        let mut raw = self.raw.iter().copied();
        core::iter::from_fn(move || match raw.next()? {
            b'\\' if self.is_quoted => raw.next(),
            byte => Some(byte),
        })
    }
}

/// The user name in `UTF-8'language'text`, where the text is percent-encoded (RFC 8187 §3.2).
fn extended(value: Value<'_>) -> Identified {
    let mut bytes = value.bytes();
    if !bytes.by_ref().take_while(|&it| it != b'\'').map(|it| it.to_ascii_uppercase()).eq(*b"UTF-8") {
        return Identified::Unidentified;
    }
    // The language is ignored. Without the second quote there is no text left, and no name.
    bytes.by_ref().find(|&it| it == b'\'');
    let decoded = core::iter::from_fn(|| match bytes.next()? {
        b'%' => {
            // `^` would be equivalent to `|`, since the bits do not overlap.
            let mut digit = || char::from(bytes.next()?).to_digit(16);
            let value = digit().zip(digit()).map(|(high, low)| high << 4 | low);
            Some(value.and_then(|value| u8::try_from(value).ok()))
        }
        byte => Some(Some(byte)),
    });
    let name: Option<Vec<u8>> = decoded.collect();
    name.map_or(Identified::Unidentified, |name| of_user_name(&name))
}
