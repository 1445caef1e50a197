//! The event loop's state of one connection.

use rendezvous_core::machine::{Close, ConnId, End, PASS_ALL, TlsRole};
use rendezvous_core::time::Time;

use crate::buffer::{Age, BufferId, Charged};
use crate::tls::TlsSession;

pub(crate) use self::pace::Pace;
pub(crate) use self::unsent::UnsentLimit;

mod pace;
mod unsent;

/// A connection is new for this many turns. A handshake and a request take about six.
const NEW_TURNS: u8 = 16;

/// A connection of the event loop. An idle one owns no buffer.
#[derive(Debug)]
pub(crate) struct Slot<S, P> {
    pub(crate) id: ConnId,
    pub(crate) link: Link<S>,
    pub(crate) tls: Option<Box<TlsSession>>,
    /// Our side of the TLS handshake that began last.
    pub(crate) role: Option<TlsRole>,
    /// The first bytes of a relay's client have not arrived yet; they may be HTTP without TLS.
    pub(crate) may_be_http: bool,
    pub(crate) read: ReadState,
    pub(crate) write: WriteState<P>,
    pub(crate) pairing: Pairing,
    /// Whether it is the client's half of its pair.
    pub(crate) is_client: bool,
    /// Of a half of a pair whose rate is limited.
    pub(crate) pace: Option<Box<Pace>>,
    /// Its memory.
    pub(crate) memory: Memory,
    /// Whether it is in a ready queue.
    pub(crate) queued: bool,
    /// How many turns it had, up to [`NEW_TURNS`].
    turns: u8,
    pub(crate) closing: Option<Close>,
}

/// What a connection has received and not delivered yet.
#[derive(Debug)]
pub(crate) struct ReadState {
    /// Whether the socket is readable. An edge sets it, and only `WouldBlock` clears it.
    pub(crate) ready: bool,
    /// Whether the machine wants to receive.
    pub(crate) wanted: bool,
    /// Whether the last receive call returned bulk data: splicing pays then, and other connections are served first.
    pub(crate) bulk: bool,
    /// Wire bytes that were not opened yet: a partial record, or records that the peer has no room for.
    pub(crate) wire: Vec<u8>,
    /// Whether `wire` may hold whole records.
    pub(crate) unopened: bool,
    /// Received plaintext for the machine or the peer.
    pub(crate) parked: Option<BufferId>,
    /// Whether `parked` holds bytes that the machine has not been offered in its present state.
    pub(crate) fresh: bool,
    /// In a pair: which received bytes are relayed without being offered to the machine.
    pub(crate) gate: Gate,
    /// Whether the machine knows that no bytes follow those at its gate.
    pub(crate) last_reported: bool,
    pub(crate) phase: Reading,
    /// Whether the EOF of the socket was received, which follows that of a TLS stream: no unread data is left.
    pub(crate) eof_seen: bool,
}

/// What a connection has to send.
#[derive(Debug)]
pub(crate) struct WriteState<P> {
    /// Whether the socket is writable. An edge sets it, and only `WouldBlock` clears it.
    pub(crate) ready: bool,
    /// Bytes queued for the socket before those in `out`, in a kernel pipe.
    pub(crate) pipe: Option<P>,
    /// Bytes queued for the socket.
    pub(crate) out: Option<BufferId>,
    /// Of a half of a pair: how many bytes the system may hold unsent.
    pub(crate) unsent: Option<UnsentLimit>,
    /// Whether `handle_flushed` is pending.
    pub(crate) flushed_pending: bool,
    pub(crate) phase: Writing,
    /// Whether a send call has failed because the connection was reset or lost. The system reports that once; a clean
    /// EOF after it is not one.
    pub(crate) reset_seen: bool,
}

/// Whether a connection is half of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pairing {
    /// It never was.
    Never,
    /// It is paired with this connection.
    With(ConnId),
    /// Its pair has ended.
    Ended,
}

impl Pairing {
    /// The other half.
    pub(crate) const fn peer(self) -> Option<ConnId> {
        match self {
            Self::With(peer) => Some(peer),
            Self::Never | Self::Ended => None,
        }
    }

    /// Ends the pair, if there is one. Returns the other half.
    pub(crate) fn end(&mut self) -> Option<ConnId> {
        let peer = self.peer()?;
        *self = Self::Ended;
        Some(peer)
    }
}

