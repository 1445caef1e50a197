//! Request heads: their end ([`Finder`]), their contents ([`WholeHead::parse`]), and the reasons for refusing them
//! ([`Refusal`]).
//!
//! A head is forwarded unchanged, so relay and hidden server must not interpret any part of it differently: every
//! ambiguity is refused (RFC 9112 §11.2). A CONNECT comes from a hidden server, everything else from a client; each
//! has its own rules (`Head::connect` and `Head::client` in the source).

use alloc::vec::Vec;
use core::fmt;

use super::fields::{self, Fields};
pub use super::finder::{FIELDS_MAX, Finder, Found, Limits, WholeHead};
use super::instance::FIELD as INSTANCE;
use super::pool::FIELD as POOL;
pub use super::refusal::Refusal;
pub use super::request_line::Version;
use super::request_line::{CONNECT, RequestLine};
use super::syntax::{Authority, decimal};
use crate::token::challenge::FIELD as CHALLENGE;

/// Parses bytes that are one complete head, and no more, regardless of its length.
///
/// # Errors
///
/// Every [`Refusal`] except the two about lengths.
pub fn parse(bytes: &[u8]) -> Result<Head<'_>, Refusal> {
    const UNLIMITED: Limits = Limits { head_bytes_max: u32::MAX, line_bytes_max: u32::MAX };
    match Finder::default().find(bytes, &UNLIMITED) {
        Found::Complete(whole) if whole.bytes().len() == bytes.len() => whole.parse(),
        Found::Refused(refusal) => Err(refusal),
        Found::Complete(_) | Found::Partial => Err(Refusal::Incomplete),
    }
}

impl<'a> WholeHead<'a> {
    /// Parses the head.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] of what can be checked in a complete head alone.
    pub fn parse(self) -> Result<Head<'a>, Refusal> {
        let raw = self.bytes().strip_prefix(b"\r\n").unwrap_or(self.bytes());
        let (line, lines) = split_line(raw).ok_or(Refusal::Incomplete)?;
        let line = RequestLine::parse(line)?;
        let mut room = fields::room();
        let fields = Fields::parse(lines, &mut room)?;
        if line.is_connect() { Head::connect(line, &fields, raw) } else { Head::client(line, &fields, raw) }
    }
}

/// The `Upgrade` of a connector that uses TLS with the agent inside its stream (`docs/protocol.md §6.3`).
pub const SEALED_STREAM: &str = "octet-stream+tls";

/// The body that a head announces (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// None.
    None,
    /// This many bytes.
    Length(u64),
    /// Chunked.
    Chunked,
}

/// A valid request head. `Debug` shows nothing that could be a token or a password.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Head<'a> {
    /// The method, a token. Methods are case-sensitive.
    pub method: &'a str,
    /// The target; only characters of RFC 3986. The target of a CONNECT is not checked further (see
    /// [`registration`](super::target::registration)). For a client it is a path, an absolute URI, or the `*` of
    /// OPTIONS.
    pub target: &'a str,
    /// The version.
    pub version: Version,
    /// `Host`, or the authority of an absolute target, with the port if it has one. Always present in a client's
    /// HTTP/1.1; always `None` for a CONNECT.
    pub host: Option<&'a str>,
    /// The value of `Authorization`; always `None` for a CONNECT.
    pub authorization: Option<&'a [u8]>,
    /// The announced body; none for a CONNECT.
    pub body: Body,
    /// Whether there is an `Expect`, with any value.
    pub expect: bool,
    /// Whether this is the last request on its connection: `Connection: close`, or HTTP/1.0.
    pub close: bool,
    /// Whether another request may follow on the connection, as far as this side decides (RFC 9112 §9.3): HTTP/1.1
    /// without `Connection: close`, or HTTP/1.0 with `Connection: keep-alive` and without `close`.
    pub persists: bool,
    /// The value of the first `Upgrade`, if `Connection` lists it and the version is 1.1 (RFC 9110 §7.8).
    pub upgrade: Option<&'a str>,
    /// Whether this is a CONNECT whose `PROXY-Protocol: v2` asks for a header in front of the stream (see
    /// [`proxy_header`](crate::proxy_header)). Always false for a client's request, in which the field is ignored.
    pub proxy_header: bool,
    /// Whether there is no `Expect`, or a single one with the value `100-continue` (RFC 9110 §10.1.1).
    pub(super) is_expect_known: bool,
    /// Whether this is a CONNECT with a `Rendezvous-Challenge` field, which asks for a challenge in the 200 (see
    /// [`challenge`](crate::token::challenge)). Always false for a client's request.
    pub asks_challenge: bool,
    /// Whether this is a CONNECT with a `Rendezvous-Pool` field, which asks for one in the 200 (see
    /// [`pool`](super::pool)). Always false for a client's request.
    pub asks_pool: bool,
    /// Whether this is a CONNECT with a `Rendezvous-Relay` field, which asks for one in the 200 (see
    /// [`instance`](super::instance)). Always false for a client's request.
    pub asks_instance: bool,
    /// The head as it was received, without a leading empty line.
    raw: &'a [u8],
}

