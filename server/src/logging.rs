//! Log lines on stderr: one event per line, as `key=value`. Values from peers or files are escaped.
//!
//! A thread writes the lines, because their reader may stop reading: a full pipe must not block the event loop. Lines
//! that do not fit into its queue are counted and reported by `event=log-lines-lost`.

mod json;
mod limited;
mod limiter;
mod output;
pub(crate) mod reasons;
#[cfg(feature = "xmpp")]
pub mod xmpp;

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::OnceLock;

use log::{Level, LevelFilter};
use rendezvous_core::event::{Event, RelayLoss, Target};
use rendezvous_core::id::Id;
use rendezvous_core::machine::ConnId;
use rendezvous_core::time::Span;

use crate::background_writer::{BackgroundWriter, FLUSH_MAX};
use crate::clock;
use crate::escape::LineWriter;
use crate::failure::{Failure, reason};
use crate::options::{Matches, Opt, value};

pub use crate::escape::Escaped;
use limited::{Limited, REFUSALS};
pub use limiter::Limiter;
pub use reasons::{connect_error, connect_failure, dial, tls, waiting_end};
use reasons::{end_text, not_direct, pair_end, proxy, refusal_hint};

/// `--log-rate N`, for commands that accept connections.
pub const LOG_RATE: Opt = Opt::one(
    "log-rate",
    "N",
    "200",
    "limit of log lines per second that peers cause, with bursts of five seconds' lines; 0 for no limit",
);
/// `--log-format text|json`.
pub const LOG_FORMAT: Opt = Opt::one(
    "log-format",
    "text|json",
    "text",
    "the form of log lines: key=value, or a JSON object per line",
);
/// The default of [`LOG_RATE`].
const RATE: u32 = 200;

/// Limit of bytes that wait to be written to stderr.
const QUEUE: usize = 1 << 20;

/// Starts logging at a level (`--log`), else at that of `RUST_LOG`, else at `info`. Under systemd, lines have no time,
/// because the journal adds it.
///
/// # Errors
/// The level is unknown, or the thread that writes the lines cannot be started.
pub fn start(level: Option<&str>) -> Result<(), Failure> {
    start_as(level, false)
}

/// Starts logging as `--log` and [`LOG_FORMAT`] say.
///
/// # Errors
/// Those of [`start`]; the format is unknown.
pub fn start_with(matches: &Matches) -> Result<(), Failure> {
    let format = matches.get_if(LOG_FORMAT.long, value::one_of(&["text", "json"]))?;
    start_as(matches.one("log"), format == Some(1))
}

fn start_as(level: Option<&str>, is_json: bool) -> Result<(), Failure> {
    let mut builder = env_logger::Builder::new();
    match level {
        None => {
            builder.parse_env(env_logger::Env::default().default_filter_or("info"));
        }
        Some(level) => {
            let filter: LevelFilter = level.parse().map_err(|_| {
                Failure::Usage(format!("--log: '{level}' is not one of error, warn, info, debug, trace, off"))
            })?;
            builder.filter_level(filter);
        }
    }
    if WRITER.get().is_none() {
        let _ = FORMAT.set(match std::env::var_os("JOURNAL_STREAM") {
            _ if is_json => LineFormat::Json,
            None => LineFormat::TimedText,
            Some(_) => LineFormat::Text,
        });
        let writer = output::Output::stderr(lost_notice)
            .and_then(|output| BackgroundWriter::start("log", QUEUE, output))
            .map_err(|error| Failure::Failed(format!("cannot start the log: {}", reason(&error))))?;
        let _ = WRITER.set(writer);
    }
    builder.target(env_logger::Target::Pipe(Box::new(Queue)));
    builder.format(|out, record| {
        if FORMAT.get() == Some(&LineFormat::Json) {
            let mut line = String::new();
            json_line(record.level(), &record.args().to_string(), &mut line);
            return out.write_all(line.as_bytes());
        }
        write!(out, "{}", Prefix(record.level()))?;
        // Values from peers are already escaped. This escapes what other crates log.
        fmt::Write::write_fmt(&mut LineWriter(&mut *out), *record.args()).map_err(io::Error::other)?;
        out.write_all(b"\n")
    });
    let logger = builder.build();
    let filter = logger.filter();
    // In tests, a second start in one process keeps the first logger.
    let limited = LIMITED.get_or_init(|| Limited::new(logger, RATE));
    if log::set_logger(limited).is_ok() {
        log::set_max_level(filter);
    }
    Ok(())
}

