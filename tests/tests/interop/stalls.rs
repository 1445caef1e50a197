//! Slow, full or locked resources delay neither the clients nor an orderly shutdown.

use std::fs::{self, File};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use crate::harness::{Case, case};
use crate::hidden::page;
use crate::peers::Peer;
use crate::program::{Program, full_pipe, run};
use crate::wire::Below;
use crate::world::{Enrolled, Relay, World, basic, lines, listening_at, rendezvous, usual_port};

pub(crate) const CASES: &[Case] = &[
    case("a_relay_whose_log_is_not_read_continues", &[], a_relay_whose_log_is_not_read_continues),
    case("an_agent_whose_log_is_not_read_continues", &[], an_agent_whose_log_is_not_read_continues),
    case(
        "a_log_reader_that_stopped_for_a_while_gets_every_line",
        &[],
        a_log_reader_that_stopped_for_a_while_gets_every_line,
    ),
    case("log_lines_that_do_not_fit_are_counted", &[], log_lines_that_do_not_fit_are_counted),
    case("a_demo_whose_output_is_not_read_continues", &[], a_demo_whose_output_is_not_read_continues),
    case("a_failure_is_reported_after_the_log", &[], a_failure_is_reported_after_the_log),
    case("a_held_lock_does_not_delay_a_reload_that_changes_nothing", &[], a_held_lock_and_nothing_to_make),
    case("a_held_lock_delays_only_its_reload", &[], a_held_lock_delays_only_its_reload),
    case("a_held_lock_at_the_start_is_reported_and_awaited", &[], a_held_lock_at_the_start),
    case("a_fifo_in_place_of_a_file_blocks_no_command", &[], a_fifo_in_place_of_a_file_blocks_no_command),
    case(
        "a_relay_runs_with_a_read_only_state_folder",
        &[Peer::Namespaces],
        a_relay_runs_with_a_read_only_state_folder,
    ),
    case("a_file_size_limit_ends_the_log_and_not_the_relay", &[], a_file_size_limit_ends_the_log_alone),
    case("a_file_size_limit_ends_the_trace_and_not_the_relay", &[], a_file_size_limit_ends_the_trace_alone),
    case(
        "a_relay_runs_on_a_file_system_without_locks",
        &[Peer::Strace],
        a_relay_runs_on_a_file_system_without_locks,
    ),
];

const PORTS: [&str; 2] = ["127.0.0.1:0", "127.0.0.1:0"];

/// Clients of the hidden server, each of which is answered.
fn clients(relay: &Relay, of: &Enrolled, count: usize) {
    let get = format!("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{}\r\n", basic(&of.id));
    for _ in 0..count {
        assert_eq!(relay.ask(&get).status(), 200);
    }
}

/// Strangers, each of which gets a refusal that makes a log line.
fn strangers(relay: &Relay, count: usize) {
    let get = format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", basic("00000000-0000-4000-8000-000000000000"));
    for _ in 0..count {
        assert_eq!(relay.ask(&get).status(), 404);
    }
}

fn a_relay_whose_log_is_not_read_continues() {
    let world = World::new();
    let home = world.enrol("home", &[]);
    let (program, log) = Program::start_stallable("relay", &mut world.serve(PORTS, &[]));
    let mut relay = World::ready(program);
    let _agent = world.agent(&relay, &home, Below::Tls13, &["--to", &page().to_string()]);
    log.stall();
    clients(&relay, &home, 5);
    relay.program.signal("TERM");
    // The waiting connections are closed before that, so later clients are refused.
    assert!(relay.program.exit_unread().success());
    assert!(TcpStream::connect(relay.clear).is_err());
}

fn an_agent_whose_log_is_not_read_continues() {
    let world = World::new();
    let home = world.enrol("home", &[]);
    let relay = world.relay(&[]);
    let ticket = world.ticket(&relay, &home, Below::Tls13);
    let mut agent = rendezvous();
    agent.args(["agent", "--ticket"]).arg(ticket).args(["--to", &page().to_string()]);
    let (mut agent, log) = Program::start_stallable("agent", &mut agent);
    agent.expect_line(lines::WAITING);
    log.stall();
    clients(&relay, &home, 10);
    agent.signal("TERM");
    assert!(agent.exit_unread().success());
}

