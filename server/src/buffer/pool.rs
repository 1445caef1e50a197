//! The memory of one event loop: one limit, and fair shares below it.
//!
//! All memory that peers cause is charged to the limit and to the [accounts](rendezvous_core::account) of its
//! connection. There are two kinds:
//!
//! * **Queues** of pairs, which a connection can wait for. They are bounded by a dynamic threshold (Choudhury and
//!   Hahne, 'Dynamic queue length thresholds for shared-memory packet switches', 1998): an account is granted a buffer
//!   while it uses less than what is free. So however much one account asks for, as much again stays free for others. A
//!   connection has two accounts, and it is granted a buffer if either is below the threshold: the clients of one
//!   address cannot starve another address, and the clients of one hidden server cannot starve another hidden server,
//!   even behind one address. The last parts of the memory are reserved for accounts that use little or nothing. The
//!   very last one excludes accounts with a connection that [stalled](Pool::note_stalled) recently.
//! * **Kept bytes**, which already exist when they are charged: partial heads, records and handshakes, and responses
//!   that a socket has not accepted. They may use half of the limit, and what queues do not use.
//!
//! The limit also holds if kept bytes arrive while queues use more than their half: the event loop reclaims memory from
//! connections that make no progress, and if there are none, from those that keep most.

use rendezvous_core::account::Owners;
use rendezvous_core::client_hello::WIRE_MAX;
use rendezvous_core::time::Time;
use slab::Slab;

use super::accounts::{Accounts, Age, Charged};
use super::waiters::{Line, Rank};
use super::{Buffer, BufferId, Kind, RECORD_MAX};

/// Limit of free buffers per size, and the share of the limit that they may use. Free buffers are not charged.
const SPARE_MAX: usize = 8;
const SPARE_PART: usize = 16;
/// The small queue size: a sealed TLS record, and what arrives while waiting for the next one.
pub const SMALL: usize = 34 * 1024;

/// Buffer sizes and the memory limit, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Size of the buffer that heads are received into: the largest head and one TLS record.
    pub head: usize,
    /// The large queue size, at least [`SMALL`].
    pub bulk: usize,
    /// The memory limit, at least four times `bulk`.
    pub ceiling: usize,
}

impl Sizes {
    /// Sizes for an agent or a connector.
    #[must_use]
    pub const fn for_peer() -> Self {
        Self { head: SMALL, bulk: 128 * 1024, ceiling: 48 * 1024 * 1024 }
    }

    /// Limit of bytes received on a cleartext connection before the machine consumes some: the largest head or the
    /// longest ClientHello.
    #[must_use]
    pub const fn in_clear(&self) -> usize {
        let head = if self.head > 2 * RECORD_MAX { self.head - RECORD_MAX } else { self.head };
        if head < WIRE_MAX && self.head >= WIRE_MAX { WIRE_MAX } else { head }
    }

    /// The small queue size.
    #[must_use]
    pub const fn small(&self) -> usize {
        if self.head < SMALL { self.head } else { SMALL }
    }

    /// Limit of kept bytes. Kept bytes may also use what queues do not use.
    #[must_use]
    pub const fn kept_max(&self) -> usize {
        self.ceiling / 2
    }

    /// What kept bytes may use even if queues make progress and use all the rest.
    const fn kept_min(&self) -> usize {
        self.ceiling / 8
    }

    /// The part of the limit that is not granted to an account that uses this much. The last part, at least one queue,
    /// is reserved for accounts that use nothing; another one for those that use little.
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
    /// Those of `used` that are kept bytes.
    kept: usize,
}

/// Free memory blocks of one size.
#[derive(Debug, Default)]
struct Spare {
    free: Vec<Vec<u8>>,
    /// The lowest number of free blocks since the last [`Spare::release_idle`]: that many were not needed.
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
        // Blocks are reused last in, first out, so the ones in front were not needed.
        let given_up = self.free.drain(..self.fewest).map(|bytes| bytes.len()).sum();
        self.fewest = self.free.len();
        given_up
    }
}

impl Pool {
    /// Makes a pool without buffers.
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

    /// Charges a connection to these accounts from now on.
    pub fn open_account(&mut self, owners: Owners) -> Charged {
        self.accounts.open(owners)
    }

    /// Stops charging a connection to these accounts.
    pub fn close_account(&mut self, charged: Charged) {
        self.accounts.close(charged);
    }

    /// The smaller use of a connection's two accounts, in bytes.
    #[must_use]
    pub fn least(&self, charged: Charged) -> usize {
        self.accounts.least(charged)
    }

    /// The line in which a connection waits for memory: that of its preferred account.
    #[must_use]
    pub fn line(&self, charged: Charged) -> Line {
        let (account, stalled) = self.accounts.better(charged);
        Line { account, rank: if stalled { Rank::Stalled } else { Rank::Clear } }
    }

