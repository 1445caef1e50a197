//! The options of the operator's server.

use std::path::PathBuf;

use crate::admin::{Address, Admin, Remote, Replaces, open, open_listener};
use crate::cert;
use crate::failure::Failure;
use crate::net::mio::MioNet;
use crate::options::{Matches, Opt, value};
use crate::password_check;
use crate::password_file::Passwords;
use crate::take_over::{Handed, Role};

/// `--metrics ADDR:PORT|unix:PATH`.
pub(super) const METRICS: Opt = Opt::many(
    "metrics",
    "ADDR:PORT|unix:PATH",
    "none",
    "serve /metrics, /live, /ready and, of a relay, a page for the operator here",
);
/// `--metrics-name NAME`.
pub(super) const METRICS_NAME: Opt = Opt::many(
    "metrics-name",
    "NAME",
    "localhost and all addresses",
    "a further host name by which --metrics is addressed",
);

/// `--admin-password-file FILE`, of a relay.
pub(super) const ADMIN_PASSWORD_FILE: Opt = Opt::one(
    "admin-password-file",
    "FILE",
    "none",
    "serve --metrics to other machines as well, with TLS, to users in this file of 'rendezvous password'; /live and /ready to everyone",
);

/// The program whose options these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Server {
    /// It has a certificate, and so can serve other machines.
    Relay,
    /// It serves its own machine alone.
    Agent,
}

/// The addresses and names of the options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Metrics {
    addresses: Vec<Address>,
    names: Vec<String>,
    password_file: Option<PathBuf>,
}

impl Metrics {
    /// Reads the options.
    ///
    /// # Errors
    /// An address or a name is malformed, or an address is not of this machine alone and there is no password.
    pub(super) fn read(matches: &Matches, server: Server) -> Result<Self, Failure> {
        let password_file = match server {
            Server::Relay => matches.get_if(ADMIN_PASSWORD_FILE.long, value::path)?,
            Server::Agent => None,
        };
        let metrics = Self {
            addresses: matches.get_all(METRICS.long, address)?,
            names: matches.get_all(METRICS_NAME.long, name)?,
            password_file,
        };
        if metrics.addresses.is_empty() && !metrics.names.is_empty() {
            return Err(Failure::Usage("--metrics-name needs --metrics ADDR:PORT".to_owned()));
        }
        let remote = metrics.addresses.iter().find(|address| address.is_remote());
        match (remote, &metrics.password_file, server) {
            (Some(address), None, Server::Relay) => Err(Failure::Usage(format!(
                "--metrics {address}: other machines can connect there, so add --admin-password-file FILE, which \
                 'rendezvous password FILE USER' makes; or use 127.0.0.1:PORT or unix:PATH"
            ))),
            (Some(address), _, Server::Agent) => Err(Failure::Usage(format!(
                "--metrics {address}: an agent serves its metrics without TLS and password, so use 127.0.0.1:PORT or \
                 unix:PATH, and a proxy with both for other machines"
            ))),
            (None, Some(_), _) => Err(Failure::Usage(
                "--admin-password-file has no effect without a --metrics ADDR:PORT for other machines: on loopback and \
                 sockets no password is asked for"
                    .to_owned(),
            )),
            (Some(_), Some(_), Server::Relay) | (None, None, _) => Ok(metrics),
        }
    }

    /// Reads the file of passwords, if there is one.
    ///
    /// # Errors
    /// [`Failure::Failed`] if it cannot be read, if other users can read it, or if a line is malformed.
    pub(super) fn passwords(&self) -> Result<Option<Passwords>, Failure> {
        self.password_file.as_deref().map(password_check::load).transpose()
    }

    /// The names that a `Host` may have, besides `localhost` and addresses.
    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// Opens the TCP listeners, except for those that another process has handed over. The sockets of the file system stay
    /// those of that process until [`Metrics::open_sockets`].
    ///
    /// # Errors
    /// An address cannot be listened on.
    pub(super) fn open_tcp<B>(
        &self,
        remote: Option<Remote>,
        net: &MioNet,
        handed: &mut Handed,
    ) -> Result<Admin<B>, Failure> {
        let mut admin = Admin::new(self.names.clone(), remote);
        for address in &self.addresses {
            let Address::Tcp(on) = address else { continue };
            let listener = handed
                .take_listener(&Role::Metrics, *on)
                .map_err(|error| Failure::Failed(error.to_string()))?;
            open_listener(&mut admin, net, address, listener, Replaces::Dead, false)?;
        }
        Ok(admin)
    }

    /// Opens the sockets of the file system.
    ///
    /// # Errors
    /// A socket cannot be bound.
    pub(super) fn open_sockets<B>(
        &self,
        admin: &mut Admin<B>,
        net: &MioNet,
        replaces: Replaces,
    ) -> Result<(), Failure> {
        let mut sockets = self.addresses.iter().filter(|address| matches!(address, Address::Unix(_)));
        sockets.try_for_each(|address| open_listener(admin, net, address, None, replaces, false))
    }

    /// Opens the listeners.
    ///
    /// # Errors
    /// An address cannot be listened on.
    pub(super) fn open<B>(&self, remote: Option<Remote>, net: &MioNet) -> Result<Admin<B>, Failure> {
        let mut admin = Admin::new(self.names.clone(), remote);
        for address in &self.addresses {
            open(&mut admin, net, address, false)?;
        }
        Ok(admin)
    }
}

fn address(text: &str) -> Result<Address, String> {
    match text.strip_prefix("unix:") {
        Some("") => Err(format!("'{text}' has no path")),
        Some(path) => Ok(Address::Unix(PathBuf::from(path))),
        None => value::listen_address(text).map(Address::Tcp),
    }
}

fn name(text: &str) -> Result<String, String> {
    cert::normal_name(text)
        .filter(|name| !name.starts_with('*'))
        .ok_or_else(|| format!("'{text}' is not a host name"))
}
