//! The relay: every connection from its first byte to its last.
//!
//! What a connection is, is one enum (`State`), and each event is one match over it. A connection that becomes half of
//! a pair is handed to the half-close table ([`crate::pair`]); the engine keeps what the hand-over may still need.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::SocketAddr;

use self::admission::{Admission, Stage};
pub use self::config::{Config, Transport};
use self::follow::Follow;
pub use self::snapshot::{Connections, IdSnapshot, Snapshot};
use crate::client_hello;
use crate::conns::Conns;
use crate::entropy::Entropy;
use crate::event::{Event, WaitingEnd};
use crate::http::accept::Form;
use crate::http::follower::Follower;
use crate::http::head::Finder;
use crate::http::reply::Status;
use crate::http::reply::diagnostic::{BUSY, FULL, NOBODY, OFFLINE, STOPPING};
use crate::id::Id;
use crate::limiter::{Source, Sources};
use crate::machine::{Close, ConnId};
use crate::registry::{Enrolment, Registry, Takers, WaitingKind};
use crate::time::{Now, Span, Time};
use crate::token::ChallengeKey;

mod admission;
mod config;
mod follow;
mod machine;
mod raw;
mod rendezvous;
mod request;
mod route;
mod snapshot;

/// A plain-token connection becomes eligible this long after its 200 is in the socket: a hidden server of 2013 loses a
/// request that arrives in one segment with it.
const PLAIN_DELAY: Span = Span::from_millis(100);
/// How often a request that nobody answered is given to one more waiting connection.
const RETRIES_MAX: u8 = 2;
/// A challenged request with a longer body is not waited for: its connection closes.
const DISCARD_BYTES_MAX: u64 = 64 * 1024;
/// Each time that so much of a challenged request's body has come, the rest of it has [`Config::answer`] again.
const DISCARD_STEP: u64 = 8 * 1024;
/// How long a connection may keep silent between a challenge and its next request.
const KEPT: Span = Span::from_secs(60);
/// How many connections above the limit are still answered with the reason for which they are refused.
const OVERFLOW_MAX: u32 = 64;
/// What `Retry-After` says where nothing better is known, in seconds.
const RETRY_AFTER: u32 = 5;

const TOO_MANY: &str = "too many connections from this address";

/// The relay's state machine.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    conns: Conns<State>,
    registry: Registry,
    failures: Sources,
    admission: Admission,
    per_address: BTreeMap<Source, u32>,
    entropy: Entropy,
    challenges: ChallengeKey,
    draining: bool,
}

/// Thousands of connections wait, and each has room for every state: large parts are boxed.
const _: () = assert!(size_of::<State>() <= 48);

/// What a connection is.
///
/// | from | event | to |
/// |---|---|---|
/// | – | accepted: for load balancers, for TLS, in clear | `Proxied`, `Hello` or `Securing`, `Head` |
/// | – | accepted on a hidden server's port | `Client` if a connection waits, else `Held` |
/// | `Proxied` | a PROXY header of a trusted address | `Hello` or `Securing` |
/// | `Hello` | a server name of a hidden server that terminates TLS itself | `Client` if a connection waits, else `Held` |
/// | `Hello` | another ClientHello | `Securing` |
/// | `Securing` | the handshake is complete | `Head` |
/// | `Securing` | HTTP in clear | `PlainHttp` |
/// | `PlainHttp` | a head | closed behind a redirect or 400 |
/// | `Head` | CONNECT with a right token | `Waiting` |
/// | `Head` | a request that names no hidden server | `Answering`, if the connection stays open |
/// | `Answering` | the 401 is in the socket | `Discarding`, or `Head` if there is no body |
/// | `Discarding` | the body is over | `Head` |
/// | `Head` | a request that names a hidden server | `Client` if a connection waits, else `Held`, or closed behind 404 or 503 |
/// | `Held` | a connection waits | `Client` |
/// | `Waiting` | a client comes | `Hidden` |
/// | `Client` | a later request names another hidden server | `Head` |
/// | `Client` | the head is not acknowledged, and no connection waits | `Held` |
/// | `Hidden` | that, or the end of the pair | closed |
/// | any | a refusal, a timeout, an end, too many in this state | closed, often behind an answer |
#[derive(Debug)]
enum State {
    /// The header of a proxy is to come.
    Proxied,
    /// A ClientHello is to come, whose server name says who terminates TLS; it has the deadline of the handshake.
    Hello { reader: client_hello::Reader },
    /// TLS handshake.
    Securing,
    /// A request in clear where a TLS handshake should begin; it has the deadline of the handshake.
    PlainHttp { finder: Finder },
    /// A request head is to come. `begun`: its first byte is there.
    Head { finder: Finder, begun: bool },
    /// An answer is on its way to the socket; then so much of the request's body is to be thrown away.
    Answering { discard: u64 },
    /// The rest of a challenged request's body.
    Discarding { left: u64 },
    /// A hidden server's connection after its 200; `flushed`: the 200 is in the socket; `proxy_header`: its agent asks for one in front of the request.
    Waiting { id: Id, kind: WaitingKind, flushed: bool, since: Time, proxy_header: bool },
    /// A client for whom no connection waits at the moment.
    Held { id: Id, request: Box<Request> },
    /// The hidden server's half of a pair.
    Hidden { id: Id },
    /// The client's half of a pair; the request for as long as no byte of an answer came; `follow`: its later requests
    /// may name another hidden server.
    Client { id: Id, request: Option<Box<Request>>, follow: Option<Box<Follow>> },
}

