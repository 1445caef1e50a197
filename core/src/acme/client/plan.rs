//! What is due: orders that are under way, renewals and first orders, renewal information.

use alloc::string::String;
use alloc::vec::Vec;

use super::super::action::{Action, Certificate, Challenge, Question};
use super::super::attempts::{DAY, PAUSE_MAX};
use super::super::config::ChallengeKind;
use super::super::event::Event;
use super::super::names::Names;
use super::super::renewal::renew_at;
use super::super::state::{Account, Entry};
use super::{Client, Next, Then, Wanted};
use crate::time::{Now, Span, Time};

/// Interval of checks of the wall clock, in seconds: it may have been set, or the machine may have slept.
const LOOK: u64 = 3_600;
/// The same while the clock is before the time of the build.
const LOOK_AT_WRONG_CLOCK: Span = Span::from_secs(30);

/// Limit of abandoned orders that are cleaned up; the others expire at the CA.
const ABANDONED_MAX: usize = 100;

impl Client {
    /// Ends the current step, and begins the most urgent one that is due.
    pub(super) fn plan(&mut self, now: Now) {
        self.job = None;
        self.call = None;
        if now.wall < self.config.built {
            if !core::mem::replace(&mut self.clock_was_reported, true) {
                self.emit(Event::ClockBeforeBuild);
            }
            return self.pause(now.mono + LOOK_AT_WRONG_CLOCK, Next::Plan);
        }
        self.clock_was_reported = false;
        self.correct_times(now);
        self.drop_expired_orders(now);
        self.report_expiry(now);
        if self.driver_pause > now.mono {
            return self.pause(self.driver_pause, Next::Plan);
        }
        if let Some(challenge) = self.unprovided() {
            return self.provide(challenge, Next::Plan, now);
        }
        if self.is_dirty {
            return self.store(Next::Plan, now);
        }
        let due = Some(self.state.faults.over(self.fault_cap(now))).filter(|due| *due > now.wall);
        let next = if due.is_none() { self.pick(now) } else { None };
        match next {
            Some(next) => {
                let is_registered = matches!(self.state.account, Account::Known(_));
                let needs_account = !matches!(next, Next::RenewalInfo(_)) && !is_registered;
                self.with_directory(if needs_account { Next::Account } else { next }, now);
            }
            // The CA is not used for a while.
            None if self.state.unfinished > 0 => self.store(Next::Plan, now),
            None => {
                let until = self.next_due(due, now);
                self.pause(until, Next::Plan);
            }
        }
    }

    /// The most urgent step that is due now.
    fn pick(&self, now: Now) -> Option<Next> {
        if self.rollover.is_some() {
            return Some(Next::Rollover);
        }
        for it in self.wanted.iter().filter(|_| self.is_reachable) {
            let entry = self.state.entry(&it.names);
            if entry.is_some_and(|it| it.order.is_some()) {
                if self.parked.get(&it.names).is_none_or(|(until, _)| *until <= now.mono) {
                    return Some(Next::Resume(it.names.clone()));
                }
            } else if self.order_due(it, now.wall) <= now.wall {
                return Some(Next::Begin(it.names.clone()));
            }
        }
        if let Some(url) = self.abandoned.first() {
            return Some(Next::Abandoned(url.clone()));
        }
        let look = |it: &&Wanted| self.look_due(it, now.wall).is_some_and(|at| at <= now.wall);
        self.wanted.iter().find(look).map(|it| Next::RenewalInfo(it.names.clone()))
    }

    /// When a certificate is ordered, if no order is under way.
    fn order_due(&self, wanted: &Wanted, wall: u64) -> u64 {
        let entry = self.state.entry(&wanted.names);
        let window = entry.and_then(|it| it.window.as_ref());
        let due = wanted.certificate.as_ref().map_or(0, |it| renew_at(it, window, wall));
        let next = match entry.map(|it| &it.attempts) {
            // The certificate is gone.
            Some(it) if it.failures == 0 && wanted.certificate.is_none() => it.hourly_limit(),
            Some(it) => it.next,
            None => 0,
        };
        let limit = if self.replaces(&wanted.names).is_some() { 0 } else { self.state.orders_from };
        due.max(next).max(limit)
    }

    /// When renewal information is asked for; `None`: never, as the certificate has expired or has no identifier.
    fn look_due(&self, wanted: &Wanted, wall: u64) -> Option<u64> {
        let certificate = wanted.certificate.as_ref().filter(|it| wall < it.not_after)?;
        certificate.renewal_id()?;
        Some(self.state.entry(&wanted.names).map_or(0, |it| it.look_at))
    }

    /// When something is due; `faults`: not before that.
    fn next_due(&self, faults: Option<u64>, now: Now) -> Time {
        let mut seconds = LOOK;
        let mut parked = None;
        for it in &self.wanted {
            match self.parked.get(&it.names) {
                _ if !self.is_reachable => {}
                Some((until, _)) if self.state.entry(&it.names).is_some_and(|it| it.order.is_some()) => {
                    parked = Some(parked.map_or(*until, |at: Time| at.min(*until)));
                }
                _ => seconds = seconds.min(self.order_due(it, now.wall).saturating_sub(now.wall)),
            }
            if let Some(at) = self.look_due(it, now.wall) {
                seconds = seconds.min(at.saturating_sub(now.wall));
            }
        }
        let due = now.mono + Span::from_secs(seconds.max(1));
        let due = parked.map_or(due, |at| at.min(due));
        match faults {
            Some(faults) => now.mono + Span::from_secs(faults.saturating_sub(now.wall).clamp(1, LOOK)),
            None => due,
        }
    }

