//! Invariant: an answer, more to come, or an error, never a panic; no verdict depends on how the octets are cut.
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| rendezvous_fuzz::run("response", octets));
