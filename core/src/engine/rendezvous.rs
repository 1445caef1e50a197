//! Waiting connections, held clients, hand-overs, and the end of pairs.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::follow::Follow;
use super::{Answer, BUSY, Engine, NOBODY, OFFLINE, RETRIES_MAX, Request, State};
use crate::conn::NamedBy;
use crate::conns::Ended;
use crate::event::{Event, WaitingEnd};
use crate::http::head::Head;
use crate::http::pool::PoolState;
use crate::http::reply::diagnostic::TAKEN_OVER;
use crate::http::reply::{Status, write_accepted};
use crate::http::target::{Registration, Token};
use crate::id::Id;
use crate::limiter::exceeds_share;
use crate::machine::{Close, ConnId, End, Output};
use crate::pair::{Flow, Side};
use crate::proxy_header;
use crate::registry::{Departure, Holding, Presence, Takers, WaitingKind};
use crate::time::{Now, Span, Time};

/// A request that may not be repeated fails if nothing of it was acknowledged for this long.
const UNREPEATABLE: Span = Span::from_secs(4);
/// The maximum delay of an acknowledgement of bytes that were sent before a hand-over (RFC 1122 §4.2.3.2).
const ACK_DELAY: Span = Span::from_millis(250);

/// The diagnostic if all agents of the ID do not accept raw clients.
const NO_RAW: &str = "the hidden server's agent takes no raw clients";

impl Engine {
    /// A hidden server is accepted; `connect` is its CONNECT.
    pub(super) fn wait(&mut self, on: ConnId, registration: &Registration<'_>, connect: &Head<'_>, now: Now) {
        let proxy_header = connect.proxy_header;
        let id = registration.id;
        let plain = matches!(registration.token, Token::Plain(_));
        let kind = WaitingKind { plain, takes_raw: registration.takes_raw };
        let replaced = self.registry.wait(id, on, kind, self.config.waiting_per_id_max, now);
        for older in replaced {
            self.end_waiting(older, WaitingEnd::Replaced, now);
        }
        let due = now.mono + self.config.answer;
        let state = State::Waiting { id, kind, flushed: false, since: now.mono, proxy_header };
        self.conns.set_state_until(on, state, Some(due));
        self.conns.set_named_by(on, NamedBy::Token);
        self.conns.emit(Output::UserTimeout { on, after: Some(self.config.user_timeout) });
        let challenge = match registration.token {
            Token::Challenged { .. } => true,
            Token::Bound { .. } => connect.asks_challenge,
            Token::Plain(_) => false,
        }
        .then(|| self.challenges.issue(now.mono));
        let mut text = Vec::new();
        let pool = (connect.asks_pool && !plain).then(|| self.pool_state(on, id));
        let instance = (connect.asks_instance && !plain).then_some(self.instance);
        write_accepted(&mut text, challenge.as_ref(), pool, instance);
        self.conns.send(on, text);
        let from = self.conns.from(on);
        self.conns.event(Event::Waiting { on, from, id, waiting: self.registry.waiting(id) });
        self.serve_held(id, now);
    }

    /// The pool's state for the agent whose connection `on` waits from now on. The agent opens as many connections as
    /// it is told, so none of them must be refused: neither by the limits of the ID, nor by those of its address.
    fn pool_state(&self, on: ConnId, id: Id) -> PoolState {
        // One of the held clients gets this connection.
        let held = u32::try_from(self.registry.held(id)).unwrap_or(u32::MAX).saturating_sub(1);
        let pairs = self.pairs_max(id).saturating_sub(self.registry.pairs(id));
        let room = self.config.waiting_per_id_max.saturating_sub(self.registry.waiting(id));
        let admitted = self.admitted_at_once(self.conns.source(on));
        PoolState { held: held.min(pairs).min(admitted), room: room.min(admitted) }
    }

