//! Invariant: a header, an incomplete one, or a refusal, never a panic. No verdict depends on how the bytes are cut or
//! on what follows them. A header is within its size limit and has the content that a simple implementation of the
//! document finds. What is parsed is written so that it parses to the same, in either version.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rendezvous_fuzz::run("proxy_header", bytes));