/// Writes a line that is not an event, after those of the log. Returns false if logging has not started.
pub(crate) fn write_line(text: &str) -> bool {
    WRITER.get().is_some_and(|writer| {
        let mut line = String::new();
        if FORMAT.get() == Some(&LineFormat::Json) {
            json_line(Level::Error, text, &mut line);
        } else {
            line = format!("{text}\n");
        }
        writer.push(line.as_bytes());
        true
    })
}

/// Whether logging has started.
pub(crate) fn is_started() -> bool {
    WRITER.get().is_some()
}

/// Waits until all lines are written, for at most a second.
pub fn flush() {
    if let Some(writer) = WRITER.get() {
        writer.flush(FLUSH_MAX);
    }
}

/// Sets how many lines per second peers may cause; 0: no limit.
pub fn limit(rate: u32) {
    if let Some(limited) = LIMITED.get() {
        limited.set_rate(rate);
    }
}

/// Logs how many lines were suppressed since the last such report, at most once per second.
pub fn catch_up() {
    if let Some(limited) = LIMITED.get() {
        limited.catch_up();
    }
}

/// Number of lines suppressed since the start.
#[must_use]
pub fn left_out() -> u64 {
    LIMITED.get().map_or(0, Limited::total)
}

/// Number of lines lost since the start because they were not read in time or could not be written.
#[must_use]
pub fn lost() -> u64 {
    output::lost()
}

/// The writer of the lines.
static WRITER: OnceLock<BackgroundWriter> = OnceLock::new();
/// The form of the lines.
static FORMAT: OnceLock<LineFormat> = OnceLock::new();

/// The form of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LineFormat {
    /// With the time.
    TimedText,
    /// Without the time, which the journal adds.
    Text,
    /// An object with the time.
    Json,
}

fn json_line(level: Level, text: &str, out: &mut String) {
    let level = level.as_str().to_ascii_lowercase();
    json::write_line(&Stamp(clock::wall()).to_string(), &level, text, out);
}

/// Receives the lines of `env_logger`, one per call.
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
    let hint = "the log's reader is too slow, or the disk is full";
    let event = format!("event=log-lines-lost count={count} hint=\"{hint}\"");
    if FORMAT.get() == Some(&LineFormat::Json) {
        let mut line = String::new();
        json_line(Level::Warn, &event, &mut line);
        return line;
    }
    format!("{}{event}\n", Prefix(Level::Warn))
}

/// The prefix of a line: the time, unless the journal adds it, and the level.
struct Prefix(Level);

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if FORMAT.get() == Some(&LineFormat::TimedText) {
            write!(f, "{} ", Stamp(clock::wall()))?;
        }
        write!(f, "{:<5} ", self.0)
    }
}

static LIMITED: OnceLock<Limited> = OnceLock::new();

/// The operator's names of IDs. An ID is a capability: a client that knows it can reach the hidden server. So logs
/// contain names instead.
#[derive(Clone, Debug, Default)]
pub struct Names(pub BTreeMap<Id, String>);

impl Names {
    /// Adds a name. An ID with two names (one hidden server at two relays) is logged with both.
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

/// A relay of an agent or connector, as it is logged.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// The relay's address.
    pub relay: String,
    /// The hidden server's name, which the relay logs too; `None` in a connector.
    pub name: Option<String>,
    /// Where an agent connects to for HTTP clients, and for those that its service terminates the TLS of.
    pub service: Option<String>,
    /// Where it connects to for streams, if that is one place.
    pub stream: Option<String>,
}

impl Upstream {
    /// A relay without local services.
    #[must_use]
    pub const fn new(relay: String, name: Option<String>) -> Self {
        Self { relay, name, service: None, stream: None }
    }
}

/// The relays of an agent or connector, by the machine's index of upstreams.
pub type Upstreams = [Upstream];

/// Logs an event.
pub fn event(event: &Event, names: &Names, upstreams: &Upstreams) {
    let level = level(event);
    let line = Line { event, names, upstreams, xmpp_server: "?" };
    match event {
        Event::Refused { .. } => log::log!(target: REFUSALS, level, "{line}"),
        _ => log::log!(level, "{line}"),
    }
}

