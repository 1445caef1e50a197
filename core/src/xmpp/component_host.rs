//! A machine behind a component of an XMPP server: its own connections, and the one to the server beside them.
//!
//! ```text
//!   shell ── handle_*, poll_output ──▶ Hosted<M> ── handle_*, poll_output ───────────────▶ M: IqHandler
//!                                          └──────── handle_iq, handle_online …, poll_iq ──▶
//! ```
//!
//! * The connection to the server is `ConnId { index: 0, .. }`, whose generation grows with every attempt; connection
//!   `index` of the machine inside is `index + 1` outside. [Events](crate::event::Event) are passed on as they are: ids in
//!   them are the machine's own.
//! * The server may come and go: the machine is told, and its own connections go on untouched. IQs that it wants to
//!   send meanwhile wait, within [`QUEUE_BYTES_MAX`]; what was on its way when the server went is lost, like anything
//!   that a server loses, and deadlines are the machine's.
//! * What the machine inside reports in its own way the shell asks it for ([`ComponentHost::inner`], [`ComponentHost::inner_mut`]);
//!   everything that is told to it through there is followed by [`Machine::poll_output`] as ever.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;

use super::component::{Action, Component, Loss, Secret};
use super::condition::StreamCondition;
use super::iq::Iq;
use super::jid::Jid;
use super::stream::FOOTER;
use crate::backoff::{Backoff, ErrorClass, Retry};
use crate::conns::Conns;
use crate::endpoint::HostPort;
use crate::entropy::Entropy;
use crate::machine::{Close, ConnId, DialFailure, End, Machine, Output};
use crate::opaque::Opaque;
use crate::pair;
use crate::time::{Now, Span, Time};

mod door;
mod server;
mod service;

/// How many bytes of IQs may wait for the server; what is more is dropped.
pub const QUEUE_BYTES_MAX: usize = 256 * 1024;

/// Looking up the server's name, and then connecting to the last of its addresses, may take so long…
const DIAL: Span = Span::from_secs(10);
/// …and connecting to an address that others follow; there is one connection to the server at a time…
const DIAL_NOT_LAST: Span = Span::from_secs(2);
/// …and from then on until the server knows us.
const HANDSHAKE: Span = Span::from_secs(10);
/// White space is sent so often (RFC 6120 §4.6.1), and a server that takes nothing for as long is lost.
const KEEP_ALIVE: Span = Span::from_secs(60);
/// The server may take so long to end its stream when we ended ours. The connection is not ended before (RFC 6120
/// §4.4): Prosody 0.12 drops what it receives together with a FIN.
const CLOSE_TIMEOUT: Span = Span::from_secs(5);
/// Who was known for so long is tried again soon.
const LASTING: Span = Span::from_secs(10);
/// How long to wait before the next attempt. Wrong secrets and unknown names seldom pass by themselves.
const RETRY: Retry =
    Retry { first: Span::from_secs(1), first_refused: Span::from_secs(40), max: Span::from_secs(60) };

/// A machine that handles IQs. What it does not do with one, nobody does: an IQ for a JID or of a namespace that it
/// does not know it answers with [`Iq::not_understood`].
pub trait IqHandler: Machine {
    /// An IQ came, for any JID of the component's.
    fn handle_iq(&mut self, iq: Iq, now: Now);

    /// The server knows us: IQs go out from now on.
    fn handle_online(&mut self, now: Now);

    /// The server is lost. It is tried again, and then it is `handle_online`.
    fn handle_offline(&mut self, now: Now);

    /// Begin nothing new, end what only waits; pairs go on.
    fn handle_drain(&mut self, now: Now);

    /// The next IQ to send. It is asked for after every `handle_*` and after the outputs, until it is `None`.
    fn poll_iq(&mut self) -> Option<Iq>;

    /// Whether there is nothing left to do.
    fn is_done(&self) -> bool;

