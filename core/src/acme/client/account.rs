//! The account: look-up, registration, loss, and replacement of its key (RFC 8555 §7.3).

use alloc::format;
use alloc::string::String;

use super::super::action::Question;
use super::super::attempts::{DAY, jitter};
use super::super::config::PublicKey;
use super::super::event::Event;
use super::super::jose::{Unsigned, Verifier, external_binding, jwk, thumbprint};
use super::super::json::{join, quoted};
use super::super::message::Response;
use super::super::objects::is_account_valid;
use super::super::problem::Problem;
use super::super::state::Account;
use super::super::url::Url;
use super::{AccountKey, By, Client, Next, Purpose, Then};
use crate::time::Now;

impl Client {
    /// Registers an account, or looks it up first if the response to an earlier registration was lost: a CA that binds
    /// accounts refuses the same binding again.
    pub(super) fn look_for_account(&mut self, now: Now) {
        if !self.config.agrees_to_terms {
            return self.stop(
                "the registration",
                "the operator has not agreed to the CA's terms of service",
                now,
            );
        }
        match self.state.account {
            Account::Known(_) => self.plan(now),
            Account::None => {
                self.state.account = Account::Asked;
                self.store(Next::Register, now);
            }
            Account::Asked => {
                let Some((directory, _)) = &self.directory else { return self.plan(now) };
                let url = directory.new_account.clone();
                self.call(url, r#"{"onlyReturnExisting":true}"#, By::Key, Purpose::Lookup, now);
            }
        }
    }

    pub(super) fn register(&mut self, now: Now) {
        let Some((directory, _)) = &self.directory else { return self.plan(now) };
        let url = directory.new_account.clone();
        let mut payload = String::from(r#"{"termsOfServiceAgreed":true"#);
        if !self.config.contacts.is_empty() {
            let contacts = join(self.config.contacts.iter().map(|it| quoted(it)));
            payload.push_str(&format!(r#","contact":[{contacts}]"#));
        }
        match &self.config.external_account {
            Some(account) => {
                let binding = external_binding(account, &self.config.account_key, url.as_str());
                payload.push_str(&format!(r#","externalAccountBinding":{binding}"#));
            }
            None if directory.needs_external_account => {
                const WHY: &str =
                    "the CA binds accounts to external accounts (EAB): key id and MAC key are missing";
                return self.stop("the registration", WHY, now);
            }
            None => {}
        }
        payload.push('}');
        self.call(url, &payload, By::Key, Purpose::Register, now);
    }

    pub(super) fn account_found(&mut self, response: &Response, now: Now) {
        let url = response.location.as_deref().and_then(Url::parse);
        match url.filter(|it| it.is_same_origin(&self.config.directory)) {
            Some(_) if !is_account_valid(&response.body) => {
                self.stop("the account", "the CA has deactivated it", now);
            }
            Some(url) => {
                self.state.account = Account::Known(url.as_str().into());
                self.emit(Event::Account { url: url.as_str().into() });
                self.store(Next::Plan, now);
            }
            None => self.fault("the account", "the response has no URL of the CA", None, now),
        }
    }

    /// Handles the account's state after an order was refused as unauthorized.
    pub(super) fn account_checked(&mut self, refusal: &Problem, response: &Response, now: Now) {
        if is_account_valid(&response.body) {
            self.fail("the order", &refusal.text, None, now);
        } else {
            self.stop("the account", &format!("the CA has deactivated it: {}", refusal.text), now);
        }
    }

    /// The CA does not know the account's URL. The account is looked up by its key, and registered again if the key is
    /// unknown as well. This happens once; orders of the old account are lost.
    pub(super) fn account_lost(&mut self, problem: &Problem, now: Now) {
        if self.account_was_lost {
            return self.fault("the account", &problem.text, None, now);
        }
        self.account_was_lost = true;
        self.abandon(now);
        self.state.account = Account::Asked;
        let names: alloc::vec::Vec<_> = self.state.entries.keys().cloned().collect();
        for names in names {
            self.drop_order(&names);
        }
        let (step, why) = ("the account", problem.text.clone());
        self.emit(Event::Failed { names: None, step, why, challenge: None, again: 0 });
        self.store(Next::Plan, now);
    }

    /// Pauses all requests for a day, because an operator has to act first.
    pub(super) fn stop(&mut self, step: &'static str, why: &str, now: Now) {
        let names = self.job.as_ref().map(|job| job.names.clone());
        self.abandon(now);
        let again = jitter(DAY, &mut self.entropy);
        self.state.faults.add(why, 0, Some(again), &mut self.entropy, now.wall);
        self.emit_stored(Event::Failed { names, step, why: why.into(), challenge: None, again });
        self.store(Next::Plan, now);
    }

    /// Begins to replace the key: the driver makes one, or has it from an earlier attempt.
    pub(super) fn roll_over(&mut self, now: Now) {
        self.ask(Question::MakeAccountKey, Then::AccountKeyMade, now);
    }

    /// Asks the CA whether it knows the new key, because an earlier attempt may have succeeded.
    pub(super) fn look_for_next_key(&mut self, key: PublicKey, now: Now) {
        self.rollover = Some(Some(key));
        let Some((directory, _)) = &self.directory else { return self.plan(now) };
        let url = directory.new_account.clone();
        let payload = r#"{"onlyReturnExisting":true}"#;
        self.call(url, payload, By::NextKey(key), Purpose::RolloverLookup, now);
    }

    /// The CA does not know the new key.
    pub(super) fn sign_key_change(&mut self, now: Now) {
        let Some(Some(key)) = &self.rollover else { return self.plan(now) };
        let url = self.directory.as_ref().and_then(|(it, _)| it.key_change.as_ref());
        let (Some(url), Account::Known(account)) = (url, &self.state.account) else {
            self.rollover = None;
            self.ignore("the new account key: the CA replaces no keys");
            return self.plan(now);
        };
        let old = jwk(&self.config.account_key);
        let payload = format!(r#"{{"account":{},"oldKey":{old}}}"#, quoted(account));
        let message = Unsigned::new(Verifier::Key(key), None, url.as_str(), &payload);
        let bytes = message.signing_input().into_bytes();
        self.ask(Question::Sign { with: AccountKey::Next, bytes }, Then::SignedKeyChange(message), now);
    }

    pub(super) fn change_key(&mut self, payload: &str, now: Now) {
        let Some(url) = self.directory.as_ref().and_then(|(it, _)| it.key_change.clone()) else {
            return self.plan(now);
        };
        self.call(url, payload, By::Account, Purpose::KeyChange, now);
    }

    pub(super) fn key_refused(&mut self, problem: &Problem, now: Now) {
        self.rollover = None;
        let why = problem.text.clone();
        self.emit(Event::Failed { names: None, step: "the account key", why, challenge: None, again: 0 });
        self.plan(now);
    }

    /// Both the CA and the driver have the new key.
    pub(super) fn key_replaced(&mut self, now: Now) {
        if let Some(Some(key)) = self.rollover.take() {
            self.config.account_key = key;
            self.state.key = thumbprint(&key);
            self.emit(Event::AccountKeyReplaced);
        }
        self.store(Next::Plan, now);
    }
}
