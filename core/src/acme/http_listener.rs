//! HTTP on port 80: responses to a CA's validators (HTTP-01, RFC 8555 §8.3), and redirects to HTTPS for other requests.
//!
//! Each connection sends one request and gets one response. The number of connections is bounded, and so are the length
//! of a head and the time for it. If there are too many connections, those of the addresses with the most are aborted.

use alloc::format;
use alloc::vec::Vec;
use core::net::SocketAddr;

use super::action::{Challenge, Proof};
use crate::account::Owners;
use crate::admission::AdmissionQueue;
use crate::conns::Conns;
use crate::http::date::write_date;
use crate::http::head::{Finder, Found, Head, Limits};
use crate::http::plain_http;
use crate::http::target::RedirectPort;
use crate::machine::{Close, ConnId, DialFailure, End, Listener, Machine, Output, Secured, TlsFailure};
use crate::pair;
use crate::time::{Now, Span};

/// The most connections that a listener can be configured for.
pub(super) const CONNECTIONS_MAX: u32 = 256;
/// Indices of connections are below this: open ones, lingering ones, and those whose abort is in progress.
pub(super) const INDICES: u32 = 2 * CONNECTIONS_MAX;
/// The timeout of a request's head, from the connection on.
const HEAD_TIMEOUT: Span = Span::from_secs(10);
/// This fraction of the connections may linger.
const LINGERING_PART: u32 = 4;
/// The folder of the validators' requests.
const FOLDER: &str = "/.well-known/acme-challenge/";

/// The connections of the HTTP listeners.
#[derive(Debug)]
pub(super) struct HttpListener {
    conns: Conns<State>,
    admission: AdmissionQueue,
    connections_max: u32,
    challenges: Vec<Challenge>,
}

/// An open connection.
#[derive(Debug)]
enum State {
    /// The request's head is awaited.
    Head(Finder),
}

impl HttpListener {
    /// No connections. At most `connections_max` will be open at once, and at most [`CONNECTIONS_MAX`].
    pub(super) fn new(connections_max: u32) -> Self {
        let connections_max = connections_max.clamp(4, CONNECTIONS_MAX);
        let mut conns = Conns::new(pair::Limits::default());
        conns.set_lingering_max(connections_max / LINGERING_PART);
        Self { conns, admission: AdmissionQueue::new(), connections_max, challenges: Vec::new() }
    }

    /// Sets the challenges that validators may request now.
    pub(super) fn set_challenges(&mut self, challenges: &[Challenge]) {
        if self.challenges != challenges {
            self.challenges = challenges.to_vec();
        }
    }

    /// Responds to a request, and closes the connection.
    fn respond(&mut self, on: ConnId, found: Found<'_>, bytes: &[u8], now: Now) {
        let head = plain_http::head_of(found);
        let mut text = Vec::new();
        match head.as_ref().and_then(|head| self.key_authorization(head)) {
            Some(response) => write_response(
                response,
                head.as_ref().is_some_and(|head| head.method == "HEAD"),
                now.wall,
                &mut text,
            ),
            None => plain_http::write(bytes, head.as_ref(), RedirectPort::Default, now.wall, &mut text),
        }
        self.conns.send(on, text);
        self.conns.close(on, Close::Linger, now);
    }

    /// The response for the validator that sends this request. Other requests in the folder are redirected as well: a
    /// hidden server behind HTTPS can have an ACME client of its own.
    fn key_authorization(&self, head: &Head<'_>) -> Option<&str> {
        let is_get = matches!(head.method, "GET" | "HEAD");
        let wanted = head.target.strip_prefix(FOLDER).filter(|_| is_get)?;
        self.challenges.iter().find_map(|challenge| match &challenge.proof {
            Proof::Http01 { token, key_authorization }
                if token == wanted && head.names_host(&challenge.name) =>
            {
                Some(key_authorization.as_str())
            }
            Proof::Http01 { .. } | Proof::TlsAlpn01 { .. } => None,
        })
    }
}

/// Writes the response to a validator.
fn write_response(body: &str, is_head: bool, wall: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 200 OK\r\nDate: ");
    write_date(wall, out);
    let fields = "Content-Type: application/octet-stream\r\nCache-Control: no-store\r\nConnection: close\r\n";
    out.extend_from_slice(format!("\r\nContent-Length: {}\r\n{fields}\r\n", body.len()).as_bytes());
    if !is_head {
        out.extend_from_slice(body.as_bytes());
    }
}

