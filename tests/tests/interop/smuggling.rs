//! Requests that two parsers could delimit differently are refused, or forwarded byte for byte. They are never
//! re-framed, and never reach another client's hidden server.

use std::io::Read as _;

use crate::harness::{Case, case};
use crate::wire::{Answer, Below, Wire};
use crate::world::{Enrolled, Relay, World, basic};

pub(crate) const CASES: &[Case] = &[
    case("ambiguous_requests_are_refused", &[], ambiguous_requests_refused),
    case("a_hidden_credential_is_refused", &[], a_hidden_credential_is_refused),
    case("forwarded_requests_are_unchanged", &[], forwarded_requests_are_unchanged),
    case("bytes_after_a_challenged_request_are_not_a_request", &[], nothing_behind_a_challenged_request),
    case(
        "a_challenged_body_is_discarded_to_its_last_byte",
        &[],
        a_challenged_body_is_discarded_to_its_last_byte,
    ),
];

/// A relay, and two hidden servers: the requested one, and the one that an attacker wants to reach.
struct Scene {
    world: World,
    relay: Relay,
    asked: Enrolled,
    other: Enrolled,
}

impl Scene {
    fn new() -> Self {
        let world = World::new();
        let (asked, other) = (world.enrol("asked", &[]), world.enrol("other", &[]));
        let relay = world.relay(&[]);
        Self { world, relay, asked, other }
    }

    fn waiting(&self) -> [Wire; 2] {
        [&self.asked, &self.other].map(|of| self.world.waiting(&self.relay, of, Below::Clear))
    }

    /// Checks that the relay answers itself, and that neither hidden server receives a byte.
    fn is_refused(&self, hidden: [Wire; 2], status: u16, bytes: &[u8]) {
        let mut client = self.relay.open(Below::Clear);
        client.send(bytes);
        let shown = String::from_utf8_lossy(bytes);
        assert_eq!(Answer::read(&mut client).status(), status, "{shown:?}");
        // The relay may have closed by now.
        let _ = client.tcp().shutdown(std::net::Shutdown::Write);
        assert_eq!(client.rest(), b"", "{shown:?}: a second answer");
        for (of, mut hidden) in [&self.asked, &self.other].into_iter().zip(hidden) {
            self.expect_first(of, &mut hidden, &shown);
        }
    }

