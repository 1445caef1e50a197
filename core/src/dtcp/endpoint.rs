//! Runs a [`Negotiation`] on the connections of a machine: carries out its outputs on the machine's [`Conns`], and
//! passes their events to it.
//!
//! The machine keeps a [`LinkId`] in the state of each connection that is a link, calls the method for each event,
//! and then takes [`Action`]s until there is none. All other outputs have been carried out by then. An established
//! connection belongs to the machine: its unconsumed bytes are offered, or paired, like those of any other
//! connection.

use core::net::SocketAddr;

use super::negotiation::{Config, LinkId, Negotiation, Output, SessionFailure, SessionId, Signal, TlsRole};
use crate::conns::Conns;
use crate::event::ConnectError;
use crate::limiter::Source;
use crate::machine::{self, ConnId, DialFailure, End, Secured, TlsFailure};
use crate::sorted_vec_map::SortedVecMap;
use crate::time::{Now, Time};

/// The maximum number of accepted and not established connections of one address (for IPv6, of one /64). Further ones
/// are closed.
pub(crate) const ACCEPTED_PER_ADDRESS_MAX: usize = 16;

/// An output of the negotiation for the machine.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// Signal this to the peer.
    Signal { session: SessionId, signal: Signal },
    /// The session has its connection, which belongs to the machine from now on.
    Established { session: SessionId, on: ConnId, tls: bool },
    /// An address that the peer offered is dialled.
    Dialled { session: SessionId, on: ConnId, to: SocketAddr },
    /// The session has ended without a connection.
    Failed { session: SessionId, why: SessionFailure, connect_error: Option<ConnectError> },
}

/// A DTCP endpoint within a machine.
#[derive(Clone, Debug)]
pub(crate) struct DtcpEndpoint {
    negotiation: Negotiation,
    /// The limit of accepted connections; the negotiation has the same one.
    accepted_max: usize,
    conns: SortedVecMap<LinkId, ConnId>,
    /// The addresses of the accepted links.
    accepted: SortedVecMap<LinkId, Source>,
    connect_errors: SortedVecMap<SessionId, ConnectError>,
    deadline: Option<Time>,
}

impl DtcpEndpoint {
    /// An endpoint without sessions. For the seed see [`Negotiation::new`].
    pub(crate) fn new(config: Config, seed: [u8; 32]) -> Self {
        Self {
            accepted_max: config.accepted_max.max(1),
            negotiation: Negotiation::new(config, seed),
            conns: SortedVecMap::default(),
            accepted: SortedVecMap::default(),
            connect_errors: SortedVecMap::default(),
            deadline: None,
        }
    }

    /// The negotiation, for methods about sessions; but see [`DtcpEndpoint::cancel`].
    pub(crate) fn negotiation(&mut self) -> &mut Negotiation {
        &mut self.negotiation
    }

    /// Whether there is no session, so that no accepted connection can have a correct key.
    pub(crate) fn is_idle(&self) -> bool {
        self.negotiation.sessions() == 0
    }

    /// Whether a session has a link to which the peer may have committed.
    pub(crate) fn has_links(&self, session: SessionId) -> bool {
        self.conns.keys().any(|link| self.negotiation.session_of_link(*link) == Some(session))
    }

    /// Closes accepted connections without a correct key, since without sessions there are no keys.
    pub(crate) fn dismiss_strangers(&mut self) {
        for &link in core::mem::take(&mut self.accepted).keys() {
            if self.negotiation.session_of_link(link).is_none() {
                self.negotiation.handle_end(link);
            }
        }
    }

    /// Cancels a session. Returns why its dials failed.
    pub(crate) fn cancel(&mut self, session: SessionId) -> Option<ConnectError> {
        self.negotiation.cancel(session);
        self.connect_errors.remove(&session)
    }

