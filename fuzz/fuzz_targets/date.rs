//! Invariant: a date that is read is written back the same; every second up to the year 9999 is read back; a calendar counted day by day agrees.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rendezvous_fuzz::run("date", bytes));