/// A client's request as it is handed over.
#[derive(Debug)]
struct Request {
    /// The head as the hidden server gets it; emptied when it was sent and can't be repeated.
    head: Box<[u8]>,
    /// A GET, HEAD or OPTIONS without body, or the beginning of a raw client's stream: another waiting connection may get
    /// it.
    repeatable: bool,
    /// What is known of the answer, should it be ours.
    answer: Answer,
    tries: u8,
    /// When it was handed over for the first time.
    first_handed: Option<Time>,
    /// When it was handed over last.
    handed: Time,
    /// How long a round trip to the hidden server's agent takes; zero if that is not known.
    round_trip: Span,
    /// Knows this request; `None`: the exchanges behind it are not followed.
    follower: Option<Follower>,
}

/// How a client is told that it gets no hidden server.
#[derive(Clone, Copy, Debug)]
enum Answer {
    /// By an answer of HTTP.
    Http(AnswerForm),
    /// By a TLS alert: it is a raw client that was routed by its ClientHello.
    Alert,
    /// By a reset: it is a raw client that was routed by the port.
    Reset,
}

impl Request {
    const fn new(
        head: Box<[u8]>,
        repeatable: bool,
        answer: Answer,
        follower: Option<Follower>,
        now: Now,
    ) -> Self {
        Self {
            head,
            repeatable,
            answer,
            tries: 0,
            first_handed: None,
            handed: now.mono,
            round_trip: Span::ZERO,
            follower,
        }
    }

    const fn takers(&self) -> Takers {
        match self.answer {
            Answer::Http(_) => Takers::All,
            Answer::Alert | Answer::Reset => Takers::OfRaw,
        }
    }
}

/// What the head of a request decides about an error answer to it.
#[derive(Clone, Copy, Debug, Default)]
struct AnswerForm {
    /// A HEAD: the answer has no body.
    is_head: bool,
    form: Form,
}

impl AnswerForm {
    /// `head` may be incomplete or malformed.
    fn of(head: &[u8]) -> Self {
        let line = head.strip_prefix(b"\r\n").unwrap_or(head);
        Self { is_head: line.starts_with(b"HEAD "), form: Form::preferred(head) }
    }
}

impl State {
    const fn why(&self) -> &'static str {
        match self {
            Self::Proxied => "proxy's header",
            Self::Hello { .. } | Self::Securing | Self::PlainHttp { .. } => "handshake",
            Self::Head { begun: false, .. } => "first octet",
            Self::Head { begun: true, .. } => "head",
            Self::Answering { .. } => "answer",
            Self::Discarding { .. } => "body of a challenged request",
            Self::Waiting { flushed: false, .. } => "answer",
            Self::Waiting { flushed: true, .. } => "plain token's delay",
            Self::Held { .. } => "held",
            Self::Hidden { .. } | Self::Client { .. } => "pair",
        }
    }
}

