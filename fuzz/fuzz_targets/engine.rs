//! Invariant: whatever peers, clocks and operators do: no panic, no output for an id that is over, no rendezvous across IDs, no token twice, few outputs for an input; after everybody left nothing is left.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rendezvous_fuzz::run("engine", bytes));
