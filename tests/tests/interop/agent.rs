//! The agent's log lines, retries and failures.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use crate::harness::{Case, case};
use crate::hidden::{page, page_on, page_text};
use crate::peers::Peer;
use crate::program::{Program, run};
use crate::wire::{Answer, Below};
use crate::world::{World, basic, lines, rendezvous, start_agent};

pub(crate) const CASES: &[Case] = &[
    case("a_local_service_that_is_down_is_502_and_logged", &[], a_local_service_that_is_down),
    case("a_wrong_pin_is_reported_and_retried_rarely", &[], a_wrong_pin_is_reported_and_retried_rarely),
    case("a_wrong_secret_is_reported_and_retried_rarely", &[], a_wrong_secret_is_reported_and_retried_rarely),
    case("a_replaced_ticket_is_read_again_on_hangup", &[], a_replaced_ticket_is_read_again_on_hangup),
    case("a_broken_ticket_is_reported_with_file_and_line", &[], a_broken_ticket),
    case("a_ticket_that_others_can_read_is_refused", &[], a_ticket_that_others_can_read_is_refused),
    case("a_ca_file_works_instead_of_a_pin", &[Peer::Openssl], a_ca_file_works_instead_of_a_pin),
    case("once_serves_one_rendezvous", &[], once_serves_one_rendezvous),
    case("two_tickets_are_two_relays", &[], two_tickets_are_two_relays),
    case("every_line_about_a_connection_names_its_hidden_server", &[], every_line_names_its_hidden_server),
    case("idle_clients_of_one_ticket_do_not_affect_another", &[], idle_clients_of_one_ticket),
    case("a_clock_three_hours_ahead_does_not_prevent_registration", &[Peer::Faketime], || clock("+3h")),
    case("a_clock_two_days_behind_does_not_prevent_registration", &[Peer::Faketime], || clock("-2d")),
    case("a_clock_of_1970_does_not_prevent_registration", &[Peer::Faketime], || {
        clock("@1970-01-01 00:00:01")
    }),
    case("a_clock_of_2100_does_not_prevent_registration", &[Peer::Faketime], || {
        clock("@2100-01-01 00:00:00")
    }),
    case("a_ticket_without_tls_causes_a_warning", &[], a_ticket_without_tls_causes_a_warning),
    case("check_reports_what_clients_get", &[], check_reports_what_clients_get),
];

fn get(id: &str) -> String {
    format!("GET /x HTTP/1.1\r\nHost: h\r\n{}\r\n", basic(id))
}

fn a_local_service_that_is_down() {
    // Bound, so that no other program gets the port, but not listening.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
    let address = socket.local_addr().ok().and_then(|address| address.as_socket()).expect("it is bound");
    let (_world, relay, home, agent) = World::with_service(address);
    let answer = relay.ask(get(&home.id));
    assert_eq!(answer.status(), 502);
    assert!(answer.text().starts_with("{\"error\":{\"permanent\":"), "{answer:?}");
    let line = agent.pick("the reason", |line| line.contains(lines::UNREACHABLE).then(|| line.to_owned()));
    assert!(line.contains(&format!(" to={address} reason=\"connection refused\"")), "{line}");
    // When the service starts, the agent connects to it.
    socket.listen(16).expect("it is bound");
    page_on(TcpListener::from(socket));
    assert_eq!(relay.ask(get(&home.id)).text(), page_text("GET", "/x", b""));
}

/// How long attempts are counted, and how many are allowed: four connections, with three attempts each.
const WATCHED: Duration = Duration::from_secs(4);
const NO_STORM: usize = 16;

fn a_wrong_pin_is_reported_and_retried_rarely() {
    let world = World::new();
    let home = world.enrol("home", &[]);
    let relay = world.relay(&["--log", "debug"]);
    let wrong = "pin sha256//AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let change = |line: &str| Some(if line.starts_with("pin ") { wrong } else { line }.to_owned());
    let ticket = world.ticket_with(&relay, &home, Below::Tls13, change);
    let agent = start_agent(&ticket, &["--to", "127.0.0.1:1"]);
    agent.expect_line(lines::RELAY_LOST);
    agent.expect_line("pin");
    assert!(agent.is_silent_on(lines::WAITING, WATCHED));
    let tries = relay.program.lines("event=tls-failed");
    assert!((1..=NO_STORM).contains(&tries), "{tries} tries");
    assert_eq!(relay.program.lines(lines::WAITING), 0, "no token was shown to a stranger");
}

