//! The answers that relay and agent give themselves, rather than passing on.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::accept::Form;
use super::challenge::write_challenge;
use super::date::write_date;
pub(crate) use super::diagnostic;
use super::pool::{FIELD as POOL, PoolState};
pub use super::status::Status;
use super::{offer, page};
use crate::offer::{Offer, Refusal};
use crate::token::Challenge;
use crate::token::challenge::FIELD;

/// The answer to a hidden server that is accepted: this and nothing else, and then the rendezvous.
pub const ACCEPTED: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";

/// Appends [`ACCEPTED`]; with a challenge for the next registration, and with the state of the pool, if the hidden server
/// asks for them.
pub fn write_accepted(out: &mut Vec<u8>, challenge: Option<&Challenge>, pool: Option<PoolState>) {
    let (head, end) = ACCEPTED.split_at(ACCEPTED.len() - 2);
    out.extend_from_slice(head);
    if let Some(challenge) = challenge {
        out.extend_from_slice(format!("{FIELD}: {challenge}\r\n").as_bytes());
    }
    if let Some(pool) = pool {
        out.extend_from_slice(format!("{POOL}: {pool}\r\n").as_bytes());
    }
    out.extend_from_slice(end);
}

/// What an agent answers a connector with, before bytes flow (RFC 9110 §15.2.2).
pub const SWITCHING: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: octet-stream\r\n\r\n";

/// Which way the stream goes behind a 101.
#[derive(Clone, Copy, Debug)]
pub enum Switching<'a> {
    /// Through the relay.
    Relayed,
    /// Through the relay, with TLS inside the stream.
    Sealed,
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
        Switching::Sealed => {
            out.truncate(out.len() - 2);
            out.extend_from_slice(b"+tls\r\n");
        }
        Switching::Refused(refusal) => offer::write_refusal(refusal, out),
        Switching::Direct(offer) => offer::write(offer, out),
    }
    out.extend_from_slice(end);
}

/// The diagnostic of a relay's 404: no hidden server waits under the ID that a request names.
pub const NOBODY: &str = diagnostic::NOBODY;

/// Appends the redirect of a request in clear to `https` (RFC 9110 §15.4.9). `location` is of
/// [`https_location`](super::target::https_location).
pub(crate) fn write_redirect(location: &str, wall: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 308 Permanent Redirect\r\nDate: ");
    write_date(wall, out);
    out.extend_from_slice(format!("\r\nLocation: {location}\r\n").as_bytes());
    out.extend_from_slice(b"Content-Length: 0\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n");
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
        self.write_with(&[], wall, out);
    }

    /// As [`Reply::write`], with further field lines.
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
