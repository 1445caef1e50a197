//! Bulk data: no byte is lost, repeated or reordered, and none is copied unnecessarily.

use std::thread;
use std::time::Duration;

use sha2::{Digest, Sha256};
use socket2::SockRef;

use crate::faulty::Faults;
use crate::peer::{Ending, Kind, Peer};
use crate::relay::{Relay, SIZES, passed_on, request};

const MANY: usize = 20_000_000;

/// Bytes with a long period, different for each seed.
pub(crate) fn bytes(seed: u32, len: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()
    };
    let mut all: Vec<u8> = (0..len.div_ceil(4)).flat_map(|_| next()).collect();
    all.truncate(len);
    all
}

/// Sends everything, ends the stream, and returns what was received.
fn exchange(peer: &Peer, out: &[u8]) -> (Vec<u8>, Ending) {
    thread::scope(|scope| {
        scope.spawn(|| {
            peer.send(out);
            peer.end();
        });
        peer.recv_all()
    })
}

fn both_ways(hidden_kind: Kind, client_kind: Kind) {
    let relay = Relay::start();
    let (hidden, client) = relay.pair(hidden_kind, client_kind);
    let (up, down) = (bytes(1, MANY), bytes(2, MANY));
    let (got_up, got_down) = thread::scope(|scope| {
        let serving = scope.spawn(|| exchange(&hidden, &down));
        let got_down = exchange(&client, &up);
        (serving.join().unwrap(), got_down)
    });
    assert_eq!((got_up.1, got_down.1), (Ending::Clean, Ending::Clean));
    assert_eq!(Sha256::digest(got_up.0), Sha256::digest(up), "client to hidden server");
    assert_eq!(Sha256::digest(got_down.0), Sha256::digest(down), "hidden server to client");
    drop((hidden, client));
    relay.until_empty();
    let stats = relay.ask(|event_loop| event_loop.stats());
    assert_eq!(stats.relayed, 2 * MANY as u64);
    // Decrypted bytes for a cleartext peer are copied once, in addition to rustls's copy; nothing else is copied.
    let to_clear = (hidden_kind == Kind::Clear) != (client_kind == Kind::Clear);
    if cfg!(target_os = "linux") {
        let in_clear = (hidden_kind, client_kind) == (Kind::Clear, Kind::Clear);
        assert_eq!(stats.spliced > MANY as u64 / 2, in_clear, "{stats:?}");
    }
    // Bytes that were at a gate at the start move with their buffer.
    let copied = if to_clear { (MANY - 2 * SIZES.head) as u64..=MANY as u64 } else { 0..=0 };
    assert!(copied.contains(&stats.copied), "{stats:?}");
}

#[test]
fn twenty_megabytes_cross_both_ways_at_once_in_clear() {
    both_ways(Kind::Clear, Kind::Clear);
}

#[test]
fn twenty_megabytes_cross_both_ways_at_once_from_tls_to_clear() {
    both_ways(Kind::Clear, Kind::Tls13);
}

#[test]
fn twenty_megabytes_cross_both_ways_at_once_from_clear_to_tls() {
    both_ways(Kind::Tls12, Kind::Clear);
}

#[test]
fn twenty_megabytes_cross_both_ways_at_once_in_tls() {
    both_ways(Kind::Tls13, Kind::Tls12);
}

#[test]
fn no_byte_in_clear_is_copied_however_it_is_cut() {
    let relay = Relay::start();
    let (hidden, client) = relay.pair(Kind::Clear, Kind::Clear);
    let up = bytes(3, 4_000_000);
    let got = thread::scope(|scope| {
        scope.spawn(|| {
            let mut rest = &up[..];
            for size in [1, 2, 3, 1_000, 16_384, 65_537, 131_072, 131_073].into_iter().cycle() {
                let (piece, behind) = rest.split_at(size.min(rest.len()));
                client.send(piece);
                rest = behind;
                if rest.is_empty() {
                    break;
                }
            }
            client.end();
        });
        hidden.recv_all()
    });
    assert!(got == (up, Ending::Clean));
    let stats = relay.ask(|event_loop| event_loop.stats());
    assert_eq!((stats.relayed, stats.copied), (4_000_000, 0));
}

#[test]
fn bytes_that_came_before_the_rendezvous_go_first_and_are_not_copied() {
    for (kind, copied) in [(Kind::Clear, Some(0)), (Kind::Tls12, None), (Kind::Tls13, None)] {
        let relay = Relay::start();
        let client = relay.connect(kind);
        let body = bytes(4, 300_000);
        let got = thread::scope(|scope| {
            let client = &client;
            let sending = [request("POST"), body.clone()].concat();
            scope.spawn(move || {
                client.send(&sending);
                client.end();
            });
            // No hidden server is waiting: the relay holds the client and reads at most one buffer.
            relay.until("the client is held, with bytes", |event_loop| event_loop.buffers() > 0);
            relay.hidden(Kind::Clear).recv_all()
        });
        assert!(got == ([passed_on("POST"), body].concat(), Ending::Clean), "{kind:?}");
        let stats = relay.ask(|event_loop| event_loop.stats());
        assert_eq!(stats.relayed, 300_000);
        if let Some(copied) = copied {
            assert_eq!(stats.copied, copied);
        }
    }
}

