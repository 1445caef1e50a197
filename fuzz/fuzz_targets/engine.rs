//! Invariant: for all behaviours of peers, clocks and operators: no panic, no output for a closed connection, no
//! rendezvous across IDs, no token twice, few outputs for an input. Nothing is left after all have left.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rendezvous_fuzz::run("engine", bytes));
