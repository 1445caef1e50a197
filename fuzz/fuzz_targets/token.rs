//! Invariant: tokens are HMACs as in RFC 2104, 4226 and 6238, computed independently; accepted in the current step and
//! one to either side, nowhere else.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rendezvous_fuzz::run("token", bytes));
