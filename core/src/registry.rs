//! The registry: enrolled IDs, their waiting connections, and the clients held for them.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use crate::conn::ConnId;
use crate::http::target::{Registration, Token};
use crate::id::Id;
use crate::limiter::{Bucket, FAILURES, Source};
use crate::time::{Now, Span, Time};
use crate::token::{ChallengeKey, Key};

pub use self::access::{Access, ClientLimits};
use self::held::Held;
pub(crate) use self::held::Holding;
use self::pairs::Pairs;
pub use self::replay_cache::UsedToken;
use self::replay_cache::{ReplayCache, TokenKey};

mod access;
mod held;
mod pairs;
mod replay_cache;

/// An ID counts as recently served for this long after a connection last waited for it. Every enrolled ID does for as
/// long after the relay's start.
const SERVED: Span = Span::from_secs(30);

/// How long clients are held for a hidden server that left cleanly. One that restarts, or that replaces an idle
/// connection, is back by then.
const BACK_SOON: Span = Span::from_secs(2);

/// A hidden server as the operator enrolled it: one line of the file `ids`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolment {
    /// Its ID.
    pub id: Id,
    /// The secret that it shares with this relay, and how tokens are made from it.
    pub key: Key,
    /// Its labels under `--domain`, in lower case.
    pub labels: Vec<String>,
    /// Whether plain tokens are accepted as well as bound ones.
    pub plain_tokens: bool,
    /// Whether the hidden server terminates its clients' TLS itself. It then gets raw clients and the end-to-end
    /// streams of connectors, and no others (`docs/protocol.md §10`).
    pub end_to_end: bool,
    /// The ports whose clients are for it: positions in [`Config::ports`](crate::engine::Config::ports).
    pub ports: Vec<u16>,
    /// Whether it is served at present.
    pub access: Access,
    /// The clients that it gets.
    pub clients: ClientLimits,
}

impl Enrolment {
    /// A hidden server without labels, for which only bound tokens are accepted.
    #[must_use]
    pub const fn new(id: Id, key: Key) -> Self {
        Self {
            id,
            key,
            labels: Vec::new(),
            plain_tokens: false,
            end_to_end: false,
            ports: Vec::new(),
            access: Access::Open,
            clients: ClientLimits::NONE,
        }
    }
}

/// The waiting connections that a client may be handed over to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Takers {
    /// All of them.
    All,
    /// Those whose agent accepts raw clients.
    OfRaw,
}

/// The kind of a waiting connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WaitingKind {
    /// Whether it was accepted with a plain token.
    pub(crate) plain: bool,
    /// Whether its agent accepts raw clients.
    pub(crate) takes_raw: bool,
}

/// The reason why a registration is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Unknown ID, wrong token or used token. They are not told apart.
    Unauthorized,
    /// The token is over a challenge that this relay did not make or that has expired, so it was not checked. The
    /// response is that of [`Refused::Unauthorized`], whatever the ID.
    Stale,
    /// Too many failures with plain tokens for this ID; retry after this time.
    Guessed(Span),
    /// The replay cache is full for this ID.
    Full,
}

/// How a waiting connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Departure {
    /// The hidden server ended it: close_notify, or FIN in clear.
    InOrder,
    /// Anything else.
    Lost,
}

/// The state of a hidden server without a waiting connection, as far as a client is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// It is not enrolled, was never connected, or has been gone for long.
    Absent,
    /// Its last waiting connection ended cleanly and it has no pair. Clients are held for `hold`, since it may
    /// return.
    Left { hold: Span },
    /// It was connected a short time ago, or the relay has just started.
    Offline,
    /// It is connected, but all of its connections are in use.
    Busy,
}

