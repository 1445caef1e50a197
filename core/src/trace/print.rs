//! Writes a [`Trace`] as text.

use core::fmt;

use data_encoding::BASE32_NOPAD;

use super::parse::wall_after;
use super::tokenizer::{ConnText as Conn, HostPortText, SpanText};
use super::{Identity, Input, Outcome, Setup, Trace, config, direct, display};
use crate::agent::{EndToEnd, Upstream, Verdict};
use crate::engine::{Kick, Transport};
use crate::machine::Secured;
use crate::registry::Access;
use crate::time::Now;
use crate::token::{Algorithm, Key};

/// The indentation of an action.
const INDENT: &str = "    ";
const BYTES_INDENT: &str = "        ";

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_setup(f, &self.setup, &self.seed, &self.identities)?;
        let mut clock = Clock::default();
        for step in &self.steps {
            clock.write(f, step.now)?;
            write_event(f, &step.event)?;
            for outcome in &step.outcomes {
                write!(f, "{outcome}")?;
            }
        }
        Ok(())
    }
}

/// Writes everything before the first event.
pub(super) fn write_setup(
    out: &mut impl fmt::Write,
    setup: &Setup,
    seed: &[u8; 32],
    identities: &[Identity],
) -> fmt::Result {
    writeln!(out, "rendezvous-trace 1")?;
    match setup {
        Setup::Relay(config) => {
            writeln!(out, "machine relay")?;
            if !config.listeners.is_empty() {
                write!(out, "listen")?;
                for transport in &config.listeners {
                    match transport {
                        Transport::Plain => out.write_str(" plain")?,
                        Transport::Tls => out.write_str(" tls")?,
                        Transport::Proxied => out.write_str(" proxied")?,
                        Transport::Port(port) => {
                            let label =
                                config.ports.get(usize::from(*port)).map_or("", |label| label.as_str());
                            write!(out, " port={label}")?;
                        }
                    }
                }
                writeln!(out)?;
            }
            write!(out, "config")?;
            config::write(&**config, out)?;
        }
        Setup::Agent { config, .. } => {
            write!(out, "machine agent\nconfig")?;
            config::write(&**config, out)?;
        }
    }
    writeln!(out)?;
    write_seed(out, "seed", seed)?;
    if let Setup::Agent { jitter, .. } = setup {
        write_seed(out, "jitter", jitter)?;
    }
    for identity in identities {
        write_identity(out, identity)?;
    }
    if let Setup::Agent { config, .. } = setup {
        for upstream in &config.upstreams {
            write_upstream(out, upstream, identities)?;
        }
        for (upstream, proxy) in config.proxies.iter().enumerate() {
            if let Some(proxy) = proxy {
                write!(out, "proxy {upstream} at={}", HostPortText(&proxy.place))?;
                let credentials = if proxy.credentials.is_some() { " credentials" } else { "" };
                writeln!(out, "{credentials}")?;
            }
        }
        if let Some(it) = &config.direct {
            direct::write(it, out)?;
        }
    }
    Ok(())
}

/// Writes a seed without leading zeroes.
fn write_seed(out: &mut impl fmt::Write, word: &str, seed: &[u8; 32]) -> fmt::Result {
    write!(out, "{word} ")?;
    let significant = seed.iter().position(|byte| *byte != 0).unwrap_or(31);
    seed[significant..].iter().try_for_each(|byte| write!(out, "{byte:02x}"))?;
    writeln!(out)
}

