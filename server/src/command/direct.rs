//! Options of agents and connectors for direct connections, and the configuration made from them.

use std::net::{IpAddr, SocketAddr};

use rendezvous_core::acl::{Policy, Scope};
use rendezvous_core::dtcp::{Direct, HOSTS_MAX};
use rendezvous_core::machine::Listener;
use rendezvous_core::time::Span;

use super::upstream;
use crate::direct_tls::DirectTls;
use crate::failure::Failure;
use crate::net::mio::MioNet;
use crate::options::value::{HostPort, host_port};
use crate::options::{Matches, Opt};
use crate::tls_config;

/// `--announce HOST:PORT`.
pub(super) const ANNOUNCE: Opt = Opt::many(
    "announce",
    "HOST:PORT",
    "the listen address",
    "the address announced to the other side, if it differs (a router's port); up to three",
);

/// `--direct-allow KIND`.
pub(super) const ALLOW: Opt = Opt::many(
    "direct-allow",
    "KIND",
    "none",
    "also dial addresses that are not public: loopback, link-local, private or shared",
);

/// The address of direct connections, and the hosts announced to the other side.
#[derive(Debug)]
pub(super) struct Reachable {
    /// The option for the listen address, for error messages.
    option: &'static str,
    listen: Option<SocketAddr>,
    announced: Vec<HostPort>,
    policy: Policy,
}

impl Reachable {
    /// Reads the options; `option` is the one for the listen address.
    ///
    /// # Errors
    /// An option is invalid, or options contradict each other.
    pub(super) fn of(
        matches: &Matches,
        option: &'static str,
        listen: Option<SocketAddr>,
    ) -> Result<Self, Failure> {
        let announced = matches.get_all(ANNOUNCE.long, host_port)?;
        let policy = policy(matches)?;
        let listens_anywhere = listen.is_some_and(|on| on.ip().is_unspecified());
        let wrong = match (listen, announced.len()) {
            (None, 1..) => Some(format!("--announce needs --{option} ADDR:PORT")),
            (Some(on), 0) if listens_anywhere => Some(format!(
                "--{option} {on} has no address that the other side could dial: add \
                 --announce HOST:PORT, or listen on one address"
            )),
            (_, count) if count > HOSTS_MAX => {
                Some(format!("--announce: at most {HOSTS_MAX} are allowed, but {count} were given"))
            }
            _ => None,
        };
        match wrong {
            Some(wrong) => Err(Failure::Usage(wrong)),
            None => Ok(Self { option, listen, announced, policy }),
        }
    }

    /// Whether direct connections are accepted.
    pub(super) const fn listens(&self) -> bool {
        self.listen.is_some()
    }

    /// The first announced host that is a name.
    pub(super) fn name(&self) -> Option<&HostPort> {
        self.announced.iter().find(|it| it.host.parse::<IpAddr>().is_err())
    }

    /// Opens the listener, if one is configured, as `listener`. `names`: host names of the other side are resolved.
    /// `own`: other addresses that this program listens on.
    ///
    /// # Errors
    /// The address cannot be listened on, or no certificate can be made.
    pub(super) fn open(
        &self,
        net: &mut MioNet,
        listener: Listener,
        names: bool,
        own: &[SocketAddr],
        timeout: Span,
    ) -> Result<(Direct, DirectTls), Failure> {
        let tls = DirectTls::new(&tls_config::provider())?;
        let mut own = own.to_vec();
        let mut hosts: Vec<_> = self.announced.iter().map(upstream::place).collect();
        let mut listens = None;
        if let Some(on) = self.listen {
            let on = super::listen::listen(net, on, &own)?;
            if hosts.is_empty() {
                hosts.push(on.into());
            }
            let shown: Vec<_> = hosts.iter().map(rendezvous_core::dtcp::host::write).collect();
            log::info!("event=listening on={on} for={} announced={}", self.option, shown.join(","));
            own.push(on);
            own.extend(
                self.announced.iter().filter_map(|it| Some(SocketAddr::new(it.host.parse().ok()?, it.port))),
            );
            listens = Some(listener);
        }
        let policy = Policy { names, own, ..self.policy.clone() };
        Ok((Direct { hosts, listener: listens, fingerprint: tls.fingerprint, policy, timeout }, tls))
    }
}

/// The policy of `--direct-allow`. It resolves no names and does not know this machine's own addresses.
/// # Errors
/// Unknown kind of addresses.
pub(super) fn policy(matches: &Matches) -> Result<Policy, Failure> {
    let allowed = matches.get_all(ALLOW.long, kind)?;
    let may = |scope| allowed.contains(&scope);
    Ok(Policy {
        loopback: may(Scope::Loopback),
        link_local: may(Scope::LinkLocal),
        private: may(Scope::Private),
        shared: may(Scope::Shared),
        names: false,
        own: Vec::new(),
    })
}

/// Parses a kind of non-public addresses that may be dialled.
fn kind(text: &str) -> Result<Scope, String> {
    match text {
        "loopback" => Ok(Scope::Loopback),
        "link-local" => Ok(Scope::LinkLocal),
        "private" => Ok(Scope::Private),
        "shared" => Ok(Scope::Shared),
        _ => Err(format!("'{text}' is not one of loopback, link-local, private, shared")),
    }
}
