//! `rendezvous proxy`: the stream proxy, a component of an XMPP server.

use std::net::SocketAddr;

use log::Level;
use rendezvous_core::bytestream::proxy::{Config, Proxy};
use rendezvous_core::component_host::ComponentHost;
use rendezvous_core::event::Event;
use rendezvous_core::time::{Now, Span};
use rendezvous_core::xmpp::jid::Jid;

use super::component::{self, COMPONENT, NAMESPACE, SECRET_FILE, XMPP, allow, namespace, required};
use super::share::{BUFFER_MEMORY, IdleMemory, MAX_CONNECTIONS, Share};
use super::upstream::span;
use crate::buffer::Sizes;
use crate::daemon::{self, Loop, Program};
use crate::entropy;
use crate::event_loop::{EventLoop, TlsSetup};
use crate::failure::Failure;
use crate::logging::{self, LOG_FORMAT, LOG_RATE, xmpp};
use crate::net::Net;
use crate::options::value::{announced, count, host_port, listen_address, seconds, size};
use crate::options::{CONFIG, LOG, Matches, Opt, Spec, parse};

pub(super) const SPEC: Spec = Spec {
    command: "proxy",
    operands: &[],
    summary: "A stream proxy: connects two XMPP entities of which neither can accept connections.",
    options: &[
        XMPP,
        COMPONENT,
        SECRET_FILE,
        Opt::many("listen", "ADDR:PORT", "", "the addresses that both ends of a stream connect to"),
        Opt::many("announce", "ADDR:PORT", "the --listen addresses", "the public address of --listen"),
        NAMESPACE,
        Opt::many(
            "allow",
            "JID-OR-DOMAIN",
            "everybody",
            "the JIDs that may use it: entities, accounts or domains",
        ),
        MAX_CONNECTIONS,
        Opt::one("max-failures", "N", "5", "limit of failed claims per account and minute"),
        BUFFER_MEMORY,
        Opt::one("drain", "SECONDS", "10", "how long pairs may continue after SIGTERM or SIGINT"),
        LOG,
        LOG_FORMAT,
        LOG_RATE,
        CONFIG,
    ],
    footer: "\
In Prosody's configuration:
    Component \"proxy.example.org\"
        component_secret = \"…\"
To offer streams through it: 'rendezvous stream … --via proxy.example.org=ADDR:PORT'.
Running pairs continue if the XMPP server disconnects.",
};

/// Runs the proxy until a signal ends it.
///
/// # Errors
/// [`Failure`] for invalid options, an unreadable secret, or an address that cannot be listened on.
pub fn run(args: &[String]) -> Result<(), Failure> {
    let matches = parse(&SPEC, args)?;
    logging::start_with(&matches)?;
    logging::limit(narrow(matches.get(LOG_RATE.long, count(0, 1_000_000))?));
    let drain = span(matches.get("drain", seconds)?);
    let listen = matches.get_all("listen", listen_address)?;
    let announce = matches.get_all("announce", announced)?;
    if listen.is_empty() {
        return Err(Failure::Usage("--listen ADDR:PORT is missing".to_owned()));
    }
    component::check_announced(&listen, &announce)?;
    let memory = matches.get(BUFFER_MEMORY.long, size(1 << 20, 1 << 40))?;
    let shown = required(&matches, XMPP, host_port)?.to_string();
    let server = component::config(&matches)?;
    let mut config = config(&matches, server.name.clone())?;
    config.rules.announced = announce.iter().map(SocketAddr::ip).collect();

    let mut net = daemon::world()?;
    for on in &listen {
        let on = super::listen::listen(&mut net, *on, &listen)?;
        log::info!("event=listening on={on}");
        config.rules.listeners.push(on);
    }
    for way in component::ways(&config.rules.listeners, &announce) {
        log::info!("event=proxy via={}={way}", server.name.as_str());
    }
    let share = Share::take();
    share.limit(&mut config.connections_max, 0);
    net.allow_pipes(share.pipes);
    net.limit_sockets(share.sockets);
    let listeners = u16::try_from(config.rules.listeners.len()).unwrap_or(u16::MAX);
    let sizes = Sizes { ceiling: usize::try_from(memory).unwrap_or(usize::MAX), ..Sizes::for_peer() };
    let now = net.now();
    let component_host = ComponentHost::new(server, Proxy::new(config), *entropy::bytes()?, now);
    let mut event_loop = EventLoop::new(net, component_host, TlsSetup::default(), sizes, listeners);
    daemon::warn_of_root();
    daemon::run(&mut ProxyProgram { shown, idle_memory: IdleMemory::default() }, &mut event_loop, drain)
}

fn config(matches: &Matches, name: Jid) -> Result<Config, Failure> {
    let mut config = Config::new(name);
    config.namespace = namespace(matches)?;
    config.allow = allow(matches)?;
    config.connections_max = narrow(matches.get(MAX_CONNECTIONS.long, count(2, 10_000_000))?);
    config.failures_per_minute_max = narrow(matches.get("max-failures", count(1, 1_000_000))?);
    Ok(config)
}

fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// The proxy around its event loop.
struct ProxyProgram {
    /// The XMPP server, for logs.
    shown: String,
    idle_memory: IdleMemory,
}

impl Program for ProxyProgram {
    type Machine = ComponentHost<Proxy>;

    const TICK: Option<Span> = Some(Span::from_secs(1));
    const MANAGED: bool = true;

    fn event(&mut self, event: &Event) {
        xmpp::event(event, &self.shown, Level::Info);
    }

    fn reload(&mut self, _: &mut Loop<ComponentHost<Proxy>>) {
        log::info!("event=reload reason=\"reload ignored: options are read only at startup\"");
    }

    fn tick(&mut self, event_loop: &mut Loop<ComponentHost<Proxy>>) {
        self.idle_memory.release_idle(event_loop);
    }

    fn status(&self, event_loop: &Loop<ComponentHost<Proxy>>) -> Option<String> {
        let component_host = event_loop.machine();
        let (proxy, is_up) = (component_host.inner(), if component_host.is_up() { "up" } else { "down" });
        let (pairs, claimed, unclaimed) = (proxy.pairs(), proxy.claimed(), proxy.unclaimed());
        Some(format!("XMPP {is_up}, {pairs} pairs, {claimed} claimed and {unclaimed} unclaimed connections"))
    }

    fn drain(component_host: &mut ComponentHost<Proxy>, now: Now) {
        component_host.handle_drain(now);
    }

    fn is_done(&self, component_host: &ComponentHost<Proxy>, _: bool) -> bool {
        component_host.is_done()
    }
}
