//! HTTP as far as a rendezvous needs it: heads, never bodies.
//!
//! | module | what it knows |
//! |---|---|
//! | [`head`] | where a request head ends, and what is in it; every rule for refusing one |
//! | [`follower`] | where each request and each response of a pair ends |
//! | [`forwarded`] | the fields that tell a server for which client a request was forwarded |
//! | [`target`] | what a target or a `Host` says about who is meant |
//! | [`basic`] | user name and password in an `Authorization` |
//! | [`challenge`] | `WWW-Authenticate`, and the user name in an `Authorization` |
//! | [`accept`] | whether a client prefers an error page to JSON |
//! | [`reply`] | the answers that relay and agent give themselves |
//! | [`response`] | the other direction: what agent and connector send, and the answers to it |
//! | [`offer`] | what a request for a stream, and its answer, say of direct connections |
//! | [`pool`] | how many connections a relay needs of an agent |
//! | [`date`] | the one form of date that HTTP writes |
//!
//! Everything else on a connection is bytes, passed on as they came.

pub mod accept;
pub mod basic;
pub mod challenge;
pub mod date;
pub mod follower;
pub mod forwarded;
pub mod head;
pub mod offer;
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