    /// The namespaces that it understands, for whoever asks (XEP-0030).
    fn features(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Where the server is, and as what it knows us.
#[derive(Clone, Debug)]
pub struct Config {
    /// The server's address for components.
    pub server: HostPort,
    /// The component's domain.
    pub name: Jid,
    /// What it shares with the server.
    pub secret: Secret,
}

/// What became of the connection to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostEvent {
    /// The server knows us.
    Up,
    /// There is no connection. The same reason is reported once until there is one again.
    Down {
        /// Why.
        why: Loss,
        /// When it is tried again.
        again: Span,
    },
    /// IQs were dropped because too many wait for the server; once until there is a connection again.
    Full,
    /// The server sends us what is for another component; it is dropped. The first is reported, and then every time that
    /// there are twice as many. ejabberd does so with `global_routes: true`, if two components share a listener.
    Misrouted {
        /// Whom the last one was for.
        to: Jid,
        /// How many there are by now, since the beginning.
        total: u64,
    },
    /// A stanza from the server was skipped ([`Part::Excess`](super::stream::Part::Excess)). The first is reported, and then every time that there
    /// are twice as many, since anybody can send them.
    Excess {
        /// How many there are by now, since the beginning.
        total: u64,
    },
}

/// A machine behind a component. See the [module](self).
#[derive(Debug)]
pub struct ComponentHost<M> {
    config: Config,
    inner: M,
    /// At most one.
    conns: Conns<State>,
    /// The addresses of the server's that are left to try.
    rest: VecDeque<SocketAddr>,
    /// When the next attempt begins.
    wake: Option<Time>,
    backoff: Backoff,
    entropy: Entropy,
    queue: Opaque<Vec<u8>>,
    /// How many stanzas were skipped.
    excess: u64,
    /// How many stanzas were for another component.
    misrouted: u64,
    flight: Flight,
    events: VecDeque<HostEvent>,
    said: Option<Loss>,
    is_full: bool,
    leaving: bool,
    now: Now,
}

/// What the connection to the server is.
///
/// ```text
/// Resolving ─addresses─▶ Dialling ─connected─▶ Greeting ─<handshake/>─▶ Up ─we end the stream─▶ Leaving ─its end─▶ Closing
///                         │  ▲ next address
///                         └──┘
/// any ─failed, timed out, stream error─▶ Closing, and a new connection after the backoff
/// ```
#[derive(Debug)]
enum State {
    /// Its name is being looked up.
    Resolving,
    /// It is dialled.
    Dialling,
    /// There, but not known yet.
    Greeting(Component),
    /// Known, since then.
    Up(Component, Time),
    /// We ended our stream, and await the end of the server's.
    Leaving(Component),
    /// Over.
    Closing,
}

/// What is on its way to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flight {
    /// Nothing.
    Idle,
    /// Something.
    Sent,
    /// Something that was sent before the last keep-alive was due.
    Overdue,
}

impl State {
    const fn why(&self) -> &'static str {
        match self {
            Self::Resolving => "name look-up",
            Self::Dialling => "dial",
            Self::Greeting(_) => "the XMPP handshake",
            Self::Up(..) => "keep-alive",
            Self::Leaving(_) => "the end of the XMPP stream",
            Self::Closing => "closing",
        }
    }
}

impl<M: IqHandler> ComponentHost<M> {
    /// A machine whose server is being dialled. `seed` is from the operating system.
    #[must_use]
    pub fn new(config: Config, inner: M, seed: [u8; 32], now: Now) -> Self {
        let mut it = Self {
            config,
            inner,
            conns: Conns::new(pair::Limits::default()),
            rest: VecDeque::new(),
            wake: None,
            backoff: Backoff::new(RETRY),
            entropy: Entropy::new(seed),
            queue: Opaque::default(),
            excess: 0,
            misrouted: 0,
            flight: Flight::Idle,
            events: VecDeque::new(),
            said: None,
            is_full: false,
            leaving: false,
            now,
        };
        it.begin(now);
        it
    }

    /// The machine inside.
    pub const fn inner(&self) -> &M {
        &self.inner
    }

    /// The machine inside, to be told something.
    pub const fn inner_mut(&mut self) -> &mut M {
        &mut self.inner
    }

    /// The next thing to log of the connection to the server.
    pub fn poll_event(&mut self) -> Option<HostEvent> {
        self.events.pop_front()
    }

