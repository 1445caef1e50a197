//! The program beside a client that speaks no HTTP: takes each local connection through a relay to the stream service
//! of one hidden server.
//!
//! A local connection, standard input and output too, is silent until the hidden server's agent has answered 101;
//! nothing is read from it before, so that nothing has to be kept.

use alloc::vec::Vec;
use core::net::SocketAddr;

use crate::conns::{Conns, Ended};
use crate::http::head;
use crate::http::response::{Response, write_upgrade};
use crate::id::Id;
use crate::machine::{
    Close, ConnId, DialFailure, End, Listener, Machine, Output, Secured, TlsFailure, TlsRole,
};
use crate::note::{ConnectFailure, Note};
use crate::pair::{self, Side, Why};
use crate::reach::{Answer, Deadlines, Heard, Reach, Relay, Step};
use crate::time::{Now, Span};

/// Everything about a connector that can be set.
#[derive(Clone, Debug)]
pub struct Config {
    /// The relay. It is number 0 of the shell's list of upstreams.
    pub relay: Relay,
    /// The hidden server's ID.
    pub id: Id,
    /// One local connection is taken, and then it is done: standard input and output.
    pub once: bool,
    /// Limits of the answer's head.
    pub head: head::Limits,
    /// Deadlines on the way. The answer should be waited for longer than a relay holds a client (5 s) and an agent
    /// dials its service (10 s): see [`Config::DEADLINES`].
    pub deadlines: Deadlines,
    /// Deadlines of a pair.
    pub pair: pair::Limits,
}

impl Config {
    /// 10 s to connect, 10 s for the handshake, 30 s for the answer.
    pub const DEADLINES: Deadlines =
        Deadlines { dial: Span::from_secs(10), handshake: Span::from_secs(10), answer: Span::from_secs(30) };

    /// The defaults for a relay and an ID: any number of local connections, [`Config::DEADLINES`].
    #[must_use]
    pub fn new(relay: Relay, id: Id) -> Self {
        Self {
            relay,
            id,
            once: false,
            head: head::Limits::default(),
            deadlines: Self::DEADLINES,
            pair: pair::Limits::default(),
        }
    }
}

/// What became of a local connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It met the service, and the pair ended so.
    Ended(Why),
    /// It could not be.
    Failed(ConnectFailure),
    /// The local side went away before anything came of it.
    Abandoned,
}

/// The connector's state machine.
#[derive(Debug)]
pub struct Connector {
    config: Config,
    conns: Conns<State>,
    stopping: bool,
    failed: u32,
    last: Option<Outcome>,
}

/// What a connection is.
#[derive(Debug)]
enum State {
    /// A local connection that waits for the 101; the deadline is the other's.
    Local { relay: ConnId },
    /// On the way to the relay.
    Reaching { local: ConnId, reach: Reach },
    /// The request was sent; its answer is to come.
    Asking { local: ConnId, answer: Answer },
    /// Either half of a pair.
    Paired,
    /// Not taken.
    Unwanted,
}

impl State {
    const fn why(&self) -> &'static str {
        match self {
            Self::Local { .. } => "local",
            Self::Reaching { reach, .. } => reach.why(),
            Self::Asking { .. } => "the answer",
            Self::Paired => "pair",
            Self::Unwanted => "closing",
        }
    }
}

