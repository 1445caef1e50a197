//! The listeners of a relay.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use rendezvous_core::engine::Transport;

use super::PORT;
use super::settings::Settings;
use crate::activation::Inherited;
use crate::command::listen::{cannot_listen, listen as listen_on};
use crate::failure::Failure;
use crate::net::mio::MioNet;
use crate::take_over::{Handed, Label, Role};

/// Opens the listeners, after the inherited ones, and tells the engine the protocol of each. Those that another process
/// has handed over are not opened anew. Returns a label for each.
pub(super) fn listen(
    net: &mut MioNet,
    settings: &mut Settings,
    inherited: Vec<Inherited>,
    handed: &mut Handed,
) -> Result<Vec<Label>, Failure> {
    let inherited = with_handed(inherited, handed)?;
    let mut labels = Vec::new();
    let is_port = |(_, transport): &(SocketAddr, Transport)| matches!(transport, Transport::Port(_));
    if settings.listen.iter().all(is_port) && inherited.is_empty() {
        let everywhere = SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT));
        let address = match handed_listener(handed, &Role::Tls, everywhere)? {
            Some(listener) => net.take_listener(listener),
            None => net.listen(everywhere).or_else(|error| match error.raw_os_error() {
                // The host has no IPv6.
                Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL) => {
                    net.listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT)))
                }
                _ => Err(error),
            }),
        };
        labels.push(label(Role::Tls, false, everywhere));
        listening(settings, address.map_err(|error| cannot_listen(everywhere, &error))?, Transport::Tls);
    }
    let own = settings.listen.iter().map(|(on, _)| *on);
    let all: Vec<_> = own.chain(inherited.iter().map(|inherited| inherited.on)).collect();
    for Inherited { listener, on, transport } in inherited {
        let address = net.take_listener(listener).map_err(|error| cannot_listen(on, &error))?;
        labels.push(label(role(settings, transport), true, address));
        listening(settings, address, transport);
    }
    for (on, transport) in settings.listen.clone() {
        let role = role(settings, transport);
        let address = take_or_listen(net, handed, &role, on, &all)?;
        labels.push(label(role, false, on));
        listening(settings, address, transport);
    }
    Ok(labels)
}

/// Opens the listeners for HTTP-01, behind all others. Returns a label for each.
pub(super) fn listen_http(
    net: &mut MioNet,
    settings: &Settings,
    handed: &mut Handed,
) -> Result<Vec<Label>, Failure> {
    let mut labels = Vec::new();
    for &on in &settings.listen_http {
        let address = take_or_listen(net, handed, &Role::Http, on, &settings.listen_http)?;
        labels.push(label(Role::Http, false, on));
        log::info!("event=listening on={address} protocol=http");
    }
    Ok(labels)
}

/// Takes the listener that another process has handed over for this address, or opens one. `all`: the addresses of all
/// options of this kind.
fn take_or_listen(
    net: &mut MioNet,
    handed: &mut Handed,
    role: &Role,
    on: SocketAddr,
    all: &[SocketAddr],
) -> Result<SocketAddr, Failure> {
    match handed_listener(handed, role, on)? {
        Some(listener) => net.take_listener(listener).map_err(|error| cannot_listen(on, &error)),
        None => listen_on(net, on, all),
    }
}

/// The listener that another process has handed over for this address.
fn handed_listener(handed: &mut Handed, role: &Role, on: SocketAddr) -> Result<Option<TcpListener>, Failure> {
    handed.take_listener(role, on).map_err(|error| Failure::Failed(error.to_string()))
}

/// The listeners that the service manager has opened: for this process, or for the one that has handed them over.
fn with_handed(mut inherited: Vec<Inherited>, handed: &mut Handed) -> Result<Vec<Inherited>, Failure> {
    let failed = |error: crate::take_over::HandedError| Failure::Failed(error.to_string());
    while let Some((role, listener, on)) = handed.take_inherited().map_err(failed)? {
        let transport = match role {
            Role::Plain => Transport::Plain,
            Role::Proxied => Transport::Proxied,
            Role::Tls | Role::Port(_) | Role::Http | Role::Metrics | Role::AcmeLock => Transport::Tls,
        };
        // The service manager may have passed it on to this process too.
        if inherited.iter().all(|own| own.on != on) {
            inherited.push(Inherited { listener, on, transport });
        }
    }
    Ok(inherited)
}

fn label(role: Role, is_inherited: bool, address: SocketAddr) -> Label {
    Label { role, is_inherited, address: address.to_string() }
}

fn role(settings: &Settings, transport: Transport) -> Role {
    match transport {
        Transport::Tls => Role::Tls,
        Transport::Plain => Role::Plain,
        Transport::Proxied => Role::Proxied,
        Transport::Port(port) => {
            Role::Port(settings.engine.ports.get(usize::from(port)).cloned().unwrap_or_default())
        }
    }
}

fn listening(settings: &mut Settings, on: SocketAddr, transport: Transport) {
    match transport {
        Transport::Tls => log::info!("event=listening on={on} tls=yes"),
        Transport::Plain => log::info!("event=listening on={on} tls=no"),
        Transport::Proxied => log::info!("event=listening on={on} tls=yes proxied=yes"),
        Transport::Port(port) => {
            let name = settings.engine.ports.get(usize::from(port)).map_or("", String::as_str);
            log::info!("event=listening on={on} id_name={name}");
        }
    }
    settings.engine.listeners.push(transport);
}
