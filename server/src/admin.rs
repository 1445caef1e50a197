//! The operator's HTTP server: metrics, probes, the page and its documents.
//!
//! It runs in the thread of the event loop, so everything about it is bounded: the number of connections, the bytes of a
//! request, the bytes of a response that wait to be sent, the bytes that are made in a turn, and the time of each step. A
//! response is made in slices while it is sent, so that a slow reader costs one buffer and no time.
//!
//! Other machines use TLS and send a password, which a thread checks.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use rendezvous_core::agent::PasswordCheck;
use rendezvous_core::limiter::Source;
use rendezvous_core::time::{Now, Span, Time};

use rustls::ServerConfig;

use self::conn::{Conn, Step};
use self::listener::Listener;
pub use self::listener::{Address, Replaces, open, open_listener};
pub use self::request::{Access, Method, Request};
pub use self::response::{Content, Response};
use crate::linux::descriptors::OwnedFd;
use crate::net::mio::MioNet;
use crate::password_check::PasswordChecker;
use crate::password_file::Passwords;

mod conn;
mod host;
mod listener;
pub mod page;
mod request;
mod response;
mod tls_sock;

/// Limit of connections. One is closed for a new one.
const CONNECTIONS_MAX: usize = 16;
/// Limit of connections from other machines.
const REMOTE_MAX: usize = 12;
/// Limit of connections from one address of another machine.
const PER_ADDRESS_MAX: usize = 4;
/// Limit of listeners.
pub const LISTENERS_MAX: usize = 8;
/// The places of the sockets among those that the program serves itself ([`MioNet::register_own`]).
const PLACES: std::ops::Range<usize> = 0..LISTENERS_MAX + CONNECTIONS_MAX;
/// Bytes of responses that are made in one turn of the event loop, for all connections together. Steps of TLS handshakes
/// count as well.
const TURN_BYTES_MAX: usize = 32 * 1024;
/// Bytes of one slice.
pub const SLICE: usize = 16 * 1024;
/// How long a client may wait between two requests.
const IDLE_TIMEOUT: Span = Span::from_secs(65);
/// How long a client may take for a request.
const REQUEST_TIMEOUT: Span = Span::from_secs(10);
/// How long a client may take to read a response.
const RESPONSE_TIMEOUT: Span = Span::from_secs(20);
/// How long the last bytes of a connection may take.
const CLOSE_TIMEOUT: Span = Span::from_secs(2);

/// The program that is served from.
pub trait Site {
    /// What a sliced response is made from.
    type Body;

    /// The network of the event loop.
    fn net(&mut self) -> &mut MioNet;

    /// The time of this turn.
    fn now(&self) -> Now;

    /// Answers a request.
    fn respond(&mut self, request: &Request<'_>) -> Response<Self::Body>;

    /// Appends the next slice of a body, about [`SLICE`] bytes, at least one. Returns whether more follow.
    fn slice(&mut self, body: &mut Self::Body, out: &mut String) -> bool;
}

/// How other machines are served.
#[derive(Debug)]
pub struct Remote {
    /// TLS with the relay's certificate.
    pub tls: Arc<ServerConfig>,
    /// Checks passwords.
    pub checker: PasswordChecker,
    /// The names that a `Host` may have, apart from `localhost` and addresses, in lower case.
    pub names: Vec<String>,
}

/// What the connections share in one turn of the event loop.
struct Turn<'a> {
    names: &'a [String],
    remote_names: &'a [String],
    /// The place of the present connection.
    place: u32,
    /// How many bytes of responses may still be made.
    room: usize,
    checks: &'a mut Vec<PasswordCheck>,
    last_ticket: &'a mut u64,
}

impl Turn<'_> {
    /// The number of a new check.
    const fn ticket(&mut self) -> u64 {
        *self.last_ticket += 1;
        *self.last_ticket
    }
}

/// The server.
pub struct Admin<B> {
    listeners: Vec<Listener>,
    conns: [Option<Conn<B>>; CONNECTIONS_MAX],
    /// The names that a `Host` may have, apart from `localhost` and addresses.
    names: Vec<String>,
    /// How other machines are served, if they are.
    remote: Option<Remote>,
    /// Passwords to check.
    checks: Vec<PasswordCheck>,
    last_ticket: u64,
    /// Where the next turn begins, so that connections take turns.
    next: usize,
    /// Whether there is work that needs no edge.
    is_pending: bool,
    /// The next deadline.
    due: Option<Time>,
}

impl<B> Admin<B> {
    /// A server without listeners. `names` are further names of this machine, in lower case. Without `remote` it can
    /// listen on loopback addresses and sockets of the file system only.
    #[must_use]
    pub fn new(names: Vec<String>, remote: Option<Remote>) -> Self {
        Self {
            listeners: Vec::new(),
            conns: std::array::from_fn(|_| None),
            names,
            remote,
            checks: Vec::new(),
            last_ticket: 0,
            next: 0,
            is_pending: false,
            due: None,
        }
    }

    /// Replaces certificates, names and passwords for other machines. Open connections stay.
    pub fn reload(&mut self, tls: &Arc<ServerConfig>, names: Vec<String>, passwords: Option<Passwords>) {
        if let Some(remote) = &mut self.remote {
            remote.tls = tls.clone();
            remote.names = names;
            if let Some(passwords) = passwords {
                remote.checker.replace(passwords);
            }
        }
    }

    /// Closes the listeners that are for the time before a shutdown only, and removes their files.
    pub fn stop(&mut self) {
        self.listeners.retain(|listener| !listener.ends_at_stop);
    }

