//! A machine that gets the inputs of a trace.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::bytes::Context;
use super::tokenizer::ConnText;
use super::{Bytes, Identity, Input, Outcome, Setup, Trace, display};
use crate::agent::{Agent, Seeds};
use crate::engine::Engine;
use crate::machine::{Close, ConnId, Machine, Output, PASS_ALL};
use crate::time::Now;

/// An action of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// Its text, without bytes.
    pub text: String,
    /// The bytes of a `send`; otherwise none.
    pub bytes: Vec<u8>,
}

impl Action {
    /// The action as it is written in a trace at `now`.
    #[must_use]
    pub fn outcome(&self, now: Now) -> Outcome {
        let bytes = (!self.bytes.is_empty()).then(|| Bytes::dated(&self.bytes, now.wall));
        Outcome { line: 0, text: self.text.clone(), bytes }
    }
}

/// A machine that gets the inputs of a trace.
///
/// It refuses inputs that violate the contract of [`machine`](crate::machine), since a trace may have been written by
/// hand.
#[derive(Debug)]
pub struct Replayer<'t> {
    identities: &'t [Identity],
    machine: Running,
    conns: BTreeMap<ConnId, ConnState>,
    listeners: usize,
    /// Closed connections.
    gone: BTreeSet<ConnId>,
}

#[derive(Debug)]
enum Running {
    Relay(Box<Engine>),
    Agent(Box<Agent>),
}

/// The state of a connection, as far as the contract needs it.
#[derive(Clone, Copy, Debug, Default)]
struct ConnState {
    stage: Stage,
    /// Whether its name is being resolved.
    is_resolving: bool,
    closing: bool,
    ended: bool,
    peer: Option<ConnId>,
    /// In a pair, how many bytes move before the next are offered; `None`: none are offered.
    gate: Option<u64>,
    /// The number of bytes that were offered and not consumed.
    kept: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    Resolving,
    Dialling,
    Securing,
    #[default]
    Up,
}

impl<'t> Replayer<'t> {
    /// The machine of a trace at its start, with its first actions.
    #[must_use]
    pub fn start(trace: &'t Trace, now: Now) -> (Self, Vec<Action>) {
        let (machine, listeners) = match &trace.setup {
            Setup::Relay(config) => {
                let engine = Engine::new((**config).clone(), trace.seed, now);
                (Running::Relay(Box::new(engine)), config.listeners.len())
            }
            Setup::Agent { config, jitter } => {
                let seeds = Seeds { nonces: trace.seed, jitter: *jitter };
                let listener = config.direct.as_ref().and_then(|direct| direct.listener);
                let listeners = listener.map_or(0, |listener| usize::from(listener.0) + 1);
                (Running::Agent(Box::new(Agent::new((**config).clone(), seeds, now))), listeners)
            }
        };
        let conns = BTreeMap::new();
        let mut replayer =
            Self { identities: &trace.identities, machine, conns, listeners, gone: BTreeSet::new() };
        let actions = replayer.drain();
        (replayer, actions)
    }

    /// Passes an input to the machine, and drains its outputs.
    ///
    /// # Errors
    ///
    /// The contract does not allow the input here. It was not passed on.
    pub fn apply(&mut self, event: &Input, now: Now) -> Result<Vec<Action>, String> {
        self.check(event)?;
        let context = Context { identities: self.identities, wall: now.wall };
        let mut actions = Vec::new();
        match event {
            Input::Start => return Err("the machine has already started".to_string()),
            Input::Ids { names } => {
                let known = |name: &String| self.identities.iter().find(|identity| identity.name == *name);
                let ids = names.iter().filter_map(known).map(|identity| identity.enrolment.clone()).collect();
                if let Running::Relay(engine) = &mut self.machine {
                    engine.handle_ids(ids, now);
                }
            }
            Input::Config { config } => {
                if let Running::Relay(engine) = &mut self.machine {
                    engine.handle_config((**config).clone(), now);
                }
            }
            Input::Kick { what } => {
                if let Running::Relay(engine) = &mut self.machine {
                    engine.handle_kick(what, now);
                }
            }
            Input::TakeOver { step } => {
                if let Running::Relay(engine) = &mut self.machine {
                    engine.handle_take_over(*step, now);
                }
            }
            Input::KeysRemoved { keys } => {
                if let Running::Agent(agent) = &mut self.machine {
                    agent.handle_removed_keys(keys, now);
                }
            }
            Input::PathChanged => {
                if let Running::Agent(agent) = &mut self.machine {
                    agent.handle_path_changed(now);
                }
            }
            Input::Ticket { upstream, name } => {
                let known = self.identities.iter().find(|identity| identity.name == *name);
                if let (Running::Agent(agent), Some(identity)) = (&mut self.machine, known) {
                    agent.handle_ticket(*upstream, identity.enrolment.key.clone(), now);
                }
            }
            Input::Verified { on, ticket, verdict } => {
                if let Running::Agent(agent) = &mut self.machine {
                    agent.handle_verified(*on, *ticket, *verdict, now);
                }
            }
            Input::Drain => match &mut self.machine {
                Running::Relay(engine) => engine.handle_drain(now),
                Running::Agent(agent) => agent.handle_drain(now),
            },
            Input::In { on, bytes } => {
                let used = self.offer(*on, &bytes.resolve(context), now)?;
                if used > 0 {
                    actions.push(Action { text: format!("took {used}"), bytes: Vec::new() });
                }
            }
            Input::Open { on, from } => {
                let id = self.machine.get().handle_open(*on, *from, now);
                self.live(id, Stage::Up);
                actions.push(Action { text: format!("conn {}", ConnText(id)), bytes: Vec::new() });
            }
            _ => self.tell_of_connection(event, now),
        }
        actions.extend(self.drain());
        Ok(actions)
    }

