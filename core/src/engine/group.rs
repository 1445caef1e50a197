//! A relay of a group behind a load balancer that selects the relay by the server name of the ClientHello
//! (`docs/protocol.md §12`).
//!
//! Agents and clients of one ID meet at one relay because both send the name `LABEL.DOMAIN` with the ID's first label.
//! With any other name a hidden server's token would reach the replay cache of another relay, and a client would reach a
//! relay at which its hidden server does not wait. So both are refused.

use super::Engine;
use crate::http::target;
use crate::id::Id;
use crate::machine::ConnId;

impl Engine {
    /// Remembers the ID that the server name of a ClientHello stands for.
    pub(super) fn note_server_name(&mut self, on: ConnId, name: &str) {
        if !self.config.group {
            return;
        }
        let label = self.config.domain.as_deref().and_then(|domain| target::label(name, domain));
        if let Some(id) = label.and_then(|label| self.registry.by_first_label(label)) {
            self.server_names.insert(on, id);
        }
    }

    /// Whether a connection's server name does not belong to this ID, so that the load balancer has selected a relay for
    /// another one, or any. Always false outside of a group.
    pub(super) fn is_misdirected(&self, on: ConnId, id: Option<Id>) -> bool {
        self.config.group && (id.is_none() || self.server_names.get(&on).copied() != id)
    }
}
