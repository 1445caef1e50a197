//! The program beside a hidden server: keeps connections waiting at its relays, and takes whoever comes to the local
//! service.
//!
//! Each connection to a relay goes through the states of `State`; what a relay is like is kept in a `Link`
//! (`agent/link.rs`): how many connections wait there, how long to wait after failures, which token comes next. The
//! next attempt at a relay that failed is a connection too, one that rests: it has an id and a deadline, and no socket
//! yet.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use self::direct::Negotiations;
pub use self::door::{Door, PasswordCheck, Verdict};
use self::forwarding::Forwarding;
use self::link::{Link, Stage};
use self::pool::Pool;
use self::proof::Proof;
use crate::backoff::Retry;
use crate::client_hello;
use crate::conns::Conns;
use crate::dialer::Dialers;
use crate::dtcp::negotiation::{LinkId, SessionId};
use crate::dtcp::{Direct, Offer};
use crate::entropy::Entropy;
use crate::http::accept::Form;
use crate::http::head::{self, Finder};
use crate::id::Id;
use crate::machine::{Close, ConnId, USER_TIMEOUT};
use crate::pair;
use crate::prefix::Prefix;
use crate::proxy_header::Version;
use crate::relay_client::{Answer, Deadlines, HostPort, Relay};
use crate::subject::Subject;
use crate::time::{Now, Span, Time};
use crate::token::Key;

mod decaying_debt;
mod dialling;
mod direct;
mod door;
mod forwarding;
mod link;
mod machine;
mod pool;
mod proof;
mod raw;
mod service;
mod unanswered;

/// The default of [`Upstream::pool`].
pub const POOL: u16 = 4;

/// The default of [`Upstream::pool_max`].
pub const POOL_MAX: u16 = 64;

/// One hidden server at one relay: what a ticket says, and where its clients are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// The relay.
    pub relay: Relay,
    /// The hidden server's ID.
    pub id: Id,
    /// The secret that it shares with this relay.
    pub key: Key,
    /// Whether to send plain tokens, which node-rendezvous takes alone. Then the pool is one: a second connection
    /// would replace the first.
    pub plain: bool,
    /// How many connections wait; 0 is taken for 1.
    pub pool: u16,
    /// How many connections may wait, and how many may be opened at once, while clients take all of them. If it is not
    /// greater than `pool`, the pool does not grow.
    pub pool_max: u16,
    /// The local HTTP service; without one, its clients get 502.
    pub service: Option<HostPort>,
    /// If the local HTTP service speaks TLS: the `upstream` of the [`TlsRole::Client`](crate::machine::TlsRole::Client)
    /// that says how its certificate is checked. `None`: it speaks in clear.
    pub service_tls: Option<u16>,
    /// The local service for clients that come with a connector; without one, they are the HTTP service's as well.
    pub stream: Option<HostPort>,
    /// Raw clients of ports without a service of their own get the stream service.
    pub stream_takes_ports: bool,
    /// The local services of ports of the relay, by their labels.
    pub ports: Vec<(String, HostPort)>,
    /// The local HTTP service speaks HTTP/2 in clear with prior knowledge (RFC 9113 §3.3): it gets the bytes of clients that
    /// speak it as they come, where the agent terminates their TLS.
    pub service_h2: bool,
    /// Who terminates the TLS of clients that the relay routes by the ClientHello.
    pub end_to_end: EndToEnd,
    /// Asks the clients of the HTTP service for a password. `None`: everybody is let in.
    pub door: Option<Door>,
}

/// Who terminates the TLS of raw clients (`docs/protocol.md §10`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum EndToEnd {
    /// Nobody here: such clients are not taken.
    #[default]
    Off,
    /// The agent, with the certificate of the shell. Clients in clear are refused.
    Terminate,
    /// This local service, which gets the client's bytes as they came. Clients in clear are refused.
    PassTo(HostPort),
}

impl Upstream {
    /// Whether the relay may hand raw clients over.
    #[must_use]
    pub fn takes_raw(&self) -> bool {
        let stream_takes_ports = self.stream_takes_ports && self.stream.is_some();
        self.end_to_end != EndToEnd::Off || stream_takes_ports || !self.ports.is_empty()
    }
}

