//! Clients that reuse one connection for requests to several hidden servers, in a simulated world: each request reaches
//! the hidden server that it names, and each response comes from there, in order.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::rc::Rc;

use rendezvous_core::engine::{self, Transport};
use rendezvous_core::machine::End;
use rendezvous_core::time::{Span, Time};

use crate::actors::{Actor, Channel, Received, Tls, bound_registration, field, key_of};
use crate::model::ByteLedger;
use crate::plan::id;
use crate::rng::Rng;
use crate::run::{Run, SIZES, relay_address};
use crate::secured::Secured;
use crate::sim_net::{Faults, ProcessId, World};

/// Number of hidden servers.
const SITES: u64 = 3;
/// Waiting connections of each hidden server.
const POOL: usize = 4;
/// Clients of one run.
const CLIENTS: u64 = 3;
/// Requests of one client.
const REQUESTS: u64 = 12;
/// The longest body, in bytes.
const BODY_MAX: u64 = 20_000;
/// All requests are answered within this time.
const TIME_MAX: Span = Span::from_secs(120);
/// Contents of a body that must not be parsed as a head.
const DECOY: &str =
    "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nGET /decoy HTTP/1.1\r\nHost: relay\r\nX-For: 99\r\n\r\n";

/// How a body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    None,
    Length(usize),
    Chunked(usize),
    /// Of a response: by the end of the connection.
    Close(usize),
}

/// One request, and the response that it asks for.
#[derive(Clone, Copy, Debug)]
struct Request {
    number: u64,
    site: u64,
    method: &'static str,
    body: Body,
    status: u16,
    /// An interim response comes first.
    interim: bool,
    answer: Body,
}

impl Request {
    fn draw(number: u64, rng: &mut Rng) -> Self {
        let length = |rng: &mut Rng| rng.length(BODY_MAX) as usize;
        let method = ["GET", "POST", "HEAD"][rng.below(3) as usize];
        let body = match (method, rng.below(2)) {
            ("POST", 0) => Body::Length(length(rng)),
            ("POST", _) => Body::Chunked(length(rng)),
            _ => Body::None,
        };
        let status = [200, 200, 204, 304][rng.below(4) as usize];
        let answer = match rng.below(8) {
            _ if status != 200 => Body::None,
            0 => Body::Close(length(rng)),
            1..4 => Body::Chunked(length(rng)),
            _ => Body::Length(length(rng)),
        };
        let interim = rng.below(5) == 0;
        Self { number, site: rng.below(SITES), method, body, status, interim, answer }
    }

    fn write(&self, out: &mut Vec<u8>) {
        let mut head = format!(
            "{} /{} HTTP/1.1\r\nHost: relay\r\nX-Request: {}\r\nX-For: {}\r\nAuthorization: Digest username=\"{}\"\r\n",
            self.method,
            self.number,
            self.number,
            self.site,
            id(self.site)
        );
        write_body_fields(&mut head, self.body);
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(b"\r\n");
        write_body(out, self.body);
    }

    fn write_answer(&self, out: &mut Vec<u8>) {
        if self.interim {
            out.extend_from_slice(b"HTTP/1.1 103 Early Hints\r\nX-Early: 1\r\n\r\n");
        }
        let mut head = format!(
            "HTTP/1.1 {} Fine\r\nX-Request: {}\r\nX-From: {}\r\n",
            self.status, self.number, self.site
        );
        write_body_fields(&mut head, self.answer);
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(b"\r\n");
        if self.method != "HEAD" {
            write_body(out, self.answer);
        }
    }

    /// Whether the end of the connection is the end of its response.
    fn ends_connection(&self) -> bool {
        matches!(self.answer, Body::Close(_))
    }
}

fn write_body_fields(head: &mut String, body: Body) {
    let _ = match body {
        Body::None => Ok(()),
        Body::Length(length) => write!(head, "Content-Length: {length}\r\n"),
        Body::Chunked(_) => write!(head, "Transfer-Encoding: chunked\r\n"),
        Body::Close(_) => write!(head, "Connection: close\r\n"),
    };
}

