//! Invariant: whatever relay and local programs do: no panic, ids live once, nobody is met before a 101, and after everybody left nothing is left.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rendezvous_fuzz::run("connector", bytes));
