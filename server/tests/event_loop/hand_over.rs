//! Rendezvous that fail, and peers that disconnect.

use crate::faulty::Faults;
use crate::peer::{Ending, Kind};
use crate::relay::{Relay, passed_on, request};

#[test]
fn a_hidden_server_that_ends_before_its_first_byte_makes_a_502() {
    let relay = Relay::start();
    for kind in [Kind::Clear, Kind::Tls12, Kind::Tls13] {
        let (hidden, client) = relay.pair(kind, kind);
        hidden.end();
        let (answer, ending) = client.recv_all();
        assert!(answer.starts_with(b"HTTP/1.1 502 Bad Gateway\r\n"));
        assert_eq!(ending, Ending::Clean);
        drop((hidden, client));
        relay.until_empty();
    }
}

#[test]
fn the_next_waiting_connection_gets_a_request_that_the_first_one_dropped() {
    let relay = Relay::start();
    for kind in [Kind::Clear, Kind::Tls13] {
        let spare = relay.hidden(kind);
        let (hidden, client) = relay.pair(kind, kind);
        hidden.reset();
        assert_eq!(spare.recv_exactly(passed_on("GET").len()), passed_on("GET"));
        spare.send(b"answer");
        spare.end();
        client.end();
        assert_eq!(client.recv_all(), (b"answer".to_vec(), Ending::Clean));
        assert_eq!(spare.recv_all(), (Vec::new(), Ending::Clean));
        drop((spare, client));
        relay.until_empty();
    }
}

#[test]
fn bytes_that_a_dead_hidden_server_took_are_not_missing_in_the_next_ones_stream() {
    // The third send of the second connection: its 200, the head, what followed the head.
    let relay = Relay::faulty(Faults { broken_send: Some((2, 3)), ..Faults::default() });
    let spare = relay.hidden(Kind::Clear);
    let hidden = relay.hidden(Kind::Clear);
    let client = relay.connect(Kind::Clear);
    client.send(&[request("GET"), b"behind the head".to_vec()].concat());
    assert_eq!(hidden.recv_exactly(passed_on("GET").len()), passed_on("GET"));
    relay.until("the bytes were taken", |event_loop| event_loop.stats().relayed == 15);
    drop(hidden);
    let (answer, ending) = client.recv_all();
    let text = String::from_utf8(answer).unwrap();
    assert!(text.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{text}");
    assert_eq!(ending, Ending::Clean);
    drop(spare);
}

#[test]
fn bytes_behind_the_head_follow_it() {
    let relay = Relay::start();
    for kind in [Kind::Clear, Kind::Tls12, Kind::Tls13] {
        let hidden = relay.hidden(kind);
        let client = relay.connect(kind);
        client.send(&[request("GET"), b"behind the head".to_vec()].concat());
        client.send(b", and more");
        client.end();
        let all = [passed_on("GET"), b"behind the head, and more".to_vec()].concat();
        assert_eq!(hidden.recv_all(), (all, Ending::Clean));
    }
    relay.until_empty();
}

#[test]
fn a_client_that_goes_away_ends_its_hidden_servers_connection() {
    let relay = Relay::start();
    for kind in [Kind::Clear, Kind::Tls12, Kind::Tls13] {
        let (hidden, client) = relay.pair(kind, kind);
        drop(client);
        let (_, ending) = hidden.recv_all();
        assert_eq!(ending == Ending::Clean, kind == Kind::Clear, "{kind:?}: {ending:?}");
        drop(hidden);
        relay.until_empty();
    }
}

#[test]
fn a_waiting_connection_that_talks_is_closed() {
    let relay = Relay::start();
    for kind in [Kind::Clear, Kind::Tls12, Kind::Tls13] {
        let hidden = relay.hidden(kind);
        hidden.send(b"hello?");
        assert_eq!(hidden.recv_all(), (Vec::new(), Ending::Clean));
        drop(hidden);
        relay.until_empty();
    }
}
