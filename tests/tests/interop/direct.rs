//! `--direct`: a stream past the relay if one side can be reached, and through it otherwise.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use rendezvous::direct_tls::DirectTls;
use rendezvous::tls_config::provider;
use rustls::{ServerConnection, StreamOwned};

use crate::harness::{Case, case};
use crate::hidden::{Raw, both_ways, expect, noise, read_head};
use crate::program::{PATIENCE, Program, run};
use crate::wire::Below;
use crate::world::{Enrolled, Relay, World, basic, rendezvous};

pub(crate) const CASES: &[Case] = &[
    case("bulk_bypasses_the_relay_if_the_agent_is_reachable", &[], || bulk(&AGENT)),
    case("bulk_bypasses_the_relay_if_the_client_is_reachable", &[], || bulk(&CLIENT)),
    case("bulk_bypasses_the_relay_if_both_are_reachable", &[], || bulk(&BOTH)),
    case("bulk_goes_through_the_relay_if_neither_is_reachable", &[], || bulk(&NEITHER)),
    case("the_service_may_speak_first", &[], the_service_may_speak_first),
    case("half_close_is_forwarded_both_ways", &[], half_close_is_forwarded_both_ways),
    case("a_reset_of_the_service_is_a_failure", &[], a_reset_of_the_service_is_a_failure),
    case("a_local_port_serves_many_connections", &[], a_local_port_serves_many_connections),
    case("a_man_in_the_middle_is_refused_and_the_stream_stays_on_the_relay", &[], a_man_in_the_middle),
    case("an_unmet_requirement_is_reported_in_one_line", &[], an_unmet_requirement),
    case("an_agent_without_direct_does_not_negotiate", &[], an_agent_without_direct_does_not_negotiate),
    case("strangers_at_the_agents_port_stop_no_client", &[], strangers_at_the_agents_port_stop_no_client),
    case("options_that_make_no_sense_are_refused", &[], options_that_make_no_sense_are_refused),
];

/// How the log reports the path of a stream.
pub(crate) const DIRECT: &str = "event=direct ";
pub(crate) const RELAYED: &str = "event=relayed ";

/// Which side can be reached, on loopback: a side that may not dial loopback reaches no peer there.
struct Reach {
    agent: &'static [&'static str],
    client: &'static [&'static str],
    is_direct: bool,
}

const ALLOW: [&str; 2] = ["--direct-allow", "loopback"];
const AGENT: Reach = Reach { agent: &[], client: &ALLOW, is_direct: true };
const CLIENT: Reach = Reach { agent: &ALLOW, client: &["--direct-listen", "127.0.0.1:0"], is_direct: true };
const BOTH: Reach = Reach {
    agent: &ALLOW,
    client: &["--direct-listen", "127.0.0.1:0", "--direct-allow", "loopback"],
    is_direct: true,
};
const NEITHER: Reach = Reach { agent: &[], client: &["--direct-listen", "127.0.0.1:0"], is_direct: false };

/// A service behind an agent's `--stream` and `--direct`.
struct Stream {
    world: World,
    relay: Relay,
    home: Enrolled,
    service: Raw,
    agent: Program,
}

impl Stream {
    /// With more options for the agent.
    fn start(options: &[&str]) -> Self {
        Self::start_at(Raw::start(), &[&["--direct", "127.0.0.1:0"], options].concat())
    }

    fn start_at(service: Raw, options: &[&str]) -> Self {
        let world = World::new();
        let home = world.enrol("home", &[]);
        let relay = world.relay(&[]);
        let address = service.address.to_string();
        let options = [&["--stream", &address], options].concat();
        let agent = world.agent(&relay, &home, Below::Tls13, &options);
        Self { world, relay, home, service, agent }
    }

    fn command(&self, options: &[&str]) -> Command {
        let mut command = rendezvous();
        command.args(["connect", &self.relay.url(Below::Tls13), &self.home.id, "--pin", &self.relay.pin]);
        command.args(["--log", "debug"]).args(options);
        command
    }

    /// A connector's stdio, and the service's end of the stream.
    fn open(&self, options: &[&str]) -> Ends {
        let (connect, to, from) = Program::start_piped("connect", &mut self.command(options));
        Ends { connect, to, from, hidden: self.service.accept() }
    }
}

/// How many bytes went through the relay so far.
pub(crate) fn relayed(world: &World) -> u64 {
    let output = run(rendezvous().args(["status", "--json", "--state"]).arg(world.state()));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let (_, behind) = text.split_once("\"relayed\":").expect("a number of bytes");
    behind.split(',').next().and_then(|number| number.parse().ok()).expect("a number")
}

struct Ends {
    connect: Program,
    to: std::process::ChildStdin,
    from: std::process::ChildStdout,
    hidden: TcpStream,
}

impl Ends {
    /// Sends a word each way, the service first; then both end.
    fn greet(mut self) {
        self.hidden.write_all(b"SSH-2.0-x\r\n").expect("can write");
        expect(&mut self.from, b"SSH-2.0-x\r\n");
        self.to.write_all(b"SSH-2.0-y\r\n").expect("can write");
        expect(&mut self.hidden, b"SSH-2.0-y\r\n");
        drop((self.hidden, self.to));
        let mut rest = Vec::new();
        self.from.read_to_end(&mut rest).expect("stdout ends");
        assert_eq!(rest, b"");
        assert!(self.connect.exit().success());
    }
}

