//! Raw clients, and clients whose TLS the agent terminates (`docs/protocol.md §10`).

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use super::forwarding::Unforwarded;
use super::{Agent, EndToEnd, RawTarget, Sealed, ServiceKind, State, Upstream, conn_state};
use crate::client_hello::{self, ClientHello};
use crate::conn::{Close, ConnId, Secured, TlsFailure, TlsRole};
use crate::event::Event;
use crate::fingerprint::Fingerprint;
use crate::http::accept::AnswerForm;
use crate::http::head::{Finder, Found};
use crate::http::reply::{Status, Switching, write_switching};
use crate::machine::Output;
use crate::pair::{EndReason, PairEnd};
use crate::proxy_header::{self, RawName};
use crate::relay_client::HostPort;
use crate::time::Now;

/// The response to a request that the relay could read.
const IN_CLEAR: Unforwarded = Unforwarded {
    status: Status::Forbidden403,
    why: "the hidden server is end-to-end, and this request came in clear through the relay",
};
/// The response to a connector that asks for anything but a stream.
pub(super) const NO_STREAM: Unforwarded =
    Unforwarded { status: Status::Forbidden403, why: "a connector may ask for a stream alone" };
const NO_SUCH_PORT: &str = "no local service for this port of the relay";
const KEY_REMOVED: &str = "the client's key was removed from the list";
const NO_SUBJECT: &str = "the client has no certificate of a trusted CA";
const OTHER_NAME: &str = "the ClientHello names another host than the PROXY header of the relay";

/// Whether a ClientHello names this host; `None` if it is incomplete.
pub(super) fn is_named(hello: &ClientHello, name: &str) -> Option<bool> {
    match hello {
        ClientHello::Partial => None,
        ClientHello::Name(own) => Some(own == name),
        ClientHello::NoName | ClientHello::NotTls | ClientHello::Refused(_) => Some(false),
    }
}

impl Upstream {
    /// The local service that a client asks for, with the TLS that it uses.
    pub(super) fn place_of(&self, asked: ServiceKind) -> Option<(&HostPort, Option<u16>)> {
        let stream = self.stream.as_ref().map(|place| (place, None));
        let http = self.service.as_ref().map(|place| (place, self.service_tls));
        match asked {
            ServiceKind::Http { .. } => http,
            // A connector is not asked for the password of the HTTP service.
            ServiceKind::Stream { .. } => stream.or(http.filter(|_| self.basic_auth.is_none())),
            ServiceKind::Raw(RawTarget::H2) => http.filter(|_| self.service_h2 && self.basic_auth.is_none()),
            ServiceKind::Raw(RawTarget::Stream) => stream.filter(|_| self.stream_takes_ports),
            ServiceKind::Raw(RawTarget::Port(port)) => {
                self.ports.get(usize::from(port)).map(|(_, place)| (place, None))
            }
            ServiceKind::Raw(RawTarget::Tls) => match &self.end_to_end {
                EndToEnd::PassTo(place) => Some((place, None)),
                EndToEnd::Off | EndToEnd::Terminate => None,
            },
        }
    }
}

