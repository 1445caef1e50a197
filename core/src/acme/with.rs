//! A client beside another machine, on one event loop.
//!
//! The connections of the client have the lowest indices, those of its HTTP listeners the next ones, and those of the other
//! machine the rest. All else that the other machine emits is passed on unchanged; ids in its events are its own. So it
//! may be a [`Recorder`](crate::trace::Recorder): its traces do not contain the client.

use alloc::vec::Vec;
use core::net::SocketAddr;

use super::action::{Action, Answer, QuestionId};
use super::client::{Client, Wanted};
use super::http_listener::{self, HttpListener};
use super::transport::{CONNECTIONS_MAX, Settings, Transport};
use crate::account::Owners;
use crate::machine::{ConnId, DialFailure, End, Listener, Machine, Output, Secured, TlsFailure};
use crate::time::{Now, Span, Time};

/// The number of indices for connections to the CA.
const TO_CA: u32 = CONNECTIONS_MAX as u32;

/// A machine, and an ACME client beside it if one is wanted. See the [module](self).
#[derive(Debug)]
pub struct With<M> {
    inner: M,
    acme: Option<Acme>,
    /// The first listener that is not the other machine's.
    http_from: Option<Listener>,
}

#[derive(Debug)]
struct Acme {
    client: Client,
    transport: Transport,
    http: Option<HttpListener>,
}

impl Acme {
    /// Moves requests and responses between the client and its connections.
    fn pump(&mut self, now: Now) {
        loop {
            if let Some((id, response)) = self.transport.take_result() {
                self.client.handle_response(id, response, now);
            }
            match self.client.poll_request() {
                Some(request) => self.transport.start(request, now),
                None => break,
            }
        }
        if let Some(http) = &mut self.http {
            http.set_challenges(self.client.provided());
        }
    }
}

impl<M: Machine> With<M> {
    /// A machine with a client. `upstream` is the entry of the driver's list of upstreams with the server name and the trust
    /// anchors of the CA ([`TlsRole::Client`](crate::machine::TlsRole::Client)); its ALPN is `http/1.1` alone.
    #[must_use]
    pub fn new(inner: M, client: Option<Client>, upstream: u16) -> Self {
        let acme = client.map(|client| {
            let config = client.config();
            let settings = Settings {
                user_agent: config.user_agent.clone(),
                deadlines: config.deadlines,
                body_max: config.body_max,
            };
            Acme { transport: Transport::new(upstream, settings), client, http: None }
        });
        Self { inner, acme, http_from: None }
    }

    /// Serves HTTP-01 and redirects to HTTPS on `first` and all listeners behind it, with at most `connections_max`
    /// connections (at most 256). Without a client it does nothing. It must come before the first connection.
    #[must_use]
    pub fn with_http(mut self, first: Listener, connections_max: u32) -> Self {
        if let Some(acme) = &mut self.acme {
            acme.http = Some(HttpListener::new(connections_max));
            self.http_from = Some(first);
        }
        self
    }

    /// The machine.
    pub const fn inner(&self) -> &M {
        &self.inner
    }

    /// The machine, for calls of its own methods. [`Machine::poll_output`] follows each call.
    pub const fn inner_mut(&mut self) -> &mut M {
        &mut self.inner
    }

    /// The client, if there is one.
    #[must_use]
    pub fn client(&self) -> Option<&Client> {
        self.acme.as_ref().map(|it| &it.client)
    }

    /// [`Client::set_wanted`].
    pub fn set_wanted(&mut self, wanted: Vec<Wanted>, now: Now) {
        self.tell(now, |client| client.set_wanted(wanted, now));
    }

    /// [`Client::set_reachable`].
    pub fn set_reachable(&mut self, is_reachable: bool, now: Now) {
        self.tell(now, |client| client.set_reachable(is_reachable, now));
    }

    /// [`Client::replace_account_key`].
    pub fn replace_account_key(&mut self, now: Now) {
        self.tell(now, |client| client.replace_account_key(now));
    }

    /// The next action of the client. The driver asks until it is `None`, whenever the machine is idle; and it calls
    /// [`Machine::poll_output`] again after each answer.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.acme.as_mut()?.client.poll_action()
    }

    /// The answer to a question of the client.
    pub fn handle_answer(&mut self, id: QuestionId, answer: Answer, now: Now) {
        self.tell(now, |client| client.handle_answer(id, answer, now));
    }

    fn tell(&mut self, now: Now, what: impl FnOnce(&mut Client)) {
        if let Some(acme) = &mut self.acme {
            what(&mut acme.client);
            acme.pump(now);
        }
    }

    /// The number of indices that are not the other machine's.
    const fn reserved(&self) -> u32 {
        match self.http_from {
            Some(_) => TO_CA + http_listener::INDICES,
            None => TO_CA,
        }
    }

    /// The connection's id in the other machine; `None` if it belongs to the client.
    fn inward(&self, on: ConnId) -> Option<ConnId> {
        on.index.checked_sub(self.reserved()).map(|index| ConnId { index, ..on })
    }

    /// Passes an event on to the machine that the connection belongs to.
    fn on_event(&mut self, on: ConnId, now: Now, event: impl FnOnce(&mut dyn Machine, ConnId)) {
        if let Some(on) = self.inward(on) {
            return event(&mut self.inner, on);
        }
        let Some(acme) = &mut self.acme else { return };
        match (on.index.checked_sub(TO_CA), &mut acme.http) {
            (Some(index), Some(http)) => event(http, ConnId { index, ..on }),
            (Some(_), None) | (None, _) => event(&mut acme.transport, on),
        }
        acme.pump(now);
    }
}

