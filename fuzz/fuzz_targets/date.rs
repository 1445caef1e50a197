//! Invariant: a date that parses is formatted to the same. Every second up to the year 9999 parses back. A calendar
//! that counts day by day agrees.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rendezvous_fuzz::run("date", bytes));
