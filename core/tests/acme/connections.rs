//! The client beside another machine: requests on connections, however responses are framed, cut and broken.

use rendezvous_core::acme::{
    Action, Answer, Certificate, Client, Config, Event, Method, Question, Request, State, Url, Wanted, With,
};
use rendezvous_core::connector::{self, Connector};
use rendezvous_core::id::Id;
use rendezvous_core::machine::{
    Close, ConnId, DialFailure, End, Listener, Machine, Output, Secured, TlsFailure, TlsRole,
};
use rendezvous_core::relay_client::{Host, HostPort, Relay};
use rendezvous_core::time::{Now, Span, Time};

use crate::ca::{Ca, Switches, public_key, serial, sign};
use crate::world::{START, directory, names};

/// How responses are written.
#[derive(Clone, Copy, Debug)]
enum Framing {
    Length,
    Chunks,
    UntilEnd,
}

/// What the network does with the first connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Name,
    Refused,
    NotConnected,
    Tls,
    TlsSilent,
    EndsAtOnce,
    EndsInHead,
    EndsInBody,
    NoCloseNotify,
    Silent,
    NotHttp,
    EndlessHead,
    EndlessBody,
    Reset,
    Stalled,
}

struct Wire {
    now: Now,
    machine: With<Connector>,
    ca: Ca,
    framing: Framing,
    piece: usize,
    faults: Vec<Fault>,
    events: Vec<Event>,
    installed: bool,
    /// The sent bytes that are not answered yet.
    sent: Vec<u8>,
    open: Vec<ConnId>,
    closing: Vec<ConnId>,
    peer_closes: bool,
    connections: usize,
    provided: Vec<rendezvous_core::acme::Challenge>,
}

fn connector() -> Connector {
    let place = HostPort { host: Host::Name("relay.example".into()), port: 443 };
    let relay = Relay { place, tls: false, host_header: "relay.example".into() };
    let id = Id::parse(b"12345678-1234-4234-8234-123456789abc").expect("an ID");
    Connector::new(connector::Config::new(relay, id))
}

impl Wire {
    fn new(framing: Framing, piece: usize, faults: &[Fault]) -> Self {
        let now = Now { mono: Time(5), wall: START };
        let mut config = Config::new(directory(), public_key("key"));
        config.agrees_to_terms = true;
        let wanted = Wanted { names: names("relay.example.com"), certificate: None };
        let client = Client::new(config, State::default(), vec![wanted], [3; 32], now);
        Self {
            now,
            machine: With::new(connector(), Some(client), 7),
            ca: Ca::new(Switches::default()),
            framing,
            piece,
            faults: faults.to_vec(),
            events: Vec::new(),
            installed: false,
            sent: Vec::new(),
            open: Vec::new(),
            closing: Vec::new(),
            peer_closes: true,
            connections: 0,
            provided: Vec::new(),
        }
    }

    fn fault(&mut self, of: &[Fault]) -> Option<Fault> {
        let fault = self.faults.first().copied().filter(|it| of.contains(it));
        if fault.is_some() {
            self.faults.remove(0);
        }
        fault
    }

    /// Performs all outputs and actions, then advances the time to the next deadline.
    fn step(&mut self) {
        let mut text = Vec::new();
        match self.machine.poll_output(&mut text) {
            Output::Idle { until, .. } => {
                if let Some(action) = self.machine.poll_action() {
                    return self.act(action);
                }
                if let Some(on) = self.closing.pop() {
                    return self.machine.handle_closed(on, self.now);
                }
                assert!(self.open.len() <= 64, "{} connections", self.open.len());
                let until = until.expect("a client is always due");
                let micros = until.since(self.now.mono).0.max(1);
                self.now.mono = self.now.mono + Span(micros);
                self.now.wall += micros.div_ceil(1_000_000);
                self.machine.handle_timeout(self.now);
            }
            output => self.output(output, &text),
        }
    }

