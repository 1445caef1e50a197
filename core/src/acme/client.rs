//! The client: account, orders, renewals.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

use super::action::{Action, Answer, Certificate, QuestionId};
use super::config::Config;
use super::names::Names;
use super::state::State;
use crate::time::{Now, Time};

/// A certificate that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its names.
    pub names: Names,
    /// The one that is stored, if there is one.
    pub certificate: Option<Certificate>,
}

/// How things are with one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its names.
    pub names: Names,
    /// The end of its validity, in seconds since 1970; `None` if there is no certificate.
    pub not_after: Option<u64>,
    /// The next order, or the next attempt of one that failed, in seconds since 1970. In the past: due.
    pub next: u64,
    /// How many attempts have failed since the last certificate.
    pub failures: u32,
    /// The last failure; empty if there was none.
    pub last_failure: String,
}

/// An ACME client. See the [module](super).
#[derive(Debug)]
pub struct Client {
    config: Config,
    state: State,
    wanted: Vec<Wanted>,
    actions: VecDeque<Action>,
}

impl Client {
    /// A client that begins at once. `wanted` are all certificates, the most urgent first. `seed` is from the operating
    /// system: all delays have jitter.
    #[must_use]
    pub fn new(config: Config, state: State, wanted: Vec<Wanted>, seed: [u8; 32], now: Now) -> Self {
        let _ = (seed, now);
        Self { config, state, wanted, actions: VecDeque::new() }
    }

    /// Replaces the list of certificates. Orders of names that are not listed any more end.
    pub fn set_wanted(&mut self, wanted: Vec<Wanted>, now: Now) {
        let _ = now;
        self.wanted = wanted;
    }

    /// The configuration.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// What would be stored now.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// How things are with each certificate, in the order in which they were given.
    #[must_use]
    pub fn status(&self) -> Vec<Status> {
        let status = |it: &Wanted| Status {
            names: it.names.clone(),
            not_after: it.certificate.as_ref().map(|it| it.not_after),
            next: 0,
            failures: 0,
            last_failure: String::new(),
        };
        self.wanted.iter().map(status).collect()
    }

    /// The answer to a question. An answer to another question than the open one is ignored.
    pub fn handle_answer(&mut self, id: QuestionId, answer: Answer, now: Now) {
        let _ = (id, answer, now);
    }

    /// A deadline may have passed.
    pub fn handle_timeout(&mut self, now: Now) {
        let _ = now;
    }

    /// The next thing that the driver does.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`Client::handle_timeout`] is to be called.
    #[must_use]
    pub fn due(&self) -> Option<Time> {
        None
    }
}
