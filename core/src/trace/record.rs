//! A machine that writes down what happens to it.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write as _;
use core::net::SocketAddr;

use super::people::People;
use super::print::{Clock, write_event, write_identity, write_setup};
use super::{Event, Octets, Outcome, Setup, mask, show, words};
use crate::engine::{Config, Engine};
use crate::http::head::{self, Body, Finder, Found, Limits};
use crate::http::target::Registration;
use crate::machine::{ConnId, DialFailure, End, Listener, Machine, Output, TlsFailure};
use crate::note::Note;
use crate::registry::Enrolment;
use crate::time::{Now, Span};

/// A machine at work, and a trace of it if one is wanted; without one it costs next to nothing.
///
/// # What is in the trace
///
/// Nothing that opens anything. Beside the machine there is a *shadow*: one of the same kind with another seed and other
/// secrets, which is told the same things, with the octets masked. What is written down is what the shadow was told
/// and what it did; so a trace replays to what it holds, and the shadow is checked at every output to do what the
/// machine itself does. Where it does not, that is written down, and the recording ends.
///
/// * As they were: times, addresses, IDs and labels, limits; methods, versions, names of fields, and the values of
///   `Host`, `Connection`, `Upgrade`, `Content-Length`, `Transfer-Encoding`, `Expect`; nonces of
///   CONNECTs.
/// * By a stand-in of its length that takes the same path: the seed; secrets; tokens, a right one by the right one of the
///   stand-in secret, a wrong one by a wrong one; an `Authorization` by one that names the same ID.
/// * By `x`: letters and digits of a target's path and query, but for `rendezvous=ID`; the values of all other fields;
///   bodies; all that is behind a head; and of a head that is not complete, everything but its form.
/// * As lengths alone: all that moves after the rendezvous.
///
/// Whoever has a trace knows who met whom when, from which address, and the IDs. It is no public document.
#[derive(Debug)]
pub struct Recorder<M> {
    machine: M,
    tape: Option<Box<Tape<M>>>,
}

/// The recording.
#[derive(Debug)]
struct Tape<M> {
    shadow: M,
    text: String,
    clock: Clock,
    people: People,
    limits: Limits,
    modes: BTreeMap<ConnId, Mode>,
    /// What the shadow did and the machine has not done yet.
    ahead: VecDeque<Output>,
    is_over: bool,
}

/// What the octets of a connection are to the relay.
#[derive(Clone, Copy, Debug, Default)]
struct Mode {
    /// Of the body of a challenged request, that many are still to come.
    body: u64,
    /// The body of the head that was read last.
    announced: u64,
    /// It waits or is paired: nothing of it is read.
    opaque: bool,
}

impl Recorder<Engine> {
    /// A relay (see [`Engine::new`]), with a trace of it where `traced`.
    #[must_use]
    pub fn relay(config: Config, seed: [u8; 32], now: Now, traced: bool) -> Self {
        let tape = traced.then(|| {
            let stand_in = [0; 32];
            let mut text = String::new();
            let setup = Setup::Relay(Box::new(config.clone()));
            let _ = write_setup(&mut text, &setup, &stand_in, &[]);
            let mut tape = Tape {
                shadow: Engine::new(config.clone(), stand_in, now),
                text,
                clock: Clock::default(),
                people: People::default(),
                limits: config.head,
                modes: BTreeMap::new(),
                ahead: VecDeque::new(),
                is_over: false,
            };
            tape.record(&Event::Start, now, |_| ());
            Box::new(tape)
        });
        Self { machine: Engine::new(config, seed, now), tape }
    }

    /// [`Engine::handle_ids`].
    pub fn handle_ids(&mut self, ids: Vec<Enrolment>, now: Now) {
        if let Some(tape) = &mut self.tape {
            let (names, stand_ins, new) = tape.people.enrol(&ids);
            for identity in &new {
                let _ = write_identity(&mut tape.text, identity);
            }
            tape.record(&Event::Ids { names }, now, |shadow| shadow.handle_ids(stand_ins, now));
        }
        self.machine.handle_ids(ids, now);
    }

    /// [`Engine::handle_config`]; `now` is when.
    pub fn handle_config(&mut self, config: Config, now: Now) {
        if let Some(tape) = &mut self.tape {
            tape.limits = config.head;
            // The listeners stay what they were, and stand at the beginning.
            let event =
                Event::Config { config: Box::new(Config { listeners: Vec::new(), ..config.clone() }) };
            tape.record(&event, now, |shadow| shadow.handle_config(config.clone()));
        }
        self.machine.handle_config(config);
    }

    /// [`Engine::handle_drain`].
    pub fn handle_drain(&mut self, now: Now) {
        if let Some(tape) = &mut self.tape {
            tape.record(&Event::Drain, now, |shadow| shadow.handle_drain(now));
        }
        self.machine.handle_drain(now);
    }
}

