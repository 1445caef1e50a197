//! The agent, which runs beside a hidden server: it keeps connections waiting at its relays, and connects their
//! clients to the local service.
//!
//! Each connection to a relay goes through the states of `State`. A `Link` (`agent/link.rs`) stores what is known of
//! a relay: the number of waiting connections, the delay after failures, the next token. The next attempt at a relay
//! that failed is a connection in `State::Backoff`: it has an id and a deadline, and no socket yet.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

pub use self::basic_auth::{BasicAuth, PasswordCheck, Verdict};
use self::direct::Negotiations;
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
use crate::fingerprint::Fingerprint;
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
use crate::tunnel::Proxy;

mod basic_auth;
mod decaying_debt;
mod dialling;
mod direct;
mod forwarding;
mod link;
mod machine;
mod pool;
mod proof;
mod raw;
mod renew;
mod service;
mod unanswered;

/// The default of [`Upstream::pool`].
pub const POOL: u16 = 4;

/// The default of [`Upstream::pool_max`].
pub const POOL_MAX: u16 = 64;

/// One hidden server at one relay: the contents of a ticket, and the local services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// The relay.
    pub relay: Relay,
    /// The hidden server's ID.
    pub id: Id,
    /// The secret that it shares with this relay.
    pub key: Key,
    /// Whether to send plain tokens, the only ones that node-rendezvous accepts. The pool is one then, since a second
    /// connection would replace the first.
    pub plain: bool,
    /// The number of waiting connections; 0 is treated as 1.
    pub pool: u16,
    /// The maximum number of waiting connections, and of those opened at once, while clients use all of them. If it
    /// is not greater than `pool`, the pool does not grow.
    pub pool_max: u16,
    /// The local HTTP service. Without one, its clients get 502.
    pub service: Option<HostPort>,
    /// The `upstream` of the [`TlsRole::Client`](crate::machine::TlsRole::Client) that verifies the local HTTP
    /// service's certificate. `None`: the service does not use TLS.
    pub service_tls: Option<u16>,
    /// The local service for connectors. Without one, they get the HTTP service as well.
    pub stream: Option<HostPort>,
    /// Whether raw clients of ports without their own service get the stream service.
    pub stream_takes_ports: bool,
    /// The local services of the relay's ports, by the ports' labels.
    pub ports: Vec<(String, HostPort)>,
    /// Whether the local HTTP service accepts HTTP/2 in clear with prior knowledge (RFC 9113 §3.3). It then gets the
    /// bytes of HTTP/2 clients unchanged, if the agent terminates their TLS.
    pub service_h2: bool,
    /// Who terminates the TLS of clients that the relay routes by the ClientHello.
    pub end_to_end: EndToEnd,
    /// Asks the clients of the HTTP service for a password. `None`: no password is required.
    pub basic_auth: Option<BasicAuth>,
}

/// Who terminates the TLS of raw clients (`docs/protocol.md §10`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum EndToEnd {
    /// Neither agent nor service: such clients are not accepted.
    #[default]
    Off,
    /// The agent, with the driver's certificate. Clients in clear are refused.
    Terminate,
    /// This local service, which gets the client's bytes unchanged. Clients in clear are refused.
    PassTo(HostPort),
}

impl Upstream {
    /// Whether the relay may hand over raw clients.
    #[must_use]
    pub fn takes_raw(&self) -> bool {
        let stream_takes_ports = self.stream_takes_ports && self.stream.is_some();
        self.end_to_end != EndToEnd::Off || stream_takes_ports || !self.ports.is_empty()
    }
}