fn a_wrong_secret_is_reported_and_retried_rarely() {
    let world = World::new();
    let home = world.enrol("home", &[]);
    let other = world.enrol("other", &[]);
    let relay = world.relay(&[]);
    let change = |line: &str| Some(line.replace(&home.secret, &other.secret));
    let ticket = world.ticket_with(&relay, &home, Below::Tls13, change);
    let agent = start_agent(&ticket, &["--to", "127.0.0.1:1"]);
    agent.expect_line("status=401");
    assert!(agent.is_silent_on(lines::WAITING, WATCHED));
    let tries = relay.program.lines(lines::REFUSED);
    assert!((1..=NO_STORM).contains(&tries), "{tries} tries");
}

fn a_replaced_ticket_is_read_again_on_hangup() {
    let world = World::new();
    let (home, other) = (world.enrol("home", &[]), world.enrol("other", &[]));
    let relay = world.relay(&[]);
    let write = |change: &dyn Fn(&str) -> String| {
        world.ticket_with(&relay, &home, Below::Tls13, |line| Some(change(line)))
    };
    let ticket = write(&|line| line.replace(&home.secret, &other.secret));
    let trace = world.folder.0.join("agent.trace");
    let to = page().to_string();
    let options = ["--to", &to, "--trace", trace.to_str().expect("a path of ours")];
    let mut agent = start_agent(&ticket, &options);
    agent.expect_line("status=401");
    let wrong = "pin sha256//AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    write(&|line| if line.starts_with("pin ") { wrong } else { line }.to_owned());
    agent.signal("HUP");
    agent.expect_lines("event=reloaded option=ticket", 1);
    agent.expect_line("its certificate is not the one that is trusted");
    write(&str::to_owned);
    agent.signal("HUP");
    agent.expect_lines("event=reloaded option=ticket", 2);
    agent.expect_line(lines::WAITING);
    // Another hidden server needs another agent; the old ticket stays.
    write(&|line| line.replace(&home.id, &other.id));
    agent.signal("HUP");
    agent.expect_line("event=reload-refused");
    agent.expect_line("it has another ID than at the start");
    assert_eq!(relay.ask(get(&home.id)).text(), page_text("GET", "/x", b""));
    agent.signal("TERM");
    assert!(agent.exit().success());
    let text = std::fs::read_to_string(&trace).expect("a trace");
    assert!(text.contains(" ticket 0 "), "{text}");
    assert!(!text.contains(&home.secret) && !text.contains(&other.secret), "{text}");
    assert!(run(rendezvous().arg("replay").arg(&trace)).status.success());
}

fn a_broken_ticket() {
    let world = World::new();
    let home = world.enrol("home", &[]);
    let relay = world.relay(&[]);
    for (line, broken) in [
        ("relay ", "relay ftp://nowhere"),
        ("pin ", "pin sha256//too-short"),
        ("id ", "id otpauth://totp/rendezvous:2f402f80-da50-41e1-9b23-0123456789ab?digits=8"),
        ("id ", "idea none"),
    ] {
        let change = |old: &str| Some(if old.starts_with(line) { broken.to_owned() } else { old.to_owned() });
        let ticket = world.ticket_with(&relay, &home, Below::Tls13, change);
        let text = std::fs::read_to_string(&ticket).expect("it was written");
        let number = 1 + text.lines().position(|line| line == broken).expect("the broken line");
        let output = run(rendezvous().args(["agent", "--to", "127.0.0.1:1", "--ticket"]).arg(&ticket));
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        let start = format!("rendezvous: agent: {}:{number}: ", ticket.display());
        assert!(complaint.starts_with(&start) && complaint.lines().count() == 1, "{complaint}");
        assert_eq!(output.status.code(), Some(1), "{complaint}");
        assert!(!complaint.contains(&home.secret), "{complaint}");
    }
}

fn a_ticket_that_others_can_read_is_refused() {
    let world = World::new();
    let home = world.enrol("home", &[]);
    let relay = world.relay(&[]);
    let ticket = world.ticket(&relay, &home, Below::Tls13);
    std::fs::set_permissions(&ticket, std::fs::Permissions::from_mode(0o644)).expect("its mode can be set");
    let output = run(rendezvous().args(["agent", "--to", "127.0.0.1:1", "--ticket"]).arg(&ticket));
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("chmod 600"), "it says what to do");
}

