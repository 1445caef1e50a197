//! Invariant: a ticket or an error, never a panic. A ticket is written as a text that parses to the same. No error
//! contains a secret.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rendezvous_fuzz::run("ticket", bytes));