impl Machine for HttpListener {
    fn handle_open(&mut self, _: Listener, from: SocketAddr, now: Now) -> ConnId {
        let has_overflown = self.conns.len() > (self.connections_max + self.connections_max / 2) as usize;
        let on = self.conns.insert(State::Head(Finder::default()), Some(from));
        if has_overflown {
            self.conns.close(on, Close::Abort, now);
            return on;
        }
        self.conns.set_due(on, Some(now.mono + HEAD_TIMEOUT));
        let conns = &self.conns;
        let displaced = self.admission.enter(on, self.connections_max, |on| conns.source_in(on, |_| true));
        for on in displaced {
            self.conns.close(on, Close::Abort, now);
        }
        on
    }

    fn handle_resolved(&mut self, _: ConnId, _: &[SocketAddr], _: Now) {
        debug_assert!(false, "an HTTP listener looks up no names");
    }

    fn handle_connected(&mut self, _: ConnId, _: Now) {
        debug_assert!(false, "an HTTP listener opens no connections");
    }

    fn handle_dial_failed(&mut self, _: ConnId, _: DialFailure, _: Now) {
        debug_assert!(false, "an HTTP listener opens no connections");
    }

    fn handle_secured(&mut self, _: ConnId, _: Secured, _: Now) {
        debug_assert!(false, "an HTTP listener has no TLS");
    }

    fn handle_tls_failed(&mut self, _: ConnId, _: TlsFailure, _: Now) {
        debug_assert!(false, "an HTTP listener has no TLS");
    }

    fn handle_bytes(&mut self, on: ConnId, bytes: &[u8], now: Now) -> usize {
        let Some(State::Head(finder)) = self.conns.state(on) else { return 0 };
        match finder.find(bytes, &Limits::default()) {
            Found::Partial => 0,
            found @ (Found::Complete(_) | Found::Refused(_)) => {
                self.respond(on, found, bytes, now);
                bytes.len()
            }
        }
    }

    fn handle_moved(&mut self, from: ConnId, read: u32, queued: u32, now: Now) {
        let ended = self.conns.moved(from, read, queued, now);
        debug_assert!(ended.is_none(), "an HTTP listener has no pairs");
    }

    fn handle_flushed(&mut self, _: ConnId, _: Now) {}

    fn handle_acked(&mut self, _: ConnId, _: Option<Span>, _: Now) {}

    fn handle_end(&mut self, on: ConnId, how: End, now: Now) {
        let ended = self.conns.end(on, how, now);
        debug_assert!(ended.is_none(), "an HTTP listener has no pairs");
        if self.conns.state(on).is_some() {
            self.conns.close(on, Close::Abort, now);
        }
    }

    fn handle_write_failed(&mut self, on: ConnId, now: Now) {
        self.conns.close(on, Close::Abort, now);
    }

    fn handle_stalled(&mut self, on: ConnId, now: Now) {
        self.conns.close(on, Close::Abort, now);
    }

    fn owners(&self, on: ConnId) -> Owners {
        Owners::of_peer(self.conns.from(on))
    }

    fn handle_closed(&mut self, on: ConnId, _: Now) {
        self.conns.forget(on);
    }

    fn handle_timeout(&mut self, now: Now) {
        while let Some(on) = self.conns.expired(now) {
            self.conns.close(on, Close::Abort, now);
        }
        self.conns.check_invariants();
    }

