//! Invariant: for all behaviours of relay, agents, connectors and their peers, with all network faults: no panic, no
//! spinning loop, no byte lost, duplicated or reordered, no false EOF, memory below its limit. Nothing is left after
//! all have left.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rendezvous_fuzz::run("sim", bytes));
