//! The trace of an agent on real sockets replays to the same actions and contains no secrets.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rendezvous_core::http::date::write_date;

use crate::connect::greets;
use crate::harness::{Case, case};
use crate::hidden::{Raw, page, page_text, read_head};
use crate::program::{Program, run};
use crate::wire::{Answer, Below};
use crate::world::{World, basic, lines, rendezvous, start_agent};

pub(crate) const CASES: &[Case] = &[
    case("the_trace_of_a_busy_agent_replays", &[], the_trace_of_a_busy_agent_replays),
    case(
        "the_trace_of_an_agent_with_direct_connections_replays",
        &[],
        the_trace_of_an_agent_with_direct_connections_replays,
    ),
    case("the_trace_of_an_agent_contains_no_secret", &[], the_trace_of_an_agent_contains_no_secret),
    case("a_trace_is_never_overwritten", &[], a_trace_is_never_overwritten),
];

const OK: &str = "HTTP/1.1 200 OK\r\n\r\n";

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// Ends the agent, and returns its trace, which must have mode 0600 and replay to its actions.
fn recorded(mut agent: Program, trace: &Path) -> String {
    agent.signal("TERM");
    assert!(agent.exit().success());
    let mode = fs::metadata(trace).expect("it was written").permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    let checked = run(rendezvous().arg("replay").arg(trace).arg("--check"));
    assert!(checked.status.success());
    let text = fs::read_to_string(trace).expect("it is text");
    let played = run(rendezvous().arg("replay").arg(trace));
    assert_eq!(String::from_utf8_lossy(&played.stdout), text);
    assert!(!text.contains("The recording ends"), "{text}");
    text
}

/// The agent dials, the agent is dialled, and the stream stays on the relay.
fn the_trace_of_an_agent_with_direct_connections_replays() {
    let (world, stream) = (World::new(), Raw::start());
    let home = world.enrol("home", &[]);
    let relay = world.relay(&[]);
    let trace = world.folder.0.join("agent.trace");
    let (stream_at, file) = (stream.address.to_string(), shown(&trace));
    let options = [
        ["--stream", &stream_at, "--direct", "127.0.0.1:0", "--direct-allow", "loopback"].as_slice(),
        &["--trace", &file],
    ]
    .concat();
    let agent = world.agent(&relay, &home, Below::Tls13, &options);
    let listens = ["--direct-listen", "127.0.0.1:0"];
    let dials = ["--direct-allow", "loopback"];
    for options in [&listens[..], &dials, &[listens, dials].concat(), &[]] {
        let url = relay.url(Below::Tls13);
        let mut connect = rendezvous();
        connect.args(["connect", &url, &home.id, "--pin", &relay.pin]).args(options);
        greets(&stream, &mut connect);
    }
    agent.expect_lines("event=pair-ended", 4);
    agent.expect_exactly("event=direct ", 3);
    agent.expect_exactly("event=relayed ", 1);
    let text = recorded(agent, &trace);
    assert!(!text.contains("SSH-2.0"), "{text}");
}

/// Two relays, one of which is never reachable; clients for both services; a service that is down; a restart.
fn the_trace_of_a_busy_agent_replays() {
    let (world, stream) = (World::new(), Raw::start());
    let (home, away) = (world.enrol("home", &[]), world.enrol("away", &[]));
    let mut relay = world.relay(&[]);
    let trace = world.folder.0.join("agent.trace");
    let line = |line: &str| {
        Some(if line.starts_with("relay ") { "relay https://127.0.0.1:1" } else { line }.to_owned())
    };
    let nowhere = world.ticket_with(&relay, &away, Below::Tls13, line);
    let (page_at, stream_at) = (page().to_string(), stream.address.to_string());
    let (nowhere, file) = (shown(&nowhere), shown(&trace));
    let options = [
        ["--to", &page_at].as_slice(),
        &["--stream", &stream_at],
        &["--ticket", &nowhere, "--to", "127.0.0.1:1"],
        &["--pool", "2", "--trace", &file],
    ]
    .concat();
    let agent = world.agent(&relay, &home, Below::Tls13, &options);
    agent.expect_line(lines::UNREACHABLE);

    let get = format!("GET /x HTTP/1.1\r\nHost: h\r\n{}\r\n", basic(&home.id));
    assert_eq!(relay.ask(&get).text(), page_text("GET", "/x", b""));
    let mut client = relay.open(Below::Tls13);
    let upgrade = get.replacen("\r\n", "\r\nConnection: Upgrade\r\nUpgrade: octet-stream\r\n", 1);
    client.send(upgrade.as_bytes());
    let mut served = stream.accept();
    assert_eq!(Answer::read_head(&mut client).status(), 101);
    client.send(b"to the service");
    client.end();
    let mut got = Vec::new();
    served.read_to_end(&mut got).expect("a clean end");
    assert_eq!(got, b"to the service");
    served.write_all(b"from the service").expect("the pair lives");
    drop(served);
    assert_eq!(client.rest(), b"from the service");

    relay.program.kill();
    agent.expect_line(lines::RELAY_LOST);
    let relay = world.relay_again(&relay, &["--wait", "30"]);
    assert_eq!(relay.ask(&get).text(), page_text("GET", "/x", b""));

    let text = recorded(agent, &trace);
    for expected in
        ["machine agent\n", " upstream=0 stream=no\n", " stream=yes\n", " pair-ended ", " drain\n"]
    {
        assert!(text.contains(expected), "{expected} is not in the trace:\n{text}");
    }
    for forbidden in [&home.secret, &away.secret] {
        assert!(!text.contains(forbidden.as_str()), "a secret is in the trace:\n{text}");
    }
}