pub(super) fn write_identity(out: &mut impl fmt::Write, identity: &Identity) -> fmt::Result {
    let Identity { name, enrolment } = identity;
    let key = &enrolment.key;
    write!(out, "id {name} {} secret={}", enrolment.id, BASE32_NOPAD.encode(key.secret()))?;
    if key.algorithm() != Algorithm::default() {
        write!(out, " algorithm={}", key.algorithm().name())?;
    }
    if key.digits() != Key::DIGITS {
        write!(out, " digits={}", key.digits())?;
    }
    if key.period() != Key::PERIOD_SECS {
        write!(out, " period={}", key.period())?;
    }
    if enrolment.plain_tokens {
        write!(out, " tokens=any")?;
    }
    if enrolment.end_to_end {
        write!(out, " tls=end-to-end")?;
    }
    match enrolment.access {
        Access::Open => {}
        Access::Disabled => write!(out, " access=disabled")?,
        Access::QuotaUsed => write!(out, " access=quota-used")?,
    }
    let clients = &enrolment.clients;
    if let Some(max) = clients.pairs_max {
        write!(out, " pairs-max={max}")?;
    }
    for (key, prefixes) in [("allow", &clients.allow), ("deny", &clients.deny)] {
        for (place, prefix) in prefixes.iter().enumerate() {
            match place {
                0 => write!(out, " {key}={prefix}")?,
                _ => write!(out, ",{prefix}")?,
            }
        }
    }
    for (place, port) in enrolment.ports.iter().enumerate() {
        write!(out, "{}{port}", if place == 0 { " ports=" } else { "," })?;
    }
    for (place, label) in enrolment.labels.iter().enumerate() {
        write!(out, "{}{label}", if place == 0 { " labels=" } else { "," })?;
    }
    writeln!(out)
}

fn write_upstream(out: &mut impl fmt::Write, upstream: &Upstream, identities: &[Identity]) -> fmt::Result {
    let is_it = |it: &&Identity| it.enrolment.id == upstream.id && it.enrolment.key == upstream.key;
    let name = identities.iter().find(is_it).map_or("?", |identity| &identity.name);
    let relay = &upstream.relay;
    write!(out, "upstream {name} relay={} host={}", HostPortText(&relay.place), relay.host_header)?;
    if relay.tls {
        write!(out, " tls")?;
    }
    if upstream.plain {
        write!(out, " plain")?;
    }
    write!(out, " pool={}", upstream.pool)?;
    if upstream.pool_max != upstream.pool {
        write!(out, " pool-max={}", upstream.pool_max)?;
    }
    if let Some(place) = &upstream.service {
        write!(out, " service={}", HostPortText(place))?;
    }
    if let Some(number) = upstream.service_tls {
        write!(out, " service-tls={number}")?;
    }
    if let Some(place) = &upstream.stream {
        write!(out, " stream={}", HostPortText(place))?;
    }
    if upstream.stream_takes_ports {
        write!(out, " ports-to-stream")?;
    }
    for (label, place) in &upstream.ports {
        write!(out, " port={label}:{}", HostPortText(place))?;
    }
    if upstream.service_h2 {
        write!(out, " service-h2")?;
    }
    match &upstream.end_to_end {
        EndToEnd::Off => {}
        EndToEnd::Terminate => write!(out, " end-to-end")?,
        EndToEnd::PassTo(place) => write!(out, " tls-to={}", HostPortText(place))?,
    }
    if let Some(basic_auth) = &upstream.basic_auth {
        write!(out, " door={}", basic_auth.realm())?;
        if basic_auth.keeps_credentials() {
            write!(out, " password-keep")?;
        }
    }
    writeln!(out)
}

/// The times that were written so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Clock {
    before: Option<Now>,
    anchor: Option<Now>,
}

impl Clock {
    /// Writes `@TIME` and, unless the wall clock has advanced steadily, `wall=`.
    pub(super) fn write(&mut self, out: &mut impl fmt::Write, now: Now) -> fmt::Result {
        match self.before.replace(now) {
            None => write!(out, "@{} ", SpanText(crate::time::Span(now.mono.0)))?,
            Some(before) => write!(out, "@+{} ", SpanText(now.mono.since(before.mono)))?,
        }
        if self.anchor.is_none_or(|anchor| wall_after(anchor, now.mono) != now.wall) {
            self.anchor = Some(now);
            write!(out, "wall={} ", now.wall)?;
        }
        Ok(())
    }
}

