//! The PROXY protocol: HAProxy in front of the relay, and as the service behind the agent.

use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;

use socket2::{Domain, Socket, Type};

use crate::connect::NO_HTTP;
use crate::harness::{Case, case};
use crate::hidden::{Raw, page, page_text, read_head};
use crate::old_peers::start_old_relay;
use crate::peers::Peer;
use crate::program::Program;
use crate::wire::{Answer, Below, Wire};
use crate::world::{Enrolled, Relay, World, basic, lines, listening_at, rendezvous, start_agent};

pub(crate) const CASES: &[Case] = &[
    case("haproxy_sends_the_client_address_in_version_1", NEEDS, || the_log_shows_the_client("send-proxy")),
    case("haproxy_sends_the_client_address_in_version_2", NEEDS, || {
        the_log_shows_the_client("send-proxy-v2 proxy-v2-options unique-id,crc32c")
    }),
    case("the_limit_is_the_client_s_in_version_1", NEEDS, || the_limit_is_the_client_s("send-proxy")),
    case("the_limit_is_the_client_s_in_version_2", NEEDS, || the_limit_is_the_client_s("send-proxy-v2")),
    case("a_health_check_is_haproxy_s_own", NEEDS, a_health_check),
    case("an_untrusted_proxy_is_closed", &[], an_untrusted_proxy_is_closed),
    case("without_a_header_there_is_no_tls", &[], without_a_header_there_is_no_tls),
    case("the_whole_way_in_version_1", NEEDS, || the_whole_way("v1")),
    case("the_whole_way_in_version_2", NEEDS, || the_whole_way("v2")),
    case("haproxy_as_the_service_reads_version_1", NEEDS, || haproxy_as_the_service("v1")),
    case("haproxy_as_the_service_reads_version_2", NEEDS, || haproxy_as_the_service("v2")),
    case("a_stream_service_gets_the_header_first", &[], a_stream_service_gets_the_header_first),
    case("an_old_relay_sends_no_header", &[Peer::Node, Peer::Openssl], an_old_relay_sends_no_header),
    case("an_agent_that_does_not_ask_gets_no_header", NEEDS, an_agent_that_does_not_ask_gets_no_header),
    case("the_option_reports_invalid_values", &[], the_option_reports_invalid_values),
];

const NEEDS: &[Peer] = &[Peer::Haproxy];
const GET: &str = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";

/// A relay behind HAProxy.
struct Behind {
    world: World,
    relay: Relay,
    home: Enrolled,
    /// Where HAProxy listens.
    door: SocketAddr,
    haproxy: Program,
}

impl Behind {
    /// `server`: HAProxy's options for the relay, after its address.
    fn start(server: &str, options: &[&str]) -> Self {
        let world = World::new();
        let home = world.enrol("home", &[]);
        let (relay, proxied) = start_relay(&world, options);
        let text = format!(
            "mode tcp\nlisten front\n  bind fd@0\n  log stdout format raw local0\n  option log-health-checks\n  \
             unique-id-format %[uuid]\n  server relay {proxied} {server}\n"
        );
        let (door, haproxy) = haproxy(&world, "front", &text);
        Self { world, relay, home, door, haproxy }
    }

    fn client(&self, source: &str) -> Wire {
        Wire::over(connect_from(source, self.door), Below::Tls13)
    }
}

/// A relay with one more listener, and that listener's address.
fn start_relay(world: &World, options: &[&str]) -> (Relay, SocketAddr) {
    let own = ["--listen-proxy", "127.0.0.1:0", "--log", "debug"];
    let relay = world.relay(&[&own, options].concat());
    let proxied = relay.program.pick("its third listener", |line| {
        line.contains("proxied=yes").then(|| listening_at(line)).flatten()
    });
    (relay, proxied)
}

/// HAProxy with one listener, which is its standard input, so that no other program can take that port.
fn haproxy(world: &World, name: &str, text: &str) -> (SocketAddr, Program) {
    const DEFAULTS: &str = "global\n  maxconn 200\ndefaults\n  timeout connect 30s\n  timeout client 60s\n  timeout server 60s\n  ";
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let address = listener.local_addr().expect("it is bound");
    let config = world.folder.write(&format!("{name}.cfg"), &format!("{DEFAULTS}{text}"));
    let mut command = Peer::Haproxy.command();
    let program =
        Program::start_with("haproxy", command.args(["-db", "-f"]).arg(config), OwnedFd::from(listener));
    (address, program)
}

/// A connection from another address of this machine.
pub(crate) fn connect_from(source: &str, to: SocketAddr) -> TcpStream {
    let source: SocketAddr = format!("{source}:0").parse().expect("an address");
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket can be made");
    socket.bind(&source.into()).expect("all of 127.0.0.0/8 is this machine");
    socket.connect(&to.into()).expect("somebody listens there");
    socket.into()
}

fn port(wire: &Wire) -> u16 {
    wire.tcp().local_addr().expect("it is bound").port()
}

fn ask(id: &str) -> String {
    format!("GET /way HTTP/1.1\r\nHost: h\r\n{}\r\n", basic(id))
}

