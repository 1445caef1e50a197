//! Redacts bytes: the result has the same length, and a machine handles it in the same way.
//!
//! Everything that is not known to be harmless becomes `x`; what affects the machine is kept. Each function says why
//! the result cannot differ.

use alloc::format;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;

use data_encoding::{BASE64, BASE64_NOPAD};

use super::pseudonyms::StandIn;
use crate::http::basic;
use crate::http::challenge::{Identified, decode_basic, identify};
use crate::http::date::parse_date;
use crate::http::follower::{Follower, Step};
use crate::http::pool::FIELD as POOL;
use crate::http::response::parse_status;
use crate::http::target::{Registration, registration};
use crate::id::Id;
use crate::pair::Side;
use crate::proxy_header::{self, Parsed};
use crate::token::Challenge;
use crate::token::challenge::FIELD as CHALLENGE;

/// The fields of a request whose values are read. They control the connection; none has a secret.
const READ: [&[u8]; 9] = [
    b"Host",
    b"Connection",
    b"Upgrade",
    b"Content-Length",
    b"Transfer-Encoding",
    b"Expect",
    b"Accept",
    b"DTCP-Host",
    b"DTCP-Fingerprint",
];

/// Makes the stand-in for the token of a CONNECT.
pub(super) type Token<'a> = &'a dyn Fn(&Registration<'_>) -> StandIn;

/// Tells whether a user name is a label.
pub(super) type IsLabel<'a> = &'a dyn Fn(&str) -> bool;

/// How a head is read.
#[derive(Clone, Copy)]
pub(super) enum Reader<'a> {
    /// A complete head: a CONNECT's token is checked, and an `Authorization` names an ID or a label.
    Whole(Token<'a>, IsLabel<'a>),
    /// A complete head at an agent: an `Authorization` may have a password that is checked.
    Agent,
    /// An incomplete or refused head: only its form matters.
    Form,
}

/// Appends a request's head, complete or not.
pub(super) fn request(head: &[u8], reader: Reader<'_>, out: &mut Vec<u8>) {
    let (blank, head) = head.split_at(if head.starts_with(b"\r\n") { 2 } else { 0 });
    out.extend_from_slice(blank);
    let (line, fields) = first_line(head);
    request_line(line, reader, out);
    let is_connect = line.starts_with(b"CONNECT ");
    for line in fields.split_inclusive(|&byte| byte == b'\n') {
        field(line, out, |name, value, out| match reader {
            Reader::Whole(_, is_label) if name.eq_ignore_ascii_case(b"Authorization") => {
                credentials(value, is_label, out);
            }
            Reader::Agent if name.eq_ignore_ascii_case(b"Authorization") => {
                out.extend_from_slice(&basic::stand_in(value));
            }
            Reader::Whole(..) if is_connect && name.eq_ignore_ascii_case(b"PROXY-Protocol") => {
                out.extend_from_slice(value);
            }
            // The key is not compared with ours, but its characters are checked.
            _ if name.eq_ignore_ascii_case(b"DTCP-Key") => blur(value, out),
            _ if READ.iter().any(|known| name.eq_ignore_ascii_case(known)) => out.extend_from_slice(value),
            _ => unread(value, out),
        });
    }
}

/// Appends the head of a response, complete or not.
///
/// Version and status are kept; the reason phrase is not read. An agent reads `Retry-After`, `Rendezvous-Challenge`
/// and `Rendezvous-Pool`, a connector `Hidden-Server`, and a human `Date`. The stand-in of a malformed value is
/// malformed.
pub(super) fn answer(head: &[u8], out: &mut Vec<u8>) {
    answer_with(head, |_| false, out);
}

