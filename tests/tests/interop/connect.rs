//! `rendezvous connect`: protocols other than HTTP, over stdio and a local port.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{ChildStdin, ChildStdout, Command};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Case, case};
use crate::hidden::{Raw, both_ways, expect, noise};
use crate::peers::Peer;
use crate::program::{Program, run};
use crate::wire::{Below, reset};
use crate::world::{Enrolled, Relay, World, basic, lines, listening_at, rendezvous};

pub(crate) const CASES: &[Case] = &[
    case("the_service_may_speak_first", &[], the_service_may_speak_first),
    case("small_writes_are_not_delayed", &[], small_writes_are_not_delayed),
    case("bulk_goes_both_ways_at_once", &[], bulk_goes_both_ways_at_once),
    case("half_close_is_forwarded_both_ways", &[], half_close_is_forwarded_both_ways),
    case("a_local_port_serves_many_connections", &[], a_local_port_serves_many_connections),
    case("a_reset_of_the_service_is_a_failure", &[], a_reset_of_the_service_is_a_failure),
    case("works_without_tls_and_with_a_ca", &[], works_without_tls_and_with_a_ca),
    case("http_goes_to_its_own_service", &[], http_goes_to_its_own_service),
    case("an_absent_peer_is_reported_in_one_line", &[], an_absent_peer_is_reported_in_one_line),
    case("a_wrong_use_of_the_relay_is_reported_with_its_remedy", &[], a_wrong_use_of_the_relay_is_reported),
    case("as_the_proxy_command_of_socat", &[Peer::Socat], as_a_proxy_command),
];

/// The HTTP service of an agent without one: nothing listens there.
pub(crate) const NO_HTTP: &str = "127.0.0.1:1";

/// A service behind an agent's `--stream`.
pub(crate) struct Stream {
    pub(crate) world: World,
    relay: Relay,
    home: Enrolled,
    pub(crate) service: Raw,
    _agent: Program,
}

impl Stream {
    pub(crate) fn start() -> Self {
        let service = Raw::start();
        let world = World::new();
        let home = world.enrol("home", &[]);
        let relay = world.relay(&[]);
        let agent = world.agent(
            &relay,
            &home,
            Below::Tls13,
            &["--to", NO_HTTP, "--stream", &service.address.to_string()],
        );
        Self { world, relay, home, service, _agent: agent }
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = rendezvous();
        command.args(["connect", &self.relay.url(Below::Tls13), &self.home.id, "--pin", &self.relay.pin]);
        command
    }

    /// A connector's stdio, and the service's end of the stream.
    fn open(&self) -> (Program, ChildStdin, ChildStdout, TcpStream) {
        let (program, to, from) = Program::start_piped("connect", &mut self.command());
        (program, to, from, self.service.accept())
    }
}

/// Sends a word each way through a connector, the service first; then both end.
pub(crate) fn greets(service: &Raw, connect: &mut Command) {
    let (mut program, mut to, mut from) = Program::start_piped("connect", connect);
    let mut hidden = service.accept();
    hidden.write_all(b"SSH-2.0-x\r\n").expect("can write");
    expect(&mut from, b"SSH-2.0-x\r\n");
    to.write_all(b"SSH-2.0-y\r\n").expect("can write");
    expect(&mut hidden, b"SSH-2.0-y\r\n");
    // The service ends first: an old relay forwards no half-close, and the connector sends nothing more.
    drop(hidden);
    let mut rest = Vec::new();
    from.read_to_end(&mut rest).expect("stdout ends");
    assert_eq!(rest, b"");
    drop(to);
    assert!(program.exit().success());
}

fn the_service_may_speak_first() {
    let stream = Stream::start();
    greets(&stream.service, &mut stream.command());
}

fn small_writes_are_not_delayed() {
    let stream = Stream::start();
    let (_connect, mut to, mut from, mut hidden) = stream.open();
    let echo = thread::spawn(move || {
        let mut byte = [0];
        while hidden.read(&mut byte).is_ok_and(|bytes| bytes == 1) && hidden.write_all(&byte).is_ok() {}
    });
    let mut times = Vec::new();
    for n in 0..101_u8 {
        let started = Instant::now();
        to.write_all(&[n]).expect("can write");
        expect(&mut from, &[n]);
        times.push(started.elapsed());
    }
    times.sort();
    // A delayed acknowledgement takes 40 ms, on any of the six hops.
    assert!(times[50] < Duration::from_millis(20), "half of the keystrokes took longer than {:?}", times[50]);
    drop((to, from));
    echo.join().expect("the echo ends");
}

const BULK: usize = 30 << 20;

fn bulk_goes_both_ways_at_once() {
    let stream = Stream::start();
    let (mut connect, to, from, hidden) = stream.open();
    both_ways(to, from, hidden, BULK);
    assert!(connect.exit().success());
}

fn half_close_is_forwarded_both_ways() {
    let stream = Stream::start();
    // The client ends first, as with `ssh host cat < file`.
    let (mut connect, mut to, mut from, mut hidden) = stream.open();
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
    let (mut connect, mut to, mut from, mut hidden) = stream.open();
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
}

fn a_local_port_serves_many_connections() {
    let stream = Stream::start();
    let connect = Program::start("connect", stream.command().args(["--listen", "127.0.0.1:0"]));
    let port = connect.pick("the listen address", listening_at);
    serves_ten_connections(port, &stream.service);
}

