//! A logger with rate limits for lines that peers cause.

use std::sync::{Mutex, MutexGuard, PoisonError};

use log::{Level, Log, Metadata, Record};

use super::Limiter;
use crate::clock::Clock;

/// The target of lines about refused requests. They have a budget of their own, so that no other lines hide those who
/// guess.
pub(super) const REFUSALS: &str = "rendezvous::logging::refused";

pub(super) struct Limited {
    logger: env_logger::Logger,
    /// For refusals, and for all other lines.
    limiters: Mutex<[Limiter; 2]>,
    clock: Clock,
}

impl Limited {
    /// A logger for at most `rate` lines of each kind per second; 0: no limit.
    pub(super) fn new(logger: env_logger::Logger, rate: u32) -> Self {
        let limiters = Mutex::new([Limiter::new(rate), Limiter::new(rate)]);
        Self { logger, limiters, clock: Clock::start() }
    }

    fn limiters(&self) -> MutexGuard<'_, [Limiter; 2]> {
        self.limiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_rate(&self, rate: u32) {
        self.limiters().iter_mut().for_each(|limiter| limiter.set_rate(rate));
    }

    /// Logs how many lines were suppressed since the last such report, at most once per second.
    pub(super) fn catch_up(&self) {
        let now = self.clock.now().mono;
        let left_out = self.limiters().iter_mut().map(|limiter| limiter.catch_up(now)).sum();
        self.report_left_out(left_out);
    }

    /// The number of lines suppressed since the start.
    pub(super) fn total(&self) -> u64 {
        self.limiters().iter().map(Limiter::total).sum()
    }

    fn report_left_out(&self, count: u64) {
        if count > 0 {
            let text = format_args!("event=log-lines-left-out count={count} hint=\"--log-rate\"");
            let mut record = Record::builder();
            let record = record.level(Level::Warn).target(module_path!());
            self.logger.log(&record.args(text).build());
        }
    }
}

impl Log for Limited {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.logger.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.logger.matches(record) {
            return;
        }
        if is_peers_doing(record.metadata()) {
            let now = self.clock.now().mono;
            let mut limiters = self.limiters();
            let limiter = &mut limiters[usize::from(record.target() != REFUSALS)];
            if !limiter.take(now) {
                return;
            }
            let left_out = limiter.catch_up(now);
            // Do not write while the lock is held.
            drop(limiters);
            self.report_left_out(left_out);
        }
        self.logger.log(record);
    }

    fn flush(&self) {
        self.logger.flush();
    }
}

/// Whether peers can cause a line: neither errors nor a command's own lines.
fn is_peers_doing(metadata: &Metadata<'_>) -> bool {
    const OWN: [&str; 4] =
        ["rendezvous::command", "rendezvous::daemon", "rendezvous::state", "rendezvous::status"];
    metadata.level() != Level::Error && !OWN.iter().any(|own| metadata.target().starts_with(own))
}