/// All enrolled IDs.
#[derive(Debug)]
pub(crate) struct Registry {
    entries: BTreeMap<Id, Entry>,
    labels: BTreeMap<String, Id>,
    ports: BTreeMap<u16, Id>,
    /// Whether an enrolment is end-to-end.
    has_end_to_end: bool,
    pairs: Pairs,
    /// The number of waiting connections of all IDs.
    waiting: u32,
    /// Accepted tokens of time steps, by seconds of the wall clock.
    replay_cache: ReplayCache,
    /// Accepted tokens over challenges, by seconds of the monotonic clock.
    spent_challenged: ReplayCache,
    nobody: Key,
    started: Time,
}

#[derive(Debug)]
struct Entry {
    enrolment: Enrolment,
    /// Oldest first.
    waiting: VecDeque<Waiting>,
    held: Held,
    last_waiting: Option<Time>,
    /// How the last waiting connection ended; `None` if a client took it.
    departure: Option<Departure>,
    /// When the last pair ended.
    last_pair: Option<Time>,
    /// The counts of accepted tokens of time steps.
    accepted: Accepted,
    /// The counts of accepted tokens over challenges.
    accepted_challenged: Accepted,
    guesses: Bucket,
    tally: Tally,
}

/// The totals of an ID's ended pairs since the relay started. They survive a change of the secret.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    /// The number of pairs that ended.
    pub(crate) pairs: u64,
    /// Bytes that their clients sent.
    pub(crate) from_client: u64,
    /// Bytes that the hidden server sent.
    pub(crate) from_hidden: u64,
    /// The time when the last of them ended.
    ended: Option<Time>,
}

/// An ID as a snapshot shows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registered {
    pub(crate) id: Id,
    pub(crate) waiting: u32,
    pub(crate) held: u32,
    pub(crate) pairs: u32,
    pub(crate) tally: Tally,
    /// When it was last connected; not up to date while a connection waits or a pair lasts.
    pub(crate) seen: Option<Time>,
}

/// How many accepted tokens of an ID are remembered, by the second in which they expire. There are at most three such
/// seconds at a time: a time step has two neighbours, a challenge's step has one.
#[derive(Clone, Copy, Debug, Default)]
struct Accepted([AcceptedUntil; 3]);

#[derive(Clone, Copy, Debug, Default)]
struct AcceptedUntil {
    until: u64,
    tokens: u32,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    on: ConnId,
    kind: WaitingKind,
    eligible: bool,
}

/// How tokens are checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    pub(crate) one_time_strict: bool,
    pub(crate) tokens_max: u32,
}

impl Registry {
    pub(crate) fn new(started: Time) -> Self {
        Self {
            entries: BTreeMap::new(),
            labels: BTreeMap::new(),
            ports: BTreeMap::new(),
            has_end_to_end: false,
            pairs: Pairs::default(),
            waiting: 0,
            replay_cache: ReplayCache::default(),
            spent_challenged: ReplayCache::default(),
            nobody: Key::dummy(),
            started,
        }
    }

    /// Replaces the list of enrolments. Returns the waiting connections and held clients of IDs that were removed or
    /// have another secret. If two entries have the same ID, the first counts.
    pub(crate) fn enrol(&mut self, list: Vec<Enrolment>, now: Time) -> Vec<ConnId> {
        let mut old = core::mem::take(&mut self.entries);
        self.labels.clear();
        self.ports.clear();
        self.has_end_to_end = list.iter().any(|enrolment| enrolment.end_to_end);
        for enrolment in list {
            if self.entries.contains_key(&enrolment.id) {
                continue;
            }
            for label in &enrolment.labels {
                self.labels.insert(label.clone(), enrolment.id);
            }
            self.ports.extend(enrolment.ports.iter().map(|port| (*port, enrolment.id)));
            let entry = match old.remove(&enrolment.id) {
                Some(kept) if kept.enrolment.key == enrolment.key => Entry { enrolment, ..kept },
                // With another secret the old connections are no longer authenticated. The hidden server will soon
                // reconnect.
                Some(rotated) => {
                    let tally = rotated.tally;
                    let last_waiting =
                        if rotated.waiting.is_empty() { rotated.last_waiting } else { Some(now) };
                    old.insert(enrolment.id, rotated);
                    self.replay_cache.forget(enrolment.id);
                    self.spent_challenged.forget(enrolment.id);
                    Entry { tally, last_waiting, ..Entry::new(enrolment) }
                }
                None => Entry::new(enrolment),
            };
            self.entries.insert(entry.enrolment.id, entry);
        }
        let mut gone = Vec::new();
        for entry in old.into_values() {
            self.waiting -= count(entry.waiting.len());
            gone.extend(entry.waiting.iter().map(|waiting| waiting.on));
            gone.extend(entry.held.into_ids());
        }
        gone
    }

