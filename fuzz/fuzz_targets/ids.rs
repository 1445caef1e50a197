//! Invariant: entries and complaints, never a panic; what was read is written by a Key URI that reads the same; no complaint holds a secret.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rendezvous_fuzz::run("ids", bytes));
