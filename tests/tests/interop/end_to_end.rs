//! `connect --end-to-end`: streams that the relay cannot read, keys that an agent accepts, and a relay that acts as a
//! man in the middle.

use std::io::{self, PipeReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::connect::greets;
use crate::direct::{DIRECT, RELAYED};
use crate::harness::{Case, case};
use crate::hidden::{Raw, both_ways, expect, read_head};
use crate::program::{Program, run};
use crate::wire::Below;
use crate::world::{Enrolled, Relay, World, listening_at, rendezvous};

pub(crate) const CASES: &[Case] = &[
    case("a_stream_is_end_to_end_with_and_without_tls_to_the_relay", &[], a_stream_is_end_to_end),
    case("bulk_goes_both_ways_at_once_end_to_end", &[], bulk_goes_both_ways_at_once),
    case("half_close_is_forwarded_both_ways_end_to_end", &[], half_close_is_forwarded_both_ways),
    case("a_local_port_serves_many_connections_end_to_end", &[], a_local_port_serves_many_connections),
    case("a_key_that_is_not_pinned_is_refused_and_nothing_is_read", &[], a_key_that_is_not_pinned),
    case("the_agent_accepts_only_listed_keys_and_reloads_the_list", &[], the_agent_accepts_listed_keys),
    case("what_goes_on_with_a_key_that_is_removed_ends", &[], what_goes_on_with_a_removed_key),
    case("a_connector_without_tls_is_refused_by_an_agent_end_to_end", &[], a_connector_without_tls),
    case("an_agent_that_is_not_end_to_end_is_a_failure", &[], an_agent_that_is_not_end_to_end),
    case("a_direct_connection_is_negotiated_inside_tls", &[], a_direct_connection_is_negotiated_inside_tls),
    case("a_direct_offer_of_the_relay_is_not_dialled", &[], a_direct_offer_of_the_relay),
    case("a_relay_that_strips_the_upgrade_is_refused", &[], a_relay_that_strips_the_upgrade),
    case("a_port_of_the_relay_does_not_bypass_the_keys", &[], a_port_does_not_bypass_the_keys),
    case("a_relay_that_changes_a_byte_is_detected", &[], a_relay_that_changes_a_byte),
];

/// What the local program sends.
const MARKER: &[u8] = b"MARKER of the local program\n";

/// A service behind an agent's `--stream` and `--end-to-end`.
struct Stream {
    world: World,
    relay: Relay,
    home: Enrolled,
    service: Raw,
    agent: Program,
    /// The pin of the agent's key.
    pin: String,
}

impl Stream {
    fn start(options: &[&str]) -> Self {
        let world = World::new();
        let home = world.enrol("home", &["--end-to-end"]);
        Self::start_in(world, home, options)
    }

    fn start_in(world: World, home: Enrolled, options: &[&str]) -> Self {
        let service = Raw::start();
        let relay = world.relay(&[]);
        let (address, state) = (service.address.to_string(), world.folder.0.join("agent"));
        let own = ["--stream", &address, "--end-to-end", "--state", state.to_str().expect("a path of ours")];
        let agent = world.agent(&relay, &home, Below::Tls13, &[&own, options].concat());
        let pin = agent.pick("its pin", |line| {
            let pin = line.split_once("event=end-to-end pin=")?.1;
            Some(pin.split([' ', '"']).next()?.to_owned())
        });
        Self { world, relay, home, service, agent, pin }
    }

    fn command(&self, options: &[&str]) -> Command {
        let mut command = rendezvous();
        command.args(["connect", &self.relay.url(Below::Tls13), &self.home.id, "--pin", &self.relay.pin]);
        command.args(["--end-to-end", &self.pin]).args(options);
        command
    }

    /// Through a relay without TLS, at this address.
    fn command_by(&self, relay: SocketAddr, options: &[&str]) -> Command {
        let mut command = rendezvous();
        command.args(["connect", &format!("http://{relay}"), &self.home.id]);
        command.args(["--end-to-end", &self.pin]).args(options);
        command
    }

    /// Makes a key in the world's folder. Returns its path and its pin.
    fn key(&self, name: &str) -> (String, String) {
        let path = self.world.folder.0.join(name).to_str().expect("a path of ours").to_owned();
        let made = run(rendezvous().args(["key", &path]));
        assert!(made.status.success());
        (path, String::from_utf8(made.stdout).expect("UTF-8").trim_end().to_owned())
    }
}

/// Checks that it fails with these words in one line, and has read nothing of what its local program has written.
fn fails(command: &mut Command, parts: &[&str]) {
    let (stdin, mut writer) = io::pipe().expect("a pipe");
    writer.write_all(MARKER).expect("it fits");
    drop(writer);
    let read = |mut from: PipeReader| {
        let mut left = Vec::new();
        from.read_to_end(&mut left).expect("a pipe");
        left
    };
    command.args(["--log", "error"]);
    let ours = stdin.try_clone().expect("a descriptor");
    let child = command.stdin(OwnedFd::from(stdin)).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = child.spawn().expect("it starts").wait_with_output().expect("it ends");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), complaint.lines().count()), (Some(1), 1), "{complaint}");
    assert!(parts.iter().all(|part| complaint.contains(part)), "{parts:?}: {complaint}");
    assert_eq!((read(ours), output.stdout), (MARKER.to_vec(), Vec::new()), "standard input was read");
}

