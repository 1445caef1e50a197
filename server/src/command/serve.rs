//! `rendezvous serve`: the relay.

mod files;
mod listeners;
mod quota;
mod settings;
mod site;
mod start;
mod take_over;
mod upgrade;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

#[cfg(feature = "acme")]
use rendezvous_core::acme::ChallengeKind;
use rendezvous_core::engine::{Engine, Transport};
use rendezvous_core::event::Event;
use rendezvous_core::machine::Listener;
use rendezvous_core::registry::{Access, ClientLimits, Enrolment};
use rendezvous_core::time::{Now, Span, Time};
use rendezvous_core::trace::Recorder;

use self::files::{Files, Sources};
use self::listeners::{listen, listen_http};
use self::quota::Quotas;
pub(super) use self::settings::SPEC;
use self::settings::Settings;
use self::site::{Body, RelaySite};
use self::start::{Start, drop_unused};
use self::take_over::TakeOver;
use self::upgrade::remember_manager;
use super::acme::{self, Acme, Host};
use super::certificate;
use super::metrics::Metrics;
use super::share::{IdleMemory, Share};
use super::trace_writer::TraceWriter;
use crate::activation;
use crate::admin::Admin;
use crate::background_writer::FLUSH_MAX;
use crate::cert;
use crate::certificates::Certificates;
use crate::clock::{self, Clock};
use crate::daemon::{self, Loop, Program, Successor};
use crate::entropy;
use crate::event_loop::{ClientTls, EventLoop, TlsSetup};
use crate::failure::Failure;
use crate::ids::{Entry, IDS_FILE, Ids, Tokens};
use crate::linux;
use crate::live_certificates::LiveCertificates;
use crate::logging::{self, Escaped, Names};
use crate::net::Net;
use crate::options::{Matches, parse};
use crate::pin::Pin;
use crate::socket_file::SocketFile;
use crate::state::{Lock, State};
use crate::status::{Counters, Report, Resources, socket};
use crate::take_over::{Label, Role};
use crate::tls_config;
use crate::usage::Usage;

