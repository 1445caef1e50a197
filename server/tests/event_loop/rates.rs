//! Rate limits of pairs: never faster than the rate, whole, and without an effect on other pairs.

use std::thread;
use std::time::Duration;

use rendezvous::clock::Clock;
use rendezvous::net::Net;
use rendezvous_core::time::Time;

use crate::bulk::bytes;
use crate::faulty::Faults;
use crate::peer::{Ending, Kind, Peer};
use crate::relay::{ID, OTHER, Relay, credential, passed_on, request};

/// Bytes per second.
const RATE: u64 = 1_000_000;
/// Bytes that one pair moves.
const EACH: usize = 100_000;
/// What may be there at the start: 20 ms, and a TLS record that completes.
const AT_ONCE: f64 = 0.04;

struct Stopwatch(Clock, Time);

impl Stopwatch {
    fn start() -> Self {
        let clock = Clock::start();
        let now = clock.now().mono;
        Self(clock, now)
    }

    fn elapsed(&self) -> Duration {
        Duration::from_micros(self.0.now().mono.since(self.1).0)
    }
}

fn limit<N: Net + 'static>(relay: &Relay<N>, rates: &'static [(rendezvous_core::id::Id, u64)]) {
    relay.ask(move |event_loop| event_loop.set_rates(rates));
}

/// Moves the same bytes through every pair at once, and returns the time from the first byte to the last.
fn move_all(pairs: &[(Peer, Peer)], sent: &[u8]) -> Duration {
    let start = Stopwatch::start();
    thread::scope(|scope| {
        for (hidden, client) in pairs {
            scope.spawn(move || {
                hidden.send(sent);
                hidden.end();
            });
            scope.spawn(move || {
                client.end();
                assert!(client.recv_all() == (sent.to_vec(), Ending::Clean), "whole, and cleanly ended");
            });
        }
    });
    start.elapsed()
}

fn assert_slow(took: Duration, bytes: usize) {
    let least = bytes as f64 / RATE as f64 - AT_ONCE;
    assert!(took.as_secs_f64() >= least, "{bytes} bytes in {took:?}, at {RATE} per second");
}

#[test]
fn pairs_of_one_id_share_its_rate_in_every_kind_of_stream() {
    let relay = Relay::start();
    limit(&relay, &[(ID, RATE)]);
    let kinds = [
        (Kind::Clear, Kind::Clear),
        (Kind::Tls13, Kind::Tls13),
        (Kind::Tls12, Kind::Clear),
        (Kind::Clear, Kind::Tls12),
    ];
    let pairs = kinds.map(|(hidden, client)| relay.pair(hidden, client));
    assert_slow(move_all(&pairs, &bytes(1, EACH)), kinds.len() * EACH);
}

#[test]
fn bytes_from_clients_are_limited_as_well() {
    let relay = Relay::start();
    limit(&relay, &[(ID, RATE)]);
    let (hidden, client) = relay.pair(Kind::Tls13, Kind::Tls13);
    let sent = bytes(2, 3 * EACH);
    let start = Stopwatch::start();
    thread::scope(|scope| {
        let (client, sending) = (&client, &sent);
        scope.spawn(move || {
            client.send(sending);
            client.end();
        });
        assert!(hidden.recv_all() == (sent.clone(), Ending::Clean));
    });
    assert_slow(start.elapsed(), sent.len());
}

#[test]
fn bytes_that_came_before_the_pair_are_limited_as_well() {
    let relay = Relay::start();
    limit(&relay, &[(ID, RATE)]);
    let client = relay.connect(Kind::Clear);
    let body = bytes(3, 2 * EACH);
    let start = Stopwatch::start();
    thread::scope(|scope| {
        let (client, sending) = (&client, [request("POST"), body.clone()].concat());
        scope.spawn(move || {
            client.send(&sending);
            client.end();
        });
        relay.until("the client is held, with bytes", |event_loop| event_loop.buffers() > 0);
        let got = relay.hidden(Kind::Tls13).recv_all();
        assert!(got == ([passed_on("POST"), body].concat(), Ending::Clean));
    });
    assert_slow(start.elapsed(), 2 * EACH);
}

#[test]
fn another_id_is_not_limited_and_a_removed_limit_ends_at_once() {
    let relay = Relay::start();
    // A megabyte takes 20 seconds at this rate, and a TLS record a third of one.
    limit(&relay, &[(ID, 50_000)]);
    let sent = bytes(4, 1_000_000);
    let (hidden, client) = relay.pair(Kind::Tls13, Kind::Tls13);
    thread::scope(|scope| {
        let (hidden, sending) = (&hidden, &sent);
        scope.spawn(move || {
            hidden.send(sending);
            hidden.end();
        });
        let first = client.recv_exactly(100);
        assert!(first == sent[..100]);
        let free = relay.hidden_of(OTHER, Kind::Tls13);
        let other = relay.connect(Kind::Tls13);
        other.send(format!("GET / HTTP/1.1\r\nHost: relay\r\n{}\r\n", credential(OTHER)).as_bytes());
        free.recv_exactly(passed_on("GET").len());
        move_all(&[(free, other)], &sent);
        limit(&relay, &[]);
        assert!(client.recv_all().0 == sent[100..]);
    });
}

#[test]
fn a_limited_stream_is_whole_however_it_is_cut() {
    let faults = Faults { cut: 700, would_block: 3, spurious: true, ..Faults::default() };
    for (hidden, client) in [(Kind::Clear, Kind::Clear), (Kind::Tls13, Kind::Tls12)] {
        let relay = Relay::faulty(faults.clone());
        limit(&relay, &[(ID, RATE)]);
        let pair = relay.pair(hidden, client);
        assert_slow(move_all(&[pair], &bytes(5, EACH)), EACH);
        relay.until_empty();
    }
}

#[test]
fn a_waiting_pair_that_ends_leaves_nothing() {
    let relay = Relay::start();
    limit(&relay, &[(ID, 1_000)]);
    for _ in 0..20 {
        let (hidden, client) = relay.pair(Kind::Clear, Kind::Tls13);
        hidden.send(&bytes(6, EACH));
        client.recv_exactly(10);
        client.reset();
        drop(hidden);
    }
    relay.until_empty();
}