    pub(crate) fn is_enrolled(&self, id: Id) -> bool {
        self.entries.contains_key(&id)
    }

    /// The settings of an enrolled ID.
    pub(crate) fn enrolment(&self, id: Id) -> Option<&Enrolment> {
        self.entries.get(&id).map(|entry| &entry.enrolment)
    }

    /// The ID of a label under the relay's domain.
    pub(crate) fn labelled(&self, label: &str) -> Option<Id> {
        Id::parse(label.as_bytes()).or_else(|| self.labels.get(&label.to_ascii_lowercase()).copied())
    }

    /// The ID whose first label under the relay's domain this is. An ID in text form is not a label here.
    pub(crate) fn by_first_label(&self, label: &str) -> Option<Id> {
        let id = *self.labels.get(&label.to_ascii_lowercase())?;
        let first = self.enrolment(id)?.labels.first()?;
        first.eq_ignore_ascii_case(label).then_some(id)
    }

    /// The ID that a port's clients are for.
    pub(crate) fn of_port(&self, port: u16) -> Option<Id> {
        self.ports.get(&port).copied()
    }

    /// Whether a hidden server is enrolled as end-to-end.
    pub(crate) fn is_end_to_end(&self, id: Id) -> bool {
        self.entries.get(&id).is_some_and(|entry| entry.enrolment.end_to_end)
    }

    /// Whether any hidden server is enrolled as end-to-end.
    pub(crate) const fn has_end_to_end(&self) -> bool {
        self.has_end_to_end
    }

    /// Checks a token. An unknown ID costs the same work as a wrong token. `challenges` is the key that made the
    /// challenges.
    pub(crate) fn authenticate(
        &mut self,
        registration: &Registration<'_>,
        challenges: &ChallengeKey,
        policy: Policy,
        now: Now,
    ) -> Result<(), Refused> {
        let mut entry = self.entries.get_mut(&registration.id);
        let key = entry.as_ref().map_or(&self.nobody, |entry| &entry.enrolment.key);
        match registration.token {
            Token::Plain(digits) => {
                let step = key.check_plain(now.wall, digits);
                let Some(entry) = entry.as_mut().filter(|entry| entry.enrolment.plain_tokens) else {
                    return Err(Refused::Unauthorized);
                };
                if let Some(wait) = entry.guesses.exhausted(FAILURES, now.mono) {
                    return Err(Refused::Guessed(wait));
                }
                let Some(step) = step else {
                    entry.guesses.spend(FAILURES, now.mono);
                    return Err(Refused::Unauthorized);
                };
                if policy.one_time_strict {
                    let until = acceptable_until(&entry.enrolment.key, step);
                    entry.spend([0; 16], until, &mut self.replay_cache, policy, now)
                } else {
                    Ok(())
                }
            }
            Token::Bound { response, nonce } => {
                let step = key.check_bound(now.wall, nonce, &response);
                match (entry, step) {
                    (Some(entry), Some(step)) => {
                        let until = acceptable_until(&entry.enrolment.key, step);
                        entry.spend(response, until, &mut self.replay_cache, policy, now)
                    }
                    _ => Err(Refused::Unauthorized),
                }
            }
            Token::Challenged { response, nonce, challenge } => {
                let fits = key.check_over_challenge(&challenge, nonce, &response);
                let until = challenges.check(&challenge, now.mono);
                match (entry, until) {
                    (_, None) => Err(Refused::Stale),
                    (Some(entry), Some(until)) if fits => {
                        entry.spend_challenged(response, until, &mut self.spent_challenged, policy, now)
                    }
                    _ => Err(Refused::Unauthorized),
                }
            }
        }
    }

