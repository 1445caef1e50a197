//! Invariant: entries and errors, never a panic. What was parsed is written by a Key URI that parses to the same. No
//! error contains a secret.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rendezvous_fuzz::run("ids", bytes));