    fn output(&mut self, output: Output, text: &[u8]) {
        let now = self.now;
        match output {
            Output::Resolve { on, host, port } => {
                assert_eq!((host.as_str(), port), ("ca.example", 14_000));
                self.open.push(on);
                if self.fault(&[Fault::Name]).is_some() {
                    return self.machine.handle_dial_failed(on, DialFailure::Name, now);
                }
                let addresses =
                    ["[2001:db8::1]:14000", "192.0.2.1:14000"].map(|it| it.parse().expect("an address"));
                self.machine.handle_resolved(on, &addresses, now);
            }
            Output::Dial { on, .. } => {
                if !self.open.contains(&on) {
                    self.open.push(on);
                }
                self.connections += 1;
                match self.fault(&[Fault::Refused, Fault::NotConnected]) {
                    Some(Fault::Refused) => self.machine.handle_dial_failed(on, DialFailure::Refused, now),
                    Some(_) => {}
                    None => self.machine.handle_connected(on, now),
                }
            }
            Output::StartTls { on, role } => {
                assert_eq!(role, TlsRole::Client { upstream: 7 });
                match self.fault(&[Fault::Tls, Fault::TlsSilent, Fault::EndsAtOnce]) {
                    Some(Fault::Tls) => {
                        self.machine.handle_tls_failed(on, TlsFailure::CertificateIssuer, now);
                    }
                    Some(Fault::TlsSilent) => {}
                    Some(_) => self.machine.handle_end(on, End::Reset, now),
                    None => self.machine.handle_secured(on, Secured::default(), now),
                }
            }
            Output::Send { to, len } => {
                self.sent.extend_from_slice(&text[text.len() - len as usize..]);
                self.respond(to);
            }
            // The peer closes at once or never; if never, the transport closes the connection later.
            Output::Close { on, how: Close::Linger } if !self.peer_closes => assert!(self.open.contains(&on)),
            Output::Close { on, how: Close::Linger | Close::Abort } => {
                self.open.retain(|it| *it != on);
                self.closing.push(on);
            }
            Output::Read { .. } | Output::UserTimeout { .. } | Output::CheckAck { .. } | Output::Event(_) => {
            }
            other => panic!("{other:?}"),
        }
    }

    /// Offers bytes in pieces, as a driver does.
    fn offer(&mut self, on: ConnId, bytes: &[u8]) {
        let mut kept = Vec::new();
        for piece in bytes.chunks(self.piece) {
            kept.extend_from_slice(piece);
            let used = self.machine.handle_bytes(on, &kept, self.now);
            kept.drain(..used);
        }
    }

