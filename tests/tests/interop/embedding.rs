//! The core without the server: its example is a relay for curl.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::SystemTime;

use rendezvous_core::Id;
use rendezvous_core::registry::Enrolment;
use rendezvous_core::token::{Algorithm, Key};

use crate::curl::text;
use crate::harness::{Case, case};
use crate::hidden::{noise, read_head};
use crate::peers::Peer;
use crate::program::run_with;

#[path = "../../../core/examples/blocking_relay.rs"]
#[allow(dead_code, unreachable_pub, reason = "a program of its own")]
mod blocking_relay;

pub(crate) const CASES: &[Case] =
    &[case("the_example_of_the_core_is_a_relay", &[Peer::Curl], the_example_of_the_core_is_a_relay)];

const ID: &str = "6ba7b810-9dad-41d1-80b4-00c04fd430c8";

fn key() -> Key {
    Key::new(b"a secret of the example".to_vec(), Algorithm::Sha1, 6, 30).expect("a key")
}

fn the_example_of_the_core_is_a_relay() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let relay = listener.local_addr().expect("it is bound");
    let id = Id::parse(ID.as_bytes()).expect("a UUID");
    let ids = vec![Enrolment { plain_tokens: true, ..Enrolment::new(id, key()) }];
    // The thread ends with the test process.
    thread::spawn(move || blocking_relay::serve(listener, ids));

    let hidden = || {
        let wall =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is after 1970").as_secs();
        let token = key().plain(key().step(wall));
        let mut hidden = TcpStream::connect(relay).expect("the relay listens");
        write!(hidden, "CONNECT uuid:{ID}?response={} HTTP/1.1\r\n\r\n", text_of(token.as_bytes()))
            .expect("it reads");
        assert_eq!(text_of(&read_head(&mut hidden)), "HTTP/1.1 200 OK\r\n\r\n");
        hidden
    };
    let curl = |options: &[&str], body: &[u8]| {
        let mut curl = Peer::Curl.command();
        curl.args(["-q", "-sS", "--max-time", "30", "--noproxy", "*", "-u", &format!("{ID}:")]).args(options);
        run_with(curl.arg(format!("http://{relay}/page")), body)
    };

    let mut waiting = hidden();
    let service = thread::spawn(move || {
        let head = text_of(&read_head(&mut waiting));
        waiting.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n").expect("it reads");
        assert_eq!(waiting.read(&mut [0]).expect("a clean end"), 0);
        head
    });
    assert_eq!(text(&curl(&["--digest"], b"")), "hello\n");
    let head = service.join().expect("the service ends");
    assert!(head.starts_with("GET /page HTTP/1.1\r\n") && !head.contains("uthorization"), "{head}");

    // Both halves of the pair are gated: the relay looks for the next request.
    let body = noise(1, 300_000);
    let mut waiting = hidden();
    let len = body.len();
    let service = thread::spawn(move || {
        read_head(&mut waiting);
        let mut received = vec![0; len];
        waiting.read_exact(&mut received).expect("the whole body");
        write!(waiting, "HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n").expect("it reads");
        waiting.write_all(&received).expect("it reads");
    });
    let output = curl(&["--basic", "-H", "Expect:", "--data-binary", "@-"], &body);
    assert!(output.status.success() && output.stdout == body, "{}", output.status);
    service.join().expect("the service ends");
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("it is ASCII")
}
