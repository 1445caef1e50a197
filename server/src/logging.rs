//! Log lines: one an event, `key=value`, on stderr. Values that a peer or a file had a hand in are escaped.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::net::SocketAddr;

use log::{Level, LevelFilter};
use rendezvous_core::id::Id;
use rendezvous_core::machine::{ConnId, DialFailure, End, TlsFailure};
use rendezvous_core::note::{ConnectFailure, Note, RelayLoss, Target, WaitingEnd};
use rendezvous_core::pair::{Side, Why};
use rendezvous_core::time::Span;

use crate::clock;
use crate::failure::Failure;

/// Starts logging at a level (`--log`), else at what `RUST_LOG` says, else at `info`. Under systemd the time is the
/// journal's business.
///
/// # Errors
/// The level is none.
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
    let timed = std::env::var_os("JOURNAL_STREAM").is_none();
    builder.format(move |out, record| {
        if timed {
            write!(out, "{} ", Stamp(clock::wall()))?;
        }
        writeln!(out, "{:<5} {}", record.level(), record.args())
    });
    // A second start in one process (tests) keeps the first.
    let _ = builder.try_init();
    Ok(())
}

/// The operator's names of IDs. An ID is a capability (whoever knows it reaches the hidden server), so that logs have
/// names instead.
#[derive(Clone, Debug, Default)]
pub struct Names(pub BTreeMap<Id, String>);

/// The names of an agent's or connector's upstreams, as they are shown.
pub type Upstreams = [String];

/// Writes a note down.
pub fn note(note: &Note, names: &Names, upstreams: &Upstreams) {
    let level = level(note);
    if log::log_enabled!(level) {
        log::log!(level, "{}", Line { note, names, upstreams });
    }
}

/// Text that a peer or a file had a hand in: printable ASCII as it is, everything else escaped, at most 200 characters.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars().take(200) {
            match c {
                ' ' | '!' | '#'..='[' | ']'..='~' => f.write_char(c)?,
                other => write!(f, "{}", other.escape_default())?,
            }
        }
        f.write_char('"')
    }
}

fn level(note: &Note) -> Level {
    match note {
        Note::Challenged { .. } | Note::Dropped { .. } | Note::TlsFailed { .. } => Level::Debug,
        Note::RelayLost { .. } | Note::DialFailed { .. } | Note::ClockAdopted { .. } => Level::Warn,
        Note::ConnectFailed { .. } | Note::HandOverFailed { .. } => Level::Warn,
        _ => Level::Info,
    }
}

struct Line<'a> {
    note: &'a Note,
    names: &'a Names,
    upstreams: &'a Upstreams,
}

impl Line<'_> {
    fn name(&self, id: Id) -> Escaped<'_> {
        Escaped(self.names.0.get(&id).map_or("?", String::as_str))
    }

    fn upstream(&self, upstream: u16) -> Escaped<'_> {
        Escaped(self.upstreams.get(usize::from(upstream)).map_or("?", String::as_str))
    }
}

