//! Dials a host: resolves its name, tries its addresses by Happy Eyeballs (RFC 8305), and begins TLS.
//!
//! [`Race`] decides when each address is tried, and [`AddressBook`] stores the earlier results. Neither has
//! connections, so that a blocking program can use them as well. In a machine, `Dialers` runs races on its
//! connections.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::SocketAddr;

pub use self::address_book::{ADDRESSES_MAX, AddressBook};
pub use self::race::{ATTEMPT_DELAY, Race, Todo};
use crate::conns::Conns;
use crate::endpoint::{Host, HostPort};
use crate::machine::{Close, ConnId, DialFailure, End, Output, TlsFailure, TlsRole};
use crate::relay_client::Deadlines;
use crate::sorted_vec_map::SortedVecMap;
use crate::time::{Now, Span};
use crate::tunnel::{Proxy, ProxyError, Tunnel};

mod address_book;
mod race;
mod through;

/// Why a host could not be reached. If several addresses failed, the error of the attempt with the most progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialError {
    /// Its name does not resolve, or connecting failed.
    Dial(DialFailure),
    /// It ended the connection too early.
    Ended(End),
    /// The handshake or the response timed out.
    TimedOut,
    /// Its response is not HTTP.
    NotHttp,
    /// TLS failed.
    Tls(TlsFailure),
    /// The proxy on the way opened no tunnel.
    Proxy(ProxyError),
}

impl DialError {
    /// The progress of the failed attempt.
    const fn progress(self) -> u8 {
        match self {
            Self::Dial(DialFailure::Name) => 0,
            Self::Dial(_) => 1,
            Self::Ended(_) => 2,
            Self::TimedOut => 3,
            Self::NotHttp => 4,
            Self::Proxy(ProxyError::Unreachable(_)) => 1,
            Self::Proxy(_) => 5,
            Self::Tls(_) => 6,
        }
    }
}

/// What the machine must do after an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Nothing.
    Pending,
    /// Connected. The handshake begins once the machine's bytes in clear are sent: [`Dialers::greeted`].
    Greet(ConnId),
    /// `on` is connected, and secured if TLS is used. The race goes on until [`Dialers::settle`].
    Reached {
        /// The lead of the race. If it is another connection, its own attempt is not the one that succeeded.
        lead: ConnId,
        /// The connection.
        on: ConnId,
    },
    /// An attempt timed out. The machine calls [`Dialers::failed`] for it.
    Late {
        /// The attempt.
        on: ConnId,
        /// Why it failed.
        why: DialError,
    },
    /// The race has failed and was removed.
    Failed {
        /// The lead of the race. The machine must close it.
        lead: ConnId,
        /// The reason.
        why: DialError,
    },
}

/// The races of a machine.
///
/// A race begins with a connection that the machine made, its *lead*: the name is resolved for it, and the first
/// address is dialled with it. Each further address is dialled with a connection of its own, a *rival*. The lead
/// stays until the race is over, even if its own attempt has failed. The deadline of the race is the lead's.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dialers {
    /// The races by their leads.
    races: SortedVecMap<ConnId, Running>,
    /// The lead of each rival.
    rivals: SortedVecMap<ConnId, ConnId>,
    /// The address book of each host. There is one for each configured host.
    books: BTreeMap<HostPort, AddressBook>,
    /// The last exchange of each proxy that opened a tunnel: its challenge is answered at once on the next connection.
    tunnels: BTreeMap<HostPort, Tunnel>,
}

#[derive(Clone, Debug)]
struct Running {
    /// What is dialled: the host, or the proxy on the way to it.
    place: HostPort,
    /// The proxy, and the host behind it.
    through: Option<Box<(Proxy, HostPort)>>,
    tls: Option<TlsRole>,
    /// Whether the machine sends bytes in clear before the handshake.
    greets: bool,
    race: Race,
    /// The attempts that have not failed.
    attempts: Vec<Attempt>,
    /// Whether the lead was not dialled yet.
    is_lead_free: bool,
    failure: Option<DialError>,
}

#[derive(Clone, Debug)]
struct Attempt {
    on: ConnId,
    address: SocketAddr,
    /// The exchange with the proxy, until the tunnel is open.
    tunnel: Option<Box<Tunnel>>,
    /// Whether the machine's bytes in clear are being sent.
    is_greeting: bool,
}