fn level(event: &Event) -> Level {
    match event {
        Event::Challenged { .. } | Event::Dropped { .. } | Event::TlsFailed { .. } => Level::Debug,
        Event::RelayLost { why: RelayLoss::Challenged | RelayLoss::Released, .. } => Level::Debug,
        Event::RelayLost { .. } | Event::DialFailed { .. } | Event::Slowed { .. } => Level::Warn,
        Event::ServiceTlsFailed { .. } => Level::Warn,
        Event::ConnectFailed { .. } | Event::HandOverFailed { .. } | Event::ClientRefused { .. } => {
            Level::Warn
        }
        #[cfg(feature = "xmpp")]
        Event::Component(_) | Event::Dtcp(_) | Event::Stream(_) | Event::StreamProxy(_) => {
            xmpp::level(event, Level::Info)
        }
        _ => Level::Info,
    }
}

struct Line<'a> {
    event: &'a Event,
    names: &'a Names,
    upstreams: &'a Upstreams,
    #[cfg_attr(not(feature = "xmpp"), expect(dead_code, reason = "only components have a server"))]
    xmpp_server: &'a str,
}

impl Line<'_> {
    fn name(&self, id: Id) -> Escaped<'_> {
        Escaped(self.names.0.get(&id).map_or("?", String::as_str))
    }

    /// The hidden server's name, if known, and its relay under the key `key`.
    fn upstream(&self, key: &'static str, upstream: u16) -> UpstreamText<'_> {
        UpstreamText { key, upstream: self.upstreams.get(usize::from(upstream)) }
    }

    /// Where the HTTP service of an upstream is.
    fn service(&self, upstream: u16) -> To<'_> {
        To(self.upstreams.get(usize::from(upstream)).and_then(|upstream| upstream.service.as_deref()))
    }

    /// Where the stream service of an upstream is.
    fn stream(&self, upstream: u16) -> To<'_> {
        To(self.upstreams.get(usize::from(upstream)).and_then(|upstream| upstream.stream.as_deref()))
    }

    /// The hidden server's name, if the connection is for one with a name.
    fn name_of(&self, upstream: Option<u16>) -> NameText<'_> {
        let upstream = upstream.and_then(|upstream| self.upstreams.get(usize::from(upstream)));
        NameText(upstream.and_then(|upstream| upstream.name.as_deref()))
    }
}

/// Begins with a space, as [`NameText`] and [`From`] do.
struct UpstreamText<'a> {
    key: &'static str,
    upstream: Option<&'a Upstream>,
}

struct NameText<'a>(Option<&'a str>);

/// The address of a local service. Begins with a space, too.
struct To<'a>(Option<&'a str>);

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

impl fmt::Display for To<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |to| write!(f, " to={to}"))
    }
}

