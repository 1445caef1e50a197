//! Invariant: whatever happens, in whatever order: what the half-close table says, as a model of its own reads it, and a deadline that never spins.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rendezvous_fuzz::run("pair", bytes));
