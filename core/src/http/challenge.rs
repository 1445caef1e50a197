//! HTTP authentication, used to ask a client whom it wants: the challenge, and the ID in the answer.
//!
//! The user name is the ID; password, digest, nonce and everything else prove nothing here and are not looked at.

use alloc::vec::Vec;

use data_encoding::{BASE64, HEXLOWER};

use super::syntax::{is_blank, is_tchar, trim, trim_start};
use crate::id::Id;

/// Whom an `Authorization` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identified {
    /// That hidden server.
    Id(Id),
    /// Nobody: another scheme, a user name that is missing, hashed (RFC 7616 §3.4.4) or no UUID. To be asked again.
    Unidentified,
    /// It cannot be read: a string without end, Basic without a colon or in bad BASE64, two user names. 400.
    Malformed,
}

/// Reads the value of an `Authorization` field: Digest (RFC 7616) or Basic (RFC 7617), in any case.
///
/// In Digest the user name is a string, a token, or `username*=UTF-8''…` (RFC 8187); in Basic it is what comes before
/// the first colon.
#[must_use]
pub fn identify(authorization: &[u8]) -> Identified {
    let authorization = trim(authorization);
    let scheme_octets = authorization.iter().take_while(|&&octet| !is_blank(octet)).count();
    let (scheme, credentials) = authorization.split_at(scheme_octets);
    let found = if scheme.eq_ignore_ascii_case(b"Digest") {
        digest(trim(credentials))
    } else if scheme.eq_ignore_ascii_case(b"Basic") {
        basic(trim(credentials))
    } else {
        Ok(None)
    };
    match found {
        Ok(Some(id)) => Identified::Id(id),
        Ok(None) => Identified::Unidentified,
        Err(Malformed) => Identified::Malformed,
    }
}

/// Appends the field that asks a client whom it wants, on one line: clients fail on a folded one.
///
/// Neither `algorithm` nor `charset`: every client has the default, some have nothing else. The nonce is not checked
/// when it comes back, so it needs no state.
pub fn write_challenge(nonce: &[u8; 16], opaque: &[u8; 16], out: &mut Vec<u8>) {
    out.extend_from_slice(b"WWW-Authenticate: Digest realm=\"rendezvous\", qop=\"auth, auth-int\", nonce=\"");
    out.extend_from_slice(HEXLOWER.encode(nonce).as_bytes());
    out.extend_from_slice(b"\", opaque=\"");
    out.extend_from_slice(HEXLOWER.encode(opaque).as_bytes());
    out.extend_from_slice(b"\"\r\n");
}

struct Malformed;

fn basic(credentials: &[u8]) -> Result<Option<Id>, Malformed> {
    let pair = BASE64.decode(credentials).map_err(|_| Malformed)?;
    let colon = pair.iter().position(|&octet| octet == b':').ok_or(Malformed)?;
    Ok(pair.get(..colon).and_then(Id::parse))
}

/// Reads all parameters before it judges, so that a fault behind the user name is a fault as well.
fn digest(credentials: &[u8]) -> Result<Option<Id>, Malformed> {
    let (mut plain, mut extended) = (None, None);
    let mut is_hashed = false;
    let mut parameters = Parameters { rest: credentials };
    while let Some((name, value)) = parameters.next()? {
        let repeated = if name.eq_ignore_ascii_case(b"username") {
            plain.replace(value).is_some()
        } else if name.eq_ignore_ascii_case(b"username*") {
            extended.replace(value).is_some()
        } else {
            is_hashed |= name.eq_ignore_ascii_case(b"userhash") && value.octets().eq(*b"true");
            false
        };
        if repeated {
            return Err(Malformed);
        }
    }
    match (plain, extended) {
        (Some(_), Some(_)) => Err(Malformed),
        _ if is_hashed => Ok(None),
        (Some(name), None) => Ok(collect_id(name.octets().map(Some))),
        (None, Some(name)) => Ok(extended_id(name)),
        (None, None) => Ok(None),
    }
}

/// What is left of a list of parameters.
struct Parameters<'a> {
    rest: &'a [u8],
}

