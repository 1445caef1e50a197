//! Invariant: for all events in any order: each session is settled once, each connection is handed over or closed once,
//! finished ones are not mentioned, no key and no give-up is sent twice, and time alone ends everything.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rendezvous_fuzz::run("dtcp_negotiation", bytes));
