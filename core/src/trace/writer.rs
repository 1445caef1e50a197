//! Records the inputs of a machine's shadow, and its actions.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt::Write as _;
use core::net::SocketAddr;

use super::print::{Clock, write_event, write_setup};
use super::pseudonyms::Pseudonyms;
use super::{Bytes, Input, Outcome, Setup, display, redact, tokenizer};
use crate::agent::{Agent, Upstream};
use crate::client_hello;
use crate::dtcp::Key as DirectKey;
use crate::engine::{Engine, Transport};
use crate::event::Event;
use crate::http::follower::{self, Follower};
use crate::http::head::{Body, Finder, Found, Limits};
use crate::http::offer::{self, Offered};
use crate::http::response::parse_response;
use crate::http::target::Registration;
use crate::machine::{ConnId, Listener, Machine, Output};
use crate::pair::Side;
use crate::proxy_header;
use crate::time::Now;

/// The maximum number of known keys, which exceeds the number of sessions.
const KEYS_MAX: usize = 1_024;

/// The recording.
#[derive(Debug)]
pub(super) struct TraceWriter<M> {
    shadow: M,
    pub(super) text: String,
    clock: Clock,
    pub(super) pseudonyms: Pseudonyms,
    /// The limits of the heads that the machine reads.
    pub(super) limits: Limits,
    /// The mode of a new connection, unless its listener has another.
    first: Mode,
    /// The listeners of a relay.
    listeners: Vec<Transport>,
    /// Whether it is an agent that asks its relay for clients' addresses.
    asks: bool,
    modes: BTreeMap<ConnId, Mode>,
    /// The shadow's outputs that the machine has not returned yet, with the key of an offer in them.
    ahead: VecDeque<(Output, Option<DirectKey>)>,
    /// The keys in the machine's offers with the stand-ins in its shadow's; the newest last.
    keys: VecDeque<(DirectKey, DirectKey)>,
    is_over: bool,
}

/// The kind of bytes that a connection carries.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mode {
    /// To a relay: a load balancer's PROXY header, then TLS.
    Proxied,
    /// To a relay: requests, of hidden servers and of clients.
    Requests {
        /// How many bytes of a challenged request's body are still to come.
        body: u64,
        /// The body of the head that was read last.
        announced: u64,
    },
    /// To an agent: its relay's response.
    Answer,
    /// To an agent: the request of a client.
    Client,
    /// To an agent: lines about a direct connection, or on one.
    Lines,
    /// Half of a pair with a gate: the machine follows its exchanges.
    Followed,
    /// Waiting at a relay, or paired: the bytes are not read.
    Opaque,
}

impl Mode {
    /// The mode of a relay's new connection.
    pub(super) const REQUESTS: Self = Self::Requests { body: 0, announced: 0 };
}

/// A machine that can be recorded.
pub(super) trait Shadow: Machine {
    /// A copy of the follower of a gated connection's pair, and the connection's side.
    fn follower(&mut self, on: ConnId) -> Option<(Follower, Side)>;

    /// How the heads of requests at a gate are read.
    fn gate_reader<'a>(token: redact::Token<'a>, is_label: redact::IsLabel<'a>) -> redact::Reader<'a>;

    /// The number of the next bytes at a gate that belong to a discarded body.
    fn unread_body(&mut self, _: ConnId) -> u64 {
        0
    }
}

impl Shadow for Engine {
    fn follower(&mut self, on: ConnId) -> Option<(Follower, Side)> {
        Self::follower(self, on)
    }

    fn gate_reader<'a>(token: redact::Token<'a>, is_label: redact::IsLabel<'a>) -> redact::Reader<'a> {
        redact::Reader::Whole(token, is_label)
    }
}

impl Shadow for Agent {
    fn follower(&mut self, on: ConnId) -> Option<(Follower, Side)> {
        Self::follower(self, on)
    }

    fn gate_reader<'a>(_: redact::Token<'a>, _: redact::IsLabel<'a>) -> redact::Reader<'a> {
        redact::Reader::Agent
    }

