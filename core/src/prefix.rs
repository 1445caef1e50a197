//! A range of addresses in CIDR notation.

use core::fmt;
use core::net::IpAddr;
use core::str::FromStr;

pub use self::set::PrefixSet;

mod set;

/// Addresses that share their first bits (RFC 4632 §3.1, RFC 4291 §2.3): `192.0.2.0/24`, `2001:db8::/32`, or one
/// address.
///
/// An IPv4 address and its IPv4-mapped IPv6 address (`::ffff:192.0.2.1`) are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    address: IpAddr,
    bits: u8,
}

/// Why a prefix is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrefixError {
    /// The part before the slash is not an IP address.
    Address,
    /// The part after the slash is not a number, or exceeds the address's length in bits.
    Bits,
    /// The address has bits beyond the prefix.
    Host,
}

impl Prefix {
    /// Whether the range contains an address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(this), IpAddr::V4(other)) => {
                shared(this.to_bits().into(), other.to_bits().into(), 32 - u32::from(self.bits))
            }
            (IpAddr::V6(this), IpAddr::V6(other)) => {
                shared(this.to_bits(), other.to_bits(), 128 - u32::from(self.bits))
            }
            _ => false,
        }
    }
}

impl Prefix {
    /// The first and the last address, as numbers.
    fn range(&self) -> (u128, u128) {
        let (first, width) = match self.address {
            IpAddr::V4(v4) => (v4.to_bits().into(), 32),
            IpAddr::V6(v6) => (v6.to_bits(), 128),
        };
        let others = u128::MAX.checked_shr(128 - width + u32::from(self.bits)).unwrap_or(0);
        (first, first | others)
    }
}

/// Whether two addresses are equal but for their last `free` bits.
fn shared(this: u128, other: u128, free: u32) -> bool {
    (this ^ other).checked_shr(free).unwrap_or(0) == 0
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let (address, bits) =
            text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| PrefixError::Address)?;
        let all = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => all,
            Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) => {
                bits.parse().ok().filter(|bits| *bits <= all).ok_or(PrefixError::Bits)?
            }
            Some(_) => return Err(PrefixError::Bits),
        };
        // A mapped address is treated as IPv4. A prefix that is shorter than the mapping is IPv6.
        let prefix = match address.to_canonical() {
            IpAddr::V4(v4) if address.is_ipv6() && bits >= 96 => Self { address: v4.into(), bits: bits - 96 },
            _ => Self { address, bits },
        };
        let (value, width) = match prefix.address {
            IpAddr::V4(v4) => (v4.to_bits().into(), 32),
            IpAddr::V6(v6) => (v6.to_bits(), 128),
        };
        let free = width - u32::from(prefix.bits);
        let host = if free == 128 { value } else { value & ((1 << free) - 1) };
        if host == 0 { Ok(prefix) } else { Err(PrefixError::Host) }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl fmt::Display for PrefixError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Address => "not an IP address",
            Self::Bits => "the number of bits is missing or too large",
            Self::Host => "the address has bits beyond the prefix",
        })
    }
}

impl core::error::Error for PrefixError {}
