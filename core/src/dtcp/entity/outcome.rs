//! The result of an entity.

use crate::event::Refused;
use crate::pair::EndReason;

/// The result of the local connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was paired with the peer, and the pair ended for this reason.
    Ended(EndReason),
    /// There was no direct connection.
    Failed(Refused),
    /// It was closed, or the entity was stopped, before a direct connection was established.
    Abandoned,
}
