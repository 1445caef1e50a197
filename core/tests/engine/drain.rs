//! The relay shuts down.

use rendezvous_core::event::{Event, WaitingEnd};
use rendezvous_core::machine::Close;
use rendezvous_core::time::Span;

use crate::{ANSWER, ID, OTHER, STRANGER, bound_connect, get, plain_connect, world};

const STOPPING: &str = "the relay is shutting down";

#[test]
fn waiting_connections_close_and_pairs_go_on() {
    let mut world = world();
    let waiting = [world.register(OTHER), world.register_plain(OTHER)];
    let (hidden, client) = world.pair(ID);
    world.take_events();
    world.drain();
    assert_eq!(waiting.map(|on| world.closing(on)), [Some(Close::Linger); 2]);
    let gone = |on| Event::WaitingEnded { on, id: OTHER, why: WaitingEnd::Drained, after: Span::ZERO };
    assert_eq!(world.take_events(), waiting.map(gone));
    world.write(hidden, ANSWER);
    assert_eq!(world.got(client), ANSWER);
    assert_eq!(world.engine.pairs(), 1);
}

#[test]
fn who_asks_from_now_on_gets_503_whoever_it_is() {
    let mut world = world();
    world.pair(ID);
    world.drain();
    let wall = world.now.wall;
    let asked = [
        get(ID),
        get(STRANGER),
        "GET / HTTP/1.1\r\nHost: relay\r\n\r\n".to_owned(),
        bound_connect(ID, wall, "0123456789abcdef"),
        bound_connect(STRANGER, wall, "0123456789abcdef"),
        plain_connect(ID, wall),
    ];
    for request in asked {
        let on = world.client_sends(request);
        world.assert_refused(on, "503 Service Unavailable", STOPPING);
    }
}

#[test]
fn held_clients_get_their_503_at_once() {
    let mut world = world();
    world.pair(ID);
    let held = [world.client_sends(get(ID)), world.client_sends(get(ID))];
    world.drain();
    for on in held {
        world.assert_refused(on, "503 Service Unavailable", STOPPING);
    }
}

#[test]
fn a_connection_without_a_request_closes_and_one_with_half_of_it_gets_its_503() {
    let mut world = world();
    let (idle, half) = (world.open(), world.client_sends("GET / HT"));
    world.drain();
    assert_eq!((world.got(idle).as_str(), world.closing(idle)), ("", Some(Close::Linger)));
    world.write(half, "TP/1.1\r\nHost: relay\r\n\r\n");
    world.assert_refused(half, "503 Service Unavailable", STOPPING);
}

#[test]
fn a_connection_kept_after_a_challenge_is_kept_no_more() {
    let mut world = world();
    let ask = "POST / HTTP/1.1\r\nHost: relay\r\nContent-Length: 3\r\n\r\n";
    let answering = world.open();
    world.stall(answering, true);
    world.write(answering, "GET / HTTP/1.1\r\nHost: relay\r\n\r\n");
    let (idle, discarding) = (world.client_sends(format!("{ask}abc")), world.client_sends(ask));
    world.drain();
    assert!(!world.is_open(idle));
    assert!(world.is_open(answering) && world.is_open(discarding));
    world.stall(answering, false);
    world.write(discarding, "abc");
    assert!(!world.is_open(answering) && !world.is_open(discarding));
}

#[test]
fn a_failed_hand_over_finds_nobody_else() {
    let mut world = world();
    world.register(ID);
    let (hidden, client) = world.pair(ID);
    world.drain();
    world.end(hidden, rendezvous_core::machine::End::Reset);
    world.assert_refused(client, "502 Bad Gateway", crate::FAILED);
}

#[test]
fn all_is_over_when_the_last_pair_is_and_patience_ends() {
    use rendezvous_core::machine::End;
    let mut world = world();
    world.register(OTHER);
    world.open();
    let (hidden, client) = world.answered_pair(ID);
    world.drain();
    world.wait_secs(30);
    assert_eq!(world.engine.connections(), 2);
    world.end(hidden, End::Clean);
    world.end(client, End::Clean);
    assert_eq!(world.engine.connections(), 0);
}