/// The default port of the relay.
const PORT: u16 = 8443;
/// Limit of status connections that are answered in one turn.
const CALLERS_MAX: usize = 16;
/// Runs the relay until a signal ends it.
///
/// # Errors
/// [`Failure`] for invalid options, unusable files, or an address that cannot be listened on.
pub fn run(args: &[String]) -> Result<(), Failure> {
    let matches = parse(&SPEC, args)?;
    logging::start_with(&matches)?;
    let mut settings = Settings::read(&matches, None)?;
    logging::limit(settings.log_rate);
    let inherited = activation::take()?;
    remember_manager();
    let state = State::open(matches.one("state"))?;
    let mut acme = read_acme(&matches, &settings)?;
    let acme_tls = acme.tls()?;
    let (tls, served) = tls_setup(&settings, &state, acme_tls.as_ref())?;
    let ids = Ids::load(&state.file(IDS_FILE))?;
    if let Some(complaint) = ids.errors.first().filter(|_| matches.flag("take-over")) {
        // The hidden server of that line would be closed by what is a reload for its operator.
        return Err(Failure::Failed(format!("cannot take over: {complaint}")));
    }
    // Done before signals are handled, so that they end the program while it waits for the lock.
    let (start, mut handed) = Start::begin(&matches, &state)?;

    let names = wanted_names(settings.engine.domain.as_deref(), &ids, &served);
    let own_key = settings.engine.domain.clone().map(|domain| (domain, state.file(cert::KEY_FILE)));
    let lock = handed.take_file(&Role::AcmeLock).map(Lock::adopt);
    acme.open(&state, "", names, own_key, lock, Clock::start().now())?;
    warn_of_pins(&acme, settings.engine.domain.as_deref(), &ids, &served);

    let mut net = daemon::world()?;
    let remote = site::remote(&mut settings, &tls, &net)?;
    let mut labels = listen(&mut net, &mut settings, inherited, &mut handed)?;
    if acme.is_on() {
        warn_of_ports(&settings, &labels);
    }
    let limits = limit_connections(&mut settings);
    net.allow_pipes(limits.pipes);
    net.limit_sockets(limits.sockets);
    let listeners = u16::try_from(settings.engine.listeners.len()).unwrap_or(u16::MAX);
    let for_http = listen_http(&mut net, &settings, &mut handed)?;
    let http_listeners = u16::try_from(for_http.len()).unwrap_or(u16::MAX);
    labels.extend(for_http);
    let http = (http_listeners > 0).then(|| (Listener(listeners), limits.http()));
    let trace_writer =
        start.trace(settings.trace.as_deref()).map(|path| TraceWriter::create(&path)).transpose()?;
    let engine =
        Recorder::relay(settings.engine.clone(), *entropy::bytes()?, net.now(), trace_writer.is_some());
    let mut event_loop =
        EventLoop::new(net, acme.host(engine, 0, http), tls, settings.sizes(), listeners + http_listeners);
    acme.start(event_loop.net().waker())?;

    let drain = settings.drain;
    let operator = settings.metrics.open_tcp(remote, event_loop.net(), &mut handed)?;
    drop_unused(handed);
    let sources = Sources {
        args: args.to_vec(),
        ids: state.file(IDS_FILE),
        state: state.clone(),
        buffer_bytes_max: settings.sizes().ceiling,
        acme_tls,
    };
    let files = Files::start(sources, ids.stamp(), event_loop.net())
        .map_err(|error| daemon::cannot("start a thread", &error))?;
    let mut relay = Relay {
        files,
        ids: Ids::default(),
        names: Names::default(),
        trace_writer,
        idle_memory: IdleMemory::default(),
        started: event_loop.now().mono,
        started_wall: event_loop.now().wall,
        metrics: settings.metrics.clone(),
        usage_interval: settings.usage_interval,
        admin: Some(operator),
        take_over: Some(TakeOver::new(&state, labels, settings.drain_replaced)),
        usage: Usage::in_memory("", event_loop.now().mono),
        needs_certificate: settings
            .listen
            .iter()
            .any(|(_, it)| matches!(it, Transport::Tls | Transport::Proxied)),
        counters: Counters::default(),
        buffer_bytes_max: settings.sizes().ceiling,
        descriptors_max: limits.descriptors,
        socket_file: None,
        removals: Vec::new(),
        served,
        acme,
        listen: settings.listen,
        listen_http: settings.listen_http,
        ports: settings.engine.ports.clone(),
        domain: settings.engine.domain,
        quotas: Quotas::default(),
    };
    relay.enrol(ids, &mut event_loop);
    if relay.ids.entries.is_empty() {
        log::info!("event=no-ids hint={}", Escaped(&first_command(&matches, &relay.listen)));
    }
    start.finish(&state, &mut relay, &mut event_loop)?;
    log::info!("event=ready");
    daemon::warn_of_root();
    daemon::run(&mut relay, &mut event_loop, drain)?;
    relay.end(&state, &mut event_loop);
    Ok(())
}

/// The command that enrols the first hidden server, for this host, port and state folder.
fn first_command(matches: &Matches, listen: &[(SocketAddr, Transport)]) -> String {
    let tls = listen.iter().find(|(_, transport)| *transport == Transport::Tls);
    let port = tls.map_or(PORT, |(address, _)| address.port());
    let host = matches.one("domain").map(str::to_owned);
    let host =
        host.or_else(|| cert::default_names(None).into_iter().next()).unwrap_or("THIS-HOST".to_owned());
    let state = matches.one("state").map(str::to_owned).or_else(|| std::env::var("STATE_DIRECTORY").ok());
    let state = state.map_or(String::new(), |state| format!(" --state {state}"));
    let port = if port == 443 { String::new() } else { format!(":{port}") };
    format!("rendezvous id add home{state} --relay https://{host}{port}")
}

