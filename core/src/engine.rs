//! The relay: every connection from its first byte to its last.
//!
//! The state of a connection is one enum (`State`), and each event is one match over it. A connection that becomes
//! half of a pair is passed to the half-close table ([`crate::pair`]); the engine keeps what a failed hand-over
//! needs.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::net::SocketAddr;

use self::admission::{Admission, Stage};
pub use self::config::{Config, Transport};
pub use self::counts::{BOUNDS, Counts, Histogram, RefusalReason};
use self::follow::Follow;
pub use self::listing::{ConnectionInfo, ConnectionState};
pub use self::snapshot::{Connections, IdSnapshot, Snapshot};
pub use self::steer::Kick;
use self::take_over::Service;
pub use self::take_over::{Quiet, TakeOver};
use crate::client_hello;
use crate::conns::Conns;
use crate::entropy::Entropy;
use crate::event::{Event, WaitingEnd};
use crate::http::accept::AnswerForm;
use crate::http::follower::Follower;
use crate::http::head::Finder;
use crate::http::instance::Instance;
use crate::http::reply::Status;
use crate::http::reply::diagnostic::{BUSY, FULL, NOBODY, OFFLINE, STOPPING};
use crate::id::Id;
use crate::limiter::{Source, Sources};
use crate::machine::{Close, ConnId};
use crate::prefix::PrefixSet;
use crate::registry::{Enrolment, Registry, Takers, WaitingKind};
use crate::time::{Now, Span, Time};
use crate::token::ChallengeKey;

mod admission;
mod config;
mod counts;
mod follow;
mod group;
mod listing;
mod machine;
mod raw;
mod rendezvous;
mod request;
mod route;
mod snapshot;
mod steer;
mod take_over;

/// A plain-token connection becomes eligible this long after its 200 is in the socket. A hidden server of 2013 loses
/// a request that arrives in one segment with the 200.
const PLAIN_DELAY: Span = Span::from_millis(100);
/// How often an unanswered request is handed over to a further waiting connection.
const RETRIES_MAX: u8 = 2;
/// If a challenged request has a longer body, its connection is closed instead of reading the body.
const DISCARD_BYTES_MAX: u64 = 64 * 1024;
/// Each time that this many bytes of a challenged request's body have arrived, [`Config::answer`] starts again.
const DISCARD_STEP: u64 = 8 * 1024;
/// The idle timeout of a connection between a challenge and its next request.
const KEPT: Span = Span::from_secs(60);
/// The number of connections above the limit that still get a response with the reason for their refusal.
const OVERFLOW_MAX: u32 = 64;
/// The default of `Retry-After`, in seconds.
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
    /// In a group: the ID of each connection whose ClientHello names its first label.
    server_names: BTreeMap<ConnId, Id>,
    /// The health checks of load balancers: connections with a `LOCAL` PROXY header.
    health_checks: BTreeSet<ConnId>,
    /// Distinguishes this relay from others, and from itself before a restart.
    instance: Instance,
    /// [`Config::denied`], for look-ups.
    denied: PrefixSet,
    counts: Counts,
    service: Service,
}

/// Thousands of connections wait, and each has room for every state. So large parts are boxed.
const _: () = assert!(size_of::<State>() <= 48);

/// The state of a connection.
///
/// | from | event | to |
/// |---|---|---|
/// | – | accepted: from load balancers, with TLS, in clear | `Proxied`, `Hello` or `Securing`, `Head` |
/// | – | accepted on a hidden server's port | `Client` if a connection waits, else `Held` |
/// | `Proxied` | a PROXY header of a trusted address | `Hello` or `Securing` |
/// | `Hello` | the server name of a hidden server that terminates TLS itself | `Client` if a connection waits, else `Held` |
/// | `Hello` | another ClientHello | `Securing` |
/// | `Securing` | the handshake is complete | `Head` |
/// | `Securing` | HTTP in clear | `PlainHttp` |
/// | `PlainHttp` | a head | closed after a redirect or 400 |
/// | `Head` | CONNECT with a valid token | `Waiting` |
/// | `Head` | a request that names no hidden server | `Answering`, if the connection stays open |
/// | `Answering` | the 401 is in the socket | `Discarding`, or `Head` if there is no body |
/// | `Discarding` | the end of the body | `Head` |
/// | `Head` | a request that names a hidden server | `Client` if a connection waits, else `Held`, or closed after 404 or 503 |
/// | `Held` | a connection waits | `Client` |
/// | `Waiting` | a client arrives | `Hidden` |
/// | `Client` | a later request names another hidden server | `Head` |
/// | `Client` | the head is not acknowledged, and no connection waits | `Held` |
/// | `Hidden` | that, or the end of the pair | closed |
/// | any | a refusal, a timeout, an end, too many in this state | closed, often after a response |
#[derive(Debug)]
enum State {
    /// Waits for a PROXY header.
    Proxied,
    /// Waits for a ClientHello, whose server name decides who terminates TLS. Has the deadline of the handshake.
    Hello { reader: client_hello::Reader },
    /// TLS handshake.
    Securing,
    /// A request in clear where a TLS handshake should begin. Has the deadline of the handshake.
    PlainHttp { finder: Finder },
    /// Waits for a request head. `begun`: its first byte has arrived.
    Head { finder: Finder, begun: bool },
    /// A response is being sent. Then this many bytes of the request's body are discarded.
    Answering { discard: u64 },
    /// Discards the rest of a challenged request's body.
    Discarding { left: u64 },
    /// A hidden server's connection after its 200. `flushed`: the 200 is in the socket. `proxy_header`: its agent
    /// asks for one in front of the request.
    Waiting { id: Id, kind: WaitingKind, flushed: bool, since: Time, proxy_header: bool },
    /// A client for which no connection waits yet.
    Held { id: Id, request: Box<Request> },
    /// The hidden server's half of a pair.
    Hidden { id: Id },
    /// The client's half of a pair. `request` is kept until the first byte of a response. `follow`: its later
    /// requests may name another hidden server.
    Client { id: Id, request: Option<Box<Request>>, follow: Option<Box<Follow>> },
}

