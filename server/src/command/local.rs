//! The local service of an agent: `--to HOST:PORT`, and the verification of its certificate if it uses TLS.

use std::fmt;

use crate::failure::Failure;
use crate::options::value::{HostPort, NOT_ASCII, host_port, split_host_port};
use crate::options::{Matches, Opt};
use crate::pin::Pin;
use crate::ticket::parse_ca;
use crate::trust::Trust;

/// `--to-ca`, for the preceding `--to`.
pub(super) const TO_CA: Opt = Opt::many(
    "to-ca",
    "FILE|system",
    "system, without --to-pin",
    "the CA that signed the certificate of the preceding --to https://…",
);

/// `--to-pin`, for the preceding `--to`.
pub(super) const TO_PIN: Opt =
    Opt::many("to-pin", "sha256//…", "", "the pin of the key of the preceding --to https://…");

/// `--to-insecure`, for the preceding `--to`.
pub(super) const TO_INSECURE: Opt = Opt::flag(
    "to-insecure",
    "do not verify the certificate of the preceding --to https://…: the connection can be intercepted",
);

/// Options for the verification of a local service's certificate.
pub(super) const TRUST_OPTIONS: [&str; 3] = ["to-ca", "to-pin", "to-insecure"];

/// A local HTTP service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LocalService {
    /// Its address.
    pub(super) at: HostPort,
    /// How its certificate is verified, if it uses TLS.
    pub(super) tls: Option<Trust>,
}

impl fmt::Display for LocalService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.tls.is_some() { "https://" } else { "" }, self.at)
    }
}

/// A `--to` and the options that follow it.
#[derive(Clone, Debug)]
pub(super) struct To {
    at: HostPort,
    is_tls: bool,
    ca: Option<Trust>,
    pins: Vec<Pin>,
    is_insecure: bool,
}

impl To {
    /// Parses the value of `--to`: `HOST:PORT`, `http://HOST:PORT` (equivalent) or `https://HOST:PORT`. With a scheme,
    /// the port is optional and a `/` may follow.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (is_tls, default_port, rest) = match text.split_once("://") {
            None => return Ok(Self::new(host_port(text)?, false)),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (true, 443, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (false, 80, rest),
            Some(_) => return Err(format!("'{text}' is not HOST:PORT, http://… or https://…")),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#', '@']) {
            return Err(format!("'{text}' must not contain a path or a user name"));
        }
        if !authority.is_ascii() {
            return Err(format!("'{text}' {NOT_ASCII}"));
        }
        let bad = || format!("'{text}' is not https://HOST:PORT, with IPv6 addresses in brackets");
        let (host, port) = split_host_port(authority).ok_or_else(bad)?;
        match port {
            Some(0) => Err(format!("'{text}': cannot connect to port 0")),
            port => Ok(Self::new(HostPort { host, port: port.unwrap_or(default_port) }, is_tls)),
        }
    }

    fn new(at: HostPort, is_tls: bool) -> Self {
        Self { at, is_tls, ca: None, pins: Vec::new(), is_insecure: false }
    }

    /// Adds an option that follows it: one of [`TRUST_OPTIONS`] and its value.
    pub(super) fn take(&mut self, option: &str, text: &str) -> Result<(), Failure> {
        let usage = |why: String| Failure::Usage(format!("--{option}: {why}"));
        if !self.is_tls {
            return Err(usage(format!("--to {} does not speak TLS: write https://{0}", self.at)));
        }
        match option {
            "to-ca" => {
                if self.ca.replace(parse_ca(text).map_err(usage)?).is_some() {
                    return Err(usage(format!("https://{} already has a --to-ca", self.at)));
                }
            }
            "to-pin" => self.pins.push(Pin::parse(text).map_err(usage)?),
            _ => self.is_insecure = true,
        }
        Ok(())
    }

    /// The service with the trust of its options.
    pub(super) fn finish(self) -> Result<LocalService, Failure> {
        let tls = match (self.is_tls, self.is_insecure, self.pins.is_empty(), self.ca) {
            (false, ..) => None,
            (true, true, true, None) => Some(Trust::Insecure),
            (true, false, false, None) => Some(Trust::Pins(self.pins)),
            (true, false, true, ca) => Some(ca.unwrap_or(Trust::System)),
            _ => {
                let why = "--to-pin, --to-ca and --to-insecure exclude each other";
                return Err(Failure::Usage(format!("--to https://{}: {why}", self.at)));
            }
        };
        Ok(LocalService { at: self.at, tls })
    }
}

/// The service of a command that takes a single `--to`.
pub(super) fn only_service(matches: &Matches) -> Result<Option<LocalService>, Failure> {
    let mut to = matches.get_if("to", To::parse)?;
    for (option, text) in matches.in_order(&TRUST_OPTIONS) {
        match &mut to {
            Some(to) => to.take(option, text)?,
            None => return Err(Failure::Usage(format!("--{option} requires --to https://HOST:PORT"))),
        }
    }
    to.map(To::finish).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(to: &str, options: &[(&str, &str)]) -> Result<LocalService, String> {
        let mut to = To::parse(to)?;
        let told = |failure: Failure| failure.to_string();
        for (option, text) in options {
            to.take(option, text).map_err(told)?;
        }
        to.finish().map_err(told)
    }

    #[test]
    fn a_scheme_says_whether_the_service_speaks_tls() {
        for (text, shown) in [
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            ("http://127.0.0.1:8080", "127.0.0.1:8080"),
            ("HTTP://nas", "nas:80"),
            ("https://nas.lan:5001/", "https://nas.lan:5001"),
            ("https://[::1]", "https://[::1]:443"),
        ] {
            assert_eq!(service(text, &[]).map(|it| it.to_string()).as_deref(), Ok(shown), "{text}");
        }
        for text in [
            "nas",
            "ftp://nas:1",
            "https://",
            "https://nas:0",
            "https://a@nas",
            "https://nas/x",
            "https://a b",
        ] {
            assert!(service(text, &[]).is_err(), "{text}");
        }
    }

    #[test]
    fn the_options_behind_it_say_whom_to_trust_and_system_cas_are_the_default() {
        let pin = "sha256//AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        let trust = |options: &[(&str, &str)]| service("https://nas", options).map(|it| it.tls);
        assert_eq!(trust(&[]), Ok(Some(Trust::System)));
        assert_eq!(trust(&[("to-ca", "system")]), Ok(Some(Trust::System)));
        assert_eq!(trust(&[("to-ca", "nas.pem")]), Ok(Some(Trust::CaFile("nas.pem".into()))));
        assert_eq!(trust(&[("to-insecure", "")]), Ok(Some(Trust::Insecure)));
        let pins = trust(&[("to-pin", pin), ("to-pin", pin)]);
        assert!(matches!(pins, Ok(Some(Trust::Pins(pins))) if pins.len() == 2));
        for options in [
            &[("to-pin", pin), ("to-ca", "system")][..],
            &[("to-pin", pin), ("to-insecure", "")],
            &[("to-ca", "a"), ("to-ca", "b")],
            &[("to-pin", "x")],
        ] {
            assert!(trust(options).is_err(), "{options:?}");
        }
        assert!(service("nas:80", &[("to-ca", "system")]).is_err(), "it speaks no TLS");
    }
}
