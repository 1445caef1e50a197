//! `rendezvous stream`: either end of a stream between two XMPP entities.

use std::net::{Ipv4Addr, SocketAddr};

use log::Level;
use rendezvous_core::bytestream::entity::{Config, Entity};
use rendezvous_core::bytestream::initiator::CONNECTIONS_MAX;
use rendezvous_core::bytestream::name::Allow;
use rendezvous_core::bytestream::stanza::Connection;
use rendezvous_core::component_host::ComponentHost;
use rendezvous_core::event::{ComponentEvent, Event, StreamEvent, StreamFailure};
use rendezvous_core::machine::Listener;
use rendezvous_core::pair::{EndReason, Side};
use rendezvous_core::time::{Now, Span};
use rendezvous_core::xmpp::component::Loss;
use rendezvous_core::xmpp::condition::StreamCondition;
use rendezvous_core::xmpp::jid::Jid;

use super::component::{self, COMPONENT, NAMESPACE, SECRET_FILE, XMPP, allow, jid, namespace, required};
use super::direct;
use super::upstream::span;
use crate::buffer::Sizes;
use crate::daemon::{self, Loop, Program, cannot};
use crate::entropy;
use crate::event_loop::{EventLoop, TlsSetup};
use crate::failure::Failure;
use crate::logging::{self, xmpp};
use crate::net::Net;
use crate::net::mio::Sock;
use crate::net::stdio::Stdio;
use crate::options::value::{announced, host_port, listen_address, seconds};
use crate::options::{CONFIG, LOG, Matches, Opt, Spec, did_you_mean, parse};

const HELP: &str = "\
Usage: rendezvous stream COMMAND [OPTIONS]

One end of a stream between two XMPP entities: direct if one of them is reachable, otherwise through
a stream proxy ('rendezvous proxy').

Commands:
    stream open --to JID    offer a stream to a peer
    stream accept           accept the stream that a peer offers

'rendezvous stream COMMAND --help' lists the options.
";

const AS: Opt = Opt::one("as", "JID", "", "the local JID, in the component's domain, such as joe@NAME/home");
const TO: Opt = Opt::one("to", "JID", "", "the peer's full JID");
const VIA: Opt = Opt::many(
    "via",
    "JID=ADDR:PORT",
    "none",
    "a stream proxy to offer after the local addresses, as the proxy logs it at startup",
);
const LISTEN: Opt = Opt::many("listen", "ADDR:PORT", "none", "accept connections from the peer here");
const ANNOUNCE: Opt =
    Opt::many("announce", "ADDR:PORT", "the --listen addresses", "the public address of --listen");
const DRAIN: Opt =
    Opt::one("drain", "SECONDS", "10", "how long streams may continue after SIGTERM or SIGINT");

pub(super) const OPEN: Spec = Spec {
    command: "stream open",
    operands: &[],
    summary: "Offers a stream to an XMPP entity: the local addresses first, then proxies. Standard input and output are \
              the stream.",
    options: &[
        XMPP,
        COMPONENT,
        SECRET_FILE,
        AS,
        TO,
        VIA,
        LISTEN,
        ANNOUNCE,
        Opt::one(
            "service",
            "ADDR:PORT",
            "standard input and output",
            "the local service that gets the stream",
        ),
        direct::ALLOW,
        NAMESPACE,
        DRAIN,
        LOG,
        CONFIG,
    ],
    footer: "\
Without --listen and --via there is nothing to offer; then the peer may offer its own addresses (role reversal).
Exit code 0 when both sides have ended, 1 with an error message if the stream failed.",
};

pub(super) const ACCEPT: Spec = Spec {
    command: "stream accept",
    operands: &[],
    summary: "Accepts the stream that an XMPP entity offers, on standard input and output; with --to, all streams that \
              are offered.",
    options: &[
        XMPP,
        COMPONENT,
        SECRET_FILE,
        AS,
        Opt::one(
            "to",
            "ADDR:PORT",
            "standard input and output",
            "the local service that gets each stream, until SIGTERM",
        ),
        Opt::many(
            "allow",
            "JID-OR-DOMAIN",
            "everybody",
            "the JIDs that may offer: entities, accounts or domains",
        ),
        VIA,
        LISTEN,
        ANNOUNCE,
        direct::ALLOW,
        NAMESPACE,
        DRAIN,
        LOG,
        CONFIG,
    ],
    footer: "\
--listen and --via are offered if none of the peer's addresses can be reached (role reversal).
Exit code 0 when both sides have ended, 1 with an error message if the stream failed.",
};

