//! Text to [`Trace`].

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use data_encoding::BASE32_NOPAD;

use super::words::{self, Words, address, is_name, number, place, span};
use super::{Event, Identity, Octets, Outcome, Setup, Step, Trace, config, show};
use crate::agent::{self, Upstream};
use crate::engine::{self, Transport};
use crate::id::Id;
use crate::machine::{DialFailure, End, Listener, TlsFailure};
use crate::reach::Relay;
use crate::registry::Enrolment;
use crate::time::{Now, Time};
use crate::token::{Algorithm, Key};

/// The last second of the year 9999: HTTP can write no later date.
const WALL_MAX: u64 = 253_402_300_799;

/// Why a text is no trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// The line, counted from 1.
    pub line: u32,
    /// What is wrong with it.
    pub why: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.why)
    }
}

impl core::error::Error for ParseError {}

impl Trace {
    /// Reads a trace.
    ///
    /// # Errors
    ///
    /// The first line that is wrong, and what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut parser = Parser::default();
        let mut at = 0;
        for line in text.lines() {
            at += 1;
            parser
                .line(words::without_comment(line).trim(), at)
                .map_err(|why| ParseError { line: at, why })?;
        }
        parser.finish().map_err(|why| ParseError { line: at.max(1), why })
    }
}

/// What a line of octets alone goes on with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Open {
    #[default]
    Nothing,
    Event,
    Outcome,
}

