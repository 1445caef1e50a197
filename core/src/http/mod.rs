//! HTTP/1.1 as far as a rendezvous needs it: heads, but not the contents of bodies.
//!
//! | module | contents |
//! |---|---|
//! | [`head`] | the end and the contents of a request head; all rules for refusing one |
//! | [`follower`] | the end of each request and each response of a pair |
//! | [`forwarded`] | the fields that tell a server the client of a forwarded request |
//! | [`target`] | the hidden server that a target or a `Host` names |
//! | [`basic`] | user name and password in an `Authorization` |
//! | [`challenge`] | `WWW-Authenticate`, and the user name in an `Authorization` |
//! | [`accept`] | whether a client prefers an error page to JSON |
//! | [`reply`] | the responses that relay and agent generate |
//! | [`response`] | the requests of agent and connector, and the responses to them |
//! | [`offer`] | offers of direct connections in a request for a stream and in its response |
//! | [`pool`] | the number of connections that a relay needs from an agent |
//! | [`date`] | the `Date` field |
//!
//! Everything else on a connection is forwarded unchanged.

pub mod accept;
pub mod basic;
pub mod challenge;
pub mod date;
pub mod follower;
pub mod forwarded;
pub mod head;
pub mod instance;
pub mod offer;
pub(crate) mod plain_http;
pub mod pool;
pub mod reply;
pub mod response;
pub mod target;

pub(crate) mod diagnostic;
mod fields;
mod finder;
mod page;
mod refusal;
mod request_line;
mod status;
mod syntax;

#[cfg(feature = "trace")]
pub(crate) use self::syntax::is_authority;
#[cfg(feature = "acme")]
pub(crate) use self::syntax::{Authority, is_target};
