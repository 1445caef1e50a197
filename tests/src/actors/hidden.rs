//! Hidden servers: those that connect to the relay themselves, including old ones, and local services behind an agent.

use std::net::SocketAddr;

use rendezvous_core::id::Id;
use rendezvous_core::machine::End;
use rendezvous_core::time::{Span, Time};
use rendezvous_core::token::Key;

use super::channel::{Channel, Tls};
use super::client::REST;
use super::script::{Behaviour, Progress, Script, field};
use super::{Actor, Ending, key_of, moment};
use crate::model::ByteLedger;
use crate::rng::Rng;
use crate::sim_net::{Ep, ProcessId, World};

/// The kind of a hidden server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// It keeps a pool of waiting connections, each with a token bound to a nonce.
    Modern {
        /// The size of the pool.
        pool: usize,
    },
    /// As in 2013: one connection with a plain token. When a client comes or the connection ends, it opens the next one
    /// at once. It neither reads nor closes connections that it no longer needs.
    Old,
    /// It sends bytes while it waits.
    EarlySender,
    /// Its waiting connections are reset, end, or are lost by a NAT, after a while.
    Fickle,
    /// It sends registrations that others have sent before.
    Replayer,
    /// It listens, and an agent connects to it.
    Service,
}

/// A hidden server.
pub struct Hidden {
    at: SocketAddr,
    id: Id,
    style: Style,
    key: Key,
    rng: Rng,
    endings: Vec<Ending>,
    bytes_max: u64,
    /// How it answers; drawn at random if `None`.
    behaviour: Option<Behaviour>,
    tls: Option<Tls>,
    lines: Vec<Line>,
    next_try: Time,
    nonce: u64,
    /// Number of clients that it has served.
    pub met: u64,
    retired: bool,
}

enum State {
    Registering,
    Waiting { until: Option<Time> },
    Serving,
}

struct Line {
    script: Script,
    /// The number of its bound registration.
    registration: Option<usize>,
    state: State,
}

impl Hidden {
    /// A hidden server of this ID. `at` is its relay, or for a service its own address.
    #[must_use]
    pub fn new(at: SocketAddr, id: Id, style: Style, rng: Rng) -> Self {
        Self {
            at,
            id,
            style,
            key: key_of(id),
            rng,
            endings: vec![Ending::HalfClose],
            bytes_max: 1_000,
            behaviour: None,
            tls: None,
            lines: Vec::new(),
            next_try: Time(0),
            nonce: 0,
            met: 0,
            retired: false,
        }
    }

    /// Sets how it answers: the maximum length in bytes, and the possible endings.
    #[must_use]
    pub fn answering(mut self, bytes_max: u64, endings: &[Ending]) -> Self {
        self.bytes_max = bytes_max;
        self.endings = endings.to_vec();
        self
    }

    /// Sets one behaviour for all answers.
    #[must_use]
    pub const fn holding(mut self, behaviour: Behaviour) -> Self {
        self.behaviour = Some(behaviour);
        self
    }

    /// Sets its TLS.
    #[must_use]
    pub fn secured(mut self, tls: Option<Tls>) -> Self {
        self.tls = tls;
        self
    }

    fn pool(&self) -> usize {
        match self.style {
            Style::Modern { pool } => pool,
            Style::Service => 0,
            Style::Old | Style::EarlySender | Style::Fickle | Style::Replayer => 1,
        }
    }

    fn registration(&mut self, world: &World, who: ProcessId, ledger: &ByteLedger) -> String {
        let step = self.key.step(world.clocks(who).wall);
        let id = self.id;
        if self.style == Style::Old {
            let token = self.key.plain(step);
            let token = String::from_utf8_lossy(token.as_bytes()).into_owned();
            return format!("CONNECT uuid:{id}?response={token} HTTP/1.1\r\n\r\n");
        }
        if self.style == Style::Replayer {
            let back = usize::try_from(self.rng.below(6)).unwrap_or(0);
            if let Some(text) = ledger.copied(id, back) {
                return text.to_owned();
            }
        }
        self.nonce += 1;
        bound_registration(id, step, &format!("nonce-of-{}-{:012}", who.0, self.nonce))
    }

    fn begin_lines(&mut self, who: ProcessId, world: &mut World, ledger: &mut ByteLedger) {
        let waiting = |line: &Line| !matches!(line.state, State::Serving);
        while self.lines.iter().filter(|line| waiting(line)).count() < self.pool() {
            if world.now() < self.next_try {
                return world.sleep_until(who, self.next_try);
            }
            let Ok(ep) = world.connect(who, self.at) else {
                self.next_try = world.now() + REST;
                continue;
            };
            let behaviour = Behaviour { bytes: u64::MAX, ending: Ending::AfterPeer, ..Behaviour::plain(0) };
            let mut script = Script::new(Channel::new(ep, self.tls.as_ref()), behaviour, world.now());
            let text = self.registration(world, who, ledger);
            let registration = (self.style != Style::Old).then(|| ledger.registers(self.id, &text));
            script.emit(text.as_bytes());
            self.lines.push(Line { script, registration, state: State::Registering });
        }
    }

    fn accept(&mut self, who: ProcessId, world: &mut World) {
        while let Some(ep) = world.accept(self.at) {
            self.take(ep, world.now());
            world.schedule(who);
        }
    }

