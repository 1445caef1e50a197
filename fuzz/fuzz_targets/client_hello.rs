//! Invariant: no panic. The verdict does not depend on the pieces in which the bytes come. A ClientHello beyond its
//! size limit is refused. A name is canonical. If rustls accepts the ClientHello, it reads the same name, or none if we
//! read none.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| rendezvous_fuzz::run("client_hello", bytes));
