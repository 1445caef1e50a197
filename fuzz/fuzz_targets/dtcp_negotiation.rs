//! Invariant: whatever happens, in whatever order: each session is settled once and each connection handed over or closed once, nothing is said of one that is over, no key and no give-up is said twice, and with time alone everything ends.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rendezvous_fuzz::run("dtcp_negotiation", bytes));
