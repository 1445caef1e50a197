//! What initiator and target share: timeouts, actions and failures.

use core::net::SocketAddr;

use super::stanza::Stanza;
pub use crate::event::StreamFailure;
use crate::time::Span;

/// The timeouts of an initiator or a target; see the tables of docs/stream-proxy.md §2, §3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Timeout of the peer's answer, of the proxy's, and of all dials together (I1, I4, T1, T2). Default 60 s.
    pub answer: Span,
    /// Timeout of one dial. Default 10 s.
    pub dial: Span,
    /// For how long a target's dial of an address of an offer appears to last, whatever its result, unless it
    /// connects. So the peer cannot tell a closed port from a filtered one by the time. Default 3 s. `None`: the next
    /// address is dialled as soon as a dial fails.
    pub concealed: Option<Span>,
    /// Timeout of the peer's choice of a connection once its socket is known, which changes nothing. Default 10 s.
    pub named: Span,
    /// Timeout of the peer's own offer after it has refused ours (I5). Default 10 s.
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
    /// The timeout of a target's dial of one address.
    pub(crate) fn of_target(&self) -> Span {
        self.concealed.unwrap_or(self.dial)
    }
}

/// An action that a role asks of the owner of its socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Send this stanza.
    Say(Stanza),
    /// Connect. An earlier connection or dial is aborted.
    Dial(SocketAddr),
    /// The stream is clear to send (PF7). The role has ended.
    Clear,
    /// Reverse roles and keep the stream id (A1.3, A2.2). The role has ended.
    Reverse,
    /// Close the socket, if there is one. The role has ended.
    Fail(StreamFailure),
}
