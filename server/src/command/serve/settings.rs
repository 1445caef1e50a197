//! The options of `serve`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use rendezvous_core::engine::{Config, Transport};
use rendezvous_core::http::head;
use rendezvous_core::pair;
use rendezvous_core::prefix::Prefix;
use rendezvous_core::time::Span;

use crate::buffer::Sizes;
use crate::command::acme;
use crate::command::certificate;
use crate::command::metrics::{ADMIN_PASSWORD_FILE, METRICS, METRICS_NAME, Metrics, Server};
use crate::command::share::{BUFFER_MEMORY, MAX_CONNECTIONS};
use crate::command::trace_writer::TRACE;
use crate::command::upstream::span;
use crate::deny_file;
use crate::failure::Failure;
use crate::ids::{is_label, is_name};
use crate::logging::{LOG_FORMAT, LOG_RATE};
use crate::options::{CONFIG, LOG, Matches, Opt, STATE, Spec, joined, value};
use crate::password_file::Passwords;
use crate::tls::{HANDSHAKE_MEMORY, RECORD_MAX};

/// `--drain SECONDS`.
const DRAIN: &str = "drain";
/// The default of [`DRAIN`] after a signal.
const DRAIN_DEFAULT: Span = Span::from_secs(10);

/// `--take-over`.
pub(in crate::command) const TAKE_OVER: Opt = Opt::flag(
    "take-over",
    "take over from the running relay with this state folder, without dropping connections; it keeps its pairs until they end",
);

/// The options before those about certificates from a CA.
const LISTENERS: &[Opt] = &[
    Opt::many("listen", "ADDR:PORT", "[::]:8443, or 0.0.0.0:8443 without IPv6", "listen for HTTPS"),
    Opt::many(
        "listen-plain",
        "ADDR:PORT",
        "none",
        "listen without TLS: behind a proxy that terminates TLS at layer 4, or for tests; never behind an HTTP proxy that reuses connections",
    ),
    Opt::many(
        "listen-proxy",
        "ADDR:PORT",
        "none",
        "listen for HTTPS from a load balancer that sends PROXY protocol headers (v1 or v2)",
    ),
    Opt::many(
        "proxy-from",
        "ADDR[/BITS]",
        "127.0.0.0/8 and ::1",
        "the addresses of the load balancers; connections from others are closed",
    ),
    Opt::many(
        "tcp",
        "ADDR:PORT=NAME",
        "none",
        "listen for raw TCP clients of the hidden server with this name or label",
    ),
    Opt::one(
        "deny-file",
        "FILE",
        "none",
        "accept no connection from the addresses in this file, one ADDR[/BITS] per line",
    ),
    STATE,
    Opt::many(
        "cert",
        "FILE",
        "relay.crt in the state folder, self-signed, made when missing",
        "a certificate chain, PEM; each client gets the first one for its server name, or else the first one",
    ),
    Opt::many(
        "key",
        "FILE",
        "relay.key in the state folder",
        "the key of the --cert of the same position, PEM",
    ),
    Opt::many("name", "NAME", "", "an additional name or address in the self-signed certificate"),
    Opt::one(
        "domain",
        "DOMAIN",
        "none",
        "serve LABEL.DOMAIN from the hidden server with that label or ID, without a challenge",
    ),
    Opt::flag(
        "group",
        "this is one of several relays behind a load balancer that selects by server name; needs --domain: serve only agents and clients whose server name is the first LABEL of the ID",
    ),
];