/// A client's request that is handed over.
#[derive(Debug)]
struct Request {
    /// The head for the hidden server. Emptied once it was sent and cannot be repeated.
    head: Box<[u8]>,
    /// Whether another waiting connection may get the request: a GET, HEAD or OPTIONS without a body, or the
    /// beginning of a raw client's stream.
    repeatable: bool,
    /// How the relay refuses the client, if it has to.
    answer: Answer,
    tries: u8,
    /// When it was handed over for the first time.
    first_handed: Option<Time>,
    /// When it was handed over last.
    handed: Time,
    /// The round-trip time to the hidden server's agent; zero if it is unknown.
    round_trip: Span,
    /// Has seen this request; `None` if later exchanges are not followed.
    follower: Option<Follower>,
}

/// How a client is refused.
#[derive(Clone, Copy, Debug)]
enum Answer {
    /// With an HTTP response.
    Http(AnswerForm),
    /// With a TLS alert, for a raw client that was routed by its ClientHello.
    Alert,
    /// With a reset, for a raw client that was routed by the port.
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

impl State {
    const fn why(&self) -> &'static str {
        match self {
            Self::Proxied => "proxy's header",
            Self::Hello { .. } | Self::Securing | Self::PlainHttp { .. } => "handshake",
            Self::Head { begun: false, .. } => "first byte",
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
    /// A relay without enrolled IDs. `seed` comes from the operating system and makes nonces and challenges
    /// unguessable. `now` is the time of the start.
    #[must_use]
    pub fn new(config: Config, seed: [u8; 32], now: Now) -> Self {
        let mut conns = Conns::new(config.pair);
        conns.set_lingering_max(Self::lingering_max(&config));
        Self {
            conns,
            denied: PrefixSet::new(&config.denied),
            config,
            registry: Registry::new(now.mono),
            failures: Sources::default(),
            admission: Admission::default(),
            per_address: BTreeMap::new(),
            entropy: Entropy::new(seed),
            challenges: ChallengeKey::new(seed),
            counts: Counts::default(),
            server_names: BTreeMap::new(),
            health_checks: BTreeSet::new(),
            instance: Instance::of_seed(&seed),
            service: Service::default(),
        }
    }

    /// Replaces the list of enrolled IDs. Connections of IDs that were removed, whose secret has changed, or that are
    /// no longer permitted, are closed.
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
        self.enforce(now);
        self.serve_all_held(now);
    }

    /// Replaces the configuration, except for the listeners. Limits apply to whatever begins from now on. Connections
    /// from denied addresses are closed.
    pub fn handle_config(&mut self, config: Config, now: Now) {
        self.conns.set_limits(config.pair);
        self.conns.set_lingering_max(Self::lingering_max(&config));
        let Config { listeners, ports, .. } = core::mem::take(&mut self.config);
        self.denied = PrefixSet::new(&config.denied);
        self.config = Config { listeners, ports, ..config };
        if !self.denied.is_empty() {
            self.enforce(now);
        }
        self.serve_all_held(now);
    }

    /// Shuts down: waiting connections are closed, further clients get 503, and pairs continue.
    pub fn handle_drain(&mut self, now: Now) {
        self.service = Service::Draining;
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

    /// Whether the relay is shutting down, or another process has taken over.
    #[must_use]
    pub const fn is_draining(&self) -> bool {
        matches!(self.service, Service::Draining | Service::Retired(_))
    }

    /// The number of connections, including closing ones.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.conns.len()
    }

    /// The number of pairs.
    #[must_use]
    pub fn pairs(&self) -> usize {
        self.conns.pairs()
    }

    fn drop_conn(&mut self, on: ConnId, how: Close, why: &'static str, now: Now) {
        let from = self.conns.from(on);
        if !self.health_checks.contains(&on) {
            self.conns.event(Event::Dropped { on, from, upstream: None, why });
        }
        self.conns.close(on, how, now);
    }

    fn unhold(&mut self, id: Id, on: ConnId) {
        self.registry.unhold(id, on, self.conns.source(on));
    }

    fn await_head(&mut self, on: ConnId, timeout: Span, now: Now) {
        let state = State::Head { finder: Finder::default(), begun: false };
        self.conns.set_state_until(on, state, Some(now.mono + timeout));
        if !self.health_checks.contains(&on) {
            self.admit(on, Stage::Request, now);
        }
    }

    /// A challenged request is complete; the next one may follow.
    fn keep(&mut self, on: ConnId, now: Now) {
        if self.is_draining() {
            self.conns.close(on, Close::Linger, now);
        } else {
            self.await_head(on, KEPT, now);
        }
    }

    /// The ID of a paired connection in any phase.
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
