//! Pauses between attempts, on the wall clock since they are stored (`docs/acme.md §5`).

use alloc::string::String;
use alloc::vec::Vec;

use crate::entropy::Entropy;

const MINUTE: u64 = 60;
const HOUR: u64 = 3_600;
pub(super) const DAY: u64 = 86_400;

/// The pauses after the first failures in a row.
const PAUSES: [u64; 4] = [MINUTE, 10 * MINUTE, 100 * MINUTE, DAY];
/// Limit of failures of one set of names in an hour (Let's Encrypt allows five).
const HOURLY_MAX: usize = 3;
/// The longest pause that is stored, whatever the CA asks for.
pub(super) const PAUSE_MAX: u64 = 7 * DAY;

/// The attempts at something since it last succeeded. All times are in seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Attempts {
    /// The number of failed attempts, including one that is under way.
    pub(super) failures: u32,
    /// When the last one began or failed.
    pub(super) last: u64,
    /// When the next one may begin.
    pub(super) next: u64,
    /// When the last ones failed, at most [`HOURLY_MAX`]; the last is the latest.
    pub(super) recent: Vec<u64>,
    /// Why the last one failed, for status reports.
    pub(super) why: String,
}

impl Attempts {
    /// Begins an attempt. It counts as a failure until it succeeds, so that a crash counts as well.
    pub(super) fn begin(&mut self, cap: u64, entropy: &mut Entropy, now: u64) {
        self.failures = self.failures.saturating_add(1);
        self.recent.push(now);
        if self.recent.len() > HOURLY_MAX {
            self.recent.remove(0);
        }
        self.pause(cap, None, entropy, now);
    }

    /// The attempt that began has failed. `asked` is how long the CA asks to wait.
    pub(super) fn fail(&mut self, why: &str, cap: u64, asked: Option<u64>, entropy: &mut Entropy, now: u64) {
        self.why = why.into();
        if let Some(last) = self.recent.last_mut() {
            *last = now;
        }
        self.pause(cap, asked, entropy, now);
    }

    /// Uncounts the attempt that began: it failed for an unrelated reason.
    pub(super) fn revoke(&mut self, now: u64) {
        self.failures = self.failures.saturating_sub(1);
        self.recent.pop();
        self.next = now;
    }

    /// The attempt failed for a reason on this side. It counts only for the hourly limit.
    pub(super) fn excuse(&mut self, why: &str, now: u64) {
        self.why = why.into();
        self.failures = self.failures.saturating_sub(1);
        self.last = now;
        self.next = now.saturating_add(MINUTE).max(self.hourly_limit());
    }

    /// The attempt succeeded. The next one may begin after `pause`, whatever the CA says about renewals.
    pub(super) fn succeed(&mut self, pause: u64, now: u64) {
        self.failures = 0;
        self.why.clear();
        self.last = now;
        self.next = now.saturating_add(pause).max(self.hourly_limit());
    }

    /// When the limit of an hour allows the next attempt.
    pub(super) fn hourly_limit(&self) -> u64 {
        let is_full = self.recent.len() >= HOURLY_MAX;
        self.recent.first().filter(|_| is_full).map_or(0, |first| first.saturating_add(HOUR))
    }

    fn pause(&mut self, cap: u64, asked: Option<u64>, entropy: &mut Entropy, now: u64) {
        let at = (self.failures.max(1) - 1).min(PAUSES.len() as u32 - 1);
        let pause = jitter(PAUSES[at as usize].min(cap), entropy);
        let pause = pause.max(asked.unwrap_or(0)).min(PAUSE_MAX);
        self.last = now;
        self.next = now.saturating_add(pause).max(self.hourly_limit());
    }

    /// One attempt may begin at once, if the limit of an hour allows it: the configuration has changed.
    pub(super) fn allow_one(&mut self, now: u64) {
        self.next = self.next.min(self.hourly_limit().max(now));
    }

    /// If the clock was set back, the pause that was stored counts from now on; a stored time cannot keep the client waiting
    /// for longer than a pause.
    pub(super) fn correct(&mut self, now: u64) {
        if self.last > now {
            let pause = self.next.saturating_sub(self.last).min(PAUSE_MAX);
            (self.last, self.next) = (now, now + pause);
        }
        self.next = self.next.min(self.last.saturating_add(PAUSE_MAX));
        self.recent.retain(|it| *it <= now);
    }
}