    fn respond(&mut self, on: ConnId) {
        let request = read_request(&std::mem::take(&mut self.sent));
        self.now.wall += 1;
        self.now.mono = self.now.mono + Span::from_secs(1);
        let response = self.ca.answer(&request, &self.provided, self.now.wall).expect("a response");
        let head = head(&response);
        let body = &response.body;
        let is_head = request.method == Method::Head;
        let (head, body, ends) = match self.framing {
            _ if is_head => (format!("{head}Content-Length: 0\r\n\r\n"), Vec::new(), false),
            Framing::Length => (format!("{head}Content-Length: {}\r\n\r\n", body.len()), body.clone(), false),
            Framing::UntilEnd => (format!("{head}\r\n"), body.clone(), true),
            Framing::Chunks => {
                let mut chunks = Vec::new();
                for chunk in body.chunks(100) {
                    chunks.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                    chunks.extend_from_slice(chunk);
                    chunks.extend_from_slice(b"\r\n");
                }
                chunks.extend_from_slice(b"0\r\n\r\n");
                (format!("{head}Transfer-Encoding: chunked\r\n\r\n"), chunks, false)
            }
        };
        let bytes = [head.as_bytes(), &body].concat();
        let now = self.now;
        let broken = [
            Fault::EndsInHead,
            Fault::EndsInBody,
            Fault::NoCloseNotify,
            Fault::Silent,
            Fault::NotHttp,
            Fault::EndlessHead,
            Fault::EndlessBody,
            Fault::Reset,
            Fault::Stalled,
        ];
        match self.fault(&broken) {
            None => {
                self.offer(on, &bytes);
                if ends {
                    self.machine.handle_end(on, End::Clean, now);
                }
            }
            Some(Fault::EndsInHead) => {
                self.offer(on, &bytes[..20]);
                self.machine.handle_end(on, End::Clean, now);
            }
            Some(Fault::EndsInBody) => {
                let text = [head.replace("Content-Length: ", "Content-Length: 1").as_bytes(), &body].concat();
                self.offer(on, &text);
                self.machine.handle_end(on, End::Clean, now);
            }
            Some(Fault::NoCloseNotify) => {
                self.offer(on, b"HTTP/1.0 200 OK\r\n\r\n{");
                self.machine.handle_end(on, End::Truncated, now);
            }
            Some(Fault::NotHttp) => self.offer(on, b"220 mail.example ESMTP\r\n"),
            Some(Fault::EndlessHead) => {
                let endless = [b"HTTP/1.1 200 OK\r\nA: ".to_vec(), vec![b'x'; 40_000]].concat();
                self.offer(on, &endless);
            }
            Some(Fault::EndlessBody) => {
                let endless = [b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b'x'; 300_000]].concat();
                self.offer(on, &endless);
            }
            Some(Fault::Reset) => {
                self.machine.handle_write_failed(on, now);
                self.machine.handle_end(on, End::Reset, now);
            }
            Some(Fault::Stalled) => self.machine.handle_stalled(on, now),
            Some(_) => {}
        }
    }

    fn act(&mut self, action: Action) {
        let (id, question) = match action {
            Action::Event(event) => return self.events.push(event),
            Action::Withdraw(challenge) => return self.provided.retain(|it| *it != challenge),
            Action::Ask { id, question } => (id, question),
        };
        let answer = match question {
            Question::Sign { bytes, .. } => {
                Answer::Signed(sign(&public_key("key").x, &bytes).try_into().expect("64 bytes"))
            }
            Question::MakeRequest { names } => Answer::Request { der: format!("key {names}").into_bytes() },
            Question::Provide(challenge) => {
                self.provided.push(challenge);
                Answer::Done
            }
            Question::Install { .. } => {
                self.installed = true;
                Answer::Installed(Certificate {
                    not_before: self.now.wall,
                    not_after: self.now.wall + 7_776_000,
                    authority_key_id: b"aki".to_vec(),
                    serial: serial(0),
                })
            }
            _ => Answer::Done,
        };
        self.machine.handle_answer(id, answer, self.now);
    }

    fn until_installed(&mut self) {
        for _ in 0..20_000 {
            if self.installed {
                return;
            }
            self.step();
        }
        panic!("not installed: {:?}", self.events);
    }
}

fn head(response: &rendezvous_core::acme::Response) -> String {
    let mut head = format!("HTTP/1.1 {} Whatever\r\n", response.status);
    let mut field = |name: &str, value: &Option<String>| {
        if let Some(value) = value {
            head += &format!("{name}: {value}\r\n");
        }
    };
    field("Replay-Nonce", &response.nonce);
    field("Location", &response.location);
    head
}

/// A request as it is written.
fn read_request(bytes: &[u8]) -> Request {
    let text = std::str::from_utf8(bytes).expect("UTF-8");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let (line, fields) = head.split_once("\r\n").expect("fields");
    let fields: Vec<&str> = fields.split("\r\n").collect();
    assert!(fields.contains(&"Host: ca.example:14000"), "{fields:?}");
    assert!(
        fields.contains(&"User-Agent: rendezvous") && fields.contains(&"Connection: close"),
        "{fields:?}"
    );
    let parts: Vec<&str> = line.split(' ').collect();
    let method = [Method::Get, Method::Head, Method::Post].into_iter().find(|it| it.as_str() == parts[0]);
    let method = method.expect("a method");
    assert_eq!(parts[2], "HTTP/1.1");
    if method == Method::Post {
        assert!(fields.contains(&"Content-Type: application/jose+json"));
        assert!(fields.contains(&format!("Content-Length: {}", body.len()).as_str()));
    } else {
        assert!(body.is_empty());
    }
    let url = Url::parse(&format!("https://ca.example:14000{}", parts[1])).expect("a URL");
    Request { id: 0, method, url, body: body.into() }
}

