//! The requests of agent and connector, and the responses that they parse.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use data_encoding::{BASE64, HEXLOWER};

use super::date::parse_date;
use super::fields::{self, Fields};
use super::head::SEALED_STREAM;
use super::head::{Finder, Limits, Refusal, split_line};
use super::instance::{FIELD as INSTANCE, Instance};
use super::offer;
use super::pool::{FIELD as POOL, PoolState};
use super::syntax::{Authority, decimal};
use super::target::Token;
use crate::id::Id;
use crate::offer::Offer;
use crate::token::Challenge;
use crate::token::challenge::FIELD as CHALLENGE;

/// The head of a response, as far as agent and connector need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status, 100 to 999.
    pub status: u16,
    /// `Date`, in seconds since 1970; `None` if it is missing or in an obsolete form.
    pub date: Option<u64>,
    /// The length of the head in bytes. The body, or the rendezvous, follows.
    pub len: usize,
    /// Whether the connection switches to `octet-stream` (`Connection: Upgrade`, `Upgrade: octet-stream`).
    pub upgrade_octet_stream: bool,
    /// Whether TLS with the agent begins after the head (`Connection: Upgrade`, `Upgrade: octet-stream+tls`).
    pub upgrade_sealed_stream: bool,
    /// Whether a relay reports the hidden server as offline, not busy (`Hidden-Server: offline`).
    pub is_offline: bool,
    /// `Retry-After` in seconds; `None` if it is missing or a date.
    pub retry_after: Option<u32>,
    /// `Content-Length`; `None` if it is missing, repeated or not a number, so that the body ends with the
    /// connection.
    pub content_length: Option<u64>,
    /// `Rendezvous-Challenge`; `None` if it is missing, repeated or malformed.
    pub challenge: Option<Challenge>,
    /// `Rendezvous-Pool`; `None` if it is missing, repeated or malformed.
    pub pool: Option<PoolState>,
    /// `Rendezvous-Relay`; `None` if it is missing, repeated or malformed.
    pub instance: Option<Instance>,
}

/// Why a response cannot be parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseError {
    /// It is not an HTTP/1.x response.
    Malformed,
    /// Its head exceeds the limit.
    TooLarge,
}

impl ResponseError {
    /// A fixed text for the log.
    #[must_use]
    pub const fn why(self) -> &'static str {
        match self {
            Self::Malformed => "the answer is not HTTP",
            Self::TooLarge => "the head of the answer is too large",
        }
    }
}

impl From<Refusal> for ResponseError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::LineTooLong | Refusal::HeadTooLarge | Refusal::TooManyFields => Self::TooLarge,
            _ => Self::Malformed,
        }
    }
}

/// Parses the head of a response. `bytes` is everything that was received and not consumed. `Ok(None)`: more bytes
/// are needed. `finder` keeps the position, so that each byte is scanned once.
///
/// The reason phrase and every field may be missing: node-rendezvous sends none of them.
///
/// # Errors
///
/// The response is not HTTP/1.x, or its head exceeds the limits.
pub fn parse_response(
    bytes: &[u8],
    finder: &mut Finder,
    limits: &Limits,
) -> Result<Option<Response>, ResponseError> {
    let is_status = |line: &[u8]| status(line).map(|_| ()).ok_or(Refusal::RequestLine);
    let Some(len) = finder.find_end(bytes, limits, is_status)? else { return Ok(None) };
    let raw = bytes.get(..len).unwrap_or_default();
    let raw = raw.strip_prefix(b"\r\n").unwrap_or(raw);
    let (line, lines) = split_line(raw).ok_or(ResponseError::Malformed)?;
    let status = status(line).ok_or(ResponseError::Malformed)?;
    let mut room = fields::room();
    let fields = Fields::parse(lines, &mut room)?;
    let only = |name| fields.only(name, Refusal::FieldValue).ok().flatten();
    let upgrades = fields.lists("Connection", "upgrade");
    Ok(Some(Response {
        status,
        date: only("Date").and_then(parse_date),
        len,
        upgrade_octet_stream: upgrades && fields.lists("Upgrade", "octet-stream"),
        upgrade_sealed_stream: upgrades && fields.lists("Upgrade", SEALED_STREAM),
        is_offline: fields.lists("Hidden-Server", "offline"),
        retry_after: only("Retry-After").and_then(decimal).and_then(|secs| u32::try_from(secs).ok()),
        content_length: only("Content-Length").and_then(decimal),
        challenge: only(CHALLENGE).and_then(Challenge::parse),
        pool: only(POOL).and_then(PoolState::parse),
        instance: only(INSTANCE).and_then(Instance::parse),
    }))
}

