//! Invariant: our own challenge, answered by any client that implements RFC 7616, yields the intended ID.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rendezvous_fuzz::run("challenge", bytes));
