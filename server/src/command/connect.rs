//! `rendezvous connect`: runs next to a client that does not speak HTTP.

use std::net::{Ipv4Addr, SocketAddr};

use log::Level;
use rendezvous_core::connector::{Config, Connector, Outcome, Sealing};
use rendezvous_core::dtcp::Direct;
use rendezvous_core::event::{ConnectFailure, Event};
use rendezvous_core::id::Id;
use rendezvous_core::machine::{Listener, TlsFailure};
use rendezvous_core::pair::{EndReason, Side};
use rendezvous_core::time::{Now, Span};

use super::direct::{ALLOW, ANNOUNCE, Reachable};
use super::share::Share;
use super::through::{self, PASSWORD, PROXY};
use super::upstream;
use crate::buffer::Sizes;
use crate::cert::{self, Identity};
use crate::daemon::{self, Program, cannot};
use crate::entropy;
use crate::event_loop::{ClientTls, EventLoop, TlsSetup};
use crate::failure::Failure;
use crate::logging::{self, LOG_FORMAT, Names};
use crate::net::mio::Sock;
use crate::net::stdio::Stdio;
use crate::options::value::{listen_address, one_of, path, seconds};
use crate::options::{CONFIG, LOG, Matches, Opt, Spec, parse};
use crate::pin::Pin;
use crate::relay_url::RelayUrl;
use crate::ticket::parse_ca;
use crate::tls_config;
use crate::trust::Trust;

pub(super) const SPEC: Spec = Spec {
    command: "connect",
    operands: &["RELAY", "ID"],
    summary: "Connects to the --stream service of a hidden server's agent through the relay.",
    options: &[
        Opt::many(
            "pin",
            "sha256//…",
            "",
            "the pin of the relay's key, which 'rendezvous serve' logs at startup",
        ),
        Opt::one("ca", "FILE|system", "system, without --pin", "the CA that signed the relay's certificate"),
        Opt::flag("insecure", "do not verify the relay's certificate: the connection can be intercepted"),
        Opt::many(
            "end-to-end",
            "sha256//…",
            "off: the relay can read the stream",
            "use TLS with the agent inside the stream; the pin of the agent's key, which it logs at startup",
        ),
        Opt::one(
            "key",
            "FILE",
            "none",
            "with --end-to-end: the client key, made by 'rendezvous key', for an agent that accepts only listed keys",
        ),
        Opt::one(
            "cert",
            "FILE",
            "self-signed",
            "the certificate of --key, PEM, for an agent with --client-ca",
        ),
        Opt::many(
            "listen",
            "ADDR:PORT",
            "none: standard input and output",
            "a local port; each connection to it opens a stream",
        ),
        Opt::one(
            "direct",
            "off|prefer|require",
            "prefer",
            "use a direct connection to the agent: never, if possible, or only",
        ),
        Opt::one("direct-listen", "ADDR:PORT", "none", "accept the direct connection here, if the agent dials"),
        ANNOUNCE,
        ALLOW,
        Opt::one("direct-timeout", "SECONDS", "1", "timeout for the direct connection, up to 20"),
        PROXY,
        PASSWORD,
        Opt::one("drain", "SECONDS", "10", "how long streams may continue after SIGTERM or SIGINT"),
        LOG,
        LOG_FORMAT,
        CONFIG,
    ],
    footer: "\
RELAY is a URL such as https://relay.example.com:8443. For ssh, in ~/.ssh/config:
    Host home
        ProxyCommand rendezvous connect RELAY ID --pin sha256//…
The connector and an agent with --direct try to dial each other (--direct-listen). If both fail, or if the agent has no
--direct, the stream goes through the relay. Direct connections use TLS. The relay forwards the fingerprints of their
certificates; with --end-to-end it can neither see nor change them.
With --end-to-end, standard input is not read before the agent has proved that it has the pinned key.
Exit code 0 when both sides have ended, 1 with an error message if the stream failed.",
};