/// Appends the head of a response, with the values of the fields for which `is_kept` is true.
fn answer_with(head: &[u8], is_kept: impl Fn(&[u8]) -> bool, out: &mut Vec<u8>) {
    /// `HTTP/1.1 200`.
    const STATUS_BYTES: usize = 12;
    let (blank, head) = head.split_at(if head.starts_with(b"\r\n") { 2 } else { 0 });
    out.extend_from_slice(blank);
    let (line, fields) = first_line(head);
    let is_partial =
        !line.ends_with(b"\n") && b"HTTP/".iter().zip(line).all(|(expected, byte)| expected == byte);
    if is_partial || parse_status(line).is_some() {
        let (status, phrase) = line.split_at(STATUS_BYTES.min(line.len()));
        out.extend_from_slice(status);
        unread(phrase, out);
    } else {
        blur(line, out);
    }
    for line in fields.split_inclusive(|&byte| byte == b'\n') {
        field(line, out, |name, value, out| {
            let text = value.trim_ascii();
            let is_date = name.eq_ignore_ascii_case(b"Date") && parse_date(text).is_some();
            let is_delay = name.eq_ignore_ascii_case(b"Retry-After") && text.iter().all(u8::is_ascii_digit);
            let is_challenge = name.eq_ignore_ascii_case(CHALLENGE.as_bytes());
            let is_offline = name.eq_ignore_ascii_case(b"Hidden-Server") && text == b"offline";
            let is_harmless = is_date || is_delay || is_offline || is_kept(name);
            if is_harmless || is_challenge && Challenge::parse(text).is_some() {
                out.extend_from_slice(value);
            } else if name.eq_ignore_ascii_case(POOL.as_bytes()) {
                pool_state(value, out);
            } else if is_challenge {
                // Letters could form a valid challenge.
                out.extend(value.iter().map(|&byte| if byte.is_ascii_graphic() { b'!' } else { byte }));
            } else {
                unread(value, out);
            }
        });
    }
}

/// Appends the value of a `Rendezvous-Pool`. Its numbers are kept; a malformed one becomes letters.
fn pool_state(value: &[u8], out: &mut Vec<u8>) {
    for word in value.split_inclusive(u8::is_ascii_whitespace) {
        let name = if word.starts_with(b"held=") || word.starts_with(b"room=") { 5 } else { 0 };
        let (name, rest) = word.split_at(name);
        out.extend_from_slice(name);
        let is_number = !name.is_empty() && rest.trim_ascii_end().iter().all(u8::is_ascii_digit);
        if is_number {
            out.extend_from_slice(rest);
        } else {
            unread(rest, out);
        }
    }
}

/// Appends bytes at a gate, from one side of a pair whose exchanges are followed; `follower` is a copy of the
/// machine's. Heads and chunk lines frame the exchanges as before; bodies become `x`.
pub(super) fn exchanges(
    follower: &mut Follower,
    from: Side,
    bytes: &[u8],
    mut request_head: impl FnMut(&[u8], &mut Vec<u8>),
    out: &mut Vec<u8>,
) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let before = follower.clone();
        let step = match from {
            Side::Client => follower.on_client(rest),
            Side::Hidden => follower.on_hidden(rest),
        };
        let len = match step {
            Step::Request { len, .. } | Step::Response { len } => len,
            Step::Skip(len) => usize::try_from(len).unwrap_or(usize::MAX).min(rest.len()),
            Step::More | Step::Opaque | Step::Hold | Step::Refused(_) => rest.len(),
        };
        let (front, behind) = rest.split_at(len);
        let is_body = match from {
            Side::Client => before.redact_client_body(front, out),
            Side::Hidden => before.redact_hidden_body(front, out),
        };
        match (step, from) {
            _ if is_body => {}
            (Step::Request { head, .. }, _) => {
                request_head(front, out);
                follower.request_passed(&head);
            }
            (Step::Opaque | Step::Hold, Side::Client) => opaque(front, out),
            (_, Side::Client) => request(front, Reader::Form, out),
            (_, Side::Hidden) => response(front, out),
        }
        rest = behind;
    }
}

/// Appends a hidden server's response head, complete or not, or bytes that are not one. The framing of the response is kept.
fn response(head: &[u8], out: &mut Vec<u8>) {
    const FRAMING: [&[u8]; 4] = [b"Connection", b"Upgrade", b"Content-Length", b"Transfer-Encoding"];
    answer_with(head, |name| FRAMING.iter().any(|known| name.eq_ignore_ascii_case(known)), out);
}

