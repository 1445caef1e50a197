//! End-to-end tests: our binary between real clients and real hidden servers, on loopback.
//!
//! A test needs peers that are not written in Rust (curl, python, node …). If one is missing, the test reports its name
//! and counts as ignored; with `RENDEZVOUS_PEERS=required`, as `tests/run` sets it, the test fails. Before the first
//! test cargo builds the binary (`target/debug/rendezvous`). Without cargo the existing one is used.

#![allow(
    clippy::disallowed_methods,
    reason = "tests run against the wall: real sockets, real programs, real time"
)]

mod acme;
mod acme_small_ca;
mod agent;
mod answers;
mod blind;
mod by_hand;
mod cheat;
mod client_ca;
mod clients;
mod closing;
mod connect;
mod curl;
mod demand;
mod differential;
mod direct;
mod dtcp;
mod ejabberd;
mod embedding;
mod end_to_end;
mod forwarded;
mod forwarding;
mod harness;
#[path = "../../../core/tests/common/hello.rs"]
mod hello;
mod hidden;
mod listening;
mod manual;
mod metrics;
mod names;
mod nat;
mod old_peers;
mod operator;
mod outside;
mod password_protected;
mod paths;
mod pebble;
mod peers;
mod program;
mod prosody;
mod proxy;
mod raw;
mod readme;
mod readme_security;
mod returns;
mod reuse;
mod signals;
mod small_ca;
mod smuggling;
mod squid;
mod stalls;
mod status;
mod stdio;
mod steer;
mod streams;
mod systemd;
mod take_over;
mod through;
mod to_tls;
mod traces;
mod wire;
mod world;
mod xmpp_server;

use std::process::ExitCode;

fn main() -> ExitCode {
    harness::main(&[
        ("acme", acme::CASES),
        ("acme_small_ca", acme_small_ca::CASES),
        ("answers", answers::CASES),
        ("forwarding", forwarding::CASES),
        ("forwarded", forwarded::CASES),
        ("smuggling", smuggling::CASES),
        ("closing", closing::CASES),
        ("curl", curl::CASES),
        ("demand", demand::CASES),
        ("differential", differential::CASES),
        ("clients", clients::CASES),
        ("client_ca", client_ca::CASES),
        ("blind", blind::CASES),
        ("by_hand", by_hand::CASES),
        ("old_peers", old_peers::CASES),
        ("connect", connect::CASES),
        ("direct", direct::CASES),
        ("password_protected", password_protected::CASES),
        ("end_to_end", end_to_end::CASES),
        ("names", names::CASES),
        ("listening", listening::CASES),
        ("manual", manual::CASES),
        ("nat", nat::CASES),
        ("operator", operator::CASES),
        ("outside", outside::CASES),
        ("paths", paths::CASES),
        ("agent", agent::CASES),
        ("through", through::CASES),
        ("to_tls", to_tls::CASES),
        ("proxy", proxy::CASES),
        ("prosody", prosody::CASES),
        ("ejabberd", ejabberd::CASES),
        ("embedding", embedding::CASES),
        ("dtcp", dtcp::CASES),
        ("streams", streams::CASES),
        ("returns", returns::CASES),
        ("reuse", reuse::CASES),
        ("signals", signals::CASES),
        ("squid", squid::CASES),
        ("stalls", stalls::CASES),
        ("status", status::CASES),
        ("steer", steer::CASES),
        ("metrics", metrics::CASES),
        ("stdio", stdio::CASES),
        ("systemd", systemd::CASES),
        ("take_over", take_over::CASES),
        ("traces", traces::CASES),
        ("raw", raw::CASES),
        ("readme", readme::CASES),
        ("readme_security", readme_security::CASES),
        ("harness", harness::CASES),
    ])
}
