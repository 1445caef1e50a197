//! Another process takes over from this relay: it gets the listeners, and this one keeps its pairs until they end.
//!
//! A token must be accepted once by both processes together. So this relay accepts no registration from the time at which
//! its used tokens are copied: hidden servers come back to the other process. Clients whose connections were accepted here
//! are still served from the waiting connections, which are released one after the other.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::{Engine, RETRY_AFTER, STOPPING, State};
use crate::event::WaitingEnd;
use crate::http::reply::Status;
use crate::http::reply::diagnostic::TAKEN_OVER;
use crate::id::Id;
use crate::machine::ConnId;
use crate::registry::UsedToken;
use crate::time::{Now, Span, Time};

/// The newest waiting connections of an ID stay for this long, for clients that have connected but not sent a request.
const EARLY_CLIENTS: Span = Span::from_secs(1);
/// The interval between two releases of waiting connections. Their agents reconnect at once.
const RELEASE_INTERVAL: Span = Span(500);
/// No connection is accepted for at least this long before [`TakeOver::Freeze`].
const QUIET_MIN: Span = Span::from_millis(50);
/// It is as long as this at most if connections that were accepted before have not sent their requests yet: a TLS handshake
/// and a request over a distant path take as long. Slow strangers may take longer.
const UNFINISHED_MAX: Span = Span::from_millis(500);
/// If clients are still held after this long, connections are accepted again for a while.
const QUIET_MAX: Span = Span::from_millis(600);
/// Connections are accepted for this long after the first attempt, twice as long after the second, and so on: hidden servers
/// over a distant path need several round trips to come back.
const RESUME_EACH: Span = Span::from_millis(200);
/// They are accepted for longer while clients are held, up to this long.
const RESUME_MAX: Span = Span::from_secs(2);
/// After so many attempts the take-over continues although clients are held.
const QUIET_ATTEMPTS: u32 = 10;
/// All waiting connections are released within this time: until its agent is back, clients of an ID are held at the other
/// process.
const RELEASE_MAX: Span = Span::from_secs(2);
/// `Retry-After` for hidden servers and clients that should come to the other process, in seconds.
pub(super) const TAKEN_OVER_RETRY_AFTER: u32 = 1;

/// A step of a take-over, at the relay that is taken over from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakeOver {
    /// No registration is accepted from now on.
    Freeze,
    /// The take-over failed: the relay continues as before.
    Cancel,
    /// The other process accepts connections now. Waiting connections are released, and pairs continue.
    Retire,
}

/// What the driver does next while it accepts no connections before [`TakeOver::Freeze`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quiet {
    /// It waits.
    Wait,
    /// It freezes the relay.
    Freeze,
    /// It accepts connections until [`Engine::may_quiet`]: clients are held, whose hidden servers must come back first.
    Resume,
}

/// Whether the relay accepts new clients and hidden servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Service {
    /// It does.
    #[default]
    Full,
    /// Another process is taking over: no registration is accepted.
    Frozen,
    /// Another process has taken over at this time: clients are served by the connections that still wait.
    Retired(Time),
    /// It is shutting down: neither.
    Draining,
}

impl Engine {
    /// Handles a step of a take-over by another process. Steps that do not apply are ignored.
    pub fn handle_take_over(&mut self, step: TakeOver, now: Now) {
        match (self.service, step) {
            (Service::Full, TakeOver::Freeze) => self.service = Service::Frozen,
            (Service::Frozen, TakeOver::Cancel) => self.service = Service::Full,
            (Service::Full | Service::Frozen, TakeOver::Retire) => self.retire(now),
            _ => {}
        }
    }

    /// What the driver does next if it has accepted no connection for `paused`, in this attempt, the first of which is 1.
    #[must_use]
    pub fn quiet(&self, paused: Span, attempt: u32) -> Quiet {
        if paused < QUIET_MIN {
            return Quiet::Wait;
        }
        let is_over = paused >= QUIET_MAX;
        match (self.held(), self.unfinished()) {
            (0, 0) => Quiet::Freeze,
            (0, _) if paused >= UNFINISHED_MAX => Quiet::Freeze,
            _ if is_over && attempt >= QUIET_ATTEMPTS => Quiet::Freeze,
            _ if is_over => Quiet::Resume,
            _ => Quiet::Wait,
        }
    }

    /// Whether the driver may begin the next attempt, if it has accepted connections for `resumed` after this one.
    #[must_use]
    pub fn may_quiet(&self, resumed: Span, attempt: u32) -> bool {
        let least = Span(RESUME_EACH.0.saturating_mul(attempt.into()));
        resumed >= RESUME_MAX || resumed >= least && self.held() == 0
    }

    /// The number of held clients.
    #[must_use]
    pub fn held(&self) -> usize {
        self.conns.states().filter(|state| matches!(state, Some(State::Held { .. }))).count()
    }