/// The configuration of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The relays. The position in this list is the `upstream` of events and of [`TlsRole`](crate::machine::TlsRole).
    /// At most 65535.
    pub upstreams: Vec<Upstream>,
    /// Serves one client, of any upstream, and then stops. The pool is one then.
    pub once: bool,
    /// Sends the client's address to the local services, in a PROXY header of this version in front of each
    /// connection. The relay is asked for the address. `None`, the default: off.
    pub send_proxy: Option<Version>,
    /// Sends the client's address, the external host and the scheme to the HTTP services, in the fields of
    /// [`forwarded`](crate::http::forwarded) in each request. The relay is asked for the address. Anything but HTTP
    /// is refused then. Default: off.
    pub forwarded: bool,
    /// Sends the subject of the client's certificate to the HTTP services, in
    /// [`SUBJECT_FIELD`](crate::http::forwarded::SUBJECT_FIELD) in each request. An HTTP client without one
    /// ([`Secured::subject`]) is not served. For services whose clients' TLS the agent terminates
    /// ([`EndToEnd::Terminate`]), without [`Upstream::service_h2`]. Default: off.
    ///
    /// [`Secured::subject`]: crate::machine::Secured::subject
    pub subject: bool,
    /// The addresses of clients that are admitted; empty: all. If it is not empty, clients of unknown address are not
    /// admitted.
    pub allow: Vec<Prefix>,
    /// The addresses of clients that are not admitted, even if they are in `allow`. HTTP clients get 403; the
    /// connections of raw clients are truncated.
    pub deny: Vec<Prefix>,
    /// Accepts and makes direct connections for the stream service, for clients that ask for them. `None`, the
    /// default: off.
    pub direct: Option<Direct>,
    /// The maximum number of connections for the clients of one upstream, to the relay and to the local services
    /// together: two for each client. Beyond it, further clients of this upstream get 503; those of other upstreams
    /// are served. Default 4,000.
    pub service_connections_max: u32,
    /// Limits of the heads of relays' responses, and of clients' requests if there is a stream service.
    pub head: head::Limits,
    /// Timeout for the bytes that select the service: the relay's PROXY header, a request's head if there is a stream
    /// service, or its method; default 10 s each.
    pub head_timeout: Span,
    /// Timeouts of connecting to a relay.
    pub deadlines: Deadlines,
    /// Timeout for each address of the local service, and for its TLS handshake; default 10 s each.
    pub local_dial: Span,
    /// Limit of how long bytes to a waiting connection may stay unacknowledged; default [`USER_TIMEOUT`].
    pub user_timeout: Span,
    /// The HTTP proxy on the way to each relay, by its position in [`Config::upstreams`]. Relays beyond the end of the list
    /// are dialled directly.
    pub proxies: Vec<Option<Proxy>>,
    /// How old a waiting connection becomes before a new one takes its place, plus or minus a quarter; for relays behind
    /// a load balancer that may select another one by now (`docs/protocol.md §12`). The relay is asked for its instance
    /// then. `None`, the default: any age.
    pub renew: Option<Span>,
    /// Delays after failures.
    pub retry: Retry,
    /// Timeouts of a pair.
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
            proxies: Vec::new(),
            renew: None,
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
        // Wrong passwords are limited for each address.
        let has_passwords = self.upstreams.iter().any(|upstream| upstream.basic_auth.is_some());
        self.send_proxy.is_some() || self.forwarded || has_list || has_passwords
    }

    /// Whether a client with this address is admitted.
    fn allows(&self, from: Option<IpAddr>) -> bool {
        let is_in = |list: &[Prefix]| from.is_some_and(|from| list.iter().any(|it| it.contains(from)));
        !is_in(&self.deny) && (self.allow.is_empty() || is_in(&self.allow))
    }
}

/// The bounds of the limit of lingering connections, which is an eighth of all clients' connections.
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
    /// Password checks that the caller has not taken, at most one per connection. Below, the number of the last one.
    checks: Vec<PasswordCheck>,
    checked: u64,
    stopping: bool,
}

