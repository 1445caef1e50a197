//! Invariant: tokens are HMACs as RFC 2104, 4226 and 6238 have them, counted by hand; accepted in the current step and one to either side, nowhere else.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rendezvous_fuzz::run("token", bytes));
