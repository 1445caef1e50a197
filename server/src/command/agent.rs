//! `rendezvous agent`: connects a hidden server to its relays.

mod end_to_end;
mod reload;
mod services;
mod site;

use std::path::{Path, PathBuf};
use std::time::Duration;

#[cfg(feature = "acme")]
use rendezvous_core::acme::ChallengeKind;
use rendezvous_core::agent::{Agent, BasicAuth, Config, EndToEnd, POOL, POOL_MAX, Seeds, Upstream};
use rendezvous_core::dtcp::Direct;
use rendezvous_core::event::Event;
use rendezvous_core::fingerprint::Fingerprint;
use rendezvous_core::id::Id;
use rendezvous_core::machine::Listener;
use rendezvous_core::proxy_header::Version;
use rendezvous_core::time::{Now, Span, Time};
use rendezvous_core::trace::Recorder;

use self::end_to_end::{end_to_end, key_list, refuse_beside_client_ca, refuse_without_end_to_end};
use self::reload::{Options, Terminates};
use self::services::{Service, services};
use self::site::AgentSite;
use super::acme::{self, Acme, Host};
#[cfg(feature = "acme")]
use super::certificate;
use super::direct::{ALLOW, ANNOUNCE, Reachable};
use super::local::{LocalService, TO_CA, TO_INSECURE, TO_PIN};
use super::metrics::{METRICS, METRICS_NAME, Metrics, Server};
use super::share::Share;
use super::through::{self, PASSWORD, PROXY};
use super::tickets::{Renewed, Tickets};
use super::trace_writer::{TRACE, TraceWriter};
use super::upstream;
use crate::admin::Admin;
use crate::allowed_keys::KeyList;
use crate::buffer::Sizes;
#[cfg(feature = "acme")]
use crate::cert::PairFiles;
#[cfg(feature = "acme")]
use crate::clock::Clock;
use crate::daemon::{self, Loop, Program};
use crate::entropy;
use crate::event_loop::{ClientTls, EventLoop, TlsSetup};
use crate::failure::Failure;
use crate::logging::{self, Escaped, LOG_FORMAT, LOG_RATE, Names};
use crate::metrics::Scrape;
use crate::metrics::agent::{Counters, Row};
use crate::net::Net;
use crate::options::value::{count, interval, listen_address, path, prefix, seconds};
use crate::options::{CONFIG, LOG, Matches, Opt, STATE, Spec, joined, parse};
use crate::password_check::{self, PasswordChecker};
#[cfg(feature = "acme")]
use crate::state::State;
use crate::ticket::Ticket;
use crate::tls_config::{self, ClientAuth};
use crate::trust::{self, Trust};

/// The default age of waiting connections at a group of relays. A million agents with one connection each then make 3,300
/// handshakes per second at all relays together.
const RENEW: Span = Span::from_secs(300);
/// The lowest `--renew`.
const RENEW_MIN: Duration = Duration::from_secs(1);

/// The options before those about certificates from a CA.
const SERVICES: &[Opt] = &[
    Opt::many(
        "ticket",
        "FILE",
        "",
        "the ticket of the hidden server, written by 'rendezvous id add'; SIGHUP reads it again",
    ),
    Opt::many(
        "to",
        "HOST:PORT",
        "none, with --stream",
        "the local HTTP service; https://HOST:PORT if it uses TLS",
    ),
    TO_CA,
    TO_PIN,
    TO_INSECURE,
    Opt::many(
        "stream",
        "[LABEL=]HOST:PORT",
        "none",
        "the local service for clients of 'rendezvous connect' and of the relay's --tcp ports; with a LABEL: for the port with that label",
    ),
    Opt::flag(
        "end-to-end",
        "terminate the clients' TLS in the agent, with a key that the relay does not have; the ID must be enrolled with --end-to-end",
    ),
    Opt::many(
        "tls-to",
        "HOST:PORT",
        "none",
        "a local service that terminates the clients' TLS; the ID must be enrolled with --end-to-end",
    ),
    Opt::flag(
        "to-h2",
        "offer HTTP/2 with --end-to-end; the --to service must accept it without TLS (prior knowledge), as well as HTTP/1.1",
    ),
    Opt::one(
        "cert",
        "FILE",
        "agent.crt in the state folder, self-signed, made when missing",
        "the certificate of --end-to-end, PEM",
    ),
    Opt::one("key", "FILE", "agent.key in the state folder", "its key, PEM"),
    Opt::many(
        "name",
        "NAME",
        "localhost",
        "a name for the self-signed certificate of --end-to-end; may be repeated",
    ),
];