/// Runs the connector until its stream ends, or until a signal ends it.
///
/// # Errors
/// [`Failure`] for invalid options, or if the stream could not be set up.
pub fn run(args: &[String]) -> Result<(), Failure> {
    let matches = parse(&SPEC, args)?;
    logging::start_with(&matches)?;
    let [relay, id] = matches.operands() else {
        return Err(Failure::Usage("RELAY and ID are missing".to_owned()));
    };
    let relay = RelayUrl::parse(relay).map_err(|why| Failure::Usage(format!("RELAY: {why}")))?;
    let id = Id::parse(id.as_bytes()).ok_or_else(|| {
        Failure::Usage("ID: not a UUID, such as 2f402f80-da50-41e1-9b23-0123456789ab".to_owned())
    })?;
    let trust = trust(&matches)?;
    let end_to_end = EndToEnd::of(&matches)?;
    let listen = matches.get_all("listen", listen_address)?;
    let wish = matches.get("direct", one_of(&["off", "prefer", "require"]))?;
    let reachable = reachable(&matches)?;
    let timeout = matches.get("direct-timeout", direct_timeout)?;
    let drain = upstream::span(matches.get("drain", seconds)?);
    warn_of_relay(&relay, &trust, end_to_end.is_some());
    if let Some(end_to_end) = &end_to_end {
        let level = if listen.is_empty() { Level::Debug } else { Level::Info };
        let (pins, own) = (end_to_end.pins_text(","), end_to_end.own_text());
        log::log!(level, "event=end-to-end pin={pins} key={own}");
    }
    let mut tls = TlsSetup { upstreams: vec![upstream::tls(&relay, &trust)?], ..TlsSetup::default() };
    if let Some(end_to_end) = &end_to_end {
        // The connector refers to it as upstream 1.
        tls.upstreams.push(end_to_end.tls(id)?);
    }

    let stdio = listen.is_empty();
    let mut net = daemon::world()?;
    let mut own = Vec::new();
    for on in &listen {
        let on = super::listen::listen(&mut net, *on, &listen)?;
        log::info!("event=listening on={on} relay={relay}");
        own.push(on);
    }
    let mut config =
        Config { once: stdio, direct_only: wish == REQUIRE, ..Config::new(upstream::relay(&relay), id) };
    config.proxy = through::proxy(&matches, &relay)?;
    let share = Share::take();
    if end_to_end.is_some() {
        config.sealing = Sealing::EndToEnd;
    }
    config.locals_max = share.locals(reachable.listens());
    net.limit_sockets(share.sockets);
    // The local listeners come first, then that of direct connections, then standard input and output.
    let local = u16::try_from(listen.len()).unwrap_or(u16::MAX - 1);
    let (direct_listener, stdio_listener) = (Listener(local), Listener(local + 1));
    if wish != OFF {
        let (direct, of_direct) = reachable.open(&mut net, direct_listener, true, &own, timeout)?;
        (config.direct, tls.direct) = (Some(direct), Some(of_direct));
    }
    let listeners = local + u16::from(wish != OFF && reachable.listens());
    let connector = Connector::with_direct(config, *entropy::bytes()?);
    let mut event_loop = EventLoop::new(net, connector, tls, Sizes::for_peer(), listeners);
    if stdio {
        let sock = Stdio::take().map_err(|error| cannot("use standard input and output", &error))?;
        let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        event_loop
            .adopt(stdio_listener, Sock::Stdio(Box::new(sock)), nowhere)
            .map_err(|error| cannot("watch standard input and output", &error))?;
    }
    let mut program = ConnectProgram { relay: logging::Upstream::new(relay.to_string(), None), stdio };
    daemon::run(&mut program, &mut event_loop, drain)?;
    if !stdio {
        return Ok(());
    }
    verdict(event_loop.machine().last(), &relay, end_to_end.as_ref())?;
    daemon::check_delivered(&event_loop)
}

fn warn_of_relay(relay: &RelayUrl, trust: &Trust, is_end_to_end: bool) {
    if !relay.tls {
        let what = if is_end_to_end { "the ID" } else { "everything" };
        log::warn!(
            "event=in-clear relay={relay} reason=\"the URL begins with http://: {what} can be read on the way\""
        );
    } else if *trust == Trust::Insecure {
        log::warn!(
            "event=insecure relay={relay} reason=\"the relay's certificate is not verified: the connection can be intercepted\""
        );
    }
}

/// TLS with the agent inside the stream.
struct EndToEnd {
    /// The accepted keys of the agent.
    pins: Vec<Pin>,
    own: Option<Identity>,
}

impl EndToEnd {
    fn of(matches: &Matches) -> Result<Option<Self>, Failure> {
        let pins = matches.get_all("end-to-end", Pin::parse)?;
        let key = matches.get_if("key", path)?;
        let cert = matches.get_if("cert", path)?;
        if cert.is_some() && key.is_none() {
            return Err(Failure::Usage("--cert needs --key FILE".to_owned()));
        }
        if pins.is_empty() {
            return match key {
                Some(_) => Err(Failure::Usage(
                    "--key needs --end-to-end: the key authenticates the client to the agent".to_owned(),
                )),
                None => Ok(None),
            };
        }
        let provider = tls_config::provider();
        let own = match (key, cert) {
            (None, _) => None,
            (Some(key), None) => Some(cert::of_key(&key, &provider)?),
            (Some(key), Some(cert)) => Some(cert::load(&cert, &key, &provider)?),
        };
        Ok(Some(Self { pins, own }))
    }

    fn tls(&self, id: Id) -> Result<ClientTls, Failure> {
        let own = self.own.as_ref().map(|own| own.certified.clone());
        let config = tls_config::end_to_end_client_config(&self.pins, own, &tls_config::provider())?;
        Ok((config, tls_config::end_to_end_name(id)))
    }

    fn pins_text(&self, between: &str) -> String {
        self.pins.iter().map(Pin::to_string).collect::<Vec<_>>().join(between)
    }

