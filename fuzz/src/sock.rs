//! One connection, between the peer's hand and the machine's.

use std::collections::VecDeque;

use rendezvous_core::machine::{Close, ConnId, End};
use rendezvous_core::time::Span;

/// How far a connection has come.
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
    /// What the peer has sent and nobody has received.
    pub(crate) incoming: VecDeque<u8>,
    /// Received, and not consumed by the machine.
    pub(crate) parked: Vec<u8>,
    /// `parked` is to be offered.
    pub(crate) fresh: bool,
    pub(crate) wanted: bool,
    pub(crate) peer: Option<ConnId>,
    /// How many bytes move before the next are offered; `None`: none are.
    pub(crate) gate: Option<u64>,
    pub(crate) last_told: bool,
    /// At most so many bytes are received at once.
    pub(crate) most: usize,
    /// How the peer has ended its side.
    pub(crate) end: Option<End>,
    pub(crate) end_told: bool,
    /// Bytes for the peer that it has not taken.
    pub(crate) queued: usize,
    /// A `Send` is to be followed by a 'flushed'.
    pub(crate) owes_flushed: bool,
    /// The peer takes nothing for now.
    pub(crate) stalled: bool,
    pub(crate) write_ended: bool,
    pub(crate) write_failed: bool,
    pub(crate) closing: Option<Close>,
    /// The socket is gone; the machine will hear of it.
    pub(crate) buried: bool,
    /// What the system says when it is asked for the last acknowledgement.
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

    /// At most `room` of what the peer has sent.
    pub(crate) fn receive(&mut self, room: usize) -> Vec<u8> {
        let len = self.incoming.len().min(self.most).min(room);
        self.incoming.drain(..len).collect()
    }

    /// How it ended, once everything before that was received.
    pub(crate) fn untold_end(&self) -> Option<End> {
        self.end.filter(|_| !self.end_told && self.incoming.is_empty())
    }
}
