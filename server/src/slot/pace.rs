//! The rate limit of one half of a pair.

use rendezvous_core::pacer::BucketId;

/// The rate limit of one half of a pair: what it may move now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// The bucket that it shares with the other pairs of its ID.
    pub(crate) bucket: BucketId,
    /// Bytes granted; 0 if there is no grant.
    pub(crate) granted: u64,
    /// Bytes of the grant that have moved. Negative if more was returned than moved, beyond `granted` if more moved.
    pub(crate) used: i64,
    /// Whether it is in the bucket's queue.
    pub(crate) is_waiting: bool,
    /// Whether it did not use up its last grant.
    pub(crate) is_light: bool,
}

impl Pace {
    pub(crate) const fn new(bucket: BucketId) -> Self {
        Self { bucket, granted: 0, used: 0, is_waiting: false, is_light: true }
    }

    /// Bytes of the grant that are left.
    pub(crate) const fn left(&self) -> u64 {
        // More than was granted is left if bytes were returned: never, as no more is returned than was charged before.
        if self.used < 0 { self.granted } else { self.granted.saturating_sub(self.used.unsigned_abs()) }
    }
}