/// The relay around its event loop.
struct Relay {
    files: Files,
    ids: Ids,
    names: Names,
    trace_writer: Option<TraceWriter>,
    idle_memory: IdleMemory,
    started: Time,
    /// Seconds since 1970.
    started_wall: u64,
    /// The options of the start.
    metrics: Metrics,
    usage_interval: Span,
    /// The operator's server; `None` while it works.
    admin: Option<Admin<Body>>,
    /// The take-overs; `None` while they work.
    take_over: Option<TakeOver>,
    /// The traffic of each ID.
    usage: Usage,
    /// Whether a listener of the start uses TLS.
    needs_certificate: bool,
    counters: Counters,
    buffer_bytes_max: usize,
    descriptors_max: Option<u64>,
    /// The file of the status socket, until the relay shuts down.
    socket_file: Option<SocketFile>,
    /// Removals of files of sockets, in progress.
    removals: Vec<Receiver<()>>,
    served: Served,
    /// Certificates from a CA.
    acme: Acme,
    /// The listeners given at the start.
    listen: Vec<(SocketAddr, Transport)>,
    listen_http: Vec<SocketAddr>,
    /// The names in the `--tcp` options.
    ports: Vec<String>,
    domain: Option<String>,
    quotas: Quotas,
}

impl Program for Relay {
    type Machine = Host<Recorder<Engine>>;

    const TICK: Option<Span> = Some(Span::from_secs(1));
    const UPGRADES: bool = true;
    const MANAGED: bool = true;

    fn event(&mut self, event: &Event) {
        self.counters.count(event);
        logging::event(event, &self.names, &[]);
    }

    fn reload(&mut self, _: &mut Loop<Host<Recorder<Engine>>>) {
        self.files.reload();
    }

    fn is_reloading(&self) -> bool {
        self.files.is_reloading() || self.take_over.as_ref().is_some_and(TakeOver::is_upgrading)
    }

    fn upgrade(&mut self, event_loop: &mut Loop<Host<Recorder<Engine>>>) {
        if let Some(take_over) = &mut self.take_over {
            take_over.start_upgrade(event_loop.net());
        }
    }

    fn successor(&self) -> Option<Successor> {
        self.take_over.as_ref()?.successor()
    }

    fn after_turn(&mut self, event_loop: &mut Loop<Host<Recorder<Engine>>>) {
        if let Some(trace_writer) = &mut self.trace_writer {
            trace_writer.write(&event_loop.call(|host, _| acme::inner_mut(host).take_text()));
        }
        match self.files.reloaded(&self.ids) {
            None => {}
            Some(Ok((mut settings, (tls, served), ids))) => {
                if settings.listen != self.listen || settings.listen_http != self.listen_http {
                    log::warn!(
                        "event=reload-ignored option=listen hint=\"restart the relay to change listeners\""
                    );
                }
                if settings.metrics != self.metrics || settings.usage_interval != self.usage_interval {
                    log::warn!(
                        "event=reload-ignored option=metrics hint=\"restart the relay to change --metrics and --usage-interval\""
                    );
                }
                self.served = served;
                self.domain.clone_from(&settings.engine.domain);
                logging::limit(settings.log_rate);
                self.serve_operators(&mut settings, &tls);
                event_loop.set_tls(tls);
                event_loop.set_head(settings.sizes().head);
                event_loop.call(|host, now| acme::inner_mut(host).handle_config(settings.engine, now));
                self.enrol(ids, event_loop);
                log::info!("event=reloaded");
            }
            Some(Err(failure)) => {
                log::error!("event=reload-refused reason={}", Escaped(&failure.to_string()));
            }
        }
        match self.files.changed_ids(&self.ids) {
            None => {}
            Some(Ok(ids)) => self.enrol(ids, event_loop),
            Some(Err(failure)) => {
                log::error!("event=ids-refused reason={}", Escaped(&failure.to_string()));
            }
        }
        self.acme.work(event_loop);
        if let Some(mut admin) = self.admin.take() {
            admin.work(&mut RelaySite { relay: self, event_loop });
            self.admin = Some(admin);
        }
        if let Some(mut take_over) = self.take_over.take() {
            take_over.work(self, event_loop);
            self.take_over = Some(take_over);
        }
        for _ in 0..CALLERS_MAX {
            let Some(caller) = event_loop.net().caller() else { break };
            socket::answer(caller, &self.report(event_loop).json());
            // A command that has changed the file requests the status until the change is in force.
            self.files.check_ids();
        }
    }

    fn status(&self, event_loop: &Loop<Host<Recorder<Engine>>>) -> Option<String> {
        let snapshot = acme::inner(event_loop.machine()).machine().snapshot(event_loop.now());
        let (ids, of) = (snapshot.ids.len(), snapshot.connections);
        let (waiting, pairs) = (of.waiting, of.paired / 2);
        Some(format!(
            "{ids} IDs, {waiting} waiting connections, {pairs} pairs, {} connections in total",
            of.all()
        ))
    }