/// How a host is dialled: TLS and timeouts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dialling {
    /// The side of TLS; `None` without TLS.
    pub(crate) tls: Option<TlsRole>,
    /// Whether the machine sends bytes in clear before the handshake.
    pub(crate) greets: bool,
    /// The timeout of each step.
    pub(crate) deadlines: Deadlines,
}

impl Dialers {
    /// Begins to dial a host.
    pub(crate) fn begin<S>(
        &mut self,
        lead: ConnId,
        place: &HostPort,
        how: Dialling,
        conns: &mut Conns<S>,
        now: Now,
    ) {
        self.begin_through(lead, None, place, how, conns, now);
    }

    /// Begins to dial a host, through a proxy if there is one.
    pub(crate) fn begin_through<S>(
        &mut self,
        lead: ConnId,
        proxy: Option<&Proxy>,
        host: &HostPort,
        how: Dialling,
        conns: &mut Conns<S>,
        now: Now,
    ) {
        let Dialling { tls, greets, deadlines } = how;
        let place = proxy.map_or(host, |proxy| &proxy.place);
        let book = self.books.entry(place.clone()).or_default();
        let mut running = Running {
            place: place.clone(),
            through: proxy.map(|proxy| Box::new((proxy.clone(), host.clone()))),
            tls,
            greets,
            race: Race::resolving(deadlines, now.mono),
            attempts: Vec::new(),
            is_lead_free: true,
            failure: None,
        };
        match &place.host {
            Host::Address(address) => {
                let address = [SocketAddr::new(*address, place.port)];
                book.resolved(&address, true);
                running.race.resolved(&address, true, book, now.mono);
            }
            Host::Name(name) => {
                conns.emit(Output::Resolve { on: lead, host: name.clone(), port: place.port });
            }
        }
        self.races.insert(lead, running);
        // The first address is dialled with the lead: no rival is made.
        let progress = self.run(lead, conns, || unreachable!("the lead is free"), now);
        debug_assert_eq!(progress, Progress::Pending, "a race that was lost before it began");
    }

    /// Handles addresses of the host. If the look-up is not complete, more may follow.
    pub(crate) fn resolved<S>(
        &mut self,
        lead: ConnId,
        addresses: &[SocketAddr],
        is_complete: bool,
        conns: &mut Conns<S>,
        rival: impl Fn() -> S,
        now: Now,
    ) -> Progress {
        let Some(running) = self.races.get_mut(&lead) else { return Progress::Pending };
        let book = self.books.entry(running.place.clone()).or_default();
        book.resolved(addresses, is_complete);
        running.race.resolved(addresses, is_complete, book, now.mono);
        self.run(lead, conns, rival, now)
    }

    /// Handles a failed dial, or a failed look-up of a lead.
    pub(crate) fn dial_failed<S>(
        &mut self,
        on: ConnId,
        why: DialFailure,
        conns: &mut Conns<S>,
        rival: impl Fn() -> S,
        now: Now,
    ) -> Progress {
        if let Some(running) = self.races.get_mut(&on)
            && running.address(on).is_none()
        {
            running.race.unresolved();
            let why = running.of_proxy(on, DialError::Dial(why));
            running.fail(why);
            return self.run(on, conns, rival, now);
        }
        self.failed(on, DialError::Dial(why), conns, rival, now)
    }

    /// Handles an established connection: begins TLS if it is used.
    pub(crate) fn connected<S>(&mut self, on: ConnId, conns: &mut Conns<S>, now: Now) -> Progress {
        let Some(lead) = self.lead(on) else { return Progress::Pending };
        let Some((race, attempt)) = self.attempt(on) else { return Progress::Pending };
        race.connected(attempt.address, now.mono);
        if self.begin_tunnel(lead, on, conns) {
            self.set_due(lead, conns, now);
            return Progress::Pending;
        }
        self.begin_tls(lead, on, conns, now)
    }

    /// There is a connection to the host: begins TLS if it is used.
    fn begin_tls<S>(&mut self, lead: ConnId, on: ConnId, conns: &mut Conns<S>, now: Now) -> Progress {
        let Some(running) = self.races.get_mut(&lead) else { return Progress::Pending };
        let progress = match running.tls {
            None => return self.reached(on, now),
            Some(_) if running.greets => {
                running.attempts.iter_mut().filter(|it| it.on == on).for_each(|it| it.is_greeting = true);
                Progress::Greet(on)
            }
            Some(role) => {
                conns.emit(Output::StartTls { on, role });
                Progress::Pending
            }
        };
        self.set_due(lead, conns, now);
        progress
    }