fn the_log_shows_the_client(server: &str) {
    let behind = Behind::start(server, &[]);
    let _agent =
        behind.world.agent(&behind.relay, &behind.home, Below::Tls13, &["--to", &page().to_string()]);
    let mut client = behind.client("127.0.0.2");
    let from = format!("peer=127.0.0.2:{}", port(&client));
    client.send(GET.as_bytes());
    assert_eq!(Answer::read(&mut client).status(), 401);
    let expect_line = |event: &str| {
        behind.relay.program.pick(event, |line| (line.contains(event) && line.contains(&from)).then_some(()));
    };
    expect_line("event=challenged");
    client.send(ask(&behind.home.id).as_bytes());
    assert_eq!(Answer::read(&mut client).text(), page_text("GET", "/way", b""));
    expect_line(lines::PAIRED);
}

/// The limit is two per client; all of them come from HAProxy.
fn the_limit_is_the_client_s(server: &str) {
    let behind = Behind::start(server, &["--max-connections-per-address", "2"]);
    let _first = behind.client("127.0.0.2");
    let _second = behind.client("127.0.0.2");
    let mut third = connect_from("127.0.0.2", behind.door);
    let _ = third.read(&mut [0]);
    behind.relay.program.expect_line("too many connections from this address");
    let from = format!("peer=127.0.0.2:{}", third.local_addr().expect("it is bound").port());
    assert_eq!(behind.relay.program.lines(&from), 1);
    let (_other, _another) = (behind.client("127.0.0.3"), behind.client("127.0.0.3"));
}

/// A LOCAL header and EOF: HAProxy's own connection, which counts for no client.
fn a_health_check() {
    let behind = Behind::start("send-proxy-v2 check inter 20ms", &[]);
    behind.haproxy.expect_line("Health check for server front/relay succeeded");
    let mut client = behind.client("127.0.0.2");
    client.send(GET.as_bytes());
    assert_eq!(Answer::read(&mut client).status(), 401);
    behind.relay.program.expect_line(&format!("peer=127.0.0.2:{}", port(&client)));
    for event in ["event=dropped", "event=tls-failed"] {
        assert_eq!(behind.relay.program.lines(event), 0, "{event}");
    }
}

