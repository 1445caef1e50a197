//! Direct connections with connectors: the agent's offer goes into its 101, then lines are sent on the relayed
//! connection until it is decided which of the two connections the local service is paired with.
//!
//! The client is the requestor, and decides. Until then the local service is not read, so that none of its bytes take
//! the wrong path, and only lines are read from the relayed connection.
//!
//! | line on the relay | from the client | from the agent |
//! |---|---|---|
//! | `ok` | a direct connection is established: this one ends | never |
//! | `error` | stay on the relay: the client's stream follows | no more dialling; once, if the client has hosts, before the agent's own stream |

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::SocketAddr;

use super::{Agent, Conn, Sealed, State, conn_state};
use crate::dtcp::endpoint::{Action, DtcpEndpoint};
use crate::dtcp::line::{self, Command, Found};
use crate::dtcp::negotiation::{LinkId, Refusal, SessionId, Signal};
use crate::dtcp::{Direct, HANDSHAKE_MAX, Offer};
use crate::event::{ConnectError, Event, NotDirect};
use crate::fingerprint::Fingerprint;
use crate::http::offer::{self, Offered};
use crate::http::reply::{Switching, write_switching};
use crate::machine::{Close, ConnId, End, Listener, Output};
use crate::sorted_vec_map::SortedVecMap;
use crate::time::Now;

/// The negotiations in progress.
#[derive(Clone, Debug)]
pub(super) struct Negotiations {
    dtcp_endpoint: DtcpEndpoint,
    streams: SortedVecMap<SessionId, Stream>,
    listener: Option<Listener>,
}

/// A stream whose path is not decided.
#[derive(Clone, Debug)]
struct Stream {
    relay: ConnId,
    local: ConnId,
    /// The client's address, as the relay reports it.
    from: Option<SocketAddr>,
    /// The key that the client has shown.
    key: Option<Fingerprint>,
}

impl Negotiations {
    pub(super) fn new(config: &Direct, seed: [u8; 32]) -> Self {
        // A session ends with the decision on the relayed connection, after which a direct one is still to come.
        let session = config.timeout + HANDSHAKE_MAX;
        Self {
            dtcp_endpoint: DtcpEndpoint::new(config.negotiation(session), seed),
            streams: SortedVecMap::default(),
            listener: config.listener,
        }
    }

    pub(super) fn merge_idle(&self, output: Output) -> Output {
        self.dtcp_endpoint.merge_idle(output)
    }
}

impl Agent {
    /// Accepts a connection. If nothing is being negotiated it is closed at once.
    pub(super) fn accept(&mut self, on: Listener, from: SocketAddr, now: Now) -> ConnId {
        let conn = self.conns.insert(Conn::new(0, State::Ended), Some(from));
        match &mut self.direct {
            Some(direct) if direct.listener == Some(on) && !direct.dtcp_endpoint.is_idle() => {
                let link = direct.dtcp_endpoint.accept(conn, from, now);
                if let Some(state) = conn_state(&mut self.conns, conn) {
                    *state = State::Link(link);
                }
                self.apply_actions(now);
            }
            _ => self.conns.close(conn, Close::Abort, now),
        }
        conn
    }

    /// Passes an event to the DTCP endpoint, and carries out its actions.
    pub(super) fn with_dtcp_endpoint<R: Default>(
        &mut self,
        now: Now,
        event: impl FnOnce(&mut DtcpEndpoint) -> R,
    ) -> R {
        let Some(direct) = &mut self.direct else { return R::default() };
        let result = event(&mut direct.dtcp_endpoint);
        self.apply_actions(now);
        result
    }

    /// The local service was reached, and the client prefers a direct connection: answers its offer.
    pub(super) fn propose(&mut self, relay: ConnId, local: ConnId, theirs: &Offer, now: Now) {
        let key = self.key_of(relay);
        let Some(upstream) = self.conns.state(relay).map(|conn| conn.upstream) else { return };
        let (Some(direct), Some(config)) = (&mut self.direct, &self.config.direct) else { return };
        // Limits count by the ID: a client's address is known only if the relay reports it.
        let id = self.config.upstreams[usize::from(upstream)].id;
        let peer = alloc::format!("{id}/{}.{}", relay.index, relay.generation);
        let session =
            direct.dtcp_endpoint.negotiation().handle_request(&peer, theirs, &config.hosts, now.mono);
        let from = self.conns.from(relay);
        direct.streams.insert(session, Stream { relay, local, from, key });
        let due = Some(now.mono + config.timeout);
        self.enter(relay, State::Deciding { local, session }, due);
        self.enter(local, State::Ready { session }, None);
        self.conns.emit(Output::UserTimeout { on: relay, after: None });
        self.conns.emit(Output::Read { on: local, wanted: false });
        self.conns.emit(Output::Read { on: relay, wanted: true });
        self.apply_actions(now);
    }

