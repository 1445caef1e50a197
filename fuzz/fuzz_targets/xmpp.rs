//! Invariant: for all bytes: no panic, the same elements however they are cut, none deeper than allowed. What was
//! parsed is written so that it parses to the same, and no answer is ever answered.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rendezvous_fuzz::run("xmpp", bytes));