fn an_untrusted_proxy_is_closed() {
    let world = World::new();
    let (relay, proxied) = start_relay(&world, &["--proxy-from", "127.0.0.9"]);
    let mut stranger = connect_from("127.0.0.2", proxied);
    let _ = stranger.write_all(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n");
    assert!(!stranger.read(&mut [0]).is_ok_and(|bytes| bytes > 0), "not a word");
    let from = format!("peer=127.0.0.2:{}", stranger.local_addr().expect("it is bound").port());
    relay.program.pick("that it is a stranger", |line| {
        (line.contains(&from) && line.contains("not a trusted proxy")).then_some(())
    });
    assert_eq!(relay.program.lines("192.0.2.1"), 0, "and not believed");
    let mut trusted = connect_from("127.0.0.9", proxied);
    trusted.write_all(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n").expect("can write");
    let mut wire = Wire::over(trusted, Below::Tls12);
    wire.send(GET.as_bytes());
    assert_eq!(Answer::read(&mut wire).status(), 401);
    relay.program.expect_line("peer=192.0.2.1:1");
}

fn without_a_header_there_is_no_tls() {
    let world = World::new();
    let (relay, proxied) = start_relay(&world, &[]);
    for (bytes, why) in [
        (b"\x16\x03\x01\0\x01x".as_slice(), "no PROXY header"),
        (b"GET / HTTP/1.1\r\n\r\n", "no PROXY header"),
        (b"PROXY TCP4 localhost localhost 1 2\r\n", "malformed PROXY line"),
        (b"\r\n\r\n\0\r\nQUIT\n!\x11\xff\xff", "PROXY header too long"),
    ] {
        let mut peer = connect_from("127.0.0.2", proxied);
        peer.write_all(bytes).expect("can write");
        assert!(!peer.read(&mut [0]).is_ok_and(|bytes| bytes > 0), "not a word: {why}");
        let from = format!("peer=127.0.0.2:{}", peer.local_addr().expect("it is bound").port());
        relay.program.pick(why, |line| (line.contains(&from) && line.contains(why)).then_some(()));
    }
}

/// The header that a local service gets from a client at 127.0.0.2.
fn header(version: &str, port: u16) -> Vec<u8> {
    let [high, low] = port.to_be_bytes();
    match version {
        "v1" => format!("PROXY TCP4 127.0.0.2 0.0.0.0 {port} 0\r\n").into_bytes(),
        _ => [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".as_slice(), &[127, 0, 0, 2, 0, 0, 0, 0, high, low, 0, 0]]
            .concat(),
    }
}

/// Client, HAProxy, relay, agent, service.
fn the_whole_way(version: &str) {
    let behind = Behind::start("send-proxy-v2", &[]);
    let service = Raw::start();
    let options = ["--to", &service.address.to_string(), "--send-proxy", version];
    let _agent = behind.world.agent(&behind.relay, &behind.home, Below::Tls13, &options);
    for _ in 0..3 {
        let mut client = behind.client("127.0.0.2");
        client.send(ask(&behind.home.id).as_bytes());
        let wanted =
            [header(version, port(&client)), b"GET /way HTTP/1.1\r\nHost: h\r\n\r\n".to_vec()].concat();
        let mut got = vec![0; wanted.len()];
        let mut hidden = service.accept();
        hidden.read_exact(&mut got).expect("all of it arrives");
        assert_eq!(got.escape_ascii().to_string(), wanted.escape_ascii().to_string());
        // After that it is a stream like any other.
        hidden.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").expect("can write");
        assert_eq!(Answer::read_head(&mut client).status(), 204);
        client.end();
        assert_eq!(hidden.read(&mut [0]).expect("a clean end"), 0);
    }
}

fn haproxy_as_the_service(version: &str) {
    let behind = Behind::start("send-proxy", &[]);
    let text = "mode http\nfrontend service\n  bind fd@0 accept-proxy\n  \
                http-request return status 200 content-type text/plain lf-string \"%[src]:%[src_port]\"\n";
    let (service, _program) = haproxy(&behind.world, "service", text);
    let options = ["--to", &service.to_string(), "--send-proxy", version];
    let _agent = behind.world.agent(&behind.relay, &behind.home, Below::Tls13, &options);
    let mut client = behind.client("127.0.0.2");
    client.send(ask(&behind.home.id).as_bytes());
    assert_eq!(Answer::read(&mut client).text(), format!("127.0.0.2:{}", port(&client)));
    // The relay itself knows the address of a client that came without HAProxy.
    let mut direct = Wire::over(connect_from("127.0.0.3", behind.relay.tls), Below::Tls13);
    direct.send(ask(&behind.home.id).as_bytes());
    assert_eq!(Answer::read(&mut direct).text(), format!("127.0.0.3:{}", port(&direct)));
}

fn a_stream_service_gets_the_header_first() {
    let world = World::new();
    let home = world.enrol("home", &[]);
    let relay = world.relay(&[]);
    let service = Raw::start();
    let options = ["--to", NO_HTTP, "--stream", &service.address.to_string(), "--send-proxy", "v1"];
    let _agent = world.agent(&relay, &home, Below::Tls13, &options);
    let url = relay.url(Below::Tls13);
    let mut connect = rendezvous();
    let (_program, mut to, mut from) =
        Program::start_piped("connect", connect.args(["connect", &url, &home.id, "--pin", &relay.pin]));
    let mut hidden = service.accept();
    let client = relay.program.pick("the client's address", |line| {
        let (_, from) = line.contains(lines::PAIRED).then(|| line.split_once("peer="))??;
        from.split(' ').next()?.parse::<SocketAddr>().ok()
    });
    let line = format!("PROXY TCP4 {} 0.0.0.0 {} 0\r\n", client.ip(), client.port());
    let mut got = vec![0; line.len()];
    hidden.read_exact(&mut got).expect("the line comes before the client says a word");
    assert_eq!(String::from_utf8_lossy(&got), line);
    hidden.write_all(b"SSH-2.0-x\r\n").expect("can write");
    let mut greeting = [0; 11];
    from.read_exact(&mut greeting).expect("the service's word");
    assert_eq!(&greeting, b"SSH-2.0-x\r\n");
    to.write_all(b"SSH-2.0-y\r\n").expect("can write");
    hidden.read_exact(&mut greeting).expect("the client's word");
    assert_eq!(&greeting, b"SSH-2.0-y\r\n");
}

fn an_old_relay_sends_no_header() {
    let world = World::new();
    let (relay, at, home, ticket) = start_old_relay(Peer::Node, false, &world);
    let service = Raw::start();
    let _agent = start_agent(&ticket, &["--to", &service.address.to_string(), "--send-proxy", "v1"]);
    relay.expect_line("waiting ");
    let mut client = Wire::open(Below::Clear, SocketAddr::from(([127, 0, 0, 1], at)));
    client.send(ask(&home.id).as_bytes());
    let got = String::from_utf8(read_head(&mut service.accept())).expect("a line and a head");
    assert!(got.starts_with("PROXY UNKNOWN\r\nGET /way HTTP/1.1\r\n"), "{got:?}");
}

fn an_agent_that_does_not_ask_gets_no_header() {
    let behind = Behind::start("send-proxy-v2", &[]);
    let service = Raw::start();
    let options = ["--to", &service.address.to_string()];
    let _agent = behind.world.agent(&behind.relay, &behind.home, Below::Tls13, &options);
    let mut client = behind.client("127.0.0.2");
    client.send(ask(&behind.home.id).as_bytes());
    let got = String::from_utf8(read_head(&mut service.accept())).expect("a head");
    assert_eq!(got, "GET /way HTTP/1.1\r\nHost: h\r\n\r\n");
}

fn the_option_reports_invalid_values() {
    let args = ["agent", "--ticket", "x", "--to", "127.0.0.1:1", "--send-proxy", "v3"];
    let refused = crate::program::run(rendezvous().args(args));
    let lines = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{lines}");
    assert!(lines.contains("--send-proxy") && lines.contains("is not v1 or v2"), "{lines}");
}
