//! The program beside a client that speaks no HTTP: takes each local connection through a relay to the stream service
//! of one hidden server.
//!
//! A local connection, standard input and output too, is silent until the hidden server's agent has answered 101;
//! nothing is read from it before, so that nothing has to be kept.

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

mod dialling;
mod direct;
mod machine;

/// Everything about a connector that can be set.
#[derive(Clone, Debug)]
pub struct Config {
    /// The relay. It is number 0 of the shell's list of upstreams.
    pub relay: Relay,
    /// The hidden server's ID.
    pub id: Id,
    /// One local connection is taken, and then it is done: standard input and output.
    pub once: bool,
    /// How many local connections there may be at once, each with one to the relay or the agent. One more is closed, and
    /// a note says why. Default 4,000.
    pub locals_max: u32,
    /// Limits of the answer's head.
    pub head: head::Limits,
    /// Deadlines on the way. The answer should be waited for longer than a relay holds a client (5 s) and an agent
    /// dials its service (10 s): see [`Config::DEADLINES`].
    pub deadlines: Deadlines,
    /// Deadlines of a pair.
    pub pair: pair::Limits,
    /// Ask the hidden server's agent for a direct connection; see [`Connector::with_direct`]. `None`, the default: the
    /// stream goes through the relay.
    pub direct: Option<Direct>,
    /// If there is no direct connection, there is none at all. Nothing without [`Config::direct`].
    pub direct_only: bool,
    /// Whether the stream is end to end.
    pub sealing: Sealing,
}

/// Whether the connector speaks TLS with the agent inside the stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sealing {
    /// No: the relay can read the stream.
    #[default]
    None,
    /// Yes, or there is no stream. Number 1 of the shell's list of upstreams says which agent it must be. What the two send
    /// about a direct connection goes through that TLS as well, so that the relay can change none of it.
    EndToEnd,
}

impl Config {
    /// 10 s to connect, 10 s for the handshake, 30 s for the answer.
    pub const DEADLINES: Deadlines =
        Deadlines { dial: Span::from_secs(10), handshake: Span::from_secs(10), answer: Span::from_secs(30) };

    /// The defaults for a relay and an ID: any number of local connections, [`Config::DEADLINES`].
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
        }
    }
}

/// What became of a local connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It met the service, and the pair ended so.
    Ended(EndReason),
    /// It could not be.
    Failed(ConnectFailure),
    /// The local side went away before anything came of it.
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

/// What a connection is.
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
/// not taken:           Unwanted ─▶ closed
/// ```
#[derive(Clone, Debug)]
enum State {
    /// A local connection that waits for the 101; the deadline is the other's: the lead of a race, or its winner.
    Local { relay: ConnId },
    /// On the way to the relay: an attempt of a race, or its lead.
    Reaching { local: ConnId },
    /// The request was sent; its answer is to come, and the race goes on until then. `session`: a direct connection was
    /// asked for.
    Asking { local: ConnId, answer: Answer, session: Option<SessionId> },
    /// Behind the 101 to a sealed stream: the TLS handshake with the agent. The local side is not read.
    Sealing { local: ConnId },
    /// The request was sent to the agent through TLS; its answer is to come. As in [`State::Asking`] otherwise.
    Inside { local: ConnId, answer: Answer, session: Option<SessionId> },
    /// The agent has answered with an offer of its own: a direct connection is tried. `gave_up`: the agent does not
    /// dial any more.
    Deciding { local: ConnId, session: SessionId, gave_up: bool },
    /// There is no direct connection. The agent knows, and is yet to say that it dials no more: its bytes follow.
    Staying { local: ConnId, why: NotDirect },
    /// A direct connection that is not established.
    Link(LinkId),
    /// Either half of a pair.
    Paired,
    /// Not taken.
    Unwanted,
}

impl State {
    /// The local connection that this one is for, as long as the two have not met.
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
    /// A connector that waits for its first local connection.
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

    /// The same, with direct connections where [`Config::direct`] asks for them. The seed is what their keys are made
    /// of: from the operating system, and known to nobody else.
    #[must_use]
    pub fn with_direct(config: Config, seed: [u8; 32]) -> Self {
        let direct = config.direct.as_ref().map(|direct| Negotiations::new(&config, direct, seed));
        Self { direct, ..Self::new(config) }
    }

