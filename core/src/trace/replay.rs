//! Running a trace.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::bytes::Context;
use super::replayer::{Action, Replayer};
use super::{Bytes, Identity, Input, Outcome, Step, Trace};

/// A trace that is run, a step at a time.
#[derive(Debug)]
pub struct Replay<'t> {
    trace: &'t Trace,
    replayer: Option<Replayer<'t>>,
    next: usize,
}

/// A step that was run.
#[derive(Debug)]
pub struct Played<'t> {
    /// The step.
    pub step: &'t Step,
    /// What the machine did; or why the event may not happen here.
    pub actions: Result<Vec<Action>, String>,
    identities: &'t [Identity],
}

/// Where the machine acted otherwise than a trace expects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The line of the action that is missing or another; of the event, where an action is not expected at all.
    pub line: u32,
    /// What is expected there: an action, or nothing more.
    pub expected: Option<String>,
    /// What came instead: an action, nothing more, or why the event was refused.
    pub got: Option<String>,
}

impl Trace {
    /// The bytes that a step offers, where its event is [`Input::In`]; otherwise none.
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
    /// Nothing was run yet.
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
    /// The first action that is not as expected, or that is not there, or that is not expected.
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

    /// On one line.
    fn shown(&self) -> String {
        self.bytes.as_ref().map_or_else(|| self.text.clone(), |bytes| format!("{} {bytes}", self.text))
    }
}
