//! Invariant: a line, an incomplete one, or one that is too long, as a simple implementation of the document finds;
//! never a panic. Bytes after a line change nothing, and what is written parses.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rendezvous_fuzz::run("dtcp_line", bytes));