/// The seeds of an agent's random numbers. They are separate, so that a trace can contain one and not the other.
#[derive(Clone, Copy)]
pub struct Seeds {
    /// The seed of the nonces and of the keys of direct connections. It must be secret and come from the operating
    /// system.
    pub nonces: [u8; 32],
    /// The seed of the jitter in the backoff: different in each agent, so that many do not reconnect at the same
    /// time. It is not secret: it reveals only how long this agent waits after its failures, and a
    /// [`Recorder`](crate::trace::Recorder) records it.
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
    /// The client whose TLS the agent terminates inside the connection to the relay.
    sealed: Option<Box<Sealed>>,
}

/// A client whose TLS the agent terminates.
#[derive(Clone, Debug)]
struct Sealed {
    /// The server name of its ClientHello; `None` for a connector.
    name: Option<String>,
    /// The subject of its certificate, if the service gets it.
    subject: Option<Subject>,
    /// Its key, if clients have to show a listed one.
    key: Option<Fingerprint>,
}

impl Conn {
    const fn new(upstream: u16, state: State) -> Self {
        Self { upstream, state, sealed: None }
    }
}

/// The state of a connection.
///
/// ```text
/// to the relay:
/// Backoff ─due─▶ Reaching ─reached, CONNECT sent─▶ Registering ─200─▶ Waiting ─first byte─▶ Header, or Head
/// Reaching, Registering, Waiting ─failed─▶ Ended, and a new connection in Backoff or Reaching
/// Header ─PROXY header of a raw client─▶ Hello ─ClientHello─▶ Sealing ─TLS handshake─▶ Head
/// Header ─PROXY header of a raw client─▶ Meeting
/// Head ─request for an end-to-end stream─▶ Sealing
/// Header ─PROXY header─▶ Head ─the service is known─▶ Meeting ─service reached─▶ Paired
/// Meeting ─service reached, direct connection offered─▶ Deciding ─`error`─▶ Paired
/// Deciding ─direct connection established─▶ Leaving ─`ok`, or the end─▶ Ended
///
/// to the local service:    Local ─reached─▶ Paired, or Ready ─decided─▶ Paired
/// direct connections:      Link ─established─▶ Paired
/// further addresses:       Rival ─wins its race─▶ the state of the lead
/// any state ─failed, timed out, shut down─▶ Ended
/// ```
#[derive(Clone, Debug)]
enum State {
    /// The next attempt at a relay, at its deadline.
    Backoff,
    /// Dialling the relay: the lead of a race.
    Reaching,
    /// An attempt at a further address of a relay or of a local service.
    Rival,
    /// The CONNECT was sent and is unanswered. `proof`: what its token is bound to. `at`: the relay's address.
    Registering { answer: Answer, proof: Proof, at: Option<SocketAddr> },
    /// Waiting at the relay for a client.
    /// `renew`: when another connection is to take its place.
    Waiting { since: Time, path: Path, renew: Option<Time> },
    /// A client came; the relay's PROXY header is awaited.
    Header,
    /// A raw client came whose TLS the agent terminates; its ClientHello is awaited.
    Hello { name: String, reader: client_hello::Reader },
    /// The client's TLS handshake inside the connection to the relay.
    Sealing,
    /// A client came; its request is awaited to select the service.
    Head(Finder),
    /// A client came; the local service is being dialled, and has the deadline. `offer`: the client prefers a direct
    /// connection.
    Meeting { local: ConnId, offer: Option<Box<Offer>> },
    /// A client was answered with our offer. It decides between the direct connection and the relay.
    Deciding { local: ConnId, session: SessionId },
    /// The stream goes through the direct connection; the client has not confirmed it yet.
    Leaving,
    /// Dialling the local service: the lead of a race.
    Local { relay: ConnId, asked: ServiceKind },
    /// The local service was reached. It is not read until it is decided which connection it is paired with.
    Ready { session: SessionId },
    /// A direct connection that is not established.
    Link(LinkId),
    /// Either half of a pair. The relay's side has the state of its exchanges, if they are followed.
    Paired(Option<Box<Forwarding>>),
    /// Being closed.
    Ended,
}

