//! Runs a machine behind a component of an XMPP server: the machine's own connections, and the one to the server.
//!
//! ```text
//!   driver ─ handle_*, poll_output ──▶ ComponentHost<M> ── handle_*, poll_output ────────▶ M: IqHandler
//!                                          └────────── handle_iq, handle_online …, poll_iq ──▶
//! ```
//!
//! * The connection to the server is `ConnId { index: 0, .. }`, whose generation increases with every attempt.
//!   Connection `index` of the inner machine is `index + 1` outside. [Events](crate::event::Event) are passed on
//!   unchanged: their ids are those of the inner machine.
//! * If the server is lost, the machine is told, and its own connections continue. IQs that it sends meanwhile wait,
//!   within [`QUEUE_BYTES_MAX`]. IQs in flight when the server is lost are lost, and the machine's own timeouts
//!   apply.
//! * After a call of the inner machine's own methods ([`ComponentHost::inner_mut`]) the driver calls
//!   [`Machine::poll_output`] as usual.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;

use crate::backoff::{Backoff, ErrorClass, Retry};
use crate::conns::Conns;
use crate::endpoint::HostPort;
use crate::entropy::Entropy;
use crate::event::{ComponentEvent, Event};
use crate::machine::{Close, ConnId, DialFailure, End, Machine, Output};
use crate::opaque::Opaque;
use crate::pair;
use crate::time::{Now, Span, Time};
use crate::xmpp::component::{Action, Component, Loss, Secret};
use crate::xmpp::condition::StreamCondition;
use crate::xmpp::iq::Iq;
use crate::xmpp::jid::Jid;
use crate::xmpp::stream::FOOTER;

mod machine;
mod server;
mod service;

/// The maximum size of the IQs that wait for the server, in bytes; further ones are dropped.
pub const QUEUE_BYTES_MAX: usize = 256 * 1024;

/// The timeout of resolving the server's name, and of connecting to the last of its addresses.
const DIAL: Span = Span::from_secs(10);
/// The timeout of connecting to an address that others follow. There is one connection to the server at a time.
const DIAL_NOT_LAST: Span = Span::from_secs(2);
/// The timeout of the XMPP handshake after connecting.
const HANDSHAKE: Span = Span::from_secs(10);
/// The interval of white space keep-alives (RFC 6120 §4.6.1). A server that acknowledges nothing for as long is lost.
const KEEP_ALIVE: Span = Span::from_secs(60);
/// The timeout of the server's end of stream after ours. The connection is not closed before (RFC 6120 §4.4): Prosody
/// 0.12 drops what it receives together with a FIN.
const CLOSE_TIMEOUT: Span = Span::from_secs(5);
/// A connection that was up for this long resets the backoff.
const LASTING: Span = Span::from_secs(10);
/// The delays between attempts. A wrong secret or an unknown name is seldom transient.
const RETRY: Retry =
    Retry { first: Span::from_secs(1), first_refused: Span::from_secs(40), max: Span::from_secs(60) };

/// A machine that handles IQs. Every IQ is passed to it: one to an unknown JID or of an unknown namespace must be
/// answered with [`Iq::not_understood`].
pub trait IqHandler: Machine {
    /// Handles an IQ to any JID of the component.
    fn handle_iq(&mut self, iq: Iq, now: Now);

    /// The server has accepted us: IQs are sent from now on.
    fn handle_online(&mut self, now: Now);

    /// The connection to the server was lost. `handle_online` follows when it is re-established.
    fn handle_offline(&mut self, now: Now);

    /// Begins nothing new and ends what only waits; pairs continue.
    fn handle_drain(&mut self, now: Now);

    /// The next IQ to send. Called after every `handle_*` and after the outputs, until it returns `None`.
    fn poll_iq(&mut self) -> Option<Iq>;

    /// Whether nothing is left to do.
    fn is_done(&self) -> bool;

    /// The namespaces that it supports, for service discovery (XEP-0030).
    fn features(&self) -> Vec<String> {
        Vec::new()
    }
}

/// The server, and our name and secret.
#[derive(Clone, Debug)]
pub struct Config {
    /// The server's address for components.
    pub server: HostPort,
    /// The component's domain.
    pub name: Jid,
    /// The secret shared with the server.
    pub secret: Secret,
}

