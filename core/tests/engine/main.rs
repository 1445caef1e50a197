//! The relay's engine, one behaviour per test: inputs, outputs, and that nothing is left at the end.

mod admission;
mod challenge;
mod challenged;
mod deadlines;
mod drain;
mod follow;
mod group;
mod hand_over;
mod held;
#[path = "../common/hello.rs"]
mod hello;
mod ids;
mod limits;
mod pair_ends;
mod pool;
mod proxied;
mod random;
mod raw;
mod register;
mod route;
mod snapshot;
mod steer;
mod take_over;
mod world;

use rendezvous_core::engine::{Config, Transport};
use rendezvous_core::http::date::write_date;
use rendezvous_core::id::Id;
use rendezvous_core::machine::{Close, ConnId};
use rendezvous_core::pair::{HAND_OVER, Limits};
use rendezvous_core::registry::Enrolment;
use rendezvous_core::token::{Algorithm, Challenge, Key};

use crate::world::World;

const ID: Id = Id(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
const OTHER: Id = Id(0xdead_beef_0000_0000_0000_0000_0000_0001);
/// An ID that is not enrolled.
const STRANGER: Id = Id(0x5757_5757_5757_5757_5757_5757_5757_5757);

const DOMAIN: &str = "hidden.example";
const OK: &str = "HTTP/1.1 200 OK\r\n\r\n";
const NOBODY: &str = "no hidden server waits under this ID";
const OFFLINE: &str = "the hidden server is offline";
const BUSY: &str = "all connections of the hidden server are taken";
const FAILED: &str = "the hidden server's connection failed";

/// A response of ID's hidden server.
const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

fn key(fill: u8) -> Key {
    Key::new(vec![fill; 20], Algorithm::Sha256, 8, 30).expect("a key")
}

fn key_of(id: Id) -> Key {
    key(if id == ID { 1 } else { 2 })
}

/// An ID for both kinds of token.
fn enrolled(id: Id, labels: &[&str]) -> Enrolment {
    let labels = labels.iter().map(|&label| label.to_owned()).collect();
    Enrolment { labels, plain_tokens: true, ..Enrolment::new(id, key_of(id)) }
}

fn both() -> Vec<Enrolment> {
    vec![enrolled(ID, &["home"]), enrolled(OTHER, &[])]
}

/// Listener 0 is in clear, listener 1 in TLS.
fn config() -> Config {
    Config {
        listeners: vec![Transport::Plain, Transport::Tls],
        domain: Some(DOMAIN.to_owned()),
        pair: Limits { hand_over: Some(HAND_OVER), ..Limits::default() },
        ..Config::default()
    }
}

fn world() -> World {
    World::new(config(), both())
}

fn world_with(change: impl FnOnce(&mut Config)) -> World {
    let mut config = config();
    change(&mut config);
    World::new(config, both())
}

/// A CONNECT with a token that is bound to this nonce, made at this second.
fn bound_connect(id: Id, wall: u64, nonce: &str) -> String {
    let key = key_of(id);
    let token = key.bound(key.step(wall), nonce.as_bytes());
    let token: String = token.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("CONNECT uuid:{id}?response={token}&nonce={nonce} HTTP/1.1\r\n\r\n")
}

/// A CONNECT with the plain token of this second.
fn plain_connect(id: Id, wall: u64) -> String {
    let key = key_of(id);
    let token = key.plain(key.step(wall));
    let token = std::str::from_utf8(token.as_bytes()).expect("digits");
    format!("CONNECT uuid:{id}?response={token} HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n")
}

fn credential(id: Id) -> String {
    format!("Authorization: Digest username=\"{id}\", realm=\"rendezvous\"\r\n")
}

/// A GET for ID, as a client sends it.
fn get(id: Id) -> String {
    format!("GET / HTTP/1.1\r\nHost: relay\r\n{}\r\n", credential(id))
}

/// The same as the hidden server receives it.
const GET: &str = "GET / HTTP/1.1\r\nHost: relay\r\n\r\n";

fn post(id: Id, body: &str) -> String {
    let (credential, length) = (credential(id), body.len());
    format!("POST / HTTP/1.1\r\nHost: relay\r\n{credential}Content-Length: {length}\r\n\r\n{body}")
}

impl World {
    /// A new connection that sends this.
    fn client_sends(&mut self, bytes: impl AsRef<[u8]>) -> ConnId {
        let on = self.open();
        self.write(on, bytes);
        on
    }

    fn fresh_nonce(&mut self) -> String {
        self.counter += 1;
        format!("nonce-of-test-{:06}", self.counter)
    }

    /// Registers a connection for this ID with a bound token. It waits, unless a client was held for it. Its 200 is
    /// read.
    fn register(&mut self, id: Id) -> ConnId {
        let nonce = self.fresh_nonce();
        let on = self.client_sends(bound_connect(id, self.now.wall, &nonce));
        self.expect(on, OK);
        on
    }

    /// The same with a plain token; it is not eligible for another 100 ms.
    fn register_plain(&mut self, id: Id) -> ConnId {
        let on = self.client_sends(plain_connect(id, self.now.wall));
        self.expect(on, OK);
        on
    }

    /// A pair: the request has reached the hidden server, and no byte of a response has come.
    fn pair(&mut self, id: Id) -> (ConnId, ConnId) {
        let hidden = self.register(id);
        let client = self.client_sends(get(id));
        assert_eq!(self.peer(client), Some(hidden));
        assert_eq!(self.take(hidden), GET);
        (hidden, client)
    }

    /// A pair whose hidden server has begun to answer.
    fn answered_pair(&mut self, id: Id) -> (ConnId, ConnId) {
        let (hidden, client) = self.pair(id);
        self.write(hidden, ANSWER);
        assert_eq!(self.take(client), ANSWER);
        (hidden, client)
    }

    fn date(&self) -> String {
        let mut date = Vec::new();
        write_date(self.now.wall, &mut date);
        String::from_utf8(date).expect("a date")
    }

    /// The whole text of an error response. `extra`: the fields between `Vary` and the end.
    fn answer(&self, status: &str, extra: &str, permanent: bool, diagnostic: &str) -> String {
        let body = format!(r#"{{"error":{{"permanent":{permanent},"diagnostic":"{diagnostic}"}}}}"#) + "\n";
        format!(
            "HTTP/1.1 {status}\r\nDate: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             Cache-Control: no-store\r\nVary: Accept\r\n{extra}\r\n{body}",
            self.date(),
            body.len(),
        )
    }

    /// The challenge in a response to a CONNECT.
    fn challenge(&self, on: ConnId) -> Option<Challenge> {
        let got = self.got(on);
        let line = got.split("\r\n").find_map(|line| line.strip_prefix("Rendezvous-Challenge: "))?;
        Some(Challenge::parse(line.as_bytes()).expect("a challenge"))
    }

    /// The line with the challenge, which a response has if and only if another token could help.
    #[track_caller]
    fn challenge_line(&self, on: ConnId) -> String {
        let challenge = self.challenge(on);
        let helps = ["401", "407", "429"].contains(&&self.got(on)[9..12]);
        assert_eq!(challenge.is_some(), helps, "{}", self.got(on));
        challenge.map(|challenge| format!("Rendezvous-Challenge: {challenge}\r\n")).unwrap_or_default()
    }

    /// The peer received this response and nothing else, and its connection closes as required.
    #[track_caller]
    fn assert_refused(&self, on: ConnId, status: &str, diagnostic: &str) {
        let permanent = ["400", "403", "414", "421", "431", "505"].contains(&&status[..3]);
        let extra = if status.starts_with("503") { "Retry-After: 5\r\n" } else { "" };
        let offline = if diagnostic == OFFLINE { "Hidden-Server: offline\r\n" } else { "" };
        let extra = format!("{offline}{extra}{}Connection: close\r\n", self.challenge_line(on));
        assert_eq!(self.got(on), self.answer(status, &extra, permanent, diagnostic));
        assert_eq!(self.closing(on), Some(Close::Linger));
    }

    /// It received the challenge. Returns whether its connection was kept.
    #[track_caller]
    fn was_challenged(&mut self, on: ConnId) -> bool {
        let text = self.take(on);
        assert!(text.starts_with("HTTP/1.1 401 Unauthorized\r\n"), "{text}");
        assert!(text.contains("\r\nWWW-Authenticate: Digest realm=\"rendezvous\", "), "{text}");
        let kept = self.is_open(on);
        assert_eq!(text.contains("\r\nConnection: close\r\n"), !kept, "{text}");
        if !kept {
            assert_eq!(self.closing(on), Some(Close::Linger));
        }
        kept
    }
}