    /// A client asks for an enrolled ID: it is handed over to a waiting connection, held for one, or refused.
    pub(super) fn serve_client(&mut self, on: ConnId, id: Id, request: Box<Request>, now: Now) {
        let answer = request.answer;
        if let Some((status, why)) = self.refuses_client(on, id) {
            return self.refuse_client(on, Some(id), status, why, answer, now);
        }
        if self.has_no_pair_for(on, id) {
            return self.refuse_client(on, Some(id), Status::Unavailable503, "too many pairs", answer, now);
        }
        if self.registry.has_others_only(id, request.takers()) {
            return self.refuse_client(on, Some(id), Status::Unavailable503, NO_RAW, answer, now);
        }
        // Held clients go first.
        if self.registry.held(id) == 0
            && let Some(hidden) = self.registry.take(id, request.takers(), now)
        {
            return self.hand_over(hidden, on, id, request, now);
        }
        let hold = match self.registry.presence(id, now) {
            // Hidden servers register at the process that has taken over.
            _ if self.is_retired() && self.registry.waiting(id) == 0 => Span::ZERO,
            // It may wait at another relay, and comes when it renews its connections.
            _ if self.config.group => self.config.hold,
            Presence::Absent => Span::ZERO,
            Presence::Left { hold } => hold.min(self.config.hold),
            Presence::Offline | Presence::Busy => self.config.hold,
        };
        self.hold(on, id, request, now.mono + hold, now);
    }

    /// Whether a client gets no pair: the ID has none left, or none for this client's address. The fewer are left,
    /// the fewer one address may have.
    fn has_no_pair_for(&self, client: ConnId, id: Id) -> bool {
        let free = self.pairs_max(id).saturating_sub(self.registry.pairs(id));
        free == 0 || exceeds_share(self.registry.pairs_of_source(id, self.conns.source(client)), free)
    }

    /// Answers a held client that was displaced by clients of other addresses.
    fn refuse_displaced(&mut self, on: ConnId, now: Now) {
        let Some(State::Held { id, request }) = self.conns.state(on) else { return };
        let (id, answer) = (*id, request.answer);
        self.refuse_unserved(on, id, answer, now);
    }

    /// Refuses a client because no connection waits, or none came in time.
    pub(super) fn refuse_unserved(&mut self, on: ConnId, id: Id, answer: Answer, now: Now) {
        let (status, why) = match self.registry.presence(id, now) {
            _ if self.is_retired() => (Status::Unavailable503, TAKEN_OVER),
            // One that left cleanly is as absent as one that was never connected.
            Presence::Absent | Presence::Left { .. } => (Status::NotFound404, NOBODY),
            Presence::Offline => (Status::Unavailable503, OFFLINE),
            Presence::Busy => (Status::Unavailable503, BUSY),
        };
        self.refuse_client(on, Some(id), status, why, answer, now);
    }

    /// Pairs held clients with waiting connections until either is used up.
    pub(super) fn serve_held(&mut self, id: Id, now: Now) {
        while self.registry.pairs(id) < self.pairs_max(id) && self.registry.has_eligible(id) {
            let Some(client) = self.registry.release(id) else { return };
            if self.has_no_pair_for(client, id) {
                self.refuse_displaced(client, now);
                continue;
            }
            let Some(State::Held { request, .. }) = self.conns.state(client) else {
                debug_assert!(false, "held, but not in that state");
                continue;
            };
            let (takers, answer) = (request.takers(), request.answer);
            let Some(hidden) = self.registry.take(id, takers, now) else {
                self.refuse_client(client, Some(id), Status::Unavailable503, NO_RAW, answer, now);
                continue;
            };
            let Some(state) = self.conns.state(client) else { continue };
            let State::Held { request, .. } = core::mem::replace(state, State::Hidden { id }) else {
                continue;
            };
            self.conns.emit(Output::Read { on: client, wanted: true });
            self.hand_over(hidden, client, id, request, now);
        }
    }

