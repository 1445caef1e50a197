//! Two sessions of ours against each other, in memory; other peers are met in the tests of the event loop.

use std::sync::Arc;

use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::{PrivateKeyDer, ServerName};

use super::{RECORD_MAX, ROOM_MIN, Side, Take, TlsSession, record_size, sealable};
use crate::buffer::Buffer;
use crate::tls_config::{provider, server_config};

const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

/// One side with what is on its way to it.
pub(super) struct End {
    pub(super) tls: TlsSession,
    wire: Vec<u8>,
    got: Vec<u8>,
    ended: bool,
}

struct Taker<'a>(&'a mut Vec<u8>);

impl Take for Taker<'_> {
    fn has_room(&self) -> bool {
        true
    }

    fn take(&mut self, plain: &[u8]) {
        self.0.extend_from_slice(plain);
    }
}

impl End {
    fn new(tls: TlsSession) -> Self {
        Self { tls, wire: Vec::new(), got: Vec::new(), ended: false }
    }

    /// Opens what is there; what is to be said goes into `out`.
    fn open(&mut self, out: &mut Buffer) -> Result<(), super::TlsError> {
        let opened = self.tls.open(&mut self.wire, out, &mut Taker(&mut self.got))?;
        self.wire.drain(..opened.consumed);
        self.ended |= opened.ended;
        Ok(())
    }

    fn records(&mut self) -> &mut super::records::Records {
        match &mut self.tls.side {
            Side::Records(records) => records,
            _ => panic!("the records are not ours"),
        }
    }
}

fn configs(version: &'static SupportedProtocolVersion) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let made = rcgen::generate_simple_self_signed(["relay".to_owned()]).expect("a certificate");
    let secret = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let signing = provider().key_provider.load_private_key(secret).expect("a key of a known kind");
    let certified = Arc::new(CertifiedKey::new(vec![made.cert.der().clone()], signing));
    let server = server_config(certified, &provider()).expect("a server's configuration");
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).expect("a root");
    let mut client = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[version])
        .expect("a version that the provider has")
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.enable_secret_extraction = true;
    (server, Arc::new(client))
}

/// Both ends after the handshake: server, client.
fn secured(version: &'static SupportedProtocolVersion) -> (End, End) {
    let (server, client) = configs(version);
    let name = ServerName::try_from("relay").expect("a name");
    let (server, client) = shake_hands(server, client, name).expect("a handshake");
    assert!(client.tls.peer_certificate().is_some());
    (server, client)
}

/// Both ends after the handshake, or what went wrong with it at one of them.
pub(super) fn shake_hands(
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    name: ServerName<'static>,
) -> Result<(End, End), super::TlsError> {
    let client = End::new(TlsSession::client(client, name).expect("a session"));
    let mut ends = [client, End::new(TlsSession::server(server).expect("a session"))];
    for _ in 0..4 {
        for (this, other) in [(0, 1), (1, 0)] {
            let mut out = Buffer::with_room(0);
            ends[this].open(&mut out)?;
            ends[other].wire.extend_from_slice(out.filled());
        }
    }
    let [client, server] = ends;
    assert!(server.tls.is_secured() && client.tls.is_secured());
    Ok((server, client))
}

/// Seals at one end and opens at the other.
fn send(from: &mut End, to: &mut End, plain: &[u8]) {
    let mut out = Buffer::with_room(plain.len() / RECORD_MAX * ROOM_MIN + 2 * ROOM_MIN);
    let sealed = from.tls.seal(plain, &mut out).expect("it can be sealed");
    assert_eq!(sealed, plain.len(), "there is room");
    to.wire.extend_from_slice(out.filled());
    let mut answer = Buffer::with_room(0);
    to.open(&mut answer).expect("it can be opened");
    assert!(answer.is_empty(), "nothing is said without need");
    assert_eq!(std::mem::take(&mut to.got), plain);
}

#[test]
fn octets_of_any_number_arrive_in_both_directions() {
    let many: Vec<u8> = (0..100_000_u32).map(|it| it.to_le_bytes()[0]).collect();
    for version in VERSIONS {
        let (mut server, mut client) = secured(version);
        for len in [1, 2, 1_360, 1_361, 16_384, 16_385, 100_000] {
            send(&mut server, &mut client, &many[..len]);
            send(&mut client, &mut server, &many[..len]);
        }
    }
}

