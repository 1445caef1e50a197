//! Invariant: no panic; the verdict does not depend on the pieces in which the bytes come; a hello is not waited for beyond its bound; a name is canonical, and rustls, where it reads the hello, reads the same name or none where we read none.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rendezvous_fuzz::run("client_hello", bytes));
