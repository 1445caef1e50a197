//! curl as the client, over TLS with the relay's certificate as CA.

use std::fs;
use std::process::{Command, Output};

use crate::harness::{Case, case};
use crate::hidden::{noise, page, page_text};
use crate::peers::Peer;
use crate::program::{Program, run, run_with};
use crate::wire::Below;
use crate::world::{Enrolled, Relay, World};

pub(crate) const CASES: &[Case] = &[
    case("get_with_digest", NEEDS, || gets("--digest")),
    case("get_with_basic", NEEDS, || gets("--basic")),
    case("get_with_anyauth", NEEDS, || gets("--anyauth")),
    case("head", NEEDS, head),
    case("get_without_tls", NEEDS, get_without_tls),
    case("get_with_the_pin", NEEDS, get_with_the_pin),
    case("post_10_mb_with_expect", NEEDS, || posts(&["-H", "Expect: 100-continue"], true)),
    case("post_10_mb_without_expect", NEEDS, || posts(&["-H", "Expect:"], true)),
    case("post_10_mb_without_length_is_chunked", NEEDS, || {
        posts(&["-H", "Transfer-Encoding: chunked"], true)
    }),
    case("post_10_mb_with_basic", NEEDS, || posts(&["-H", "Expect:"], false)),
    case("put_of_a_stream_is_chunked", NEEDS, put_of_a_stream_is_chunked),
    case("several_requests_on_one_connection", NEEDS, several_requests_on_one_connection),
    case("forms_and_redirects_keep_their_method", NEEDS, a_form),
];

const NEEDS: &[Peer] = &[Peer::Curl];

/// A relay, a page behind an agent, and a client.
struct Home {
    world: World,
    relay: Relay,
    home: Enrolled,
    _agent: Program,
}

impl Home {
    fn new() -> Self {
        let (world, relay, home, agent) = World::with_service(page());
        Self { world, relay, home, _agent: agent }
    }

    /// curl with a user and a CA. The caller adds the URL.
    fn curl(&self, scheme: &str) -> Command {
        curl(&self.world, &self.home, scheme)
    }

    fn url(&self, target: &str) -> String {
        format!("{}{target}", self.relay.url(Below::Tls13))
    }
}

/// curl, which trusts the relay and prints only errors.
pub(crate) fn curl_of(world: &World) -> Command {
    let mut curl = Peer::Curl.command();
    // Ignores the user's configuration files.
    curl.args(["-q", "-sS", "--max-time", "60", "--noproxy", "*", "--cacert"]).arg(world.certificate());
    curl
}

/// The same as a client of one hidden server.
pub(crate) fn curl(world: &World, home: &Enrolled, scheme: &str) -> Command {
    let mut curl = curl_of(world);
    curl.args([scheme, "-u", &format!("{}:any", home.id)]);
    curl
}

/// The standard output of a successful program.
pub(crate) fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn gets(scheme: &str) {
    let home = Home::new();
    let got = run(home.curl(scheme).args(["-w", "%{http_code}"]).arg(home.url("/a?b=c")));
    assert_eq!(text(&got), format!("{}200", page_text("GET", "/a?b=c", b"")));
}

fn head() {
    let home = Home::new();
    let got = text(&run(home.curl("--digest").arg("-I").arg(home.url("/"))));
    assert!(got.contains("HTTP/1.1 200 OK\r\n") && got.contains("Content-Type: text/plain\r\n"), "{got}");
}

fn get_without_tls() {
    let home = Home::new();
    let url = format!("{}/", home.relay.url(Below::Clear));
    assert_eq!(text(&run(home.curl("--digest").arg(url))), page_text("GET", "/", b""));
}

fn get_with_the_pin() {
    let home = Home::new();
    let get = |pin: &str| {
        let mut curl = Peer::Curl.command();
        curl.args(["-q", "-sS", "--max-time", "60", "--digest", "-u", &format!("{}:", home.home.id), "-k"]);
        run(curl.args(["--pinnedpubkey", pin]).arg(home.url("/")))
    };
    assert_eq!(text(&get(&home.relay.pin)), page_text("GET", "/", b""));
    assert_eq!(
        get("sha256//AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").status.code(),
        Some(90),
        "the wrong pin"
    );
}

fn posts(options: &[&str], digest: bool) {
    let home = Home::new();
    let body = noise(6, 10 << 20);
    let file = home.world.folder.0.join("body");
    fs::write(&file, &body).expect("a file can be written");
    let scheme = if digest { "--digest" } else { "--basic" };
    let mut curl = home.curl(scheme);
    curl.args(options).arg("--data-binary").arg(format!("@{}", file.display())).arg(home.url("/post"));
    assert_eq!(text(&run(&mut curl)), page_text("POST", "/post", &body));
}

fn put_of_a_stream_is_chunked() {
    let home = Home::new();
    let body = noise(7, 1 << 20);
    // curl cannot rewind a pipe for a second request: with Digest it first sends an empty body.
    let mut curl = home.curl("--digest");
    curl.args(["-T", "-"]).arg(home.url("/put"));
    let output = run_with(&mut curl, &body);
    assert_eq!(text(&output), page_text("PUT", "/put", &body));
}

fn several_requests_on_one_connection() {
    let home = Home::new();
    let targets = ["/1", "/2", "/3", "/4", "/5"];
    let mut curl = home.curl("--digest");
    curl.args(targets.map(|target| home.url(target))).args(["-w", "%{num_connects}\n"]);
    let got = text(&run(&mut curl));
    let pages: Vec<_> = targets.iter().map(|target| page_text("GET", target, b"")).collect();
    for page in &pages {
        assert!(got.contains(page.as_str()), "{page} in {got}");
    }
    // The first request may need a second connection after the challenge. All others reuse it.
    let connects: Vec<_> = got.lines().filter_map(|line| line.parse::<u32>().ok()).collect();
    assert_eq!(connects.len(), 5, "{got}");
    assert_eq!(connects[1..], [0; 4], "{got}");
}

fn a_form() {
    let home = Home::new();
    let got = run(home.curl("--digest").args(["-d", "a=1", "-d", "b=2"]).arg(home.url("/form")));
    assert_eq!(text(&got), page_text("POST", "/form", b"a=1&b=2"));
}