impl<'a> Parameters<'a> {
    /// The next `name = value`; `None` at the end. Empty items are skipped (RFC 9110 §5.6.1.2).
    fn next(&mut self) -> Result<Option<(&'a [u8], Value<'a>)>, Malformed> {
        let start = self.rest.iter().take_while(|&&octet| is_blank(octet) || octet == b',').count();
        let list = self.rest.get(start..).unwrap_or_default();
        if list.is_empty() {
            return Ok(None);
        }
        let name_octets = list.iter().take_while(|&&octet| is_tchar(octet)).count();
        let (name, rest) = list.split_at(name_octets);
        let rest = trim_start(rest).strip_prefix(b"=").ok_or(Malformed)?;
        let (value, rest) = Value::parse(trim_start(rest))?;
        self.rest = trim_start(rest);
        let is_over = self.rest.is_empty() || self.rest.starts_with(b",");
        if name.is_empty() || !is_over { Err(Malformed) } else { Ok(Some((name, value))) }
    }
}

/// A parameter's value, quotes removed, escapes not yet.
#[derive(Clone, Copy)]
struct Value<'a> {
    raw: &'a [u8],
    is_quoted: bool,
}

impl<'a> Value<'a> {
    /// The value in front of `text`, and what is behind it. Without quotes it ends at a comma or a blank, whatever
    /// else it is made of: some clients forget the quotes of `uri` or `opaque`.
    fn parse(text: &'a [u8]) -> Result<(Self, &'a [u8]), Malformed> {
        let Some(inner) = text.strip_prefix(b"\"") else {
            let len =
                text.iter().take_while(|&&octet| !is_blank(octet) && !matches!(octet, b',' | b'"')).count();
            let (raw, rest) = text.split_at(len);
            return Ok((Self { raw, is_quoted: false }, rest));
        };
        let mut is_escaped = false;
        let end = inner.iter().position(|&octet| {
            let is_end = octet == b'"' && !is_escaped;
            is_escaped = octet == b'\\' && !is_escaped;
            is_end
        });
        let (raw, rest) = end.and_then(|end| inner.split_at_checked(end)).ok_or(Malformed)?;
        Ok((Self { raw, is_quoted: true }, rest.strip_prefix(b"\"").unwrap_or(rest)))
    }

    /// What the value means: quoted-pairs are resolved (RFC 9110 §5.6.4).
    fn octets(self) -> impl Iterator<Item = u8> + 'a {
        let mut raw = self.raw.iter().copied();
        core::iter::from_fn(move || match raw.next()? {
            b'\\' if self.is_quoted => raw.next(),
            octet => Some(octet),
        })
    }
}

/// The ID in `UTF-8'language'text`, where the text is percent-encoded (RFC 8187 §3.2). `None` for any other charset.
fn extended_id(value: Value<'_>) -> Option<Id> {
    let mut octets = value.octets();
    if !octets.by_ref().take_while(|&it| it != b'\'').map(|it| it.to_ascii_uppercase()).eq(*b"UTF-8") {
        return None;
    }
    // The language tells nothing; without the second quote there is no text left, and no ID.
    octets.by_ref().find(|&it| it == b'\'');
    let decoded = core::iter::from_fn(|| match octets.next()? {
        b'%' => {
            // Here `^` would do the same as `|`: the bits are apart.
            let mut digit = || char::from(octets.next()?).to_digit(16);
            let value = digit().zip(digit()).map(|(high, low)| high << 4 | low);
            Some(value.and_then(|value| u8::try_from(value).ok()))
        }
        octet => Some(Some(octet)),
    });
    collect_id(decoded)
}

/// The ID that the octets spell; `None` if one of them could not be read, or if they spell something else.
fn collect_id(mut octets: impl Iterator<Item = Option<u8>>) -> Option<Id> {
    let mut text = [0; Id::TEXT_OCTETS];
    for place in &mut text {
        *place = octets.next()??;
    }
    if octets.next().is_some() { None } else { Id::parse(&text) }
}
