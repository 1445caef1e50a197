//! Heads are forwarded byte for byte, without `Authorization`; everything after them is unchanged.

use std::io::{Read, Write as _};
use std::net::TcpStream;
use std::thread;

use sha2::{Digest as _, Sha256};

use crate::harness::{Case, case};
use crate::hidden::{Raw, hex, noise, sha256};
use crate::wire::{Answer, Below};
use crate::world::{World, basic};

pub(crate) const CASES: &[Case] = &[
    case("the_head_is_forwarded_byte_for_byte", &[], the_head_is_forwarded_byte_for_byte),
    case("bytes_are_forwarded_however_they_are_cut", &[], bytes_are_forwarded_however_they_are_cut),
    case("later_requests_keep_their_authorization", &[], later_requests_keep_their_authorization),
    case(
        "an_upgrade_with_the_id_in_its_target_is_untouched",
        &[],
        an_upgrade_with_the_id_in_its_target_is_untouched,
    ),
    case("100_mb_each_way_tls_to_tls", &[], || each_way(Below::Tls13, Below::Tls13)),
    case("100_mb_each_way_tls_to_clear", &[], || each_way(Below::Tls13, Below::Clear)),
    case("100_mb_each_way_clear_to_tls", &[], || each_way(Below::Clear, Below::Tls13)),
    case("100_mb_each_way_clear_to_clear", &[], || each_way(Below::Clear, Below::Clear)),
];

/// Case, order, spaces and repetitions that a parser might normalise.
fn odd_head(authorization: &str) -> String {
    format!(
        "PATCH /a/../b?x=%7e&&y HTTP/1.1\r\nhOsT:  relay:1\r\nX-b:2\r\nx-a:\t1 \r\nX-B: 3\r\nEmpty:\r\n{authorization}\
         Cookie: a=1\r\nCOOKIE: b=2\r\nX-High: caf\u{e9}\r\nContent-Length: 7\r\n\r\n"
    )
}

fn the_head_is_forwarded_byte_for_byte() {
    let service = Raw::start();
    let (_world, relay, home, _agent) = World::with_service(service.address);
    let id = &home.id;
    for authorization in [
        basic(id),
        basic(id).replace("Authorization: Basic", "AUTHORIZATION:bAsIc"),
        format!(
            "Authorization: Digest username=\"{id}\", realm=\"rendezvous\", nonce=\"x\", uri=\"/b\", response=\"y\"\r\n"
        ),
        format!("authorization:   Digest uri=\"/b,username=1\", username={id} , qop=auth\t\r\n"),
        format!("Authorization: Digest username*=UTF-8''{id}, realm=\"rendezvous\"\r\n"),
        format!("Authorization: Digest username=\"\\{}\", realm=\"rendezvous\"\r\n", id.to_uppercase()),
    ] {
        for below in [Below::Clear, Below::Tls12, Below::Tls13] {
            let sent = format!("{}payload\0\u{ff}", odd_head(&authorization));
            let wanted = format!("{}payload\0\u{ff}", odd_head(""));
            let mut client = relay.open(below);
            client.send(sent.as_bytes());
            let mut got = vec![0; wanted.len()];
            service.accept().read_exact(&mut got).expect("all of it arrives");
            assert_eq!(String::from_utf8_lossy(&got), wanted, "{authorization:?}, {below:?}");
        }
    }
}

fn bytes_are_forwarded_however_they_are_cut() {
    let world = World::new();
    let home = world.enrol("home", &[]);
    let relay = world.relay(&[]);
    let sent = format!("{}payload and more", odd_head(&basic(&home.id)));
    let wanted = format!("{}payload and more", odd_head(""));
    for at in
        (1..sent.len()).step_by(7).chain([sent.len() - 1, sent.len() - 16, sent.len() - 17, sent.len() - 18])
    {
        let mut hidden = world.waiting(&relay, &home, Below::Clear);
        let mut client = relay.open(Below::Clear);
        let (first, second) = sent.as_bytes().split_at(at);
        client.send(first);
        // With TCP_NODELAY the second send is a segment of its own.
        client.send(second);
        let mut got = vec![0; wanted.len()];
        hidden.read_exact(&mut got).expect("all of it arrives");
        assert_eq!(String::from_utf8_lossy(&got), wanted, "cut at {at}");
    }
    let mut hidden = world.waiting(&relay, &home, Below::Tls13);
    let mut client = relay.open(Below::Tls13);
    for byte in sent.as_bytes() {
        client.send(&[*byte]);
    }
    let mut got = vec![0; wanted.len()];
    hidden.read_exact(&mut got).expect("all of it arrives");
    assert_eq!(String::from_utf8_lossy(&got), wanted, "byte by byte");
}

