//! The hidden server that a request names: by the target of a CONNECT, a parameter in a client's target, or a label
//! in its `Host`.
//!
//! Nothing is percent-decoded: IDs, tokens and nonces need no escapes, and a second spelling could be routed in one
//! way and authorised in another.

use alloc::format;
use alloc::string::String;
use core::fmt;
use core::net::Ipv6Addr;

use data_encoding::HEXLOWER;

use super::head::Head;
use super::reply::Status;
use super::syntax::{Authority, strip_prefix_caseless};
use crate::id::Id;
use crate::token::{BOUND_BYTES, Challenge};

/// A parsed registration: `uuid:ID?response=TKN`, `uuid:ID?response=TKN&nonce=N` or
/// `uuid:ID?response=TKN&nonce=N&challenge=C`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registration<'a> {
    /// The ID.
    pub id: Id,
    /// The token.
    pub token: Token<'a>,
    /// `raw=1`: whether the hidden server accepts raw clients (`docs/protocol.md §10`).
    pub takes_raw: bool,
}

/// A token in a registration. `Debug` does not show it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Token<'a> {
    /// Plain: 6 to 10 decimal digits.
    Plain(&'a [u8]),
    /// Bound to a time step and a nonce.
    Bound {
        /// The token.
        response: [u8; BOUND_BYTES],
        /// The nonce: 16 to 64 of `A-Z a-z 0-9 - _`.
        nonce: &'a [u8],
    },
    /// Bound to a challenge of the relay and a nonce (see [`challenge`](crate::token::challenge)).
    Challenged {
        /// The token.
        response: [u8; BOUND_BYTES],
        /// The nonce: 16 to 64 of `A-Z a-z 0-9 - _`.
        nonce: &'a [u8],
        /// The challenge.
        challenge: Challenge,
    },
}

impl fmt::Debug for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain(_) => "Plain(..)",
            Self::Bound { .. } => "Bound(..)",
            Self::Challenged { .. } => "Challenged(..)",
        })
    }
}

/// Why the target of a CONNECT is not a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetError {
    /// The scheme is not `uuid:`; the relay is not an open proxy.
    NotUuid,
    /// The ID is not a UUID.
    BadId,
    /// There is no `response`.
    NoResponse,
    /// `response`, `nonce`, `challenge` or `raw` is repeated or malformed, or there is a challenge without a nonce.
    Malformed,
}

impl TargetError {
    /// The status of the response.
    #[must_use]
    pub const fn status(self) -> Status {
        match self {
            Self::NotUuid => Status::Forbidden403,
            Self::BadId | Self::Malformed => Status::BadRequest400,
            Self::NoResponse => Status::ProxyAuthRequired407,
        }
    }

    /// A fixed text for the response and the log.
    #[must_use]
    pub const fn why(self) -> &'static str {
        match self {
            Self::NotUuid => "target is not a uuid URI",
            Self::BadId => "malformed UUID",
            Self::NoResponse => "no response parameter",
            Self::Malformed => "malformed response, nonce or challenge",
        }
    }
}

/// Parses the target of a CONNECT. Parameters with other names are ignored.
///
/// # Errors
///
/// The first error: of the scheme, then the ID, then the parameters.
pub fn registration(target: &str) -> Result<Registration<'_>, TargetError> {
    let rest = strip_prefix_caseless(target, "uuid:").ok_or(TargetError::NotUuid)?;
    let (id, query) = rest.split_once('?').unwrap_or((rest, ""));
    let id = Id::parse(id.as_bytes()).ok_or(TargetError::BadId)?;
    let response = only(query, "response").map_err(|Repeated| TargetError::Malformed)?;
    let nonce = only(query, "nonce").map_err(|Repeated| TargetError::Malformed)?;
    let challenge = only(query, "challenge").map_err(|Repeated| TargetError::Malformed)?;
    let raw = only(query, "raw").map_err(|Repeated| TargetError::Malformed)?;
    let response = response.ok_or(TargetError::NoResponse)?;
    let token = match (nonce, challenge) {
        (Some(nonce), Some(challenge)) => challenged(response, nonce, challenge),
        (Some(nonce), None) => bound(response, nonce),
        (None, None) => plain(response),
        (None, Some(_)) => None,
    };
    Ok(Registration { id, token: token.ok_or(TargetError::Malformed)?, takes_raw: raw == Some("1") })
}