    pub(super) fn hand_over(
        &mut self,
        hidden: ConnId,
        client: ConnId,
        id: Id,
        mut request: Box<Request>,
        now: Now,
    ) {
        if request.first_handed.is_none() {
            request.first_handed = Some(now.mono);
            self.counts.hand_overs.add(now.mono.since(request.handed));
        }
        (request.handed, request.round_trip) = (now.mono, Span::ZERO);
        self.conns.emit(Output::UserTimeout { on: hidden, after: None });
        let mut head = Vec::new();
        // A raw client's head contains a header already.
        if request.takers() == Takers::All
            && let Some(State::Waiting { proxy_header: true, .. }) = self.conns.state(hidden)
        {
            proxy_header::write(proxy_header::Version::V2, self.conns.from(client), &mut head);
        }
        head.extend_from_slice(&request.head);
        self.conns.send(hidden, head);
        if !request.repeatable {
            request.head = Box::default();
        }
        self.conns.set_state_until(hidden, State::Hidden { id }, None);
        let follow = request.follower.clone().map(|follower| Box::new(Follow::new(follower)));
        let is_followed = follow.is_some();
        self.conns.set_state_until(client, State::Client { id, request: Some(request), follow }, None);
        self.registry.pair_began(id, self.conns.source(client));
        self.counts.pairs += 1;
        self.conns.pair(hidden, client, true, now);
        if is_followed {
            self.conns.emit(Output::Gate { on: hidden });
            self.conns.emit(Output::Gate { on: client });
        }
        let from = self.conns.from(client);
        self.conns.event(Event::Paired { hidden, client, from, id });
    }

    /// How to close a hidden server's connection that ended in this way after the hand-over. A truncated one may still
    /// read. It must not take what it has of the request for the whole request, so close_notify follows only a
    /// request whose end the client has sent.
    pub(super) fn close_after_hand_over(&mut self, hidden: ConnId, how: End) -> Close {
        let mut is_open =
            || self.conns.pair_of(hidden).is_some_and(|pair| pair.flow_from(Side::Client) == Flow::Open);
        match how {
            End::Truncated if is_open() => Close::Truncate,
            End::Truncated => Close::Linger,
            End::Clean | End::Reset => Close::Abort,
        }
    }

    /// The hidden server's connection has failed before the first byte of a response: the next one gets the request,
    /// or the client gets 502. `how` closes the failed connection. Returns false if this is not the case.
    pub(super) fn hand_over_failed(&mut self, hidden: ConnId, how: Close, now: Now) -> bool {
        let Some((client, Side::Hidden)) = self.conns.peer(hidden) else { return false };
        // Neither bytes after the head nor a client that accepts no more bytes can be handed over again.
        let again = self.conns.pair_of(hidden).is_some_and(|pair| {
            pair.bytes_from(Side::Client) == 0 && pair.flow_from(Side::Hidden) != Flow::Dead
        });
        let from_client = self.conns.pair_of(hidden).map_or(0, |pair| pair.bytes_from(Side::Client));
        let Some(State::Client { id, request, .. }) = self.conns.state(client) else { return false };
        let id = *id;
        let Some(mut request) = request.take() else { return false };
        self.registry.tally_failed(id, from_client);
        self.registry.pair_ended(id, self.conns.source(client), now);
        self.conns.close(hidden, how, now);
        let again = again && request.repeatable && request.tries < RETRIES_MAX;
        let next = if again { self.registry.take(id, request.takers(), now) } else { None };
        self.conns.event(Event::HandOverFailed { hidden, client, id, retried: next.is_some() });
        match next {
            Some(next) => {
                request.tries += 1;
                // Reading may have been stopped because the failed connection could not be written to.
                self.conns.emit(Output::Read { on: client, wanted: true });
                self.hand_over(next, client, id, request, now);
            }
            None => {
                self.refuse_lost(client, id, request.answer, now);
            }
        }
        true
    }

    /// Checks whether a handed-over head was acknowledged. `age` is that of the hidden server's last acknowledgement,
    /// if bytes are unacknowledged. If nothing was acknowledged for a second, or four round trips, the path is most
    /// likely dead: the connection is closed, and a request that may be repeated gets another one. Other requests get
    /// more time, since they fail then. Returns whether the connection was closed.
    pub(super) fn is_hand_over_lost(&mut self, hidden: ConnId, age: Option<Span>, now: Now) -> bool {
        let Some(timeout) = self.config.pair.hand_over else { return false };
        let (Some((client, Side::Hidden)), Some(age)) = (self.conns.peer(hidden), age) else { return false };
        let is_whole = self.conns.pair_of(hidden).is_some_and(|pair| {
            pair.bytes_from(Side::Client) == 0 && pair.flow_from(Side::Hidden) != Flow::Dead
        });
        let Some(State::Client { request: Some(request), .. }) = self.conns.state(client) else {
            return false;
        };
        let waited = now.mono.since(request.handed);
        // An acknowledgement of earlier bytes may have been in flight at the hand-over.
        let under_way = Span(request.round_trip.0 / 2) + ACK_DELAY;
        if age + under_way < waited {
            return false;
        }
        let is_repeatable = is_whole && request.repeatable;
        let least = if is_repeatable { timeout } else { timeout.max(UNREPEATABLE) };
        let timeout = least.max(Span(request.round_trip.0.saturating_mul(4)));
        if waited < timeout {
            let due = request.handed + timeout;
            self.conns.check_hand_over_at(hidden, due, now);
            return false;
        }
        if is_repeatable {
            self.hand_over_again(hidden, client, now)
        } else {
            self.hand_over_failed(hidden, Close::Abort, now)
        }
    }