fn a_stream_is_end_to_end() {
    let stream = Stream::start(&[]);
    greets(&stream.service, &mut stream.command(&[]));
    greets(&stream.service, &mut stream.command_by(stream.relay.clear, &[]));
}

fn bulk_goes_both_ways_at_once() {
    let stream = Stream::start(&[]);
    let (mut connect, to, from) = Program::start_piped("connect", &mut stream.command(&[]));
    both_ways(to, from, stream.service.accept(), 8 << 20);
    assert!(connect.exit().success());
}

fn half_close_is_forwarded_both_ways() {
    let stream = Stream::start(&[]);
    let (mut connect, mut to, mut from) = Program::start_piped("connect", &mut stream.command(&[]));
    let mut hidden = stream.service.accept();
    to.write_all(b"a question").expect("it takes bytes");
    drop(to);
    let mut question = Vec::new();
    hidden.read_to_end(&mut question).expect("a clean end");
    assert_eq!(question, b"a question");
    hidden.write_all(b"an answer").expect("it takes bytes");
    drop(hidden);
    let mut answer = Vec::new();
    from.read_to_end(&mut answer).expect("a clean end");
    assert_eq!(answer, b"an answer");
    assert!(connect.exit().success());
}

fn a_local_port_serves_many_connections() {
    let stream = Stream::start(&[]);
    let connect = Program::start("connect", &mut stream.command(&["--listen", "127.0.0.1:0"]));
    let port = connect.pick("the listen address", listening_at);
    for n in 0..5_u8 {
        let mut client = TcpStream::connect(port).expect("it listens");
        client.write_all(&[n]).expect("it takes bytes");
        let mut hidden = stream.service.accept();
        expect(&mut hidden, &[n]);
        hidden.write_all(&[n; 1000]).expect("it takes bytes");
        hidden.shutdown(Shutdown::Write).expect("it is open");
        let mut got = Vec::new();
        client.read_to_end(&mut got).expect("a clean end");
        assert_eq!(got, [n; 1000]);
    }
}

fn a_key_that_is_not_pinned() {
    let stream = Stream::start(&[]);
    let (_, other) = stream.key("other.key");
    let mut command = rendezvous();
    command.args(["connect", &stream.relay.url(Below::Tls13), &stream.home.id, "--pin", &stream.relay.pin]);
    let parts = ["the relay may be putting itself between", other.as_str()];
    fails(command.args(["--end-to-end", &other]), &parts);
    greets(&stream.service, &mut stream.command(&[]));
}

