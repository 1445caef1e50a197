//! `agent --password-file`, `--allow` and `--deny`, with curl and requests.

use std::process::Command;

use crate::curl::{curl_of, text};
use crate::harness::{Case, case};
use crate::hidden::{page, page_text};
use crate::peers::{Peer, script};
use crate::program::{Program, run, run_with};
use crate::proxy::connect_from;
use crate::wire::{Answer, Below, Wire};
use crate::world::{Enrolled, Relay, World, base64, rendezvous};

pub(crate) const CASES: &[Case] = &[
    case("curl_needs_the_password", &[Peer::Curl], curl_needs_the_password),
    case("a_page_of_sixty_resources_costs_one_hash", &[Peer::Curl], a_page_of_sixty_resources),
    case("requests_repeats_a_request_on_the_same_connection", &[Peer::Requests], requests_repeats),
    case("ten_thousand_guesses_do_not_affect_others", &[Peer::Curl], ten_thousand_guesses),
    case("the_passwords_are_reloaded_on_sighup", &[Peer::Curl], the_passwords_are_read_again),
    case("a_trace_with_passwords_replays_and_contains_no_password", &[Peer::Curl], a_trace_with_passwords),
    case("passwords_are_not_requested_without_tls", &[], passwords_in_clear),
    case("addresses_are_allowed_and_denied", &[Peer::Curl], addresses),
];

/// The agent's log line for each hash.
const HASHED: &str = "event=password-hashed";

/// A page behind an agent that requires a password: anna's is `right`.
struct Protected {
    world: World,
    relay: Relay,
    agent: Program,
}

pub(crate) fn set_password(world: &World, user: &str, password: &str) {
    let mut set = rendezvous();
    set.args(["password", "--cost", "4"]).arg(world.folder.0.join("users")).arg(user);
    assert!(run_with(&mut set, password.as_bytes()).status.success());
}

fn start(options: &[&str]) -> (World, Relay, Enrolled) {
    let world = World::new();
    let home = world.enrol("home", &["--label", "home"]);
    let relay = world.relay(&[&["--domain", "example.test"][..], options].concat());
    (world, relay, home)
}

impl Protected {
    fn start(options: &[&str]) -> Self {
        let (world, relay, home) = start(&[]);
        set_password(&world, "anna", "right");
        let users = world.folder.0.join("users").to_str().expect("a path of ours").to_owned();
        let own = ["--to", &page().to_string(), "--password-file", &users, "--log", "debug"];
        let agent = world.agent(&relay, &home, Below::Tls13, &[&own, options].concat());
        Self { world, relay, agent }
    }

    fn url(&self, target: &str) -> String {
        format!("{}{target}", self.relay.url(Below::Tls13))
    }

    /// curl, with these credentials.
    fn curl(&self, user: Option<&str>) -> Command {
        let mut curl = curl(&self.world);
        if let Some(user) = user {
            curl.args(["-u", user]);
        }
        curl
    }

    /// The status of a request with these credentials.
    fn status(&self, user: Option<&str>) -> String {
        let mut curl = self.curl(user);
        text(&run(curl.args(["-o", "/dev/null", "-w", "%{http_code}", &self.url("/")])))
    }
}

fn curl(world: &World) -> Command {
    let mut curl = curl_of(world);
    curl.args(["-H", "Host: home.example.test"]);
    curl
}

fn curl_needs_the_password() {
    let protected = Protected::start(&[]);
    assert_eq!(protected.status(None), "401");
    assert_eq!(protected.status(Some("anna:wrong")), "401");
    assert_eq!(protected.status(Some("nobody:right")), "401");
    assert_eq!(protected.status(Some("anna:right")), "200");
    let shown = text(&run(protected.curl(None).args(["-i", &protected.url("/")])));
    assert!(shown.contains("WWW-Authenticate: Basic realm=\"home-https\", charset=\"UTF-8\""), "{shown}");
    // It repeats the request with its body on the same connection after the challenge.
    let mut curl = protected.curl(Some("anna:right"));
    curl.args(["--anyauth", "-d", "hello", "-w", " %{num_connects}", &protected.url("/post")]);
    assert_eq!(text(&run(&mut curl)), format!("{} 1", page_text("POST", "/post", b"hello")));
    protected.agent.expect_line("event=wrong-password peer=127.0.0.1");
    assert_eq!(protected.agent.lines("anna"), 0, "no name is logged");
}

fn a_page_of_sixty_resources() {
    let protected = Protected::start(&[]);
    let mut curl = protected.curl(Some("anna:right"));
    curl.args(["--parallel", "--parallel-max", "6", "-w", "%{http_code}\n", "-o", "/dev/null"]);
    let shown = text(&run(curl.arg(protected.url("/[1-60]"))));
    assert_eq!(shown.matches("200").count(), 60, "{shown}");
    protected.agent.expect_exactly(HASHED, 1);
}

