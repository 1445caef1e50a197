//! Invariant: one entry for each line that is neither a comment nor blank, or an error that names a line. What is set
//! can be read.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rendezvous_fuzz::run("password_file", bytes));
