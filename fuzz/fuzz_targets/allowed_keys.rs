//! Invariant: one pin for each line that begins with one, or a failure that names a line; what is printed is read again.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rendezvous_fuzz::run("allowed_keys", bytes));
