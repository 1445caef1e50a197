//! The sessions of one party and their connections: who dials, who gave up, which connection wins.
//!
//! Sans-IO like every machine here: `handle_*` take what happened, [`Negotiation::poll_output`] says what to do about
//! it, until it says [`Output::Idle`]. Connections ([`LinkId`]) and sessions ([`SessionId`]) are numbers of the
//! negotiator's own that are never used again, so that a word about one that is over does no harm and is ignored.
//!
//! * A link is the negotiator's until [`Output::Close`] or [`Output::Established`], and not a moment longer.
//! * Bytes: the driver offers what it has received, keeps what was not consumed, and offers it again with what comes
//!   next. What is left at `Established` is the application's, before anything else; what is left at
//!   [`Output::StartTls`] is the TLS engine's. The application's first byte may follow `Established` at once, behind
//!   every [`Output::Write`].
//! * Signals: that an offer or a give-up is from whom it says is for the signalling channel to know. A *peer* is
//!   whatever text tells one from another there, a JID for one. What stands before its first `/` is its *account*, by
//!   which limits count.
//! * Whom a peer names is dialled. So that this is no way to scan networks, there is a budget of dials for each account,
//!   and a peer learns from its answers and their timing nothing but that no connection was established
//!   ([`Config::concealed`]).

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::net::SocketAddr;

use super::handshake::Tls;
use super::{Fingerprint, HOSTS_MAX, Key, Offer, host};
use crate::acl::Policy;
use crate::endpoint::{Host, HostPort};
use crate::entropy::Entropy;
use crate::limiter::DialBudget;
use crate::machine::Close;
use crate::sorted_vec_map::SortedVecMap;
use crate::time::{Span, Time};

mod link;
mod output;
mod session;

pub use crate::offer::Refusal;
use link::{Link, UsedKey};
pub use output::{Failure, Output, Signal, TlsRole};
use session::{Peer, Session, account};

/// A session's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// A connection's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// Everything about a negotiator that can be set.
#[derive(Clone, Debug)]
pub struct Config {
    /// What is wanted of TLS, dialling and serving. Where it is not off, an offer with a fingerprint is believed: its
    /// sender is spoken to in TLS with that certificate, or not at all.
    pub tls: Tls,
    /// Our certificate, if our offers are to carry its fingerprint.
    pub fingerprint: Option<Fingerprint>,
    /// Whom to dial.
    pub policy: Policy,
    /// How long a connection may take, from the dial or the accept until it is established; default 30 s.
    pub handshake: Span,
    /// How long a session may take; default 60 s.
    pub session: Span,
    /// How many sessions there may be at once; default 256. If there are so many, the oldest session of the account with
    /// the most makes room for a request of an account that has fewer.
    pub sessions_max: usize,
    /// How many addresses are dialled in a minute for one account; four times as many for all. Default 60.
    pub dials_per_minute_max: u32,
    /// If it was asked for a session, a party dials for so long whatever it meets, and says not before that it gives
    /// up: whether a port is open, closed or filtered is not to be told from the time. Default 10 s. `None`: it says so
    /// as soon as it knows.
    pub concealed: Option<Span>,
    /// How many accepted connections there may be that are not established; default 256. One more is closed.
    pub accepted_max: usize,
    /// How many accepted connections may be parked until our request is answered; default 32. One more is dismissed.
    pub parked_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            tls: Tls::Off,
            fingerprint: None,
            policy: Policy::default(),
            handshake: Span::from_secs(30),
            session: Span::from_secs(60),
            sessions_max: 256,
            dials_per_minute_max: 60,
            concealed: Some(Span::from_secs(10)),
            accepted_max: 256,
            parked_max: 32,
        }
    }
}

/// One party: any number of sessions, behind one listener or none.
#[derive(Clone, Debug)]
pub struct Negotiation {
    config: Config,
    entropy: Entropy,
    sessions: SortedVecMap<SessionId, Session>,
    links: SortedVecMap<LinkId, Link>,
    used_keys: VecDeque<UsedKey>,
    /// A session of which a connection was refused because one side requires TLS and the other one has it off.
    in_clear: Option<SessionId>,
    dials: DialBudget,
    outputs: VecDeque<Output>,
    /// The number of the next session or link.
    next: u64,
}

impl Negotiation {
    /// A party without sessions. The seed, from the operating system, is what its keys are made of.
    #[must_use]
    pub fn new(config: Config, seed: [u8; 32]) -> Self {
        Self {
            dials: DialBudget::new(config.dials_per_minute_max),
            config,
            entropy: Entropy::new(seed),
            sessions: SortedVecMap::default(),
            links: SortedVecMap::default(),
            used_keys: VecDeque::new(),
            in_clear: None,
            outputs: VecDeque::new(),
            next: 0,
        }
    }

