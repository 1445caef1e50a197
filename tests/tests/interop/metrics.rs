//! `--metrics`: metrics, probes and documents for the operator, and `rendezvous usage`.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use crate::harness::{Case, case};
use crate::hidden::page;
use crate::peers::Peer;
use crate::program::{PATIENCE, Program, run, run_with};
use crate::wire::{Answer, Below};
use crate::world::{Enrolled, Relay, World, basic, lines, listening_at, rendezvous, start_agent};

pub(crate) const CASES: &[Case] = &[
    case("a_relay_counts_what_happens_in_both_formats", &[], a_relay_counts_what_happens_in_both_formats),
    case(
        "the_reference_parser_reads_every_scrape",
        &[Peer::PrometheusClient],
        the_reference_parser_reads_every_scrape,
    ),
    case(
        "promtool_finds_nothing_to_complain_about",
        &[Peer::Promtool],
        promtool_finds_nothing_to_complain_about,
    ),
    case("only_known_hosts_are_answered", &[], only_known_hosts_are_answered),
    case("slow_scrapers_delay_no_one_and_are_cut_off", &[], slow_scrapers_delay_no_one_and_are_cut_off),
    case("a_draining_relay_is_live_and_not_ready", &[], a_draining_relay_is_live_and_not_ready),
    case("a_thousand_ids_are_all_there", &[], a_thousand_ids_are_all_there),
    case("connections_are_shown_with_their_clients_and_bytes", &[], connections_are_shown),
    case(
        "connections_are_ended_at_the_operators_request",
        &[],
        connections_are_ended_at_the_operators_request,
    ),
    case("usage_survives_a_kill", &[], usage_survives_a_kill),
    case("log_lines_are_json_objects", &[Peer::Python], log_lines_are_json_objects),
    case("fail2ban_finds_those_who_guess_and_no_one_else", &[Peer::Fail2ban], fail2ban_finds_those_who_guess),
];

/// A relay with `--metrics` on loopback, and its address.
fn relay(world: &World, options: &[&str]) -> (Relay, SocketAddr) {
    let relay = world.relay(&[&["--metrics", "127.0.0.1:0"], options].concat());
    let at = relay.program.pick("where it serves metrics", metrics_at);
    (relay, at)
}

pub(crate) fn metrics_at(line: &str) -> Option<SocketAddr> {
    line.contains("kind=metrics").then(|| listening_at(line)).flatten()
}

/// Sends a request and returns the answer with its whole body. In HTTP/1.0 the body ends with the connection.
fn ask(at: SocketAddr, request: &str) -> (u16, String) {
    let mut tcp = TcpStream::connect(at).expect("it listens");
    tcp.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    tcp.write_all(request.as_bytes()).expect("it reads");
    let answer = Answer::read_head(&mut tcp);
    let mut text = String::new();
    tcp.read_to_string(&mut text).expect("UTF-8 up to the end");
    (answer.status(), text)
}

fn get(at: SocketAddr, path: &str) -> (u16, String) {
    ask(at, &format!("GET {path} HTTP/1.0\r\nHost: {at}\r\n\r\n"))
}

fn scrape(at: SocketAddr, accept: &str) -> String {
    let (status, text) = ask(at, &format!("GET /metrics HTTP/1.0\r\nHost: {at}\r\nAccept: {accept}\r\n\r\n"));
    assert_eq!(status, 200);
    text
}

const OPEN_METRICS: &str = "application/openmetrics-text;version=1.0.0,*/*;q=0.1";

/// Scrapes until a line is there: counters are updated in the relay's next turn.
fn scrape_until(at: SocketAddr, line: &str) -> String {
    let until = Instant::now() + PATIENCE;
    loop {
        let text = scrape(at, "*/*");
        if text.lines().any(|it| it == line) {
            return text;
        }
        assert!(Instant::now() < until, "the metrics never had '{line}': {text}");
    }
}

fn fetch(relay: &Relay, home: &Enrolled) -> usize {
    let answer =
        relay.ask(format!("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{}\r\n", basic(&home.id)));
    assert_eq!(answer.status(), 200);
    answer.body.len()
}

