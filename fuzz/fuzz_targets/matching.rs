//! Invariant: a claim means the socket that docs/stream-proxy.md §5.5 says and no other; each claim leaves once, no socket is in two matches, nothing waits that could meet, and everything is bounded.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rendezvous_fuzz::run("matching", bytes));
