//! `agent --to https://…`: a local service that speaks TLS only.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Output};

use crate::harness::{Case, case};
use crate::hidden::page;
use crate::peers::{Peer, script};
use crate::program::{Program, run};
use crate::wire::{Answer, Below};
use crate::world::{Enrolled, Relay, World, basic, lines, rendezvous, start_agent};

pub(crate) const CASES: &[Case] = &[
    case("a_tls_service_is_trusted_by_its_ca", PEERS, || trusted(Trust::Ca)),
    case("a_tls_service_is_trusted_by_its_pin", PEERS, || trusted(Trust::Pin)),
    case("a_tls_service_is_not_verified_with_to_insecure", PEERS, || trusted(Trust::Insecure)),
    case("a_tls_service_that_is_not_trusted_is_502_with_the_reason", PEERS, untrusted),
    case("a_tls_service_gets_an_end_of_stream_and_big_bodies_both_ways", PEERS, big_bodies),
    case("a_tls_service_gets_its_proxy_header_before_tls", PEERS, proxy_header_first),
    case("a_service_without_tls_is_502", &[], no_tls),
];

const PEERS: &[Peer] = &[Peer::Python, Peer::Openssl];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Trust {
    Ca,
    Pin,
    Insecure,
}

/// The service: certificate, key, and address.
struct Service {
    world: World,
    certificate: PathBuf,
    address: SocketAddr,
    _program: Program,
}

impl Service {
    /// `name`: the name in its certificate.
    fn start(name: &str, options: &[&str]) -> Self {
        let world = World::new();
        let (certificate, key) = world.folder.self_signed("nas", name);
        let mut python = Peer::Python.command();
        python.arg(script("tls_service.py")).arg(&certificate).arg(&key).args(options);
        let program = Program::start("TLS service", &mut python);
        let port: u16 = program.pick("its port", |line| line.parse().ok());
        Self { world, certificate, address: SocketAddr::from(([127, 0, 0, 1], port)), _program: program }
    }

    /// The options of an agent, or of `check`, that connects to it.
    fn options(&self, host: &str, trust: Trust) -> Vec<String> {
        let mut options = vec!["--to".to_owned(), format!("https://{host}:{}", self.address.port())];
        match trust {
            Trust::Ca => options.extend(["--to-ca".to_owned(), self.certificate.display().to_string()]),
            Trust::Pin => options.extend(["--to-pin".to_owned(), self.pin()]),
            Trust::Insecure => options.push("--to-insecure".to_owned()),
        }
        options
    }

    /// The manual's command for the pin of a certificate.
    fn pin(&self) -> String {
        let script = "openssl x509 -pubkey -noout -in \"$0\" | openssl pkey -pubin -outform der \
                      | openssl dgst -sha256 -binary | openssl enc -base64";
        let output = run(Command::new("sh").args(["-c", script]).arg(&self.certificate));
        format!("sha256//{}", String::from_utf8_lossy(&output.stdout).trim())
    }

    fn relay(&self) -> (Relay, Enrolled) {
        let home = self.world.enrol("home", &[]);
        (self.world.relay(&[]), home)
    }

    fn agent(&self, relay: &Relay, home: &Enrolled, options: &[String]) -> Program {
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        self.world.agent(relay, home, Below::Tls13, &options)
    }

    fn check(&self, relay: &Relay, home: &Enrolled, options: &[String]) -> Output {
        let ticket = self.world.ticket(relay, home, Below::Tls13);
        run(rendezvous().args(["check", "--ticket"]).arg(ticket).args(options))
    }
}

fn get(id: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: outside.example\r\n{}Content-Length: 0\r\n\r\n", basic(id))
}

fn trusted(trust: Trust) {
    let service = Service::start("DNS:localhost", &[]);
    let (relay, home) = service.relay();
    let options = service.options("localhost", trust);
    let agent = service.agent(&relay, &home, &options);
    let text = relay.ask(get(&home.id)).text();
    // The server name in the handshake is that of `--to`; the Host field is the client's.
    assert!(text.starts_with("localhost outside.example 0 "), "{text}");
    agent.expect_exactly("event=insecure", usize::from(trust == Trust::Insecure));
    let check = service.check(&relay, &home, &options);
    let lines = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(check.status.success() && lines.contains("\nservice-tls  ok      "), "{lines}");
}

fn untrusted() {
    let service = Service::start("DNS:localhost", &[]);
    let (relay, home) = service.relay();
    let other = format!("sha256//{}=", "A".repeat(43));
    for options in [
        // Not signed by a CA of the system; another pin; another name.
        vec!["--to".to_owned(), format!("https://localhost:{}", service.address.port())],
        [service.options("localhost", Trust::Pin)[..2].to_vec(), vec!["--to-pin".to_owned(), other]].concat(),
        service.options("127.0.0.1", Trust::Ca),
    ] {
        let mut agent = service.agent(&relay, &home, &options);
        let answer = relay.ask(get(&home.id));
        assert_eq!(answer.status(), 502, "{options:?}");
        agent.pick("the reason", |line| {
            (line.contains(lines::UNREACHABLE) && line.contains("certificate")).then_some(())
        });
        agent.kill();
        let check = service.check(&relay, &home, &options);
        let lines = String::from_utf8_lossy(&check.stdout).into_owned();
        assert!(!check.status.success() && lines.contains("\nservice-tls  FAILED  "), "{lines}");
    }
}

/// Without a length: the body ends with the client's stream.
fn big_bodies() {
    let service = Service::start("DNS:localhost", &[]);
    let (relay, home) = service.relay();
    let _agent = service.agent(&relay, &home, &service.options("localhost", Trust::Ca));
    let body: Vec<u8> = (0..3_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for below in [Below::Clear, Below::Tls12, Below::Tls13] {
        for length in [format!("Content-Length: {}\r\n", body.len()), String::new()] {
            let mut client = relay.open(below);
            client.send(format!("POST / HTTP/1.1\r\nHost: h\r\n{}{length}\r\n", basic(&home.id)).as_bytes());
            client.send(&body);
            if length.is_empty() {
                client.end();
            }
            let answer = Answer::read(&mut client);
            let start = format!("localhost h {} ", body.len());
            assert!(answer.body.starts_with(start.as_bytes()) && answer.body.ends_with(&body), "{below:?}");
        }
    }
}

fn proxy_header_first() {
    let service = Service::start("DNS:localhost", &["proxy"]);
    let (relay, home) = service.relay();
    let mut options = service.options("localhost", Trust::Ca);
    options.extend(["--send-proxy".to_owned(), "v2".to_owned()]);
    let _agent = service.agent(&relay, &home, &options);
    let text = relay.ask(get(&home.id)).text();
    assert!(text.starts_with("127.0.0.1 outside.example 0 "), "{text}");
}

fn no_tls() {
    let world = World::new();
    let home = world.enrol("home", &[]);
    let relay = world.relay(&[]);
    let ticket = world.ticket(&relay, &home, Below::Tls13);
    let to = format!("https://{}", page());
    let agent = start_agent(&ticket, &["--to", &to, "--to-insecure"]);
    agent.expect_line(lines::WAITING);
    assert_eq!(relay.ask(get(&home.id)).status(), 502);
    agent.expect_line(lines::UNREACHABLE);
}
