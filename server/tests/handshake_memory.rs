//! The memory of a TLS handshake: the number that each handshake is charged with.

#![cfg(target_os = "linux")]

use std::sync::Arc;

use rendezvous::buffer::Buffer;
use rendezvous::tls::{HANDSHAKE_MEMORY, Take, TlsSession};
use rendezvous::tls_config::{provider, server_config};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{PrivateKeyDer, ServerName};

/// Number of concurrent handshakes.
const COUNT: usize = 2_000;

struct Nowhere;

impl Take for Nowhere {
    fn has_room(&self) -> bool {
        true
    }

    fn take(&mut self, _: &[u8]) {}
}

/// The memory of this process, in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux has it");
    let pages: usize =
        statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number of pages");
    pages * 4096
}

/// The memory of each of many server sessions that received these bytes.
fn each(config: &Arc<rustls::ServerConfig>, wire: &[u8]) -> usize {
    let before = resident();
    let sessions: Vec<Box<TlsSession>> = (0..COUNT)
        .map(|_| {
            let mut session = Box::new(TlsSession::server(Arc::clone(config)).expect("a session"));
            let mut out = Buffer::with_room(0);
            session.open(&mut wire.to_vec(), &mut out, &mut Nowhere).expect("a handshake that goes on");
            assert!(!session.is_secured());
            session
        })
        .collect();
    let each = resident().saturating_sub(before) / sessions.len();
    // Keep their memory, so that later sessions do not reuse it.
    std::mem::forget(sessions);
    each
}

#[test]
fn a_handshake_takes_no_more_than_it_is_charged_with() {
    let made = rcgen::generate_simple_self_signed(["relay".to_owned()]).expect("a certificate");
    let secret = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let signing = provider().key_provider.load_private_key(secret).expect("a key of a known kind");
    let certified = Arc::new(CertifiedKey::new(vec![made.cert.der().clone()], signing));
    let server = server_config(certified, &provider()).expect("a server's configuration");
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).expect("a root");
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let client = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[version])
            .expect("a version that the provider has")
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        let name = ServerName::try_from("relay").expect("a name");
        let mut client = TlsSession::client(Arc::new(client), name).expect("a session");
        let mut hello = Buffer::with_room(0);
        client.open(&mut [], &mut hello, &mut Nowhere).expect("a ClientHello");
        let hello = hello.filled();
        for (what, wire) in [("nothing", &hello[..0]), ("half", &hello[..hello.len() / 2]), ("all", hello)] {
            let each = each(&server, wire);
            println!("{version:?}, {what} of the ClientHello: {each} bytes");
            assert!(each <= HANDSHAKE_MEMORY, "{version:?}, {what} of the ClientHello: {each} bytes");
        }
    }
}