    /// A clock that was set back must not keep the client waiting.
    fn correct_times(&mut self, now: Now) {
        self.state.faults.correct(now.wall);
        self.state.orders_from = self.state.orders_from.min(now.wall.saturating_add(PAUSE_MAX));
        for entry in self.state.entries.values_mut() {
            entry.attempts.correct(now.wall);
            entry.look_at = entry.look_at.min(now.wall.saturating_add(2 * DAY));
        }
    }

    fn drop_expired_orders(&mut self, now: Now) {
        let is_over = |it: &Entry| {
            it.order.as_ref().and_then(|it| it.expires).is_some_and(|expires| expires <= now.wall)
        };
        let over: Vec<Names> =
            self.state.entries.iter().filter(|(_, it)| is_over(it)).map(|(names, _)| names.clone()).collect();
        for names in over {
            let challenge = self.drop_order(&names);
            self.attempt_failed(&names, ("the order", challenge), "it expired", None, now);
        }
    }

    /// Removes an order, and withdraws its challenge. Returns the kind of the challenge.
    pub(super) fn drop_order(&mut self, names: &Names) -> Option<ChallengeKind> {
        self.parked.remove(names);
        self.posted.remove(names);
        let order = self.state.entries.get_mut(names).and_then(|it| it.order.take())?;
        self.is_dirty = true;
        let challenge = order.challenge?;
        self.withdraw(&challenge);
        Some(challenge.proof.kind())
    }

    pub(super) fn withdraw(&mut self, challenge: &Challenge) {
        if let Some(at) = self.provided.iter().position(|it| it == challenge) {
            self.actions.push_back(Action::Withdraw(self.provided.remove(at)));
        }
    }

    pub(super) fn provide(&mut self, challenge: Challenge, next: Next, now: Now) {
        if !self.provided.contains(&challenge) {
            self.provided.push(challenge.clone());
        }
        self.ask(Question::Provide(challenge.clone()), Then::Provided(challenge, next), now);
    }

    /// A challenge that was posted before the restart and is not answered yet.
    fn unprovided(&self) -> Option<Challenge> {
        let orders = self.state.entries.values().filter_map(|it| it.order.as_ref());
        let mut challenges = orders.filter_map(|it| it.challenge.as_ref());
        challenges.find(|it| !self.provided.contains(it)).cloned()
    }

    /// Removes entries whose names are no longer wanted. Entries in a pause after failures are kept until it is over.
    pub(super) fn drop_unwanted(&mut self, now: Now) {
        let unwanted: Vec<Names> =
            self.state.entries.keys().filter(|names| !self.is_wanted(names)).cloned().collect();
        for names in unwanted {
            let order = self.state.entry(&names).and_then(|it| it.order.as_ref());
            if let Some(order) = order.filter(|it| it.certificate.is_none())
                && self.abandoned.len() < ABANDONED_MAX
            {
                self.abandoned.push(order.url.clone());
            }
            self.drop_order(&names);
            let is_paused = self.state.entry(&names).is_some_and(|it| it.attempts.next > now.wall);
            if !is_paused {
                self.state.entries.remove(&names);
                self.is_dirty = true;
            }
        }
        let wanted = &self.wanted;
        self.reported.retain(|names, _| wanted.iter().any(|it| it.names == *names));
    }

    pub(super) fn is_wanted(&self, names: &Names) -> bool {
        self.wanted.iter().any(|it| it.names == *names)
    }

    pub(super) fn certificate(&self, names: &Names) -> Option<&Certificate> {
        self.wanted.iter().find(|it| it.names == *names)?.certificate.as_ref()
    }

    /// The certificate that an order replaces (RFC 9773 §5): only of the account that got it.
    pub(super) fn replaces(&self, names: &Names) -> Option<String> {
        if let Some((directory, _)) = &self.directory {
            directory.renewal_info.as_ref()?;
        }
        let id = self.certificate(names)?.renewal_id()?;
        let (issued, account) = self.state.entry(names)?.issued.as_ref()?;
        (*issued == id && self.account() == Some(account.as_str())).then_some(id)
    }

    /// Reports certificates of whose lifetime less than a third is left: daily, hourly in the last tenth.
    fn report_expiry(&mut self, now: Now) {
        let mut events = Vec::new();
        for it in &self.wanted {
            let Some(certificate) = &it.certificate else { continue };
            let left = certificate.not_after.saturating_sub(now.wall);
            let lifetime = certificate.lifetime();
            let pause = match left {
                left if left > lifetime / 3 => continue,
                left if left > lifetime / 10 || left == 0 => DAY,
                _ => LOOK,
            };
            let entry = self.state.entry(&it.names);
            let last_failure = match entry.map(|it| &it.attempts) {
                Some(it) if !it.why.is_empty() => it.why.clone(),
                _ if self.state.faults.failures > 0 => self.state.faults.why.clone(),
                // A renewal has only begun.
                _ if left > lifetime / 4 => continue,
                _ => String::new(),
            };
            // The hourly check may come a few seconds early.
            let is_due =
                |since: &Time| now.mono.since(*since) + Span::from_secs(60) >= Span::from_secs(pause);
            if self.reported.get(&it.names).is_none_or(is_due) {
                events.push(Event::Expiring { names: it.names.clone(), left, last_failure });
            }
        }
        for event in events {
            if let Event::Expiring { names, .. } = &event {
                self.reported.insert(names.clone(), now.mono);
            }
            self.emit(event);
        }
    }
}
