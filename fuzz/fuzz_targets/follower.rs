//! Invariant: requests and responses have the same boundaries in whatever pieces the bytes come. What passes is
//! complete heads and the bodies that they announce, without a gap.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rendezvous_fuzz::run("follower", bytes));