/// A machine behind a component. See the [module](self).
#[derive(Debug)]
pub struct ComponentHost<M> {
    config: Config,
    inner: M,
    /// At most one.
    conns: Conns<State>,
    /// The server's addresses that are left to try.
    rest: VecDeque<SocketAddr>,
    /// When the next attempt begins.
    wake: Option<Time>,
    backoff: Backoff,
    entropy: Entropy,
    queue: Opaque<Vec<u8>>,
    /// The number of skipped stanzas.
    excess: u64,
    /// The number of stanzas for another component.
    misrouted: u64,
    flight: Flight,
    reported: Option<Loss>,
    is_full: bool,
    leaving: bool,
    now: Now,
}

/// The state of the connection to the server.
///
/// ```text
/// Resolving ─addresses─▶ Dialling ─connected─▶ Greeting ─<handshake/>─▶ Up ─we end the stream─▶ Leaving ─its end─▶ Closing
///                         │  ▲ next address
///                         └──┘
/// any ─failed, timed out, stream error─▶ Closing, and a new connection after the backoff
/// ```
#[derive(Debug)]
enum State {
    /// The server's name is being resolved.
    Resolving,
    /// The server is being dialled.
    Dialling,
    /// Connected, and not accepted yet.
    Greeting(Component),
    /// Accepted since then.
    Up(Component, Time),
    /// We have ended our stream, and wait for the end of the server's.
    Leaving(Component),
    /// Closing.
    Closing,
}

/// The state of the bytes sent to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flight {
    /// None are unsent.
    Idle,
    /// Some are being sent.
    Sent,
    /// Some were sent before the last keep-alive was due.
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
    /// A host that begins to dial the server. `seed` comes from the operating system.
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
            reported: None,
            is_full: false,
            leaving: false,
            now,
        };
        it.begin(now);
        it
    }

    /// The inner machine.
    pub const fn inner(&self) -> &M {
        &self.inner
    }

    /// The inner machine, mutable.
    pub const fn inner_mut(&mut self) -> &mut M {
        &mut self.inner
    }

    /// Whether the server has accepted us.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.conns.states().any(|state| matches!(state, Some(State::Up(..))))
    }

    /// Shuts down: drains the inner machine, and ends the stream to the server when nothing is left to send. May be
    /// called repeatedly.
    pub fn handle_drain(&mut self, now: Now) {
        self.now = now;
        self.leaving = true;
        self.wake = None;
        self.inner.handle_drain(now);
        // Without an accepted stream there is nothing to send.
        for on in self.conns.open_ids() {
            if let Some(State::Resolving | State::Dialling | State::Greeting(_)) = self.conns.state(on) {
                self.shut(on, Close::Abort, now);
            }
        }
    }

    /// Whether nothing is left to do after [`ComponentHost::handle_drain`].
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

    /// Handles an IQ. One for another domain is dropped: its recipient may answer it.
    fn handle_iq(&mut self, iq: Iq, now: Now) {
        if iq.to.domain() != self.config.name.domain() {
            self.misrouted += 1;
            if self.misrouted.is_power_of_two() {
                self.conns
                    .event(Event::Component(ComponentEvent::Misrouted { to: iq.to, total: self.misrouted }));
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
            self.conns.event(Event::Component(ComponentEvent::Excess { total: self.excess }));
        }
        if let Some(answer) = answer {
            self.enqueue(answer);
        }
    }

    fn shut(&mut self, on: ConnId, how: Close, now: Now) {
        self.conns.set_state_until(on, State::Closing, None);
        self.conns.close(on, how, now);
    }

    fn enqueue(&mut self, iq: &Iq) {
        let before = self.queue.len();
        iq.write(&mut self.queue);
        if self.queue.len() > QUEUE_BYTES_MAX {
            self.queue.truncate(before);
            if !core::mem::replace(&mut self.is_full, true) {
                self.conns.event(Event::Component(ComponentEvent::Full));
            }
        }
    }

    /// Collects the IQs of the idle inner machine, and sends what can be sent.
    fn forward(&mut self) {
        while let Some(iq) = self.inner.poll_iq() {
            self.enqueue(&iq);
        }
        let Some(on) = self.conns.open_ids().first().copied() else { return };
        if !matches!(self.conns.state(on), Some(State::Up(..))) || self.flight != Flight::Idle {
            return;
        }
        if !self.queue.is_empty() {
            let bytes = core::mem::take(&mut self.queue);
            self.conns.send(on, bytes.0);
            self.flight = Flight::Sent;
        } else if self.leaving {
            self.conns.send(on, FOOTER.to_vec());
            self.leave(on);
        }
    }

    fn leave(&mut self, on: ConnId) {
        let Some(state) = self.conns.state(on) else { return };
        let State::Up(component, _) = core::mem::replace(state, State::Closing) else { return };
        self.conns.set_state_until(on, State::Leaving(component), Some(self.now.mono + CLOSE_TIMEOUT));
    }
}