impl Agent {
    /// Handles the PROXY header of a client. Returns whether the client is a raw one and was handled.
    pub(super) fn take_raw(&mut self, on: ConnId, header: &[u8], now: Now) -> bool {
        let Some(conn) = self.conns.state(on) else { return false };
        let upstream = &self.config.upstreams[usize::from(conn.upstream)];
        if !upstream.takes_raw() {
            return false;
        }
        match (proxy_header::raw_name(header), &upstream.end_to_end) {
            (Err(why), _) => self.lose_client(on, why, Close::Abort, now),
            (Ok(None), _) => return false,
            (Ok(Some(RawName::Host(name))), EndToEnd::Terminate) => {
                let state = State::Hello { name, reader: client_hello::Reader::default() };
                self.enter(on, state, Some(now.mono + self.config.head_timeout));
            }
            (Ok(Some(RawName::Host(_))), EndToEnd::PassTo(_)) => {
                self.serve_client(on, ServiceKind::Raw(RawTarget::Tls), None, now);
            }
            (Ok(Some(RawName::Host(_))), EndToEnd::Off) => {
                self.lose_client(on, "this agent terminates no TLS of clients", Close::Abort, now);
            }
            (Ok(Some(RawName::Port(label))), _) => {
                let own = upstream.ports.iter().position(|(known, _)| *known == label);
                let target = match own.map(u16::try_from) {
                    Some(Ok(port)) => Some(RawTarget::Port(port)),
                    _ => upstream.place_of(ServiceKind::Raw(RawTarget::Stream)).map(|_| RawTarget::Stream),
                };
                match target {
                    Some(target) => self.serve_client(on, ServiceKind::Raw(target), None, now),
                    None => self.lose_client(on, NO_SUCH_PORT, Close::Abort, now),
                }
            }
        }
        true
    }

    /// Handles a raw client's ClientHello. Its bytes stay, since they belong to the handshake.
    pub(super) fn read_hello(&mut self, on: ConnId, is_named: Option<bool>, now: Now) {
        match is_named {
            None => {}
            Some(false) => self.lose_client(on, OTHER_NAME, Close::Abort, now),
            Some(true) => {
                let name = match conn_state(&mut self.conns, on) {
                    Some(State::Hello { name, .. }) => core::mem::take(name),
                    _ => return,
                };
                self.seal(on, Some(name), now);
            }
        }
    }

    /// Begins the client's TLS.
    fn seal(&mut self, on: ConnId, name: Option<String>, now: Now) {
        let role = if name.is_some() { TlsRole::EndToEnd } else { TlsRole::EndToEndStream };
        if let Some(conn) = self.conns.state(on) {
            conn.sealed = Some(Box::new(Sealed { name, subject: None, key: None }));
        }
        self.enter(on, State::Sealing, Some(now.mono + self.config.head_timeout));
        self.conns.emit(Output::StartTls { on, role });
    }

    /// The client's handshake is complete: its request comes next.
    pub(super) fn sealed(&mut self, on: ConnId, tls: Secured, now: Now) {
        let is_subject_missing = self.config.subject && tls.subject.is_none();
        if let Some(sealed) = self.conns.state(on).and_then(|conn| conn.sealed.as_mut()) {
            (sealed.subject, sealed.key) = (tls.subject.filter(|_| self.config.subject), tls.key);
        }
        if is_subject_missing && self.name_of(on).is_some() {
            return self.lose_client(on, NO_SUBJECT, Close::Linger, now);
        }
        if tls.is_h2 && self.name_of(on).is_some() {
            return self.serve_client(on, ServiceKind::Raw(RawTarget::H2), None, now);
        }
        self.enter(on, State::Head(Finder::default()), Some(now.mono + self.config.head_timeout));
    }

    /// Ends everything of clients with these keys.
    pub(super) fn end_clients_with(&mut self, keys: &[Fingerprint], now: Now) {
        for on in self.conns.open_ids() {
            if self.key_of(on).is_some_and(|key| keys.contains(&key)) {
                self.end_client(on, now);
            }
        }
        // Clients that have left the relay and are about to connect directly.
        for local in self.locals_of_keys(keys) {
            self.lose_ready(local, KEY_REMOVED, now);
        }
    }

    fn end_client(&mut self, on: ConnId, now: Now) {
        match conn_state(&mut self.conns, on) {
            Some(State::Paired(_)) => {
                let (hidden, client) = (Close::Abort, Close::Abort);
                let over = PairEnd { hidden, client, why: EndReason::KeyRemoved };
                let ended = self.conns.end_pair(on, over, now);
                self.pair_over(ended, now);
            }
            Some(State::Deciding { .. }) => self.lose_undecided(on, KEY_REMOVED, Close::Abort, now),
            Some(State::Leaving) => self.close(on, Close::Abort, now),
            Some(&mut State::Meeting { local, .. }) => {
                self.lose_client(on, KEY_REMOVED, Close::Abort, now);
                self.close(local, Close::Abort, now);
            }
            Some(_) => self.lose_client(on, KEY_REMOVED, Close::Abort, now),
            None => {}
        }
    }

