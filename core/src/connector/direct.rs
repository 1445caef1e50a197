//! A direct connection to the hidden server's agent. The connector is the requestor, and decides.
//!
//! The connector's offer is in the request, the agent's in its 101. After that, lines are sent on the relayed
//! connection, and the local side is not read. The connector sends one line: `ok` when a direct connection is
//! established, after which it closes the relayed one; or `error` when there is none, and its stream follows. The
//! agent sends `error` when it stops dialling. If the connector has hosts, the agent sends it once before its own
//! stream, so the connector waits for it.

use alloc::vec::Vec;
use core::net::SocketAddr;

use super::{Config, Connector, State};
use crate::dtcp::endpoint::{Action, DtcpEndpoint};
use crate::dtcp::line::{self, Command, Found};
use crate::dtcp::negotiation::{Refusal, SessionFailure, SessionId, Signal};
use crate::dtcp::{Direct, HANDSHAKE_MAX};
use crate::event::{ConnectError, ConnectFailure, Event, NotDirect};
use crate::http::offer::{self, Offered};
use crate::machine::{Close, ConnId, Listener, Output};
use crate::sorted_vec_map::SortedVecMap;
use crate::time::Now;

/// The maximum number of concurrent negotiations; further streams go through the relay.
const SESSIONS_MAX: usize = 1_024;

/// The negotiations in progress.
#[derive(Clone, Debug)]
pub(super) struct Negotiations {
    dtcp_endpoint: DtcpEndpoint,
    /// The relayed connection of each session.
    relays: SortedVecMap<SessionId, ConnId>,
    listener: Option<Listener>,
}

impl Negotiations {
    pub(super) fn new(config: &Config, direct: &Direct, seed: [u8; 32]) -> Self {
        // The timeouts of the response and of the decision come before the session's own.
        let session = config.deadlines.answer + direct.timeout + HANDSHAKE_MAX;
        let mut negotiation = direct.negotiation(session);
        negotiation.sessions_max = SESSIONS_MAX;
        // Each local connection causes three dials at most, and belongs to the user.
        negotiation.dials_per_minute_max = u32::MAX;
        Self {
            dtcp_endpoint: DtcpEndpoint::new(negotiation, seed),
            relays: SortedVecMap::default(),
            listener: direct.listener,
        }
    }

    pub(super) fn listens_on(&self, on: Listener) -> bool {
        self.listener == Some(on)
    }

    pub(super) fn merge_idle(&self, output: Output) -> Output {
        self.dtcp_endpoint.merge_idle(output)
    }
}

