//! Peers that violate TLS: each receives an alert, and none affects the loop.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;

use rendezvous_core::event::Event;
use rendezvous_core::machine::TlsFailure;
use rustls::ClientConnection;

use crate::bulk::bytes;
use crate::peer::{Kind, Peer, client_config, socket};
use crate::relay::Relay;

/// Content type 21.
const ALERT: u8 = 21;

/// A client's first flight.
fn client_hello(relay: &Relay) -> Vec<u8> {
    let config = Arc::new(client_config(Kind::Tls13, relay.roots()));
    let mut conn = ClientConnection::new(config, "localhost".try_into().unwrap()).unwrap();
    let mut wire = Vec::new();
    conn.write_tls(&mut wire).unwrap();
    wire
}

/// Receives everything until a clean end.
fn rest_of(mut sock: &TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    sock.read_to_end(&mut all).expect("no reset eats what was sent");
    all
}

fn until_failed(relay: &Relay, how: TlsFailure) {
    relay.until_noted("the failure is noted", move |_, events| {
        events.iter().any(|event| matches!(event, Event::TlsFailed { why, .. } if *why == how))
    });
}

#[test]
fn whoever_speaks_no_tls_gets_an_alert_and_the_loop_goes_on() {
    let relay = Relay::start();
    for garbage in [b"SSH-2.0-x\r\n".to_vec(), bytes(1, 100), vec![0; 10_000], vec![22; 5]] {
        let mut sock = socket(relay.address(Kind::Tls13));
        sock.write_all(&garbage).unwrap();
        sock.shutdown(Shutdown::Write).unwrap();
        assert_eq!(rest_of(&sock).first(), Some(&ALERT));
    }
    until_failed(&relay, TlsFailure::Protocol);
    relay.until_empty();
    relay.pair(Kind::Tls13, Kind::Tls12);
}

#[test]
fn no_reset_eats_the_alert_of_a_peer_that_goes_on_sending() {
    let relay = Relay::start();
    let mut sock = socket(relay.address(Kind::Tls13));
    sock.write_all(b"SSH-2.0-x\r\n").unwrap();
    until_failed(&relay, TlsFailure::Protocol);
    for _ in 0..50 {
        sock.write_all(&[b'g'; 100_000]).expect("what nobody wants is read nonetheless");
    }
    sock.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest_of(&sock).first(), Some(&ALERT));
    relay.until_empty();
}

#[test]
fn a_peer_that_offers_another_protocol_alone_gets_the_alert_for_it() {
    let relay = Relay::start();
    for kind in [Kind::Tls12, Kind::Tls13] {
        let mut config = client_config(kind, relay.roots());
        config.alpn_protocols = vec![b"h2".to_vec()];
        let mut conn = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
        let mut sock = socket(relay.address(kind));
        let error = loop {
            if let Err(error) = conn.complete_io(&mut sock) {
                break error.to_string();
            }
        };
        assert!(error.contains("NoApplicationProtocol"), "{error}");
    }
    until_failed(&relay, TlsFailure::Alpn);
    relay.until_empty();
}

#[test]
fn a_client_of_http_1_0_that_says_so_is_served() {
    let relay = Relay::start();
    for kind in [Kind::Tls12, Kind::Tls13] {
        let mut config = client_config(kind, relay.roots());
        config.alpn_protocols = vec![b"http/1.0".to_vec()];
        let mut conn = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
        let mut sock = socket(relay.address(kind));
        while conn.is_handshaking() {
            conn.complete_io(&mut sock).expect("a handshake");
        }
        assert_eq!(conn.alpn_protocol(), Some(&b"http/1.0"[..]));
    }
}