/// The options after those about certificates from a CA.
const CONNECTIONS: &[Opt] = &[
    STATE.explained("the folder of agent.crt and agent.key"),
    Opt::many(
        "allow-key",
        "sha256//PIN",
        "every client",
        "accept only clients with this key (made by 'rendezvous key'); needs --end-to-end",
    ),
    Opt::one(
        "allow-keys",
        "FILE",
        "none",
        "accept the keys in this file, one per line; SIGHUP reads it again",
    ),
    Opt::one(
        "client-ca",
        "FILE",
        "every client",
        "accept only clients with a certificate of a CA in this PEM file; needs --end-to-end. The --to services get the certificate's subject in the field X-Client-Cert-Subject of every request",
    ),
    Opt::one("pool", "N", "4", "number of waiting connections at each relay, 1 to 100"),
    Opt::one(
        "pool-max",
        "N",
        "64",
        "limit of waiting connections, and of those opened at once, while clients use all of them, up to 250",
    ),
    PROXY,
    PASSWORD,
    Opt::one(
        "renew",
        "SECONDS",
        "300 if a ticket has a line 'sni', else 0",
        "how old a waiting connection becomes before a new one takes its place, give or take a quarter; 0 for any age",
    ),
    Opt::one(
        "send-proxy",
        "v1|v2",
        "none",
        "send the client's address to the local services in a PROXY header",
    ),
    Opt::flag(
        "forwarded",
        "send the client's address and the public host and scheme to the --to services, in fields of every request",
    ),
    Opt::one(
        "password-file",
        "FILE",
        "none",
        "require a user name and password of this file (written by 'rendezvous password') for every request to the --to services; SIGHUP reads it again",
    ),
    Opt::flag("password-keep", "pass the Authorization field on to the service instead of removing it"),
    Opt::many(
        "allow",
        "ADDR/BITS",
        "all",
        "accept only clients with these addresses, as reported by the relay",
    ),
    Opt::many("deny", "ADDR/BITS", "none", "refuse clients with these addresses, even if --allow has them"),
    Opt::one(
        "direct",
        "ADDR:PORT",
        "none",
        "accept direct connections for --stream here, and dial reachable clients",
    ),
    ANNOUNCE,
    ALLOW,
    Opt::flag("once", "serve one rendezvous and exit"),
    Opt::one("drain", "SECONDS", "10", "how long pairs may continue after SIGTERM or SIGINT"),
    METRICS,
    METRICS_NAME,
    TRACE,
    LOG,
    LOG_FORMAT,
    LOG_RATE,
    CONFIG,
];

pub(super) const SPEC: Spec = Spec {
    command: "agent",
    operands: &[],
    summary: "Connects a hidden server to its relay: keeps connections waiting there, and forwards clients to the local service.",
    options: &joined::<{ SERVICES.len() + acme::OPTIONS + CONNECTIONS.len() }>(&[
        SERVICES,
        &acme::options(
            "get certificates for each --name from a CA through the relay, and renew them; with --end-to-end. The relay's port 443 \
             must lead to it",
        ),
        CONNECTIONS,
    ]),
    footer: "\
Options for the verification of a certificate follow their --to https://…. The certificate must be for HOST;
the Host field of requests is the client's.
With several tickets, each is followed by its own --to, --tls-to and --stream, or shares the preceding ones:
    rendezvous agent --ticket a.ticket --to 127.0.0.1:8080 \\
        --ticket b.ticket --ticket c.ticket --to 127.0.0.1:9090
With --forwarded, a service gets X-Forwarded-For, -Host and -Proto and Forwarded (RFC 7239), never those that a client
sent; anything but HTTP is refused. Configure the service to trust these fields (see the manual).
The agent connects to the local service only for a client. If it loses the relay, it reconnects.
With --direct, the agent and clients of 'rendezvous connect' try to dial each other. If either succeeds, the stream does
not go through the relay.",
};

