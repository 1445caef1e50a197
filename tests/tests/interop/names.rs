//! Name resolution: name servers that do not answer, and addresses where nothing, or another program, listens.
//!
//! Each case runs again in a network and a mount namespace of its own, with a name server that the test controls.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Case, case, in_own_namespaces};
use crate::hidden::page;
use crate::peers::Peer;
use crate::program::{Program, run};
use crate::wire::{Answer, Below};
use crate::world::{Enrolled, Relay, World, basic, lines, rendezvous, start_agent};

pub(crate) const CASES: &[Case] = &[
    case(SILENT_SERVER, &[Peer::Namespaces], || inside(SILENT_SERVER, the_name_server_stops_answering)),
    case(OTHER_NAME, &[Peer::Namespaces], || inside(OTHER_NAME, one_of_two_relays_does_not_resolve)),
    case(DEAD, &[Peer::Namespaces], || inside(DEAD, the_first_address_drops_everything)),
    case(SILENT, &[Peer::Namespaces], || inside(SILENT, the_first_address_is_silent)),
    case(GARBAGE, &[Peer::Namespaces], || inside(GARBAGE, the_first_address_sends_garbage)),
    case(HALF, &[Peer::Namespaces], || inside(HALF, one_family_is_never_answered)),
    case(LOCALHOST, &[Peer::Namespaces], || inside(LOCALHOST, localhost_is_both_loopback_addresses)),
];

const SILENT_SERVER: &str = "an_agent_serves_while_the_name_server_is_silent";
const OTHER_NAME: &str = "a_relay_whose_name_does_not_resolve_holds_up_no_other";
const DEAD: &str = "a_first_address_that_drops_everything_costs_little";
const SILENT: &str = "a_first_address_that_accepts_and_is_silent_costs_little";
const GARBAGE: &str = "a_first_address_that_talks_garbage_costs_little";
const HALF: &str = "a_name_server_that_never_answers_for_one_family_costs_little";
const LOCALHOST: &str = "localhost_is_ipv6_first_and_then_ipv4";

/// An address without a host: packets to it go to a link with nothing at its other end.
const NOWHERE: &str = "2001:db8::1";
/// A dead address costs a quarter of a second, not a timeout of 10 s. A busy machine needs some more.
const LITTLE: Duration = Duration::from_secs(5);

fn inside(name: &str, case: fn()) {
    in_own_namespaces(&["--net", "--mount"], &format!("names::{name}"), case);
}

/// The answer of the name server for a name.
#[derive(Clone, Debug)]
enum Zone {
    Addresses(Vec<IpAddr>),
    /// It never answers.
    Silent,
    /// These IPv4 addresses; it never answers for IPv6.
    SilentV6(Vec<IpAddr>),
}

/// The name server of the namespace.
#[derive(Clone)]
struct Names(Arc<Mutex<BTreeMap<String, Zone>>>);

impl Names {
    /// Starts it, and configures the system's resolver to use it.
    fn start(world: &World) -> Self {
        for words in [
            "link set lo up",
            "link add nowhere type veth peer name nobody",
            "link set nobody up",
            "link set nowhere up",
            "address add 2001:db8::ff/64 dev nowhere nodad",
            "neighbour add 2001:db8::1 lladdr 02:00:00:00:00:01 dev nowhere nud permanent",
        ] {
            let output = run(Command::new("ip").args(words.split(' ')));
            assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
        }
        let files = [
            ("resolv.conf", "nameserver 127.0.0.1\noptions timeout:30 attempts:2\n"),
            ("nsswitch.conf", "hosts: files dns\n"),
            ("hosts", "127.0.0.1 nobody\n"),
        ];
        for (name, text) in files {
            let ours = world.folder.write(name, text);
            let theirs = format!("/etc/{name}");
            if !fs::exists(&theirs).is_ok_and(|exists| exists) {
                continue;
            }
            let output = run(Command::new("mount").arg("--bind").arg(ours).arg(&theirs));
            assert!(output.status.success(), "mount {name}: {}", String::from_utf8_lossy(&output.stderr));
        }
        let names = Self(Arc::default());
        let socket = UdpSocket::bind("127.0.0.1:53").expect("the port is free in a new namespace");
        let zones = names.clone();
        thread::spawn(move || {
            let mut question = [0; 512];
            while let Ok((len, from)) = socket.recv_from(&mut question) {
                if let Some(answer) = zones.answer(&question[..len]) {
                    drop(socket.send_to(&answer, from));
                }
            }
        });
        names
    }

