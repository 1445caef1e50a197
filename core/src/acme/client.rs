//! The client: which step follows which. `docs/acme.md §3` has what is stored before which step, `docs/acme.md §4` the
//! states of an order.
//!
//! One thing is under way at a time: a question to the driver, a request to the CA, or a pause. What follows is a value
//! (`Next`), so that every way through is one `match`.

mod account;
mod faults;
mod order;
mod plan;
mod renewal_info;
mod step;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use sha2::{Digest, Sha256};

use super::action::{AccountKey, Action, Answer, Certificate, Challenge, Question, QuestionId};
use super::attempts::{Attempts, Faults};
use super::config::{Config, PublicKey};
use super::event::Event;
use super::jose::{Unsigned, Verifier, thumbprint};
use super::message::{Method, NoResponse, Request, Response};
use super::names::Names;
use super::objects::Directory;
use super::problem::{Kind, Problem};
use super::renewal::renew_at;
use super::state::{Account, State};
use super::url::Url;
use crate::entropy::Entropy;
use crate::time::{Now, Span, Time};
use order::OrderJob;
use step::{By, Call, Exchange, Next, Pending, Purpose, Then};

/// The most certificates of one client; those behind are not ordered.
pub const CERTIFICATES_MAX: usize = 1_000;
/// A directory is fetched again after this long.
const DIRECTORY_MAX_AGE: Span = Span::from_secs(86_400);
/// Limit of attempts of one request while the CA refuses nonces.
const NONCE_TRIES_MAX: u8 = 10;
/// The same after [`LONG_TIME`] failures in a row.
const NONCE_TRIES_LATER: u8 = 3;
/// The number of failures in a row from which on a request is sent less often.
const LONG_TIME: u32 = 10;
/// Timeout of a question to the driver.
const ANSWER_TIMEOUT: Span = Span::from_secs(120);
/// Timeout of a whole request, in addition to those of its steps.
const RESPONSE_TIMEOUT: Span = Span::from_secs(300);

/// A certificate that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its names.
    pub names: Names,
    /// The one that is stored, if there is one.
    pub certificate: Option<Certificate>,
}

/// The state of one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its names.
    pub names: Names,
    /// The end of its validity, in seconds since 1970; `None` if there is no certificate.
    pub not_after: Option<u64>,
    /// The next order, or the next attempt of one that failed, in seconds since 1970. In the past: due.
    pub next: u64,
    /// Whether an order is under way.
    pub is_ordered: bool,
    /// How many attempts have failed since the last certificate, one that is under way included.
    pub failures: u32,
    /// The last failure of these names, or of the CA; empty if there was none.
    pub last_failure: String,
}

/// An ACME client. See the [module](super).
#[derive(Debug)]
pub struct Client {
    config: Config,
    entropy: Entropy,
    state: State,
    wanted: Vec<Wanted>,
    /// What is under way.
    pending: Pending,
    job: Option<OrderJob>,
    call: Option<Call>,
    actions: VecDeque<Action>,
    request: Option<Request>,
    questions: u32,
    requests: u32,
    directory: Option<(Directory, Now)>,
    nonce: Option<String>,
    /// The challenges for which the driver answers validators now.
    provided: Vec<Challenge>,
    /// Postponed orders: when each is polled next, and how often it was postponed.
    parked: BTreeMap<Names, (Time, u32)>,
    /// The challenges of each order that were posted. Each is posted once.
    posted: BTreeMap<Names, Vec<Url>>,
    /// Orders whose names are not wanted any more: their pending authorizations are deactivated.
    abandoned: Vec<Url>,
    /// The state has changed since it was stored.
    is_dirty: bool,
    /// Failures to report once their pauses are stored.
    unstored: Vec<Event>,
    /// After a failure of the driver, nothing is done before this time.
    driver_pause: Time,
    driver_failures: u32,
    /// Whether validators can reach the driver.
    is_reachable: bool,
    /// Whether validators could not reach the driver at some time since the last challenge was posted.
    was_unreachable: bool,
    /// Whether the CA did not know the account, and has issued no certificate since then.
    account_was_lost: bool,
    /// The key of the account is to be replaced; the new one, once it is made.
    rollover: Option<Option<PublicKey>>,
    /// When each certificate was reported to expire.
    reported: BTreeMap<Names, Time>,
    clock_was_reported: bool,
    /// Settings without effect that were reported.
    ignored: Vec<String>,
}

