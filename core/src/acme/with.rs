//! A client beside another machine, on one event loop.
//!
//! Connections of the machine inside have index `index + RESERVED` outside; those below are the client's. What the machine
//! inside emits is passed on unchanged otherwise, ids in its notes are its own. So the machine inside may be a
//! [`Recorder`](crate::trace::Recorder): its traces do not contain the client.

use alloc::vec::Vec;
use core::net::SocketAddr;

use super::action::{Action, Answer, QuestionId};
use super::client::Client;
use crate::account::Owners;
use crate::machine::{ConnId, DialFailure, End, Listener, Machine, Output, Secured, TlsFailure};
use crate::time::{Now, Span};

/// How many indices of connections are the client's.
const RESERVED: u32 = 64;

/// A machine, and an ACME client beside it if one is wanted. See the [module](self).
#[derive(Debug)]
pub struct With<M> {
    inner: M,
    client: Option<Client>,
    /// The entry of the driver's list of upstreams that has the CA's name and trust anchors.
    upstream: u16,
}

impl<M: Machine> With<M> {
    /// A machine with a client. `upstream` is the entry of the driver's list of upstreams with the server name and the trust
    /// anchors of the CA ([`TlsRole::Client`](crate::machine::TlsRole::Client)); its ALPN is `http/1.1` alone.
    #[must_use]
    pub const fn new(inner: M, client: Option<Client>, upstream: u16) -> Self {
        Self { inner, client, upstream }
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
    pub const fn client(&self) -> Option<&Client> {
        self.client.as_ref()
    }

    /// The client, to be told something. [`With::poll_action`] and [`Machine::poll_output`] follow.
    pub const fn client_mut(&mut self) -> Option<&mut Client> {
        self.client.as_mut()
    }

    /// The next action of the client. The driver asks until it is `None`, whenever the machine is idle; and it calls
    /// [`Machine::poll_output`] again after each answer.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.client.as_mut()?.poll_action()
    }

