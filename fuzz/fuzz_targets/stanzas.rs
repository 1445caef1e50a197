//! Invariant: whatever comes in a stanza, what was read of it is written and read again as the same, no answer is answered, and nothing stays for ever.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rendezvous_fuzz::run("stanzas", bytes));