    /// Handles an accepted connection. If there are too many, the oldest one without a correct key is closed: a
    /// legitimate peer needs only a few round trips.
    pub(crate) fn accept(&mut self, on: ConnId, from: SocketAddr, now: Now) -> LinkId {
        let source = Source::from(from.ip());
        let of_source = self.accepted.values().filter(|it| **it == source).count();
        if of_source < ACCEPTED_PER_ADDRESS_MAX && self.accepted.len() >= self.accepted_max {
            let idle = |link: &&LinkId| self.negotiation.session_of_link(**link).is_none();
            let oldest = self.accepted.keys().find(idle).copied();
            if let Some(oldest) = oldest {
                self.negotiation.handle_end(oldest);
                self.accepted.remove(&oldest);
            }
        }
        let link = self.negotiation.handle_accepted(now.mono);
        self.conns.insert(link, on);
        if of_source < ACCEPTED_PER_ADDRESS_MAX {
            self.accepted.insert(link, source);
        } else {
            self.negotiation.handle_end(link);
        }
        link
    }

    /// [`Machine::handle_resolved`](machine::Machine::handle_resolved) of a link.
    pub(crate) fn resolved(&mut self, link: LinkId, addresses: &[SocketAddr]) {
        self.negotiation.handle_resolved(link, addresses);
    }

    /// [`Machine::handle_connected`](machine::Machine::handle_connected) of a link.
    pub(crate) fn connected(&mut self, link: LinkId) {
        self.negotiation.handle_connected(link);
    }

    /// [`Machine::handle_dial_failed`](machine::Machine::handle_dial_failed) of a link.
    pub(crate) fn dial_failed(&mut self, link: LinkId, why: DialFailure) {
        self.record_error(link, ConnectError::Dial(why));
        self.negotiation.handle_dial_failed(link);
    }

    /// [`Machine::handle_secured`](machine::Machine::handle_secured) of a link.
    pub(crate) fn secured(&mut self, link: LinkId, tls: Secured) {
        let session = self.negotiation.session_of_link(link);
        self.negotiation.handle_tls_up(link, tls.certificate);
        if let Some(session) = session
            && self.negotiation.session_of_link(link).is_none()
        {
            self.connect_errors.insert(session, ConnectError::Tls(TlsFailure::Certificate));
        }
    }

    /// [`Machine::handle_tls_failed`](machine::Machine::handle_tls_failed) of a link.
    pub(crate) fn tls_failed(&mut self, link: LinkId, why: TlsFailure) {
        self.record_error(link, ConnectError::Tls(why));
        self.negotiation.handle_tls_failed(link);
    }

    /// [`Machine::handle_bytes`](machine::Machine::handle_bytes) of a link.
    pub(crate) fn bytes(&mut self, link: LinkId, bytes: &[u8]) -> usize {
        let session = self.negotiation.session_of_link(link);
        let used = self.negotiation.handle_bytes(link, bytes);
        if let Some(session) = session
            && self.negotiation.session_of_link(link).is_none()
        {
            // If the link was established instead, the session has ended and this entry is removed.
            self.connect_errors.get_or_insert_with(session, || ConnectError::Handshake);
        }
        if let Some(session) = self.negotiation.take_in_clear() {
            self.connect_errors.insert(session, ConnectError::NoTls);
        }
        used
    }

    /// [`Machine::handle_end`](machine::Machine::handle_end) or
    /// [`Machine::handle_write_failed`](machine::Machine::handle_write_failed) of a link.
    pub(crate) fn ended(&mut self, link: LinkId, how: End) {
        self.record_error(link, ConnectError::Handshake);
        match how {
            // TLS may have been violated: a reset would overtake the alert.
            End::Truncated => self.negotiation.handle_tls_failed(link),
            End::Clean | End::Reset => self.negotiation.handle_end(link),
        }
    }

    /// [`Machine::handle_timeout`](machine::Machine::handle_timeout).
    pub(crate) fn timeout(&mut self, now: Now) {
        self.negotiation.handle_timeout(now.mono);
    }