impl Engine {
    /// A relay that knows nobody yet. `seed` is from the operating system and makes nonces and challenges unguessable;
    /// `now` is when it started.
    #[must_use]
    pub fn new(config: Config, seed: [u8; 32], now: Now) -> Self {
        let mut conns = Conns::new(config.pair);
        conns.set_lingering_max(Self::lingering_max(&config));
        Self {
            conns,
            config,
            registry: Registry::new(now.mono),
            failures: Sources::default(),
            admission: Admission::default(),
            per_address: BTreeMap::new(),
            entropy: Entropy::new(seed),
            challenges: ChallengeKey::new(seed),
            draining: false,
        }
    }

    /// The operator's list of IDs, whole. Connections of IDs that are gone, or that have another secret now, close.
    pub fn handle_ids(&mut self, ids: Vec<Enrolment>, now: Now) {
        for on in self.registry.enrol(ids, now.mono) {
            match self.conns.state(on) {
                Some(State::Waiting { id, since, .. }) => {
                    let event = Event::WaitingEnded {
                        on,
                        id: *id,
                        why: WaitingEnd::Revoked,
                        after: now.mono.since(*since),
                    };
                    self.conns.event(event);
                    self.conns.close(on, Close::Linger, now);
                }
                Some(State::Held { id, request }) => {
                    let (id, answer) = (*id, request.answer);
                    self.refuse_client(on, Some(id), Status::NotFound404, NOBODY, answer, now);
                }
                _ => debug_assert!(false, "the registry named a connection that neither waits nor is held"),
            }
        }
    }

    /// New limits. They hold for what begins from now on; the listeners stay what they were.
    pub fn handle_config(&mut self, config: Config) {
        self.conns.set_limits(config.pair);
        self.conns.set_lingering_max(Self::lingering_max(&config));
        let Config { listeners, ports, .. } = core::mem::take(&mut self.config);
        self.config = Config { listeners, ports, ..config };
    }

    /// The relay shuts down: waiting connections close, whoever asks from now on gets 503, pairs go on.
    pub fn handle_drain(&mut self, now: Now) {
        self.draining = true;
        for on in self.conns.open_ids() {
            match self.conns.state(on) {
                Some(State::Waiting { .. }) => self.end_waiting(on, WaitingEnd::Drained, now),
                Some(State::Held { id, request }) => {
                    let (id, answer) = (*id, request.answer);
                    self.unhold(id, on);
                    self.refuse_client(on, Some(id), Status::Unavailable503, STOPPING, answer, now);
                }
                Some(State::Head { begun: false, .. }) => self.conns.close(on, Close::Linger, now),
                _ => {}
            }
        }
    }

    /// How many connections there are, closing ones included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.conns.len()
    }

    /// How many pairs there are.
    #[must_use]
    pub fn pairs(&self) -> usize {
        self.conns.pairs()
    }

    fn become_state(&mut self, on: ConnId, state: State, due: Option<Time>) {
        if let Some(old) = self.conns.state(on) {
            *old = state;
            self.conns.set_due(on, due);
        }
    }

    fn drop_conn(&mut self, on: ConnId, how: Close, why: &'static str, now: Now) {
        let from = self.conns.from(on);
        self.conns.event(Event::Dropped { on, from, upstream: None, why });
        self.conns.close(on, how, now);
    }

    fn unhold(&mut self, id: Id, on: ConnId) {
        self.registry.unhold(id, on, self.conns.source(on));
    }

    fn await_head(&mut self, on: ConnId, patience: Span, now: Now) {
        let state = State::Head { finder: Finder::default(), begun: false };
        self.become_state(on, state, Some(now.mono + patience));
        self.admit(on, Stage::Request, now);
    }

    /// A challenged request is over; the next one may come.
    fn keep(&mut self, on: ConnId, now: Now) {
        if self.draining {
            self.conns.close(on, Close::Linger, now);
        } else {
            self.await_head(on, KEPT, now);
        }
    }

    /// The ID of a connection that was paired, whatever phase it is in now.
    fn paired_id(&mut self, on: ConnId) -> Option<Id> {
        match self.conns.any_state(on)? {
            State::Hidden { id } | State::Client { id, .. } => Some(*id),
            _ => None,
        }
    }

    fn count_address(&mut self, from: SocketAddr) -> u32 {
        let count = self.per_address.entry(Source::from(from.ip())).or_insert(0);
        *count += 1;
        *count
    }

    fn uncount_address(&mut self, from: SocketAddr) {
        let source = Source::from(from.ip());
        if let Some(count) = self.per_address.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.per_address.remove(&source);
            }
        }
    }
}
