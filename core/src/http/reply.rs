//! The responses that relay and agent generate themselves.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::accept::Form;
use super::challenge::write_challenge;
use super::date::write_date;
pub(crate) use super::diagnostic;
use super::instance::{FIELD as INSTANCE, Instance};
use super::pool::{FIELD as POOL, PoolState};
pub use super::status::Status;
use super::{offer, page};
use crate::offer::{Offer, Refusal};
use crate::token::Challenge;
use crate::token::challenge::FIELD;

/// The response to an accepted hidden server. The bytes after it belong to the rendezvous.
pub const ACCEPTED: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";

/// Appends [`ACCEPTED`], with a challenge for the next registration, with the state of the pool, and with the relay's
/// instance, if the hidden server asks for them.
pub fn write_accepted(
    out: &mut Vec<u8>,
    challenge: Option<&Challenge>,
    pool: Option<PoolState>,
    instance: Option<Instance>,
) {
    let (head, end) = ACCEPTED.split_at(ACCEPTED.len() - 2);
    out.extend_from_slice(head);
    if let Some(challenge) = challenge {
        out.extend_from_slice(format!("{FIELD}: {challenge}\r\n").as_bytes());
    }
    if let Some(pool) = pool {
        out.extend_from_slice(format!("{POOL}: {pool}\r\n").as_bytes());
    }
    if let Some(instance) = instance {
        out.extend_from_slice(format!("{INSTANCE}: {instance}\r\n").as_bytes());
    }
    out.extend_from_slice(end);
}

/// An agent's response to a connector, before bytes flow (RFC 9110 §15.2.2).
pub const SWITCHING: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: octet-stream\r\n\r\n";

/// The kind of stream after a 101.
#[derive(Clone, Copy, Debug)]
pub enum Switching<'a> {
    /// Through the relay.
    Relayed,
    /// Through the relay, with TLS inside the stream.
    Sealed,
    /// Through the relay, although a direct connection was asked for, for this reason.
    Refused(Refusal),
    /// Lines of [`dtcp`](crate::dtcp) come first. Has the agent's own offer.
    Direct(&'a Offer),
}

/// Appends [`SWITCHING`], with the fields of an offer or of its refusal.
pub fn write_switching(out: &mut Vec<u8>, way: Switching<'_>) {
    let (head, end) = SWITCHING.split_at(SWITCHING.len() - 2);
    out.extend_from_slice(head);
    match way {
        Switching::Relayed => {}
        Switching::Sealed => {
            out.truncate(out.len() - 2);
            out.extend_from_slice(b"+tls\r\n");
        }
        Switching::Refused(refusal) => offer::write_refusal(refusal, out),
        Switching::Direct(offer) => offer::write(offer, out),
    }
    out.extend_from_slice(end);
}

/// The diagnostic of a relay's 404: no hidden server waits under the requested ID.
pub const NOBODY: &str = diagnostic::NOBODY;

/// Appends a redirect from `http` to `https` (RFC 9110 §15.4.9). `location` is from
/// [`https_location`](super::target::https_location).
pub(crate) fn write_redirect(location: &str, wall: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 308 Permanent Redirect\r\nDate: ");
    write_date(wall, out);
    out.extend_from_slice(format!("\r\nLocation: {location}\r\n").as_bytes());
    out.extend_from_slice(b"Content-Length: 0\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n");
}

/// The field that lets a connector tell an offline hidden server from a busy one: both are 503.
const OFFLINE_FIELD: &str = "Hidden-Server: offline\r\n";

/// An error response. Its text is fixed: it contains nothing that a peer sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status, 400 or above.
    pub status: Status,
    /// The text for humans. It has no quotes, backslashes or control characters, so that it needs no escaping in
    /// JSON.
    pub diagnostic: &'static str,
    /// Whether a retry is useless, as far as is known.
    pub permanent: bool,
    /// When to retry, in seconds: `Retry-After`.
    pub retry_after: Option<u32>,
    /// Whether the connection closes after the response.
    pub close: bool,
    /// Whether this is the response to a HEAD: the same fields, no body (RFC 9110 §9.3.2).
    pub head_request: bool,
    /// The form of the body that the client prefers.
    pub form: Form,
    /// Nonce and opaque of the challenge to a client.
    pub challenge: Option<([u8; 16], [u8; 16])>,
    /// The challenge to a hidden server.
    pub token_challenge: Option<Challenge>,
}

impl Reply {
    /// Appends the whole response. `wall` is for `Date`, which an error response must have (RFC 9110 §6.6.1).
    pub fn write(&self, wall: u64, out: &mut Vec<u8>) {
        self.write_with(&[], wall, out);
    }

    /// Like [`Reply::write`], with further field lines.
    pub(crate) fn write_with(&self, fields: &[u8], wall: u64, out: &mut Vec<u8>) {
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
        out.extend_from_slice(fields);
        if self.close {
            text(out, "Connection: close\r\n");
        }
        text(out, "\r\n");
        if !self.head_request {
            text(out, &body);
        }
    }

    /// The body. JSON has the shape of node-rendezvous's responses, and a line feed for terminals.
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
