//! The answers that relay and agent give themselves, rather than passing on.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::accept::Form;
use super::challenge::write_challenge;
use super::date::write_date;
use super::{offer, page};
use crate::offer::{Offer, Refusal};
use crate::token::Challenge;
use crate::token::challenge::FIELD;

/// The answer to a hidden server that is accepted: this and nothing else, and then the rendezvous.
pub const ACCEPTED: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";

/// Appends [`ACCEPTED`]; with a challenge for the next registration where the hidden server takes one.
pub fn write_accepted(out: &mut Vec<u8>, challenge: Option<&Challenge>) {
    let (head, end) = ACCEPTED.split_at(ACCEPTED.len() - 2);
    out.extend_from_slice(head);
    if let Some(challenge) = challenge {
        out.extend_from_slice(format!("{FIELD}: {challenge}\r\n").as_bytes());
    }
    out.extend_from_slice(end);
}

/// What an agent answers a connector with, before octets flow (RFC 9110 §15.2.2).
pub const SWITCHING: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: octet-stream\r\n\r\n";

/// Which way the stream goes behind a 101.
#[derive(Clone, Copy, Debug)]
pub enum Switching<'a> {
    /// Through the relay.
    Relayed,
    /// Through the relay, though a direct connection was asked for: why.
    Refused(Refusal),
    /// Lines of [`dtcp`](crate::dtcp) come first. This is the agent's own offer.
    Direct(&'a Offer),
}

/// Appends [`SWITCHING`], with the fields of an offer or of its refusal.
pub fn write_switching(out: &mut Vec<u8>, way: Switching<'_>) {
    let (head, end) = SWITCHING.split_at(SWITCHING.len() - 2);
    out.extend_from_slice(head);
    match way {
        Switching::Relayed => {}
        Switching::Refused(refusal) => offer::write_refusal(refusal, out),
        Switching::Direct(offer) => offer::write(offer, out),
    }
    out.extend_from_slice(end);
}

/// The diagnostic of a relay's 404: no hidden server waits under the ID that a request names.
pub const NOBODY: &str = diagnostic::NOBODY;

/// The diagnostics that an error page has words of its own for.
pub(crate) mod diagnostic {
    /// 401 to a client.
    pub(crate) const ASK: &str = "the ID of the hidden server is asked for as user name";
    /// 400.
    pub(crate) const CREDENTIALS: &str = "malformed Authorization";
    /// 400.
    pub(crate) const PLAIN_HTTP: &str = "plain HTTP on a port for HTTPS: use https";
    /// 404: unknown and absent are one answer.
    pub(crate) const NOBODY: &str = "no hidden server waits under this ID";
    /// 503: the hidden server was connected a short time ago.
    pub(crate) const OFFLINE: &str = "the hidden server is offline";
    /// 503.
    pub(crate) const BUSY: &str = "all connections of the hidden server are taken";
    /// 503.
    pub(crate) const FULL: &str = "the relay is full";
    /// 503.
    pub(crate) const STOPPING: &str = "the relay is shutting down";
    /// 502, of an agent.
    pub(crate) const SERVICE_UNREACHABLE: &str = "the hidden server's local service cannot be reached";
    /// 502, of an agent.
    pub(crate) const NO_SERVICE: &str = "the hidden server has no HTTP service";
    /// 503, of an agent.
    pub(crate) const TOO_MANY_CLIENTS: &str = "the hidden server's agent serves as many clients as it can";
    /// 503, of an agent.
    pub(crate) const NO_DESCRIPTORS: &str =
        "the hidden server's agent is out of descriptors, or may not connect";
}

/// Appends the redirect of a request in clear to `https` (RFC 9110 §15.4.9). `location` is of
/// [`https_location`](super::target::https_location).
pub(crate) fn write_redirect(location: &str, wall: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 308 Permanent Redirect\r\nDate: ");
    write_date(wall, out);
    out.extend_from_slice(format!("\r\nLocation: {location}\r\n").as_bytes());
    out.extend_from_slice(b"Content-Length: 0\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n");
}

/// The statuses that are used (RFC 9110 §15, RFC 6585).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// An agent takes a connector to its service; see [`SWITCHING`].
    SwitchingProtocols101,
    /// A hidden server is accepted; see [`ACCEPTED`].
    Ok200,
    /// Malformed.
    BadRequest400,
    /// A token that is not accepted; a client that has not said whom it wants.
    Unauthorized401,
    /// A CONNECT to something else than an ID.
    Forbidden403,
    /// No hidden server waits.
    NotFound404,
    /// A CONNECT without a token.
    ProxyAuthRequired407,
    /// The head did not arrive in time.
    Timeout408,
    /// A hidden server sent something before it was accepted.
    Conflict409,
    /// The request line is over the limit.
    UriTooLong414,
    /// A connector's request whose host and whose user name are of two hidden servers.
    Misdirected421,
    /// Too many failures.
    TooManyRequests429,
    /// The head is over the limit.
    HeadTooLarge431,
    /// The other side could not be reached or ended before its first octet.
    BadGateway502,
    /// Full, shutting down, or nobody came in time.
    Unavailable503,
    /// Not HTTP/1.x.
    VersionNotSupported505,
}