    /// Marks the accounts as stalled: a connection of theirs lost its memory because it made no progress. Until the
    /// mark is [cleared](Pool::clear_stalled), other accounts come first, and the last part of the memory is not granted to
    /// these.
    pub fn note_stalled(&mut self, charged: Charged, now: Time) {
        self.accounts.note_stalled(charged, now);
    }

    /// Clears the marks of accounts that stalled before this time.
    pub fn clear_stalled(&mut self, before: Time) {
        self.accounts.clear_stalled(before);
    }

    /// The round in which a connection of this age and with these accounts is served next, and not before `round`.
    pub fn schedule(&mut self, charged: Charged, age: Age, round: u64) -> u64 {
        self.accounts.schedule(charged, age, round)
    }

    /// Bytes that the queues of one account may use now: as many as are free for queues. Half of the limit is for
    /// queues, even if more is kept.
    fn share(&self) -> usize {
        let kept = self.kept.clamp(self.sizes.kept_min(), self.sizes.kept_max());
        self.sizes.ceiling.saturating_sub(self.used - self.kept + kept)
    }

    // ---- queues ----

    /// Allocates an empty queue of the large or small size. Returns `None` if the connection has to wait.
    pub fn take(&mut self, charged: Charged) -> Option<BufferId> {
        let size = self.granted(charged)?;
        let bytes = self.fresh(size);
        Some(self.insert(bytes, Kind::Queue, charged))
    }

    /// Size of the queue that a connection may have now; `None` if it has to wait.
    #[must_use]
    pub fn granted(&self, charged: Charged) -> Option<usize> {
        if self.is_ample(charged) {
            Some(self.sizes.bulk)
        } else {
            self.grants(charged, 0).then(|| self.sizes.small())
        }
    }

    /// Changes the charge for queued bytes outside of buffers, such as those in a pipe.
    pub fn charge_piped(&mut self, charged: Charged, before: usize, after: usize) {
        self.charge(Kind::Queue, charged, before, after);
    }

    /// Whether [`Pool::take`] would succeed with `promised` more bytes in use.
    #[must_use]
    pub fn grants(&self, charged: Charged, promised: usize) -> bool {
        let free = self.share().saturating_sub(promised);
        let used = self.queued(charged);
        (used == 0 || used < free) && self.sizes.small() + self.sizes.reserve(used) <= free
    }

    /// Whether any account could get a queue with `promised` more bytes in use.
    #[must_use]
    pub fn has_free(&self, promised: usize) -> bool {
        self.sizes.small() + promised <= self.share()
    }

    /// Whether a queue may have the large size: only well below the threshold, and while there is room for more.
    fn is_ample(&self, charged: Charged) -> bool {
        let Sizes { bulk, .. } = self.sizes;
        let after = self.queued(charged) + bulk;
        after <= self.share() / 2 && bulk + self.sizes.reserve(after).max(4 * bulk) <= self.share()
    }

    /// The queue use that counts for a connection.
    fn queued(&self, charged: Charged) -> usize {
        self.accounts.least_queued(charged, self.sizes.small())
    }

    // ---- kept bytes ----

    /// Allocates a buffer to receive into, before it is known how many bytes have to be kept. It is not charged: only
    /// one turn of one connection uses it, and then gives it back or [shrinks](Pool::shrink_buffer) it.
    pub fn take_working(&mut self, charged: Charged) -> BufferId {
        let bytes = self.fresh(self.sizes.head);
        self.insert(bytes, Kind::Working, charged)
    }

    /// Replaces a working buffer by one of the size of its content, which is charged.
    pub fn shrink_buffer(&mut self, id: BufferId) {
        let Buffer { kind: Kind::Working, owner, .. } = self[id] else { return };
        let bytes = self[id].filled().to_vec();
        let charged = bytes.len();
        let tight = Buffer { head: 0, tail: charged, charged, bytes, kind: Kind::Kept, owner };
        self.charge(Kind::Kept, owner, 0, charged);
        let working = std::mem::replace(&mut self[id], tight);
        self.keep(working.bytes);
    }

    /// Turns a working buffer into a queue. The caller must have checked that a queue [is granted](Pool::grants).
    pub fn charge_as_queue(&mut self, id: BufferId) {
        let Buffer { kind: Kind::Working, owner, ref bytes, .. } = self[id] else { return };
        let charged = bytes.len();
        self.charge(Kind::Queue, owner, 0, charged);
        self[id].kind = Kind::Queue;
        self[id].charged = charged;
    }

    /// Whether a buffer may become a queue as it is, because it is no larger than a small queue.
    #[must_use]
    pub fn is_movable(&self, id: BufferId) -> bool {
        self[id].kind == Kind::Kept || self[id].bytes.len() <= self.sizes.small()
    }