    fn poll_output(&mut self, text: &mut Vec<u8>) -> Output {
        self.conns.poll(text, |_| "HTTP request")
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::{String, ToString};

    use super::*;
    use crate::time::Time;

    const NAME: &str = "relay.example.com";

    /// A listener with one challenge, and its connections' addresses and outputs.
    struct Fixture {
        listener: HttpListener,
        now: Now,
        aborted: Vec<ConnId>,
        lingering: Vec<ConnId>,
    }

    impl Fixture {
        fn new() -> Self {
            let mut listener = HttpListener::new(64);
            let proof = Proof::Http01 { token: "tok".into(), key_authorization: "tok.thumb".into() };
            let alpn = Proof::TlsAlpn01 { digest: [0; 32] };
            listener.set_challenges(&[
                Challenge { name: NAME.into(), proof: alpn },
                Challenge { name: NAME.into(), proof },
            ]);
            let now = Now { mono: Time(1), wall: 784_111_777 };
            Self { listener, now, aborted: Vec::new(), lingering: Vec::new() }
        }

        fn open(&mut self, address: u32) -> ConnId {
            let from = SocketAddr::from((core::net::Ipv4Addr::from_bits(address), 1_000));
            let on = self.listener.handle_open(Listener(0), from, self.now);
            self.drain();
            on
        }

        /// Performs the outputs, and returns what was sent.
        fn drain(&mut self) -> String {
            let mut sent = Vec::new();
            loop {
                match self.listener.poll_output(&mut sent) {
                    Output::Close { on, how: Close::Abort } => {
                        self.lingering.retain(|it| *it != on);
                        self.aborted.push(on);
                        self.listener.handle_closed(on, self.now);
                    }
                    Output::Close { on, .. } => self.lingering.push(on),
                    Output::Send { .. } => {}
                    Output::Idle { .. } => return String::from_utf8(sent).expect("ASCII"),
                    other => panic!("{other:?}"),
                }
            }
        }

        fn ask(&mut self, request: &str) -> String {
            let on = self.open(1);
            let used = self.listener.handle_bytes(on, request.as_bytes(), self.now);
            assert_eq!(used, request.len(), "nothing is kept of {request:?}");
            self.drain()
        }

        fn wait(&mut self, span: Span) {
            self.now.mono = self.now.mono + span;
            self.listener.handle_timeout(self.now);
            self.drain();
        }
    }

    fn request(target: &str, host: &str) -> String {
        format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")
    }

    /// The value of `Location`; empty without one.
    fn location(response: &str) -> &str {
        response.lines().find_map(|line| line.strip_prefix("Location: ")).unwrap_or_default()
    }

    #[test]
    fn a_validator_gets_the_key_authorization_of_its_token_and_name() {
        let mut fixture = Fixture::new();
        for host in [NAME, "RELAY.example.com", "relay.example.com:80", "relay.example.com."] {
            let response = fixture.ask(&request("/.well-known/acme-challenge/tok", host));
            assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{host}: {response}");
            assert!(response.ends_with("\r\n\r\ntok.thumb"), "{host}: {response}");
        }
        let head = request("/.well-known/acme-challenge/tok", NAME).replace("GET", "HEAD");
        let response = fixture.ask(&head);
        assert!(response.contains("Content-Length: 9\r\n") && response.ends_with("\r\n\r\n"), "{response}");
        fixture.listener.set_challenges(&[]);
        let response = fixture.ask(&request("/.well-known/acme-challenge/tok", NAME));
        assert!(response.starts_with("HTTP/1.1 308 "), "{response}");
    }

    #[test]
    fn all_other_requests_are_redirected_to_the_same_host_and_target() {
        let mut fixture = Fixture::new();
        for (target, host, to) in [
            ("/", NAME, "https://relay.example.com/"),
            ("/a?b=%20c", "home.relay.example.com:80", "https://home.relay.example.com/a?b=%20c"),
            ("/", "192.0.2.1:80", "https://192.0.2.1/"),
            ("/", "[2001:db8::1]:80", "https://[2001:db8::1]/"),
            (
                "/.well-known/acme-challenge/other",
                NAME,
                "https://relay.example.com/.well-known/acme-challenge/other",
            ),
            (
                "/.well-known/acme-challenge/tok?x",
                NAME,
                "https://relay.example.com/.well-known/acme-challenge/tok?x",
            ),
            (
                "/.well-known/acme-challenge/t%6Fk",
                NAME,
                "https://relay.example.com/.well-known/acme-challenge/t%6Fk",
            ),
            (
                "/.well-known/acme-challenge/tok",
                "other.example",
                "https://other.example/.well-known/acme-challenge/tok",
            ),
            ("//other.example/", NAME, "https://relay.example.com//other.example/"),
        ] {
            let response = fixture.ask(&request(target, host));
            assert!(response.starts_with("HTTP/1.1 308 "), "{target} {host}: {response}");
            assert_eq!(location(&response), to);
        }
    }

    #[test]
    fn requests_that_cannot_be_redirected_are_refused_and_nothing_of_them_is_repeated() {
        let mut fixture = Fixture::new();
        for request in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: relay.example.com\r\nContent-Length: 5\r\n\r\nhello",
            "CONNECT relay.example.com:443 HTTP/1.1\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: relay.example.com\r\n\r\n",
            "GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: user@evil.example\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: evil.example/path\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: evil.example\\\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: \"><script>evil\r\n\r\n",
            "GET / HTTP/1.1\nHost: relay.example.com\n\n",
            "GET /\u{e9} HTTP/1.1\r\nHost: relay.example.com\r\n\r\n",
            "\u{16}\u{3}\u{1}\u{2}",
        ] {
            let response = fixture.ask(request);
            assert!(response.starts_with("HTTP/1.1 400 "), "{request:?}: {response}");
            assert!(!response.contains("evil") && location(&response).is_empty(), "{response}");
        }
        let long = format!("GET / HTTP/1.1\r\nHost: relay.example.com\r\nX: {}", "x".repeat(16 << 10));
        assert!(fixture.ask(&long).starts_with("HTTP/1.1 400 "));
    }

