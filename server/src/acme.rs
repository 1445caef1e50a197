//! Certificates from a CA: the part of the ACME client that does I/O.
//!
//! The client of the core runs on the event loop, next to the relay or agent. [`Driver`] performs its requests: keys,
//! signatures and files on a worker thread, certificates in a store that new TLS handshakes use.

mod answers;
mod chain;
mod driver;
mod folder;
pub mod key;

pub use self::answers::KeyChoice;
pub use self::driver::{Driver, Prepared, Settings};
