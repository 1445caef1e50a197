//! One end of a simulated connection: what its kernel knows.

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

/// What is on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Segment {
    Octets(usize),
    Fin,
    Rst,
}

/// How far the opening of a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    /// SYN sent.
    Begun,
    Up,
    Failed(ErrorKind),
}

/// One end. `inbox` holds what was sent to it: the first `arrived` octets can be received, the others are on their
/// way, or wait at the sender for the window to open.
#[derive(Debug)]
pub(crate) struct Tcp {
    pub(crate) owner: Option<ProcessId>,
    pub(crate) token: Option<ConnId>,
    pub(crate) opening: Opening,
    pub(crate) inbox: VecDeque<u8>,
    pub(crate) arrived: usize,
    pub(crate) wire: VecDeque<(Time, Segment)>,
    /// The peer's FIN is here.
    pub(crate) fin: bool,
    pub(crate) fin_sent: bool,
    /// The owner closed it.
    pub(crate) closed: bool,
    /// Reset, timed out: nothing comes, nothing goes.
    pub(crate) dead: bool,
    /// To be told once, by whichever call comes first.
    pub(crate) error: Option<ErrorKind>,
    /// A call found no room: there will be an edge when there is some.
    pub(crate) no_room: bool,
    /// Already in its owner's list of what woke.
    pub(crate) queued: bool,
    /// A call was blocked for no reason of its own; until then nothing can be concluded from idleness.
    pub(crate) deaf_until: Time,
    pub(crate) user_timeout: Option<Span>,
    /// When the peer was last heard.
    pub(crate) heard: Time,
    /// Since when something is unacknowledged.
    pub(crate) owed_since: Option<Time>,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    /// Octets that were on their way when the owner reset the connection, which may never arrive.
    pub(crate) lost: usize,
    /// The turn of the owner in which it last called, or was told, or had nothing to do here.
    pub(crate) attended: u64,
    /// It is among those that its owner has to attend to.
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

/// What two ends have in common.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) to: SocketAddr,
    pub(crate) latency: Span,
    /// Octets that can be received at one end at once.
    pub(crate) receive_room: usize,
    /// Octets that one end can have sent and the other not taken into its receiving room.
    pub(crate) send_room: usize,
    /// A NAT between them has forgotten it.
    pub(crate) lost: bool,
    /// SYNs that were dropped.
    pub(crate) tries: u32,
    /// What the answer to the SYN will say.
    pub(crate) verdict: Opening,
}