fn write_body(out: &mut Vec<u8>, body: Body) {
    match body {
        Body::None => {}
        Body::Length(length) | Body::Close(length) => out.extend(DECOY.bytes().cycle().take(length)),
        Body::Chunked(length) => {
            let bytes: Vec<u8> = DECOY.bytes().cycle().take(length).collect();
            for chunk in bytes.chunks(777) {
                out.extend_from_slice(format!("{:x};decoy=1\r\n", chunk.len()).as_bytes());
                out.extend_from_slice(chunk);
                out.extend_from_slice(b"\r\n");
            }
            out.extend_from_slice(b"0\r\nX-Trailer: 1\r\n\r\n");
        }
    }
}

/// Takes this many bytes of a body from the front, once it is complete.
fn take_body(bytes: &mut Vec<u8>, body: Body) -> bool {
    let whole = match body {
        Body::None | Body::Close(_) => 0,
        Body::Length(length) => length,
        Body::Chunked(length) => {
            let mut text = Vec::new();
            write_body(&mut text, Body::Chunked(length));
            text.len()
        }
    };
    let is_whole = bytes.len() >= whole;
    if is_whole {
        bytes.drain(..whole);
    }
    is_whole
}

/// Takes a head from the front, once it is complete.
fn take_head(bytes: &mut Vec<u8>) -> Option<String> {
    let end = bytes.windows(4).position(|it| it == b"\r\n\r\n")? + 4;
    Some(String::from_utf8(bytes.drain(..end).collect()).expect("a head is text"))
}

fn number(head: &str, name: &str) -> Option<u64> {
    field(head, name).map(|value| value.parse().expect("it is a number"))
}

/// A connection with its received and unsent bytes.
struct Line {
    channel: Channel,
    received: Vec<u8>,
    unsent: Vec<u8>,
    /// The writing side ends when everything is sent.
    ends: bool,
    has_ended: bool,
    /// How the peer's side ended.
    eof: Option<End>,
}

impl Line {
    fn new(channel: Channel) -> Self {
        Self { channel, received: Vec::new(), unsent: Vec::new(), ends: false, has_ended: false, eof: None }
    }

    /// Sends and receives what is possible. Sends in pieces of random length.
    fn exchange(&mut self, who: ProcessId, world: &mut World, rng: &mut Rng) {
        while !self.unsent.is_empty() {
            let piece = self.unsent.len().min(1 + rng.length(5_000) as usize);
            let sent = self.channel.send(world, &self.unsent[..piece]);
            if sent == 0 {
                break;
            }
            self.unsent.drain(..sent);
            if rng.below(3) == 0 {
                world.sleep_until(who, world.now() + Span::from_millis(rng.between(1, 20)));
                break;
            }
        }
        if self.ends && !self.has_ended && self.unsent.is_empty() {
            self.has_ended = self.channel.end_write(world, true);
        }
        let mut buffer = [0; 4_096];
        while self.eof.is_none() {
            match self.channel.recv(world, &mut buffer) {
                Received::Bytes(n) => self.received.extend_from_slice(&buffer[..n]),
                Received::Nothing => break,
                Received::End(how) => self.eof = Some(how),
            }
        }
    }
}

/// The requests of all clients, and what happened to them.
struct Book {
    requests: Vec<Request>,
    /// How often each request reached its hidden server.
    served: Vec<u32>,
}

/// A hidden server that keeps connections open and sends the responses that the requests ask for.
struct Site {
    number: u64,
    book: Rc<RefCell<Book>>,
    tls: Option<Tls>,
    rng: Rng,
    lines: Vec<(Line, Stage)>,
    nonce: u64,
    over: bool,
}

#[derive(Clone, Copy)]
enum Stage {
    Registering,
    Waiting,
    /// Between two requests.
    Idle,
    /// The body of this request is incomplete.
    InBody(Request),
    Done,
}

impl Site {
    fn register(&mut self, who: ProcessId, world: &mut World) {
        let waits = |(_, stage): &&(Line, Stage)| matches!(stage, Stage::Registering | Stage::Waiting);
        while !self.over && self.lines.iter().filter(waits).count() < POOL {
            let ep = world.connect(who, relay_address()).expect("the relay is there");
            let mut line = Line::new(Channel::new(ep, self.tls.as_ref()));
            self.nonce += 1;
            let step = key_of(id(self.number)).step(world.clocks(who).wall);
            let nonce = format!("nonce-of-site-{}-{:012}", self.number, self.nonce);
            line.unsent = bound_registration(id(self.number), step, &nonce).into_bytes();
            self.lines.push((line, Stage::Registering));
        }
    }

