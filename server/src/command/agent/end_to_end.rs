//! The agent's side of end-to-end TLS: who may connect, and with which certificate it answers.

use std::sync::Arc;

use rendezvous_core::id::Id;
use rustls::sign::CertifiedKey;

use super::super::certificate;
use super::services::Service;
use crate::allowed_keys::KeyList;
use crate::cert::{self, Identity, PairFiles};
use crate::event_loop::EndToEndTls;
use crate::failure::Failure;
use crate::live_certificates::LiveCertificates;
use crate::options::Matches;
use crate::options::value::path;
use crate::pin::Pin;
use crate::state::State;
use crate::tls_config::{self, ClientAuth, EndToEndClients};

/// The TLS configurations for the clients of these hidden servers. Logs the pin that clients can verify.
pub(super) fn end_to_end(
    matches: &Matches,
    ids: Vec<Id>,
    client_auth: ClientAuth,
    live: Option<&Arc<LiveCertificates>>,
) -> Result<EndToEndTls, Failure> {
    let provider = tls_config::provider();
    let own = || {
        let state = State::open(matches.one("state"))?;
        let mut names = matches.get_all("name", certificate::name)?;
        // A name of this machine would reveal to clients where the hidden server is.
        if names.is_empty() {
            names.push("localhost".to_owned());
        }
        cert::ensure(&state, PairFiles::AGENT, &names, &provider)
    };
    let Identity { certified, pin } =
        certificate::load(&certificate::files(matches)?, own, &provider)?.into_first();
    log::info!("event=end-to-end pin={pin}");
    if matches.flag("to-h2") {
        refuse_several_names(&certified)?;
    }
    let config = |clients, certified| {
        tls_config::end_to_end_server_config(clients, certified, live, &client_auth, &provider)
    };
    Ok(EndToEndTls {
        http: config(
            if matches.flag("to-h2") { EndToEndClients::Http2 } else { EndToEndClients::Http },
            certified.clone(),
        )?,
        connectors: config(EndToEndClients::Connectors(ids), certified)?,
        challenges: live.map(|live| tls_config::challenge_server_config(live, &provider)).transpose()?,
        client_auth,
    })
}

/// The accepted client keys; `None` if all clients are accepted.
pub(super) fn key_list(matches: &Matches) -> Result<Option<KeyList>, Failure> {
    let pins = matches.get_all("allow-key", Pin::parse)?;
    let file = matches.get_if("allow-keys", path)?;
    if pins.is_empty() && file.is_none() {
        return Ok(None);
    }
    KeyList::load(pins, file).map(Some)
}

/// Refuses options that `--client-ca` could not protect, or for which it could not pass the subject on.
pub(super) fn refuse_beside_client_ca(
    matches: &Matches,
    has_keys: bool,
    services: &[Service],
) -> Result<(), Failure> {
    let why = if has_keys {
        "--allow-key or --allow-keys exclude each other"
    } else if matches.flag("to-h2") {
        "--to-h2 exclude each other: the agent does not parse HTTP/2"
    } else if services.iter().any(|it| it.tls_to.is_some() || !it.ports.is_empty()) {
        "--tls-to or --stream LABEL=HOST:PORT exclude each other: their clients present no certificate to the agent"
    } else {
        return Ok(());
    };
    Err(Failure::Usage(format!("--client-ca and {why}")))
}

/// Refuses options that need `--end-to-end`.
pub(super) fn refuse_without_end_to_end(matches: &Matches) -> Result<(), Failure> {
    if matches.flag("to-h2") {
        return Err(Failure::Usage("--to-h2 needs --end-to-end".to_owned()));
    }
    for option in ["cert", "key", "name", "allow-key", "allow-keys", "client-ca"] {
        if !matches.get_all(option, |text| Ok::<_, String>(text.to_owned()))?.is_empty() {
            return Err(Failure::Usage(format!("--{option} needs --end-to-end")));
        }
    }
    Ok(())
}

/// Refuses a certificate for several names: on an HTTP/2 connection, browsers send requests for all of them (RFC 9113
/// §9.1.1), and nothing compares the names of the requests.
fn refuse_several_names(certified: &CertifiedKey) -> Result<(), Failure> {
    let names = certified.cert.first().map(|leaf| cert::names_of(leaf)).unwrap_or_default();
    if names.len() <= 1 && !names.iter().any(|name| name.starts_with('*')) {
        return Ok(());
    }
    Err(Failure::Failed(format!(
        "--to-h2 needs a certificate with a single name, but this one is for {}: browsers would send requests for all of them on one \
         connection",
        names.join(", ")
    )))
}
