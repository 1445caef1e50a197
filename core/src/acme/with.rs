//! A client beside another machine, on one event loop.
//!
//! Connections of the machine inside have index `index + RESERVED` outside; those below are the client's. What the machine
//! inside emits is passed on unchanged otherwise, ids in its notes are its own. So the machine inside may be a
//! [`Recorder`](crate::trace::Recorder): its traces do not contain the client.

use alloc::vec::Vec;
use core::net::SocketAddr;

use super::action::{Action, Answer, QuestionId};
use super::client::{Client, Wanted};
use super::transport::{CONNECTIONS_MAX, Settings, Transport};
use crate::account::Owners;
use crate::machine::{ConnId, DialFailure, End, Listener, Machine, Output, Secured, TlsFailure};
use crate::time::{Now, Span, Time};

/// How many indices of connections are the client's.
const RESERVED: u32 = CONNECTIONS_MAX as u32;

/// A machine, and an ACME client beside it if one is wanted. See the [module](self).
#[derive(Debug)]
pub struct With<M> {
    inner: M,
    acme: Option<Acme>,
}

#[derive(Debug)]
struct Acme {
    client: Client,
    transport: Transport,
}

impl Acme {
    /// Takes requests and responses between the client and its connections.
    fn pump(&mut self, now: Now) {
        loop {
            if let Some((id, response)) = self.transport.take_result() {
                self.client.handle_response(id, response, now);
            }
            match self.client.poll_request() {
                Some(request) => self.transport.start(request, now),
                None => return,
            }
        }
    }

    /// Something happened to one of the client's connections.
    fn on_event(&mut self, now: Now, event: impl FnOnce(&mut Transport)) {
        event(&mut self.transport);
        self.pump(now);
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
            Acme { transport: Transport::new(upstream, settings), client }
        });
        Self { inner, acme }
    }

    /// The machine.
    pub const fn inner(&self) -> &M {
        &self.inner
    }

    /// The machine, to be told something. [`Machine::poll_output`] follows as always.
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

    /// Something happened to one of the client's connections.
    fn on_event(&mut self, now: Now, event: impl FnOnce(&mut Transport)) {
        if let Some(acme) = &mut self.acme {
            acme.on_event(now, event);
        }
    }
}

/// The connection's id in the machine inside; `None`: it is the client's.
fn inward(on: ConnId) -> Option<ConnId> {
    on.index.checked_sub(RESERVED).map(|index| ConnId { index, ..on })
}

fn outward(on: ConnId) -> ConnId {
    let index = on.index.checked_add(RESERVED).unwrap_or_else(|| unreachable!("2³² connections"));
    ConnId { index, ..on }
}

impl<M: Machine> Machine for With<M> {
    fn handle_open(&mut self, on: Listener, from: SocketAddr, now: Now) -> ConnId {
        outward(self.inner.handle_open(on, from, now))
    }

    fn handle_found(&mut self, on: ConnId, addresses: &[SocketAddr], now: Now) {
        match inward(on) {
            Some(on) => self.inner.handle_found(on, addresses, now),
            None => self.on_event(now, |transport| transport.handle_found(on, addresses, now)),
        }
    }

    fn handle_resolved(&mut self, on: ConnId, addresses: &[SocketAddr], now: Now) {
        match inward(on) {
            Some(on) => self.inner.handle_resolved(on, addresses, now),
            None => self.on_event(now, |transport| transport.handle_resolved(on, addresses, now)),
        }
    }

    fn handle_connected(&mut self, on: ConnId, now: Now) {
        match inward(on) {
            Some(on) => self.inner.handle_connected(on, now),
            None => self.on_event(now, |transport| transport.handle_connected(on, now)),
        }
    }

    fn handle_dial_failed(&mut self, on: ConnId, why: DialFailure, now: Now) {
        match inward(on) {
            Some(on) => self.inner.handle_dial_failed(on, why, now),
            None => self.on_event(now, |transport| transport.handle_dial_failed(on, why, now)),
        }
    }

    fn handle_secured(&mut self, on: ConnId, tls: Secured, now: Now) {
        match inward(on) {
            Some(on) => self.inner.handle_secured(on, tls, now),
            None => self.on_event(now, |transport| transport.handle_secured(on, tls, now)),
        }
    }

