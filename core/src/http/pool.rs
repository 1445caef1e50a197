//! The field with which a relay tells an agent how many connections it needs.
//!
//! ```text
//! CONNECT uuid:ID?response=TKN&nonce=N HTTP/1.1
//! Rendezvous-Pool: ?
//!
//! HTTP/1.1 200 OK
//! Rendezvous-Pool: held=12 room=27
//! ```
//!
//! * An agent whose pool can grow sends the field in its CONNECT, with any value. A relay that does not know the
//!   field ignores it, and the 200 has none.
//! * `held`: the number of clients that are held for the ID and still lack a connection after the new connection has
//!   taken one. The agent opens this many connections, less those that are being opened. The number does not exceed
//!   what the relay admits for the ID and from the agent's address.
//! * `room`: the number of further connections that may wait for the ID. Beyond that, a new one replaces the oldest.
//! * The response to a plain token is always the bare 200.

use core::fmt;

use super::syntax::decimal;

/// The name of the field.
pub const FIELD: &str = "Rendezvous-Pool";

/// The state of an ID's pool, as a relay reports it to an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolState {
    /// The number of held clients without a connection.
    pub held: u32,
    /// The number of further connections that may wait.
    pub room: u32,
}

impl PoolState {
    /// Parses the value of the field; `None` if one of the two numbers is missing or malformed. Unknown words are
    /// ignored.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        let number = |name: &[u8]| {
            let mut words = value.split(|byte| byte.is_ascii_whitespace());
            let digits = words.find_map(|word| word.strip_prefix(name)?.strip_prefix(b"="))?;
            u32::try_from(decimal(digits)?).ok()
        };
        Some(Self { held: number(b"held")?, room: number(b"room")? })
    }
}

impl fmt::Display for PoolState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "held={} room={}", self.held, self.room)
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let state = PoolState { held: 12, room: 0 };
        assert_eq!(PoolState::parse(state.to_string().as_bytes()), Some(state));
    }

    #[test]
    fn words_that_are_not_known_are_ignored_and_both_numbers_must_be_there() {
        let state = Some(PoolState { held: 1, room: 2 });
        assert_eq!(PoolState::parse(b"room=2 later=x held=1"), state);
        for bad in ["", "?", "held=1", "room=2", "held=-1 room=2", "held=1 room=", "held=4294967296 room=1"] {
            assert_eq!(PoolState::parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
