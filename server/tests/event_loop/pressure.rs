//! Slow readers, fast writers, many waiters, and exhausted memory.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use rendezvous::buffer::Sizes;
use socket2::SockRef;

use crate::bulk::bytes;
use crate::faulty::Faults;
use crate::peer::{Ending, Kind, Peer, socket};
use crate::relay::{ACCEPTED, Relay, SIZES, queues, registration, request};

const CHALLENGED: &[u8] = b"HTTP/1.1 401 Unauthorized\r\n";

#[test]
fn a_slow_reader_blocks_its_own_pair_alone_and_gets_everything_in_the_end() {
    let relay = Relay::start();
    for kind in [Kind::Clear, Kind::Tls13] {
        let (slow_hidden, slow_client) = relay.pair(kind, kind);
        let (hidden, client) = relay.pair(kind, Kind::Clear);
        let sent = bytes(1, 16_000_000);
        thread::scope(|scope| {
            scope.spawn(|| {
                slow_hidden.send(&sent);
                slow_hidden.end();
            });
            relay.until("bytes are queued", |event_loop| queues(event_loop) > 0);
            for round in 0..50_u8 {
                client.send(&[round; 1_000]);
                assert_eq!(hidden.recv_exactly(1_000), [round; 1_000]);
                let (bytes, relayed) =
                    relay.ask(|event_loop| (event_loop.buffer_bytes(), event_loop.stats()));
                assert!(bytes <= 4 * SIZES.bulk, "{bytes} bytes in buffers");
                assert!(relayed.relayed < 2 * 16_000_000, "{relayed:?}");
            }
            slow_client.end();
            assert!(slow_client.recv_all() == (sent.clone(), Ending::Clean));
        });
        drop((hidden, client, slow_hidden, slow_client));
        relay.until_empty();
    }
}

/// If records are much smaller than the room that a record may need, received records may wait although the buffer is
/// not full, and the sender causes no further edge.
#[test]
fn small_records_that_had_no_room_for_a_slow_reader_are_not_forgotten() {
    let relay = Relay::start();
    for kind in [Kind::Clear, Kind::Tls13] {
        for more in 0..12 {
            let (hidden, client) = relay.pair(Kind::Tls13, kind);
            SockRef::from(client.sock()).set_recv_buffer_size(64 * 1024).unwrap();
            let sent = bytes(more, 6_000_000 + 5_000 * more as usize);
            thread::scope(|scope| {
                scope.spawn(|| sent.chunks(500).for_each(|piece| hidden.send(piece)));
                relay.until("bytes are queued", |event_loop| queues(event_loop) > 0);
                assert!(client.recv_exactly(sent.len()) == sent);
            });
        }
    }
    relay.until_empty();
}

#[test]
fn a_fast_pair_starves_no_interactive_one() {
    let relay = Relay::start();
    let (fast_hidden, fast_client) = relay.pair(Kind::Clear, Kind::Clear);
    let (hidden, client) = relay.pair(Kind::Tls13, Kind::Tls13);
    let enough = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !enough.load(Ordering::Relaxed) {
                fast_client.send(&[0; 256 * 1024]);
            }
            fast_client.end();
        });
        let fast = scope.spawn(|| {
            let mut bytes = 0;
            while let Ok(more) = fast_hidden.recv() {
                bytes += more.len();
            }
            bytes
        });
        let relayed = || relay.ask(|event_loop| event_loop.stats().relayed);
        let mut rounds = 0_u32;
        while rounds < 200 || relayed() < 1_000_000 {
            let round = rounds.to_le_bytes();
            client.send(&round);
            assert_eq!(hidden.recv_exactly(4), round);
            hidden.send(&round);
            assert_eq!(client.recv_exactly(4), round);
            rounds += 1;
            assert!(rounds < 100_000, "the fast one is starved");
        }
        enough.store(true, Ordering::Relaxed);
        assert!(fast.join().unwrap() > 500_000);
    });
}

#[test]
fn two_thousand_idle_waiting_connections_hold_no_buffer() {
    let relay = Relay::with(SIZES, |config| config.waiting_per_id_max = 2_000);
    let idle: Vec<Peer> =
        (0..2_000).map(|n| relay.hidden(if n % 20 == 0 { Kind::Tls13 } else { Kind::Clear })).collect();
    relay.until("no buffer is in use", |event_loop| {
        event_loop.connections() == 2_000 && event_loop.buffers() == 0 && event_loop.buffer_bytes() == 0
    });
    drop(idle);
    relay.until_empty();
}

