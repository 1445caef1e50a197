//! Invariant: for all events in any order: the behaviour of the half-close table, as an independent model implements
//! it, and a deadline that never spins.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rendezvous_fuzz::run("pair", bytes));
