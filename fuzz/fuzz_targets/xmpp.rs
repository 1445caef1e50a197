//! Invariant: whatever the bytes: never a panic, the same parts however they are cut, none deeper than is allowed; what was read is written so that it reads the same, and no answer is ever answered.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rendezvous_fuzz::run("xmpp", bytes));