#[test]
fn heads_without_end_make_room_for_those_that_end() {
    let sizes = Sizes { head: 34 * 1024, bulk: 34 * 1024, ceiling: 4 * 34 * 1024 };
    let relay = Relay::with(sizes, |_| {});
    let begun = format!("GET / HTTP/1.1\r\nHost: relay\r\nX: {}", "x".repeat(15_000));
    let holders: Vec<Peer> = (0..6).map(|_| relay.connect(Kind::Clear)).collect();
    for (n, holder) in holders.iter().enumerate() {
        holder.send(begun.as_bytes());
        let held = (n + 1) * begun.len();
        relay.until("a head has begun", move |event_loop| event_loop.buffer_bytes() == held);
    }
    // A complete head needs no memory of its own, however much others use.
    for _ in 0..3 {
        let eager = relay.connect(Kind::Clear);
        eager.send(b"GET / HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n");
        assert!(eager.recv().unwrap().starts_with(CHALLENGED));
    }
    assert_eq!(relay.ask(|event_loop| event_loop.buffers()), holders.len());
    // The rest is reserved for queues: the oldest connection is closed.
    let newest = relay.connect(Kind::Clear);
    newest.send(begun.as_bytes());
    assert_eq!(holders[0].recv(), Err(Ending::Reset));
    newest.send(b"\r\n\r\n");
    assert!(newest.recv().unwrap().starts_with(CHALLENGED));
}

#[test]
fn heads_that_never_end_cost_what_they_sent_and_stall_nobody() {
    let sizes = Sizes { head: 34 * 1024, bulk: 64 * 1024, ceiling: 256 * 1024 };
    let relay = Relay::with(sizes, |_| {});
    let begun = b"GET / HTTP/1.1\r\nX: ";
    let slow: Vec<Peer> =
        (0..200).map(|n| relay.connect(if n % 4 == 0 { Kind::Tls13 } else { Kind::Clear })).collect();
    for peer in &slow {
        peer.send(begun);
    }
    relay.until("all heads have begun", |event_loop| event_loop.buffers() == 200);
    assert_eq!(relay.ask(|event_loop| event_loop.buffer_bytes()), 200 * begun.len());
    let (hidden, client) = relay.pair(Kind::Tls13, Kind::Tls13);
    let sent = bytes(3, 1_000_000);
    thread::scope(|scope| {
        scope.spawn(|| {
            client.send(&sent);
            client.end();
        });
        // Byte by byte, each connection is served in turn.
        scope.spawn(|| {
            for _ in 0..20 {
                for peer in &slow {
                    peer.send(b"x");
                }
            }
        });
        assert!(hidden.recv_all() == (sent.clone(), Ending::Clean));
    });
    for peer in &slow {
        peer.send(b"\r\nHost: relay\r\n\r\n");
    }
    for peer in &slow {
        assert!(peer.recv().unwrap().starts_with(CHALLENGED));
    }
}

/// Three hundred requests of one address are ready before one of another address is.
#[test]
fn many_requests_of_one_address_do_not_delay_that_of_another() {
    let relay = Relay::start();
    let to = relay.address(Kind::Clear);
    let many: Vec<TcpStream> = (0..300).map(|_| connect_from([127, 0, 0, 2], to)).collect();
    let other = connect_from([127, 0, 0, 3], to);
    let before = answered_before(&relay, many, other);
    assert!(before < 250, "{before} of 300 are answered before it");
    relay.until_empty();
}

/// Three hundred connections that have sent many requests are ready before a new one of the same address is.
#[test]
fn busy_connections_do_not_delay_a_new_one_of_their_own_address() {
    let relay = Relay::start();
    let to = relay.address(Kind::Clear);
    let mut many: Vec<TcpStream> = (0..300).map(|_| connect_from([127, 0, 0, 2], to)).collect();
    for sock in &mut many {
        sock.set_nonblocking(false).unwrap();
        for _ in 0..20 {
            sock.write_all(HEAD).unwrap();
            read_response(sock);
        }
        sock.set_nonblocking(true).unwrap();
    }
    let other = connect_from([127, 0, 0, 2], to);
    let before = answered_before(&relay, many, other);
    assert!(before < 250, "{before} of 300 are answered before it");
    relay.until_empty();
}

const HEAD: &[u8] = b"GET / HTTP/1.1\r\nHost: relay\r\n\r\n";

/// All connections send a request within one turn of the loop, `other` last. Returns how many of the rest are answered
/// before that one.
fn answered_before(relay: &Relay, many: Vec<TcpStream>, other: TcpStream) -> usize {
    let all = many.len() + 1;
    relay.until("all are accepted", move |event_loop| event_loop.connections() == all);
    let (counted, count) = channel();
    let mut has_sent = false;
    relay.until("the last one is answered", move |_| {
        if !std::mem::replace(&mut has_sent, true) {
            many.iter().chain([&other]).for_each(|mut sock| sock.write_all(HEAD).unwrap());
            return false;
        }
        let is_answered = |sock: &&TcpStream| sock.peek(&mut [0]).is_ok();
        if is_answered(&&other) {
            counted.send(many.iter().filter(is_answered).count()).unwrap();
        }
        is_answered(&&other)
    });
    count.recv().unwrap()
}