impl Client {
    /// A client that begins at once. `wanted` are all certificates, the most urgent first. `seed` is from the operating
    /// system: all delays have jitter.
    #[must_use]
    pub fn new(config: Config, state: State, wanted: Vec<Wanted>, seed: [u8; 32], now: Now) -> Self {
        let mut client = Self {
            config,
            entropy: Entropy::new(seed),
            state,
            wanted: Vec::new(),
            pending: Pending::Pause { until: now.mono, next: Next::Plan },
            job: None,
            call: None,
            actions: VecDeque::new(),
            request: None,
            questions: 0,
            requests: 0,
            directory: None,
            nonce: None,
            provided: Vec::new(),
            parked: BTreeMap::new(),
            posted: BTreeMap::new(),
            abandoned: Vec::new(),
            is_dirty: false,
            unstored: Vec::new(),
            driver_pause: now.mono,
            driver_failures: 0,
            is_reachable: true,
            was_unreachable: false,
            account_was_lost: false,
            rollover: None,
            reported: BTreeMap::new(),
            clock_was_reported: false,
            ignored: Vec::new(),
        };
        client.adopt(now);
        // How long a pause is depends on what is due.
        client.wanted.clone_from(&wanted);
        client.count_ended_runs(now);
        client.set_wanted(wanted, now);
        client
    }

    /// Adapts the stored state to this key and this configuration.
    fn adopt(&mut self, now: Now) {
        let key = thumbprint(&self.config.account_key);
        if self.state.key != key {
            self.state.key = key;
            self.state.account = Account::None;
            self.state.entries.values_mut().for_each(|it| it.order = None);
            self.is_dirty = true;
        }
        let config = fingerprint(&self.config);
        if self.state.config != config {
            self.state.config = config;
            self.state.faults = Faults::default();
            self.state.unfinished = 0;
            self.state.entries.values_mut().for_each(|it| it.attempts.allow_one(now.wall));
            self.is_dirty = true;
        }
    }

    /// Replaces the list of certificates. Orders of names that are no longer in it end.
    pub fn set_wanted(&mut self, mut wanted: Vec<Wanted>, now: Now) {
        if wanted.len() > CERTIFICATES_MAX {
            wanted.truncate(CERTIFICATES_MAX);
            self.ignore("all certificates but the first 1000: a client orders no more");
        }
        self.wanted = wanted;
        self.drop_unwanted(now);
        if self.job.as_ref().is_some_and(|job| !self.is_wanted(&job.names)) {
            self.job = None;
            self.call = None;
            self.request = None;
            self.pause(now.mono, Next::Plan);
        }
        self.plan_if_idle(now);
    }

    /// Whether validators can reach the driver; true at first. An agent is reachable while it is connected. If it is not,
    /// no order is placed or resumed, no challenge is posted, and a failed validation does not count as a failure.
    pub fn set_reachable(&mut self, is_reachable: bool, now: Now) {
        self.is_reachable = is_reachable;
        if is_reachable {
            self.plan_if_idle(now);
        } else {
            self.was_unreachable = true;
        }
    }

    /// Replaces the key of the account (RFC 8555 §7.3.5). If the driver has a next key at its start, it calls this as well: a
    /// replacement was interrupted.
    pub fn replace_account_key(&mut self, now: Now) {
        if self.rollover.is_none() {
            self.rollover = Some(None);
        }
        self.plan_if_idle(now);
    }

    /// Plans again if nothing is under way, because something may have become due.
    fn plan_if_idle(&mut self, now: Now) {
        if self.job.is_none() && matches!(self.pending, Pending::Pause { .. }) {
            self.pause(now.mono, Next::Plan);
            self.go_if_due(now);
        }
    }

