//! The sessions of one DTCP endpoint, with events in any order.

use std::collections::BTreeMap;

use arbitrary::{Arbitrary, Unstructured};
use rendezvous_core::acl::Policy;
use rendezvous_core::dtcp::handshake::Tls;
use rendezvous_core::dtcp::negotiation::{Config, LinkId, Negotiation, Output, SessionId, Signal};
use rendezvous_core::dtcp::{Fingerprint, Key, Offer, host};
use rendezvous_core::relay_client::HostPort;
use rendezvous_core::time::{Span, Time};

#[derive(Arbitrary, Debug)]
struct Setup {
    tls: u8,
    announces: bool,
    sessions_max: u8,
    accepted_max: u8,
    parked_max: u8,
}

/// An event. Numbers select among what exists.
#[derive(Arbitrary, Debug)]
enum Operation {
    Request {
        peer: bool,
        hosts: u8,
    },
    Requested {
        peer: bool,
        key: u8,
        hosts: u8,
        pinned: bool,
    },
    Answered {
        session: u8,
        key: u8,
        hosts: u8,
        pinned: bool,
    },
    Refused {
        session: u8,
    },
    GaveUp {
        session: u8,
    },
    Cancel {
        session: u8,
    },
    Accepted,
    Resolved {
        link: u8,
        addresses: u8,
    },
    Connected {
        link: u8,
    },
    DialFailed {
        link: u8,
    },
    /// A line, complete or cut.
    Message {
        link: u8,
        line: Line,
        cut: u8,
    },
    TlsUp {
        link: u8,
        pinned: bool,
    },
    TlsFailed {
        link: u8,
    },
    End {
        link: u8,
    },
    Wait {
        ms: u16,
    },
    Deadline,
}

#[derive(Arbitrary, Debug)]
enum Line {
    StartTls,
    OurKey { session: u8 },
    OurOk { session: u8 },
    Ack,
    Error,
    Any(Vec<u8>),
}

const PINNED: Fingerprint = Fingerprint([7; 32]);

/// The state of a connection, as its driver sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    Resolving,
    Dialling,
    Up,
    Securing,
}

#[derive(Debug)]
struct Connection {
    stage: Stage,
    kept: Vec<u8>,
    wanted: bool,
    secure: bool,
}

#[derive(Debug, Default)]
struct Session {
    ours: Option<Key>,
    gave_up: bool,
}

struct Story {
    it: Negotiation,
    tls: Tls,
    now: Time,
    links: BTreeMap<LinkId, Connection>,
    sessions: BTreeMap<SessionId, Session>,
    /// Keys, also of finished sessions, because a peer may still send them.
    keys: Vec<Key>,
    until: Option<Time>,
}

pub(crate) fn run(bytes: &[u8]) {
    let mut unstructured = Unstructured::new(bytes);
    let Ok(setup) = Setup::arbitrary(&mut unstructured) else { return };
    let tls = [Tls::Off, Tls::Prefer, Tls::Require][usize::from(setup.tls % 3)];
    let config = Config {
        tls,
        fingerprint: setup.announces.then_some(PINNED),
        policy: Policy { loopback: true, names: true, ..Policy::default() },
        sessions_max: usize::from(setup.sessions_max % 4) + 1,
        accepted_max: usize::from(setup.accepted_max % 6) + 1,
        parked_max: usize::from(setup.parked_max % 3) + 1,
        concealed: None,
        ..Config::default()
    };
    let it = Negotiation::new(config, [7; 32]);
    let mut shrinker = Story {
        it,
        tls,
        now: Time(1_000_000),
        links: BTreeMap::new(),
        sessions: BTreeMap::new(),
        keys: Vec::new(),
        until: None,
    };
    while let Ok(operation) = Operation::arbitrary(&mut unstructured) {
        shrinker.act(operation);
        shrinker.apply_actions();
        if unstructured.is_empty() {
            break;
        }
    }
    shrinker.end();
}

fn peer(is_joe: bool) -> &'static str {
    if is_joe { "joe" } else { "ann" }
}

/// Hosts of a peer, some of them unusable.
fn hosts(count: u8) -> Vec<String> {
    let all = ["192.0.2.1:8000", "127.0.0.1:1", "nonsense", "example.org:80", "10.0.0.1:5", "192.0.2.1:0"];
    (0..count % 5).map(|at| all[usize::from(at + count / 5) % all.len()].to_owned()).collect()
}

