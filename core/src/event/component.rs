//! Events of a component's connection to its XMPP server.

use crate::time::Span;
use crate::xmpp::component::Loss;
use crate::xmpp::jid::Jid;

/// An event of the connection to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ComponentEvent {
    /// The server has accepted us.
    Up,
    /// There is no connection. The same reason is reported once until there is one again.
    Down {
        /// The reason.
        why: Loss,
        /// The delay until the next attempt.
        again: Span,
    },
    /// IQs were dropped because too many wait for the server. Reported once until there is a connection again.
    Full,
    /// The server sent a stanza for another component; it is dropped. Reported for the first one, and then whenever
    /// their number has doubled. ejabberd does so with `global_routes: true`, if two components share a listener.
    Misrouted {
        /// The recipient of the last one.
        to: Jid,
        /// Their number since the start.
        total: u64,
    },
    /// A stanza from the server was skipped ([`Part::Excess`](crate::xmpp::stream::Part::Excess)). Reported for the first
    /// one, and then whenever their number has doubled, since anybody can send them.
    Excess {
        /// Their number since the start.
        total: u64,
    },
}