impl fmt::Display for NameText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |name| write!(f, " id_name={}", Escaped(name)))
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
            Some(from) => write!(f, " peer={from}"),
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
    /// Formats as RFC 3339, in UTC.
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
                    "event=waiting conn={} id_name={}{} waiting={waiting}",
                    Conn(on),
                    self.name(id),
                    From(from)
                )
            }
            Event::WaitingEnded { on, id, why, after } => {
                let (name, why) = (self.name(id), waiting_end(why));
                write!(
                    f,
                    "event=waiting-ended conn={} id_name={name} reason={why} duration={}",
                    Conn(on),
                    Millis(after)
                )
            }
            Event::Refused { on, from, id, status, why } => {
                write!(
                    f,
                    "event=refused conn={}{} status={} reason={}",
                    Conn(on),
                    From(from),
                    status.code(),
                    Escaped(why)
                )?;
                if let Some(id) = id {
                    write!(f, " id_name={}", self.name(id))?;
                }
                Ok(())
            }
            Event::Challenged { on, from } => write!(f, "event=challenged conn={}{}", Conn(on), From(from)),
            Event::Held { on, id } => write!(f, "event=held conn={} id_name={}", Conn(on), self.name(id)),
            Event::Paired { hidden, client, from, id } => {
                let (hidden, client) = (Conn(hidden), Conn(client));
                write!(
                    f,
                    "event=paired hidden={hidden} client={client} id_name={}{}",
                    self.name(id),
                    From(from)
                )
            }
            Event::HandOverFailed { hidden, client, id, retried } => {
                let (hidden, client, name) = (Conn(hidden), Conn(client), self.name(id));
                write!(
                    f,
                    "event=hand-over-failed hidden={hidden} client={client} id_name={name} retried={retried}"
                )
            }
            Event::PairEnded { hidden, client, from, id, from_client, from_hidden, after, why } => {
                let (hidden, client, name, from) = (Conn(hidden), Conn(client), self.name(id), From(from));
                write!(
                    f,
                    "event=pair-ended hidden={hidden} client={client} id_name={name}{from} bytes_in={from_client}"
                )?;
                write!(f, " bytes_out={from_hidden} duration={} reason={}", Millis(after), pair_end(why))
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
                let (what, upstream, to) = match what {
                    Target::Relay(upstream) => ("relay", upstream, To(None)),
                    Target::Service(upstream) => ("service", upstream, self.service(upstream)),
                    Target::Stream(upstream) => ("stream", upstream, self.stream(upstream)),
                };
                let (conn, relay) = (Conn(on), self.upstream("relay", upstream));
                let reason = Escaped(dial(why));
                write!(f, "event=unreachable what={what} conn={conn}{relay}{to} reason={reason}")?;
                if what != "relay" {
                    f.write_str(" answered=502")?;
                }
                again.map_or(Ok(()), |again| write!(f, " retry_in={}", Millis(again)))
            }
            Event::ServiceTlsFailed { on, upstream, why } => {
                let (conn, relay, to) = (Conn(on), self.upstream("relay", upstream), self.service(upstream));
                let reason = Escaped(tls(why));
                write!(
                    f,
                    "event=unreachable what=service conn={conn}{relay}{to} reason={reason} answered=502"
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
                write!(f, "event=relay-lost conn={conn}{relay} {} retry_in={again}", RelayLossText(why))
            }
            Event::Slowed { upstream, pause } => {
                let (relay, pause) = (self.upstream("relay", upstream), Millis(pause));
                write!(f, "event=slowed{relay} reason=unanswered-clients retry_in={pause}")
            }
            Event::ClientRefused { on, from, id, why } => {
                let (conn, name, from) = (Conn(on), self.name(id), From(from));
                write!(
                    f,
                    "event=client-refused conn={conn} id_name={name} status=503 reason={}{from}",
                    Escaped(why)
                )
            }
            Event::DirectDial { on, id, to } => {
                write!(f, "event=direct-dial conn={} id_name={} to={to}", Conn(on), self.name(id))
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
                let (conn, local, relay) = (Conn(on), Conn(local), self.upstream("agreed_through", upstream));
                write!(f, "event=direct conn={conn} local={local}{relay}{}", From(with))
            }
            Event::Relayed { relay: on, local, upstream, why } => {
                let (conn, local, relay) = (Conn(on), Conn(local), self.upstream("relay", upstream));
                let why = not_direct(why);
                write!(f, "event=relayed conn={conn} local={local}{relay} reason={}", Escaped(why))
            }
            Event::ConnectFailed { local, why } => {
                write!(
                    f,
                    "event=connect-failed conn={} reason={}",
                    Conn(local),
                    Escaped(&connect_failure(why))
                )
            }
            #[cfg(feature = "xmpp")]
            Event::Component(_) | Event::Dtcp(_) | Event::Stream(_) | Event::StreamProxy(_) => {
                xmpp::write(self.event, self.xmpp_server, f)
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
            RelayLoss::Released => f.write_str("reason=\"it ended this connection like those before it\""),
            RelayLoss::Challenged => f.write_str("reason=\"it refused the token and sent a challenge\""),
            RelayLoss::NotHttp => f.write_str("reason=\"its answer is not HTTP\""),
            RelayLoss::Ended(end) => write!(f, "reason={}", Escaped(end_text(end))),
            RelayLoss::TimedOut => f.write_str("reason=\"it did not answer in time\""),
            RelayLoss::Tls(why) => write!(f, "reason={}", Escaped(tls(why))),
            RelayLoss::Unreachable(why) => write!(f, "reason={}", Escaped(dial(why))),
            RelayLoss::Proxy(why) => write!(f, "reason={}", Escaped(&proxy(why))),
        }
    }
}