fn a_log_reader_that_stopped_for_a_while_gets_every_line() {
    let world = World::new();
    let (program, log) = Program::start_stallable("relay", &mut world.serve(PORTS, &["--log-rate", "0"]));
    let mut relay = World::ready(program);
    log.stall();
    strangers(&relay, 200);
    log.go_on();
    relay.program.signal("TERM");
    assert!(relay.program.exit().success());
    assert_eq!(relay.program.lines("event=refused"), 200);
    assert_eq!(relay.program.lines("event=log-lines-lost"), 0);
    relay.program.until("the end as its last line", |lines| {
        lines.last().is_some_and(|line| line.contains("event=stopped"))
    });
}

fn log_lines_that_do_not_fit_are_counted() {
    let world = World::new();
    let (program, log) =
        Program::start_stallable("relay", &mut world.serve(PORTS, &["--log-rate", "0", "--log", "debug"]));
    let mut relay = World::ready(program);
    log.stall();
    // Each challenge makes a log line of more than 60 bytes. A mebibyte and the pipe hold fewer lines than that.
    const CHALLENGES: usize = 20_000;
    let mut wire = relay.open(Below::Clear);
    let requests = "GET / HTTP/1.1\r\nHost: h\r\n\r\n".repeat(100);
    let mut answers = 0;
    while answers < CHALLENGES {
        wire.send(requests.as_bytes());
        for _ in 0..100 {
            assert_eq!(crate::wire::Answer::read(&mut wire).status(), 401);
            answers += 1;
        }
    }
    drop(wire);
    log.go_on();
    let lost = relay.program.pick("how many are lost", |line| {
        line.split_once("event=log-lines-lost count=")?.1.split(' ').next()?.parse::<usize>().ok()
    });
    relay.program.signal("TERM");
    assert!(relay.program.exit().success());
    let written = relay.program.lines("event=challenged");
    assert!(written + lost >= CHALLENGES, "{written} + {lost}");
    assert!(written < CHALLENGES, "{written} are in the log");
}

fn a_demo_whose_output_is_not_read_continues() {
    let _port = usual_port();
    let world = World::new();
    let (_reader, stdout) = full_pipe();
    let mut demo = rendezvous();
    demo.args(["demo", "--verbose"]).current_dir(&world.folder.0);
    let mut demo = Program::start_printing_to("demo", &mut demo, stdout);
    demo.expect_line("event=pair-ended");
    demo.signal("TERM");
    assert!(demo.exit().success());
}

fn a_failure_is_reported_after_the_log() {
    let world = World::new();
    let relay = world.relay(&[]);
    let taken = relay.tls.to_string();
    let mut serve = rendezvous();
    serve.args(["serve", "--listen", &taken, "--state"]).arg(world.folder.0.join("another"));
    let mut second = Program::start("second", &mut serve);
    assert_eq!(second.exit().code(), Some(1));
    second.until("the reason as its last line", |lines| {
        lines.len() > 1 && lines.last().is_some_and(|line| line.contains("serve: cannot listen on"))
    });
}

/// Holds the lock of the world's state folder, as another program would.
fn held_lock(world: &World) -> File {
    let lock = File::options().read(true).write(true).open(world.state().join("lock")).expect("it exists");
    lock.lock().expect("nobody else holds it");
    lock
}

/// A relay with an agent, and a configuration that can be changed.
fn configured(world: &World) -> (Relay, Enrolled, Program) {
    let home = world.enrol("home", &[]);
    let config = world.folder.write("config", "wait 5\n");
    let relay = world.relay(&["--config", &config.to_string_lossy()]);
    let agent = world.agent(&relay, &home, Below::Tls13, &["--to", &page().to_string()]);
    (relay, home, agent)
}

fn a_held_lock_and_nothing_to_make() {
    let world = World::new();
    let (relay, home, _agent) = configured(&world);
    let _lock = held_lock(&world);
    relay.program.signal("HUP");
    relay.program.expect_line("event=reloaded");
    clients(&relay, &home, 2);
}