impl<'a> Head<'a> {
    /// The values of all fields of that name, without surrounding whitespace. Names are compared case-insensitively.
    #[must_use]
    pub fn values(&self, name: &str) -> Vec<&'a [u8]> {
        let mut room = fields::room();
        let fields = split_line(self.raw).map(|(_, lines)| Fields::parse(lines, &mut room));
        match fields {
            Some(Ok(fields)) => fields.all(name).collect(),
            // A head that was parsed before has fields.
            Some(Err(_)) | None => Vec::new(),
        }
    }

    /// A hidden server's request. Its fields are ignored, but a CONNECT has no body (RFC 9110 §9.3.6), and a repeated
    /// `Host` is refused in any request (RFC 9112 §3.2).
    fn connect(line: RequestLine<'a>, fields: &Fields<'_, 'a>, raw: &'a [u8]) -> Result<Self, Refusal> {
        fields.only("Host", Refusal::HostRepeated)?;
        if fields.has("Content-Length") || fields.has("Transfer-Encoding") {
            return Err(Refusal::ConnectBody);
        }
        Ok(Self {
            method: line.method,
            target: line.target,
            version: line.version,
            host: None,
            authorization: None,
            body: Body::None,
            expect: fields.has("Expect"),
            close: fields.lists("Connection", "close"),
            persists: fields.persist(line.version),
            upgrade: None,
            proxy_header: fields.lists("PROXY-Protocol", "v2"),
            is_expect_known: is_expect_known(fields),
            asks_challenge: fields.has(CHALLENGE),
            asks_pool: fields.has(POOL),
            asks_instance: fields.has(INSTANCE),
            raw,
        })
    }

    /// A client's request.
    fn client(line: RequestLine<'a>, fields: &Fields<'_, 'a>, raw: &'a [u8]) -> Result<Self, Refusal> {
        let is_http11 = line.version == Version::Http11;
        let upgrades = is_http11 && fields.lists("Connection", "upgrade");
        Ok(Self {
            method: line.method,
            target: line.target,
            version: line.version,
            host: host(&line, fields)?,
            authorization: fields.only("Authorization", Refusal::AuthorizationRepeated)?,
            body: body(line.version, fields)?,
            expect: fields.has("Expect"),
            close: !is_http11 || fields.lists("Connection", "close"),
            persists: fields.persist(line.version),
            upgrade: if upgrades { upgrade(fields) } else { None },
            proxy_header: false,
            is_expect_known: is_expect_known(fields),
            asks_challenge: false,
            asks_pool: false,
            asks_instance: false,
            raw,
        })
    }

    /// Whether the request is for this host, on any port. `host` is in lower case, without a trailing dot.
    #[must_use]
    pub fn names_host(&self, host: &str) -> bool {
        let named = self.host.and_then(Authority::parse).map(|authority| authority.host);
        named.is_some_and(|named| named.strip_suffix('.').unwrap_or(named).eq_ignore_ascii_case(host))
    }

    /// Whether the request upgrades to this protocol and no other.
    #[must_use]
    pub fn upgrades_to(&self, protocol: &str) -> bool {
        self.upgrade.is_some_and(|upgrade| upgrade.eq_ignore_ascii_case(protocol))
    }

    /// Whether a connector uses TLS with the agent after the two heads (`docs/protocol.md §6.3`), which the relay
    /// cannot read. A body is not allowed, since it would follow the head in clear.
    #[must_use]
    pub fn asks_sealed_stream(&self) -> bool {
        self.body == Body::None && self.upgrades_to(SEALED_STREAM)
    }

    /// Whether this is a hidden server's registration, not a client's request.
    #[must_use]
    pub fn is_connect(&self) -> bool {
        self.method == CONNECT
    }

    /// Appends the head unchanged, without a leading empty line.
    pub fn as_it_came(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.raw);
    }

    /// Appends the head unchanged, without a leading empty line and without the `Authorization` line.
    pub fn without_authorization(&self, out: &mut Vec<u8>) {
        const NAME: &[u8] = b"Authorization:";
        for line in self.raw.split_inclusive(|&byte| byte == b'\n') {
            // parse() has refused a space before the colon and folded lines.
            if !line.get(..NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME)) {
                out.extend_from_slice(line);
            }
        }
    }
}

