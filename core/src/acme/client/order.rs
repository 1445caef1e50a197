//! An order, from the first request to the certificate (RFC 8555 §7.4, §7.5). After every response the order's own state
//! decides what follows (`docs/acme.md §4`).

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use data_encoding::BASE64URL_NOPAD as BASE64URL;
use sha2::{Digest, Sha256};

use super::super::action::{Certificate, Challenge, Proof, Question};
use super::super::attempts::{DAY, Faults, PAUSE_MAX};
use super::super::config::ChallengeKind;
use super::super::event::Event;
use super::super::jose::thumbprint;
use super::super::json::{join, quoted};
use super::super::message::Response;
use super::super::names::Names;
use super::super::objects::{Authorization, AuthorizationStatus, Offered, Order, OrderStatus};
use super::super::pem::parse_chain;
use super::super::problem::{Kind, Problem};
use super::super::renewal::renew_at;
use super::super::state::StoredOrder;
use super::super::url::Url;
use super::{By, Client, Next, Purpose, Then};
use crate::time::{Now, Span, Time};

/// How long an unchanged state is polled before the order is postponed in favour of others.
const POLLING_MAX: Span = Span::from_secs(300);
/// The longest pause between two polls.
const POLL_MAX: u64 = 30;
/// An order whose next poll is later than this is postponed in favour of others.
const POLL_ASKED_MAX: u64 = 60;
/// The first pause of a postponed order; it doubles each time.
const PARK: u64 = 10 * 60;
/// The longest pause of a postponed order.
const PARK_MAX: u64 = 6 * 3_600;
/// How long new orders wait at a limit of the CA without `Retry-After`.
const LIMIT_PAUSE: u64 = 3_600;

/// The order that is under way.
#[derive(Debug)]
pub(super) struct OrderJob {
    pub(super) names: Names,
    /// Whether the order says which certificate it replaces.
    replaces: bool,
    /// The attempt was counted by this job.
    pub(super) is_counted: bool,
    pub(super) authorizations: Vec<Url>,
    /// The index of the current authorization.
    pub(super) at: usize,
    /// Whether a failure deactivates the pending authorizations that follow.
    pub(super) is_deactivating: bool,
    /// Whether validators could not reach the driver: then a failure of the order does not count.
    pub(super) is_excused: bool,
    /// Whether the order is invalid and its authorizations are read for the reason.
    is_invalid: bool,
    finalize: Option<Url>,
    /// The certificate request was sent.
    is_finalized: bool,
    polls: u32,
    polling_since: Time,
    /// Whether the order was postponed and has not changed since: then it is polled once.
    was_parked: bool,
    /// The default chain.
    chain: String,
    /// The chain whose issuer is being inspected.
    candidate: String,
    /// The alternate chains that are not downloaded yet.
    alternates: Vec<Url>,
}

impl OrderJob {
    fn new(names: Names, now: Now) -> Self {
        Self {
            names,
            replaces: false,
            is_counted: false,
            authorizations: Vec::new(),
            at: 0,
            is_deactivating: false,
            is_excused: false,
            is_invalid: false,
            finalize: None,
            is_finalized: false,
            polls: 0,
            polling_since: now.mono,
            was_parked: false,
            chain: String::new(),
            candidate: String::new(),
            alternates: Vec::new(),
        }
    }

    /// Something has changed: polling begins anew.
    fn progressed(&mut self, now: Now) {
        self.polls = 0;
        self.polling_since = now.mono;
    }
}

impl Client {
    /// The attempt is stored before the order is placed, so that a crash counts as well; and storing it shows that there is
    /// room for the certificate.
    pub(super) fn begin_order(&mut self, names: Names, now: Now) {
        let cap = self.attempt_cap(&names, now.wall);
        let why = if self.certificate(&names).is_some() { "renewal" } else { "first certificate" };
        let mut job = OrderJob::new(names.clone(), now);
        job.replaces = self.replaces(&names).is_some();
        job.is_counted = true;
        self.job = Some(job);
        self.state.entry_mut(&names).attempts.begin(cap, &mut self.entropy, now.wall);
        self.emit(Event::Ordering { names, why });
        self.store(Next::NewOrder, now);
    }