#[test]
fn the_records_of_the_newer_version_are_ours_after_the_handshake() {
    let (server, client) = secured(&rustls::version::TLS13);
    assert!(matches!((server.tls.side, client.tls.side), (Side::Records(_), Side::Records(_))));
    let (server, client) = secured(&rustls::version::TLS12);
    assert!(matches!((server.tls.side, client.tls.side), (Side::Server(_), Side::Client(_))));
}

#[test]
fn records_that_are_cut_anywhere_wait_for_their_rest() {
    let (mut server, mut client) = secured(&rustls::version::TLS13);
    let mut out = Buffer::with_room(ROOM_MIN);
    client.tls.seal(b"first", &mut out).expect("sealed");
    client.tls.seal(b"second", &mut out).expect("sealed");
    for octet in out.filled() {
        server.wire.push(*octet);
        server.open(&mut Buffer::with_room(0)).expect("a beginning");
    }
    assert_eq!(server.got, b"firstsecond");
}

#[test]
fn worn_out_keys_are_replaced_again_and_again() {
    let (mut server, mut client) = secured(&rustls::version::TLS13);
    for round in 0..100_u8 {
        server.records().wear_out_after(3);
        client.records().wear_out_after(7);
        send(&mut server, &mut client, &[round; 100]);
        send(&mut client, &mut server, &[round; 10_000]);
    }
}

#[test]
fn a_handshake_in_pieces_is_one() {
    for version in VERSIONS {
        let (server, client) = configs(version);
        let mut client = ClientConfig::clone(&client);
        // Messages are cut over records, and records wherever it is.
        client.max_fragment_size = Some(32);
        let name = ServerName::try_from("relay").expect("a name");
        let client = End::new(TlsSession::client(Arc::new(client), name).expect("a session"));
        let mut ends = [client, End::new(TlsSession::server(server).expect("a session"))];
        let mut out = Buffer::with_room(0);
        ends[0].open(&mut out).expect("a first flight");
        let mut to = 1;
        while !out.is_empty() {
            let mut answer = Buffer::with_room(0);
            for octet in out.filled() {
                ends[to].wire.push(*octet);
                ends[to].open(&mut answer).expect("a beginning");
            }
            assert!(ends[to].wire.is_empty());
            (out, to) = (answer, 1 - to);
        }
        let [mut client, mut server] = ends;
        send(&mut client, &mut server, b"to the server");
        send(&mut server, &mut client, b"to the client");
    }
}

#[test]
fn keys_that_are_asked_for_come_before_the_next_data() {
    let (mut server, mut client) = secured(&rustls::version::TLS13);
    let mut out = Buffer::with_room(ROOM_MIN);
    client.records().ask_for_keys(&mut out).expect("sealed");
    client.records().ask_for_keys(&mut out).expect("sealed");
    server.wire.extend_from_slice(out.filled());
    send(&mut client, &mut server, b"asked twice");
    for _ in 0..2 {
        send(&mut server, &mut client, b"with new keys");
    }
}

#[test]
fn a_message_after_the_handshake_may_be_in_pieces_with_nothing_in_between() {
    let ticket = [&[4, 0, 0, 40][..], &[7; 40]].concat();
    for of in [1, 3, 4, 5, 43] {
        let (mut server, mut client) = secured(&rustls::version::TLS13);
        let mut out = Buffer::with_room(ROOM_MIN);
        server.records().say_in_pieces(&ticket, of, &mut out).expect("sealed");
        client.wire.extend_from_slice(out.filled());
        send(&mut server, &mut client, b"behind a ticket");

        let mut out = Buffer::with_room(ROOM_MIN);
        server.records().say_in_pieces(&ticket[..of], of, &mut out).expect("sealed");
        server.tls.seal(b"in between", &mut out).expect("sealed");
        client.wire.extend_from_slice(out.filled());
        assert!(client.open(&mut Buffer::with_room(ROOM_MIN)).is_err(), "{of}");
    }
    // What a server does not take it does not keep.
    let (mut server, mut client) = secured(&rustls::version::TLS13);
    let mut out = Buffer::with_room(ROOM_MIN);
    client.records().say_in_pieces(&ticket[..4], 4, &mut out).expect("sealed");
    server.wire.extend_from_slice(out.filled());
    assert!(server.open(&mut Buffer::with_room(ROOM_MIN)).is_err());
}