/// A self-signed certificate as `openssl req -x509` makes it is its own CA.
fn a_ca_file_works_instead_of_a_pin() {
    let world = World::new();
    let home = world.enrol("home", &[]);
    let (cert, key) = world.folder.self_signed("own", "DNS:localhost,IP:127.0.0.1");
    let (shown_cert, shown_key) = (cert.display().to_string(), key.display().to_string());
    let relay = world.relay(&["--cert", &shown_cert, "--key", &shown_key]);
    let change = |line: &str| {
        Some(if line.starts_with("pin ") { format!("ca {shown_cert}") } else { line.to_owned() })
    };
    let ticket = world.ticket_with(&relay, &home, Below::Tls13, change);
    let agent = start_agent(&ticket, &["--to", &page().to_string()]);
    agent.expect_line(lines::WAITING);
    assert_eq!(relay.ask(get(&home.id)).text(), page_text("GET", "/x", b""));
    // A new ticket has the pin of the running relay's certificate, not that of the state folder.
    let pinned = world.state().with_file_name("pinned.ticket");
    let mut again = rendezvous();
    again.args(["id", "ticket", "home", "--relay", &relay.url(Below::Tls13), "--state"]).arg(world.state());
    let output = run(again.arg("--out").arg(&pinned));
    let warning = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && warning.contains("serves another certificate"), "{warning}");
    start_agent(&pinned, &["--to", &page().to_string()]).expect_line(lines::WAITING);
}

fn once_serves_one_rendezvous() {
    let world = World::new();
    let home = world.enrol("home", &[]);
    let relay = world.relay(&[]);
    let mut agent = world.agent(&relay, &home, Below::Tls13, &["--once", "--to", &page().to_string()]);
    let close = get(&home.id).replacen("\r\n", "\r\nConnection: close\r\n", 1);
    let mut client = relay.open(Below::Tls13);
    client.send(close.as_bytes());
    assert_eq!(Answer::read(&mut client).text(), page_text("GET", "/x", b""));
    client.end();
    assert!(agent.exit().success());
}

fn two_tickets_are_two_relays() {
    let (one, two) = (World::new(), World::new());
    let (at_one, at_two) = (one.enrol("one", &[]), two.enrol("two", &[]));
    let (first, second) = (one.relay(&[]), two.relay(&[]));
    let service = page().to_string();
    let ticket = two.ticket(&second, &at_two, Below::Tls13).display().to_string();
    let agent = one.agent(&first, &at_one, Below::Tls13, &["--to", &service, "--ticket", &ticket]);
    first.program.expect_line(lines::WAITING);
    second.program.expect_line(lines::WAITING);
    for (relay, id) in [(&first, &at_one.id), (&second, &at_two.id)] {
        assert_eq!(relay.ask(get(id)).text(), page_text("GET", "/x", b""));
    }
    drop(agent);
}

/// Two hidden servers at one relay: only the name distinguishes their log lines.
fn every_line_names_its_hidden_server() {
    let world = World::new();
    let (one, two) = (world.enrol("one", &[]), world.enrol("two", &[]));
    let mut relay = world.relay(&[]);
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port");
    let (service, closed) = (page().to_string(), closed.to_string());
    let ticket = world.ticket(&relay, &two, Below::Tls13).display().to_string();
    let options = ["--to", &service, "--ticket", &ticket, "--to", &closed, "--log", "debug"];
    let agent = world.agent(&relay, &one, Below::Tls13, &options);
    let is_of = |line: &str, name: &str| line.contains(&format!(" id_name=\"{name}-https\""));
    let seen = |event: &str, name: &str| {
        let what = format!("{event} of {name}");
        agent.until(&what, |lines| lines.iter().any(|line| line.contains(event) && is_of(line, name)));
    };
    seen(lines::WAITING, "two");
    let ask = |id: &str| format!("GET /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{}\r\n", basic(id));
    assert_eq!(relay.ask(ask(&one.id)).status(), 200);
    assert_eq!(relay.ask(ask(&two.id)).status(), 502);
    seen("event=served", "one");
    seen(lines::PAIR_ENDED, "one");
    seen(lines::UNREACHABLE, "two");
    relay.program.kill();
    seen(lines::RELAY_LOST, "one");
    seen(lines::RELAY_LOST, "two");
    let lines = agent.lines_with(" conn=").into_iter().chain(agent.lines_with(" relay="));
    for line in lines.chain(agent.lines_with(lines::PAIR_ENDED)) {
        assert!(is_of(&line, "one") || is_of(&line, "two"), "a line without the name: {line}");
    }
}

