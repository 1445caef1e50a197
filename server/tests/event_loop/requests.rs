//! Bytes before the rendezvous: heads in pieces, several heads, and data after heads.

use crate::peer::{Ending, Kind};
use crate::relay::{Relay, registration};

const KINDS: [Kind; 3] = [Kind::Clear, Kind::Tls12, Kind::Tls13];

#[test]
fn bytes_behind_a_registration_are_a_conflict() {
    let relay = Relay::start();
    for kind in KINDS {
        let hidden = relay.connect(kind);
        hidden.send(&[registration(), b"too early".to_vec()].concat());
        let (answer, ending) = hidden.recv_all();
        assert!(answer.starts_with(b"HTTP/1.1 409 Conflict\r\n"), "{:?}", String::from_utf8_lossy(&answer));
        assert_eq!(ending, Ending::Clean);
    }
    relay.until_empty();
}

#[test]
fn a_registration_is_accepted_byte_by_byte() {
    let relay = Relay::start();
    for kind in KINDS {
        let hidden = relay.connect(kind);
        for byte in registration() {
            hidden.send(&[byte]);
        }
        assert!(hidden.recv().unwrap().starts_with(b"HTTP/1.1 200 OK\r\n\r\n"));
    }
    relay.until_empty();
}

#[test]
fn requests_in_a_row_are_answered_one_by_one_where_ever_the_buffer_ends() {
    let relay = Relay::start();
    // The connection is kept open after each challenge. Together the heads are longer than a buffer, whose end is
    // within a head.
    let one = format!("GET / HTTP/1.1\r\nHost: relay\r\nX: {}\r\n\r\n", "x".repeat(7_000)).into_bytes();
    for kind in KINDS {
        let client = relay.connect(kind);
        client.send(&one.repeat(9));
        client.end();
        let (answers, ending) = client.recv_all();
        let text = String::from_utf8(answers).unwrap();
        assert_eq!(text.matches("HTTP/1.1 401 Unauthorized\r\n").count(), 9, "{kind:?}");
        assert_eq!(ending, Ending::Clean);
    }
    relay.until_empty();
}

#[test]
fn the_body_of_a_challenged_request_is_thrown_away_and_the_next_request_heard() {
    let relay = Relay::start();
    for kind in KINDS {
        let client = relay.connect(kind);
        let post = b"POST / HTTP/1.1\r\nHost: relay\r\nContent-Length: 60000\r\n\r\n";
        client.send(&[&post[..], &[b'b'; 60_000], b"GET / HTTP/1.1\r\nHost: relay\r\n\r\n"].concat());
        client.end();
        let (answers, ending) = client.recv_all();
        let text = String::from_utf8(answers).unwrap();
        assert_eq!(text.matches("HTTP/1.1 401 Unauthorized\r\n").count(), 2, "{kind:?}");
        assert_eq!(ending, Ending::Clean);
    }
    relay.until_empty();
}

#[test]
fn an_answer_survives_a_client_that_goes_on_sending() {
    let relay = Relay::start();
    for kind in KINDS {
        let client = relay.connect(kind);
        client.send(b"POST / HTTP/1.1\r\nHost: relay\r\nTransfer-Encoding: chunked\r\n\r\n");
        for _ in 0..50 {
            client.send(&[b'c'; 100_000]);
        }
        client.end();
        let (answer, ending) = client.recv_all();
        assert!(answer.starts_with(b"HTTP/1.1 401 Unauthorized\r\n"), "{kind:?}");
        assert_eq!(ending, Ending::Clean);
    }
    relay.until_empty();
}
