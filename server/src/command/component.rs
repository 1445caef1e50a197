//! The options of the commands that are components of an XMPP server.

use std::net::SocketAddr;

use rendezvous_core::bytestream::name::Allow;
use rendezvous_core::bytestream::xmpp as bytestream;
use rendezvous_core::component_host::Config;
use rendezvous_core::xmpp::component::Secret;
use rendezvous_core::xmpp::jid::Jid;

use super::upstream;
use crate::failure::Failure;
use crate::files::{self, FileKind};
use crate::options::value::{host_port, path};
use crate::options::{Matches, Opt};

/// `--xmpp HOST:PORT`.
pub(super) const XMPP: Opt = Opt::one(
    "xmpp",
    "HOST:PORT",
    "",
    "the XMPP server's component port (XEP-0114); unencrypted: use it on this machine or a trusted network",
);

/// `--component NAME`.
pub(super) const COMPONENT: Opt =
    Opt::one("component", "NAME", "", "the component's domain, as configured in the XMPP server");

/// `--secret-file FILE`.
pub(super) const SECRET_FILE: Opt = Opt::one(
    "secret-file",
    "FILE",
    "",
    "a file with the component's secret in one line, readable only by its owner",
);

/// `--namespace NAME`.
pub(super) const NAMESPACE: Opt = Opt::one(
    "namespace",
    "NAME",
    bytestream::NAMESPACE,
    "the namespace of the stanzas; both ends and the proxy must use the same",
);

/// The configuration of the connection to the XMPP server.
///
/// # Errors
/// An option is missing or invalid, or the secret cannot be read.
pub(super) fn config(matches: &Matches) -> Result<Config, Failure> {
    let server = required(matches, XMPP, host_port)?;
    let name = required(matches, COMPONENT, domain)?;
    let file = required(matches, SECRET_FILE, path)?;
    let secret = files::read(&file, FileKind::SECRET)?;
    let secret = secret.trim_ascii();
    if secret.is_empty() || secret.contains(&b'\n') {
        return Err(Failure::Failed(format!(
            "{}: the file must contain the secret in one line",
            file.display()
        )));
    }
    Ok(Config { server: upstream::place(&server), name, secret: Secret::new(secret) })
}

/// The value of a required option.
pub(super) fn required<T>(
    matches: &Matches,
    opt: Opt,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<T, Failure> {
    matches
        .get_if(opt.long, read)?
        .ok_or_else(|| Failure::Usage(format!("--{} {} is missing", opt.long, opt.hint)))
}

/// Parses and normalises a JID.
pub(super) fn jid(text: &str) -> Result<Jid, String> {
    Jid::parse(text).ok_or_else(|| format!("'{text}' is not a JID, such as joe@proxy.example.org/home"))
}

/// Parses a JID of the component's domain: `--as`.
pub(super) fn own_jid(text: &str, component: &Jid) -> Result<Jid, String> {
    let jid = jid(text)?;
    if jid.domain() == component.as_str() {
        Ok(jid)
    } else {
        Err(format!("'{text}' is not in the component's domain: NAME@{}/RESOURCE", component.as_str()))
    }
}

/// `--allow JID-OR-DOMAIN`.
pub(super) fn allow(matches: &Matches) -> Result<Allow, Failure> {
    let these = matches.get_all("allow", jid)?;
    Ok(if these.is_empty() { Allow::Everybody } else { Allow::These(these) })
}

/// The value of `--namespace NAME`.
pub(super) fn namespace(matches: &Matches) -> Result<Box<str>, Failure> {
    matches.get(NAMESPACE.long, |text| match text {
        "" => Err("the namespace is empty".to_owned()),
        text => Ok(text.into()),
    })
}

/// Checks that peers can be told an address to connect to.
pub(super) fn check_announced(listen: &[SocketAddr], announce: &[SocketAddr]) -> Result<(), Failure> {
    if announce.is_empty() && listen.iter().any(|on| on.ip().is_unspecified()) {
        return Err(Failure::Usage(
            "--announce ADDR:PORT is missing: --listen has no address that peers can connect to".to_owned(),
        ));
    }
    if listen.is_empty() && !announce.is_empty() {
        return Err(Failure::Usage("--announce needs --listen ADDR:PORT".to_owned()));
    }
    Ok(())
}

/// The addresses that peers connect to: the announced ones, or else those of the listeners.
pub(super) fn ways(listeners: &[SocketAddr], announce: &[SocketAddr]) -> Vec<SocketAddr> {
    if announce.is_empty() { listeners.to_vec() } else { announce.to_vec() }
}

fn domain(text: &str) -> Result<Jid, String> {
    jid(text)?;
    let is_domain = !text.contains(['@', '/']);
    if is_domain { jid(text) } else { Err(format!("'{text}' is not a domain")) }
}
