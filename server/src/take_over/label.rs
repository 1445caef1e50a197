//! The labels of descriptors that are handed over.

use std::fmt;

/// What a descriptor is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// A listener with TLS.
    Tls,
    /// A listener in clear.
    Plain,
    /// A listener behind load balancers.
    Proxied,
    /// A listener for the clients of the hidden server with this name.
    Port(String),
    /// A listener for HTTP-01.
    Http,
    /// A listener of the operator's server.
    Metrics,
    /// The open file with the lock of the ACME client.
    AcmeLock,
}

/// The label of a descriptor: one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// What it is for.
    pub role: Role,
    /// Whether the service manager has opened it.
    pub is_inherited: bool,
    /// The address that an option asked for. If the service manager has opened it, its own address. Empty if it has none.
    pub address: String,
}

impl Label {
    /// Parses a label.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let (role, origin, address) = (words.next()?, words.next()?, words.next()?);
        if words.next().is_some() {
            return None;
        }
        let role = match role.split_once('=').unwrap_or((role, "")) {
            ("tls", "") => Role::Tls,
            ("plain", "") => Role::Plain,
            ("proxy", "") => Role::Proxied,
            ("http", "") => Role::Http,
            ("metrics", "") => Role::Metrics,
            ("acme-lock", "") => Role::AcmeLock,
            ("port", name) if !name.is_empty() => Role::Port(name.to_owned()),
            _ => return None,
        };
        let is_inherited = match origin {
            "own" => false,
            "inherited" => true,
            _ => return None,
        };
        Some(Self { role, is_inherited, address: address.to_owned() })
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.role {
            Role::Tls => write!(f, "tls")?,
            Role::Plain => write!(f, "plain")?,
            Role::Proxied => write!(f, "proxy")?,
            Role::Port(name) => write!(f, "port={name}")?,
            Role::Http => write!(f, "http")?,
            Role::Metrics => write!(f, "metrics")?,
            Role::AcmeLock => write!(f, "acme-lock")?,
        }
        write!(f, " {} {}", if self.is_inherited { "inherited" } else { "own" }, self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_label_is_read_as_it_was_written() {
        let roles = [
            Role::Tls,
            Role::Plain,
            Role::Proxied,
            Role::Port("home".to_owned()),
            Role::Http,
            Role::Metrics,
            Role::AcmeLock,
        ];
        for role in roles {
            for is_inherited in [false, true] {
                for address in ["", "[::1]:443"] {
                    let label = Label { role: role.clone(), is_inherited, address: address.to_owned() };
                    assert_eq!(Label::parse(&label.to_string()), Some(label));
                }
            }
        }
        for bad in ["", "tls", "tls own", "tls other x", "tls own x y", "port own x", "udp own x"] {
            assert_eq!(Label::parse(bad), None, "{bad}");
        }
    }
}
