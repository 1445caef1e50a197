//! Both ends of the demo: a hidden web page, and a client that fetches it.

use std::collections::VecDeque;
use std::net::SocketAddr;

use data_encoding::BASE64;
use rendezvous_core::account::Owners;
use rendezvous_core::http::head::{Finder, Found, Limits};
use rendezvous_core::id::Id;
use rendezvous_core::machine::{
    Close, ConnId, DialFailure, End, Listener, Machine, Output, Secured, TlsFailure, TlsRole,
};
use rendezvous_core::time::{Now, Span};
use slab::Slab;

/// The page.
pub(super) const PAGE: &str = "\
<!doctype html><meta charset=utf-8><title>Hidden</title>
<h1>This page is hidden</h1>
<p>Its server listens only on loopback. You reached it through a relay.</p>
";

/// A web server with one page, and a client that requests it once.
#[derive(Debug)]
pub(super) struct Ends {
    conns: Slab<Conn>,
    generation: u32,
    outputs: VecDeque<(Output, Vec<u8>)>,
    fetched: Option<Result<String, String>>,
}

#[derive(Debug)]
struct Conn {
    generation: u32,
    role: Role,
}

#[derive(Debug)]
enum Role {
    Server { finder: Finder },
    Visitor { request: Vec<u8>, answer: Vec<u8> },
    Closing,
}

impl Ends {
    pub(super) const fn new() -> Self {
        Self { conns: Slab::new(), generation: 0, outputs: VecDeque::new(), fetched: None }
    }

    /// Starts to fetch the page of hidden server `id` from the relay at `relay`.
    pub(super) fn fetch(&mut self, relay: SocketAddr, id: Id) {
        let user = BASE64.encode(format!("{id}:demo").as_bytes());
        let request = format!(
            "GET / HTTP/1.1\r\nHost: {relay}\r\nAuthorization: Basic {user}\r\nConnection: close\r\n\r\n"
        );
        let on = self.insert(Role::Visitor { request: request.into_bytes(), answer: Vec::new() });
        self.emit(Output::Dial { on, to: relay });
    }

    /// Takes the result of the fetch: the response body or an error. Returned only once.
    pub(super) const fn fetched(&mut self) -> Option<Result<String, String>> {
        self.fetched.take()
    }

    fn insert(&mut self, role: Role) -> ConnId {
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        let generation = self.generation;
        let index = self.conns.insert(Conn { generation, role });
        ConnId { index: u32::try_from(index).unwrap_or(u32::MAX), generation }
    }

    fn role(&mut self, on: ConnId) -> Option<&mut Role> {
        let conn = self.conns.get_mut(on.index as usize)?;
        (conn.generation == on.generation).then_some(&mut conn.role)
    }

    fn emit(&mut self, output: Output) {
        self.outputs.push_back((output, Vec::new()));
    }

    fn send(&mut self, to: ConnId, bytes: Vec<u8>) {
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.outputs.push_back((Output::Send { to, len }, bytes));
    }

    fn close(&mut self, on: ConnId) {
        if let Some(role) = self.role(on)
            && !matches!(role, Role::Closing)
        {
            *role = Role::Closing;
            self.emit(Output::Close { on, how: Close::Linger });
        }
    }

    fn answer(&mut self, on: ConnId) {
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            PAGE.len()
        );
        self.send(on, [head.as_bytes(), PAGE.as_bytes()].concat());
        self.close(on);
    }

    fn visit_over(&mut self, on: ConnId, failed: Option<&str>) {
        let Some(Role::Visitor { answer, .. }) = self.role(on) else { return };
        let text = String::from_utf8_lossy(answer).into_owned();
        self.fetched = Some(match (failed, text.split_once("\r\n\r\n")) {
            (None, Some((head, body))) if head.starts_with("HTTP/1.1 200 ") => Ok(body.to_owned()),
            (None, _) => Err(format!("the answer was '{}'", text.lines().next().unwrap_or_default())),
            (Some(why), _) => Err(why.to_owned()),
        });
        self.close(on);
    }
}

impl Machine for Ends {
    fn handle_open(&mut self, _: Listener, _: SocketAddr, _: Now) -> ConnId {
        self.insert(Role::Server { finder: Finder::default() })
    }

    fn handle_resolved(&mut self, _: ConnId, _: &[SocketAddr], _: Now) {}

    fn handle_connected(&mut self, on: ConnId, _: Now) {
        self.emit(Output::StartTls { on, role: TlsRole::Client { upstream: 0 } });
    }

    fn handle_dial_failed(&mut self, on: ConnId, _: DialFailure, _: Now) {
        self.visit_over(on, Some("the relay could not be reached"));
    }

    fn handle_secured(&mut self, on: ConnId, _: Secured, _: Now) {
        if let Some(Role::Visitor { request, .. }) = self.role(on) {
            let request = std::mem::take(request);
            self.send(on, request);
        }
    }

    fn handle_tls_failed(&mut self, on: ConnId, _: TlsFailure, _: Now) {
        self.visit_over(on, Some("TLS with the relay failed"));
    }

    fn handle_bytes(&mut self, on: ConnId, bytes: &[u8], _: Now) -> usize {
        match self.role(on) {
            Some(Role::Server { finder }) => match finder.find(bytes, &Limits::default()) {
                Found::Partial => return 0,
                Found::Complete(_) => self.answer(on),
                Found::Refused(_) => self.close(on),
            },
            Some(Role::Visitor { answer, .. }) => answer.extend_from_slice(bytes),
            Some(Role::Closing) | None => {}
        }
        bytes.len()
    }

    fn handle_moved(&mut self, _: ConnId, _: u32, _: u32, _: Now) {}

    fn handle_flushed(&mut self, _: ConnId, _: Now) {}

    fn handle_acked(&mut self, _: ConnId, _: Option<Span>, _: Now) {}

    fn handle_end(&mut self, on: ConnId, how: End, _: Now) {
        let failed = if how == End::Clean { None } else { Some("the answer was cut off") };
        self.visit_over(on, failed);
        self.close(on);
    }

    fn handle_write_failed(&mut self, on: ConnId, _: Now) {
        self.visit_over(on, Some("the request could not be sent"));
        self.close(on);
    }

    fn handle_stalled(&mut self, on: ConnId, now: Now) {
        self.handle_write_failed(on, now);
    }

    fn owners(&self, _: ConnId) -> Owners {
        Owners::default()
    }

    fn handle_closed(&mut self, on: ConnId, _: Now) {
        if self.role(on).is_some() {
            self.conns.remove(on.index as usize);
        }
    }

    fn handle_timeout(&mut self, _: Now) {}

    fn poll_output(&mut self, text: &mut Vec<u8>) -> Output {
        match self.outputs.pop_front() {
            Some((output, bytes)) => {
                text.extend_from_slice(&bytes);
                output
            }
            None => Output::Idle { until: None, why: "nothing" },
        }
    }
}
