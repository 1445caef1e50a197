//! What the operator permits an ID and its clients.

use alloc::vec::Vec;
use core::net::IpAddr;

use crate::prefix::Prefix;

/// Whether an ID is served at present.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// It is served.
    #[default]
    Open,
    /// The operator has disabled it: its hidden server and its clients are refused.
    Disabled,
    /// Its quota of this month is used up: its clients are refused. Its hidden server may wait, so that clients are
    /// served again as soon as there is a quota.
    QuotaUsed,
}

/// Limits of an ID's clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientLimits {
    /// The limit of pairs; `None`: the relay's. The lower one of the two counts.
    pub pairs_max: Option<u32>,
    /// The addresses of clients that are served; if empty, all are.
    pub allow: Vec<Prefix>,
    /// The addresses of clients that are refused, even if they are in `allow`.
    pub deny: Vec<Prefix>,
}

impl ClientLimits {
    /// No limits of its own.
    pub const NONE: Self = Self { pairs_max: None, allow: Vec::new(), deny: Vec::new() };

    /// Whether a client with this address is served.
    #[must_use]
    pub fn admits(&self, address: IpAddr) -> bool {
        let is_in = |list: &[Prefix]| list.iter().any(|prefix| prefix.contains(address));
        !is_in(&self.deny) && (self.allow.is_empty() || is_in(&self.allow))
    }
}