fn a_held_lock_delays_only_its_reload() {
    let world = World::new();
    let (mut relay, home, _agent) = configured(&world);
    let lock = held_lock(&world);
    // A new certificate has to be made, which needs the lock.
    world.folder.write("config", "name one.example\n");
    relay.program.signal("HUP");
    relay.program.expect_line("event=waiting-for-lock");
    clients(&relay, &home, 3);
    assert_eq!(relay.program.lines("event=reload"), 0);
    drop(lock);
    relay.program.expect_line("event=reloaded");
    let _lock = held_lock(&world);
    world.folder.write("config", "name two.example\n");
    relay.program.signal("HUP");
    relay.program.expect_lines("event=waiting-for-lock", 2);
    clients(&relay, &home, 3);
    // The shutdown does not wait for it.
    relay.program.signal("TERM");
    assert!(relay.program.exit().success());
    assert_eq!(relay.program.lines("event=reload-refused"), 0);
}

fn a_held_lock_at_the_start() {
    let world = World::new();
    world.enrol("home", &[]);
    let lock = held_lock(&world);
    let mut relay = Program::start("relay", &mut world.serve(PORTS, &[]));
    relay.expect_line("event=waiting-for-lock");
    relay.signal("TERM");
    assert!(!relay.exit().success());
    let mut relay = Program::start("relay", &mut world.serve(PORTS, &[]));
    relay.expect_line("serve: cannot lock");
    assert_eq!(relay.exit().code(), Some(1));
    let relay = Program::start("relay", &mut world.serve(PORTS, &[]));
    relay.expect_line("event=waiting-for-lock");
    drop(lock);
    relay.expect_line(lines::READY);
}

fn a_fifo_in_place_of_a_file_blocks_no_command() {
    let world = World::new();
    let home = world.enrol("home", &[]);
    let (state, folder) = (world.state(), &world.folder.0);
    let config = world.folder.write("config", "wait 5\n");
    let (cert, key) = (folder.join("cert"), folder.join("key"));
    fs::copy(state.join("relay.crt"), &cert).expect("it exists");
    fs::copy(state.join("relay.key"), &key).expect("it exists");
    let shown = |path: &Path| path.to_string_lossy().into_owned();
    let own = world.relay(&["--config", &shown(&config)]);
    let _agent = world.agent(&own, &home, Below::Tls13, &["--to", &page().to_string()]);
    stopped_by_no_fifo(
        own,
        &home,
        &[config, state.join("ids"), state.join("relay.crt"), state.join("relay.key")],
    );
    let given = world.relay(&["--cert", &shown(&cert), "--key", &shown(&key)]);
    let _agent = world.agent(&given, &home, Below::Tls13, &["--to", &page().to_string()]);
    stopped_by_no_fifo(given, &home, &[cert, key]);
}

fn stopped_by_no_fifo(mut relay: Relay, of: &Enrolled, files: &[std::path::PathBuf]) {
    for (before, file) in files.iter().enumerate() {
        let aside = file.with_extension("aside");
        fs::rename(file, &aside).expect("it exists");
        assert!(run(Command::new("mkfifo").args(["-m", "600"]).arg(file)).status.success());
        relay.program.signal("HUP");
        relay.program.expect_lines("event=reload-refused", before + 1);
        clients(&relay, of, 2);
        fs::rename(&aside, file).expect("a FIFO is replaced");
    }
    relay.program.signal("TERM");
    assert!(relay.program.exit().success());
}

/// Runs a relay through another program, and a client.
fn serves_by(way: &[&str], options: &[&str], world: &World, home: &Enrolled) -> Relay {
    let mut serve = Command::new(way[0]);
    let command = world.serve(PORTS, options);
    serve.args(&way[1..]).arg(command.get_program()).args(command.get_args());
    serve.env_remove("RUST_LOG").env_remove("JOURNAL_STREAM").env_remove("STATE_DIRECTORY");
    let relay = World::ready(Program::start("relay", &mut serve));
    let _agent = world.agent(&relay, home, Below::Tls13, &["--to", &page().to_string()]);
    clients(&relay, home, 1);
    relay
}