    /// The connector shuts down: local connections that have not met the service are closed, no other is taken, pairs
    /// go on.
    pub fn handle_drain(&mut self, now: Now) {
        self.stopping = true;
        for on in self.conns.open_ids() {
            if let Some(&mut State::Local { relay }) = self.conns.state(on) {
                self.abandon(on, relay, Close::Truncate, now);
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

    /// How many local connections have not met the service.
    #[must_use]
    pub const fn failed(&self) -> u32 {
        self.failed
    }

    /// What became of the local connection that was over last; `None` as long as none was.
    #[must_use]
    pub const fn last(&self) -> Option<Outcome> {
        self.last
    }

    /// Whether there is nothing left to do: after [`Connector::handle_drain`], or after the one local connection of
    /// [`Config::once`].
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.stopping && self.conns.len() == 0
    }

    /// The relay is reached: we ask for the service.
    fn ask(&mut self, on: ConnId, now: Now) {
        let Some(&mut State::Reaching { local }) = self.conns.state(on) else { return };
        self.enter(on, State::Asking { local, answer: Answer::default(), session: None });
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

    /// Sends the request that the agent answers, with an offer if there are direct connections.
    fn ask_agent(&mut self, on: ConnId, now: Now) {
        if self.direct.is_some() { self.ask_directly(on, now) } else { self.request(on, None) }
    }

    fn request(&mut self, on: ConnId, offer: Option<&Offer>) {
        let mut text = Vec::new();
        write_upgrade(&mut text, &self.config.relay.host_header, self.config.id, offer);
        self.conns.send(on, text);
    }

    /// The relay, or the agent, has answered with this head.
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

    /// The answer in front of TLS with the agent. The relay can write anything here, so that nothing but TLS comes of it.
    fn answered_outside(&mut self, on: ConnId, local: ConnId, response: &Response, now: Now) {
        if response.status == 101 && response.upgrade_sealed_stream {
            self.enter(on, State::Sealing { local });
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

    /// The agent has proved that it has the pinned key.
    fn sealed(&mut self, on: ConnId, now: Now) {
        let Some(&mut State::Sealing { local }) = self.conns.state(on) else { return };
        self.enter(on, State::Inside { local, answer: Answer::default(), session: None });
        self.conns.set_due(on, Some(now.mono + self.config.deadlines.answer));
        self.ask_agent(on, now);
    }

    /// Makes a pair of the local connection and the one that it was opened for, relayed or direct.
    fn join(&mut self, on: ConnId, local: ConnId, now: Now) {
        self.conns.emit(Output::Read { on: local, wanted: true });
        self.enter(local, State::Paired);
        self.enter(on, State::Paired);
        self.conns.pair(on, local, false, now);
        self.conns.event(Event::Served { relay: on, local, upstream: 0, stream: true });
    }

    /// It could not be. The local side must not take that for the end of a stream in order.
    fn fail(&mut self, on: ConnId, why: ConnectFailure, now: Now) {
        let Some(local) = self.conns.state(on).and_then(|state| state.local()) else { return };
        let how = match why {
            // An alert may be on its way to the relay, and a reset would eat it.
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

    /// Nobody waits for the answer any more.
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

    fn enter(&mut self, on: ConnId, state: State) {
        if let Some(old) = self.conns.state(on) {
            *old = state;
        }
    }

    fn pair_over(&mut self, ended: Option<Ended>, now: Now) {
        let Some(Ended { hidden, client, pair, over }) = ended else { return };
        self.last = Some(Outcome::Ended(over.why));
        self.conns.event(Event::PairEnded {
            hidden,
            client,
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
                self.fail(on, ConnectFailure::Silent, now);
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

/// What an answer is that does not begin the stream.
const fn refusal(response: &Response) -> ConnectFailure {
    if response.is_offline { ConnectFailure::Offline } else { ConnectFailure::Refused(response.status) }
}

/// Whether a refusal of a sealed stream has its usual meaning: the relay answers so whatever kind of stream is asked for. Any
/// other status can come from an agent that does not know sealed streams, 502 too: one that does switches before it dials
/// its service.
const fn is_sealed_refusal(status: u16) -> bool {
    matches!(status, 421 | 503)
}