    /// Asks `peer` for a session; `hosts` is where we can be reached, the first [`HOSTS_MAX`] of them.
    pub fn request(&mut self, peer: &str, hosts: &[HostPort], now: Time) -> SessionId {
        let id = SessionId(self.number());
        if self.sessions.len() >= self.config.sessions_max {
            self.emit(Output::Failed { session: id, why: Failure::Busy });
            return id;
        }
        let offer = self.offer(hosts);
        let due = now + self.config.session;
        self.sessions.insert(id, Session::request(peer, &offer, due));
        self.emit(Output::Signal { session: id, signal: Signal::Request(offer) });
        id
    }

    /// A request came: it is answered, or refused, and then nothing more is said of the session. `hosts` is where we
    /// can be reached.
    pub fn handle_request(&mut self, peer: &str, theirs: &Offer, hosts: &[HostPort], now: Time) -> SessionId {
        let id = SessionId(self.number());
        let refusal = if self.sessions.values().any(|session| session.is_from(peer, &theirs.key)) {
            Some(Refusal::Conflict)
        } else if hosts.is_empty() && theirs.hosts.is_empty() {
            Some(Refusal::Unreachable)
        } else if self.sessions.len() >= self.config.sessions_max && !self.make_room(account(peer)) {
            Some(Refusal::Busy)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            self.emit(Output::Signal { session: id, signal: Signal::Refuse(refusal) });
            return id;
        }
        let ours = self.offer(hosts);
        let due = now + self.config.session;
        let known = Peer::new(theirs, self.config.tls);
        self.sessions.insert(id, Session::respond(peer, &ours, known, due));
        self.emit(Output::Signal { session: id, signal: Signal::Answer(ours) });
        self.dial_all(id, theirs, now);
        self.check_invariants();
        id
    }

    /// Ends the oldest session of the account with the most, if it has at least two more than this one.
    fn make_room(&mut self, account: &str) -> bool {
        // Of each account, how many sessions it has, and the oldest of them.
        let mut accounts = BTreeMap::<&str, (usize, Reverse<SessionId>)>::new();
        for (id, session) in self.sessions.iter().filter(|(_, it)| it.was_asked_for()) {
            accounts.entry(session.account()).or_insert((0, Reverse(*id))).0 += 1;
        }
        let own = accounts.get(account).map_or(0, |(sessions, _)| *sessions);
        let largest = accounts.into_values().max().filter(|(sessions, _)| *sessions > own + 1);
        let Some((_, Reverse(oldest))) = largest else { return false };
        self.say_give_up(oldest);
        self.fail(oldest, Failure::Busy);
        true
    }

    /// Our request was answered. Ignored if it was answered before, or is over.
    pub fn handle_answer(&mut self, session: SessionId, theirs: &Offer, now: Time) {
        let known = Peer::new(theirs, self.config.tls);
        match self.sessions.get_mut(&session) {
            Some(it) if it.is_unanswered() => it.meet(known),
            Some(_) | None => return,
        }
        self.unpark(session);
        self.dial_all(session, theirs, now);
        self.check_invariants();
    }

    /// Our request was refused, or its answer made no sense. Ignored if it was answered before, or is over.
    pub fn handle_refused(&mut self, session: SessionId) {
        if self.sessions.get(&session).is_some_and(Session::is_unanswered) {
            self.fail(session, Failure::Refused);
        }
    }

    /// The session that `peer` means with our key `key`; `None` if there is none (docs/dtcp.md §6.12).
    #[must_use]
    pub fn session_of(&self, peer: &str, key: &[u8]) -> Option<SessionId> {
        self.find(key).filter(|id| self.sessions.get(id).is_some_and(|session| session.peer() == peer))
    }

    /// The other party dials no more. Ignored if it said so before, or the session is over.
    pub fn handle_give_up(&mut self, session: SessionId) {
        if let Some(it) = self.sessions.get_mut(&session) {
            it.they_gave_up();
            self.review(session);
        }
    }

    /// The application does not want the session any more. The other party is told, if it can be (docs/dtcp.md §6.14).
    pub fn cancel(&mut self, session: SessionId) {
        self.say_give_up(session);
        self.discard(session);
        self.check_invariants();
    }

    /// A connection was accepted.
    pub fn handle_accepted(&mut self, now: Time) -> LinkId {
        let link = LinkId(self.number());
        if self.links.values().filter(|link| !link.is_dialled()).count() >= self.config.accepted_max {
            self.emit(Output::Close { link, how: Close::Abort });
            return link;
        }
        self.links.insert(link, Link::accepted(self.config.tls, now + self.config.handshake));
        link
    }

    /// What [`Output::Resolve`] asked for. The first address that the policy allows is dialled, and no other.
    pub fn handle_resolved(&mut self, link: LinkId, addresses: &[SocketAddr]) {
        if !self.links.get(&link).is_some_and(Link::is_dialled) {
            return;
        }
        match addresses.iter().find(|address| self.config.policy.allows(**address)) {
            Some(to) => self.emit(Output::Dial { link, to: *to }),
            None => self.drop_link(link, Close::Abort),
        }
    }

