//! Programs of 2013, reimplemented for these tests: `tests/peers/old-*.js`, on node 0.12 and on today's node.

use std::path::Path;
use std::process::Output;

use crate::curl::{curl, text};
use crate::harness::{Case, case};
use crate::hidden::{page, page_text};
use crate::peers::{Peer, script};
use crate::program::{Program, count, run};
use crate::wire::Below;
use crate::world::{Enrolled, Relay, World, lines, start_agent};

pub(crate) const CASES: &[Case] = &[
    case("ten_rendezvous_of_a_hidden_server_on_node_0_12", OLD, || ten(Peer::Node12, Below::Tls12, "close")),
    case("ten_rendezvous_of_a_hidden_server_on_node_0_12_in_clear", OLD, || {
        ten(Peer::Node12, Below::Clear, "close")
    }),
    case("ten_rendezvous_of_a_hidden_server_on_node_0_12_keep_alive", OLD, || {
        ten(Peer::Node12, Below::Tls12, "keep-alive")
    }),
    case("ten_rendezvous_of_a_hidden_server_on_node_20", NEW, || ten(Peer::Node, Below::Tls12, "close")),
    case("ten_rendezvous_of_a_hidden_server_on_node_20_keep_alive", NEW, || {
        ten(Peer::Node, Below::Tls12, "keep-alive")
    }),
    case("an_abandoned_connection_of_node_0_12_is_never_used", OLD, || idle(Peer::Node12)),
    case("an_abandoned_connection_of_node_20_is_never_used", NEW, || idle(Peer::Node)),
    case("a_held_client_is_handed_over_to_the_hidden_server_on_node_0_12", OLD, || held(Peer::Node12)),
    case("a_held_client_is_handed_over_to_the_hidden_server_on_node_20", NEW, || held(Peer::Node)),
    case("a_wrong_secret_on_node_0_12_is_refused", &[Peer::Node12], || {
        refused(Peer::Node12, "failed Parse Error")
    }),
    case("a_wrong_secret_on_node_20_is_refused", &[Peer::Node], || refused(Peer::Node, "refused 401")),
    case("our_agent_at_an_old_relay_on_node_0_12", OLD_RELAY, || old_relay(Peer::Node12, true)),
    case("our_agent_at_an_old_relay_on_node_20", NEW_RELAY, || old_relay(Peer::Node, true)),
    case("our_agent_at_an_old_relay_on_node_0_12_in_clear", OLD_RELAY, || old_relay(Peer::Node12, false)),
    case("our_connector_at_an_old_relay", OLD_RELAY, our_connector_at_an_old_relay),
];

const OLD: &[Peer] = &[Peer::Node12, Peer::Curl];
const NEW: &[Peer] = &[Peer::Node, Peer::Curl];
const OLD_RELAY: &[Peer] = &[Peer::Node12, Peer::Curl, Peer::Openssl];
const NEW_RELAY: &[Peer] = &[Peer::Node, Peer::Curl, Peer::Openssl];

/// An old hidden server at our relay.
struct Old {
    world: World,
    relay: Relay,
    home: Enrolled,
    program: Program,
}

impl Old {
    fn start(node: Peer, below: Below, options: &str) -> Self {
        let world = World::new();
        let (home, secret) = world.enrol_old("old");
        let relay = world.relay(&[]);
        let program = Self::program(node, &world, &relay, below, &home, &secret, options);
        Self { world, relay, home, program }
    }

    fn program(
        node: Peer,
        world: &World,
        relay: &Relay,
        below: Below,
        home: &Enrolled,
        secret: &Path,
        options: &str,
    ) -> Program {
        let json = format!(
            r#"{{"host":"localhost","port":{},"tls":{},"ca":{:?},"id":"{}","secretFile":{:?},"retrySeconds":1{options}}}"#,
            relay.address(below).port(),
            below != Below::Clear,
            world.certificate(),
            home.id,
            secret,
        );
        Program::start("old hidden server", node.command().arg(script("old-hidden-server.js")).arg(json))
    }

    fn get(&self, target: &str) -> Output {
        run(curl(&self.world, &self.home, "--digest")
            .arg(format!("{}{target}", self.relay.url(Below::Tls13))))
    }

    fn answers(&self, target: &str) {
        let got = text(&self.get(target));
        assert!(got.starts_with(&format!("old hidden server: GET {target} 0 ")), "{got}");
    }
}