/// What was read so far.
#[derive(Debug, Default)]
struct Parser {
    is_trace: bool,
    setup: Option<Setup>,
    seed: Option<[u8; 32]>,
    identities: Vec<Identity>,
    steps: Vec<Step>,
    open: Open,
    /// When the wall clock was last said.
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
                Err("a trace begins with the line 'rendezvous-trace 1'".to_owned())
            };
        }
        if line.starts_with('"') {
            return self.more_octets(line);
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
            return Err("a trace begins with the line 'rendezvous-trace 1'".to_owned());
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

    // ---- the machine ----

    fn header(&mut self, line: &str) -> Result<(), String> {
        let mut words = Words::new(line);
        let word = words.next().unwrap_or_default();
        if word == "id" {
            return self.identity(&mut words);
        }
        if !self.steps.is_empty() {
            return Err(format!("'{word}' is neither an event (@TIME …) nor an action (-> …)"));
        }
        if word == "machine" {
            let machine = words.next().unwrap_or_default();
            let setup = match machine {
                "relay" => Setup::Relay(Box::default()),
                "agent" => Setup::Agent(Box::default()),
                _ => return Err(format!("'{machine}' is no machine: relay or agent")),
            };
            if self.setup.replace(setup).is_some() {
                return Err("there is a machine already".to_owned());
            }
            return words.end();
        }
        if word == "seed" {
            self.seed = Some(words.read("a seed, up to 64 hexadecimal digits", seed)?);
            return words.end();
        }
        match (word, &mut self.setup) {
            (_, None) => Err(format!("'{word}': the line 'machine relay', or 'machine agent', comes first")),
            ("listen", Some(Setup::Relay(config))) => {
                while let Some(word) = words.next() {
                    config.listeners.push(match word {
                        "plain" => Transport::Plain,
                        "tls" => Transport::Tls,
                        _ => return Err(format!("'{word}' is neither plain nor tls")),
                    });
                }
                Ok(())
            }
            ("config", Some(Setup::Relay(config))) => config::read(&mut words, &mut **config),
            ("config", Some(Setup::Agent(config))) => config::read(&mut words, &mut **config),
            ("upstream", Some(Setup::Agent(config))) => {
                let upstream = upstream(&mut words, &self.identities)?;
                config.upstreams.push(upstream);
                if config.upstreams.len() > usize::from(u16::MAX) {
                    return Err("too many upstreams".to_owned());
                }
                Ok(())
            }
            _ => Err(format!("'{word}' is no line of this machine's")),
        }
    }

    fn identity(&mut self, words: &mut Words<'_>) -> Result<(), String> {
        let name =
            words.read("a name: letters, digits, - and _", |word| is_name(word).then(|| word.to_owned()))?;
        if self.identities.iter().any(|identity| identity.name == name) {
            return Err(format!("there is an id '{name}' already"));
        }
        let id = words.read("a UUID", |word| Id::parse(word.as_bytes()))?;
        let secret = words.keyed("secret", |word| BASE32_NOPAD.decode(word.as_bytes()).ok())?;
        let (mut algorithm, mut digits, mut period) = (Algorithm::default(), Key::DIGITS, Key::PERIOD_SECS);
        let (mut labels, mut plain_tokens) = (Vec::new(), false);
        while let Some(word) = words.next() {
            let bad = || {
                format!("'{word}' is none of algorithm= digits= period= tokens= labels=, or can't be that")
            };
            let (key, value) = word.split_once('=').ok_or_else(bad)?;
            match key {
                "algorithm" => algorithm = Algorithm::parse(value).ok_or_else(bad)?,
                "digits" => digits = number(value).ok_or_else(bad)?,
                "period" => period = number(value).ok_or_else(bad)?,
                "tokens" if value == "any" => plain_tokens = true,
                "labels" if value.split(',').all(is_name) => {
                    labels = value.split(',').map(ToOwned::to_owned).collect()
                }
                _ => return Err(bad()),
            }
        }
        let key = Key::new(secret, algorithm, digits, period).map_err(|error| error.to_string())?;
        self.identities.push(Identity { name, enrolment: Enrolment { id, key, labels, plain_tokens } });
        Ok(())
    }

    // ---- what happened ----

    fn step(&mut self, line: &str, at: u32) -> Result<(), String> {
        let mut words = Words::new(line);
        let before = self.steps.last().map(|step| step.now);
        let mono = words.read("a time, such as @5s, @+100ms, @17us or @+0", |word| {
            let Some(later) = word.strip_prefix('+') else { return Some(Time(span(word)?.0)) };
            Some(before?.mono + span(later)?)
        })?;
        if before.is_some_and(|before| mono < before.mono) {
            return Err("this is earlier than the event before".to_owned());
        }
        let mut peek = words;
        let said = peek.next().and_then(|word| word.strip_prefix("wall="));
        let wall = match (said, self.anchor) {
            (Some(wall), _) => {
                words = peek;
                let wall = number(wall).filter(|wall| *wall <= WALL_MAX);
                wall.ok_or_else(|| format!("wall= is a number of seconds, up to {WALL_MAX}"))?
            }
            (None, Some(anchor)) => wall_after(anchor, mono),
            (None, None) => {
                return Err("the first event says what the wall clock is: wall=SECONDS".to_owned());
            }
        };
        let now = Now { mono, wall };
        if said.is_some() {
            self.anchor = Some(now);
        }
        let event = self.event(&mut words)?;
        if (event == Event::Start) != self.steps.is_empty() {
            return Err("the first event is 'start', and no other is".to_owned());
        }
        if matches!(event, Event::In { .. }) {
            self.open = Open::Event;
        }
        self.steps.push(Step { line: at, now, event, outcomes: Vec::new() });
        self.check_octets()
    }

    fn event(&self, words: &mut Words<'_>) -> Result<Event, String> {
        let word = words.next().ok_or("an event is missing")?;
        let event = match word {
            "start" => Event::Start,
            "open" => Event::Open {
                on: Listener(words.read("a listener's number", number)?),
                from: words.read("an address with a port", address)?,
            },
            "resolved" => {
                let on = words.conn()?;
                let mut addresses = Vec::new();
                while !words.rest.is_empty() || addresses.is_empty() {
                    addresses.push(words.read("an address with a port", address)?);
                }
                Event::Resolved { on, addresses }
            }
            "connected" => Event::Connected { on: words.conn()? },
            "dial-failed" => {
                Event::DialFailed { on: words.conn()?, why: words.read("a reason", dial_failure)? }
            }
            "secured" => Event::Secured { on: words.conn()? },
            "tls-failed" => Event::TlsFailed { on: words.conn()?, why: words.read("a reason", tls_failure)? },
            "in" => {
                let (on, mut octets) = (words.conn()?, Octets::default());
                octets.read(words.rest)?;
                return Ok(Event::In { on, octets });
            }
            "moved" => Event::Moved {
                on: words.conn()?,
                read: words.keyed("read", number)?,
                queued: words.keyed("queued", number)?,
            },
            "flushed" => Event::Flushed { on: words.conn()? },
            "acked" => Event::Acked {
                on: words.conn()?,
                age: words.read("'none' or a time", |word| {
                    if word == "none" { Some(None) } else { span(word).map(Some) }
                })?,
            },
            "end" => Event::End { on: words.conn()?, how: words.read("clean, truncated or reset", end)? },
            "write-failed" => Event::WriteFailed { on: words.conn()? },
            "closed" => Event::Closed { on: words.conn()? },
            "timeout" => Event::Timeout,
            "ids" => {
                let mut names = Vec::new();
                while let Some(name) = words.next() {
                    self.check_name(name)?;
                    names.push(name.to_owned());
                }
                Event::Ids { names }
            }
            "config" => {
                let mut config = Box::<engine::Config>::default();
                config::read(words, &mut *config)?;
                Event::Config { config }
            }
            "drain" => Event::Drain,
            _ => return Err(format!("there is no event '{word}'")),
        };
        words.end()?;
        Ok(event)
    }

    fn outcome(&mut self, text: &str, at: u32) -> Result<(), String> {
        let step = self.steps.last_mut().ok_or("an action comes behind an event")?;
        let mut words = Words::new(text);
        let verb = words.next().unwrap_or_default();
        if !show::VERBS.contains(&verb) {
            return Err(format!("there is no action '{verb}'"));
        }
        let outcome = if verb == "send" {
            let on = words.conn()?;
            let mut octets = Octets::default();
            octets.read(words.rest)?;
            self.open = Open::Outcome;
            Outcome { line: at, text: format!("send {}", words::ConnText(on)), octets: Some(octets) }
        } else {
            Outcome { line: at, text: text.to_owned(), octets: None }
        };
        step.outcomes.push(outcome);
        self.check_octets()
    }

    fn more_octets(&mut self, line: &str) -> Result<(), String> {
        let step = self.steps.last_mut();
        let octets = match (self.open, step) {
            (Open::Event, Some(Step { event: Event::In { octets, .. }, .. })) => Some(octets),
            (Open::Outcome, Some(step)) => step.outcomes.last_mut().and_then(|it| it.octets.as_mut()),
            _ => None,
        };
        octets.ok_or("octets stand behind 'in' or 'send' alone")?.read(line)?;
        self.check_octets()
    }

    /// The octets that were read last name nobody who is not there, and are not a riddle.
    fn check_octets(&self) -> Result<(), String> {
        let Some(step) = self.steps.last() else { return Ok(()) };
        let octets = match (&step.event, step.outcomes.last()) {
            (_, Some(outcome)) => outcome.octets.as_ref(),
            (Event::In { octets, .. }, None) => {
                if octets.has_nonce() {
                    return Err("$nonce stands for what is not known: in actions alone".to_owned());
                }
                Some(octets)
            }
            _ => None,
        };
        octets.into_iter().flat_map(Octets::names).try_for_each(|name| self.check_name(name))
    }

    fn check_name(&self, name: &str) -> Result<(), String> {
        let is_known = self.identities.iter().any(|identity| identity.name == name);
        if is_known { Ok(()) } else { Err(format!("there is no line 'id {name} …' above")) }
    }
}