fn a_relay_counts_what_happens_in_both_formats() {
    let world = World::new();
    let home = world.enrol("home", &[]);
    let (relay, at) = relay(&world, &[]);
    let agent =
        world.agent(&relay, &home, Below::Tls13, &["--to", &page().to_string(), "--metrics", "127.0.0.1:0"]);
    let at_agent = agent.pick("where it serves metrics", metrics_at);
    agent.expect_lines(lines::WAITING, 4);
    fetch(&relay, &home);
    let nobody = basic("00000000-0000-4000-8000-000000000000");
    relay.ask(format!("GET / HTTP/1.1\r\nHost: h\r\n{nobody}\r\n"));
    relay.program.expect_line(lines::PAIR_ENDED);
    agent.expect_lines(lines::WAITING, 5);
    let text = scrape_until(at, "rendezvous_refused_total{reason=\"not_found\"} 1");
    for line in [
        "rendezvous_pairs_total 1",
        "rendezvous_active_pairs 0",
        "rendezvous_handover_seconds_count 1",
        "rendezvous_waiting_connections{id=\"home\"} 4",
        "rendezvous_ready 1",
        "# TYPE rendezvous_bytes_total counter",
    ] {
        assert!(text.lines().any(|it| it == line), "{line}: {text}");
    }
    let out = text
        .lines()
        .find_map(|line| line.strip_prefix("rendezvous_bytes_total{id=\"home\",direction=\"out\"} "));
    assert!(out.expect("it is counted").parse::<u64>().expect("a number") > 0);
    assert!(!text.contains(&home.id), "an ID is a capability");
    let text = scrape(at, OPEN_METRICS);
    assert!(text.contains("\n# TYPE rendezvous_bytes counter\n") && text.ends_with("\n# EOF\n"), "{text}");
    scrape_until(at_agent, "rendezvous_bytes_total{id=\"home-https\",direction=\"in\"} 46");
    assert_eq!(get(at_agent, "/ready").0, 200);
}