/// Everything about an agent that can be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The relays; a place in this list is the `upstream` of notes and of [`TlsRole`](crate::machine::TlsRole). At
    /// most 65535.
    pub upstreams: Vec<Upstream>,
    /// Serve one rendezvous, of whichever upstream, and be done. The pool is one then.
    pub once: bool,
    /// Tell the local services whose each connection is, by a PROXY header of this version before its first byte; the
    /// relay is asked for it. `None`, the default: neither.
    pub send_proxy: Option<Version>,
    /// Tell the HTTP services in each request which client it comes from, and the outside host and scheme, by the fields
    /// of [`forwarded`](crate::http::forwarded); the relay is asked for the client's address. What is not HTTP is
    /// refused then. Default: off.
    pub forwarded: bool,
    /// Tell the HTTP services in each request the subject of the client's certificate, by
    /// [`SUBJECT_FIELD`](crate::http::forwarded::SUBJECT_FIELD). A client of HTTP without one ([`Secured::subject`]) is not
    /// served. For services whose clients' TLS ends here ([`EndToEnd::Terminate`]), without [`Upstream::service_h2`].
    /// Default: off.
    ///
    /// [`Secured::subject`]: crate::machine::Secured::subject
    pub subject: bool,
    /// The addresses of clients that are let in; empty: all. If there are some, a client whose address is unknown is not.
    pub allow: Vec<Prefix>,
    /// The addresses of clients that are not let in, even if they are among `allow`. Clients of HTTP get 403, raw ones are
    /// cut.
    pub deny: Vec<Prefix>,
    /// Take and make direct connections for the stream service, with clients that ask for it. `None`, the default:
    /// neither.
    pub direct: Option<Direct>,
    /// How many connections the clients of one upstream may have, to the relay and to the local services together: two
    /// for each client. If there are so many, further clients of this upstream get 503; those of other upstreams are
    /// served. Default 4,000.
    pub service_connections_max: u32,
    /// Limits of the heads that are read: a relay's answer, and a client's request where there is a stream service.
    pub head: head::Limits,
    /// How long it is waited for what says which service a client is for: the relay's PROXY header, a request's head
    /// where there is a stream service, its method; default 10 s each.
    pub head_timeout: Span,
    /// Deadlines on the way to a relay.
    pub deadlines: Deadlines,
    /// How long each address of the local service is tried, and its TLS handshake; default 10 s each.
    pub local_dial: Span,
    /// How long bytes to a waiting connection may stay unacknowledged; default [`USER_TIMEOUT`].
    pub user_timeout: Span,
    /// How failures are paced.
    pub retry: Retry,
    /// Deadlines of a pair.
    pub pair: pair::Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            upstreams: Vec::new(),
            once: false,
            send_proxy: None,
            forwarded: false,
            subject: false,
            allow: Vec::new(),
            deny: Vec::new(),
            direct: None,
            service_connections_max: 4_000,
            head: head::Limits::default(),
            head_timeout: Span::from_secs(10),
            deadlines: Deadlines::default(),
            local_dial: Span::from_secs(10),
            user_timeout: USER_TIMEOUT,
            retry: Retry::default(),
            pair: pair::Limits::default(),
        }
    }
}

impl Config {
    /// Whether the relay is asked for a PROXY header with each client's address.
    #[must_use]
    pub fn asks_for_address(&self) -> bool {
        let has_list = !self.allow.is_empty() || !self.deny.is_empty();
        // A door limits the wrong passwords of each address.
        let has_door = self.upstreams.iter().any(|upstream| upstream.door.is_some());
        self.send_proxy.is_some() || self.forwarded || has_list || has_door
    }

    /// Whether a client with this address is let in.
    fn lets_in(&self, from: Option<IpAddr>) -> bool {
        let is_in = |list: &[Prefix]| from.is_some_and(|from| list.iter().any(|it| it.contains(from)));
        !is_in(&self.deny) && (self.allow.is_empty() || is_in(&self.allow))
    }
}

/// How many connections may linger: an eighth of those of all clients, within these bounds.
const LINGERING: core::ops::RangeInclusive<u32> = 8..=256;