/// Ten simultaneous connections to a local port, each of which reaches the service.
pub(crate) fn serves_ten_connections(port: SocketAddr, service: &Raw) {
    let mut pairs: Vec<_> = (0..10_u8)
        .map(|n| {
            let mut client = TcpStream::connect(port).expect("it listens");
            client.write_all(&[n]).expect("can write");
            let mut hidden = service.accept();
            expect(&mut hidden, &[n]);
            (n, client, hidden)
        })
        .collect();
    for (n, client, hidden) in &mut pairs {
        hidden.write_all(&[*n; 1000]).expect("can write");
        hidden.shutdown(Shutdown::Write).expect("it is open");
        let mut got = Vec::new();
        client.read_to_end(&mut got).expect("a clean end");
        assert_eq!(got, [*n; 1000]);
    }
}

fn a_reset_of_the_service_is_a_failure() {
    let stream = Stream::start();
    let (mut connect, to, mut from, mut hidden) = stream.open();
    hidden.write_all(b"begun").expect("can write");
    expect(&mut from, b"begun");
    reset(hidden);
    from.read_to_end(&mut Vec::new()).expect("stdout ends");
    assert_eq!(connect.exit().code(), Some(1));
    drop(to);
}

fn works_without_tls_and_with_a_ca() {
    let service = Raw::start();
    let world = World::new();
    let home = world.enrol("home", &[]);
    let relay = world.relay(&[]);
    let _agent = world.agent(
        &relay,
        &home,
        Below::Clear,
        &["--to", NO_HTTP, "--stream", &service.address.to_string()],
    );
    greets(&service, rendezvous().args(["connect", &relay.url(Below::Clear), &home.id]));
    let localhost = format!("https://localhost:{}", relay.tls.port());
    greets(&service, rendezvous().args(["connect", &localhost, &home.id, "--ca"]).arg(world.certificate()));
}

fn http_goes_to_its_own_service() {
    let (stream, http) = (Raw::start(), crate::hidden::page());
    let world = World::new();
    let home = world.enrol("home", &[]);
    let relay = world.relay(&[]);
    let to = ["--to", &http.to_string(), "--stream", &stream.address.to_string()];
    let _agent = world.agent(&relay, &home, Below::Tls13, &to);
    greets(&stream, rendezvous().args(["connect", &relay.url(Below::Tls13), &home.id, "--pin", &relay.pin]));
    let answer = relay.ask(format!("GET /page HTTP/1.1\r\nHost: h\r\n{}\r\n", basic(&home.id)));
    assert_eq!(answer.text(), crate::hidden::page_text("GET", "/page", b""));
}

fn an_absent_peer_is_reported_in_one_line() {
    let world = World::new();
    let home = world.enrol("home", &[]);
    let relay = world.relay(&["--wait", "0"]);
    let nobody = "00000000-0000-4000-8000-000000000000";
    let url = relay.url(Below::Tls13);
    let wrong = "sha256//AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    for (url, id, pin) in [
        (url.as_str(), nobody, relay.pin.as_str()),
        (url.as_str(), home.id.as_str(), wrong),
        ("https://127.0.0.1:1", nobody, relay.pin.as_str()),
    ] {
        let output = run(rendezvous().args(["connect", url, id, "--pin", pin]));
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{complaint}");
        let lines = complaint.lines().filter(|line| line.starts_with("rendezvous: connect: ")).count();
        assert_eq!((lines, output.stdout.len()), (1, 0), "{complaint}");
    }
    assert_eq!(relay.program.lines(lines::PAIRED), 0);
}

fn a_wrong_use_of_the_relay_is_reported() {
    let world = World::new();
    let home = world.enrol("home", &[]);
    let sealed = world.enrol("sealed", &["--end-to-end"]);
    let disabled = world.enrol("disabled", &["--end-to-end"]);
    let state = world.state();
    assert!(
        run(rendezvous().args(["id", "set", "disabled", "--disable", "--state"]).arg(state)).status.success()
    );
    let relay = world.relay(&["--wait", "0"]);
    let pin = ["--pin", &relay.pin];
    let end_to_end = ["--pin", &relay.pin, "--end-to-end", &relay.pin];
    let (tls, clear) = (relay.tls, relay.clear);
    for (url, id, options, remedy) in [
        (format!("https://{tls}"), &sealed.id, &pin[..], "needs --end-to-end"),
        (format!("https://{tls}"), &disabled.id, &end_to_end[..], "the relay's operator has disabled the ID"),
        (format!("http://{tls}"), &home.id, &[][..], "use https://"),
        (format!("https://{clear}"), &home.id, &pin[..], "one side uses http:// and the other https://"),
    ] {
        let output = run(rendezvous().args(["connect", &url, id]).args(options));
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(complaint.contains(remedy), "{url} {options:?}: {complaint}");
    }
}

fn as_a_proxy_command() {
    let stream = Stream::start();
    let mut connect = stream.command();
    let binary = connect.get_program().to_string_lossy().into_owned();
    let line: Vec<_> = connect.get_args().map(|arg| arg.to_string_lossy().into_owned()).collect();
    connect = Peer::Socat.command();
    connect.args(["-t", "30", "STDIO", &format!("SYSTEM:{binary} {}", line.join(" ").replace(':', "\\:"))]);
    let (mut socat, mut to, mut from) = Program::start_piped("socat", &mut connect);
    let mut hidden = stream.service.accept();
    to.write_all(b"through a program of programs").expect("can write");
    drop(to);
    let mut got = Vec::new();
    hidden.read_to_end(&mut got).expect("a clean end");
    hidden.write_all(&got).expect("can write");
    drop(hidden);
    let mut back = Vec::new();
    from.read_to_end(&mut back).expect("stdout ends");
    assert_eq!(back, b"through a program of programs");
    assert!(socat.exit().success());
}
