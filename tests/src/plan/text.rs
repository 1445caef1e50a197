//! A plan as text, so that a run that failed can be kept, read, changed by hand, and run again.
//!
//! One thing a line, times in microseconds:
//!
//! ```text
//! rendezvous-plan 1
//! run seed=60 transport=plain waiting=2 pairs=3 held=4 hold=13 buffers=400000 bytes=512 silent=false endings=close
//! faults short-recv=0 short-send=0 would-block=0 spurious=0 stale=0 late=0 no-descriptor=0 aborted=0 latency=1 room=256
//! hidden id=2 style=modern:2 seed=7
//! client id=2 at=2000000 method=GET coy=false bytes=5 send=65536/0 read=65536/0 ending=close patience=120000000
//! blow at=3000000 clock=-3600
//! blow at=4000000 set=2 rate=10000
//! blow at=5000000 kicked-id=2
//! blow at=6000000 taken-over=whole
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use rendezvous_core::id::Id;
use rendezvous_core::registry::Access;
use rendezvous_core::time::{Span, Time};

use super::{Incident, Participant, Plan, Setting, id};
use crate::actors::{Behaviour, Ending, Style};
use crate::run::TakeOverStep;
use crate::sim_net::Faults;

const FIRST_LINE: &str = "rendezvous-plan 1";
const METHODS: [&str; 5] = ["GET", "HEAD", "OPTIONS", "PATCH", "POST"];
const ENDINGS: [(&str, Ending); 6] = [
    ("half-close", Ending::HalfClose),
    ("after-peer", Ending::AfterPeer),
    ("close", Ending::Close),
    ("reset", Ending::Reset),
    ("lost", Ending::Lost),
    ("cut", Ending::Cut),
];
const STEPS: [(&str, Option<TakeOverStep>); 4] = [
    ("whole", None),
    ("load", Some(TakeOverStep::Load)),
    ("tokens", Some(TakeOverStep::Tokens)),
    ("commit", Some(TakeOverStep::Commit)),
];
const ACCESSES: [(&str, Access); 3] =
    [("open", Access::Open), ("disabled", Access::Disabled), ("quota-used", Access::QuotaUsed)];
/// The names of the faults, in the order of [`Faults::rates`].
const FAULTS: [&str; 8] =
    ["short-recv", "short-send", "would-block", "spurious", "stale", "late", "no-descriptor", "aborted"];