/// Appends a PROXY header, complete or not, if there is one. Returns its length. Addresses are kept, extensions are
/// not.
///
/// Whatever makes it malformed is kept: the line, or the fixed part of a version 2 header. Malformed extensions are
/// replaced by other malformed ones, well-formed ones by one without a meaning.
pub(super) fn proxy_header(bytes: &[u8], out: &mut Vec<u8>) -> usize {
    let is_v2 = proxy_header::begins_v2(bytes);
    let read = match bytes.get(13) {
        // The fixed part and, depending on the family, the addresses.
        Some(0x11) if is_v2 => 16 + 12,
        Some(0x21) if is_v2 => 16 + 36,
        _ if is_v2 => 16,
        _ => bytes.iter().position(|&byte| byte == b'\n').map_or(bytes.len(), |at| at + 1),
    };
    let parsed = proxy_header::parse(bytes);
    let malformed_extensions = parsed == Parsed::Refused(proxy_header::MALFORMED_EXTENSION);
    let len = match parsed {
        Parsed::Refused(_) if malformed_extensions => bytes.len(),
        Parsed::Complete { len, .. } => len,
        Parsed::Partial => bytes.len(),
        Parsed::Refused(_) if is_v2 || bytes.starts_with(b"PROXY ") => read.min(bytes.len()),
        Parsed::Refused(_) => 0,
    };
    let (read, unread) = bytes[..len].split_at(read.min(len));
    out.extend_from_slice(read);
    match (parsed, unread.len()) {
        (Parsed::Complete { .. }, 3..) if is_v2 => {
            let [.., high, low] = (unread.len() - 3).to_be_bytes();
            out.extend_from_slice(&[proxy_header::NOOP, high, low]);
            opaque(&unread[3..], out);
        }
        _ if malformed_extensions => out.extend(unread.iter().map(|_| u8::MAX)),
        _ => opaque(unread, out),
    }
    len
}

/// The same for a client that a relay hands over to an agent: the name of a raw client is kept.
pub(super) fn client_header(bytes: &[u8], out: &mut Vec<u8>) -> usize {
    match proxy_header::parse(bytes) {
        Parsed::Complete { len, .. } if !matches!(proxy_header::raw_name(&bytes[..len]), Ok(None)) => {
            out.extend_from_slice(&bytes[..len]);
            len
        }
        _ => proxy_header(bytes, out),
    }
}

/// Appends lines of DTCP. The four commands are kept, and `key` makes the argument. Any other line remains an unknown
/// command, and an incomplete line is not read.
pub(super) fn lines(bytes: &[u8], key: impl Fn(&[u8]) -> Vec<u8>, out: &mut Vec<u8>) {
    for line in bytes.split_inclusive(|&byte| byte == b'\n') {
        let text = line.strip_suffix(b"\n").map(|text| text.strip_suffix(b"\r").unwrap_or(text));
        let Some(text) = text else { return opaque(line, out) };
        let word = text.iter().position(|&byte| byte == b':').unwrap_or(text.len());
        let (word, argument) = text.split_at(word);
        if matches!(word, b"starttls" | b"key" | b"ok" | b"error") {
            out.extend_from_slice(word);
            if let Some((colon, argument)) = argument.split_first() {
                out.push(*colon);
                out.extend_from_slice(&key(argument));
            }
        } else {
            opaque(text, out);
        }
        out.extend_from_slice(&line[text.len()..]);
    }
}

/// Appends this many bytes that are not read.
pub(super) fn opaque(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend(core::iter::repeat_n(b'x', bytes.len()));
}

/// Appends bytes of which only the form matters: letters and digits become `x`, and non-ASCII bytes another one.
fn blur(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend(bytes.iter().map(|&byte| match byte {
        _ if byte.is_ascii_alphanumeric() => b'x',
        0x80.. => 0xff,
        _ => byte,
    }));
}

fn first_line(head: &[u8]) -> (&[u8], &[u8]) {
    let end = head.iter().position(|&byte| byte == b'\n').map_or(head.len(), |at| at + 1);
    head.split_at(end)
}

