//! A machine that a trace's events are told to.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::octets::Context;
use super::words::ConnText;
use super::{Event, Identity, Octets, Outcome, Setup, Trace, show};
use crate::agent::{Agent, Seeds};
use crate::engine::Engine;
use crate::machine::{Close, ConnId, Machine, Output, PASS_ALL};
use crate::time::Now;

/// What a machine did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// Its text, without octets.
    pub text: String,
    /// The octets of a `send`; otherwise none.
    pub octets: Vec<u8>,
}

impl Action {
    /// The same as it is written in a trace; `now` is when it happened.
    #[must_use]
    pub fn outcome(&self, now: Now) -> Outcome {
        let octets = (!self.octets.is_empty()).then(|| Octets::dated(&self.octets, now.wall));
        Outcome { line: 0, text: self.text.clone(), octets }
    }
}

/// A machine that a trace's events are told to.
///
/// It keeps the contract of [`machine`](crate::machine) where a trace, which somebody may have written by hand, does
/// not: such an event is refused.
#[derive(Debug)]
pub struct Player<'t> {
    identities: &'t [Identity],
    machine: Running,
    lives: BTreeMap<ConnId, Life>,
    listeners: usize,
    /// Connections that are no more.
    gone: BTreeSet<ConnId>,
}

#[derive(Debug)]
enum Running {
    Relay(Box<Engine>),
    Agent(Box<Agent>),
}

/// What the contract allows for a connection.
#[derive(Clone, Copy, Debug, Default)]
struct Life {
    stage: Stage,
    /// A look-up for it goes on.
    is_resolving: bool,
    closing: bool,
    ended: bool,
    mate: Option<ConnId>,
    /// In a pair: how many bytes move before the next are offered; `None`: nothing is offered.
    gate: Option<u64>,
    /// How many octets were offered and not consumed.
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

impl<'t> Player<'t> {
    /// The machine of a trace at its start, and what it does then.
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
        let lives = BTreeMap::new();
        let mut player =
            Self { identities: &trace.identities, machine, lives, listeners, gone: BTreeSet::new() };
        let actions = player.drain();
        (player, actions)
    }

    /// Tells the machine of an event, and drains it.
    ///
    /// # Errors
    ///
    /// The event may not happen here, as the contract has it. Nothing was told.
    pub fn tell(&mut self, event: &Event, now: Now) -> Result<Vec<Action>, String> {
        self.check(event)?;
        let context = Context { identities: self.identities, wall: now.wall };
        let mut actions = Vec::new();
        match event {
            Event::Start => return Err("it has started".to_string()),
            Event::Ids { names } => {
                let known = |name: &String| self.identities.iter().find(|identity| identity.name == *name);
                let ids = names.iter().filter_map(known).map(|identity| identity.enrolment.clone()).collect();
                if let Running::Relay(engine) = &mut self.machine {
                    engine.handle_ids(ids, now);
                }
            }
            Event::Config { config } => {
                if let Running::Relay(engine) = &mut self.machine {
                    engine.handle_config((**config).clone());
                }
            }
            Event::PathChanged => {
                if let Running::Agent(agent) = &mut self.machine {
                    agent.handle_path_changed(now);
                }
            }
            Event::Verified { on, ticket, verdict } => {
                if let Running::Agent(agent) = &mut self.machine {
                    agent.handle_verified(*on, *ticket, *verdict, now);
                }
            }
            Event::Drain => match &mut self.machine {
                Running::Relay(engine) => engine.handle_drain(now),
                Running::Agent(agent) => agent.handle_drain(now),
            },
            Event::In { on, octets } => {
                let used = self.offer(*on, &octets.resolve(context), now)?;
                if used > 0 {
                    actions.push(Action { text: format!("took {used}"), octets: Vec::new() });
                }
            }
            Event::Open { on, from } => {
                let id = self.machine.get().handle_open(*on, *from, now);
                self.live(id, Stage::Up);
                actions.push(Action { text: format!("conn {}", ConnText(id)), octets: Vec::new() });
            }
            _ => self.tell_of_connection(event, now),
        }
        actions.extend(self.drain());
        Ok(actions)
    }

