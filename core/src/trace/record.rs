//! A machine that records a trace of itself.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;

use super::print::write_identity;
use super::pseudonyms::Pseudonyms;
use super::writer::{Mode, Shadow, TraceWriter};
use super::{Input, Setup};
use crate::account::Owners;
use crate::agent::{self, Agent, PasswordCheck, Seeds, Verdict};
use crate::engine::{Config, Engine, Kick, TakeOver};
use crate::fingerprint::Fingerprint;
use crate::machine::{ConnId, DialFailure, End, Listener, Machine, Output, Secured, TlsFailure};
use crate::registry::{Enrolment, UsedToken};
use crate::subject::Subject;
use crate::time::{Now, Span};
use crate::token::Key;

/// The shadow's seed.
const STAND_IN: [u8; 32] = [0; 32];

/// A running machine that optionally records a trace. Without a trace it costs next to nothing.
///
/// # Contents of the trace
///
/// The trace contains no credentials. Beside the machine there is a *shadow*: a machine of the same kind with another
/// seed and other secrets, which gets the same inputs with the bytes redacted. The trace contains the inputs and
/// actions of the shadow. So it can be replayed, and each output of the shadow is compared with the machine's own. If
/// they differ, that is recorded, and the recording ends.
///
/// * Unchanged: times, addresses, IDs and labels, limits; methods, versions, statuses, names of fields, and the
///   values of the fields that are read and control the connection: `Host`, `Connection`, `Upgrade`,
///   `Content-Length`, `Transfer-Encoding`, `Expect` of a request; `Date` and `Retry-After` of a relay's response if
///   they are a date and a number; the relay's `Rendezvous-Challenge`; `PROXY-Protocol` of a CONNECT, and the
///   addresses in PROXY headers; nonces of the CONNECTs that a relay receives; the seed of an agent's jitter;
///   `DTCP-Host` and `DTCP-Fingerprint`, certificates, and keys of clients.
/// * Replaced by a stand-in of the same length that is handled in the same way: the seed of nonces and of a relay's
///   challenges, hence those that it sends and receives, and the nonces of the CONNECTs that an agent sends; secrets;
///   tokens (a valid one by the valid one of the stand-in secret, an invalid one by an invalid one); an
///   `Authorization` that a relay receives, by one that names the same ID.
/// * Replaced by letters of the same length: a user name and a password that an agent has checked. The result is
///   unchanged.
/// * In lines about direct connections, the commands are unchanged; our keys are replaced by their stand-ins, others
///   by `x`.
/// * Replaced by `x`: the subject of a client's certificate; letters and digits of a target's path and query, except
///   `rendezvous=ID`; reason phrases; the values of all other fields; extensions in a PROXY header; bodies;
///   everything after a head; and of an incomplete head, everything but its form.
/// * Only as lengths: everything that moves after the rendezvous; at an agent, after the local service was reached,
///   and after the path of a stream was decided.
///
/// A trace reveals which addresses connected to which IDs, and when. It should not be published.
#[derive(Debug)]
pub struct Recorder<M> {
    machine: M,
    writer: Option<Box<TraceWriter<M>>>,
}

impl Recorder<Engine> {
    /// A relay (see [`Engine::new`]), with a trace if `traced`.
    #[must_use]
    pub fn relay(config: Config, seed: [u8; 32], now: Now, traced: bool) -> Self {
        let writer = traced.then(|| {
            let shadow = Engine::new(config.clone(), STAND_IN, now);
            let (pseudonyms, limits) = (Pseudonyms::of_relay(seed, STAND_IN), config.head);
            let setup = Setup::Relay(Box::new(config.clone()));
            Box::new(TraceWriter::begin(&setup, &STAND_IN, pseudonyms, shadow, limits, Mode::REQUESTS, now))
        });
        Self { machine: Engine::new(config, seed, now), writer }
    }

    /// [`Engine::handle_ids`].
    pub fn handle_ids(&mut self, ids: Vec<Enrolment>, now: Now) {
        if let Some(writer) = &mut self.writer {
            let (names, stand_ins, new) = writer.pseudonyms.enrol(&ids);
            for identity in &new {
                let _ = write_identity(&mut writer.text, identity);
            }
            writer.record(&Input::Ids { names }, now, |shadow| shadow.handle_ids(stand_ins, now));
        }
        self.machine.handle_ids(ids, now);
    }