    /// Takes the next step with the received bytes. Returns false if more are needed.
    fn step(&self, line: &mut Line, stage: &mut Stage) -> bool {
        match *stage {
            Stage::Registering => {
                let Some(head) = take_head(&mut line.received) else { return false };
                assert!(head.starts_with("HTTP/1.1 200"), "{head}");
                *stage = Stage::Waiting;
            }
            Stage::Waiting | Stage::Idle => {
                let Some(head) = take_head(&mut line.received) else { return false };
                assert_eq!(number(&head, "X-For"), Some(self.number), "misled: {head}");
                let is_first = matches!(stage, Stage::Waiting);
                assert!(!is_first || !head.contains("Authorization"), "the credential is forwarded: {head}");
                let which = number(&head, "X-Request").expect("a request has a number");
                *stage = Stage::InBody(self.book.borrow().requests[which as usize]);
            }
            Stage::InBody(request) => {
                if !take_body(&mut line.received, request.body) {
                    return false;
                }
                self.book.borrow_mut().served[request.number as usize] += 1;
                request.write_answer(&mut line.unsent);
                line.ends = request.ends_connection();
                *stage = if line.ends { Stage::Done } else { Stage::Idle };
            }
            Stage::Done => return false,
        }
        true
    }
}

impl Actor for Site {
    fn act(&mut self, who: ProcessId, world: &mut World, _: &mut ByteLedger) {
        self.register(who, world);
        let mut lines = std::mem::take(&mut self.lines);
        for (line, stage) in &mut lines {
            line.exchange(who, world, &mut self.rng);
            while self.step(line, stage) {}
            line.exchange(who, world, &mut self.rng);
            line.ends |= line.eof.is_some();
        }
        lines.retain_mut(|(line, _)| {
            let stays = !(line.eof.is_some() && line.has_ended);
            if !stays {
                line.channel.close(world);
                world.schedule(who);
            }
            stays
        });
        self.lines = lines;
    }

    fn retire(&mut self) {
        self.over = true;
    }

    fn leave(&mut self, world: &mut World) {
        self.over = true;
        for (mut line, _) in std::mem::take(&mut self.lines) {
            line.channel.abort(world);
        }
    }

    fn is_done(&self) -> bool {
        true
    }
}

/// A client that sends all its requests on one connection as long as possible.
struct Reuser {
    tls: Option<Tls>,
    rng: Rng,
    begins: Time,
    /// It pipelines requests.
    pipelines: bool,
    /// Unanswered requests, in order.
    open: VecDeque<Request>,
    /// How many of them are sent on this connection.
    sent: usize,
    line: Option<Line>,
    /// Connections that it needed.
    connections: u32,
    over: bool,
}

impl Reuser {
    fn send_requests(&mut self, line: &mut Line) {
        let most = if self.pipelines { self.open.len() } else { 1 };
        while self.sent < most.min(self.open.len()) {
            self.open[self.sent].write(&mut line.unsent);
            self.sent += 1;
        }
    }

    /// Takes a response. Returns false if more bytes are needed.
    fn take(&mut self, line: &mut Line) -> bool {
        let Some(&request) = self.open.front().filter(|_| self.sent > 0) else {
            assert!(line.received.is_empty(), "a response to no request");
            return false;
        };
        let mut rest = line.received.clone();
        let Some(head) = take_head(&mut rest) else { return false };
        if head.starts_with("HTTP/1.1 1") {
            line.received = rest;
            return true;
        }
        assert_eq!(number(&head, "X-Request"), Some(request.number), "{request:?}: {head}");
        assert_eq!(number(&head, "X-From"), Some(request.site), "{request:?}: {head}");
        let body = if request.method == "HEAD" { Body::None } else { request.answer };
        if !take_body(&mut rest, body) || (matches!(body, Body::Close(_)) && line.eof.is_none()) {
            return false;
        }
        if let Body::Close(length) = body {
            assert_eq!((rest.len(), line.eof), (length, Some(End::Clean)), "{request:?}");
            rest.clear();
        }
        line.received = rest;
        self.open.pop_front();
        self.sent -= 1;
        true
    }
}