impl<M> Recorder<M> {
    /// The machine itself.
    pub const fn machine(&self) -> &M {
        &self.machine
    }

    /// What was recorded since the last call; nothing where nothing is recorded.
    pub fn take_text(&mut self) -> String {
        self.tape.as_mut().map_or_else(String::new, |tape| core::mem::take(&mut tape.text))
    }
}

impl<M: Machine> Tape<M> {
    /// Writes the event down, tells the shadow, and writes down what it does.
    fn record<R>(&mut self, event: &Event, now: Now, tell: impl FnOnce(&mut M) -> R) -> Option<R> {
        if self.is_over {
            return None;
        }
        let _ = self.clock.write(&mut self.text, now);
        let _ = write_event(&mut self.text, event);
        let result = tell(&mut self.shadow);
        match event {
            // What these return comes first.
            Event::Open { .. } | Event::In { .. } => {}
            _ => self.drain(now),
        }
        Some(result)
    }

    fn drain(&mut self, now: Now) {
        loop {
            let mut octets = Vec::new();
            let output = self.shadow.poll_output(&mut octets);
            match &output {
                Output::Idle { .. } => return,
                Output::Pair { hidden, client } => {
                    self.mode(*hidden).opaque = true;
                    self.mode(*client).opaque = true;
                }
                Output::Note(Note::Waiting { on, .. }) => self.mode(*on).opaque = true,
                Output::Note(Note::Challenged { on, .. }) => {
                    let mode = self.mode(*on);
                    mode.body = mode.announced;
                }
                _ => {}
            }
            let octets = (!octets.is_empty()).then(|| Octets::dated(&octets, now.wall));
            self.action(show::output(&output), octets);
            self.ahead.push_back(output);
        }
    }

    fn action(&mut self, text: String, octets: Option<Octets>) {
        let _ = write!(self.text, "{}", Outcome { line: 0, text, octets });
    }

    fn mode(&mut self, on: ConnId) -> &mut Mode {
        self.modes.entry(on).or_default()
    }

    fn open(&mut self, on: Listener, from: SocketAddr, now: Now) {
        let id = self.record(&Event::Open { on, from }, now, |shadow| shadow.handle_open(on, from, now));
        if let Some(id) = id {
            self.action(alloc::format!("conn {}", words::ConnText(id)), None);
            self.drain(now);
        }
    }

    /// How many octets the shadow consumed.
    fn offer(&mut self, on: ConnId, bytes: &[u8], now: Now) -> Option<usize> {
        let masked = self.masked(on, bytes, now);
        debug_assert_eq!(masked.len(), bytes.len());
        let event = Event::In { on, octets: Octets::literal(&masked) };
        let used = self.record(&event, now, |shadow| shadow.handle_bytes(on, &masked, now))?;
        let mode = self.mode(on);
        mode.body -= mode.body.min(used as u64);
        if used > 0 {
            self.action(alloc::format!("took {used}"), None);
        }
        self.drain(now);
        Some(used)
    }

    fn masked(&mut self, on: ConnId, bytes: &[u8], now: Now) -> Vec<u8> {
        let mode = *self.mode(on);
        let body = if mode.opaque { u64::MAX } else { mode.body };
        let (body, head) = bytes.split_at(usize::try_from(body).unwrap_or(usize::MAX).min(bytes.len()));
        let mut out = Vec::with_capacity(bytes.len());
        mask::opaque(body, &mut out);
        match Finder::default().find(head, &self.limits) {
            Found::Complete(len) => {
                let (head, behind) = head.split_at(len);
                let token = |registration: &Registration<'_>| self.people.token(registration, now.wall);
                mask::request(head, mask::Reader::Whole(&token), &mut out);
                mask::opaque(behind, &mut out);
                let announced = match head::parse(head).map(|head| head.body) {
                    Ok(Body::Length(octets)) => octets,
                    _ => 0,
                };
                self.mode(on).announced = announced;
            }
            Found::Partial | Found::Refused(_) => mask::request(head, mask::Reader::Form, &mut out),
        }
        out
    }

    /// Whether the machine does what its shadow did.
    fn compare(&mut self, output: &Output) {
        if self.is_over || matches!(output, Output::Idle { .. }) {
            return;
        }
        let shadow = self.ahead.pop_front();
        debug_assert_eq!(shadow.as_ref(), Some(output), "the shadow acts otherwise");
        if shadow.as_ref() != Some(output) {
            self.is_over = true;
            let _ = writeln!(
                self.text,
                "# The recording ends: the machine went on with '{}', its shadow did not.",
                show::output(output)
            );
        }
    }
}