impl Connector {
    /// A connector that waits for its first local connection.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { conns: Conns::new(config.pair), config, stopping: false, failed: 0, last: None }
    }

    /// The connector shuts down: local connections that have not met the service are closed, no other is taken, pairs
    /// go on.
    pub fn handle_drain(&mut self, now: Now) {
        self.stopping = true;
        for on in self.conns.open_ids() {
            if let Some(&mut State::Local { relay }) = self.conns.state(on) {
                self.abandon(on, relay, Close::Truncate, now);
            }
        }
    }

    /// How many connections there are, closing ones included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.conns.len()
    }

    /// How many pairs there are.
    #[must_use]
    pub fn pairs(&self) -> usize {
        self.conns.pairs()
    }

    /// How many local connections have not met the service.
    #[must_use]
    pub const fn failed(&self) -> u32 {
        self.failed
    }

    /// What became of the local connection that was over last; `None` as long as none was.
    #[must_use]
    pub const fn last(&self) -> Option<Outcome> {
        self.last
    }

    /// Whether there is nothing left to do: after [`Connector::handle_drain`], or after the one local connection of
    /// [`Config::once`].
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.stopping && self.conns.len() == 0
    }

    fn ask(&mut self, on: ConnId, now: Now) {
        let Some(&mut State::Reaching { local, .. }) = self.conns.state(on) else { return };
        let mut text = Vec::new();
        write_upgrade(&mut text, &self.config.relay.host_header, self.config.id);
        self.conns.send(on, text);
        let due = Some(now.mono + self.config.deadlines.answer);
        self.enter(on, State::Asking { local, answer: Answer::default() });
        self.conns.set_due(on, due);
    }

    fn answered(&mut self, on: ConnId, response: &Response, now: Now) {
        let Some(&mut State::Asking { local, .. }) = self.conns.state(on) else { return };
        if response.status != 101 || !response.upgrade_octet_stream {
            return self.fail(on, ConnectFailure::Refused(response.status), now);
        }
        self.conns.say(Output::Read { on: local, wanted: true });
        self.enter(local, State::Paired);
        self.enter(on, State::Paired);
        self.conns.pair(on, local, false, now);
        self.conns.note(Note::Served { relay: on, local, upstream: 0, stream: true });
    }

    /// It could not be. The local side must not take that for the end of a stream in order.
    fn fail(&mut self, on: ConnId, why: ConnectFailure, now: Now) {
        let Some(&mut (State::Reaching { local, .. } | State::Asking { local, .. })) = self.conns.state(on)
        else {
            return;
        };
        let how = match why {
            ConnectFailure::Refused(_) | ConnectFailure::Ended(End::Clean) => Close::Linger,
            _ => Close::Abort,
        };
        self.failed = self.failed.saturating_add(1);
        self.last = Some(Outcome::Failed(why));
        self.conns.note(Note::ConnectFailed { local, why });
        self.conns.close(on, how, now);
        self.conns.close(local, Close::Truncate, now);
    }

    /// Nobody waits for the answer any more.
    fn abandon(&mut self, local: ConnId, relay: ConnId, how: Close, now: Now) {
        self.failed = self.failed.saturating_add(1);
        self.last = Some(Outcome::Abandoned);
        let from = self.conns.from(local);
        self.conns.note(Note::Dropped { on: local, from, why: "ended before the service was reached" });
        self.conns.close(local, how, now);
        self.conns.close(relay, Close::Abort, now);
    }

    /// An address, or the name, was of no use. The next is tried under another id, since a dial that took too long is
    /// still under way under the old one.
    fn unreachable(&mut self, on: ConnId, why: DialFailure, now: Now) {
        let Some(State::Reaching { local, reach }) = self.conns.state(on) else { return };
        let local = *local;
        if !reach.has_more() {
            return self.fail(on, ConnectFailure::Unreachable(why), now);
        }
        let mut reach = reach.clone();
        let next = self.conns.insert(State::Unwanted, None);
        if let Some(output) = reach.next_address(next) {
            self.conns.say(output);
        }
        self.conns.close(on, Close::Abort, now);
        self.enter(next, State::Reaching { local, reach });
        self.enter(local, State::Local { relay: next });
        self.conns.set_due(next, Some(now.mono + self.config.deadlines.dial));
    }

    fn enter(&mut self, on: ConnId, state: State) {
        if let Some(old) = self.conns.state(on) {
            *old = state;
        }
    }

    fn pair_over(&mut self, ended: Option<Ended>, now: Now) {
        let Some(Ended { hidden, client, pair, over }) = ended else { return };
        self.last = Some(Outcome::Ended(over.why));
        self.conns.note(Note::PairEnded {
            hidden,
            client,
            id: self.config.id,
            from_client: pair.octets_from(Side::Client),
            from_hidden: pair.octets_from(Side::Hidden),
            after: now.mono.since(pair.began()),
            why: over.why,
        });
    }

    fn expire(&mut self, on: ConnId, now: Now) {
        match self.conns.state(on) {
            Some(State::Reaching { reach, .. }) => match reach.step() {
                Step::Resolving => self.unreachable(on, DialFailure::Name, now),
                Step::Dialling => self.unreachable(on, DialFailure::Unreachable, now),
                Step::Securing => self.fail(on, ConnectFailure::Silent, now),
            },
            Some(State::Asking { .. }) => self.fail(on, ConnectFailure::Silent, now),
            Some(State::Paired) => {
                let ended = self.conns.pair_timeout(on, now);
                self.pair_over(ended, now);
            }
            Some(State::Local { .. } | State::Unwanted) | None => {}
        }
    }
}

impl Machine for Connector {
    fn handle_open(&mut self, _: Listener, from: SocketAddr, now: Now) -> ConnId {
        let local = self.conns.insert(State::Unwanted, Some(from));
        if self.stopping {
            self.conns.close(local, Close::Abort, now);
            return local;
        }
        self.stopping = self.config.once;
        self.conns.say(Output::Read { on: local, wanted: false });
        let relay = self.conns.insert(State::Unwanted, None);
        let tls = self.config.relay.tls.then_some(TlsRole::Client { upstream: 0 });
        let (reach, output) = Reach::begin(relay, &self.config.relay.place, tls);
        self.enter(local, State::Local { relay });
        self.enter(relay, State::Reaching { local, reach });
        self.conns.set_due(relay, Some(now.mono + self.config.deadlines.dial));
        self.conns.say(output);
        local
    }