/// A relay and an agent with a ticket of an odd name, and a scrape of each in both formats.
fn scrapes() -> Vec<(&'static str, String)> {
    let world = World::new();
    let home = world.enrol("home", &[]);
    let (relay, at) = relay(&world, &[]);
    let ticket = fs::read_to_string(world.ticket(&relay, &home, Below::Tls13)).expect("the ticket");
    let odd = world.folder.write("a \"quote\" and a \\.ticket", &ticket);
    let agent = start_agent(&odd, &["--to", &page().to_string(), "--metrics", "127.0.0.1:0"]);
    let at_agent = agent.pick("where it serves metrics", metrics_at);
    agent.expect_line(lines::WAITING);
    fetch(&relay, &home);
    let mut scrapes = Vec::new();
    for at in [at, at_agent] {
        scrapes.push(("openmetrics", scrape(at, OPEN_METRICS)));
        scrapes.push(("text", scrape(at, "text/plain")));
    }
    assert!(scrapes[3].1.contains(r#"{id="a \"quote\" and a \\","#), "{}", scrapes[3].1);
    scrapes
}

fn the_reference_parser_reads_every_scrape() {
    const SCRIPT: &str = "\
import sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as text
families = list((openmetrics if sys.argv[1] == 'openmetrics' else text)(sys.stdin.read()))
samples = [(s.name, tuple(sorted(s.labels.items()))) for f in families for s in f.samples]
assert len(samples) == len(set(samples)), 'a series twice'
ids = {s.labels['id'] for f in families for s in f.samples if 'id' in s.labels}
print(len(families) > 10, sorted(ids))";
    let ids = ["['home']", "['home']", r#"['a "quote" and a \\']"#, r#"['a "quote" and a \\']"#];
    for ((format, text), ids) in scrapes().iter().zip(ids) {
        let output = run_with(Peer::PrometheusClient.command().args(["-c", SCRIPT, format]), text.as_bytes());
        let printed = String::from_utf8_lossy(&output.stdout);
        assert_eq!(printed.trim(), format!("True {ids}"), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

fn promtool_finds_nothing_to_complain_about() {
    for (format, text) in scrapes() {
        // It reads the text format alone.
        if format == "text" {
            let output = run_with(Peer::Promtool.command().args(["check", "metrics"]), text.as_bytes());
            let complaints = String::from_utf8_lossy(&output.stderr).into_owned()
                + &String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && complaints.is_empty(), "{complaints}");
        }
    }
    for file in ["alerts.yml", "alerts_test.yml"] {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../server/dist/monitoring/");
        let what = if file == "alerts.yml" { ["check", "rules"] } else { ["test", "rules"] };
        let output = run(Peer::Promtool.command().args(what).arg(format!("{path}{file}")).current_dir(path));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

fn only_known_hosts_are_answered() {
    let world = World::new();
    let socket = world.folder.0.join("metrics.sock");
    let unix = format!("unix:{}", socket.display());
    let (_relay, at) = relay(&world, &["--metrics", &unix, "--metrics-name", "relay.lan"]);
    let of = |host: &str| ask(at, &format!("GET /metrics HTTP/1.1\r\n{host}Connection: close\r\n\r\n")).0;
    for host in ["localhost", "127.0.0.1:80", "[::1]", "192.0.2.1", "relay.lan:1"] {
        assert_eq!(of(&format!("Host: {host}\r\n")), 200, "{host}");
    }
    assert_eq!(of("Host: evil.example\r\n"), 421);
    assert_eq!(of(""), 400, "HTTP/1.1 without Host");
    assert_eq!(ask(at, "GET /metrics HTTP/1.0\r\n\r\n").0, 421);
    assert_eq!(ask(at, "GET /ready HTTP/1.0\r\n\r\n").0, 200, "a load balancer's probe");
    assert_eq!(ask(at, &format!("POST /api/x HTTP/1.0\r\nHost: {at}\r\n\r\n")).0, 403, "without Origin");
    let (status, page) = get(at, "/");
    assert!(status == 200 && page.starts_with("<!doctype html>"));
    assert_eq!(fs::metadata(&socket).expect("the socket").permissions().mode() & 0o777, 0o600);
    let mut unix = UnixStream::connect(&socket).expect("it listens");
    unix.write_all(b"GET /api/status HTTP/1.0\r\nHost: localhost\r\n\r\n").expect("it reads");
    let mut text = String::new();
    unix.read_to_string(&mut text).expect("an answer");
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("}\n"), "{text}");
}

fn slow_scrapers_delay_no_one_and_are_cut_off() {
    let world = World::new();
    let home = world.enrol("home", &[]);
    let (relay, at) = relay(&world, &[]);
    let agent = world.agent(&relay, &home, Below::Tls13, &["--to", &page().to_string()]);
    agent.expect_lines(lines::WAITING, 4);
    let open = |bytes: &str| {
        let mut tcp = TcpStream::connect(at).expect("it listens");
        tcp.write_all(bytes.as_bytes()).expect("it reads");
        tcp
    };
    // More than the limit of connections: some in a request, some that read nothing of many answers.
    let mut slow: Vec<_> = (0..20).map(|_| open("GET /metr")).collect();
    let requests = format!("GET /metrics HTTP/1.1\r\nHost: {at}\r\n\r\n").repeat(100);
    slow.extend((0..20).map(|_| open(&requests)));
    for _ in 0..3 {
        scrape(at, "*/*");
        fetch(&relay, &home);
    }
    // The first ones made room.
    let mut first = slow.swap_remove(0);
    first.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    let ended = first.read(&mut [0; 64]);
    assert!(
        matches!(ended, Ok(0))
            || ended.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
    );
    drop(slow);
    assert_eq!(get(at, "/live").0, 200);
}

fn a_draining_relay_is_live_and_not_ready() {
    let world = World::new();
    let home = world.enrol("home", &[]);
    let (relay, at) = relay(&world, &["--drain", "60"]);
    let mut hidden = world.waiting(&relay, &home, Below::Clear);
    relay.program.expect_line(lines::WAITING);
    let mut client = relay.open(Below::Clear);
    client.send(format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", basic(&home.id)).as_bytes());
    crate::hidden::read_head(&mut hidden);
    assert_eq!(get(at, "/ready"), (200, "ready\n".to_owned()));
    let health_check = || run(rendezvous().args(["status", "--ready", "--state"]).arg(world.state()));
    assert!(health_check().status.success());
    relay.program.signal("TERM");
    relay.program.expect_line("event=stopping");
    assert_eq!(health_check().status.code(), Some(1));
    assert_eq!(get(at, "/ready"), (503, "shutting down\n".to_owned()));
    assert_eq!(get(at, "/live").0, 200);
    assert!(!world.state().join("control.sock").exists(), "another relay may use the folder");
}

fn a_thousand_ids_are_all_there() {
    let world = World::new();
    let home = world.enrol("home", &[]);
    let ids = world.state().join("ids");
    let mut text = fs::read_to_string(&ids).expect("the file");
    for number in 0..1_000 {
        let line = text.lines().find(|line| line.starts_with("home ")).expect("its line").to_owned();
        let line = line.replacen("home ", &format!("n{number:04} "), 1);
        let other = format!("00000000-0000-4000-8000-00000000{number:04}");
        let _ = writeln!(text, "{}", line.replace(&home.id, &other));
    }
    fs::write(&ids, text).expect("the file can be written");
    let (_relay, at) = relay(&world, &[]);
    for (accept, end) in [("*/*", ""), (OPEN_METRICS, "# EOF\n")] {
        let text = scrape(at, accept);
        assert_eq!(text.matches("rendezvous_waiting_connections{id=").count(), 1_001);
        assert!(text.ends_with(end));
    }
    let output = run(rendezvous().args(["status", "--json", "--state"]).arg(world.state()));
    let json = String::from_utf8_lossy(&output.stdout);
    assert_eq!(json.matches("\"pairs_ended\":0").count(), 1_001);
    assert!(json.contains("\"ids_left_out\":0") && json.len() > 96 * 1024);
    assert!(!get(at, "/api/status").1.contains(&home.id), "other users can connect by TCP");
    // A removed ID has no series any more.
    run(rendezvous().args(["id", "remove", "n0007", "--state"]).arg(world.state()));
    assert!(!scrape(at, "*/*").contains("\"n0007\""));
}

fn connections_are_shown() {
    let world = World::new();
    let home = world.enrol("home", &["--label", "home"]);
    let (relay, _) = relay(&world, &["--domain", "relay.test"]);
    let mut hidden = world.waiting(&relay, &home, Below::Clear);
    let _waiting = world.waiting(&relay, &home, Below::Tls13);
    relay.program.expect_lines(lines::WAITING, 2);
    let mut client = relay.open(Below::Clear);
    client.send(b"GET / HTTP/1.1\r\nHost: home.relay.test\r\n\r\nmore");
    // The newest connection gets the client.
    let shown = |options: &[&str]| {
        let mut status = rendezvous();
        status.args(["status", "--connections"]).args(options).arg("--state").arg(world.state());
        String::from_utf8_lossy(&run(&mut status).stdout).into_owned()
    };
    relay.program.expect_line(lines::PAIRED);
    let from = client.tcp().local_addr().expect("an address").to_string();
    let until = Instant::now() + PATIENCE;
    let table = loop {
        let table = shown(&[]);
        if table.lines().any(|line| line.contains(&from) && line.contains("4 B")) {
            break table;
        }
        assert!(Instant::now() < until, "{table}");
    };
    let row = table.lines().find(|line| line.contains(&from)).expect("its row");
    assert!(
        row.contains(" home ") && row.contains("paired (client)") && row.contains("plain, label"),
        "{row}"
    );
    assert_eq!(table.lines().filter(|line| line.contains("plain, token")).count(), 1);
    assert_eq!(table.lines().filter(|line| line.contains("tls, token")).count(), 1);
    assert!(!table.contains(&home.id) && !shown(&["--json"]).contains(&home.id));
    drop(client);
    hidden.end();
}

fn connections_are_ended_at_the_operators_request() {
    let world = World::new();
    let home = world.enrol("home", &[]);
    let (relay, at) = relay(&world, &[]);
    let kick = |what: &str| {
        let output = run(rendezvous().args(["kick", what, "--state"]).arg(world.state()));
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let _waiting = world.waiting(&relay, &home, Below::Clear);
    relay.program.expect_line(lines::WAITING);
    assert_eq!(kick("192.0.2.0/24"), (Some(1), String::new()));
    assert_eq!(kick("other").0, Some(1));
    assert_eq!(kick("-x y").0, Some(2));
    assert_eq!(kick("home"), (Some(0), "ended 1\n".to_owned()));
    relay.program.expect_line(lines::WAITING_ENDED);
    let _waiting = world.waiting(&relay, &home, Below::Clear);
    relay.program.expect_lines(lines::WAITING, 2);
    let body = "{\"from\":\"127.0.0.1\"}";
    let post = |fields: &str| {
        let length = body.len();
        ask(
            at,
            &format!(
                "POST /api/kick HTTP/1.0\r\nHost: {at}\r\nContent-Length: {length}\r\n{fields}\r\n{body}"
            ),
        )
    };
    let json = "Content-Type: application/json\r\n";
    let own = "X-Rendezvous: change\r\n";
    for fields in [
        format!("{json}{own}"),
        format!("{json}{own}Origin: http://evil.example\r\n"),
        format!("{json}Origin: http://{at}\r\n"),
    ] {
        assert_eq!(post(&fields).0, 403, "{fields}");
    }
    assert_eq!(post(&format!("{json}{own}Origin: http://{at}\r\n")), (200, "{\"ended\":1}\n".to_owned()));
    relay.program.expect_lines(lines::WAITING_ENDED, 2);
}

fn usage_survives_a_kill() {
    let world = World::new();
    let home = world.enrol("home", &[]);
    let serve = || relay(&world, &["--usage-interval", "0.1"]).0;
    let mut first = serve();
    let agent = world.agent(&first, &home, Below::Tls13, &["--to", &page().to_string()]);
    agent.expect_lines(lines::WAITING, 4);
    let bytes = fetch(&first, &home);
    let file = world.state().join("usage");
    let until = Instant::now() + PATIENCE;
    while !fs::read_to_string(&file).is_ok_and(|text| text.lines().any(|line| line.ends_with(" 1"))) {
        assert!(Instant::now() < until, "the usage is never written");
        std::thread::yield_now();
    }
    first.program.kill();
    drop(agent);
    let usage = || {
        let output = run(rendezvous().args(["usage", "--json", "--state"]).arg(world.state()));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let killed = usage();
    let counted = |json: &str| {
        let (_, rest) = json.split_once("\"from_hidden\":").expect("an entry");
        rest.split(',').next().and_then(|number| number.parse::<usize>().ok()).expect("a number")
    };
    assert!(killed.contains("\"name\":\"home\"") && counted(&killed) >= bytes, "{killed}");
    let mut second = serve();
    assert_eq!(usage(), killed, "a restart adds nothing");
    let agent = world.agent(&second, &home, Below::Tls13, &["--to", &page().to_string()]);
    agent.expect_lines(lines::WAITING, 4);
    fetch(&second, &home);
    second.program.expect_line(lines::PAIR_ENDED);
    assert_eq!(counted(&usage()), 2 * counted(&killed), "a running relay is asked");
    drop(agent);
    second.program.signal("TERM");
    assert!(second.program.exit().success());
    assert_eq!(counted(&usage()), 2 * counted(&killed));
    assert_eq!(fs::metadata(&file).expect("the file").permissions().mode() & 0o777, 0o600);
}

fn log_lines_are_json_objects() {
    let world = World::new();
    let home = world.enrol("home", &[]);
    let mut serve = world.serve(["127.0.0.1:0", "127.0.0.1:0"], &["--log-format", "json"]);
    let program = Program::start("relay", &mut serve);
    program.expect_line("\"event\":\"ready\"");
    let clear = program.pick("where it listens in clear", |line| {
        let line = line.contains("\"tls\":\"no\"").then_some(line)?;
        line.split('"').find_map(|word| word.parse::<SocketAddr>().ok())
    });
    let nobody = basic("00000000-0000-4000-8000-000000000000");
    ask(clear, &format!("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{nobody}\r\n"));
    program.expect_line("\"event\":\"refused\"");
    let lines = program.lines_with("").join("\n");
    let script = "import json, sys\nfor line in sys.stdin:\n e = json.loads(line)\n\
                  \x20assert e['time'].endswith('Z') and e['level'], e\n if e.get('event') == 'refused': print(e['status'])";
    let output = run_with(Peer::Python.command().args(["-c", script]), lines.as_bytes());
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "404", "{complaint}\n{lines}");
    assert!(!lines.contains(&home.id));
}

fn fail2ban_finds_those_who_guess() {
    let world = World::new();
    let filter = concat!(env!("CARGO_MANIFEST_DIR"), "/../server/dist/fail2ban/filter.d/rendezvous.conf");
    let log = "\
2026-11-30T18:34:43Z INFO  event=refused conn=1.1 peer=192.0.2.1:4000 status=401 reason=\"not authorized\"
2026-11-30T18:34:43Z INFO  event=refused conn=1.2 peer=[2001:db8::1]:4000 status=404 reason=\"no hidden server waits under this ID\"
INFO  event=refused conn=1.3 peer=192.0.2.3:4000 status=429 reason=\"too many failures\" id_name=\"x\"
{\"time\":\"2026-11-30T18:34:43Z\",\"level\":\"info\",\"event\":\"refused\",\"conn\":\"1.4\",\"peer\":\"192.0.2.4:4000\",\"status\":401,\"reason\":\"not authorized\"}
{\"time\":\"2026-11-30T18:34:43Z\",\"level\":\"info\",\"event\":\"refused\",\"conn\":\"1.5\",\"peer\":\"[2001:db8::5]:4000\",\"status\":404,\"reason\":\"x\"}
2026-11-30T18:34:43Z INFO  event=refused conn=1.6 peer=[::ffff:192.0.2.6]:4000 status=401 reason=\"not authorized\"
2026-11-30T18:34:43Z DEBUG event=challenged conn=2.1 peer=198.51.100.1:4000
2026-11-30T18:34:43Z INFO  event=refused conn=2.2 peer=198.51.100.2:4000 status=503 reason=\"the relay is full\"
2026-11-30T18:34:43Z INFO  event=paired hidden=1.1 client=2.3 id_name=\"event=refused conn=9.9 peer=198.51.100.3:4000 status=401\" peer=198.51.100.4:1
2026-11-30T18:34:43Z INFO  event=refused conn=2.5 peer=198.51.100.5:4000 status=503 reason=\"event=refused conn=9.9 peer=198.51.100.6:1 status=401 \"
{\"time\":\"2026-11-30T18:34:43Z\",\"level\":\"info\",\"event\":\"refused\",\"conn\":\"2.7\",\"peer\":\"198.51.100.7:1\",\"status\":503,\"reason\":\"\\\"event\\\":\\\"refused\\\",\\\"conn\\\":\\\"9.9\\\",\\\"peer\\\":\\\"198.51.100.8:1\\\",\\\"status\\\":401\"}
";
    let log = world.folder.write("relay.log", log);
    let mut tool = Peer::Fail2ban.command();
    tool.args(["--out", "ip"]).arg(log).arg(filter);
    let output = run(&mut tool);
    let found = String::from_utf8_lossy(&output.stdout);
    let found: Vec<_> = found.split_whitespace().collect();
    let guessers = ["192.0.2.1", "2001:db8::1", "192.0.2.3", "192.0.2.4", "2001:db8::5", "192.0.2.6"];
    assert_eq!(found, guessers, "{}", String::from_utf8_lossy(&output.stderr));
}
