//! Deterministic random bytes for nonces and jitter, generated from a seed.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// A generator in counter mode: block `i` is HMAC-SHA-256(seed, i). Without the seed its output cannot be told from
/// random bytes.
#[derive(Clone)]
pub struct Entropy {
    keyed: Hmac<Sha256>,
    counter: u64,
}

impl Entropy {
    /// Starts from a seed, which the driver takes from the operating system.
    #[must_use]
    pub fn new(seed: [u8; 32]) -> Self {
        let keyed =
            Hmac::new_from_slice(&seed).unwrap_or_else(|_| unreachable!("HMAC takes keys of any length"));
        Self { keyed, counter: 0 }
    }

    /// Derives 32 bytes, for example a seed or a key. They reveal nothing about the blocks or about what other labels
    /// give. `label` has at least 9 bytes, so that it differs from every counter.
    #[must_use]
    pub(crate) fn derive(&self, label: &[u8]) -> [u8; 32] {
        debug_assert!(label.len() > 8, "a label that could be a counter");
        let mut mac = self.keyed.clone();
        mac.update(label);
        mac.finalize().into_bytes().into()
    }

    /// The next 32 random bytes.
    pub fn block(&mut self) -> [u8; 32] {
        let mut mac = self.keyed.clone();
        mac.update(&self.counter.to_be_bytes());
        self.counter = self.counter.wrapping_add(1);
        mac.finalize().into_bytes().into()
    }

    /// The next 16 random bytes.
    pub fn half_block(&mut self) -> [u8; 16] {
        let mut half = [0; 16];
        half.copy_from_slice(&self.block()[..16]);
        half
    }

    /// A random number below `bound`, or 0 if `bound` is 0. The bias is below 2⁻⁶⁴ times `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        let draw = u128::from_be_bytes(self.half_block());
        u64::try_from(draw % u128::from(bound.max(1))).unwrap_or(0)
    }
}

impl core::fmt::Debug for Entropy {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Entropy").field("counter", &self.counter).finish_non_exhaustive()
    }
}
