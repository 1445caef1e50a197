//! The sessions of one endpoint and their connections: dialling, give-ups, and the choice of a connection.
//!
//! Sans-IO like every machine here: `handle_*` consume events, [`Negotiation::poll_output`] returns actions until it
//! returns [`Output::Idle`]. Connections ([`LinkId`]) and sessions ([`SessionId`]) are numbers that are never reused,
//! so that events of ended ones are ignored.
//!
//! * A link belongs to the negotiation until [`Output::Close`] or [`Output::Established`].
//! * Bytes: the driver offers what it has received, keeps what was not consumed, and offers it again with the bytes
//!   that follow. The bytes left at `Established` belong to the application, before any others; those left at
//!   [`Output::StartTls`] belong to TLS. The application's first byte may follow `Established` at once, after every
//!   [`Output::Write`].
//! * Signals: the signalling channel authenticates the sender of an offer or a give-up. A *peer* is any text that
//!   identifies one there, such as a JID. The part before its first `/` is its *account*, by which limits count.
//! * The addresses that a peer offers are dialled. To prevent the scanning of networks there is a budget of dials for
//!   each account, and answers and their timing reveal nothing to the peer but that no connection was established
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

pub use crate::event::SessionFailure;
pub use crate::offer::Refusal;
use link::{Link, UsedKey};
pub use output::{Output, Signal, TlsRole};
use session::{Peer, Session, account};

/// The number of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// The number of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// The configuration of a negotiation.
#[derive(Clone, Debug)]
pub struct Config {
    /// The policy for TLS, dialling and serving. Unless it is off, the fingerprint in an offer is enforced: the
    /// connection uses TLS with that certificate, or fails.
    pub tls: Tls,
    /// The fingerprint of our certificate for our offers.
    pub fingerprint: Option<Fingerprint>,
    /// The addresses that may be dialled.
    pub policy: Policy,
    /// The timeout of a connection, from the dial or the accept until it is established; default 30 s.
    pub handshake: Span,
    /// The timeout of a session; default 60 s.
    pub session: Span,
    /// The maximum number of sessions; default 256. If it is reached, the oldest session of the account with the most
    /// sessions is ended in favour of a request of an account with fewer.
    pub sessions_max: usize,
    /// The maximum number of addresses dialled per minute for one account, and four times as many in total. Default
    /// 60.
    pub dials_per_minute_max: u32,
    /// For how long the dials of a requested session appear to last, whatever their result: a give-up is not
    /// signalled before, so that the time does not reveal whether a port is open, closed or filtered. Default 10 s.
    /// `None`: give-ups are signalled at once.
    pub concealed: Option<Span>,
    /// The maximum number of accepted and not established connections; default 256. Further ones are closed.
    pub accepted_max: usize,
    /// The maximum number of accepted connections that are parked until our request is answered; default 32. Further
    /// ones are refused.
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

/// An endpoint with any number of sessions, behind one listener or none.
#[derive(Clone, Debug)]
pub struct Negotiation {
    config: Config,
    entropy: Entropy,
    sessions: SortedVecMap<SessionId, Session>,
    links: SortedVecMap<LinkId, Link>,
    used_keys: VecDeque<UsedKey>,
    /// A session of which a connection was refused because one side requires TLS and the other has it off.
    in_clear: Option<SessionId>,
    dials: DialBudget,
    outputs: VecDeque<Output>,
    /// The number of the next session or link.
    next: u64,
}

impl Negotiation {
    /// An endpoint without sessions. The seed comes from the operating system; keys are derived from it.
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

    /// Requests a session with `peer`. `hosts` are our hosts; the first [`HOSTS_MAX`] count.
    pub fn request(&mut self, peer: &str, hosts: &[HostPort], now: Time) -> SessionId {
        let id = SessionId(self.number());
        if self.sessions.len() >= self.config.sessions_max {
            self.emit(Output::Failed { session: id, why: SessionFailure::Busy });
            return id;
        }
        let offer = self.offer(hosts);
        let due = now + self.config.session;
        self.sessions.insert(id, Session::request(peer, &offer, due));
        self.emit(Output::Signal { session: id, signal: Signal::Request(offer) });
        id
    }

    /// Handles a request: answers or refuses it. After a refusal there are no further outputs for the session.
    /// `hosts` are our hosts.
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

    /// Ends the oldest session of the account with the most sessions, if it has at least two more than this one.
    fn make_room(&mut self, account: &str) -> bool {
        // The number of sessions of each account, and the oldest of them.
        let mut accounts = BTreeMap::<&str, (usize, Reverse<SessionId>)>::new();
        for (id, session) in self.sessions.iter().filter(|(_, it)| it.was_asked_for()) {
            accounts.entry(session.account()).or_insert((0, Reverse(*id))).0 += 1;
        }
        let own = accounts.get(account).map_or(0, |(sessions, _)| *sessions);
        let largest = accounts.into_values().max().filter(|(sessions, _)| *sessions > own + 1);
        let Some((_, Reverse(oldest))) = largest else { return false };
        self.signal_give_up(oldest);
        self.fail(oldest, SessionFailure::Busy);
        true
    }

