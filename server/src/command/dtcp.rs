//! `rendezvous dtcp`: a stream between two peers that can exchange XMPP stanzas, if one of them can be connected to.

use std::net::{Ipv4Addr, SocketAddr};

use log::Level;
use rendezvous_core::acl::Policy;
use rendezvous_core::bytestream::name::Allow;
use rendezvous_core::component_host::{self, ComponentHost};
use rendezvous_core::dtcp::HOSTS_MAX;
use rendezvous_core::dtcp::entity::{Config, Entity, Outcome, Role};
use rendezvous_core::dtcp::handshake::Tls;
use rendezvous_core::dtcp::negotiation;
use rendezvous_core::event::{ComponentEvent, DtcpEvent, Event};
use rendezvous_core::machine::Listener;
use rendezvous_core::pair;
use rendezvous_core::relay_client::HostPort;
use rendezvous_core::time::{Now, Span};
use rendezvous_core::xmpp::component::Loss;
use rendezvous_core::xmpp::condition::StreamCondition;
use rendezvous_core::xmpp::jid::Jid;

use super::component::{self, COMPONENT, SECRET_FILE, XMPP, jid, own_jid, required};
use super::upstream;
use crate::buffer::Sizes;
use crate::daemon::{self, Loop, Program, cannot};
use crate::direct_tls::DirectTls;
use crate::entropy;
use crate::escape::Shown;
use crate::event_loop::{EventLoop, TlsSetup};
use crate::failure::Failure;
use crate::logging::{self, xmpp};
use crate::net::Net;
use crate::net::mio::{MioNet, Sock};
use crate::net::stdio::Stdio;
use crate::options::value::{host_port, listen_address, one_of, seconds};
use crate::options::{CONFIG, LOG, Matches, Opt, Spec, did_you_mean, parse};
use crate::tls_config;

const HELP: &str = "\
Usage: rendezvous dtcp COMMAND [OPTIONS]

A direct TCP connection to an XMPP peer (DTCP, XEP-0046): standard input and output are
the stream. One of the two peers must be reachable.

Commands:
    dtcp open      ask a peer for a connection
    dtcp accept    wait for a peer that asks, and serve the first that connects

'rendezvous dtcp COMMAND --help' lists the options.
";

const AS: Opt =
    Opt::one("as", "JID", "", "the local JID, in the component's domain: NAME@COMPONENT/RESOURCE");
const TO: Opt = Opt::one("to", "JID", "", "the peer's full JID");
const FROM: Opt =
    Opt::many("from", "JID", "every peer", "the peers that may ask: full JIDs, bare JIDs or domains");
const LISTEN: Opt =
    Opt::one("listen", "ADDR:PORT", "none: the peer must be reachable", "accept the connection here");
const HOST: Opt = Opt::many(
    "host",
    "HOST:PORT",
    "the --listen address",
    "the address announced to the peer, if it differs from --listen; at most three",
);
const TLS: Opt = Opt::one(
    "tls",
    "off|prefer|require",
    "prefer",
    "encrypt the connection; certificates are not announced over XMPP and not verified",
);
const ALLOW: Opt = Opt::many(
    "allow",
    "loopback|link-local|private|shared",
    "only public addresses",
    "also dial these addresses if the peer announces them: the peer then chooses what is dialled",
);
const DRAIN: Opt =
    Opt::one("drain", "SECONDS", "10", "how long the stream may continue after SIGTERM or SIGINT");

const NOTES: &str = "\
The XMPP server must be configured for the component. For Prosody:
    Component \"dtcp.example.org\"
        component_secret = \"…\"
Exit code 0 when both sides have ended, 1 with an error message if the stream failed.";

pub(super) const OPEN: Spec = Spec {
    command: "dtcp open",
    operands: &[],
    summary: "Asks a peer for a direct connection. Standard input and output are the stream.",
    options: &[XMPP, COMPONENT, SECRET_FILE, AS, TO, LISTEN, HOST, TLS, ALLOW, DRAIN, LOG, CONFIG],
    footer: NOTES,
};

pub(super) const ACCEPT: Spec = Spec {
    command: "dtcp accept",
    operands: &[],
    summary: "Waits for a peer that asks for a direct connection. Standard input and output are the stream.",
    options: &[XMPP, COMPONENT, SECRET_FILE, AS, FROM, LISTEN, HOST, TLS, ALLOW, DRAIN, LOG, CONFIG],
    footer: NOTES,
};