    /// Offers bytes to the machine, without draining its outputs. Returns how many it consumed.
    ///
    /// # Errors
    ///
    /// Fewer bytes are offered than were left the last time.
    fn offer(&mut self, on: ConnId, bytes: &[u8], now: Now) -> Result<usize, String> {
        if let Some(life) = self.conns.get(&on)
            && bytes.len() < life.kept
        {
            let (kept, offered) = (life.kept, bytes.len());
            return Err(format!("{kept} bytes were not consumed and must be offered again, not {offered}"));
        }
        let used = self.machine.get().handle_bytes(on, bytes, now);
        if let Some(life) = self.conns.get_mut(&on) {
            life.kept = bytes.len() - used;
        }
        Ok(used)
    }

    fn tell_of_connection(&mut self, event: &Input, now: Now) {
        let machine = self.machine.get();
        match event {
            Input::Found { on, addresses } => machine.handle_found(*on, addresses, now),
            Input::Resolved { on, addresses } => machine.handle_resolved(*on, addresses, now),
            Input::Connected { on } => machine.handle_connected(*on, now),
            Input::DialFailed { on, why } => machine.handle_dial_failed(*on, *why, now),
            Input::Secured { on, tls } => machine.handle_secured(*on, tls.clone(), now),
            Input::TlsFailed { on, why } => machine.handle_tls_failed(*on, *why, now),
            Input::LastBytes { on } => machine.handle_last_bytes(*on, now),
            Input::Moved { on, read, queued } => machine.handle_moved(*on, *read, *queued, now),
            Input::Flushed { on } => machine.handle_flushed(*on, now),
            Input::RoundTrip { on, round_trip } => machine.handle_round_trip(*on, *round_trip, now),
            Input::Acked { on, age } => machine.handle_acked(*on, *age, now),
            Input::End { on, how } => machine.handle_end(*on, *how, now),
            Input::WriteFailed { on } => machine.handle_write_failed(*on, now),
            Input::Stalled { on } => machine.handle_stalled(*on, now),
            Input::Closed { on } => machine.handle_closed(*on, now),
            Input::Timeout => machine.handle_timeout(now),
            Input::Start
            | Input::Open { .. }
            | Input::In { .. }
            | Input::Ids { .. }
            | Input::Config { .. }
            | Input::Kick { .. }
            | Input::TakeOver { .. }
            | Input::PathChanged
            | Input::KeysRemoved { .. }
            | Input::Ticket { .. }
            | Input::Verified { .. }
            | Input::Drain => {}
        }
        match event {
            Input::Resolved { on, .. } => {
                if let Some(life) = self.conns.get_mut(on) {
                    life.is_resolving = false;
                }
            }
            Input::DialFailed { on, .. } => {
                if let Some(life) = self.conns.get_mut(on)
                    && life.stage == Stage::Resolving
                {
                    life.is_resolving = false;
                }
            }
            Input::Connected { on } | Input::Secured { on, .. } => self.live(*on, Stage::Up),
            Input::Moved { on, read, .. } => {
                if let Some(life) = self.conns.get_mut(on) {
                    life.gate = life.gate.map(|gate| gate.saturating_sub(u64::from(*read)));
                }
            }
            Input::End { on, .. } => {
                if let Some(life) = self.conns.get_mut(on) {
                    life.ended = true;
                }
            }
            Input::Closed { on } => {
                self.conns.remove(on);
                self.gone.insert(*on);
            }
            _ => {}
        }
    }