#[test]
fn bytes_cross_unharmed_one_by_one() {
    let faults = Faults { cut: 1, would_block: 3, spurious: true, ..Faults::default() };
    for (hidden, client) in [(Kind::Clear, Kind::Clear), (Kind::Tls13, Kind::Tls12)] {
        let relay = Relay::faulty(faults.clone());
        let (hidden, client) = relay.pair(hidden, client);
        let (up, down) = (bytes(5, 20_000), bytes(6, 20_000));
        let (got_up, got_down) = thread::scope(|scope| {
            let serving = scope.spawn(|| exchange(&hidden, &down));
            let got_down = exchange(&client, &up);
            (serving.join().unwrap(), got_down)
        });
        assert!(got_up == (up, Ending::Clean));
        assert!(got_down == (down, Ending::Clean));
        drop((hidden, client));
        relay.until_empty();
    }
}

#[test]
fn bytes_cross_unharmed_in_odd_pieces_with_sockets_that_are_never_sure() {
    let faults = Faults { cut: 1_021, would_block: 2, spurious: true, ..Faults::default() };
    for (hidden, client) in
        [(Kind::Clear, Kind::Tls13), (Kind::Tls12, Kind::Clear), (Kind::Clear, Kind::Clear)]
    {
        let relay = Relay::faulty(faults.clone());
        let (hidden, client) = relay.pair(hidden, client);
        let (up, down) = (bytes(7, 1_000_000), bytes(8, 1_000_000));
        let (got_up, got_down) = thread::scope(|scope| {
            let serving = scope.spawn(|| exchange(&hidden, &down));
            let got_down = exchange(&client, &up);
            (serving.join().unwrap(), got_down)
        });
        assert!(got_up == (up, Ending::Clean));
        assert!(got_down == (down, Ending::Clean));
        drop((hidden, client));
        relay.until_empty();
    }
}

#[test]
fn what_comes_behind_an_urgent_byte_in_clear_is_not_lost() {
    let relay = Relay::start();
    let (hidden, client) = relay.pair(Kind::Clear, Kind::Clear);
    let (first, second) = (bytes(9, 1_000_000), bytes(10, 100_000));
    let got = thread::scope(|scope| {
        scope.spawn(|| {
            client.send(&first);
            socket2::SockRef::from(client.sock()).send_out_of_band(b"!").expect("an urgent byte");
            client.send(&second);
            client.end();
        });
        hidden.recv_all()
    });
    assert_eq!((got.0.len(), got.1), (first.len() + second.len(), Ending::Clean));
    assert!(got.0 == [first, second].concat());
}

#[test]
fn where_nothing_can_be_spliced_bytes_are_copied() {
    for error in [libc::EPERM, libc::ENOSYS, libc::EINVAL, libc::EOPNOTSUPP] {
        let relay = Relay::faulty(Faults { unspliceable: Some(error), ..Faults::default() });
        let (hidden, client) = relay.pair(Kind::Clear, Kind::Clear);
        let up = bytes(11, 1_000_000);
        let got = thread::scope(|scope| {
            scope.spawn(|| {
                client.send(&up);
                client.end();
            });
            hidden.recv_all()
        });
        assert!(got == (up, Ending::Clean), "{error}");
        assert_eq!(relay.ask(|event_loop| event_loop.stats()).spliced, 0);
    }
}

/// A client that does not read: the relay takes little for it from the hidden server, however large the send buffer of
/// the system may grow.
#[test]
fn the_system_holds_little_for_a_client_that_does_not_read() {
    let relay = Relay::start();
    for kind in [Kind::Clear, Kind::Tls13] {
        let (hidden, client) = relay.pair(kind, kind);
        SockRef::from(client.sock()).set_recv_buffer_size(64 * 1024).unwrap();
        hidden.send(&[7; 4_096]);
        assert_eq!(client.recv_exactly(4_096), [7; 4_096]);
        let before = relay.ask(|event_loop| event_loop.stats().relayed);
        hidden.sock().set_write_timeout(Some(Duration::from_secs(1))).unwrap();
        let mut sent = 0;
        while sent < 8_000_000 && hidden.try_send(&[8; 16 * 1024]).is_ok() {
            sent += 16 * 1024;
        }
        let taken = relay.ask(|event_loop| event_loop.stats().relayed) - before;
        assert!(taken < 800_000, "{taken} bytes of {sent}");
    }
}