fn offer(key: u8, count: u8, pinned: bool) -> Offer {
    let key = Key::new(format!("key{}", key % 3).as_bytes()).expect("a key");
    Offer { key, hosts: hosts(count), fingerprint: pinned.then_some(PINNED) }
}

fn places(count: u8) -> Vec<HostPort> {
    (0..count % 4).filter_map(|at| host::parse(&format!("198.51.100.{at}:80"))).collect()
}

impl Story {
    fn link(&self, choice: u8) -> Option<LinkId> {
        self.links.keys().nth(usize::from(choice) % self.links.len().max(1)).copied()
    }

    fn link_in(&self, choice: u8, stage: Stage) -> Option<LinkId> {
        self.link(choice).filter(|link| self.links[link].stage == stage)
    }

    /// A session that exists, or a finished one.
    fn session(&self, choice: u8) -> SessionId {
        let it = self.sessions.keys().nth(usize::from(choice) % self.sessions.len().max(1));
        it.copied().unwrap_or(SessionId(u64::from(choice)))
    }

    fn act(&mut self, operation: Operation) {
        match operation {
            Operation::Request { peer: whom, hosts } => {
                let id = self.it.request(peer(whom), &places(hosts), self.now);
                self.sessions.insert(id, Session::default());
            }
            Operation::Requested { peer: whom, key, hosts, pinned } => {
                let theirs = offer(key, hosts, pinned);
                let id = self.it.handle_request(peer(whom), &theirs, &places(key), self.now);
                self.sessions.insert(id, Session::default());
            }
            Operation::Answered { session, key, hosts, pinned } => {
                self.it.handle_answer(self.session(session), &offer(key, hosts, pinned), self.now);
            }
            Operation::Refused { session } => self.it.handle_refused(self.session(session)),
            Operation::GaveUp { session } => self.it.handle_give_up(self.session(session)),
            Operation::Cancel { session } => {
                let session = self.session(session);
                self.it.cancel(session);
                self.apply_actions();
                self.sessions.remove(&session);
            }
            Operation::Accepted => {
                let link = self.it.handle_accepted(self.now);
                self.links.insert(link, Connection::new(Stage::Up));
            }
            Operation::Wait { ms } => self.wait(self.now + Span::from_millis(u64::from(ms))),
            Operation::Deadline => {
                if let Some(until) = self.until {
                    self.wait(until);
                }
            }
            of_link => self.act_on_link(of_link),
        }
    }

    fn act_on_link(&mut self, operation: Operation) {
        match operation {
            Operation::Resolved { link, addresses } => {
                let Some(link) = self.link_in(link, Stage::Resolving) else { return };
                let addresses: Vec<_> =
                    hosts(addresses).iter().filter_map(|host| host.parse().ok()).collect();
                self.it.handle_resolved(link, &addresses);
            }
            Operation::Connected { link } => {
                let Some(link) = self.link_in(link, Stage::Dialling) else { return };
                self.links.insert(link, Connection::new(Stage::Up));
                self.it.handle_connected(link);
            }
            Operation::DialFailed { link } => {
                let Some(link) = self.link(link) else { return };
                if matches!(self.links[&link].stage, Stage::Resolving | Stage::Dialling) {
                    self.it.handle_dial_failed(link);
                }
            }
            Operation::Message { link, line, cut } => self.on_line(link, &line, cut),
            Operation::TlsUp { link, pinned } => {
                let Some(link) = self.link_in(link, Stage::Securing) else { return };
                let connection = Connection { secure: true, ..Connection::new(Stage::Up) };
                self.links.insert(link, connection);
                self.it.handle_tls_up(link, pinned.then_some(PINNED));
            }
            Operation::TlsFailed { link } => {
                if let Some(link) = self.link_in(link, Stage::Securing) {
                    self.it.handle_tls_failed(link);
                }
            }
            Operation::End { link } => {
                if let Some(link) = self.link_in(link, Stage::Up) {
                    self.it.handle_end(link);
                }
            }
            _ => unreachable!("not of a link"),
        }
    }