/// The value of `--log-rate`.
fn log_rate(matches: &Matches) -> Result<u32, Failure> {
    Ok(u32::try_from(matches.get(LOG_RATE.long, count(0, 1_000_000))?).unwrap_or(u32::MAX))
}

/// Runs the agent until a signal ends it.
///
/// # Errors
/// [`Failure`] for invalid options, unreadable tickets, or a failed system call.
pub fn run(args: &[String]) -> Result<(), Failure> {
    let matches = parse(&SPEC, args)?;
    logging::start_with(&matches)?;
    let metrics = Metrics::read(&matches, Server::Agent)?;
    logging::limit(log_rate(&matches)?);
    let drain = upstream::span(matches.get("drain", seconds)?);
    let pool = u16::try_from(matches.get("pool", count(1, 100))?).unwrap_or(POOL);
    let pool_max = u16::try_from(matches.get("pool-max", count(1, 250))?).unwrap_or(POOL_MAX);
    if pool_max < pool && matches.one("pool-max").is_some() {
        return Err(Failure::Usage(format!("--pool-max {pool_max} is less than --pool {pool}")));
    }
    let send_proxy = matches.get_if("send-proxy", version)?;
    let services = services(&matches)?;
    let forwarded = matches.flag("forwarded");
    if forwarded && services.iter().all(|service| service.to.is_none()) {
        return Err(Failure::Usage("--forwarded needs --to HOST:PORT".to_owned()));
    }
    let password_file = matches.get_if("password-file", path)?;
    let keeps_password = matches.flag("password-keep");
    if password_file.is_some() && services.iter().all(|service| service.to.is_none()) {
        return Err(Failure::Usage("--password-file needs --to HOST:PORT".to_owned()));
    }
    if matches.flag("to-h2") && password_file.is_some() {
        return Err(Failure::Usage(
            "--to-h2 and --password-file exclude each other: the agent does not parse HTTP/2".to_owned(),
        ));
    }
    if keeps_password && password_file.is_none() {
        return Err(Failure::Usage("--password-keep needs --password-file".to_owned()));
    }
    let allow = matches.get_all("allow", prefix)?;
    let deny = matches.get_all("deny", prefix)?;
    let reachable = matches.get_if("direct", listen_address)?;
    let reachable = Reachable::of(&matches, "direct", reachable)?;
    if reachable.listens() && services.iter().all(|service| service.stream.is_none()) {
        return Err(Failure::Usage("--direct needs --stream HOST:PORT".to_owned()));
    }
    let mut relays_in_logs = Vec::new();
    let mut ports_of_relays = Vec::new();
    let mut names = Names::default();
    let mut tickets = Tickets::default();
    let mut tls = TlsSetup::default();
    let mut upstreams = Vec::new();
    // TLS configurations of local services, which follow those of the relays.
    let mut service_tls = Vec::new();
    let relays = services.len();
    let terminates = matches.flag("end-to-end");
    if matches.flag("to-h2") && forwarded {
        return Err(Failure::Usage(
            "--to-h2 and --forwarded exclude each other: the agent does not parse HTTP/2".to_owned(),
        ));
    }
    if matches.flag("to-h2")
        && services.iter().any(|service| service.to.as_ref().is_some_and(|to| to.tls.is_some()))
    {
        return Err(Failure::Usage("--to-h2 needs a --to without https://".to_owned()));
    }
    let key_list = key_list(&matches)?;
    let client_ca = matches.get_if("client-ca", path)?;
    if !terminates {
        refuse_without_end_to_end(&matches)?;
    } else if services.iter().all(|service| service.tls_to.is_some()) {
        return Err(Failure::Usage("--end-to-end needs --to or --stream".to_owned()));
    }
    if client_ca.is_some() {
        refuse_beside_client_ca(&matches, key_list.is_some(), &services)?;
    }
    if key_list.is_some() && services.iter().any(|it| it.tls_to.is_some() || !it.ports.is_empty()) {
        return Err(Failure::Usage(
            "--allow-key and --allow-keys exclude --tls-to and --stream LABEL=HOST:PORT, whose clients present no key"
                .to_owned(),
        ));
    }
    let mut proxies = Vec::new();
    let mut renew = matches.get_if("renew", interval(RENEW_MIN))?.map(upstream::span);
    for Service { ticket: file, to, stream, ports, tls_to } in services {
        let ticket = Ticket::load(&file)?;
        proxies.push(through::proxy(&matches, &ticket.relay)?);
        if ticket.sni.is_some() {
            renew.get_or_insert(RENEW);
        }
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if !ticket.relay.tls {
            log::warn!(
                "event=in-clear id_name={} relay={} reason=\"the ticket's URL begins with http://: token and traffic can be read on the way\"",
                Escaped(&name),
                ticket.relay
            );
        }
        let basic_auth = match &password_file {
            Some(_) if to.is_some() => {
                Some(password_realm(&ticket, &file, tls_to.is_some(), keeps_password)?)
            }
            _ => None,
        };
        tls.upstreams.push(upstream::tls_of(&ticket)?);
        ports_of_relays.push(ticket.relay.port);
        names.add(ticket.id, &name);
        let service = to.as_ref().map(|to| &to.at).or(tls_to.as_ref()).map(ToString::to_string);
        let only_stream = stream.as_ref().filter(|_| ports.is_empty()).map(ToString::to_string);
        relays_in_logs.push(logging::Upstream {
            service,
            stream: only_stream,
            ..logging::Upstream::new(ticket.relay.to_string(), Some(name))
        });
        let tls_of_service = match &to {
            Some(to) => local_tls(to, &mut service_tls, relays)?,
            None => None,
        };
        upstreams.push(Upstream {
            // A raw client of a port presents neither a key nor a certificate.
            stream_takes_ports: key_list.is_none() && client_ca.is_none(),
            service_h2: matches.flag("to-h2"),
            ports: ports.iter().map(|(label, at)| (label.clone(), upstream::place(at))).collect(),
            end_to_end: match &tls_to {
                Some(at) => EndToEnd::PassTo(upstream::place(at)),
                None if terminates => EndToEnd::Terminate,
                None => EndToEnd::Off,
            },
            basic_auth,
            relay: upstream::relay(&ticket.relay),
            id: ticket.id,
            key: ticket.key.clone(),
            plain: ticket.plain,
            pool,
            pool_max: pool,
            service: to.as_ref().map(|to| upstream::place(&to.at)),
            service_tls: tls_of_service,
            stream: stream.as_ref().map(upstream::place),
        });
        tickets.add(file, ticket);
    }
    tls.upstreams.append(&mut service_tls);
    let mut acme = read_acme(&matches, terminates)?;
    let acme_tls = acme.tls()?;
    let mut end_to_end_options = None;
    if terminates {
        let ids: Vec<Id> = upstreams.iter().map(|upstream| upstream.id).collect();
        let client_auth = match (&key_list, &client_ca) {
            (Some(list), _) => ClientAuth::Keys(list.keys()),
            (None, Some(file)) => ClientAuth::Ca(trust::signed_clients(file, &tls_config::provider())?),
            (None, None) => ClientAuth::Off,
        };
        let live = acme_tls.as_ref().map(|(live, _)| live);
        end_to_end_options =
            Some(Terminates { ids: ids.clone(), client_auth: client_auth.clone(), live: live.cloned() });
        tls.end_to_end = Some(end_to_end(&matches, ids, client_auth, live)?);
    }
    let ca_upstream = tls.upstreams.len();
    if let Some((_, ca)) = acme_tls {
        tls.upstreams.push(ca);
        open_acme(&mut acme, &matches)?;
        warn_of_port(&matches, &relays_in_logs, &ports_of_relays);
    }
    let mut net = daemon::world()?;
    let checker = match &password_file {
        Some(file) => Some(PasswordChecker::start(password_check::load(file)?, net.waker())?),
        None => None,
    };
    let once = matches.flag("once");
    let subject = client_ca.is_some();
    let mut config =
        Config { upstreams, once, send_proxy, forwarded, subject, allow, deny, ..Config::default() };
    config.proxies = proxies;
    config.renew = renew.filter(|renew| *renew > Span::ZERO);
    // Otherwise the clients of one ticket could use up all descriptors.
    let share = Share::take();
    net.limit_sockets(share.sockets);
    if let Err(error) = net.watch_paths() {
        log::warn!("event=paths-unwatched reason={}", Escaped(&error.to_string()));
    }
    let ids: Vec<_> = config.upstreams.iter().map(|upstream| upstream.id).collect();
    let count = config.upstreams.len();
    let pool_max = share.pool_max(count, pool, pool_max);
    config.upstreams.iter_mut().for_each(|upstream| upstream.pool_max = pool_max);
    config.service_connections_max = share.per_ticket(count, pool_max.into(), reachable.listens());
    let mut listeners = 0;
    if reachable.listens() {
        // Names announced by clients are not resolved: strangers could delay the look-ups of the relays' names.
        let (direct, of_direct) = reachable.open(&mut net, Listener(0), false, &[], Direct::AWAITED)?;
        (config.direct, tls.direct, listeners) = (Some(direct), Some(of_direct), 1);
    }
    let trace_writer = matches.get_if(TRACE.long, path)?.as_deref().map(TraceWriter::create).transpose()?;
    let seeds = Seeds { nonces: *entropy::bytes()?, jitter: *entropy::bytes()? };
    let agent = Recorder::agent(config, seeds, net.now(), trace_writer.is_some());
    let mut event_loop =
        EventLoop::new(net, acme.host(agent, ca_upstream, None), tls, Sizes::for_peer(), listeners);
    acme.start(event_loop.net().waker())?;
    acme.set_reachable(false);
    daemon::warn_of_root();
    let counters = Counters::new(ids);
    let admin = Some(metrics.open(None, event_loop.net())?);
    let started = event_loop.now().wall;
    let descriptors_max = share.descriptors;
    daemon::run(
        &mut AgentProgram {
            relays_in_logs,
            names,
            tickets,
            options: Options::new(args, matches, end_to_end_options),
            trace_writer,
            key_list,
            checker,
            acme,
            admin,
            password_file,
            counters,
            started,
            descriptors_max,
        },
        &mut event_loop,
        drain,
    )?;
    if once { daemon::check_delivered(&event_loop) } else { Ok(()) }
}

