//! Invariant: a claim matches the socket that docs/stream-proxy.md §5.5 names and no other. Each claim ends once, no
//! socket is in two matches, nothing waits that could match, and everything is bounded.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rendezvous_fuzz::run("matching", bytes));