/// The wall clock at `mono`, if it just went on since `anchor`.
pub(super) fn wall_after(anchor: Now, mono: Time) -> u64 {
    (anchor.wall + mono.since(anchor.mono).0 / 1_000_000).min(WALL_MAX)
}

fn seed(digits: &str) -> Option<[u8; 32]> {
    let mut seed = [0; 32];
    if digits.len() > 2 * seed.len() {
        return None;
    }
    for (place, digit) in digits.bytes().rev().enumerate() {
        let value = u8::try_from(char::from(digit).to_digit(16)?).ok()?;
        seed[31 - place / 2] |= value << (4 * (place % 2));
    }
    Some(seed)
}

fn upstream(words: &mut Words<'_>, identities: &[Identity]) -> Result<Upstream, String> {
    let name = words.next().unwrap_or_default();
    let identity = identities.iter().find(|identity| identity.name == name);
    let identity = identity.ok_or_else(|| format!("there is no line 'id {name} …' above"))?;
    let at = words.keyed("relay", place)?;
    let host_header = words.keyed("host", |host| Some(host.to_owned()))?;
    let mut upstream = Upstream {
        relay: Relay { place: at, tls: false, host_header },
        id: identity.enrolment.id,
        key: identity.enrolment.key.clone(),
        plain: false,
        pool: agent::POOL,
        service: None,
        stream: None,
    };
    while let Some(word) = words.next() {
        let bad = || format!("'{word}' is none of tls plain pool= service= stream=, or can't be that");
        match word.split_once('=').unwrap_or((word, "")) {
            ("tls", "") => upstream.relay.tls = true,
            ("plain", "") => upstream.plain = true,
            ("pool", pool) => upstream.pool = number(pool).ok_or_else(bad)?,
            ("service", at) => upstream.service = Some(place(at).ok_or_else(bad)?),
            ("stream", at) => upstream.stream = Some(place(at).ok_or_else(bad)?),
            _ => return Err(bad()),
        }
    }
    Ok(upstream)
}

fn end(word: &str) -> Option<End> {
    [End::Clean, End::Truncated, End::Reset].into_iter().find(|it| show::end(*it) == word)
}

fn dial_failure(word: &str) -> Option<DialFailure> {
    use DialFailure::{Local, Name, Refused, Unreachable};
    [Name, Refused, Unreachable, Local].into_iter().find(|it| show::dial(*it) == word)
}

fn tls_failure(word: &str) -> Option<TlsFailure> {
    use TlsFailure::{Certificate, Ended, Protocol};
    [Certificate, Ended, Protocol].into_iter().find(|it| show::tls(*it) == word)
}
