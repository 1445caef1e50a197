//! Invariant: a registration, an ID, a label or a refusal, never a panic; what was read is spelled out in what came, and is read the same when it is written again.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rendezvous_fuzz::run("target", bytes));