    fn unread_body(&mut self, on: ConnId) -> u64 {
        Self::unread_body(self, on)
    }
}

impl TraceWriter<Agent> {
    /// Discards the shadow's password checks: it gets the results of the machine's.
    pub(super) fn discard_checks(&mut self) {
        let _ = self.shadow.take_checks();
    }
}

impl<M: Shadow> TraceWriter<M> {
    /// Writes the setup, and the shadow's first actions.
    pub(super) fn begin(
        setup: &Setup,
        seed: &[u8; 32],
        pseudonyms: Pseudonyms,
        shadow: M,
        limits: Limits,
        first: Mode,
        now: Now,
    ) -> Self {
        let mut text = String::new();
        let _ = write_setup(&mut text, setup, seed, pseudonyms.identities());
        let (listeners, asks) = match setup {
            Setup::Relay(config) => (config.listeners.clone(), false),
            Setup::Agent { config, .. } => {
                let takes_raw = config.upstreams.iter().any(Upstream::takes_raw);
                (Vec::new(), config.asks_for_address() || takes_raw)
            }
        };
        let mut writer = Self {
            shadow,
            text,
            clock: Clock::default(),
            pseudonyms,
            limits,
            first,
            listeners,
            asks,
            modes: BTreeMap::new(),
            ahead: VecDeque::new(),
            keys: VecDeque::new(),
            is_over: false,
        };
        writer.record(&Input::Start, now, |_| ());
        writer
    }

    /// Writes an input, passes it to the shadow, and writes the resulting actions.
    pub(super) fn record<R>(&mut self, event: &Input, now: Now, tell: impl FnOnce(&mut M) -> R) -> Option<R> {
        if self.is_over {
            return None;
        }
        let _ = self.clock.write(&mut self.text, now);
        let _ = write_event(&mut self.text, event);
        let result = tell(&mut self.shadow);
        match event {
            // The results of these calls are written first.
            Input::Open { .. } | Input::In { .. } => {}
            _ => self.drain(now),
        }
        Some(result)
    }

    fn drain(&mut self, now: Now) {
        loop {
            let mut bytes = Vec::new();
            let output = self.shadow.poll_output(&mut bytes);
            let key = offered(&bytes);
            match &output {
                Output::Idle { .. } => return,
                Output::Send { to, .. } if key.is_some() || bytes == b"starttls\n" => {
                    *self.mode(*to) = Mode::Lines;
                }
                Output::Pair { hidden, client } => {
                    *self.mode(*hidden) = Mode::Opaque;
                    *self.mode(*client) = Mode::Opaque;
                }
                Output::Gate { on } => *self.mode(*on) = Mode::Followed,
                Output::Event(Event::Waiting { on, .. }) => *self.mode(*on) = Mode::Opaque,
                Output::Event(Event::Registered { on, .. }) => *self.mode(*on) = Mode::Client,
                Output::Event(Event::Challenged { on, .. }) => {
                    if let Mode::Requests { body, announced } = self.mode(*on) {
                        *body = *announced;
                    }
                }
                _ => {}
            }
            let bytes = (!bytes.is_empty()).then(|| Bytes::dated(&bytes, now.wall));
            self.action(display::output(&output), bytes);
            self.ahead.push_back((output, key));
        }
    }

    fn action(&mut self, text: String, bytes: Option<Bytes>) {
        let _ = write!(self.text, "{}", Outcome { line: 0, text, bytes });
    }

    fn mode(&mut self, on: ConnId) -> &mut Mode {
        self.modes.entry(on).or_insert(self.first)
    }

    /// The connection is closed.
    pub(super) fn forget(&mut self, on: ConnId) {
        self.modes.remove(&on);
    }

