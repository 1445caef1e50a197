//! Invariant: a response, an incomplete one, or an error, never a panic. No verdict depends on how the bytes are cut.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rendezvous_fuzz::run("response", bytes));
