//! The relay that cannot read: what clients send end to end is in its memory at no time, nor in its trace, its log, or on
//! one of its links. And a relay of ours that cheats: what it can do is refused, or noticed at the ends.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::{ChildStdin, ChildStdout, Command};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rendezvous_core::id::Id;

use crate::cheat::{Cheat, pin_of};
use crate::harness::{Case, case};
use crate::hidden::{Raw, expect, read_head};
use crate::peers::{Peer, script};
use crate::program::{Program, run};
use crate::raw::{NAME, Sealed, proxy_header};
use crate::wire::{Below, Wire};
use crate::world::{Enrolled, Relay, World, basic, rendezvous, start_agent};

pub(crate) const CASES: &[Case] = &[
    // The memory of another process is read by root alone: the relay lets nobody else.
    case("what_an_agent_terminates_is_nowhere_in_the_relay", ROOT, || blind(Mode::Terminates)),
    case("what_a_service_terminates_is_nowhere_in_the_relay", TLS_SERVICE, || blind(Mode::PassesOn)),
    case("what_connect_sends_end_to_end_is_nowhere_in_the_relay", ROOT, || blind(Mode::Connect)),
    case("what_the_relay_terminates_is_found_by_the_same_search", ROOT, found_otherwise),
    case("a_relay_that_replays_a_client_hello_gets_nowhere", &[], replayed_hello),
    case("a_connector_that_is_handed_to_another_agent_is_refused", &[], other_agent),
    case("half_close_by_name_in_tls_1_2_and_1_3", &[], half_close),
    case("a_relay_that_cuts_a_stream_makes_no_clean_end_of_it", &[], cut_in_the_middle),
];

const ROOT: &[Peer] = &[Peer::Namespaces];
const TLS_SERVICE: &[Peer] = &[Peer::Namespaces, Peer::Python, Peer::Openssl];

const DOMAIN: &str = "relay.test";
/// What is looked for. It is in no command line and no file of the relay's.
const MARKER: &[u8] = b"marker-5b9d02c4e8f1-of-the-client ";
/// How often it is sent each way: more than a record.
const TIMES: usize = 2_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Terminates,
    PassesOn,
    Connect,
}

/// A link of the relay: everything that crosses it, both ways.
struct Link {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Link {
    fn to(relay: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let all = seen.clone();
        thread::spawn(move || {
            for near in listener.incoming() {
                let (Ok(near), Ok(far)) = (near, TcpStream::connect(relay)) else { return };
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { return };
                    let seen = all.clone();
                    thread::spawn(move || carry(from, to, &seen));
                }
            }
        });
        Self { address, seen }
    }

    fn saw(&self, world: &World) -> bool {
        has_marker(world, &self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, seen: &Mutex<Vec<u8>>) {
    let mut bytes = [0; 16_384];
    while let Ok(len) = from.read(&mut bytes) {
        if len == 0 || to.write_all(&bytes[..len]).is_err() {
            break;
        }
        seen.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&bytes[..len]);
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// Whether the marker is among these bytes. grep is faster than a debug build of ours.
fn has_marker(world: &World, bytes: &[u8]) -> bool {
    let file = world.folder.0.join("searched");
    fs::write(&file, bytes).expect("a file can be written");
    let marker = String::from_utf8_lossy(MARKER);
    let status = run(Command::new("grep").args(["-q", "-a", "-F", marker.trim_end()]).arg(&file)).status;
    assert!(matches!(status.code(), Some(0 | 1)), "{status}");
    status.success()
}

/// The memory of a process that it can write to: its heap, its stacks, its buffers.
fn memory_of(program: &Program) -> Vec<u8> {
    let folder = PathBuf::from(format!("/proc/{}", program.pid()));
    let maps = fs::read_to_string(folder.join("maps")).expect("a process that runs");
    let memory = fs::File::open(folder.join("mem")).expect("memory that root can read");
    let mut all = Vec::new();
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (Some(range), Some(rights)) = (words.next(), words.next()) else { continue };
        if !rights.starts_with("rw") {
            continue;
        }
        let (from, to) = range.split_once('-').expect("a range");
        let [from, to] = [from, to].map(|digits| u64::from_str_radix(digits, 16).expect("a number"));
        let mut part = vec![0; usize::try_from(to - from).expect("an address space")];
        // A region may have gone meanwhile.
        if memory.read_exact_at(&mut part, from).is_ok() {
            all.append(&mut part);
        }
    }
    assert!(all.len() > 100_000, "there is more memory than that");
    all
}

/// The marker goes both ways in an exchange of HTTP. The service's connection, which stays open.
fn exchange(client: &mut (impl Read + Write), service: &Raw, fields: &str) -> TcpStream {
    let body = MARKER.repeat(TIMES);
    let request = format!("POST / HTTP/1.1\r\n{fields}Content-Length: {}\r\n\r\n", body.len());
    thread::scope(|scope| {
        let served = scope.spawn(|| {
            let mut service = service.accept();
            read_head(&mut service);
            expect(&mut service, &body);
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            service.write_all(&[answer.as_bytes(), &body].concat()).expect("it takes an answer");
            service
        });
        client.write_all(&[request.as_bytes(), &body].concat()).expect("it takes a request");
        client.flush().expect("it takes a request");
        read_head(client);
        expect(client, &body);
        served.join().expect("the service gets the request")
    })
}

/// The stdio of a program.
struct Piped(ChildStdin, ChildStdout);

impl Read for Piped {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.1.read(into)
    }
}

impl Write for Piped {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.0.write(from)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// A relay with a recorder on each of its links, and a ticket for the one of them.
struct Watched {
    world: World,
    home: Enrolled,
    relay: Relay,
    of_client: Link,
    of_agent: Link,
    ticket: PathBuf,
    trace: PathBuf,
}

impl Watched {
    fn start(enrol: &[&str]) -> Self {
        let world = World::new();
        let home = world.enrol("home", &[&["--label", "home"], enrol].concat());
        let trace = world.folder.0.join("relay.trace");
        let path = trace.display().to_string();
        let relay = world.relay(&["--domain", DOMAIN, "--log", "trace", "--trace", &path]);
        // Without TLS of the relay's: what is on this link is what the relay sends.
        let of_agent = Link::to(relay.clear);
        let ticket = world.ticket_with(&relay, &home, Below::Clear, |line| {
            let is_relay = line.starts_with("relay ");
            Some(if is_relay { format!("relay http://{}", of_agent.address) } else { line.to_owned() })
        });
        let of_client = Link::to(relay.tls);
        Self { world, home, relay, of_client, of_agent, ticket, trace }
    }

