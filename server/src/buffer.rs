//! Buffers that hold bytes between two sockets, by index, and the accounts that they are charged to.
//!
//! An idle connection owns none. A buffer is a slab index ([`BufferId`]), so that bytes move from one connection to
//! another by swapping indices. See [`Pool`] for the ceiling and the shares.

mod accounts;
mod pool;
mod waiters;

pub use self::accounts::Charged;
pub use self::pool::{Pool, SMALL, Sizes};
pub use self::waiters::{Line, Rank, Waiters};

/// The plaintext of one TLS record at most (RFC 8446 §5.1). Buffers are made to hold whole records.
pub const RECORD_MAX: usize = 16_384;

/// Which buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferId(u32);

/// What a buffer is charged for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Bytes of a pair on their way.
    Queue,
    /// Bytes that had to be kept, whatever the ceiling was.
    Kept,
    /// The working buffer of one connection's turn: free of charge.
    Working,
}

/// One buffer: bytes `head..tail` are in it.
#[derive(Debug)]
pub struct Buffer {
    bytes: Vec<u8>,
    head: usize,
    tail: usize,
    /// What the pool has charged for it.
    charged: usize,
    kind: Kind,
    owner: Charged,
}

impl Buffer {
    /// A buffer of no pool.
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

    /// What is in it.
    #[must_use]
    pub fn filled(&self) -> &[u8] {
        &self.bytes[self.head..self.tail]
    }

    /// The room behind it.
    pub fn spare(&mut self) -> &mut [u8] {
        &mut self.bytes[self.tail..]
    }

    /// How much room there is behind it.
    #[must_use]
    pub fn room(&self) -> usize {
        self.bytes.len() - self.tail
    }

    /// `n` bytes were written into [`Buffer::spare`].
    pub fn commit(&mut self, n: usize) {
        self.tail += n;
        debug_assert!(self.tail <= self.bytes.len(), "more than there was room for");
    }

    /// `n` bytes were taken from the front.
    pub fn consume(&mut self, n: usize) {
        self.head += n;
        debug_assert!(self.head <= self.tail, "more than there was");
        if self.head == self.tail {
            self.head = 0;
            self.tail = 0;
        }
    }

    /// Moves what is in it to the front, so that all the room is behind it.
    pub fn compact(&mut self) {
        if self.head > 0 {
            self.bytes.copy_within(self.head..self.tail, 0);
            self.tail -= self.head;
            self.head = 0;
        }
    }

    /// Makes room for `n` bytes behind what is in it, growing where it must: for TLS messages, whose length rustls
    /// decides. Returns the room.
    pub fn reserve(&mut self, n: usize) -> &mut [u8] {
        if self.room() < n {
            self.bytes.resize(self.tail + n, 0);
        }
        self.spare()
    }

    /// Appends bytes, growing where it must.
    pub fn append(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len())[..bytes.len()].copy_from_slice(bytes);
        self.commit(bytes.len());
    }

    /// Whether nothing is in it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.head == self.tail
    }
}
