//! The connector, which runs beside a client that does not use HTTP: it connects each local connection through a
//! relay to the stream service of one hidden server.
//!
//! A local connection (or standard input and output) is not read until the hidden server's agent has answered 101, so
//! that nothing has to be buffered.

use alloc::vec::Vec;

use self::direct::Negotiations;
use crate::conns::{Conns, Ended};
use crate::dialer::Dialers;
use crate::dtcp::negotiation::{LinkId, SessionId};
use crate::dtcp::{Direct, Offer};
use crate::event::{ConnectFailure, Event, NotDirect};
use crate::http::head;
use crate::http::response::{Response, write_sealed_upgrade, write_upgrade};
use crate::id::Id;
use crate::machine::{Close, ConnId, End, Output, TlsRole};
use crate::pair::{self, EndReason, Side};
use crate::relay_client::{Answer, Deadlines, Relay};
use crate::time::{Now, Span};
use crate::tunnel::Proxy;

mod dialling;
mod direct;
mod machine;

/// The configuration of a connector.
#[derive(Clone, Debug)]
pub struct Config {
    /// The relay. It is number 0 of the driver's list of upstreams.
    pub relay: Relay,
    /// The hidden server's ID.
    pub id: Id,
    /// Whether only one local connection is accepted: standard input and output.
    pub once: bool,
    /// The maximum number of local connections, each with one to the relay or the agent. Further ones are closed with
    /// an event. Default 4,000.
    pub locals_max: u32,
    /// Limits of the response's head.
    pub head: head::Limits,
    /// Timeouts. That of the response should be longer than a relay holds a client (5 s) plus an agent's dial of its
    /// service (10 s): see [`Config::DEADLINES`].
    pub deadlines: Deadlines,
    /// Timeouts of a pair.
    pub pair: pair::Limits,
    /// Asks the hidden server's agent for a direct connection; see [`Connector::with_direct`]. `None`, the default:
    /// the stream goes through the relay.
    pub direct: Option<Direct>,
    /// Fails if there is no direct connection. Ignored without [`Config::direct`].
    pub direct_only: bool,
    /// Whether the stream is end to end.
    pub sealing: Sealing,
    /// The HTTP proxy on the way to the relay.
    pub proxy: Option<Proxy>,
}

/// Whether the connector uses TLS with the agent inside the stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sealing {
    /// No: the relay can read the stream.
    #[default]
    None,
    /// Required. Number 1 of the driver's list of upstreams authenticates the agent. The negotiation of a direct
    /// connection goes through that TLS as well, so that the relay cannot change it.
    EndToEnd,
}

impl Config {
    /// 10 s to connect, 10 s for the handshake, 30 s for the response.
    pub const DEADLINES: Deadlines =
        Deadlines { dial: Span::from_secs(10), handshake: Span::from_secs(10), answer: Span::from_secs(30) };

    /// The defaults for a relay and an ID, with [`Config::DEADLINES`].
    #[must_use]
    pub fn new(relay: Relay, id: Id) -> Self {
        Self {
            relay,
            id,
            once: false,
            locals_max: 4_000,
            head: head::Limits::default(),
            deadlines: Self::DEADLINES,
            pair: pair::Limits::default(),
            direct: None,
            direct_only: false,
            sealing: Sealing::None,
            proxy: None,
        }
    }
}

/// The result of a local connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was connected to the service, and the pair ended for this reason.
    Ended(EndReason),
    /// It could not be connected.
    Failed(ConnectFailure),
    /// The local side closed before it was connected.
    Abandoned,
}

/// The connector's state machine.
#[derive(Clone, Debug)]
pub struct Connector {
    config: Config,
    conns: Conns<State>,
    dialers: Dialers,
    stopping: bool,
    failed: u32,
    last: Option<Outcome>,
    direct: Option<Negotiations>,
}

/// The state of a connection.
///
/// ```text
/// local:               Local ─the other one is there─▶ Paired
/// to the relay:        Reaching ─reached─▶ Asking ─101─▶ Paired
///                      Asking ─the attempt failed─▶ Reaching (the next address)
///   end to end:        Asking ─101─▶ Sealing ─TLS with the agent─▶ Inside ─101─▶ as from Asking
///   with an offer:     Asking ─101 with an offer─▶ Deciding
///                      Deciding ─no direct connection─▶ Staying ─`error` of the agent─▶ Paired
///                      Deciding ─direct connection established─▶ closed
/// direct connections:  Link ─established─▶ Paired
/// not accepted:        Unwanted ─▶ closed
/// ```
#[derive(Clone, Debug)]
enum State {
    /// A local connection that waits for the 101. The deadline is on the other connection: the lead of a race, or its
    /// winner.
    Local { relay: ConnId },
    /// An attempt to reach the relay, or the lead of the race.
    Reaching { local: ConnId },
    /// The request was sent and is unanswered; the race goes on until the response. `session`: a direct connection
    /// was asked for.
    Asking { local: ConnId, answer: Answer, session: Option<SessionId> },
    /// After the 101 to an end-to-end stream: the TLS handshake with the agent. The local side is not read.
    Sealing { local: ConnId },
    /// The request to the agent was sent inside TLS and is unanswered. Otherwise like [`State::Asking`].
    Inside { local: ConnId, answer: Answer, session: Option<SessionId> },
    /// The agent has answered with its own offer: a direct connection is being negotiated. `gave_up`: the agent has
    /// stopped dialling.
    Deciding { local: ConnId, session: SessionId, gave_up: bool },
    /// There is no direct connection, and the agent was told. Its `error` line is awaited; its stream follows.
    Staying { local: ConnId, why: NotDirect },
    /// A direct connection that is not established.
    Link(LinkId),
    /// Either half of a pair.
    Paired,
    /// A connection that is not accepted.
    Unwanted,
}