    /// The configuration.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// The state that would be stored now.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// The state of each certificate, in the order in which they were given.
    #[must_use]
    pub fn status(&self, wall: u64) -> Vec<Status> {
        let none = Attempts::default();
        let status = |it: &Wanted| {
            let entry = self.state.entry(&it.names);
            let attempts = entry.map_or(&none, |it| &it.attempts);
            let window = entry.and_then(|it| it.window.as_ref());
            let due = it.certificate.as_ref().map_or(0, |it| renew_at(it, window, wall));
            let faults = self.state.faults.next;
            Status {
                names: it.names.clone(),
                not_after: it.certificate.as_ref().map(|it| it.not_after),
                next: due.max(attempts.next).max(faults),
                is_ordered: entry.is_some_and(|it| it.order.is_some()),
                failures: attempts.failures,
                last_failure: match self.state.faults.failures {
                    0 => attempts.why.clone(),
                    _ => self.state.faults.why.clone(),
                },
            }
        };
        self.wanted.iter().map(status).collect()
    }

    /// The terms of service of the CA, once its directory was read and if it has some.
    #[must_use]
    pub fn terms(&self) -> Option<&str> {
        self.directory.as_ref().and_then(|(it, _)| it.terms.as_deref())
    }

    /// The URL of the account, once it is registered.
    #[must_use]
    pub fn account(&self) -> Option<&str> {
        match &self.state.account {
            Account::Known(url) => Some(url),
            Account::None | Account::Asked => None,
        }
    }

    /// The challenges that validators are answered now.
    pub(super) fn provided(&self) -> &[Challenge] {
        &self.provided
    }

    /// The next action for the driver.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The next request to the CA. A new request replaces the one that is under way, if there is one.
    pub fn poll_request(&mut self) -> Option<Request> {
        self.request.take()
    }

    /// When [`Client::handle_timeout`] is to be called.
    #[must_use]
    pub const fn due(&self) -> Time {
        match &self.pending {
            Pending::Pause { until, .. }
            | Pending::Answer { until, .. }
            | Pending::Response { until, .. } => *until,
        }
    }

    /// Handles deadlines that have passed.
    pub fn handle_timeout(&mut self, now: Now) {
        if self.due() > now.mono {
            return;
        }
        match &self.pending {
            Pending::Pause { .. } => self.go_if_due(now),
            Pending::Answer { .. } => self.driver_failed("it did not answer in time", now),
            Pending::Response { .. } => self.fault("the response", "it did not come in time", None, now),
        }
    }

    /// The answer to a question. An answer to another question than the open one is ignored.
    pub fn handle_answer(&mut self, id: QuestionId, answer: Answer, now: Now) {
        match &self.pending {
            Pending::Answer { id: open, .. } if *open == id => {}
            _ => return,
        }
        let plan = Pending::Pause { until: now.mono, next: Next::Plan };
        let Pending::Answer { then, .. } = core::mem::replace(&mut self.pending, plan) else { return };
        if matches!(then, Then::Stored(_)) {
            self.emit_unstored();
        }
        match (then, answer) {
            (Then::Stored(next), Answer::Done) => {
                self.driver_failures = 0;
                self.go(next, now);
            }
            (Then::SignedCall(message), Answer::Signed(signature)) => self.post(&message, &signature, now),
            (Then::SignedKeyChange(message), Answer::Signed(signature)) => {
                self.change_key(&message.signed(&signature), now);
            }
            (Then::Made, Answer::Request { der }) => self.made(&der, now),
            (Then::Provided(_, next), Answer::Done) => self.go(next, now),
            (Then::Provided(challenge, _), Answer::Failed { why } | Answer::Refused { why }) => {
                self.provided.retain(|it| *it != challenge);
                self.driver_failed(&why, now);
            }
            (Then::Inspected, Answer::Inspected { topmost_issuer }) => {
                self.inspected(Some(&topmost_issuer), now)
            }
            (Then::Inspected, Answer::Refused { .. }) => self.inspected(None, now),
            (Then::Installed, Answer::Installed(certificate)) => self.installed(certificate, now),
            (Then::Installed, Answer::Refused { why }) => self.fail("the certificate", &why, None, now),
            (Then::AccountKeyMade, Answer::AccountKey(key)) => self.look_for_next_key(key, now),
            (Then::AccountKeyReplaced, Answer::Done) => self.key_replaced(now),
            (_, Answer::Failed { why } | Answer::Refused { why }) => self.driver_failed(&why, now),
            (then, _) => {
                debug_assert!(false, "an answer to another question than {then:?}");
                self.driver_failed("it gave another answer", now);
            }
        }
    }

