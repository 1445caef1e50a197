//! Configuration of dialled relays, for agent, connector and demo.

use std::net::IpAddr;
use std::time::Duration;

use rendezvous_core::endpoint::{self, Host};
use rendezvous_core::relay_client::Relay;
use rendezvous_core::time::Span;
use rustls_pki_types::ServerName;

use crate::event_loop::ClientTls;
use crate::failure::Failure;
use crate::options::value::{HostPort, public_host};
use crate::relay_url::RelayUrl;
use crate::ticket::Ticket;
use crate::tls_config;
use crate::trust::Trust;

/// The core's representation of a relay.
pub(super) fn relay(url: &RelayUrl) -> Relay {
    Relay { place: relay_client(&url.host, url.port), tls: url.tls, host_header: url.authority() }
}

/// The core's representation of a local service.
pub(super) fn place(to: &HostPort) -> endpoint::HostPort {
    relay_client(&to.host, to.port)
}

/// The TLS configuration and server name for a relay.
pub(super) fn tls(url: &RelayUrl, trust: &Trust) -> Result<ClientTls, Failure> {
    tls_to(&url.host, trust)
}

/// The TLS configuration and server name for the relay of a ticket.
pub(super) fn tls_of(ticket: &Ticket) -> Result<ClientTls, Failure> {
    let Some(sni) = &ticket.sni else { return tls(&ticket.relay, &ticket.trust) };
    let name = ServerName::try_from(sni.clone())
        .map_err(|_| Failure::Failed(format!("'{sni}' is not a valid name for a certificate")))?;
    Ok((tls_config::agent_config(&ticket.trust, &tls_config::provider())?, name))
}

/// The TLS configuration and server name for a server with this name or address.
pub(super) fn tls_to(host: &str, trust: &Trust) -> Result<ClientTls, Failure> {
    let name = ServerName::try_from(public_host(host).to_owned())
        .map_err(|_| Failure::Failed(format!("'{host}' is not a valid name for a certificate")))?;
    Ok((tls_config::client_config(trust, &tls_config::provider())?, name))
}

/// Converts a duration to the core's type.
pub(super) fn span(duration: Duration) -> Span {
    Span(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
}

fn relay_client(host: &str, port: u16) -> endpoint::HostPort {
    let host = host.parse::<IpAddr>().map_or_else(|_| Host::Name(host.to_owned()), Host::Address);
    endpoint::HostPort { host, port }
}
