//! The memory of one event loop: one ceiling, and fair shares below it.
//!
//! Everything that peers cause is charged to the ceiling, and to the [accounts](rendezvous_core::account) of the
//! connection that it is for. There are two kinds:
//!
//! * **Queues** of pairs, which a connection can wait for. Their bound is a dynamic threshold (Choudhury and Hahne,
//!   'Dynamic queue length thresholds for shared-memory packet switches', 1998): an account is granted a buffer while
//!   it uses less than what is free. However much one account asks for, as much as it has got stays free for others.
//!   A connection has two accounts, and one of them below the threshold suffices: so the clients of one address starve
//!   no other address, and the clients of one hidden server starve no other hidden server, even behind one address. The
//!   last parts of the memory are only for accounts that use little, or nothing. The very last one is not for accounts
//!   [with a connection that stalled](Pool::note_stalled) lately.
//! * **Kept bytes**, which are there already when they are charged: parts of heads, of records and of handshakes, and
//!   answers that a socket has not taken. They may take half of the ceiling, and what queues do not use.
//!
//! If kept bytes come when queues take more than their half, the ceiling holds all the same: the event loop takes memory
//! from connections that make no progress, and if there is none, from those that keep most.

use rendezvous_core::account::Owners;
use rendezvous_core::client_hello::WIRE_MAX;
use rendezvous_core::time::Time;
use slab::Slab;

use super::accounts::{Accounts, Charged};
use super::waiters::{Line, Rank};
use super::{Buffer, BufferId, Kind, RECORD_MAX};

/// Free buffers of each size that are kept at most, and the part of the ceiling that they may take: they are not charged.
const SPARE_MAX: usize = 8;
const SPARE_PART: usize = 16;
/// The small size of a queue: a sealed TLS record, and what fills the wait for the next one.
pub const SMALL: usize = 34 * 1024;

/// Sizes and the ceiling, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Of the buffer that heads are received into: the largest head and one TLS record.
    pub head: usize,
    /// Of the large size of a queue; at least [`SMALL`].
    pub bulk: usize,
    /// Of all together; at least four times `bulk`.
    pub ceiling: usize,
}

impl Sizes {
    /// For an agent or a connector.
    #[must_use]
    pub const fn for_peer() -> Self {
        Self { head: SMALL, bulk: 128 * 1024, ceiling: 48 * 1024 * 1024 }
    }

    /// Bytes of a connection in clear that are received at most before the machine takes some: the largest head, or the
    /// longest ClientHello.
    #[must_use]
    pub const fn in_clear(&self) -> usize {
        let head = if self.head > 2 * RECORD_MAX { self.head - RECORD_MAX } else { self.head };
        if head < WIRE_MAX && self.head >= WIRE_MAX { WIRE_MAX } else { head }
    }

    /// The small size of a queue.
    #[must_use]
    pub const fn small(&self) -> usize {
        if self.head < SMALL { self.head } else { SMALL }
    }

    /// Kept bytes may take so much, and queues the rest. What queues do not use may be kept as well.
    #[must_use]
    pub const fn kept_max(&self) -> usize {
        self.ceiling / 2
    }

    /// Kept bytes may take so much even if queues make progress and take all the rest.
    const fn kept_min(&self) -> usize {
        self.ceiling / 8
    }

    /// The part of the ceiling that an account which uses so much is granted no queue from. The last part, a queue at
    /// least, is for accounts that use nothing, and another one for those that use little.
    fn reserve(&self, used: usize) -> usize {
        const LITTLE: usize = 4;
        if used == 0 {
            0
        } else if used < LITTLE * self.small() {
            (self.ceiling / 16).max(self.small())
        } else {
            (self.ceiling / 8).max(2 * self.small())
        }
    }
}

/// All buffers of one event loop.
#[derive(Debug)]
pub struct Pool {
    buffers: Slab<Buffer>,
    accounts: Accounts,
    spare_head: Spare,
    spare_small: Spare,
    spare_bulk: Spare,
    sizes: Sizes,
    used: usize,
    /// Of `used`, the kept bytes.
    kept: usize,
}

/// Memory of one size for the next buffer.
#[derive(Debug, Default)]
struct Spare {
    free: Vec<Vec<u8>>,
    /// The fewest there were since the last [`Spare::ebb`]: that many were not needed.
    fewest: usize,
}

