//! `rendezvous demo`: a quick start. Relay, hidden page and agent in one process, on loopback.

mod machines;
mod page;

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use rendezvous_core::agent::{self, Agent, POOL, POOL_MAX, Seeds, Upstream};
use rendezvous_core::engine::{self, Engine, Transport};
use rendezvous_core::event::Event;
use rendezvous_core::id::Id;
use rendezvous_core::pair;
use rendezvous_core::registry::Enrolment;
use rendezvous_core::relay_client::{HostPort, Relay};
use rendezvous_core::time::{Now, Span};
use rendezvous_core::token::{Algorithm, Key};

use self::machines::DemoMachines;
use self::page::Ends;
use super::upstream;
use crate::background_writer::{BackgroundWriter, FLUSH_MAX, Sink};
use crate::buffer::Sizes;
use crate::cert::{self, Identity};
use crate::daemon::{self, Loop, Program, cannot};
use crate::entropy;
use crate::event_loop::{EventLoop, TlsSetup};
use crate::failure::{Failure, reason};
use crate::logging::{self, Names};
use crate::net::Net;
use crate::options::{LOG, Opt, Spec, parse};
use crate::relay_url::RelayUrl;
use crate::state::State;
use crate::tls_config;
use crate::trust::Trust;

pub(super) const SPEC: Spec = Spec {
    command: "demo",
    operands: &[],
    summary: "A relay, a hidden web page and its agent in one process on loopback; fetches the page once through the relay.",
    options: &[
        Opt::flag("once", "exit after the fetch: 0 if it succeeded, 1 if not"),
        Opt::flag("verbose", "show the log of relay and agent on stderr").letter('v'),
        LEVEL,
    ],
    footer: "Each run makes a new certificate and a new ID, in a temporary folder.",
};

/// `--log LEVEL`. The log would hide the lines for the user.
const LEVEL: Opt = Opt { default: "$RUST_LOG, else error; info with --verbose", ..LOG };

/// The relay's port, if it is free.
const PORT: u16 = 8443;
/// Timeout of the fetch.
const TIMEOUT: Span = Span::from_secs(10);
const NAME: &str = "demo";

/// Runs the demo until a signal ends it.
///
/// # Errors
/// [`Failure`] for invalid options, or if the page could not be fetched.
pub fn run(args: &[String]) -> Result<(), Failure> {
    let matches = parse(&SPEC, args)?;
    let quiet = !matches.flag("verbose") && std::env::var_os("RUST_LOG").is_none();
    logging::start(matches.one(LEVEL.long).or_else(|| quiet.then_some("error")))?;
    let folder = Folder::name()?;
    let state = State::open(Some(&folder.0.to_string_lossy()))?;
    let (Identity { certified, pin }, _) =
        cert::ensure(&state, cert::PairFiles::RELAY, &cert::default_names(None), &tls_config::provider())?;

    let mut net = daemon::world()?;
    let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let relay = net
        .listen(loopback(PORT))
        .or_else(|_| net.listen(loopback(0)))
        .map_err(|error| cannot("listen on loopback", &error))?;
    let page = net.listen(loopback(0)).map_err(|error| cannot("listen on loopback", &error))?;

    let id = entropy::id()?;
    let url = RelayUrl { tls: true, host: relay.ip().to_string(), port: relay.port() };
    let tls = TlsSetup {
        end_to_end: None,
        server: Some(tls_config::server_config(certified, &tls_config::provider())?),
        upstreams: vec![upstream::tls(&url, &Trust::Pins(vec![pin]))?],
        direct: None,
    };
    let machines = machines(id, &url, page, net.now())?;
    let mut event_loop = EventLoop::new(net, machines, tls, Sizes::for_peer(), 2);
    let printer = Printer::start()?;
    printer.print(&format!(
        "relay        {url}, pin {pin}\n\
         hidden page  http://{page}/, on loopback only\n\
         hidden ID    {id}\n\n\
         To fetch it through the relay yourself (with any password):\n\n\
         \x20   curl --digest -u {id}: -k --pinnedpubkey '{pin}' {url}/\n\n"
    ));
    let deadline = event_loop.now().mono + TIMEOUT;
    let once = matches.flag("once");
    let mut demo = Demo { relay, id, once, asked: false, result: None, deadline, printer };
    daemon::run(&mut demo, &mut event_loop, Span::from_secs(1))?;
    match demo.result {
        Some(Err(why)) => Err(Failure::Failed(why)),
        _ => demo.printer.finish(),
    }
}

/// Standard output, written by a thread, so that the demo continues without a reader.
struct Printer {
    writer: BackgroundWriter,
    failed: Arc<OnceLock<String>>,
}

impl Printer {
    /// More than the demo ever prints.
    const QUEUE: usize = 64 * 1024;

    fn start() -> Result<Self, Failure> {
        let failed = Arc::new(OnceLock::new());
        let writer = BackgroundWriter::start("stdout", Self::QUEUE, Stdout { failed: Arc::clone(&failed) })
            .map_err(|error| cannot("start a thread", &error))?;
        Ok(Self { writer, failed })
    }

    fn print(&self, text: &str) {
        self.writer.push(text.as_bytes());
    }

