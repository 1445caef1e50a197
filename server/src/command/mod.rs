//! The commands, one file each.

#[cfg(feature = "acme")]
mod acme;
#[cfg(not(feature = "acme"))]
#[path = "acme_off.rs"]
mod acme;
pub mod agent;
mod certificate;
pub mod check;
mod columns;
#[cfg(feature = "manual")]
pub mod completions;
#[cfg(feature = "xmpp")]
mod component;
pub mod connect;
pub mod definition;
pub mod demo;
mod direct;
#[cfg(feature = "xmpp")]
pub mod dtcp;
pub mod help;
pub mod id;
#[cfg(feature = "units")]
pub mod install_units;
pub mod key;
pub mod kick;
mod listen;
mod local;
#[cfg(feature = "manual")]
pub mod manual;
mod metrics;
pub mod password;
#[cfg(feature = "xmpp")]
pub mod proxy;
#[cfg(feature = "replay")]
pub mod replay;
pub mod serve;
mod share;
pub mod status;
#[cfg(feature = "xmpp")]
pub mod stream;
pub mod table;
mod through;
mod tickets;
pub mod token;
mod trace_writer;
mod upstream;
pub mod usage;
