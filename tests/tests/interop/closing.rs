//! Half-close, reset and truncation are forwarded unchanged.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::Shutdown;

use crate::harness::{Case, case};
use crate::hidden::{Raw, noise, read_head};
use crate::peers::{Peer, script};
use crate::program::{PATIENCE, run};
use crate::wire::{Below, Wire, reset};
use crate::world::{Relay, World, basic, lines};

pub(crate) const CASES: &[Case] = &[
    case("an_answer_after_the_clients_end_is_complete_without_tls", &[], || {
        answer_after_the_end(Below::Clear)
    }),
    case("an_answer_after_the_clients_end_is_complete_with_tls_1_2", &[], || {
        answer_after_the_end(Below::Tls12)
    }),
    case("an_answer_after_the_clients_end_is_complete_with_tls_1_3", &[], || {
        answer_after_the_end(Below::Tls13)
    }),
    case("openssl_ends_first_with_tls_1_2_and_gets_everything", &[Peer::Python], || python_ends_first("1.2")),
    case("openssl_ends_first_with_tls_1_3_and_gets_everything", &[Peer::Python], || python_ends_first("1.3")),
    case(
        "the_client_can_send_after_the_hidden_servers_end",
        &[],
        the_client_can_send_after_the_hidden_servers_end,
    ),
    case("a_reset_of_the_client_is_forwarded", &[], a_reset_of_the_client_is_forwarded),
    case("a_reset_of_the_service_is_forwarded", &[], a_reset_of_the_service_is_forwarded),
    case(
        "a_truncated_tls_stream_of_the_client_is_not_a_clean_end",
        &[],
        a_truncated_tls_stream_of_the_client_is_not_a_clean_end,
    ),
    case(
        "a_truncated_tls_stream_of_the_hidden_server_is_not_a_clean_end",
        &[],
        a_truncated_hidden_server_is_not_a_clean_end,
    ),
    case("a_half_closed_pair_without_traffic_is_closed", &[], a_half_closed_pair_is_closed),
];

const SIZE: usize = 3 << 20;

/// A client and a hidden server, both controlled by the test, as a pair.
fn pair(world: &World, below_client: Below, below_hidden: Below, options: &[&str]) -> (Relay, Wire, Wire) {
    let home = world.enrol("home", &[]);
    let relay = world.relay(options);
    let mut hidden = world.waiting(&relay, &home, below_hidden);
    let mut client = relay.open(below_client);
    client.send(format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", basic(&home.id)).as_bytes());
    read_head(&mut hidden);
    hidden.send(b"hello");
    let mut hello = [0; 5];
    client.read_exact(&mut hello).expect("the pair is one");
    (relay, client, hidden)
}

fn answer_after_the_end(below: Below) {
    let service = Raw::start();
    let (_world, relay, home, _agent) = World::with_service(service.address);
    let mut client = relay.open(below);
    client.send(format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\nlast words", basic(&home.id)).as_bytes());
    client.end();
    let mut hidden = service.accept();
    let mut all = Vec::new();
    hidden.read_to_end(&mut all).expect("the end crosses as a clean one");
    assert!(all.ends_with(b"\r\n\r\nlast words"));
    let answer = noise(3, SIZE);
    hidden.write_all(&answer).expect("the client reads on");
    drop(hidden);
    assert!(client.rest() == answer, "the answer is whole");
    relay.program.expect_line(lines::PAIR_ENDED);
    relay.program.expect_line("reason=done");
}

fn python_ends_first(version: &str) {
    let service = Raw::start();
    let (world, relay, home, _agent) = World::with_service(service.address);
    let mut python = Peer::Python.command();
    python.arg(script("ends_first.py")).args([relay.tls.port().to_string().as_str(), &home.id, version]);
    python.arg(world.certificate());
    let answer = noise(4, SIZE);
    let output = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut hidden = service.accept();
            hidden.read_to_end(&mut Vec::new()).expect("the end crosses as a clean one");
            hidden.write_all(&answer).expect("the client reads on");
        });
        run(&mut python)
    });
    assert!(output.status.success());
    let lines = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert_eq!(lines, format!("TLSv{version} {SIZE} {}", crate::hidden::sha256(&answer)));
}

