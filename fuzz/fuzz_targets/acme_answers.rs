//! Invariant: no panic, bounded steps and texts, what is stored can be read, and no host but the CA's is dialled.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rendezvous_fuzz::run("acme_answers", bytes));
