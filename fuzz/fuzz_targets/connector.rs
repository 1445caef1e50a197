//! Invariant: for all behaviours of relay and local programs: no panic, each id is used once, no pair before a 101, and
//! nothing is left after all have left.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rendezvous_fuzz::run("connector", bytes));
