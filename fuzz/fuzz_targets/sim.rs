//! Invariant: whatever relay, agents, connectors and everybody around them do in whatever weather: no panic, no loop that spins, no byte lost, doubled or out of order, no end that is not one, memory below its bound; after everybody left nothing is left.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rendezvous_fuzz::run("sim", bytes));
