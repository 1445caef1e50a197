//! Lines that describe the machine and the identities.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use data_encoding::BASE32_NOPAD;

use super::super::tokenizer::{Tokenizer, is_name, number, place};
use super::super::{Identity, Setup, config, direct};
use super::Parser;
use crate::agent::{self, BasicAuth, EndToEnd, Upstream};
use crate::engine::Transport;
use crate::http::is_authority;
use crate::id::Id;
use crate::prefix::Prefix;
use crate::registry::{Access, ClientLimits, Enrolment};
use crate::relay_client::Relay;
use crate::token::{Algorithm, Key};
use crate::tunnel::Proxy;

/// The description of a seed in errors.
const SEED: &str = "a seed, up to 64 hexadecimal digits";

impl Parser {
    /// Parses a line that describes the machine or an identity.
    pub(super) fn header(&mut self, line: &str) -> Result<(), String> {
        let mut tokenizer = Tokenizer::new(line);
        let word = tokenizer.next().unwrap_or_default();
        if word == "id" {
            return self.identity(&mut tokenizer);
        }
        if !self.steps.is_empty() {
            return Err(format!("'{word}' is neither an event (@TIME …) nor an action (-> …)"));
        }
        if word == "machine" {
            let machine = tokenizer.next().unwrap_or_default();
            let setup = match machine {
                "relay" => Setup::Relay(Box::default()),
                "agent" => Setup::Agent { config: Box::default(), jitter: [0; 32] },
                _ => return Err(format!("'{machine}' is not a machine: relay or agent")),
            };
            if self.setup.replace(setup).is_some() {
                return Err("there is a machine already".to_owned());
            }
            return tokenizer.end();
        }
        if word == "seed" {
            self.seed = Some(tokenizer.read(SEED, seed)?);
            return tokenizer.end();
        }
        match (word, &mut self.setup) {
            (_, None) => Err(format!("'{word}': the line 'machine relay', or 'machine agent', comes first")),
            ("listen", Some(Setup::Relay(config))) => {
                while let Some(word) = tokenizer.next() {
                    let transport = match (word, word.strip_prefix("port=")) {
                        ("plain", _) => Transport::Plain,
                        ("tls", _) => Transport::Tls,
                        ("proxied", _) => Transport::Proxied,
                        (_, Some(label)) => {
                            let port = u16::try_from(config.ports.len()).map_err(|_| "too many ports")?;
                            config.ports.push(label.to_owned());
                            Transport::Port(port)
                        }
                        (_, None) => {
                            return Err(format!(
                                "unexpected listener '{word}': plain, tls, proxied or port=LABEL"
                            ));
                        }
                    };
                    config.listeners.push(transport);
                }
                Ok(())
            }
            ("jitter", Some(Setup::Agent { jitter, .. })) => {
                *jitter = tokenizer.read(SEED, seed)?;
                tokenizer.end()
            }
            ("config", Some(Setup::Relay(config))) => config::read(&mut tokenizer, &mut **config),
            ("config", Some(Setup::Agent { config, .. })) => config::read(&mut tokenizer, &mut **config),
            ("upstream", Some(Setup::Agent { config, .. })) => {
                let upstream = upstream(&mut tokenizer, &self.identities)?;
                config.upstreams.push(upstream);
                if config.upstreams.len() > usize::from(u16::MAX) {
                    return Err("too many upstreams".to_owned());
                }
                Ok(())
            }
            ("proxy", Some(Setup::Agent { config, .. })) => {
                let upstream: u16 = tokenizer.read("the number of an upstream", number)?;
                let at = tokenizer.keyed("at", place)?;
                let has_credentials = match tokenizer.next() {
                    None => false,
                    Some("credentials") => true,
                    Some(word) => return Err(format!("unexpected '{word}': credentials")),
                };
                config.proxies.resize(config.proxies.len().max(usize::from(upstream) + 1), None);
                config.proxies[usize::from(upstream)] = Some(Proxy::stand_in(at, has_credentials));
                tokenizer.end()
            }
            ("direct", Some(Setup::Agent { config, .. })) => {
                config.direct = Some(direct::read(&mut tokenizer)?);
                Ok(())
            }
            _ => Err(format!("this machine has no line '{word}'")),
        }
    }

