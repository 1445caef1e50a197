//! A client, its driver with a disk, the CA and both clocks. Each step has a name, and the program can be killed before each.

use std::collections::BTreeMap;

use data_encoding::BASE64;
use rendezvous_core::acme::action::AccountKey;
use rendezvous_core::acme::{
    Action, Answer, Certificate, Challenge, Client, Config, Event, Names, NoResponse, Question, Request,
    State, Url, Wanted,
};
use rendezvous_core::time::{Now, Span, Time};

use super::ca::{BASE, Ca, Switches, public_key, serial, sign};

pub(crate) const START: u64 = 1_800_000_000;
pub(crate) const HOUR: u64 = 3_600;
pub(crate) const DAY: u64 = 24 * HOUR;

/// The state that survives the end of the program.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    pub(crate) document: Option<String>,
    /// The pending key of each set of names.
    keys: BTreeMap<Names, String>,
    pub(crate) certificates: BTreeMap<Names, Certificate>,
    pub(crate) account_key: String,
    pub(crate) next_account_key: Option<String>,
    made: u32,
    /// Nothing can be stored.
    pub(crate) is_full: bool,
}

pub(crate) struct World {
    pub(crate) now: Now,
    pub(crate) ca: Ca,
    pub(crate) disk: Disk,
    pub(crate) client: Client,
    pub(crate) names: Vec<Names>,
    pub(crate) provided: Vec<Challenge>,
    pub(crate) events: Vec<Event>,
    pub(crate) configure: fn(&mut Config),
    request: Option<Request>,
    question: Option<(rendezvous_core::acme::QuestionId, Question)>,
    pub(crate) installed: u32,
    pub(crate) starts: u32,
    /// Issuers of the chains that were installed.
    pub(crate) issuers: Vec<String>,
}

pub(crate) fn names(text: &str) -> Names {
    Names::parse(text.split(' ')).expect("names")
}

pub(crate) fn directory() -> Url {
    Url::parse(&format!("{BASE}/directory")).expect("a URL")
}

impl World {
    pub(crate) fn new(all: &[&str], switches: Switches) -> Self {
        Self::with(all, switches, |_| {})
    }

    pub(crate) fn with(all: &[&str], switches: Switches, configure: fn(&mut Config)) -> Self {
        let now = Now { mono: Time(1_000_000), wall: START };
        let disk = Disk { account_key: "account-1".into(), ..Disk::default() };
        let all: Vec<Names> = all.iter().map(|it| names(it)).collect();
        let client = start(&disk, &all, configure, 0, now);
        Self {
            now,
            ca: Ca::new(switches),
            disk,
            client,
            names: all,
            provided: Vec::new(),
            events: Vec::new(),
            configure,
            request: None,
            question: None,
            installed: 0,
            starts: 0,
            issuers: Vec::new(),
        }
    }

    /// The program is killed, and started again.
    pub(crate) fn restart(&mut self) {
        self.starts += 1;
        self.provided.clear();
        self.request = None;
        self.question = None;
        self.client = start(&self.disk, &self.names, self.configure, self.starts, self.now);
        if self.disk.next_account_key.is_some() {
            self.client.replace_account_key(self.now);
        }
    }

    pub(crate) fn replace_wanted(&mut self, wanted: Vec<Wanted>) {
        self.request = None;
        self.question = None;
        self.client.set_wanted(wanted, self.now);
    }

    pub(crate) fn wait(&mut self, seconds: u64) {
        self.now.mono = self.now.mono + Span::from_secs(seconds);
        self.now.wall += seconds;
    }