    /// Offers octets to the machine, without draining it. How many it consumed.
    ///
    /// # Errors
    ///
    /// Fewer are offered than were left over the last time.
    fn offer(&mut self, on: ConnId, octets: &[u8], now: Now) -> Result<usize, String> {
        if let Some(life) = self.lives.get(&on)
            && octets.len() < life.kept
        {
            let (kept, offered) = (life.kept, octets.len());
            return Err(format!(
                "{kept} octets were not consumed and are to be offered again, not {offered}"
            ));
        }
        let used = self.machine.get().handle_bytes(on, octets, now);
        if let Some(life) = self.lives.get_mut(&on) {
            life.kept = octets.len() - used;
        }
        Ok(used)
    }

    fn tell_of_connection(&mut self, event: &Event, now: Now) {
        let machine = self.machine.get();
        match event {
            Event::Found { on, addresses } => machine.handle_found(*on, addresses, now),
            Event::Resolved { on, addresses } => machine.handle_resolved(*on, addresses, now),
            Event::Connected { on } => machine.handle_connected(*on, now),
            Event::DialFailed { on, why } => machine.handle_dial_failed(*on, *why, now),
            Event::Secured { on, tls } => machine.handle_secured(*on, *tls, now),
            Event::TlsFailed { on, why } => machine.handle_tls_failed(*on, *why, now),
            Event::LastBytes { on } => machine.handle_last_bytes(*on, now),
            Event::Moved { on, read, queued } => machine.handle_moved(*on, *read, *queued, now),
            Event::Flushed { on } => machine.handle_flushed(*on, now),
            Event::RoundTrip { on, round_trip } => machine.handle_round_trip(*on, *round_trip, now),
            Event::Acked { on, age } => machine.handle_acked(*on, *age, now),
            Event::End { on, how } => machine.handle_end(*on, *how, now),
            Event::WriteFailed { on } => machine.handle_write_failed(*on, now),
            Event::Stalled { on } => machine.handle_stalled(*on, now),
            Event::Closed { on } => machine.handle_closed(*on, now),
            Event::Timeout => machine.handle_timeout(now),
            Event::Start
            | Event::Open { .. }
            | Event::In { .. }
            | Event::Ids { .. }
            | Event::Config { .. }
            | Event::PathChanged
            | Event::Verified { .. }
            | Event::Drain => {}
        }
        match event {
            Event::Resolved { on, .. } => {
                if let Some(life) = self.lives.get_mut(on) {
                    life.is_resolving = false;
                }
            }
            Event::DialFailed { on, .. } => {
                if let Some(life) = self.lives.get_mut(on)
                    && life.stage == Stage::Resolving
                {
                    life.is_resolving = false;
                }
            }
            Event::Connected { on } | Event::Secured { on, .. } => self.live(*on, Stage::Up),
            Event::Moved { on, read, .. } => {
                if let Some(life) = self.lives.get_mut(on) {
                    life.gate = life.gate.map(|gate| gate.saturating_sub(u64::from(*read)));
                }
            }
            Event::End { on, .. } => {
                if let Some(life) = self.lives.get_mut(on) {
                    life.ended = true;
                }
            }
            Event::Closed { on } => {
                self.lives.remove(on);
                self.gone.insert(*on);
            }
            _ => {}
        }
    }

