//! What initiator and target have in common: what they ask for, how patient they are, why they fail.

use core::net::{IpAddr, SocketAddr};

use super::stanza::{Condition, Stanza};
use crate::time::Span;

/// How long what is waited for. The sources are the rows of XMPP.md §6's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For the peer's answer, for the proxy's, and for all dials together (I1, I4, T1, T2). Default 60 s.
    pub answer: Span,
    /// For one dial. Default 10 s.
    pub dial: Span,
    /// For the word which connection is used, once its socket is known: it changes nothing. Default 10 s.
    pub named: Span,
    /// For the peer's own offer, after it refused ours (I5). Default 10 s.
    pub reversal: Span,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            answer: Span::from_secs(60),
            dial: Span::from_secs(10),
            named: Span::from_secs(10),
            reversal: Span::from_secs(10),
        }
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

/// Which addresses of a peer's choice are dialled: it could make a port scanner of us (XMPP.md §5, row 35).
///
/// Never: unspecified, multicast and broadcast addresses, and port 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DialPolicy {
    /// Our own host's loopback. Off by default.
    pub loopback: bool,
    /// Link-local ones. Off by default.
    pub link_local: bool,
}

impl DialPolicy {
    /// Whether this address is dialled.
    #[must_use]
    pub fn permits(self, to: SocketAddr) -> bool {
        let ip = to.ip().to_canonical();
        let (is_broadcast, is_link_local) = match ip {
            IpAddr::V4(v4) => (v4.is_broadcast(), v4.is_link_local()),
            IpAddr::V6(v6) => (false, v6.is_unicast_link_local()),
        };
        to.port() != 0
            && !ip.is_unspecified()
            && !ip.is_multicast()
            && !is_broadcast
            && (self.loopback || !ip.is_loopback())
            && (self.link_local || !is_link_local)
    }
}