impl<M: Machine> Machine for Recorder<M> {
    fn handle_open(&mut self, on: Listener, from: SocketAddr, now: Now) -> ConnId {
        if let Some(tape) = &mut self.tape {
            tape.open(on, from, now);
        }
        // That it is the shadow's id, the outputs will show.
        self.machine.handle_open(on, from, now)
    }

    fn handle_resolved(&mut self, on: ConnId, addresses: &[SocketAddr], now: Now) {
        if let Some(tape) = &mut self.tape {
            let event = Event::Resolved { on, addresses: addresses.to_vec() };
            tape.record(&event, now, |shadow| shadow.handle_resolved(on, addresses, now));
        }
        self.machine.handle_resolved(on, addresses, now);
    }

    fn handle_connected(&mut self, on: ConnId, now: Now) {
        if let Some(tape) = &mut self.tape {
            tape.record(&Event::Connected { on }, now, |shadow| shadow.handle_connected(on, now));
        }
        self.machine.handle_connected(on, now);
    }

    fn handle_dial_failed(&mut self, on: ConnId, why: DialFailure, now: Now) {
        if let Some(tape) = &mut self.tape {
            let event = Event::DialFailed { on, why };
            tape.record(&event, now, |shadow| shadow.handle_dial_failed(on, why, now));
        }
        self.machine.handle_dial_failed(on, why, now);
    }

    fn handle_secured(&mut self, on: ConnId, now: Now) {
        if let Some(tape) = &mut self.tape {
            tape.record(&Event::Secured { on }, now, |shadow| shadow.handle_secured(on, now));
        }
        self.machine.handle_secured(on, now);
    }

    fn handle_tls_failed(&mut self, on: ConnId, why: TlsFailure, now: Now) {
        if let Some(tape) = &mut self.tape {
            let event = Event::TlsFailed { on, why };
            tape.record(&event, now, |shadow| shadow.handle_tls_failed(on, why, now));
        }
        self.machine.handle_tls_failed(on, why, now);
    }

    fn handle_bytes(&mut self, on: ConnId, bytes: &[u8], now: Now) -> usize {
        let shadow = self.tape.as_mut().and_then(|tape| tape.offer(on, bytes, now));
        let used = self.machine.handle_bytes(on, bytes, now);
        debug_assert!(
            shadow.is_none_or(|shadow| shadow == used),
            "the shadow consumed {shadow:?}, not {used}"
        );
        used
    }

    fn handle_moved(&mut self, from: ConnId, read: u32, queued: u32, now: Now) {
        if let Some(tape) = &mut self.tape {
            let event = Event::Moved { on: from, read, queued };
            tape.record(&event, now, |shadow| shadow.handle_moved(from, read, queued, now));
        }
        self.machine.handle_moved(from, read, queued, now);
    }

    fn handle_flushed(&mut self, on: ConnId, now: Now) {
        if let Some(tape) = &mut self.tape {
            tape.record(&Event::Flushed { on }, now, |shadow| shadow.handle_flushed(on, now));
        }
        self.machine.handle_flushed(on, now);
    }

    fn handle_acked(&mut self, on: ConnId, age: Option<Span>, now: Now) {
        if let Some(tape) = &mut self.tape {
            tape.record(&Event::Acked { on, age }, now, |shadow| shadow.handle_acked(on, age, now));
        }
        self.machine.handle_acked(on, age, now);
    }

    fn handle_end(&mut self, on: ConnId, how: End, now: Now) {
        if let Some(tape) = &mut self.tape {
            tape.record(&Event::End { on, how }, now, |shadow| shadow.handle_end(on, how, now));
        }
        self.machine.handle_end(on, how, now);
    }

    fn handle_write_failed(&mut self, on: ConnId, now: Now) {
        if let Some(tape) = &mut self.tape {
            tape.record(&Event::WriteFailed { on }, now, |shadow| shadow.handle_write_failed(on, now));
        }
        self.machine.handle_write_failed(on, now);
    }

    fn handle_closed(&mut self, on: ConnId, now: Now) {
        if let Some(tape) = &mut self.tape {
            tape.record(&Event::Closed { on }, now, |shadow| shadow.handle_closed(on, now));
            tape.modes.remove(&on);
        }
        self.machine.handle_closed(on, now);
    }

    fn handle_timeout(&mut self, now: Now) {
        if let Some(tape) = &mut self.tape {
            tape.record(&Event::Timeout, now, |shadow| shadow.handle_timeout(now));
        }
        self.machine.handle_timeout(now);
    }

    fn poll_output(&mut self, text: &mut Vec<u8>) -> Output {
        let output = self.machine.poll_output(text);
        if let Some(tape) = &mut self.tape {
            tape.compare(&output);
        }
        output
    }
}
