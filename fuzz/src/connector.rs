//! The connector.

use arbitrary::{Arbitrary, Unstructured};
use rendezvous_core::connector::{Config, Connector, Sealing};
use rendezvous_core::dtcp::Direct;
use rendezvous_core::id::Id;
use rendezvous_core::machine::ConnId;
use rendezvous_core::relay_client::{Host, HostPort, Relay};
use rendezvous_core::time::{Now, Time};

use crate::direct::{Line, THEIRS, direct, is_line, key_of, offer};
use crate::shell::{ConnStep, Did, SWITCHING, Shell, WorldStep, address};

const SEALED: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: octet-stream+tls\r\n\r\n";
const OPERATIONS_MAX: usize = 64;

#[derive(Arbitrary, Debug)]
struct Setup {
    tls: bool,
    named: bool,
    once: bool,
    /// Options. The lowest bit: it asks for direct connections. The next: it can be reached. The next: it requires a
    /// direct connection. The next: TLS with the agent inside.
    how: u8,
}

#[derive(Arbitrary, Debug)]
enum Operation<'a> {
    Open,
    On {
        on: u8,
        what: ConnStep,
    },
    /// In order, as far as the connection allows: it is connected, secured and answered 101.
    Switch {
        on: u8,
        interim: bool,
        more: bool,
    },
    Refuse {
        on: u8,
        status: u16,
    },
    Raw {
        on: u8,
        bytes: &'a [u8],
    },
    Pass(WorldStep),
    Drain,
    /// A direct connection is accepted.
    Accept,
    /// In order, as far as the connection allows: it is connected, secured and answered 101 with an offer.
    Agree {
        on: u8,
        hosts: bool,
    },
    Say {
        on: u8,
        line: Line,
    },
    /// The peer shows the announced certificate.
    SecureRightly {
        on: u8,
    },
}

/// What was done to the machine so far.
#[derive(Default)]
struct Done {
    /// Connections that got a 101, or made-up bytes.
    answered: Vec<ConnId>,
    /// Connections that have shown the announced certificate.
    pinned: Vec<ConnId>,
    /// The key that the machine offered last.
    key: String,
    sealing: Sealing,
    /// Connections in which the agent was asked inside TLS.
    asked_inside: Vec<ConnId>,
}

pub(crate) fn run(bytes: &[u8]) {
    let mut unstructured = Unstructured::new(bytes);
    let Ok(setup) = Setup::arbitrary(&mut unstructured) else { return };
    let place = match setup.named {
        true => HostPort { host: Host::Name("relay".to_owned()), port: 443 },
        false => address(1).into(),
    };
    let relay = Relay { place, tls: setup.tls, host_header: "relay".to_owned() };
    let direct = (setup.how & 1 == 1).then(|| direct(setup.how >> 1 & 1 == 1, 1, Direct::TRIED));
    let direct_only = setup.how >> 2 & 1 == 1;
    let sealing = if setup.how >> 3 & 1 == 1 { Sealing::EndToEnd } else { Sealing::None };
    let config = Config { once: setup.once, direct, direct_only, sealing, ..Config::new(relay, Id(7)) };
    let now = Now { mono: Time(1_000_000), wall: 1_715_937_600 };
    let mut shell = Shell::new(Connector::with_direct(config, [5; 32]), now);
    let mut done = Done { sealing, ..Done::default() };
    for _ in 0..OPERATIONS_MAX {
        if unstructured.is_empty() {
            break;
        }
        let Ok(operation) = Operation::arbitrary(&mut unstructured) else { break };
        perform(&mut shell, &mut done, operation);
        judge(&mut shell, &mut done);
    }
    shell.call(Connector::handle_drain);
    shell.clear();
    judge(&mut shell, &mut done);
    assert_eq!((shell.machine.pairs(), shell.machine.connections()), (0, 0), "a connection is left");
    assert!(shell.machine.is_done());
}

