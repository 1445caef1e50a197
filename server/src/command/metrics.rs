//! The options of the operator's server.

use std::path::PathBuf;

use crate::admin::{Address, Admin, open};
use crate::cert;
use crate::failure::Failure;
use crate::net::mio::MioNet;
use crate::options::{Matches, Opt, value};

/// `--metrics ADDR:PORT|unix:PATH`.
pub(super) const METRICS: Opt = Opt::many(
    "metrics",
    "ADDR:PORT|unix:PATH",
    "none",
    "serve /metrics, /live and /ready here, to other machines as well, and on loopback or a socket also a page for the operator",
);
/// `--metrics-name NAME`.
pub(super) const METRICS_NAME: Opt = Opt::many(
    "metrics-name",
    "NAME",
    "localhost and all addresses",
    "a further host name by which --metrics is addressed",
);

/// The addresses and names of the options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Metrics {
    addresses: Vec<Address>,
    names: Vec<String>,
}

impl Metrics {
    /// Reads the options.
    ///
    /// # Errors
    /// An address or a name is malformed.
    pub(super) fn read(matches: &Matches) -> Result<Self, Failure> {
        let metrics = Self {
            addresses: matches.get_all(METRICS.long, address)?,
            names: matches.get_all(METRICS_NAME.long, name)?,
        };
        if metrics.addresses.is_empty() && !metrics.names.is_empty() {
            return Err(Failure::Usage("--metrics-name needs --metrics ADDR:PORT".to_owned()));
        }
        Ok(metrics)
    }

    /// Opens the listeners.
    ///
    /// # Errors
    /// An address cannot be listened on.
    pub(super) fn open<B>(&self, net: &MioNet) -> Result<Admin<B>, Failure> {
        let mut admin = Admin::new(self.names.clone());
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
