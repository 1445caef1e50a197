//! Deterministic random numbers: the same seed gives the same sequence.

/// A small generator (SplitMix64). Its quality suffices to spread a test over its cases.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// A generator with this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 uniform bits.
    pub const fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below `bound`; 0 if `bound` is 0.
    pub const fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next_u64() % bound }
    }

    /// A number in `from..=to`.
    pub const fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }

    /// True with a probability of `times` in a thousand. A probability of 0 draws no number.
    pub const fn one_of_thousand(&mut self, times: u32) -> bool {
        times > 0 && self.below(1_000) < times as u64
    }

    /// A length: mostly small, sometimes up to `most`, and often next to a power of two, where off-by-one errors show.
    pub const fn length(&mut self, most: u64) -> u64 {
        if most == 0 {
            return 0;
        }
        let magnitude = 1 << self.below(most.ilog2() as u64 + 1);
        let length = match self.below(4) {
            0 => magnitude,
            1 => magnitude - 1,
            _ => self.below(2 * magnitude),
        };
        if length > most { most } else { length }
    }

    /// An independent generator, which does not change when this one is used more or less often.
    #[must_use]
    pub const fn fork(&mut self) -> Self {
        Self(self.next_u64())
    }
}