struct Conn(ConnId);
struct From(Option<SocketAddr>);
struct Millis(Span);
struct Stamp(u64);

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
        match *self.note {
            Note::Waiting { on, from, id, waiting } => {
                write!(
                    f,
                    "event=waiting conn={} name={}{} waiting={waiting}",
                    Conn(on),
                    self.name(id),
                    From(from)
                )
            }
            Note::WaitingEnded { on, id, why, after } => {
                let (name, why) = (self.name(id), waiting_end(why));
                write!(
                    f,
                    "event=waiting-ended conn={} name={name} why={why} after={}",
                    Conn(on),
                    Millis(after)
                )
            }
            Note::Refused { on, from, id, status, why } => {
                write!(f, "event=refused conn={} status={} why={}", Conn(on), status.code(), Escaped(why))?;
                if let Some(id) = id {
                    write!(f, " name={}", self.name(id))?;
                }
                write!(f, "{}", From(from))
            }
            Note::Challenged { on, from } => write!(f, "event=challenged conn={}{}", Conn(on), From(from)),
            Note::Held { on, id } => write!(f, "event=held conn={} name={}", Conn(on), self.name(id)),
            Note::Paired { hidden, client, from, id } => {
                let (hidden, client) = (Conn(hidden), Conn(client));
                write!(f, "event=paired hidden={hidden} client={client} name={}{}", self.name(id), From(from))
            }
            Note::HandOverFailed { hidden, client, id, retried } => {
                let (hidden, client, name) = (Conn(hidden), Conn(client), self.name(id));
                write!(
                    f,
                    "event=hand-over-failed hidden={hidden} client={client} name={name} retried={retried}"
                )
            }
            Note::PairEnded { hidden, client, id, from_client, from_hidden, after, why } => {
                let (hidden, client, name) = (Conn(hidden), Conn(client), self.name(id));
                write!(
                    f,
                    "event=pair-ended hidden={hidden} client={client} name={name} from-client={from_client}"
                )?;
                write!(f, " from-hidden={from_hidden} after={} why={}", Millis(after), pair_end(why))
            }
            Note::Dropped { on, from, why } => {
                write!(f, "event=dropped conn={} why={}{}", Conn(on), Escaped(why), From(from))
            }
            Note::TlsFailed { on, from, why } => {
                write!(f, "event=tls-failed conn={} why={}{}", Conn(on), Escaped(tls(why)), From(from))
            }
            Note::DialFailed { on, what, why, again } => {
                let (what, upstream) = match what {
                    Target::Relay(upstream) => ("relay", upstream),
                    Target::Service(upstream) => ("service", upstream),
                    Target::Stream(upstream) => ("stream", upstream),
                };
                let (conn, relay) = (Conn(on), self.upstream(upstream));
                write!(
                    f,
                    "event=unreachable what={what} conn={conn} relay={relay} why={}",
                    Escaped(dial(why))
                )?;
                if what != "relay" {
                    f.write_str(" answered=502")?;
                }
                again.map_or(Ok(()), |again| write!(f, " again-in={}", Millis(again)))
            }
            Note::Registered { on, upstream, waiting } => {
                write!(
                    f,
                    "event=waiting conn={} relay={} waiting={waiting}",
                    Conn(on),
                    self.upstream(upstream)
                )
            }
            Note::RelayLost { on, upstream, why, again } => {
                let (conn, relay, again) = (Conn(on), self.upstream(upstream), Millis(again));
                write!(
                    f,
                    "event=relay-lost conn={conn} relay={relay} {} again-in={again}",
                    RelayLossText(why)
                )
            }
            Note::ClockAdopted { upstream, seconds } => {
                let relay = self.upstream(upstream);
                write!(
                    f,
                    "event=clock-adopted relay={relay} offset={seconds}s hint=\"set this machine's clock\""
                )
            }
            Note::Served { relay, local, upstream, stream } => {
                let (conn, local, service) =
                    (Conn(relay), Conn(local), if stream { "stream" } else { "http" });
                write!(
                    f,
                    "event=served conn={conn} local={local} service={service} relay={}",
                    self.upstream(upstream)
                )
            }
            Note::ConnectFailed { local, why } => {
                write!(f, "event=connect-failed conn={} why={}", Conn(local), Escaped(&connect_failure(why)))
            }
        }
    }
}

struct RelayLossText(RelayLoss);

impl fmt::Display for RelayLossText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            RelayLoss::Refused(status) => {
                write!(f, "why=\"it refused\" status={status}")?;
                refusal_hint(status).map_or(Ok(()), |hint| write!(f, " hint={}", Escaped(hint)))
            }
            RelayLoss::Garbled => f.write_str("why=\"its answer is not HTTP\""),
            RelayLoss::Ended(end) => write!(f, "why={}", Escaped(end_text(end))),
            RelayLoss::Silent => f.write_str("why=\"it did not answer in time\""),
            RelayLoss::Tls(why) => write!(f, "why={}", Escaped(tls(why))),
            RelayLoss::Unreachable(why) => write!(f, "why={}", Escaped(dial(why))),
        }
    }
}

