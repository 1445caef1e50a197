//! Invariant: for all behaviours of relays, names, services and clients: no panic, no more connections than the pool
//! asks for, each id is used once, and nothing is left after a drain.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rendezvous_fuzz::run("agent", bytes));