    /// The response to a request, or why there is none. A response to another request than the last one is ignored.
    pub fn handle_response(&mut self, id: u32, response: Result<Response, NoResponse>, now: Now) {
        match &self.pending {
            Pending::Response { id: open, .. } if *open == id => {}
            _ => return,
        }
        let plan = Pending::Pause { until: now.mono, next: Next::Plan };
        let Pending::Response { exchange, .. } = core::mem::replace(&mut self.pending, plan) else { return };
        let response = match response {
            Ok(response) => response,
            Err(why) => return self.no_response(&exchange, why, now),
        };
        if let Some(nonce) = &response.nonce {
            self.nonce = Some(nonce.clone());
        }
        if let Some(date) = response.date
            && date.abs_diff(now.wall) > super::attempts::DAY
        {
            return self.clock_differs(date, now);
        }
        match exchange {
            Exchange::Directory(next) => self.directory_read(&response, next, now),
            Exchange::Nonce if (200..300).contains(&response.status) && response.nonce.is_some() => {
                self.send_call(now);
            }
            Exchange::Nonce => self.bad_response("a nonce", &response, now),
            Exchange::Call => self.called(response, now),
            Exchange::RenewalInfo(names) => self.renewal_info(&names, &response, now),
        }
    }

    /// Performs a step.
    fn go(&mut self, next: Next, now: Now) {
        match next {
            Next::Plan => self.plan(now),
            Next::Directory(next) => {
                let url = self.config.directory.clone();
                self.request(Method::Get, url, String::new(), Exchange::Directory(*next), now);
            }
            Next::Account => self.look_for_account(now),
            Next::Register => self.register(now),
            Next::Begin(names) => self.begin_order(names, now),
            Next::Resume(names) => self.resume_order(names, now),
            Next::NewOrder => self.new_order(now),
            Next::Look => self.look(now),
            Next::Proceed(order) => self.proceed(order, None, now),
            Next::Authorization => self.authorization(now),
            Next::StoreChallenge(url) => self.store_challenge(url, now),
            // The order is resumed once validators can reach the driver.
            Next::Challenge(_) if !self.is_reachable => self.plan(now),
            Next::Challenge(url) => {
                self.was_unreachable = false;
                self.call(url.clone(), "{}", By::Account, Purpose::Challenge(url), now);
            }
            Next::Finalize => self.finalize(now),
            Next::Download(url) => self.call(url, "", By::Account, Purpose::Download, now),
            Next::Deactivate(rest) => self.deactivate(rest, now),
            Next::Abandoned(url) => {
                self.abandoned.retain(|it| *it != url);
                self.call(url, "", By::Account, Purpose::Abandoned, now);
            }
            Next::RenewalInfo(names) => self.ask_renewal_info(names, now),
            Next::Rollover => self.roll_over(now),
        }
    }

    fn go_if_due(&mut self, now: Now) {
        if let Pending::Pause { until, next } = &self.pending
            && *until <= now.mono
        {
            let next = next.clone();
            self.go(next, now);
        }
    }

    fn pause(&mut self, until: Time, next: Next) {
        self.pending = Pending::Pause { until, next };
    }

    fn ask(&mut self, question: Question, then: Then, now: Now) {
        self.questions = self.questions.wrapping_add(1);
        let id = QuestionId(self.questions);
        self.actions.push_back(Action::Ask { id, question });
        self.pending = Pending::Answer { id, then, until: now.mono + ANSWER_TIMEOUT };
    }

    /// Stores the state, and continues with `next` once that is done.
    fn store(&mut self, next: Next, now: Now) {
        self.is_dirty = false;
        if matches!(next, Next::Plan) {
            self.state.unfinished = 0;
        }
        let document = self.state.to_document(&self.config.directory);
        self.ask(Question::Store { document }, Then::Stored(next), now);
    }

    fn emit(&mut self, event: Event) {
        self.actions.push_back(Action::Event(event));
    }