#[test]
fn responses_are_read_however_they_are_framed_and_cut() {
    for framing in [Framing::Length, Framing::Chunks, Framing::UntilEnd] {
        for piece in [1, 7, 100_000] {
            let mut wire = Wire::new(framing, piece, &[]);
            wire.until_installed();
            assert_eq!(wire.connections, wire.ca.log.len(), "one connection for each request");
            let failed = wire.events.iter().any(|it| matches!(it, Event::Failed { .. }));
            assert!(!failed, "{framing:?}, {piece}: {:?}", wire.events);
        }
    }
}

#[test]
fn whatever_is_wrong_with_a_connection_the_certificate_comes_in_the_end() {
    use Fault::*;
    let faults = [
        (Name, "could not be reached"),
        (Refused, ""),
        (NotConnected, ""),
        (Tls, ""),
        (TlsSilent, ""),
        (EndsAtOnce, ""),
        (EndsInHead, "ended before"),
        (EndsInBody, "ended before"),
        (NoCloseNotify, "ended before"),
        (Silent, "in time"),
        (NotHttp, "not HTTP"),
        (EndlessHead, "too large"),
        (EndlessBody, "too large"),
        (Reset, "ended before"),
        (Stalled, "ended before"),
    ];
    for (fault, why) in faults {
        let mut wire = Wire::new(Framing::Length, 1_000, &[fault]);
        wire.until_installed();
        let failed: Vec<_> = wire
            .events
            .iter()
            .filter_map(|it| match it {
                Event::Failed { why, .. } => Some(why.clone()),
                _ => None,
            })
            .collect();
        // The second address is used if the first one fails.
        let is_bridged = why.is_empty();
        assert_eq!(failed.len(), usize::from(!is_bridged), "{fault:?}: {failed:?}");
        assert!(failed.iter().all(|it| it.contains(why)), "{fault:?}: {failed:?}");
        assert!(wire.faults.is_empty(), "{fault:?} has happened");
    }
    // Both addresses.
    for fault in [Refused, NotConnected, Tls, TlsSilent, EndsAtOnce] {
        let mut wire = Wire::new(Framing::Length, 1_000, &[fault, fault]);
        wire.until_installed();
        let failed = wire.events.iter().filter(|it| matches!(it, Event::Failed { .. })).count();
        assert_eq!(failed, 1, "{fault:?}: {:?}", wire.events);
    }
}

#[test]
fn peers_that_never_close_leave_a_bounded_number_of_connections() {
    for peer_closes in [true, false] {
        let mut wire = Wire::new(Framing::Length, 1_000, &[]);
        wire.peer_closes = peer_closes;
        wire.ca.switches.validation = crate::ca::Validation::After(40_000);
        wire.ca.switches.no_nonces = true;
        wire.until_installed();
        assert!(wire.connections > 64, "{}", wire.connections);
        while wire.machine.poll_action().is_some() || !wire.closing.is_empty() || !wire.open.is_empty() {
            wire.step();
        }
    }
}

#[test]
fn the_machine_inside_keeps_its_connections() {
    let mut wire = Wire::new(Framing::Length, 1_000, &[]);
    let local = wire.machine.handle_open(Listener(0), "127.0.0.1:5".parse().expect("an address"), wire.now);
    assert!(local.index >= 64);
    assert_eq!(wire.machine.inner().connections(), 2);
    let mut resolved = None;
    let mut text = Vec::new();
    loop {
        match wire.machine.poll_output(&mut text) {
            Output::Idle { .. } => break,
            Output::Resolve { on, host, .. } if host == "relay.example" => resolved = Some(on),
            Output::Read { on, wanted } => assert_eq!((on, wanted), (local, false)),
            Output::Resolve { on, .. } => assert!(on.index < 64),
            other => panic!("{other:?}"),
        }
    }
    let relay = resolved.expect("the connector resolves its relay");
    assert!(relay.index >= 64);
    wire.machine.handle_dial_failed(relay, DialFailure::Name, wire.now);
    assert_eq!(wire.machine.inner().failed(), 1);
    // Without a client it is the machine alone.
    let mut bare = With::new(connector(), None, 0);
    assert!(bare.client().is_none() && bare.poll_action().is_none());
    assert_eq!(bare.poll_output(&mut text), Output::Idle { until: None, why: "nothing" });
    let id = ConnId { index: 3, generation: 1 };
    assert_eq!(bare.handle_bytes(id, b"x", wire.now), 0);
}