    /// [`Engine::handle_config`] at `now`.
    pub fn handle_config(&mut self, config: Config, now: Now) {
        if let Some(writer) = &mut self.writer {
            writer.limits = config.head;
            // The listeners do not change, and are recorded at the beginning.
            let event =
                Input::Config { config: Box::new(Config { listeners: Vec::new(), ..config.clone() }) };
            writer.record(&event, now, |shadow| shadow.handle_config(config.clone(), now));
        }
        self.machine.handle_config(config, now);
    }

    /// [`Engine::handle_kick`].
    pub fn handle_kick(&mut self, what: &Kick, now: Now) -> u32 {
        if let Some(writer) = &mut self.writer {
            writer.record(&Input::Kick { what: *what }, now, |shadow| {
                shadow.handle_kick(what, now);
            });
        }
        self.machine.handle_kick(what, now)
    }

    /// [`Engine::handle_take_over`].
    pub fn handle_take_over(&mut self, step: TakeOver, now: Now) {
        if let Some(writer) = &mut self.writer {
            writer.record(&Input::TakeOver { step }, now, |shadow| shadow.handle_take_over(step, now));
        }
        self.machine.handle_take_over(step, now);
    }

    /// [`Engine::handle_used_tokens`]. The trace does not contain it: the stand-in of such a token is an invalid one.
    pub fn handle_used_tokens(&mut self, tokens: &[UsedToken], now: Now) {
        if let Some(writer) = &mut self.writer {
            writer.pseudonyms.invalidate(tokens, now.wall);
        }
        self.machine.handle_used_tokens(tokens, now);
    }

    /// [`Engine::handle_drain`].
    pub fn handle_drain(&mut self, now: Now) {
        if let Some(writer) = &mut self.writer {
            writer.record(&Input::Drain, now, |shadow| shadow.handle_drain(now));
        }
        self.machine.handle_drain(now);
    }
}

impl Recorder<Agent> {
    /// An agent (see [`Agent::new`]), with a trace if `traced`.
    #[must_use]
    pub fn agent(config: agent::Config, seeds: Seeds, now: Now, traced: bool) -> Self {
        let writer = traced.then(|| {
            let mut pseudonyms = Pseudonyms::default();
            let masked = agent::Config {
                upstreams: pseudonyms.upstreams(&config.upstreams),
                proxies: config.proxies.iter().map(|proxy| Some(proxy.as_ref()?.with_stand_ins())).collect(),
                ..config.clone()
            };
            let shadow = Agent::new(masked.clone(), Seeds { nonces: STAND_IN, jitter: seeds.jitter }, now);
            let setup = Setup::Agent { config: Box::new(masked), jitter: seeds.jitter };
            Box::new(TraceWriter::begin(
                &setup,
                &STAND_IN,
                pseudonyms,
                shadow,
                config.head,
                Mode::Answer,
                now,
            ))
        });
        Self { machine: Agent::new(config, seeds, now), writer }
    }

    /// [`Agent::handle_path_changed`].
    pub fn handle_path_changed(&mut self, now: Now) {
        if let Some(writer) = &mut self.writer {
            writer.record(&Input::PathChanged, now, |shadow| shadow.handle_path_changed(now));
        }
        self.machine.handle_path_changed(now);
    }

    /// [`Agent::handle_removed_keys`].
    pub fn handle_removed_keys(&mut self, keys: &[Fingerprint], now: Now) {
        if let Some(writer) = &mut self.writer {
            let input = Input::KeysRemoved { keys: keys.to_vec() };
            writer.record(&input, now, |shadow| shadow.handle_removed_keys(keys, now));
        }
        self.machine.handle_removed_keys(keys, now);
    }

    /// [`Agent::handle_ticket`].
    pub fn handle_ticket(&mut self, upstream: u16, key: Key, now: Now) {
        if let (Some(writer), Some(id)) = (&mut self.writer, self.machine.id(upstream)) {
            let identity = writer.pseudonyms.renew(id, &key);
            let _ = write_identity(&mut writer.text, &identity);
            let (name, stand_in) = (identity.name, identity.enrolment.key);
            let input = Input::Ticket { upstream, name };
            writer.record(&input, now, |shadow| shadow.handle_ticket(upstream, stand_in, now));
        }
        self.machine.handle_ticket(upstream, key, now);
    }

