//! The replay cache: accepted tokens, until they expire.
//!
//! Tokens come and go in waves. So they are kept in a few large allocations: thousands of small ones would each keep
//! a page of a past wave's memory in use.

use alloc::vec::Vec;

use crate::id::Id;
use crate::sorted_vec_map::SortedVecMap;

/// The key of a token: the 16 bytes of a bound token, which stand for its nonce, or zeroes for a plain one, of which
/// there is one for each step.
pub(super) type TokenKey = (Id, [u8; 16]);

/// A token that was accepted, for another process that takes over. It is no secret: it is not accepted again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsedToken {
    /// The ID that it was accepted for.
    pub id: Id,
    /// The 16 bytes of a bound token; zeroes for a plain one.
    pub token: [u8; 16],
    /// The second of the wall clock at which it expires.
    pub until: u64,
}

/// The length at which `recent` is merged into `sorted`: this many, and one more for each 32 in `sorted`.
const RECENT_MIN: usize = 64;

/// All accepted tokens, by the second in which they expire.
#[derive(Debug, Default)]
pub(super) struct ReplayCache(SortedVecMap<u64, TokenSet>);

/// A set in two sorted vectors. An insertion moves only the few entries of the short one.
#[derive(Debug, Default)]
struct TokenSet {
    sorted: Vec<TokenKey>,
    recent: Vec<TokenKey>,
}

impl ReplayCache {
    /// Remembers a token until `until`, and removes those that have expired at `wall`. Returns false if it was there
    /// already.
    pub(super) fn insert(&mut self, mark: TokenKey, until: u64, wall: u64) -> bool {
        self.0.retain(|&until| until > wall);
        self.0.get_or_insert_with(until, TokenSet::default).insert(mark)
    }

    /// Whether a token that expires at `until` was accepted.
    pub(super) fn contains(&self, mark: &TokenKey, until: u64) -> bool {
        self.0.get(&until).is_some_and(|tokens| tokens.contains(mark))
    }

    /// Visits `max` tokens from a position on. Returns those that have not expired at `wall`, and the next position.
    pub(super) fn list(&self, from: usize, max: usize, wall: u64) -> (Vec<UsedToken>, Option<usize>) {
        let mut skip = from;
        let mut left = max;
        let mut listed = Vec::new();
        for (&until, tokens) in self.0.iter() {
            for part in [&tokens.sorted, &tokens.recent] {
                let part = &part[skip.min(part.len())..];
                skip = skip.saturating_sub(part.len());
                let part = &part[..left.min(part.len())];
                left -= part.len();
                if until > wall {
                    listed.extend(part.iter().map(|&(id, token)| UsedToken { id, token, until }));
                }
            }
        }
        (listed, (left == 0).then_some(from.saturating_add(max)))
    }

    /// The number of tokens, including expired ones that are not removed yet.
    pub(super) fn len(&self) -> u64 {
        self.0.values().map(|tokens| (tokens.sorted.len() + tokens.recent.len()) as u64).sum()
    }

    /// Removes the tokens of an ID whose secret has changed.
    pub(super) fn forget(&mut self, id: Id) {
        for tokens in self.0.values_mut() {
            tokens.sorted.retain(|mark| mark.0 != id);
            tokens.recent.retain(|mark| mark.0 != id);
        }
    }
}

impl TokenSet {
    fn contains(&self, mark: &TokenKey) -> bool {
        self.sorted.binary_search(mark).is_ok() || self.recent.binary_search(mark).is_ok()
    }

    fn insert(&mut self, mark: TokenKey) -> bool {
        if self.sorted.binary_search(&mark).is_ok() {
            return false;
        }
        let Err(place) = self.recent.binary_search(&mark) else { return false };
        self.recent.insert(place, mark);
        if self.recent.len() >= RECENT_MIN + self.sorted.len() / 32 {
            self.merge();
        }
        true
    }

    /// Merges the short vector into the long one, from the end.
    fn merge(&mut self) {
        let mut rest = self.sorted.len();
        self.sorted.extend_from_slice(&self.recent);
        while let Some(mark) = self.recent.pop() {
            while rest > 0 && self.sorted[rest - 1] > mark {
                rest -= 1;
                self.sorted[rest + self.recent.len() + 1] = self.sorted[rest];
            }
            self.sorted[rest + self.recent.len()] = mark;
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;

    use super::*;

    /// The `n`th mark of a run that is in no order.
    fn mark(n: u32) -> TokenKey {
        let scattered = u128::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        (Id(scattered % 7), scattered.to_be_bytes())
    }

    #[test]
    fn whatever_the_order_each_mark_is_new_once() {
        let mut replay_cache = ReplayCache::default();
        let mut model = BTreeSet::new();
        for n in 0..20_000 {
            let mark = mark(n * n % 12_289);
            assert_eq!(replay_cache.contains(&mark, 100), model.contains(&mark), "{n}");
            assert_eq!(replay_cache.insert(mark, 100, 0), model.insert(mark), "{n}");
        }
        replay_cache.forget(Id(3));
        assert!(model.iter().all(|mark| replay_cache.contains(mark, 100) == (mark.0 != Id(3))));
    }

    #[test]
    fn marks_are_forgotten_in_their_second_and_not_before() {
        let mut replay_cache = ReplayCache::default();
        assert!(replay_cache.insert(mark(1), 100, 0));
        assert!(!replay_cache.insert(mark(1), 100, 99));
        assert!(replay_cache.insert(mark(1), 100, 100));
        assert!(replay_cache.insert(mark(2), 130, 100));
        assert!(!replay_cache.contains(&mark(1), 100));
    }
}