impl Spare {
    fn take(&mut self, size: usize) -> Vec<u8> {
        let bytes = self.free.pop().unwrap_or_else(|| vec![0; size]);
        self.fewest = self.fewest.min(self.free.len());
        bytes
    }

    fn keep(&mut self, bytes: Vec<u8>, ceiling: usize) {
        if self.free.len() < SPARE_MAX && (self.free.len() + 1) * bytes.len() <= ceiling / SPARE_PART {
            self.free.push(bytes);
        }
    }

    fn release_idle(&mut self) -> usize {
        // The last that came is the first that is taken: those in front were not needed.
        let given_up = self.free.drain(..self.fewest).map(|bytes| bytes.len()).sum();
        self.fewest = self.free.len();
        given_up
    }
}

impl Pool {
    /// A pool without buffers yet.
    #[must_use]
    pub fn new(sizes: Sizes) -> Self {
        debug_assert!(sizes.small() <= sizes.bulk, "the large size is the larger one");
        Self {
            buffers: Slab::new(),
            accounts: Accounts::new(),
            spare_head: Spare::default(),
            spare_small: Spare::default(),
            spare_bulk: Spare::default(),
            sizes,
            used: 0,
            kept: 0,
        }
    }

    // ---- accounts ----

    /// A connection is charged to these accounts from now on.
    pub fn open_account(&mut self, owners: Owners) -> Charged {
        self.accounts.open(owners)
    }

    /// A connection is no longer charged to these accounts.
    pub fn close_account(&mut self, charged: Charged) {
        self.accounts.close(charged);
    }

    /// What the account uses that uses less of the two. It decides what the connection is granted.
    #[must_use]
    pub fn least(&self, charged: Charged) -> usize {
        self.accounts.least(charged)
    }

    /// The line that a connection waits for memory in: that of the better one of its accounts.
    #[must_use]
    pub fn line(&self, charged: Charged) -> Line {
        let (account, stalled) = self.accounts.better(charged);
        Line { account, rank: if stalled { Rank::Stalled } else { Rank::Clear } }
    }

    /// A connection of these accounts has lost its memory because it made no progress. As long as that is remembered,
    /// they come after accounts without such connections, and the last part of the memory is not for them.
    pub fn note_stalled(&mut self, charged: Charged, now: Time) {
        self.accounts.note_stalled(charged, now);
    }

    /// Forgets connections that stalled before this time.
    pub fn forgive(&mut self, before: Time) {
        self.accounts.forgive(before);
    }

    /// What the queues of one account may use at the moment: as much as is free for queues. However much is kept, half
    /// of the ceiling is for queues.
    fn share(&self) -> usize {
        let kept = self.kept.clamp(self.sizes.kept_min(), self.sizes.kept_max());
        self.sizes.ceiling.saturating_sub(self.used - self.kept + kept)
    }

    // ---- queues ----

    /// An empty buffer for a queue, of the large size or of the small one; `None` if the connection has to wait.
    pub fn take(&mut self, charged: Charged) -> Option<BufferId> {
        let size = self.granted(charged)?;
        let bytes = self.fresh(size);
        Some(self.insert(bytes, Kind::Queue, charged))
    }

    /// How large the queue is that a connection may have now; `None` if it has to wait.
    #[must_use]
    pub fn granted(&self, charged: Charged) -> Option<usize> {
        if self.is_ample(charged) {
            Some(self.sizes.bulk)
        } else {
            self.grants(charged, 0).then(|| self.sizes.small())
        }
    }

    /// `before` bytes of a connection's queue, outside of any buffer, became `after`.
    pub fn charge_piped(&mut self, charged: Charged, before: usize, after: usize) {
        self.charge(Kind::Queue, charged, before, after);
    }

    /// Whether [`Pool::take`] would give a buffer if `promised` bytes more were in use.
    #[must_use]
    pub fn grants(&self, charged: Charged, promised: usize) -> bool {
        let free = self.share().saturating_sub(promised);
        let used = self.queued(charged);
        (used == 0 || used < free) && self.sizes.small() + self.sizes.reserve(used) <= free
    }

    /// Whether there is a queue for anybody if `promised` bytes more were in use.
    #[must_use]
    pub fn has_free(&self, promised: usize) -> bool {
        self.sizes.small() + promised <= self.share()
    }

    /// Whether a queue may have the large size: only well below the threshold, and while there is room for some more.
    fn is_ample(&self, charged: Charged) -> bool {
        let Sizes { bulk, .. } = self.sizes;
        let after = self.queued(charged) + bulk;
        after <= self.share() / 2 && bulk + self.sizes.reserve(after).max(4 * bulk) <= self.share()
    }