impl Faults {
    /// All faults that have a rate per thousand.
    pub(super) fn rates(&mut self) -> impl Iterator<Item = (&'static str, &mut u32)> {
        let Self {
            short_recv, short_send, would_block, spurious, stale, late, no_descriptor, aborted, ..
        } = self;
        let rates = [short_recv, short_send, would_block, spurious, stale, late, no_descriptor, aborted];
        FAULTS.into_iter().zip(rates)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{FIRST_LINE}")?;
        let transport = if self.tls { "tls" } else { "plain" };
        let Self { seed, waiting_max, pairs_max, held_max, hold, ceiling, bytes_max, .. } = self;
        write!(f, "run seed={seed} transport={transport} waiting={waiting_max} pairs={pairs_max} ")?;
        write!(f, "held={held_max} hold={} buffers={ceiling} bytes={bytes_max} ", hold.0)?;
        let endings: Vec<&str> = self.endings.iter().map(|ending| name_of(*ending)).collect();
        writeln!(f, "silent={} endings={}", self.silent, endings.join(","))?;
        if let Some(most) = self.received_max {
            writeln!(f, "allow received={most}")?;
        }
        write!(f, "faults")?;
        for (name, rate) in self.faults.clone().rates() {
            write!(f, " {name}={rate}")?;
        }
        writeln!(f, " latency={} room={}", self.faults.latency_max.0, self.faults.room_max)?;
        self.participants.iter().try_for_each(|participant| writeln!(f, "{participant}"))?;
        self.incidents.iter().try_for_each(|(at, incident)| match incident {
            Incident::Clock(seconds) => writeln!(f, "blow at={} clock={seconds}", at.0),
            Incident::Descriptors(most) => writeln!(f, "blow at={} descriptors={most}", at.0),
            Incident::Revoked(id) => writeln!(f, "blow at={} revoked={}", at.0, number(*id)),
            Incident::Killed => writeln!(f, "blow at={} killed=1", at.0),
            Incident::TakenOver(fails_at) => {
                writeln!(f, "blow at={} taken-over={}", at.0, step_name(*fails_at))
            }
            Incident::Set(id, setting) => writeln!(f, "blow at={} set={} {setting}", at.0, number(*id)),
            Incident::Denied(host) => writeln!(f, "blow at={} denied={}", at.0, or_none(*host)),
            Incident::KickedId(id) => writeln!(f, "blow at={} kicked-id={}", at.0, number(*id)),
            Incident::KickedHosts(host) => writeln!(f, "blow at={} kicked-hosts={host}", at.0),
            Incident::KickedConn(nth) => writeln!(f, "blow at={} kicked-conn={nth}", at.0),
        })
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Access(access) => {
                let name = ACCESSES.iter().find(|(_, known)| known == access).map_or("", |(name, _)| name);
                write!(f, "access={name}")
            }
            Self::Pairs(most) => write!(f, "pairs={}", or_none(*most)),
            Self::Rate(rate) => write!(f, "rate={}", or_none(*rate)),
            Self::Deny(host) => write!(f, "deny={}", or_none(*host)),
        }
    }
}

impl fmt::Display for Participant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client { id, begins, behaviour, challenged, method } => {
                write!(f, "client id={} at={} method={method} coy={challenged} ", number(*id), begins.0)?;
                write_habits(f, behaviour)
            }
            Self::Program { id, begins, behaviour } => {
                write!(f, "program id={} at={} ", number(*id), begins.0)?;
                write_habits(f, behaviour)
            }
            Self::Raw { id, begins, behaviour } => {
                write!(f, "raw id={} at={} ", number(*id), begins.0)?;
                write_habits(f, behaviour)
            }
            Self::Named { begins, behaviour } => {
                write!(f, "named at={} ", begins.0)?;
                write_habits(f, behaviour)
            }
            Self::Hidden { id, style, seed } => {
                let style = match style {
                    Style::Modern { pool } => format!("modern:{pool}"),
                    Style::Old => "old".to_owned(),
                    Style::EarlySender => "talker".to_owned(),
                    Style::Fickle => "fickle".to_owned(),
                    Style::Replayer => "replayer".to_owned(),
                    Style::Service => "service".to_owned(),
                };
                write!(f, "hidden id={} style={style} seed={seed}", number(*id))
            }
            Self::Agent { id, seed, pool, skew, named } => {
                write!(f, "agent id={} seed={seed} pool={pool} skew={skew} named={named}", number(*id))
            }
            Self::Scanner { begins, seed } => write!(f, "scanner at={} seed={seed}", begins.0),
        }
    }
}

fn write_habits(f: &mut fmt::Formatter<'_>, behaviour: &Behaviour) -> fmt::Result {
    let Behaviour { bytes, send_most, send_rest, read_most, read_rest, ending, patience } = behaviour;
    write!(f, "bytes={bytes} send={send_most}/{} read={read_most}/{} ", send_rest.0, read_rest.0)?;
    write!(f, "ending={} patience={}", name_of(*ending), patience.0)
}

impl FromStr for Plan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut plan = Self::draw(0, false);
        (plan.participants, plan.incidents) = (Vec::new(), Vec::new());
        let mut lines = text.lines().zip(1..).filter(|(line, _)| !line.is_empty() && !line.starts_with('#'));
        if lines.next().is_none_or(|(line, _)| line != FIRST_LINE) {
            return Err(format!("it does not begin with '{FIRST_LINE}'"));
        }
        for (line, number) in lines {
            plan.take_line(line).map_err(|why| format!("{number}: {why}"))?;
        }
        Ok(plan)
    }
}