/// The agent's state machine.
#[derive(Clone, Debug)]
pub struct Agent {
    config: Config,
    conns: Conns<Conn>,
    dialers: Dialers,
    /// One for each upstream.
    links: Vec<Link>,
    nonces: Entropy,
    jitter: Entropy,
    direct: Option<Negotiations>,
    /// Passwords that the caller has not taken, one of a connection at most; and the number of the last one.
    checks: Vec<PasswordCheck>,
    checked: u64,
    stopping: bool,
}

/// Where an agent's chance comes from. The two are drawn apart, so that a trace can hold the one and not the other.
#[derive(Clone, Copy)]
pub struct Seeds {
    /// Of the nonces, and of the keys of direct connections: from the operating system, and known to nobody else, for
    /// it makes them unguessable.
    pub nonces: [u8; 32],
    /// Of the jitter in the back-off: another one in each agent, so that many do not come back in the same moment. It
    /// is no secret: whoever knows it knows how long this agent waits after its failures, and a
    /// [`Recorder`](crate::trace::Recorder) writes it down.
    pub jitter: [u8; 32],
}

impl core::fmt::Debug for Seeds {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Seeds").field("jitter", &self.jitter).finish_non_exhaustive()
    }
}

/// A connection.
#[derive(Clone, Debug)]
struct Conn {
    upstream: u16,
    state: State,
    /// The client's TLS ends here, inside the connection to the relay.
    sealed: Option<Box<Sealed>>,
}

/// What is known of a client whose TLS the agent terminates.
#[derive(Clone, Debug)]
struct Sealed {
    /// The server name of its ClientHello; `None` for a connector.
    name: Option<String>,
    /// The subject of its certificate, if the service gets it.
    subject: Option<Subject>,
}

impl Conn {
    const fn new(upstream: u16, state: State) -> Self {
        Self { upstream, state, sealed: None }
    }
}

/// What a connection is.
///
/// ```text
/// to the relay:
/// Resting ─due─▶ Reaching ─reached, CONNECT sent─▶ Registering ─200─▶ Waiting ─first byte─▶ Header, or Head
/// Reaching, Registering, Waiting ─failed─▶ Over, and a new connection in Resting or Reaching
/// Header ─PROXY header of a raw client─▶ Hello ─ClientHello─▶ Sealing ─TLS handshake─▶ Head
/// Header ─PROXY header of a raw client─▶ Meeting
/// Head ─request for a sealed stream─▶ Sealing
/// Header ─PROXY header─▶ Head ─it is known what the client wants─▶ Meeting ─service reached─▶ Paired
/// Meeting ─service reached, direct connection offered─▶ Deciding ─`error`─▶ Paired
/// Deciding ─direct connection established─▶ Leaving ─`ok`, or the end─▶ Over
///
/// to the local service:    Local ─reached─▶ Paired, or Ready ─decided─▶ Paired
/// direct connections:      Link ─established─▶ Paired
/// further addresses:       Rival ─wins its race─▶ the state of the lead
/// any state ─failed, timed out, shut down─▶ Over
/// ```
#[derive(Clone, Debug)]
enum State {
    /// The next attempt at a relay, when its time comes.
    Backoff,
    /// On the way to the relay: the lead of a race.
    Reaching,
    /// A further address of a relay or of a local service is tried.
    Rival,
    /// The CONNECT was sent; its answer is to come. `proof`: what its token is bound to. `at`: the relay's address.
    Registering { answer: Answer, proof: Proof, at: Option<SocketAddr> },
    /// It waits at the relay for a client.
    Waiting { since: Time, path: Path },
    /// A client came; the relay says whose it is before its first byte.
    Header,
    /// A raw client came, whose TLS ends here: its ClientHello is to come.
    Hello { name: String, reader: client_hello::Reader },
    /// The client's TLS handshake inside the connection to the relay.
    Sealing,
    /// A client came; what it comes for, its request will say.
    Head(Finder),
    /// A client came; the connection to the local service is under way, and the deadline is that one's. `offer`: it
    /// would rather have a direct connection.
    Meeting { local: ConnId, offer: Option<Box<Offer>> },
    /// A client was answered with our offer; it decides which way the stream goes.
    Deciding { local: ConnId, session: SessionId },
    /// The stream goes directly; the client is yet to say so.
    Leaving,
    /// On the way to the local service: the lead of a race.
    Local { relay: ConnId, asked: ServiceKind },
    /// The local service, reached and not read, until it is decided whom it is paired with.
    Ready { session: SessionId },
    /// A direct connection that is not established.
    Link(LinkId),
    /// Either half of a pair; with what is known of its exchanges, on the relay's side, where requests get forwarding
    /// fields.
    Paired(Option<Box<Forwarding>>),
    /// It is being closed.
    Ended,
}