/// An agent with 200 descriptors, two tickets, and more clients of one ticket than it serves. Only a few are refused:
/// after 20 the agent pauses.
fn idle_clients_of_one_ticket() {
    let world = World::new();
    let (one, two) = (world.enrol("one", &[]), world.enrol("two", &[]));
    let relay = world.relay(&[]);
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "ulimit -n 200 && exec \"$0\" \"$@\""]).arg(rendezvous().get_program());
    shell.env_remove("RUST_LOG").env_remove("JOURNAL_STREAM");
    shell.args(["agent", "--to", &page().to_string()]);
    for of in [&one, &two] {
        shell.arg("--ticket").arg(world.ticket(&relay, of, Below::Tls13));
    }
    let agent = Program::start("agent of 200", &mut shell);
    agent.expect_line("event=limits clients_per_ticket=");
    agent.expect_lines(lines::WAITING, 2);
    let (mut idle, mut refused) = (Vec::new(), 0);
    while refused < 8 {
        assert!(idle.len() < 100, "{} are served", idle.len());
        let mut wire = relay.open(Below::Clear);
        wire.send(get(&one.id).as_bytes());
        let answer = Answer::read(&mut wire);
        match answer.status() {
            200 => idle.push(wire),
            503 if answer.text().contains("as many clients as it can") => refused += 1,
            _ => panic!("{answer:?}"),
        }
    }
    assert!(idle.len() >= 10, "{} are served", idle.len());
    agent.expect_line("event=client-refused ");
    agent.expect_line("id_name=\"one");
    for _ in 0..20 {
        assert_eq!(relay.ask(get(&two.id)).text(), page_text("GET", "/x", b""));
    }
    // Clients that leave free their descriptors.
    let served = idle.len();
    drop(idle);
    agent.until("the end of its pairs", |lines| {
        let ended = |line: &&String| line.contains("event=pair-ended") && line.contains("id_name=\"one");
        lines.iter().filter(ended).count() >= served
    });
    assert_eq!(relay.ask(get(&one.id)).status(), 200);
}

fn clock(offset: &str) {
    let world = World::new();
    let home = world.enrol("home", &[]);
    let relay = world.relay(&[]);
    let ticket = world.ticket(&relay, &home, Below::Tls13);
    // `faketime` would stay as a process between the test and the program, and survive a kill. So its library is loaded
    // directly.
    let library = run(Peer::Faketime.command().args(["-f", "+0", "printenv", "LD_PRELOAD"]));
    let library = String::from_utf8_lossy(&library.stdout).trim().to_owned();
    let faked = |arguments: &[&str]| {
        let mut command = rendezvous();
        // The monotonic clock is not changed.
        command.env("LD_PRELOAD", &library).env("FAKETIME", offset).env("DONT_FAKE_MONOTONIC", "1");
        command.args(arguments).arg("--ticket").arg(&ticket).args(["--to", &page().to_string()]);
        command
    };
    let agent = Program::start("agent with a wrong clock", &mut faked(&["agent"]));
    agent.expect_line(lines::WAITING);
    assert_eq!(agent.lines(lines::RELAY_LOST), 0, "it serves at once, without a back-off");
    assert_eq!(relay.ask(get(&home.id)).text(), page_text("GET", "/x", b""));
    let check = run(&mut faked(&["check"]));
    let lines = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(check.status.success(), "{lines}");
    assert!(lines.contains("\nclock        info    "), "{lines}");
    assert!(lines.contains("\ntoken        ok      "), "{lines}");
    assert!(lines.contains("\nclient       ok      "), "{lines}");
}

fn check_reports_what_clients_get() {
    let world = World::new();
    let home = world.enrol("home", &[]);
    let relay = world.relay(&[]);
    for below in [Below::Clear, Below::Tls13] {
        let ticket = world.ticket(&relay, &home, below);
        let line = || {
            let check = run(rendezvous().args(["check", "--ticket"]).arg(&ticket));
            let lines = String::from_utf8_lossy(&check.stdout).into_owned();
            assert!(check.status.success(), "{lines}");
            let line = lines.lines().find(|line| line.starts_with("client ")).map(str::to_owned);
            line.unwrap_or_else(|| panic!("no line for the client: {lines}"))
        };
        // The token that the first check registers makes a waiting connection for a moment, which counts as an agent.
        let first = line();
        assert!(first.starts_with("client       info    "), "{first}");
        let agent = start_agent(&ticket, &["--to", &page().to_string()]);
        agent.expect_line(lines::WAITING);
        assert_eq!(line(), "client       ok      the hidden server answers with 200");
    }
}

fn a_ticket_without_tls_causes_a_warning() {
    let world = World::new();
    let home = world.enrol("home", &[]);
    let relay = world.relay(&[]);
    let agent = world.agent(&relay, &home, Below::Clear, &["--to", &page().to_string()]);
    agent.expect_line("WARN");
    assert_eq!(relay.ask(get(&home.id)).text(), page_text("GET", "/x", b""));
}
