//! Replays a trace.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::bytes::Context;
use super::replayer::{Action, Replayer};
use super::{Bytes, Identity, Input, Outcome, Step, Trace};

/// A trace that is replayed step by step.
#[derive(Debug)]
pub struct Replay<'t> {
    trace: &'t Trace,
    replayer: Option<Replayer<'t>>,
    next: usize,
}

/// A step that was replayed.
#[derive(Debug)]
pub struct Played<'t> {
    /// The step.
    pub step: &'t Step,
    /// The machine's actions, or why the event is not allowed here.
    pub actions: Result<Vec<Action>, String>,
    identities: &'t [Identity],
}

/// A difference between the machine's actions and the trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The line of the action that is missing or differs; of the event if no action is expected.
    pub line: u32,
    /// The expected action; `None` if no further one is.
    pub expected: Option<String>,
    /// The actual action, `None` if there was no further one, or why the event was refused.
    pub got: Option<String>,
}

impl Trace {
    /// The bytes that a step offers if its event is [`Input::In`]; otherwise none.
    #[must_use]
    pub fn bytes(&self, step: &Step) -> Vec<u8> {
        let context = Context { identities: &self.identities, wall: step.now.wall };
        match &step.event {
            Input::In { bytes, .. } => bytes.resolve(context),
            _ => Vec::new(),
        }
    }
}

impl<'t> Replay<'t> {
    /// A replay before its first step.
    #[must_use]
    pub const fn new(trace: &'t Trace) -> Self {
        Self { trace, replayer: None, next: 0 }
    }
}

impl<'t> Iterator for Replay<'t> {
    type Item = Played<'t>;

    fn next(&mut self) -> Option<Played<'t>> {
        let step = self.trace.steps.get(self.next)?;
        self.next += 1;
        let actions = match &mut self.replayer {
            None => {
                let (replayer, actions) = Replayer::start(self.trace, step.now);
                self.replayer = Some(replayer);
                Ok(actions)
            }
            Some(replayer) => replayer.apply(&step.event, step.now),
        };
        Some(Played { step, actions, identities: &self.trace.identities })
    }
}

impl Played<'_> {
    /// The first action that differs, is missing, or is not expected.
    #[must_use]
    pub fn difference(&self) -> Option<Difference> {
        let Step { line, now, outcomes, .. } = self.step;
        let actions = match &self.actions {
            Ok(actions) => actions,
            Err(why) => {
                return Some(Difference { line: *line, expected: None, got: Some(why.clone()) });
            }
        };
        let context = Context { identities: self.identities, wall: now.wall };
        let shown = |action: &Action| action.outcome(*now).shown();
        let mut actions = actions.iter();
        for expected in outcomes {
            let action = actions.next();
            let fits = action.is_some_and(|action| expected.fits(action, context));
            if !fits {
                let (line, got) = (expected.line, action.map(shown));
                return Some(Difference { line, expected: Some(expected.shown()), got });
            }
        }
        let line = outcomes.last().map_or(*line, |last| last.line);
        actions.next().map(|action| Difference { line, expected: None, got: Some(shown(action)) })
    }
}

impl Outcome {
    fn fits(&self, action: &Action, context: Context<'_>) -> bool {
        let fits = |bytes: &Bytes| bytes.fits(&action.bytes, context);
        self.text == action.text && self.bytes.as_ref().map_or(action.bytes.is_empty(), fits)
    }

    /// The outcome on one line.
    fn shown(&self) -> String {
        self.bytes.as_ref().map_or_else(|| self.text.clone(), |bytes| format!("{} {bytes}", self.text))
    }
}