#[test]
fn what_comes_with_the_last_of_the_handshake_is_ours() {
    let (server, client) = configs(&rustls::version::TLS13);
    let name = ServerName::try_from("relay").expect("a name");
    let mut client = End::new(TlsSession::client(client, name).expect("a session"));
    let mut server = End::new(TlsSession::server(server).expect("a session"));
    let mut out = Buffer::with_room(0);
    client.open(&mut out).expect("a first flight");
    server.wire.extend_from_slice(out.filled());
    out = Buffer::with_room(0);
    server.open(&mut out).expect("an answer");
    client.wire.extend_from_slice(out.filled());
    out = Buffer::with_room(ROOM_MIN);
    client.open(&mut out).expect("a last flight");
    client.records().ask_for_keys(&mut out).expect("sealed");
    client.tls.seal(b"at once", &mut out).expect("sealed");
    server.wire.extend_from_slice(out.filled());
    out = Buffer::with_room(ROOM_MIN);
    server.open(&mut out).expect("all of it");
    assert!(server.tls.is_secured());
    assert_eq!((&server.got[..], server.wire.len()), (&b"at once"[..], 0));
    client.wire.extend_from_slice(out.filled());
    server.got.clear();
    send(&mut server, &mut client, b"with new keys");
    send(&mut client, &mut server, b"with those of before");
}

#[test]
fn the_end_is_heard_once_and_nothing_behind_it() {
    for version in VERSIONS {
        let (mut server, mut client) = secured(version);
        let mut out = Buffer::with_room(ROOM_MIN);
        client.tls.seal(b"last words", &mut out).expect("sealed");
        client.tls.seal_end(&mut out);
        client.tls.seal_end(&mut out);
        server.wire.extend_from_slice(out.filled());
        server.wire.extend_from_slice(b"\x17\x03\x03\0\x20 and what nobody sealed");
        server.open(&mut Buffer::with_room(0)).expect("an end");
        assert_eq!((&server.got[..], server.ended, server.wire.len()), (&b"last words"[..], true, 0));
        // The other direction goes on.
        send(&mut server, &mut client, b"still here");
    }
}

#[test]
fn what_was_tampered_with_ends_the_connection_and_says_so() {
    for version in VERSIONS {
        for flipped in [5, 20, 30] {
            let (mut server, mut client) = secured(version);
            let mut out = Buffer::with_room(ROOM_MIN);
            client.tls.seal(b"twenty octets of text", &mut out).expect("sealed");
            server.wire.extend_from_slice(out.filled());
            server.wire[flipped] ^= 1;
            let mut answer = Buffer::with_room(0);
            server.open(&mut answer).expect_err("not what was sealed");
            assert!(server.got.is_empty());
            client.wire.extend_from_slice(answer.filled());
            let error = client.open(&mut Buffer::with_room(0)).expect_err("an alert");
            assert!(error.to_string().contains("BadRecordMac"), "{error}");
            assert!(server.tls.seal(b"x", &mut out).is_err(), "and nothing more is sealed");
        }
    }
}

#[test]
fn records_that_cannot_be_are_refused_before_they_are_whole() {
    for (header, what) in [
        (*b"\x17\x03\x03\x41\x01", "too large"),
        (*b"\x14\x03\x03\0\x01", "in clear"),
        (*b"\x15\x03\x03\0\x02", "an alert in clear"),
        (*b"GET /", "HTTP"),
    ] {
        let (mut server, _) = secured(&rustls::version::TLS13);
        server.wire.extend_from_slice(&header);
        let mut answer = Buffer::with_room(0);
        server.open(&mut answer).expect_err(what);
        assert!(!answer.is_empty(), "{what}: the peer hears of it");
    }
}

#[test]
fn what_is_said_to_fit_fits() {
    for room in (0..3 * ROOM_MIN).step_by(7) {
        let mut rest = sealable(room);
        let (mut sealed, mut wire) = (0, 0);
        while rest > 0 {
            let record = rest.min(record_size(sealed));
            (rest, sealed, wire) = (rest - record, sealed + record, wire + record + super::OVERHEAD_MAX);
        }
        assert!(wire <= room, "{room}");
    }
    assert!(sealable(ROOM_MIN) >= RECORD_MAX);
}
