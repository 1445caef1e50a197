//! The driver of an ACME client on the event loop.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use mio::Waker;
use rendezvous_core::acme::{
    Action, Answer, ChallengeKind, Client, Config, Event, ExternalAccount, Names, Proof, Question,
    QuestionId, Url, Wanted, With,
};
use rendezvous_core::machine::Machine;
use rendezvous_core::time::Now;
use rustls::crypto::CryptoProvider;

use super::answers::{Answers, KeyChoice};
use super::folder::{self, Folder};
use crate::build_info;
use crate::entropy;
use crate::escape::{Escaped, EscapedLong};
use crate::event_loop::EventLoop;
use crate::failure::Failure;
use crate::linux::descriptors::OwnedFd;
use crate::live_certificates::LiveCertificates;
use crate::net::mio::MioNet;
use crate::state::{Lock, State};
use crate::worker::Worker;

const DAY: u64 = 24 * 60 * 60;

/// The operator's settings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The CA's directory.
    pub directory: Url,
    /// Whether the operator agrees to the CA's terms of service.
    pub agrees_to_terms: bool,
    /// Contacts of the account: `mailto:` URLs.
    pub contacts: Vec<String>,
    /// The account at the CA to which the ACME account is bound.
    pub external_account: Option<ExternalAccount>,
    /// The certificate profile.
    pub profile: Option<String>,
    /// The common name of the topmost issuer of the preferred chain.
    pub preferred_chain: Option<String>,
    /// The supported kinds of challenges, in order of preference.
    pub challenges: Vec<ChallengeKind>,
    /// The directory of the same CA for tests, if it has one. The log suggests it after the first failure.
    pub staging: Option<&'static str>,
}

/// A job for the worker thread.
#[derive(Debug)]
enum Job {
    /// Load the certificates for these names and serve them.
    Load(Vec<Names>),
    Answer(QuestionId, Question),
}

#[derive(Debug)]
enum Done {
    Loaded(Vec<Wanted>),
    Answered(QuestionId, Answer),
}

/// A driver with open files, whose thread is not running yet.
#[derive(Debug)]
pub struct Prepared {
    answers: Answers,
    names: Vec<Names>,
    client: Option<Client>,
    staging: Option<&'static str>,
    is_agent: bool,
}

impl Prepared {
    /// Opens the files in the state folder, in a folder that begins with the prefix, serves the stored certificates for
    /// `names` from `live`, and makes a client that renews them. May block on the lock of the files, unless another process
    /// has handed over its own.
    ///
    /// # Errors
    /// The files cannot be used, or another program is using them.
    pub fn open(
        (state, prefix, lock): (&State, &str, Option<Lock>),
        settings: Settings,
        keys: KeyChoice,
        names: Vec<Names>,
        (live, provider): (Arc<LiveCertificates>, Arc<CryptoProvider>),
        now: Now,
    ) -> Result<Self, Failure> {
        let directory = settings.directory;
        let folder = Folder::open(state, prefix, &directory, lock)?;
        let account_key = folder::public(&folder.account_key()?).map_err(Failure::Failed)?;
        let document = folder.document(&directory)?;
        let config = Config {
            agrees_to_terms: settings.agrees_to_terms,
            contacts: settings.contacts,
            external_account: settings.external_account,
            profile: settings.profile,
            preferred_chain: settings.preferred_chain,
            challenges: settings.challenges,
            user_agent: format!("rendezvous/{}", env!("CARGO_PKG_VERSION")),
            built: build_info::source_time(),
            ..Config::new(directory, account_key)
        };
        let answers = Answers { folder, live, keys, provider };
        let wanted = answers.load(names.clone());
        for it in &wanted {
            let served = it.names.as_slice().first().is_some_and(|name| answers.live.get(name).is_some());
            if !served {
                log::warn!(
                    "event=certificate-missing name={} reason=\"a self-signed certificate is served until the CA has issued one\"",
                    Escaped(&it.names.to_string())
                );
            }
        }
        let mut client = Client::new(config, document, wanted, *entropy::bytes()?, now);
        // The operator has put it there, or an earlier run was interrupted while it replaced the key.
        if answers.folder.next_account_key()?.is_some() {
            client.replace_account_key(now);
        }
        Ok(Self {
            answers,
            names,
            client: Some(client),
            staging: settings.staging,
            is_agent: folder::is_of_agent(prefix),
        })
    }

