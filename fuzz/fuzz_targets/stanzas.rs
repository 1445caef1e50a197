//! Invariant: for all stanzas: what was parsed is written and parses to the same, no answer is answered, and nothing
//! stays for ever.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rendezvous_fuzz::run("stanzas", bytes));
