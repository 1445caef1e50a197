//! Invariant: an answer or a refusal, never a panic; no verdict depends on how the octets are cut; a head less its Authorization is the same head less that field.
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| rendezvous_fuzz::run("head", octets));
