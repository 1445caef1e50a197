//! A relay to dial, the timeout of each step, and its response to the first request. See [`dialer`](crate::dialer)
//! for how it is dialled.

use alloc::string::String;

pub use crate::endpoint::{Host, HostPort};
use crate::http::head::{Finder, Limits};
use crate::http::response::{Response, parse_response, parse_status};
use crate::time::Span;

/// A relay as agent and connector dial it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relay {
    /// Its host and port.
    pub place: HostPort,
    /// Whether it uses TLS.
    pub tls: bool,
    /// The value of the `Host` field: the host, with the port if it is not the scheme's default.
    pub host_header: String,
}

/// The timeout of each step of connecting to a relay; default 10 s each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// Resolving the name, and connecting to each of its addresses.
    pub dial: Span,
    /// The TLS handshake.
    pub handshake: Span,
    /// The response to the first request.
    pub answer: Span,
}

impl Default for Deadlines {
    fn default() -> Self {
        let ten = Span::from_secs(10);
        Self { dial: ten, handshake: ten, answer: ten }
    }
}

/// The relay's response, as far as it was received.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Answer {
    finder: Finder,
    status: Option<u16>,
}

/// The state of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnswerState {
    /// Incomplete.
    Partial,
    /// An interim response of this many bytes (RFC 9110 §15.2), which is skipped.
    Interim(usize),
    /// The final response.
    Final(Response),
    /// Not HTTP.
    NotHttp,
}

impl Answer {
    /// Parses all bytes that were received and not consumed.
    pub(crate) fn read(&mut self, bytes: &[u8], limits: &Limits) -> AnswerState {
        match parse_response(bytes, &mut self.finder, limits) {
            Ok(None) => {
                self.status = parse_status(bytes);
                AnswerState::Partial
            }
            Ok(Some(response)) if (100..200).contains(&response.status) && response.status != 101 => {
                self.status = None;
                AnswerState::Interim(response.len)
            }
            Ok(Some(response)) => AnswerState::Final(response),
            Err(_) => AnswerState::NotHttp,
        }
    }

    /// The status of a refusal that was truncated: some relays send only a status line.
    pub(crate) fn refusal(&self) -> Option<u16> {
        self.status.filter(|status| *status >= 300)
    }
}