#[test]
fn plain_http_on_a_port_for_tls_is_redirected_or_told_so() {
    let relay = Relay::start();
    let get = "GET /a?b=c HTTP/1.1\r\nHost: relay.example:8443\r\n\r\n";
    let cases = [
        (
            get.to_owned(),
            "HTTP/1.1 308 Permanent Redirect\r\n",
            "\r\nLocation: https://relay.example:8443/a?b=c\r\n",
        ),
        (get.replace("GET", "HEAD"), "HTTP/1.1 308 ", "\r\nLocation: https://relay.example:8443/a?b=c\r\n"),
        (
            get.replace("relay.example", "[2001:db8::1]"),
            "HTTP/1.1 308 ",
            "\r\nLocation: https://[2001:db8::1]:8443/a?b=c\r\n",
        ),
        (get.replace("GET", "POST"), "HTTP/1.1 400 ", "plain HTTP on a port for HTTPS"),
        (get.replace("GET /a?b=c", "CONNECT uuid:x"), "HTTP/1.1 400 ", "plain HTTP on a port for HTTPS"),
        (get.replace("relay.example", "a'b"), "HTTP/1.1 400 ", "plain HTTP on a port for HTTPS"),
        (get.replace("relay.example:8443", ""), "HTTP/1.1 400 ", "plain HTTP on a port for HTTPS"),
        (get.replace("Host: relay.example:8443\r\n", ""), "HTTP/1.1 400 ", "plain HTTP on a port for HTTPS"),
        (get.replace("/a?b=c", "/a\"b"), "HTTP/1.1 400 ", "plain HTTP on a port for HTTPS"),
    ];
    for (request, status, text) in cases {
        for pieces in [vec![request.as_bytes()], request.as_bytes().chunks(1).collect()] {
            let mut sock = socket(relay.address(Kind::Tls13));
            for piece in pieces {
                sock.write_all(piece).unwrap();
            }
            let got = String::from_utf8(rest_of(&sock)).unwrap();
            assert!(got.starts_with(status) && got.contains(text), "{request}: {got}");
        }
    }
    until_failed(&relay, TlsFailure::PlainHttp);
    relay.until_empty();
}

#[test]
fn an_old_version_of_tls_is_told_from_other_faults() {
    let relay = Relay::start();
    // A ClientHello of TLS 1.0 with one cipher suite and no extensions.
    let mut hello = vec![22, 3, 1, 0, 45, 1, 0, 0, 41, 3, 1];
    hello.extend_from_slice(&[7; 32]);
    hello.extend_from_slice(&[0, 0, 2, 0, 47, 1, 0]);
    let mut sock = socket(relay.address(Kind::Tls13));
    sock.write_all(&hello).unwrap();
    assert_eq!(rest_of(&sock).first(), Some(&ALERT));
    until_failed(&relay, TlsFailure::Version);
    relay.until_empty();
}

#[test]
fn an_end_within_the_handshake_is_a_failure_wherever_it_comes() {
    let relay = Relay::start();
    let hello = client_hello(&relay);
    for len in [0, 1, 5, hello.len() / 2, hello.len()] {
        let mut sock = socket(relay.address(Kind::Tls13));
        sock.write_all(&hello[..len]).unwrap();
        sock.shutdown(Shutdown::Write).unwrap();
        let _ = rest_of(&sock);
    }
    until_failed(&relay, TlsFailure::Ended);
    relay.until_empty();
}

#[test]
fn close_notify_within_the_handshake_is_no_end_in_order() {
    let relay = Relay::start();
    // An unencrypted warning alert: close_notify.
    let close_notify = [ALERT, 3, 3, 0, 2, 1, 0];
    for first in [Vec::new(), client_hello(&relay)] {
        let mut sock = socket(relay.address(Kind::Tls13));
        sock.write_all(&[&first[..], &close_notify].concat()).unwrap();
        sock.shutdown(Shutdown::Write).unwrap();
        let _ = rest_of(&sock);
    }
    relay.until_noted("both failed", |_, events| {
        events.iter().filter(|event| matches!(event, Event::TlsFailed { .. })).count() == 2
    });
    relay.until_empty();
}

