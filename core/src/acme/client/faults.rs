//! Failures of the CA, of the path to it, of the driver, and of one certificate (`docs/acme.md §5`).

use alloc::format;
use alloc::string::String;

use super::super::attempts::{DAY, Faults, fault_pause, jitter};
use super::super::config::ChallengeKind;
use super::super::event::Event;
use super::super::message::{NoResponse, Response};
use super::super::problem::{Problem, display};
use super::super::renewal::renew_at;
use super::{Client, Exchange, Next, Wanted};
use crate::conn::{DialFailure, TlsFailure};
use crate::dialer::DialError;
use crate::time::{Now, Span};

const HOUR: u64 = 3_600;
/// The longest pause after failures of the CA while a certificate is due: the CA may work for an hour only.
const URGENT_PAUSE_MAX: u64 = 45 * 60;
/// The same while no certificate is due, or while the due ones are long overdue.
const PAUSE_MAX: u64 = 6 * HOUR;
/// From this long after its end on, an expired certificate no longer makes pauses short.
const OVERDUE_MAX: u64 = 30 * DAY;
/// From this many failures on, about a month's, a missing first certificate no longer makes pauses short.
const FIRST_FAILURES_MAX: u32 = 1_000;
/// The longest pause after a failure of the driver.
const DRIVER_PAUSE_MAX: u64 = 10 * 60;
/// How many times in a row the program may end while it uses the CA before that counts as a failure.
const FREE_RESTARTS: u32 = 2;
/// The longest pause that the CA can ask for after a failure of its own.
const ASKED_MAX: u64 = DAY;

impl Client {
    /// The CA, or the path to it, has failed. All requests pause, and orders are kept.
    pub(super) fn fault(&mut self, step: &'static str, why: &str, asked: Option<u64>, now: Now) {
        let names = self.job.as_ref().map(|job| job.names.clone());
        self.abandon(now);
        self.directory = None;
        let cap = self.fault_cap(now);
        let asked = asked.map(|it| it.min(ASKED_MAX));
        self.state.faults.add(why, cap, asked, &mut self.entropy, now.wall);
        let again = self.state.faults.next.saturating_sub(now.wall);
        self.emit_stored(Event::Failed { names, step, why: why.into(), challenge: None, again });
        self.store(Next::Plan, now);
    }

    /// The program ended while it was using the CA, perhaps before a pause that the CA asked for was stored. If that
    /// happens again and again, it counts as a failure of the CA. The first times do not: the order is resumed at once.
    pub(super) fn count_ended_runs(&mut self, now: Now) {
        let ended = core::mem::take(&mut self.state.unfinished);
        let free = if self.state.faults.failures == 0 { FREE_RESTARTS } else { 0 };
        if ended <= free {
            self.state.unfinished = ended;
            return;
        }
        let cap = self.fault_cap(now);
        let why = "the program ended while it was using the CA";
        self.state.faults.add(why, cap, None, &mut self.entropy, now.wall);
        let again = self.state.faults.next.saturating_sub(now.wall);
        let (step, why) = ("the last run", why.into());
        self.emit_stored(Event::Failed { names: None, step, why, challenge: None, again });
    }

    /// The longest pause after failures of the CA at this time.
    pub(super) fn fault_cap(&self, now: Now) -> u64 {
        let is_due = |it: &Wanted| match &it.certificate {
            None => self.state.faults.failures < FIRST_FAILURES_MAX,
            Some(certificate) => {
                let window = self.state.entry(&it.names).and_then(|it| it.window.as_ref());
                renew_at(certificate, window, now.wall) <= now.wall
                    && now.wall < certificate.not_after.saturating_add(OVERDUE_MAX)
            }
        };
        if self.wanted.iter().any(is_due) { URGENT_PAUSE_MAX } else { PAUSE_MAX }
    }

    /// Handles an unexpected response.
    pub(super) fn bad_response(&mut self, step: &'static str, response: &Response, now: Now) {
        let asked = response.retry_after.map(|it| it.seconds(now.wall));
        let why = match response.status {
            200..300 => format!("it cannot be used (HTTP {})", response.status),
            status => Problem::read(status, &response.body, &response.links).text,
        };
        self.fault(step, &why, asked, now);
    }

    pub(super) fn no_response(&mut self, exchange: &Exchange, why: NoResponse, now: Now) {
        let why = describe(why);
        match exchange {
            Exchange::Directory(_) => self.fault("the directory", &why, None, now),
            Exchange::Nonce => self.fault("a nonce", &why, None, now),
            Exchange::Call => {
                let step = self.call.take().map_or("a request", |call| call.purpose.step());
                self.fault(step, &why, None, now);
            }
            Exchange::RenewalInfo(names) => {
                let names = names.clone();
                self.no_renewal_info(&names, now);
            }
        }
    }

    /// This clock or the CA's is wrong. With a wrong clock TLS refuses certificates, and a new certificate may seem to have
    /// expired.
    pub(super) fn clock_differs(&mut self, date: u64, now: Now) {
        self.emit(Event::ClockDiffers { date });
        self.fault("the clock", "it differs from the CA's by more than a day", None, now);
    }

