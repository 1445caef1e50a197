//! `--direct` between networks: relay, agent and client in namespaces of their own. A side behind NAT announces an
//! address that does not work from outside. A side without NAT announces one that the other can reach.

use std::fs;
use std::io::{Read, Write};
use std::process::Command;
use std::thread;
use std::time::Instant;

use crate::direct::{AGREEMENT, DIRECT, RELAYED, relayed};
use crate::harness::{Case, case, in_own_namespaces};
use crate::hidden::noise;
use crate::peers::Peer;
use crate::program::{PATIENCE, Program, run};
use crate::wire::Below;
use crate::world::{World, lines, rendezvous};

pub(crate) const CASES: &[Case] = &[case(
    "a_stream_goes_directly_unless_both_are_behind_a_nat",
    &[Peer::Namespaces, Peer::Python],
    in_namespaces,
)];

const BULK: usize = 4 << 20;
/// Sends back what it received, after EOF.
const SERVICE: &str = "
import socket
listener = socket.create_server(('127.0.0.1', 9000))
print('it listens', flush=True)
while True:
    stream, _ = listener.accept()
    got = bytearray()
    while bytes := stream.recv(65536):
        got += bytes
    stream.sendall(got)
    stream.close()
";

fn in_namespaces() {
    in_own_namespaces(&["--net"], "nat::a_stream_goes_directly_unless_both_are_behind_a_nat", streams);
}

/// A namespace with a link to the relay's. It exists as long as this value.
pub(crate) struct Space {
    program: Program,
    number: u8,
}

impl Space {
    pub(crate) fn new(number: u8) -> Self {
        let program =
            Program::start("namespace", Command::new("unshare").args(["--net", "sleep", "infinity"]));
        let space = Self { program, number };
        let own = fs::read_link("/proc/self/ns/net").expect("a namespace");
        let started = Instant::now();
        let theirs = format!("/proc/{}/ns/net", space.pid());
        while fs::read_link(&theirs).is_ok_and(|theirs| theirs == own) {
            assert!(started.elapsed() < PATIENCE, "unshare does not begin");
            thread::yield_now();
        }
        let (near, pid) = (format!("near{number}"), space.pid());
        ip(&format!("link add {near} type veth peer name far netns {pid}"));
        ip(&format!("address add 10.99.{number}.1/24 dev {near}"));
        ip(&format!("link set {near} up"));
        space.ip(&format!("address add 10.99.{number}.2/24 dev far"));
        space.ip("link set far up");
        space.ip("link set lo up");
        space.ip(&format!("address add 192.168.{number}.2/32 dev lo"));
        space
    }

    fn pid(&self) -> u32 {
        self.program.pid()
    }

    pub(crate) fn ip(&self, words: &str) {
        let output = run(self.command(&mut Command::new("ip")).args(words.split(' ')));
        assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// The same program, run in this namespace.
    pub(crate) fn command(&self, command: &mut Command) -> Command {
        let mut inside = Command::new("nsenter");
        inside.arg(format!("--net=/proc/{}/ns/net", self.pid())).arg("--");
        inside.arg(command.get_program()).args(command.get_args()).env_remove("RUST_LOG");
        inside
    }

    /// Where it listens for direct connections.
    fn listens_at(&self, is_behind_nat: bool) -> String {
        let number = self.number;
        if is_behind_nat { format!("192.168.{number}.2:7000") } else { format!("10.99.3.{number}:7000") }
    }
}

pub(crate) fn ip(words: &str) {
    let output = run(Command::new("ip").args(words.split(' ')));
    assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
}

fn streams() {
    ip("link set lo up");
    let (far, near) = (Space::new(1), Space::new(2));
    ip(&format!("link add direct netns {} type veth peer name direct netns {}", far.pid(), near.pid()));
    for space in [&far, &near] {
        space.ip(&format!("address add 10.99.3.{}/24 dev direct", space.number));
        space.ip("link set direct up");
    }
    let service = Program::start("service", &mut far.command(Peer::Python.command().args(["-c", SERVICE])));
    service.expect_line("it listens");
    for (agent_is_hidden, client_is_hidden) in [(false, true), (true, false), (false, false), (true, true)] {
        let world = World::new();
        let home = world.enrol("home", &[]);
        let relay = world.relay_at(["0.0.0.0:0", "0.0.0.0:0"], &[]);
        let url = |space: &Space| format!("https://10.99.{}.1:{}", space.number, relay.tls.port());
        let ticket = world.ticket_with(&relay, &home, Below::Tls13, |line| {
            Some(if line.starts_with("relay ") { format!("relay {}", url(&far)) } else { line.to_owned() })
        });
        let mut command = rendezvous();
        command.args(["agent", "--stream", "127.0.0.1:9000", "--direct-allow", "private", "--direct"]);
        command.arg(far.listens_at(agent_is_hidden)).arg("--ticket").arg(ticket);
        let agent = Program::start("agent", &mut far.command(&mut command));
        agent.expect_line(lines::WAITING);

        let mut command = rendezvous();
        command.args(["connect", &url(&near), &home.id, "--pin", &relay.pin, "--log", "debug"]);
        command.args(["--direct-timeout", "5", "--direct-allow", "private", "--direct-listen"]);
        command.arg(near.listens_at(client_is_hidden));
        let (mut connect, mut to, mut from) =
            Program::start_piped("connect", &mut near.command(&mut command));
        let bytes = noise(11, BULK);
        to.write_all(&bytes).expect("can write");
        drop(to);
        let mut back = Vec::new();
        from.read_to_end(&mut back).expect("a clean end");
        assert!(back == bytes, "what was sent comes back as it was");
        assert!(connect.exit().success());

        let is_direct = !(agent_is_hidden && client_is_hidden);
        let (way, other) = if is_direct { (DIRECT, RELAYED) } else { (RELAYED, DIRECT) };
        for program in [&connect, &agent] {
            program.expect_line(way);
            assert_eq!(program.lines(other), 0);
        }
        relay.program.expect_line(lines::PAIR_ENDED);
        assert_eq!(
            relayed(&world) < AGREEMENT,
            is_direct,
            "{} bytes went through the relay",
            relayed(&world)
        );
    }
}
