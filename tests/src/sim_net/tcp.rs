//! One end of a simulated connection: the state in its kernel.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::SocketAddr;

use rendezvous_core::machine::ConnId;
use rendezvous_core::time::{Span, Time};

use super::world::ProcessId;

/// An end of a connection; the other end is [`Ep::peer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ep(pub(crate) usize);

impl Ep {
    /// The other end.
    #[must_use]
    pub const fn peer(self) -> Self {
        Self(self.0 ^ 1)
    }
}

/// What is in transit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Segment {
    Bytes(usize),
    Fin,
    Rst,
}

/// The state of connection establishment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    /// SYN sent.
    Begun,
    Up,
    Failed(ErrorKind),
}

/// One end. `inbox` holds the bytes that were sent to it. The first `arrived` bytes can be received. The others are in
/// transit, or wait at the sender for the window to open.
#[derive(Debug)]
pub(crate) struct Tcp {
    pub(crate) owner: Option<ProcessId>,
    pub(crate) token: Option<ConnId>,
    pub(crate) opening: Opening,
    pub(crate) inbox: VecDeque<u8>,
    pub(crate) arrived: usize,
    pub(crate) wire: VecDeque<(Time, Segment)>,
    /// The peer's FIN has arrived.
    pub(crate) fin: bool,
    pub(crate) fin_sent: bool,
    /// The owner closed it.
    pub(crate) closed: bool,
    /// Reset or timed out: nothing arrives, nothing can be sent.
    pub(crate) dead: bool,
    /// Reported once, by whichever call comes first.
    pub(crate) error: Option<ErrorKind>,
    /// A call found no room: an edge follows when there is some.
    pub(crate) no_room: bool,
    /// Already in its owner's list of woken sockets.
    pub(crate) queued: bool,
    /// A call was blocked as a fault. Until then idleness proves nothing.
    pub(crate) deaf_until: Time,
    pub(crate) user_timeout: Option<Span>,
    /// When the last segment of the peer arrived.
    pub(crate) heard: Time,
    /// Since when sent bytes are unacknowledged.
    pub(crate) owed_since: Option<Time>,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    /// Bytes that were in transit when the owner reset the connection, and may never arrive.
    pub(crate) lost: usize,
    /// The turn of the owner in which it last called this end, got an edge for it, or had nothing to do here.
    pub(crate) attended: u64,
    /// It is in the list of sockets that its owner has to serve.
    pub(crate) pending: bool,
}

impl Tcp {
    pub(crate) const fn new(owner: Option<ProcessId>, now: Time) -> Self {
        Self {
            owner,
            token: None,
            opening: Opening::Begun,
            inbox: VecDeque::new(),
            arrived: 0,
            wire: VecDeque::new(),
            fin: false,
            fin_sent: false,
            closed: false,
            dead: false,
            error: None,
            no_room: false,
            queued: false,
            deaf_until: Time(0),
            user_timeout: None,
            heard: now,
            owed_since: None,
            received: 0,
            sent: 0,
            lost: 0,
            attended: 0,
            pending: false,
        }
    }

    pub(crate) fn on_the_way(&self) -> usize {
        self.inbox.len() - self.arrived
    }

    pub(crate) const fn is_readable(&self) -> bool {
        self.arrived > 0 || self.fin || self.dead || self.error.is_some()
    }
}

/// The shared state of two ends.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) to: SocketAddr,
    pub(crate) latency: Span,
    /// The receive buffer of each end, in bytes.
    pub(crate) receive_room: usize,
    /// The send buffer of each end, in bytes that the other end has not taken into its receive buffer.
    pub(crate) send_room: usize,
    /// A NAT on the path has lost it.
    pub(crate) lost: bool,
    /// SYNs that were dropped.
    pub(crate) tries: u32,
    /// The result of the SYN when its answer arrives.
    pub(crate) verdict: Opening,
}
