//! A relay that is dialled, how long each step to it may take, and its answer to the first request. See
//! [`dialer`](crate::dialer) for how it is dialled.

use alloc::string::String;

pub use crate::endpoint::{Host, HostPort};
use crate::http::head::{Finder, Limits};
use crate::http::response::{Response, parse_response, parse_status};
use crate::time::Span;

/// A relay, as agent and connector reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relay {
    /// Where it listens.
    pub place: HostPort,
    /// Whether it speaks TLS there.
    pub tls: bool,
    /// What the `Host` field says: the host, with the port if it is not the scheme's.
    pub host_header: String,
}

/// How long each step to a relay may take; default 10 s each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// Looking up the name, and connecting to each of its addresses.
    pub dial: Span,
    /// The TLS handshake.
    pub handshake: Span,
    /// The answer to the first request.
    pub answer: Span,
}

impl Default for Deadlines {
    fn default() -> Self {
        let ten = Span::from_secs(10);
        Self { dial: ten, handshake: ten, answer: ten }
    }
}

/// A relay's answer, as much as is there.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Answer {
    finder: Finder,
    status: Option<u16>,
}

/// What the bytes of an answer are so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnswerState {
    /// Not enough.
    Partial,
    /// So many bytes of an interim answer (RFC 9110 §15.2), of no interest.
    Interim(usize),
    /// The answer.
    Final(Response),
    /// No answer at all.
    Garbled,
}

impl Answer {
    /// Looks at everything that was received and not consumed.
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
            Err(_) => AnswerState::Garbled,
        }
    }

    /// The status of a refusal that was cut off by the connection's end: some relays send no more than a status line.
    pub(crate) fn refusal(&self) -> Option<u16> {
        self.status.filter(|status| *status >= 300)
    }
}