    #[test]
    fn a_request_that_is_sent_slowly_ends_at_its_deadline_whatever_the_pieces() {
        let mut fixture = Fixture::new();
        let on = fixture.open(1);
        let text = request("/.well-known/acme-challenge/tok", NAME);
        for len in 1..text.len() {
            assert_eq!(fixture.listener.handle_bytes(on, &text.as_bytes()[..len], fixture.now), 0, "{len}");
            assert_eq!(fixture.drain(), "");
        }
        let slow = fixture.open(2);
        let _ = fixture.listener.handle_bytes(on, text.as_bytes(), fixture.now);
        assert!(fixture.drain().ends_with("tok.thumb"));
        for second in 1..10 {
            fixture.wait(Span::from_secs(1));
            assert!(!fixture.aborted.contains(&slow), "after {second} s");
            assert_eq!(fixture.listener.handle_bytes(slow, &text.as_bytes()[..second], fixture.now), 0);
        }
        fixture.wait(Span::from_secs(1));
        assert!(fixture.aborted.contains(&slow));
    }

    #[test]
    fn a_stranger_with_many_connections_displaces_its_own_and_no_validator() {
        let mut fixture = Fixture::new();
        let validators: Vec<_> = (1..=5).map(|address| fixture.open(address)).collect();
        for _ in 0..2_000 {
            let on = fixture.open(99);
            assert!(on.index < INDICES);
            assert!(fixture.listener.conns.len() <= 64 + 32 + 1, "{}", fixture.listener.conns.len());
        }
        for on in validators {
            let text = request("/.well-known/acme-challenge/tok", NAME);
            assert!(!fixture.aborted.contains(&on));
            let _ = fixture.listener.handle_bytes(on, text.as_bytes(), fixture.now);
            assert!(fixture.drain().ends_with("tok.thumb"));
        }
        // One that comes now is answered as well.
        let response = fixture.ask(&request("/.well-known/acme-challenge/tok", NAME));
        assert!(response.ends_with("tok.thumb"), "{response}");
    }

    #[test]
    fn peers_that_never_close_hold_a_bounded_number_of_connections() {
        let mut fixture = Fixture::new();
        for address in 0..1_000 {
            let on = fixture.open(address);
            let text = request("/", NAME).to_string();
            let _ = fixture.listener.handle_bytes(on, text.as_bytes(), fixture.now);
            fixture.drain();
            assert!(fixture.lingering.len() <= 16, "{}", fixture.lingering.len());
        }
        fixture.wait(Span::from_secs(60));
        assert_eq!(fixture.listener.conns.len(), 0);
    }

    #[test]
    fn peers_that_end_or_reset_before_their_request_are_forgotten() {
        let mut fixture = Fixture::new();
        for how in [End::Clean, End::Truncated, End::Reset] {
            let on = fixture.open(1);
            let _ = fixture.listener.handle_bytes(on, b"GET / HT", fixture.now);
            fixture.listener.handle_end(on, how, fixture.now);
            fixture.drain();
        }
        let on = fixture.open(1);
        fixture.listener.handle_stalled(on, fixture.now);
        let on = fixture.open(1);
        fixture.listener.handle_write_failed(on, fixture.now);
        fixture.drain();
        assert_eq!(fixture.listener.conns.len(), 0);
    }
}
