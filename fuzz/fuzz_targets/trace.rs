//! Invariant: a trace or an error that names its line, never a panic. What was parsed is written as a text that parses
//! to the same. It replays with few actions for an event, and a second replay is the same.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rendezvous_fuzz::run("trace", bytes));
