//! The agent.

use arbitrary::{Arbitrary, Unstructured};
use rendezvous_core::agent::{Agent, Config, Seeds, Upstream};
use rendezvous_core::dtcp::Direct;
use rendezvous_core::event::Event;
use rendezvous_core::http::reply::ACCEPTED;
use rendezvous_core::id::Id;
use rendezvous_core::machine::ConnId;
use rendezvous_core::proxy_header::{Parsed, Version, parse};
use rendezvous_core::relay_client::{Host, HostPort, Relay};
use rendezvous_core::time::{Now, Time};
use rendezvous_core::token::{Algorithm, Key};

use crate::direct::{Line, direct, is_line, key_of, offer};
use crate::shell::{ConnStep, Did, SWITCHING, Shell, WorldStep, address};

const OPERATIONS_MAX: usize = 64;
/// 2024-05-17T09:20:00Z.
const WALL: u64 = 1_715_937_600;

#[derive(Arbitrary, Debug)]
struct Setup {
    upstreams: [Setting; 2],
    two: bool,
    /// Options. The lowest bit: once. The next two: which PROXY headers it sends. The next two: whether it uses direct
    /// connections, and whether it can be reached. The next: whether its local services use TLS.
    how: u8,
}

#[derive(Arbitrary, Debug)]
struct Setting {
    tls: bool,
    named: bool,
    plain: bool,
    pool: u8,
    service: Option<bool>,
    stream: Option<bool>,
}

#[derive(Arbitrary, Debug)]
enum Operation<'a> {
    On {
        on: u8,
        what: ConnStep,
    },
    /// In order, as far as the connection allows: it is connected, secured and accepted.
    Accept {
        on: u8,
    },
    Refuse {
        on: u8,
        status: u8,
        date: i16,
        retry_after: Option<u16>,
    },
    Client {
        on: u8,
        kind: Kind,
    },
    Raw {
        on: u8,
        bytes: &'a [u8],
    },
    Pass(WorldStep),
    Drain,
    /// A direct connection is accepted.
    Open,
    /// A client offers a direct connection, to hosts of its own or to ours.
    Offer {
        on: u8,
        hosts: bool,
    },
    Say {
        on: u8,
        line: Line,
    },
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Kind {
    Http,
    Head,
    Half,
    Stream,
    StreamAndMore,
}

pub(crate) fn run(bytes: &[u8]) {
    let mut unstructured = Unstructured::new(bytes);
    let Ok(setup) = Setup::arbitrary(&mut unstructured) else { return };
    let (config, most) = setup.config();
    let streams: Vec<bool> = config.upstreams.iter().map(|it| it.stream.is_some()).collect();
    let now = Now { mono: Time(1_000_000), wall: WALL };
    let mut shell = Shell::new(Agent::new(config, Seeds { nonces: [5; 32], jitter: [5; 32] }, now), now);
    let mut key = String::new();
    for _ in 0..OPERATIONS_MAX {
        if unstructured.is_empty() {
            break;
        }
        let Ok(operation) = Operation::arbitrary(&mut unstructured) else { break };
        perform(&mut shell, operation, &key);
        judge(&mut shell, &most, &streams, &mut key);
    }
    shell.call(Agent::handle_drain);
    shell.clear();
    judge(&mut shell, &most, &streams, &mut key);
    assert_eq!((shell.machine.pairs(), shell.machine.connections()), (0, 0), "a connection is left");
    assert!(shell.machine.is_done());
}

/// `key`: what the agent offered last.
fn perform(shell: &mut Shell<Agent>, operation: Operation<'_>, key: &str) {
    let mut picked = |on: u8, bytes: &[u8]| {
        if let Some(on) = shell.pick(on) {
            shell.give(on, bytes);
        }
    };
    match operation {
        Operation::On { on, what } => {
            if let Some(on) = shell.pick(on) {
                shell.doing(on, what);
            }
        }
        Operation::Accept { on } => {
            if let Some(on) = shell.pick(on) {
                accept(shell, on);
            }
        }
        Operation::Refuse { on, status, date, retry_after } => {
            let mut answer =
                format!("HTTP/1.1 {} No\r\n", [401, 429, 503, 407][usize::from(status % 4)]).into_bytes();
            answer.extend_from_slice(b"Date: ");
            let wall = shell_wall(shell).saturating_add_signed(i64::from(date));
            rendezvous_core::http::date::write_date(wall, &mut answer);
            if let Some(secs) = retry_after {
                answer.extend_from_slice(format!("\r\nRetry-After: {secs}").as_bytes());
            }
            if date % 3 == 0 {
                answer.extend_from_slice(format!("\r\nRendezvous-Challenge: challenge-{date:08}").as_bytes());
            }
            answer.extend_from_slice(b"\r\n\r\n");
            if let Some(on) = shell.pick(on) {
                shell.give(on, &answer);
            }
        }
        Operation::Client { on, kind } => picked(on, kind.bytes()),
        Operation::Raw { on, bytes } => picked(on, bytes),
        Operation::Pass(what) => shell.pass(what),
        Operation::Drain => shell.call(Agent::handle_drain),
        Operation::Open => drop(shell.open(0, 9)),
        Operation::Offer { on, hosts } => {
            let head = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: octet-stream\r\n";
            picked(on, format!("{head}{}\r\n", offer(hosts)).as_bytes());
        }
        Operation::Say { on, line } => picked(on, &line.bytes(key)),
    }
}