/// The token and the nonce in the query of an agent's CONNECT.
fn shown_by(agent: &mut TcpStream) -> Vec<String> {
    let head = String::from_utf8(read_head(agent)).expect("a head of ASCII");
    let query = head.split([' ', '?']).nth(2).expect("a query");
    let mut values: Vec<_> =
        query.split('&').filter_map(|it| it.split_once('=')).map(|(_, it)| it.to_owned()).collect();
    assert!(values.len() >= 2, "{head}");
    // A challenge, which comes after the others, is not secret.
    values.truncate(2);
    values
}

/// The test is the relay, so it knows what the agent sends and receives.
fn the_trace_of_an_agent_contains_no_secret() {
    const COOKIES: [&str; 2] = ["c00kie-of-the-relay", "c00kie-of-the-client"];
    const KEYS: [&str; 4] =
        ["challenge-of-the-relay", "key-in-the-query", "bearer-of-the-client", "body-of-the-client"];
    let (world, relay, service) = (World::new(), Raw::start(), Raw::start());
    let home = world.enrol("home", &[]);
    let trace = world.folder.0.join("agent.trace");
    let ticket = format!(
        "relay http://{}\nid otpauth://totp/rendezvous:{}?secret={}&algorithm=SHA256&digits=8&period=30\n",
        relay.address, home.id, home.secret
    );
    let ticket = world.folder.write("by-hand.ticket", &ticket);
    let at = service.address.to_string();
    let agent =
        start_agent(&ticket, &["--to", &at, "--stream", &at, "--pool", "1", "--trace", &shown(&trace)]);

    // Refused, with a challenge.
    let mut refused = relay.accept();
    let mut forbidden = shown_by(&mut refused);
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later").as_secs();
    let mut date = Vec::new();
    write_date(wall + 7_200, &mut date);
    let (date, [cookie, _], [challenge, ..]) = (String::from_utf8_lossy(&date), COOKIES, KEYS);
    let answer = format!(
        "HTTP/1.1 401 Unauthorized\r\nDate: {date}\r\nRendezvous-Challenge: to-a-hidden-server\r\nWWW-Authenticate: Digest nonce=\"{challenge}\"\r\n\
         Set-Cookie: {cookie}\r\nContent-Length: 19\r\n\r\n{cookie}"
    );
    refused.write_all(answer.as_bytes()).expect("the agent reads");

    // Accepted at the second attempt; then a client comes, in two pieces.
    let mut taken = relay.accept();
    forbidden.extend(shown_by(&mut taken));
    taken.write_all(OK.as_bytes()).expect("the agent reads");
    agent.expect_line(lines::WAITING);
    let ([_, cookie], [_, key, bearer, body]) = (COOKIES, KEYS);
    let request = format!(
        "POST /inbox?key={key} HTTP/1.1\r\nHost: h\r\nCookie: session={cookie}\r\n\
         Authorization: Bearer {bearer}\r\nContent-Length: 18\r\n\r\n{body}"
    );
    let (front, back) = request.split_at(60);
    taken.write_all(front.as_bytes()).expect("the agent reads");
    // The agent opens the next connection at the client's first byte: it read the first piece alone.
    let mut next = relay.accept();
    forbidden.extend(shown_by(&mut next));
    taken.write_all(back.as_bytes()).expect("the agent reads");
    let mut served = service.accept();
    let mut got = vec![0; request.len()];
    served.read_exact(&mut got).expect("the request is whole");
    assert_eq!(String::from_utf8_lossy(&got), request);
    served.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").expect("the pair lives");
    drop(served);
    taken.read_to_end(&mut Vec::new()).expect("a clean end");
    // The agent does not wait for a relay that closes.
    drop((refused, taken, next));

    let text = recorded(agent, &trace);
    assert!(
        text.contains("\nseed 00\n") && text.contains(" why=challenged ") && text.contains(" served "),
        "{text}"
    );
    forbidden.push(home.secret.clone());
    forbidden.extend([COOKIES.as_slice(), &KEYS].concat().iter().map(|it| (*it).to_owned()));
    for forbidden in forbidden {
        assert!(!text.contains(&forbidden), "{forbidden} is in the trace:\n{text}");
    }

    // In a trace that was changed, the changed line differs.
    let changed = world.folder.write("changed.trace", &text.replacen("-> pair ", "-> pair 7", 1));
    let differs = run(rendezvous().arg("replay").arg(&changed).arg("--check"));
    assert_eq!(differs.status.code(), Some(1));
    let line = text.lines().position(|line| line.contains("-> pair ")).expect("it is there") + 1;
    let complaint = String::from_utf8_lossy(&differs.stderr).into_owned();
    assert!(complaint.contains(&format!("changed.trace:{line}: expected: pair 7")), "{complaint}");
}

fn a_trace_is_never_overwritten() {
    let world = World::new();
    let home = world.enrol("home", &[]);
    let relay = world.relay(&[]);
    let kept: PathBuf = world.folder.write("kept.trace", "somebody's\n");
    let ticket = world.ticket(&relay, &home, Below::Tls13);
    let mut agent = rendezvous();
    agent.args(["agent", "--to", "127.0.0.1:1", "--ticket"]).arg(ticket).arg("--trace").arg(&kept);
    let refused = run(&mut agent);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("kept.trace"));
    assert_eq!(fs::read_to_string(&kept).expect("it is there"), "somebody's\n");
}