/// The options after those about certificates from a CA.
const LIMITS: &[Opt] = &[
    #[cfg(feature = "acme")]
    acme::HTTP,
    Opt::one(
        "one-time",
        "strict",
        "reuse within its time step",
        "refuse a plain token that was already used",
    ),
    Opt::one("wait", "SECONDS", "5", "how long a client waits for the hidden server's next connection"),
    MAX_CONNECTIONS,
    Opt::one(
        "max-connections-per-address",
        "N",
        "1000",
        "limit of connections per address (IPv6: per /64); 0 for no limit",
    ),
    Opt::one(
        "max-handshakes",
        "N",
        "2000, or as many as --buffer-memory holds",
        "limit of TLS handshakes in progress; close to it, the oldest ones are closed",
    ),
    Opt::one(
        "max-heads",
        "N",
        "1500, or as many as --buffer-memory holds",
        "limit of connections without a complete request; close to it, the oldest ones are closed",
    ),
    Opt::one("max-waiting", "N", "32", "limit of waiting connections per ID"),
    Opt::one("max-pairs", "N", "1000", "limit of pairs per ID"),
    Opt::one("max-held", "N", "256", "limit of held clients per ID"),
    Opt::one("head-timeout", "SECONDS", "10", "timeout for a request's head, from its first byte"),
    Opt::one("head-size", "BYTES", "16k", "limit of a request's head"),
    Opt::one("handshake-timeout", "SECONDS", "10", "timeout for a TLS handshake"),
    Opt::one("idle-timeout", "SECONDS", "0", "idle timeout of pairs; 0 for none"),
    Opt::one("half-closed-timeout", "SECONDS", "60", "idle timeout of pairs with one side ended"),
    Opt::one(
        DRAIN,
        "SECONDS",
        "10, and no limit after a take-over",
        "how long pairs may continue after SIGTERM or SIGINT, and in a process that was taken over from; 0: not at all, and without limit",
    ),
    Opt::one(
        "buffer",
        "BYTES",
        "256k",
        "limit of memory for one direction of a pair, while data is in transit",
    ),
    BUFFER_MEMORY,
    METRICS,
    METRICS_NAME,
    ADMIN_PASSWORD_FILE,
    Opt::one(
        "usage-interval",
        "SECONDS",
        "60",
        "how often the traffic of each ID is written to usage in the state folder, if it has changed; 0 to keep none",
    ),
    TAKE_OVER,
    TRACE,
    LOG,
    LOG_FORMAT,
    LOG_RATE,
    CONFIG,
];

/// The table of options.
pub(in crate::command) const SPEC: Spec = Spec {
    command: "serve",
    operands: &[],
    summary: "Runs the relay, which connects clients with hidden servers.",
    options: &joined::<{ LISTENERS.len() + acme::OPTIONS + LIMITS.len() }>(&[
        LISTENERS,
        &acme::options(
            "get certificates from a CA and renew them; port 443 must lead to this relay for the CA's validators",
        ),
        LIMITS,
    ]),
    footer: "\
SIGHUP reads the certificates, keys, ids, passwords, the --deny-file and the --config file's limits again, all or
nothing (listeners, buffers and the log level stay). A change of the file ids is in force within two seconds without it.
SIGTERM and SIGINT shut down the relay gracefully; a second one ends it at once.

SIGUSR2 upgrades the relay without dropping connections: it starts its program again, with the same options and
--take-over. The new process takes over the listeners; the old one keeps its pairs until they end. If the new process fails
before it serves, the old one continues.

'rendezvous status' shows the state of the relay, which it reads from status.sock in the state folder.

The relay notifies a service manager (systemd: Type=notify) when it is ready, reloads or stops, and
serves its watchdog. With socket activation (LISTEN_FDS) the relay opens no listeners of its own except
those given as options; FileDescriptorName= of each socket is tls, plain or proxy.",
};

/// The parsed options.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) engine: Config,
    pub(super) listen: Vec<(SocketAddr, Transport)>,
    /// Where to listen for HTTP-01.
    pub(super) listen_http: Vec<SocketAddr>,
    pub(super) certificates: Vec<(PathBuf, PathBuf)>,
    pub(super) names: Vec<String>,
    pub(super) drain: Span,
    /// How long pairs may continue after another process has taken over; `None`: until they end.
    pub(super) drain_replaced: Option<Span>,
    pub(super) buffer: usize,
    pub(super) buffer_memory: usize,
    pub(super) trace: Option<PathBuf>,
    pub(super) log_rate: u32,
    pub(super) metrics: Metrics,
    /// The passwords for other machines.
    pub(super) admin_passwords: Option<Passwords>,
    /// Zero: no traffic is kept.
    pub(super) usage_interval: Span,
}

