//! Raw pairs: the relay routes clients by the ClientHello or by the port, and cannot read what they send.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Command;

use crate::cheat::Cheat;
use crate::curl::text;
use crate::forwarded::nginx;
use crate::harness::{Case, case};
use crate::hello::hello;
use crate::hidden::{Raw, expect, noise, page, sha256};
use crate::peers::{Peer, script};
use crate::program::{Program, run};
use crate::wire::{Answer, Below};
use crate::world::{Enrolled, Relay, World, lines, listening_at, rendezvous};

pub(crate) const CASES: &[Case] = &[
    case("a_page_whose_tls_the_agent_terminates", &[Peer::Curl], page_by_name),
    case("a_service_that_terminates_tls_itself", &[Peer::Curl, Peer::Python, Peer::Openssl], tls_to),
    case("large_bodies_arrive_completely_both_ways", &[Peer::Curl], large_bodies),
    case("an_end_to_end_hidden_server_is_reached_only_end_to_end", &[Peer::Curl], no_other_way),
    case("a_port_of_the_relay_is_a_port_of_the_hidden_server", &[], by_port),
    case("a_truncation_is_a_reset_at_a_port", &[], cut_at_port),
    case("end_to_end_bytes_are_in_no_trace_and_no_log", &[Peer::Curl], no_trace),
    case("a_malicious_relay_is_refused", &[], cheating_relay),
    case("http_2_goes_to_a_service_that_speaks_it", &[Peer::Curl, Peer::Nginx], http_2),
    case("the_options_that_contradict_each_other_are_refused", &[], options),
];

const DOMAIN: &str = "relay.test";
pub(crate) const NAME: &str = "home.relay.test";

/// A relay with an end-to-end hidden server, and its agent.
pub(crate) struct Sealed {
    pub(crate) world: World,
    pub(crate) relay: Relay,
    pub(crate) home: Enrolled,
    pub(crate) agent: Program,
    pub(crate) pin: String,
}

impl Sealed {
    /// The agent terminates TLS, with these additional options.
    pub(crate) fn terminating(options: &[&str]) -> Self {
        let world = World::new();
        let home = world.enrol("home", &["--label", "home", "--end-to-end"]);
        let relay = world.relay(&["--domain", DOMAIN]);
        let state = world.folder.0.join("agent-state");
        let own = ["--end-to-end", "--state", state.to_str().expect("a path of ours")];
        let agent = world.agent(&relay, &home, Below::Tls13, &[&own, options].concat());
        let pin = agent.pick("its pin", |line| {
            let line = Some(line).filter(|line| line.contains("event=end-to-end"))?;
            Some(line.split_once("pin=")?.1.split(' ').next()?.to_owned())
        });
        Self { world, relay, home, agent, pin }
    }

    /// curl, with the relay's address.
    pub(crate) fn curl(&self) -> Command {
        let mut curl = Peer::Curl.command();
        curl.args([
            "-sS",
            "--max-time",
            "30",
            "--resolve",
            &self.resolve(NAME),
            "--resolve",
            &self.resolve(DOMAIN),
        ]);
        curl
    }

    fn resolve(&self, name: &str) -> String {
        format!("{name}:{}:{}", self.relay.tls.port(), self.relay.tls.ip())
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://{NAME}:{}{path}", self.relay.tls.port())
    }
}

fn page_by_name() {
    let service = page();
    let sealed = Sealed::terminating(&["--to", &service.to_string()]);
    for versions in [["--tlsv1.2", "--tls-max", "1.2"], ["--tlsv1.3", "--tls-max", "1.3"]] {
        // Two requests on one connection, and the key is the agent's.
        let output = run(sealed
            .curl()
            .args(versions)
            .args(["-k", "--pinnedpubkey", &sealed.pin])
            .args([sealed.url("/one"), sealed.url("/two")]));
        let expected = [("GET", "/one"), ("GET", "/two")].map(|(method, path)| page_text(method, path));
        assert_eq!(text(&output), expected.concat());
    }
    let other = run(sealed.curl().args(["-k", "--pinnedpubkey", &sealed.relay.pin]).arg(sealed.url("/")));
    assert_eq!(other.status.code(), Some(90), "the relay's key is not the agent's");
    // The client's TLS is for one host.
    let output = run(sealed
        .curl()
        .args(["-k", "-w", "%{http_code}", "-H", "Host: other.relay.test"])
        .arg(sealed.url("/")));
    assert!(text(&output).ends_with("421"), "{}", text(&output));
    assert!(sealed.world.folder.0.join("agent-state/agent.key").is_file());
}

