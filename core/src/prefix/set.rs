//! A set of prefixes with a fast look-up.

use alloc::vec::Vec;
use core::net::IpAddr;

use super::Prefix;

/// A set of prefixes. A look-up takes logarithmic time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrefixSet {
    v4: Vec<(u128, u128)>,
    v6: Vec<(u128, u128)>,
}

impl PrefixSet {
    /// The set of these prefixes, which may overlap.
    #[must_use]
    pub fn new(prefixes: &[Prefix]) -> Self {
        let of = |is_v4: bool| {
            let ranges = prefixes.iter().filter(|it| it.address.is_ipv4() == is_v4).map(Prefix::range);
            merged(ranges.collect())
        };
        Self { v4: of(true), v6: of(false) }
    }

    /// Whether a prefix contains the address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let (ranges, bits) = match address.to_canonical() {
            IpAddr::V4(v4) => (&self.v4, u128::from(v4.to_bits())),
            IpAddr::V6(v6) => (&self.v6, v6.to_bits()),
        };
        let behind = ranges.partition_point(|(first, _)| *first <= bits);
        behind.checked_sub(1).is_some_and(|at| bits <= ranges[at].1)
    }

    /// Whether there is no prefix.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

/// The ranges in order, without overlaps.
fn merged(mut ranges: Vec<(u128, u128)>) -> Vec<(u128, u128)> {
    ranges.sort_unstable();
    let mut merged: Vec<(u128, u128)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            Some((_, end)) if first <= *end => *end = last.max(*end),
            _ => merged.push((first, last)),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;
    use core::net::IpAddr;

    use super::PrefixSet;
    use crate::prefix::Prefix;

    #[test]
    fn a_set_contains_what_one_of_its_prefixes_contains() {
        let texts = [
            "10.0.0.0/8",
            "10.1.0.0/16",
            "192.0.2.7",
            "192.0.2.8/31",
            "2001:db8::/32",
            "2001:db8:1::/48",
            "::1",
            "::ffff:198.51.100.0/120",
        ];
        let prefixes: Vec<Prefix> = texts.iter().map(|text| text.parse().expect("a prefix")).collect();
        let set = PrefixSet::new(&prefixes);
        let addresses = [
            "9.255.255.255",
            "10.0.0.0",
            "10.1.2.3",
            "10.255.255.255",
            "11.0.0.0",
            "192.0.2.6",
            "192.0.2.7",
            "192.0.2.9",
            "192.0.2.10",
            "198.51.100.9",
            "::ffff:10.0.0.1",
            "::1",
            "::2",
            "2001:db8::",
            "2001:db8:ffff::1",
            "2001:db9::",
            "::",
        ];
        for text in addresses {
            let address: IpAddr = text.parse().expect("an address");
            let is_in = prefixes.iter().any(|prefix| prefix.contains(address));
            assert_eq!(set.contains(address), is_in, "{text}");
        }
        assert!(!set.is_empty());
        assert!(PrefixSet::default().is_empty());
        let all = PrefixSet::new(&["0.0.0.0/0".parse().expect("all of IPv4")]);
        assert!(all.contains([255, 255, 255, 255].into()));
    }
}
