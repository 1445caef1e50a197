//! Two sessions of this program with each other, in memory. The event loop's tests have other peers.

use std::sync::Arc;

use rendezvous_core::machine::TlsFailure;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ContentType, RootCertStore, ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use super::layer::Side;
use super::{RECORD_MAX, ROOM_MIN, Take, TlsSession, record_size, sealable};
use crate::buffer::Buffer;
use crate::tls_config::{provider, server_config};

const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS12, &rustls::version::TLS13];

/// One side, with the bytes on their way to it.
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

    /// Opens the received bytes; output goes to `out`.
    fn open(&mut self, out: &mut Buffer) -> Result<(), super::TlsError> {
        let opened = self.tls.open(&mut self.wire, out, &mut Taker(&mut self.got))?;
        self.wire.drain(..opened.consumed);
        self.ended |= opened.ended;
        Ok(())
    }

    fn records(&mut self) -> &mut super::records::Records {
        match &mut self.tls.layer.side {
            Side::Records(records) => records,
            _ => panic!("the records are not ours"),
        }
    }
}

fn configs(version: &'static SupportedProtocolVersion) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    configs_with_chain(version, 1)
}

/// Configurations in which the server sends its certificate this many times.
fn configs_with_chain(
    version: &'static SupportedProtocolVersion,
    certificates: usize,
) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
    let made = rcgen::generate_simple_self_signed(["relay".to_owned()]).expect("a certificate");
    let server = server_with(vec![made.cert.der().clone(); certificates], &made.signing_key);
    (server, client_that_trusts(made.cert.der(), version))
}

fn server_with(chain: Vec<CertificateDer<'static>>, key: &rcgen::KeyPair) -> Arc<ServerConfig> {
    let secret = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let signing = provider().key_provider.load_private_key(secret).expect("a key of a known kind");
    server_config(Arc::new(CertifiedKey::new(chain, signing)), &provider()).expect("a server's configuration")
}

fn client_that_trusts(
    root: &CertificateDer<'static>,
    version: &'static SupportedProtocolVersion,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).expect("a root");
    let mut client = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[version])
        .expect("a version that the provider has")
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.enable_secret_extraction = true;
    Arc::new(client)
}

/// Both ends after the handshake: server, client.
fn secured(version: &'static SupportedProtocolVersion) -> (End, End) {
    let (server, client) = configs(version);
    let name = ServerName::try_from("relay").expect("a name");
    let (server, client) = shake_hands(server, client, name).expect("a handshake");
    assert!(client.tls.peer_certificate().is_some());
    (server, client)
}

/// Both ends after the handshake, or the error at one of them.
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

#[test]
fn a_certificate_chain_that_is_too_long_is_named_as_the_reason() {
    for version in VERSIONS {
        let (server, client) = configs_with_chain(version, 1_000);
        let name = ServerName::try_from("relay").expect("a name");
        let refused = shake_hands(server, client, name).err().map(|error| error.failure());
        assert_eq!(refused, Some(TlsFailure::TooLong), "{version:?}");
    }
}

