//! The bodies of the fuzz targets. Each takes arbitrary bytes and panics if its invariant, the first line of its file
//! in `fuzz_targets`, is violated.
//!
//! ```text
//! fuzz/run 600 head      # installs a nightly compiler and cargo-fuzz, if they are missing
//! ```
//!
//! A finding becomes a file of `corpus/TARGET`. `cargo test` runs the corpora as well (`tests/tests/corpora.rs`), with
//! the compiler of everything else.

mod acme_answers;
mod agent;
mod client_hello;
mod connector;
mod credentials;
mod date;
mod direct;
mod dtcp_handshake;
mod dtcp_line;
mod dtcp_negotiation;
mod engine;
mod engine_world;
mod files;
mod follower;
mod head;
mod matching;
mod pair;
mod pair_model;
mod proxy_header;
mod response;
mod shell;
mod sim;
mod sock;
mod stanzas;
mod target;
mod token;
mod trace;
mod xmpp;

/// A target: its name, which is that of its corpus as well, and its body.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("acme_answers", acme_answers::run),
    ("agent", agent::run),
    ("allowed_keys", files::allowed_keys),
    ("authorization", credentials::authorization),
    ("challenge", credentials::challenge),
    ("client_hello", client_hello::run),
    ("connector", connector::run),
    ("date", date::run),
    ("dtcp_handshake", dtcp_handshake::run),
    ("dtcp_line", dtcp_line::run),
    ("dtcp_negotiation", dtcp_negotiation::run),
    ("engine", engine::run),
    ("follower", follower::run),
    ("head", head::run),
    ("ids", files::ids),
    ("matching", matching::run),
    ("pair", pair::run),
    ("password_file", files::password_file),
    ("proxy_header", proxy_header::run),
    ("response", response::run),
    ("sim", sim::run),
    ("stanzas", stanzas::run),
    ("target", target::run),
    ("ticket", files::ticket),
    ("token", token::run),
    ("trace", trace::run),
    ("xmpp", xmpp::run),
];

/// Runs the target with this name.
///
/// # Panics
///
/// Its invariant is violated, or there is no such target.
pub fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|(known, _)| *known == name);
    let (_, body) = target.unwrap_or_else(|| panic!("no target {name}"));
    body(bytes);
}
