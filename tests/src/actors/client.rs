//! Clients: HTTP clients at the relay, and local programs at a connector.

use std::fmt::Write as _;
use std::net::SocketAddr;

use rendezvous_core::id::Id;
use rendezvous_core::machine::End;
use rendezvous_core::time::{Span, Time};

use super::Actor;
use super::channel::{Channel, Tls};
use super::script::{Behaviour, Progress, Script, field};
use crate::hello::hello;
use crate::model::ByteLedger;
use crate::sim_net::{ProcessId, World};

/// A client that requests a hidden server from a relay, once.
pub struct Client {
    to: SocketAddr,
    id: Id,
    begins: Time,
    behaviour: Behaviour,
    method: &'static str,
    /// It sends the ID only after the challenge.
    challenged: bool,
    tls: Option<Tls>,
    flow: Option<usize>,
    script: Option<Script>,
    /// The statuses of the relay's own answers.
    pub refusals: Vec<u16>,
    /// It reached its hidden server.
    pub met: bool,
    over: bool,
}

impl Client {
    /// A client of this ID that starts at this time.
    #[must_use]
    pub const fn new(to: SocketAddr, id: Id, begins: Time, behaviour: Behaviour) -> Self {
        Self {
            to,
            id,
            begins,
            behaviour,
            method: "GET",
            challenged: false,
            tls: None,
            flow: None,
            script: None,
            refusals: Vec::new(),
            met: false,
            over: false,
        }
    }

    /// Sets whether it sends the ID only after the challenge.
    #[must_use]
    pub const fn challenged(mut self, challenged: bool) -> Self {
        self.challenged = challenged;
        self
    }

    /// Sets the method of its request.
    #[must_use]
    pub const fn method(mut self, method: &'static str) -> Self {
        self.method = method;
        self
    }

    /// Sets its TLS.
    #[must_use]
    pub fn secured(mut self, tls: Option<Tls>) -> Self {
        self.tls = tls;
        self
    }

    /// How the response ended.
    #[must_use]
    pub fn peer_end(&self) -> Option<End> {
        self.script.as_ref()?.peer_end
    }

    fn request(&self, flow: usize, known: bool) -> String {
        let mut head = format!("{} /{flow} HTTP/1.1\r\nHost: relay\r\nX-Flow: {flow:08}\r\n", self.method);
        if known {
            let credential = format!("Authorization: Digest username=\"{}\", realm=\"r\"\r\n", self.id);
            head.push_str(&credential);
        }
        // After the head comes a body or another protocol. Anything else would not be HTTP.
        if flow.is_multiple_of(2) {
            head.push_str("Connection: Upgrade\r\nUpgrade: raw\r\n");
        } else if self.behaviour.bytes > 0 {
            let _ = write!(head, "Content-Length: {}\r\n", self.behaviour.bytes);
        }
        head.push_str("X-Last: 1\r\n\r\n");
        head
    }

    fn on_head(&mut self, head: &str, ledger: &mut ByteLedger) {
        let (Some(script), Some(flow)) = (&mut self.script, self.flow) else { return };
        if let Some(answer) = field(head, "X-Answer").and_then(|value| value.parse().ok()) {
            ledger.answered(answer, flow);
            script.read_flow(answer, ledger);
            self.met = true;
            return;
        }
        assert!(!self.met, "the relay answers in the middle of an answer");
        let status = head.get(9..12).and_then(|status| status.parse().ok());
        self.refusals.push(status.expect("an answer has a status"));
        let length = field(head, "Content-Length").and_then(|value| value.parse().ok()).unwrap_or(0);
        script.skip(if self.method == "HEAD" { 0 } else { length });
        if self.challenged && status == Some(401) {
            self.challenged = false;
            let request = self.request(flow, true);
            if let Some(script) = &mut self.script {
                script.emit(request.as_bytes());
                script.send_flow(flow);
            }
        }
    }
}