    /// A duplicate of the locked file, for another process.
    ///
    /// # Errors
    /// The system has no descriptors left.
    pub fn lock(&self) -> io::Result<OwnedFd> {
        self.answers.folder.lock().duplicate()
    }

    /// Takes the client. Returns it only once.
    pub const fn take_client(&mut self) -> Option<Client> {
        self.client.take()
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// The system cannot start a thread.
    pub fn start(self, waker: Arc<Waker>) -> io::Result<Driver> {
        let Self { answers, names, staging, is_agent, .. } = self;
        let live = answers.live.clone();
        let worker = Worker::start("acme", waker, move |job| match job {
            Job::Load(names) => Done::Loaded(answers.load(names)),
            Job::Answer(id, question) => Done::Answered(id, answers.answer(question)),
        })?;
        Ok(Driver {
            worker,
            jobs: VecDeque::new(),
            live,
            names,
            staging: Staging(staging),
            is_agent,
            is_reachable: true,
            client_is_reachable: true,
        })
    }
}

/// Performs the requests of a client.
#[derive(Debug)]
pub struct Driver {
    worker: Worker<Job, Done>,
    jobs: VecDeque<Job>,
    live: Arc<LiveCertificates>,
    names: Vec<Names>,
    staging: Staging,
    /// Whether other programs may have the same names: agents of one label.
    is_agent: bool,
    /// Whether validators can reach this program.
    is_reachable: bool,
    /// What the client knows of that.
    client_is_reachable: bool,
}

impl Driver {
    /// Sets the names for which certificates are ordered.
    pub fn want(&mut self, names: Vec<Names>) {
        if names != self.names {
            self.names.clone_from(&names);
            self.jobs.push_back(Job::Load(names));
        }
    }

    /// Sets whether validators can reach this program. While they cannot, the client orders nothing.
    pub const fn set_reachable(&mut self, is_reachable: bool) {
        self.is_reachable = is_reachable;
    }

    /// Performs the client's requests. Call it after each turn of the event loop.
    pub fn work<M: Machine>(&mut self, event_loop: &mut EventLoop<MioNet, With<M>>) {
        if self.is_reachable != self.client_is_reachable {
            self.client_is_reachable = self.is_reachable;
            event_loop.call(|with, now| with.set_reachable(self.is_reachable, now));
        }
        loop {
            match self.worker.answer() {
                Some(Done::Loaded(wanted)) => event_loop.call(|with, now| with.set_wanted(wanted, now)),
                Some(Done::Answered(id, answer)) => {
                    event_loop.call(|with, now| with.handle_answer(id, answer, now));
                }
                None => {}
            }
            while let Some(action) = event_loop.call(|with, _| with.poll_action()) {
                self.carry_out(action);
            }
            if self.worker.is_busy() {
                return;
            }
            let Some(job) = self.jobs.pop_front() else { return };
            self.worker.ask(job);
        }
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Ask { id, question } => self.jobs.push_back(Job::Answer(id, question)),
            Action::Withdraw(challenge) => match challenge.proof {
                Proof::TlsAlpn01 { .. } => self.live.withdraw(&challenge.name),
                Proof::Http01 { .. } => {}
            },
            Action::Event(event) => {
                log_event(&event, self.is_agent);
                if let Some(directory) = self.staging.suggested_after(&event) {
                    log::info!(
                        "event=acme-staging hint=\"the CA limits failures: until it works, use --acme-directory {directory}, \
                         which has limits of its own and issues certificates that browsers do not trust\""
                    );
                }
            }
        }
    }
}