fn the_agent_accepts_listed_keys() {
    let world = World::new();
    let home = world.enrol("home", &["--end-to-end"]);
    let list = world.folder.write("keys", "# nobody yet\n");
    let stream = Stream::start_in(world, home, &["--allow-keys", list.to_str().expect("a path of ours")]);
    let (user, of_user) = stream.key("user.key");
    let (stranger, of_stranger) = stream.key("stranger.key");
    let not_allowed = "the agent may not allow this key";
    fails(&mut stream.command(&["--key", &user]), &[not_allowed, &of_user]);

    stream.world.folder.write("keys", &format!("# people\n{of_user} anna\n"));
    stream.agent.signal("HUP");
    stream.agent.expect_line("event=reloaded");
    greets(&stream.service, &mut stream.command(&["--key", &user]));
    fails(&mut stream.command(&["--key", &stranger]), &[not_allowed, &of_stranger]);
    fails(&mut stream.command(&[]), &[not_allowed, "no --key was given"]);

    stream.world.folder.write("keys", "# people\n\nnonsense\n");
    stream.agent.signal("HUP");
    stream.agent.expect_line("keys:3: ");
    greets(&stream.service, &mut stream.command(&["--key", &user]));
}

/// By way of the relay and past it; other keys' streams go on.
fn what_goes_on_with_a_removed_key() {
    let world = World::new();
    let home = world.enrol("home", &["--end-to-end"]);
    let list = world.folder.write("keys", "");
    let options = [&["--allow-keys", list.to_str().expect("a path of ours")][..], &AGENT_DIRECT].concat();
    let stream = Stream::start_in(world, home, &options);
    let (user, of_user) = stream.key("user.key");
    let (other, of_other) = stream.key("other.key");
    stream.world.folder.write("keys", &format!("{of_user}\n{of_other}\n"));
    stream.agent.signal("HUP");
    stream.agent.expect_line("keys=2 removed=0");
    let begin = |key: &str, wish: &str| {
        let options = [&ALLOW[..], &["--direct", wish, "--key", key]].concat();
        let (connect, mut to, from) = Program::start_piped("connect", &mut stream.command(&options));
        let mut hidden = stream.service.accept();
        to.write_all(MARKER).expect("it takes bytes");
        expect(&mut hidden, MARKER);
        (connect, to, from, hidden)
    };
    let ended = ["off", "require"].map(|wish| begin(&user, wish));
    let (mut connect, mut to, mut from, mut hidden) = begin(&other, "off");
    stream.world.folder.write("keys", &of_other);
    stream.agent.signal("HUP");
    stream.agent.expect_line("keys=1 removed=1");
    for (mut connect, _to, _from, mut hidden) in ended {
        let end = hidden.read_to_end(&mut Vec::new()).expect_err("no clean end");
        assert_eq!(end.kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(connect.exit().code(), Some(1));
    }
    to.write_all(MARKER).expect("it takes bytes");
    expect(&mut hidden, MARKER);
    drop((to, hidden));
    from.read_to_end(&mut Vec::new()).expect("stdout ends");
    assert!(connect.exit().success());
}

fn a_connector_without_tls() {
    let stream = Stream::start(&[]);
    let mut command = rendezvous();
    command.args(["connect", &stream.relay.url(Below::Tls13), &stream.home.id, "--pin", &stream.relay.pin]);
    fails(&mut command, &["403"]);
}

fn an_agent_that_is_not_end_to_end() {
    let service = Raw::start();
    let world = World::new();
    let home = world.enrol("home", &[]);
    let relay = world.relay(&[]);
    let address = service.address.to_string();
    let _agent = world.agent(&relay, &home, Below::Tls13, &["--stream", &address]);
    let mut command = rendezvous();
    command.args(["connect", &relay.url(Below::Tls13), &home.id, "--pin", &relay.pin]);
    command.args(["--end-to-end", &format!("sha256//{}=", "A".repeat(43))]);
    fails(&mut command, &["not end to end"]);
}

/// Options with which an agent on this machine can be dialled.
const AGENT_DIRECT: [&str; 2] = ["--direct", "127.0.0.1:0"];
const ALLOW: [&str; 4] = ["--direct-allow", "loopback", "--log", "debug"];

fn a_direct_connection_is_negotiated_inside_tls() {
    let stream = Stream::start(&AGENT_DIRECT);
    let between = Between::start(stream.relay.clear, Tampering::None);
    let options = [&ALLOW[..], &["--direct", "require"]].concat();
    let mut command = stream.command_by(between.address, &options);
    let (mut connect, mut to, mut from) = Program::start_piped("connect", &mut command);
    let mut hidden = stream.service.accept();
    to.write_all(MARKER).expect("it takes bytes");
    expect(&mut hidden, MARKER);
    drop((to, hidden));
    from.read_to_end(&mut Vec::new()).expect("stdout ends");
    assert!(connect.exit().success());
    assert_eq!((connect.lines(DIRECT), connect.lines(RELAYED)), (1, 0));
    assert!(between.saw(b"octet-stream+tls"), "it went by way of the relay");
    for hidden in [&b"DTCP"[..], b"MARKER"] {
        assert!(!between.saw(hidden), "the relay can read {}", String::from_utf8_lossy(hidden));
    }
}

/// A direct offer that the relay forges has no effect: only the fingerprints inside TLS count.
fn a_direct_offer_of_the_relay() {
    let stream = Stream::start(&AGENT_DIRECT);
    let own = TcpListener::bind("127.0.0.1:0").expect("a port");
    let offer = format!(
        "DTCP-Key: relays\r\nDTCP-Host: {}\r\nDTCP-Fingerprint: {}\r\n",
        own.local_addr().expect("an address"),
        "17".repeat(32)
    );
    let between = Between::start(stream.relay.clear, Tampering::Offer(offer));
    for wish in ["off", "prefer", "require"] {
        let options = [&ALLOW[..], &["--direct", wish]].concat();
        greets(&stream.service, &mut stream.command_by(between.address, &options));
    }
    assert!(between.saw(b"DTCP-Key: relays"));
    own.set_nonblocking(true).expect("it is open");
    assert_eq!(
        own.accept().map(|_| ()).unwrap_err().kind(),
        io::ErrorKind::WouldBlock,
        "the relay was dialled"
    );
}

fn a_relay_that_strips_the_upgrade() {
    let stream = Stream::start(&AGENT_DIRECT);
    let between = Between::start(stream.relay.clear, Tampering::Strip);
    fails(&mut stream.command_by(between.address, &ALLOW[..2]), &["not end to end"]);
    assert!(!between.saw(b"MARKER"));
}

fn a_relay_that_changes_a_byte() {
    let stream = Stream::start(&[]);
    let between = Between::start(stream.relay.clear, Tampering::Flip);
    fails(&mut stream.command_by(between.address, &[]), &["end to end, the agent"]);
}

/// A relay can hand over any connection as a client of a port, which shows no key.
fn a_port_does_not_bypass_the_keys() {
    let service = Raw::start();
    let world = World::new();
    let home = world.enrol("home", &["--end-to-end"]);
    let list = world.folder.write("keys", "# nobody\n");
    let relay = world.relay(&["--tcp", "127.0.0.1:0=home"]);
    let at: SocketAddr = relay
        .program
        .pick("the port", |line| line.split_once(" on=")?.1.strip_suffix(" id_name=home")?.parse().ok());
    let (address, state) = (service.address.to_string(), world.folder.0.join("agent"));
    let options = ["--stream", &address, "--end-to-end", "--state", state.to_str().expect("a path of ours")];
    let options = [&options[..], &["--allow-keys", list.to_str().expect("a path of ours")]].concat();
    let _agent = world.agent(&relay, &home, Below::Tls13, &options);
    let mut client = TcpStream::connect(at).expect("it listens");
    client.write_all(MARKER).expect("it takes bytes");
    relay.program.expect_line("event=hand-over-failed");
    let mut got = Vec::new();
    let _ = client.read_to_end(&mut got);
    assert_eq!(got, b"");

    let ticket = world.ticket(&relay, &home, Below::Tls13);
    for way in ["--tls-to=127.0.0.1:1", "--stream=ssh=127.0.0.1:1"] {
        let mut agent = rendezvous();
        agent.args(["agent", "--ticket"]).arg(&ticket).args(options.iter().chain([&way]));
        let output = run(&mut agent);
        assert_eq!(output.status.code(), Some(2), "{way}");
    }
}

/// What the relay in the middle does.
#[derive(Clone, Debug)]
enum Tampering {
    None,
    /// Adds these fields to the request and to the answer before TLS.
    Offer(String),
    /// Requests a stream without TLS from the agent, and answers that there is one with TLS.
    Strip,
    /// Changes the last byte of the first data after the agent's 101.
    Flip,
}

/// A relay that reads and changes what it can, in front of the real one.
struct Between {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Between {
    fn start(relay: SocketAddr, tampering: Tampering) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let all = seen.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(hidden)) = (client, TcpStream::connect(relay)) else { return };
                let (tampering, all) = (tampering.clone(), all.clone());
                thread::spawn(move || carry(client, hidden, &tampering, &all));
            }
        });
        Self { address, seen }
    }

    fn saw(&self, what: &[u8]) -> bool {
        let seen = self.seen.lock().expect("no thread panics");
        seen.windows(what.len()).any(|part| part == what)
    }
}

