//! Invariant: a head, or a refusal, never a panic. No verdict depends on how the bytes are cut. Removing Authorization
//! removes exactly that field.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rendezvous_fuzz::run("head", bytes));