impl Status {
    /// The three digits.
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::SwitchingProtocols101 => 101,
            Self::Ok200 => 200,
            Self::BadRequest400 => 400,
            Self::Unauthorized401 => 401,
            Self::Forbidden403 => 403,
            Self::NotFound404 => 404,
            Self::ProxyAuthRequired407 => 407,
            Self::Timeout408 => 408,
            Self::Conflict409 => 409,
            Self::UriTooLong414 => 414,
            Self::Misdirected421 => 421,
            Self::TooManyRequests429 => 429,
            Self::HeadTooLarge431 => 431,
            Self::BadGateway502 => 502,
            Self::Unavailable503 => 503,
            Self::VersionNotSupported505 => 505,
        }
    }

    /// The reason phrase.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::SwitchingProtocols101 => "Switching Protocols",
            Self::Ok200 => "OK",
            Self::BadRequest400 => "Bad Request",
            Self::Unauthorized401 => "Unauthorized",
            Self::Forbidden403 => "Forbidden",
            Self::NotFound404 => "Not Found",
            Self::ProxyAuthRequired407 => "Proxy Authentication Required",
            Self::Timeout408 => "Request Timeout",
            Self::Conflict409 => "Conflict",
            Self::UriTooLong414 => "URI Too Long",
            Self::Misdirected421 => "Misdirected Request",
            Self::TooManyRequests429 => "Too Many Requests",
            Self::HeadTooLarge431 => "Request Header Fields Too Large",
            Self::BadGateway502 => "Bad Gateway",
            Self::Unavailable503 => "Service Unavailable",
            Self::VersionNotSupported505 => "HTTP Version Not Supported",
        }
    }
}

/// The field by which a connector tells a hidden server that is offline from one that is busy: both are 503.
const OFFLINE_FIELD: &str = "Hidden-Server: offline\r\n";

/// An error answer. Its text is fixed: nothing that a peer sent comes back in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status; an error's.
    pub status: Status,
    /// What to tell the human who reads it; no quotes, backslashes or controls, so that it is JSON as it is.
    pub diagnostic: &'static str,
    /// Whether trying again is of no use, as far as we know.
    pub permanent: bool,
    /// When to try again, in seconds: `Retry-After`.
    pub retry_after: Option<u32>,
    /// Whether the connection closes behind the answer.
    pub close: bool,
    /// Whether this answers a HEAD: the same fields, no body (RFC 9110 §9.3.2).
    pub head_request: bool,
    /// The form of the body, as the client prefers it.
    pub form: Form,
    /// Nonce and opaque of the challenge that a client gets.
    pub challenge: Option<([u8; 16], [u8; 16])>,
    /// The challenge that a hidden server gets.
    pub token_challenge: Option<Challenge>,
}

impl Reply {
    /// Appends the whole answer. `wall` goes into `Date`, which an error answer must have (RFC 9110 §6.6.1).
    pub fn write(&self, wall: u64, out: &mut Vec<u8>) {
        debug_assert!(self.status.code() >= 400, "{} is no error", self.status.code());
        let body = self.body();
        let text = |out: &mut Vec<u8>, text: &str| out.extend_from_slice(text.as_bytes());
        text(out, &format!("HTTP/1.1 {} {}\r\nDate: ", self.status.code(), self.status.reason()));
        write_date(wall, out);
        text(
            out,
            match self.form {
                Form::Json => "\r\nContent-Type: application/json\r\n",
                Form::Html => {
                    "\r\nContent-Type: text/html; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n"
                }
            },
        );
        if self.form == Form::Html {
            text(out, &format!("Content-Security-Policy: {}\r\n", page::POLICY));
        }
        text(out, &format!("Content-Length: {}\r\n", body.len()));
        text(out, "Cache-Control: no-store\r\nVary: Accept\r\n");
        if self.diagnostic == diagnostic::OFFLINE {
            text(out, OFFLINE_FIELD);
        }
        if let Some(secs) = self.retry_after {
            text(out, &format!("Retry-After: {secs}\r\n"));
        }
        if let Some((nonce, opaque)) = &self.challenge {
            write_challenge(nonce, opaque, out);
        }
        if let Some(challenge) = &self.token_challenge {
            text(out, &format!("{FIELD}: {challenge}\r\n"));
        }
        if self.close {
            text(out, "Connection: close\r\n");
        }
        text(out, "\r\n");
        if !self.head_request {
            text(out, &body);
        }
    }

    /// In JSON: the shape that node-rendezvous answers in, and a line feed for terminals.
    fn body(&self) -> String {
        let mut page = String::new();
        if self.form == Form::Html {
            page::write(self.status, self.diagnostic, &mut page);
            return page;
        }
        let needs_escape = |it: u8| it.is_ascii_control() || matches!(it, b'"' | b'\\');
        debug_assert!(
            !self.diagnostic.bytes().any(needs_escape),
            "{:?} is not JSON as it is",
            self.diagnostic
        );
        format!("{{\"error\":{{\"permanent\":{},\"diagnostic\":\"{}\"}}}}\n", self.permanent, self.diagnostic)
    }
}
