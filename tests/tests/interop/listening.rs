//! Listening addresses: both families on one port, and addresses that do not exist yet.

use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Case, case};
use crate::peers::Peer;
use crate::program::{PATIENCE, Program, run};
use crate::wire::{Answer, Below, Wire};
use crate::world::{World, lines, listening_at, rendezvous};

pub(crate) const CASES: &[Case] = &[
    case("both_families_can_use_one_port", &[], both_families_can_use_one_port),
    case("a_port_that_is_in_use_is_reported", &[], a_port_that_is_in_use_is_reported),
    case(
        "a_relay_serves_an_address_that_comes_later",
        &[Peer::Namespaces, Peer::Bash],
        a_relay_serves_an_address_that_comes_later,
    ),
    case(
        "an_agent_takes_direct_connections_on_an_address_that_comes_later",
        &[Peer::Namespaces, Peer::Bash],
        an_agent_listens_on_an_address_that_comes_later,
    ),
];

/// A port that is probably free in both families.
fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).expect("a free port");
    listener.local_addr().expect("it is bound").port()
}

fn both_families_can_use_one_port() {
    for (v4, swapped) in [("0.0.0.0", false), ("0.0.0.0", true), ("127.0.0.1", false), ("127.0.0.1", true)] {
        let world = World::new();
        let port = free_port();
        let (v4, v6) = (format!("{v4}:{port}"), format!("[::]:{port}"));
        let mut serve = rendezvous();
        // TLS over IPv6 and no TLS over IPv4 show that each has its own socket.
        let mut options = [["--listen", &v6], ["--listen-plain", &v4]];
        if swapped {
            options = [["--listen", &v4], ["--listen-plain", &v6]];
        }
        serve.arg("serve").args(options.concat()).arg("--state").arg(world.state());
        let relay = Program::start("relay", &mut serve);
        relay.expect_line(lines::READY);
        let (in_v4, in_v6) =
            if swapped { (Below::Tls13, Below::Clear) } else { (Below::Clear, Below::Tls13) };
        for (below, host) in [(in_v4, "127.0.0.1"), (in_v6, "[::1]")] {
            let mut wire = Wire::open(below, format!("{host}:{port}").parse().expect("an address"));
            wire.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n");
            assert_eq!(Answer::read(&mut wire).status(), 401);
        }
    }
}

fn a_port_that_is_in_use_is_reported() {
    let world = World::new();
    let taken = TcpListener::bind("0.0.0.0:0").expect("a free port");
    let port = taken.local_addr().expect("it is bound").port();
    for on in [format!("0.0.0.0:{port}"), format!("[::]:{port}")] {
        let output = run(rendezvous().args(["serve", "--listen", &on, "--state"]).arg(world.state()));
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1));
        assert!(complaint.contains(&format!("cannot listen on {on}: address already in use")), "{complaint}");
    }
}

/// Runs a program in a network namespace of its own, which has only loopback.
fn in_own_network(name: &str, command: &Command) -> Program {
    let mut unshare = Command::new("unshare");
    unshare.args(["--net", "sh", "-c", "ip link set lo up && exec \"$0\" \"$@\""]);
    unshare.arg(command.get_program()).args(command.get_args());
    unshare.env_remove("RUST_LOG").env_remove("JOURNAL_STREAM").env_remove("STATE_DIRECTORY");
    Program::start(name, &mut unshare)
}

/// Adds the address to the network of a program, and connects to it there.
fn comes_later(program: &Program, at: SocketAddr) {
    let inside = |command: &[&str]| {
        let mut nsenter = Command::new("nsenter");
        nsenter.args(["--target", &program.pid().to_string(), "--net"]).args(command);
        run(&mut nsenter).status.success()
    };
    let connect = format!("exec 3<>/dev/tcp/{}/{}", at.ip(), at.port());
    assert!(!inside(&["bash", "-c", &connect]), "the address is not there yet");
    assert!(inside(&["ip", "address", "add", &format!("{}/32", at.ip()), "dev", "lo"]));
    let until = Instant::now() + PATIENCE;
    while !inside(&["bash", "-c", &connect]) {
        assert!(Instant::now() < until, "nobody listens on {at}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn a_relay_serves_an_address_that_comes_later() {
    let world = World::new();
    let mut serve = rendezvous();
    serve.args(["serve", "--listen", "192.0.2.5:0", "--state"]).arg(world.state());
    let mut relay = in_own_network("relay", &serve);
    relay.expect_line("event=address-missing on=192.0.2.5:");
    relay.expect_line(lines::READY);
    comes_later(&relay, relay.pick("the listen address", listening_at));
    relay.signal("TERM");
    assert!(relay.exit().success());
}

fn an_agent_listens_on_an_address_that_comes_later() {
    let world = World::new();
    let home = world.enrol("home", &[]);
    let relay = world.relay(&[]);
    let ticket = world.ticket(&relay, &home, Below::Tls13);
    let mut agent = rendezvous();
    agent.args(["agent", "--stream", "127.0.0.1:1", "--direct", "192.0.2.5:0", "--ticket"]).arg(ticket);
    let mut agent = in_own_network("agent", &agent);
    agent.expect_line("event=address-missing on=192.0.2.5:");
    comes_later(&agent, agent.pick("the listen address", listening_at));
    agent.signal("TERM");
    assert!(agent.exit().success());
}
