//! What an agent reads again on SIGHUP besides its tickets, keys of clients and passwords: the `--config` file, and with
//! `--end-to-end` the certificate and its key.

use std::sync::Arc;

use rendezvous_core::id::Id;

use super::{SPEC, end_to_end, log_rate};
use crate::event_loop::EndToEndTls;
use crate::failure::Failure;
use crate::live_certificates::LiveCertificates;
use crate::logging;
use crate::options::{Matches, parse};
use crate::tls_config::ClientAuth;

/// Options whose values a reload puts in force.
const RELOADED: &[&str] = &["log-rate", "cert", "key", "name"];

/// The agent's options, to be read again.
pub(super) struct Options {
    args: Vec<String>,
    in_force: Matches,
    terminates: Option<Terminates>,
}

/// How the agent terminates the clients' TLS.
pub(super) struct Terminates {
    /// The IDs that connectors may name.
    pub(super) ids: Vec<Id>,
    /// Which clients must present a certificate.
    pub(super) client_auth: ClientAuth,
    /// Certificates from a CA.
    pub(super) live: Option<Arc<LiveCertificates>>,
}

impl Options {
    pub(super) fn new(args: &[String], in_force: Matches, terminates: Option<Terminates>) -> Self {
        Self { args: args.to_vec(), in_force, terminates }
    }

    /// Reads the `--config` file and the certificate again. Returns the new settings of TLS, if the agent terminates it.
    ///
    /// # Errors
    /// [`Failure`] if something is invalid. Nothing has changed then.
    pub(super) fn reload(&mut self) -> Result<Option<EndToEndTls>, Failure> {
        let matches = parse(&SPEC, &self.args)?;
        let rate = log_rate(&matches)?;
        let tls = self.terminates.as_ref().map(|Terminates { ids, client_auth, live }| {
            end_to_end(&matches, ids.clone(), client_auth.clone(), live.as_ref())
        });
        let tls = tls.transpose()?;
        logging::limit(rate);
        for option in matches.differing(&self.in_force).into_iter().filter(|it| !RELOADED.contains(it)) {
            log::warn!("event=reload-ignored option={option} hint=\"restart the agent to change it\"");
        }
        Ok(tls)
    }
}