    pub(super) fn resume_order(&mut self, names: Names, now: Now) {
        let was_parked = self.parked.contains_key(&names);
        // Resuming a postponed order is not reported.
        if !was_parked {
            self.emit(Event::Ordering { names: names.clone(), why: "taken up again" });
        }
        self.job = Some(OrderJob { was_parked, ..OrderJob::new(names, now) });
        self.look(now);
    }

    pub(super) fn new_order(&mut self, now: Now) {
        let (Some(job), Some((directory, _))) = (&self.job, &self.directory) else { return self.plan(now) };
        let names = job.names.as_slice().iter();
        let names = join(names.map(|it| format!(r#"{{"type":"dns","value":{}}}"#, quoted(it))));
        let mut payload = format!(r#"{{"identifiers":[{names}]"#);
        let mut unknown = None;
        if let Some(profile) = &self.config.profile {
            if directory.profiles.contains(profile) {
                payload.push_str(&format!(r#","profile":{}"#, quoted(profile)));
            } else {
                let known = directory.profiles.join(", ");
                unknown = Some(format!(
                    "profile {profile}: the CA has {}",
                    if known.is_empty() { "none" } else { &known }
                ));
            }
        }
        if job.replaces
            && let Some(id) = self.replaces(&job.names)
        {
            payload.push_str(&format!(r#","replaces":{}"#, quoted(&id)));
        }
        payload.push('}');
        let url = directory.new_order.clone();
        if let Some(unknown) = unknown {
            self.ignore(&unknown);
        }
        self.call(url, &payload, By::Account, Purpose::NewOrder, now);
    }

    /// The CA has made an order, or returned the one that there is for these names.
    pub(super) fn ordered(&mut self, response: &Response, now: Now) {
        let Some(job) = &mut self.job else { return self.plan(now) };
        let own = &self.config.directory;
        let url = response.location.as_deref().and_then(Url::parse).filter(|it| it.is_same_origin(own));
        let (Some(url), Some(order)) = (url, Order::read(&response.body, own)) else {
            return self.bad_response("the order", response, now);
        };
        job.progressed(now);
        let stored =
            StoredOrder { url, expires: order.expires, csr: None, certificate: None, challenge: None };
        self.state.entries.entry(job.names.clone()).or_default().order = Some(stored);
        self.store(Next::Proceed(order), now);
    }

    pub(super) fn order_refused(&mut self, problem: Problem, asked: Option<u64>, now: Now) {
        let Some(job) = &mut self.job else { return self.plan(now) };
        let is_limit = problem.kind == Kind::RateLimited;
        if job.replaces && !is_limit {
            // RFC 9773 §5: alreadyReplaced, or another account's; some CAs say conflict, malformed or unauthorized.
            job.replaces = false;
            return self.new_order(now);
        }
        if is_limit {
            let pause = asked.unwrap_or(LIMIT_PAUSE).min(PAUSE_MAX);
            if !job.replaces {
                self.state.orders_from = now.wall.saturating_add(pause);
            }
            return self.fail("the order", &problem.text, asked, now);
        }
        if problem.kind == Kind::Unauthorized
            && let Some(url) = self.account().and_then(Url::parse)
        {
            return self.call(url, "", By::Account, Purpose::CheckAccount(problem), now);
        }
        self.fail("the order", &problem.text, asked, now);
    }

    fn order(&mut self) -> Option<&mut StoredOrder> {
        let names = &self.job.as_ref()?.names;
        self.state.entries.get_mut(names)?.order.as_mut()
    }

    /// Asks for the state of the order.
    pub(super) fn look(&mut self, now: Now) {
        let Some(url) = self.order().map(|it| it.url.clone()) else { return self.plan(now) };
        self.call(url, "", By::Account, Purpose::Look, now);
    }

    pub(super) fn order_read(&mut self, step: &'static str, response: &Response, now: Now) {
        let asked = response.retry_after.map(|it| it.seconds(now.wall));
        match Order::read(&response.body, &self.config.directory) {
            Some(order) => self.proceed(order, asked, now),
            None => self.bad_response(step, response, now),
        }
    }

    pub(super) fn proceed(&mut self, order: Order, asked: Option<u64>, now: Now) {
        if let Some(stored) = self.order() {
            stored.expires = order.expires.or(stored.expires);
        }
        let Some(job) = &mut self.job else { return self.plan(now) };
        if !order.authorizations.is_empty() {
            job.authorizations = order.authorizations;
        }
        job.finalize = order.finalize.or(job.finalize.take());
        match order.status {
            OrderStatus::Pending if job.at < job.authorizations.len() => self.authorization(now),
            // The certificate request came too early, or all authorizations are valid and the order is not ready yet.
            OrderStatus::Pending => {
                job.is_finalized = false;
                self.poll(asked, Next::Look, now);
            }
            OrderStatus::Ready if !job.is_finalized => self.finalize(now),
            OrderStatus::Ready | OrderStatus::Processing => self.poll(asked, Next::Look, now),
            OrderStatus::Valid => match order.certificate {
                Some(url) => {
                    job.progressed(now);
                    if let Some(stored) = self.order() {
                        stored.certificate = Some(url.clone());
                    }
                    self.store(Next::Download(url), now);
                }
                None => self.poll(asked, Next::Look, now),
            },
            // The authorizations may contain the reason.
            OrderStatus::Invalid if order.error.is_none() && !job.is_invalid => {
                job.is_invalid = true;
                job.at = 0;
                self.authorization(now);
            }
            OrderStatus::Invalid => {
                let why = order.error.map_or_else(|| String::from("the CA does not say why"), |it| it.text);
                self.fail("the order", &why, None, now);
            }
        }
    }

    pub(super) fn authorization(&mut self, now: Now) {
        let url = self.job.as_ref().and_then(|job| job.authorizations.get(job.at)).cloned();
        match url {
            Some(url) => self.call(url, "", By::Account, Purpose::Authorization, now),
            None => self.look(now),
        }
    }

    pub(super) fn authorization_read(&mut self, response: &Response, now: Now) {
        let Some(job) = &mut self.job else { return self.plan(now) };
        let authorization = Authorization::read(&response.body, &self.config.directory);
        let Some(authorization) = authorization.filter(|it| job.names.as_slice().contains(&it.name)) else {
            return self.bad_response("the authorization", response, now);
        };
        let asked = response.retry_after.map(|it| it.seconds(now.wall));
        match authorization.status {
            AuthorizationStatus::Valid => {
                job.at += 1;
                job.progressed(now);
                self.withdraw_challenge();
                self.authorization(now);
            }
            AuthorizationStatus::Dead => {
                job.at += 1;
                job.is_excused = self.was_unreachable;
                job.is_deactivating = true;
                let why = authorization.error.map_or_else(
                    || format!("the CA does not say why {} is not authorized", authorization.name),
                    |it| format!("{}: {}", authorization.name, it.text),
                );
                self.fail("the authorization", &why, asked, now);
            }
            AuthorizationStatus::Pending if job.is_invalid => {
                job.at += 1;
                self.authorization(now);
            }
            AuthorizationStatus::Pending => {
                let kinds = self.config.challenges.iter();
                let offered =
                    |kind: &ChallengeKind| authorization.challenges.iter().find(|it| it.kind == *kind);
                let offered: Vec<&Offered> = kinds.filter_map(offered).collect();
                let posted = self.posted.get(&job.names).map_or(&[][..], Vec::as_slice);
                // Each attempt takes the next kind: validators may reach only one of the ports.
                let attempt = self.state.entry(&job.names).map_or(0, |it| it.attempts.failures);
                let turn = attempt.saturating_sub(1) as usize % offered.len().max(1);
                match offered.get(turn) {
                    Some(it) if it.is_pending && !posted.contains(&it.url) => {
                        self.answer_challenge(&authorization.name, it, now);
                    }
                    Some(_) => self.poll(asked, Next::Authorization, now),
                    None => {
                        job.is_deactivating = true;
                        let why = format!(
                            "the CA offers no challenge for {} that is answered here, but {}",
                            authorization.name,
                            authorization.types.join(", ")
                        );
                        self.fail("the authorization", &why, None, now);
                    }
                }
            }
        }
    }

    fn answer_challenge(&mut self, name: &str, offered: &Offered, now: Now) {
        let key_authorization = format!("{}.{}", offered.token, thumbprint(&self.config.account_key));
        let proof = match offered.kind {
            ChallengeKind::TlsAlpn01 => {
                Proof::TlsAlpn01 { digest: Sha256::digest(key_authorization.as_bytes()).into() }
            }
            ChallengeKind::Http01 => Proof::Http01 { token: offered.token.clone(), key_authorization },
        };
        let challenge = Challenge { name: name.into(), proof };
        self.withdraw_other(&challenge);
        if let Some(order) = self.order() {
            order.challenge = Some(challenge.clone());
        }
        self.provide(challenge, Next::StoreChallenge(offered.url.clone()), now);
    }

    /// After a crash, validators may come before the CA has been asked anything.
    pub(super) fn store_challenge(&mut self, url: Url, now: Now) {
        self.store(Next::Challenge(url), now);
    }

    /// Withdraws an earlier challenge of this order.
    fn withdraw_other(&mut self, challenge: &Challenge) {
        let other = self.order().and_then(|it| it.challenge.take_if(|it| it != challenge));
        if let Some(other) = other {
            self.withdraw(&other);
        }
    }

    fn withdraw_challenge(&mut self) {
        if let Some(challenge) = self.order().and_then(|it| it.challenge.take()) {
            self.is_dirty = true;
            self.withdraw(&challenge);
        }
    }

    /// The CA validates, or has already done so: the authorization is read.
    pub(super) fn challenge_sent(&mut self, url: Url, response: &Response, now: Now) {
        let Some(job) = &mut self.job else { return self.plan(now) };
        self.posted.entry(job.names.clone()).or_default().push(url);
        job.progressed(now);
        job.was_parked = false;
        let asked = response.retry_after.map(|it| it.seconds(now.wall));
        self.poll(asked, Next::Authorization, now);
    }

    /// Sends the certificate request. It is made and stored before, so that a certificate that comes after a crash has a
    /// key.
    pub(super) fn finalize(&mut self, now: Now) {
        let csr = self.order().and_then(|it| it.csr.clone());
        let Some(job) = &mut self.job else { return self.plan(now) };
        let Some(csr) = csr else {
            let names = job.names.clone();
            return self.ask(Question::MakeRequest { names }, Then::Made, now);
        };
        let Some(url) = job.finalize.clone() else {
            return self.fault("the order", "it has no URL for the certificate request", None, now);
        };
        job.is_finalized = true;
        job.progressed(now);
        job.was_parked = false;
        self.call(url, &format!(r#"{{"csr":"{csr}"}}"#), By::Account, Purpose::Finalize, now);
    }

    pub(super) fn made(&mut self, der: &[u8], now: Now) {
        let Some(order) = self.order() else { return self.plan(now) };
        order.csr = Some(BASE64URL.encode(der));
        self.store(Next::Finalize, now);
    }

    /// The CA is not ready for the certificate request, although the order was `ready`.
    pub(super) fn not_ready(&mut self, response: &Response, now: Now) {
        if let Some(job) = &mut self.job {
            job.is_finalized = false;
        }
        let asked = response.retry_after.map(|it| it.seconds(now.wall));
        self.poll(asked, Next::Look, now);
    }

    pub(super) fn downloaded(&mut self, purpose: &Purpose, response: &Response, now: Now) {
        let Some(job) = &mut self.job else { return self.plan(now) };
        let chain = parse_chain(&response.body);
        match (chain, purpose) {
            (Some(chain), Purpose::Alternate) => job.candidate = chain,
            (Some(chain), _) => {
                let own = &self.config.directory;
                let urls = response.alternates.iter().filter_map(|it| Url::parse(it));
                job.alternates = urls.filter(|it| it.is_same_origin(own)).collect();
                job.candidate.clone_from(&chain);
                job.chain = chain;
            }
            (None, Purpose::Alternate) => return self.next_alternate(now),
            (None, _) => {
                return self.fault("the download", "it is no chain of certificates in PEM", None, now);
            }
        }
        let chain = job.candidate.clone();
        if self.config.preferred_chain.is_some() {
            self.ask(Question::Inspect { chain }, Then::Inspected, now);
        } else {
            self.install(chain, now);
        }
    }

    /// The issuer of the topmost certificate of the chain that is looked at; `None`: it cannot be read.
    pub(super) fn inspected(&mut self, topmost_issuer: Option<&str>, now: Now) {
        let Some(job) = &self.job else { return self.plan(now) };
        if topmost_issuer.is_some() && topmost_issuer == self.config.preferred_chain.as_deref() {
            let chain = job.candidate.clone();
            return self.install(chain, now);
        }
        self.next_alternate(now);
    }

    pub(super) fn next_alternate(&mut self, now: Now) {
        let Some(job) = &mut self.job else { return self.plan(now) };
        if !job.alternates.is_empty() {
            let url = job.alternates.remove(0);
            return self.call(url, "", By::Account, Purpose::Alternate, now);
        }
        let chain = job.chain.clone();
        let wanted = self.config.preferred_chain.clone().unwrap_or_default();
        self.ignore(&format!("preferred chain {wanted}: the CA has no such chain, and its default is used"));
        self.install(chain, now);
    }

    fn install(&mut self, chain: String, now: Now) {
        let Some(job) = &self.job else { return self.plan(now) };
        let names = job.names.clone();
        self.ask(Question::Install { names, chain }, Then::Installed, now);
    }

    /// The certificate is on disk: only this ends the count of failures.
    pub(super) fn installed(&mut self, certificate: Certificate, now: Now) {
        let Some(job) = self.job.take() else { return self.plan(now) };
        self.drop_order(&job.names);
        let id = certificate.renewal_id();
        let issued = id.zip(self.account().map(String::from));
        let not_after = certificate.not_after;
        let entry = self.state.entry_mut(&job.names);
        entry.attempts.succeed((certificate.lifetime() / 10).min(DAY), now.wall);
        entry.window = None;
        // Renewal information is asked for at once.
        entry.look_at = now.wall;
        entry.issued = issued;
        let renew_at = renew_at(&certificate, None, now.wall);
        self.state.faults = Faults::default();
        self.account_was_lost = false;
        self.reported.remove(&job.names);
        if let Some(wanted) = self.wanted.iter_mut().find(|it| it.names == job.names) {
            wanted.certificate = Some(certificate);
        }
        self.emit(Event::Installed { names: job.names, not_after, renew_at });
        self.store(Next::Plan, now);
    }

    /// Polls again after a pause. An order that takes too long is postponed in favour of others.
    fn poll(&mut self, asked: Option<u64>, next: Next, now: Now) {
        let Some(job) = &mut self.job else { return self.plan(now) };
        let pause = asked.map_or_else(|| POLL_MAX.min(1 << job.polls.min(5)), |it| it.max(1));
        job.polls += 1;
        let is_slow = job.was_parked || now.mono.since(job.polling_since) >= POLLING_MAX;
        if pause > POLL_ASKED_MAX || is_slow {
            return self.park(asked, now);
        }
        self.pause(now.mono + Span::from_secs(pause), next);
    }

    fn park(&mut self, asked: Option<u64>, now: Now) {
        let Some(job) = self.job.take() else { return self.plan(now) };
        let times = self.parked.get(&job.names).map_or(0, |(_, times)| *times);
        let pause =
            PARK.saturating_mul(1 << times.min(6)).min(PARK_MAX).max(asked.unwrap_or(0).min(PARK_MAX));
        let pause = self.jittered(pause);
        self.parked.insert(job.names, (now.mono + Span::from_secs(pause), times + 1));
        self.state.faults = Faults::default();
        self.plan(now);
    }

    /// Handles the state of an abandoned order. If it is pending, its authorizations may be pending too.
    pub(super) fn abandoned_read(&mut self, response: &Response, now: Now) {
        let order = Order::read(&response.body, &self.config.directory);
        match order.filter(|it| it.status == OrderStatus::Pending) {
            Some(order) => self.deactivate(order.authorizations, now),
            None => self.plan(now),
        }
    }

    /// Deactivates those of the authorizations that are pending (RFC 8555 §7.5.2).
    pub(super) fn deactivate(&mut self, mut rest: Vec<Url>, now: Now) {
        if rest.is_empty() {
            return self.plan(now);
        }
        let url = rest.remove(0);
        let mut with = Vec::from([url.clone()]);
        with.extend(rest);
        self.call(url, "", By::Account, Purpose::LookToDeactivate(with), now);
    }

    pub(super) fn deactivate_if_pending(&mut self, mut rest: Vec<Url>, response: &Response, now: Now) {
        let authorization = Authorization::read(&response.body, &self.config.directory);
        let url = rest.remove(0);
        if authorization.is_some_and(|it| it.status == AuthorizationStatus::Pending) {
            self.call(url, r#"{"status":"deactivated"}"#, By::Account, Purpose::Deactivate(rest), now);
        } else {
            self.deactivate(rest, now);
        }
    }
}