/// Runs `stream` with the remaining arguments.
///
/// # Errors
/// [`Failure`] for invalid options, an unreadable secret, or if the stream could not be set up.
pub fn run(args: &[String]) -> Result<(), Failure> {
    let Some((name, rest)) = args.split_first() else { return Err(Failure::Help(HELP.to_owned())) };
    match name.as_str() {
        "open" => open(rest),
        "accept" => accept(rest),
        "-h" | "--help" => Err(Failure::Help(HELP.to_owned())),
        other => {
            let meant = did_you_mean(other, ["open", "accept"]);
            let meant = meant.map(|meant| format!(", did you mean 'stream {meant}'?"));
            let meant = meant.unwrap_or_else(|| ": one of open, accept".to_owned());
            Err(Failure::Usage(format!("unknown command 'stream {other}'{meant}")))
        }
    }
}

fn open(args: &[String]) -> Result<(), Failure> {
    let matches = parse(&OPEN, args)?;
    logging::start(matches.one("log"))?;
    let peer = required(&matches, TO, jid)?;
    let service = matches.get_if("service", announced)?;
    let task = if service.is_some() { Task::Offer(peer.clone()) } else { Task::Stdio };
    serve(&matches, task, |config| {
        config.peer = Some(peer);
        config.service = service;
        // `open` accepts no other stream. A role reversal still works.
        config.allow = Allow::These(Vec::new());
    })
}

fn accept(args: &[String]) -> Result<(), Failure> {
    let matches = parse(&ACCEPT, args)?;
    logging::start(matches.one("log"))?;
    let service = matches.get_if("to", announced)?;
    let allow = allow(&matches)?;
    let task = if service.is_some() { Task::Serve } else { Task::Stdio };
    serve(&matches, task, |config| {
        config.service = service;
        config.allow = allow;
    })
}

/// What the command does.
enum Task {
    /// One stream, on standard input and output.
    Stdio,
    /// One stream to this peer, for a service.
    Offer(Jid),
    /// All offered streams, for a service.
    Serve,
}

fn serve(matches: &Matches, task: Task, change: impl FnOnce(&mut Config)) -> Result<(), Failure> {
    let drain = span(matches.get("drain", seconds)?);
    let listen = matches.get_all("listen", listen_address)?;
    let announce = matches.get_all("announce", announced)?;
    component::check_announced(&listen, &announce)?;
    let shown = required(matches, XMPP, host_port)?.to_string();
    let server = component::config(matches)?;
    let me = required(matches, AS, |text| component::own_jid(text, &server.name))?;
    let mut config = config(matches, me)?;
    change(&mut config);
    let opens = config.peer.is_some();

    let default_level = if matches!(task, Task::Stdio) { Level::Debug } else { Level::Info };
    let mut net = daemon::world()?;
    for on in &listen {
        let on = super::listen::listen(&mut net, *on, &listen)?;
        log::log!(default_level, "event=listening on={on}");
        config.rules.listeners.push(on);
    }
    config.rules.announced = announce.iter().map(SocketAddr::ip).collect();
    config.dial.own = [&config.rules.listeners[..], &announce].concat();
    config.connections = offer(&config, &announce, matches.get_all("via", via)?)?;
    let listeners = u16::try_from(config.rules.listeners.len()).unwrap_or(u16::MAX);
    let now = net.now();
    let entity = Entity::new(config, *entropy::bytes()?);
    let component_host = ComponentHost::new(server, entity, *entropy::bytes()?, now);
    let mut event_loop =
        EventLoop::new(net, component_host, TlsSetup::default(), Sizes::for_peer(), listeners);
    let once = !matches!(task, Task::Serve);
    match task {
        Task::Stdio => {
            let sock = Stdio::take().map_err(|error| cannot("use standard input and output", &error))?;
            let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
            event_loop
                .adopt(Listener(listeners), Sock::Stdio(Box::new(sock)), nowhere)
                .map_err(|error| cannot("watch standard input and output", &error))?;
        }
        Task::Offer(peer) => {
            event_loop.call(|component_host, now| component_host.inner_mut().handle_begin(peer, None, now));
        }
        Task::Serve => daemon::warn_of_root(),
    }
    let mut program = StreamProgram {
        shown,
        default_level,
        once,
        opens,
        is_up: false,
        was_up: false,
        lost: None,
        outcome: None,
    };
    daemon::run(&mut program, &mut event_loop, drain)?;
    if let Some(why) = program.lost {
        let why = xmpp::LossText(why);
        return Err(Failure::Failed(format!("cannot use the XMPP server at {}: {why}", program.shown)));
    }
    if !once {
        return Ok(());
    }
    verdict(program.outcome)?;
    daemon::check_delivered(&event_loop)
}

fn config(matches: &Matches, me: Jid) -> Result<Config, Failure> {
    let mut config = Config::new(me);
    config.namespace = namespace(matches)?;
    config.dial = direct::policy(matches)?;
    Ok(config)
}

/// The offered addresses: direct ones first, then proxies.
fn offer(config: &Config, announce: &[SocketAddr], via: Vec<Connection>) -> Result<Vec<Connection>, Failure> {
    let ways = component::ways(&config.rules.listeners, announce);
    let own = ways.into_iter().map(|to| Connection { jid: config.jid.clone(), to });
    let offer: Vec<Connection> = own.chain(via).collect();
    if offer.len() > CONNECTIONS_MAX {
        return Err(Failure::Usage(format!(
            "an offer has at most {CONNECTIONS_MAX} addresses: give fewer of --listen, --announce and --via"
        )));
    }
    Ok(offer)
}

