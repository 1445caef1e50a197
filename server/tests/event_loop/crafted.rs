//! Hand-made records that no TLS library would send.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;

use rustls::crypto::cipher::{MessageEncrypter, OutboundPlainMessage};
use rustls::{
    ClientConnection, ConnectionTrafficSecrets, ContentType, ProtocolVersion, SupportedCipherSuite,
};

use crate::peer::{Kind, client_config, socket};
use crate::relay::{Relay, registration};

/// A TLS 1.3 connection whose records are made by the test.
struct Crafted {
    sock: TcpStream,
    encrypter: Box<dyn MessageEncrypter>,
    sequence: u64,
}

impl Crafted {
    fn connect(relay: &Relay) -> Self {
        let mut config = client_config(Kind::Tls13, relay.roots());
        config.enable_secret_extraction = true;
        let mut sock = socket(relay.address(Kind::Tls13));
        let mut conn = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
        while conn.is_handshaking() || conn.wants_write() {
            conn.complete_io(&mut sock).unwrap();
        }
        let Some(SupportedCipherSuite::Tls13(suite)) = conn.negotiated_cipher_suite() else {
            panic!("TLS 1.3")
        };
        let (sequence, secrets) = conn.dangerous_extract_secrets().unwrap().tx;
        let (ConnectionTrafficSecrets::Aes128Gcm { key, iv }
        | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
        | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv }) = secrets
        else {
            panic!("a cipher of TLS 1.3")
        };
        Self { sock, encrypter: suite.aead_alg.encrypter(key, iv), sequence }
    }

    fn send(&mut self, typ: ContentType, payload: &[u8]) {
        let message =
            OutboundPlainMessage { typ, version: ProtocolVersion::TLSv1_2, payload: payload.into() };
        let record = self.encrypter.encrypt(message, self.sequence).unwrap();
        self.sequence += 1;
        self.sock.write_all(&record.encode()).expect("the relay reads");
    }
}

/// A key update is `24 0 0 1 x`; this one is truncated.
const PART_OF_A_MESSAGE: &[u8] = &[24, 0, 0];

#[test]
fn data_within_a_handshake_message_ends_the_connection_and_nothing_else() {
    let relay = Relay::start();
    let challenged: &[u8] = b"POST / HTTP/1.1\r\nHost: relay\r\nContent-Length: 10\r\n\r\n";
    let registration = registration();
    for before in [&b""[..], b"GET /", challenged, &registration] {
        let mut peer = Crafted::connect(&relay);
        if !before.is_empty() {
            peer.send(ContentType::ApplicationData, before);
            let turns = relay.ask(|event_loop| event_loop.stats().turns);
            relay.until("it was heard", move |event_loop| event_loop.stats().turns > turns + 1);
        }
        peer.send(ContentType::Handshake, PART_OF_A_MESSAGE);
        peer.send(ContentType::ApplicationData, b"in between");
        drop(peer);
        relay.until_empty();
    }
}

#[test]
fn data_within_a_handshake_message_of_a_pair_ends_the_pair_and_nothing_else() {
    let relay = Relay::start();
    let hidden = relay.hidden(Kind::Tls13);
    let mut peer = Crafted::connect(&relay);
    peer.send(ContentType::ApplicationData, &crate::relay::request("GET"));
    let head = crate::relay::passed_on("GET");
    assert_eq!(hidden.recv_exactly(head.len()), head);
    peer.send(ContentType::Handshake, PART_OF_A_MESSAGE);
    peer.send(ContentType::ApplicationData, b"in between");
    hidden.send(b"an answer, sealed while the other direction is broken");
    assert_ne!(hidden.recv_all().1, crate::peer::Ending::Clean);
    drop((peer, hidden));
    relay.until_empty();
}

#[test]
fn records_without_bytes_are_no_progress_and_no_harm() {
    let relay = Relay::start();
    let mut peer = Crafted::connect(&relay);
    for _ in 0..20 {
        peer.send(ContentType::ApplicationData, b"");
    }
    peer.send(ContentType::ApplicationData, b"GET / HTTP/1.1\r\n\r\n");
    for _ in 0..40 {
        peer.send(ContentType::ApplicationData, b"");
    }
    drop(peer);
    relay.until_empty();
}

#[test]
fn key_updates_without_end_fill_no_memory() {
    let relay = Relay::start();
    let mut peer = Crafted::connect(&relay);
    // All but the first are sealed with an outdated key: the first requests a key update.
    peer.send(ContentType::Handshake, &[24, 0, 0, 1, 1]);
    peer.send(ContentType::Handshake, &[24, 0, 0, 1, 1]);
    relay.until("nothing is kept", |event_loop| event_loop.buffers() == 0);
    drop(peer);
    relay.until_empty();
}