/// The agent around its event loop.
struct AgentProgram {
    /// The relays, for logs.
    relays_in_logs: Vec<logging::Upstream>,
    /// The hidden servers' names: those of their ticket files.
    names: Names,
    tickets: Tickets,
    options: Options,
    trace_writer: Option<TraceWriter>,
    key_list: Option<KeyList>,
    checker: Option<PasswordChecker>,
    password_file: Option<PathBuf>,
    /// Certificates from a CA.
    acme: Acme,
    /// The operator's server; `None` while it works.
    admin: Option<Admin<Scrape<Row>>>,
    counters: Counters,
    /// The start, in seconds since 1970.
    started: u64,
    descriptors_max: Option<u64>,
}

impl AgentProgram {
    /// Whether a connection waits at a relay, so that a CA's validator gets here.
    fn is_reachable(&self, event_loop: &Loop<Host<Recorder<Agent>>>) -> bool {
        let agent = acme::inner(event_loop.machine()).machine();
        (0..).zip(&self.relays_in_logs).any(|(upstream, _)| agent.waiting(upstream) > 0)
    }
}

impl Program for AgentProgram {
    type Machine = Host<Recorder<Agent>>;

    const TICK: Option<Span> = None;
    const MANAGED: bool = true;

    fn event(&mut self, event: &Event) {
        self.counters.count(event);
        logging::event(event, &self.names, &self.relays_in_logs);
    }