    /// Reads the client's decision on the relayed connection. Returns the number of bytes consumed.
    pub(super) fn read_decision(&mut self, on: ConnId, bytes: &[u8], now: Now) -> usize {
        match line::find(bytes) {
            Found::Partial => 0,
            Found::Command { command: Command::Error, len } => {
                self.stay(on, now);
                len
            }
            Found::Command { command: Command::Ok(b""), len } => {
                self.leave(on, now);
                len
            }
            Found::Command { .. } | Found::Unknown { .. } | Found::TooLong => {
                self.lose_undecided(on, "the client said something that decides nothing", Close::Abort, now);
                0
            }
        }
    }

    /// The client has a direct connection; the agent's side of it may not be established yet.
    fn leave(&mut self, on: ConnId, now: Now) {
        if let Some(State::Leaving) = conn_state(&mut self.conns, on) {
            self.close(on, Close::Linger, now);
        } else if !self.await_direct(on, Close::Linger, now) {
            self.lose_undecided(on, "the client has a connection that we have not", Close::Abort, now);
        }
    }

    /// The relayed connection ended before a decision. Only the direct connection can show what the client has
    /// decided: a killed relay looks like a client that goes away.
    pub(super) fn undecided_ended(&mut self, on: ConnId, how: End, now: Now) {
        let how = if how == End::Reset { Close::Abort } else { Close::Linger };
        if !self.await_direct(on, how, now) {
            self.lose_undecided(on, GONE, how, now);
        }
    }

    /// Closes the relayed connection and waits for the direct one. Returns false if there is none that the client
    /// could have chosen.
    fn await_direct(&mut self, on: ConnId, how: Close, now: Now) -> bool {
        let Some(&mut State::Deciding { local, session }) = conn_state(&mut self.conns, on) else {
            return false;
        };
        if !self.direct.as_ref().is_some_and(|direct| direct.dtcp_endpoint.has_links(session)) {
            return false;
        }
        self.conns.set_due(local, Some(now.mono + HANDSHAKE_MAX));
        self.close(on, how, now);
        true
    }

    /// The client stays on the relay. The agent signals the end of its dialling before the first byte of the local
    /// service.
    fn stay(&mut self, on: ConnId, now: Now) {
        let Some(&mut State::Deciding { local, session }) = conn_state(&mut self.conns, on) else {
            return self.close(on, Close::Abort, now);
        };
        let Some(upstream) = self.conns.state(on).map(|conn| conn.upstream) else { return };
        let connect_error = self.forget_session(session, now);
        self.choose(local, on, self.conns.from(on), now);
        let why = connect_error.map_or(NotDirect::Declined, NotDirect::Failed);
        self.conns.event(Event::Relayed { relay: on, local, upstream, why });
    }

    /// Drops the client, with its session and its connection to the local service.
    pub(super) fn lose_undecided(&mut self, on: ConnId, why: &'static str, how: Close, now: Now) {
        let Some(&mut State::Deciding { local, session }) = conn_state(&mut self.conns, on) else {
            return self.close(on, how, now);
        };
        self.forget_session(session, now);
        self.lose_client(on, why, how, now);
        self.close(local, Close::Abort, now);
    }

    /// The local service's connection broke before the decision, or the direct connection did not come.
    pub(super) fn lose_ready(&mut self, local: ConnId, why: &'static str, now: Now) {
        let Some(&mut State::Ready { session }) = conn_state(&mut self.conns, local) else { return };
        let stream = self.direct.as_mut().and_then(|direct| direct.streams.remove(&session));
        self.forget_session(session, now);
        let upstream = self.conns.state(local).map(|conn| conn.upstream);
        self.conns.event(Event::Dropped { on: local, from: None, upstream, why });
        self.close(local, Close::Abort, now);
        if let Some(Stream { relay, .. }) = stream {
            self.close(relay, Close::Truncate, now);
        }
    }

    /// The local services that wait for a direct connection of a client with one of these keys.
    pub(super) fn locals_of_keys(&self, keys: &[Fingerprint]) -> Vec<ConnId> {
        let streams = self.direct.iter().flat_map(|direct| direct.streams.iter());
        let is_listed = |stream: &&Stream| stream.key.is_some_and(|key| keys.contains(&key));
        streams.map(|(_, stream)| stream).filter(is_listed).map(|stream| stream.local).collect()
    }

    fn forget_session(&mut self, session: SessionId, now: Now) -> Option<ConnectError> {
        let direct = self.direct.as_mut()?;
        let connect_error = direct.dtcp_endpoint.cancel(session);
        self.apply_actions(now);
        self.direct.as_mut()?.streams.remove(&session);
        connect_error
    }

