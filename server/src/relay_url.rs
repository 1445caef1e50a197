//! The URL of a relay: `https://relay.example.com:8443`.

use std::fmt;

use crate::options::value::{NOT_ASCII, bracketed, public_host, split_host_port};

/// The URL of a relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayUrl {
    /// Whether TLS is used (`https`) or not (`http`).
    pub tls: bool,
    /// The host name in lower case, or the address without brackets, possibly with a zone.
    pub host: String,
    /// The port; 443 or 80 if the URL has none.
    pub port: u16,
}

impl RelayUrl {
    /// Parses `https://HOST`, `https://HOST:PORT` or the same with `http`. HOST is a name, an IPv4 address or an IPv6
    /// address in brackets. Only a `/` may follow.
    ///
    /// # Errors
    ///
    /// A message that follows the place of the URL. It does not repeat the URL, which may contain a password.
    pub fn parse(text: &str) -> Result<RelayUrl, String> {
        let (scheme, rest) =
            text.split_once("://").ok_or("not the URL of a relay: it must begin with https://")?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => {
                return Err(
                    "not the URL of a relay: it must begin with https:// (or http:// without TLS)".to_owned()
                );
            }
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains('@') {
            return Err("the URL of a relay must not contain a user name".to_owned());
        }
        if authority.contains(['/', '?', '#']) {
            return Err("the URL of a relay must not contain a path".to_owned());
        }
        if !authority.is_ascii() {
            return Err(format!("the URL of a relay {NOT_ASCII}"));
        }
        let bad = "not the URL of a relay: write https://HOST:PORT, with IPv6 addresses in brackets";
        let (host, port) = split_host_port(authority).ok_or(bad)?;
        match port {
            Some(0) => Err("port 0 is not valid".to_owned()),
            port => Ok(RelayUrl { tls, host, port: port.unwrap_or(default_port(tls)) }),
        }
    }

    /// Host and port for the `Host` field: the port only if it is not the scheme's default, the host without a zone and
    /// without a trailing dot.
    pub fn authority(&self) -> String {
        self.with_port(bracketed(public_host(&self.host)))
    }

    fn with_port(&self, host: String) -> String {
        if self.port == default_port(self.tls) { host } else { format!("{host}:{}", self.port) }
    }
}

impl fmt::Display for RelayUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.with_port(bracketed(&self.host)))
    }
}

fn default_port(tls: bool) -> u16 {
    if tls { 443 } else { 80 }
}