    fn status(&self, event_loop: &Loop<Host<Recorder<Agent>>>) -> Option<String> {
        let agent = acme::inner(event_loop.machine()).machine();
        let waiting = (0..)
            .zip(&self.relays_in_logs)
            .map(|(upstream, of)| format!("{} at {}", agent.waiting(upstream), of.relay));
        Some(format!("waiting connections: {}", Vec::from_iter(waiting).join(", ")))
    }

    fn reload(&mut self, event_loop: &mut Loop<Host<Recorder<Agent>>>) {
        match self.tickets.reload() {
            Ok(renewed) => {
                log::info!("event=reloaded option=ticket tickets={}", renewed.len());
                for (upstream, Renewed { key, tls }) in (0..).zip(renewed) {
                    event_loop.set_upstream_tls(upstream, tls);
                    event_loop.call(|host, now| acme::inner_mut(host).handle_ticket(upstream, key, now));
                }
            }
            Err(failure) => {
                log::error!("event=reload-refused reason={}", Escaped(&failure.to_string()));
            }
        }
        match self.options.reload() {
            Ok(None) => {}
            Ok(Some(tls)) => {
                event_loop.set_end_to_end(tls);
                log::info!("event=reloaded option=cert");
            }
            Err(failure) => {
                log::error!("event=reload-refused reason={}", Escaped(&failure.to_string()));
            }
        }
        match self.key_list.as_ref().map(KeyList::reload) {
            None => {}
            Some(Ok(removed)) => {
                let keys = self.key_list.as_ref().map_or(0, |list| list.keys().len());
                log::info!("event=reloaded option=allow-keys keys={keys} removed={}", removed.len());
                let removed: Vec<_> = removed.iter().map(|pin| Fingerprint(pin.0)).collect();
                if !removed.is_empty() {
                    event_loop.call(|host, now| acme::inner_mut(host).handle_removed_keys(&removed, now));
                }
            }
            Some(Err(failure)) => {
                log::error!("event=reload-refused reason={}", Escaped(&failure.to_string()));
            }
        }
        match self.password_file.as_deref().map(password_check::load) {
            None => {}
            Some(Ok(passwords)) => {
                log::info!("event=reloaded option=password-file users={}", passwords.len());
                if let Some(checker) = &mut self.checker {
                    checker.replace(passwords);
                }
            }
            Some(Err(failure)) => {
                log::error!("event=reload-refused reason={}", Escaped(&failure.to_string()));
            }
        }
    }

