//! The program beside a client that speaks no HTTP.

use arbitrary::{Arbitrary, Unstructured};
use rendezvous_core::connector::{Config, Connector};
use rendezvous_core::id::Id;
use rendezvous_core::machine::ConnId;
use rendezvous_core::reach::{Host, Place, Relay};
use rendezvous_core::time::{Now, Time};

use crate::shell::{Did, Doing, Passing, SWITCHING, Shell, address};

const OPERATIONS_MAX: usize = 64;

#[derive(Arbitrary, Debug)]
struct Setup {
    tls: bool,
    named: bool,
    once: bool,
}

#[derive(Arbitrary, Debug)]
enum Operation<'a> {
    Open,
    On {
        on: u8,
        what: Doing,
    },
    /// As far as the connection takes it: it is connected, secured and answered 101.
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
        octets: &'a [u8],
    },
    Pass(Passing),
    Drain,
}

pub(crate) fn run(octets: &[u8]) {
    let mut unstructured = Unstructured::new(octets);
    let Ok(setup) = Setup::arbitrary(&mut unstructured) else { return };
    let place = match setup.named {
        true => Place { host: Host::Name("relay".to_owned()), port: 443 },
        false => address(1).into(),
    };
    let relay = Relay { place, tls: setup.tls, host_header: "relay".to_owned() };
    let config = Config { once: setup.once, ..Config::new(relay, Id(7)) };
    let now = Now { mono: Time(1_000_000), wall: 1_715_937_600 };
    let mut shell = Shell::new(Connector::new(config), now);
    // Who was answered 101, or with something made up.
    let mut answered = Vec::new();
    for _ in 0..OPERATIONS_MAX {
        if unstructured.is_empty() {
            break;
        }
        let Ok(operation) = Operation::arbitrary(&mut unstructured) else { break };
        perform(&mut shell, &mut answered, operation);
        judge(&mut shell, &answered);
    }
    shell.tell(Connector::handle_drain);
    shell.clear();
    judge(&mut shell, &answered);
    assert_eq!((shell.machine.pairs(), shell.machine.connections()), (0, 0), "somebody is left");
    assert!(shell.machine.is_done());
}

fn perform(shell: &mut Shell<Connector>, answered: &mut Vec<ConnId>, operation: Operation<'_>) {
    match operation {
        // Accepted or not, the machine says; after a drain nobody is accepted any more.
        Operation::Open => drop(shell.open(0, 1)),
        Operation::On { on, what } => {
            if let Some(on) = shell.pick(on) {
                shell.doing(on, what);
            }
        }
        Operation::Switch { on, interim, more } => {
            let Some(on) = shell.pick(on) else { return };
            for what in [Doing::Resolve { addresses: 2 }, Doing::Connect, Doing::Secure] {
                shell.doing(on, what);
            }
            answered.push(on);
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
        Operation::Raw { on, octets } => {
            if let Some(on) = shell.pick(on) {
                answered.push(on);
                shell.give(on, octets);
            }
        }
        Operation::Pass(what) => shell.pass(what),
        Operation::Drain => shell.tell(Connector::handle_drain),
    }
}

fn judge(shell: &mut Shell<Connector>, answered: &[ConnId]) {
    for did in std::mem::take(&mut shell.did) {
        match did {
            Did::Sent(_, text) => {
                assert!(text.starts_with(b"GET / HTTP/1.1\r\n"), "the request and nothing else")
            }
            Did::Paired { hidden, client } => {
                assert!(answered.contains(&hidden) && hidden != client, "met before a 101");
            }
            Did::Noted(_) => {}
        }
    }
}
