//! Log lines: one an event, `key=value`, on stderr. Values that a peer or a file had a hand in are escaped.
//!
//! A thread of its own writes the lines, because whatever reads them may stop reading: a full pipe must not stop the
//! event loop. Lines that do not fit into its queue are counted, and `event=log-lines-lost` says how many.

mod limiter;
mod output;
#[cfg(feature = "xmpp")]
pub mod streams;
mod words;

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use log::{Level, LevelFilter, Log, Metadata, Record};
use rendezvous_core::event::{Event, RelayLoss, Target};
use rendezvous_core::id::Id;
use rendezvous_core::machine::ConnId;
use rendezvous_core::time::Span;

use crate::background_writer::{BackgroundWriter, FLUSH_MAX};
use crate::clock::{self, Clock};
use crate::escape::LineWriter;
use crate::failure::{Failure, reason};
use crate::options::Opt;

pub use crate::escape::Escaped;
pub use limiter::Limiter;
pub use words::{connect_error, connect_failure, dial, tls, waiting_end};
use words::{end_text, not_direct, pair_end, refusal_hint};

/// `--log-rate N`, for the commands that strangers talk to.
pub const LOG_RATE: Opt = Opt::one(
    "log-rate",
    "N",
    "200",
    "log lines a second that peers may cause, five times as many at once; the rest is counted; 0 for no limit",
);
/// What [`LOG_RATE`] is where nothing is said.
const RATE: u32 = 200;

/// How many bytes of lines may wait for the reader of standard error.
const QUEUE: usize = 1 << 20;

/// Starts logging at a level (`--log`), else at what `RUST_LOG` says, else at `info`. Under systemd the time is the
/// journal's business.
///
/// # Errors
/// The level is none, or the thread that writes the lines cannot be started.
pub fn start(level: Option<&str>) -> Result<(), Failure> {
    let mut builder = env_logger::Builder::new();
    match level {
        None => {
            builder.parse_env(env_logger::Env::default().default_filter_or("info"));
        }
        Some(level) => {
            let filter: LevelFilter = level.parse().map_err(|_| {
                Failure::Usage(format!("--log: '{level}' is none of error, warn, info, debug, trace, off"))
            })?;
            builder.filter_level(filter);
        }
    }
    if WRITER.get().is_none() {
        let _ = TIMED.set(std::env::var_os("JOURNAL_STREAM").is_none());
        let writer = output::Output::stderr(lost_notice)
            .and_then(|output| BackgroundWriter::start("log", QUEUE, output))
            .map_err(|error| Failure::Failed(format!("cannot start the log: {}", reason(&error))))?;
        let _ = WRITER.set(writer);
    }
    builder.target(env_logger::Target::Pipe(Box::new(Queue)));
    builder.format(|out, record| {
        write!(out, "{}", Prefix(record.level()))?;
        // Values of peers are escaped where they are put in; this is for what other crates log.
        fmt::Write::write_fmt(&mut LineWriter(&mut *out), *record.args()).map_err(io::Error::other)?;
        out.write_all(b"\n")
    });
    let logger = builder.build();
    let filter = logger.filter();
    let limiter = Mutex::new(Limiter::new(RATE));
    // A second start in one process (tests) keeps the first.
    let limited = LIMITED.get_or_init(|| Limited { logger, limiter, clock: Clock::start() });
    if log::set_logger(limited).is_ok() {
        log::set_max_level(filter);
    }
    Ok(())
}

/// Writes a line that is no event behind those of the log. False if there is no log to write to.
pub(crate) fn write_line(text: &str) -> bool {
    WRITER.get().is_some_and(|writer| {
        writer.push(format!("{text}\n").as_bytes());
        true
    })
}

/// Whether this program logs.
pub(crate) fn is_started() -> bool {
    WRITER.get().is_some()
}

/// Waits until all lines are written, for at most a second.
pub fn flush() {
    if let Some(writer) = WRITER.get() {
        writer.flush(FLUSH_MAX);
    }
}

/// How many lines peers may cause in a second; 0: as many as they like.
pub fn limit(rate: u32) {
    if let Some(limited) = LIMITED.get() {
        limited.limiter().set_rate(rate);
    }
}

/// Says how many lines were left out since that was last said; once a second at most.
pub fn catch_up() {
    if let Some(limited) = LIMITED.get() {
        let left_out = limited.limiter().catch_up(limited.clock.now().mono);
        limited.say_left_out(left_out);
    }
}

