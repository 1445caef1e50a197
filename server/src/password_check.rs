//! Checks clients' passwords on a worker thread, one at a time, round-robin by address.
//!
//! A bcrypt hash takes a tenth of a second or longer. So correct passwords are cached for a while, equal checks share
//! one hash, and the queue is bounded. A client that would have to wait too long gets 429, and so does a guess from an
//! address with too many wrong passwords. A cached password is accepted in any case.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use mio::Waker;
use rendezvous_core::agent::{PasswordCheck, Verdict};
use rendezvous_core::http::basic::Credentials;
use rendezvous_core::limiter::{Rate, RateLimiter, Source};
use rendezvous_core::machine::ConnId;
use rendezvous_core::time::{Span, Time};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::entropy;
use crate::failure::Failure;
use crate::files::{self, FileKind};
use crate::password_file::{self, COST_ADVISED, Passwords};
use crate::worker::Worker;

/// How long a correct password is cached.
const REMEMBERED: Span = Span::from_secs(600);
/// Limit of cached passwords; the oldest is removed first.
const REMEMBERED_MAX: usize = 1_024;
/// Limit of different passwords that wait for a check.
const QUEUE_MAX: usize = 256;
/// Limit of waiting passwords per address.
const QUEUE_PER_ADDRESS_MAX: usize = 4;
/// Limit of requests that wait for the same check.
const SAME_MAX: usize = 256;
/// Rate limit of wrong passwords per address: the burst, and the time until one more is checked.
const WRONG_BURST: u32 = 20;
const WRONG_REFILL: Span = Span::from_secs(3);
/// Limit of addresses with wrong passwords that are tracked; the oldest is removed first.
const ADDRESSES_MAX: usize = 8_192;
/// `Retry-After` in seconds for a request that finds the queue full.
const BUSY_SECS: u32 = 2;
/// A hash that no password matches, without its cost.
const DUMMY: &str = "abcdefghijklmnopqrstuuO9Rrz9S0O4zjdgX3UX9d5mJEGXgXIVa";

/// Identifies user, password and entry: a keyed hash, from which none of them can be guessed.
type Digest = [u8; 32];

/// Reads a password file.
///
/// # Errors
///
/// [`Failure::Failed`] if it cannot be read, if other users can read it, or if a line is malformed.
pub(crate) fn load(path: &Path) -> Result<Passwords, Failure> {
    let bytes = files::read(path, FileKind::PASSWORDS)?;
    let passwords = password_file::parse(&bytes, &path.display().to_string())?;
    let weak = passwords.entries().iter().filter(|entry| entry.cost() < COST_ADVISED).count();
    if weak > 0 {
        log::warn!(
            "event=weak-passwords entries={weak} reason=\"with a cost below {COST_ADVISED}, passwords in a stolen file can be guessed\" \
             hint=\"set them again with 'rendezvous password'\""
        );
    }
    Ok(passwords)
}

/// A hash to compute.
struct Job {
    credentials: Credentials,
    hash: Arc<str>,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job").finish_non_exhaustive()
    }
}

/// Checks passwords against those of a file.
#[derive(Debug)]
pub struct PasswordChecker {
    worker: Worker<Job, bool>,
    queue: Queue,
}

impl PasswordChecker {
    /// Starts the thread; `waker` wakes the event loop for each result.
    ///
    /// # Errors
    /// [`Failure::Failed`] if the system has no entropy or cannot start a thread.
    pub(crate) fn start(passwords: Passwords, waker: Arc<Waker>) -> Result<Self, Failure> {
        let queue = Queue::new(passwords, *entropy::bytes()?);
        let no_thread = |error: io::Error| Failure::Failed(format!("cannot start a thread: {error}"));
        let worker = Worker::start("passwords", waker, |job: Job| {
            bcrypt::verify(job.credentials.password(), &job.hash).unwrap_or(false)
        });
        Ok(Self { worker: worker.map_err(no_thread)?, queue })
    }

    /// Replaces the passwords and clears the cache.
    pub(crate) fn replace(&mut self, passwords: Passwords) {
        self.queue.replace(passwords);
    }