/// Appends the line, with its CRLF if it has one. Its parts remain, and none becomes valid: `xxx` is not a method,
/// and a target begins or ends with a letter only if it did before.
fn request_line(line: &[u8], reader: Reader<'_>, out: &mut Vec<u8>) {
    let text_bytes = line.iter().take_while(|&&byte| !matches!(byte, b'\r' | b'\n')).count();
    let (text, end) = line.split_at(text_bytes);
    let parts: Vec<&[u8]> = text.split(|&byte| byte == b' ').collect();
    let is_method = |word: &[u8]| (1..=16).contains(&word.len()) && word.iter().all(u8::is_ascii_uppercase);
    match *parts {
        [method, target, version] if !end.is_empty() => {
            if is_method(method) {
                out.extend_from_slice(method);
            } else {
                blur(method, out);
            }
            out.push(b' ');
            match core::str::from_utf8(target) {
                Ok(target) if method == b"CONNECT" => connect_target(target, reader, out),
                Ok(target) => client_target(target, out),
                Err(_) => blur(target, out),
            }
            out.push(b' ');
            match version {
                [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => {
                    out.extend_from_slice(version)
                }
                _ => blur(version, out),
            }
        }
        [method, _, ..] if is_method(method) => {
            out.extend_from_slice(method);
            blur(&text[method.len()..], out);
        }
        // An agent waits for the rest of what may become a HEAD.
        [method] if b"HEAD".starts_with(method) => out.extend_from_slice(method),
        _ => blur(text, out),
    }
    out.extend_from_slice(end);
}

/// A valid ID is kept, and a token that is checked is replaced. Errors remain errors: `x` is not a hexadecimal digit,
/// and names are kept.
fn connect_target(target: &str, reader: Reader<'_>, out: &mut Vec<u8>) {
    let Some((scheme, rest)) = target.split_at_checked(5).filter(|(it, _)| it.eq_ignore_ascii_case("uuid:"))
    else {
        return blur(target.as_bytes(), out);
    };
    let token = match (reader, registration(target)) {
        (Reader::Whole(token, _), Ok(registration)) => Some(token(&registration)),
        _ => None,
    };
    out.extend_from_slice(scheme.as_bytes());
    let (id, query) = rest.split_once('?').map_or((rest, None), |(id, query)| (id, Some(query)));
    match Id::parse(id.as_bytes()) {
        Some(_) => out.extend_from_slice(id.as_bytes()),
        None => blur(id.as_bytes(), out),
    }
    let Some(query) = query else { return };
    for (place, parameter) in query.split('&').enumerate() {
        out.push(if place == 0 { b'?' } else { b'&' });
        match (parameter.split_once('='), &token) {
            (Some(("response", _)), Some(token)) => {
                out.extend_from_slice(b"response=");
                out.extend_from_slice(&token.response);
            }
            (Some(("challenge", _)), Some(StandIn { challenge: Some(challenge), .. })) => {
                out.extend_from_slice(b"challenge=");
                out.extend_from_slice(challenge);
            }
            // It tells which clients the hidden server accepts.
            (Some(("raw", _)), _) => out.extend_from_slice(parameter.as_bytes()),
            (Some(("nonce", _)), Some(_)) => out.extend_from_slice(parameter.as_bytes()),
            (Some((name @ ("response" | "nonce" | "challenge"), value)), None) => {
                out.extend_from_slice(name.as_bytes());
                out.push(b'=');
                blur(value.as_bytes(), out);
            }
            _ if matches!(parameter, "response" | "nonce" | "challenge" | "raw") => {
                out.extend_from_slice(parameter.as_bytes())
            }
            _ => blur(parameter.as_bytes(), out),
        }
    }
}

/// Scheme and authority are kept, since they are compared with `Host`, and an ID in `rendezvous=ID`. Of the rest of
/// path and query only the characters are checked.
fn client_target(target: &str, out: &mut Vec<u8>) {
    let authority_end = target.split_once("://").map(|(scheme, rest)| {
        let authority = rest.find(['/', '?']).unwrap_or(rest.len());
        (scheme.len() + 3, scheme.len() + 3 + authority)
    });
    let path = match authority_end {
        _ if target.starts_with('/') => target,
        // User names and passwords are refused there, with or without their letters.
        Some((authority, end)) => {
            let (scheme, authority) = target[..end].split_at(authority);
            out.extend_from_slice(scheme.as_bytes());
            if authority.contains('@') {
                blur(authority.as_bytes(), out);
            } else {
                out.extend_from_slice(authority.as_bytes());
            }
            &target[end..]
        }
        None => return blur(target.as_bytes(), out),
    };
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    blur(path.as_bytes(), out);
    let Some(query) = query else { return };
    for (place, parameter) in query.split('&').enumerate() {
        out.push(if place == 0 { b'?' } else { b'&' });
        match parameter.split_once('=') {
            Some(("rendezvous", id)) => {
                out.extend_from_slice(b"rendezvous=");
                match Id::parse(id.as_bytes()) {
                    Some(_) => out.extend_from_slice(id.as_bytes()),
                    None => blur(id.as_bytes(), out),
                }
            }
            None if parameter == "rendezvous" => out.extend_from_slice(parameter.as_bytes()),
            _ => blur(parameter.as_bytes(), out),
        }
    }
}

/// A field line, with its CRLF if it has one. A valid name is kept; `read` appends the value of a complete line.
fn field(line: &[u8], out: &mut Vec<u8>, read: impl Fn(&[u8], &[u8], &mut Vec<u8>)) {
    let text = line.strip_suffix(b"\r\n").unwrap_or(line);
    let name_bytes = text.iter().position(|&byte| byte == b':');
    let is_name =
        |name: &&[u8]| name.iter().all(|it| it.is_ascii_alphanumeric() || matches!(it, b'-' | b'_'));
    let Some(name) = name_bytes.and_then(|bytes| text.get(..bytes)).filter(is_name) else {
        return blur(line, out);
    };
    let value = &text[name.len() + 1..];
    out.extend_from_slice(name);
    out.push(b':');
    if text.len() < line.len() {
        read(name, value, out);
    } else {
        unread(value, out);
    }
    out.extend_from_slice(&line[text.len()..]);
}

/// A value that is not read. White space and control bytes are kept, since the latter are refused.
fn unread(value: &[u8], out: &mut Vec<u8>) {
    let is_text = |byte: u8| byte.is_ascii_graphic() || byte >= 0x80;
    out.extend(value.iter().map(|&byte| if is_text(byte) { b'x' } else { byte }));
}

/// The value of an `Authorization`: one of the same length that names the same ID or label, or none, or is malformed.
/// The scheme is kept if it names one.
fn credentials(value: &[u8], is_label: IsLabel<'_>, out: &mut Vec<u8>) {
    let blank = |byte: &&u8| matches!(byte, b' ' | b'\t');
    let front = value.iter().take_while(blank).count();
    let back = value[front..].iter().rev().take_while(blank).count();
    let text = &value[front..value.len() - back];
    out.extend_from_slice(&value[..front]);
    let nobody = || vec![b'x'; text.len()];
    let named = |name: &str| basic(text, name).unwrap_or_else(|| digest(text.len(), name));
    let found = identify(text);
    let stand_in = match &found {
        Identified::Unidentified => nobody(),
        Identified::Malformed => malformed(text.len()),
        Identified::Id(id) => named(&id.to_string()),
        Identified::Name(name) if is_label(name) => named(name),
        Identified::Name(_) => nobody(),
    };
    debug_assert!(stand_in.len() == text.len(), "{}", stand_in.len());
    debug_assert!(stand_in == nobody() || identify(&stand_in) == found, "{found:?}");
    out.extend_from_slice(&stand_in);
    out.extend_from_slice(&value[value.len() - back..]);
}

/// Basic with invalid BASE64. Without any it has no colon, which is malformed as well.
fn malformed(bytes: usize) -> Vec<u8> {
    let mut text = b"Basic ".to_vec();
    text.resize(bytes.max(text.len()), b'!');
    text.truncate(bytes);
    text
}

/// Basic with another password, if it is Basic and the name fits.
fn basic(text: &[u8], name: &str) -> Option<Vec<u8>> {
    let (scheme, rest) = text.split_at_checked(5).filter(|(it, _)| it.eq_ignore_ascii_case(b"Basic"))?;
    let blank = rest.iter().take_while(|it| matches!(it, b' ' | b'\t')).count();
    let mut pair = decode_basic(&rest[blank..])?;
    let user = pair.iter().position(|&byte| byte == b':').filter(|&user| user >= name.len())?;
    pair[..user].fill(b' ');
    pair[..name.len()].copy_from_slice(name.as_bytes());
    pair[user + 1..].fill(b'x');
    let encoding = if rest.ends_with(b"=") { BASE64 } else { BASE64_NOPAD };
    Some([scheme, &rest[..blank], encoding.encode(&pair).as_bytes()].concat())
}

/// Digest with this user name, padded with an unknown parameter, or with commas if that does not fit.
fn digest(bytes: usize, name: &str) -> Vec<u8> {
    let quoted = format!("Digest username=\"{name}\"");
    let mut text = if quoted.len() <= bytes { quoted } else { format!("Digest username={name}") };
    match bytes.saturating_sub(text.len()) {
        room @ 0..4 => text.push_str(&",".repeat(room)),
        room => text.push_str(&format!(",x={}", "x".repeat(room - 3))),
    }
    text.into_bytes()
}
