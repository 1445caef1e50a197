//! Invariant: a trace or an error that names its line, never a panic; what was read is written as a text that reads the same; it plays with few actions for an event, and what was played is played again the same.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rendezvous_fuzz::run("trace", bytes));