#[test]
fn a_handshake_message_without_end_is_refused_early() {
    let relay = Relay::start();
    let mut sock = socket(relay.address(Kind::Tls13));
    // Most of a ClientHello whose header announces 60,000 bytes, in records of 100.
    let mut bytes = vec![1, 0, 0xea, 0x60];
    bytes.resize(50_000, 0);
    let records = bytes.chunks(100).flat_map(|piece| {
        let len = u8::try_from(piece.len()).unwrap();
        [&[22, 3, 1, 0, len], piece].concat()
    });
    sock.write_all(&records.collect::<Vec<u8>>()).expect("what nobody wants is read nonetheless");
    until_failed(&relay, TlsFailure::TooLong);
    sock.shutdown(Shutdown::Write).unwrap();
    let _ = rest_of(&sock);
    relay.until_empty();
}

#[test]
fn garbage_within_a_stream_ends_its_pair_in_disorder() {
    let relay = Relay::start();
    for kind in [Kind::Tls12, Kind::Tls13] {
        let (hidden, client) = relay.pair(Kind::Clear, kind);
        client.send(b"before");
        assert_eq!(hidden.recv_exactly(6), b"before");
        let _ = client.sock().write_all(&[23, 3, 3, 0, 40]);
        let _ = client.sock().write_all(&bytes(2, 100_000));
        assert_eq!(hidden.recv_all(), (Vec::new(), crate::peer::Ending::Reset));
        drop(client);
    }
    relay.until_empty();
}

/// Whether the relay's last record is an alert; in TLS 1.3 and 1.2 it is sealed.
fn has_alert_at_the_end(kind: Kind, wire: &[u8]) -> bool {
    let mut rest = wire;
    let mut last: &[u8] = &[];
    while let Some((header, body)) = rest.split_first_chunk::<5>() {
        let len = usize::from(u16::from_be_bytes([header[3], header[4]]));
        (last, rest) = rest.split_at(5 + len.min(body.len()));
    }
    match kind {
        Kind::Clear => false,
        Kind::Tls12 => last.first() == Some(&ALERT),
        // Two bytes, their type, and the tag.
        Kind::Tls13 => last.starts_with(&[23, 3, 3, 0, 2 + 1 + 16]),
    }
}

/// Brings a connection into a state; also returns the other half of its pair.
type State = fn(&Relay, Kind) -> (Peer, Option<Peer>);

#[test]
fn no_reset_eats_the_alert_of_a_violation_after_the_handshake() {
    let states: [(&str, State); 6] = [
        ("nothing sent", |relay, kind| (relay.connect(kind), None)),
        ("half a head", |relay, kind| {
            let peer = relay.connect(kind);
            peer.send(b"GET / HTTP/1.1\r\n");
            (peer, None)
        }),
        ("half a body", |relay, kind| {
            let peer = relay.connect(kind);
            peer.send(b"POST / HTTP/1.1\r\nHost: relay\r\nContent-Length: 1000\r\n\r\nbody");
            peer.recv().expect("a challenge");
            (peer, None)
        }),
        ("waiting", |relay, kind| (relay.hidden(kind), None)),
        ("client of a pair", |relay, kind| {
            let (hidden, client) = relay.pair(kind, kind);
            (client, Some(hidden))
        }),
        ("hidden server of a pair", |relay, kind| {
            let (hidden, client) = relay.pair(kind, kind);
            (hidden, Some(client))
        }),
    ];
    let relay = Relay::start();
    for kind in [Kind::Tls12, Kind::Tls13] {
        for (state, make) in states {
            let (peer, _mate) = make(&relay, kind);
            let mut sock = peer.sock();
            // A forged record, and a peer that continues sending.
            let mut record = vec![23, 3, 3, 0, 40];
            record.extend_from_slice(&bytes(2, 40));
            sock.write_all(&record).expect("it is open");
            for _ in 0..10 {
                let sent = sock.write_all(&[b'g'; 100_000]);
                assert!(sent.is_ok(), "{kind:?}, {state}: what nobody wants is read nonetheless");
            }
            sock.shutdown(Shutdown::Write).expect("it is open");
            let mut wire = Vec::new();
            let ended = sock.read_to_end(&mut wire);
            assert!(
                ended.is_ok() && has_alert_at_the_end(kind, &wire),
                "{kind:?}, {state}: {ended:?} {wire:?}"
            );
        }
    }
    relay.until_empty();
}
