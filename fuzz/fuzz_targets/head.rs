//! Invariant: an answer or a refusal, never a panic; no verdict depends on how the bytes are cut; a head less its Authorization is the same head less that field.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rendezvous_fuzz::run("head", bytes));