fn page_text(method: &str, target: &str) -> String {
    crate::hidden::page_text(method, target, b"")
}

fn tls_to() {
    let world = World::new();
    let (certificate, key) = world.folder.self_signed("nas", &format!("DNS:{NAME}"));
    let mut python = Peer::Python.command();
    python.arg(script("tls_service.py")).arg(&certificate).arg(&key);
    let service = Program::start("TLS service", &mut python);
    let port: u16 = service.pick("its port", |line| line.parse().ok());
    let home = world.enrol("home", &["--label", "home", "--end-to-end"]);
    let relay = world.relay(&["--domain", DOMAIN]);
    let _agent = world.agent(&relay, &home, Below::Tls13, &["--tls-to", &format!("127.0.0.1:{port}")]);
    let resolve = format!("{NAME}:{}:{}", relay.tls.port(), relay.tls.ip());
    let url = format!("https://{NAME}:{}/", relay.tls.port());
    let mut curl = Peer::Curl.command();
    curl.args(["-sS", "--max-time", "30", "--resolve", &resolve, "--cacert"]).arg(&certificate);
    let output = run(curl.args(["--data", "a body", &url]));
    assert!(
        text(&output).starts_with(&format!("{NAME} {NAME}:{} 6 ", relay.tls.port())),
        "{}",
        text(&output)
    );
}

fn large_bodies() {
    let service = page();
    let sealed = Sealed::terminating(&["--to", &service.to_string()]);
    let body = noise(7, 20_000_000);
    let file = sealed.world.folder.0.join("body");
    fs::write(&file, &body).expect("a file can be written");
    let mut curl = sealed.curl();
    curl.args(["-k", "--data-binary", &format!("@{}", file.display())]).arg(sealed.url("/big"));
    assert_eq!(text(&run(&mut curl)), crate::hidden::page_text("POST", "/big", &body));
}

fn no_other_way() {
    let service = page();
    let sealed = Sealed::terminating(&["--to", &service.to_string()]);
    let of_relay = format!("https://{DOMAIN}:{}/", sealed.relay.tls.port());
    let status = |options: &[&str], url: &str| {
        let output =
            run(sealed.curl().args(["-k", "-o", "/dev/null", "-w", "%{http_code}"]).args(options).arg(url));
        text(&output)
    };
    let id = sealed.home.id.as_str();
    assert_eq!(status(&["-u", &format!("{id}:")], &of_relay), "403");
    assert_eq!(status(&["-u", "home:"], &of_relay), "403");
    assert_eq!(status(&[], &format!("{of_relay}?rendezvous={id}")), "403");
    // TLS for the relay, and a request for the hidden server.
    assert_eq!(status(&["-H", &format!("Host: {NAME}")], &of_relay), "421");
    let answer = sealed.relay.ask(format!("GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n"));
    assert_eq!(answer.status(), 421);
    sealed.agent.expect_exactly("event=served", 0);
}

/// The relay's listener for clients of a hidden server.
fn port_of(relay: &Relay) -> SocketAddr {
    relay.program.pick("its port", |line| listening_at(line).filter(|_| line.contains("id_name=")))
}