impl Settings {
    /// Reads the options. `ceiling` is the `--buffer-memory` of a running relay, which a reload does not change.
    pub(super) fn read(matches: &Matches, ceiling: Option<usize>) -> Result<Self, Failure> {
        let count = |long, least| matches.get(long, value::count(least, 1_000_000)).map(to_u32);
        let seconds = |long| matches.get(long, value::seconds).map(span);
        let timeout = |long| matches.get(long, value::timeout).map(span);
        let bytes = |long, least, most| matches.get(long, value::size(least, most));
        let idle = seconds("idle-timeout")?;
        let pair = pair::Limits {
            half_closed: timeout("half-closed-timeout")?,
            idle: (idle > Span::ZERO).then_some(idle),
            hand_over: Some(pair::HAND_OVER),
            ..pair::Limits::default()
        };
        let head = head::Limits {
            head_bytes_max: to_u32(bytes("head-size", 1 << 10, 1 << 20)?),
            ..head::Limits::default()
        };
        let asked = usize_of(bytes(BUFFER_MEMORY.long, 1 << 20, 1 << 40)?);
        let memory = Memory(ceiling.unwrap_or(asked));
        let heads_max = memory.count(
            ("max-heads", matches.get_if("max-heads", value::count(4, 1_000_000))?),
            ("head-size", u64::from(head.head_bytes_max)),
            Config::default().heads_max,
        )?;
        let handshakes_max = memory.count(
            ("max-handshakes", matches.get_if("max-handshakes", value::count(4, 1_000_000))?),
            ("memory of a handshake", HANDSHAKE),
            Config::default().handshakes_max,
        )?;
        let buffer = memory.buffer(matches.get_if("buffer", value::size(64 << 10, 16 << 20))?)?;
        let ports = matches.get_all("tcp", tcp_port)?;
        let port = |(at, (on, _)): (usize, &(SocketAddr, String))| {
            (*on, Transport::Port(u16::try_from(at).unwrap_or(u16::MAX)))
        };
        let by_port = ports.iter().enumerate().map(port).collect::<Vec<_>>();
        let engine = Config {
            ports: ports.into_iter().map(|(_, name)| name).collect(),
            domain: matches.get_if("domain", domain)?,
            group: group(matches)?,
            one_time_strict: matches.get_if("one-time", value::one_of(&["strict"]))?.is_some(),
            head,
            connections_max: count(MAX_CONNECTIONS.long, 8)?,
            connections_per_address_max: count("max-connections-per-address", 0)?,
            handshakes_max,
            heads_max,
            proxies: proxies(matches)?,
            denied: match matches.get_if("deny-file", value::path)? {
                Some(file) => deny_file::read(&file)?,
                None => Vec::new(),
            },
            waiting_per_id_max: count("max-waiting", 1)?,
            pairs_per_id_max: count("max-pairs", 1)?,
            held_per_id_max: count("max-held", 0)?,
            handshake: timeout("handshake-timeout")?,
            head_timeout: timeout("head-timeout")?,
            hold: seconds("wait")?,
            pair,
            ..Config::default()
        };
        let metrics = Metrics::read(matches, Server::Relay)?;
        Ok(Self {
            engine,
            listen: [
                listeners(matches, "listen", Transport::Tls)?,
                listeners(matches, "listen-plain", Transport::Plain)?,
                listeners(matches, "listen-proxy", Transport::Proxied)?,
                by_port,
            ]
            .concat(),
            #[cfg(feature = "acme")]
            listen_http: matches.get_all(acme::HTTP.long, value::listen_address)?,
            #[cfg(not(feature = "acme"))]
            listen_http: Vec::new(),
            certificates: certificate::files(matches)?,
            names: matches.get_all("name", certificate::name)?,
            drain: match matches.one(DRAIN) {
                Some(_) => seconds(DRAIN)?,
                None => DRAIN_DEFAULT,
            },
            drain_replaced: match matches.one(DRAIN) {
                Some(_) => Some(seconds(DRAIN)?).filter(|drain| *drain > Span::ZERO),
                None => None,
            },
            buffer,
            buffer_memory: memory.0,
            trace: matches.get_if(TRACE.long, value::path)?,
            log_rate: count(LOG_RATE.long, 0)?,
            admin_passwords: metrics.passwords()?,
            metrics,
            usage_interval: matches.get("usage-interval", value::interval(USAGE_INTERVAL_MIN)).map(span)?,
        })
    }

    /// The names by which other machines may address the operator's server.
    pub(super) fn admin_names(&self) -> Vec<String> {
        let names = self.metrics.names().iter().chain(&self.names).chain(&self.engine.domain);
        names.map(|name| name.to_ascii_lowercase()).collect()
    }