/// The id outside of a connection whose machine has the indices from `first` on.
fn outward(on: ConnId, first: u32) -> ConnId {
    let index = on.index.checked_add(first).unwrap_or_else(|| unreachable!("2³² connections"));
    ConnId { index, ..on }
}

impl<M: Machine> Machine for With<M> {
    fn handle_open(&mut self, on: Listener, from: SocketAddr, now: Now) -> ConnId {
        let http = self.acme.as_mut().and_then(|acme| acme.http.as_mut());
        match (http, self.http_from) {
            (Some(http), Some(first)) if first <= on => outward(http.handle_open(on, from, now), TO_CA),
            (Some(_) | None, _) => outward(self.inner.handle_open(on, from, now), self.reserved()),
        }
    }

    fn handle_found(&mut self, on: ConnId, addresses: &[SocketAddr], now: Now) {
        self.on_event(on, now, |machine, on| machine.handle_found(on, addresses, now));
    }

    fn handle_resolved(&mut self, on: ConnId, addresses: &[SocketAddr], now: Now) {
        self.on_event(on, now, |machine, on| machine.handle_resolved(on, addresses, now));
    }

    fn handle_connected(&mut self, on: ConnId, now: Now) {
        self.on_event(on, now, |machine, on| machine.handle_connected(on, now));
    }

    fn handle_dial_failed(&mut self, on: ConnId, why: DialFailure, now: Now) {
        self.on_event(on, now, |machine, on| machine.handle_dial_failed(on, why, now));
    }

    fn handle_secured(&mut self, on: ConnId, tls: Secured, now: Now) {
        self.on_event(on, now, |machine, on| machine.handle_secured(on, tls, now));
    }

    fn handle_tls_failed(&mut self, on: ConnId, why: TlsFailure, now: Now) {
        self.on_event(on, now, |machine, on| machine.handle_tls_failed(on, why, now));
    }

    fn handle_bytes(&mut self, on: ConnId, bytes: &[u8], now: Now) -> usize {
        let mut used = 0;
        self.on_event(on, now, |machine, on| used = machine.handle_bytes(on, bytes, now));
        used
    }

    fn handle_last_bytes(&mut self, on: ConnId, now: Now) {
        self.on_event(on, now, |machine, on| machine.handle_last_bytes(on, now));
    }

    fn handle_moved(&mut self, from: ConnId, read: u32, queued: u32, now: Now) {
        self.on_event(from, now, |machine, from| machine.handle_moved(from, read, queued, now));
    }

    fn handle_flushed(&mut self, on: ConnId, now: Now) {
        self.on_event(on, now, |machine, on| machine.handle_flushed(on, now));
    }

    fn handle_acked(&mut self, on: ConnId, age: Option<Span>, now: Now) {
        self.on_event(on, now, |machine, on| machine.handle_acked(on, age, now));
    }

    fn handle_round_trip(&mut self, on: ConnId, round_trip: Span, now: Now) {
        self.on_event(on, now, |machine, on| machine.handle_round_trip(on, round_trip, now));
    }

    fn handle_local_address(&mut self, on: ConnId, local: SocketAddr, now: Now) {
        self.on_event(on, now, |machine, on| machine.handle_local_address(on, local, now));
    }

    fn handle_end(&mut self, on: ConnId, how: End, now: Now) {
        self.on_event(on, now, |machine, on| machine.handle_end(on, how, now));
    }

    fn handle_write_failed(&mut self, on: ConnId, now: Now) {
        self.on_event(on, now, |machine, on| machine.handle_write_failed(on, now));
    }

    fn handle_stalled(&mut self, on: ConnId, now: Now) {
        self.on_event(on, now, |machine, on| machine.handle_stalled(on, now));
    }

    fn owners(&self, on: ConnId) -> Owners {
        if let Some(on) = self.inward(on) {
            return self.inner.owners(on);
        }
        let Some(acme) = &self.acme else { return Owners::default() };
        match (on.index.checked_sub(TO_CA), &acme.http) {
            (Some(index), Some(http)) => http.owners(ConnId { index, ..on }),
            (Some(_), None) | (None, _) => acme.transport.owners(on),
        }
    }

    fn kept(&self, on: ConnId) -> usize {
        self.inward(on).map_or(0, |on| self.inner.kept(on))
    }

    fn handle_closed(&mut self, on: ConnId, now: Now) {
        self.on_event(on, now, |machine, on| machine.handle_closed(on, now));
    }

    fn handle_timeout(&mut self, now: Now) {
        self.inner.handle_timeout(now);
        if let Some(acme) = &mut self.acme {
            acme.client.handle_timeout(now);
            acme.transport.handle_timeout(now);
            if let Some(http) = &mut acme.http {
                http.handle_timeout(now);
            }
            acme.pump(now);
        }
    }

    fn poll_output(&mut self, text: &mut Vec<u8>) -> Output {
        let reserved = self.reserved();
        let (mut until, mut why) = match self.inner.poll_output(text) {
            Output::Idle { until, why } => (until, why),
            output => return output.map_ids(|on| outward(on, reserved)),
        };
        let Some(acme) = &mut self.acme else { return Output::Idle { until, why } };
        let mut sooner = |at: Option<Time>, of: &'static str| {
            if at.is_some_and(|at| until.is_none_or(|until| at < until)) {
                (until, why) = (at, of);
            }
        };
        match acme.transport.poll_output(text) {
            Output::Idle { until, why } => sooner(until, why),
            output => return output,
        }
        match acme.http.as_mut().map(|http| http.poll_output(text)) {
            None => {}
            Some(Output::Idle { until, why }) => sooner(until, why),
            Some(output) => return output.map_ids(|on| outward(on, TO_CA)),
        }
        sooner(Some(acme.client.due()), "certificates");
        Output::Idle { until, why }
    }
}