impl State {
    /// The local connection that this one is for, until they are paired.
    const fn local(&self) -> Option<ConnId> {
        match self {
            Self::Reaching { local }
            | Self::Asking { local, .. }
            | Self::Sealing { local }
            | Self::Inside { local, .. }
            | Self::Deciding { local, .. }
            | Self::Staying { local, .. } => Some(*local),
            Self::Local { .. } | Self::Link(_) | Self::Paired | Self::Unwanted => None,
        }
    }

    const fn why(&self) -> &'static str {
        match self {
            Self::Local { .. } => "local",
            Self::Reaching { .. } => "dial of the relay",
            Self::Asking { .. } => "the answer",
            Self::Sealing { .. } => "TLS with the agent",
            Self::Inside { .. } => "the agent's answer",
            Self::Deciding { .. } | Self::Link(_) => "a direct connection",
            Self::Staying { .. } => "the agent's last line",
            Self::Paired => "pair",
            Self::Unwanted => "closing",
        }
    }
}

impl Connector {
    /// A connector without connections.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            conns: Conns::new(config.pair),
            dialers: Dialers::default(),
            config,
            stopping: false,
            failed: 0,
            last: None,
            direct: None,
        }
    }

    /// A connector that negotiates direct connections if [`Config::direct`] is set. Their keys are derived from the
    /// seed, which must be secret and come from the operating system.
    #[must_use]
    pub fn with_direct(config: Config, seed: [u8; 32]) -> Self {
        let direct = config.direct.as_ref().map(|direct| Negotiations::new(&config, direct, seed));
        Self { direct, ..Self::new(config) }
    }

    /// Shuts down: local connections that are not connected to the service are closed, no further ones are accepted,
    /// and pairs continue.
    pub fn handle_drain(&mut self, now: Now) {
        self.stopping = true;
        for on in self.conns.open_ids() {
            if let Some(&mut State::Local { relay }) = self.conns.state(on) {
                self.abandon(on, relay, Close::Truncate, now);
            }
        }
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

    /// The number of local connections that were not connected to the service.
    #[must_use]
    pub const fn failed(&self) -> u32 {
        self.failed
    }

    /// The result of the last local connection that ended; `None` if none has.
    #[must_use]
    pub const fn last(&self) -> Option<Outcome> {
        self.last
    }

    /// Whether nothing is left to do: after [`Connector::handle_drain`], or after the single local connection of
    /// [`Config::once`].
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.stopping && self.conns.len() == 0
    }

    /// The relay was reached: sends the request.
    fn ask(&mut self, on: ConnId, now: Now) {
        let Some(&mut State::Reaching { local }) = self.conns.state(on) else { return };
        self.conns.set_state(on, State::Asking { local, answer: Answer::default(), session: None });
        self.dialers.asked(on, &mut self.conns, now);
        match self.config.sealing {
            Sealing::None => self.ask_agent(on, now),
            Sealing::EndToEnd => {
                let mut text = Vec::new();
                write_sealed_upgrade(&mut text, &self.config.relay.host_header, self.config.id);
                self.conns.send(on, text);
            }
        }
    }

    /// Sends the request to the agent, with an offer if direct connections are enabled.
    fn ask_agent(&mut self, on: ConnId, now: Now) {
        if self.direct.is_some() { self.ask_directly(on, now) } else { self.request(on, None) }
    }

    fn request(&mut self, on: ConnId, offer: Option<&Offer>) {
        let mut text = Vec::new();
        write_upgrade(&mut text, &self.config.relay.host_header, self.config.id, offer);
        self.conns.send(on, text);
    }

    /// Handles the head of the relay's or the agent's response.
    fn answered(&mut self, on: ConnId, response: &Response, head: &[u8], now: Now) {
        let (local, session) = match self.conns.state(on) {
            Some(&mut State::Asking { local, session, .. }) => {
                self.settle_race(on, now);
                if self.config.sealing == Sealing::EndToEnd {
                    return self.answered_outside(on, local, response, now);
                }
                (local, session)
            }
            Some(&mut State::Inside { local, session, .. }) => (local, session),
            _ => return,
        };
        if response.status != 101 || !response.upgrade_octet_stream {
            return self.fail(on, refusal(response), now);
        }
        match session {
            Some(session) => self.agreed(on, local, session, head, now),
            None => self.join(on, local, now),
        }
    }

    /// Handles the response outside of TLS with the agent. The relay can write anything here, so it only leads to TLS
    /// or to a failure.
    fn answered_outside(&mut self, on: ConnId, local: ConnId, response: &Response, now: Now) {
        if response.status == 101 && response.upgrade_sealed_stream {
            self.conns.set_state(on, State::Sealing { local });
            self.conns.set_due(on, Some(now.mono + self.config.deadlines.handshake));
            self.conns.emit(Output::StartTls { on, role: TlsRole::Client { upstream: 1 } });
            return;
        }
        let why = match refusal(response) {
            ConnectFailure::Refused(status) if !is_sealed_refusal(status) => {
                ConnectFailure::NotSealed(status)
            }
            why => why,
        };
        self.fail(on, why, now);
    }

    /// The agent has authenticated with the pinned key.
    fn sealed(&mut self, on: ConnId, now: Now) {
        let Some(&mut State::Sealing { local }) = self.conns.state(on) else { return };
        self.conns.set_state(on, State::Inside { local, answer: Answer::default(), session: None });
        self.conns.set_due(on, Some(now.mono + self.config.deadlines.answer));
        self.ask_agent(on, now);
    }

    /// Pairs the local connection with the one that was opened for it, relayed or direct.
    fn join(&mut self, on: ConnId, local: ConnId, now: Now) {
        self.conns.emit(Output::Read { on: local, wanted: true });
        self.conns.set_state(local, State::Paired);
        self.conns.set_state(on, State::Paired);
        self.conns.pair(on, local, false, now);
        self.conns.event(Event::Served { relay: on, local, upstream: 0, stream: true });
    }

    /// The connection failed. The local side gets a truncated stream, never a clean end.
    fn fail(&mut self, on: ConnId, why: ConnectFailure, now: Now) {
        let Some(local) = self.conns.state(on).and_then(|state| state.local()) else { return };
        let how = match why {
            // An alert may be in flight to the relay; a reset would discard it.
            ConnectFailure::Refused(_)
            | ConnectFailure::Offline
            | ConnectFailure::NotDirect(_)
            | ConnectFailure::Ended(End::Clean | End::Truncated)
            | ConnectFailure::Tls(_)
            | ConnectFailure::NotSealed(_)
            | ConnectFailure::EndToEnd(_)
            | ConnectFailure::NotAllowed(End::Clean | End::Truncated) => Close::Linger,
            _ => Close::Abort,
        };
        self.forget_session(on, now);
        self.failed = self.failed.saturating_add(1);
        self.last = Some(Outcome::Failed(why));
        self.conns.event(Event::ConnectFailed { local, why });
        self.conns.close(on, how, now);
        self.conns.close(local, Close::Truncate, now);
    }

    /// Closes both connections because the local side has gone.
    fn abandon(&mut self, local: ConnId, relay: ConnId, how: Close, now: Now) {
        self.cancel_race(relay, now);
        self.failed = self.failed.saturating_add(1);
        self.last = Some(Outcome::Abandoned);
        let from = self.conns.from(local);
        self.conns.event(Event::Dropped {
            on: local,
            from,
            upstream: None,
            why: "ended before the service was reached",
        });
        self.conns.close(local, how, now);
        self.conns.close(relay, Close::Abort, now);
    }

    fn pair_over(&mut self, ended: Option<Ended>, now: Now) {
        let Some(Ended { hidden, client, pair, over }) = ended else { return };
        self.last = Some(Outcome::Ended(over.why));
        self.conns.event(Event::PairEnded {
            hidden,
            client,
            from: self.conns.from(client),
            id: self.config.id,
            from_client: pair.bytes_from(Side::Client),
            from_hidden: pair.bytes_from(Side::Hidden),
            after: now.mono.since(pair.began()),
            why: over.why,
        });
    }

    fn expire(&mut self, on: ConnId, now: Now) {
        match self.conns.state(on) {
            Some(State::Reaching { .. } | State::Asking { .. }) => {
                self.race(on, now, |dialers, conns, rival| dialers.expired(on, conns, rival, now));
            }
            Some(State::Sealing { .. } | State::Inside { .. } | State::Staying { .. }) => {
                self.fail(on, ConnectFailure::TimedOut, now);
            }
            Some(State::Deciding { .. }) => self.late(on, now),
            Some(State::Paired) => {
                let ended = self.conns.pair_timeout(on, now);
                self.pair_over(ended, now);
            }
            Some(State::Local { .. } | State::Link(_) | State::Unwanted) | None => {}
        }
    }
}

/// The failure that a response without a 101 stands for.
const fn refusal(response: &Response) -> ConnectFailure {
    if response.is_offline { ConnectFailure::Offline } else { ConnectFailure::Refused(response.status) }
}

/// Whether a refusal of an end-to-end stream has its usual meaning: the relay sends it for any kind of stream. Any
/// other status, including 502, can come from an agent that does not support such streams; one that does switches
/// before it dials its service.
const fn is_sealed_refusal(status: u16) -> bool {
    matches!(status, 421 | 503)
}
