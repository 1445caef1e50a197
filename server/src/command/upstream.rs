//! What agent, connector and demonstration have in common: a relay that is dialled.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rendezvous_core::reach::{Host, Place, Relay};
use rendezvous_core::time::Span;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;

use crate::failure::Failure;
use crate::options::value::HostPort;
use crate::relay_url::RelayUrl;
use crate::tls_config;
use crate::trust::Trust;

/// The relay as the core dials it.
pub(super) fn relay(url: &RelayUrl) -> Relay {
    Relay { place: reach(&url.host, url.port), tls: url.tls, host_header: url.authority() }
}

/// A local service as the core dials it.
pub(super) fn place(to: &HostPort) -> Place {
    reach(&to.host, to.port)
}

/// How the relay's certificate is checked, and under which name.
pub(super) fn tls(
    url: &RelayUrl,
    trust: &Trust,
) -> Result<(Arc<ClientConfig>, ServerName<'static>), Failure> {
    let name = ServerName::try_from(url.host.clone())
        .map_err(|_| Failure::Failed(format!("'{}' is no name that a certificate could have", url.host)))?;
    Ok((tls_config::client_config(trust, &tls_config::provider())?, name))
}

/// A time as the core counts it.
pub(super) fn span(duration: Duration) -> Span {
    Span(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
}

fn reach(host: &str, port: u16) -> Place {
    let host = host.parse::<IpAddr>().map_or_else(|_| Host::Name(host.to_owned()), Host::Address);
    Place { host, port }
}