    fn take(&mut self, ep: Ep, now: Time) {
        let script = Script::new(Channel::new(ep, None), Behaviour::plain(u64::MAX), now);
        self.lines.push(Line { script, registration: None, state: State::Waiting { until: None } });
    }

    /// Handles a head on this line. Returns false if the line is useless afterwards.
    fn on_head(&mut self, line: &mut Line, head: &str, world: &World, ledger: &mut ByteLedger) -> bool {
        let now = world.now();
        match line.state {
            State::Registering if head.starts_with("HTTP/1.1 200") => {
                if let Some(registration) = line.registration {
                    ledger.accepted(registration);
                }
                let until = match self.style {
                    Style::EarlySender | Style::Fickle => Some(now + moment(&mut self.rng, 20_000_000)),
                    _ => None,
                };
                line.state = State::Waiting { until };
                let forever = Behaviour { patience: Span::from_secs(1_000_000), ..line.script.behaviour };
                line.script.change(forever, now);
                true
            }
            State::Registering => {
                self.next_try = now + REST;
                false
            }
            State::Waiting { .. } if head.contains("\r\nUpgrade: octet-stream\r\n") => {
                // A connector sends its bytes only after the 101.
                line.script.emit(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n");
                line.script.emit(b"Upgrade: octet-stream\r\n\r\n");
                true
            }
            State::Waiting { .. } => {
                let flow = field(head, "X-Flow").and_then(|value| value.parse().ok());
                let flow = flow.unwrap_or_else(|| panic!("a head that no client sent: {head:?}"));
                assert!(!head.contains("Authorization"), "the credential was passed on");
                if !ledger.met(flow, self.id) {
                    return false;
                }
                self.met += 1;
                let answer = ledger.begin(self.id, Some(flow));
                let behaviour = match self.behaviour {
                    Some(behaviour) => behaviour,
                    None => Behaviour::draw(&mut self.rng, self.bytes_max, &self.endings),
                };
                line.script.change(behaviour, now);
                let head = match head {
                    _ if head.contains("\r\nUpgrade: raw\r\n") => {
                        "101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw".to_owned()
                    }
                    _ if answer.is_multiple_of(3) && !head.starts_with("HEAD ") => {
                        format!("200 OK\r\nContent-Length: {}", behaviour.bytes)
                    }
                    _ => "200 OK".to_owned(),
                };
                line.script.emit(format!("HTTP/1.1 {head}\r\nX-Answer: {answer:08}\r\n\r\n").as_bytes());
                line.script.send_flow(answer);
                line.script.read_flow(flow, ledger);
                line.state = State::Serving;
                true
            }
            State::Serving => panic!("a second head"),
        }
    }

    /// Ends, resets or loses a waiting connection whose time is over.
    fn misbehave(&mut self, line: &mut Line, who: ProcessId, world: &mut World) {
        let State::Waiting { until: Some(until) } = line.state else { return };
        if world.now() < until {
            return world.sleep_until(who, until);
        }
        line.state = State::Waiting { until: None };
        let ep = line.script.channel().ep();
        match (self.style, self.rng.below(3)) {
            (Style::EarlySender, _) => line.script.emit(b"hello?"),
            (_, 0) => line.script.abort(world),
            (_, 1) => world.lose(ep),
            _ => {
                let _ = world.end_write(ep);
            }
        }
    }
}

/// A CONNECT with the token of this ID for this time step, bound to this nonce.
#[must_use]
pub fn bound_registration(id: Id, step: u64, nonce: &str) -> String {
    let token = key_of(id).bound(step, nonce.as_bytes());
    let token: String = token.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("CONNECT uuid:{id}?response={token}&nonce={nonce} HTTP/1.1\r\n\r\n")
}

impl Actor for Hidden {
    fn act(&mut self, who: ProcessId, world: &mut World, ledger: &mut ByteLedger) {
        if self.style == Style::Service {
            self.accept(who, world);
        } else if !self.retired {
            self.begin_lines(who, world, ledger);
        }
        let mut lines = std::mem::take(&mut self.lines);
        lines.retain_mut(|line| {
            self.misbehave(line, who, world);
            loop {
                match line.script.go_on(who, world, ledger) {
                    Progress::Quiet => return true,
                    Progress::Head(head) => {
                        if !self.on_head(line, &head, world, ledger) {
                            line.script.abort(world);
                        }
                    }
                    Progress::Ended => {
                        let lost = !matches!(line.state, State::Serving);
                        if lost && line.script.peer_end != Some(End::Clean) {
                            self.next_try = self.next_try.max(world.now() + REST);
                        }
                        world.schedule(who);
                        return false;
                    }
                }
            }
        });
        self.lines = lines;
        if self.style == Style::Old {
            // It uses only its newest waiting connection. It never reads the others.
            let unread = self.lines.iter().filter(|line| !matches!(line.state, State::Serving)).count();
            debug_assert!(unread <= 1 || self.retired, "an old one has one");
        }
    }

    fn retire(&mut self) {
        self.retired = true;
    }

    fn leave(&mut self, world: &mut World) {
        self.retired = true;
        for mut line in std::mem::take(&mut self.lines) {
            line.script.abort(world);
        }
    }

    fn is_done(&self) -> bool {
        self.lines.iter().all(|line| !matches!(line.state, State::Serving))
    }
}