/// Failures in a row of the CA, or of the path to it. All times are in seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Faults {
    /// The number of failures.
    pub(super) failures: u32,
    /// When the last one was.
    pub(super) last: u64,
    /// When the CA is asked again.
    pub(super) next: u64,
    /// When the CA wants to be asked again at the earliest; 0 if it did not say.
    pub(super) asked: u64,
    /// Why the last one failed, for status reports.
    pub(super) why: String,
}

impl Faults {
    /// Counts a failure. The pause is at most `cap`, unless the CA asks for a longer one.
    pub(super) fn add(&mut self, why: &str, cap: u64, asked: Option<u64>, entropy: &mut Entropy, now: u64) {
        self.failures = self.failures.saturating_add(1);
        self.last = now;
        self.asked = asked.map_or(0, |it| now.saturating_add(it));
        self.next = now.saturating_add(fault_pause(self.failures, cap, entropy)).max(self.asked);
        self.why = why.into();
    }

    /// When the CA is asked again if a pause is at most `cap` by now: a certificate may have become due since the last one.
    pub(super) fn over(&self, cap: u64) -> u64 {
        let capped = self.last.saturating_add(cap).max(self.asked);
        if self.failures == 0 { 0 } else { self.next.min(capped) }
    }

    /// [`Attempts::correct`].
    pub(super) fn correct(&mut self, now: u64) {
        if self.last > now {
            let ahead = self.last - now;
            self.next = self.next.saturating_sub(ahead);
            self.asked = self.asked.saturating_sub(ahead);
            self.last = now;
        }
        let most = self.last.saturating_add(2 * DAY);
        self.next = self.next.min(most);
        self.asked = self.asked.min(most);
    }
}

/// The pause of the client after failures in a row of the CA or of the path to it. It is short enough to find an hour in
/// which the CA works.
pub(super) fn fault_pause(failures: u32, cap: u64, entropy: &mut Entropy) -> u64 {
    let at = (failures.max(1) - 1).min(PAUSES.len() as u32 - 1);
    jitter(PAUSES[at as usize].min(cap), entropy)
}

/// 90 to 110 % of a pause.
pub(super) fn jitter(pause: u64, entropy: &mut Entropy) -> u64 {
    pause - pause / 10 + entropy.below(pause / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_three_failures_in_an_hour_and_then_one_in_a_day() {
        for seed in 0..50 {
            let mut entropy = Entropy::new([seed; 32]);
            let mut attempts = Attempts::default();
            let mut times = Vec::new();
            let mut now = 1_000_000_000;
            for _ in 0..10 {
                attempts.begin(DAY, &mut entropy, now);
                attempts.fail("why", DAY, None, &mut entropy, now);
                times.push(now);
                now = attempts.next;
            }
            assert!(times.windows(4).all(|it| it[3] - it[0] >= HOUR), "{times:?}");
            assert!(times.windows(2).skip(4).all(|it| it[1] - it[0] > 21 * HOUR), "{times:?}");
        }
    }

    #[test]
    fn a_changed_configuration_allows_one_attempt_within_the_limit_of_an_hour() {
        let mut entropy = Entropy::new([1; 32]);
        let mut attempts = Attempts::default();
        for now in [0, 60, 700, 7_000] {
            attempts.begin(DAY, &mut entropy, now);
        }
        attempts.allow_one(7_100);
        assert_eq!(attempts.next, 7_100);
        for now in [7_100, 7_200] {
            attempts.begin(DAY, &mut entropy, now);
            attempts.allow_one(now);
        }
        assert_eq!(attempts.next, 7_000 + HOUR);
    }

    #[test]
    fn what_the_ca_asks_for_wins_within_a_week_and_a_clock_that_is_set_back_does_not_stop_it() {
        let mut entropy = Entropy::new([1; 32]);
        let mut attempts = Attempts::default();
        let now = 2_000_000_000;
        attempts.begin(DAY, &mut entropy, now);
        attempts.fail("why", DAY, Some(5_000), &mut entropy, now);
        assert_eq!(attempts.next, now + 5_000);
        attempts.fail("why", DAY, Some(u64::MAX), &mut entropy, now);
        assert_eq!(attempts.next, now + PAUSE_MAX);
        attempts.fail("why", DAY, Some(5_000), &mut entropy, now);
        attempts.correct(1_900_000_000);
        assert_eq!(attempts.next, 1_900_005_000);
        assert!(attempts.recent.is_empty());
    }
}
