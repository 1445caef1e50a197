//! Third-party clients: wget, wget2, lynx, curl with HTTP/1.0, Python, Ruby, Node; and their output.

use std::time::{Duration, Instant};

use crate::curl::{curl, text};
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
    case("python_urllib_with_basic", &[Peer::Python], || urllib("basic")),
    case("python_urllib_with_digest", &[Peer::Python], || urllib("digest")),
    case("wget2_answers_the_challenge", &[Peer::Wget2], wget2_answers_the_challenge),
    case("lynx_shows_pages_and_errors", &[Peer::Lynx], lynx_shows_pages_and_errors),
    case("ruby_with_basic", &[Peer::Ruby("net/http")], || ruby("basic")),
    case("ruby_with_net_http_digest_auth", &[Peer::Ruby("net/http/digest_auth")], || ruby("digest_auth")),
    case("ruby_mechanize", &[Peer::Ruby("mechanize")], || ruby("mechanize")),
    case("ruby_httpclient", &[Peer::Ruby("httpclient")], || ruby("httpclient")),
    case("curl_speaks_http_1_0_over_tls", &[Peer::Curl], curl_speaks_http_1_0_over_tls),
    case("plain_http_on_the_port_for_tls_is_redirected", &[Peer::Curl], plain_http_is_redirected),
    case("an_agent_that_shuts_down_is_absent_soon", &[Peer::Curl], an_agent_shuts_down_cleanly),
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

fn urllib(handler: &str) {
    let (world, relay, home, _agent) = World::with_service(page());
    let mut python = Peer::Python.command();
    python.arg(script("urllib_client.py")).args([&relay.url(Below::Tls13), &home.id]);
    python.arg(world.certificate()).arg(handler);
    let wanted = [page_text("GET", "/get", b""), page_text("POST", "/post", b"a=1")];
    assert_eq!(text(&run(&mut python)), wanted.concat());
}

fn ruby(which: &str) {
    let (world, relay, home, _agent) = World::with_service(page());
    let mut ruby = Peer::Ruby("net/http").command();
    ruby.arg(script("ruby_client.rb")).args([&relay.url(Below::Tls13), &home.id]);
    ruby.arg(world.certificate()).arg(which);
    assert_eq!(text(&run(&mut ruby)), page_text("GET", "/ruby", b""));
}

fn wget2_answers_the_challenge() {
    let (world, relay, home, _agent) = World::with_service(page());
    let mut wget2 = Peer::Wget2.command();
    wget2.args(["--no-config", "--no-proxy", "--tries=1", "--timeout=30", "-q", "-O", "-", "--no-hsts"]);
    wget2.arg(format!("--ca-certificate={}", world.certificate().display()));
    wget2.args([&format!("--user={}", home.id), "--password=any"]);
    let output = run(wget2.arg(format!("{}/wget2", relay.url(Below::Tls13))));
    assert_eq!(text(&output), page_text("GET", "/wget2", b""));
}

fn lynx_shows_pages_and_errors() {
    let (world, relay, home, _agent) = World::with_service(page());
    // lynx compares only names, not addresses.
    let url = format!("https://localhost:{}/lynx", relay.tls.port());
    let lynx = |options: &[&str]| {
        let mut lynx = Peer::Lynx.command();
        lynx.env("SSL_CERT_FILE", world.certificate()).args(["-dump", "-nolist", "-width=200"]);
        String::from_utf8_lossy(&run(lynx.args(options).arg(&url)).stdout).into_owned()
    };
    let got = lynx(&[&format!("-auth={}:any", home.id), "-source"]);
    assert_eq!(got, page_text("GET", "/lynx", b""));
    let unknown = lynx(&["-auth=00000000-0000-4000-8000-000000000000:any"]);
    assert!(unknown.contains("This server is not connected"), "{unknown}");
    assert!(unknown.contains("404 Not Found: no hidden server waits under this ID"), "{unknown}");
    assert!(!unknown.contains('<') && !unknown.contains('{'), "{unknown}");
}

fn curl_speaks_http_1_0_over_tls() {
    let (world, relay, home, _agent) = World::with_service(page());
    for scheme in ["--basic", "--digest", "--anyauth"] {
        let output =
            run(curl(&world, &home, scheme).args(["-0", &format!("{}/old", relay.url(Below::Tls13))]));
        assert_eq!(text(&output), page_text("GET", "/old", b""), "{scheme}");
    }
}

fn plain_http_is_redirected() {
    let world = World::new();
    let home = world.enrol("home", &[]);
    let relay = world.relay(&["--log", "debug"]);
    let _agent = world.agent(&relay, &home, Below::Tls13, &["--to", &page().to_string()]);
    let url = format!("http://{}/typed?a=b", relay.tls);
    let mut curl = curl(&world, &home, "--basic");
    // curl sends credentials to another scheme only on request.
    let output = run(curl.args(["-L", "--location-trusted", &url]));
    assert_eq!(text(&output), page_text("GET", "/typed?a=b", b""));
    relay.program.expect_line("plain HTTP instead of TLS");
}

fn an_agent_shuts_down_cleanly() {
    let (world, relay, home, agent) = World::with_service(page());
    agent.signal("TERM");
    relay.program.expect_line("event=waiting-ended");
    let asked = Instant::now();
    let mut curl = curl(&world, &home, "--basic");
    let output = run(curl.args(["-w", "%{http_code}", &relay.url(Below::Tls13)]));
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(lines.ends_with("no hidden server waits under this ID\"}}\n404"), "{lines}");
    // It is held for two seconds. An offline hidden server would be waited for during five.
    assert!(asked.elapsed() < Duration::from_millis(4_500), "{:?}", asked.elapsed());
}