impl Actor for Reuser {
    fn act(&mut self, who: ProcessId, world: &mut World, _: &mut ByteLedger) {
        if self.over {
            return;
        }
        if world.now() < self.begins {
            return world.sleep_until(who, self.begins);
        }
        let mut line = match self.line.take() {
            Some(line) => line,
            None => {
                let ep = world.connect(who, relay_address()).expect("the relay is there");
                self.connections += 1;
                self.sent = 0;
                Line::new(Channel::new(ep, self.tls.as_ref()))
            }
        };
        loop {
            self.send_requests(&mut line);
            line.exchange(who, world, &mut self.rng);
            if !self.take(&mut line) {
                break;
            }
        }
        if self.open.is_empty() || line.eof.is_some() {
            line.channel.close(world);
            self.over = self.open.is_empty();
            world.schedule(who);
        } else {
            self.line = Some(line);
        }
    }

    fn retire(&mut self) {}

    fn leave(&mut self, world: &mut World) {
        if let Some(mut line) = self.line.take() {
            line.channel.abort(world);
        }
        self.over = true;
    }

    fn is_done(&self) -> bool {
        self.over
    }
}

/// The result of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reuse {
    /// Requests that were answered.
    pub requests: u64,
    /// Connections that the clients needed.
    pub connections: u32,
    /// Pairs that the relay made.
    pub pairs: usize,
}

/// Runs clients that send requests to several hidden servers over one connection each.
///
/// # Panics
/// A request reached another hidden server than it names, was not answered, or was answered by another.
#[must_use]
pub fn run(seed: u64, tls: bool, secured: &Secured) -> Reuse {
    let mut rng = Rng::new(seed);
    let faults = Faults {
        latency_max: Span::from_millis(rng.between(1, 30)),
        // With less room, a TLS handshake exceeds its timeout.
        room_max: 2_000 + rng.length(40_000) as usize,
        ..Faults::default()
    };
    let mut run = Run::new(seed, faults);
    let transport = if tls { Transport::Tls } else { Transport::Plain };
    let config = engine::Config { listeners: vec![transport], ..engine::Config::default() };
    let ids: Vec<_> = (0..SITES).map(id).collect();
    run.start_relay(config, SIZES, secured.server(tls), &ids);
    let requests: Vec<_> = (0..CLIENTS * REQUESTS).map(|number| Request::draw(number, &mut rng)).collect();
    let served = vec![0; requests.len()];
    let book = Rc::new(RefCell::new(Book { requests: requests.clone(), served }));
    for number in 0..SITES {
        let site = Site {
            number,
            book: Rc::clone(&book),
            tls: secured.client(tls),
            rng: rng.fork(),
            lines: Vec::new(),
            nonce: 0,
            over: false,
        };
        run.add(site, None);
    }
    run.wait(Span::from_secs(2));
    let begins = run.now();
    let mut clients = Vec::new();
    for own in requests.chunks(REQUESTS as usize) {
        let client = Rc::new(RefCell::new(Reuser {
            tls: secured.client(tls),
            rng: rng.fork(),
            begins: begins + Span::from_millis(rng.below(100)),
            pipelines: rng.below(2) == 0,
            open: own.iter().copied().collect(),
            sent: 0,
            line: None,
            connections: 0,
            over: false,
        }));
        run.add(Rc::clone(&client), None);
        clients.push(client);
    }
    let in_time = run.until_done(begins + TIME_MAX);
    for client in &clients {
        let client = client.borrow();
        assert!(in_time, "seed {seed}: {:?} is not answered", client.open.front());
    }
    let pairs = run.relay.as_ref().map_or(0, |relay| {
        relay
            .events
            .iter()
            .filter(|event| matches!(event, rendezvous_core::event::Event::Paired { .. }))
            .count()
    });
    let reuse = Reuse {
        requests: book.borrow().served.iter().map(|times| u64::from(*times > 0)).sum(),
        connections: clients.iter().map(|client| client.borrow().connections).sum(),
        pairs,
    };
    assert_eq!(reuse.requests, CLIENTS * REQUESTS, "seed {seed}");
    run.retire();
    run.leave();
    run.wait(Span::from_secs(100));
    run.check_empty();
    reuse
}