    /// Takes these checks. Returns their results, if cached, and those of earlier checks.
    pub(crate) fn work(&mut self, checks: Vec<PasswordCheck>, now: Time) -> Vec<(ConnId, u64, Verdict)> {
        let mut results = Vec::new();
        if let Some(is_right) = self.worker.answer() {
            self.queue.finish(is_right, now, &mut results);
        }
        for check in checks {
            self.queue.take(check, now, &mut results);
        }
        if !self.worker.is_busy()
            && let Some(job) = self.queue.next()
        {
            log::debug!("event=password-hashed waiting={}", self.queue.len());
            self.worker.ask(job);
        }
        results
    }
}

/// A check that waits or runs.
struct Waiting {
    credentials: Credentials,
    hash: Arc<str>,
    address: Source,
    from: Option<IpAddr>,
    requests: Vec<(ConnId, u64)>,
}

/// The queue of checks, the cache and the rate limit.
struct Queue {
    passwords: Passwords,
    /// The hash for users that do not exist, so that their checks take as long.
    dummy: Arc<str>,
    key: Zeroizing<[u8; 32]>,
    waiting: BTreeMap<Digest, Waiting>,
    /// The waiting checks by address, and the addresses in turn.
    by_address: BTreeMap<Source, VecDeque<Digest>>,
    turns: VecDeque<Source>,
    running: Option<Digest>,
    /// Whether the file was reloaded after the running check began.
    is_outdated: bool,
    /// The cached passwords, with their expiry, oldest first.
    right: BTreeMap<Digest, Time>,
    right_order: VecDeque<Digest>,
    wrong: RateLimiter<Source>,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("waiting", &self.waiting.len()).finish_non_exhaustive()
    }
}

impl Queue {
    fn new(passwords: Passwords, key: [u8; 32]) -> Self {
        Self {
            dummy: dummy(&passwords),
            passwords,
            key: Zeroizing::new(key),
            waiting: BTreeMap::new(),
            by_address: BTreeMap::new(),
            turns: VecDeque::new(),
            running: None,
            is_outdated: false,
            right: BTreeMap::new(),
            right_order: VecDeque::new(),
            wrong: RateLimiter::new(Rate::new(WRONG_BURST, WRONG_REFILL), ADDRESSES_MAX),
        }
    }

    /// Number of different passwords that wait or are being checked.
    fn len(&self) -> usize {
        self.waiting.len()
    }

    fn take(&mut self, check: PasswordCheck, now: Time, results: &mut Vec<(ConnId, u64, Verdict)>) {
        let PasswordCheck { on, ticket, from, credentials } = check;
        let (digest, hash) = self.identify(&credentials);
        if self.right.get(&digest).is_some_and(|until| now < *until) {
            return results.push((on, ticket, Verdict::Right));
        }
        // A check that began before a reload is repeated, so no more requests may join it.
        if let Some(waiting) = self.waiting.get_mut(&digest)
            && waiting.requests.len() < SAME_MAX
        {
            return waiting.requests.push((on, ticket));
        }
        let address = address(from);
        let of_address = self.by_address.get(&address).map_or(0, VecDeque::len);
        let until = self.wrong.exhausted(&address, now);
        let is_full = self.waiting.contains_key(&digest)
            || self.waiting.len() >= QUEUE_MAX
            || of_address >= QUEUE_PER_ADDRESS_MAX;
        if let Some(span) = until {
            let retry_after = u32::try_from(span.as_secs_up()).unwrap_or(u32::MAX);
            return results.push((on, ticket, Verdict::Busy { retry_after }));
        }
        if is_full {
            return results.push((on, ticket, Verdict::Busy { retry_after: BUSY_SECS }));
        }
        let requests = vec![(on, ticket)];
        self.enqueue(digest, Waiting { credentials, hash, address, from, requests });
    }

    fn enqueue(&mut self, digest: Digest, waiting: Waiting) {
        let of_address = self.by_address.entry(waiting.address).or_default();
        if of_address.is_empty() {
            self.turns.push_back(waiting.address);
        }
        of_address.push_back(digest);
        self.waiting.insert(digest, waiting);
    }

