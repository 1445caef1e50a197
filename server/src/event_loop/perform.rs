//! Performs the outputs of the machine.

use std::io;
use std::net::SocketAddr;

use rendezvous_core::client_hello;
use rendezvous_core::machine::{ConnId, DialFailure, End, Machine, Output, TlsFailure, TlsRole};

use super::{EventLoop, Input, find};
use crate::alpn;
use crate::direct_tls::DirectTls;
use crate::escape::Escaped;
use crate::net::{Net, Resolved};
use crate::slot::{Gate, Link, Pairing, Writing};
use crate::tls::TlsSession;

impl<N: Net> EventLoop<N, dyn Machine> {
    /// Starts performing an output. Its result is queued as an input.
    pub(super) fn perform(&mut self, output: Output) {
        match output {
            Output::Send { to, len } => {
                debug_assert_eq!(len as usize, self.text.len(), "the bytes of one Send");
                let text = std::mem::take(&mut self.text);
                self.send(to, &text);
                self.text = text;
            }
            Output::Read { on, wanted } => {
                if let Some(slot) = self.slot(on) {
                    slot.read.wanted = wanted;
                    slot.read.fresh = wanted;
                    self.enqueue(on);
                }
            }
            Output::Pair { hidden, client } => {
                for (on, peer) in [(hidden, client), (client, hidden)] {
                    self.charge_like(on, client);
                    if let Some(slot) = self.slot(on) {
                        slot.pairing = Pairing::With(peer);
                        slot.read.gate = Gate::Open;
                        slot.read.wanted = true;
                        slot.is_client = on == client;
                        self.enqueue(on);
                    }
                    self.limit_unsent(on);
                    self.limit_rate(on);
                }
                // Session tickets may already be queued for the client. Without this input, the machine would not watch
                // for its acknowledgements.
                let queued = self.queued(client);
                if queued > 0 {
                    self.inputs.push_back(Input::Moved { from: hidden, read: 0, queued });
                }
            }
            Output::Gate { on } => {
                if let Some(slot) = self.slot(on) {
                    slot.read.gate = Gate::After(0);
                    slot.read.fresh = true;
                    slot.read.last_reported = false;
                }
            }
            Output::Pass { from, bytes } => {
                if let Some(slot) = self.slot(from) {
                    slot.read.gate.pass(bytes);
                    self.enqueue(from);
                }
            }
            Output::StartTls { on, role } => self.start_tls(on, role),
            Output::Resolve { on, host, port } => {
                self.slot_for(on);
                self.net.resolve(on, &host, port);
            }
            Output::Dial { on, to } => self.dial(on, to),
            Output::UserTimeout { on, after } => {
                if let Some((slot, net)) = self.slot_and_net(on)
                    && let Some(sock) = slot.sock()
                {
                    net.user_timeout(sock, after);
                }
            }
            Output::CheckAck { on } => {
                let (mut round_trip, mut age) = (None, None);
                if let Some((slot, net)) = self.slot_and_net(on)
                    && let Some(sock) = slot.sock()
                {
                    (round_trip, age) = (net.round_trip(sock), net.last_ack(sock));
                }
                if let Some(round_trip) = round_trip {
                    self.inputs.push_back(Input::RoundTrip { on, round_trip });
                }
                self.inputs.push_back(Input::Acked { on, age });
            }
            Output::LocalAddress { on } => self.tell_local_address(on),
            Output::CloseWrite { on } => {
                if let Some(slot) = self.slot(on)
                    && slot.write.phase == Writing::Open
                {
                    slot.write.phase = Writing::Ending;
                    self.flush(on);
                }
            }
            Output::Close { on, how } => self.close(on, how),
            Output::Event(event) => self.events.push(event),
            Output::Idle { .. } => {}
        }
    }

    fn tell_local_address(&mut self, on: ConnId) {
        let Some((slot, net)) = self.slot_and_net(on) else { return };
        let Some(sock) = slot.sock() else {
            return debug_assert!(false, "not up, and asked for its address");
        };
        match net.local_address(sock) {
            Ok(local) => self.inputs.push_back(Input::LocalAddress { on, local }),
            Err(_) => self.report_end(on, End::Reset),
        }
    }