const BULK: usize = 20 << 20;
/// The bytes of a negotiation on the relay: a head, its answer, a line or two.
pub(crate) const AGREEMENT: u64 = 2_048;

fn bulk(relay_client: &Reach) {
    let stream = Stream::start(relay_client.agent);
    let Ends { mut connect, to, from, hidden } = stream.open(relay_client.client);
    both_ways(to, from, hidden, BULK);
    assert!(connect.exit().success());
    let (way, other) = if relay_client.is_direct { (DIRECT, RELAYED) } else { (RELAYED, DIRECT) };
    for program in [&connect, &stream.agent] {
        assert_eq!((program.lines(way), program.lines(other)), (1, 0));
    }
    stream.relay.program.expect_line("event=pair-ended");
    let relayed = relayed(&stream.world);
    if relay_client.is_direct {
        assert!(relayed < AGREEMENT, "{relayed} bytes went through the relay");
    } else {
        assert!(relayed >= 2 * BULK as u64, "{relayed} bytes went through the relay");
    }
}

fn the_service_may_speak_first() {
    for relay_client in [AGENT, CLIENT, BOTH, NEITHER] {
        let stream = Stream::start(relay_client.agent);
        stream.open(relay_client.client).greet();
    }
}

fn half_close_is_forwarded_both_ways() {
    let stream = Stream::start(AGENT.agent);
    // The client ends first, as with `ssh host cat < file`.
    let Ends { mut connect, mut to, mut from, mut hidden } = stream.open(AGENT.client);
    to.write_all(b"a question").expect("can write");
    drop(to);
    let mut question = Vec::new();
    hidden.read_to_end(&mut question).expect("a clean end");
    assert_eq!(question, b"a question");
    let answer = noise(10, 1 << 20);
    hidden.write_all(&answer).expect("can write");
    drop(hidden);
    let mut got = Vec::new();
    from.read_to_end(&mut got).expect("a clean end");
    assert!(got == answer);
    assert!(connect.exit().success());

    // The service ends first.
    let Ends { mut connect, mut to, mut from, mut hidden } = stream.open(AGENT.client);
    hidden.write_all(b"that is all").expect("can write");
    hidden.shutdown(Shutdown::Write).expect("it is open");
    let mut got = Vec::new();
    from.read_to_end(&mut got).expect("a clean end");
    assert_eq!(got, b"that is all");
    to.write_all(b"but I am not done").expect("the other direction goes on");
    drop(to);
    let mut got = Vec::new();
    hidden.read_to_end(&mut got).expect("a clean end");
    assert_eq!(got, b"but I am not done");
    drop(hidden);
    assert!(connect.exit().success());
    assert_eq!(stream.agent.lines(DIRECT), 2);
}

fn a_reset_of_the_service_is_a_failure() {
    let stream = Stream::start(AGENT.agent);
    let Ends { mut connect, to, mut from, mut hidden } = stream.open(AGENT.client);
    hidden.write_all(b"begun").expect("can write");
    expect(&mut from, b"begun");
    crate::wire::reset(hidden);
    from.read_to_end(&mut Vec::new()).expect("stdout ends");
    assert_eq!(connect.exit().code(), Some(1));
    drop(to);
}

fn a_local_port_serves_many_connections() {
    let stream = Stream::start(BOTH.agent);
    let options = [&["--listen", "127.0.0.1:0"], BOTH.client].concat();
    let connect = Program::start("connect", &mut stream.command(&options));
    let port = connect.pick("the listen address", |line| {
        let local = line.contains("event=listening") && line.contains("relay=");
        local.then(|| crate::world::listening_at(line)).flatten()
    });
    crate::connect::serves_ten_connections(port, &stream.service);
    connect.expect_lines(DIRECT, 10);
}

/// Listens at the address that the agent announces, with a certificate of its own. Returns what it received inside TLS.
fn in_between(listener: TcpListener) -> JoinHandle<Vec<u8>> {
    let tls = DirectTls::new(&provider()).expect("a certificate");
    thread::spawn(move || {
        let (mut tcp, _) = listener.accept().expect("it is dialled");
        tcp.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        expect(&mut tcp, b"starttls\n");
        tcp.write_all(b"ok\n").expect("can write");
        let session = ServerConnection::new(Arc::clone(&tls.server)).expect("a session");
        let mut told = Vec::new();
        // The peer ends without close_notify, or resets.
        let _ = StreamOwned::new(session, tcp).read_to_end(&mut told);
        told
    })
}

