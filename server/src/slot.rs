//! What the event loop keeps for one connection.

use rendezvous_core::machine::{Close, ConnId, End, PASS_ALL, TlsRole};
use rendezvous_core::time::Time;

use crate::buffer::{BufferId, Charged};
use crate::tls::TlsSession;

/// One connection of the event loop. An idle one owns no buffer.
#[derive(Debug)]
pub(crate) struct Slot<S, P> {
    pub(crate) id: ConnId,
    pub(crate) link: Link<S>,
    pub(crate) tls: Option<Box<TlsSession>>,
    /// Our side of the TLS handshake that began last.
    pub(crate) role: Option<TlsRole>,
    /// The first bytes of a client of the relay are to come: they may be HTTP without TLS.
    pub(crate) may_be_http: bool,
    /// Readiness is state: an edge sets it, `WouldBlock` clears it, nothing else does.
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// It is in the ready queue.
    pub(crate) queued: bool,
    /// The machine takes octets.
    pub(crate) wanted: bool,
    /// What is known of its memory.
    pub(crate) memory: Memory,
    /// Octets are in `parked` that the machine has not been offered in its present state.
    pub(crate) fresh: bool,
    /// `handle_flushed` is owed.
    pub(crate) owes_flushed: bool,
    /// Octets as the machine or the mate will get them.
    pub(crate) parked: Option<BufferId>,
    /// Octets for the socket.
    pub(crate) out: Option<BufferId>,
    /// Octets for the socket that came before those: they are in the system.
    pub(crate) pipe: Option<P>,
    /// The last call brought much: it pays to splice, and whoever moves less goes first.
    pub(crate) bulk: bool,
    /// Octets of the wire that were not opened yet: part of a record, or records that the mate has no room for.
    pub(crate) wire: Vec<u8>,
    /// Records in `wire` may be whole.
    pub(crate) unopened: bool,
    pub(crate) peer: Option<ConnId>,
    /// It is, or was, half of a pair.
    pub(crate) was_paired: bool,
    /// In a pair: which of our bytes move without being offered to the machine.
    pub(crate) gate: Gate,
    /// The machine knows that no bytes come behind those that it holds at its gate.
    pub(crate) last_told: bool,
    pub(crate) reading: Reading,
    /// The end of the socket itself was received, which comes after that of a TLS stream: nothing unread is in it.
    pub(crate) eof_seen: bool,
    /// A sending call has shown that the connection was reset, or lost: the system says so once, and what looks like an
    /// end in order afterwards is none.
    pub(crate) reset_seen: bool,
    pub(crate) writing: Writing,
    pub(crate) closing: Option<Close>,
}

/// The memory of a connection: who is charged for it, whether it is used, and whether more is waited for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    pub(crate) owner: Charged,
    /// Kept bytes outside of any buffer that are charged: of the wire, of a handshake, and of the machine.
    pub(crate) kept: usize,
    /// Bytes of its queue in a pipe that are charged.
    pub(crate) piped: usize,
    /// Since when there are kept bytes that nothing came of.
    pub(crate) kept_since: Option<Time>,
    /// Since when the peer has not taken a buffer's worth of the queue.
    pub(crate) queued_since: Option<Time>,
    /// How much of the queue it has taken since then.
    pub(crate) taken: usize,
    pub(crate) wait: Wait,
}

/// Whether a connection waits for a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// It does not.
    No,
    /// It waits in line.
    InLine {
        /// Since when.
        since: Time,
    },
    /// It was called: it may take a buffer although others wait.
    Called {
        /// Since when it had waited.
        since: Time,
        /// When it was called.
        at: Time,
    },
}

impl Memory {
    const NEW: Self = Self {
        owner: Charged::NOBODY,
        kept: 0,
        piped: 0,
        kept_since: None,
        queued_since: None,
        taken: 0,
        wait: Wait::No,
    };
}

/// The socket, as far as there is one.
#[derive(Debug)]
pub(crate) enum Link<S> {
    /// A name is looked up, or nothing was dialled yet, or the dial failed.
    None,
    /// A dial is under way.
    Dialling(S),
    Up(S),
}

/// Which bytes of one half of a pair move without being offered to the machine first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    /// All of them.
    Open,
    /// This many; those behind them are offered.
    After(u64),
}

impl Gate {
    /// How many bytes may move now.
    pub(crate) const fn passes(self) -> u64 {
        match self {
            Self::Open => u64::MAX,
            Self::After(bytes) => bytes,
        }
    }

    /// The machine lets more bytes pass.
    pub(crate) fn pass(&mut self, more: u64) {
        if let Self::After(bytes) = *self {
            *self = match bytes.saturating_add(more) {
                PASS_ALL => Self::Open,
                bytes => Self::After(bytes),
            };
        }
    }

    /// Bytes have moved. Whether the next ones are to be offered.
    pub(crate) fn moved(&mut self, bytes: usize) -> bool {
        let Self::After(left) = self else { return false };
        debug_assert!(*left >= bytes as u64, "more moved than was let pass");
        *left = left.saturating_sub(bytes as u64);
        *left == 0
    }
}

/// The reading side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    Open,
    /// The end was seen; what came before it is still on its way.
    Ending(End),
    /// The end was reported, or nobody is interested in it.
    Ended,
}

/// The writing side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writing {
    Open,
    /// What is queued goes out, then close_notify on TLS, then FIN.
    Ending,
    /// What is queued goes out, then FIN without close_notify.
    Cutting,
    /// FIN is in the socket.
    Ended,
    Failed,
}

impl<S, P> Slot<S, P> {
    pub(crate) const fn new(id: ConnId, link: Link<S>) -> Self {
        Self {
            id,
            link,
            tls: None,
            role: None,
            may_be_http: false,
            readable: true,
            writable: true,
            queued: false,
            memory: Memory::NEW,
            wanted: true,
            fresh: false,
            owes_flushed: false,
            parked: None,
            out: None,
            pipe: None,
            bulk: false,
            wire: Vec::new(),
            unopened: false,
            peer: None,
            was_paired: false,
            gate: Gate::Open,
            last_told: false,
            reading: Reading::Open,
            eof_seen: false,
            reset_seen: false,
            writing: Writing::Open,
            closing: None,
        }
    }

    /// The socket of a connection that is up.
    pub(crate) const fn sock(&mut self) -> Option<&mut S> {
        match &mut self.link {
            Link::Up(sock) => Some(sock),
            Link::None | Link::Dialling(_) => None,
        }
    }

    /// Nothing waits for the socket.
    pub(crate) const fn is_drained(&self) -> bool {
        self.out.is_none() && self.pipe.is_none()
    }

    pub(crate) fn is_securing(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| !tls.is_secured())
    }
}