/// The ID in `?rendezvous=ID`, in a path or an absolute URI. `None` if it is missing, repeated, or not a UUID.
#[must_use]
pub fn rendezvous_parameter(target: &str) -> Option<Id> {
    let (_, query) = target.split_once('?')?;
    let id = only(query, "rendezvous").ok()??;
    Id::parse(id.as_bytes())
}

/// The label in a `Host` of the form LABEL.DOMAIN, with or without a port or a trailing dot, in any case. `None` if
/// the host is another one, is the domain itself, or has a dot in the label. The label is returned as it is written.
#[must_use]
pub fn label<'a>(host: &'a str, domain: &str) -> Option<&'a str> {
    let host = without_dot(Authority::parse(host)?.host);
    let domain = without_dot(domain);
    let (front, end) = host.split_at_checked(host.len().checked_sub(domain.len())?)?;
    let label = front.strip_suffix('.')?;
    let is_label = !label.is_empty() && !label.contains('.');
    (is_label && end.eq_ignore_ascii_case(domain)).then_some(label)
}

/// The port in the URI that a request in clear is redirected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RedirectPort {
    /// That of `Host`: the same port serves HTTPS.
    Same,
    /// None: the default port serves HTTPS.
    #[cfg(feature = "acme")]
    Default,
}

/// The `https` URI that a request in clear is redirected to, with the same host, path and query. `None` if the
/// target is not a path, or if the host has characters other than letters, digits, `-`, `.` and `_` and is not an
/// IPv6 address in brackets.
#[must_use]
pub(crate) fn https_location(head: &Head<'_>, port: RedirectPort) -> Option<String> {
    let host = head.host.filter(|_| head.target.starts_with('/'))?;
    let name = Authority::parse(host)?.host;
    let host = match port {
        RedirectPort::Same => host,
        #[cfg(feature = "acme")]
        RedirectPort::Default => name,
    };
    let is_name =
        |it: &str| it.bytes().all(|it| it.is_ascii_alphanumeric() || matches!(it, b'-' | b'.' | b'_'));
    let is_host = match name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => !name.is_empty() && is_name(name),
    };
    is_host.then(|| format!("https://{host}{}", head.target))
}

fn without_dot(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

/// The error of a repeated parameter.
struct Repeated;

/// The value of the parameter of that name; empty if it has no `=`.
fn only<'a>(query: &'a str, name: &str) -> Result<Option<&'a str>, Repeated> {
    let mut values = query
        .split('&')
        .map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")))
        .filter(|(found, _)| *found == name)
        .map(|(_, value)| value);
    let value = values.next();
    if values.next().is_some() { Err(Repeated) } else { Ok(value) }
}

fn plain(response: &str) -> Option<Token<'_>> {
    let digits = response.as_bytes();
    let fits = (6..=10).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    fits.then_some(Token::Plain(digits))
}

fn bound<'a>(response: &str, nonce: &'a str) -> Option<Token<'a>> {
    let (response, nonce) = (hash_front(response)?, parse_nonce(nonce)?);
    Some(Token::Bound { response, nonce })
}

fn challenged<'a>(response: &str, nonce: &'a str, challenge: &str) -> Option<Token<'a>> {
    let (response, nonce) = (hash_front(response)?, parse_nonce(nonce)?);
    Some(Token::Challenged { response, nonce, challenge: Challenge::parse(challenge.as_bytes())? })
}

fn parse_nonce(nonce: &str) -> Option<&[u8]> {
    let nonce = nonce.as_bytes();
    let is_nonce_byte = |it: &u8| it.is_ascii_alphanumeric() || matches!(it, b'-' | b'_');
    let fits = (16..=64).contains(&nonce.len()) && nonce.iter().all(is_nonce_byte);
    fits.then_some(nonce)
}

fn hash_front(response: &str) -> Option<[u8; BOUND_BYTES]> {
    let mut bytes = [0; BOUND_BYTES];
    if response.len() != 2 * BOUND_BYTES {
        return None;
    }
    HEXLOWER.decode_mut(response.as_bytes(), &mut bytes).ok()?;
    Some(bytes)
}