    fn handle_tls_failed(&mut self, on: ConnId, why: TlsFailure, now: Now) {
        match inward(on) {
            Some(on) => self.inner.handle_tls_failed(on, why, now),
            None => self.on_event(now, |transport| transport.handle_tls_failed(on, why, now)),
        }
    }

    fn handle_bytes(&mut self, on: ConnId, bytes: &[u8], now: Now) -> usize {
        let Some(on) = inward(on) else {
            let mut used = 0;
            self.on_event(now, |transport| used = transport.handle_bytes(on, bytes, now));
            return used;
        };
        self.inner.handle_bytes(on, bytes, now)
    }

    fn handle_last_bytes(&mut self, on: ConnId, now: Now) {
        match inward(on) {
            Some(on) => self.inner.handle_last_bytes(on, now),
            None => self.on_event(now, |transport| transport.handle_last_bytes(on, now)),
        }
    }

    fn handle_moved(&mut self, from: ConnId, read: u32, queued: u32, now: Now) {
        match inward(from) {
            Some(from) => self.inner.handle_moved(from, read, queued, now),
            None => self.on_event(now, |transport| transport.handle_moved(from, read, queued, now)),
        }
    }

    fn handle_flushed(&mut self, on: ConnId, now: Now) {
        match inward(on) {
            Some(on) => self.inner.handle_flushed(on, now),
            None => self.on_event(now, |transport| transport.handle_flushed(on, now)),
        }
    }

    fn handle_acked(&mut self, on: ConnId, age: Option<Span>, now: Now) {
        match inward(on) {
            Some(on) => self.inner.handle_acked(on, age, now),
            None => self.on_event(now, |transport| transport.handle_acked(on, age, now)),
        }
    }

    fn handle_round_trip(&mut self, on: ConnId, round_trip: Span, now: Now) {
        match inward(on) {
            Some(on) => self.inner.handle_round_trip(on, round_trip, now),
            None => self.on_event(now, |transport| transport.handle_round_trip(on, round_trip, now)),
        }
    }

    fn handle_local_address(&mut self, on: ConnId, local: SocketAddr, now: Now) {
        match inward(on) {
            Some(on) => self.inner.handle_local_address(on, local, now),
            None => self.on_event(now, |transport| transport.handle_local_address(on, local, now)),
        }
    }

    fn handle_end(&mut self, on: ConnId, how: End, now: Now) {
        match inward(on) {
            Some(on) => self.inner.handle_end(on, how, now),
            None => self.on_event(now, |transport| transport.handle_end(on, how, now)),
        }
    }

    fn handle_write_failed(&mut self, on: ConnId, now: Now) {
        match inward(on) {
            Some(on) => self.inner.handle_write_failed(on, now),
            None => self.on_event(now, |transport| transport.handle_write_failed(on, now)),
        }
    }

    fn handle_stalled(&mut self, on: ConnId, now: Now) {
        match inward(on) {
            Some(on) => self.inner.handle_stalled(on, now),
            None => self.on_event(now, |transport| transport.handle_stalled(on, now)),
        }
    }

    fn owners(&self, on: ConnId) -> Owners {
        match (inward(on), &self.acme) {
            (Some(on), _) => self.inner.owners(on),
            (None, Some(acme)) => acme.transport.owners(on),
            (None, None) => Owners::default(),
        }
    }

    fn kept(&self, on: ConnId) -> usize {
        inward(on).map_or(0, |on| self.inner.kept(on))
    }

    fn handle_closed(&mut self, on: ConnId, now: Now) {
        match inward(on) {
            Some(on) => self.inner.handle_closed(on, now),
            None => self.on_event(now, |transport| transport.handle_closed(on, now)),
        }
    }

    fn handle_timeout(&mut self, now: Now) {
        self.inner.handle_timeout(now);
        if let Some(acme) = &mut self.acme {
            acme.client.handle_timeout(now);
            acme.on_event(now, |transport| transport.handle_timeout(now));
        }
    }

    fn poll_output(&mut self, text: &mut Vec<u8>) -> Output {
        let (mut until, mut why) = match self.inner.poll_output(text) {
            Output::Idle { until, why } => (until, why),
            output => return output.map_ids(outward),
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
        sooner(Some(acme.client.due()), "certificates");
        Output::Idle { until, why }
    }
}
