//! The field with which a relay tells an agent which one of several relays it is.
//!
//! ```text
//! CONNECT uuid:ID?response=TKN&nonce=N HTTP/1.1
//! Rendezvous-Relay: ?
//!
//! HTTP/1.1 200 OK
//! Rendezvous-Relay: 5f0c9b7a32d81e64
//! ```
//!
//! * An agent whose relay is behind a load balancer sends the field in its CONNECT, with any value. A relay that does not
//!   know the field ignores it, and the 200 has none.
//! * The value is 16 lower-case hexadecimal digits, random for each start of a relay. If it differs from the one before,
//!   another relay answers now: the agent renews its other waiting connections.
//! * The response to a plain token is always the bare 200.

use core::fmt;

use data_encoding::HEXLOWER;

use crate::entropy::Entropy;

/// The name of the field.
pub const FIELD: &str = "Rendezvous-Relay";

/// One run of one relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instance([u8; 8]);

impl Instance {
    /// Derives it from a relay's seed. It reveals nothing about the seed.
    #[must_use]
    pub fn of_seed(seed: &[u8; 32]) -> Self {
        let mut other = *seed;
        other.iter_mut().for_each(|byte| *byte ^= 0xa5);
        let block = Entropy::new(other).block();
        let (half, _) = block.split_first_chunk().unwrap_or((&[0; 8], &[]));
        Self(*half)
    }

    /// Parses the value of the field.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        HEXLOWER.decode(value).ok()?.try_into().ok().map(Self)
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn an_instance_differs_with_the_seed_and_survives_its_text() {
        let [one, other] = [1, 2].map(|fill| Instance::of_seed(&[fill; 32]));
        assert!(one != other);
        assert_eq!(one.to_string().len(), 16);
        assert_eq!(Instance::parse(one.to_string().as_bytes()), Some(one));
        for bad in ["", "?", "5f0c9b7a32d81e6", "5f0c9b7a32d81e640", "5F0C9B7A32D81E64", "xf0c9b7a32d81e64"] {
            assert_eq!(Instance::parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