fn by_port() {
    let service = Raw::start();
    let world = World::new();
    let home = world.enrol("home", &["--label", "ssh"]);
    let relay = world.relay(&["--tcp", "127.0.0.1:0=ssh"]);
    let to = service.address.to_string();
    let _agent = world.agent(&relay, &home, Below::Tls13, &["--stream", &to, "--send-proxy", "v1"]);
    let mut client = TcpStream::connect(port_of(&relay)).expect("the relay listens");
    let own = client.local_addr().expect("an address");
    // The server sends first, and knows the client's address.
    let mut server = service.accept();
    let line = format!("PROXY TCP4 127.0.0.1 0.0.0.0 {} 0\r\n", own.port());
    expect(&mut server, line.as_bytes());
    server.write_all(b"SSH-2.0-test\r\n").expect("it can be written");
    expect(&mut client, b"SSH-2.0-test\r\n");
    let body = noise(3, 1_000_000);
    let sent = std::thread::spawn({
        let (mut client, body) = (client.try_clone().expect("a socket"), body.clone());
        move || {
            client.write_all(&body).expect("it can be written");
            client.shutdown(Shutdown::Write).expect("it can be ended");
        }
    });
    let mut got = Vec::new();
    server.read_to_end(&mut got).expect("the end of the client's side arrives");
    assert_eq!(sha256(&got), sha256(&body));
    sent.join().expect("the client has sent all");
    server.write_all(b"goodbye").expect("the other side goes on");
    drop(server);
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).expect("a clean end");
    assert_eq!(rest, b"goodbye");
}

fn cut_at_port() {
    let service = Raw::start();
    let world = World::new();
    let home = world.enrol("home", &[]);
    let relay = world.relay(&["--tcp", "127.0.0.1:0=home"]);
    let mut agent = world.agent(&relay, &home, Below::Tls13, &["--stream", &service.address.to_string()]);
    let mut client = TcpStream::connect(port_of(&relay)).expect("the relay listens");
    let mut server = service.accept();
    server.write_all(b"part").expect("it can be written");
    expect(&mut client, b"part");
    agent.kill();
    let mut rest = Vec::new();
    let end = client.read_to_end(&mut rest).expect_err("no clean end");
    assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);
    // Without a waiting connection the client is reset, after the time for the agent's return.
    let mut client = TcpStream::connect(port_of(&relay)).expect("the relay listens");
    let end = client.read_to_end(&mut rest).expect_err("no clean end");
    assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);
}

fn no_trace() {
    const MARKER: &str = "marker-7d1f5a";
    let service = page();
    let world = World::new();
    let home = world.enrol("home", &["--label", "home", "--end-to-end"]);
    let trace = world.folder.0.join("relay.trace");
    let of_agent = world.folder.0.join("agent.trace");
    let (path, agent_path) = (trace.display().to_string(), of_agent.display().to_string());
    let mut relay = world.relay(&["--domain", DOMAIN, "--log", "debug", "--trace", &path]);
    let state = world.folder.0.join("agent-state").display().to_string();
    let to = service.to_string();
    let options = ["--to", &to, "--end-to-end", "--state", &state, "--trace", &agent_path];
    let mut agent = world.agent(&relay, &home, Below::Tls13, &options);
    let resolve = format!("{NAME}:{}:{}", relay.tls.port(), relay.tls.ip());
    let url = format!("https://{NAME}:{}/{MARKER}", relay.tls.port());
    let mut curl = Peer::Curl.command();
    curl.args([
        "-sS",
        "-k",
        "--max-time",
        "30",
        "--resolve",
        &resolve,
        "--data",
        MARKER,
        "-H",
        &format!("X: {MARKER}"),
    ]);
    assert!(text(&run(curl.arg(&url))).contains(MARKER), "the service got it");
    relay.program.expect_line(lines::PAIR_ENDED);
    agent.signal("TERM");
    assert!(agent.exit().success());
    relay.program.signal("TERM");
    assert!(relay.program.exit().success());
    assert_eq!(relay.program.lines(MARKER), 0, "in the relay's log");
    for trace in [&trace, &of_agent] {
        let text = fs::read_to_string(trace).expect("the trace");
        assert!(!text.contains(MARKER) && !text.contains("The recording ends"), "{}", trace.display());
        assert!(text.contains("start-tls") && text.contains(" pair "), "{text}");
        assert!(run(rendezvous().args(["replay", "--check"]).arg(trace)).status.success());
    }
}