    /// The key of this client, if clients must have a listed one.
    pub(super) fn key_of(&mut self, on: ConnId) -> Option<Fingerprint> {
        self.conns.state(on)?.sealed.as_ref()?.key
    }

    /// The client's handshake failed. The alert is being sent.
    pub(super) fn not_sealed(&mut self, on: ConnId, why: TlsFailure, now: Now) {
        let from = self.conns.from(on);
        let upstream = self.conns.state(on).map(|conn| conn.upstream);
        self.conns.event(Event::TlsFailed { on, from, upstream, why });
        self.close(on, Close::Linger, now);
        upstream.into_iter().for_each(|upstream| self.unanswered_client(upstream, now));
    }

    /// Whether the agent terminates the TLS of this client.
    pub(super) fn is_sealed(&mut self, on: ConnId) -> bool {
        self.conns.state(on).is_some_and(|conn| conn.sealed.is_some())
    }

    /// The host that every request of this client must name, if there is one.
    pub(super) fn name_of(&mut self, on: ConnId) -> Option<&str> {
        self.conns.state(on)?.sealed.as_ref()?.name.as_deref()
    }

    /// Whether this client may ask for the stream service. Inside TLS that the agent terminates, HTTP clients get the
    /// HTTP service and connectors the stream service. In clear both are possible.
    pub(super) fn may_ask_for_stream(&mut self, on: ConnId) -> bool {
        self.name_of(on).is_none()
    }

    /// Whether this client is a connector inside TLS that the agent terminates.
    pub(super) fn is_sealed_connector(&mut self, on: ConnId) -> bool {
        self.is_sealed(on) && self.name_of(on).is_none()
    }

    /// Whether this client must be refused because the relay can read its bytes.
    pub(super) fn refuses_clear(&mut self, on: ConnId) -> bool {
        let Some(conn) = self.conns.state(on) else { return false };
        let (upstream, is_clear) = (conn.upstream, conn.sealed.is_none());
        is_clear && self.upstream(upstream).end_to_end != EndToEnd::Off
    }

    /// Handles the head of a request in clear: a connector's, which continues with TLS, or one that is refused.
    /// Returns how many bytes were consumed.
    pub(super) fn read_sealed_request(&mut self, on: ConnId, bytes: &[u8], now: Now) -> usize {
        let limits = self.config.head;
        let terminates = self.terminates(on);
        let Some(State::Head(finder)) = conn_state(&mut self.conns, on) else { return 0 };
        match finder.find(bytes, &limits) {
            Found::Partial => 0,
            Found::Complete(whole)
                if terminates && whole.parse().is_ok_and(|head| head.asks_sealed_stream()) =>
            {
                let mut text = Vec::new();
                write_switching(&mut text, Switching::Sealed);
                self.conns.send(on, text);
                self.seal(on, None, now);
                whole.bytes().len()
            }
            Found::Complete(_) | Found::Refused(_) => {
                self.refuse_request(on, IN_CLEAR, AnswerForm::of(bytes), now);
                0
            }
        }
    }

    /// A request in clear did not arrive in time.
    pub(super) fn refuse_clear(&mut self, on: ConnId, now: Now) {
        self.refuse_request(on, IN_CLEAR, AnswerForm::default(), now);
    }

    fn terminates(&mut self, on: ConnId) -> bool {
        let Some(conn) = self.conns.state(on) else { return false };
        let upstream = conn.upstream;
        self.upstream(upstream).end_to_end == EndToEnd::Terminate
    }
}