    /// What counts as used by the queues of a connection's accounts.
    fn queued(&self, charged: Charged) -> usize {
        self.accounts.least_queued(charged, self.sizes.small())
    }

    // ---- kept bytes ----

    /// The buffer that bytes are received into before it is known how many of them have to be kept. It is free of
    /// charge: one turn of one connection has it, and then gives it back or [tightens](Pool::tighten) it.
    pub fn take_working(&mut self, charged: Charged) -> BufferId {
        let bytes = self.fresh(self.sizes.head);
        self.insert(bytes, Kind::Working, charged)
    }

    /// Exchanges the working buffer for one that has no room beside what is in it, which is charged.
    pub fn shrink_buffer(&mut self, id: BufferId) {
        let Buffer { kind: Kind::Working, owner, .. } = self[id] else { return };
        let bytes = self[id].filled().to_vec();
        let charged = bytes.len();
        let tight = Buffer { head: 0, tail: charged, charged, bytes, kind: Kind::Kept, owner };
        self.charge(Kind::Kept, owner, 0, charged);
        let working = std::mem::replace(&mut self[id], tight);
        self.keep(working.bytes);
    }

    /// Makes the working buffer, as it is, a queue. The caller has asked whether [one is granted](Pool::grants).
    pub fn charge_as_queue(&mut self, id: BufferId) {
        let Buffer { kind: Kind::Working, owner, ref bytes, .. } = self[id] else { return };
        let charged = bytes.len();
        self.charge(Kind::Queue, owner, 0, charged);
        self[id].kind = Kind::Queue;
        self[id].charged = charged;
    }

    /// Whether a buffer may become a queue as it is: it takes no more than a queue of the small size.
    #[must_use]
    pub fn is_movable(&self, id: BufferId) -> bool {
        self[id].kind == Kind::Kept || self[id].bytes.len() <= self.sizes.small()
    }

    /// Exchanges a buffer that was [tightened](Pool::tighten) for a working buffer, with the same bytes.
    pub fn grow_buffer(&mut self, id: BufferId) {
        let Buffer { kind: kind @ (Kind::Kept | Kind::Queue), owner, charged, .. } = self[id] else { return };
        let bytes = self.fresh(self.sizes.head);
        let mut working = Buffer { bytes, head: 0, tail: 0, charged: 0, kind: Kind::Working, owner };
        working.append(self[id].filled());
        self.charge(kind, owner, charged, 0);
        let tight = std::mem::replace(&mut self[id], working);
        self.keep(tight.bytes);
    }

    /// A buffer with these bytes in it, whatever the ceiling is.
    pub fn hold(&mut self, bytes: &[u8], charged: Charged) -> BufferId {
        let id = self.insert(bytes.to_vec(), Kind::Kept, charged);
        self[id].commit(bytes.len());
        id
    }

    /// Charges what a buffer takes now: one that is not of a fixed size may have grown.
    pub fn recharge(&mut self, id: BufferId) {
        let Buffer { kind, owner, charged, ref bytes, .. } = self[id];
        let size = bytes.capacity();
        if charged < size && kind != Kind::Working {
            self.charge(kind, owner, charged, size);
            self[id].charged = size;
        }
    }

    /// `before` kept bytes of a connection, outside of any buffer, became `after`.
    pub fn charge_kept(&mut self, charged: Charged, before: usize, after: usize) {
        self.charge(Kind::Kept, charged, before, after);
    }

    /// How many kept bytes have to go because queues need them: those above half of the ceiling. What is left, an account
    /// that uses nothing finds a queue in.
    #[must_use]
    pub fn kept_excess(&self) -> usize {
        let above_all = (self.used + self.sizes.small()).saturating_sub(self.sizes.ceiling);
        self.kept.saturating_sub(self.sizes.kept_max()).min(above_all)
    }

    /// How many bytes are above the ceiling.
    #[must_use]
    pub const fn excess(&self) -> usize {
        self.used.saturating_sub(self.sizes.ceiling)
    }

    /// How many kept bytes may go if no queue can.
    #[must_use]
    pub const fn spare_kept(&self) -> usize {
        self.kept.saturating_sub(self.sizes.kept_min())
    }

    // ---- all buffers ----

