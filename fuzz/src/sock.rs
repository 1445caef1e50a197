//! One connection, between the peer and the machine.

use std::collections::VecDeque;

use rendezvous_core::machine::{Close, ConnId, End};
use rendezvous_core::time::Span;

/// The state of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Resolving,
    Dialling,
    Securing,
    Up,
}

#[derive(Debug)]
pub(crate) struct Sock {
    pub(crate) stage: Stage,
    /// Bytes that the peer has sent and the driver has not received.
    pub(crate) incoming: VecDeque<u8>,
    /// Received, and not consumed by the machine.
    pub(crate) parked: Vec<u8>,
    /// `parked` is to be offered.
    pub(crate) fresh: bool,
    pub(crate) wanted: bool,
    pub(crate) peer: Option<ConnId>,
    /// How many bytes may move before the next ones are offered; `None` if there is no gate.
    pub(crate) gate: Option<u64>,
    pub(crate) last_told: bool,
    /// The maximum number of bytes of one receive.
    pub(crate) most: usize,
    /// How the peer has ended its side.
    pub(crate) end: Option<End>,
    pub(crate) end_told: bool,
    /// Bytes for the peer that it has not read.
    pub(crate) queued: usize,
    /// A `Send` is to be followed by a 'flushed'.
    pub(crate) owes_flushed: bool,
    /// The peer reads nothing for now.
    pub(crate) stalled: bool,
    pub(crate) write_ended: bool,
    pub(crate) write_failed: bool,
    pub(crate) closing: Option<Close>,
    /// The socket is gone; the machine is not told yet.
    pub(crate) buried: bool,
    /// The answer to a query for the last acknowledgement.
    pub(crate) age: Option<Span>,
}

impl Sock {
    pub(crate) const fn new(stage: Stage) -> Self {
        Self {
            stage,
            incoming: VecDeque::new(),
            parked: Vec::new(),
            fresh: false,
            wanted: true,
            peer: None,
            gate: None,
            last_told: false,
            most: usize::MAX,
            end: None,
            end_told: false,
            queued: 0,
            owes_flushed: false,
            stalled: false,
            write_ended: false,
            write_failed: false,
            closing: None,
            buried: false,
            age: None,
        }
    }

    /// At most `room` bytes of what the peer has sent.
    pub(crate) fn receive(&mut self, room: usize) -> Vec<u8> {
        let len = self.incoming.len().min(self.most).min(room);
        self.incoming.drain(..len).collect()
    }

    /// How it ended, after everything before that was received.
    pub(crate) fn untold_end(&self) -> Option<End> {
        self.end.filter(|_| !self.end_told && self.incoming.is_empty())
    }
}
