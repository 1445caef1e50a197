//! Routing: the hidden server that a client's request names, and how.

use super::Engine;
use crate::conn::NamedBy;
use crate::http::challenge::{Identified, identify};
use crate::http::head::Head;
use crate::http::target;
use crate::id::Id;

/// The hidden server that a request names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// This ID, which need not be enrolled.
    To {
        /// Its ID.
        id: Id,
        /// How it was named.
        by: RoutedBy,
    },
    /// A label under the relay's domain that is not enrolled.
    Unknown,
    /// None: the client gets the challenge.
    Ask,
    /// The credentials are malformed or ambiguous.
    Malformed,
}

/// How a request names the hidden server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RoutedBy {
    /// The label in `Host`.
    Label,
    /// The user name in `Authorization`.
    UserName,
    /// `?rendezvous=ID` in the target. The request has no `Authorization`, or one for the hidden server.
    Parameter,
    /// `?rendezvous=ID` in the target of an Upgrade request whose `Authorization` names a hidden server too, since a
    /// browser adds the credentials that were typed for another one.
    ParameterBeforeUserName,
}

impl RoutedBy {
    /// The same for the operator.
    pub(super) const fn shown(self) -> NamedBy {
        match self {
            Self::Label => NamedBy::Label,
            Self::UserName => NamedBy::UserName,
            Self::Parameter | Self::ParameterBeforeUserName => NamedBy::Parameter,
        }
    }

    /// Whether the `Authorization` line is removed for the hidden server.
    pub(super) const fn removes_authorization(self) -> bool {
        match self {
            Self::UserName | Self::ParameterBeforeUserName => true,
            Self::Label | Self::Parameter => false,
        }
    }
}

impl Engine {
    /// Finds the hidden server that a request names, the first one on a connection or a later one.
    ///
    /// The label in `Host` comes first, then the user name, then `?rendezvous=ID`. In an Upgrade request the
    /// parameter comes before the user name, since a script in a browser can set only the target of a WebSocket.
    ///
    /// Credentials are parsed once: those that name the hidden server are the ones that are removed.
    pub(super) fn route(&self, head: &Head<'_>) -> Route {
        if let (Some(domain), Some(host)) = (&self.config.domain, head.host)
            && let Some(label) = target::label(host, domain)
        {
            return match self.registry.labelled(label) {
                Some(id) => Route::To { id, by: RoutedBy::Label },
                None => Route::Unknown,
            };
        }
        let user = match head.authorization.map(identify) {
            Some(Identified::Id(id)) => Some(id),
            Some(Identified::Name(name)) => self.named(&name),
            Some(Identified::Malformed) => return Route::Malformed,
            Some(Identified::Unidentified) | None => None,
        };
        let (id, by) = match (user, target::rendezvous_parameter(head.target)) {
            (Some(_), Some(id)) if head.upgrade.is_some() => (id, RoutedBy::ParameterBeforeUserName),
            (Some(id), _) => (id, RoutedBy::UserName),
            (None, Some(id)) => (id, RoutedBy::Parameter),
            (None, None) => return Route::Ask,
        };
        Route::To { id, by }
    }

    /// The ID of a user name that is a label, alone or with the relay's domain. Without a domain there are no labels.
    fn named(&self, name: &str) -> Option<Id> {
        let domain = self.config.domain.as_deref()?;
        self.registry.labelled(target::label(name, domain).unwrap_or(name))
    }
}