/// How many lines were left out since the start.
#[must_use]
pub fn left_out() -> u64 {
    LIMITED.get().map_or(0, |limited| limited.limiter().total())
}

/// How many lines were lost since the start, because nobody read them or they could not be written.
#[must_use]
pub fn lost() -> u64 {
    output::lost()
}

/// Where the lines go.
static WRITER: OnceLock<BackgroundWriter> = OnceLock::new();
/// Whether a line begins with the time.
static TIMED: OnceLock<bool> = OnceLock::new();

/// Takes one line a call from `env_logger`.
struct Queue;

impl io::Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Some(writer) = WRITER.get() {
            writer.push(line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn lost_notice(count: u64) -> String {
    let hint = "whatever reads the log is too slow, or the disk is full";
    format!("{}event=log-lines-lost count={count} hint=\"{hint}\"\n", Prefix(Level::Warn))
}

/// The time, unless the journal has it, and the level.
struct Prefix(Level);

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if TIMED.get() == Some(&true) {
            write!(f, "{} ", Stamp(clock::wall()))?;
        }
        write!(f, "{:<5} ", self.0)
    }
}

static LIMITED: OnceLock<Limited> = OnceLock::new();

/// The logger, which what peers do cannot make write more than the limit.
struct Limited {
    logger: env_logger::Logger,
    limiter: Mutex<Limiter>,
    clock: Clock,
}

impl Limited {
    fn limiter(&self) -> MutexGuard<'_, Limiter> {
        self.limiter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say_left_out(&self, count: u64) {
        if count > 0 {
            let text = format_args!("event=log-lines-left-out count={count} hint=\"--log-rate\"");
            let mut record = Record::builder();
            let record = record.level(Level::Warn).target(module_path!());
            self.logger.log(&record.args(text).build());
        }
    }
}

impl Log for Limited {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.logger.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.logger.matches(record) {
            return;
        }
        if is_peers_doing(record.metadata()) {
            let now = self.clock.now().mono;
            let mut limiter = self.limiter();
            if !limiter.take(now) {
                return;
            }
            let left_out = limiter.catch_up(now);
            // Nothing is written with the lock held.
            drop(limiter);
            self.say_left_out(left_out);
        }
        self.logger.log(record);
    }

    fn flush(&self) {
        self.logger.flush();
    }
}

/// What a command says of itself, and errors, are the operator's doing.
fn is_peers_doing(metadata: &Metadata<'_>) -> bool {
    const OWN: [&str; 4] =
        ["rendezvous::command", "rendezvous::daemon", "rendezvous::state", "rendezvous::status"];
    metadata.level() != Level::Error && !OWN.iter().any(|own| metadata.target().starts_with(own))
}

/// The operator's names of IDs. An ID is a capability (whoever knows it reaches the hidden server), so that logs have
/// names instead.
#[derive(Clone, Debug, Default)]
pub struct Names(pub BTreeMap<Id, String>);

impl Names {
    /// Adds a name. An ID with two names (one hidden server at two relays) is shown with both.
    pub fn add(&mut self, id: Id, name: &str) {
        let names = self.0.entry(id).or_default();
        if !names.is_empty() && !names.split(',').any(|known| known == name) {
            names.push(',');
            names.push_str(name);
        } else if names.is_empty() {
            names.push_str(name);
        }
    }
}

/// One of an agent's or connector's relays, as logs show it.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Its address.
    pub relay: String,
    /// The hidden server's name, under which the relay logs it too; `None` in a connector.
    pub name: Option<String>,
}

/// An agent's or connector's relays, in the order of the machine's upstreams.
pub type Upstreams = [Upstream];

/// Writes a note down.
pub fn event(event: &Event, names: &Names, upstreams: &Upstreams) {
    let level = level(event);
    if log::log_enabled!(level) {
        log::log!(level, "{}", Line { event, names, upstreams });
    }
}

fn level(event: &Event) -> Level {
    match event {
        Event::Challenged { .. } | Event::Dropped { .. } | Event::TlsFailed { .. } => Level::Debug,
        Event::RelayLost { why: RelayLoss::Challenged, .. } => Level::Debug,
        Event::RelayLost { .. } | Event::DialFailed { .. } | Event::Slowed { .. } => Level::Warn,
        Event::ServiceTlsFailed { .. } => Level::Warn,
        Event::ConnectFailed { .. } | Event::HandOverFailed { .. } | Event::ClientRefused { .. } => {
            Level::Warn
        }
        _ => Level::Info,
    }
}

