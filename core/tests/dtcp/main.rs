//! DTCP: lines, handshakes, sessions, two parties against each other, and the entity that talks over XMPP. A test of the
//! case docs/dtcp.md §6.N has `case_N` in its name. Where the tests of each case are (`iq` and `dtcp::xmpp` are in
//! `core/tests/xmpp`, and all that needs a real server in `tests/tests/interop/dtcp.rs`):
//!
//! | case | what | tests |
//! |---|---|---|
//! | 1 | both dial at once | `crossing` |
//! | 2 | a serving requestor is asked too early | `sessions`, `handshake` |
//! | 3 | another connection after the commit | `sessions` |
//! | 4 | a late connection | `sessions`, `entity` |
//! | 5 | more than three hosts | `offers`, `dtcp::xmpp` |
//! | 6 | no host received | `offers`, `entity` |
//! | 7 | no usable host | `offers` |
//! | 8 | no host sent | `offers` |
//! | 9 | both gave up | `signals`, `crossing`, `entity` |
//! | 10 | one gave up | `signals`, `entity` |
//! | 11 | a give-up in the middle of a handshake, or before the answer | `signals` |
//! | 12 | a give-up that names nothing | `signals`, `entity`, `dtcp::xmpp` |
//! | 13 | the give-up on the wire | `signals`, `entity`, `dtcp::xmpp` |
//! | 14 | cancelled (an answer is never put off, so there is no 403 before it) | `signals`, `entity` |
//! | 15 | refused | `offers`, `entity`, `iq`, `dtcp::xmpp` |
//! | 16 | an answer that is none | `offers`, `entity`, `dtcp::xmpp` |
//! | 17 | a wrong key | `handshake`, `sessions` |
//! | 18 | nonsense | `line`, `handshake` |
//! | 19 | a line too long | `line`, `handshake` |
//! | 20 | the length of keys | `offers`, `dtcp::xmpp` |
//! | 21 | CR LF | `line` |
//! | 22 | arguments | `line`, `handshake` |
//! | 23 | case, white space | `line` |
//! | 24, 25 | bytes behind the last line | `line`, `handshake`, `sessions` |
//! | 26–30 | `starttls` | `handshake`, `sessions` |
//! | 31, 32 | the dialling side hears something else | `handshake`, `sessions` |
//! | 33–35 | hosts: how they are written, names, whom to dial | `addresses`, `offers` |
//! | 36 | all are dialled at once, none twice (with §6.5) | `offers` |
//! | 37, 38 | requests that cross, the same key again | `offers`, `entity`, `dtcp::xmpp` |
//! | 39 | certificates | `offers` |
//! | 40 | the end before the commit, and behind it | `sessions` |

#![cfg(feature = "xmpp")]

mod addresses;
mod crossing;
mod entity;
mod handshake;
#[allow(dead_code, reason = "shared with other tests")]
#[path = "../common/harness.rs"]
mod harness;
mod line;
mod offers;
mod sessions;
mod signals;
mod world;

use std::net::SocketAddr;

use rendezvous_core::acl::Policy;
use rendezvous_core::dtcp::handshake::Tls;
use rendezvous_core::dtcp::negotiation::{
    Config, LinkId, Negotiation, Output, SessionFailure, SessionId, Signal,
};
use rendezvous_core::dtcp::{Fingerprint, Key, Offer, host};
use rendezvous_core::machine::Close;
use rendezvous_core::opaque::Opaque;
use rendezvous_core::relay_client::HostPort;
use rendezvous_core::time::{Span, Time};

const START: Time = Time(1_000_000);
const THEIRS: &str = "a1b2c3d4";
const HOST: &str = "192.0.2.1:8000";

fn place(text: &str) -> HostPort {
    host::parse(text).unwrap_or_else(|| panic!("{text} is no host"))
}

fn offer(hosts: &[&str]) -> Offer {
    Offer {
        key: Key::new(THEIRS.as_bytes()).unwrap(),
        hosts: hosts.iter().map(|it| (*it).to_string()).collect(),
        fingerprint: None,
    }
}

fn pinned(hosts: &[&str], certificate: Fingerprint) -> Offer {
    Offer { fingerprint: Some(certificate), ..offer(hosts) }
}

