//! Invariant: a line, or none yet, or too long, as a plain reading of the document says; never a panic; what comes behind a line changes nothing, and what is written is read.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rendezvous_fuzz::run("dtcp_line", bytes));