fn shell_wall(shell: &Shell<Agent>) -> u64 {
    shell.now.wall
}

fn accept(shell: &mut Shell<Agent>, on: ConnId) {
    for what in [ConnStep::Resolve { addresses: 1 }, ConnStep::Connect, ConnStep::Secure] {
        shell.doing(on, what);
    }
    shell.give(on, ACCEPTED);
}

impl Kind {
    const fn bytes(self) -> &'static [u8] {
        match self {
            Self::Http => b"GET / HTTP/1.1\r\nHost: a\r\n\r\nbehind",
            Self::Head => b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
            Self::Half => b"GET / HTTP/1.1\r\nHos",
            Self::Stream => b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: octet-stream\r\n\r\n",
            Self::StreamAndMore => {
                b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: octet-stream\r\n\r\nSSH-2.0-x\r\n"
            }
        }
    }
}

impl Setup {
    /// The configuration, and how many connections may wait at each upstream.
    fn config(&self) -> (Config, Vec<u32>) {
        let count = if self.two { 2 } else { 1 };
        let settings = || self.upstreams.iter().take(count);
        let once = self.how & 1 == 1;
        let most = |it: &Setting| match u32::from((it.pool % 4).max(1)) {
            _ if it.plain || once => 1,
            pool => pool + u32::from(it.pool / 4 % 8).max(pool),
        };
        let tls = self.how >> 5 & 1 == 1;
        let upstreams = settings().zip(1..).map(|(setting, number)| setting.upstream(number, tls)).collect();
        let send_proxy = match self.how >> 1 & 3 {
            1 => Some(Version::V1),
            2 => Some(Version::V2),
            _ => None,
        };
        let direct = (self.how >> 3 & 1 == 1).then(|| direct(self.how >> 4 & 1 == 1, 0, Direct::AWAITED));
        let forwarded = self.how >> 5 & 1 == 1;
        let config = Config { upstreams, once, send_proxy, forwarded, direct, ..Config::default() };
        (config, settings().map(most).collect())
    }
}

impl Setting {
    /// `tls`: the local service uses TLS.
    fn upstream(&self, number: u8, tls: bool) -> Upstream {
        let place = |named: bool, host: u8| match named {
            true => HostPort { host: Host::Name(format!("host{host}")), port: 443 },
            false => address(host).into(),
        };
        let relay = place(self.named, number);
        Upstream {
            ports: Vec::new(),
            stream_takes_ports: false,
            service_h2: false,
            end_to_end: rendezvous_core::agent::EndToEnd::Off,
            basic_auth: None,
            relay: Relay { place: relay, tls: self.tls, host_header: "relay".to_owned() },
            id: Id(number.into()),
            key: Key::new(b"0123456789abcdef".to_vec(), Algorithm::Sha256, 8, 30).expect("a key"),
            plain: self.plain,
            pool: u16::from(self.pool % 4),
            pool_max: u16::from(self.pool / 4 % 8),
            service: self.service.map(|named| place(named, 80)),
            service_tls: tls.then_some(7),
            stream: self.stream.map(|named| place(named, 22)),
        }
    }
}

fn judge(shell: &mut Shell<Agent>, most: &[u32], streams: &[bool], key: &mut String) {
    for (upstream, most) in (0..).zip(most) {
        // Connections that waited before the relay failed may still wait, beside the new one.
        assert!(shell.machine.waiting(upstream) <= most + 1, "more wait than the pool asks for");
    }
    for did in std::mem::take(&mut shell.did) {
        match did {
            Did::Sent(_, text) if text == SWITCHING => {
                assert!(streams.contains(&true), "a stream without a service for it");
            }
            Did::Sent(_, text) if text.starts_with(b"HTTP/1.1 101 ") => {
                *key = key_of(&text).expect("an offer");
            }
            Did::Sent(_, text) if is_line(&text) => {}
            Did::Sent(_, text) => {
                let refusals: [&[u8]; 6] = [
                    b"HTTP/1.1 400 ",
                    b"HTTP/1.1 408 ",
                    b"HTTP/1.1 414 ",
                    b"HTTP/1.1 431 ",
                    b"HTTP/1.1 502 ",
                    b"HTTP/1.1 505 ",
                ];
                // Requests with forwarding fields.
                let is_told = String::from_utf8_lossy(&text).contains("\r\nForwarded: for=")
                    && text.ends_with(b"\r\n\r\n");
                let known =
                    text.starts_with(b"CONNECT uuid:") || refusals.iter().any(|it| text.starts_with(it));
                let is_header = matches!(parse(&text), Parsed::Complete { len, .. } if len == text.len());
                assert!(known || is_header || is_told, "{:?}", String::from_utf8_lossy(&text));
            }
            Did::Noted(Event::Registered { upstream, waiting, .. }) => {
                assert!(waiting <= most[usize::from(upstream)] + 1, "more wait than the pool asks for");
            }
            Did::Noted(_) => {}
            Did::Paired { hidden, client } => assert!(hidden != client),
        }
    }
}
