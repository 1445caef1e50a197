//! `check --domain`: how a domain looks from outside. DNS, CAA, port, certificate, and whether it is the stored one.

use std::net::{IpAddr, SocketAddr};

use rendezvous_core::http::date::civil;

use super::caa::{self, Order};
use super::dial::race;
use super::dns::Resolver;
use super::served::{self, Chain, Validation, described};
use super::stored::Stored;
use super::wire::Deadline;
use super::{STEP, Step, StepFailed, report};
use crate::cert;
use crate::clock;
use crate::entropy;
use crate::failure::Failure;
use crate::options::{Matches, value};
use crate::trust::Trust;
use crate::x509;

const DAY: u64 = 24 * 60 * 60;
/// The port of CAs' validators and browsers.
const HTTPS: u16 = 443;

/// What is checked.
pub(super) struct Outside {
    domain: String,
    /// The domain, and its labels that were given.
    names: Vec<String>,
    has_labels: bool,
    port: u16,
    /// Whether a CA must be able to validate the names.
    acme: bool,
    issuer: String,
    trust: Trust,
    stored: Stored,
    resolver: Resolver,
}

impl Outside {
    /// Reads the options; `None` without `--domain`.
    ///
    /// # Errors
    /// [`Failure::Usage`], or the certificates of `--cert` or `--state` cannot be read.
    pub(super) fn read(matches: &Matches) -> Result<Option<Self>, Failure> {
        let Some(domain) = matches.get_if("domain", host_name)? else {
            let alone = ["label", "port", "acme", "issuer", "ca", "cert", "resolver"];
            return match alone.iter().find(|option| matches.one(option).is_some()) {
                Some(option) => Err(Failure::Usage(format!("--{option} needs --domain DOMAIN"))),
                None => Ok(None),
            };
        };
        let certs = matches.get_all("cert", value::path)?;
        let state = matches.get_if("state", value::path)?;
        let labels = matches.get_all("label", host_name)?;
        let of_labels = labels.iter().map(|label| format!("{label}.{domain}"));
        let names: Vec<String> = std::iter::once(domain.clone()).chain(of_labels).collect();
        Ok(Some(Self {
            has_labels: !labels.is_empty(),
            port: u16::try_from(matches.get("port", value::count(1, 65_535))?).unwrap_or(HTTPS),
            acme: matches.flag("acme"),
            issuer: matches.one("issuer").unwrap_or_default().to_owned(),
            trust: matches.get_if("ca", value::path)?.map_or(Trust::System, Trust::CaFile),
            stored: Stored::read(&certs, state.as_deref(), &names)?,
            resolver: matches.get_if("resolver", resolver)?.unwrap_or_else(Resolver::system),
            names,
            domain,
        }))
    }

    /// Runs all steps.
    pub(super) fn check(&self) -> Result<(), StepFailed> {
        let mut outcome = Ok(());
        if self.acme && self.port != HTTPS {
            let text =
                format!("port {}: a CA's validators use only port {HTTPS}, which is not checked", self.port);
            report("port", &Step::Info(text))?;
        }
        for name in &self.names {
            outcome = self.check_name(name).and(outcome);
        }
        if self.has_labels { outcome } else { self.check_wildcard().and(outcome) }
    }

    /// Runs the steps for one name.
    fn check_name(&self, name: &str) -> Result<(), StepFailed> {
        let addresses = self.check_dns(name)?;
        let caa = self.judged(caa::check(
            Order { name, issuer: &self.issuer, account: self.stored.account() },
            &self.resolver,
            Deadline::after(STEP),
        ));
        let mut outcome = report("caa", &caa);
        let mut first: Option<(SocketAddr, Chain)> = None;
        for ip in addresses {
            let address = SocketAddr::new(ip, self.port);
            let Some(chain) = self.check_port(name, address, &mut outcome) else { continue };
            match &first {
                None => {
                    outcome = outcome.and(self.check_certificate(name, &chain));
                    first = Some((address, chain));
                }
                Some((other, its)) if its.first() != chain.first() => {
                    let text = format!(
                        "{address} presents another certificate for {name} ({}) than {other}: both addresses must \
                         lead to the same relay",
                        described(&chain)
                    );
                    outcome = outcome.and(report("certificate", &Step::Failed(text)));
                }
                Some(_) => {}
            }
        }
        outcome
    }