impl Plan {
    fn take_line(&mut self, line: &str) -> Result<(), String> {
        let (what, rest) = line.split_once(' ').unwrap_or((line, ""));
        let words = Words::parse(rest)?;
        match what {
            "run" => self.take_run(&words)?,
            "allow" => self.received_max = Some(words.get("received")?),
            "faults" => {
                for (name, rate) in self.faults.rates() {
                    *rate = words.get(name)?;
                }
                self.faults.latency_max = Span(words.get("latency")?);
                self.faults.room_max = words.get("room")?;
            }
            "blow" => {
                let incident = if let Ok(seconds) = words.get("clock") {
                    Incident::Clock(seconds)
                } else if let Ok(most) = words.get("descriptors") {
                    Incident::Descriptors(most)
                } else if let Ok(gone) = words.get("revoked") {
                    Incident::Revoked(id(gone))
                } else if let Ok(step) = words.text("taken-over") {
                    let known = STEPS.iter().find(|(name, _)| *name == step);
                    Incident::TakenOver(known.ok_or("an unknown step of a take-over")?.1)
                } else if let Ok(of) = words.get("set") {
                    Incident::Set(id(of), words.setting()?)
                } else if words.text("denied").is_ok() {
                    Incident::Denied(words.unless_none("denied")?)
                } else if let Ok(of) = words.get("kicked-id") {
                    Incident::KickedId(id(of))
                } else if let Ok(host) = words.get("kicked-hosts") {
                    Incident::KickedHosts(host)
                } else if let Ok(nth) = words.get("kicked-conn") {
                    Incident::KickedConn(nth)
                } else {
                    words.get::<u8>("killed").map(|_| Incident::Killed)?
                };
                self.incidents.push((Time(words.get("at")?), incident));
            }
            _ => self.participants.push(participant(what, &words)?),
        }
        Ok(())
    }

    fn take_run(&mut self, words: &Words<'_>) -> Result<(), String> {
        self.seed = words.get("seed")?;
        self.tls = words.text("transport")? == "tls";
        self.waiting_max = words.get("waiting")?;
        self.pairs_max = words.get("pairs")?;
        self.held_max = words.get("held")?;
        self.hold = Span(words.get("hold")?);
        self.ceiling = words.get("buffers")?;
        self.bytes_max = words.get("bytes")?;
        self.silent = words.get("silent")?;
        self.endings = words.text("endings")?.split(',').map(ending).collect::<Result<_, _>>()?;
        Ok(())
    }
}

fn participant(what: &str, words: &Words<'_>) -> Result<Participant, String> {
    Ok(match what {
        "client" => {
            let method = words.text("method")?;
            let method = METHODS.into_iter().find(|known| *known == method).ok_or("an unknown method")?;
            let (behaviour, challenged) = (words.behaviour()?, words.get("coy")?);
            Participant::Client {
                id: words.id()?,
                begins: Time(words.get("at")?),
                behaviour,
                challenged,
                method,
            }
        }
        "program" => Participant::Program {
            id: words.id()?,
            begins: Time(words.get("at")?),
            behaviour: words.behaviour()?,
        },
        "raw" => Participant::Raw {
            id: words.id()?,
            begins: Time(words.get("at")?),
            behaviour: words.behaviour()?,
        },
        "named" => Participant::Named { begins: Time(words.get("at")?), behaviour: words.behaviour()? },
        "hidden" => {
            let style = match words.text("style")?.split_once(':').unwrap_or((words.text("style")?, "1")) {
                ("modern", pool) => Style::Modern { pool: pool.parse().map_err(|_| "a bad pool")? },
                ("old", _) => Style::Old,
                ("talker", _) => Style::EarlySender,
                ("fickle", _) => Style::Fickle,
                ("replayer", _) => Style::Replayer,
                ("service", _) => Style::Service,
                _ => return Err("an unknown style".to_owned()),
            };
            Participant::Hidden { id: words.id()?, style, seed: words.get("seed")? }
        }
        "agent" => Participant::Agent {
            id: words.id()?,
            seed: words.get("seed")?,
            pool: words.get("pool")?,
            skew: words.get("skew")?,
            named: words.get("named")?,
        },
        "scanner" => Participant::Scanner { begins: Time(words.get("at")?), seed: words.get("seed")? },
        _ => return Err(format!("nobody is a {what:?}")),
    })
}