/// The CA's directory for tests, until it was suggested.
#[derive(Debug)]
struct Staging(Option<&'static str>);

impl Staging {
    /// The directory to suggest after this event: once, after the first failure of a name, because failures count for the
    /// CA's limits.
    fn suggested_after(&mut self, event: &Event) -> Option<&'static str> {
        match event {
            Event::Failed { names: Some(_), .. } => self.0.take(),
            _ => None,
        }
    }
}

/// What to do about a challenge that the CA has not accepted.
fn hint(names: &Names, challenge: ChallengeKind, is_agent: bool) -> Option<String> {
    let first = names.as_slice().first()?;
    let port = match challenge {
        ChallengeKind::TlsAlpn01 => 443,
        ChallengeKind::Http01 => 80,
    };
    let agents = if is_agent { "; only one agent of a label can use --acme" } else { "" };
    Some(format!(
        "the CA's validators connect to port {port} and no other: DNS, firewall and port forward of {first} must lead it to \
         the relay{agents}; rendezvous check --domain {first} --acme"
    ))
}

fn log_event(event: &Event, is_agent: bool) {
    let shown = |names: &Names| names.to_string();
    match event {
        Event::AccountKeyReplaced => log::info!("event=acme-account-key-replaced"),
        Event::Account { url } => log::info!("event=acme-account url={}", EscapedLong(url)),
        Event::Ordering { names, why } => {
            log::info!("event=certificate-order name={} reason={}", Escaped(&shown(names)), EscapedLong(why));
        }
        Event::Installed { names, not_after, renew_at } => {
            let now = crate::clock::wall();
            log::info!(
                "event=certificate-installed name={} days={} renewal_in={}h",
                Escaped(&shown(names)),
                not_after.saturating_sub(now) / DAY,
                renew_at.saturating_sub(now) / 3600
            );
        }
        Event::Failed { names, step, why, challenge, again } => {
            let hint = names
                .as_ref()
                .zip(*challenge)
                .and_then(|(names, challenge)| hint(names, challenge, is_agent));
            let hint = hint.map(|hint| format!(" hint={}", EscapedLong(&hint))).unwrap_or_default();
            let names = names.as_ref().map_or_else(|| "-".to_owned(), shown);
            log::warn!(
                "event=certificate-failed name={} step={} reason={} retry_in={again}s{hint}",
                Escaped(&names),
                Escaped(step),
                EscapedLong(why)
            );
        }
        Event::Expiring { names, left: 0, last_failure } => {
            log::error!(
                "event=certificate-expired name={} reason={}",
                Escaped(&shown(names)),
                EscapedLong(last_failure)
            );
        }
        Event::Expiring { names, left, last_failure } => {
            log::warn!(
                "event=certificate-expiring name={} days={} hours={} reason={}",
                Escaped(&shown(names)),
                left / DAY,
                left / 3600 % 24,
                EscapedLong(last_failure)
            );
        }
        Event::Explained { names, url } => {
            log::warn!(
                "event=certificate-early-renewal name={} url={}",
                Escaped(&shown(names)),
                EscapedLong(url)
            );
        }
        Event::ClockBeforeBuild => {
            log::warn!(
                "event=acme-clock reason=\"this machine's clock is wrong: certificates are not ordered\""
            );
        }
        Event::ClockDiffers { date } => {
            log::warn!(
                "event=acme-clock ca_date={date} reason=\"this machine's clock differs from the CA's: certificates are not ordered\""
            );
        }
        Event::Ignored { what } => log::warn!("event=acme-ignored reason={}", EscapedLong(what)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_for_tests_is_suggested_once_after_the_first_failure_of_a_name() {
        let (step, why) = ("the order", String::new());
        let failed = |names| Event::Failed { names, step, why: why.clone(), challenge: None, again: 60 };
        let names = Names::parse(["relay.example.com"]);
        let mut staging = Staging(Some("https://staging.example/"));
        assert_eq!(staging.suggested_after(&Event::AccountKeyReplaced), None);
        assert_eq!(staging.suggested_after(&failed(None)), None, "the CA is down");
        assert_eq!(staging.suggested_after(&failed(names.clone())), Some("https://staging.example/"));
        assert_eq!(staging.suggested_after(&failed(names)), None);
    }
}