    /// Adds a waiting connection. Returns the ones that it replaces: every older plain one if it is plain, and the
    /// oldest beyond `max`.
    pub(crate) fn wait(&mut self, id: Id, on: ConnId, kind: WaitingKind, max: u32, now: Now) -> Vec<ConnId> {
        let Some(entry) = self.entries.get_mut(&id) else { return Vec::new() };
        let mut replaced = Vec::new();
        entry.waiting.retain(|older| {
            let stays = !(kind.plain && older.kind.plain);
            if !stays {
                replaced.push(older.on);
            }
            stays
        });
        while entry.waiting.len() >= max.max(1) as usize {
            replaced.extend(entry.waiting.pop_front().map(|oldest| oldest.on));
        }
        entry.waiting.push_back(Waiting { on, kind, eligible: !kind.plain });
        entry.last_waiting = Some(now.mono);
        self.waiting = self.waiting + 1 - count(replaced.len());
        entry.departure = None;
        replaced
    }

    /// Makes a plain connection eligible for clients.
    pub(crate) fn eligible(&mut self, id: Id, on: ConnId) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if let Some(waiting) = entry.waiting.iter_mut().find(|waiting| waiting.on == on) {
            waiting.eligible = true;
        }
    }

    /// Whether a client may get this connection.
    pub(crate) fn is_eligible(&self, id: Id, on: ConnId) -> bool {
        let entry = self.entries.get(&id);
        entry.is_some_and(|entry| entry.waiting.iter().any(|waiting| waiting.on == on && waiting.eligible))
    }

    /// Takes the newest eligible connection for a client. It no longer waits.
    pub(crate) fn take(&mut self, id: Id, takers: Takers, now: Now) -> Option<ConnId> {
        let entry = self.entries.get_mut(&id)?;
        let may_take = |waiting: &Waiting| takers == Takers::All || waiting.kind.takes_raw;
        let newest = entry.waiting.iter().rposition(|waiting| waiting.eligible && may_take(waiting))?;
        entry.last_waiting = Some(now.mono);
        entry.departure = None;
        let taken = entry.waiting.remove(newest);
        entry.shrink();
        self.waiting -= 1;
        taken.map(|waiting| waiting.on)
    }

    /// Removes a waiting connection that ended or was replaced.
    pub(crate) fn leave(&mut self, id: Id, on: ConnId, departure: Departure, now: Now) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let before = entry.waiting.len();
        entry.waiting.retain(|waiting| waiting.on != on);
        self.waiting -= count(before - entry.waiting.len());
        entry.last_waiting = Some(now.mono);
        entry.departure = Some(departure);
        entry.shrink();
    }

    /// The number of remembered tokens.
    pub(crate) fn tokens(&self) -> u64 {
        self.replay_cache.len() + self.spent_challenged.len()
    }

    /// The accepted tokens of time steps: see [`Engine::used_tokens`](crate::engine::Engine::used_tokens).
    pub(crate) fn used_tokens(&self, from: usize, max: usize, now: Now) -> (Vec<UsedToken>, Option<usize>) {
        self.replay_cache.list(from, max, now.wall)
    }

    /// Remembers a token of a time step that another process has accepted.
    pub(crate) fn remember(&mut self, used: &UsedToken, tokens_max: u32, now: Now) {
        let Some(entry) = self.entries.get_mut(&used.id).filter(|_| used.until > now.wall) else { return };
        let policy = Policy { one_time_strict: false, tokens_max };
        // This fails if the token is known or the cache is full. Neither is an error of the other process.
        let _ = entry.spend(used.token, used.until, &mut self.replay_cache, policy, now);
    }

    /// The number of waiting connections of all IDs.
    pub(crate) const fn waiting_of_all(&self) -> u32 {
        self.waiting
    }

    /// Whether connections wait, but none of them accepts such a client, so that holding it would be in vain.
    pub(crate) fn has_others_only(&self, id: Id, takers: Takers) -> bool {
        let Some(entry) = self.entries.get(&id).filter(|_| takers == Takers::OfRaw) else { return false };
        !entry.waiting.is_empty() && !entry.waiting.iter().any(|waiting| waiting.kind.takes_raw)
    }

    pub(crate) fn waiting(&self, id: Id) -> u32 {
        self.entries.get(&id).map_or(0, |entry| count(entry.waiting.len()))
    }

    /// The state of a hidden server for a client that found no eligible connection.
    pub(crate) fn presence(&self, id: Id, now: Now) -> Presence {
        let Some(entry) = self.entries.get(&id) else { return Presence::Absent };
        let is_recent = |time: Option<Time>| time.is_some_and(|time| now.mono.since(time) < SERVED);
        let pairs = self.pairs(id);
        match entry.departure {
            _ if !entry.waiting.is_empty() => Presence::Busy,
            None if pairs > 0 => Presence::Busy,
            // The agent drains; another agent may take over before the last pair ends.
            Some(_) if pairs > 0 => Presence::Offline,
            Some(Departure::InOrder) => {
                let left = entry.last_waiting.max(entry.last_pair).unwrap_or(self.started);
                let hold = (left + BACK_SOON).since(now.mono);
                if hold > Span::ZERO { Presence::Left { hold } } else { Presence::Absent }
            }
            _ if is_recent(entry.last_waiting) || is_recent(Some(self.started)) => Presence::Offline,
            _ => Presence::Absent,
        }
    }

    pub(crate) fn pairs(&self, id: Id) -> u32 {
        self.pairs.of(id)
    }

    /// The number of pairs of an ID whose client has this address.
    pub(crate) fn pairs_of_source(&self, id: Id, source: Source) -> u32 {
        self.pairs.of_source(id, source)
    }

    pub(crate) fn pair_began(&mut self, id: Id, source: Source) {
        self.pairs.begin(id, source);
    }

    pub(crate) fn pair_ended(&mut self, id: Id, source: Source, now: Now) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.last_pair = Some(now.mono);
        }
        self.pairs.end(id, source);
    }

    /// Adds an ended pair to the totals.
    pub(crate) fn tally(&mut self, id: Id, from_client: u64, from_hidden: u64, now: Now) {
        if let Some(Entry { tally, .. }) = self.entries.get_mut(&id) {
            tally.pairs += 1;
            tally.from_client = tally.from_client.saturating_add(from_client);
            tally.from_hidden = tally.from_hidden.saturating_add(from_hidden);
            tally.ended = Some(now.mono);
        }
    }

    /// Adds the bytes of a pair whose hand-over failed to the totals, which only increase.
    pub(crate) fn tally_failed(&mut self, id: Id, from_client: u64) {
        if let Some(Entry { tally, .. }) = self.entries.get_mut(&id) {
            tally.from_client = tally.from_client.saturating_add(from_client);
        }
    }

    /// All enrolled IDs in their order.
    pub(crate) fn registered(&self) -> impl Iterator<Item = Registered> {
        self.entries.iter().map(move |(&id, entry)| Registered {
            id,
            waiting: count(entry.waiting.len()),
            held: count(entry.held.len()),
            pairs: self.pairs(id),
            tally: entry.tally,
            seen: entry.last_waiting.max(entry.tally.ended),
        })
    }

    pub(crate) fn held(&self, id: Id) -> usize {
        self.entries.get(&id).map_or(0, |entry| entry.held.len())
    }

    /// Holds a client. At most `max` clients are held for an ID.
    pub(crate) fn hold(&mut self, id: Id, on: ConnId, source: Source, max: u32) -> Holding {
        self.entries.get_mut(&id).map_or(Holding::Refused, |entry| entry.held.hold(on, source, max))
    }

    /// Removes and returns the held client that is next. Addresses take turns.
    pub(crate) fn release(&mut self, id: Id) -> Option<ConnId> {
        self.entries.get_mut(&id)?.held.release()
    }

    pub(crate) fn unhold(&mut self, id: Id, on: ConnId, source: Source) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.held.remove(on, source);
        }
    }

    /// Whether an eligible connection waits for this ID.
    pub(crate) fn has_eligible(&self, id: Id) -> bool {
        self.entries.get(&id).is_some_and(|entry| entry.waiting.iter().any(|waiting| waiting.eligible))
    }
}

fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

impl Entry {
    const fn new(enrolment: Enrolment) -> Self {
        Self {
            enrolment,
            waiting: VecDeque::new(),
            held: Held::new(),
            last_waiting: None,
            departure: None,
            last_pair: None,
            accepted: Accepted([AcceptedUntil { until: 0, tokens: 0 }; 3]),
            accepted_challenged: Accepted([AcceptedUntil { until: 0, tokens: 0 }; 3]),
            guesses: Bucket::NEW,
            tally: Tally { pairs: 0, from_client: 0, from_hidden: 0, ended: None },
        }
    }

    /// Frees the memory of the queue if no connection waits.
    fn shrink(&mut self) {
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
        }
    }

    /// Remembers the token of a time step. It expires at the second `until` of the wall clock.
    fn spend(
        &mut self,
        token: [u8; 16],
        until: u64,
        replay_cache: &mut ReplayCache,
        policy: Policy,
        now: Now,
    ) -> Result<(), Refused> {
        let room = policy.tokens_max.saturating_sub(self.accepted_challenged.count(secs(now.mono)));
        self.accepted.spend((self.enrolment.id, token), until, replay_cache, room, now.wall)
    }

    /// Remembers a token over a challenge. It expires at the second `until` of the monotonic clock.
    fn spend_challenged(
        &mut self,
        token: [u8; 16],
        until: u64,
        replay_cache: &mut ReplayCache,
        policy: Policy,
        now: Now,
    ) -> Result<(), Refused> {
        let room = policy.tokens_max.saturating_sub(self.accepted.count(now.wall));
        self.accepted_challenged.spend((self.enrolment.id, token), until, replay_cache, room, secs(now.mono))
    }
}