    /// Removes the status socket: another relay may use the state folder and the addresses while pairs end.
    fn stopping(&mut self) {
        self.acme.stop();
        if let Some(admin) = &mut self.admin {
            admin.stop();
        }
        let take_over = self.take_over.as_mut().and_then(TakeOver::stop);
        let files = [self.socket_file.take(), take_over];
        self.removals.extend(files.into_iter().flatten().map(SocketFile::remove_in_background));
    }

    fn due(&self, now: Time) -> Option<Time> {
        let admin = self.admin.as_ref().and_then(|admin| admin.due(now));
        let take_over = self.take_over.as_ref().and_then(|take_over| take_over.due(now));
        [admin, take_over].into_iter().flatten().min()
    }

    fn tick(&mut self, event_loop: &mut Loop<Host<Recorder<Engine>>>) {
        self.idle_memory.release_idle(event_loop);
        let now = event_loop.now().mono;
        let has_quotas = self.ids.entries.iter().any(|entry| entry.steering.quota.is_some());
        if has_quotas || self.usage.is_due(now) {
            self.keep_usage(event_loop);
        }
        self.usage.write(now);
        if let Some(mut take_over) = self.take_over.take() {
            take_over.tick(self, event_loop);
            self.take_over = Some(take_over);
        }
        self.files.check_ids();
        if has_quotas && self.quotas.update(&self.ids, &self.usage, clock::wall()) {
            let enrolments = self.enrolments(&self.ids);
            event_loop.call(|host, now| acme::inner_mut(host).handle_ids(enrolments, now));
        }
    }

    fn drain(host: &mut Host<Recorder<Engine>>, now: Now) {
        acme::inner_mut(host).handle_drain(now);
    }

    fn is_done(&self, host: &Host<Recorder<Engine>>, draining: bool) -> bool {
        draining && acme::inner(host).machine().connections() == 0
    }
}

impl Relay {
    /// After the event loop: writes what is not written, and waits for it.
    fn end(mut self, state: &State, event_loop: &mut Loop<Host<Recorder<Engine>>>) {
        self.keep_usage(event_loop);
        if let Some(mut take_over) = self.take_over.take() {
            take_over.finish(&mut self, event_loop, state, FLUSH_MAX);
        }
        self.usage.finish(FLUSH_MAX);
        for removal in self.removals {
            let _ = removal.recv_timeout(FLUSH_MAX);
        }
    }