    /// The next check, round-robin by address.
    fn next(&mut self) -> Option<Job> {
        let address = self.turns.pop_front()?;
        let of_address = self.by_address.get_mut(&address)?;
        let digest = of_address.pop_front()?;
        if of_address.is_empty() {
            self.by_address.remove(&address);
        } else {
            self.turns.push_back(address);
        }
        let waiting = self.waiting.get(&digest)?;
        self.running = Some(digest);
        Some(Job { credentials: waiting.credentials.clone(), hash: Arc::clone(&waiting.hash) })
    }

    /// Handles the result of the running check.
    fn finish(&mut self, is_right: bool, now: Time, results: &mut Vec<(ConnId, u64, Verdict)>) {
        let Some(digest) = self.running.take() else { return };
        let Some(waiting) = self.waiting.remove(&digest) else { return };
        if std::mem::take(&mut self.is_outdated) {
            return self.enqueue_again(waiting);
        }
        let is_right = is_right && !Arc::ptr_eq(&waiting.hash, &self.dummy);
        if is_right {
            self.remember(digest, now);
        } else {
            self.wrong.spend(waiting.address, now);
            let from = waiting.from.map_or_else(|| "unknown".to_owned(), |from| from.to_string());
            // The user name is not logged: it may be a password.
            log::info!("event=wrong-password peer={from}");
        }
        let verdict = if is_right { Verdict::Right } else { Verdict::Wrong };
        results.extend(waiting.requests.into_iter().map(|(on, ticket)| (on, ticket, verdict)));
    }

    fn remember(&mut self, digest: Digest, now: Time) {
        if self.right.insert(digest, now + REMEMBERED).is_some() {
            self.right_order.retain(|known| *known != digest);
        }
        self.right_order.push_back(digest);
        if self.right_order.len() > REMEMBERED_MAX
            && let Some(oldest) = self.right_order.pop_front()
        {
            self.right.remove(&oldest);
        }
    }

    /// Replaces the passwords and clears the cache.
    fn replace(&mut self, passwords: Passwords) {
        self.dummy = dummy(&passwords);
        self.passwords = passwords;
        self.right.clear();
        self.right_order.clear();
        self.is_outdated = self.running.is_some();
        self.by_address.clear();
        self.turns.clear();
        let running = self.running.and_then(|digest| self.waiting.remove_entry(&digest));
        let others = std::mem::take(&mut self.waiting);
        self.waiting.extend(running);
        others.into_values().for_each(|waiting| self.enqueue_again(waiting));
    }

    /// Repeats a check that was made against old passwords.
    fn enqueue_again(&mut self, waiting: Waiting) {
        let (digest, hash) = self.identify(&waiting.credentials);
        match self.waiting.get_mut(&digest) {
            Some(same) if self.running != Some(digest) => same.requests.extend(waiting.requests),
            _ => self.enqueue(digest, Waiting { hash, ..waiting }),
        }
    }