    /// Duplicates of the TCP listeners' descriptors, with the addresses that were asked for, for another process.
    ///
    /// # Errors
    /// The system has no descriptors left.
    pub fn tcp_listeners(&self) -> std::io::Result<Vec<(SocketAddr, OwnedFd)>> {
        self.listeners.iter().filter_map(Listener::duplicate).collect()
    }

    /// Closes all TCP listeners, because another process serves them now.
    pub fn close_tcp_listeners(&mut self, net: &MioNet) {
        for listener in self.listeners.extract_if(.., |listener| listener.is_tcp()) {
            listener.close(net);
        }
    }

    /// Closes all listeners, because another process has replaced them.
    pub fn close_listeners(&mut self, net: &MioNet) {
        for listener in self.listeners.drain(..) {
            listener.close(net);
        }
    }

    /// When the server needs a turn, at the latest. It needs none before that without an edge.
    #[must_use]
    pub fn due(&self, now: Time) -> Option<Time> {
        if self.is_pending { Some(now) } else { self.due }
    }

    /// Does the work of one turn.
    pub fn work(&mut self, site: &mut impl Site<Body = B>) {
        let now = site.now().mono;
        self.check_passwords(now);
        let edges = site.net().take_own_edges(PLACES);
        if edges.is_empty() && !self.is_pending && self.due.is_none_or(|due| now < due) {
            return;
        }
        for edge in edges {
            match edge.place.checked_sub(LISTENERS_MAX) {
                None => {
                    if let Some(listener) = self.listeners.iter_mut().find(|it| it.place == edge.place) {
                        listener.is_ready = true;
                    }
                }
                Some(place) => {
                    if let Some(Some(conn)) = self.conns.get_mut(place) {
                        conn.on_edge(edge.read, edge.write);
                    }
                }
            }
        }
        self.accept(site);
        self.is_pending = false;
        let mut turn = Turn {
            names: &self.names,
            remote_names: self.remote.as_ref().map_or(&[], |remote| &remote.names),
            place: 0,
            room: TURN_BYTES_MAX,
            checks: &mut self.checks,
            last_ticket: &mut self.last_ticket,
        };
        for step in 0..CONNECTIONS_MAX {
            let place = (self.next + step) % CONNECTIONS_MAX;
            let Some(conn) = &mut self.conns[place] else { continue };
            turn.place = u32::try_from(place).unwrap_or(u32::MAX);
            let step = if conn.due <= now { Step::Close } else { conn.serve(site, &mut turn) };
            match step {
                Step::Wait => {}
                Step::Again => self.is_pending = true,
                Step::Close => close(&mut self.conns[place], site),
            }
        }
        self.next = (self.next + 1) % CONNECTIONS_MAX;
        // Cached ones are known at once.
        self.check_passwords(now);
        self.due = self.conns.iter().flatten().map(|conn| conn.due).min();
    }

    /// Starts checks of passwords, and hands over results.
    fn check_passwords(&mut self, now: Time) {
        let Some(remote) = &mut self.remote else { return };
        for (on, ticket, verdict) in remote.checker.work(std::mem::take(&mut self.checks), now) {
            if let Some(Some(conn)) = self.conns.get_mut(on.index as usize) {
                self.is_pending |= conn.on_verdict(ticket, verdict);
            }
        }
    }

    fn accept(&mut self, site: &mut impl Site<Body = B>) {
        for place in 0..self.listeners.len() {
            // More are accepted in the next turn.
            for _ in 0..CONNECTIONS_MAX {
                let listener = &mut self.listeners[place];
                let access = listener.access;
                let remote = self.remote.as_ref().filter(|_| access == Access::Remote);
                let Some((mut sock, from)) = listener.accept(remote.map(|it| &it.tls)) else { break };
                let now = site.now().mono;
                let place = self.room(from, site);
                if sock.register(site.net(), LISTENERS_MAX + place).is_ok() {
                    self.conns[place] = Some(Conn::new(sock, access, from, now));
                }
            }
            self.is_pending |= self.listeners[place].is_ready;
        }
    }

    /// A place for a connection. If there is none, another connection is closed: one of the same address, if it has too
    /// many; else one of another machine, if those are too many; else any. Among these, strangers come first, then those
    /// that have been idle, or else have been served, for the longest time.
    fn room(&mut self, from: Option<IpAddr>, site: &mut impl Site<Body = B>) -> usize {
        let of = |is_meant: &dyn Fn(IpAddr) -> bool| -> Vec<usize> {
            let is_meant =
                |place: &usize| self.conns[*place].as_ref().and_then(|conn| conn.from).is_some_and(is_meant);
            (0..CONNECTIONS_MAX).filter(is_meant).collect()
        };
        let same = of(&|it| from.is_some_and(|from| Source::from(it) == Source::from(from)));
        let remote = of(&|_| from.is_some());
        let candidates = match self.conns.iter().position(Option::is_none) {
            _ if same.len() >= PER_ADDRESS_MAX => same,
            _ if remote.len() >= REMOTE_MAX => remote,
            Some(free) => return free,
            None => (0..CONNECTIONS_MAX).collect(),
        };
        let rank = |place: &usize| self.conns[*place].as_ref().map(Conn::rank);
        let place = candidates.into_iter().min_by_key(rank).unwrap_or(0);
        close(&mut self.conns[place], site);
        place
    }
}

fn close<B>(conn: &mut Option<Conn<B>>, site: &mut impl Site<Body = B>) {
    if let Some(conn) = conn.take() {
        conn.close(site.net());
    }
}