#[test]
fn each_fault_of_a_certificate_is_a_reason_of_its_own() {
    type Change = fn(&mut rcgen::CertificateParams);
    let cases: [(Change, &'static str, bool, TlsFailure); 4] = [
        (|it| it.not_after = rcgen::date_time_ymd(2011, 1, 1), "relay", true, TlsFailure::CertificateExpired),
        (
            |it| it.not_before = rcgen::date_time_ymd(2900, 1, 1),
            "relay",
            true,
            TlsFailure::CertificateNotYetValid,
        ),
        (|_| {}, "elsewhere.example", true, TlsFailure::CertificateName),
        (
            |it| it.distinguished_name.push(rcgen::DnType::CommonName, "not in the roots"),
            "relay",
            false,
            TlsFailure::CertificateIssuer,
        ),
    ];
    for (change, name, is_trusted, wanted) in cases {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(["relay".to_owned()]).expect("a name");
        change(&mut params);
        let made = params.self_signed(&key).expect("a certificate");
        let server = server_with(vec![made.der().clone()], &key);
        let other = rcgen::generate_simple_self_signed(["other".to_owned()]).expect("a certificate");
        let root = if is_trusted { made.der() } else { other.cert.der() };
        let client = client_that_trusts(root, &rustls::version::TLS13);
        let name = ServerName::try_from(name).expect("a name");
        let refused = shake_hands(server, client, name).err().map(|error| error.failure());
        assert_eq!(refused, Some(wanted));
    }
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
fn bytes_of_any_number_arrive_in_both_directions() {
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
    assert!(matches!((server.tls.layer.side, client.tls.layer.side), (Side::Records(_), Side::Records(_))));
    let (server, client) = secured(&rustls::version::TLS12);
    assert!(matches!((server.tls.layer.side, client.tls.layer.side), (Side::Server(_), Side::Client(_))));
}

#[test]
fn records_that_are_cut_anywhere_wait_for_their_rest() {
    let (mut server, mut client) = secured(&rustls::version::TLS13);
    let mut out = Buffer::with_room(ROOM_MIN);
    client.tls.seal(b"first", &mut out).expect("sealed");
    client.tls.seal(b"second", &mut out).expect("sealed");
    for byte in out.filled() {
        server.wire.push(*byte);
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
        // Messages are fragmented over records, and records at any offset.
        client.max_fragment_size = Some(32);
        let name = ServerName::try_from("relay").expect("a name");
        let client = End::new(TlsSession::client(Arc::new(client), name).expect("a session"));
        let mut ends = [client, End::new(TlsSession::server(server).expect("a session"))];
        let mut out = Buffer::with_room(0);
        ends[0].open(&mut out).expect("a first flight");
        let mut to = 1;
        while !out.is_empty() {
            let mut answer = Buffer::with_room(0);
            for byte in out.filled() {
                ends[to].wire.push(*byte);
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
        server.records().seal_fragmented(&ticket, of, &mut out).expect("sealed");
        client.wire.extend_from_slice(out.filled());
        send(&mut server, &mut client, b"behind a ticket");

        let mut out = Buffer::with_room(ROOM_MIN);
        server.records().seal_fragmented(&ticket[..of], of, &mut out).expect("sealed");
        server.tls.seal(b"in between", &mut out).expect("sealed");
        client.wire.extend_from_slice(out.filled());
        assert!(client.open(&mut Buffer::with_room(ROOM_MIN)).is_err(), "{of}");
    }
    // A server does not keep messages that it refuses.
    let (mut server, mut client) = secured(&rustls::version::TLS13);
    let mut out = Buffer::with_room(ROOM_MIN);
    client.records().seal_fragmented(&ticket[..4], 4, &mut out).expect("sealed");
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
        // The other direction continues.
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

/// The type and content of a record.
type Sent<'a> = (ContentType, &'a [u8]);

/// Sends records to `to`. Returns the alert in response, as the error that `from` reports.
fn alert_for(from: &mut End, to: &mut End, records: &[Sent<'_>]) -> Option<String> {
    let mut out = Buffer::with_room(ROOM_MIN);
    for (typ, content) in records {
        from.records().seal_as(*typ, content, &mut out).expect("sealed");
    }
    to.wire.extend_from_slice(out.filled());
    let mut answer = Buffer::with_room(ROOM_MIN);
    let opened = to.open(&mut answer);
    assert_eq!(opened.is_err(), !answer.is_empty(), "an error is answered, and nothing else: {opened:?}");
    opened.err()?;
    from.wire.extend_from_slice(answer.filled());
    let error = from.open(&mut Buffer::with_room(ROOM_MIN)).expect_err("an alert");
    Some(error.to_string())
}

#[test]
fn each_violation_after_the_handshake_gets_its_own_alert() {
    use ContentType::{Alert, ApplicationData, ChangeCipherSpec, Handshake};
    const NO_DATA: Sent<'_> = (ApplicationData, b"");
    const UPDATE: Sent<'_> = (Handshake, &[24, 0, 0, 1, 0]);
    const CANCELED: Sent<'_> = (Alert, &[1, 90]);
    let cases: &[(&str, &str, &[Sent<'_>])] = &[
        ("KeyUpdate of value 2 (RFC 8446 §4.6.3)", "IllegalParameter", &[(Handshake, &[24, 0, 0, 1, 2])]),
        ("KeyUpdate of value 255", "IllegalParameter", &[(Handshake, &[24, 0, 0, 1, 255])]),
        ("KeyUpdate of value 2, and more", "IllegalParameter", &[(Handshake, &[24, 0, 0, 1, 2, 24])]),
        ("empty KeyUpdate", "DecodeError", &[(Handshake, &[24, 0, 0, 0])]),
        ("long KeyUpdate", "DecodeError", &[(Handshake, &[24, 0, 0, 2, 0, 0])]),
        ("something behind KeyUpdate (§5.1)", "UnexpectedMessage", &[(Handshake, &[24, 0, 0, 1, 0, 24])]),
        (
            "data in a cut message (§5.1)",
            "UnexpectedMessage",
            &[(Handshake, &[24, 0]), (ApplicationData, b"x")],
        ),
        ("ClientHello (§4.6)", "UnexpectedMessage", &[(Handshake, &[1, 0, 0, 0])]),
        ("Finished", "UnexpectedMessage", &[(Handshake, &[20, 0, 0, 32])]),
        ("empty handshake record (§5.4)", "UnexpectedMessage", &[(Handshake, b"")]),
        ("empty alert record (§5.4)", "UnexpectedMessage", &[(Alert, b"")]),
        ("half an alert (§6.2)", "DecodeError", &[(Alert, &[2])]),
        ("two alerts in one record (§5.1)", "DecodeError", &[(Alert, &[1, 90, 1, 0])]),
        ("ChangeCipherSpec (§5)", "UnexpectedMessage", &[(ChangeCipherSpec, &[1])]),
        ("unknown type (§5)", "UnexpectedMessage", &[(ContentType::Heartbeat, b"x")]),
        ("no type at all (§5.4)", "UnexpectedMessage", &[(ContentType::Unknown(0), b"")]),
        ("33 empty records", "UnexpectedMessage", &[NO_DATA; 33]),
        ("33 updates of keys", "UnexpectedMessage", &[UPDATE; 33]),
        ("5 warnings", "UnexpectedMessage", &[CANCELED; 5]),
    ];
    for (what, alert, records) in cases {
        let (mut server, mut client) = secured(&rustls::version::TLS13);
        let updates = records.iter().filter(|record| **record == UPDATE).count();
        let got = if updates > 0 {
            updates_of_keys(&mut client, &mut server, updates)
        } else {
            alert_for(&mut client, &mut server, records)
        };
        let got = got.unwrap_or_else(|| panic!("{what} is accepted"));
        assert!(got.contains(alert), "{what}: {got}");
        assert!(server.tls.seal(b"x", &mut Buffer::with_room(ROOM_MIN)).is_err(), "{what}: nothing follows");
    }
}

/// Sends key updates without data. Returns the alert in response.
fn updates_of_keys(from: &mut End, to: &mut End, updates: usize) -> Option<String> {
    let mut out = Buffer::with_room(ROOM_MIN);
    for _ in 0..updates {
        from.records().ask_for_keys(&mut out).expect("sealed");
    }
    to.wire.extend_from_slice(out.filled());
    let mut answer = Buffer::with_room(ROOM_MIN);
    to.open(&mut answer).err()?;
    from.wire.extend_from_slice(answer.filled());
    let error = from.open(&mut Buffer::with_room(ROOM_MIN)).expect_err("an alert");
    Some(error.to_string())
}

#[test]
fn a_peer_that_ends_with_an_alert_of_its_own_gets_none() {
    for description in [10, 47, 50, 80, 110, 255] {
        for level in [1, 2] {
            let (mut server, mut client) = secured(&rustls::version::TLS13);
            let mut out = Buffer::with_room(ROOM_MIN);
            let alert = [level, description];
            client.records().seal_as(ContentType::Alert, &alert, &mut out).expect("sealed");
            server.wire.extend_from_slice(out.filled());
            let mut answer = Buffer::with_room(ROOM_MIN);
            server.open(&mut answer).expect_err("every other alert is an error (RFC 8446 §6)");
            assert!(answer.is_empty());
        }
    }
}

#[test]
fn records_without_data_are_fine_as_long_as_data_comes_between_them() {
    let (mut server, mut client) = secured(&rustls::version::TLS13);
    for _ in 0..10 {
        let idle = [(ContentType::ApplicationData, &b""[..]); 28];
        let warnings = [(ContentType::Alert, &[1, 90][..]); 4];
        assert_eq!(alert_for(&mut client, &mut server, &[&idle[..], &warnings].concat()), None);
        assert_eq!(updates_of_keys(&mut client, &mut server, 4), None);
        send(&mut client, &mut server, b"data");
        send(&mut server, &mut client, b"data");
    }
}

#[test]
fn tickets_without_end_are_refused() {
    let ticket: &[u8] = &[4, 0, 0, 1, 0];
    let (mut server, mut client) = secured(&rustls::version::TLS13);
    assert_eq!(alert_for(&mut server, &mut client, &[(ContentType::Handshake, ticket); 28]), None);
    let error = alert_for(&mut server, &mut client, &[(ContentType::Handshake, ticket); 33]);
    assert!(error.is_some_and(|error| error.contains("UnexpectedMessage")));
}

/// Both ends after a second handshake inside of the first, with these versions: server, client.
fn nested(outer: &'static SupportedProtocolVersion, inner: &'static SupportedProtocolVersion) -> (End, End) {
    let (mut server, mut client) = secured(outer);
    let (server_config, client_config) = configs(inner);
    let name = ServerName::try_from("relay").expect("a name");
    let of_client = TlsSession::client(client_config, name).expect("a session");
    let of_server = TlsSession::server(server_config).expect("a session");
    client.tls.begin_inner(of_client, Vec::new()).expect("it can begin");
    server.tls.begin_inner(of_server, Vec::new()).expect("it can begin");
    assert!(!client.tls.is_secured() && !server.tls.is_secured());
    for _ in 0..4 {
        for from_client in [true, false] {
            let mut out = Buffer::with_room(0);
            let (this, other) =
                if from_client { (&mut client, &mut server) } else { (&mut server, &mut client) };
            this.open(&mut out).expect("a handshake");
            other.wire.extend_from_slice(out.filled());
        }
    }
    assert!(client.tls.is_secured() && server.tls.is_secured());
    assert!(client.tls.peer_certificate().is_some());
    (server, client)
}

#[test]
fn bytes_arrive_through_two_layers_in_whatever_pieces() {
    let many: Vec<u8> = (0..100_000_u32).map(|it| it.to_le_bytes()[0]).collect();
    for outer in VERSIONS {
        for inner in VERSIONS {
            let (mut server, mut client) = nested(outer, inner);
            for len in [1, 2, 1_319, 1_320, 1_321, 1_360, 16_344, 16_384, 16_385, 100_000] {
                send(&mut server, &mut client, &many[..len]);
                send(&mut client, &mut server, &many[..len]);
            }
        }
    }
    let (mut server, mut client) = nested(&rustls::version::TLS13, &rustls::version::TLS13);
    let mut out = Buffer::with_room(8 * ROOM_MIN);
    assert_eq!(client.tls.seal(&many[..50_000], &mut out).expect("it can be sealed"), 50_000);
    for piece in out.filled().chunks(997) {
        server.wire.extend_from_slice(piece);
        server.open(&mut Buffer::with_room(0)).expect("it can be opened");
    }
    assert_eq!(server.got, many[..50_000]);
}

#[test]
fn one_record_of_any_size_fits_into_the_room_for_one_sealed_twice() {
    let (mut server, mut client) = nested(&rustls::version::TLS13, &rustls::version::TLS13);
    let plain = vec![7; RECORD_MAX];
    for _ in 0..40 {
        let mut out = Buffer::with_room(ROOM_MIN);
        assert_eq!(server.tls.seal(&plain, &mut out).expect("it can be sealed"), RECORD_MAX);
        assert!(out.filled().len() <= ROOM_MIN, "{}", out.filled().len());
        client.wire.extend_from_slice(out.filled());
        client.open(&mut Buffer::with_room(0)).expect("it can be opened");
    }
    assert_eq!(client.got.len(), 40 * RECORD_MAX);
}

#[test]
fn the_end_of_the_inner_layer_is_the_end_and_that_of_the_outer_one_alone_is_a_cut() {
    let (mut server, mut client) = nested(&rustls::version::TLS13, &rustls::version::TLS13);
    let mut out = Buffer::with_room(ROOM_MIN);
    server.tls.seal_end(&mut out);
    client.wire.extend_from_slice(out.filled());
    client.open(&mut Buffer::with_room(0)).expect("it can be opened");
    assert!(client.ended);

    let (mut server, mut client) = nested(&rustls::version::TLS13, &rustls::version::TLS13);
    let mut out = Buffer::with_room(ROOM_MIN);
    server.tls.seal(b"part", &mut out).expect("it can be sealed");
    server.tls.layer.seal_end(&mut out);
    client.wire.extend_from_slice(out.filled());
    let opened = client.tls.open(&mut client.wire, &mut Buffer::with_room(0), &mut Taker(&mut client.got));
    let opened = opened.expect("it can be opened");
    assert!(opened.cut && !opened.ended, "{opened:?}");
    assert_eq!(client.got, b"part");
}

#[test]
fn an_inner_layer_that_is_broken_sends_its_alert_through_the_outer_one() {
    let (mut server, mut client) = nested(&rustls::version::TLS13, &rustls::version::TLS13);
    let mut out = Buffer::with_room(ROOM_MIN);
    client
        .tls
        .layer
        .seal(b"\x17\x03\x03\x00\x20 this is no record of the inner layer", &mut out)
        .expect("sealed");
    server.wire.extend_from_slice(out.filled());
    let mut answer = Buffer::with_room(0);
    assert!(server.open(&mut answer).is_err());
    assert!(!answer.is_empty(), "an alert");
    client.wire.extend_from_slice(answer.filled());
    assert!(client.open(&mut Buffer::with_room(0)).is_err(), "the client gets it");
    assert!(server.tls.seal(b"more", &mut Buffer::with_room(ROOM_MIN)).is_err());
}