    fn identity(&mut self, tokenizer: &mut Tokenizer<'_>) -> Result<(), String> {
        let name = tokenizer
            .read("a name: letters, digits, - and _", |word| is_name(word).then(|| word.to_owned()))?;
        if self.identities.iter().any(|identity| identity.name == name) {
            return Err(format!("there is an id '{name}' already"));
        }
        let id = tokenizer.read("a UUID", |word| Id::parse(word.as_bytes()))?;
        let secret = tokenizer.keyed("secret", |word| BASE32_NOPAD.decode(word.as_bytes()).ok())?;
        let (mut algorithm, mut digits, mut period) = (Algorithm::default(), Key::DIGITS, Key::PERIOD_SECS);
        let mut labels = Vec::new();
        let (mut plain_tokens, mut end_to_end, mut ports) = (false, false, Vec::new());
        let (mut access, mut clients) = (Access::Open, ClientLimits::NONE);
        while let Some(word) = tokenizer.next() {
            let bad = || {
                format!(
                    "unexpected '{word}': algorithm=, digits=, period=, tokens=any, tls=end-to-end, access=, pairs-max=, \
                     allow=, deny=, ports= or labels="
                )
            };
            let (key, value) = word.split_once('=').ok_or_else(bad)?;
            match key {
                "algorithm" => algorithm = Algorithm::parse(value).ok_or_else(bad)?,
                "digits" => digits = number(value).ok_or_else(bad)?,
                "period" => period = number(value).ok_or_else(bad)?,
                "tokens" if value == "any" => plain_tokens = true,
                "tls" if value == "end-to-end" => end_to_end = true,
                "access" if value == "disabled" => access = Access::Disabled,
                "access" if value == "quota-used" => access = Access::QuotaUsed,
                "pairs-max" => clients.pairs_max = Some(number(value).ok_or_else(bad)?),
                "allow" => clients.allow = prefixes(value).ok_or_else(bad)?,
                "deny" => clients.deny = prefixes(value).ok_or_else(bad)?,
                "ports" => ports = value.split(',').map(number).collect::<Option<_>>().ok_or_else(bad)?,
                "labels" if value.split(',').all(is_name) => {
                    labels = value.split(',').map(ToOwned::to_owned).collect()
                }
                _ => return Err(bad()),
            }
        }
        let key = Key::new(secret, algorithm, digits, period).map_err(|error| error.to_string())?;
        let enrolment =
            Enrolment { labels, plain_tokens, end_to_end, ports, access, clients, ..Enrolment::new(id, key) };
        self.identities.push(Identity { name, enrolment });
        Ok(())
    }
}

fn prefixes(list: &str) -> Option<Vec<Prefix>> {
    list.split(',').map(|it| it.parse().ok()).collect()
}

fn seed(digits: &str) -> Option<[u8; 32]> {
    let mut seed = [0; 32];
    if digits.len() > 2 * seed.len() {
        return None;
    }
    for (place, digit) in digits.bytes().rev().enumerate() {
        let value = u8::try_from(char::from(digit).to_digit(16)?).ok()?;
        seed[31 - place / 2] |= value << (4 * (place % 2));
    }
    Some(seed)
}

fn upstream(tokenizer: &mut Tokenizer<'_>, identities: &[Identity]) -> Result<Upstream, String> {
    let name = tokenizer.next().unwrap_or_default();
    let identity = identities.iter().find(|identity| identity.name == name);
    let identity = identity.ok_or_else(|| format!("there is no line 'id {name} …' above"))?;
    let at = tokenizer.keyed("relay", place)?;
    let host_header = tokenizer.keyed("host", |host| is_authority(host).then(|| host.to_owned()))?;
    let mut upstream = Upstream {
        ports: Vec::new(),
        stream_takes_ports: false,
        service_h2: false,
        end_to_end: EndToEnd::Off,
        basic_auth: None,
        relay: Relay { place: at, tls: false, host_header },
        id: identity.enrolment.id,
        key: identity.enrolment.key.clone(),
        plain: false,
        pool: agent::POOL,
        pool_max: agent::POOL,
        service: None,
        service_tls: None,
        stream: None,
    };
    let mut pool_max = None;
    while let Some(word) = tokenizer.next() {
        let bad = || {
            format!(
                "unexpected '{word}': tls, plain, pool=, pool-max=, service=, service-tls=, stream=, \
                 ports-to-stream, service-h2, port=, end-to-end, tls-to=, door= or password-keep"
            )
        };
        match word.split_once('=').unwrap_or((word, "")) {
            ("tls", "") => upstream.relay.tls = true,
            ("plain", "") => upstream.plain = true,
            ("pool", pool) => upstream.pool = number(pool).ok_or_else(bad)?,
            ("pool-max", pool) => pool_max = Some(number(pool).ok_or_else(bad)?),
            ("service", at) => upstream.service = Some(place(at).ok_or_else(bad)?),
            ("service-tls", at) => upstream.service_tls = Some(number(at).ok_or_else(bad)?),
            ("service-h2", "") => upstream.service_h2 = true,
            ("ports-to-stream", "") => upstream.stream_takes_ports = true,
            ("door", realm) => upstream.basic_auth = Some(BasicAuth::new(realm)),
            ("password-keep", "") => {
                let basic_auth = upstream.basic_auth.take().ok_or_else(bad)?;
                upstream.basic_auth = Some(basic_auth.keeping_credentials());
            }
            ("end-to-end", "") => upstream.end_to_end = EndToEnd::Terminate,
            ("tls-to", at) => upstream.end_to_end = EndToEnd::PassTo(place(at).ok_or_else(bad)?),
            ("port", at) => {
                let (label, at) = at.split_once(':').ok_or_else(bad)?;
                upstream.ports.push((label.to_owned(), place(at).ok_or_else(bad)?));
            }
            ("stream", at) => upstream.stream = Some(place(at).ok_or_else(bad)?),
            _ => return Err(bad()),
        }
    }
    // Before pools could grow, none was written.
    upstream.pool_max = pool_max.unwrap_or(upstream.pool);
    Ok(upstream)
}