    fn check_dns(&self, name: &str) -> Result<Vec<IpAddr>, StepFailed> {
        let found = self.resolver.addresses(name, Deadline::after(STEP));
        let step = match &found {
            Ok(addresses) if addresses.is_empty() => Step::Failed(format!(
                "{name} has no address: add an A record (and AAAA, if the relay has IPv6) with the relay's public \
                 address"
            )),
            Ok(addresses) => match addresses.iter().find(|it| !is_public(it)) {
                Some(private) if self.acme => Step::Info(format!(
                    "{name} is {}, and {private} cannot be reached from the Internet",
                    listed(addresses)
                )),
                Some(_) | None => Step::Ok(format!("{name} is {}", listed(addresses))),
            },
            Err(why) => Step::Failed(why.clone()),
        };
        report("dns", &step)?;
        found.map_err(|_| StepFailed)
    }

    /// Labels need an address, too: by a wildcard, or one by one.
    fn check_wildcard(&self) -> Result<(), StepFailed> {
        let random = entropy::bytes::<5>().map(|bytes| data_encoding::HEXLOWER.encode(&*bytes));
        let name = format!("check-{}.{}", random.unwrap_or_default(), self.domain);
        let step = match self.resolver.addresses(&name, Deadline::after(STEP)) {
            Ok(addresses) if addresses.is_empty() => Step::Info(format!(
                "*.{} has no address: clients reach only labels that have an address of their own (--label LABEL \
                 checks one)",
                self.domain
            )),
            Ok(addresses) => Step::Ok(format!("*.{} is {}", self.domain, listed(&addresses))),
            Err(why) => Step::Failed(why),
        };
        report("dns", &step)
    }

    /// Connects to an address and returns the chain that it presents.
    fn check_port(
        &self,
        name: &str,
        address: SocketAddr,
        outcome: &mut Result<(), StepFailed>,
    ) -> Option<Chain> {
        let host = name.to_owned();
        let (reached, failed) =
            race(&[address], STEP, move |stream, deadline| served::chain(stream, &host, deadline));
        let failure = failed.first();
        let is_connected = reached.is_some() || failure.is_some_and(|it| it.is_connected);
        let port = if is_connected {
            Step::Ok(format!("{address} accepts connections"))
        } else {
            let why = failure.map_or_else(|| "no answer in time".to_owned(), |it| it.why.to_string());
            Step::Failed(format!("{address}: {why}: {}", self.unreachable(address)))
        };
        *outcome = outcome.and(report("port", &port));
        if self.acme && is_connected {
            let step = self.check_validation(name, address);
            *outcome = outcome.and(report("validation", &step));
        }
        if let (None, Some(failure), true) = (&reached, failure, is_connected) {
            let text =
                format!("{address}: {}: port {} does not lead to the relay's HTTPS", failure.why, self.port);
            *outcome = outcome.and(report("tls", &Step::Failed(text)));
        }
        reached.map(|(_, chain)| chain)
    }

    /// What to do about an address that cannot be reached.
    fn unreachable(&self, address: SocketAddr) -> String {
        let port = self.port;
        let forward = format!(
            "forward port {port} to the relay and open it in the firewall, or serve --listen [::]:{port}"
        );
        match address {
            SocketAddr::V6(_) => {
                format!(
                    "CAs and browsers try IPv6 first. Remove the AAAA record if the relay has no IPv6, or {forward}"
                )
            }
            SocketAddr::V4(_) => forward,
        }
    }

    fn check_validation(&self, name: &str, address: SocketAddr) -> Step {
        match served::validation(address, name, STEP) {
            Validation::Refused => {
                Step::Ok(format!("{address} answers validators of {name} (none is expected now)"))
            }
            Validation::Answered => {
                Step::Ok(format!("{address} answers validators of {name}: an order is in progress"))
            }
            Validation::Unknown(why) => Step::Failed(format!(
                "{address} does not answer a CA's validators (TLS-ALPN-01): {why}. Something else terminates TLS there, \
                 or the relay (for an end-to-end label: the agent) runs without --acme"
            )),
        }
    }