/// An endpoint, and its outputs since the last call.
struct Party {
    it: Negotiation,
    now: Time,
}

impl Party {
    fn new(config: Config) -> Self {
        Self { it: Negotiation::new(config, [7; 32]), now: START }
    }

    fn with_tls(tls: Tls) -> Self {
        Self::new(Config { tls, ..Config::default() })
    }

    fn actions(&mut self) -> Vec<Output> {
        let mut actions = Vec::new();
        loop {
            match self.it.poll_output() {
                Output::Idle { .. } => return actions,
                output => actions.push(output),
            }
        }
    }

    fn until(&mut self) -> Option<Time> {
        match self.it.poll_output() {
            Output::Idle { until } => until,
            output => panic!("{output:?} was not asked for"),
        }
    }

    fn sleep(&mut self, span: Span) -> Vec<Output> {
        self.now = self.now + span;
        self.it.handle_timeout(self.now);
        self.actions()
    }

    /// We sent a request, with one host. Returns the session and our key.
    fn requested(&mut self) -> (SessionId, Key) {
        let session = self.it.request("joe", &[place("198.51.100.1:8000")], self.now);
        let actions = self.actions();
        let [Output::Signal { signal: Signal::Request(ours), .. }] = &actions[..] else {
            panic!("{actions:?}")
        };
        (session, ours.key.clone())
    }

    /// We sent a request and were answered with these hosts. Returns the outputs.
    fn requestor(&mut self, theirs: &Offer) -> (SessionId, Key, Vec<Output>) {
        let (session, key) = self.requested();
        self.it.handle_answer(session, theirs, self.now);
        (session, key, self.actions())
    }

    /// We got a request with this offer, and have one host.
    fn responder(&mut self, theirs: &Offer) -> (SessionId, Key, Vec<Output>) {
        let session = self.it.handle_request("joe", theirs, &[place("198.51.100.1:8000")], self.now);
        let mut actions = self.actions();
        let Output::Signal { signal: Signal::Answer(ours), .. } = actions.remove(0) else {
            panic!("{actions:?}")
        };
        (session, ours.key, actions)
    }

    fn accepted(&mut self) -> LinkId {
        let link = self.it.handle_accepted(self.now);
        assert_eq!(self.actions(), []);
        link
    }

    /// All of the bytes are consumed. Returns the outputs.
    fn receive(&mut self, link: LinkId, bytes: &[u8]) -> Vec<Output> {
        let used = self.it.handle_bytes(link, bytes);
        assert_eq!(used, bytes.len(), "{:?}", bytes.escape_ascii().to_string());
        self.actions()
    }

    fn connected(&mut self, link: LinkId) -> Vec<Output> {
        self.it.handle_connected(link);
        self.actions()
    }
}

fn key_line(key: &Key) -> Vec<u8> {
    [b"key:", key.as_bytes(), b"\n"].concat()
}

fn ok_line(key: &Key) -> Vec<u8> {
    [b"ok:", key.as_bytes(), b"\n"].concat()
}

fn write(link: LinkId, bytes: impl Into<Vec<u8>>) -> Output {
    Output::Write { link, bytes: Opaque(bytes.into()) }
}

fn error(link: LinkId) -> Output {
    write(link, *b"error\n")
}

fn close(link: LinkId, how: Close) -> Output {
    Output::Close { link, how }
}

fn established(session: SessionId, link: LinkId) -> Output {
    Output::Established { session, link, tls: false }
}

fn failed(session: SessionId, why: SessionFailure) -> Output {
    Output::Failed { session, why }
}

fn give_up(session: SessionId) -> Output {
    Output::Signal { session, signal: Signal::GiveUp(Key::new(THEIRS.as_bytes()).unwrap()) }
}

fn dials(actions: &[Output]) -> Vec<(LinkId, SocketAddr)> {
    actions
        .iter()
        .filter_map(|it| match it {
            Output::Dial { link, to } => Some((*link, *to)),
            _ => None,
        })
        .collect()
}

fn one_dial(actions: &[Output]) -> LinkId {
    let dials = dials(actions);
    assert_eq!(dials.len(), 1, "{actions:?}");
    dials[0].0
}

fn everywhere() -> Policy {
    Policy { loopback: true, link_local: true, private: true, shared: true, names: true, own: Vec::new() }
}