/// The level of ordinary events: standard error is the user's terminal.
const DEFAULT_LEVEL: Level = Level::Debug;

/// Runs `dtcp` with the remaining arguments.
///
/// # Errors
/// [`Failure`] for invalid options, or if the stream could not be set up.
pub fn run(args: &[String]) -> Result<(), Failure> {
    const NAMES: [&str; 2] = ["open", "accept"];
    let Some((name, rest)) = args.split_first() else { return Err(Failure::Help(HELP.to_owned())) };
    match name.as_str() {
        "open" => {
            let matches = parse(&OPEN, rest)?;
            let to = required(&matches, TO, jid)?;
            serve(&matches, Role::Open { to })
        }
        "accept" => {
            let matches = parse(&ACCEPT, rest)?;
            let from = matches.get_all(FROM.long, jid)?;
            let from = if from.is_empty() { Allow::Everybody } else { Allow::These(from) };
            serve(&matches, Role::Accept { from })
        }
        "-h" | "--help" => Err(Failure::Help(HELP.to_owned())),
        _ => {
            let meant = did_you_mean(name, NAMES);
            let meant = meant.map(|meant| format!(", did you mean 'dtcp {meant}'?"));
            let meant = meant.unwrap_or_else(|| format!(": one of {}", NAMES.join(", ")));
            Err(Failure::Usage(format!("unknown command 'dtcp {name}'{meant}")))
        }
    }
}

fn serve(matches: &Matches, role: Role) -> Result<(), Failure> {
    logging::start(matches.one(LOG.long))?;
    let server = component::config(matches)?;
    let own = required(matches, AS, |text| own_jid(text, &server.name))?;
    let drain = upstream::span(matches.get(DRAIN.long, seconds)?);
    let tls = tls(matches)?;
    let mut policy = policy(matches)?;
    let listen = matches.get_if(LISTEN.long, listen_address)?;
    let hosts = hosts(matches, listen)?;

    let mut net = daemon::world()?;
    let bound = listen.map(|on| bind(&mut net, on)).transpose()?;
    policy.own.extend(bound);
    let config = Config {
        jid: own,
        role,
        hosts: if hosts.is_empty() { bound.map(HostPort::from).into_iter().collect() } else { hosts },
        listeners: u16::from(bound.is_some()),
        negotiation: negotiation::Config { tls, policy, ..negotiation::Config::default() },
        pair: pair::Limits::default(),
    };
    let mut program = DtcpProgram::new(&server, &config);
    let direct = if tls == Tls::Off { None } else { Some(DirectTls::new(&tls_config::provider())?) };
    let local = Listener(config.listeners);
    let entity = Entity::new(config, *entropy::bytes()?);
    let now = net.now();
    let machine = ComponentHost::new(server, entity, *entropy::bytes()?, now);
    let mut event_loop =
        EventLoop::new(net, machine, TlsSetup { direct, ..TlsSetup::default() }, Sizes::for_peer(), local.0);
    let sock = Stdio::take().map_err(|error| cannot("use standard input and output", &error))?;
    let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    event_loop
        .adopt(local, Sock::Stdio(Box::new(sock)), nowhere)
        .map_err(|error| cannot("watch standard input and output", &error))?;
    daemon::run(&mut program, &mut event_loop, drain)?;
    program.verdict()?;
    daemon::check_delivered(&event_loop)
}

fn bind(net: &mut MioNet, on: SocketAddr) -> Result<SocketAddr, Failure> {
    let bound = super::listen::listen(net, on, &[])?;
    log::log!(DEFAULT_LEVEL, "event=listening on={bound}");
    Ok(bound)
}

/// The hosts announced to the peer, if they differ from the listen address.
fn hosts(matches: &Matches, listen: Option<SocketAddr>) -> Result<Vec<HostPort>, Failure> {
    let hosts = matches.get_all(HOST.long, host_port)?;
    let usage = |text: &str| Err(Failure::Usage(text.to_owned()));
    match listen {
        None if !hosts.is_empty() => usage("--host has no effect without --listen"),
        Some(on) if hosts.is_empty() && on.ip().is_unspecified() => {
            usage("--listen has no address that a peer could dial: add --host HOST:PORT with the public one")
        }
        _ if hosts.len() > HOSTS_MAX => usage("--host may be given three times at most"),
        _ => Ok(hosts.iter().map(upstream::place).collect()),
    }
}