/// Reads a response with `Content-Length`.
fn read_response(sock: &mut TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        sock.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let (_, length) = head.split_once("Content-Length: ").unwrap();
    let length = length.split("\r\n").next().unwrap().parse().unwrap();
    sock.read_exact(&mut vec![0; length]).unwrap();
}

/// A connection from this loopback address, which does not block.
fn connect_from(from: [u8; 4], to: SocketAddr) -> TcpStream {
    let sock = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    sock.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    sock.connect(&to.into()).unwrap();
    sock.set_nonblocking(true).unwrap();
    sock.into()
}

#[test]
fn pairs_take_turns_with_the_last_of_the_memory() {
    let sizes = Sizes { head: 34 * 1024, bulk: 64 * 1024, ceiling: 256 * 1024 };
    let relay = Relay::with(sizes, |_| {});
    let kinds = [Kind::Clear, Kind::Tls13, Kind::Tls12];
    let pairs: Vec<_> = (0..12).map(|n| relay.pair(kinds[n % 3], kinds[n / 3 % 3])).collect();
    let sent = bytes(2, 400_000);
    thread::scope(|scope| {
        for (hidden, client) in &pairs {
            for (from, to) in [(hidden, client), (client, hidden)] {
                let sent = &sent;
                scope.spawn(move || {
                    from.send(sent);
                    from.end();
                });
                scope.spawn(move || assert!(to.recv_all() == (sent.clone(), Ending::Clean)));
            }
        }
    });
    drop(pairs);
    relay.until_empty();
}

#[test]
fn a_listener_that_ran_out_of_descriptors_accepts_again_when_nobody_knocks() {
    const EMFILE: i32 = 24;
    const ECONNABORTED: i32 = 103;
    let faults =
        Faults { accept: vec![EMFILE, ECONNABORTED, EMFILE, EMFILE, ECONNABORTED], ..Faults::default() };
    let relay = Relay::faulty(faults);
    let client = relay.connect(Kind::Clear);
    client.send(&request("GET"));
    let hidden = relay.hidden(Kind::Tls13);
    assert!(hidden.recv().is_ok());
}

#[test]
fn many_who_come_at_once_are_all_accepted() {
    let relay = Relay::start();
    let address: SocketAddr = relay.address(Kind::Clear);
    assert_eq!(address.ip(), Ipv4Addr::LOCALHOST);
    let all: Vec<TcpStream> = (0..300).map(|_| socket(address)).collect();
    relay.until("all are accepted", |event_loop| event_loop.connections() == 300);
    drop(all);
    relay.until_empty();
}

#[test]
fn a_waiting_connection_that_reads_nothing_costs_its_own_answer_alone() {
    let relay = Relay::start();
    let silent: Vec<Peer> = (0..20)
        .map(|_| {
            let peer = relay.connect(Kind::Clear);
            peer.send(&registration());
            peer
        })
        .collect();
    relay.until("all wait", |event_loop| event_loop.connections() == 20 && event_loop.buffers() == 0);
    for peer in &silent {
        assert_eq!(peer.recv_exactly(ACCEPTED.len()), ACCEPTED);
    }
}

#[test]
fn a_loop_with_nothing_to_do_does_nothing() {
    let sizes = Sizes { head: 34 * 1024, bulk: 128 * 1024, ceiling: 400 * 1024 };
    let relay = Relay::with(sizes, |_| {});
    let waiting = [relay.hidden(Kind::Tls13), relay.hidden(Kind::Clear)];
    // A peer that does not read, in clear and in TLS, with full queues.
    let stuck = [relay.pair(Kind::Clear, Kind::Clear), relay.pair(Kind::Tls12, Kind::Clear)];
    for (_, client) in &stuck {
        client.fill();
    }
    // One side has ended, in every way.
    let half = [relay.pair(Kind::Clear, Kind::Tls13), relay.pair(Kind::Tls13, Kind::Clear)];
    half[0].1.close_notify();
    half[1].1.end();
    assert_eq!((half[0].0.recv(), half[1].0.recv()), (Err(Ending::Clean), Err(Ending::Clean)));
    // A finished response, and a client that stays connected.
    let answered = relay.connect(Kind::Tls12);
    answered.send(b"GET / HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n");
    assert!(answered.recv().unwrap().starts_with(CHALLENGED));
    // Incomplete heads, with and without a buffer.
    let begun: Vec<Peer> = (0..12).map(|_| relay.connect(Kind::Clear)).collect();
    for peer in &begun {
        peer.send(b"GET /");
    }
    let turns = relay.ask(|event_loop| event_loop.stats().turns);
    thread::sleep(Duration::from_millis(300));
    // Its owner wakes it every 2 ms.
    let more = relay.ask(|event_loop| event_loop.stats().turns) - turns;
    assert!(more < 600, "{more} turns in 0.3 s");
    drop((waiting, stuck, half, answered, begun));
    relay.until_empty();
}
