//! The program `rendezvous`: an event loop that moves bytes, and the commands around it. The protocol is implemented in
//! [`rendezvous_core`].

#[cfg(feature = "acme")]
pub mod acme;
pub mod activation;
pub mod admin;
pub mod allowed_keys;
mod alpn;
mod background_writer;
pub mod buffer;
pub mod build_info;
pub mod cert;
pub mod certificates;
pub mod clock;
pub mod command;
pub mod console;
pub mod daemon;
pub mod deny_file;
pub mod direct_tls;
pub mod entropy;
pub mod escape;
pub mod event_loop;
pub mod failure;
pub mod files;
pub mod ids;
pub mod key_uri;
#[cfg(unix)]
mod linux;
pub mod live_certificates;
pub mod logging;
pub mod metrics;
pub mod net;
#[cfg(unix)]
pub mod notify;
pub mod options;
mod password_check;
pub mod password_file;
pub mod pin;
pub mod proxy_url;
pub mod relay_url;
mod slot;
#[cfg(unix)]
pub mod socket_file;
pub mod state;
pub mod status;
pub mod take_over;
pub mod ticket;
pub mod tls;
pub mod tls_config;
pub mod trust;
pub mod usage;
#[cfg(windows)]
mod windows;
mod worker;
mod x509;

// On Windows, other modules have these names.
#[cfg(windows)]
use windows as linux;
#[cfg(windows)]
pub use windows::{notify, socket_file};
