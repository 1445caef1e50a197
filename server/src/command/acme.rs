//! The ACME options of relay and agent.

use std::path::PathBuf;
use std::sync::Arc;

use mio::Waker;
use rendezvous_core::acme::{ChallengeKind, ExternalAccount, Names, Status, Url, With};
use rendezvous_core::machine::{Listener, Machine};
use rendezvous_core::time::Now;

use super::upstream;
use crate::acme::key::Key;
use crate::acme::{Driver, KeyChoice, Prepared, Settings};
use crate::clock;
use crate::daemon::{self, Loop};
use crate::event_loop::ClientTls;
use crate::failure::Failure;
use crate::files::{self, FileKind};
use crate::linux::descriptors::OwnedFd;
use crate::live_certificates::LiveCertificates;
use crate::logging::Escaped;
use crate::options::{Matches, Opt, joined, value};
use crate::state::{Lock, State};
use crate::status::document::CertificateOfCa;
use crate::tls_config;
use crate::trust::Trust;

/// A machine together with an ACME client, if there is one.
pub(super) type Host<M> = With<M>;

/// The machine itself.
pub(super) const fn inner<M: Machine>(host: &Host<M>) -> &M {
    host.inner()
}

/// The machine itself.
pub(super) const fn inner_mut<M: Machine>(host: &mut Host<M>) -> &mut M {
    host.inner_mut()
}

/// Limit of the reason of a failure in the status document, in characters.
const FAILURE_MAX: usize = 300;
/// The directory of Let's Encrypt.
const DIRECTORY: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// Its staging directory.
const STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";

const ACME: &str = "acme";
const AGREE: Opt = Opt::flag("acme-agree-tos", "agree to the CA's terms of service, which --acme requires");
const DIRECTORY_URL: Opt =
    Opt::one("acme-directory", "URL", DIRECTORY, "the CA's directory (RFC 8555 §7.1.1)");
const CONTACT: Opt = Opt::many(
    "acme-contact",
    "MAIL",
    "none",
    "a mail address for the account at the CA; optional with most CAs",
);
const CA: Opt = Opt::one(
    "acme-ca",
    "FILE",
    "the system's CAs",
    "the CA certificates (PEM) for verifying the CA's server",
);
const EAB_KID: Opt =
    Opt::one("acme-eab-kid", "ID", "none", "the key identifier from the CA (external account binding)");
const EAB_KEY: Opt =
    Opt::one("acme-eab-key-file", "FILE", "none", "a file with the key (base64url) for --acme-eab-kid");
const PROFILE: Opt = Opt::one(
    "acme-profile",
    "NAME",
    "the CA's default",
    "the certificate profile, if the CA offers it: tlsserver, shortlived",
);
const PREFERRED_CHAIN: Opt = Opt::one(
    "acme-preferred-chain",
    "CN",
    "the CA's default",
    "prefer the chain whose topmost certificate was issued by this common name",
);
const KEEP_KEY: Opt = Opt::flag(
    "acme-keep-key",
    "keep the key when a certificate is renewed, so that its pin stays valid; the first key is that of the self-signed certificate",
);

/// The port that validators of TLS-ALPN-01 connect to (RFC 8737 §3).
pub(super) const VALIDATED_PORT: u16 = 443;

/// Only for the relay.
pub(super) const HTTP: Opt = Opt::many(
    "acme-http",
    "ADDR:80",
    "none",
    "listen for HTTP: validation by HTTP-01 as well, and redirects to HTTPS for all other requests",
);

/// The options that need [`ACME`].
const OTHERS: [Opt; 9] =
    [AGREE, DIRECTORY_URL, CONTACT, CA, EAB_KID, EAB_KEY, PROFILE, PREFERRED_CHAIN, KEEP_KEY];

/// The number of [`options`].
pub(super) const OPTIONS: usize = 1 + OTHERS.len();

/// The options of a command that runs an ACME client. `help` is the text for `--acme`.
pub(super) const fn options(help: &'static str) -> [Opt; OPTIONS] {
    joined(&[&[Opt::flag(ACME, help)], &OTHERS])
}

/// The ACME client of a command, if `--acme` is given.
#[derive(Debug, Default)]
pub(super) struct Acme {
    wish: Option<Wish>,
    prepared: Option<Prepared>,
    driver: Option<Driver>,
    /// A duplicate of the locked file.
    lock: Option<OwnedFd>,
}

#[derive(Debug)]
struct Wish {
    settings: Settings,
    ca: Trust,
    keeps_key: bool,
    live: Arc<LiveCertificates>,
}