    fn drain(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        loop {
            let mut octets = Vec::new();
            let output = self.machine.get().poll_output(&mut octets);
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
                    if let Some(life) = self.lives.get_mut(&on) {
                        life.is_resolving = true;
                    }
                }
                Output::Dial { on, .. } => self.live(on, Stage::Dialling),
                Output::StartTls { on, .. } => {
                    self.live(on, Stage::Securing);
                    // What was left over is TLS.
                    if let Some(life) = self.lives.get_mut(&on) {
                        life.kept = 0;
                    }
                }
                Output::Pair { hidden, client } => {
                    for (on, mate) in [(hidden, client), (client, hidden)] {
                        if let Some(life) = self.lives.get_mut(&on) {
                            life.mate = Some(mate);
                            life.gate = None;
                        }
                    }
                }
                Output::Gate { on } => {
                    if let Some(life) = self.lives.get_mut(&on) {
                        life.gate = Some(0);
                    }
                }
                Output::Pass { from, bytes } => {
                    if let Some(life) = self.lives.get_mut(&from) {
                        life.gate =
                            life.gate.map(|gate| gate.saturating_add(bytes)).filter(|gate| *gate != PASS_ALL);
                        // They move: how many of them, the events say.
                        life.kept = 0;
                    }
                }
                Output::Close { on, how } => self.close(on, how),
                _ => {}
            }
            actions.push(Action { text: show::output(&output), octets });
        }
    }

    fn live(&mut self, on: ConnId, stage: Stage) {
        self.lives.entry(on).or_default().stage = stage;
    }

    fn close(&mut self, on: ConnId, _: Close) {
        // An agent's next attempt, which rests, is closed without having been dialled: nothing was said of it before.
        let life = self.lives.entry(on).or_default();
        life.closing = true;
        if let Some(mate) = life.mate.take()
            && let Some(mate) = self.lives.get_mut(&mate)
        {
            mate.mate = None;
        }
    }

    fn check(&self, event: &Event) -> Result<(), String> {
        let is_relay = matches!(self.machine, Running::Relay(_));
        let on = match event {
            Event::Ids { .. } | Event::Config { .. } if !is_relay => {
                return Err("this is an event of a relay's".to_string());
            }
            Event::Found { .. }
            | Event::Resolved { .. }
            | Event::Connected { .. }
            | Event::DialFailed { .. }
            | Event::PathChanged
            | Event::Verified { .. }
                if is_relay =>
            {
                return Err("this is an event of an agent's".to_string());
            }
            Event::Open { on, .. } if usize::from(on.0) >= self.listeners => {
                return Err(format!("there is no listener {}", on.0));
            }
            Event::Start
            | Event::Open { .. }
            | Event::Timeout
            | Event::Ids { .. }
            | Event::Config { .. }
            | Event::PathChanged
            | Event::Drain => return Ok(()),
            Event::Found { on, .. }
            | Event::Resolved { on, .. }
            | Event::Connected { on }
            | Event::DialFailed { on, .. }
            | Event::Secured { on, .. }
            | Event::TlsFailed { on, .. }
            | Event::In { on, .. }
            | Event::LastBytes { on }
            | Event::Moved { on, .. }
            | Event::Flushed { on }
            | Event::RoundTrip { on, .. }
            | Event::Acked { on, .. }
            | Event::End { on, .. }
            | Event::WriteFailed { on }
            | Event::Stalled { on }
            | Event::Verified { on, .. }
            | Event::Closed { on } => *on,
        };
        let Some(life) = self.lives.get(&on) else {
            // Of a connection that is gone, anything may be said: it reaches nobody.
            return if self.gone.contains(&on) {
                Ok(())
            } else {
                Err(format!("there is no connection {}", ConnText(on)))
            };
        };
        let fits = match event {
            Event::Closed { .. } => life.closing,
            _ if life.closing => true,
            Event::Found { .. } | Event::Resolved { .. } => life.is_resolving,
            Event::Connected { .. } => life.stage == Stage::Dialling,
            Event::DialFailed { .. } => life.is_resolving || life.stage == Stage::Dialling,
            Event::Secured { .. } | Event::TlsFailed { .. } => life.stage == Stage::Securing,
            Event::In { .. } => {
                let is_offered = life.mate.is_none() || life.gate == Some(0);
                life.stage == Stage::Up && is_offered && !life.ended
            }
            Event::LastBytes { .. } => life.gate == Some(0) && !life.ended,
            Event::Moved { read, .. } => {
                let passes = life.gate.is_none_or(|gate| gate >= u64::from(*read));
                life.mate.is_some() && passes && !(life.ended && *read > 0)
            }
            Event::End { .. } => !life.ended && matches!(life.stage, Stage::Up | Stage::Securing),
            _ => true,
        };
        if fits { Ok(()) } else { Err(format!("this can't happen to {} now", ConnText(on))) }
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