fn later_requests_keep_their_authorization() {
    let service = Raw::start();
    let (_world, relay, home, _agent) = World::with_service(service.address);
    let mut client = relay.open(Below::Tls13);
    let first = |authorization: &str| format!("GET /1 HTTP/1.1\r\nHost: h\r\n{authorization}\r\n");
    let second = format!("GET /2 HTTP/1.1\r\nHost: h\r\n{}\r\n", basic(&home.id));
    client.send(format!("{}{second}", first(&basic(&home.id))).as_bytes());
    let wanted = format!("{}{second}", first(""));
    let mut got = vec![0; wanted.len()];
    service.accept().read_exact(&mut got).expect("both arrive");
    assert_eq!(String::from_utf8_lossy(&got), wanted);
}

fn an_upgrade_with_the_id_in_its_target_is_untouched() {
    let service = Raw::start();
    let (_world, relay, home, _agent) = World::with_service(service.address);
    let head = format!(
        "GET /chat?a=b&rendezvous={}&c HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
         Authorization: Basic b2Y6dGhlIHNlcnZpY2U=\r\n\r\n",
        home.id
    );
    let mut client = relay.open(Below::Tls13);
    client.send(format!("{head}behind").as_bytes());
    let mut hidden = service.accept();
    let mut got = vec![0; head.len()];
    hidden.read_exact(&mut got).expect("all of it arrives");
    assert_eq!(String::from_utf8_lossy(&got), head);
    // Until the 101, bytes after an Upgrade may be a request for another hidden server.
    hidden.write_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\nhello").expect("can write");
    let mut behind = [0; 6];
    hidden.read_exact(&mut behind).expect("what is behind the head");
    assert_eq!(&behind, b"behind");
    assert_eq!(Answer::read_head(&mut client).status(), 101);
    let mut hello = [0; 5];
    client.read_exact(&mut hello).expect("what comes behind the 101");
    assert_eq!(&hello, b"hello");
}

const MANY: usize = 100 << 20;

fn each_way(client_side: Below, hidden_side: Below) {
    let service = Raw::start();
    let world = World::new();
    let home = world.enrol("home", &[]);
    let mut relay = world.relay(&[]);
    let agent = world.agent(&relay, &home, hidden_side, &["--to", &service.address.to_string()]);
    let (up, down) = (noise(1, MANY), noise(2, MANY));
    let head = |authorization: &str| {
        format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {MANY}\r\n{authorization}\r\n")
    };
    thread::scope(|scope| {
        let hidden = scope.spawn(|| served(service.accept(), head("").len(), &down));
        let mut client = relay.open(client_side);
        client.send(head(&basic(&home.id)).as_bytes());
        client.send(&up);
        client.end();
        assert_eq!(sum_of(&mut client), sha256(&down), "down");
        assert_eq!(hidden.join().expect("the service is whole"), sha256(&up), "up");
    });
    drop(agent);
    relay.program.signal("TERM");
    assert!(relay.program.exit().success());
    // The relay's own counters.
    if client_side == Below::Clear && hidden_side == Below::Clear {
        relay.program.expect_line(" copied=0 ");
    }
}

/// Reads everything up to the client's EOF, then answers. Returns the hash of the bytes after the head.
fn served(mut stream: TcpStream, head: usize, answer: &[u8]) -> String {
    stream.read_exact(&mut vec![0; head]).expect("the head is whole");
    let sum = sum_of(&mut stream);
    stream.write_all(answer).expect("the client reads on");
    sum
}

/// The hash of everything up to a clean end.
fn sum_of(from: &mut impl Read) -> String {
    let (mut sum, mut bytes, mut part) = (Sha256::new(), 0, vec![0; 1 << 16]);
    loop {
        match from.read(&mut part).expect("a clean end") {
            0 => break,
            more => {
                bytes += more;
                sum.update(&part[..more]);
            }
        }
    }
    assert_eq!(bytes, MANY);
    hex(&sum.finalize())
}