fn perform(shell: &mut Shell<Connector>, done: &mut Done, operation: Operation<'_>) {
    match operation {
        // The machine decides whether it accepts. After a drain it accepts nothing.
        Operation::Open => drop(shell.open(0, 1)),
        Operation::On { on, what } => {
            if let Some(on) = shell.pick(on) {
                shell.doing(on, what);
            }
        }
        Operation::Switch { on, interim, more } => {
            let Some(on) = shell.pick(on) else { return };
            for what in [ConnStep::Resolve { addresses: 2 }, ConnStep::Connect, ConnStep::Secure] {
                shell.doing(on, what);
            }
            seal(shell, done, on);
            done.answered.push(on);
            let interim: &[u8] = if interim { b"HTTP/1.1 103 Early Hints\r\nLink: </>\r\n\r\n" } else { b"" };
            let more: &[u8] = if more { b"SSH-2.0-x\r\n" } else { b"" };
            shell.give(on, &[interim, SWITCHING, more].concat());
        }
        Operation::Refuse { on, status } => {
            if let Some(on) = shell.pick(on) {
                let status = [401, 404, 502, 503, 200][usize::from(status % 5)];
                shell.give(on, format!("HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n").as_bytes());
            }
        }
        Operation::Raw { on, bytes } => {
            if let Some(on) = shell.pick(on) {
                done.answered.push(on);
                shell.give(on, bytes);
            }
        }
        Operation::Pass(what) => shell.pass(what),
        Operation::Drain => shell.call(Connector::handle_drain),
        Operation::Accept => drop(shell.open(1, 9)),
        Operation::Agree { on, hosts } => {
            let Some(on) = shell.pick(on) else { return };
            for what in [ConnStep::Resolve { addresses: 1 }, ConnStep::Connect, ConnStep::Secure] {
                shell.doing(on, what);
            }
            seal(shell, done, on);
            done.answered.push(on);
            let (head, end) = SWITCHING.split_at(SWITCHING.len() - 2);
            shell.give(on, &[head, offer(hosts).as_bytes(), end].concat());
        }
        Operation::Say { on, line } => {
            if let Some(on) = shell.pick(on) {
                shell.give(on, &line.bytes(&done.key));
            }
        }
        Operation::SecureRightly { on } => {
            if let Some(on) = shell.pick(on) {
                done.pinned.push(on);
                shell.doing(on, ConnStep::SecureAs(THEIRS));
            }
        }
    }
}

/// Starts TLS with the agent, if the stream is end to end.
fn seal(shell: &mut Shell<Connector>, done: &Done, on: ConnId) {
    if done.sealing == Sealing::EndToEnd {
        shell.give(on, SEALED);
        shell.doing(on, ConnStep::Secure);
    }
}

fn judge(shell: &mut Shell<Connector>, done: &mut Done) {
    for did in std::mem::take(&mut shell.did) {
        match did {
            Did::Sent(on, text) => {
                let is_outside = text.ends_with(b"\r\nUpgrade: octet-stream+tls\r\n\r\n");
                if done.sealing == Sealing::None {
                    assert!(!is_outside, "nothing is to be end to end");
                } else if text.starts_with(b"GET / ") && !is_outside {
                    done.asked_inside.push(on);
                }
                let is_request = text.starts_with(b"GET / HTTP/1.1\r\n");
                assert!(is_request || is_line(&text), "the request, lines and nothing else");
                done.key = key_of(&text).unwrap_or_else(|| std::mem::take(&mut done.key));
            }
            Did::Paired { hidden, client } => {
                let is_met = done.answered.contains(&hidden) || done.pinned.contains(&hidden);
                assert!(is_met && hidden != client, "met before a 101, or without the right certificate");
                let is_sealed = done.asked_inside.contains(&hidden) || done.pinned.contains(&hidden);
                assert!(done.sealing == Sealing::None || is_sealed, "met in sight of the relay");
            }
            Did::Noted(_) => {}
        }
    }
}