    fn drain(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        loop {
            let mut bytes = Vec::new();
            let output = self.machine.get().poll_output(&mut bytes);
            match output {
                Output::Idle { .. } => {
                    // Their results are in the trace.
                    if let Running::Agent(agent) = &mut self.machine {
                        let _ = agent.take_checks();
                    }
                    return actions;
                }
                Output::Resolve { on, .. } => {
                    self.live(on, Stage::Resolving);
                    if let Some(life) = self.conns.get_mut(&on) {
                        life.is_resolving = true;
                    }
                }
                Output::Dial { on, .. } => self.live(on, Stage::Dialling),
                Output::StartTls { on, .. } => {
                    self.live(on, Stage::Securing);
                    // The bytes that are left belong to TLS.
                    if let Some(life) = self.conns.get_mut(&on) {
                        life.kept = 0;
                    }
                }
                Output::Pair { hidden, client } => {
                    for (on, peer) in [(hidden, client), (client, hidden)] {
                        if let Some(life) = self.conns.get_mut(&on) {
                            life.peer = Some(peer);
                            life.gate = None;
                        }
                    }
                }
                Output::Gate { on } => {
                    if let Some(life) = self.conns.get_mut(&on) {
                        life.gate = Some(0);
                    }
                }
                Output::Pass { from, bytes } => {
                    if let Some(life) = self.conns.get_mut(&from) {
                        life.gate =
                            life.gate.map(|gate| gate.saturating_add(bytes)).filter(|gate| *gate != PASS_ALL);
                        // They move; the following inputs have the numbers.
                        life.kept = 0;
                    }
                }
                Output::Close { on, how } => self.close(on, how),
                _ => {}
            }
            actions.push(Action { text: display::output(&output), bytes });
        }
    }

    fn live(&mut self, on: ConnId, stage: Stage) {
        self.conns.entry(on).or_default().stage = stage;
    }

    fn close(&mut self, on: ConnId, _: Close) {
        // An agent's connection in backoff is closed without having been dialled, so it is not known yet.
        let life = self.conns.entry(on).or_default();
        life.closing = true;
        if let Some(peer) = life.peer.take()
            && let Some(peer) = self.conns.get_mut(&peer)
        {
            peer.peer = None;
        }
    }

    fn check(&self, event: &Input) -> Result<(), String> {
        let is_relay = matches!(self.machine, Running::Relay(_));
        let on = match event {
            Input::Ids { .. } | Input::Config { .. } | Input::Kick { .. } | Input::TakeOver { .. }
                if !is_relay =>
            {
                return Err("only a relay has this event".to_string());
            }
            Input::Found { .. }
            | Input::Resolved { .. }
            | Input::Connected { .. }
            | Input::DialFailed { .. }
            | Input::PathChanged
            | Input::KeysRemoved { .. }
            | Input::Ticket { .. }
            | Input::Verified { .. }
                if is_relay =>
            {
                return Err("only an agent has this event".to_string());
            }
            Input::Open { on, .. } if usize::from(on.0) >= self.listeners => {
                return Err(format!("there is no listener {}", on.0));
            }
            Input::Start
            | Input::Open { .. }
            | Input::Timeout
            | Input::Ids { .. }
            | Input::Config { .. }
            | Input::Kick { .. }
            | Input::TakeOver { .. }
            | Input::PathChanged
            | Input::KeysRemoved { .. }
            | Input::Ticket { .. }
            | Input::Drain => return Ok(()),
            Input::Found { on, .. }
            | Input::Resolved { on, .. }
            | Input::Connected { on }
            | Input::DialFailed { on, .. }
            | Input::Secured { on, .. }
            | Input::TlsFailed { on, .. }
            | Input::In { on, .. }
            | Input::LastBytes { on }
            | Input::Moved { on, .. }
            | Input::Flushed { on }
            | Input::RoundTrip { on, .. }
            | Input::Acked { on, .. }
            | Input::End { on, .. }
            | Input::WriteFailed { on }
            | Input::Stalled { on }
            | Input::Verified { on, .. }
            | Input::Closed { on } => *on,
        };
        let Some(life) = self.conns.get(&on) else {
            // Inputs of a closed connection are allowed, and have no effect.
            return if self.gone.contains(&on) {
                Ok(())
            } else {
                Err(format!("there is no connection {}", ConnText(on)))
            };
        };
        let fits = match event {
            Input::Closed { .. } => life.closing,
            _ if life.closing => true,
            Input::Found { .. } | Input::Resolved { .. } => life.is_resolving,
            Input::Connected { .. } => life.stage == Stage::Dialling,
            Input::DialFailed { .. } => life.is_resolving || life.stage == Stage::Dialling,
            Input::Secured { .. } | Input::TlsFailed { .. } => life.stage == Stage::Securing,
            Input::In { .. } => {
                let is_offered = life.peer.is_none() || life.gate == Some(0);
                life.stage == Stage::Up && is_offered && !life.ended
            }
            Input::LastBytes { .. } => life.gate == Some(0) && !life.ended,
            Input::Moved { read, .. } => {
                let passes = life.gate.is_none_or(|gate| gate >= u64::from(*read));
                life.peer.is_some() && passes && !(life.ended && *read > 0)
            }
            Input::End { .. } => !life.ended && matches!(life.stage, Stage::Up | Stage::Securing),
            _ => true,
        };
        if fits { Ok(()) } else { Err(format!("the contract does not allow this for {} now", ConnText(on))) }
    }
}

impl Running {
    fn get(&mut self) -> &mut dyn Machine {
        match self {
            Self::Relay(engine) => &mut **engine,
            Self::Agent(agent) => &mut **agent,
        }
    }
}