    /// Our request was answered. Ignored if it was answered before, or if the session has ended.
    pub fn handle_answer(&mut self, session: SessionId, theirs: &Offer, now: Time) {
        let known = Peer::new(theirs, self.config.tls);
        match self.sessions.get_mut(&session) {
            Some(it) if it.is_unanswered() => it.on_answered(known),
            Some(_) | None => return,
        }
        self.unpark(session);
        self.dial_all(session, theirs, now);
        self.check_invariants();
    }

    /// Our request was refused, or its answer was invalid. Ignored if it was answered before, or if the session has
    /// ended.
    pub fn handle_refused(&mut self, session: SessionId) {
        if self.sessions.get(&session).is_some_and(Session::is_unanswered) {
            self.fail(session, SessionFailure::Refused);
        }
    }

    /// The session with `peer` and our key `key`; `None` if there is none (docs/dtcp.md §6.12).
    #[must_use]
    pub fn session_of(&self, peer: &str, key: &[u8]) -> Option<SessionId> {
        self.find(key).filter(|id| self.sessions.get(id).is_some_and(|session| session.peer() == peer))
    }

    /// The peer has stopped dialling. Ignored if it is repeated, or if the session has ended.
    pub fn handle_give_up(&mut self, session: SessionId) {
        if let Some(it) = self.sessions.get_mut(&session) {
            it.they_gave_up();
            self.review(session);
        }
    }

    /// Cancels a session. The peer is told if possible (docs/dtcp.md §6.14).
    pub fn cancel(&mut self, session: SessionId) {
        self.signal_give_up(session);
        self.discard(session);
        self.check_invariants();
    }

    /// Handles an accepted connection.
    pub fn handle_accepted(&mut self, now: Time) -> LinkId {
        let link = LinkId(self.number());
        if self.links.values().filter(|link| !link.is_dialled()).count() >= self.config.accepted_max {
            self.emit(Output::Close { link, how: Close::Abort });
            return link;
        }
        self.links.insert(link, Link::accepted(self.config.tls, now + self.config.handshake));
        link
    }

    /// The result of [`Output::Resolve`]. Only the first address that the policy allows is dialled.
    pub fn handle_resolved(&mut self, link: LinkId, addresses: &[SocketAddr]) {
        if !self.links.get(&link).is_some_and(Link::is_dialled) {
            return;
        }
        match addresses.iter().find(|address| self.config.policy.allows(**address)) {
            Some(to) => self.emit(Output::Dial { link, to: *to }),
            None => self.drop_link(link, Close::Abort),
        }
    }

    /// The connection of an [`Output::Dial`] is established.
    pub fn handle_connected(&mut self, link: LinkId) {
        self.connected(link);
    }

    /// The session of which a connection was refused since the last call because one side requires TLS and the other
    /// has it off.
    pub fn take_in_clear(&mut self) -> Option<SessionId> {
        self.in_clear.take()
    }

    /// An [`Output::Resolve`] or [`Output::Dial`] failed.
    pub fn handle_dial_failed(&mut self, link: LinkId) {
        self.drop_link(link, Close::Abort);
    }

    /// Offers received bytes, from the first one that was not consumed. Returns how many were consumed. The bytes
    /// that are left once the link no longer belongs to the negotiation are not for it: see the [module](self).
    #[must_use]
    pub fn handle_bytes(&mut self, link: LinkId, bytes: &[u8]) -> usize {
        let used = self.read(link, bytes);
        self.check_invariants();
        used
    }

    /// The handshake of [`Output::StartTls`] is complete; `certificate` is the peer's, if it sent one.
    pub fn handle_tls_up(&mut self, link: LinkId, certificate: Option<Fingerprint>) {
        self.tls_up(link, certificate);
    }

    /// The handshake of [`Output::StartTls`] failed. The link lingers, so that the alert arrives.
    pub fn handle_tls_failed(&mut self, link: LinkId) {
        self.drop_link(link, Close::Linger);
    }

    /// The connection has ended or failed. All bytes received before must have been offered.
    pub fn handle_end(&mut self, link: LinkId) {
        self.drop_link(link, Close::Abort);
    }

    /// Handles deadlines that have passed. Early, late and spurious calls are harmless.
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
            self.signal_give_up(session);
            self.fail(session, SessionFailure::Deadline);
        }
        self.check_invariants();
    }

    /// The next output.
    #[must_use]
    pub fn poll_output(&mut self) -> Output {
        self.outputs.pop_front().unwrap_or_else(|| {
            let sessions = self.sessions.values().map(Session::next_due);
            Output::Idle { until: self.links.values().map(Link::due).chain(sessions).min() }
        })
    }

    /// The session of a connection; `None` for an accepted one without a correct key so far, and for one that no
    /// longer belongs to the negotiation.
    #[must_use]
    pub fn session_of_link(&self, link: LinkId) -> Option<SessionId> {
        self.links.get(&link).and_then(Link::session)
    }

    /// The number of sessions that have neither a connection nor failed.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// The number of connections that are neither established nor closed.
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

    /// Whether a dial for this account is within the budget; it is counted.
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

    /// Checks what must hold between two calls.
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
