//! Invariant: a ticket or a failure, never a panic; a ticket is written as a text that reads the same; no failure holds a secret.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rendezvous_fuzz::run("ticket", bytes));