    /// Emits an event once the state is stored, or could not be: a pause that is reported holds across a restart.
    fn emit_stored(&mut self, event: Event) {
        self.unstored.push(event);
        self.is_dirty = true;
    }

    fn emit_unstored(&mut self) {
        self.actions.extend(self.unstored.drain(..).map(Action::Event));
    }

    /// Reports once that something has no effect.
    fn ignore(&mut self, what: &str) {
        if !self.ignored.iter().any(|it| it == what) {
            self.ignored.push(what.into());
            self.emit(Event::Ignored { what: what.into() });
        }
    }

    fn request(&mut self, method: Method, url: Url, body: String, exchange: Exchange, now: Now) {
        self.requests = self.requests.wrapping_add(1);
        let id = self.requests;
        self.request = Some(Request { id, method, url, body });
        self.pending = Pending::Response { id, exchange, until: now.mono + RESPONSE_TIMEOUT };
    }

    /// Continues with `next` once there is a directory.
    fn with_directory(&mut self, next: Next, now: Now) {
        match &self.directory {
            // A clock that has jumped is compared with the CA's before anything is ordered.
            Some((_, since))
                if now.mono.since(since.mono) < DIRECTORY_MAX_AGE
                    && now.wall.abs_diff(since.wall) < super::attempts::DAY =>
            {
                self.go(next, now);
            }
            _ => {
                self.state.unfinished = self.state.unfinished.saturating_add(1);
                self.store(Next::Directory(Box::new(next)), now);
            }
        }
    }

    fn directory_read(&mut self, response: &Response, next: Next, now: Now) {
        let directory = Directory::read(&response.body, &self.config.directory);
        match directory.filter(|_| response.status == 200) {
            Some(directory) => {
                self.directory = Some((directory, now));
                self.go(next, now);
            }
            None => self.bad_response("the directory", response, now),
        }
    }

    /// Sends a signed request. An empty payload is a POST-as-GET.
    fn call(&mut self, url: Url, payload: &str, by: By, purpose: Purpose, now: Now) {
        self.call = Some(Call { url, payload: payload.into(), by, purpose, tries: 0 });
        self.send_call(now);
    }

    fn send_call(&mut self, now: Now) {
        let Some((directory, _)) = &self.directory else { return self.plan(now) };
        let Some(call) = &mut self.call else { return self.plan(now) };
        let Some(nonce) = self.nonce.take() else {
            let url = directory.new_nonce.clone();
            return self.request(Method::Head, url, String::new(), Exchange::Nonce, now);
        };
        call.tries += 1;
        let (verifier, with) = match (&call.by, &self.state.account) {
            (By::Account, Account::Known(url)) => (Verifier::Account(url), AccountKey::Current),
            (By::NextKey(key), _) => (Verifier::Key(key), AccountKey::Next),
            (By::Key | By::Account, _) => (Verifier::Key(&self.config.account_key), AccountKey::Current),
        };
        let message = Unsigned::new(verifier, Some(&nonce), call.url.as_str(), &call.payload);
        let bytes = message.signing_input().into_bytes();
        self.ask(Question::Sign { with, bytes }, Then::SignedCall(message), now);
    }

    fn post(&mut self, message: &Unsigned, signature: &[u8; 64], now: Now) {
        let Some(call) = &self.call else { return self.plan(now) };
        let url = call.url.clone();
        self.request(Method::Post, url, message.signed(signature), Exchange::Call, now);
    }