    fn agent(&self, options: &[&str]) -> Program {
        let state = self.world.folder.0.join("agent").display().to_string();
        let agent = start_agent(&self.ticket, &[options, &["--state", &state]].concat());
        agent.expect_line("event=waiting");
        agent
    }

    fn is_in_memory(&self) -> bool {
        has_marker(&self.world, &memory_of(&self.relay.program))
    }

    /// The relay is stopped: whether the marker is in its log or its trace.
    fn is_written_down(&mut self) -> bool {
        self.relay.program.signal("TERM");
        assert!(self.relay.program.exit().success());
        let trace = fs::read(&self.trace).expect("a trace");
        assert!(trace.len() > 1_000, "something was recorded");
        let marker = String::from_utf8_lossy(MARKER);
        self.relay.program.lines(marker.trim_end()) > 0 || has_marker(&self.world, &trace)
    }
}

fn blind(mode: Mode) {
    let mut watched = Watched::start(&["--end-to-end"]);
    let service = Raw::start();
    let at = service.address.to_string();
    let host = format!("Host: {NAME}\r\n");
    match mode {
        Mode::Terminates => {
            let _agent = watched.agent(&["--end-to-end", "--to", &at]);
            let mut client = Wire::named(Below::Tls13, watched.of_client.address, NAME);
            let _service = exchange(&mut client, &service, &host);
            assert!(!watched.is_in_memory(), "while the pair is open");
        }
        Mode::PassesOn => {
            let (port, _service) = tls_echo(&watched.world);
            let _agent = watched.agent(&["--tls-to", &format!("127.0.0.1:{port}")]);
            let mut client = Wire::named(Below::Tls13, watched.of_client.address, NAME);
            client.send(&MARKER.repeat(TIMES));
            expect(&mut client, &MARKER.repeat(TIMES));
            assert!(!watched.is_in_memory(), "while the pair is open");
        }
        Mode::Connect => {
            let agent = watched.agent(&["--end-to-end", "--stream", &at]);
            let pin = pin_of(&agent);
            let mut connect = rendezvous();
            connect.args(["connect", &format!("https://{}", watched.of_client.address), &watched.home.id]);
            connect.args(["--pin", &watched.relay.pin, "--end-to-end", &pin]);
            let (_connect, to, from) = Program::start_piped("connect", &mut connect);
            let _service = exchange(&mut Piped(to, from), &service, &host);
            assert!(!watched.is_in_memory(), "while the pair is open");
        }
    }
    watched.relay.program.expect_line("event=pair-ended");
    assert!(!watched.is_in_memory(), "after the pair");
    assert!(!watched.of_client.saw(&watched.world) && !watched.of_agent.saw(&watched.world), "on a link");
    assert!(!watched.is_written_down());
}

/// The search finds what is there: the relay terminates TLS, and the agent's link has none.
fn found_otherwise() {
    let watched = Watched::start(&[]);
    let service = Raw::start();
    let _agent = watched.agent(&["--to", &service.address.to_string()]);
    let mut client = Wire::open(Below::Tls13, watched.of_client.address);
    let fields = format!("Host: relay\r\n{}", basic(&watched.home.id));
    let _service = exchange(&mut client, &service, &fields);
    assert!(watched.is_in_memory(), "the relay's plaintext is not found");
    assert!(watched.of_agent.saw(&watched.world), "what is in clear on a link is not found");
    assert!(!watched.of_client.saw(&watched.world), "the client's link has TLS");
}

/// A TLS service that sends back what it gets.
fn tls_echo(world: &World) -> (u16, Program) {
    let (certificate, key) = world.folder.self_signed("nas", &format!("DNS:{NAME}"));
    let mut python = Peer::Python.command();
    python.arg(script("tls_echo.py")).arg(&certificate).arg(&key);
    let service = Program::start("TLS service", &mut python);
    (service.pick("its port", |line| line.parse().ok()), service)
}

/// A handshake that was recorded opens nothing a second time.
fn replayed_hello() {
    let cheat = Cheat::start(&[]);
    // The client's side of a whole session, as the relay sees it.
    let link = TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = link.local_addr().expect("an address");
    let recorded = thread::spawn(move || {
        let (mut client, _) = link.accept().expect("the client comes");
        let mut agent = cheat.accept();
        agent.write_all(&proxy_header(NAME)).expect("it can be written");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (from, to) = (client.try_clone().expect("a socket"), agent.try_clone().expect("a socket"));
        let all = seen.clone();
        let up = thread::spawn(move || carry(from, to, &all));
        let back = thread::spawn(move || io::copy(&mut agent, &mut client));
        let mut service = cheat.service.accept();
        read_head(&mut service);
        service.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").expect("it takes an answer");
        drop(service);
        up.join().expect("it ends");
        let _ = back.join();
        let sent = seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (cheat, sent)
    });
    let mut client = Wire::named(Below::Tls13, at, NAME);
    client.send(format!("DELETE /all HTTP/1.1\r\nHost: {NAME}\r\n\r\n").as_bytes());
    read_head(&mut client);
    client.end();
    let (cheat, sent) = recorded.join().expect("a session");
    let mut again = cheat.accept();
    again.write_all(&[proxy_header(NAME), sent].concat()).expect("it can be written");
    // The agent answers with keys of its own, and what was recorded fits none of them.
    let mut answer = Vec::new();
    let _ = again.read_to_end(&mut answer);
    assert_eq!(answer.first(), Some(&22), "a handshake: {answer:?}");
    assert!(cheat.service.is_idle(), "the service was reached a second time");
}

/// Two agents with one key: a connector names the ID in its handshake, so that each takes its own alone.
fn other_agent() {
    let cheat = Cheat::start(&[]);
    let pin = pin_of(&cheat.agent);
    let other = Id::parse(b"2f402f80-da50-41e1-9b23-0123456789ab").expect("an ID");
    let mut tls = cheat.tls(&pin, other);
    assert!(tls.read(&mut [0; 10]).is_err(), "it was taken for the other one");
    let mut tls = cheat.tls(&pin, cheat.id());
    tls.write_all(b"x").expect("its own is taken");
    drop(tls);
    assert!(cheat.service.is_idle());
}

/// A client that has ended its side gets the whole answer, and its end.
fn half_close() {
    let service = Raw::start();
    let sealed = Sealed::terminating(&["--to", &service.address.to_string()]);
    for below in [Below::Tls12, Below::Tls13] {
        let mut client = Wire::named(below, sealed.relay.tls, NAME);
        client.send(format!("GET / HTTP/1.0\r\nHost: {NAME}\r\n\r\n").as_bytes());
        client.end();
        let mut server = service.accept();
        read_head(&mut server);
        assert_eq!(server.read_to_end(&mut Vec::new()).expect("a clean end"), 0, "{below:?}");
        let answer = [b"HTTP/1.0 200 OK\r\n\r\n", &MARKER.repeat(TIMES)[..]].concat();
        server.write_all(&answer).expect("it takes an answer");
        drop(server);
        assert!(client.rest() == answer, "{below:?}");
    }
}

/// Whatever the relay ends, and wherever: without the client's own end, the service sees a reset.
fn cut_in_the_middle() {
    let cheat = Cheat::start(&[]);
    for cut in ["at a record", "in a record", "with a reset"] {
        let (mut tls, mut service) = cheat.stream();
        tls.write_all(b"all of it").expect("it takes bytes");
        expect(&mut service, b"all of it");
        if cut == "in a record" {
            // The head of a record of 64 bytes, and half of it.
            tls.sock.write_all(&[&[23, 3, 3, 0, 64][..], &[7; 32]].concat()).expect("it takes bytes");
        }
        if cut == "with a reset" {
            crate::wire::reset(tls.sock.try_clone().expect("a socket"));
            drop(tls);
        } else {
            tls.sock.shutdown(Shutdown::Write).expect("it is open");
        }
        let end = service.read_to_end(&mut Vec::new()).expect_err("no clean end");
        assert_eq!(end.kind(), io::ErrorKind::ConnectionReset, "{cut}");
    }
    // The client's own end is one.
    let (mut tls, mut service) = cheat.stream();
    tls.conn.send_close_notify();
    tls.flush().expect("it takes bytes");
    tls.sock.shutdown(Shutdown::Write).expect("it is open");
    assert_eq!(service.read_to_end(&mut Vec::new()).expect("a clean end"), 0);
}
