//! The name of a hidden server: a UUID.

use core::fmt;

/// A hidden server's ID: a UUID (RFC 9562), kept as a number, so that upper and lower case are the same ID.
///
/// Shown, and written to peers, in lower case with hyphens.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(pub u128);

impl Id {
    /// How long the text form is.
    pub const TEXT_BYTES: usize = 36;

    /// Reads the text form of RFC 9562 §4: 8-4-4-4-12 hexadecimal digits, of any case. `None` for anything else:
    /// braces, `urn:uuid:`, percent-encoding, spaces and missing hyphens are not ours to repair.
    ///
    /// The version and variant bits are not looked at: IDs are assigned by whoever runs the relay.
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