fn the_client_can_send_after_the_hidden_servers_end() {
    for below in [Below::Clear, Below::Tls12, Below::Tls13] {
        let world = World::new();
        let (_relay, mut client, mut hidden) = pair(&world, below, below, &[]);
        hidden.send(b"that is all");
        hidden.end();
        assert_eq!(client.rest(), b"that is all");
        let more = noise(5, SIZE);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                client.send(&more);
                client.end();
            });
            assert!(hidden.rest() == more, "{below:?}");
        });
    }
}

fn a_reset_of_the_client_is_forwarded() {
    let world = World::new();
    let (relay, client, mut hidden) = pair(&world, Below::Clear, Below::Clear, &[]);
    client.reset();
    let (_, end) = hidden.rest_and_end();
    assert_eq!(end.map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
    relay.program.expect_line("reason=reset-by-client");
}

fn a_reset_of_the_service_is_forwarded() {
    let service = Raw::start();
    let (_world, relay, home, _agent) = World::with_service(service.address);
    for below in [Below::Clear, Below::Tls12, Below::Tls13] {
        let mut client = relay.open(below);
        client.send(format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", basic(&home.id)).as_bytes());
        let mut hidden = service.accept();
        read_head(&mut hidden);
        hidden.write_all(b"HTTP/1.1 200 OK\r\n\r\nbegun").expect("can write");
        let mut begun = [0; 24];
        client.read_exact(&mut begun).expect("what was sent before");
        reset(hidden);
        let (_, end) = client.rest_and_end();
        let end = end.expect_err("no clean end").kind();
        assert!([ErrorKind::ConnectionReset, ErrorKind::UnexpectedEof].contains(&end), "{below:?}: {end:?}");
    }
}

fn a_truncated_tls_stream_of_the_client_is_not_a_clean_end() {
    for below in [Below::Tls12, Below::Tls13] {
        let world = World::new();
        let (relay, mut client, mut hidden) = pair(&world, below, Below::Tls13, &[]);
        client.send(b"half a sen");
        client.cut();
        let (got, end) = hidden.rest_and_end();
        assert_eq!(got, b"half a sen", "what was sent before the cut arrives");
        let end = end.expect_err("no clean end").kind();
        assert!([ErrorKind::ConnectionReset, ErrorKind::UnexpectedEof].contains(&end), "{below:?}: {end:?}");
        relay.program.expect_line("reason=cut-by-client");
    }
}

fn a_truncated_hidden_server_is_not_a_clean_end() {
    for below in [Below::Clear, Below::Tls12, Below::Tls13] {
        let world = World::new();
        let (relay, mut client, mut hidden) = pair(&world, below, Below::Tls13, &[]);
        hidden.send(b"half an ans");
        hidden.cut();
        let (got, end) = client.rest_and_end();
        assert_eq!(got, b"half an ans", "what was sent before the cut arrives");
        let end = end.expect_err("no clean end").kind();
        assert!([ErrorKind::ConnectionReset, ErrorKind::UnexpectedEof].contains(&end), "{below:?}: {end:?}");
        relay.program.expect_line("reason=cut-by-hidden");
    }
}

fn a_half_closed_pair_is_closed() {
    let world = World::new();
    let (relay, mut client, hidden) =
        pair(&world, Below::Tls13, Below::Tls13, &["--half-closed-timeout", "1"]);
    client.end();
    relay.program.expect_line("reason=half-closed-too-long");
    drop(hidden);
    client.tcp().set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    let (got, _) = client.rest_and_end();
    assert_eq!(got, b"");
    let _ = client.tcp().shutdown(Shutdown::Both);
}