    fn handle_resolved(&mut self, on: ConnId, addresses: &[SocketAddr], now: Now) {
        let Some(State::Reaching { reach, .. }) = self.conns.state(on) else { return };
        match reach.resolved(on, addresses, None) {
            Some(output) => {
                self.conns.set_due(on, Some(now.mono + self.config.deadlines.dial));
                self.conns.say(output);
            }
            None => self.unreachable(on, DialFailure::Name, now),
        }
    }

    fn handle_connected(&mut self, on: ConnId, now: Now) {
        let Some(State::Reaching { reach, .. }) = self.conns.state(on) else { return };
        match reach.connected(on) {
            Some(output) => {
                self.conns.set_due(on, Some(now.mono + self.config.deadlines.handshake));
                self.conns.say(output);
            }
            None => self.ask(on, now),
        }
    }

    fn handle_dial_failed(&mut self, on: ConnId, why: DialFailure, now: Now) {
        self.unreachable(on, why, now);
    }

    fn handle_secured(&mut self, on: ConnId, _: Secured, now: Now) {
        self.ask(on, now);
    }

    fn handle_tls_failed(&mut self, on: ConnId, why: TlsFailure, now: Now) {
        self.fail(on, ConnectFailure::Tls(why), now);
    }

    fn handle_bytes(&mut self, on: ConnId, bytes: &[u8], now: Now) -> usize {
        let limits = self.config.head;
        let mut used = 0;
        while let Some(State::Asking { answer, .. }) = self.conns.state(on)
            && used < bytes.len()
        {
            match answer.hear(&bytes[used..], &limits) {
                Heard::Partial => break,
                Heard::Interim(len) => used += len,
                // What is behind a 101 is the stream: it stays, and goes to the local side first.
                Heard::Final(response) => {
                    used += response.len;
                    self.answered(on, &response, now);
                }
                Heard::Garbled => self.fail(on, ConnectFailure::Garbled, now),
            }
        }
        self.conns.check_invariants();
        used
    }

    fn handle_moved(&mut self, from: ConnId, read: u32, queued: u32, now: Now) {
        let ended = self.conns.moved(from, read, queued, now);
        self.pair_over(ended, now);
    }

    fn handle_flushed(&mut self, on: ConnId, now: Now) {
        let ended = self.conns.flushed(on, now);
        self.pair_over(ended, now);
    }

    fn handle_acked(&mut self, on: ConnId, age: Option<Span>, now: Now) {
        let ended = self.conns.acked(on, age, now);
        self.pair_over(ended, now);
    }

    fn handle_end(&mut self, on: ConnId, how: End, now: Now) {
        match self.conns.state(on) {
            // It may have said everything already: that is passed on when there is somebody to pass it to.
            Some(State::Local { .. }) if how == End::Clean => self.conns.mark_ended(on),
            Some(&mut State::Local { relay }) => self.abandon(on, relay, Close::Abort, now),
            Some(State::Reaching { .. }) => self.fail(on, ConnectFailure::Ended(how), now),
            Some(State::Asking { answer, .. }) => {
                let why = answer.refusal().map_or(ConnectFailure::Ended(how), ConnectFailure::Refused);
                self.fail(on, why, now);
            }
            Some(State::Paired) => {
                let ended = self.conns.end(on, how, now);
                self.pair_over(ended, now);
            }
            Some(State::Unwanted) | None => {}
        }
        self.conns.check_invariants();
    }

    fn handle_write_failed(&mut self, on: ConnId, now: Now) {
        match self.conns.state(on) {
            Some(&mut State::Local { relay }) => self.abandon(on, relay, Close::Abort, now),
            Some(State::Reaching { .. }) => self.fail(on, ConnectFailure::Ended(End::Reset), now),
            // A relay may refuse and close before it has read all: its answer can still be there to be read.
            Some(State::Asking { .. }) => {}
            Some(State::Paired) => {
                let ended = self.conns.write_failed(on, now);
                self.pair_over(ended, now);
            }
            Some(State::Unwanted) | None => {}
        }
    }

    fn handle_closed(&mut self, on: ConnId, _: Now) {
        self.conns.forget(on);
    }

    fn handle_timeout(&mut self, now: Now) {
        while let Some(on) = self.conns.expired(now) {
            self.expire(on, now);
        }
        self.conns.check_invariants();
    }

    fn poll_output(&mut self, text: &mut Vec<u8>) -> Output {
        self.conns.poll(text, State::why)
    }
}
