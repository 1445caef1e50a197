//! The answers that relay and agent give themselves, rather than passing on.

use alloc::format;
use alloc::vec::Vec;

use super::challenge::write_challenge;
use super::date::write_date;
use super::offer;
use crate::dtcp::Offer;

/// What a hidden server gets when it is accepted: this and nothing else, and then the rendezvous.
pub const ACCEPTED: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";

/// What an agent answers a connector with, before octets flow (RFC 9110 §15.2.2).
pub const SWITCHING: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: octet-stream\r\n\r\n";

/// Appends [`SWITCHING`]; with the agent's own offer where lines of [`dtcp`](crate::dtcp) come first.
pub fn write_switching(out: &mut Vec<u8>, offer: Option<&Offer>) {
    let (head, end) = SWITCHING.split_at(SWITCHING.len() - 2);
    out.extend_from_slice(head);
    if let Some(offer) = offer {
        offer::write(offer, out);
    }
    out.extend_from_slice(end);
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
            Self::TooManyRequests429 => "Too Many Requests",
            Self::HeadTooLarge431 => "Request Header Fields Too Large",
            Self::BadGateway502 => "Bad Gateway",
            Self::Unavailable503 => "Service Unavailable",
            Self::VersionNotSupported505 => "HTTP Version Not Supported",
        }
    }
}

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
    /// Nonce and opaque of the challenge that a client gets.
    pub challenge: Option<([u8; 16], [u8; 16])>,
}

impl Reply {
    /// Appends the whole answer. `wall` goes into `Date`, which an error answer must have (RFC 9110 §6.6.1).
    pub fn write(&self, wall: u64, out: &mut Vec<u8>) {
        debug_assert!(self.status.code() >= 400, "{} is no error", self.status.code());
        let body = self.body();
        let text = |out: &mut Vec<u8>, text: &str| out.extend_from_slice(text.as_bytes());
        text(out, &format!("HTTP/1.1 {} {}\r\nDate: ", self.status.code(), self.status.reason()));
        write_date(wall, out);
        text(out, "\r\nContent-Type: application/json\r\n");
        text(out, &format!("Content-Length: {}\r\n", body.len()));
        text(out, "Cache-Control: no-store\r\n");
        if let Some(secs) = self.retry_after {
            text(out, &format!("Retry-After: {secs}\r\n"));
        }
        if let Some((nonce, opaque)) = &self.challenge {
            write_challenge(nonce, opaque, out);
        }
        if self.close {
            text(out, "Connection: close\r\n");
        }
        text(out, "\r\n");
        if !self.head_request {
            out.extend_from_slice(&body);
        }
    }

    /// The shape that node-rendezvous answers in.
    fn body(&self) -> Vec<u8> {
        let needs_escape = |it: u8| it.is_ascii_control() || matches!(it, b'"' | b'\\');
        debug_assert!(
            !self.diagnostic.bytes().any(needs_escape),
            "{:?} is not JSON as it is",
            self.diagnostic
        );
        format!(r#"{{"error":{{"permanent":{},"diagnostic":"{}"}}}}"#, self.permanent, self.diagnostic)
            .into_bytes()
    }
}
