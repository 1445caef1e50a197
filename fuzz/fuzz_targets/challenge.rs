//! Invariant: our own challenge, answered by any client that reads RFC 7616, comes back as the ID that was meant.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rendezvous_fuzz::run("challenge", bytes));