impl Acme {
    /// Reads the options. `kinds` are the supported challenges.
    ///
    /// # Errors
    /// [`Failure::Usage`], also if the user does not agree to the CA's terms.
    pub(super) fn read(matches: &Matches, kinds: Vec<ChallengeKind>) -> Result<Self, Failure> {
        if !matches.flag(ACME) {
            return match OTHERS.iter().find(|option| matches.one(option.long).is_some()) {
                Some(option) => Err(Failure::Usage(format!("--{} needs --acme", option.long))),
                None => Ok(Self::default()),
            };
        }
        let directory = matches.get(DIRECTORY_URL.long, |text| {
            Url::parse(text).ok_or_else(|| format!("'{text}' is not an https:// URL"))
        })?;
        let agrees_to_terms = matches.flag(AGREE.long);
        if !agrees_to_terms {
            return Err(Failure::Usage(format!(
                "--acme needs --{}: the CA at {directory} has terms of service that you must agree to (those of Let's \
                 Encrypt: https://letsencrypt.org/repository/). To try it out first: --acme-directory {STAGING}",
                AGREE.long
            )));
        }
        let staging = (directory.as_str() == DIRECTORY).then_some(STAGING);
        let settings = Settings {
            directory,
            staging,
            agrees_to_terms,
            contacts: matches.get_all(CONTACT.long, contact)?,
            external_account: external_account(matches)?,
            profile: matches.one(PROFILE.long).map(str::to_owned),
            preferred_chain: matches.one(PREFERRED_CHAIN.long).map(str::to_owned),
            challenges: kinds,
        };
        let ca = matches.get_if(CA.long, value::path)?.map_or(Trust::System, Trust::CaFile);
        let keeps_key = matches.flag(KEEP_KEY.long);
        Ok(Self { wish: Some(Wish { settings, ca, keeps_key, live: Arc::default() }), ..Self::default() })
    }

    /// Whether `--acme` was given.
    pub(super) const fn is_on(&self) -> bool {
        self.wish.is_some()
    }

    /// Whether keys change with each renewal.
    pub(super) fn changes_keys(&self) -> bool {
        self.wish.as_ref().is_some_and(|wish| !wish.keeps_key)
    }

    /// The store of certificates, and the TLS configuration for the CA's server.
    ///
    /// # Errors
    /// The CA's roots cannot be read.
    pub(super) fn tls(&self) -> Result<Option<(Arc<LiveCertificates>, ClientTls)>, Failure> {
        let Some(wish) = &self.wish else { return Ok(None) };
        let host = wish.settings.directory.authority();
        let (host, _) = value::split_host_port(host).ok_or_else(|| {
            Failure::Usage(format!("--{}: '{host}' is not a valid host", DIRECTORY_URL.long))
        })?;
        Ok(Some((wish.live.clone(), upstream::tls_to(&host, &wish.ca)?)))
    }

    /// Loads the stored certificates from the state folder, from folders that begin with `prefix`. `own_key` is a key
    /// file whose pin is already known, and the name that it is used for. May block on a lock.
    ///
    /// # Errors
    /// The files cannot be used, or another program is using them.
    pub(super) fn open(
        &mut self,
        state: &State,
        prefix: &str,
        names: Vec<String>,
        own_key: Option<(String, PathBuf)>,
        lock: Option<Lock>,
        now: Now,
    ) -> Result<(), Failure> {
        let Some(wish) = &self.wish else { return Ok(()) };
        let keys = match own_key {
            Some((name, path)) if wish.keeps_key => KeyChoice::Keep { name, key: own(&path)? },
            None if wish.keeps_key => KeyChoice::Keep { name: String::new(), key: None },
            Some(_) | None => KeyChoice::Fresh,
        };
        let with = (wish.live.clone(), tls_config::provider());
        let (settings, names) = (wish.settings.clone(), parsed(names));
        let prepared = Prepared::open((state, prefix, lock), settings, keys, names, with, now)?;
        self.lock = prepared.lock().ok();
        self.prepared = Some(prepared);
        Ok(())
    }

    /// Combines a machine with the client. `upstream` is the index of the CA among the upstreams. `http` has the first
    /// listener for HTTP-01 and the limit of its connections.
    pub(super) fn host<M: Machine>(
        &mut self,
        machine: M,
        upstream: usize,
        http: Option<(Listener, u32)>,
    ) -> Host<M> {
        let client = self.prepared.as_mut().and_then(Prepared::take_client);
        let with = With::new(machine, client, u16::try_from(upstream).unwrap_or(u16::MAX));
        match http {
            Some((first, connections_max)) => with.with_http(first, connections_max),
            None => with,
        }
    }

    /// Starts the thread that reads and writes files.
    ///
    /// # Errors
    /// The system cannot start a thread.
    pub(super) fn start(&mut self, waker: Arc<Waker>) -> Result<(), Failure> {
        if let Some(prepared) = self.prepared.take() {
            let driver = prepared.start(waker).map_err(|error| daemon::cannot("start a thread", &error))?;
            self.driver = Some(driver);
        }
        Ok(())
    }

    /// Sets the names for which certificates are ordered.
    pub(super) fn want(&mut self, names: Vec<String>) {
        if let Some(driver) = &mut self.driver {
            driver.want(parsed(names));
        }
    }