    /// [`Agent::take_checks`].
    #[must_use]
    pub fn take_checks(&mut self) -> Vec<PasswordCheck> {
        if let Some(writer) = &mut self.writer {
            writer.discard_checks();
        }
        self.machine.take_checks()
    }

    /// [`Agent::handle_verified`].
    pub fn handle_verified(&mut self, on: ConnId, ticket: u64, verdict: Verdict, now: Now) {
        if let Some(writer) = &mut self.writer {
            let event = Input::Verified { on, ticket, verdict };
            writer.record(&event, now, |shadow| shadow.handle_verified(on, ticket, verdict, now));
        }
        self.machine.handle_verified(on, ticket, verdict, now);
    }

    /// [`Agent::handle_drain`].
    pub fn handle_drain(&mut self, now: Now) {
        if let Some(writer) = &mut self.writer {
            writer.record(&Input::Drain, now, |shadow| shadow.handle_drain(now));
        }
        self.machine.handle_drain(now);
    }
}

impl<M> Recorder<M> {
    /// The recorded machine.
    pub const fn machine(&self) -> &M {
        &self.machine
    }

    /// The text recorded since the last call; empty without a trace.
    pub fn take_text(&mut self) -> String {
        self.writer.as_mut().map_or_else(String::new, |writer| core::mem::take(&mut writer.text))
    }
}

impl<M: Shadow> Machine for Recorder<M> {
    fn handle_open(&mut self, on: Listener, from: SocketAddr, now: Now) -> ConnId {
        if let Some(writer) = &mut self.writer {
            writer.open(on, from, now);
        }
        // The outputs will show whether it has the shadow's id.
        self.machine.handle_open(on, from, now)
    }

    fn handle_found(&mut self, on: ConnId, addresses: &[SocketAddr], now: Now) {
        if let Some(writer) = &mut self.writer {
            let event = Input::Found { on, addresses: addresses.to_vec() };
            writer.record(&event, now, |shadow| shadow.handle_found(on, addresses, now));
        }
        self.machine.handle_found(on, addresses, now);
    }

    fn handle_resolved(&mut self, on: ConnId, addresses: &[SocketAddr], now: Now) {
        if let Some(writer) = &mut self.writer {
            let event = Input::Resolved { on, addresses: addresses.to_vec() };
            writer.record(&event, now, |shadow| shadow.handle_resolved(on, addresses, now));
        }
        self.machine.handle_resolved(on, addresses, now);
    }

    fn handle_connected(&mut self, on: ConnId, now: Now) {
        if let Some(writer) = &mut self.writer {
            writer.record(&Input::Connected { on }, now, |shadow| shadow.handle_connected(on, now));
        }
        self.machine.handle_connected(on, now);
    }

    fn handle_dial_failed(&mut self, on: ConnId, why: DialFailure, now: Now) {
        if let Some(writer) = &mut self.writer {
            let event = Input::DialFailed { on, why };
            writer.record(&event, now, |shadow| shadow.handle_dial_failed(on, why, now));
        }
        self.machine.handle_dial_failed(on, why, now);
    }

    fn handle_secured(&mut self, on: ConnId, tls: Secured, now: Now) {
        if let Some(writer) = &mut self.writer {
            let subject = tls.subject.as_ref().and_then(|it| Subject::stand_in(it.as_str().len()));
            let masked = Secured { subject, ..tls.clone() };
            let event = Input::Secured { on, tls: masked.clone() };
            writer.record(&event, now, |shadow| shadow.handle_secured(on, masked, now));
        }
        self.machine.handle_secured(on, tls, now);
    }

    fn handle_tls_failed(&mut self, on: ConnId, why: TlsFailure, now: Now) {
        if let Some(writer) = &mut self.writer {
            let event = Input::TlsFailed { on, why };
            writer.record(&event, now, |shadow| shadow.handle_tls_failed(on, why, now));
        }
        self.machine.handle_tls_failed(on, why, now);
    }

