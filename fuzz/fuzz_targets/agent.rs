//! Invariant: whatever relays, names, services and clients do: no panic, no more connections than the pool asks for, ids live once, and after a drain nothing is left.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rendezvous_fuzz::run("agent", bytes));