    fn due(&self, now: Time) -> Option<Time> {
        self.admin.as_ref().and_then(|admin| admin.due(now))
    }

    fn after_turn(&mut self, event_loop: &mut Loop<Host<Recorder<Agent>>>) {
        if let Some(mut admin) = self.admin.take() {
            admin.work(&mut AgentSite { program: self, event_loop });
            self.admin = Some(admin);
        }
        if event_loop.net().paths_changed() {
            log::info!("event=path-changed");
            event_loop.call(|host, now| acme::inner_mut(host).handle_path_changed(now));
        }
        if let Some(checker) = &mut self.checker {
            let checks = event_loop.call(|host, _| acme::inner_mut(host).take_checks());
            for (on, ticket, verdict) in checker.work(checks, event_loop.now().mono) {
                event_loop.call(|host, now| acme::inner_mut(host).handle_verified(on, ticket, verdict, now));
            }
        }
        if let Some(trace_writer) = &mut self.trace_writer {
            trace_writer.write(&event_loop.call(|host, _| acme::inner_mut(host).take_text()));
        }
        if self.acme.is_on() {
            self.acme.set_reachable(self.is_reachable(event_loop));
            self.acme.work(event_loop);
        }
    }

    fn stopping(&mut self) {
        self.acme.stop();
    }

    fn drain(host: &mut Host<Recorder<Agent>>, now: Now) {
        acme::inner_mut(host).handle_drain(now);
    }

    fn is_done(&self, host: &Host<Recorder<Agent>>, _: bool) -> bool {
        acme::inner(host).machine().is_done()
    }
}