    fn report(&self, event_loop: &Loop<Host<Recorder<Engine>>>) -> Report<'_> {
        let now = event_loop.now();
        let resources = Resources {
            buffer_bytes: event_loop.buffer_bytes(),
            buffer_bytes_max: self.buffer_bytes_max,
            pipes: event_loop.pipes(),
            descriptors: linux::descriptors(),
            descriptors_max: self.descriptors_max,
            log_lines_left_out: logging::left_out(),
            log_lines_lost: logging::lost(),
        };
        Report {
            uptime: now.mono.since(self.started),
            snapshot: acme::inner(event_loop.machine()).machine().snapshot(now),
            stats: event_loop.stats(),
            resources,
            counters: &self.counters,
            names: &self.names,
            ids_stamp: self.ids.stamp(),
            pin: self.pin(),
            changes_keys: self.acme.changes_keys(),
            certificates: self.acme.report(event_loop.machine()),
            usage: Some(&self.usage).filter(|usage| usage.is_kept()),
            wall: clock::wall(),
            older: self.take_over.as_ref().map(TakeOver::older).unwrap_or_default(),
        }
    }

    /// The pin of the certificate that a client gets for the domain.
    fn pin(&self) -> Pin {
        let of_ca = self.acme.live().zip(self.domain.as_deref()).and_then(|(live, domain)| live.get(domain));
        of_ca.map_or(self.served.pin, |identity| identity.pin)
    }

    /// The list of IDs for the engine.
    fn enrolments(&self, ids: &Ids) -> Vec<Enrolment> {
        let ports_of = |entry: &Entry| {
            let own = self.ports.iter().enumerate().filter(|(_, name)| entry.is_called(name));
            own.filter_map(|(port, _)| u16::try_from(port).ok()).collect()
        };
        let enrolments = ids.entries.iter().map(|entry| Enrolment {
            labels: entry.labels.clone(),
            plain_tokens: entry.tokens == Tokens::Any,
            end_to_end: entry.end_to_end,
            ports: ports_of(entry),
            access: match entry.steering.disabled {
                true => Access::Disabled,
                false if self.quotas.is_used_up(entry.id) => Access::QuotaUsed,
                false => Access::Open,
            },
            clients: ClientLimits {
                pairs_max: entry.steering.max_pairs,
                allow: entry.steering.allow.clone(),
                deny: entry.steering.deny.clone(),
            },
            ..Enrolment::new(entry.id, entry.key.clone())
        });
        enrolments.collect()
    }

    fn enrol(&mut self, ids: Ids, event_loop: &mut Loop<Host<Recorder<Engine>>>) {
        for complaint in &ids.errors {
            log::error!("event=ids-line reason={}", Escaped(complaint));
        }
        // Keep the names of removed IDs until their last log line is written.
        self.names = Names::default();
        for entry in self.ids.entries.iter().chain(&ids.entries) {
            self.names.0.insert(entry.id, entry.name.clone());
        }
        // The counters of removed IDs end.
        self.keep_usage(event_loop);
        self.quotas.update(&ids, &self.usage, clock::wall());
        let enrolments = self.enrolments(&ids);
        if let (false, Some(sealed)) =
            (self.domain.is_some(), ids.entries.iter().find(|entry| entry.end_to_end))
        {
            log::warn!(
                "event=end-to-end id_name={:?} reason=\"without --domain only connect --end-to-end can select it\"",
                sealed.name
            );
        }
        for name in self.ports.iter().filter(|name| !ids.entries.iter().any(|entry| entry.is_called(name))) {
            log::warn!("event=tcp-port id_name={name:?} reason=\"no hidden server has this name or label\"");
        }
        event_loop.call(|host, now| acme::inner_mut(host).handle_ids(enrolments, now));
        let rate = |entry: &Entry| Some((entry.id, entry.steering.rate?));
        event_loop.set_rates(&ids.entries.iter().filter_map(rate).collect::<Vec<_>>());
        log::info!("event=ids count={}", ids.entries.len());
        self.acme.want(wanted_names(self.domain.as_deref(), &ids, &self.served));
        self.ids = ids;
    }
}

/// The certificates that clients get, if there is none from a CA.
pub(crate) struct Served {
    /// The pin of the one that a client gets for the domain.
    pin: Pin,
    /// The end of validity of each, by its name, in seconds since 1970.
    expiries: BTreeMap<String, u64>,
    /// Those of `--cert`.
    given: Option<Arc<Certificates>>,
}

/// How TLS is served.
fn tls_setup(
    settings: &Settings,
    state: &State,
    acme: Option<&(Arc<LiveCertificates>, ClientTls)>,
) -> Result<(TlsSetup, Served), Failure> {
    let provider = tls_config::provider();
    let own = || {
        let mut names = cert::default_names(settings.engine.domain.as_deref());
        names.extend(settings.names.iter().cloned());
        cert::ensure(state, cert::PairFiles::RELAY, &names, &provider)
    };
    let certificates = Arc::new(certificate::load(&settings.certificates, own, &provider)?);
    for pin in certificates.pins() {
        log::info!("event=certificate pin={pin}");
    }
    let pin = certificates.pin(settings.engine.domain.as_deref());
    let live = acme.map(|(live, _)| live);
    let server = Some(tls_config::server_config_with(certificates.clone(), live, &provider)?);
    let upstreams = acme.map(|(_, ca)| ca.clone()).into_iter().collect();
    let expiries = certificates.expiries();
    let given = (!settings.certificates.is_empty()).then_some(certificates);
    Ok((TlsSetup { server, upstreams, ..TlsSetup::default() }, Served { pin, expiries, given }))
}