fn a_man_in_the_middle() {
    for wish in ["prefer", "require"] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let announced = listener.local_addr().expect("it is bound").to_string();
        let thief = in_between(listener);
        let stream = Stream::start(&["--announce", &announced]);
        let options = [&["--direct", wish, "--direct-timeout", "20"], &ALLOW[..]].concat();
        if wish == "prefer" {
            let ends = stream.open(&options);
            ends.connect.expect_line(RELAYED);
            assert_eq!(ends.connect.lines("the connection may be intercepted"), 1);
            ends.greet();
        } else {
            let output = run(&mut stream.command(&options));
            assert_eq!(output.status.code(), Some(1));
            let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
            let lines: Vec<_> =
                complaint.lines().filter(|line| line.starts_with("rendezvous: connect: ")).collect();
            assert_eq!(lines.len(), 1, "{complaint}");
            assert!(lines[0].contains("the connection may be intercepted"), "{complaint}");
        }
        assert_eq!(thief.join().expect("it was dialled"), b"", "no key was shown to it");
    }
}

fn an_unmet_requirement() {
    let stream = Stream::start_at(Raw::start(), &[]);
    let output = run(&mut stream.command(&["--direct", "require"]));
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{complaint}");
    let lines: Vec<_> = complaint.lines().filter(|line| line.starts_with("rendezvous: connect: ")).collect();
    assert_eq!(
        lines,
        ["rendezvous: connect: no direct connection: the hidden server's agent does not offer it (--direct)"]
    );
}

/// An agent without `--direct` does not negotiate, and an agent with it does not if the client does not ask.
fn an_agent_without_direct_does_not_negotiate() {
    for (options, asks) in [(&[][..], true), (&["--direct", "127.0.0.1:0"][..], false)] {
        let stream = Stream::start_at(Raw::start(), options);
        let offer = "DTCP-Key: 0123456789abcdef0123456789abcdef\r\nDTCP-Host: 127.0.0.1:9\r\nDTCP-Fingerprint: \
                     0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\r\n";
        let request = format!(
            "GET / HTTP/1.1\r\nHost: h\r\n{}Connection: Upgrade\r\nUpgrade: octet-stream\r\n{}\r\n",
            basic(&stream.home.id),
            if asks { offer } else { "" },
        );
        let mut wire = stream.relay.open(Below::Clear);
        wire.send(request.as_bytes());
        let head = String::from_utf8(read_head(&mut wire)).expect("a head");
        assert!(head.starts_with("HTTP/1.1 101 ") && !head.to_ascii_lowercase().contains("dtcp"), "{head}");
        let mut hidden = stream.service.accept();
        wire.send(b"bytes at once");
        expect(&mut hidden, b"bytes at once");
        hidden.write_all(b"and back").expect("can write");
        expect(&mut wire, b"and back");
    }
}

/// They are closed at once while no client is negotiating. Otherwise they may stay until there are too many.
fn strangers_at_the_agents_port_stop_no_client() {
    let stream = Stream::start(AGENT.agent);
    let at: SocketAddr = stream.agent.pick("the listen address", crate::world::listening_at);
    let mut strangers: Vec<_> = (0..100).map(|_| TcpStream::connect(at).expect("it listens")).collect();
    for stranger in &mut strangers {
        stranger.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        // An EOF or a reset, without a byte.
        assert_eq!(stranger.read(&mut [0]).unwrap_or(0), 0);
    }
    let started = Instant::now();
    stream.open(AGENT.client).greet();
    assert!(started.elapsed() < PATIENCE);
    assert_eq!(stream.agent.lines(DIRECT), 1);
}

fn options_that_make_no_sense_are_refused() {
    let relay = "https://127.0.0.1:1";
    let id = "00000000-0000-4000-8000-000000000000";
    let connect = |options: &[&str]| run(rendezvous().args(["connect", relay, id]).args(options));
    let agent = |options: &[&str]| run(rendezvous().args(["agent", "--ticket", "none"]).args(options));
    for (output, wanted) in [
        (connect(&["--direct", "maybe"]), "off, prefer, require"),
        (connect(&["--direct-listen", "[::]:0"]), "--announce HOST:PORT"),
        (connect(&["--announce", "192.0.2.1:9"]), "--direct-listen"),
        (connect(&["--direct-listen", "127.0.0.1:0", "--announce", "laptop.lan:9"]), "only addresses"),
        (connect(&["--direct-timeout", "0"]), "up to 20 seconds"),
        (connect(&["--direct-allow", "everything"]), "link-local"),
        (agent(&["--to", "127.0.0.1:1", "--direct", "127.0.0.1:0"]), "--stream"),
        (agent(&["--stream", "127.0.0.1:1", "--direct", "0.0.0.0:7000"]), "--announce HOST:PORT"),
        (agent(&["--stream", "127.0.0.1:1", "--announce", "192.0.2.1:9"]), "--direct"),
        (
            agent(&[
                "--stream",
                "127.0.0.1:1",
                "--direct",
                "127.0.0.1:0",
                "--announce",
                "a:1",
                "--announce",
                "b:1",
                "--announce",
                "c:1",
                "--announce",
                "d:1",
            ]),
            "at most 3 are allowed",
        ),
    ] {
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{complaint}");
        assert!(complaint.contains(wanted), "{complaint}");
        assert_eq!(complaint.lines().count(), 1, "{complaint}");
    }
}