/// What an agent's operator can do about a refusal.
fn refusal_hint(status: u16) -> Option<&'static str> {
    match status {
        401 => Some(
            "unknown ID or wrong token: compare the ticket with 'rendezvous id list' at the relay, and both clocks",
        ),
        407 | 400 | 403 => Some("is this a rendezvous relay of another kind? see 'token plain'"),
        429 => Some("too many failures from this address"),
        503 => Some("the relay is full or shutting down"),
        _ => None,
    }
}

const fn waiting_end(why: WaitingEnd) -> &'static str {
    match why {
        WaitingEnd::Ended(End::Clean) => "ended",
        WaitingEnd::Ended(End::Truncated) => "cut",
        WaitingEnd::Ended(End::Reset) => "reset",
        WaitingEnd::Talked => "talked-while-waiting",
        WaitingEnd::Replaced => "replaced",
        WaitingEnd::Revoked => "revoked",
        WaitingEnd::Drained => "shutdown",
    }
}

const fn pair_end(why: Why) -> &'static str {
    match why {
        Why::Done => "done",
        Why::Truncated(Side::Hidden) => "cut-by-hidden",
        Why::Truncated(Side::Client) => "cut-by-client",
        Why::Reset(Side::Hidden) => "reset-by-hidden",
        Why::Reset(Side::Client) => "reset-by-client",
        Why::HalfClosed => "half-closed-too-long",
        Why::Idle => "idle-too-long",
        Why::Silent(Side::Hidden) => "hidden-unreachable",
        Why::Silent(Side::Client) => "client-unreachable",
    }
}

/// Why a TLS handshake failed, in words.
#[must_use]
pub const fn tls(why: TlsFailure) -> &'static str {
    match why {
        TlsFailure::Certificate => "its certificate is not the one that is trusted (compare pin or CA)",
        TlsFailure::Ended => "it ended the connection in the TLS handshake",
        TlsFailure::Protocol => "no common TLS: TLS 1.2 or 1.3 is needed",
    }
}

/// Why something could not be reached, in words.
#[must_use]
pub const fn dial(why: DialFailure) -> &'static str {
    match why {
        DialFailure::Name => "its name does not resolve",
        DialFailure::Refused => "connection refused",
        DialFailure::Unreachable => "no answer, or no route",
        DialFailure::Local => "this machine could not connect",
    }
}

const fn end_text(end: End) -> &'static str {
    match end {
        End::Clean => "it ended the connection",
        End::Truncated => "the connection was cut",
        End::Reset => "the connection was reset",
    }
}

/// Why a connector's connection could not be, in words.
#[must_use]
pub fn connect_failure(why: ConnectFailure) -> String {
    match why {
        ConnectFailure::Refused(404) => {
            "the hidden server is offline, or there is none with this ID".to_owned()
        }
        ConnectFailure::Refused(502) => "the hidden server's agent could not reach its service".to_owned(),
        ConnectFailure::Refused(503) => "the relay or the hidden server is busy; try again".to_owned(),
        ConnectFailure::Refused(status) => {
            format!("the answer was {status}, not 101: has the agent a --stream service?")
        }
        ConnectFailure::Garbled => "the relay's answer is not HTTP".to_owned(),
        ConnectFailure::Ended(end) => format!("the relay: {}", end_text(end)),
        ConnectFailure::Silent => "no answer in time".to_owned(),
        ConnectFailure::Tls(why) => format!("the relay: {}", tls(why)),
        ConnectFailure::Unreachable(why) => format!("the relay: {}", dial(why)),
    }
}