/// Steady demand: the next client comes as soon as the previous one was served. None is refused, although the hidden
/// server is absent for a moment after each.
fn ten(node: Peer, below: Below, agent: &str) {
    let old = Old::start(node, below, &format!(r#","agent":"{agent}""#));
    old.program.expect_line("registered");
    for n in 1..=10 {
        old.answers(&format!("/{n}"));
    }
    let mut post = curl(&old.world, &old.home, "--digest");
    post.args(["--data-binary", "some bytes"]).arg(format!("{}/post", old.relay.url(Below::Tls13)));
    assert!(text(&run(&mut post)).starts_with("old hidden server: POST /post 10 "));
    old.program.expect_lines("request ", 11);
    assert_eq!((old.program.lines("failed"), old.program.lines("refused")), (0, 0));
}

fn idle(node: Peer) {
    let old = Old::start(node, Below::Tls12, r#","idleSeconds":2"#);
    for round in 1..=3 {
        old.program.expect_lines("idle", round);
        old.program.expect_lines("registered", old.program.lines("request ") + round + 1);
        old.answers(&format!("/{round}"));
    }
    assert_eq!(old.program.lines("swallowed"), 0);
}

fn held(node: Peer) {
    let world = World::new();
    let (home, secret) = world.enrol_old("old");
    let relay = world.relay(&["--wait", "20"]);
    let mut curl = curl(&world, &home, "--digest");
    curl.arg(format!("{}/early", relay.url(Below::Tls13)));
    let client = std::thread::spawn(move || curl.output().expect("curl runs"));
    // The relay has just started and the ID is enrolled: the client is held until the hidden server connects.
    relay.program.expect_line(lines::HELD);
    let _old = Old::program(node, &world, &relay, Below::Tls12, &home, &secret, "");
    assert!(text(&client.join().expect("curl runs")).starts_with("old hidden server: GET /early 0 "));
}

/// Node 0.12 assumes that no answer to a CONNECT has a body, and parses our body as a second answer.
fn refused(node: Peer, lines: &str) {
    let world = World::new();
    let (home, _) = world.enrol_old("old");
    let relay = world.relay(&[]);
    let wrong = world.folder.write("wrong", "not the secret");
    let old = Old::program(node, &world, &relay, Below::Tls12, &home, &wrong, "");
    old.expect_line(lines);
    relay.program.expect_line("status=401");
}

/// An old relay with one ID, and the ticket for it.
pub(crate) fn start_old_relay(
    node: Peer,
    tls: bool,
    world: &World,
) -> (Program, u16, Enrolled, std::path::PathBuf) {
    let (home, secret) = world.enrol_old("old");
    let (cert, key) = world.folder.self_signed("old", "DNS:localhost,IP:127.0.0.1");
    let json = format!(
        r#"{{"tls":{tls},"cert":{cert:?},"key":{key:?},"ids":{{"{}":{secret:?}}},"idleSeconds":3}}"#,
        home.id
    );
    let program = Program::start("old relay", node.command().arg(script("old-relay.js")).arg(json));
    let port = program.pick("its port", |line| line.strip_prefix("listening ")?.parse().ok());
    let scheme = if tls { "https" } else { "http" };
    let ca = if tls { format!("ca {}\n", cert.display()) } else { String::new() };
    let uri = format!(
        "otpauth://totp/rendezvous:{}?secret={}&algorithm=SHA1&digits=6&period=30",
        home.id, home.secret
    );
    let ticket = format!("relay {scheme}://localhost:{port}\n{ca}token plain\nid {uri}\n");
    let ticket = world.folder.write("old.ticket", &ticket);
    (program, port, home, ticket)
}

fn old_relay(node: Peer, tls: bool) {
    let world = World::new();
    let (relay, port, home, ticket) = start_old_relay(node, tls, &world);
    let agent = start_agent(&ticket, &["--to", &page().to_string()]);
    let get = |target: &str| {
        let mut curl = Peer::Curl.command();
        curl.args(["-q", "-sS", "--max-time", "30", "--digest", "-u", &format!("{}:x", home.id), "--cacert"]);
        curl.arg(world.folder.0.join("old.crt"));
        run(curl.arg(format!("{}://localhost:{port}{target}", if tls { "https" } else { "http" })))
    };
    // This relay refuses clients while no agent waits, so the test waits for the agent to reconnect.
    let back = || {
        relay.until("that the agent waits", |lines| {
            let over: usize =
                ["idle ", "gone ", "kicked ", "paired "].iter().map(|event| count(lines, event)).sum();
            count(lines, "waiting ") > over
        });
    };
    for n in 1..=3 {
        back();
        let target = format!("/{n}");
        assert_eq!(text(&get(&target)), page_text("GET", &target, b""));
    }
    // It ends idle connections cleanly. That is not a failure, and the agent reconnects.
    let before = relay.lines("idle ");
    relay.expect_lines("idle ", before + 1);
    back();
    assert_eq!(text(&get("/after")), page_text("GET", "/after", b""));
    assert_eq!(relay.lines("kicked "), 0, "one waiting connection, never two");
    assert_eq!(relay.lines("refused "), 0);
    drop(agent);
}

fn our_connector_at_an_old_relay() {
    let world = World::new();
    let (relay, port, home, ticket) = start_old_relay(Peer::Node12, true, &world);
    let service = crate::hidden::Raw::start();
    let _agent =
        start_agent(&ticket, &["--to", crate::connect::NO_HTTP, "--stream", &service.address.to_string()]);
    relay.expect_line("waiting ");
    crate::connect::greets(
        &service,
        crate::world::rendezvous()
            .args(["connect", &format!("https://localhost:{port}"), &home.id, "--ca"])
            .arg(world.folder.0.join("old.crt")),
    );
}