    fn set(&self, name: &str, zone: Zone) {
        self.lock().insert(name.to_owned(), zone);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Zone>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer to a query (RFC 1035 §4.1), if there is to be one.
    fn answer(&self, question: &[u8]) -> Option<Vec<u8>> {
        let mut name = Vec::new();
        let mut at = 12;
        loop {
            let len = usize::from(*question.get(at)?);
            at += 1;
            if len == 0 {
                break;
            }
            name.push(String::from_utf8_lossy(question.get(at..at + len)?).to_ascii_lowercase());
            at += len;
        }
        let kind = u16::from_be_bytes([*question.get(at)?, *question.get(at + 1)?]);
        let question = question.get(..at + 4)?;
        let zone = self.lock().get(&name.join(".")).cloned();
        let (code, addresses) = match zone {
            Some(Zone::Silent) => return None,
            Some(Zone::SilentV6(_)) if kind == 28 => return None,
            Some(Zone::Addresses(addresses) | Zone::SilentV6(addresses)) => (0, addresses),
            None => (3, Vec::new()),
        };
        let records: Vec<Vec<u8>> = addresses
            .into_iter()
            .filter_map(|address| match (kind, address) {
                (1, IpAddr::V4(address)) => Some(address.octets().to_vec()),
                (28, IpAddr::V6(address)) => Some(address.octets().to_vec()),
                _ => None,
            })
            .collect();
        let mut answer = question.to_vec();
        // A response, recursion as desired and available, one question.
        answer[2..4].copy_from_slice(&[0x81, 0x80 | code]);
        answer[4..6].copy_from_slice(&[0, 1]);
        answer[6..8].copy_from_slice(&u16::try_from(records.len()).ok()?.to_be_bytes());
        answer[8..12].fill(0);
        for record in records {
            answer.extend_from_slice(&[0xc0, 12]);
            answer.extend_from_slice(&kind.to_be_bytes());
            answer.extend_from_slice(&[0, 1, 0, 0, 0, 0]);
            answer.extend_from_slice(&u16::try_from(record.len()).ok()?.to_be_bytes());
            answer.extend_from_slice(&record);
        }
        Some(answer)
    }
}

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// A ticket with the relay's name in it.
fn ticket(world: &World, relay: &Relay, of: &Enrolled, name: &str) -> std::path::PathBuf {
    let url = format!("https://{name}:{}", relay.tls.port());
    world.ticket_with(relay, of, Below::Tls13, |line| {
        Some(if line.starts_with("relay ") { format!("relay {url}") } else { line.to_owned() })
    })
}

fn ask(relay: &Relay, home: &Enrolled) -> Answer {
    relay.ask(format!("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{}\r\n", basic(&home.id)))
}

fn the_name_server_stops_answering() {
    let world = World::new();
    let names = Names::start(&world);
    names.set("relay.test", Zone::Addresses(vec![V4]));
    names.set("service.test", Zone::Addresses(vec![V4]));
    let home = world.enrol("home", &[]);
    let relay = world.relay(&[]);
    let service = format!("service.test:{}", page().port());
    let agent = start_agent(&ticket(&world, &relay, &home, "relay.test"), &["--to", &service]);
    agent.expect_line(lines::WAITING);
    assert_eq!(ask(&relay, &home).status(), 200);
    names.set("relay.test", Zone::Silent);
    names.set("service.test", Zone::Silent);
    for n in 0..200 {
        assert_eq!(ask(&relay, &home).status(), 200, "request {n}");
    }
}

fn one_of_two_relays_does_not_resolve() {
    let world = World::new();
    let names = Names::start(&world);
    names.set("good.test", Zone::Addresses(vec![V4]));
    names.set("bad.test", Zone::Silent);
    let (home, other) = (world.enrol("home", &[]), world.enrol("other", &[]));
    let relay = world.relay(&[]);
    let service = page().to_string();
    let (bad, good) =
        (ticket(&world, &relay, &other, "bad.test"), ticket(&world, &relay, &home, "good.test"));
    let good = good.to_str().expect("a path of ours");
    let agent = start_agent(&bad, &["--to", &service, "--ticket", good, "--to", &service]);
    agent.expect_line(lines::WAITING);
    for n in 0..80 {
        assert_eq!(ask(&relay, &home).status(), 200, "request {n}");
    }
    // The relay's name has not been resolved since.
    assert_eq!(ask(&relay, &other).status(), 503);
}

/// `connect` and `agent` with a relay at 127.0.0.1 whose name resolves to another address first.
fn reaches_the_second(first: IpAddr, port: u16) {
    let world = World::new();
    let names = Names::start(&world);
    reaches(&world, &names, Zone::Addresses(vec![first, V4]), port);
}

fn reaches(world: &World, names: &Names, zone: Zone, port: u16) {
    names.set("relay.test", zone);
    let home = world.enrol("home", &[]);
    let relay = world.relay_at([&format!("127.0.0.1:{port}"), "127.0.0.1:0"], &[]);
    let service = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let at = service.local_addr().expect("it is bound");
    thread::spawn(move || {
        while let Ok((mut stream, _)) = service.accept() {
            stream.write_all(b"hello").expect("it is up");
        }
    });
    let ticket = ticket(world, &relay, &home, "relay.test");
    let started = Instant::now();
    let agent = start_agent(&ticket, &["--stream", &at.to_string()]);
    agent.expect_line(lines::WAITING);
    took(started, "agent");

    let started = Instant::now();
    let mut connect = rendezvous();
    let url = format!("https://relay.test:{}", relay.tls.port());
    connect.args(["connect", &url, &home.id, "--pin", &relay.pin]);
    let (_connect, to, mut from) = Program::start_piped("connect", &mut connect);
    drop(to);
    let mut hello = String::new();
    from.read_to_string(&mut hello).expect("a clean end");
    assert_eq!(hello, "hello");
    took(started, "connect");

    let started = Instant::now();
    let check = run(rendezvous().args(["check", "--ticket"]).arg(&ticket));
    let text = String::from_utf8_lossy(&check.stdout);
    assert!(check.status.success(), "{text}");
    assert!(text.contains(&format!("127.0.0.1:{} accepts connections", relay.tls.port())), "{text}");
    took(started, "check");
}

fn took(started: Instant, what: &str) {
    let took = started.elapsed();
    crate::program::event(format!("{what}: {took:?}"));
    assert!(took < LITTLE, "{what} took {took:?}");
}

fn the_first_address_drops_everything() {
    reaches_the_second(NOWHERE.parse().expect("an address"), 0);
}

fn the_first_address_is_silent() {
    let world = World::new();
    let names = Names::start(&world);
    let other = TcpListener::bind("[::1]:0").expect("loopback has a free port");
    let port = other.local_addr().expect("it is bound").port();
    reaches(&world, &names, Zone::Addresses(vec![V6, V4]), port);
}

fn the_first_address_sends_garbage() {
    let world = World::new();
    let names = Names::start(&world);
    let other = TcpListener::bind("[::1]:0").expect("loopback has a free port");
    let port = other.local_addr().expect("it is bound").port();
    thread::spawn(move || {
        while let Ok((mut stream, _)) = other.accept() {
            drop(stream.write_all(b"220 mail.test ESMTP\r\n\r\n"));
        }
    });
    reaches(&world, &names, Zone::Addresses(vec![V6, V4]), port);
}

fn one_family_is_never_answered() {
    let world = World::new();
    let names = Names::start(&world);
    names.set("relay.test", Zone::SilentV6(vec![V4]));
    let home = world.enrol("home", &[]);
    let relay = world.relay(&[]);
    let started = Instant::now();
    let agent = start_agent(&ticket(&world, &relay, &home, "relay.test"), &["--to", "127.0.0.1:1"]);
    agent.expect_line(lines::WAITING);
    took(started, "agent");
}

fn localhost_is_both_loopback_addresses() {
    let world = World::new();
    // No name server answers, and no file has the name.
    let _names = Names::start(&world);
    let home = world.enrol("home", &[]);
    let relay = world.relay(&[]);
    let v4: SocketAddr = page();
    let v6 = TcpListener::bind("[::1]:0").expect("loopback has a free port");
    let v6_port = v6.local_addr().expect("it is bound").port();
    crate::hidden::page_on(v6);
    for port in [v4.port(), v6_port] {
        let to = format!("localhost:{port}");
        let mut agent = start_agent(&ticket(&world, &relay, &home, "localhost."), &["--to", &to]);
        agent.expect_line(lines::WAITING);
        assert_eq!(ask(&relay, &home).status(), 200, "{to}");
        agent.signal("TERM");
        agent.exit();
    }
}
