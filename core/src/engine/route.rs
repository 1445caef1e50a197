//! Routing: which hidden server a client's request names, and by which means.

use super::Engine;
use crate::http::challenge::{Identified, identify};
use crate::http::head::Head;
use crate::http::target;
use crate::id::Id;

/// Which hidden server a request names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// This one. It need not be enrolled.
    To {
        /// Its ID.
        id: Id,
        /// What named it.
        by: Means,
    },
    /// A label under the relay's domain that is not enrolled.
    Unknown,
    /// None: the client gets the challenge.
    Ask,
    /// The credentials are malformed or ambiguous.
    Malformed,
}

/// What in a request named the hidden server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Means {
    /// The label in `Host`.
    Label,
    /// The user name in `Authorization`.
    UserName,
    /// `?rendezvous=ID` in the target.
    Parameter,
}

impl Means {
    /// Whether the hidden server gets the request without its `Authorization` line.
    pub(super) const fn removes_authorization(self) -> bool {
        match self {
            Self::UserName => true,
            Self::Label | Self::Parameter => false,
        }
    }
}

impl Engine {
    /// Finds the hidden server that a request names: the first one on a connection, or a later one.
    ///
    /// One credential, parsed once, chooses the hidden server and is the one that is removed.
    pub(super) fn route(&self, head: &Head<'_>) -> Route {
        if let (Some(domain), Some(host)) = (&self.config.domain, head.host)
            && let Some(label) = target::label(host, domain)
        {
            return match self.registry.labelled(label) {
                Some(id) => Route::To { id, by: Means::Label },
                None => Route::Unknown,
            };
        }
        match head.authorization.map_or(Identified::Unidentified, identify) {
            Identified::Id(id) => Route::To { id, by: Means::UserName },
            Identified::Malformed => Route::Malformed,
            Identified::Unidentified => {
                let parameter = head.upgrade.and_then(|_| target::rendezvous_parameter(head.target));
                parameter.map_or(Route::Ask, |id| Route::To { id, by: Means::Parameter })
            }
        }
    }
}