/// Forwards one connection. An error ends it, because either side may close at any time.
fn carry(mut client: TcpStream, mut hidden: TcpStream, tampering: &Tampering, seen: &Mutex<Vec<u8>>) {
    let request = String::from_utf8(read_head(&mut client)).expect("a head");
    let request = match tampering {
        Tampering::Offer(fields) => format!("{}{fields}\r\n", &request[..request.len() - 2]),
        Tampering::Strip => request.replace("octet-stream+tls", "octet-stream"),
        Tampering::None | Tampering::Flip => request,
    };
    event(seen, request.as_bytes());
    if hidden.write_all(request.as_bytes()).is_err() {
        return;
    }
    let answer = String::from_utf8(read_head(&mut hidden)).expect("a head");
    let answer = match tampering {
        Tampering::Offer(fields) => format!("{}{fields}\r\n", &answer[..answer.len() - 2]),
        Tampering::None | Tampering::Strip | Tampering::Flip => answer,
    };
    event(seen, answer.as_bytes());
    if client.write_all(answer.as_bytes()).is_err() {
        return;
    }
    let (Ok(from), Ok(to)) = (client.try_clone(), hidden.try_clone()) else { return };
    let flips = matches!(tampering, Tampering::Flip);
    thread::scope(|scope| {
        scope.spawn(|| pump(from, to, false, seen));
        pump(hidden, client, flips, seen);
    });
}

fn pump(mut from: TcpStream, mut to: TcpStream, mut flips: bool, seen: &Mutex<Vec<u8>>) {
    let mut bytes = [0; 16_384];
    while let Ok(len) = from.read(&mut bytes) {
        if len == 0 {
            break;
        }
        event(seen, &bytes[..len]);
        if std::mem::take(&mut flips) {
            bytes[len - 1] ^= 1;
        }
        if to.write_all(&bytes[..len]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

fn event(seen: &Mutex<Vec<u8>>, bytes: &[u8]) {
    seen.lock().expect("no thread panics").extend_from_slice(bytes);
}
