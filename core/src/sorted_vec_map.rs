//! A map for few entries.

use alloc::vec::Vec;

/// A map as a vector of entries sorted by their keys.
///
/// It is meant for keys that are numbers and are inserted, and removed, in about ascending order. A lookup is a
/// binary search. A key above all others is appended; any other insertion, and each removal, moves the entries behind
/// it, which costs less than an iteration for some thousand entries. The capacity is never reduced.
///
/// It exists because of the size of the program: a `BTreeMap` of one more type is 4 to 5 kB of code, this is a few
/// hundred bytes.
#[derive(Clone, Debug)]
pub(crate) struct SortedVecMap<K, V>(Vec<(K, V)>);

impl<K, V> Default for SortedVecMap<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: Ord, V> SortedVecMap<K, V> {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    #[cfg(feature = "xmpp")]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.place(key).ok().map(|place| &self.0[place].1)
    }

    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.place(key).ok().map(|place| &mut self.0[place].1)
    }

    pub(crate) fn contains_key(&self, key: &K) -> bool {
        self.place(key).is_ok()
    }

    /// Replaces the value of an existing key.
    pub(crate) fn insert(&mut self, key: K, value: V) {
        match self.place(&key) {
            Ok(place) => self.0[place].1 = value,
            Err(place) => self.0.insert(place, (key, value)),
        }
    }

    /// Returns the value; inserts that of `value` if there was none.
    pub(crate) fn get_or_insert_with(&mut self, key: K, value: impl FnOnce() -> V) -> &mut V {
        let place = self.place(&key).unwrap_or_else(|place| {
            self.0.insert(place, (key, value()));
            place
        });
        &mut self.0[place].1
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        self.place(key).ok().map(|place| self.0.remove(place).1)
    }

    /// Removes the entries whose key `stays` returns false for.
    pub(crate) fn retain(&mut self, mut stays: impl FnMut(&K) -> bool) {
        self.0.retain(|(key, _)| stays(key));
    }

    /// Iterates in the order of the keys, like the methods below.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.0.iter().map(|(key, value)| (key, value))
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &K> {
        self.0.iter().map(|(key, _)| key)
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.0.iter().map(|(_, value)| value)
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.0.iter_mut().map(|(_, value)| value)
    }

    /// The index of a key, or the index at which it would be inserted.
    fn place(&self, key: &K) -> Result<usize, usize> {
        match self.0.last() {
            Some((last, _)) if last < key => Err(self.0.len()),
            _ => self.0.binary_search_by(|(it, _)| it.cmp(key)),
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;

    use super::*;

    #[test]
    fn whatever_is_done_it_holds_what_a_btree_map_holds_in_the_same_order() {
        let mut entropy = crate::entropy::Entropy::new([7; 32]);
        let (mut table, mut model) = (SortedVecMap::default(), BTreeMap::new());
        for value in 0..10_000 {
            let bytes = entropy.half_block();
            let key = bytes[0] % 32;
            match bytes[1] % 4 {
                0 | 1 => {
                    table.insert(key, value);
                    model.insert(key, value);
                }
                2 => {
                    let (ours, theirs) =
                        (table.get_or_insert_with(key, || value), model.entry(key).or_insert(value));
                    assert_eq!(ours, theirs);
                    (*ours, *theirs) = (-value, -value);
                }
                _ => assert_eq!(table.remove(&key), model.remove(&key)),
            }
            assert_eq!(table.get(&key), model.get(&key));
            assert_eq!(table.get_mut(&key), model.get_mut(&key));
            assert_eq!(table.contains_key(&key), model.contains_key(&key));
            assert_eq!(table.len(), model.len());
            assert!(table.iter().eq(model.iter()));
        }
    }

    #[test]
    fn a_key_is_there_once_and_what_is_left_stays_in_order() {
        let mut table = SortedVecMap::default();
        for key in [3, 1, 2, 3] {
            table.insert(key, key * 10);
        }
        table.values_mut().for_each(|value| *value += 1);
        assert!(table.keys().eq(&[1, 2, 3]));
        assert!(table.values().eq(&[11, 21, 31]));
        table.retain(|key| *key != 2);
        assert!(table.iter().eq([(&1, &11), (&3, &31)]));
    }
}
