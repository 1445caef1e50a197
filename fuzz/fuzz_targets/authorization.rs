//! Invariant: an ID, none, or a refusal, never a panic. Blanks around it and the case of the scheme change nothing. An
//! ID occurs in the input.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rendezvous_fuzz::run("authorization", bytes));
