//! What initiator and target have in common: what they ask for, how patient they are, why they fail.

use core::net::SocketAddr;

use super::stanza::{Condition, Stanza};
use crate::time::Span;

/// How long an initiator or a target waits for what; see the tables of docs/stream-proxy.md §2, §3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For the peer's answer, for the proxy's, and for all dials together (I1, I4, T1, T2). Default 60 s.
    pub answer: Span,
    /// For one dial. Default 10 s.
    pub dial: Span,
    /// If set, a target dials each address of an offer for so long, whatever it meets, unless it connects: from the time
    /// that it takes, the peer can't tell a closed port from one that is filtered. Default 3 s. `None`: it goes on as
    /// soon as a dial failed.
    pub concealed: Option<Span>,
    /// For the word which connection is used, once its socket is known: it changes nothing. Default 10 s.
    pub named: Span,
    /// For the peer's own offer, after it refused ours (I5). Default 10 s.
    pub reversal: Span,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            answer: Span::from_secs(60),
            dial: Span::from_secs(10),
            concealed: Some(Span::from_secs(3)),
            named: Span::from_secs(10),
            reversal: Span::from_secs(10),
        }
    }
}

impl Timeouts {
    /// How long a target dials one address.
    pub(crate) fn of_target(&self) -> Span {
        self.concealed.unwrap_or(self.dial)
    }
}

/// What a role asks of whoever holds its one socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Send this.
    Say(Stanza),
    /// Connect; whatever was connected or under way before is to be aborted.
    Dial(SocketAddr),
    /// The stream is clear to send (PF7). The role is over.
    Clear,
    /// Change roles and keep the stream id (A1.3, A2.2). The role is over.
    Reverse,
    /// Close the socket, if there is one. The role is over.
    Fail(Failure),
}

/// Why there is no stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The peer refused the offer, and made none itself.
    Refused(Condition),
    /// The peer, or a proxy, did not accept that a socket is ours (A4).
    Disowned(Condition),
    /// None of the connections could be reached (A2).
    Unreachable,
    /// The peer uses a connection that was not offered, or did not say which.
    UnknownConnection,
    /// The peer began another stream instead.
    Replaced,
    /// The socket was reset before the stream was clear to send.
    Reset,
    /// No answer in time.
    Silent,
    /// Our side gave it up.
    Cancelled,
}
