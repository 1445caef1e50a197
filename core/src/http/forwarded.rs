//! Fields that tell a server the client and the external address of a forwarded request: `X-Forwarded-For`,
//! `X-Forwarded-Host`, `X-Forwarded-Proto`, and `Forwarded` (RFC 7239).
//!
//! Servers trust them. So those that the client sent are removed, in every spelling that a server could take for one
//! of them. Each field is written once and has one value.
//!
//! The same applies to [`SUBJECT_FIELD`], the subject of the client's certificate.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use super::head::Head;
use super::syntax::{is_tchar, trim};
use crate::subject::Subject;

/// The field with the subject of the client's certificate: a distinguished name in text form (RFC 4514).
pub const SUBJECT_FIELD: &str = "X-Client-Cert-Subject";

/// The origin of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The client's address; `None` if it is unknown.
    pub client: Option<IpAddr>,
    /// Whether the client uses HTTPS. A WebSocket over TLS is `https` too.
    pub is_https: bool,
}

/// Appends `head` with the forwarding fields of `origin`, and without those of the client. Returns the head as it was
/// written, for [`request_passed`](super::follower::Follower::request_passed).
///
/// It also removes an Upgrade to `h2c` and `HTTP2-Settings`, since requests after them would not be inspected; and
/// the names of removed fields in `Connection`, so that the next hop does not remove the new ones. All other lines
/// are unchanged.
pub fn write<'a>(head: &Head<'a>, origin: &Origin, out: &mut Vec<u8>) -> Head<'a> {
    rewrite(head, Rewrite { origin: Some(origin), subject: None, removes_credentials: false }, out)
}

/// The changes to a head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rewrite<'o> {
    /// The forwarding fields. `None` keeps those of the client.
    pub(crate) origin: Option<&'o Origin>,
    /// The subject of the client's certificate. `None` keeps the client's own fields about certificates.
    pub(crate) subject: Option<&'o Subject>,
    /// Whether every `Authorization` is removed.
    pub(crate) removes_credentials: bool,
}

impl Rewrite<'_> {
    /// Whether a field of the client is removed.
    fn removes(self, name: &[u8]) -> bool {
        is_same_name(name, b"HTTP2-Settings")
            || self.origin.is_some() && is_forwarding_name(name)
            || self.subject.is_some() && is_certificate_name(name)
            || self.removes_credentials && is_same_name(name, b"Authorization")
    }
}