    /// The machine's bytes in clear are in the socket: begins TLS.
    pub(crate) fn greeted<S>(&mut self, on: ConnId, conns: &mut Conns<S>, now: Now) {
        let Some(lead) = self.lead(on) else { return };
        let Some((race, attempt)) = self.attempt(on).filter(|(_, attempt)| attempt.is_greeting) else {
            return;
        };
        attempt.is_greeting = false;
        race.connected(attempt.address, now.mono);
        if let Some(role) = self.races.get(&lead).and_then(|running| running.tls) {
            conns.emit(Output::StartTls { on, role });
        }
        self.set_due(lead, conns, now);
    }

    /// The handshake is complete.
    pub(crate) fn secured(&mut self, on: ConnId, now: Now) -> Progress {
        self.reached(on, now)
    }

    /// A request was sent on a connection that was reached. The race goes on until the response.
    pub(crate) fn asked<S>(&mut self, on: ConnId, conns: &mut Conns<S>, now: Now) {
        let Some(lead) = self.lead(on) else { return };
        let is_proved = self.races.get(&lead).is_some_and(|running| running.tls.is_some());
        let Some((race, attempt)) = self.attempt(on) else { return };
        race.asked(attempt.address, is_proved, now.mono);
        self.set_due(lead, conns, now);
    }

    /// An attempt failed. A rival is closed; the lead stays.
    pub(crate) fn failed<S>(
        &mut self,
        on: ConnId,
        why: DialError,
        conns: &mut Conns<S>,
        rival: impl Fn() -> S,
        now: Now,
    ) -> Progress {
        let Some(lead) = self.lead(on) else { return Progress::Pending };
        self.give_up(on, why, conns, now);
        self.run(lead, conns, rival, now)
    }

    /// Handles the deadline of a lead.
    pub(crate) fn expired<S>(
        &mut self,
        lead: ConnId,
        conns: &mut Conns<S>,
        rival: impl Fn() -> S,
        now: Now,
    ) -> Progress {
        self.run(lead, conns, rival, now)
    }

    /// Ends the race: this connection has won. Its rivals are closed. Returns the address that was reached. If the
    /// lead is another connection, the machine must close it.
    pub(crate) fn settle<S>(&mut self, on: ConnId, conns: &mut Conns<S>, now: Now) -> Option<SocketAddr> {
        let lead = self.lead(on)?;
        self.forget(lead, Some(on), conns, now)?.address(on)
    }

    /// Cancels a race: its rivals are closed. The machine must close the lead.
    pub(crate) fn cancel<S>(&mut self, lead: ConnId, conns: &mut Conns<S>, now: Now) {
        self.forget(lead, None, conns, now);
    }

    /// Removes a race and closes its rivals, except the winner.
    fn forget<S>(
        &mut self,
        lead: ConnId,
        winner: Option<ConnId>,
        conns: &mut Conns<S>,
        now: Now,
    ) -> Option<Running> {
        let running = self.races.remove(&lead)?;
        for attempt in &running.attempts {
            if self.rivals.remove(&attempt.on).is_some() && winner != Some(attempt.on) {
                conns.close(attempt.on, Close::Abort, now);
            }
        }
        Some(running)
    }

    /// The lead of this connection's race; `None` if it is in no race.
    pub(crate) fn lead(&self, on: ConnId) -> Option<ConnId> {
        if self.races.contains_key(&on) { Some(on) } else { self.rivals.get(&on).copied() }
    }

    /// The connections of the attempts that have not failed.
    pub(crate) fn attempts(&self, lead: ConnId) -> Vec<ConnId> {
        let attempts = self.races.get(&lead).map(|running| running.attempts.as_slice());
        attempts.unwrap_or_default().iter().map(|it| it.on).collect()
    }

    /// The address book of a host.
    pub(crate) fn book(&mut self, place: &HostPort) -> &mut AddressBook {
        self.books.entry(place.clone()).or_default()
    }

    fn reached(&mut self, on: ConnId, now: Now) -> Progress {
        let Some(lead) = self.lead(on) else { return Progress::Pending };
        let Some((race, attempt)) = self.attempt(on) else { return Progress::Pending };
        let address = attempt.address;
        let connect = race.connect_time(address).unwrap_or(Span::ZERO);
        if let Some(book) = self.book_of(lead) {
            book.connected(address, connect, now.mono);
        }
        Progress::Reached { lead, on }
    }