    /// Gives a buffer back.
    pub fn give(&mut self, id: BufferId) {
        let Some(buffer) = self.buffers.try_remove(id.0 as usize) else {
            debug_assert!(false, "a buffer given back twice");
            return;
        };
        self.charge(buffer.kind, buffer.owner, buffer.charged, 0);
        self.keep(buffer.bytes);
    }

    /// How many bytes a buffer is charged with.
    #[must_use]
    pub fn charged(&self, id: BufferId) -> usize {
        self[id].charged
    }

    /// Whether a buffer has a fixed size that leaves room for more.
    #[must_use]
    pub fn is_tight(&self, id: BufferId) -> bool {
        self[id].kind == Kind::Kept
    }

    /// Keeps of the spare buffers those that were needed since this was called last. How many bytes were given up.
    pub fn release_idle(&mut self) -> usize {
        self.spare_head.release_idle() + self.spare_small.release_idle() + self.spare_bulk.release_idle()
    }

    /// Keeps no spare buffers, until more are given back.
    pub fn shrink(&mut self) {
        self.spare_head = Spare::default();
        self.spare_small = Spare::default();
        self.spare_bulk = Spare::default();
        self.buffers.shrink_to_fit();
        self.accounts.shrink();
    }

    /// How many bytes are charged.
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

    /// Heads may be this large from now on: see [`Sizes::head`].
    pub fn set_head(&mut self, head: usize) {
        self.sizes.head = head;
        self.spare_head = Spare::default();
    }

    /// Takes the buffer itself out of its place, which is kept for [`Pool::put_back`].
    pub fn checkout(&mut self, id: BufferId) -> Buffer {
        std::mem::replace(&mut self[id], Buffer::with_room(0))
    }

    /// Puts a buffer back that was lent.
    pub fn put_back(&mut self, id: BufferId, buffer: Buffer) {
        self[id] = buffer;
    }

    /// What must hold between two turns.
    ///
    /// # Panics
    /// It does not.
    #[cfg(debug_assertions)]
    pub fn check_invariants(&self, kept_outside: usize, connections: usize) {
        let charged: usize = self.buffers.iter().map(|(_, buffer)| buffer.charged).sum();
        assert_eq!(charged + kept_outside, self.used, "bytes that nobody is charged with");
        assert!(self.accounts.count() <= 4 * connections, "accounts that nobody is charged to");
        let loose = self.buffers.iter().filter(|(_, buffer)| buffer.kind == Kind::Working).count();
        assert_eq!(loose, 0, "a working buffer that was not given back");
    }

    /// Where memory of one of the three sizes is kept for the next buffer; two of them may be the same.
    fn spare(&mut self, size: usize) -> Option<&mut Spare> {
        if size == self.sizes.small() {
            Some(&mut self.spare_small)
        } else if size == self.sizes.head {
            Some(&mut self.spare_head)
        } else if size == self.sizes.bulk {
            Some(&mut self.spare_bulk)
        } else {
            None
        }
    }

    fn fresh(&mut self, size: usize) -> Vec<u8> {
        self.spare(size).map_or_else(|| vec![0; size], |spare| spare.take(size))
    }

    /// Keeps memory for the next buffer of that size.
    fn keep(&mut self, bytes: Vec<u8>) {
        let ceiling = self.sizes.ceiling;
        if let Some(spare) = self.spare(bytes.len()) {
            spare.keep(bytes, ceiling);
        }
    }

    fn charge(&mut self, kind: Kind, owner: Charged, before: usize, after: usize) {
        self.used = self.used - before + after;
        if kind == Kind::Kept {
            self.kept = self.kept - before + after;
        }
        self.accounts.charge(owner, before, after, kind == Kind::Queue);
    }

    /// Charges a buffer to other accounts from now on. Also one that costs nothing at the moment: its accounts may be
    /// gone when it costs something again.
    pub fn reown(&mut self, id: BufferId, owner: Charged) {
        let Buffer { kind, owner: before, charged, .. } = self[id];
        self.charge(kind, owner, 0, charged);
        self.charge(kind, before, charged, 0);
        self[id].owner = owner;
    }

    fn insert(&mut self, bytes: Vec<u8>, kind: Kind, owner: Charged) -> BufferId {
        let charged = if kind == Kind::Working { 0 } else { bytes.len() };
        self.charge(kind, owner, 0, charged);
        let buffer = Buffer { bytes, head: 0, tail: 0, charged, kind, owner };
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