    fn handle_bytes(&mut self, on: ConnId, bytes: &[u8], now: Now) -> usize {
        let shadow = self.writer.as_mut().and_then(|writer| writer.offer(on, bytes, now));
        let used = self.machine.handle_bytes(on, bytes, now);
        debug_assert!(
            shadow.is_none_or(|shadow| shadow == used),
            "the shadow consumed {shadow:?}, not {used}"
        );
        used
    }

    fn handle_last_bytes(&mut self, on: ConnId, now: Now) {
        if let Some(writer) = &mut self.writer {
            writer.record(&Input::LastBytes { on }, now, |shadow| shadow.handle_last_bytes(on, now));
        }
        self.machine.handle_last_bytes(on, now);
    }

    fn handle_moved(&mut self, from: ConnId, read: u32, queued: u32, now: Now) {
        if let Some(writer) = &mut self.writer {
            let event = Input::Moved { on: from, read, queued };
            writer.record(&event, now, |shadow| shadow.handle_moved(from, read, queued, now));
        }
        self.machine.handle_moved(from, read, queued, now);
    }

    fn handle_flushed(&mut self, on: ConnId, now: Now) {
        if let Some(writer) = &mut self.writer {
            writer.record(&Input::Flushed { on }, now, |shadow| shadow.handle_flushed(on, now));
        }
        self.machine.handle_flushed(on, now);
    }

    fn handle_round_trip(&mut self, on: ConnId, round_trip: Span, now: Now) {
        if let Some(writer) = &mut self.writer {
            let event = Input::RoundTrip { on, round_trip };
            writer.record(&event, now, |shadow| shadow.handle_round_trip(on, round_trip, now));
        }
        self.machine.handle_round_trip(on, round_trip, now);
    }

    fn handle_acked(&mut self, on: ConnId, age: Option<Span>, now: Now) {
        if let Some(writer) = &mut self.writer {
            writer.record(&Input::Acked { on, age }, now, |shadow| shadow.handle_acked(on, age, now));
        }
        self.machine.handle_acked(on, age, now);
    }

    /// Neither relay nor agent asks for it, so a trace has no such line.
    fn handle_local_address(&mut self, on: ConnId, local: SocketAddr, now: Now) {
        self.machine.handle_local_address(on, local, now);
    }

    fn handle_end(&mut self, on: ConnId, how: End, now: Now) {
        if let Some(writer) = &mut self.writer {
            writer.record(&Input::End { on, how }, now, |shadow| shadow.handle_end(on, how, now));
        }
        self.machine.handle_end(on, how, now);
    }

    fn handle_write_failed(&mut self, on: ConnId, now: Now) {
        if let Some(writer) = &mut self.writer {
            writer.record(&Input::WriteFailed { on }, now, |shadow| shadow.handle_write_failed(on, now));
        }
        self.machine.handle_write_failed(on, now);
    }

    fn handle_stalled(&mut self, on: ConnId, now: Now) {
        if let Some(writer) = &mut self.writer {
            writer.record(&Input::Stalled { on }, now, |shadow| shadow.handle_stalled(on, now));
        }
        self.machine.handle_stalled(on, now);
    }

    fn owners(&self, on: ConnId) -> Owners {
        self.machine.owners(on)
    }

    fn kept(&self, on: ConnId) -> usize {
        self.machine.kept(on)
    }

    fn handle_closed(&mut self, on: ConnId, now: Now) {
        if let Some(writer) = &mut self.writer {
            writer.record(&Input::Closed { on }, now, |shadow| shadow.handle_closed(on, now));
            writer.forget(on);
        }
        self.machine.handle_closed(on, now);
    }

    fn handle_timeout(&mut self, now: Now) {
        if let Some(writer) = &mut self.writer {
            writer.record(&Input::Timeout, now, |shadow| shadow.handle_timeout(now));
        }
        self.machine.handle_timeout(now);
    }

    fn poll_output(&mut self, text: &mut Vec<u8>) -> Output {
        let before = text.len();
        let output = self.machine.poll_output(text);
        if let Some(writer) = &mut self.writer {
            writer.compare(&output, &text[before..]);
        }
        output
    }
}