    pub(super) fn open(&mut self, on: Listener, from: SocketAddr, now: Now) {
        let id = self.record(&Input::Open { on, from }, now, |shadow| shadow.handle_open(on, from, now));
        if let Some(id) = id {
            match self.listeners.get(usize::from(on.0)) {
                Some(Transport::Proxied) => *self.mode(id) = Mode::Proxied,
                Some(Transport::Port(_)) => *self.mode(id) = Mode::Opaque,
                Some(Transport::Plain | Transport::Tls) => {}
                // An agent listens only for direct connections.
                None => *self.mode(id) = Mode::Lines,
            }
            self.action(alloc::format!("conn {}", tokenizer::ConnText(id)), None);
            self.drain(now);
        }
    }

    /// Offers bytes to the shadow. Returns how many it consumed.
    pub(super) fn offer(&mut self, on: ConnId, bytes: &[u8], now: Now) -> Option<usize> {
        let masked = self.masked(on, bytes, now);
        debug_assert_eq!(masked.len(), bytes.len());
        let event = Input::In { on, bytes: Bytes::literal(&masked) };
        let used = self.record(&event, now, |shadow| shadow.handle_bytes(on, &masked, now))?;
        match self.mode(on) {
            Mode::Requests { body, .. } => *body -= (*body).min(used as u64),
            mode @ Mode::Proxied if used > 0 => *mode = Mode::REQUESTS,
            Mode::Proxied | Mode::Answer | Mode::Client | Mode::Lines | Mode::Followed | Mode::Opaque => {}
        }
        if used > 0 {
            self.action(alloc::format!("took {used}"), None);
        }
        self.drain(now);
        Some(used)
    }

