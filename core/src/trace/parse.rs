//! Parses text to a [`Trace`].

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use super::tokenizer::{self, Tokenizer, number, span};
use super::{Bytes, Identity, Input, Outcome, Setup, Step, Trace, display};
use crate::time::{Now, Time};

mod header;
mod input;

/// The last second of the year 9999, the latest date in HTTP.
const WALL_MAX: u64 = 253_402_300_799;

/// Why a text is not a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// The line, counted from 1.
    pub line: u32,
    /// The error.
    pub why: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.why)
    }
}

impl core::error::Error for ParseError {}

impl Trace {
    /// Parses a trace.
    ///
    /// # Errors
    ///
    /// The first invalid line, and its error.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut parser = Parser::default();
        let mut at = 0;
        for line in text.lines() {
            at += 1;
            parser
                .line(tokenizer::without_comment(line).trim(), at)
                .map_err(|why| ParseError { line: at, why })?;
        }
        parser.finish().map_err(|why| ParseError { line: at.max(1), why })
    }
}

/// What a line that has only bytes continues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Open {
    #[default]
    Nothing,
    Input,
    Outcome,
}

/// The state of the parser.
#[derive(Debug, Default)]
struct Parser {
    is_trace: bool,
    setup: Option<Setup>,
    seed: Option<[u8; 32]>,
    identities: Vec<Identity>,
    steps: Vec<Step>,
    open: Open,
    /// The last time at which the wall clock was given.
    anchor: Option<Now>,
}

impl Parser {
    fn line(&mut self, line: &str, at: u32) -> Result<(), String> {
        if line.is_empty() {
            return Ok(());
        }
        if !core::mem::replace(&mut self.is_trace, true) {
            return if line == "rendezvous-trace 1" {
                Ok(())
            } else {
                Err("a trace must begin with the line 'rendezvous-trace 1'".to_owned())
            };
        }
        if line.starts_with('"') {
            return self.more_bytes(line);
        }
        self.open = Open::Nothing;
        if let Some(action) = line.strip_prefix("->") {
            return self.outcome(action.trim(), at);
        }
        match line.strip_prefix('@') {
            Some(rest) => self.step(rest, at),
            None => self.header(line),
        }
    }

    fn finish(self) -> Result<Trace, String> {
        if !self.is_trace {
            return Err("a trace must begin with the line 'rendezvous-trace 1'".to_owned());
        }
        let setup = self.setup.ok_or("the line 'machine relay', or 'machine agent', is missing")?;
        if self.steps.is_empty() {
            return Err("the first event, '@0 wall=SECONDS start', is missing".to_owned());
        }
        Ok(Trace {
            setup,
            seed: self.seed.unwrap_or_default(),
            identities: self.identities,
            steps: self.steps,
        })
    }

    fn step(&mut self, line: &str, at: u32) -> Result<(), String> {
        let mut tokenizer = Tokenizer::new(line);
        let before = self.steps.last().map(|step| step.now);
        let mono = tokenizer.read("a time, such as @5s, @+100ms, @17us or @+0", |word| {
            let Some(later) = word.strip_prefix('+') else { return Some(Time(span(word)?.0)) };
            Some(before?.mono + span(later)?)
        })?;
        if before.is_some_and(|before| mono < before.mono) {
            return Err("the time is earlier than that of the event before".to_owned());
        }
        let mut peek = tokenizer;
        let said = peek.next().and_then(|word| word.strip_prefix("wall="));
        let wall = match (said, self.anchor) {
            (Some(wall), _) => {
                tokenizer = peek;
                let wall = number(wall).filter(|wall| *wall <= WALL_MAX);
                wall.ok_or_else(|| format!("wall= is a number of seconds, up to {WALL_MAX}"))?
            }
            (None, Some(anchor)) => wall_after(anchor, mono),
            (None, None) => {
                return Err("the first event needs the wall clock: wall=SECONDS".to_owned());
            }
        };
        let now = Now { mono, wall };
        if said.is_some() {
            self.anchor = Some(now);
        }
        let event = self.event(&mut tokenizer)?;
        if (event == Input::Start) != self.steps.is_empty() {
            return Err("the first event, and only the first, must be 'start'".to_owned());
        }
        if matches!(event, Input::In { .. }) {
            self.open = Open::Input;
        }
        self.steps.push(Step { line: at, now, event, outcomes: Vec::new() });
        self.check_bytes()
    }

    fn outcome(&mut self, text: &str, at: u32) -> Result<(), String> {
        let step = self.steps.last_mut().ok_or("an action must follow an event")?;
        let mut tokenizer = Tokenizer::new(text);
        let verb = tokenizer.next().unwrap_or_default();
        if !display::VERBS.contains(&verb) {
            return Err(format!("there is no action '{verb}'"));
        }
        let outcome = if verb == "send" {
            let on = tokenizer.conn()?;
            let mut bytes = Bytes::default();
            bytes.read(tokenizer.rest)?;
            self.open = Open::Outcome;
            Outcome { line: at, text: format!("send {}", tokenizer::ConnText(on)), bytes: Some(bytes) }
        } else {
            Outcome { line: at, text: text.to_owned(), bytes: None }
        };
        step.outcomes.push(outcome);
        self.check_bytes()
    }

    fn more_bytes(&mut self, line: &str) -> Result<(), String> {
        let step = self.steps.last_mut();
        let bytes = match (self.open, step) {
            (Open::Input, Some(Step { event: Input::In { bytes, .. }, .. })) => Some(bytes),
            (Open::Outcome, Some(step)) => step.outcomes.last_mut().and_then(|it| it.bytes.as_mut()),
            _ => None,
        };
        bytes.ok_or("bytes are only allowed after 'in' or 'send'")?.read(line)?;
        self.check_bytes()
    }

    /// Checks the bytes that were parsed last: their names must be known, and those of an input must not be a
    /// pattern.
    fn check_bytes(&self) -> Result<(), String> {
        let Some(step) = self.steps.last() else { return Ok(()) };
        let bytes = match (&step.event, step.outcomes.last()) {
            (_, Some(outcome)) => outcome.bytes.as_ref(),
            (Input::In { bytes, .. }, None) => {
                if bytes.is_pattern() {
                    return Err("$nonce and $challenge are only allowed in actions".to_owned());
                }
                Some(bytes)
            }
            _ => None,
        };
        bytes.into_iter().flat_map(Bytes::names).try_for_each(|name| self.check_name(name))
    }

    fn check_name(&self, name: &str) -> Result<(), String> {
        let is_known = self.identities.iter().any(|identity| identity.name == name);
        if is_known { Ok(()) } else { Err(format!("there is no line 'id {name} …' above")) }
    }
}

/// The wall clock at `mono`, if it has advanced steadily since `anchor`.
pub(super) fn wall_after(anchor: Now, mono: Time) -> u64 {
    (anchor.wall + mono.since(anchor.mono).0 / 1_000_000).min(WALL_MAX)
}