    /// The digest of a check, and the hash to compare with.
    fn identify(&self, credentials: &Credentials) -> (Digest, Arc<str>) {
        let entry = self.passwords.entry(credentials.user());
        let hash = entry.map_or_else(|| Arc::clone(&self.dummy), |entry| Arc::from(entry.hash()));
        let (user, password) = (credentials.user().as_bytes(), credentials.password().as_bytes());
        let mut mac = Hmac::<Sha256>::new_from_slice(&*self.key).expect("a key of any length");
        for part in [user, password, hash.as_bytes()] {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        (mac.finalize().into_bytes().into(), hash)
    }
}

/// A hash that no password matches, with the highest cost in the file.
fn dummy(passwords: &Passwords) -> Arc<str> {
    let cost = passwords.entries().iter().map(|entry| entry.cost()).max().unwrap_or(COST_ADVISED);
    format!("$2y${cost:02}${DUMMY}").into()
}

fn address(from: Option<IpAddr>) -> Source {
    from.map(Source::from).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use data_encoding::BASE64;
    use rendezvous_core::http::basic::{self, Presented};

    use super::*;

    fn hash(password: &str) -> String {
        bcrypt::hash_with_salt(password, 4, [7; 16]).unwrap().format_for_version(bcrypt::Version::TwoY)
    }

    fn queue(users: &[(&str, &str)]) -> Queue {
        Queue::new(passwords(users), [1; 32])
    }

    fn passwords(users: &[(&str, &str)]) -> Passwords {
        let text: String = users.iter().map(|(user, word)| format!("{user}:{}\n", hash(word))).collect();
        password_file::parse(text.as_bytes(), "f").unwrap()
    }

    fn check(ticket: u64, from: &str, pair: &str) -> PasswordCheck {
        let value = format!("Basic {}", BASE64.encode(pair.as_bytes()));
        let Presented::Basic(credentials) = basic::read(Some(value.as_bytes())) else { panic!("{pair}") };
        let on = ConnId { index: 0, generation: 0 };
        PasswordCheck { on, ticket, from: from.parse().ok(), credentials }
    }

    /// A queue and its worker, driven by the test.
    struct Run {
        queue: Queue,
        results: Vec<(ConnId, u64, Verdict)>,
        hashes: usize,
        now: Time,
    }

    impl Run {
        fn new(users: &[(&str, &str)]) -> Self {
            Self { queue: queue(users), results: Vec::new(), hashes: 0, now: Time(1_000_000) }
        }

        fn take(&mut self, ticket: u64, from: &str, pair: &str) {
            self.queue.take(check(ticket, from, pair), self.now, &mut self.results);
        }

        /// Computes one hash. Returns false if no check waits.
        fn hash(&mut self) -> bool {
            let Some(job) = self.queue.next() else { return false };
            self.hashes += 1;
            let is_right = bcrypt::verify(job.credentials.password(), &job.hash).unwrap();
            self.queue.finish(is_right, self.now, &mut self.results);
            true
        }

        fn hash_all(&mut self) {
            while self.hash() {}
        }

        fn verdicts(&mut self) -> Vec<(u64, Verdict)> {
            std::mem::take(&mut self.results)
                .into_iter()
                .map(|(_, ticket, verdict)| (ticket, verdict))
                .collect()
        }
    }

    const ONE: &str = "192.0.2.1";
    const OTHER: &str = "192.0.2.2";

    #[test]
    fn a_page_of_sixty_resources_costs_one_hash() {
        let mut run = Run::new(&[("anna", "right")]);
        for ticket in 0..6 {
            run.take(ticket, ONE, "anna:right");
        }
        run.hash_all();
        for ticket in 6..60 {
            run.take(ticket, ONE, "anna:right");
        }
        assert_eq!(run.hashes, 1);
        let verdicts = run.verdicts();
        assert_eq!(verdicts.len(), 60);
        assert!(verdicts.iter().all(|(_, verdict)| *verdict == Verdict::Right));
    }

    #[test]
    fn only_the_right_password_of_the_user_is_right() {
        let mut run = Run::new(&[("anna", "right"), ("annar", "ight")]);
        let pairs = [
            "anna:right",
            "annar:ight",
            "anna:ight",
            "annar:right",
            "annari:ght",
            "anna:",
            ":right",
            "carl:x",
        ];
        for round in 0..2 {
            for (ticket, pair) in (0..).zip(pairs) {
                // Each from a different address.
                run.take(ticket, &format!("192.0.2.{}", ticket + 10 * round), pair);
                run.hash_all();
            }
            let right: Vec<_> =
                run.verdicts().iter().map(|(_, verdict)| *verdict == Verdict::Right).collect();
            assert_eq!(right, [true, true, false, false, false, false, false, false]);
        }
    }

    #[test]
    fn an_unknown_user_costs_as_much() {
        let text = format!("anna:{}\nbert:$2y$11${DUMMY}\n", hash("right"));
        let queue = Queue::new(password_file::parse(text.as_bytes(), "f").unwrap(), [1; 32]);
        assert!(queue.dummy.starts_with("$2y$11$"));
        let (_, hash) = queue.identify(&check(0, ONE, "nobody:x").credentials);
        assert!(Arc::ptr_eq(&hash, &queue.dummy));
        assert!(bcrypt::verify("x", &format!("$2y$04${DUMMY}")).is_ok(), "the dummy can be checked");
    }

    #[test]
    fn ten_thousand_guesses_from_one_address_leave_others_their_turn() {
        let mut run = Run::new(&[("anna", "right")]);
        let mut guess = 100;
        let mut flood = |run: &mut Run| {
            for _ in 0..1_000 {
                guess += 1;
                run.take(guess, ONE, &format!("anna:{guess}"));
            }
        };
        flood(&mut run);
        assert_eq!(run.queue.len(), QUEUE_PER_ADDRESS_MAX);
        run.take(1, OTHER, "anna:right");
        // At most one of the flood comes first.
        run.hash();
        run.hash();
        assert!(run.verdicts().contains(&(1, Verdict::Right)));
        for _ in 0..9 {
            flood(&mut run);
            run.hash_all();
        }
        assert!(run.hashes <= 2 + WRONG_BURST as usize + QUEUE_PER_ADDRESS_MAX, "{}", run.hashes);
        // The correct password is accepted at once, even from the guessing address.
        run.verdicts();
        run.take(2, ONE, "anna:right");
        run.take(3, ONE, "anna:wrong");
        let verdicts = run.verdicts();
        assert_eq!(verdicts[0], (2, Verdict::Right));
        assert!(matches!(verdicts[1], (3, Verdict::Busy { retry_after: 1.. })));
        run.now = run.now + WRONG_REFILL;
        run.take(4, ONE, "anna:wrong");
        assert!(run.hash());
        assert_eq!(run.verdicts(), [(4, Verdict::Wrong)]);
    }

    #[test]
    fn addresses_of_one_network_count_as_one() {
        assert_eq!(address("2001:db8::1".parse().ok()), address("2001:db8::2".parse().ok()));
        assert_ne!(address("2001:db8::1".parse().ok()), address("2001:db8:0:1::1".parse().ok()));
        assert_eq!(address("::ffff:192.0.2.1".parse().ok()), address(ONE.parse().ok()));
        assert_ne!(address(ONE.parse().ok()), address(OTHER.parse().ok()));
    }

    #[test]
    fn the_queue_is_bounded() {
        let mut run = Run::new(&[("anna", "right")]);
        for ticket in 0..2_000 {
            run.take(ticket, &format!("10.0.{}.{}", ticket / 250, ticket % 250), &format!("anna:{ticket}"));
        }
        assert_eq!(run.queue.len(), QUEUE_MAX);
        assert_eq!(run.verdicts().len(), 2_000 - QUEUE_MAX);
        for ticket in 0..2_000 {
            run.take(ticket, OTHER, "anna:0");
        }
        assert_eq!(run.queue.len(), QUEUE_MAX);
    }

    #[test]
    fn a_reload_forgets_and_checks_again_what_waits() {
        let mut run = Run::new(&[("anna", "right"), ("bert", "b")]);
        run.take(1, ONE, "anna:right");
        run.hash_all();
        run.take(2, ONE, "bert:b");
        let job = run.queue.next().unwrap();
        run.take(3, ONE, "anna:new");
        run.queue.replace(passwords(&[("anna", "new")]));
        // The running check succeeded by the old file.
        assert!(bcrypt::verify("b", &job.hash).unwrap());
        run.queue.finish(true, run.now, &mut run.results);
        run.take(4, ONE, "anna:right");
        run.hash_all();
        let mut verdicts = run.verdicts();
        verdicts.sort_by_key(|(ticket, _)| *ticket);
        let [right, wrong] = [Verdict::Right, Verdict::Wrong];
        assert_eq!(verdicts, [(1, right), (2, wrong), (3, right), (4, wrong)]);
    }

    #[test]
    fn a_right_password_is_forgotten_in_time() {
        let mut run = Run::new(&[("anna", "right")]);
        run.take(1, ONE, "anna:right");
        run.hash_all();
        run.now = run.now + REMEMBERED;
        run.take(2, ONE, "anna:right");
        assert_eq!(run.verdicts(), [(1, Verdict::Right)]);
        run.hash_all();
        assert_eq!((run.verdicts(), run.hashes), (vec![(2, Verdict::Right)], 2));
    }
}
