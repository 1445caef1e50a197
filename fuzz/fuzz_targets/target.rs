//! Invariant: a registration, an ID, a label or a refusal, never a panic. What was parsed occurs in the input, and
//! parses to the same when it is written.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rendezvous_fuzz::run("target", bytes));
