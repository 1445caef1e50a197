//! The rendezvous protocol without a world: state machines that take what happened and say what to do about it.
//!
//! No socket, clock, entropy source, thread, environment, TLS or log is in here. Time comes with every call, entropy
//! as a seed at construction, octets as slices; what comes out is a list of things to do. The same inputs give the same
//! outputs, bit for bit. The contract between a machine and whoever drives it is in [`machine`].
//!
//! | module | what it is |
//! |---|---|
//! | [`machine`] | the door: [`Machine`](machine::Machine), what goes in, what comes out |
//! | [`endpoint`], [`acl`] | hosts and ports, and which may be dialled |
//! | [`conn`], [`fingerprint`] | what is said of a connection; certificates by their SHA-256 |
//! | [`engine`] | the relay |
//! | [`agent`] | the program beside a hidden server |
//! | [`connector`] | the program beside a client that speaks no HTTP |
//! | [`bytestream`] | the stream proxy of December 2002, and both ends of its streams |
//! | [`reach`], [`backoff`] | what those two have in common: the way to a relay, and when to try it again |
//! | [`registry`] | who is enrolled, who waits |
//! | [`pair`] | the half-close table |
//! | [`dtcp`] | a direct connection, where one side can be reached |
//! | [`xmpp`] | how DTCP and the stream proxy signal: stanzas, and a component of an XMPP server |
//! | [`token`], [`id`] | what a hidden server proves itself with |
//! | [`http`] | heads, targets, credentials, answers |
//! | [`note`] | what is worth a log line |
//! | [`offer`] | offers of direct connections |
//! | [`opaque`] | octets that are not to be shown |
//! | [`trace`] | what happened to a machine, as text; and the same again |
//! | [`time`], [`entropy`] | clocks and chance, as values |

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod account;
pub mod acl;
mod admission;
pub mod agent;
pub mod backoff;
pub mod bytestream;
pub mod conn;
pub mod connector;
mod conns;
pub mod dialer;
pub mod dtcp;
pub mod endpoint;
pub mod engine;
pub mod entropy;
pub mod fingerprint;
pub mod http;
pub mod id;
mod limiter;
pub mod machine;
pub mod note;
pub mod offer;
pub mod opaque;
pub mod pair;
pub mod prefix;
pub mod proxy_header;
pub mod reach;
pub mod registry;
mod table;
pub mod time;
pub mod token;
pub mod trace;
pub mod xmpp;