/// The status and the fields of a response whose head is complete. `None`: it is not HTTP/1.x, or a field is not text.
pub(crate) fn parse_fields(head: &[u8]) -> Option<(u16, Vec<(String, String)>)> {
    let (line, lines) = split_line(head)?;
    let status = status(line)?;
    let mut room = fields::room();
    let fields = Fields::parse(lines, &mut room).ok()?;
    let text = |value: &[u8]| core::str::from_utf8(value).ok().map(ToOwned::to_owned);
    let all = fields.iter().map(|(name, value)| Some((name.to_owned(), text(value)?)));
    Some((status, all.collect::<Option<_>>()?))
}

/// The status of a response whose head was truncated, if its first line is complete: some relays send only a status
/// line.
#[must_use]
pub fn parse_status(bytes: &[u8]) -> Option<u16> {
    let (line, _) = split_line(bytes.strip_prefix(b"\r\n").unwrap_or(bytes))?;
    status(line)
}

/// The options that an agent requests in its registration. An older relay ignores all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegistrationOptions {
    /// `PROXY-Protocol: v2`: report the address of each client ([`proxy_header`](crate::proxy_header)).
    pub proxy_header: bool,
    /// `Rendezvous-Pool: ?`: report how many clients are held for the ID ([`pool`](super::pool)).
    pub pool: bool,
    /// `Rendezvous-Relay: ?`: report the relay's instance ([`instance`](super::instance)).
    pub instance: bool,
    /// `raw=1`: send raw clients (`docs/protocol.md §10.1`).
    pub raw: bool,
}

/// Appends an agent's registration: a CONNECT with its token and a `Host`. Unless the token is plain, a
/// `Rendezvous-Challenge: next` asks for a challenge in the 200 (see [`challenge`](crate::token::challenge)). `host`
/// is the relay's, with the port if it is not the scheme's default.
pub fn write_connect(out: &mut Vec<u8>, id: Id, token: &Token<'_>, host: &str, options: RegistrationOptions) {
    debug_assert!(Authority::parse(host).is_some(), "{host:?} is no host");
    out.extend_from_slice(format!("CONNECT uuid:{id}?response=").as_bytes());
    match token {
        Token::Plain(digits) => out.extend_from_slice(digits),
        Token::Bound { response, nonce } | Token::Challenged { response, nonce, .. } => {
            out.extend_from_slice(HEXLOWER.encode(response).as_bytes());
            out.extend_from_slice(b"&nonce=");
            out.extend_from_slice(nonce);
        }
    }
    if let Token::Challenged { challenge, .. } = token {
        out.extend_from_slice(format!("&challenge={challenge}").as_bytes());
    }
    if options.raw {
        out.extend_from_slice(b"&raw=1");
    }
    out.extend_from_slice(format!(" HTTP/1.1\r\nHost: {host}\r\n").as_bytes());
    if !matches!(token, Token::Plain(_)) {
        out.extend_from_slice(format!("{CHALLENGE}: next\r\n").as_bytes());
    }
    if options.pool {
        out.extend_from_slice(format!("{POOL}: ?\r\n").as_bytes());
    }
    if options.instance {
        out.extend_from_slice(format!("{INSTANCE}: ?\r\n").as_bytes());
    }
    if options.proxy_header {
        out.extend_from_slice(b"PROXY-Protocol: v2\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends a connector's request, with credentials, so that no challenge is needed. `host` is the relay's, with the
/// port if it is not the scheme's default. `offer` is for a direct connection.
pub fn write_upgrade(out: &mut Vec<u8>, host: &str, id: Id, offer: Option<&Offer>) {
    write_upgrade_to("octet-stream", out, host, id);
    if let Some(offer) = offer {
        offer::write(offer, out);
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends a connector's request for a stream in which it uses TLS with the agent. After the 101 and the handshake it
/// sends the request of [`write_upgrade`].
pub fn write_sealed_upgrade(out: &mut Vec<u8>, host: &str, id: Id) {
    write_upgrade_to(SEALED_STREAM, out, host, id);
    out.extend_from_slice(b"\r\n");
}

/// Appends a request without the empty line at its end.
fn write_upgrade_to(protocol: &str, out: &mut Vec<u8>, host: &str, id: Id) {
    debug_assert!(Authority::parse(host).is_some(), "{host:?} is no host");
    let credentials = BASE64.encode(format!("{id}:").as_bytes());
    let head = format!(
        "GET / HTTP/1.1\r\nHost: {host}\r\nAuthorization: Basic {credentials}\r\n\
         Connection: Upgrade\r\nUpgrade: {protocol}\r\n"
    );
    out.extend_from_slice(head.as_bytes());
}

/// Parses the status of a status line without its CRLF, with or without a reason phrase (RFC 9112 §4).
pub(super) fn status(line: &[u8]) -> Option<u16> {
    let rest = line.strip_prefix(b"HTTP/1.1").or_else(|| line.strip_prefix(b"HTTP/1.0"))?;
    let (digits, reason) = rest.strip_prefix(b" ")?.split_at_checked(3)?;
    let is_over = reason.is_empty() || reason.starts_with(b" ");
    let status = decimal(digits).filter(|status| *status >= 100 && is_over)?;
    u16::try_from(status).ok()
}
