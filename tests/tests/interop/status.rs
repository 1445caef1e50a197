//! `rendezvous status` reports the state of a running relay, also under load.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use crate::harness::{Case, case};
use crate::hidden::page;
use crate::peers::Peer;
use crate::program::{PATIENCE, Program, run};
use crate::wire::{Answer, Below, Wire};
use crate::world::{Relay, World, basic, lines, listening_at, rendezvous};

pub(crate) const CASES: &[Case] = &[
    case("it_shows_waiting_connections_and_traffic", &[], it_shows_waiting_connections_and_traffic),
    case("its_json_is_valid", &[Peer::Python], its_json_is_valid),
    case(
        "its_socket_belongs_to_the_owner_and_is_removed_with_the_relay",
        &[],
        its_socket_belongs_to_the_owner_and_is_removed_with_the_relay,
    ),
    case("the_status_socket_of_a_dead_relay_is_replaced_and_of_a_running_one_not", &[], one_relay_a_folder),
    case("a_status_reader_that_stops_delays_no_one_else", &[], a_status_reader_that_stops_delays_no_one_else),
    case("suppressed_refusals_are_counted", &[], suppressed_refusals_are_counted),
    case("a_change_of_ids_is_in_force_when_its_command_ends", &[], a_change_of_ids_is_in_force),
    case("a_command_that_changes_ids_stops_waiting_for_a_stuck_relay", &[], a_relay_that_does_not_answer),
    case("with_few_descriptors_it_serves_reloads_and_recovers", &[], with_few_descriptors),
];

fn status(world: &World, options: &[&str]) -> Option<String> {
    let output = run(rendezvous().args(["status", "--state"]).arg(world.state()).args(options));
    output.status.success().then(|| String::from_utf8(output.stdout).expect("UTF-8"))
}

/// Queries until the answer is as expected: the relay's counters are updated in its next turn.
fn status_until(world: &World, what: &str, is: impl Fn(&str) -> bool) -> String {
    let until = Instant::now() + PATIENCE;
    loop {
        let text = status(world, &["--json"]).expect("a relay runs");
        if is(&text) {
            return text;
        }
        assert!(Instant::now() < until, "the status never said {what}: {text}");
    }
}

fn it_shows_waiting_connections_and_traffic() {
    let (world, relay, home, agent) = World::with_service(page());
    agent.expect_lines(lines::WAITING, 4);
    let answer =
        relay.ask(format!("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{}\r\n", basic(&home.id)));
    assert_eq!(answer.status(), 200);
    relay.ask("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    let stranger = basic("00000000-0000-4000-8000-000000000000");
    assert_eq!(relay.ask(format!("GET / HTTP/1.1\r\nHost: h\r\n{stranger}\r\n")).status(), 404);
    relay.program.expect_line(lines::PAIR_ENDED);
    agent.expect_lines(lines::WAITING, 5);
    status_until(&world, "that four wait again", |text| {
        text.contains(r#""waiting":4,"held":0,"pairs":0,"pairs_ended":1"#)
    });
    let table = status(&world, &[]).expect("a relay runs");
    let row = table.lines().find(|line| line.starts_with("home ")).expect("a line for home");
    assert!(row.contains(&home.id) && row.ends_with("now"), "{row}");
    assert!(table.contains("refused 404  no hidden server waits under this ID"), "{table}");
    assert!(table.contains("challenged   1,"), "{table}");
    assert!(!table.contains(&home.secret));
}

fn its_json_is_valid() {
    let world = World::new();
    let home = world.enrol("home", &[]);
    let _relay = world.relay(&[]);
    let json = status(&world, &["--json"]).expect("a relay runs");
    let script = "import json, sys; print(json.loads(sys.argv[1])['ids'][0]['id'])";
    let output = run(Peer::Python.command().args(["-c", script, &json]));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), home.id);
}

fn its_socket_belongs_to_the_owner_and_is_removed_with_the_relay() {
    let world = World::new();
    let mut relay = world.relay(&[]);
    let socket = world.state().join("status.sock");
    assert_eq!(fs::symlink_metadata(&socket).expect("it is there").permissions().mode() & 0o777, 0o600);
    relay.program.signal("TERM");
    assert!(relay.program.exit().success());
    assert!(!socket.exists());
    let output = run(rendezvous().args(["status", "--state"]).arg(world.state()));
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(complaint.starts_with("rendezvous: status: no relay runs") && complaint.lines().count() == 1);
}

fn one_relay_a_folder() {
    let world = World::new();
    let mut relay = world.relay(&[]);
    let mut second = rendezvous();
    second.args(["serve", "--listen", "127.0.0.1:0", "--state"]).arg(world.state());
    let output = run(&mut second);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{complaint}");
    assert!(complaint.contains("another relay runs with this state folder"), "{complaint}");
    assert!(status(&world, &[]).is_some(), "the first one still answers");
    relay.program.kill();
    assert!(world.state().join("status.sock").exists(), "nobody took it away");
    let _relay = world.relay(&[]);
    assert!(status(&world, &[]).is_some());
}

