//! The way to a peer that is dialled: its name, its addresses in turn, TLS; and the answer that a relay gives to the
//! first request. Agent and connector go it alike.

use alloc::collections::VecDeque;
use alloc::string::String;
use core::net::{IpAddr, SocketAddr};

use crate::http::head::{Finder, Limits};
use crate::http::response::{Response, parse_response, parse_status};
use crate::machine::{ConnId, Output, TlsRole};
use crate::time::Span;

/// A host: an address, which is dialled as it is, or a name, which is looked up first, each time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// An address.
    Address(IpAddr),
    /// A name.
    Name(String),
}

/// Where a service listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The host.
    pub host: Host,
    /// The port.
    pub port: u16,
}

impl From<SocketAddr> for Place {
    fn from(address: SocketAddr) -> Self {
        Self { host: Host::Address(address.ip()), port: address.port() }
    }
}

/// A relay, as agent and connector reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relay {
    /// Where it listens.
    pub place: Place,
    /// Whether it speaks TLS there.
    pub tls: bool,
    /// What the `Host` field says: the host, with the port if it is not the scheme's.
    pub host_header: String,
}

/// How long each step to a relay may take; default 10 s each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// Looking up the name, and then connecting to each of its addresses.
    pub dial: Span,
    /// The TLS handshake.
    pub handshake: Span,
    /// The answer to the first request.
    pub answer: Span,
}

impl Default for Deadlines {
    fn default() -> Self {
        let ten = Span::from_secs(10);
        Self { dial: ten, handshake: ten, answer: ten }
    }
}

/// One attempt to reach a place.
#[derive(Clone, Debug)]
pub(crate) struct Reach {
    step: Step,
    tls: Option<TlsRole>,
    /// The address that is tried, or was reached.
    at: Option<SocketAddr>,
    /// The addresses that were not tried yet.
    left: VecDeque<SocketAddr>,
}

/// How far an attempt has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Resolving,
    Dialling,
    /// Octets in clear in front of the handshake are being sent.
    Greeting,
    Securing,
}

impl Reach {
    /// Begins, with the first thing to be done.
    pub(crate) fn begin(on: ConnId, place: &Place, tls: Option<TlsRole>) -> (Self, Output) {
        let mut reach = Self { step: Step::Resolving, tls, at: None, left: VecDeque::new() };
        let output = match &place.host {
            Host::Address(address) => {
                let to = SocketAddr::new(*address, place.port);
                reach.dial(on, to)
            }
            Host::Name(name) => Output::Resolve { on, host: name.clone(), port: place.port },
        };
        (reach, output)
    }

    /// The name has these addresses; `preferred`, which was reached before, goes first if it is still one of them.
    /// `None` if there is none at all.
    pub(crate) fn resolved(
        &mut self,
        on: ConnId,
        addresses: &[SocketAddr],
        preferred: Option<SocketAddr>,
    ) -> Option<Output> {
        let first = preferred.filter(|it| addresses.contains(it));
        self.left = first.into_iter().collect();
        self.left.extend(addresses.iter().copied().filter(|it| Some(*it) != first));
        self.next_address(on)
    }

    /// The next address, after one failed; `None` if that was the last.
    pub(crate) fn next_address(&mut self, on: ConnId) -> Option<Output> {
        let to = self.left.pop_front()?;
        Some(self.dial(on, to))
    }

    /// Connected to a place that speaks TLS, and something goes in front of that in clear: when it is sent,
    /// [`Reach::connected`] comes.
    pub(crate) fn greet(&mut self) {
        self.step = Step::Greeting;
    }

    pub(crate) const fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Connected: what is to be done next; `None` if the place is reached.
    pub(crate) fn connected(&mut self, on: ConnId) -> Option<Output> {
        let role = self.tls?;
        self.step = Step::Securing;
        Some(Output::StartTls { on, role })
    }

    pub(crate) const fn step(&self) -> Step {
        self.step
    }

    /// The address that is tried, or was reached.
    pub(crate) const fn address(&self) -> Option<SocketAddr> {
        self.at
    }

    pub(crate) fn has_more(&self) -> bool {
        !self.left.is_empty()
    }

    pub(crate) const fn why(&self) -> &'static str {
        match self.step {
            Step::Resolving => "name look-up",
            Step::Dialling => "dial",
            Step::Greeting => "octets in front of the handshake",
            Step::Securing => "handshake",
        }
    }

    fn dial(&mut self, on: ConnId, to: SocketAddr) -> Output {
        self.step = Step::Dialling;
        self.at = Some(to);
        Output::Dial { on, to }
    }
}

/// A relay's answer, as much as is there.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Answer {
    finder: Finder,
    status: Option<u16>,
}

/// What the octets of an answer are so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Not enough.
    Partial,
    /// So many octets of an interim answer (RFC 9110 §15.2), of no interest.
    Interim(usize),
    /// The answer.
    Final(Response),
    /// No answer at all.
    Garbled,
}

impl Answer {
    /// Looks at everything that was received and not consumed.
    pub(crate) fn hear(&mut self, bytes: &[u8], limits: &Limits) -> Heard {
        match parse_response(bytes, &mut self.finder, limits) {
            Ok(None) => {
                self.status = parse_status(bytes);
                Heard::Partial
            }
            Ok(Some(response)) if (100..200).contains(&response.status) && response.status != 101 => {
                self.status = None;
                Heard::Interim(response.len)
            }
            Ok(Some(response)) => Heard::Final(response),
            Err(_) => Heard::Garbled,
        }
    }

    /// The status of a refusal that was cut off by the connection's end: some relays send no more than a status line.
    pub(crate) fn refusal(&self) -> Option<u16> {
        self.status.filter(|status| *status >= 300)
    }
}