/// Over which path a connection waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    /// The one that there is now.
    Current,
    /// One from before an address or a route of this machine changed: the connection may be dead.
    Old,
}

/// What a client came for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ServiceKind {
    /// The HTTP service; its request is parked. `is_head`: it is a HEAD. `form`: of an error answer.
    Http { is_head: bool, form: Form },
    /// The stream service. `parked`: bytes of the stream are there already.
    Stream { parked: bool },
    /// What a raw client comes for: its bytes go there as they come.
    Raw(RawTarget),
}

/// The local service of a raw client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RawTarget {
    /// The one that terminates TLS itself.
    Tls,
    /// The stream service.
    Stream,
    /// The service of a port: its place in [`Upstream::ports`].
    Port(u16),
    /// The HTTP service, by HTTP/2.
    H2,
}

impl State {
    const fn why(&self) -> &'static str {
        match self {
            Self::Backoff => "back-off",
            Self::Reaching => "dial of the relay",
            Self::Rival => "dial",
            Self::Registering { .. } => "the relay's answer",
            Self::Waiting { .. } => "young waiting connection",
            Self::Header => "the relay's PROXY header",
            Self::Hello { .. } => "the client's ClientHello",
            Self::Sealing => "the client's handshake",
            Self::Head(_) => "head",
            Self::Meeting { .. } => "meeting",
            Self::Local { .. } => "local service",
            Self::Deciding { .. } => "the client's decision",
            Self::Leaving => "the end of the relayed connection",
            Self::Ready { .. } | Self::Link(_) => "a direct connection",
            Self::Paired(_) => "pair",
            Self::Ended => "closing",
        }
    }

    const fn stage(&self) -> Stage {
        match self {
            Self::Backoff | Self::Reaching | Self::Registering { .. } => Stage::Connecting,
            Self::Waiting { .. } => Stage::Waiting,
            Self::Header
            | Self::Hello { .. }
            | Self::Sealing
            | Self::Head(_)
            | Self::Meeting { .. }
            | Self::Local { .. }
            | Self::Deciding { .. }
            | Self::Leaving
            | Self::Ready { .. }
            | Self::Paired(_) => Stage::Serving,
            Self::Link(_) | Self::Rival | Self::Ended => Stage::Other,
        }
    }
}

impl Agent {
    /// An agent that begins to connect at once.
    #[must_use]
    pub fn new(config: Config, seeds: Seeds, now: Now) -> Self {
        debug_assert!(u16::try_from(config.upstreams.len()).is_ok(), "more upstreams than numbers for them");
        let link = |upstream: &Upstream| {
            let is_single = config.once || upstream.plain;
            let pool = if is_single { Pool::new(1, 1) } else { Pool::new(upstream.pool, upstream.pool_max) };
            Link::new(config.retry, pool)
        };
        let links = config.upstreams.iter().map(link).collect();
        let mut conns = Conns::new(config.pair);
        let upstreams = u32::try_from(config.upstreams.len()).unwrap_or(u32::MAX);
        let serving_max = config.service_connections_max.saturating_mul(upstreams);
        conns.set_lingering_max((serving_max / 8).clamp(*LINGERING.start(), *LINGERING.end()));
        let (mut nonces, jitter) = (Entropy::new(seeds.nonces), Entropy::new(seeds.jitter));
        let direct = config.direct.as_ref().map(|direct| Negotiations::new(direct, nonces.block()));
        let mut agent = Self {
            config,
            conns,
            dialers: Dialers::default(),
            links,
            nonces,
            jitter,
            direct,
            checks: Vec::new(),
            checked: 0,
            stopping: false,
        };
        for upstream in agent.upstreams() {
            agent.fill(upstream, now);
        }
        agent
    }