impl Connector {
    /// Accepts a connection that may be from the agent. If nothing is being negotiated it is closed at once.
    pub(super) fn accept(&mut self, from: SocketAddr, now: Now) -> ConnId {
        let on = self.conns.insert(State::Unwanted, Some(from));
        match &mut self.direct {
            Some(direct) if !direct.dtcp_endpoint.is_idle() => {
                let link = direct.dtcp_endpoint.accept(on, from, now);
                self.conns.set_state(on, State::Link(link));
                self.apply_actions(now);
            }
            _ => self.conns.close(on, Close::Abort, now),
        }
        on
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

    /// Sends the request with an offer of a direct connection.
    pub(super) fn ask_directly(&mut self, on: ConnId, now: Now) {
        let (Some(direct), Some(config)) = (&mut self.direct, &self.config.direct) else { return };
        let asked = direct.dtcp_endpoint.negotiation().request("agent", &config.hosts, now.mono);
        direct.relays.insert(asked, on);
        if let Some(State::Asking { session, .. } | State::Inside { session, .. }) = self.conns.state(on) {
            *session = Some(asked);
        }
        self.apply_actions(now);
    }

    /// Handles the agent's 101, with its own offer if it supports direct connections.
    pub(super) fn agreed(&mut self, on: ConnId, local: ConnId, session: SessionId, head: &[u8], now: Now) {
        match offer::read(head) {
            // No line is sent then.
            Offered::Nothing => {
                self.forget_session(on, now);
                self.use_relay(on, local, NotDirect::Unsupported, now);
            }
            Offered::Refused(refusal) => {
                self.forget_session(on, now);
                let why = match refusal {
                    Refusal::Busy | Refusal::Conflict => NotDirect::Busy,
                    Refusal::Unreachable => NotDirect::NoAddress,
                };
                self.use_relay(on, local, why, now);
            }
            Offered::Malformed => {
                self.conns.set_state(on, State::Deciding { local, session, gave_up: false });
                self.forget_session(on, now);
                self.stay(on, NotDirect::Unsupported, now);
            }
            Offered::Offer(theirs) => {
                self.conns.set_state(on, State::Deciding { local, session, gave_up: false });
                let timeout = self.config.direct.as_ref().map(|direct| direct.timeout);
                self.conns.set_due(on, timeout.map(|timeout| now.mono + timeout));
                self.with_dtcp_endpoint(now, |dtcp_endpoint| {
                    dtcp_endpoint.negotiation().handle_answer(session, &theirs, now.mono)
                });
            }
        }
    }

    /// Reads a line of the agent on the relayed connection. Returns the number of bytes consumed.
    pub(super) fn read_line(&mut self, on: ConnId, bytes: &[u8], now: Now) -> usize {
        let len = match line::find(bytes) {
            Found::Partial => return 0,
            Found::Command { command: Command::Error, len } => len,
            Found::Command { .. } | Found::Unknown { .. } | Found::TooLong => {
                self.fail(on, ConnectFailure::InvalidOffer, now);
                return 0;
            }
        };
        match self.conns.state(on) {
            Some(&mut State::Deciding { local, session, gave_up: false }) => {
                self.conns.set_state(on, State::Deciding { local, session, gave_up: true });
                self.with_dtcp_endpoint(now, |dtcp_endpoint| {
                    dtcp_endpoint.negotiation().handle_give_up(session)
                });
            }
            Some(&mut State::Staying { local, why }) => self.use_relay(on, local, why, now),
            _ => self.fail(on, ConnectFailure::InvalidOffer, now),
        }
        len
    }

    /// The negotiation has timed out.
    pub(super) fn late(&mut self, on: ConnId, now: Now) {
        let connect_error = self.forget_session(on, now);
        self.stay(on, connect_error.map_or(NotDirect::TimedOut, NotDirect::Failed), now);
    }

    /// The session ended without a direct connection. Tells the agent, unless a direct connection is required.
    fn stay(&mut self, on: ConnId, why: NotDirect, now: Now) {
        let Some(&mut State::Deciding { local, gave_up, .. }) = self.conns.state(on) else { return };
        if self.config.direct_only {
            return self.fail(on, ConnectFailure::NotDirect(why), now);
        }
        self.emit(on, Command::Error);
        let has_hosts = self.config.direct.as_ref().is_some_and(|direct| !direct.hosts.is_empty());
        if has_hosts && !gave_up {
            self.conns.set_state(on, State::Staying { local, why });
            self.conns.set_due(on, Some(now.mono + self.config.deadlines.answer));
        } else {
            self.use_relay(on, local, why, now);
        }
    }

    /// The stream goes through the relay, unless a direct connection is required.
    fn use_relay(&mut self, on: ConnId, local: ConnId, why: NotDirect, now: Now) {
        if self.config.direct_only {
            return self.fail(on, ConnectFailure::NotDirect(why), now);
        }
        self.join(on, local, now);
        self.conns.event(Event::Relayed { relay: on, local, upstream: 0, why });
    }

    /// Ends the session of this relayed connection, if it has one. Returns why its dials failed.
    pub(super) fn forget_session(&mut self, relay: ConnId, now: Now) -> Option<ConnectError> {
        let session = match self.conns.state(relay) {
            Some(
                &mut (State::Asking { session: Some(session), .. }
                | State::Inside { session: Some(session), .. }
                | State::Deciding { session, .. }),
            ) => session,
            _ => return None,
        };
        let direct = self.direct.as_mut()?;
        direct.relays.remove(&session)?;
        let connect_error = direct.dtcp_endpoint.cancel(session);
        self.apply_actions(now);
        connect_error
    }

    /// Carries out the actions of the DTCP endpoint.
    fn apply_actions(&mut self, now: Now) {
        while let Some(action) = self.next_action(now) {
            match action {
                Action::Signal { session, signal: Signal::Request(offer) } => {
                    if let Some(relay) = self.relay_of(session) {
                        self.request(relay, Some(&offer));
                    }
                }
                // The end of our dialling is not signalled before the decision: it is the last line.
                Action::Signal { .. } => {}
                Action::Dialled { on, to, .. } => {
                    self.conns.event(Event::DirectDial { on, id: self.config.id, to })
                }
                Action::Established { session, on, tls } => {
                    debug_assert!(tls, "a direct connection in clear");
                    self.went_direct(session, on, now);
                }
                Action::Failed { session, why, connect_error } => {
                    let why = if why == SessionFailure::Deadline {
                        NotDirect::TimedOut
                    } else {
                        NotDirect::NoAddress
                    };
                    self.failed_directly(session, connect_error.map_or(why, NotDirect::Failed), now);
                }
            }
        }
    }

    fn next_action(&mut self, now: Now) -> Option<Action> {
        let dtcp_endpoint = &mut self.direct.as_mut()?.dtcp_endpoint;
        let action = dtcp_endpoint.poll(&mut self.conns, State::Link, now);
        if action.is_some() || !dtcp_endpoint.is_idle() {
            return action;
        }
        dtcp_endpoint.dismiss_strangers();
        dtcp_endpoint.poll(&mut self.conns, State::Link, now)
    }

    fn relay_of(&self, session: SessionId) -> Option<ConnId> {
        self.direct.as_ref()?.relays.get(&session).copied()
    }

    fn take_relay(&mut self, session: SessionId) -> Option<ConnId> {
        self.direct.as_mut()?.relays.remove(&session)
    }

    fn failed_directly(&mut self, session: SessionId, why: NotDirect, now: Now) {
        let Some(relay) = self.take_relay(session) else { return };
        match self.conns.state(relay) {
            // Too many sessions: a direct connection is not asked for.
            Some(State::Asking { session, .. } | State::Inside { session, .. }) => {
                *session = None;
                self.request(relay, None);
            }
            _ => self.stay(relay, why, now),
        }
    }

    /// The session has chosen this direct connection.
    fn went_direct(&mut self, session: SessionId, on: ConnId, now: Now) {
        let relay = self.take_relay(session);
        let local = relay.and_then(|relay| self.conns.state(relay)?.local());
        let (Some(relay), Some(local)) = (relay, local) else {
            debug_assert!(false, "a session without its stream");
            return self.conns.close(on, Close::Abort, now);
        };
        self.emit(relay, Command::Ok(b""));
        self.conns.close(relay, Close::Linger, now);
        let with = self.conns.from(on);
        self.join(on, local, now);
        self.conns.event(Event::Direct { on, local, upstream: 0, with });
    }

    fn emit(&mut self, relay: ConnId, line: Command<'_>) {
        let mut text = Vec::new();
        line.write(&mut text);
        self.conns.send(relay, text);
    }
}
