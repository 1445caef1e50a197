//! Invariant: for all input of the peer: no panic, no line is read that must not be, no key is accepted without TLS if
//! TLS is required, no more errors than the limit. The result does not depend on how the bytes are cut.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rendezvous_fuzz::run("dtcp_handshake", bytes));