/// The options about certificates from a CA.
#[cfg(feature = "acme")]
fn read_acme(matches: &Matches, settings: &Settings) -> Result<Acme, Failure> {
    let mut kinds = vec![ChallengeKind::TlsAlpn01];
    if !settings.listen_http.is_empty() {
        // It is given because the other kind may not work: a load balancer may terminate TLS.
        kinds.insert(0, ChallengeKind::Http01);
    }
    let acme = Acme::read(matches, kinds)?;
    match settings.engine.domain.as_deref() {
        _ if !acme.is_on() && !settings.listen_http.is_empty() => {
            Err(Failure::Usage(format!("--{} needs --acme", acme::HTTP.long)))
        }
        _ if !acme.is_on() => Ok(acme),
        None => {
            Err(Failure::Usage("--acme needs --domain DOMAIN: the name to get a certificate for".to_owned()))
        }
        Some(domain) if !acme::is_public_name(domain) => {
            Err(Failure::Usage(format!("--acme: no CA issues certificates for --domain {domain}")))
        }
        Some(_) => Ok(acme),
    }
}

#[cfg(not(feature = "acme"))]
fn read_acme(_: &Matches, _: &Settings) -> Result<Acme, Failure> {
    Ok(Acme)
}

/// The names that certificates are wanted for from a CA: the domain first, and the labels of the hidden servers whose TLS
/// the relay terminates, in the order in which they are enrolled. Never IDs: what a CA issues is public. Names that a
/// given certificate has are left out.
fn wanted_names(domain: Option<&str>, ids: &Ids, served: &Served) -> Vec<String> {
    let Some(domain) = domain else { return Vec::new() };
    let labels = ids.entries.iter().filter(|entry| !entry.end_to_end).flat_map(|entry| &entry.labels);
    let names = std::iter::once(domain.to_owned()).chain(labels.map(|label| format!("{label}.{domain}")));
    names.filter(|name| !served.given.as_ref().is_some_and(|given| given.has(name))).collect()
}

/// Warns that the first certificate of a CA ends the pin in tickets that were given out before. Once it is served,
/// `id add` writes tickets without a pin.
fn warn_of_pins(acme: &Acme, domain: Option<&str>, ids: &Ids, served: &Served) {
    let Some(live) = acme.live().filter(|_| acme.changes_keys()) else { return };
    let is_replaced = domain.is_some_and(|domain| {
        let is_given = served.given.as_ref().is_some_and(|given| given.has(domain));
        !is_given && live.get(domain).is_none()
    });
    if is_replaced && !ids.entries.is_empty() {
        log::warn!(
            "event=acme-pins count={} reason=\"tickets with a pin of the self-signed certificate stop working when the CA \
             has issued one\" hint=\"keep its key with --acme-keep-key, or write new tickets then: rendezvous id ticket NAME\"",
            ids.entries.len()
        );
    }
}

/// Warns if validators may not reach the relay: they connect to ports 443 (TLS-ALPN-01) and 80 (HTTP-01). A port forward
/// may lead there, so it is no error.
fn warn_of_ports(settings: &Settings, listeners: &[Label]) {
    let tls = listeners.iter().filter(|it| matches!(it.role, Role::Tls | Role::Proxied));
    let tls: Vec<&str> = tls.map(|it| it.address.as_str()).collect();
    if tls.iter().all(|address| !address.ends_with(":443")) {
        let domain = settings.engine.domain.as_deref().unwrap_or_default();
        let listens = match &tls[..] {
            [] => "has no listener with TLS".to_owned(),
            all => format!("listens on {}", all.join(", ")),
        };
        log::warn!(
            "event=acme-port reason=\"the CA's validators use only port 443, and the relay {listens}\" hint=\"forward port \
             443 of the domain's addresses here, or use --listen [::]:443; rendezvous check --domain {domain} --acme\""
        );
    }
    if !settings.listen_http.is_empty() && settings.listen_http.iter().all(|on| on.port() != 80) {
        log::info!(
            "event=acme-port reason=\"the CA's validators use only port 80 for HTTP-01, and no --acme-http has it\" \
             hint=\"forward port 80 of the domain's addresses here, or use --acme-http [::]:80\""
        );
    }
}

/// Limits the connections to what the descriptors allow.
fn limit_connections(settings: &mut Settings) -> Share {
    let share = Share::take();
    let http = if settings.listen_http.is_empty() { 0 } else { share.http() };
    share.limit(&mut settings.engine.connections_max, http);
    share
}