    /// The accepted tokens of time steps that have not expired, at most `max` from this position on. The next position is
    /// `from` plus the number of visited ones; `None` at the end. Positions are valid while no token is accepted.
    #[must_use]
    pub fn used_tokens(&self, from: usize, max: usize, now: Now) -> (Vec<UsedToken>, Option<usize>) {
        self.registry.used_tokens(from, max, now)
    }

    /// Remembers tokens that another process has accepted, so that they are refused here.
    pub fn handle_used_tokens(&mut self, tokens: &[UsedToken], now: Now) {
        for token in tokens {
            self.registry.remember(token, self.config.tokens_per_id_max, now);
        }
    }

    /// The answer to a registration if another process is taking over or has done so.
    pub(super) const fn refuses_registrations(&self) -> Option<(Status, &'static str, Option<u32>)> {
        match self.service {
            Service::Full => None,
            Service::Frozen | Service::Retired(_) => {
                Some((Status::Unavailable503, TAKEN_OVER, Some(TAKEN_OVER_RETRY_AFTER)))
            }
            Service::Draining => Some((Status::Unavailable503, STOPPING, Some(RETRY_AFTER))),
        }
    }

    /// Whether another process has taken over.
    #[must_use]
    pub const fn is_retired(&self) -> bool {
        matches!(self.service, Service::Retired(_))
    }

    /// When a waiting connection is released that waits from now on, if another process has taken over.
    pub(super) fn release_at(&self) -> Option<Time> {
        match self.service {
            Service::Retired(at) => Some(at + EARLY_CLIENTS),
            Service::Full | Service::Frozen | Service::Draining => None,
        }
    }

    fn retire(&mut self, now: Now) {
        self.service = Service::Retired(now.mono);
        let early = self.unfinished();
        let mut waiting: BTreeMap<Id, Vec<ConnId>> = BTreeMap::new();
        let mut held = Vec::new();
        for on in self.conns.open_ids() {
            match self.conns.state(on) {
                Some(State::Waiting { id, .. }) => waiting.entry(*id).or_default().push(on),
                Some(State::Held { id, request }) => held.push((on, *id, request.answer)),
                // After an idle connection is closed, a client opens another one for its next request.
                Some(State::Head { begun: false, .. }) => {
                    self.conns.set_due(on, Some(now.mono + EARLY_CLIENTS));
                }
                _ => {}
            }
        }
        for (on, id, answer) in held {
            // A plain token's connection that waits may be eligible soon.
            if self.registry.waiting(id) == 0 {
                self.unhold(id, on);
                self.refuse_client(on, Some(id), Status::Unavailable503, TAKEN_OVER, answer, now);
            }
        }
        self.release(waiting, early, now);
    }

    /// Sets the times at which waiting connections are closed: first the oldest one of each ID, then the next one of each.
    /// For each of the `early` clients, the newest ones stay for longer.
    fn release(&mut self, mut waiting: BTreeMap<Id, Vec<ConnId>>, early: usize, now: Now) {
        for of_id in waiting.values_mut() {
            of_id.sort_unstable_by_key(|on| on.generation);
        }
        let rounds = waiting.values().map(Vec::len).max().unwrap_or(0);
        let count: usize = waiting.values().map(Vec::len).sum();
        let each = RELEASE_MAX.0 / u64::try_from(count.max(1)).unwrap_or(u64::MAX);
        let each = Span(each.min(RELEASE_INTERVAL.0));
        let mut due = now.mono;
        for round in 0..rounds {
            for of_id in waiting.values() {
                let Some(&on) = of_id.get(round) else { continue };
                due = due + each;
                let is_kept = round + early >= of_id.len();
                let at = if is_kept { due.max(now.mono + EARLY_CLIENTS) } else { due };
                self.conns.set_due(on, Some(at));
            }
        }
    }

    /// The number of connections whose request is not complete.
    fn unfinished(&self) -> usize {
        let is_unfinished = |state: &State| match state {
            State::Proxied
            | State::Hello { .. }
            | State::Securing
            | State::Head { .. }
            | State::Answering { .. }
            | State::Discarding { .. } => true,
            State::PlainHttp { .. }
            | State::Waiting { .. }
            | State::Held { .. }
            | State::Hidden { .. }
            | State::Client { .. } => false,
        };
        self.conns.states().flatten().filter(|state| is_unfinished(state)).count()
    }

    /// The deadline of a waiting connection has passed. Releases it if another process has taken over; otherwise, and if it
    /// only becomes eligible now, clients may get it.
    pub(super) fn expire_waiting(&mut self, on: ConnId, id: Id, now: Now) {
        let was_eligible = self.registry.is_eligible(id, on);
        if self.is_retired() && was_eligible {
            return self.end_waiting(on, WaitingEnd::Drained, now);
        }
        self.registry.eligible(id, on);
        self.conns.set_due(on, self.release_at());
        self.serve_held(id, now);
    }
}
