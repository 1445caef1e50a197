//! Invariant: one entry for each line that is none of comment or blank, or a failure that names a line; what is set is read.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rendezvous_fuzz::run("password_file", bytes));