impl Actor for Client {
    fn act(&mut self, who: ProcessId, world: &mut World, ledger: &mut ByteLedger) {
        if self.over {
            return;
        }
        if world.now() < self.begins {
            return world.sleep_until(who, self.begins);
        }
        if self.script.is_none() {
            let Ok(ep) = world.connect(who, self.to) else { return self.over = true };
            let flow = *self.flow.get_or_insert_with(|| ledger.begin(self.id, None));
            let mut script = Script::new(Channel::new(ep, self.tls.as_ref()), self.behaviour, world.now());
            script.emit(self.request(flow, !self.challenged).as_bytes());
            if !self.challenged {
                script.send_flow(flow);
            }
            self.script = Some(script);
        }
        while let Some(script) = &mut self.script {
            match script.go_on(who, world, ledger) {
                Progress::Quiet => return,
                Progress::Head(head) => self.on_head(&head, ledger),
                Progress::Ended => return self.over = true,
            }
        }
    }

    fn retire(&mut self) {
        self.over |= self.script.is_none();
    }

    fn leave(&mut self, world: &mut World) {
        self.over = true;
        if let Some(script) = &mut self.script {
            script.abort(world);
        }
    }

    fn is_done(&self) -> bool {
        self.over
    }
}

/// A local program that uses a connector.
pub struct Program {
    to: SocketAddr,
    id: Id,
    begins: Time,
    behaviour: Behaviour,
    /// The host name in a ClientHello that it sends first.
    server_name: Option<&'static str>,
    flow: Option<usize>,
    script: Option<Script>,
    over: bool,
}

impl Program {
    /// A program that uses the stream service of this ID.
    #[must_use]
    pub const fn new(to: SocketAddr, id: Id, begins: Time, behaviour: Behaviour) -> Self {
        Self { to, id, begins, behaviour, server_name: None, flow: None, script: None, over: false }
    }

    /// Sets the host name in the ClientHello that it sends first.
    #[must_use]
    pub const fn naming(mut self, server_name: &'static str) -> Self {
        self.server_name = Some(server_name);
        self
    }

    /// How the received stream ended.
    #[must_use]
    pub fn peer_end(&self) -> Option<End> {
        self.script.as_ref()?.peer_end
    }
}

impl Actor for Program {
    fn act(&mut self, who: ProcessId, world: &mut World, ledger: &mut ByteLedger) {
        if self.over {
            return;
        }
        if world.now() < self.begins {
            return world.sleep_until(who, self.begins);
        }
        if self.script.is_none() {
            let Ok(ep) = world.connect(who, self.to) else { return self.over = true };
            let flow = *self.flow.get_or_insert_with(|| ledger.begin(self.id, None));
            let mut script = Script::new(Channel::new(ep, None), self.behaviour, world.now());
            if let Some(name) = self.server_name {
                script.emit(&hello(name));
            }
            script.emit(format!("HELLO\r\nX-Flow: {flow:08}\r\n\r\n").as_bytes());
            script.send_flow(flow);
            self.script = Some(script);
        }
        while let (Some(script), Some(flow)) = (&mut self.script, self.flow) {
            match script.go_on(who, world, ledger) {
                Progress::Quiet => return,
                Progress::Head(head) => {
                    let answer = field(&head, "X-Answer").and_then(|value| value.parse().ok());
                    let answer = answer.expect("nobody but the service talks to a local program");
                    ledger.answered(answer, flow);
                    script.read_flow(answer, ledger);
                }
                Progress::Ended => {
                    let end = script.peer_end;
                    assert!(end != Some(End::Truncated), "no TLS here");
                    return self.over = true;
                }
            }
        }
    }

    fn retire(&mut self) {
        self.over |= self.script.is_none();
    }

    fn leave(&mut self, world: &mut World) {
        self.over = true;
        if let Some(script) = &mut self.script {
            script.abort(world);
        }
    }

    fn is_done(&self) -> bool {
        self.over
    }
}

/// How long a refused peer waits before it retries.
pub(super) const REST: Span = Span::from_secs(1);