/// The `key=value` pairs of a line.
struct Words<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Words<'a> {
    fn parse(line: &'a str) -> Result<Self, String> {
        let word = |word: &'a str| word.split_once('=').ok_or_else(|| format!("{word:?} has no value"));
        line.split_whitespace().map(word).collect::<Result<_, _>>().map(Self)
    }

    fn text(&self, key: &str) -> Result<&'a str, String> {
        self.0.get(key).copied().ok_or_else(|| format!("there is no {key}"))
    }

    fn get<T: FromStr>(&self, key: &str) -> Result<T, String> {
        let value = self.text(key)?;
        value.parse().map_err(|_| format!("{key} can't be {value:?}"))
    }

    fn id(&self) -> Result<Id, String> {
        self.get("id").map(id)
    }

    fn pace(&self, key: &str) -> Result<(usize, Span), String> {
        let bad = || format!("{key} is bytes/rest");
        let (most, rest) = self.text(key)?.split_once('/').ok_or_else(bad)?;
        Ok((most.parse().map_err(|_| bad())?, Span(rest.parse().map_err(|_| bad())?)))
    }

    /// The value of a key, or `None` for the word `none`.
    fn unless_none<T: FromStr>(&self, key: &str) -> Result<Option<T>, String> {
        if self.text(key)? == "none" { Ok(None) } else { self.get(key).map(Some) }
    }

    fn setting(&self) -> Result<Setting, String> {
        if let Ok(access) = self.text("access") {
            let known = ACCESSES.iter().find(|(name, _)| *name == access);
            return Ok(Setting::Access(known.ok_or("an unknown access")?.1));
        }
        Ok(match () {
            () if self.text("pairs").is_ok() => Setting::Pairs(self.unless_none("pairs")?),
            () if self.text("rate").is_ok() => Setting::Rate(self.unless_none("rate")?),
            () => Setting::Deny(self.unless_none("deny")?),
        })
    }

    fn behaviour(&self) -> Result<Behaviour, String> {
        let ((send_most, send_rest), (read_most, read_rest)) = (self.pace("send")?, self.pace("read")?);
        let (bytes, patience) = (self.get("bytes")?, Span(self.get("patience")?));
        let ending = ending(self.text("ending")?)?;
        Ok(Behaviour { bytes, send_most, send_rest, read_most, read_rest, ending, patience })
    }
}

fn ending(name: &str) -> Result<Ending, String> {
    let known = ENDINGS.iter().find(|(known, _)| *known == name);
    known.map(|(_, ending)| *ending).ok_or_else(|| format!("nobody ends by {name:?}"))
}

fn name_of(ending: Ending) -> &'static str {
    ENDINGS.iter().find(|(_, known)| *known == ending).map_or("", |(name, _)| name)
}

fn step_name(step: Option<TakeOverStep>) -> &'static str {
    STEPS.iter().find(|(_, known)| *known == step).map_or("", |(name, _)| name)
}

fn or_none(value: Option<impl fmt::Display>) -> String {
    value.map_or_else(|| "none".to_owned(), |value| value.to_string())
}

fn number(of: Id) -> u128 {
    of.0 - id(0).0
}