    /// Carries out the negotiation's outputs on `conns`, up to the next action. `state` makes the state of a
    /// connection that is dialled. `None`: there is nothing more to do until an event, or until the deadline.
    pub(crate) fn poll<S>(
        &mut self,
        conns: &mut Conns<S>,
        state: impl Fn(LinkId) -> S,
        now: Now,
    ) -> Option<Action> {
        loop {
            match self.negotiation.poll_output() {
                Output::Idle { until } => {
                    self.deadline = until;
                    debug_assert_eq!(
                        self.conns.len(),
                        self.negotiation.links(),
                        "a link has lost its connection"
                    );
                    return None;
                }
                Output::Signal { session, signal } => return Some(Action::Signal { session, signal }),
                Output::Established { session, link, tls } => {
                    self.connect_errors.remove(&session);
                    if let Some(on) = self.forget(link) {
                        // Reading may have been stopped until our request was answered.
                        conns.emit(machine::Output::Read { on, wanted: true });
                        return Some(Action::Established { session, on, tls });
                    }
                }
                Output::Failed { session, why } => {
                    let connect_error = self.connect_errors.remove(&session);
                    return Some(Action::Failed { session, why, connect_error });
                }
                Output::Resolve { link, host, port } => {
                    let on = self.conn(conns, link, &state);
                    conns.emit(machine::Output::Resolve { on, host, port });
                }
                Output::Dial { link, to } => {
                    let on = self.conn(conns, link, &state);
                    conns.set_from(on, to);
                    conns.emit(machine::Output::Dial { on, to });
                    if let Some(session) = self.negotiation.session_of_link(link) {
                        return Some(Action::Dialled { session, on, to });
                    }
                }
                Output::Withheld { session } => {
                    self.connect_errors.get_or_insert_with(session, || ConnectError::Budget);
                }
                Output::Close { link, how } => {
                    if let Some(on) = self.forget(link) {
                        conns.close(on, how, now);
                    }
                }
                Output::Write { link, bytes } => self.with(link, |on| conns.send(on, bytes.0)),
                Output::StartTls { link, role } => {
                    let role = match role {
                        TlsRole::Server => machine::TlsRole::DirectServer,
                        TlsRole::Client => machine::TlsRole::DirectClient,
                    };
                    self.with(link, |on| conns.emit(machine::Output::StartTls { on, role }));
                }
                Output::Read { link, wanted } => {
                    self.with(link, |on| conns.emit(machine::Output::Read { on, wanted }));
                }
            }
        }
    }

    /// Merges the negotiation's next deadline, as of the last [`DtcpEndpoint::poll`], into a machine's
    /// [`Output::Idle`].
    pub(crate) fn merge_idle(&self, output: machine::Output) -> machine::Output {
        match (output, self.deadline) {
            (machine::Output::Idle { until, .. }, Some(ours)) if until.is_none_or(|until| ours < until) => {
                machine::Output::Idle { until: Some(ours), why: "a direct connection" }
            }
            (output, _) => output,
        }
    }

    /// The connection of a link; made if there is none yet.
    fn conn<S>(&mut self, conns: &mut Conns<S>, link: LinkId, state: impl Fn(LinkId) -> S) -> ConnId {
        *self.conns.get_or_insert_with(link, || conns.insert(state(link), None))
    }

    fn with(&self, link: LinkId, act: impl FnOnce(ConnId)) {
        if let Some(on) = self.conns.get(&link) {
            act(*on);
        }
    }

    fn forget(&mut self, link: LinkId) -> Option<ConnId> {
        self.accepted.remove(&link);
        self.conns.remove(&link)
    }

    fn record_error(&mut self, link: LinkId, connect_error: ConnectError) {
        let Some(session) = self.negotiation.session_of_link(link) else { return };
        let worst = self.connect_errors.get_or_insert_with(session, || connect_error);
        if *worst != ConnectError::Tls(TlsFailure::Certificate) {
            *worst = connect_error;
        }
    }
}