    fn give_up<S>(&mut self, on: ConnId, why: DialError, conns: &mut Conns<S>, now: Now) {
        let Some(lead) = self.lead(on) else { return };
        let Some(running) = self.races.get_mut(&lead) else { return };
        let Some(address) = running.address(on) else { return };
        let why = running.of_proxy(on, why);
        running.race.failed(address, now.mono);
        running.attempts.retain(|it| it.on != on);
        running.fail(why);
        if let Some(book) = self.book_of(lead) {
            book.failed(address, now.mono);
        }
        if self.rivals.remove(&on).is_some() {
            conns.close(on, why.close(), now);
        }
    }

    /// Carries out what the race returns.
    fn run<S>(&mut self, lead: ConnId, conns: &mut Conns<S>, rival: impl Fn() -> S, now: Now) -> Progress {
        loop {
            let Some(running) = self.races.get_mut(&lead) else { return Progress::Pending };
            let Some(book) = self.books.get(&running.place) else { return Progress::Pending };
            match running.race.poll(book, now.mono) {
                Todo::Dial(to) => {
                    let is_lead = core::mem::take(&mut running.is_lead_free);
                    let on = if is_lead { lead } else { conns.insert(rival(), None) };
                    running.attempts.push(Attempt { on, address: to, tunnel: None, is_greeting: false });
                    if !is_lead {
                        self.rivals.insert(on, lead);
                    }
                    conns.emit(Output::Dial { on, to });
                }
                Todo::Late(address) => {
                    let on = running.attempts.iter().find(|it| it.address == address).map(|it| it.on);
                    let is_up = running.race.connect_time(address).is_some();
                    let why =
                        if is_up { DialError::TimedOut } else { DialError::Dial(DialFailure::Unreachable) };
                    match on {
                        Some(on) => return Progress::Late { on, why },
                        None => running.race.failed(address, now.mono),
                    }
                }
                Todo::Wait(until) => {
                    conns.set_due(lead, Some(until));
                    return Progress::Pending;
                }
                Todo::Lost => {
                    let why = running.failure.unwrap_or(DialError::Dial(DialFailure::Name));
                    self.races.remove(&lead);
                    return Progress::Failed { lead, why };
                }
            }
        }
    }

    /// Updates the deadline of a race that has nothing else to do.
    fn set_due<S>(&mut self, lead: ConnId, conns: &mut Conns<S>, now: Now) {
        let Some(running) = self.races.get_mut(&lead) else { return };
        let Some(due) = running.race.due() else { return };
        conns.set_due(lead, Some(due.max(now.mono)));
    }

    /// An attempt and its race; `None` if the attempt has failed.
    fn attempt(&mut self, on: ConnId) -> Option<(&mut Race, &mut Attempt)> {
        let lead = self.lead(on)?;
        let Running { race, attempts, .. } = self.races.get_mut(&lead)?;
        Some((race, attempts.iter_mut().find(|it| it.on == on)?))
    }

    fn book_of(&mut self, lead: ConnId) -> Option<&mut AddressBook> {
        self.books.get_mut(&self.races.get(&lead)?.place)
    }
}

impl Running {
    fn address(&self, on: ConnId) -> Option<SocketAddr> {
        self.attempts.iter().find(|it| it.on == on).map(|it| it.address)
    }

    /// The failure of an attempt: of the proxy, until the tunnel is open.
    fn of_proxy(&self, on: ConnId, why: DialError) -> DialError {
        let is_tunnel = self.attempts.iter().any(|it| it.on == on && it.tunnel.is_some());
        match why {
            DialError::Dial(why) if self.through.is_some() => DialError::Proxy(ProxyError::Unreachable(why)),
            DialError::Ended(_) if is_tunnel => DialError::Proxy(ProxyError::Ended),
            DialError::TimedOut if is_tunnel => DialError::Proxy(ProxyError::TimedOut),
            why => why,
        }
    }

    fn fail(&mut self, why: DialError) {
        if self.failure.is_none_or(|failure| failure.progress() <= why.progress()) {
            self.failure = Some(why);
        }
    }
}

impl DialError {
    /// How to close the connection of a failed attempt.
    pub(crate) const fn close(self) -> Close {
        match self {
            // An alert may be in flight; a reset would discard it.
            Self::Tls(_) | Self::Ended(End::Clean | End::Truncated) => Close::Linger,
            Self::Dial(_) | Self::Ended(End::Reset) | Self::TimedOut | Self::NotHttp | Self::Proxy(_) => {
                Close::Abort
            }
        }
    }
}