/// The memory of a connection: its accounts, its use, and whether it waits for more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    pub(crate) owner: Charged,
    /// Charged kept bytes outside of buffers: of the wire, the handshake and the machine.
    pub(crate) kept: usize,
    /// Charged bytes of its queue outside of buffers: those in a pipe, and the pair's own memory.
    pub(crate) piped: usize,
    /// Since when it has kept bytes without progress.
    pub(crate) kept_since: Option<Time>,
    /// Since when the peer has not taken a buffer's worth of the queue.
    pub(crate) queued_since: Option<Time>,
    /// Bytes of the queue that the peer has taken since then.
    pub(crate) taken: usize,
    pub(crate) wait: Wait,
}

/// Whether a connection waits for memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// It does not wait.
    No,
    /// It waits in line.
    InLine {
        /// When it began to wait.
        since: Time,
    },
    /// It was resumed and may take memory although others wait.
    Called {
        /// When it began to wait.
        since: Time,
        /// When it was resumed.
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

/// The socket of a connection, if it has one.
#[derive(Debug)]
pub(crate) enum Link<S> {
    /// No socket: a name is being resolved, dialling has not begun, or it has failed.
    None,
    /// A socket that is connecting.
    Dialling(S),
    Up(S),
}

/// Which bytes of one half of a pair are relayed without being offered to the machine first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    /// All bytes.
    Open,
    /// This many bytes; those behind them are offered.
    After(u64),
}

impl Gate {
    /// Number of bytes that may be relayed now.
    pub(crate) const fn passes(self) -> u64 {
        match self {
            Self::Open => u64::MAX,
            Self::After(bytes) => bytes,
        }
    }

    /// Lets more bytes pass.
    pub(crate) fn pass(&mut self, more: u64) {
        if let Self::After(bytes) = *self {
            *self = match bytes.saturating_add(more) {
                PASS_ALL => Self::Open,
                bytes => Self::After(bytes),
            };
        }
    }

    /// Records that bytes were relayed. Returns whether the next ones are to be offered.
    pub(crate) fn moved(&mut self, bytes: usize) -> bool {
        let Self::After(left) = self else { return false };
        debug_assert!(*left >= bytes as u64, "more moved than was let pass");
        *left = left.saturating_sub(bytes as u64);
        *left == 0
    }
}

/// State of the reading side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    Open,
    /// The end was received, but the bytes before it have not all been delivered.
    Ending(End),
    /// The end was reported, or is not wanted.
    Ended,
}

/// State of the writing side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writing {
    Open,
    /// The queue is flushed, then close_notify (on TLS) and FIN are sent.
    Ending,
    /// The queue is flushed, then FIN is sent without close_notify.
    Cutting,
    /// FIN was sent.
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
            read: ReadState {
                ready: true,
                wanted: true,
                bulk: false,
                wire: Vec::new(),
                unopened: false,
                parked: None,
                fresh: false,
                gate: Gate::Open,
                last_reported: false,
                phase: Reading::Open,
                eof_seen: false,
            },
            write: WriteState {
                ready: true,
                pipe: None,
                out: None,
                unsent: None,
                flushed_pending: false,
                phase: Writing::Open,
                reset_seen: false,
            },
            pairing: Pairing::Never,
            is_client: false,
            pace: None,
            memory: Memory::NEW,
            queued: false,
            turns: 0,
            closing: None,
        }
    }

    /// Counts a turn. Returns whether the connection was new until then.
    pub(crate) const fn next_turn(&mut self) -> Age {
        if self.turns == NEW_TURNS {
            return Age::Old;
        }
        self.turns += 1;
        Age::New
    }

    /// The socket of a connected connection.
    pub(crate) const fn sock(&mut self) -> Option<&mut S> {
        match &mut self.link {
            Link::Up(sock) => Some(sock),
            Link::None | Link::Dialling(_) => None,
        }
    }

    /// Whether nothing is queued for the socket.
    pub(crate) const fn is_drained(&self) -> bool {
        self.write.out.is_none() && self.write.pipe.is_none()
    }

    /// The socket of a slow path is full: nothing is received for it.
    pub(crate) fn is_clogged(&self) -> bool {
        !self.write.ready && !self.is_drained() && self.write.unsent.is_some_and(UnsentLimit::is_slow)
    }

    pub(crate) fn is_securing(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| !tls.is_secured())
    }
}
