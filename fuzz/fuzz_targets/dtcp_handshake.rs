//! Invariant: whatever the peer says: never a panic, never a line read that is not to be read, no key in clear where TLS is required, no more errors than are forgiven; and what is done does not depend on how the bytes are cut.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rendezvous_fuzz::run("dtcp_handshake", bytes));