    /// The driver has failed. Nothing is sent to the CA until the driver works again.
    pub(super) fn driver_failed(&mut self, why: &str, now: Now) {
        let names = self.job.as_ref().map(|job| job.names.clone());
        self.abandon(now);
        self.is_dirty = true;
        self.driver_failures = self.driver_failures.saturating_add(1);
        let again = fault_pause(self.driver_failures, DRIVER_PAUSE_MAX, &mut self.entropy);
        self.driver_pause = now.mono + Span::from_secs(again);
        let why = display(why, 600);
        self.emit_unstored();
        self.emit(Event::Failed { names, step: "the driver", why, challenge: None, again });
        self.pause(self.driver_pause, Next::Plan);
    }

    /// The order that is under way has failed, and is dropped. The next one goes through the pauses of its names.
    pub(super) fn fail(&mut self, step: &'static str, why: &str, asked: Option<u64>, now: Now) {
        let Some(job) = self.job.take() else { return self.plan(now) };
        self.state.faults = Faults::default();
        let challenge = self.drop_order(&job.names);
        if job.is_excused {
            let attempts = &mut self.state.entry_mut(&job.names).attempts;
            attempts.excuse(why, now.wall);
            let again = attempts.next.saturating_sub(now.wall);
            let (names, why) = (Some(job.names.clone()), why.into());
            self.emit_stored(Event::Failed { names, step, why, challenge, again });
        } else {
            self.attempt_failed(&job.names, (step, challenge), why, asked, now);
        }
        let rest = job.authorizations.get(job.at..).unwrap_or_default().to_vec();
        let next = if job.is_deactivating && !rest.is_empty() { Next::Deactivate(rest) } else { Next::Plan };
        self.store(next, now);
    }

    /// Counts a failure of these names, at a step, with the challenge that was being validated.
    pub(super) fn attempt_failed(
        &mut self,
        names: &super::Names,
        (step, challenge): (&'static str, Option<ChallengeKind>),
        why: &str,
        asked: Option<u64>,
        now: Now,
    ) {
        let cap = self.attempt_cap(names, now.wall);
        let attempts = &mut self.state.entry_mut(names).attempts;
        attempts.fail(why, cap, asked, &mut self.entropy, now.wall);
        let again = attempts.next.saturating_sub(now.wall);
        self.is_dirty = true;
        let (names, why) = (Some(names.clone()), why.into());
        self.emit_stored(Event::Failed { names, step, why, challenge, again });
    }

    /// The longest pause between attempts: a day, less for short lifetimes and near the end.
    pub(super) fn attempt_cap(&self, names: &super::Names, wall: u64) -> u64 {
        let Some(certificate) = self.certificate(names) else { return DAY };
        let lifetime = certificate.lifetime();
        let cap = (lifetime / 20).clamp(HOUR, DAY);
        let last_tenth = certificate.not_after.saturating_sub(lifetime / 10);
        match wall {
            wall if wall < last_tenth => cap,
            wall if wall < certificate.not_after.saturating_add(7 * DAY) => (cap / 4).max(HOUR),
            _ => DAY,
        }
    }

    /// Ends the current step without a result. Orders stay, and an attempt whose order was not placed is not counted.
    pub(super) fn abandon(&mut self, now: Now) {
        self.call = None;
        self.request = None;
        let Some(job) = self.job.take() else { return };
        if job.is_counted && self.state.entry(&job.names).is_some_and(|it| it.order.is_none()) {
            self.state.entry_mut(&job.names).attempts.revoke(now.wall);
            self.is_dirty = true;
        }
    }

    /// Adds jitter to a pause.
    pub(super) fn jittered(&mut self, pause: u64) -> u64 {
        jitter(pause, &mut self.entropy)
    }
}

fn describe(why: NoResponse) -> String {
    match why {
        NoResponse::Unreachable(DialError::Tls(why)) => format!("TLS with the CA failed: {}", of_tls(why)),
        NoResponse::Unreachable(why) => format!("the CA could not be reached: {}", of_dialling(why)),
        NoResponse::Ended => String::from("the connection ended before the response was complete"),
        NoResponse::TimedOut => String::from("the CA did not respond in time"),
        NoResponse::Malformed => String::from("the CA's response is not HTTP"),
        NoResponse::TooLarge => String::from("the CA's response is too large"),
    }
}

const fn of_dialling(why: DialError) -> &'static str {
    match why {
        DialError::Dial(DialFailure::Name) => "its name does not resolve",
        DialError::Dial(DialFailure::Refused) => "connection refused",
        DialError::Dial(DialFailure::Unreachable) => "no answer, or no route",
        DialError::Dial(DialFailure::Local) => "this machine could not connect",
        DialError::Ended(_) => "it ended the connection",
        DialError::TimedOut => "no response in time",
        DialError::NotHttp => "its response is not HTTP",
        DialError::Tls(why) => of_tls(why),
        DialError::Proxy(_) => "the proxy opened no tunnel",
    }
}

const fn of_tls(why: TlsFailure) -> &'static str {
    match why {
        TlsFailure::Certificate => "its certificate is not acceptable",
        TlsFailure::CertificateExpired => "its certificate has expired, or this machine's clock is ahead",
        TlsFailure::CertificateNotYetValid => {
            "its certificate is not valid yet, or this machine's clock is behind"
        }
        TlsFailure::CertificateName => "its certificate is for another name",
        TlsFailure::CertificateIssuer => "no trusted CA signed its certificate",
        TlsFailure::Ended => "it ended the connection in the handshake",
        TlsFailure::PlainHttp => "it speaks plain HTTP",
        TlsFailure::Version | TlsFailure::Alpn | TlsFailure::Cipher => {
            "no common version, protocol or cipher suite"
        }
        TlsFailure::TooLong | TlsFailure::Protocol => "malformed TLS",
    }
}