fn requests_repeats() {
    let protected = Protected::start(&[]);
    let mut client = Peer::Requests.command();
    client
        .arg(script("password_client.py"))
        .arg(protected.relay.url(Below::Tls13))
        .arg(protected.world.certificate());
    let expected = page_text("GET", "/2", b"") + &page_text("POST", "/4", b"hello");
    assert_eq!(text(&run(&mut client)), format!("401\n{expected}401\n{expected}done\n"));
    // One hash for the correct password, and one for the wrong one of each session.
    protected.agent.expect_exactly(HASHED, 3);
}

fn ten_thousand_guesses() {
    const GUESSES: usize = 10_000;
    let protected = Protected::start(&[]);
    std::thread::scope(|scope| {
        let guesser = scope.spawn(|| {
            let mut wire = Wire::over(connect_from("127.0.0.9", protected.relay.tls), Below::Tls13);
            let (mut wrong, mut busy) = (0, 0);
            for guess in 0..GUESSES {
                let pair = base64(format!("anna:{guess}").as_bytes());
                let head = format!(
                    "GET / HTTP/1.1\r\nHost: home.example.test\r\nAuthorization: Basic {pair}\r\n\r\n"
                );
                wire.send(head.as_bytes());
                match Answer::read(&mut wire).status() {
                    401 => wrong += 1,
                    429 => busy += 1,
                    status => panic!("{status}"),
                }
            }
            (wrong, busy)
        });
        let mut served = 0;
        while !guesser.is_finished() || served == 0 {
            assert_eq!(protected.status(Some("anna:right")), "200");
            served += 1;
        }
        let (wrong, busy) = guesser.join().expect("it goes on to its end");
        assert_eq!(wrong + busy, GUESSES);
        assert!(busy > GUESSES / 2, "{busy} of the guesses were not checked");
    });
}

fn the_passwords_are_read_again() {
    let protected = Protected::start(&[]);
    assert_eq!(protected.status(Some("anna:right")), "200");
    set_password(&protected.world, "anna", "new");
    protected.agent.signal("HUP");
    protected.agent.expect_line("event=reloaded option=password-file users=1");
    assert_eq!(protected.status(Some("anna:right")), "401");
    assert_eq!(protected.status(Some("anna:new")), "200");
    let users = protected.world.folder.0.join("users");
    std::fs::write(users, "anna:in-clear\n").expect("a file of ours");
    protected.agent.signal("HUP");
    protected.agent.expect_line("event=reload-refused");
    assert_eq!(protected.status(Some("anna:new")), "200");
    assert_eq!(protected.agent.lines("in-clear"), 0);
}

fn a_trace_with_passwords() {
    let folder = World::new();
    let trace = folder.folder.0.join("agent.trace").to_str().expect("a path of ours").to_owned();
    let mut protected = Protected::start(&["--trace", &trace]);
    assert_eq!(protected.status(None), "401");
    assert_eq!(protected.status(Some("anna:wrong-secret")), "401");
    let mut curl = protected.curl(Some("anna:right"));
    curl.args(["--anyauth", "-d", "hello", &protected.url("/post")]);
    assert_eq!(text(&run(&mut curl)), page_text("POST", "/post", b"hello"));
    protected.agent.signal("TERM");
    assert!(protected.agent.exit().success());
    let recorded = std::fs::read_to_string(&trace).expect("a trace");
    assert!(recorded.contains(" right\n") && recorded.contains(" wrong\n"), "{recorded}");
    for pair in ["anna:wrong-secret", "anna:right"] {
        assert!(!recorded.contains(&base64(pair.as_bytes())), "{pair}");
    }
    assert!(!recorded.contains("The recording ends"), "{recorded}");
    let replayed = run(rendezvous().args(["replay", &trace, "--check"]));
    assert!(replayed.status.success(), "{}", String::from_utf8_lossy(&replayed.stdout));
}

fn passwords_in_clear() {
    let (world, relay, home) = start(&[]);
    set_password(&world, "anna", "right");
    let users = world.folder.0.join("users").to_str().expect("a path of ours").to_owned();
    let fails = |below: Below, options: &[&str], word: &str| {
        let mut agent = rendezvous();
        agent.args(["agent", "--ticket"]).arg(world.ticket(&relay, &home, below));
        let output = run(agent.args(["--password-file", &users]).args(options));
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && complaint.contains(word), "{complaint}");
    };
    fails(Below::Clear, &["--to", "127.0.0.1:1"], "http://");
    fails(Below::Tls13, &["--stream", "127.0.0.1:1"], "--to");
    fails(Below::Tls13, &["--to", "127.0.0.1:1", "--tls-to", "127.0.0.1:2"], "--tls-to");
}

fn addresses() {
    let (world, relay, home) = start(&[]);
    let to = page().to_string();
    let options = ["--to", &to, "--allow", "127.0.0.0/24", "--deny", "127.0.0.9"];
    let _agent = world.agent(&relay, &home, Below::Tls13, &options);
    let url = relay.url(Below::Tls13);
    for (from, expected) in [("127.0.0.1", "200"), ("127.0.0.9", "403"), ("127.0.1.1", "403")] {
        let mut curl = curl(&world);
        curl.args(["--interface", from, "-o", "/dev/null", "-w", "%{http_code}", &url]);
        assert_eq!(text(&run(&mut curl)), expected, "{from}");
    }
}