    /// The agent shuts down: what waits or connects is closed, nothing new is opened. Clients that have come already
    /// are served to their end.
    pub fn handle_drain(&mut self, now: Now) {
        self.stopping = true;
        for on in self.conns.open_ids() {
            let how = match self.conns.state(on).map(|conn| &conn.state) {
                Some(State::Backoff | State::Reaching) => Close::Abort,
                Some(State::Registering { .. } | State::Waiting { .. }) => Close::Linger,
                _ => continue,
            };
            self.close(on, how, now);
        }
    }

    /// How many connections there are, closing ones included; attempts that are not begun do not count.
    #[must_use]
    pub fn connections(&self) -> usize {
        let backing_off = self.links.iter().filter(|link| link.backing_off.is_some()).count();
        self.conns.len() - backing_off
    }

    /// How many clients are being served.
    #[must_use]
    pub fn pairs(&self) -> usize {
        self.conns.pairs()
    }

    /// An address or a route of this machine has changed, so that connections may be dead without a sign of it. One
    /// connection to each relay is opened at once, and the pool behind it if the relay accepts it. The connections that
    /// wait stay, and count no more: those that live are closed later, when the pool shrinks.
    pub fn handle_path_changed(&mut self, now: Now) {
        if !self.stopping {
            for upstream in self.upstreams() {
                self.change_path(upstream, now);
            }
        }
        self.check_invariants();
    }

    /// How many connections wait for a client at this upstream.
    #[must_use]
    pub fn waiting(&self, upstream: u16) -> u32 {
        self.links.get(usize::from(upstream)).map_or(0, |link| link.waiting)
    }

    /// Whether there is nothing left to do: after [`Agent::handle_drain`], or after the one rendezvous of
    /// [`Config::once`].
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.stopping && self.conns.len() == 0
    }

    fn upstreams(&self) -> core::ops::Range<u16> {
        0..u16::try_from(self.config.upstreams.len()).unwrap_or(u16::MAX)
    }

    fn upstream(&self, upstream: u16) -> &Upstream {
        &self.config.upstreams[usize::from(upstream)]
    }

    fn link(&mut self, upstream: u16) -> &mut Link {
        &mut self.links[usize::from(upstream)]
    }

    /// The way every connection changes its state: the link counts along.
    fn enter(&mut self, on: ConnId, state: State, due: Option<Time>) {
        let Some(conn) = self.conns.state(on) else { return };
        let link = &mut self.links[usize::from(conn.upstream)];
        if matches!(conn.state, State::Backoff) {
            link.backing_off = None;
        }
        if matches!(state, State::Backoff) {
            link.backing_off = due;
        }
        if matches!(conn.state, State::Waiting { path: Path::Old, .. }) {
            link.old_path -= 1;
        }
        link.count(conn.state.stage(), state.stage());
        conn.state = state;
        self.conns.set_due(on, due);
    }

    fn close(&mut self, on: ConnId, how: Close, now: Now) {
        self.dialers.cancel(on, &mut self.conns, now);
        self.enter(on, State::Ended, None);
        self.conns.close(on, how, now);
    }

    /// What must hold between two calls.
    fn check_invariants(&mut self) {
        if !cfg!(debug_assertions) {
            return;
        }
        self.conns.check_invariants();
        let mut counted: Vec<(u32, u32, u32)> = self.links.iter().map(|_| (0, 0, 0)).collect();
        for on in self.conns.open_ids() {
            let Some(conn) = self.conns.state(on) else { continue };
            let (connecting, waiting, serving) = &mut counted[usize::from(conn.upstream)];
            match conn.state.stage() {
                Stage::Connecting => *connecting += 1,
                Stage::Waiting => *waiting += 1,
                Stage::Serving => *serving += 1,
                Stage::Other => {}
            }
        }
        for (link, counted) in self.links.iter().zip(counted) {
            assert_eq!((link.connecting, link.waiting, link.serving), counted, "a link has lost count");
            assert!(self.stopping || link.connecting + link.waiting > 0, "nobody tries any more");
        }
    }
}

fn conn_state(conns: &mut Conns<Conn>, on: ConnId) -> Option<&mut State> {
    conns.state(on).map(|conn| &mut conn.state)
}