struct Line<'a> {
    event: &'a Event,
    names: &'a Names,
    upstreams: &'a Upstreams,
}

impl Line<'_> {
    fn name(&self, id: Id) -> Escaped<'_> {
        Escaped(self.names.0.get(&id).map_or("?", String::as_str))
    }

    /// The hidden server's name, if it has one, and its relay under the key `key`.
    fn upstream(&self, key: &'static str, upstream: u16) -> UpstreamText<'_> {
        UpstreamText { key, upstream: self.upstreams.get(usize::from(upstream)) }
    }

    /// The hidden server's name, if the connection is for one that has a name.
    fn name_of(&self, upstream: Option<u16>) -> NameText<'_> {
        let upstream = upstream.and_then(|upstream| self.upstreams.get(usize::from(upstream)));
        NameText(upstream.and_then(|upstream| upstream.name.as_deref()))
    }
}

/// Begins with a space, as do [`NameText`] and [`From`].
struct UpstreamText<'a> {
    key: &'static str,
    upstream: Option<&'a Upstream>,
}

struct NameText<'a>(Option<&'a str>);

struct Conn(ConnId);
struct From(Option<SocketAddr>);
struct Millis(Span);
struct Stamp(u64);

impl fmt::Display for UpstreamText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, upstream } = *self;
        let name = NameText(upstream.and_then(|upstream| upstream.name.as_deref()));
        let relay = Escaped(upstream.map_or("?", |upstream| upstream.relay.as_str()));
        write!(f, "{name} {key}={relay}")
    }
}

impl fmt::Display for NameText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |name| write!(f, " name={}", Escaped(name)))
    }
}

impl fmt::Display for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0.index, self.0.generation)
    }
}

impl fmt::Display for From {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(from) => write!(f, " from={from}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}s", self.0.0 / 1_000_000, self.0.0 / 1_000 % 1_000)
    }
}

impl fmt::Display for Stamp {
    /// RFC 3339, in UTC.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = rendezvous_core::http::date::civil(self.0 / 86_400);
        let second = self.0 % 86_400;
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z", month + 1)
    }
}

