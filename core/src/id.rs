//! The ID of a hidden server: a UUID.

use core::fmt;

/// A hidden server's ID: a UUID (RFC 9562).
///
/// It is kept as a number, so that upper and lower case are the same ID. Its text form is lower case with hyphens.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(pub u128);

impl Id {
    /// The length of the text form, in bytes.
    pub const TEXT_BYTES: usize = 36;

    /// Reads the text form of RFC 9562 §4: 8-4-4-4-12 hexadecimal digits, in upper or lower case. Returns `None` for
    /// anything else, such as braces, `urn:uuid:`, percent-encoding, spaces and missing hyphens.
    ///
    /// The version and variant bits are not checked, since the relay's operator assigns IDs.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.len() != Self::TEXT_BYTES {
            return None;
        }
        let mut value = 0;
        for (at, &byte) in text.iter().enumerate() {
            if matches!(at, 8 | 13 | 18 | 23) {
                if byte != b'-' {
                    return None;
                }
            } else {
                value = value << 4 | u128::from(char::from(byte).to_digit(16)?);
            }
        }
        Some(Self(value))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(value) = self;
        let group = |shift: u32, digits: u32| (value >> shift) & ((1 << (4 * digits)) - 1);
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            group(96, 8),
            group(80, 4),
            group(64, 4),
            group(48, 4),
            group(0, 12)
        )
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Id({self})")
    }
}
