//! Buffers that hold octets between a socket and another, by index.
//!
//! An idle connection owns none. A buffer is a slab index ([`BufferId`]), so that octets move from one connection to
//! another by swapping indices. All buffers together have a ceiling; near it, sources wait.

use slab::Slab;

/// Free buffers of each size that are kept at most for the next one who needs one.
const SPARE_MAX: usize = 8;

/// Which buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferId(u32);

/// What a buffer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// A head, or the beginning of a stream: the small size, while all of these take no more than half of the ceiling:
    /// strangers who never finish theirs leave room for the pairs.
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
    /// Of all together; at least four times `bulk`.
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
    /// What it was taken for; `None` for an answer.
    taken_for: Option<Use>,
}

/// All buffers of one event loop.
#[derive(Debug)]
pub struct Pool {
    buffers: Slab<Buffer>,
    spare_head: Spare,
    spare_bulk: Spare,
    sizes: Sizes,
    used: usize,
    /// Of `used`, what was taken for heads.
    heads: usize,
}

/// Memory of one size for the next one who needs it.
#[derive(Debug, Default)]
struct Spare {
    free: Vec<Vec<u8>>,
    /// The fewest there were since the last [`Spare::ebb`]: so many were of no use.
    fewest: usize,
}

impl Spare {
    fn take(&mut self, size: usize) -> Vec<u8> {
        let octets = self.free.pop().unwrap_or_else(|| vec![0; size]);
        self.fewest = self.fewest.min(self.free.len());
        octets
    }

    fn keep(&mut self, octets: Vec<u8>) {
        if self.free.len() < SPARE_MAX {
            self.free.push(octets);
        }
    }

    fn ebb(&mut self) -> usize {
        // The last that came is the first that is taken: those in front were of no use.
        let given_up = self.free.drain(..self.fewest).map(|octets| octets.len()).sum();
        self.fewest = self.free.len();
        given_up
    }
}

impl Buffer {
    /// A buffer of nobody's pool.
    #[must_use]
    pub fn with_room(octets: usize) -> Self {
        Self { octets: vec![0; octets], head: 0, tail: 0, charged: 0, taken_for: None }
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
        Self {
            buffers: Slab::new(),
            spare_head: Spare::default(),
            spare_bulk: Spare::default(),
            sizes,
            used: 0,
            heads: 0,
        }
    }

    /// A buffer, empty; `None` when the ceiling is reached.
    pub fn take(&mut self, what: Use) -> Option<BufferId> {
        let Sizes { head, bulk, ceiling } = self.sizes;
        let (size, fits) = match what {
            Use::Head => (head, self.heads <= ceiling / 2 && self.used + head <= ceiling),
            Use::Bulk => {
                let size = if self.used > ceiling / 2 { head } else { bulk };
                (size, self.used + size <= ceiling / 4 * 3)
            }
        };
        if !fits {
            return None;
        }
        let spare = if size == bulk { &mut self.spare_bulk } else { &mut self.spare_head };
        let octets = spare.take(size);
        Some(self.insert(octets, Some(what)))
    }

    /// Exchanges a buffer with octets in it for one that has no room beside them, if that is much smaller: somebody's
    /// who sends the rest when he pleases. How many octets fewer are in use.
    pub fn tighten(&mut self, id: BufferId) -> usize {
        let Buffer { charged, taken_for, .. } = self[id];
        if self[id].filled().len() > charged / 2 {
            return 0;
        }
        let octets = self[id].filled().to_vec();
        let tight = Buffer { head: 0, tail: octets.len(), charged: octets.len(), octets, taken_for };
        let freed = charged - tight.charged;
        let loose = std::mem::replace(&mut self[id], tight);
        self.charge(taken_for, charged, self[id].charged);
        self.keep(loose.octets);
        freed
    }

    /// Whether a buffer was [tightened](Pool::tighten).
    #[must_use]
    pub fn is_tight(&self, id: BufferId) -> bool {
        self[id].octets.len() < self.sizes.head
    }

    /// Exchanges a buffer that was [tightened](Pool::tighten) for one of the small size, with the same octets; false
    /// if there can be none for now.
    pub fn loosen(&mut self, id: BufferId) -> bool {
        let Sizes { head, ceiling, .. } = self.sizes;
        let charged = self[id].charged;
        // Half of the ceiling is no limit here: it would be everybody's end if all of them need room to go on.
        if self.used - charged + head > ceiling {
            return false;
        }
        let octets = self.spare_head.take(head);
        let mut buffer = Buffer { octets, head: 0, tail: 0, charged: head, taken_for: self[id].taken_for };
        buffer.append(self[id].filled());
        self.charge(buffer.taken_for, charged, head);
        self[id] = buffer;
        true
    }

    /// A buffer with these octets in it, whatever the ceiling: for answers, which are few and short.
    pub fn hold(&mut self, octets: &[u8]) -> BufferId {
        let id = self.insert(octets.to_vec(), None);
        self[id].commit(octets.len());
        id
    }

    /// Gives a buffer back. How many octets fewer are in use.
    pub fn give(&mut self, id: BufferId) -> usize {
        let Some(buffer) = self.buffers.try_remove(id.0 as usize) else {
            debug_assert!(false, "a buffer given back twice");
            return 0;
        };
        self.charge(buffer.taken_for, buffer.charged, 0);
        self.keep(buffer.octets);
        buffer.charged
    }

    /// Keeps of the spare buffers those that were needed since this was called last. How many octets were given up.
    pub fn ebb(&mut self) -> usize {
        self.spare_head.ebb() + self.spare_bulk.ebb()
    }

    /// Keeps no spare buffers, until more are given back.
    pub fn shrink(&mut self) {
        self.spare_head = Spare::default();
        self.spare_bulk = Spare::default();
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

    /// Keeps memory for the next one who needs that much.
    fn keep(&mut self, octets: Vec<u8>) {
        let spare = if octets.len() == self.sizes.bulk {
            &mut self.spare_bulk
        } else if octets.len() == self.sizes.head {
            &mut self.spare_head
        } else {
            return;
        };
        spare.keep(octets);
    }

    /// A buffer that counted for `before` counts for `after`.
    fn charge(&mut self, taken_for: Option<Use>, before: usize, after: usize) {
        self.used = self.used - before + after;
        if taken_for == Some(Use::Head) {
            self.heads = self.heads - before + after;
        }
    }

    fn insert(&mut self, octets: Vec<u8>, taken_for: Option<Use>) -> BufferId {
        let charged = octets.len();
        self.charge(taken_for, 0, charged);
        let buffer = Buffer { octets, head: 0, tail: 0, charged, taken_for };
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