    fn own_text(&self) -> String {
        self.own.as_ref().map_or_else(|| "none".to_owned(), |own| own.pin.to_string())
    }

    /// The message for a failure, with the pins in question. The pin that the peer presented is not printed: users
    /// would copy it into the command line, but the relay may have chosen it.
    fn explain(&self, why: ConnectFailure) -> String {
        let text = logging::connect_failure(why);
        match (why, &self.own) {
            (ConnectFailure::EndToEnd(TlsFailure::Certificate), _) => {
                format!("{text} (expected: {})", self.pins_text(" or "))
            }
            (ConnectFailure::NotAllowed(_), Some(own)) => format!("{text} (this key: {})", own.pin),
            (ConnectFailure::NotAllowed(_), None) => format!("{text} (no --key was given)"),
            _ => text,
        }
    }
}

/// Indices of the words of `--direct`.
const OFF: usize = 0;
const REQUIRE: usize = 2;

/// The addresses at which the agent may dial this connector. Agents do not resolve names.
fn reachable(matches: &Matches) -> Result<Reachable, Failure> {
    let listen = matches.get_if("direct-listen", listen_address)?;
    let reachable = Reachable::of(matches, "direct-listen", listen)?;
    if let Some(name) = reachable.name() {
        return Err(Failure::Usage(format!("--announce {name}: agents dial only addresses, not names")));
    }
    Ok(reachable)
}

fn direct_timeout(text: &str) -> Result<Span, String> {
    let span = upstream::span(seconds(text)?);
    let most = Direct::TRIED_MAX;
    if span > Span::ZERO && span <= most {
        Ok(span)
    } else {
        Err(format!("'{text}' is not a time up to {} seconds", most.as_secs_up()))
    }
}

/// The connector around its event loop.
struct ConnectProgram {
    relay: logging::Upstream,
    stdio: bool,
}

impl Program for ConnectProgram {
    type Machine = Connector;

    const TICK: Option<Span> = None;
    // ssh ends its ProxyCommand with SIGHUP.
    const HANGUP_ENDS: bool = true;

    // Standard error is the user's terminal: only the final error is printed there.
    fn default_level(&self) -> Level {
        if self.stdio { Level::Debug } else { Level::Info }
    }

    fn event(&mut self, event: &Event) {
        if log::log_enabled!(self.default_level()) {
            logging::event(event, &Names::default(), std::slice::from_ref(&self.relay));
        }
    }

    fn drain(connector: &mut Connector, now: Now) {
        connector.handle_drain(now);
    }

    fn is_done(&self, connector: &Connector, _: bool) -> bool {
        connector.is_done()
    }
}

fn trust(matches: &Matches) -> Result<Trust, Failure> {
    let pins = matches.get_all("pin", Pin::parse)?;
    let ca = matches.get_if("ca", parse_ca)?;
    match (matches.flag("insecure"), pins.is_empty(), ca) {
        (true, true, None) => Ok(Trust::Insecure),
        (false, false, None) => Ok(Trust::Pins(pins)),
        (false, true, ca) => Ok(ca.unwrap_or(Trust::System)),
        _ => Err(Failure::Usage("--pin, --ca and --insecure exclude each other".to_owned())),
    }
}

/// The result of the stream on standard input and output.
fn verdict(outcome: Option<Outcome>, relay: &RelayUrl, end_to_end: Option<&EndToEnd>) -> Result<(), Failure> {
    match outcome {
        None | Some(Outcome::Ended(EndReason::Done) | Outcome::Abandoned) => Ok(()),
        Some(Outcome::Failed(
            why @ (ConnectFailure::Ended(_)
            | ConnectFailure::NotHttp
            | ConnectFailure::TimedOut
            | ConnectFailure::Tls(_)
            | ConnectFailure::Unreachable(_)),
        )) => Err(Failure::Failed(format!("{} ({relay})", logging::connect_failure(why)))),
        Some(Outcome::Failed(why)) => Err(Failure::Failed(match end_to_end {
            Some(end_to_end) => end_to_end.explain(why),
            None => logging::connect_failure(why),
        })),
        Some(Outcome::Ended(why)) => Err(Failure::Failed(
            match why {
                EndReason::Truncated(Side::Hidden) | EndReason::Reset(Side::Hidden) => {
                    "the other side closed the connection uncleanly"
                }
                EndReason::Truncated(Side::Client) | EndReason::Reset(Side::Client) => {
                    "standard input or output failed"
                }
                EndReason::Unreachable(_) => "the relay stopped responding",
                EndReason::HalfClosed | EndReason::Idle => "idle timeout",
                EndReason::SlowReader(_) => "memory was short, and one side read too slowly",
                EndReason::KeyRemoved => "the key was removed from the list",
                EndReason::Operator => "the operator ended it",
                EndReason::Done => "done",
            }
            .to_owned(),
        )),
    }
}