/// Like [`write`], with selected changes.
pub(crate) fn rewrite<'a>(head: &Head<'a>, how: Rewrite<'_>, out: &mut Vec<u8>) -> Head<'a> {
    let mut raw = Vec::new();
    head.as_it_came(&mut raw);
    let mut lines = raw.split_inclusive(|byte| *byte == b'\n');
    out.extend_from_slice(lines.next().unwrap_or_default());
    let keeps_upgrade =
        head.upgrade.is_some() && fields(&raw).any(|(name, value)| is_kept_upgrade(name, value));
    for line in lines {
        let Some((name, value)) = split_field(line) else { break };
        if how.removes(name) {
            continue;
        }
        if name.eq_ignore_ascii_case(b"Connection") {
            write_list(line, name, value, |item| is_kept_option(item, how, keeps_upgrade), out);
        } else if name.eq_ignore_ascii_case(b"Upgrade") {
            write_list(line, name, value, |item| !item.eq_ignore_ascii_case(b"h2c"), out);
        } else {
            out.extend_from_slice(line);
        }
    }
    if let Some(origin) = how.origin {
        write_fields(head.host, origin, out);
    }
    if let Some(subject) = how.subject {
        out.extend_from_slice(format!("{SUBJECT_FIELD}: {subject}\r\n").as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    let mut written = *head;
    if !keeps_upgrade {
        written.upgrade = None;
    }
    written
}

/// Appends the forwarding fields. `host` is the client's `Host`, with its port.
fn write_fields(host: Option<&str>, origin: &Origin, out: &mut Vec<u8>) {
    let proto = if origin.is_https { "https" } else { "http" };
    let host = host.filter(|host| !host.is_empty());
    let mut text = String::new();
    let mut forwarded = match origin.client.map(|client| client.to_canonical()) {
        Some(client) => {
            text += &format!("X-Forwarded-For: {client}\r\n");
            match client {
                IpAddr::V4(client) => format!("for={client}"),
                IpAddr::V6(client) => format!("for=\"[{client}]\""),
            }
        }
        None => String::from("for=unknown"),
    };
    if let Some(host) = host {
        text += &format!("X-Forwarded-Host: {host}\r\n");
        // A host has no quotes and no backslashes.
        forwarded +=
            &if host.bytes().all(is_tchar) { format!(";host={host}") } else { format!(";host=\"{host}\"") };
    }
    text += &format!("X-Forwarded-Proto: {proto}\r\nForwarded: {forwarded};proto={proto}\r\n");
    out.extend_from_slice(text.as_bytes());
}

/// Whether a server could take a field named `name` for one that a reverse proxy adds about a client. Servers that
/// turn names into variables (CGI, WSGI, PHP) treat `-`, `_` and `.` alike.
pub(super) fn is_forwarding_name(name: &[u8]) -> bool {
    const NAMES: &[&[u8]] = &[
        b"Forwarded",
        b"Forwarded-For",
        b"X-Forwarded",
        b"X-Real-IP",
        b"X-Client-IP",
        b"Client-IP",
        b"True-Client-IP",
        b"X-Cluster-Client-IP",
    ];
    const PREFIX: &[u8] = b"X-Forwarded-";
    let is_prefixed = name.get(..PREFIX.len()).is_some_and(|prefix| is_same_name(prefix, PREFIX));
    is_prefixed || NAMES.iter().any(|it| is_same_name(name, it))
}

/// Whether a server could take a field named `name` for one that a reverse proxy adds about a client's certificate:
/// ours, those of RFC 9440, and the usual ones of nginx, HAProxy, Envoy and Traefik.
pub(super) fn is_certificate_name(name: &[u8]) -> bool {
    const NAMES: &[&[u8]] =
        &[b"Client-Cert", b"Client-Cert-Chain", b"X-SSL-Cert", b"X-Forwarded-Client-Cert"];
    const PREFIXES: &[&[u8]] =
        &[b"X-Client-Cert", b"X-SSL-Client-", b"SSL-Client-", b"X-Forwarded-TLS-Client-"];
    let begins = |prefix: &&[u8]| name.get(..prefix.len()).is_some_and(|front| is_same_name(front, prefix));
    NAMES.iter().any(|it| is_same_name(name, it)) || PREFIXES.iter().any(begins)
}

/// Whether two field names are equal for a server that treats `-`, `_` and `.` alike.
pub(super) fn is_same_name(name: &[u8], other: &[u8]) -> bool {
    let plain = |byte: &u8| if matches!(byte, b'_' | b'.') { b'-' } else { byte.to_ascii_lowercase() };
    name.iter().map(plain).eq(other.iter().map(plain))
}

/// Whether an option of `Connection` is kept.
fn is_kept_option(option: &[u8], how: Rewrite<'_>, keeps_upgrade: bool) -> bool {
    !how.removes(option) && (keeps_upgrade || !option.eq_ignore_ascii_case(b"upgrade"))
}

/// Whether this field asks for a protocol other than `h2c`.
fn is_kept_upgrade(name: &[u8], value: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"Upgrade") && items(value).any(|item| !item.eq_ignore_ascii_case(b"h2c"))
}

/// Writes a list field with the members that are kept: unchanged if all are, and not at all if none is.
fn write_list(line: &[u8], name: &[u8], value: &[u8], keeps: impl Fn(&[u8]) -> bool, out: &mut Vec<u8>) {
    if items(value).all(&keeps) {
        return out.extend_from_slice(line);
    }
    let mut separator: &[u8] = b": ";
    for item in items(value).filter(|item| keeps(item)) {
        if separator == b": " {
            out.extend_from_slice(name);
        }
        out.extend_from_slice(separator);
        out.extend_from_slice(item);
        separator = b", ";
    }
    if separator == b", " {
        out.extend_from_slice(b"\r\n");
    }
}

/// The non-empty members of a list (RFC 9110 §5.6.1).
fn items(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(trim).filter(|item| !item.is_empty())
}

/// The fields of a head that [`parse`](super::head::parse) accepted.
fn fields(raw: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    raw.split_inclusive(|byte| *byte == b'\n').skip(1).filter_map(split_field)
}

/// Name and value of a field line; `None` for the empty line.
fn split_field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = line.split_at_checked(colon)?;
    Some((name, trim(value.strip_prefix(b":")?.strip_suffix(b"\r\n")?)))
}