    /// Handles the response to a signed request.
    fn called(&mut self, response: Response, now: Now) {
        let Some(Call { by, tries, purpose, .. }) = &self.call else { return self.plan(now) };
        let (by, tries, purpose) = (*by, *tries, purpose.clone());
        let step = purpose.step();
        if (200..300).contains(&response.status) {
            self.call = None;
            return self.succeeded(purpose, &response, now);
        }
        let problem = Problem::read(response.status, &response.body, &response.links);
        let tries_max =
            if self.state.faults.failures < LONG_TIME { NONCE_TRIES_MAX } else { NONCE_TRIES_LATER };
        if problem.kind == Kind::BadNonce && tries < tries_max {
            return self.send_call(now);
        }
        self.call = None;
        let asked = response.retry_after.map(|it| it.seconds(now.wall));
        let is_rate_limit = response.status == 429 || problem.kind == Kind::RateLimited;
        let is_fault = match response.status {
            429 => !(matches!(purpose, Purpose::NewOrder) && problem.kind == Kind::RateLimited),
            // A proxy in front of the CA may refuse any request without a problem document.
            400..500 if !problem.is_document => response.status != 404,
            400..500 => matches!(problem.kind, Kind::BadNonce | Kind::ServerInternal),
            _ => true,
        };
        if is_fault || (is_rate_limit && !matches!(purpose, Purpose::NewOrder)) {
            return self.fault(step, &problem.text, asked, now);
        }
        if problem.kind == Kind::AccountDoesNotExist && by == By::Account {
            return self.account_lost(&problem, now);
        }
        if problem.kind == Kind::UserActionRequired {
            return self.stop(step, &problem.text, now);
        }
        self.refused(purpose, &response, problem, now);
    }

    /// Handles a successful response.
    fn succeeded(&mut self, purpose: Purpose, response: &Response, now: Now) {
        match purpose {
            Purpose::Lookup | Purpose::Register => self.account_found(response, now),
            Purpose::CheckAccount(problem) => self.account_checked(&problem, response, now),
            Purpose::NewOrder => self.ordered(response, now),
            Purpose::Look | Purpose::Finalize => self.order_read(purpose.step(), response, now),
            Purpose::Authorization => self.authorization_read(response, now),
            Purpose::Challenge(url) => self.challenge_sent(url, response, now),
            Purpose::Download | Purpose::Alternate => self.downloaded(&purpose, response, now),
            Purpose::LookToDeactivate(rest) => self.deactivate_if_pending(rest, response, now),
            Purpose::Deactivate(rest) => self.go(Next::Deactivate(rest), now),
            Purpose::Abandoned => self.abandoned_read(response, now),
            Purpose::RolloverLookup | Purpose::KeyChange => {
                self.ask(Question::ReplaceAccountKey, Then::AccountKeyReplaced, now);
            }
        }
    }

    /// Handles a response by which the CA refuses the request itself.
    fn refused(&mut self, purpose: Purpose, response: &Response, problem: Problem, now: Now) {
        let asked = response.retry_after.map(|it| it.seconds(now.wall));
        let step = purpose.step();
        match purpose {
            Purpose::Lookup if problem.kind != Kind::Unauthorized => self.register(now),
            Purpose::Lookup | Purpose::Register => self.stop(step, &problem.text, now),
            Purpose::CheckAccount(refusal) => {
                let why = alloc::format!("{}; the account: {}", refusal.text, problem.text);
                self.stop(step, &why, now);
            }
            Purpose::NewOrder => self.order_refused(problem, asked, now),
            // It was posted before, or the authorization is final: read the authorization.
            Purpose::Challenge(url) => self.challenge_sent(url, response, now),
            Purpose::Finalize if problem.kind == Kind::OrderNotReady => self.not_ready(response, now),
            Purpose::Look | Purpose::Authorization | Purpose::Finalize | Purpose::Download => {
                self.fail(step, &problem.text, asked, now);
            }
            Purpose::Alternate => self.next_alternate(now),
            Purpose::Abandoned => self.plan(now),
            Purpose::LookToDeactivate(rest) | Purpose::Deactivate(rest) => {
                self.go(Next::Deactivate(rest), now)
            }
            Purpose::RolloverLookup => self.sign_key_change(now),
            Purpose::KeyChange => self.key_refused(&problem, now),
        }
    }
}

/// Hash of the settings whose change allows an early attempt.
fn fingerprint(config: &Config) -> String {
    let mut hash = Sha256::new();
    let mut add = |text: &str| {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text.as_bytes());
    };
    for contact in &config.contacts {
        add(contact);
    }
    add(if config.agrees_to_terms { "agreed" } else { "" });
    for kind in &config.challenges {
        add(kind.as_str());
    }
    add(config.profile.as_deref().unwrap_or_default());
    add(config.external_account.as_ref().map_or("", |it| &it.key_id));
    data_encoding::HEXLOWER.encode(&hash.finalize()[..8])
}
