//! ClientHellos: our parser against that of rustls.

use rendezvous_core::client_hello::{ClientHello, Reader, WIRE_MAX};
use rustls::server::Acceptor;

pub(crate) fn run(wire: &[u8]) {
    let whole = Reader::default().read(wire);
    assert_eq!(piecewise(wire), whole, "byte by byte");
    match &whole {
        ClientHello::Partial => assert!(wire.len() < WIRE_MAX, "it is waited for without an end"),
        ClientHello::NotTls => assert_ne!(wire.first(), Some(&22)),
        ClientHello::Refused(why) => assert!(!why.why().is_empty()),
        ClientHello::Name(name) => {
            assert!((1..=253).contains(&name.len()) && !name.ends_with('.'));
            assert_eq!(*name, name.to_ascii_lowercase());
        }
        ClientHello::NoName => {}
    }
    let Some(theirs) = by_rustls(wire) else { return };
    match (whole, theirs) {
        (ClientHello::Name(ours), theirs) => assert_eq!(Some(ours), theirs),
        (ClientHello::NoName, theirs) => assert_eq!(None, theirs),
        // rustls accepts longer ones.
        (ClientHello::Refused(_) | ClientHello::Partial, _) => {}
        (ClientHello::NotTls, _) => panic!("rustls reads what we take for no TLS"),
    }
}

/// The verdict as bytes come one by one. Bytes after the verdict change nothing.
fn piecewise(wire: &[u8]) -> ClientHello {
    let mut reader = Reader::default();
    let mut verdicts = (0..=wire.len()).map(|len| reader.read(&wire[..len]));
    verdicts.find(|it| *it != ClientHello::Partial).unwrap_or(ClientHello::Partial)
}

/// The name that rustls finds; `None` if it refuses the ClientHello.
fn by_rustls(mut wire: &[u8]) -> Option<Option<String>> {
    let mut acceptor = Acceptor::default();
    while !wire.is_empty() {
        acceptor.read_tls(&mut wire).ok()?;
        match acceptor.accept() {
            Ok(Some(accepted)) => return Some(accepted.client_hello().server_name().map(str::to_owned)),
            Ok(None) => {}
            Err(_) => return None,
        }
    }
    None
}