    /// Whether the server knows us.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.conns.states().any(|state| matches!(state, Some(State::Up(..))))
    }

    /// Legal more than once. The machine inside is drained; the stream to the server ends when nothing is left to be said.
    pub fn handle_drain(&mut self, now: Now) {
        self.now = now;
        self.leaving = true;
        self.wake = None;
        self.inner.handle_drain(now);
        // Who is not known has nothing to say.
        for on in self.conns.open_ids() {
            if let Some(State::Resolving | State::Dialling | State::Greeting(_)) = self.conns.state(on) {
                self.shut(on, Close::Abort, now);
            }
        }
    }

    /// Whether there is nothing left to do after [`ComponentHost::handle_drain`].
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.leaving && self.conns.len() == 0 && self.inner.is_done()
    }

    fn read(&mut self, on: ConnId, mut bytes: &[u8], now: Now) {
        while let Some(State::Greeting(component) | State::Up(component, _) | State::Leaving(component)) =
            self.conns.state(on)
        {
            match component.read(&mut bytes) {
                None => return,
                Some(Action::Say(bytes)) => self.conns.send(on, bytes.0),
                Some(Action::Up) => self.up(on, now),
                Some(Action::Iq(iq)) => self.handle_iq(iq, now),
                Some(Action::Excess(answer)) => self.skipped(answer.as_ref()),
                Some(Action::Close { why, say }) => {
                    if !matches!(self.conns.state(on), Some(State::Leaving(_))) {
                        self.conns.send(on, say);
                    }
                    self.lose(on, why, Close::Linger, now);
                }
            }
        }
    }

    /// An IQ for one of the component's JIDs. One for another domain is none of ours, and whoever it is for may answer it.
    fn handle_iq(&mut self, iq: Iq, now: Now) {
        if iq.to.domain() != self.config.name.domain() {
            self.misrouted += 1;
            if self.misrouted.is_power_of_two() {
                self.events.push_back(HostEvent::Misrouted { to: iq.to, total: self.misrouted });
            }
            return;
        }
        match service::answer(&iq, &self.inner.features()) {
            Some(answer) => self.enqueue(&answer),
            None => self.inner.handle_iq(iq, now),
        }
    }

    fn skipped(&mut self, answer: Option<&Iq>) {
        self.excess += 1;
        if self.excess.is_power_of_two() {
            self.events.push_back(HostEvent::Excess { total: self.excess });
        }
        if let Some(answer) = answer {
            self.enqueue(answer);
        }
    }

    fn shut(&mut self, on: ConnId, how: Close, now: Now) {
        self.enter(on, State::Closing, None);
        self.conns.close(on, how, now);
    }

    fn enter(&mut self, on: ConnId, state: State, due: Option<Time>) {
        if let Some(old) = self.conns.state(on) {
            *old = state;
            self.conns.set_due(on, due);
        }
    }

    fn enqueue(&mut self, iq: &Iq) {
        let before = self.queue.len();
        iq.write(&mut self.queue);
        if self.queue.len() > QUEUE_BYTES_MAX {
            self.queue.truncate(before);
            if !core::mem::replace(&mut self.is_full, true) {
                self.events.push_back(HostEvent::Full);
            }
        }
    }

    /// Takes the IQs of the machine inside, which has nothing else to do, and sends what can be sent; whether that
    /// made outputs.
    fn forward(&mut self) -> bool {
        while let Some(iq) = self.inner.poll_iq() {
            self.enqueue(&iq);
        }
        let Some(on) = self.conns.open_ids().first().copied() else { return false };
        if !matches!(self.conns.state(on), Some(State::Up(..))) || self.flight != Flight::Idle {
            return false;
        }
        if !self.queue.is_empty() {
            let bytes = core::mem::take(&mut self.queue);
            self.conns.send(on, bytes.0);
            self.flight = Flight::Sent;
            return true;
        }
        if self.leaving {
            self.conns.send(on, FOOTER.to_vec());
            self.leave(on);
        }
        self.leaving
    }

    fn leave(&mut self, on: ConnId) {
        let Some(state) = self.conns.state(on) else { return };
        let State::Up(component, _) = core::mem::replace(state, State::Closing) else { return };
        self.enter(on, State::Leaving(component), Some(self.now.mono + CLOSE_TIMEOUT));
    }
}
