//! Invariant: an ID, nobody or a refusal, never a panic; blanks around it and the case of the scheme change nothing; an ID is spelled out in what came.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rendezvous_fuzz::run("authorization", bytes));
