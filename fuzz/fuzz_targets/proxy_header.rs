//! Invariant: a header, the beginning of one, or a refusal, never a panic; no verdict depends on how the bytes are cut or on what is behind them; a header is read within its bound, says what a plain reading of the document says, and what is read is written so that it reads the same, in either version.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rendezvous_fuzz::run("proxy_header", bytes));