    /// Waits for the reader for at most a second.
    fn finish(&self) -> Result<(), Failure> {
        self.writer.flush(FLUSH_MAX);
        self.failed.get().map_or(Ok(()), |why| Err(Failure::Failed(format!("cannot write to stdout: {why}"))))
    }
}

struct Stdout {
    /// The error that stopped writing. A closed pipe is not an error.
    failed: Arc<OnceLock<String>>,
}

impl Sink for Stdout {
    fn write(&mut self, bytes: &[u8]) {
        let mut out = io::stdout().lock();
        if let Err(error) = out.write_all(bytes).and_then(|()| out.flush())
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            let _ = self.failed.set(reason(&error));
        }
    }

    fn lost(&mut self, _: u64) {}
}

/// The demo around its event loop.
struct Demo {
    relay: SocketAddr,
    id: Id,
    once: bool,
    asked: bool,
    result: Option<Result<(), String>>,
    deadline: rendezvous_core::time::Time,
    printer: Printer,
}

impl Program for Demo {
    type Machine = DemoMachines;

    const TICK: Option<Span> = Some(Span::from_millis(100));

    fn event(&mut self, event: &Event) {
        let names = Names([(self.id, NAME.to_owned())].into());
        let upstream = logging::Upstream::new(self.relay.to_string(), Some(NAME.to_owned()));
        logging::event(event, &names, &[upstream]);
    }

    fn after_turn(&mut self, event_loop: &mut Loop<DemoMachines>) {
        if !self.asked && event_loop.machine().agent.waiting(0) > 0 {
            self.asked = true;
            let (relay, id) = (self.relay, self.id);
            event_loop.call(|machines, _| machines.ends.fetch(relay, id));
        }
        if event_loop.machine().stopping {
            // The fetch is aborted by the shutdown: its result does not count.
            return;
        }
        if let Some(fetched) = event_loop.call(|machines, _| machines.ends.fetched()) {
            self.result = Some(self.show(fetched));
        } else if self.result.is_none() && event_loop.now().mono >= self.deadline {
            self.result = Some(Err("the page was not received in time".to_owned()));
        }
    }

    fn drain(machines: &mut DemoMachines, now: Now) {
        machines.stopping = true;
        machines.relay.handle_drain(now);
        machines.agent.handle_drain(now);
    }

    fn is_done(&self, machines: &DemoMachines, draining: bool) -> bool {
        let failed = matches!(self.result, Some(Err(_)));
        let fetched = self.once && self.result.is_some();
        failed || fetched || draining && machines.relay.connections() == 0 && machines.agent.is_done()
    }
}

impl Demo {
    fn show(&self, fetched: Result<String, String>) -> Result<(), String> {
        let body = fetched.map_err(|why| format!("cannot fetch the page through the relay: {why}"))?;
        if body != page::PAGE {
            return Err("the relay returned a different page".to_owned());
        }
        let shown: String = body.lines().map(|line| format!("    {line}\n")).collect();
        let end = if self.once { "" } else { "\nPress Ctrl-C to stop. ('demo --verbose' shows the log.)\n" };
        self.printer.print(&format!("Fetched through the relay, {} bytes:\n\n{shown}{end}", body.len()));
        Ok(())
    }
}

fn machines(id: Id, url: &RelayUrl, page: SocketAddr, now: Now) -> Result<DemoMachines, Failure> {
    let key = Key::new(entropy::bytes::<32>()?.to_vec(), Algorithm::Sha256, Key::DIGITS, Key::PERIOD_SECS)
        .map_err(|error| Failure::Failed(format!("cannot make a secret: {error}")))?;
    let pair = pair::Limits { hand_over: Some(pair::HAND_OVER), ..pair::Limits::default() };
    let config = engine::Config { listeners: vec![Transport::Tls], pair, ..engine::Config::default() };
    let mut relay = Engine::new(config, *entropy::bytes()?, now);
    relay.handle_ids(vec![Enrolment::new(id, key.clone())], now);
    let upstream = Upstream {
        ports: Vec::new(),
        stream_takes_ports: false,
        service_h2: false,
        end_to_end: rendezvous_core::agent::EndToEnd::Off,
        basic_auth: None,
        relay: Relay { tls: true, ..upstream::relay(url) },
        id,
        key,
        plain: false,
        pool: POOL,
        pool_max: POOL_MAX,
        service: Some(HostPort::from(page)),
        service_tls: None,
        stream: None,
    };
    let config = agent::Config { upstreams: vec![upstream], ..agent::Config::default() };
    let seeds = Seeds { nonces: *entropy::bytes()?, jitter: *entropy::bytes()? };
    Ok(DemoMachines { relay, agent: Agent::new(config, seeds, now), ends: Ends::new(), stopping: false })
}

/// A folder that is removed on drop.
struct Folder(PathBuf);

impl Folder {
    /// Makes a unique random name; [`State::open`] makes the folder.
    fn name() -> Result<Self, Failure> {
        let name = format!("rendezvous-demo-{:016x}", u64::from_be_bytes(*entropy::bytes()?));
        Ok(Self(std::env::temp_dir().join(name)))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Ignored: it holds nothing of value, and it is in the folder for temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