    /// The buffer sizes.
    pub(super) fn sizes(&self) -> Sizes {
        // A head and one TLS record behind it.
        let head = self.engine.head.head_bytes_max as usize + RECORD_MAX + 1024;
        Sizes { head, bulk: self.buffer, ceiling: self.buffer_memory }
    }
}

/// The lowest `--usage-interval`.
const USAGE_INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Memory limit of one TLS handshake: a ClientHello of 16 KiB, and the session.
const HANDSHAKE: u64 = (16 * 1024 + HANDSHAKE_MEMORY) as u64;
/// The lowest limit of heads or handshakes.
const COUNT_MIN: u64 = 8;
/// The queue size, unless the memory limit requires a smaller one.
const BUFFER: u64 = 256 << 10;

/// The memory limit of all buffers, in bytes.
#[derive(Clone, Copy)]
struct Memory(usize);

impl Memory {
    /// A limit of heads or handshakes: the given one, if there is memory for it; else the default, or as many as fit.
    fn count(
        self,
        (option, asked): (&str, Option<u64>),
        (name, size): (&str, u64),
        default: u32,
    ) -> Result<u32, Failure> {
        let room = self.0 as u64 / size;
        let count = asked.unwrap_or_else(|| room.min(u64::from(default)).max(COUNT_MIN));
        if count <= room {
            return Ok(to_u32(count));
        }
        let name = if name.contains(' ') { name.to_owned() } else { format!("--{name}") };
        Err(Failure::Usage(format!(
            "--{option} {count} × {name} {size} = {} bytes, more than --{} {}: lower one of the former, or raise the \
             latter",
            count.saturating_mul(size),
            BUFFER_MEMORY.long,
            self.0
        )))
    }

    /// The large queue size; four queues must fit.
    fn buffer(self, asked: Option<u64>) -> Result<usize, Failure> {
        let room = self.0 as u64 / 4;
        match asked {
            Some(size) if size > room => Err(Failure::Usage(format!(
                "4 × --buffer {size} = {} bytes, more than --{} {}: lower the former or raise the latter",
                4 * size,
                BUFFER_MEMORY.long,
                self.0
            ))),
            Some(size) => Ok(usize_of(size)),
            None => Ok(usize_of(BUFFER.min(room))),
        }
    }
}

fn listeners(
    matches: &Matches,
    long: &str,
    transport: Transport,
) -> Result<Vec<(SocketAddr, Transport)>, Failure> {
    let addresses = matches.get_all(long, value::listen_address)?;
    Ok(addresses.into_iter().map(|address| (address, transport)).collect())
}

/// Parses a `--tcp`: the listen address, and the name of the hidden server.
fn tcp_port(text: &str) -> Result<(SocketAddr, String), String> {
    let (address, name) = text
        .rsplit_once('=')
        .ok_or_else(|| format!("'{text}' is not ADDR:PORT=NAME, such as 0.0.0.0:2222=home"))?;
    if !is_name(name) && !is_label(name) {
        return Err(format!("'{name}' is not a valid name or label of a hidden server"));
    }
    Ok((value::listen_address(address)?, name.to_owned()))
}

/// The addresses from which PROXY headers are accepted.
fn proxies(matches: &Matches) -> Result<Vec<Prefix>, Failure> {
    let mut proxies = matches.get_all("proxy-from", value::prefix)?;
    if proxies.is_empty() {
        proxies.extend(["127.0.0.0/8", "::1"].iter().flat_map(|it| value::prefix(it)));
    }
    Ok(proxies)
}

/// Whether this is one of several relays.
fn group(matches: &Matches) -> Result<bool, Failure> {
    let is_group = matches.flag("group");
    if is_group && matches.one("domain").is_none() {
        return Err(Failure::Usage("--group needs --domain DOMAIN".to_owned()));
    }
    if is_group && matches.one("listen-plain").is_some() {
        return Err(Failure::Usage(
            "--group and --listen-plain exclude each other: without TLS there is no server name".to_owned(),
        ));
    }
    Ok(is_group)
}

fn domain(text: &str) -> Result<String, String> {
    let domain = text.trim_matches('.').to_ascii_lowercase();
    match crate::cert::normal_name(&domain) {
        Some(name) if !name.starts_with('*') && name.parse::<std::net::IpAddr>().is_err() => Ok(name),
        _ => Err(format!("'{text}' is not a domain name")),
    }
}

fn to_u32(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn usize_of(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