    fn check_certificate(&self, name: &str, chain: &Chain) -> Result<(), StepFailed> {
        let trusted = match served::verify(chain, name, &self.trust) {
            Ok(Ok(())) => Step::Ok(format!("{name}: {}", described(chain))),
            Ok(Err(error)) => {
                Step::Failed(format!("{name}: {}: {}", described(chain), self.untrusted(chain, &error)))
            }
            Err(failure) => Step::Failed(failure.to_string()),
        };
        let outcome = report("certificate", &trusted);
        let outcome = outcome.and(report("expiry", &expiry(chain, clock::wall())));
        match self.stored.compare(name, chain) {
            Some(step) => outcome.and(report("stored", &step)),
            None => outcome,
        }
    }

    /// Why a chain is not trusted, and what to do.
    fn untrusted(&self, chain: &Chain, error: &rustls::Error) -> String {
        let is_self_signed = chain
            .first()
            .and_then(|leaf| x509::parts(leaf))
            .is_some_and(|parts| parts.issuer == parts.subject);
        match error {
            _ if is_self_signed && self.acme => "it is self-signed, so the CA has not issued one yet, or another \
                 program answers here: see the relay's log and 'rendezvous status'"
                .to_owned(),
            _ if is_self_signed => "it is self-signed: browsers refuse it (clients with its pin do not)".to_owned(),
            rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer) if chain.len() == 1 => {
                "its issuer is unknown: send the intermediate certificates as well (fullchain.pem), or give --ca FILE"
                    .to_owned()
            }
            error => format!("clients do not trust it: {error}"),
        }
    }

    /// Without `--acme` it does not matter whether a CA could validate or issue.
    fn judged(&self, step: Step) -> Step {
        match step {
            Step::Failed(text) if !self.acme => Step::Info(text),
            step => step,
        }
    }
}

/// How long the end-entity certificate is valid.
fn expiry(chain: &Chain, now: u64) -> Step {
    let validity = chain.first().and_then(|leaf| x509::parts(leaf)).and_then(|parts| parts.validity());
    let Some((start, end)) = validity else { return Step::Failed("the certificate is malformed".to_owned()) };
    let (left, lifetime) = (end.saturating_sub(now), end.saturating_sub(start));
    let (year, month, day) = civil(end / DAY);
    let until = format!("{} days left, until {year:04}-{:02}-{day:02}", left / DAY, month + 1);
    if end <= now {
        Step::Failed(format!(
            "it expired {} days ago: see the relay's log for why it was not renewed",
            (now - end) / DAY
        ))
    } else if start > now {
        Step::Failed("it is not valid yet, or this machine's clock is wrong".to_owned())
    } else if left < lifetime / 3 {
        Step::Info(format!(
            "{until}: it should have been renewed, see the relay's log and 'rendezvous status'"
        ))
    } else {
        Step::Ok(until)
    }
}

fn listed(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Whether an address can be reached from the Internet, as far as its range says.
fn is_public(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            let is_shared = a == 100 && (64..128).contains(&b);
            !(ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_unspecified() || is_shared)
        }
        IpAddr::V6(ip) => {
            !(ip.is_loopback() || ip.is_unspecified() || ip.is_unique_local() || ip.is_unicast_link_local())
        }
    }
}

fn host_name(text: &str) -> Result<String, String> {
    match cert::normal_name(text) {
        Some(name) if !name.starts_with('*') && name.parse::<IpAddr>().is_err() => Ok(name),
        Some(_) | None => {
            Err(format!("'{text}' is not a host name (names with other characters: as A-labels, xn--…)"))
        }
    }
}

fn resolver(text: &str) -> Result<Resolver, String> {
    let with_port = text.parse::<SocketAddr>().ok();
    let address = with_port.or_else(|| text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, 53)));
    address.map(Resolver::of).ok_or_else(|| format!("'{text}' is not ADDR or ADDR:PORT, such as 9.9.9.9"))
}