impl Accepted {
    /// How many tokens are remembered at this second.
    fn count(&self, second: u64) -> u32 {
        self.0.iter().filter(|it| it.until > second).map(|it| it.tokens).sum()
    }

    /// Remembers a token until a second, if it is new and fewer than `room` are remembered.
    fn spend(
        &mut self,
        mark: TokenKey,
        until: u64,
        replay_cache: &mut ReplayCache,
        room: u32,
        second: u64,
    ) -> Result<(), Refused> {
        if replay_cache.contains(&mark, until) {
            return Err(Refused::Unauthorized);
        }
        if self.count(second) >= room {
            return Err(Refused::Full);
        }
        // One of the three slots is for this second, or has expired.
        let place = self.0.iter().position(|it| it.until == until);
        let place = place.or_else(|| self.0.iter().position(|it| it.until <= second)).unwrap_or(0);
        let it = &mut self.0[place];
        if it.until != until {
            *it = AcceptedUntil { until, tokens: 0 };
        }
        it.tokens += 1;
        replay_cache.insert(mark, until, second);
        Ok(())
    }
}

/// The second at which the token of a time step expires.
pub(crate) fn acceptable_until(key: &Key, step: u64) -> u64 {
    step.saturating_add(2).saturating_mul(u64::from(key.period()))
}

fn secs(time: Time) -> u64 {
    time.0 / 1_000_000
}
