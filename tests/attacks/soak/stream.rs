//! Bytes that are determined by their pair, direction and offset.

/// One direction of one pair.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stream(u64);

impl Stream {
    /// The stream that `side` of pair `pair` sends.
    pub(crate) const fn new(seed: u64, pair: u64, side: usize) -> Self {
        Self(mixed(seed ^ mixed(2 * pair + side as u64)))
    }

    /// Fills the buffer with the bytes at this offset.
    pub(crate) fn fill(self, at: u64, into: &mut [u8]) {
        let mut word = self.word(at / 8);
        for (offset, byte) in (at..).zip(into) {
            if offset % 8 == 0 {
                word = self.word(offset / 8);
            }
            *byte = word[(offset % 8) as usize];
        }
    }

    /// The position of the first byte that is wrong at this offset.
    pub(crate) fn first_wrong(self, at: u64, bytes: &[u8]) -> Option<u64> {
        let mut wanted = [0; 4096];
        let mut from = at;
        for part in bytes.chunks(wanted.len()) {
            self.fill(from, &mut wanted[..part.len()]);
            if part != &wanted[..part.len()] {
                return (from..).zip(part.iter().zip(&wanted)).find(|(_, (is, be))| is != be).map(|it| it.0);
            }
            from += part.len() as u64;
        }
        None
    }

    const fn word(self, number: u64) -> [u8; 8] {
        mixed(self.0.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15))).to_le_bytes()
    }
}

/// The final mix of SplitMix64.
const fn mixed(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