    /// Sets whether validators can reach this program.
    pub(super) const fn set_reachable(&mut self, is_reachable: bool) {
        if let Some(driver) = &mut self.driver {
            driver.set_reachable(is_reachable);
        }
    }

    /// Performs the client's requests, after each turn of the event loop.
    pub(super) fn work<M: Machine>(&mut self, event_loop: &mut Loop<Host<M>>) {
        if let Some(driver) = &mut self.driver {
            driver.work(event_loop);
        }
    }

    /// Stops it and releases its files.
    pub(super) fn stop(&mut self) {
        (self.driver, self.lock) = (None, None);
    }

    /// A duplicate of the locked file, for another process that continues with the files.
    pub(super) fn lock(&self) -> Option<OwnedFd> {
        self.lock.as_ref().and_then(|lock| lock.try_clone().ok())
    }

    /// Stops it for good: another process continues with its files.
    pub(super) fn retire<M: Machine>(&mut self, event_loop: &mut Loop<Host<M>>) {
        self.stop();
        event_loop.call(|with, now| with.set_wanted(Vec::new(), now));
    }

    /// The state of each certificate.
    pub(super) fn report<M: Machine>(&self, host: &Host<M>) -> Vec<CertificateOfCa> {
        let now = clock::wall();
        let status = host.client().map(|client| client.status(now)).unwrap_or_default();
        status.into_iter().map(|it| entry(it, now)).collect()
    }

    /// The store of the certificates.
    pub(super) fn live(&self) -> Option<&LiveCertificates> {
        self.wish.as_ref().map(|wish| &*wish.live)
    }
}

/// The entry of a certificate in the status document. `now` is in seconds since 1970.
fn entry(of: Status, now: u64) -> CertificateOfCa {
    const DAY: u64 = 24 * 60 * 60;
    let state = match of.not_after {
        Some(end) if end <= now => "expired",
        _ if of.failures > 0 => "failing",
        None => "missing",
        Some(_) => "valid",
    };
    CertificateOfCa {
        name: of.names.to_string(),
        state: state.to_owned(),
        not_after: of.not_after,
        days_left: of.not_after.map(|end| end.saturating_sub(now) / DAY),
        next_in: of.next.saturating_sub(now),
        failures: of.failures,
        last_failure: of.last_failure.chars().take(FAILURE_MAX).collect(),
    }
}

/// Converts each name to the names of one certificate. Names for which no CA issues certificates are omitted.
fn parsed(names: Vec<String>) -> Vec<Names> {
    let parse = |name: String| {
        let names = Names::parse([name.as_str()]);
        if names.is_none() {
            log::warn!(
                "event=acme-ignored name={} reason=\"no CA issues certificates for it\"",
                Escaped(&name)
            );
        }
        names
    };
    names.into_iter().filter_map(parse).collect()
}

/// Whether a CA may issue a certificate for this name.
pub(super) fn is_public_name(name: &str) -> bool {
    Names::parse([name]).is_some()
}

/// The key in a file of the state folder, if it exists and has the right kind.
fn own(path: &std::path::Path) -> Result<Option<Key>, Failure> {
    let Some(content) = files::read_if_exists(path, FileKind::STATE_KEY)? else { return Ok(None) };
    match Key::from_pem(&content.bytes) {
        Ok(key) => Ok(Some(key)),
        Err(why) => {
            log::warn!(
                "event=acme-ignored option={} reason={}",
                KEEP_KEY.long,
                Escaped(&format!("the key {} is not kept: {why}", path.display()))
            );
            Ok(None)
        }
    }
}

/// Parses a contact: a mail address or a URL.
fn contact(text: &str) -> Result<String, String> {
    if text.starts_with("mailto:") {
        Ok(text.to_owned())
    } else if text.contains('@') && !text.contains([':', ' ', ',']) {
        Ok(format!("mailto:{text}"))
    } else {
        Err(format!("'{text}' is not a mail address"))
    }
}

fn external_account(matches: &Matches) -> Result<Option<ExternalAccount>, Failure> {
    let id = matches.one(EAB_KID.long);
    let file = matches.get_if(EAB_KEY.long, value::path)?;
    let (id, file) = match (id, file) {
        (None, None) => return Ok(None),
        (Some(id), Some(file)) => (id, file),
        (Some(_), None) | (None, Some(_)) => {
            return Err(Failure::Usage(format!("--{} and --{} need each other", EAB_KID.long, EAB_KEY.long)));
        }
    };
    let text = files::read(&file, FileKind::SECRET)?;
    let text = std::str::from_utf8(&text).unwrap_or_default();
    let account = ExternalAccount::parse(id, text);
    let wrong = || Failure::Failed(format!("cannot use the key in {}: it is not base64url", file.display()));
    account.map(Some).ok_or_else(wrong)
}