/// A relay that the test controls, without TLS, and an agent that waits there.
fn cheating_relay() {
    let cheat = Cheat::start(&[]);
    // A relay that strips TLS: the request reached the relay, and continues without TLS.
    for request in [
        "GET / HTTP/1.1\r\nHost: home.relay.test\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: relay\r\nConnection: Upgrade\r\nUpgrade: octet-stream\r\n\r\n",
    ] {
        let mut wire = cheat.accept();
        wire.write_all(request.as_bytes()).expect("it can be written");
        assert_eq!(Answer::read(&mut wire).status(), 403);
    }
    // A header with one name before the ClientHello of another; then a header without TLS after it.
    let hello = hello("other.relay.test");
    for behind in [&hello[..], b"GET / HTTP/1.1\r\nHost: home.relay.test\r\n\r\n"] {
        let mut wire = cheat.accept();
        wire.write_all(&[&proxy_header(NAME), behind].concat()).expect("it can be written");
        let mut rest = Vec::new();
        let _ = wire.read_to_end(&mut rest);
        assert!(rest.is_empty(), "{rest:?}");
    }
    assert!(cheat.service.is_idle(), "the service was never reached");
}

/// nginx 1.22 speaks only HTTP/2 without TLS on this port. The agent offers HTTP/2, and curl accepts it.
fn http_2() {
    let world = World::new();
    let (service, _nginx) = nginx(&world, "http2", "    return 200 \"$server_protocol\\n\";\n");
    let sealed = Sealed::terminating(&["--to", &service.to_string(), "--to-h2", "--name", NAME]);
    let output = run(sealed.curl().args(["-k", "--http2"]).args([sealed.url("/one"), sealed.url("/two")]));
    assert_eq!(text(&output), "HTTP/2.0\nHTTP/2.0\n");
    let state = sealed.world.folder.0.join("agent-state").display().to_string();
    let ticket = sealed.world.ticket(&sealed.relay, &sealed.home, Below::Tls13).display().to_string();
    let more = ["agent", "--ticket", &ticket, "--to", "h:1", "--end-to-end", "--to-h2", "--state", &state];
    let output = run(rendezvous().args(more).args(["--name", NAME, "--name", "other.relay.test"]));
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("a certificate with a single name"));
}

/// A PROXY header of version 2 with a host name.
pub(crate) fn proxy_header(name: &str) -> Vec<u8> {
    let len = u8::try_from(name.len()).expect("a short name");
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0".to_vec();
    header.push(12 + 3 + len);
    header.extend([192, 0, 2, 1, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, len]);
    header.extend(name.as_bytes());
    header
}

fn options() {
    let refused = |args: &[&str], why: &str| {
        let output = run(rendezvous().args(args));
        let shown = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{shown}");
        assert!(shown.contains(why), "{shown}");
    };
    refused(&["serve", "--tcp", "127.0.0.1:0"], "ADDR:PORT=NAME");
    refused(&["serve", "--tcp", "127.0.0.1:0=a b"], "name or label");
    refused(&["agent", "--ticket", "t", "--to", "h:1", "--cert", "c", "--key", "k"], "--end-to-end");
    refused(&["agent", "--ticket", "t", "--to", "h:1", "--name", "n"], "--end-to-end");
    refused(&["agent", "--ticket", "t", "--stream", "a b=h:1"], "label");
    refused(&["agent", "--ticket", "t", "--tls-to", "h:1", "--end-to-end"], "--end-to-end");
    refused(&["agent", "--ticket", "t", "--to", "h:1", "--to-h2"], "--end-to-end");
    refused(
        &["agent", "--ticket", "t", "--to", "h:1", "--end-to-end", "--to-h2", "--forwarded"],
        "--forwarded",
    );
    refused(&["agent", "--ticket", "t", "--to", "https://h:1", "--end-to-end", "--to-h2"], "without https");
}