    /// Checks that the first bytes of this hidden server are the next client's request.
    fn expect_first(&self, of: &Enrolled, hidden: &mut Wire, behind: &str) {
        let mut next = self.relay.open(Below::Clear);
        let request = |fields: &str| format!("GET /next HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
        next.send(request(&basic(&of.id)).as_bytes());
        let mut got = vec![0; request("").len()];
        hidden.read_exact(&mut got).expect("the next request arrives");
        assert_eq!(String::from_utf8_lossy(&got), request(""), "behind {behind:?}");
    }
}

fn ambiguous_requests_refused() {
    let scene = Scene::new();
    let credential = basic(&scene.asked.id);
    let inner = format!("GET /inner HTTP/1.1\r\nHost: h\r\n{}\r\n", basic(&scene.other.id));
    let post = |fields: &str| {
        format!("POST / HTTP/1.1\r\nHost: h\r\n{credential}{fields}\r\n0\r\n\r\n{inner}").into_bytes()
    };
    let get =
        |fields: &str| format!("GET / HTTP/1.1\r\nHost: h\r\n{credential}{fields}\r\n{inner}").into_bytes();
    let table = [
        post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
        post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
        post("Content-Length: 5\r\nTransfer-Encoding: identity\r\n"),
        post("Content-Length: 5\r\nContent-Length: 0\r\n"),
        post("Content-Length: 5, 0\r\n"),
        post("Content-Length: +5\r\n"),
        post("Content-Length: 0x5\r\n"),
        post("Content-Length: -1\r\n"),
        post("Content-Length: 5 5\r\n"),
        post("Content-Length:\r\n"),
        post("Content-Length: 99999999999999999999999999\r\n"),
        post("Content-Length : 5\r\n"),
        post("Transfer-Encoding: xchunked\r\n"),
        post("Transfer-Encoding: chunked, identity\r\n"),
        post("Transfer-Encoding : chunked\r\n"),
        post("Transfer-Encoding:\r\n chunked\r\n"),
        post("Transfer-Encoding: chunked\0\r\n"),
        post("Transfer-Encoding: chunked\n"),
        post("Transfer-Encoding: \x0bchunked\r\n"),
        get("X: a\r\n folded\r\n"),
        get("X: a\r\n\tfolded\r\n"),
        get("X: a\r\n \r\n"),
        get("X: a\nX: b\r\n"),
        get("X: a\rX: b\r\n"),
        get("X: a\0b\r\n"),
        get("X\0: a\r\n"),
        get(": a\r\n"),
        get("X\r\n"),
        get("Host: h\r\n"),
        get("Host: other\r\n"),
        get("hOST:\r\n"),
        format!("GET / HTTP/1.1\nHost: h\n{}\n", credential.trim_end()).into_bytes(),
        format!("GET / HTTP/1.1\r\nHost: h\n{credential}\r\n").into_bytes(),
        format!("GET /\0 HTTP/1.1\r\nHost: h\r\n{credential}\r\n").into_bytes(),
        format!("GET / / HTTP/1.1\r\nHost: h\r\n{credential}\r\n").into_bytes(),
        format!("GET\t/ HTTP/1.1\r\nHost: h\r\n{credential}\r\n").into_bytes(),
        format!("GET / HTTP/1.1\r\n Host: h\r\n{credential}\r\n").into_bytes(),
        format!("GET http://other/ HTTP/1.1\r\nHost: h\r\n{credential}\r\n").into_bytes(),
    ];
    for bytes in table {
        scene.is_refused(scene.waiting(), 400, &bytes);
    }
}

fn a_hidden_credential_is_refused() {
    let scene = Scene::new();
    let (own, other) = (basic(&scene.asked.id), basic(&scene.other.id));
    let value = |line: &str| line.trim_end().trim_start_matches("Authorization: ").to_owned();
    let get = |fields: &str| format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n").into_bytes();
    let table = [
        get(&format!("{own}{other}")),
        get(&format!("{other}{own}")),
        get(&format!("{own}{own}")),
        get(&format!("{own}{}", other.replace("Authorization", "aUTHORIZATION"))),
        get(&format!("{own}Authorization:\r\n")),
        get(&format!("Authorization: Bearer x\r\n{own}")),
        get(&format!("{own}{}", other.replace("Authorization:", "Authorization :"))),
        get(&format!("{own}{}", other.replace("Authorization:", "Authorization\t:"))),
        get(&format!("{own} {other}")),
        get(&format!("X: a\r\n {other}{own}")),
        get(&format!("X: a\n{other}{own}")),
        get(&format!("X: a\r{other}{own}")),
        get(&format!("X: a\0\r\n{own}")),
        get(&own.replace("Authorization: ", "Authorization:\r\n ")),
        get(&own.replace("Basic ", "Basic\r\n ")),
        get(&format!("Authorization: Digest\r\n username=\"{}\"\r\n", scene.other.id)),
        get(&format!("Authorization: {}, {}\r\n", value(&own), value(&other))),
        get(&format!(
            "Authorization: Digest username=\"{}\", username=\"{}\"\r\n",
            scene.asked.id, scene.other.id
        )),
    ];
    for bytes in table {
        scene.is_refused(scene.waiting(), 400, &bytes);
    }
}

fn forwarded_requests_are_unchanged() {
    let scene = Scene::new();
    // The tests of reused connections cover what follows the end of a request.
    let table = [
        "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
        "Transfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nTrailer: x\r\n\r\n".to_owned(),
        "Content-Length: 1\r\n\r\nx".to_owned(),
        "Content-Length: 99999\r\n\r\nno more than this".to_owned(),
        "X-Forwarded-Host: other\r\nX-HTTP-Method-Override: CONNECT\r\n\r\n".to_owned(),
        "Connection: close, Authorization\r\n\r\n".to_owned(),
        // Another protocol.
        "X: y\r\n\r\n\0\r\r\n\n \u{ff}".to_owned(),
    ];
    for rest in table {
        let [mut hidden, mut bystander] = scene.waiting();
        let request = |credential: &str| format!("POST /x HTTP/1.1\r\nhost: h\r\n{credential}{rest}");
        let mut client = scene.relay.open(Below::Clear);
        client.send(request(&basic(&scene.asked.id)).as_bytes());
        client.end();
        assert_eq!(String::from_utf8_lossy(&hidden.rest()), request(""));
        hidden.send(b"any bytes");
        hidden.end();
        assert_eq!(client.rest(), b"any bytes", "{rest:?}");
        scene.expect_first(&scene.other, &mut bystander, &rest);
    }
}

fn nothing_behind_a_challenged_request() {
    let scene = Scene::new();
    let inner = format!("GET /inner HTTP/1.1\r\nHost: h\r\n{}\r\n", basic(&scene.other.id));
    let post = |fields: &str, body: &str| {
        format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n{body}{inner}{inner}").into_bytes()
    };
    let table = [
        (401, post("Transfer-Encoding: chunked\r\n", "0\r\n\r\n")),
        (401, post("Transfer-Encoding: chunked\r\n", "2;a=\"\r\n0\r\n\r\n\"\r\nab\r\n0\r\n\r\n")),
        (401, post("Transfer-Encoding: chunked\r\n", "0;x\n\r\n")),
        (400, post("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n")),
        (401, post("Content-Length: 3\r\nExpect: 100-continue\r\n", "abc")),
        (401, post("Content-Length: 99999999\r\n", "")),
        (401, post("Content-Length: 0\r\nConnection: close\r\n", "")),
        (400, post("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", "")),
        (400, post("Content-Length: 0\r\nContent-Length: 3\r\n", "abc")),
    ];
    for (status, bytes) in table {
        scene.is_refused(scene.waiting(), status, &bytes);
    }
}

fn a_challenged_body_is_discarded_to_its_last_byte() {
    let scene = Scene::new();
    let body = format!("GET /body HTTP/1.1\r\nHost: h\r\n{}\r\n", basic(&scene.other.id));
    let [mut hidden, mut bystander] = scene.waiting();
    let mut client = scene.relay.open(Below::Clear);
    let first = format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let second = |credential: &str| format!("POST /second HTTP/1.1\r\nHost: h\r\n{credential}\r\nbehind it");
    client.send(format!("{first}{}", second(&basic(&scene.asked.id))).as_bytes());
    assert_eq!(Answer::read(&mut client).status(), 401);
    client.end();
    assert_eq!(String::from_utf8_lossy(&hidden.rest()), second(""));
    scene.expect_first(&scene.other, &mut bystander, "a body that looks like a request");
}