impl fmt::Display for Line<'_> {
    #[expect(clippy::too_many_lines, reason = "one arm for each event, all of them the same shape")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self.event {
            Event::Waiting { on, from, id, waiting } => {
                write!(
                    f,
                    "event=waiting conn={} name={}{} waiting={waiting}",
                    Conn(on),
                    self.name(id),
                    From(from)
                )
            }
            Event::WaitingEnded { on, id, why, after } => {
                let (name, why) = (self.name(id), waiting_end(why));
                write!(
                    f,
                    "event=waiting-ended conn={} name={name} reason={why} after={}",
                    Conn(on),
                    Millis(after)
                )
            }
            Event::Refused { on, from, id, status, why } => {
                write!(
                    f,
                    "event=refused conn={} status={} reason={}",
                    Conn(on),
                    status.code(),
                    Escaped(why)
                )?;
                if let Some(id) = id {
                    write!(f, " name={}", self.name(id))?;
                }
                write!(f, "{}", From(from))
            }
            Event::Challenged { on, from } => write!(f, "event=challenged conn={}{}", Conn(on), From(from)),
            Event::Held { on, id } => write!(f, "event=held conn={} name={}", Conn(on), self.name(id)),
            Event::Paired { hidden, client, from, id } => {
                let (hidden, client) = (Conn(hidden), Conn(client));
                write!(f, "event=paired hidden={hidden} client={client} name={}{}", self.name(id), From(from))
            }
            Event::HandOverFailed { hidden, client, id, retried } => {
                let (hidden, client, name) = (Conn(hidden), Conn(client), self.name(id));
                write!(
                    f,
                    "event=hand-over-failed hidden={hidden} client={client} name={name} retried={retried}"
                )
            }
            Event::PairEnded { hidden, client, id, from_client, from_hidden, after, why } => {
                let (hidden, client, name) = (Conn(hidden), Conn(client), self.name(id));
                write!(
                    f,
                    "event=pair-ended hidden={hidden} client={client} name={name} from-client={from_client}"
                )?;
                write!(f, " from-hidden={from_hidden} after={} reason={}", Millis(after), pair_end(why))
            }
            Event::Dropped { on, from, upstream, why } => {
                let (conn, name, from) = (Conn(on), self.name_of(upstream), From(from));
                write!(f, "event=dropped conn={conn}{name} reason={}{from}", Escaped(why))
            }
            Event::TlsFailed { on, from, upstream, why } => {
                let (conn, name, from) = (Conn(on), self.name_of(upstream), From(from));
                write!(f, "event=tls-failed conn={conn}{name} reason={}{from}", Escaped(tls(why)))
            }
            Event::DialFailed { on, what, why, again } => {
                let (what, upstream) = match what {
                    Target::Relay(upstream) => ("relay", upstream),
                    Target::Service(upstream) => ("service", upstream),
                    Target::Stream(upstream) => ("stream", upstream),
                };
                let (conn, relay) = (Conn(on), self.upstream("relay", upstream));
                write!(f, "event=unreachable what={what} conn={conn}{relay} reason={}", Escaped(dial(why)))?;
                if what != "relay" {
                    f.write_str(" answered=502")?;
                }
                again.map_or(Ok(()), |again| write!(f, " again-in={}", Millis(again)))
            }
            Event::ServiceTlsFailed { on, upstream, why } => {
                let (conn, relay) = (Conn(on), self.upstream("relay", upstream));
                write!(
                    f,
                    "event=unreachable what=service conn={conn}{relay} reason={} answered=502",
                    Escaped(tls(why))
                )
            }
            Event::Registered { on, upstream, waiting } => {
                write!(
                    f,
                    "event=waiting conn={}{} waiting={waiting}",
                    Conn(on),
                    self.upstream("relay", upstream)
                )
            }
            Event::RelayLost { on, upstream, why, again } => {
                let (conn, relay, again) = (Conn(on), self.upstream("relay", upstream), Millis(again));
                write!(f, "event=relay-lost conn={conn}{relay} {} again-in={again}", RelayLossText(why))
            }
            Event::Slowed { upstream, pause } => {
                let (relay, pause) = (self.upstream("relay", upstream), Millis(pause));
                write!(f, "event=slowed{relay} reason=unanswered-clients again-in={pause}")
            }
            Event::ClientRefused { on, from, id, why } => {
                let (conn, name, from) = (Conn(on), self.name(id), From(from));
                write!(
                    f,
                    "event=client-refused conn={conn} name={name} status=503 reason={}{from}",
                    Escaped(why)
                )
            }
            Event::DirectDial { on, id, to } => {
                write!(f, "event=direct-dial conn={} name={} to={to}", Conn(on), self.name(id))
            }
            Event::Served { relay, local, upstream, stream } => {
                let (conn, local, service) =
                    (Conn(relay), Conn(local), if stream { "stream" } else { "http" });
                write!(
                    f,
                    "event=served conn={conn} local={local} service={service}{}",
                    self.upstream("relay", upstream)
                )
            }
            Event::Direct { on, local, upstream, with } => {
                let (conn, local, relay) = (Conn(on), Conn(local), self.upstream("agreed-through", upstream));
                write!(f, "event=direct conn={conn} local={local}{relay}{}", From(with))
            }
            Event::Relayed { relay: on, local, upstream, why } => {
                let (conn, local, relay) = (Conn(on), Conn(local), self.upstream("relay", upstream));
                let why = not_direct(why);
                write!(f, "event=relayed conn={conn} local={local}{relay} why-not-direct={}", Escaped(why))
            }
            Event::ConnectFailed { local, why } => {
                write!(
                    f,
                    "event=connect-failed conn={} reason={}",
                    Conn(local),
                    Escaped(&connect_failure(why))
                )
            }
        }
    }
}

struct RelayLossText(RelayLoss);

impl fmt::Display for RelayLossText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            RelayLoss::Refused(status) => {
                write!(f, "reason=\"it refused\" status={status}")?;
                refusal_hint(status).map_or(Ok(()), |hint| write!(f, " hint={}", Escaped(hint)))
            }
            RelayLoss::Challenged => f.write_str("reason=\"it refused the token and sent a challenge\""),
            RelayLoss::Garbled => f.write_str("reason=\"its answer is not HTTP\""),
            RelayLoss::Ended(end) => write!(f, "reason={}", Escaped(end_text(end))),
            RelayLoss::Silent => f.write_str("reason=\"it did not answer in time\""),
            RelayLoss::Tls(why) => write!(f, "reason={}", Escaped(tls(why))),
            RelayLoss::Unreachable(why) => write!(f, "reason={}", Escaped(dial(why))),
        }
    }
}