    fn on_line(&mut self, link: u8, line: &Line, cut: u8) {
        let Some(link) = self.link_in(link, Stage::Up) else { return };
        let key = |choice: u8| self.keys.get(usize::from(choice) % self.keys.len().max(1));
        let with =
            |word: &[u8], choice| [word, key(choice).map_or(&b"key0"[..], Key::as_bytes), b"\n"].concat();
        let line = match line {
            Line::StartTls => b"starttls\n".to_vec(),
            Line::OurKey { session } => with(b"key:", *session),
            Line::OurOk { session } => with(b"ok:", *session),
            Line::Ack => b"ok\n".to_vec(),
            Line::Error => b"error\n".to_vec(),
            Line::Any(bytes) => bytes.clone(),
        };
        let len = if cut == 0 { line.len() } else { line.len().min(usize::from(cut)) };
        let connection = self.links.get_mut(&link).expect("it is there");
        connection.kept.extend_from_slice(&line[..len]);
        self.offer(link);
    }

    fn offer(&mut self, link: LinkId) {
        let Some(connection) = self.links.get_mut(&link) else { return };
        if connection.wanted && connection.stage == Stage::Up {
            let used = self.it.handle_bytes(link, &connection.kept);
            assert!(used <= connection.kept.len());
            connection.kept.drain(..used);
        }
    }

    fn wait(&mut self, until: Time) {
        self.now = self.now.max(until);
        self.it.handle_timeout(self.now);
    }

    fn apply_actions(&mut self) {
        loop {
            match self.it.poll_output() {
                Output::Idle { until } => {
                    assert_eq!(self.it.links(), self.links.len(), "links that one side does not know");
                    assert!(self.it.sessions() <= self.sessions.len());
                    self.until = until;
                    return;
                }
                Output::Signal { session, signal } => self.signal(session, signal),
                Output::Resolve { link, .. } => {
                    assert!(self.links.insert(link, Connection::new(Stage::Resolving)).is_none());
                }
                Output::Dial { link, to } => {
                    assert!(to.port() != 0 && !to.ip().is_unspecified(), "{to} is nowhere");
                    self.links.insert(link, Connection::new(Stage::Dialling));
                }
                Output::Write { link, bytes } => {
                    assert!(bytes.ends_with(b"\n"));
                    assert_eq!(self.links[&link].stage, Stage::Up);
                }
                Output::StartTls { link, .. } => {
                    let connection = self.links.get_mut(&link).expect("TLS on a connection");
                    assert!(self.tls != Tls::Off && !connection.secure);
                    connection.stage = Stage::Securing;
                }
                Output::Read { link, wanted } => {
                    self.links.get_mut(&link).expect("a connection").wanted = wanted;
                    self.offer(link);
                }
                Output::Close { link, .. } => {
                    assert!(self.links.remove(&link).is_some(), "closed twice");
                }
                Output::Established { session, link, tls } => {
                    let connection = self.links.remove(&link).expect("a connection");
                    assert_eq!(connection.secure, tls);
                    assert!(self.tls != Tls::Require || tls, "in clear");
                    assert!(self.sessions.remove(&session).is_some(), "settled twice");
                }
                Output::Withheld { .. } => {}
                Output::Failed { session, .. } => {
                    assert!(self.sessions.remove(&session).is_some(), "settled twice");
                }
            }
        }
    }

    fn signal(&mut self, id: SessionId, signal: Signal) {
        let session = self.sessions.get_mut(&id).expect("a session that there is");
        match signal {
            Signal::Request(ours) | Signal::Answer(ours) => {
                assert!(session.ours.is_none(), "offered twice");
                assert!(!self.keys.contains(&ours.key), "a key twice");
                assert!(ours.hosts.len() <= 3);
                session.ours = Some(ours.key.clone());
                self.keys.push(ours.key);
            }
            Signal::Refuse(_) => {
                self.sessions.remove(&id);
            }
            Signal::GiveUp(_) => {
                assert!(session.ours.is_some(), "given up before it was offered");
                assert!(!std::mem::replace(&mut session.gave_up, true), "given up twice");
            }
        }
    }

    /// Time alone ends everything.
    fn end(&mut self) {
        for _ in 0..1000 {
            self.apply_actions();
            let Some(until) = self.until else {
                assert_eq!((self.it.links(), self.it.sessions()), (0, 0), "what has no deadline");
                return;
            };
            self.wait(until);
        }
        panic!("a deadline that spins");
    }
}

impl Connection {
    const fn new(stage: Stage) -> Self {
        Self { stage, kept: Vec::new(), wanted: true, secure: false }
    }
}
