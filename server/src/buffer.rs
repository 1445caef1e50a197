//! Buffers for bytes on their way between two sockets, and the accounts that they are charged to.
//!
//! An idle connection owns no buffer. Buffers are referred to by a slab index ([`BufferId`]), so bytes move from one
//! connection to another by swapping indices. See [`Pool`] for the memory limit and its fair shares.

mod accounts;
mod pool;
mod waiters;

pub use self::accounts::{Age, Charged};
pub use self::pool::{Pool, SMALL, Sizes};
pub use self::waiters::{Line, Rank, Waiters};

/// Limit of a TLS record's plaintext (RFC 8446 §5.1). Buffers hold whole records.
pub const RECORD_MAX: usize = 16_384;

/// The index of a buffer in its pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferId(u32);

/// How a buffer is charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Queued bytes of a pair.
    Queue,
    /// Bytes that must be kept even beyond the limit.
    Kept,
    /// The working buffer of a connection's turn. It is not charged.
    Working,
}

/// A buffer; bytes `head..tail` are filled.
#[derive(Debug)]
pub struct Buffer {
    bytes: Vec<u8>,
    head: usize,
    tail: usize,
    /// Bytes that the pool has charged for it.
    charged: usize,
    kind: Kind,
    owner: Charged,
}

impl Buffer {
    /// Makes a buffer that belongs to no pool.
    #[must_use]
    pub fn with_room(bytes: usize) -> Self {
        Self {
            bytes: vec![0; bytes],
            head: 0,
            tail: 0,
            charged: 0,
            kind: Kind::Working,
            owner: Charged::NOBODY,
        }
    }

    /// The filled bytes.
    #[must_use]
    pub fn filled(&self) -> &[u8] {
        &self.bytes[self.head..self.tail]
    }

    /// The room behind the filled bytes.
    pub fn spare(&mut self) -> &mut [u8] {
        &mut self.bytes[self.tail..]
    }

    /// Size of the room behind the filled bytes.
    #[must_use]
    pub fn room(&self) -> usize {
        self.bytes.len() - self.tail
    }

    /// Marks `n` bytes that were written into [`Buffer::spare`] as filled.
    pub fn commit(&mut self, n: usize) {
        self.tail += n;
        debug_assert!(self.tail <= self.bytes.len(), "more than there was room for");
    }

    /// Removes `n` bytes from the front.
    pub fn consume(&mut self, n: usize) {
        self.head += n;
        debug_assert!(self.head <= self.tail, "more than there was");
        if self.head == self.tail {
            self.head = 0;
            self.tail = 0;
        }
    }

    /// Moves the filled bytes to the front, so that all the room is behind them.
    pub fn compact(&mut self) {
        if self.head > 0 {
            self.bytes.copy_within(self.head..self.tail, 0);
            self.tail -= self.head;
            self.head = 0;
        }
    }

    /// Makes room for `n` bytes behind the filled ones and returns it. Grows the buffer if necessary: rustls decides
    /// the length of TLS messages.
    pub fn reserve(&mut self, n: usize) -> &mut [u8] {
        if self.room() < n {
            self.bytes.resize(self.tail + n, 0);
        }
        self.spare()
    }

    /// Appends bytes, growing the buffer if necessary.
    pub fn append(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len())[..bytes.len()].copy_from_slice(bytes);
        self.commit(bytes.len());
    }

    /// Whether no bytes are filled.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.head == self.tail
    }
}