    fn masked(&mut self, on: ConnId, bytes: &[u8], now: Now) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        match *self.mode(on) {
            Mode::Proxied => {
                let len = redact::proxy_header(bytes, &mut out);
                redact::opaque(&bytes[len..], &mut out);
            }
            // No request begins like that.
            Mode::Requests { body: 0, .. } if client_hello::begins(bytes) => {
                client_hello::redact(bytes, &mut out)
            }
            Mode::Requests { body, .. } => {
                let body = usize::try_from(body).unwrap_or(usize::MAX).min(bytes.len());
                let (body, request) = bytes.split_at(body);
                redact::opaque(body, &mut out);
                self.request(on, request, now, &mut out);
            }
            Mode::Answer => self.answer(bytes, &mut out),
            Mode::Client => self.client(bytes, &mut out),
            Mode::Lines => redact::lines(bytes, |shown| self.key(shown), &mut out),
            Mode::Followed => self.followed(on, bytes, now, &mut out),
            Mode::Opaque => redact::opaque(bytes, &mut out),
        }
        out
    }

    /// Redacts bytes at a gate, or those of a client that has left its pair.
    fn followed(&mut self, on: ConnId, bytes: &[u8], now: Now, out: &mut Vec<u8>) {
        let body = usize::try_from(self.shadow.unread_body(on)).unwrap_or(usize::MAX);
        let (body, bytes) = bytes.split_at(body.min(bytes.len()));
        redact::opaque(body, out);
        let Some((mut follower, from)) = self.shadow.follower(on) else {
            *self.mode(on) = Mode::REQUESTS;
            return self.request(on, bytes, now, out);
        };
        let token = |registration: &Registration<'_>| self.pseudonyms.token(registration, now.wall);
        let is_label = |name: &str| self.pseudonyms.is_label(name);
        let head =
            |head: &[u8], out: &mut Vec<u8>| redact::request(head, M::gate_reader(&token, &is_label), out);
        redact::exchanges(&mut follower, from, bytes, head, out);
    }

    /// Redacts bytes to a relay.
    fn request(&mut self, on: ConnId, bytes: &[u8], now: Now, out: &mut Vec<u8>) {
        let Found::Complete(whole) = Finder::default().find(bytes, &self.limits) else {
            return redact::request(bytes, redact::Reader::Form, out);
        };
        let (head, behind) = bytes.split_at(whole.bytes().len());
        let parsed = whole.parse();
        let token = |registration: &Registration<'_>| self.pseudonyms.token(registration, now.wall);
        let is_label = |name: &str| self.pseudonyms.is_label(name);
        let request_head = |head: &[u8], out: &mut Vec<u8>| {
            redact::request(head, redact::Reader::Whole(&token, &is_label), out)
        };
        request_head(head, out);
        // If the request begins a pair, the bytes after it are at a gate already.
        match parsed {
            Ok(first) if !first.is_connect() => {
                let mut follower = Follower::new(self.limits, follower::Mode::Lenient);
                follower.request_passed(&first);
                redact::exchanges(&mut follower, Side::Client, behind, request_head, out);
            }
            _ => redact::opaque(behind, out),
        }
        if let Mode::Requests { announced, .. } = self.mode(on) {
            *announced = match parsed.map(|head| head.body) {
                Ok(Body::Length(bytes)) => bytes,
                _ => 0,
            };
        }
    }

    /// Redacts a relay's responses to an agent: interim ones, the final one, and after a 200 the client's request.
    fn answer(&self, bytes: &[u8], out: &mut Vec<u8>) {
        let mut rest = bytes;
        while let Ok(Some(response)) = parse_response(rest, &mut Finder::default(), &self.limits) {
            let (head, behind) = rest.split_at(response.len);
            redact::answer(head, out);
            match response.status {
                101 | 300.. => return redact::opaque(behind, out),
                200..300 => return self.client(behind, out),
                _ => rest = behind,
            }
        }
        redact::answer(rest, out);
    }

    /// Redacts a client's PROXY header, if the agent asked for it, and its request, of which only the form matters.
    fn client(&self, bytes: &[u8], out: &mut Vec<u8>) {
        let is_header = self.asks && proxy_header::begins_v2(bytes);
        let header = if is_header { redact::client_header(bytes, out) } else { 0 };
        let (header, bytes) = bytes.split_at(header);
        if client_hello::begins(bytes) {
            return client_hello::redact(bytes, out);
        }
        if !matches!(proxy_header::raw_name(header), Ok(None)) {
            return redact::opaque(bytes, out);
        }
        let head = match Finder::default().find(bytes, &self.limits) {
            Found::Complete(whole) => whole.bytes().len(),
            Found::Partial | Found::Refused(_) => bytes.len(),
        };
        let (head, behind) = bytes.split_at(head);
        redact::request(head, redact::Reader::Form, out);
        redact::opaque(behind, out);
    }

    /// The stand-in for a key: ours by its stand-in, any other by one that is not ours either.
    fn key(&self, shown: &[u8]) -> Vec<u8> {
        let ours = self.keys.iter().find(|(key, _)| key.is(shown));
        ours.map_or_else(|| vec![b'x'; shown.len()], |(_, stand_in)| stand_in.as_bytes().to_vec())
    }

    /// Compares an output of the machine with its shadow's. `bytes` are those of a `Send`.
    pub(super) fn compare(&mut self, output: &Output, bytes: &[u8]) {
        if self.is_over || matches!(output, Output::Idle { .. }) {
            return;
        }
        let (shadow, stand_in) = self.ahead.pop_front().unzip();
        if let (Some(key), Some(Some(stand_in))) = (offered(bytes), stand_in) {
            self.keys.push_back((key, stand_in));
            if self.keys.len() > KEYS_MAX {
                self.keys.pop_front();
            }
        }
        debug_assert_eq!(shadow.as_ref(), Some(output), "the shadow acts otherwise");
        if shadow.as_ref() != Some(output) {
            self.is_over = true;
            let _ = writeln!(
                self.text,
                "# The recording ends: the machine went on with '{}', its shadow did not.",
                display::output(output)
            );
        }
    }
}

/// The key that an agent offers in its 101, if these bytes are one.
fn offered(bytes: &[u8]) -> Option<DirectKey> {
    match offer::read(bytes) {
        Offered::Offer(offer) if bytes.starts_with(b"HTTP/1.1 101 ") => Some(offer.key),
        Offered::Offer(_) | Offered::Nothing | Offered::Refused(_) | Offered::Malformed => None,
    }
}