fn a_status_reader_that_stops_delays_no_one_else() {
    let (world, relay, home, _agent) = World::with_service(page());
    let silent: Vec<_> = (0..40)
        .map(|_| UnixStream::connect(world.state().join("status.sock")).expect("the relay accepts"))
        .collect();
    let answer =
        relay.ask(format!("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{}\r\n", basic(&home.id)));
    assert_eq!(answer.status(), 200);
    assert!(status(&world, &["--json"]).is_some());
    drop(silent);
}

fn suppressed_refusals_are_counted() {
    let world = World::new();
    let mut relay = world.relay(&["--log-rate", "1"]);
    let stranger = basic("00000000-0000-4000-8000-000000000000");
    for _ in 0..30 {
        assert_eq!(relay.ask(format!("GET / HTTP/1.1\r\nHost: h\r\n{stranger}\r\n")).status(), 404);
    }
    relay.program.expect_line("event=log-lines-left-out count=");
    status_until(&world, "all refusals", |text| {
        text.contains(r#""why":"no hidden server waits under this ID","count":30"#)
    });
    relay.program.signal("TERM");
    // The relay's own events are never suppressed.
    relay.program.expect_line("event=stopping");
    assert!(relay.program.exit().success());
    assert!(relay.program.lines(lines::REFUSED) < 30);
}

/// A relay with 64 descriptors.
fn relay_of_64(world: &World) -> Relay {
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "ulimit -n 64 && exec \"$0\" \"$@\""]).arg(rendezvous().get_program());
    shell.env_remove("RUST_LOG").env_remove("JOURNAL_STREAM");
    shell
        .args(["serve", "--listen", "127.0.0.1:0", "--listen-plain", "127.0.0.1:0", "--state"])
        .arg(world.state());
    let program = Program::start("relay of 64", &mut shell);
    program.expect_line(lines::READY);
    let at = |tls| {
        program.pick("the listen address", |line| line.contains(tls).then(|| listening_at(line)).flatten())
    };
    let (tls, clear) = (at("tls=yes"), at("tls=no"));
    let pin = program.pick("its pin", |line| Some(line.split_once("pin=")?.1.to_owned()));
    Relay { program, tls, clear, pin }
}

fn with_few_descriptors() {
    let world = World::new();
    let home = world.enrol("home", &[]);
    let relay = relay_of_64(&world);
    let agent = world.agent(&relay, &home, Below::Tls13, &["--to", &page().to_string(), "--pool", "2"]);
    agent.expect_lines(lines::WAITING, 2);
    // More than its descriptors: silent connections are closed for others.
    let crowd: Vec<_> =
        (0..100).map(|_| TcpStream::connect(relay.clear).expect("the system's queue has room")).collect();
    relay.program.signal("HUP");
    relay.program.expect_line("event=reloaded");
    world.enrol("second", &[]);
    relay.program.expect_line("event=ids count=2");
    let full = status(&world, &["--json"]).expect("it answers");
    assert!(full.contains(r#""max":64}"#), "{full}");
    drop(crowd);
    // A new client waits at the end of the queue, and is served.
    let request = format!("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{}\r\n", basic(&home.id));
    let mut wire = Wire::open(Below::Clear, relay.clear);
    wire.send(request.as_bytes());
    assert_eq!(Answer::read(&mut wire).status(), 200);
}

/// Runs `rendezvous id` with these arguments. Returns its standard error.
fn change_ids(world: &World, arguments: &[&str]) -> String {
    let output = run(rendezvous().arg("id").args(arguments).arg("--state").arg(world.state()));
    assert!(output.status.success(), "id {arguments:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn a_change_of_ids_is_in_force() {
    let world = World::new();
    let relay = world.relay(&[]);
    for name in ["one", "two", "three"] {
        let of = world.enrol(name, &[]);
        let wire = world.waiting(&relay, &of, Below::Clear);
        let ask = format!("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{}\r\n", basic(&of.id));
        assert_eq!(change_ids(&world, &["rotate", name]), "");
        let token = world.token(&relay, &of);
        let old = relay.ask(format!("CONNECT uuid:{}?{token} HTTP/1.1\r\n\r\n", of.id));
        assert_eq!(old.status(), 401, "the old secret");
        assert_eq!(change_ids(&world, &["set", name, "--end-to-end", "on"]), "");
        assert_eq!(change_ids(&world, &["remove", name]), "");
        assert_eq!(relay.ask(ask).status(), 404);
        drop(wire);
    }
}

fn a_relay_that_does_not_answer() {
    let world = World::new();
    world.enrol("home", &[]);
    let mut relay = world.relay(&[]);
    relay.program.signal("STOP");
    let event = change_ids(&world, &["set", "home", "--end-to-end", "on"]);
    assert!(event.contains("note: ") && event.contains("has not read it within 3 s"), "{event}");
    relay.program.signal("CONT");
    assert_eq!(change_ids(&world, &["set", "home", "--end-to-end", "off"]), "");
    relay.program.kill();
    // Its socket still exists.
    assert_eq!(change_ids(&world, &["set", "home", "--end-to-end", "on"]), "");
}