pub(super) fn write_event(out: &mut impl fmt::Write, event: &Input) -> fmt::Result {
    match event {
        Input::Start => write!(out, "start"),
        Input::Open { on, from } => write!(out, "open {} {from}", on.0),
        Input::Found { on, addresses } => {
            write!(out, "found {}", Conn(*on))?;
            addresses.iter().try_for_each(|address| write!(out, " {address}"))
        }
        Input::Resolved { on, addresses } => {
            write!(out, "resolved {}", Conn(*on))?;
            addresses.iter().try_for_each(|address| write!(out, " {address}"))
        }
        Input::Connected { on } => write!(out, "connected {}", Conn(*on)),
        Input::DialFailed { on, why } => write!(out, "dial-failed {} {}", Conn(*on), display::dial(*why)),
        Input::Secured { on, tls: Secured { certificate, key, is_h2, subject } } => {
            write!(out, "secured {}", Conn(*on))?;
            certificate.iter().try_for_each(|it| write!(out, " certificate={it}"))?;
            key.iter().try_for_each(|it| write!(out, " key={it}"))?;
            if *is_h2 {
                out.write_str(" h2")?;
            }
            subject.iter().try_for_each(|it| write!(out, " subject={}", it.as_str().len()))
        }
        Input::TlsFailed { on, why } => write!(out, "tls-failed {} {}", Conn(*on), display::tls(*why)),
        Input::In { on, bytes } => {
            write!(out, "in {} ", Conn(*on))?;
            bytes.write(out, BYTES_INDENT)
        }
        Input::LastBytes { on } => write!(out, "last-bytes {}", Conn(*on)),
        Input::Moved { on, read, queued } => write!(out, "moved {} read={read} queued={queued}", Conn(*on)),
        Input::Flushed { on } => write!(out, "flushed {}", Conn(*on)),
        Input::RoundTrip { on, round_trip } => {
            write!(out, "round-trip {} {}", Conn(*on), SpanText(*round_trip))
        }
        Input::Acked { on, age: Some(age) } => write!(out, "acked {} {}", Conn(*on), SpanText(*age)),
        Input::Acked { on, age: None } => write!(out, "acked {} none", Conn(*on)),
        Input::End { on, how } => write!(out, "end {} {}", Conn(*on), display::end(*how)),
        Input::WriteFailed { on } => write!(out, "write-failed {}", Conn(*on)),
        Input::Stalled { on } => write!(out, "stalled {}", Conn(*on)),
        Input::Closed { on } => write!(out, "closed {}", Conn(*on)),
        Input::Timeout => write!(out, "timeout"),
        Input::Ids { names } => {
            write!(out, "ids")?;
            names.iter().try_for_each(|name| write!(out, " {name}"))
        }
        Input::Config { config } => {
            write!(out, "config")?;
            config::write(&**config, out)
        }
        Input::Kick { what } => match what {
            Kick::Conn(on) => write!(out, "kick conn={}", Conn(*on)),
            Kick::Id(id) => write!(out, "kick id={id}"),
            Kick::From(prefix) => write!(out, "kick from={prefix}"),
        },
        Input::TakeOver { step } => write!(out, "take-over {}", display::take_over(*step)),
        Input::Drain => write!(out, "drain"),
        Input::PathChanged => write!(out, "path-changed"),
        Input::KeysRemoved { keys } => {
            write!(out, "keys-removed")?;
            keys.iter().try_for_each(|key| write!(out, " {key}"))
        }
        Input::Ticket { upstream, name } => write!(out, "ticket {upstream} {name}"),
        Input::Verified { on, ticket, verdict } => {
            write!(out, "verified {} {ticket} ", Conn(*on))?;
            match verdict {
                Verdict::Right => write!(out, "right"),
                Verdict::Wrong => write!(out, "wrong"),
                Verdict::Busy { retry_after } => write!(out, "busy={retry_after}"),
            }
        }
    }?;
    writeln!(out)
}

impl fmt::Display for Outcome {
    /// Its line or lines.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{INDENT}-> {}", self.text)?;
        if let Some(bytes) = &self.bytes {
            write!(f, " ")?;
            bytes.write(f, BYTES_INDENT)?;
        }
        writeln!(f)
    }
}
