//! Certificates from a CA: what the ACME client of the core needs of its program.
//!
//! The client runs on the event loop, beside the relay or the agent. [`Driver`] carries out what it asks for: keys,
//! signatures and files on a thread of their own, certificates in a store that new TLS handshakes look into.

mod answers;
mod chain;
mod driver;
mod folder;
pub mod key;

pub use self::answers::KeyChoice;
pub use self::driver::{Driver, Prepared, Settings};