    fn start_tls(&mut self, on: ConnId, role: TlsRole) {
        let session = match role {
            TlsRole::Server => self.tls.server.clone().map(TlsSession::server),
            TlsRole::EndToEnd => {
                // The machine has read the whole ClientHello, which is still in the parked buffer.
                let parked = find(&mut self.slots, on).and_then(|slot| slot.read.parked);
                let hello = parked.map_or(&[][..], |parked| self.pool[parked].filled());
                let is_validation = client_hello::offers_only(hello, alpn::CHALLENGE);
                self.tls.end_to_end.as_ref().map(|end_to_end| match &end_to_end.challenges {
                    Some(challenges) if is_validation => TlsSession::server(challenges.clone()),
                    _ => TlsSession::server(end_to_end.http.clone()),
                })
            }
            TlsRole::EndToEndStream => self
                .tls
                .end_to_end
                .as_ref()
                .map(|end_to_end| TlsSession::server(end_to_end.connectors.clone())),
            TlsRole::Client { upstream } => {
                let upstream = self.tls.upstreams.get(usize::from(upstream)).cloned();
                upstream.map(|(config, name)| TlsSession::client(config, name))
            }
            TlsRole::DirectServer => {
                self.tls.direct.as_ref().map(|direct| TlsSession::server(direct.server.clone()))
            }
            TlsRole::DirectClient => self
                .tls
                .direct
                .as_ref()
                .map(|direct| TlsSession::client(direct.client.clone(), DirectTls::name())),
        };
        match session {
            Some(Ok(session)) => {
                let Some(slot) = find(&mut self.slots, on) else { return };
                slot.role = Some(role);
                // Bytes behind those that the machine consumed belong to the TLS session.
                let parked = slot.read.parked.take();
                let wire = parked.map_or_else(Vec::new, |parked| self.pool[parked].filled().to_vec());
                match &mut slot.tls {
                    Some(outer) => {
                        if let Err(error) = outer.begin_inner(session, wire) {
                            log::error!("event=tls-setup reason={}", Escaped(&error.to_string()));
                            self.inputs.push_back(Input::TlsFailed(on, TlsFailure::Protocol));
                        }
                    }
                    None => {
                        slot.tls = Some(Box::new(session));
                        slot.may_be_http = role == TlsRole::Server;
                        slot.read.wire = wire;
                    }
                }
                // Run TLS even before the peer sends anything: a client sends first.
                slot.read.unopened = true;
                self.give(parked);
                // A PROXY header may have changed the accounts of the connection.
                self.charge_like(on, on);
                self.charge(on);
                self.enqueue(on);
            }
            Some(Err(error)) => {
                log::error!("event=tls-setup reason={}", Escaped(&error.to_string()));
                self.inputs.push_back(Input::TlsFailed(on, TlsFailure::Protocol));
            }
            None => {
                debug_assert!(false, "TLS without a configuration for it");
                self.inputs.push_back(Input::TlsFailed(on, TlsFailure::Protocol));
            }
        }
    }

    fn dial(&mut self, on: ConnId, to: SocketAddr) {
        self.slot_for(on);
        let sock = match self.net.connect(to) {
            Ok(sock) => sock,
            Err(error) => return self.inputs.push_back(Input::DialFailed(on, dial_failure(&error))),
        };
        let Some((slot, net)) = self.slot_and_net(on) else { return };
        let mut sock = sock;
        let watched = net.watch(&mut sock, on);
        slot.read.ready = true;
        slot.write.ready = true;
        slot.link = Link::Dialling(sock);
        if let Err(error) = watched {
            slot.link = Link::None;
            self.inputs.push_back(Input::DialFailed(on, dial_failure(&error)));
        }
    }

    /// Handles a writable dialling socket, which may be connected.
    pub(super) fn finish_dial(&mut self, on: ConnId) {
        let Some((slot, net)) = self.slot_and_net(on) else { return };
        if !slot.write.ready {
            return;
        }
        let Link::Dialling(mut sock) = std::mem::replace(&mut slot.link, Link::None) else { return };
        match net.connected(&mut sock) {
            Ok(true) => {
                slot.link = Link::Up(sock);
                self.machine.handle_connected(on, self.now);
                self.enqueue(on);
            }
            Ok(false) => {
                // The first edge may come before the socket is connected.
                slot.write.ready = false;
                slot.link = Link::Dialling(sock);
            }
            Err(error) => {
                net.close(sock);
                self.machine.handle_dial_failed(on, dial_failure(&error), self.now);
            }
        }
        self.settle();
    }

    /// Hands resolved names to the machine.
    pub(super) fn handle_resolved(&mut self) {
        while let Some(Resolved { on, addresses, is_complete }) = self.net.resolved() {
            if self.slot(on).is_none() {
                continue;
            }
            match (addresses.is_empty(), is_complete) {
                (true, _) => self.machine.handle_dial_failed(on, DialFailure::Name, self.now),
                (false, true) => self.machine.handle_resolved(on, &addresses, self.now),
                (false, false) => self.machine.handle_found(on, &addresses, self.now),
            }
            self.settle();
        }
    }
}

fn dial_failure(error: &io::Error) -> DialFailure {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => DialFailure::Refused,
        io::ErrorKind::TimedOut
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::ConnectionReset => DialFailure::Unreachable,
        _ => DialFailure::Local,
    }
}