    /// The connection of an [`Output::Dial`] is up.
    pub fn handle_connected(&mut self, link: LinkId) {
        self.connected(link);
    }

    /// The session of which a connection was refused since this was asked last because one side requires TLS and the
    /// other one has it off.
    pub fn take_in_clear(&mut self) -> Option<SessionId> {
        self.in_clear.take()
    }

    /// What [`Output::Resolve`] or [`Output::Dial`] asked for did not work out.
    pub fn handle_dial_failed(&mut self, link: LinkId) {
        self.drop_link(link, Close::Abort);
    }

    /// Bytes were received and are offered, from the first that was not consumed yet. Returns how many were consumed
    /// from the front. What is left once the link is not the negotiator's any more is not for it: see the
    /// [module](self).
    #[must_use]
    pub fn handle_bytes(&mut self, link: LinkId, bytes: &[u8]) -> usize {
        let used = self.read(link, bytes);
        self.check_invariants();
        used
    }

    /// The handshake that [`Output::StartTls`] began is complete; `certificate` is the peer's, if it showed one.
    pub fn handle_tls_up(&mut self, link: LinkId, certificate: Option<Fingerprint>) {
        self.tls_up(link, certificate);
    }

    /// The handshake that [`Output::StartTls`] began failed. The link lingers, so that the alert arrives.
    pub fn handle_tls_failed(&mut self, link: LinkId) {
        self.drop_link(link, Close::Linger);
    }

    /// The connection ended or broke, in whatever way. What it had said before must have been offered first.
    pub fn handle_end(&mut self, link: LinkId) {
        self.drop_link(link, Close::Abort);
    }

    /// A deadline may have passed. Early, late and spurious calls do no harm.
    pub fn handle_timeout(&mut self, now: Time) {
        let late = |due: Time| due <= now;
        let links: Vec<_> = self.links.iter().filter(|(_, it)| late(it.due())).map(|(id, _)| *id).collect();
        for link in links {
            self.expire(link);
        }
        for id in self.sessions.keys().copied().collect::<Vec<_>>() {
            if self.sessions.get_mut(&id).is_some_and(|it| it.has_concealed_until(now)) {
                self.review(id);
            }
        }
        let sessions: Vec<_> =
            self.sessions.iter().filter(|(_, it)| late(it.due())).map(|(id, _)| *id).collect();
        for session in sessions {
            self.say_give_up(session);
            self.fail(session, Failure::Deadline);
        }
        self.check_invariants();
    }

    /// The next thing to do.
    #[must_use]
    pub fn poll_output(&mut self) -> Output {
        self.outputs.pop_front().unwrap_or_else(|| {
            let sessions = self.sessions.values().map(Session::next_due);
            Output::Idle { until: self.links.values().map(Link::due).chain(sessions).min() }
        })
    }

    /// The session that a connection belongs to, as far as is known: `None` for one that was accepted and has not shown
    /// a right key, and for one that is not the negotiator's any more.
    #[must_use]
    pub fn session_of_link(&self, link: LinkId) -> Option<SessionId> {
        self.links.get(&link).and_then(Link::session)
    }

    /// How many sessions have neither a connection nor failed.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// How many connections are neither established nor closed.
    #[must_use]
    pub fn links(&self) -> usize {
        self.links.len()
    }

    fn emit(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    fn number(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        number
    }

    /// A dial for this account is within the budget; it counts from now on.
    fn may_dial(&mut self, account: &str, now: Time) -> bool {
        self.dials.take(account, now)
    }

    /// Our offer: a new key, and the hosts with IPv6 last, since an old peer may fail on those (docs/dtcp.md §6.33).
    fn offer(&mut self, hosts: &[HostPort]) -> Offer {
        let is_v6 = |place: &HostPort| matches!(place.host, Host::Address(address) if address.is_ipv6());
        let (last, first): (Vec<_>, Vec<_>) = hosts.iter().take(HOSTS_MAX).partition(|place| is_v6(place));
        Offer {
            key: Key::generate(&mut self.entropy),
            hosts: first.into_iter().chain(last).map(host::write).collect(),
            fingerprint: self.config.fingerprint,
        }
    }

    /// What must hold between two calls.
    fn check_invariants(&self) {
        debug_assert!(
            self.links.values().filter_map(Link::session).all(|id| self.sessions.contains_key(&id)),
            "a link of a session that is over"
        );
        debug_assert!(
            self.sessions.iter().all(|(id, session)| {
                !session.is_over_but_for_links() || self.links.values().any(|it| it.session() == Some(*id))
            }),
            "a session that both sides gave up, without a connection"
        );
    }
}