/// The network path of a waiting connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    /// The current one.
    Current,
    /// From before an address or a route of this machine changed, so that the connection may be dead.
    Old,
    /// It is old, or another relay answers now: it is closed once another connection waits.
    Renewing,
}

/// The service that a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ServiceKind {
    /// The HTTP service; its request is parked. `is_head`: it is a HEAD. `form`: the form of an error response.
    Http { is_head: bool, form: Form },
    /// The stream service. `parked`: bytes of the stream have arrived already.
    Stream { parked: bool },
    /// The service of a raw client, which gets its bytes unchanged.
    Raw(RawTarget),
}

/// The local service of a raw client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RawTarget {
    /// The service that terminates TLS itself.
    Tls,
    /// The stream service.
    Stream,
    /// The service of a port: its position in [`Upstream::ports`].
    Port(u16),
    /// The HTTP service, with HTTP/2.
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
    /// An agent, which begins to connect at once.
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

    /// Shuts down: waiting and connecting connections are closed, and no further ones are opened. Clients that have
    /// already come are served to their end.
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

    /// The number of connections, including closing ones; those in backoff do not count.
    #[must_use]
    pub fn connections(&self) -> usize {
        let backing_off = self.links.iter().filter(|link| link.backing_off.is_some()).count();
        self.conns.len() - backing_off
    }

    /// The number of clients that are being served.
    #[must_use]
    pub fn pairs(&self) -> usize {
        self.conns.pairs()
    }

    /// An address or a route of this machine has changed, so that connections may be dead without a sign of it. One
    /// connection to each relay is opened at once, and the rest of the pool once the relay accepts it. The waiting
    /// connections stay, but no longer count; those that are alive are closed later, when the pool shrinks.
    pub fn handle_path_changed(&mut self, now: Now) {
        if !self.stopping {
            for upstream in self.upstreams() {
                self.change_path(upstream, now);
            }
        }
        self.check_invariants();
    }

    /// These keys were removed from the list of allowed keys: everything of clients that showed one of them ends
    /// at once, also direct connections. The keys are those of [`Secured::key`](crate::machine::Secured::key). The driver
    /// refuses them in handshakes from now on.
    pub fn handle_removed_keys(&mut self, keys: &[Fingerprint], now: Now) {
        self.end_clients_with(keys, now);
        self.check_invariants();
    }

    /// The operator has replaced the ticket of an upstream: its secret, or how its relay's certificate is checked, may have
    /// changed. Tokens are made with this secret from now on, and an attempt that is backing off begins at once. Waiting
    /// connections and clients stay.
    pub fn handle_ticket(&mut self, upstream: u16, key: Key, now: Now) {
        if let Some(of) = self.config.upstreams.get_mut(usize::from(upstream)) {
            of.key = key;
            if !self.stopping {
                self.renew(upstream, now);
            }
        }
        self.check_invariants();
    }

    /// The ID of this upstream.
    #[must_use]
    pub fn id(&self, upstream: u16) -> Option<Id> {
        self.config.upstreams.get(usize::from(upstream)).map(|upstream| upstream.id)
    }

    /// How many connections wait for a client at this upstream.
    #[must_use]
    pub fn waiting(&self, upstream: u16) -> u32 {
        self.links.get(usize::from(upstream)).map_or(0, |link| link.waiting)
    }

    /// Whether nothing is left to do: after [`Agent::handle_drain`], or after the single client of [`Config::once`].
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

    /// Changes the state of a connection, and updates the counts of its link.
    fn enter(&mut self, on: ConnId, state: State, due: Option<Time>) {
        let Some(conn) = self.conns.state(on) else { return };
        let link = &mut self.links[usize::from(conn.upstream)];
        if matches!(conn.state, State::Backoff) {
            link.backing_off = None;
        }
        if matches!(state, State::Backoff) {
            link.backing_off = due;
        }
        if matches!(conn.state, State::Waiting { path: Path::Old | Path::Renewing, .. }) {
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

    /// Checks what must hold between two calls.
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
