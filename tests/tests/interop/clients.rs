//! Other people's clients: wget, Python, Node.

use crate::curl::text;
use crate::harness::{Case, case};
use crate::hidden::{page, page_text};
use crate::peers::{Peer, script};
use crate::program::{Program, run};
use crate::wire::Below;
use crate::world::World;

pub(crate) const CASES: &[Case] = &[
    case("wget_gets_and_posts", &[Peer::Wget], wget_gets_and_posts),
    case("python_requests_with_digest", &[Peer::Requests], python_requests_with_digest),
    case("python_websockets_over_the_query", &[Peer::Websockets], python_websockets_over_the_query),
    case("node_20_https_with_basic", &[Peer::Node], || node(Peer::Node)),
    case("node_0_12_https_with_basic", &[Peer::Node12], || node(Peer::Node12)),
];

fn wget_gets_and_posts() {
    let (world, relay, home, _agent) = World::with_service(page());
    let wget = |options: &[&str], target: &str| {
        let mut wget = Peer::Wget.command();
        wget.args(["--no-config", "--no-proxy", "--tries=1", "--timeout=30", "-nv", "-O", "-"]);
        wget.arg(format!("--ca-certificate={}", world.certificate().display()));
        wget.args([&format!("--user={}", home.id), "--password=any"]).args(options);
        text(&run(wget.arg(format!("{}{target}", relay.url(Below::Tls13)))))
    };
    assert_eq!(wget(&[], "/wget"), page_text("GET", "/wget", b""));
    assert_eq!(wget(&["--post-data=a=1"], "/post"), page_text("POST", "/post", b"a=1"));
}

fn python_requests_with_digest() {
    let (world, relay, home, _agent) = World::with_service(page());
    let mut python = Peer::Requests.command();
    python
        .arg(script("requests_client.py"))
        .args([&relay.url(Below::Tls13), &home.id])
        .arg(world.certificate());
    let body = vec![b'x'; 10 << 20];
    let wanted =
        [page_text("GET", "/get", b""), page_text("GET", "/again", b""), page_text("POST", "/post", &body)];
    assert_eq!(text(&run(&mut python)), format!("{}done\n", wanted.concat()));
}

fn python_websockets_over_the_query() {
    let world = World::new();
    let home = world.enrol("home", &[]);
    let relay = world.relay(&[]);
    let mut python = Peer::Websockets.command();
    let server = Program::start("echo", python.arg("-u").arg(script("websocket_echo.py")));
    let port: u16 = server.pick("its port", |line| line.strip_prefix("listening ")?.parse().ok());
    let _agent = world.agent(&relay, &home, Below::Tls13, &["--to", &format!("127.0.0.1:{port}")]);
    let mut python = Peer::Websockets.command();
    let url = relay.url(Below::Tls13).replacen("http", "ws", 1);
    python.arg(script("websocket_client.py")).args([&format!("{url}/chat?rendezvous={}", home.id)]);
    python.arg(world.certificate());
    assert_eq!(text(&run(&mut python)), "100 messages came back\n");
}

fn node(node: Peer) {
    let (world, relay, home, _agent) = World::with_service(page());
    let mut node = node.command();
    node.arg(script("https-client.js")).args([&relay.url(Below::Tls13), &home.id]).arg(world.certificate());
    let body = vec![b'x'; 1 << 20];
    let wanted = [page_text("GET", "/get", b""), page_text("POST", "/post", &body)];
    assert_eq!(text(&run(&mut node)), wanted.concat());
}