    /// The answer to a question of the client.
    pub fn handle_answer(&mut self, id: QuestionId, answer: Answer, now: Now) {
        if let Some(client) = &mut self.client {
            client.handle_answer(id, answer, now);
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

fn translate(output: Output) -> Output {
    match output {
        Output::Send { to, len } => Output::Send { to: outward(to), len },
        Output::Read { on, wanted } => Output::Read { on: outward(on), wanted },
        Output::Pair { hidden, client } => Output::Pair { hidden: outward(hidden), client: outward(client) },
        Output::Gate { on } => Output::Gate { on: outward(on) },
        Output::Pass { from, bytes } => Output::Pass { from: outward(from), bytes },
        Output::StartTls { on, role } => Output::StartTls { on: outward(on), role },
        Output::Resolve { on, host, port } => Output::Resolve { on: outward(on), host, port },
        Output::Dial { on, to } => Output::Dial { on: outward(on), to },
        Output::UserTimeout { on, after } => Output::UserTimeout { on: outward(on), after },
        Output::CheckAck { on } => Output::CheckAck { on: outward(on) },
        Output::LocalAddress { on } => Output::LocalAddress { on: outward(on) },
        Output::CloseWrite { on } => Output::CloseWrite { on: outward(on) },
        Output::Close { on, how } => Output::Close { on: outward(on), how },
        Output::Event(_) | Output::Idle { .. } => output,
    }
}

impl<M: Machine> Machine for With<M> {
    fn handle_open(&mut self, on: Listener, from: SocketAddr, now: Now) -> ConnId {
        outward(self.inner.handle_open(on, from, now))
    }

    fn handle_found(&mut self, on: ConnId, addresses: &[SocketAddr], now: Now) {
        if let Some(on) = inward(on) {
            self.inner.handle_found(on, addresses, now);
        }
    }

    fn handle_resolved(&mut self, on: ConnId, addresses: &[SocketAddr], now: Now) {
        if let Some(on) = inward(on) {
            self.inner.handle_resolved(on, addresses, now);
        }
    }

    fn handle_connected(&mut self, on: ConnId, now: Now) {
        if let Some(on) = inward(on) {
            self.inner.handle_connected(on, now);
        }
    }

    fn handle_dial_failed(&mut self, on: ConnId, why: DialFailure, now: Now) {
        if let Some(on) = inward(on) {
            self.inner.handle_dial_failed(on, why, now);
        }
    }

    fn handle_secured(&mut self, on: ConnId, tls: Secured, now: Now) {
        if let Some(on) = inward(on) {
            self.inner.handle_secured(on, tls, now);
        }
    }

    fn handle_tls_failed(&mut self, on: ConnId, why: TlsFailure, now: Now) {
        if let Some(on) = inward(on) {
            self.inner.handle_tls_failed(on, why, now);
        }
    }

    fn handle_bytes(&mut self, on: ConnId, bytes: &[u8], now: Now) -> usize {
        inward(on).map_or(0, |on| self.inner.handle_bytes(on, bytes, now))
    }

    fn handle_last_bytes(&mut self, on: ConnId, now: Now) {
        if let Some(on) = inward(on) {
            self.inner.handle_last_bytes(on, now);
        }
    }

    fn handle_moved(&mut self, from: ConnId, read: u32, queued: u32, now: Now) {
        if let Some(from) = inward(from) {
            self.inner.handle_moved(from, read, queued, now);
        }
    }

    fn handle_flushed(&mut self, on: ConnId, now: Now) {
        if let Some(on) = inward(on) {
            self.inner.handle_flushed(on, now);
        }
    }

    fn handle_acked(&mut self, on: ConnId, age: Option<Span>, now: Now) {
        if let Some(on) = inward(on) {
            self.inner.handle_acked(on, age, now);
        }
    }

    fn handle_round_trip(&mut self, on: ConnId, round_trip: Span, now: Now) {
        if let Some(on) = inward(on) {
            self.inner.handle_round_trip(on, round_trip, now);
        }
    }

    fn handle_local_address(&mut self, on: ConnId, local: SocketAddr, now: Now) {
        if let Some(on) = inward(on) {
            self.inner.handle_local_address(on, local, now);
        }
    }

    fn handle_end(&mut self, on: ConnId, how: End, now: Now) {
        if let Some(on) = inward(on) {
            self.inner.handle_end(on, how, now);
        }
    }

    fn handle_write_failed(&mut self, on: ConnId, now: Now) {
        if let Some(on) = inward(on) {
            self.inner.handle_write_failed(on, now);
        }
    }

    fn handle_stalled(&mut self, on: ConnId, now: Now) {
        if let Some(on) = inward(on) {
            self.inner.handle_stalled(on, now);
        }
    }

    fn owners(&self, on: ConnId) -> Owners {
        inward(on).map_or_else(Owners::default, |on| self.inner.owners(on))
    }

    fn kept(&self, on: ConnId) -> usize {
        inward(on).map_or(0, |on| self.inner.kept(on))
    }

    fn handle_closed(&mut self, on: ConnId, now: Now) {
        if let Some(on) = inward(on) {
            self.inner.handle_closed(on, now);
        }
    }

    fn handle_timeout(&mut self, now: Now) {
        self.inner.handle_timeout(now);
        if let Some(client) = &mut self.client {
            client.handle_timeout(now);
        }
    }

    fn poll_output(&mut self, text: &mut Vec<u8>) -> Output {
        let _ = self.upstream;
        match self.inner.poll_output(text) {
            Output::Idle { until, why } => match self.client.as_ref().and_then(Client::due) {
                Some(due) if until.is_none_or(|until| due < until) => {
                    Output::Idle { until: Some(due), why: "certificates" }
                }
                _ => Output::Idle { until, why },
            },
            output => translate(output),
        }
    }
}