/// The password check of a hidden server's HTTP service. The realm is the name of the ticket file.
fn password_realm(
    ticket: &Ticket,
    file: &Path,
    has_tls_to: bool,
    keeps_password: bool,
) -> Result<BasicAuth, Failure> {
    if !ticket.relay.tls {
        return Err(Failure::Usage(format!(
            "--password-file: the URL of the relay {} is http://, and passwords could be read on the way",
            ticket.relay
        )));
    }
    if has_tls_to {
        return Err(Failure::Usage(
            "--password-file: with --tls-to the local service gets requests that the agent cannot read"
                .to_owned(),
        ));
    }
    let basic_auth = BasicAuth::new(&file.file_stem().unwrap_or_default().to_string_lossy());
    Ok(if keeps_password { basic_auth.keeping_credentials() } else { basic_auth })
}

/// Parses a version of the PROXY protocol.
fn version(text: &str) -> Result<Version, String> {
    match text {
        "v1" => Ok(Version::V1),
        "v2" => Ok(Version::V2),
        _ => Err(format!("'{text}' is not v1 or v2")),
    }
}

/// If a local service uses TLS, appends its TLS configuration to `all`, which follows those of `relays` relays. Returns
/// its index among both.
fn local_tls(to: &LocalService, all: &mut Vec<ClientTls>, relays: usize) -> Result<Option<u16>, Failure> {
    let Some(trust) = &to.tls else { return Ok(None) };
    if *trust == Trust::Insecure {
        log::warn!(
            "event=insecure service={} reason=\"the service's certificate is not verified: the connection can be intercepted\"",
            Escaped(&to.to_string())
        );
    }
    let index = u16::try_from(relays + all.len());
    all.push(upstream::tls_to(&to.at.host, trust)?);
    index.map(Some).map_err(|_| Failure::Usage("too many --ticket options".to_owned()))
}

/// The options about certificates from a CA.
#[cfg(feature = "acme")]
fn read_acme(matches: &Matches, terminates: bool) -> Result<Acme, Failure> {
    let acme = Acme::read(matches, vec![ChallengeKind::TlsAlpn01])?;
    if acme.is_on() && !terminates {
        return Err(Failure::Usage("--acme needs --end-to-end".to_owned()));
    }
    if acme.is_on() && names_for_ca(matches)?.is_empty() {
        return Err(Failure::Usage(
            "--acme needs --name LABEL.DOMAIN: the name of this hidden server under the relay's --domain"
                .to_owned(),
        ));
    }
    Ok(acme)
}

#[cfg(not(feature = "acme"))]
fn read_acme(_: &Matches, _: bool) -> Result<Acme, Failure> {
    Ok(Acme)
}

/// The names that certificates are wanted for from a CA.
#[cfg(feature = "acme")]
fn names_for_ca(matches: &Matches) -> Result<Vec<String>, Failure> {
    let mut names = matches.get_all("name", certificate::name)?;
    names.retain(|name| acme::is_public_name(name));
    Ok(names)
}

#[cfg(feature = "acme")]
fn open_acme(acme: &mut Acme, matches: &Matches) -> Result<(), Failure> {
    let state = State::open(matches.one("state"))?;
    let names = names_for_ca(matches)?;
    let own_key = names.first().map(|name| (name.clone(), state.file(PairFiles::AGENT.key())));
    acme.open(&state, "agent-", names, own_key, None, Clock::start().now())
}

#[cfg(not(feature = "acme"))]
fn open_acme(_: &mut Acme, _: &Matches) -> Result<(), Failure> {
    Ok(())
}

/// Warns if the CA's validators may not reach the relays: they connect to port 443, and no ticket has a relay there. A
/// port forward may lead there, so it is no error.
#[cfg(feature = "acme")]
fn warn_of_port(matches: &Matches, relays: &[logging::Upstream], ports: &[u16]) {
    if ports.contains(&acme::VALIDATED_PORT) {
        return;
    }
    let relays: Vec<&str> = relays.iter().map(|it| it.relay.as_str()).collect();
    let name = names_for_ca(matches).ok().and_then(|names| names.into_iter().next()).unwrap_or_default();
    log::warn!(
        "event=acme-port reason=\"the CA's validators use only port 443, and the relay is at {}\" hint=\"port 443 of {name} \
         must lead to the relay: rendezvous check --domain {name} --acme\"",
        relays.join(", ")
    );
}

#[cfg(not(feature = "acme"))]
const fn warn_of_port(_: &Matches, _: &[logging::Upstream], _: &[u16]) {}