/// Parses `JID=ADDR:PORT`.
fn via(text: &str) -> Result<Connection, String> {
    let (proxy, to) = text
        .rsplit_once('=')
        .ok_or_else(|| format!("'{text}' is not JID=ADDR:PORT, such as proxy.example.org=192.0.2.1:4000"))?;
    Ok(Connection { jid: jid(proxy)?, to: announced(to)? })
}

/// The entity around its event loop.
struct StreamProgram {
    /// The XMPP server, for logs.
    shown: String,
    default_level: Level,
    /// Whether it exits after one stream.
    once: bool,
    /// Whether it offers a stream rather than waiting for one.
    opens: bool,
    /// The outcome of the last stream, and whether the XMPP server was connected then.
    outcome: Option<(StreamEvent, bool)>,
    /// Whether the XMPP server is connected.
    is_up: bool,
    /// Whether the XMPP server was ever connected.
    was_up: bool,
    /// Why the XMPP server is unreachable, if that ended the program.
    lost: Option<Loss>,
}

impl StreamProgram {
    /// Whether to give up because the XMPP server is not connected. `open` does not wait for it, and neither command
    /// waits for a server that refuses the component.
    fn is_hopeless(&self, why: Loss) -> bool {
        let unwanted = [StreamCondition::NotAuthorized, StreamCondition::HostUnknown].map(Loss::Refused);
        self.once && !self.was_up && (self.opens || unwanted.contains(&why))
    }
}

impl Program for StreamProgram {
    type Machine = ComponentHost<Entity>;

    const TICK: Option<Span> = None;
    const HANGUP_ENDS: bool = true;

    // Standard error may be the user's terminal: only the final error is printed there.
    fn default_level(&self) -> Level {
        self.default_level
    }

    fn event(&mut self, event: &Event) {
        match event {
            Event::Component(ComponentEvent::Down { why, .. }) => {
                self.is_up = false;
                if self.is_hopeless(*why) {
                    self.lost = Some(*why);
                    return;
                }
            }
            Event::Component(ComponentEvent::Up) => (self.is_up, self.was_up) = (true, true),
            Event::Stream(StreamEvent::Clear { .. } | StreamEvent::Dialled { .. }) => {}
            Event::Stream(event) => self.outcome = Some((event.clone(), self.is_up)),
            _ => {}
        }
        xmpp::event(event, &self.shown, self.default_level);
    }

    fn after_turn(&mut self, event_loop: &mut Loop<ComponentHost<Entity>>) {
        if self.once && self.lost.is_some() {
            self.once = false;
            event_loop.call(ComponentHost::handle_drain);
        }
        let entity = event_loop.machine().inner();
        if self.once && entity.connections() == 0 && entity.sessions() == 0 {
            self.once = false;
            event_loop.call(ComponentHost::handle_drain);
        }
    }

    fn drain(component_host: &mut ComponentHost<Entity>, now: Now) {
        component_host.handle_drain(now);
    }

    fn is_done(&self, component_host: &ComponentHost<Entity>, _: bool) -> bool {
        component_host.is_done()
    }
}

/// The result of one stream.
fn verdict(outcome: Option<(StreamEvent, bool)>) -> Result<(), Failure> {
    let Some((event, is_up)) = outcome else { return Ok(()) };
    let why = match event {
        StreamEvent::Ended { why: EndReason::Done, .. }
        | StreamEvent::Failed { why: StreamFailure::Cancelled, .. }
        | StreamEvent::Clear { .. }
        | StreamEvent::Dialled { .. } => return Ok(()),
        StreamEvent::Failed { why: StreamFailure::TimedOut, .. } if !is_up => {
            "no response in time: the XMPP server is not connected".to_owned()
        }
        StreamEvent::Failed { why, .. } => xmpp::no_stream(why),
        StreamEvent::NoService { .. } => xmpp::NO_SERVICE.to_owned(),
        StreamEvent::Ended { why, .. } => match why {
            EndReason::Truncated(Side::Hidden) | EndReason::Reset(Side::Hidden) => {
                "the peer closed the connection uncleanly"
            }
            EndReason::Truncated(Side::Client) | EndReason::Reset(Side::Client) => {
                "the local side of the stream failed"
            }
            EndReason::Unreachable(_) => "the peer stopped responding",
            EndReason::HalfClosed | EndReason::Idle => "idle timeout",
            EndReason::SlowReader(_) => "memory was short, and one side read too slowly",
            EndReason::KeyRemoved => "the key was removed from the list",
            EndReason::Operator => "the operator ended it",
            EndReason::Done => "done",
        }
        .to_owned(),
    };
    Err(Failure::Failed(why))
}
