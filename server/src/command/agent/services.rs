//! The tickets of an agent with their local services, in the order of the options.

use std::path::PathBuf;

use super::super::local::{LocalService, TRUST_OPTIONS, To};
use crate::failure::Failure;
use crate::ids::is_name;
use crate::options::Matches;
use crate::options::value::{HostPort, host_port};

/// A ticket and its local services.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) ticket: PathBuf,
    pub(super) to: Option<LocalService>,
    pub(super) stream: Option<HostPort>,
    /// The services for the relay's ports, by label.
    pub(super) ports: Vec<(String, HostPort)>,
    pub(super) tls_to: Option<HostPort>,
}

/// Parses the value of `--stream`: the label of a relay's port, if there is one, and the service.
fn stream(text: &str) -> Result<(Option<String>, HostPort), String> {
    match text.split_once('=') {
        None => Ok((None, host_port(text)?)),
        Some((label, _)) if !is_name(label) => Err(format!("'{label}' is not a valid label of a port")),
        Some((label, at)) => Ok((Some(label.to_owned()), host_port(at)?)),
    }
}

/// A ticket and the options that follow it.
#[derive(Default)]
struct Group {
    ticket: Option<PathBuf>,
    to: Option<To>,
    services: OwnServices,
}

/// The local services of a ticket except the HTTP service.
#[derive(Clone, Default)]
struct OwnServices {
    stream: Option<HostPort>,
    ports: Vec<(String, HostPort)>,
    tls_to: Option<HostPort>,
}

impl OwnServices {
    fn is_empty(&self) -> bool {
        self.stream.is_none() && self.ports.is_empty() && self.tls_to.is_none()
    }

    /// Adds a `--stream`. Returns false if there is already one.
    fn take_stream(&mut self, (label, at): (Option<String>, HostPort)) -> bool {
        match label {
            None => self.stream.replace(at).is_none(),
            Some(label) if self.ports.iter().any(|(known, _)| *known == label) => false,
            Some(label) => {
                self.ports.push((label, at));
                true
            }
        }
    }
}

/// The tickets with the services that follow them, or else with the preceding ones.
pub(super) fn services(matches: &Matches) -> Result<Vec<Service>, Failure> {
    // Parsed only for the errors, which contain the option's name or the line of the file.
    matches.get_all("to", To::parse)?;
    matches.get_all("stream", stream)?;
    matches.get_all("tls-to", host_port)?;
    let mut groups = vec![Group::default()];
    let options: Vec<&str> = ["ticket", "to", "stream", "tls-to"].into_iter().chain(TRUST_OPTIONS).collect();
    for (option, text) in matches.in_order(&options) {
        if option == "ticket" {
            groups.push(Group { ticket: Some(PathBuf::from(text)), ..Group::default() });
            continue;
        }
        let Some(group) = groups.last_mut() else { continue };
        let usage = |why| Failure::Usage(format!("--{option}: {why}"));
        let is_second = match option {
            "to" => group.to.replace(To::parse(text).map_err(usage)?).is_some(),
            "stream" => !group.services.take_stream(stream(text).map_err(usage)?),
            "tls-to" => group.services.tls_to.replace(host_port(text).map_err(usage)?).is_some(),
            _ => {
                let to = group.to.as_mut();
                to.ok_or_else(|| usage("it must follow a --to https://HOST:PORT".to_owned()))?
                    .take(option, text)?;
                false
            }
        };
        if is_second {
            return Err(Failure::Usage(format!("--{option} {text}: this ticket already has a --{option}")));
        }
    }
    let (mut last_to, mut last_own) = (None, OwnServices::default());
    let mut services = Vec::new();
    for Group { ticket, to, services: own } in groups {
        // A ticket with a service of its own shares only the HTTP service with others.
        if to.is_some() || !own.is_empty() {
            last_own = own;
            last_to = to.map(To::finish).transpose()?.or(last_to);
        }
        let Some(ticket) = ticket else { continue };
        if last_to.is_none() && last_own.is_empty() {
            let ticket = ticket.display();
            return Err(Failure::Usage(format!(
                "--to HOST:PORT (or --tls-to or --stream HOST:PORT) is missing for {ticket}"
            )));
        }
        let OwnServices { stream, ports, tls_to } = last_own.clone();
        services.push(Service { ticket, to: last_to.clone(), stream, ports, tls_to });
    }
    if services.is_empty() {
        return Err(Failure::Usage("--ticket FILE is missing (see: rendezvous agent --help)".to_owned()));
    }
    Ok(services)
}

#[cfg(test)]
mod tests {
    use super::super::SPEC;
    use super::*;
    use crate::options::parse;
    use crate::trust::Trust;

    fn shown(line: &str) -> Result<Vec<String>, Failure> {
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let services = services(&parse(&SPEC, &args)?)?;
        let show = |service: &Service| {
            let to = service.to.as_ref().map_or("-".to_owned(), ToString::to_string);
            let stream = service.stream.as_ref().map_or("-".to_owned(), ToString::to_string);
            format!("{} {to} {stream}", service.ticket.display())
        };
        Ok(services.iter().map(show).collect())
    }

    #[test]
    fn each_ticket_has_the_services_behind_it_or_those_before() {
        let line = "--ticket a --to h:1 --stream h:2 --ticket b --ticket c --to h:3";
        assert_eq!(shown(line), Ok(vec!["a h:1 h:2".into(), "b h:1 h:2".into(), "c h:3 -".into()]));
    }

    #[test]
    fn a_service_before_all_tickets_is_for_all() {
        assert_eq!(shown("--to h:1 --ticket a --ticket b"), Ok(vec!["a h:1 -".into(), "b h:1 -".into()]));
    }

    #[test]
    fn a_stream_service_alone_will_do() {
        assert_eq!(shown("--ticket a --stream h:22"), Ok(vec!["a - h:22".into()]));
    }

    #[test]
    fn a_ticket_without_a_service_is_refused() {
        assert!(matches!(shown("--ticket a"), Err(Failure::Usage(why)) if why.contains("--to")));
        assert!(matches!(shown("--to h:1"), Err(Failure::Usage(why)) if why.contains("--ticket")));
        assert!(matches!(shown("--ticket a --to h:1 --to h:2"), Err(Failure::Usage(_))));
    }

    #[test]
    fn each_service_has_the_trust_behind_it() {
        let line = "--ticket a --to https://h:1 --to-ca ca.pem --ticket b --to https://h:2 --to-insecure \
                    --ticket c --ticket d --to https://h:3 --to-insecure";
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let services = parse(&SPEC, &args).and_then(|matches| services(&matches)).unwrap_or_default();
        let trusts: Vec<_> = services
            .into_iter()
            .map(|service| service.to.and_then(|to| to.tls))
            .map(Option::unwrap)
            .collect();
        let ca = Trust::CaFile("ca.pem".into());
        assert_eq!(trusts, [ca, Trust::Insecure, Trust::Insecure, Trust::Insecure]);
        for line in ["--to-ca x --ticket a --to https://h:1", "--ticket a --to h:1 --to-insecure"] {
            assert!(matches!(shown(line), Err(Failure::Usage(_))), "{line}");
        }
    }
}