fn a_relay_runs_with_a_read_only_state_folder() {
    let world = World::new();
    let home = world.enrol("home", &[]);
    let state = world.state();
    let script = "mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\" && exec \"$@\"";
    let state_text = state.to_string_lossy().into_owned();
    let way = ["unshare", "--mount", "sh", "-c", script, &state_text];
    // With and without the file `lock`, and with a name that the certificate lacks.
    let relay = serves_by(&way, &[], &world, &home);
    relay.program.expect_line("event=no-status-socket");
    assert_eq!(relay.program.lines("event=certificate reason="), 0);
    drop(relay);
    fs::remove_file(state.join("lock")).expect("id add made it");
    let relay = serves_by(&way, &["--name", "new.example"], &world, &home);
    relay.program.expect_line("event=certificate reason=");
    let mut ticket = Command::new(way[0]);
    ticket.args(&way[1..]).arg(rendezvous().get_program());
    ticket.args(["id", "ticket", "home", "--relay", &relay.url(Below::Tls13), "--out", "-", "--state"]);
    let ticket = run(ticket.arg(&state));
    assert!(ticket.status.success());
    assert!(String::from_utf8_lossy(&ticket.stdout).contains(&relay.pin), "it has the relay's pin");
}

fn a_relay_runs_on_a_file_system_without_locks() {
    let world = World::new();
    let home = world.enrol("home", &[]);
    for error in ["ENOLCK", "EOPNOTSUPP", "ENOSYS"] {
        let inject = format!("inject=flock:error={error}");
        let way = ["strace", "-D", "-f", "-o", "/dev/null", "-e", "trace=flock", "-e", &inject];
        let relay = serves_by(&way, &["--name", &format!("{error}.example")], &world, &home);
        relay.program.expect_line("event=no-lock");
        drop(relay);
    }
}

/// For `sh -c`: runs a program whose files are limited to 32 KiB.
const SMALL_FILES: &str = "ulimit -f 64 && exec \"$0\" \"$@\"";

fn a_file_size_limit_ends_the_log_alone() {
    let world = World::new();
    world.enrol("home", &[]);
    let log = world.folder.0.join("log");
    let command = world.serve(["127.0.0.1:0", "127.0.0.1:0"], &["--log-rate", "0"]);
    let mut serve = Command::new("sh");
    serve.args(["-c", SMALL_FILES]).arg(command.get_program()).args(command.get_args());
    serve.env_remove("RUST_LOG").env_remove("JOURNAL_STREAM").env_remove("STATE_DIRECTORY");
    let mut program = Program::start_logging_to("relay", &mut serve, &log);
    let at = program.until_in_file(&log, "the listen address", |line| {
        line.contains("tls=no").then(|| listening_at(line)).flatten()
    });
    program.until_in_file(&log, "that it is up", |line| line.contains(lines::READY).then_some(()));
    let get = format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", basic("00000000-0000-4000-8000-000000000000"));
    // Each makes a log line of more than 80 bytes.
    for _ in 0..500 {
        let mut wire = crate::wire::Wire::open(Below::Clear, at);
        wire.send(get.as_bytes());
        assert_eq!(crate::wire::Answer::read(&mut wire).status(), 404);
    }
    let status = run(rendezvous().args(["status", "--json", "--state"]).arg(world.state()));
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    let lost = status.split_once("\"log_lines_lost\":").and_then(|(_, rest)| rest.split(',').next());
    assert!(lost.is_some_and(|lost| lost != "0"), "{status}");
    program.signal("TERM");
    assert!(program.exit_unread().success());
}

fn a_file_size_limit_ends_the_trace_alone() {
    let world = World::new();
    let home = world.enrol("home", &[]);
    let trace = world.folder.0.join("trace");
    let way = ["sh", "-c", SMALL_FILES];
    let relay = serves_by(&way, &["--trace", &trace.to_string_lossy()], &world, &home);
    strangers(&relay, 300);
    relay.program.expect_line("event=trace-ended");
    strangers(&relay, 3);
    let text = fs::read_to_string(&trace).expect("it is text");
    assert!(text.ends_with("# The recording ends: file too large.\n"), "{}", &text[text.len() - 200..]);
    let replay = run(rendezvous().args(["replay", "--check"]).arg(&trace));
    assert!(replay.status.success());
}
