//! The agent: the pool, the backoff, the tokens, and clients.

use std::net::SocketAddr;

use rendezvous_core::agent::{Agent, Config, Seeds, Upstream};
use rendezvous_core::event::{Event, RelayLoss, Target};
use rendezvous_core::http::date::write_date;
use rendezvous_core::http::target::{Token, registration};
use rendezvous_core::id::Id;
use rendezvous_core::machine::{
    Close, ConnId, DialFailure, End, Machine, Output, Secured, TlsFailure, TlsRole,
};
use rendezvous_core::relay_client::{Host, HostPort, Relay};
use rendezvous_core::time::Span;
use rendezvous_core::token::{Algorithm, Key};

mod backoff;
mod basic_auth;
mod challenge;
mod ending;
mod forwarding;
#[path = "../common/harness.rs"]
mod harness;
#[path = "../common/hello.rs"]
mod hello;
mod hostile;
mod path;
mod pool;
mod proxy;
mod raw;
mod reaching;
mod renew;
mod serving;
mod tls_service;

use harness::{Done, Harness, WALL, address, asked, beginning, dials, events, sent};

const ID: Id = Id(0x2f40_2f80_da50_41e1_9b23_0123_4567_89ab);
const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: hidden\r\n\r\n";
const UPGRADE: &[u8] =
    b"GET / HTTP/1.1\r\nHost: relay\r\nConnection: Upgrade\r\nUpgrade: octet-stream\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";
const REFUSED: &[u8] = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n";

fn relay() -> SocketAddr {
    address(1, 80)
}

fn service() -> SocketAddr {
    address(2, 8080)
}

fn ssh() -> SocketAddr {
    address(2, 22)
}

fn key() -> Key {
    Key::new(b"12345678901234567890".to_vec(), Algorithm::Sha256, 8, 30).unwrap()
}

fn upstream() -> Upstream {
    let relay = Relay { place: relay().into(), tls: false, host_header: "relay".into() };
    Upstream {
        ports: Vec::new(),
        stream_takes_ports: false,
        service_h2: false,
        end_to_end: rendezvous_core::agent::EndToEnd::Off,
        basic_auth: None,
        relay,
        id: ID,
        key: key(),
        plain: false,
        pool: 4,
        pool_max: 0,
        service: Some(service().into()),
        service_tls: None,
        stream: None,
    }
}

fn agent_with(change: impl FnOnce(&mut Config)) -> Harness<Agent> {
    let mut config = Config { upstreams: vec![upstream()], ..Config::default() };
    change(&mut config);
    Harness::new(Agent::new(config, Seeds { nonces: [7; 32], jitter: [7; 32] }, beginning()))
}

fn agent() -> Harness<Agent> {
    agent_with(|_| ())
}

/// An agent whose pool is full, and the pool.
fn pool_of(mut harness: Harness<Agent>) -> (Harness<Agent>, Vec<ConnId>) {
    let mut pool = Vec::new();
    for _ in 0..2 {
        for (on, _) in dials(&harness.actions()) {
            accept(&mut harness, on);
            pool.push(on);
        }
    }
    assert!(dials(&harness.actions()).is_empty());
    (harness, pool)
}

/// The relay is reached, and answers with 200.
fn accept(harness: &mut Harness<Agent>, on: ConnId) {
    harness.call(|agent, now| agent.handle_connected(on, now));
    assert_eq!(harness.receive(on, OK), OK.len());
}

/// The relay is reached, and sends another response.
fn refuse(harness: &mut Harness<Agent>, on: ConnId, answer: &[u8]) {
    harness.call(|agent, now| agent.handle_connected(on, now));
    assert_eq!(harness.receive(on, answer), answer.len());
}

fn one(actions: &[Done]) -> (ConnId, SocketAddr) {
    let dials = dials(actions);
    assert_eq!(dials.len(), 1, "{actions:?}");
    dials[0]
}

/// Whether the token that was sent is accepted by a relay whose clock shows `wall`.
fn is_valid(text: &str, wall: u64) -> bool {
    let target = text.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()).unwrap();
    let registration = registration(target).unwrap();
    assert_eq!(registration.id, ID);
    match registration.token {
        Token::Plain(digits) => key().check_plain(wall, digits).is_some(),
        Token::Bound { response, nonce } => key().check_bound(wall, nonce, &response).is_some(),
        Token::Challenged { .. } => false,
    }
}

fn dated(status: &str, wall: u64) -> Vec<u8> {
    let mut answer = format!("HTTP/1.1 {status}\r\nDate: ").into_bytes();
    write_date(wall, &mut answer);
    answer.extend_from_slice(b"\r\nContent-Length: 0\r\n\r\n");
    answer
}