    /// The name of the next step, once all events are taken; `None`: the client waits for a time.
    pub(crate) fn next(&mut self) -> Option<String> {
        while self.question.is_none() {
            match self.client.poll_action() {
                None => break,
                Some(Action::Event(event)) => self.events.push(event),
                Some(Action::Withdraw(challenge)) => {
                    let before = self.provided.len();
                    self.provided.retain(|it| *it != challenge);
                    assert!(self.provided.len() < before, "withdrawn, and not provided: {challenge:?}");
                }
                Some(Action::Ask { id, question }) => self.question = Some((id, question)),
            }
        }
        if let Some(request) = self.client.poll_request() {
            assert!(self.request.replace(request).is_none(), "two requests at once");
        }
        match (&self.question, &self.request) {
            (Some((_, question)), None) => {
                let text = format!("{question:?}");
                Some(text.split([' ', '(']).next().unwrap_or_default().to_owned())
            }
            (None, Some(request)) => {
                let kind =
                    request.url.as_str().trim_start_matches(BASE).split('/').nth(1).unwrap_or_default();
                Some(format!("{} {kind}", request.method.as_str()))
            }
            (None, None) => None,
            (Some(_), Some(_)) => panic!("a question and a request at once"),
        }
    }

    /// Performs one step, or advances the time until the client is due. Each request takes a second.
    pub(crate) fn step(&mut self) {
        self.step_within(u64::MAX);
    }

    /// [`World::step`], but no more than so many seconds pass while the client waits.
    fn step_within(&mut self, seconds: u64) {
        if self.next().is_none() {
            let due = self.client.due().max(self.now.mono + Span::from_millis(1));
            let micros = due.since(self.now.mono).0;
            // Both clocks go on together; parts of a second count as a second.
            self.wait(micros.div_ceil(1_000_000).min(seconds));
            self.client.handle_timeout(self.now);
            return;
        }
        if let Some((id, question)) = self.question.take() {
            let answer = self.answer(question);
            self.client.handle_answer(id, answer, self.now);
        } else if let Some(request) = self.request.take() {
            self.wait(1);
            let response = self.ca.answer(&request, &self.provided, self.now.wall);
            self.client.handle_response(request.id, response, self.now);
        }
    }

    /// Performs the next step at the CA (a request) or at the driver (a question), and kills the program before it receives
    /// the result.
    pub(crate) fn step_and_die(&mut self) {
        self.next();
        if let Some((_, question)) = self.question.take() {
            self.answer(question);
        } else if let Some(request) = self.request.take() {
            self.wait(1);
            let _ = self.ca.answer(&request, &self.provided, self.now.wall);
        }
        self.restart();
    }

    /// Lets the next step, a request, fail in this way.
    pub(crate) fn step_fails(&mut self, why: NoResponse) {
        self.next();
        match self.request.take() {
            Some(request) => {
                self.wait(1);
                self.client.handle_response(request.id, Err(why), self.now);
            }
            None => self.step(),
        }
    }

    /// Performs steps until a condition holds; panics after a week.
    pub(crate) fn until(&mut self, what: &str, is_reached: impl Fn(&Self) -> bool) {
        let end = self.now.wall + 7 * DAY;
        while !is_reached(self) {
            self.step();
            assert!(
                self.now.wall < end,
                "never {what}: {:#?}",
                &self.events[self.events.len().saturating_sub(12)..]
            );
        }
    }

    pub(crate) fn until_installed(&mut self, count: u32) {
        self.until("installed", |it| it.installed >= count);
    }

    pub(crate) fn run_for(&mut self, seconds: u64) {
        let end = self.now.wall + seconds;
        while self.now.wall < end {
            self.step_within(end - self.now.wall);
        }
    }

    /// Whether a certificate of all names is valid now.
    pub(crate) fn is_valid(&self) -> bool {
        let valid =
            |it: &Names| self.disk.certificates.get(it).is_some_and(|it| self.now.wall < it.not_after);
        self.names.iter().all(valid)
    }

    /// The texts of all failures, in order.
    pub(crate) fn failures(&self) -> Vec<String> {
        let of = |event: &Event| match event {
            Event::Failed { step, why, .. } => Some(format!("{step}: {why}")),
            _ => None,
        };
        self.events.iter().filter_map(of).collect()
    }