impl fmt::Debug for Head<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Head")
            .field("method", &self.method)
            .field("version", &self.version)
            .field("body", &self.body)
            .finish_non_exhaustive()
    }
}

/// The host that a client asks for: `Host`, which HTTP/1.1 requires, and the target's, which must be the same.
fn host<'a>(line: &RequestLine<'a>, fields: &Fields<'_, 'a>) -> Result<Option<&'a str>, Refusal> {
    let of_target = line.authority()?;
    let Some(value) = fields.only("Host", Refusal::HostRepeated)? else {
        return match line.version {
            Version::Http11 => Err(Refusal::HostMissing),
            Version::Http10 => Ok(of_target.map(|(authority, _)| authority)),
        };
    };
    let host = core::str::from_utf8(value).map_err(|_| Refusal::HostMalformed)?;
    let named = Authority::parse(host).ok_or(Refusal::HostMalformed)?;
    match of_target.and_then(|(text, port)| Some((Authority::parse(text)?, port))) {
        Some((meant, port)) if !meant.is_same(&named, port) => Err(Refusal::HostContradicts),
        _ => Ok(Some(host)),
    }
}

fn body(version: Version, fields: &Fields<'_, '_>) -> Result<Body, Refusal> {
    let length = fields.only("Content-Length", Refusal::ContentLength)?;
    let coding = fields.only("Transfer-Encoding", Refusal::TransferEncoding)?;
    match (length, coding) {
        (None, None) => Ok(Body::None),
        (Some(_), Some(_)) => Err(Refusal::ContentLength),
        (Some(length), None) => decimal(length).map(Body::Length).ok_or(Refusal::ContentLength),
        (None, Some(coding)) if version == Version::Http11 && coding.eq_ignore_ascii_case(b"chunked") => {
            Ok(Body::Chunked)
        }
        (None, Some(_)) => Err(Refusal::TransferEncoding),
    }
}

fn is_expect_known(fields: &Fields<'_, '_>) -> bool {
    match fields.only("Expect", Refusal::Expect) {
        Ok(value) => value.is_none_or(|value| value.eq_ignore_ascii_case(b"100-continue")),
        Err(_) => false,
    }
}

fn upgrade<'a>(fields: &Fields<'_, 'a>) -> Option<&'a str> {
    core::str::from_utf8(fields.all("Upgrade").next()?).ok().filter(|value| !value.is_empty())
}

/// The first line without its CRLF, and the rest.
pub(super) fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|&byte| byte == b'\n')?;
    let (line, rest) = bytes.split_at_checked(end + 1)?;
    Some((line.strip_suffix(b"\r\n")?, rest))
}
