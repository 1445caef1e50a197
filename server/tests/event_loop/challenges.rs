//! Validators of a CA at the relay's port (RFC 8737), and certificates that change while it runs.

use std::io::{Read, Write};
use std::sync::Arc;

use rendezvous::acme::key::Key;
use rendezvous::cert;
use rendezvous::pin::Pin;
use rendezvous::tls_config::{client_config, provider};
use rendezvous::trust::Trust;
use rendezvous_core::client_hello;
use rendezvous_core::event::Event;
use rendezvous_core::machine::TlsFailure;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ClientConnection, SupportedProtocolVersion, version};

use crate::peer::{Kind, socket};
use crate::relay::Relay;

const NAME: &str = "a.relay.example";

fn challenge() -> Arc<CertifiedKey> {
    Key::generate().unwrap().challenge(NAME, &[7; 32], &provider()).unwrap()
}

/// A client that accepts any certificate and offers these protocols.
fn client(protocols: &[&str], version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
    let verifier = Trust::Insecure.verifier(&provider()).unwrap();
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[version]).unwrap();
    let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|it| it.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// The certificate and protocol that a client receives, if any, and whether the relay then ends the connection cleanly.
fn validate(
    relay: &Relay,
    name: &'static str,
    config: Arc<ClientConfig>,
    then: &[u8],
) -> Result<(Vec<u8>, Option<Vec<u8>>), String> {
    let mut sock = socket(relay.address(Kind::Tls13));
    let mut conn = ClientConnection::new(config, name.try_into().unwrap()).unwrap();
    while conn.is_handshaking() {
        conn.complete_io(&mut sock).map_err(|error| error.to_string())?;
    }
    let leaf = conn.peer_certificates().unwrap()[0].to_vec();
    let protocol = conn.alpn_protocol().map(<[u8]>::to_vec);
    if protocol.as_deref() == Some(b"acme-tls/1") {
        conn.writer().write_all(then).unwrap();
        let mut stream = rustls::Stream::new(&mut conn, &mut sock);
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).map_err(|error| format!("no end in order: {error}"))?;
        assert_eq!(rest, b"", "no data");
    }
    Ok((leaf, protocol))
}

#[test]
fn a_validator_gets_the_certificate_of_its_challenge_and_an_end_in_order() {
    let relay = Relay::start();
    let certified = challenge();
    relay.live().provide("A.relay.example", certified.clone());
    for version in [&version::TLS12, &version::TLS13] {
        for then in [&b""[..], b"GET / HTTP/1.1\r\n\r\n"] {
            let got = validate(&relay, NAME, client(&["acme-tls/1"], version), then);
            let (leaf, protocol) = got.unwrap();
            assert_eq!(leaf, certified.cert[0].to_vec());
            assert_eq!(protocol.as_deref(), Some(&b"acme-tls/1"[..]));
        }
    }
    relay.until_empty();
    relay.pair(Kind::Tls13, Kind::Tls12);
}

#[test]
fn without_a_challenge_for_its_name_a_validator_gets_an_alert() {
    let relay = Relay::start();
    for version in [&version::TLS12, &version::TLS13] {
        for name in [NAME, "localhost", "127.0.0.1"] {
            let refused = validate(&relay, name, client(&["acme-tls/1"], version), b"").unwrap_err();
            assert!(refused.contains("AccessDenied"), "{refused}");
        }
    }
    relay.live().provide(NAME, challenge());
    relay.live().withdraw(NAME);
    assert!(validate(&relay, NAME, client(&["acme-tls/1"], &version::TLS13), b"").is_err());
    relay.until_noted("the failure is noted", |_, events| {
        events.iter().any(|event| matches!(event, Event::TlsFailed { why: TlsFailure::Protocol, .. }))
    });
    relay.until_empty();
}

#[test]
fn a_challenge_is_answered_for_no_other_protocol() {
    let relay = Relay::start();
    let certified = challenge();
    relay.live().provide(NAME, certified.clone());
    for protocols in [&["http/1.1"][..], &[], &["acme-tls/1", "http/1.1"], &["http/1.0", "acme-tls/1"]] {
        let (leaf, protocol) =
            validate(&relay, NAME, client(protocols, &version::TLS13), b"").expect("a client is served");
        assert_ne!(leaf, certified.cert[0].to_vec(), "{protocols:?}");
        assert_ne!(protocol.as_deref(), Some(&b"acme-tls/1"[..]));
    }
    // The usual certificate is not used with the validators' protocol.
    let refused = validate(&relay, NAME, client(&["acme-tls/1", "h2"], &version::TLS13), b"");
    assert!(refused.is_err(), "{refused:?}");
}

#[test]
fn a_new_certificate_is_served_to_new_connections_and_touches_no_other() {
    let relay = Relay::start();
    let pin = |leaf: &[u8]| Pin::of_certificate(leaf).unwrap();
    let before = validate(&relay, NAME, client(&["http/1.1"], &version::TLS13), b"").unwrap().0;
    let (hidden, client_of_pair) = relay.pair(Kind::Tls13, Kind::Tls13);
    let certified = challenge();
    let identity = cert::Identity { pin: pin(&certified.cert[0]), certified };
    relay.live().set("A.Relay.Example", identity.clone());
    let leaf = validate(&relay, NAME, client(&["http/1.1"], &version::TLS13), b"").unwrap().0;
    assert_eq!(leaf, identity.certified.cert[0].to_vec());
    let other = validate(&relay, "b.relay.example", client(&["http/1.1"], &version::TLS13), b"").unwrap().0;
    assert_eq!(other, before, "other names get what they got");
    hidden.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client_of_pair.recv_exactly(15), b"HTTP/1.1 200 OK");
    relay.live().retain(|name| name != NAME);
    let leaf = validate(&relay, NAME, client(&["http/1.1"], &version::TLS13), b"").unwrap().0;
    assert_eq!(leaf, before);
    // Agents use `client_config`.
    assert!(
        validate(&relay, NAME, client_config(&Trust::Pins(vec![pin(&before)]), &provider()).unwrap(), b"")
            .is_ok()
    );
}

#[test]
fn a_validator_is_told_from_other_clients_by_its_client_hello() {
    let hello = |protocols: &[&str]| {
        let config = client(protocols, &version::TLS13);
        let mut conn = ClientConnection::new(config, NAME.try_into().unwrap()).unwrap();
        let mut wire = Vec::new();
        conn.write_tls(&mut wire).unwrap();
        wire
    };
    let is_validation = |wire: &[u8]| client_hello::offers_only(wire, b"acme-tls/1");
    let wire = hello(&["acme-tls/1"]);
    assert!(is_validation(&wire));
    for protocols in
        [&[][..], &["http/1.1"], &["acme-tls/1", "http/1.1"], &["h2", "acme-tls/1"], &["acme-tls/10"]]
    {
        assert!(!is_validation(&hello(protocols)), "{protocols:?}");
    }
    for len in 0..wire.len() {
        assert!(!is_validation(&wire[..len]), "not whole: {len}");
    }
}