    /// Replaces a [shrunk](Pool::shrink_buffer) buffer by a working buffer with the same content.
    pub fn grow_buffer(&mut self, id: BufferId) {
        let Buffer { kind: kind @ (Kind::Kept | Kind::Queue), owner, charged, .. } = self[id] else { return };
        let bytes = self.fresh(self.sizes.head);
        let mut working = Buffer { bytes, head: 0, tail: 0, charged: 0, kind: Kind::Working, owner };
        working.append(self[id].filled());
        self.charge(kind, owner, charged, 0);
        let tight = std::mem::replace(&mut self[id], working);
        self.keep(tight.bytes);
    }

    /// Allocates a buffer with these bytes, regardless of the limit.
    pub fn hold(&mut self, bytes: &[u8], charged: Charged) -> BufferId {
        let id = self.insert(bytes.to_vec(), Kind::Kept, charged);
        self[id].commit(bytes.len());
        id
    }

    /// Updates the charge of a buffer that may have grown.
    pub fn recharge(&mut self, id: BufferId) {
        let Buffer { kind, owner, charged, ref bytes, .. } = self[id];
        let size = bytes.capacity();
        if charged < size && kind != Kind::Working {
            self.charge(kind, owner, charged, size);
            self[id].charged = size;
        }
    }

    /// Changes the charge for kept bytes outside of buffers.
    pub fn charge_kept(&mut self, charged: Charged, before: usize, after: usize) {
        self.charge(Kind::Kept, charged, before, after);
    }

    /// Number of kept bytes to reclaim because queues need them: those above half of the limit, as far as an account
    /// that uses nothing would otherwise find no queue.
    #[must_use]
    pub fn kept_excess(&self) -> usize {
        let above_all = (self.used + self.sizes.small()).saturating_sub(self.sizes.ceiling);
        self.kept.saturating_sub(self.sizes.kept_max()).min(above_all)
    }

    /// Number of bytes above the limit.
    #[must_use]
    pub const fn excess(&self) -> usize {
        self.used.saturating_sub(self.sizes.ceiling)
    }

    /// Number of kept bytes that may be reclaimed if no queue can be.
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

    /// Number of bytes charged for a buffer.
    #[must_use]
    pub fn charged(&self, id: BufferId) -> usize {
        self[id].charged
    }

    /// Whether a buffer has the size of its content rather than a fixed size with room for more.
    #[must_use]
    pub fn is_tight(&self, id: BufferId) -> bool {
        self[id].kind == Kind::Kept
    }

    /// Releases spare buffers that were not needed since the last call. Returns the number of bytes released.
    pub fn release_idle(&mut self) -> usize {
        self.spare_head.release_idle() + self.spare_small.release_idle() + self.spare_bulk.release_idle()
    }

    /// Releases all spare buffers.
    pub fn shrink(&mut self) {
        self.spare_head = Spare::default();
        self.spare_small = Spare::default();
        self.spare_bulk = Spare::default();
        self.buffers.shrink_to_fit();
        self.accounts.shrink();
    }

    /// Number of bytes charged.
    #[must_use]
    pub const fn used(&self) -> usize {
        self.used
    }

    /// Number of buffers in use.
    #[must_use]
    pub fn count(&self) -> usize {
        self.buffers.len()
    }

    /// The buffer sizes.
    #[must_use]
    pub const fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// Sets the size of the buffer for heads; see [`Sizes::head`].
    pub fn set_head(&mut self, head: usize) {
        self.sizes.head = head;
        self.spare_head = Spare::default();
    }

    /// Moves a buffer out of the pool; its index stays reserved until [`Pool::put_back`].
    pub fn checkout(&mut self, id: BufferId) -> Buffer {
        std::mem::replace(&mut self[id], Buffer::with_room(0))
    }

    /// Puts a buffer back that was checked out.
    pub fn put_back(&mut self, id: BufferId, buffer: Buffer) {
        self[id] = buffer;
    }

    /// Checks the invariants that hold between two turns.
    ///
    /// # Panics
    /// If an invariant does not hold.
    #[cfg(debug_assertions)]
    pub fn check_invariants(&self, kept_outside: usize, connections: usize) {
        let charged: usize = self.buffers.iter().map(|(_, buffer)| buffer.charged).sum();
        assert_eq!(charged + kept_outside, self.used, "bytes that nobody is charged with");
        assert!(self.accounts.count() <= 4 * connections, "accounts that nobody is charged to");
        let loose = self.buffers.iter().filter(|(_, buffer)| buffer.kind == Kind::Working).count();
        assert_eq!(loose, 0, "a working buffer that was not given back");
    }

    /// The free blocks of a size; two of the three sizes may be equal.
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

    /// Keeps a block for the next buffer of its size.
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

    /// Charges a buffer to other accounts from now on. This includes a buffer that is not charged now, because its
    /// former accounts may be gone when it is charged again.
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
