//! What is slow, full or held by somebody else stops neither the clients nor the orderly end.

use std::net::TcpStream;

use crate::harness::{Case, case};
use crate::hidden::page;
use crate::program::Program;
use crate::wire::Below;
use crate::world::{Enrolled, Relay, World, basic, rendezvous, said};

pub(crate) const CASES: &[Case] = &[
    case("a_relay_whose_log_nobody_reads_goes_on", &[], a_relay_whose_log_nobody_reads_goes_on),
    case("an_agent_whose_log_nobody_reads_goes_on", &[], an_agent_whose_log_nobody_reads_goes_on),
    case("a_log_reader_that_stood_still_gets_every_line", &[], a_log_reader_that_stood_still_gets_every_line),
    case("log_lines_that_do_not_fit_are_counted", &[], log_lines_that_do_not_fit_are_counted),
    case("a_failure_is_said_behind_the_log", &[], a_failure_is_said_behind_the_log),
];

const PORTS: [&str; 2] = ["127.0.0.1:0", "127.0.0.1:0"];

/// Clients of the hidden server, each of which is answered.
fn clients(relay: &Relay, of: &Enrolled, count: usize) {
    let get = format!("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{}\r\n", basic(&of.id));
    for _ in 0..count {
        assert_eq!(relay.ask(&get).status(), 200);
    }
}

/// Strangers, each of which gets a refusal that makes a line of the log.
fn strangers(relay: &Relay, count: usize) {
    let get = format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", basic("00000000-0000-4000-8000-000000000000"));
    for _ in 0..count {
        assert_eq!(relay.ask(&get).status(), 404);
    }
}

fn a_relay_whose_log_nobody_reads_goes_on() {
    let world = World::new();
    let home = world.enrol("home", &[]);
    let (program, log) = Program::start_stallable("relay", &mut world.serve(PORTS, &[]));
    let mut relay = World::ready(program);
    let _agent = world.agent(&relay, &home, Below::Tls13, &["--to", &page().to_string()]);
    log.stall();
    clients(&relay, &home, 5);
    relay.program.signal("TERM");
    // The waiting connections are closed before that; who comes then is nobody's client.
    assert!(relay.program.exit_unread().success());
    assert!(TcpStream::connect(relay.clear).is_err());
}

fn an_agent_whose_log_nobody_reads_goes_on() {
    let world = World::new();
    let home = world.enrol("home", &[]);
    let relay = world.relay(&[]);
    let ticket = world.ticket(&relay, &home, Below::Tls13);
    let mut agent = rendezvous();
    agent.args(["agent", "--ticket"]).arg(ticket).args(["--to", &page().to_string()]);
    let (mut agent, log) = Program::start_stallable("agent", &mut agent);
    agent.says(said::WAITING);
    log.stall();
    clients(&relay, &home, 10);
    agent.signal("TERM");
    assert!(agent.exit_unread().success());
}

fn a_log_reader_that_stood_still_gets_every_line() {
    let world = World::new();
    let (program, log) = Program::start_stallable("relay", &mut world.serve(PORTS, &["--log-rate", "0"]));
    let mut relay = World::ready(program);
    log.stall();
    strangers(&relay, 200);
    log.go_on();
    relay.program.signal("TERM");
    assert!(relay.program.exit().success());
    assert_eq!(relay.program.said("event=refused"), 200);
    assert_eq!(relay.program.said("event=log-lines-lost"), 0);
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
    // Each challenge makes a line of more than 60 bytes, of which a mebibyte and the pipe hold fewer than that.
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
    let written = relay.program.said("event=challenged");
    assert!(written + lost >= CHALLENGES, "{written} + {lost}");
    assert!(written < CHALLENGES, "{written} are in the log");
}

fn a_failure_is_said_behind_the_log() {
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