fn tls(matches: &Matches) -> Result<Tls, Failure> {
    let place = matches.get(TLS.long, one_of(&["off", "prefer", "require"]))?;
    Ok([Tls::Off, Tls::Prefer, Tls::Require][place])
}

fn policy(matches: &Matches) -> Result<Policy, Failure> {
    let allowed = matches.get_all(ALLOW.long, one_of(&["loopback", "link-local", "private", "shared"]))?;
    let [loopback, link_local, private, shared] = [0, 1, 2, 3].map(|place| allowed.contains(&place));
    Ok(Policy { loopback, link_local, private, shared, names: true, own: Vec::new() })
}

/// The entity around its event loop.
struct DtcpProgram {
    /// The XMPP server, for logs.
    server: String,
    /// The peer; `None` if this side accepts.
    to: Option<Jid>,
    was_up: bool,
    /// Why the XMPP server is unreachable, if that ended the program.
    lost: Option<Loss>,
    outcome: Option<Outcome>,
}

impl DtcpProgram {
    fn new(server: &component_host::Config, config: &Config) -> Self {
        let to = match &config.role {
            Role::Open { to } => Some(to.clone()),
            Role::Accept { .. } => None,
        };
        let place = rendezvous_core::dtcp::host::write(&server.server);
        Self { server: place, to, was_up: false, lost: None, outcome: None }
    }

    /// Whether to give up because the XMPP server is not connected. `open` does not wait for it, and neither command
    /// waits for a server that refuses the component.
    fn is_hopeless(&self, why: Loss) -> bool {
        let unwanted = [StreamCondition::NotAuthorized, StreamCondition::HostUnknown].map(Loss::Refused);
        !self.was_up && (self.to.is_some() || unwanted.contains(&why))
    }

    /// The result of the stream on standard input and output.
    fn verdict(self) -> Result<(), Failure> {
        if let Some(why) = self.lost {
            let why = xmpp::LossText(why);
            return Err(Failure::Failed(format!("cannot use the XMPP server at {}: {why}", self.server)));
        }
        let to = self.to.as_ref().map_or("the peer", Jid::as_str);
        match self.outcome {
            None | Some(Outcome::Ended(pair::EndReason::Done) | Outcome::Abandoned) => Ok(()),
            Some(Outcome::Failed(refused)) => {
                let why = xmpp::no_session(&refused);
                Err(Failure::Failed(format!("no direct connection to {to}: {}", Shown(&why))))
            }
            Some(Outcome::Ended(why)) => Err(Failure::Failed(xmpp::dtcp_end(why).to_owned())),
        }
    }
}

impl Program for DtcpProgram {
    type Machine = ComponentHost<Entity>;

    const TICK: Option<Span> = None;
    const HANGUP_ENDS: bool = true;

    fn default_level(&self) -> Level {
        DEFAULT_LEVEL
    }

    fn event(&mut self, event: &Event) {
        match event {
            Event::Component(ComponentEvent::Down { why, .. }) if self.is_hopeless(*why) => {
                self.lost = Some(*why);
            }
            // The user chose the peer, and a failure is also the final error.
            Event::Dtcp(DtcpEvent::Dialled { .. } | DtcpEvent::Failed { .. }) if self.to.is_some() => {
                xmpp::event_at(DEFAULT_LEVEL, event, &self.server);
            }
            event => {
                self.was_up |= *event == Event::Component(ComponentEvent::Up);
                xmpp::event(event, &self.server, DEFAULT_LEVEL);
            }
        }
    }

    fn after_turn(&mut self, event_loop: &mut Loop<Self::Machine>) {
        self.outcome = event_loop.machine().inner().outcome().cloned();
        if self.outcome.is_some() || self.lost.is_some() {
            event_loop.call(Self::drain);
        }
    }

    fn drain(machine: &mut Self::Machine, now: Now) {
        machine.handle_drain(now);
    }

    fn is_done(&self, machine: &Self::Machine, _: bool) -> bool {
        machine.is_done()
    }
}
