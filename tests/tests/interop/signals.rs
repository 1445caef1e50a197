//! Ctrl-C and SIGTERM shut down every command in order, and no command line causes a panic.

use std::io::Write as _;

use crate::harness::{Case, case};
use crate::hidden::{Raw, page, read_head};
use crate::program::{Program, run};
use crate::wire::Below;
use crate::world::{World, basic, lines, listening_at, rendezvous, usual_port};

pub(crate) const CASES: &[Case] = &[
    case("the_relay_ends_on_sigterm", &[], || relay_ends("TERM")),
    case("the_relay_ends_on_sigint", &[], || relay_ends("INT")),
    case("the_relay_lets_a_pair_finish_first", &[], the_relay_lets_a_pair_finish_first),
    case("the_agent_ends_on_sigterm", &[], || agent_ends("TERM")),
    case("the_agent_ends_on_sigint", &[], || agent_ends("INT")),
    case("the_agent_ends_without_a_relay", &[], the_agent_ends_without_a_relay),
    case("a_signal_for_another_process_ends_nothing", &[], a_signal_for_another_process_ends_nothing),
    case("the_connector_ends_on_sigterm", &[], || connector_ends("TERM")),
    case("the_connector_ends_on_sigint", &[], || connector_ends("INT")),
    case("the_demo_ends_on_sigterm", &[], || demo_ends("Press Ctrl-C", "TERM")),
    case("the_demo_ends_on_sigint", &[], || demo_ends("Press Ctrl-C", "INT")),
    case("the_demo_also_ends_before_its_own_fetch", &[], || demo_ends("curl ", "INT")),
    case("the_demo_once_fetches_its_page", &[], the_demo_once_fetches_its_page),
    case("a_wrong_option_is_named_with_exit_code_2", &[], a_wrong_option_is_named_with_exit_code_2),
    case("help_and_version_are_results", &[], help_and_version_are_results),
];

fn relay_ends(signal: &str) {
    let world = World::new();
    let home = world.enrol("home", &[]);
    let mut relay = world.relay(&[]);
    let mut hidden = world.waiting(&relay, &home, Below::Tls13);
    relay.program.signal(signal);
    assert_eq!(hidden.rest(), b"", "what waits is closed cleanly");
    assert!(relay.program.exit().success());
}

fn the_relay_lets_a_pair_finish_first() {
    let service = Raw::start();
    let (_world, mut relay, home, _agent) = World::with_service(service.address);
    // One connection waits for the client, and another one still waits when the relay is stopped.
    relay.program.expect_lines(lines::WAITING, 2);
    let mut client = relay.open(Below::Tls13);
    client.send(format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", basic(&home.id)).as_bytes());
    let mut hidden = service.accept();
    read_head(&mut hidden);
    relay.program.signal("TERM");
    relay.program.expect_line(lines::WAITING_ENDED);
    hidden.write_all(b"the last answer").expect("the pair lives");
    drop(hidden);
    assert_eq!(client.rest(), b"the last answer");
    client.end();
    assert!(relay.program.exit().success());
}

fn a_signal_for_another_process_ends_nothing() {
    let (_world, relay, home, agent) = World::with_service(page());
    relay.program.signal("USR1");
    relay.program.expect_line("event=signal-ignored");
    for (signal, times) in [("USR1", 1), ("USR2", 2)] {
        agent.signal(signal);
        agent.expect_lines("event=signal-ignored", times);
    }
    let answer = relay.ask(format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", basic(&home.id)));
    assert_eq!(answer.status(), 200);
}

fn agent_ends(signal: &str) {
    let (_world, relay, _home, mut agent) = World::with_service(page());
    agent.signal(signal);
    assert!(agent.exit().success());
    relay.program.expect_line(lines::WAITING_ENDED);
}

fn the_agent_ends_without_a_relay() {
    let world = World::new();
    let home = world.enrol("home", &[]);
    let mut relay = world.relay(&[]);
    let ticket = world.ticket(&relay, &home, Below::Tls13);
    relay.program.kill();
    let mut agent = crate::world::start_agent(&ticket, &["--to", "127.0.0.1:1"]);
    agent.expect_line(lines::UNREACHABLE);
    agent.signal("TERM");
    assert!(agent.exit().success());
}

fn connector_ends(signal: &str) {
    let world = World::new();
    let relay = world.relay(&[]);
    let mut connect = rendezvous();
    connect.args([
        "connect",
        &relay.url(Below::Tls13),
        "00000000-0000-4000-8000-000000000000",
        "--pin",
        &relay.pin,
    ]);
    let mut connect = Program::start("connect", connect.args(["--listen", "127.0.0.1:0"]));
    connect.pick("the listen address", listening_at);
    connect.signal(signal);
    assert!(connect.exit().success());
}

fn demo_ends(after: &str, signal: &str) {
    let _port = usual_port();
    let world = World::new();
    let mut demo = Program::start("demo", rendezvous().arg("demo").current_dir(&world.folder.0));
    demo.expect_line(after);
    demo.signal(signal);
    assert!(demo.exit().success());
}

fn the_demo_once_fetches_its_page() {
    let _port = usual_port();
    let world = World::new();
    let demo = run(rendezvous().args(["demo", "--once"]).current_dir(&world.folder.0));
    assert!(demo.status.success());
    assert!(String::from_utf8_lossy(&demo.stdout).contains("curl "));
}

fn a_wrong_option_is_named_with_exit_code_2() {
    for args in [
        &["srve"][..],
        &["serve", "--lisen", "x"],
        &["serve", "--listen", "nowhere"],
        &["serve", "--wait", "-1"],
        &["agent"],
        &["agent", "--ticket"],
        &["connect", "https://x"],
        &["connect", "https://x", "not-an-id"],
        &["id", "add"],
        &["token"],
        &["check"],
        &["demo", "extra"],
        &["--no-such"],
    ] {
        let output = run(rendezvous().args(args));
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {complaint}");
        assert!(
            complaint.starts_with("rendezvous: ") && !complaint.contains("panicked"),
            "{args:?}: {complaint}"
        );
        assert_eq!((complaint.lines().count(), output.stdout.len()), (1, 0), "{args:?}: {complaint}");
    }
}

fn help_and_version_are_results() {
    let commands = ["serve", "agent", "connect", "demo", "id", "check", "token", "status", "key", "password"];
    let of_commands = commands.map(|command| vec![command, "--help"]);
    for args in of_commands.into_iter().chain([vec![], vec!["--help"], vec!["--version"]]) {
        let output = run(rendezvous().args(&args));
        assert!(output.status.success() && !output.stdout.is_empty() && output.stderr.is_empty(), "{args:?}");
    }
}
