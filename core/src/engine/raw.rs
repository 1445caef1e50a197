//! Raw clients: the relay neither answers nor interprets their bytes, except for the server name in a ClientHello
//! (`docs/protocol.md §10`).

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::{Answer, Engine, NOBODY, Request, State};
use crate::client_hello::{self, Alert, ClientHello};
use crate::conn::{Close, ConnId, NamedBy};
use crate::event::Event;
use crate::http::reply::Status;
use crate::http::target;
use crate::id::Id;
use crate::machine::{Output, TlsRole};
use crate::proxy_header::{self, RawName};
use crate::time::Now;

impl Engine {
    /// Handles bytes at the beginning of a TLS handshake. `bytes` is everything received so far. Returns how many
    /// were consumed.
    pub(super) fn hello(&mut self, on: ConnId, hello: ClientHello, bytes: &[u8], now: Now) -> usize {
        match hello {
            ClientHello::Partial => 0,
            ClientHello::Name(name) => match self.end_to_end_of(on, &name, bytes) {
                Some(id) => {
                    self.begin_raw(on, id, &RawName::Host(name), bytes, Answer::Alert, now);
                    bytes.len()
                }
                None => self.terminate_tls(on),
            },
            // The TLS library refuses bytes that are not TLS, or recognises HTTP in clear.
            ClientHello::NoName | ClientHello::NotTls => self.terminate_tls(on),
            // It may name a hidden server that terminates TLS itself, so the relay must not do it.
            ClientHello::Refused(why) => {
                self.refuse_raw(on, None, Status::BadRequest400, why.why(), Some(Alert::DecodeError), now);
                0
            }
        }
    }

    /// The end-to-end hidden server of a connection's server name; `None` for the agent's own connection.
    fn end_to_end_of(&mut self, on: ConnId, name: &str, hello: &[u8]) -> Option<Id> {
        self.note_server_name(on, name);
        if self.config.group && client_hello::offers_only(hello, client_hello::AGENT_PROTOCOL) {
            return None;
        }
        self.end_to_end_named(name).filter(|id| !self.is_misdirected(on, Some(*id)))
    }

    /// The end-to-end hidden server of a server name.
    fn end_to_end_named(&self, name: &str) -> Option<Id> {
        let label = target::label(name, self.config.domain.as_deref()?)?;
        self.registry.labelled(label).filter(|id| self.registry.is_end_to_end(*id))
    }

    /// The relay terminates TLS. The received bytes stay: they belong to the handshake, whose deadline runs.
    fn terminate_tls(&mut self, on: ConnId) -> usize {
        if let Some(state) = self.conns.state(on) {
            *state = State::Securing;
        }
        self.conns.emit(Output::StartTls { on, role: TlsRole::Server });
        0
    }

    /// A connection to a port for raw clients was accepted. It is handed over before the client has sent a byte,
    /// since in many protocols the server sends first.
    pub(super) fn begin_by_port(&mut self, on: ConnId, port: u16, now: Now) {
        let label = self.config.ports.get(usize::from(port)).cloned();
        match (self.registry.of_port(port), label) {
            (Some(id), Some(label)) => self.begin_raw(on, id, &RawName::Port(label), &[], Answer::Reset, now),
            _ => self.refuse_raw(on, None, Status::NotFound404, NOBODY, None, now),
        }
    }

    fn begin_raw(&mut self, on: ConnId, id: Id, name: &RawName, bytes: &[u8], answer: Answer, now: Now) {
        if let Some(why) = self.cannot_serve(on) {
            return self.refuse_client(on, Some(id), Status::Unavailable503, why, answer, now);
        }
        let mut head = Vec::new();
        proxy_header::write_raw(self.conns.from(on), name, &mut head);
        head.extend_from_slice(bytes);
        let head = head.into_boxed_slice();
        let named_by = match name {
            RawName::Host(_) => NamedBy::ServerName,
            RawName::Port(_) => NamedBy::Port,
        };
        self.conns.set_named_by(on, named_by);
        let request = Box::new(Request::new(head, true, answer, None, now));
        self.serve_client(on, id, request, now);
    }

    /// Refuses a raw client with a TLS alert or a reset, so that it does not look like the end of a stream.
    pub(super) fn refuse_raw(
        &mut self,
        on: ConnId,
        id: Option<Id>,
        status: Status,
        why: &'static str,
        alert: Option<Alert>,
        now: Now,
    ) {
        let from = self.conns.from(on);
        self.conns.event(Event::Refused { on, from, id, status, why });
        match alert {
            Some(alert) => {
                self.conns.send(on, alert.record().to_vec());
                self.conns.close(on, Close::Linger, now);
            }
            None => self.conns.close(on, Close::Abort, now),
        }
    }
}
