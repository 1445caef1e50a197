//! Buffers that hold octets between a socket and another, by index.
//!
//! An idle connection owns none. A buffer is a slab index ([`BufferId`]), so that octets move from one connection to
//! another by swapping indices. All buffers together have a ceiling; near it, sources wait.

use slab::Slab;

/// Free buffers of each size that are kept for the next one who needs one.
const SPARE_MAX: usize = 8;

/// Which buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferId(u32);

/// What a buffer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// A head, or the beginning of a stream: the small size, up to the ceiling.
    Head,
    /// Octets on their way: the large size, or the small one when half of the ceiling is used, up to three quarters
    /// of the ceiling.
    Bulk,
}

/// Sizes and the ceiling, in octets.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Of a buffer for a head; holds the largest head and one TLS record.
    pub head: usize,
    /// Of a buffer for octets on their way; at least `head`.
    pub bulk: usize,
    /// Of all together.
    pub ceiling: usize,
}

impl Sizes {
    /// For an agent or a connector, which serves few.
    #[must_use]
    pub const fn for_peer() -> Self {
        Self { head: 34 * 1024, bulk: 128 * 1024, ceiling: 48 * 1024 * 1024 }
    }
}

/// One buffer: octets `head..tail` are in it.
#[derive(Debug)]
pub struct Buffer {
    octets: Vec<u8>,
    head: usize,
    tail: usize,
    /// What it counts for in the pool: its size when it was made.
    charged: usize,
}

/// All buffers of one event loop.
#[derive(Debug)]
pub struct Pool {
    buffers: Slab<Buffer>,
    spare_head: Vec<Vec<u8>>,
    spare_bulk: Vec<Vec<u8>>,
    sizes: Sizes,
    used: usize,
}

impl Buffer {
    /// A buffer of nobody's pool.
    #[must_use]
    pub fn with_room(octets: usize) -> Self {
        Self { octets: vec![0; octets], head: 0, tail: 0, charged: 0 }
    }

    /// What is in it.
    #[must_use]
    pub fn filled(&self) -> &[u8] {
        &self.octets[self.head..self.tail]
    }

    /// The room behind it.
    pub fn spare(&mut self) -> &mut [u8] {
        &mut self.octets[self.tail..]
    }

    /// How much room there is behind it.
    #[must_use]
    pub fn room(&self) -> usize {
        self.octets.len() - self.tail
    }

    /// `n` octets were written into [`Buffer::spare`].
    pub fn commit(&mut self, n: usize) {
        self.tail += n;
        debug_assert!(self.tail <= self.octets.len(), "more than there was room for");
    }

    /// `n` octets were taken from the front.
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
            self.octets.copy_within(self.head..self.tail, 0);
            self.tail -= self.head;
            self.head = 0;
        }
    }

    /// Makes room for `n` octets behind what is in it, growing where it must: for TLS messages, whose length rustls
    /// decides. Returns the room.
    pub fn reserve(&mut self, n: usize) -> &mut [u8] {
        if self.room() < n {
            self.octets.resize(self.tail + n, 0);
        }
        self.spare()
    }

    /// Appends octets, growing where it must.
    pub fn append(&mut self, octets: &[u8]) {
        self.reserve(octets.len())[..octets.len()].copy_from_slice(octets);
        self.commit(octets.len());
    }

    /// Whether nothing is in it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.head == self.tail
    }
}

impl Pool {
    /// A pool without buffers yet.
    #[must_use]
    pub fn new(sizes: Sizes) -> Self {
        debug_assert!(sizes.head <= sizes.bulk, "the large size is the larger one");
        Self { buffers: Slab::new(), spare_head: Vec::new(), spare_bulk: Vec::new(), sizes, used: 0 }
    }

    /// A buffer, empty; `None` when the ceiling is reached.
    pub fn take(&mut self, what: Use) -> Option<BufferId> {
        let (size, limit) = match what {
            Use::Head => (self.sizes.head, self.sizes.ceiling),
            Use::Bulk if self.used > self.sizes.ceiling / 2 => (self.sizes.head, self.sizes.ceiling / 4 * 3),
            Use::Bulk => (self.sizes.bulk, self.sizes.ceiling / 4 * 3),
        };
        if self.used + size > limit {
            return None;
        }
        let spare = if size == self.sizes.bulk { &mut self.spare_bulk } else { &mut self.spare_head };
        let octets = spare.pop().unwrap_or_else(|| vec![0; size]);
        Some(self.insert(octets))
    }

    /// A buffer with these octets in it, whatever the ceiling: for answers, which are few and short.
    pub fn hold(&mut self, octets: &[u8]) -> BufferId {
        let id = self.insert(octets.to_vec());
        self[id].commit(octets.len());
        id
    }

    /// Gives a buffer back. How many octets fewer are in use.
    pub fn give(&mut self, id: BufferId) -> usize {
        let Some(buffer) = self.buffers.try_remove(id.0 as usize) else {
            debug_assert!(false, "a buffer given back twice");
            return 0;
        };
        let freed = buffer.charged;
        self.used -= freed;
        let spare = if buffer.octets.len() == self.sizes.bulk {
            &mut self.spare_bulk
        } else if buffer.octets.len() == self.sizes.head {
            &mut self.spare_head
        } else {
            return freed;
        };
        if spare.len() < SPARE_MAX {
            spare.push(buffer.octets);
        }
        freed
    }

    /// Keeps no spare buffers, until more are given back.
    pub fn shrink(&mut self) {
        self.spare_head = Vec::new();
        self.spare_bulk = Vec::new();
        self.buffers.shrink_to_fit();
    }

    /// How many octets the buffers in use take.
    #[must_use]
    pub const fn used(&self) -> usize {
        self.used
    }

    /// How many buffers are in use.
    #[must_use]
    pub fn count(&self) -> usize {
        self.buffers.len()
    }

    /// The sizes.
    #[must_use]
    pub const fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// Takes the buffer itself out of its place, which is kept for [`Pool::put_back`].
    pub fn lend(&mut self, id: BufferId) -> Buffer {
        std::mem::replace(&mut self[id], Buffer::with_room(0))
    }

    /// Puts a buffer back that was lent.
    pub fn put_back(&mut self, id: BufferId, buffer: Buffer) {
        self[id] = buffer;
    }

    fn insert(&mut self, octets: Vec<u8>) -> BufferId {
        let charged = octets.len();
        self.used += charged;
        let buffer = Buffer { octets, head: 0, tail: 0, charged };
        let index = self.buffers.insert(buffer);
        BufferId(u32::try_from(index).unwrap_or_else(|_| unreachable!("2³² buffers")))
    }
}

impl std::ops::Index<BufferId> for Pool {
    type Output = Buffer;

    fn index(&self, id: BufferId) -> &Buffer {
        &self.buffers[id.0 as usize]
    }
}

impl std::ops::IndexMut<BufferId> for Pool {
    fn index_mut(&mut self, id: BufferId) -> &mut Buffer {
        &mut self.buffers[id.0 as usize]
    }
}
