//! Gated pairs over real sockets: every byte arrives once and in order, whether it is inspected or not.

use std::thread;

use crate::peer::{Ending, Kind, Peer};
use crate::relay::{ID, OTHER, Relay, SIZES, credential};
use rendezvous::buffer::Sizes;

const KINDS: [Kind; 3] = [Kind::Clear, Kind::Tls12, Kind::Tls13];

/// Lengths of bodies around those of a record, of a buffer, and of the limit for opening in place.
const LENGTHS: [usize; 9] = [0, 1, 16_383, 16_384, 33_000, 70_000, 131_072, 300_001, 1_500_000];

fn body(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at.wrapping_mul(31) ^ (at >> 8) ^ seed) as u8).collect()
}

fn post(len: usize) -> String {
    format!("POST / HTTP/1.1\r\nHost: relay\r\nContent-Length: {len}\r\n\r\n")
}

fn answer(len: usize) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n")
}

/// A client's `POST` for an ID.
fn request(of: rendezvous_core::id::Id, body: &[u8]) -> Vec<u8> {
    let head =
        format!("POST / HTTP/1.1\r\nHost: relay\r\n{}Content-Length: {}\r\n\r\n", credential(of), body.len());
    [head.as_bytes(), body].concat()
}

/// A hidden server that answers requests with their bodies until the relay ends the stream.
fn echo(hidden: Peer, requests: Vec<(String, Vec<u8>)>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        for (head, body) in requests {
            let got = hidden.recv_exactly(head.len());
            assert_eq!(String::from_utf8_lossy(&got), head, "in front of {} bytes", body.len());
            let got = hidden.recv_exactly(body.len());
            let differs = got.iter().zip(&body).position(|(got, sent)| got != sent);
            assert_eq!(differs, None, "of {} bytes", body.len());
            hidden.send(&[answer(body.len()).as_bytes(), &body].concat());
        }
        assert_eq!(hidden.recv(), Err(Ending::Clean), "the end, and nothing in front of it");
    })
}

fn expect_answer(client: &Peer, body: &[u8]) {
    let head = answer(body.len());
    assert_eq!(String::from_utf8(client.recv_exactly(head.len())).unwrap(), head);
    assert!(client.recv_exactly(body.len()) == body, "the answer of {} bytes", body.len());
}

/// Exchanges with the first hidden server, then one with the second, on one connection.
fn exchanges(relay: &Relay, hidden: Kind, client: Kind, is_pipelined: bool) {
    println!("{client:?} to {hidden:?}");
    let bodies: Vec<Vec<u8>> = LENGTHS.iter().enumerate().map(|(seed, len)| body(seed, *len)).collect();
    let stripped = |body: &Vec<u8>| (post(body.len()), body.clone());
    // The credential is removed from the first request only: the others are part of the stream.
    let later = |body: &Vec<u8>| {
        let head = String::from_utf8(
            request(ID, body)[..].split_at(request(ID, body).len() - body.len()).0.to_vec(),
        );
        (head.unwrap(), body.clone())
    };
    let first = std::iter::once(stripped(&bodies[0])).chain(bodies[1..].iter().map(later)).collect();
    let of_first = echo(relay.hidden_of(ID, hidden), first);
    let of_other = echo(relay.hidden_of(OTHER, hidden), vec![stripped(&bodies[6])]);
    let peer = relay.connect(client);
    let sender = peer.clone();
    let sent: Vec<Vec<u8>> = bodies
        .iter()
        .map(|body| request(ID, body))
        .chain(std::iter::once(request(OTHER, &bodies[6])))
        .collect();
    if is_pipelined {
        let all = sent.concat();
        let writer = thread::spawn(move || sender.send(&all));
        for body in bodies.iter().chain([&bodies[6]]) {
            expect_answer(&peer, body);
        }
        writer.join().unwrap();
    } else {
        for (request, body) in sent.iter().zip(bodies.iter().chain([&bodies[6]])) {
            let (sender, request) = (peer.clone(), request.clone());
            let writer = thread::spawn(move || sender.send(&request));
            expect_answer(&peer, body);
            writer.join().unwrap();
        }
    }
    of_first.join().unwrap();
    peer.end();
    of_other.join().unwrap();
}

#[test]
fn bodies_of_all_lengths_cross_a_gated_pair_whole_and_then_the_client_changes_the_hidden_server() {
    let relay = Relay::start();
    for hidden in KINDS {
        for client in KINDS {
            exchanges(&relay, hidden, client, false);
        }
    }
    relay.until_empty();
}

#[test]
fn pipelined_requests_cross_a_gated_pair_in_order() {
    let relay = Relay::start();
    for (hidden, client) in
        [(Kind::Clear, Kind::Clear), (Kind::Tls13, Kind::Tls13), (Kind::Tls12, Kind::Clear)]
    {
        exchanges(&relay, hidden, client, true);
    }
    relay.until_empty();
}

#[test]
fn a_gated_pair_works_with_little_memory() {
    let sizes = Sizes { head: SIZES.head, bulk: SIZES.head, ceiling: 16 * SIZES.head };
    let relay = Relay::with(sizes, |_| {});
    exchanges(&relay, Kind::Tls13, Kind::Tls13, false);
    exchanges(&relay, Kind::Clear, Kind::Clear, true);
    relay.until_empty();
}

#[test]
fn a_chunked_answer_is_followed_to_its_end() {
    for kind in KINDS {
        let relay = Relay::start();
        let (first, other) = (relay.hidden_of(ID, kind), relay.hidden_of(OTHER, kind));
        let client = relay.connect(kind);
        client.send(&[request(ID, b""), request(OTHER, b"")].concat());
        first.recv_exactly(post(0).len());
        let chunk = body(3, 100_000);
        let mut whole = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for piece in [&chunk[..], &chunk[..7], &chunk[..20_000]] {
            whole.extend(format!("{:x}\r\n", piece.len()).into_bytes());
            whole.extend_from_slice(piece);
            whole.extend_from_slice(b"\r\n");
        }
        whole.extend_from_slice(b"0\r\nDigest: x\r\n\r\n");
        let (front, back) = whole.split_at(whole.len() - 1);
        first.send(front);
        // The trailers wait for their end.
        assert!(client.recv_exactly(front.len() - 12).ends_with(b"\r\n0\r\n"));
        first.send(back);
        assert_eq!(client.recv_exactly(13), b"Digest: x\r\n\r\n");
        other.recv_exactly(post(0).len());
        other.send(answer(2).as_bytes());
        other.send(b"ok");
        expect_answer(&client, b"ok");
        assert_eq!(first.recv(), Err(Ending::Clean));
    }
}

#[test]
fn large_bodies_in_clear_are_still_spliced() {
    let relay = Relay::start();
    let (hidden, client) = (relay.hidden_of(ID, Kind::Clear), relay.connect(Kind::Clear));
    let large = body(1, 8_000_000);
    let answers = echo(hidden, vec![(post(large.len()), large.clone())]);
    let sender = client.clone();
    let sent = request(ID, &large);
    let writer = thread::spawn(move || sender.send(&sent));
    expect_answer(&client, &large);
    writer.join().unwrap();
    let spliced = relay.ask(|event_loop| event_loop.stats().spliced);
    assert!(spliced > 8_000_000, "{spliced} of 16,000,000 bytes");
    client.end();
    answers.join().unwrap();
}
