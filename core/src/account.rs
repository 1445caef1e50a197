//! The accounts that memory is charged to.
//!
//! Memory that a peer causes is charged to the peer's address and, once it is known, to the hidden server that the
//! connection is for. The event loop bounds the memory of each account, so that neither many connections of one
//! address nor many clients of one hidden server can use up all of it.

use crate::id::Id;
pub use crate::limiter::Source;

/// An account of the event loop's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Account {
    /// A peer's address: an IPv4 address, or the /64 of an IPv6 address.
    Source(Source),
    /// A hidden server.
    Id(Id),
    /// An agent's or a connector's upstream: the position in its list.
    Upstream(u16),
}

/// The accounts that the memory of one connection is charged to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owners {
    /// The account of the peer's address, as far as it is known.
    pub peer: Option<Account>,
    /// The account of the hidden server, once it is known.
    pub server: Option<Account>,
}

impl Owners {
    /// The account of an address alone.
    #[must_use]
    pub fn of_peer(from: Option<core::net::SocketAddr>) -> Self {
        Self { peer: from.map(|from| Account::Source(Source::from(from.ip()))), server: None }
    }
}