    /// Carries out the actions of the DTCP endpoint.
    fn apply_actions(&mut self, now: Now) {
        while let Some(action) = self.next_action(now) {
            match action {
                Action::Signal { session, signal } => self.signal(session, signal, now),
                Action::Established { session, on, tls } => {
                    debug_assert!(tls, "a direct connection in clear");
                    self.went_direct(session, on, now);
                }
                Action::Dialled { session, on, to } => self.note_dial(session, on, to),
                // The client decides what follows.
                Action::Failed { session, .. } => {
                    if let Some(direct) = &mut self.direct {
                        direct.streams.remove(&session);
                    }
                }
            }
        }
    }

    fn note_dial(&mut self, session: SessionId, on: ConnId, to: SocketAddr) {
        let relay = self.direct.as_ref().and_then(|direct| direct.streams.get(&session)).map(|it| it.relay);
        let upstream = relay.and_then(|relay| self.conns.any_state(relay)).map_or(0, |conn| conn.upstream);
        let id = self.upstream(upstream).id;
        self.conns.event(Event::DirectDial { on, id, to });
    }

    fn next_action(&mut self, now: Now) -> Option<Action> {
        let link = |link: LinkId| Conn::new(0, State::Link(link));
        let dtcp_endpoint = &mut self.direct.as_mut()?.dtcp_endpoint;
        let action = dtcp_endpoint.poll(&mut self.conns, link, now);
        if action.is_some() || !dtcp_endpoint.is_idle() {
            return action;
        }
        dtcp_endpoint.dismiss_strangers();
        dtcp_endpoint.poll(&mut self.conns, link, now)
    }

    fn signal(&mut self, session: SessionId, signal: Signal, now: Now) {
        let Some(direct) = &mut self.direct else { return };
        let Some(&Stream { relay, local, from, .. }) = direct.streams.get(&session) else { return };
        let mut text = Vec::new();
        match signal {
            Signal::Answer(ours) => {
                write_switching(&mut text, Switching::Direct(&ours));
                self.conns.send(relay, text);
            }
            // The stream goes through the relay, without a line.
            Signal::Refuse(refusal) => {
                direct.streams.remove(&session);
                write_switching(&mut text, Switching::Refused(refusal));
                self.conns.send(relay, text);
                self.choose(local, relay, from, now);
                let upstream = self.conns.any_state(relay).map_or(0, |conn| conn.upstream);
                let why = match refusal {
                    Refusal::Busy | Refusal::Conflict => NotDirect::Busy,
                    Refusal::Unreachable => NotDirect::NoAddress,
                };
                self.conns.event(Event::Relayed { relay, local, upstream, why });
            }
            Signal::GiveUp(_) => {
                Command::Error.write(&mut text);
                self.conns.send(relay, text);
            }
            Signal::Request(_) => debug_assert!(false, "an agent asks for no session"),
        }
    }

    /// The client has chosen this direct connection.
    fn went_direct(&mut self, session: SessionId, on: ConnId, now: Now) {
        let stream = self.direct.as_mut().and_then(|direct| direct.streams.remove(&session));
        let Some(Stream { relay, local, from, key }) = stream else {
            return self.conns.close(on, Close::Abort, now);
        };
        let Some(&mut Conn { upstream, state: State::Ready { .. }, .. }) = self.conns.state(local) else {
            return self.conns.close(on, Close::Abort, now);
        };
        if let Some(conn) = self.conns.state(on) {
            conn.upstream = upstream;
            // The list of allowed keys is also for the direct connection.
            conn.sealed = key.map(|key| Box::new(Sealed { name: None, subject: None, key: Some(key) }));
        }
        if let Some(State::Deciding { .. }) = conn_state(&mut self.conns, relay) {
            self.enter(relay, State::Leaving, Some(now.mono + HANDSHAKE_MAX));
        }
        let with = self.conns.from(on);
        self.choose(local, on, from.or(with), now);
        self.conns.event(Event::Direct { on, local, upstream, with });
    }

    /// Pairs the local service with this connection.
    fn choose(&mut self, local: ConnId, client: ConnId, from: Option<SocketAddr>, now: Now) {
        let is_header_queued = self.greet(local, from);
        self.conns.emit(Output::Read { on: local, wanted: true });
        self.join(local, client, is_header_queued, now);
        if let Some(&mut Conn { upstream, .. }) = self.conns.any_state(client) {
            self.conns.event(Event::Served { relay: client, local, upstream, stream: true });
        }
    }
}

/// The reason for a client that left before it was served.
pub(super) const GONE: &str = "the client went away before it was served";

/// The offer in a client's request, if it is valid.
pub(super) fn offer_of(head: &[u8]) -> Option<Box<Offer>> {
    match offer::read(head) {
        Offered::Offer(offer) => Some(Box::new(offer)),
        Offered::Nothing | Offered::Refused(_) | Offered::Malformed => None,
    }
}