    /// The connection of a repeatable request is dead. The next one gets the request. If none waits, the client is
    /// held for one, no longer than [`Config::hold`](super::Config::hold) in total.
    fn hand_over_again(&mut self, hidden: ConnId, client: ConnId, now: Now) -> bool {
        let Some(State::Client { id, request, .. }) = self.conns.state(client) else { return false };
        let id = *id;
        let Some(request) = request.take() else { return false };
        let due = request.first_handed.unwrap_or(now.mono) + self.config.hold;
        self.registry.pair_ended(id, self.conns.source(client), now);
        self.conns.close(hidden, Close::Abort, now);
        let is_late = due <= now.mono;
        let next = if is_late { None } else { self.registry.take(id, request.takers(), now) };
        let retried = next.is_some();
        self.conns.event(Event::HandOverFailed { hidden, client, id, retried });
        match next {
            Some(next) => {
                self.conns.emit(Output::Read { on: client, wanted: true });
                self.hand_over(next, client, id, request, now);
            }
            None if is_late => self.refuse_lost(client, id, request.answer, now),
            None => self.hold(client, id, request, due, now),
        }
        true
    }

    /// Holds a client until `due`, if there is room.
    fn hold(&mut self, on: ConnId, id: Id, request: Box<Request>, due: Time, now: Now) {
        let answer = request.answer;
        let max = if due <= now.mono { 0 } else { self.config.held_per_id_max };
        match self.registry.hold(id, on, self.conns.source(on), max) {
            Holding::Held => {}
            Holding::Displaced(other) => self.refuse_displaced(other, now),
            Holding::Refused => return self.refuse_unserved(on, id, answer, now),
        }
        self.conns.set_state_until(on, State::Held { id, request }, Some(due));
        self.conns.emit(Output::Read { on, wanted: false });
        self.conns.event(Event::Held { on, id });
        self.serve_held(id, now);
    }

    /// Answers a client whose request was handed over to a connection that failed.
    fn refuse_lost(&mut self, client: ConnId, id: Id, answer: Answer, now: Now) {
        const WHY: &str = "the hidden server's connection failed";
        self.refuse_client(client, Some(id), Status::BadGateway502, WHY, answer, now);
        self.serve_held(id, now);
    }

    pub(super) fn pair_over(&mut self, ended: Option<Ended>, now: Now) {
        let Some(Ended { hidden, client, pair, over }) = ended else { return };
        let Some(id) = self.paired_id(hidden) else { return };
        let (from_client, from_hidden) = (pair.bytes_from(Side::Client), pair.bytes_from(Side::Hidden));
        self.registry.pair_ended(id, self.conns.source(client), now);
        self.registry.tally(id, from_client, from_hidden, now);
        let why = pair.reason(over.why, self.is_answered(client));
        self.conns.event(Event::PairEnded {
            hidden,
            client,
            from: self.conns.from(client),
            id,
            from_client,
            from_hidden,
            after: now.mono.since(pair.began()),
            why,
        });
        self.serve_held(id, now);
    }

    pub(super) fn end_waiting(&mut self, on: ConnId, why: WaitingEnd, now: Now) {
        let Some(State::Waiting { id, since, .. }) = self.conns.state(on) else { return };
        let (id, after) = (*id, now.mono.since(*since));
        let departure =
            if why == WaitingEnd::Ended(End::Clean) { Departure::InOrder } else { Departure::Lost };
        self.registry.leave(id, on, departure, now);
        self.conns.event(Event::WaitingEnded { on, id, why, after });
        self.conns.close(on, Close::Linger, now);
    }
}
