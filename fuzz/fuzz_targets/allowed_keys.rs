//! Invariant: one pin for each line that begins with one, or an error that names a line. What is printed parses to the
//! same.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rendezvous_fuzz::run("allowed_keys", bytes));