    fn answer(&mut self, question: Question) -> Answer {
        let full = || Answer::Failed { why: "no space left on device".into() };
        match question {
            Question::Store { .. } if self.disk.is_full => full(),
            Question::Store { document } => {
                self.disk.document = Some(document);
                Answer::Done
            }
            Question::Sign { with, bytes } => {
                let key = match with {
                    AccountKey::Current => self.disk.account_key.clone(),
                    AccountKey::Next => self.disk.next_account_key.clone().expect("a next key"),
                };
                Answer::Signed(sign(&public_key(&key).x, &bytes).try_into().expect("64 bytes"))
            }
            Question::MakeRequest { .. } if self.disk.is_full => full(),
            Question::MakeRequest { names } => {
                self.disk.made += 1;
                let key = format!("key-{}", self.disk.made);
                let der = format!("{key} {names}").into_bytes();
                self.disk.keys.insert(names, key);
                Answer::Request { der }
            }
            Question::Provide(challenge) => {
                if !self.provided.contains(&challenge) {
                    self.provided.push(challenge);
                }
                Answer::Done
            }
            Question::Inspect { chain } => Answer::Inspected { topmost_issuer: read(&chain)[5].clone() },
            Question::Install { .. } if self.disk.is_full => full(),
            Question::Install { names, chain } => self.install(names, &chain),
            Question::MakeAccountKey => {
                let next =
                    self.disk.next_account_key.get_or_insert_with(|| String::from("account-2")).clone();
                Answer::AccountKey(public_key(&next))
            }
            Question::ReplaceAccountKey => {
                self.disk.account_key = self.disk.next_account_key.take().expect("a next key");
                Answer::Done
            }
        }
    }

    fn install(&mut self, names: Names, chain: &str) -> Answer {
        let leaf = read(chain);
        let refuse = |why: &str| Answer::Refused { why: why.into() };
        if self.disk.keys.get(&names) != Some(&leaf[0]) {
            return refuse("it is for another key");
        }
        if leaf[1] != names.to_string() {
            return refuse("it is for other names");
        }
        let number = |at: usize| leaf[at].parse::<u64>().expect("a number");
        if number(3) <= self.now.wall {
            return refuse("it has expired");
        }
        let certificate = Certificate {
            not_before: number(2),
            not_after: number(3),
            authority_key_id: b"aki".to_vec(),
            serial: serial(number(4) as usize),
        };
        self.disk.certificates.insert(names, certificate.clone());
        self.installed += 1;
        self.issuers.push(leaf[5].clone());
        Answer::Installed(certificate)
    }
}

/// The parts of the leaf, as the tests' CA writes it.
fn read(chain: &str) -> Vec<String> {
    let leaf = chain.split("-----").nth(2).expect("a certificate");
    let leaf: String = leaf.split_whitespace().collect();
    let leaf = String::from_utf8(BASE64.decode(leaf.as_bytes()).expect("base64")).expect("UTF-8");
    leaf[1..].split('|').map(String::from).collect()
}

fn other_seed() -> Option<u64> {
    std::env::var("RENDEZVOUS_ACME_SEED").ok()?.parse().ok()
}

fn start(disk: &Disk, names: &[Names], configure: fn(&mut Config), starts: u32, now: Now) -> Client {
    let mut config = Config::new(directory(), public_key(&disk.account_key));
    config.agrees_to_terms = true;
    config.built = START - 100 * DAY;
    configure(&mut config);
    let state = match &disk.document {
        Some(document) => State::parse(document, &config.directory).expect("what was stored"),
        None => State::default(),
    };
    let wanted =
        names.iter().map(|it| Wanted { names: it.clone(), certificate: disk.certificates.get(it).cloned() });
    let mut seed = [7; 32];
    seed[..4].copy_from_slice(&starts.to_be_bytes());
    // RENDEZVOUS_ACME_SEED=N repeats all tests with other jitter.
    if let Some(other) = other_seed() {
        seed[4..12].copy_from_slice(&other.to_be_bytes());
    }
    Client::new(config, state, wanted.collect(), seed, now)
}
