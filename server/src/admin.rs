//! The operator's HTTP server: metrics, probes, the page and its documents.
//!
//! It runs in the thread of the event loop, so everything about it is bounded: the number of connections, the bytes of a
//! request, the bytes of a response that wait to be sent, the bytes that are made in a turn, and the time of each step. A
//! response is made in slices while it is sent, so that a slow reader costs one buffer and no time.

use rendezvous_core::time::{Now, Span, Time};

use self::conn::{Conn, Step};
use self::listener::Listener;
pub use self::listener::{Address, open};
pub use self::request::{Access, Method, Request};
pub use self::response::{Content, Response};
use crate::net::mio::MioNet;

mod conn;
mod host;
mod listener;
pub mod page;
mod request;
mod response;

/// Limit of connections. The oldest one is closed for a new one.
const CONNECTIONS_MAX: usize = 16;
/// Limit of listeners.
pub const LISTENERS_MAX: usize = 8;
/// Bytes of responses that are made in one turn of the event loop, for all connections together.
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

/// The server.
pub struct Admin<B> {
    listeners: Vec<Listener>,
    conns: [Option<Conn<B>>; CONNECTIONS_MAX],
    /// The names that a `Host` may have, apart from `localhost` and addresses.
    names: Vec<String>,
    /// Where the next turn begins, so that connections take turns.
    next: usize,
    /// Whether there is work that needs no edge.
    is_pending: bool,
    /// The next deadline.
    due: Option<Time>,
}

impl<B> Admin<B> {
    /// A server without listeners. `names` are further names of this machine, in lower case.
    #[must_use]
    pub fn new(names: Vec<String>) -> Self {
        Self {
            listeners: Vec::new(),
            conns: std::array::from_fn(|_| None),
            names,
            next: 0,
            is_pending: false,
            due: None,
        }
    }

    /// Closes the listeners that are for the time before a shutdown only, and removes their files.
    pub fn stop(&mut self) {
        self.listeners.retain(|listener| !listener.ends_at_stop);
    }

    /// When the server needs a turn, at the latest. It needs none before that without an edge.
    #[must_use]
    pub fn due(&self, now: Time) -> Option<Time> {
        if self.is_pending { Some(now) } else { self.due }
    }

    /// Does the work of one turn.
    pub fn work(&mut self, site: &mut impl Site<Body = B>) {
        let now = site.now().mono;
        let edges = site.net().take_own_edges();
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
        let mut room = TURN_BYTES_MAX;
        for turn in 0..CONNECTIONS_MAX {
            let place = (self.next + turn) % CONNECTIONS_MAX;
            let Some(conn) = &mut self.conns[place] else { continue };
            let step = if conn.due <= now { Step::Close } else { conn.serve(site, &self.names, &mut room) };
            match step {
                Step::Wait => {}
                Step::Again => self.is_pending = true,
                Step::Close => self.close(place, site),
            }
        }
        self.next = (self.next + 1) % CONNECTIONS_MAX;
        self.due = self.conns.iter().flatten().map(|conn| conn.due).min();
    }

    fn accept(&mut self, site: &mut impl Site<Body = B>) {
        for place in 0..self.listeners.len() {
            // More are accepted in the next turn.
            for _ in 0..CONNECTIONS_MAX {
                let listener = &mut self.listeners[place];
                let (access, accepted) = (listener.access, listener.accept());
                let Some(mut sock) = accepted else { break };
                let now = site.now().mono;
                let place = self.room(site);
                if sock.register(site.net(), LISTENERS_MAX + place).is_ok() {
                    self.conns[place] = Some(Conn::new(sock, access, now));
                }
            }
            self.is_pending |= self.listeners[place].is_ready;
        }
    }

    /// A place for a connection. If there is none, the connection is closed that has been idle, or else has been served,
    /// for the longest time.
    fn room(&mut self, site: &mut impl Site<Body = B>) -> usize {
        if let Some(free) = self.conns.iter().position(Option::is_none) {
            return free;
        }
        let age = |conn: &Option<Conn<B>>| conn.as_ref().map(|conn| (conn.is_busy(), conn.since));
        let oldest = (0..CONNECTIONS_MAX).min_by_key(|&place| age(&self.conns[place])).unwrap_or(0);
        self.close(oldest, site);
        oldest
    }

    fn close(&mut self, place: usize, site: &mut impl Site<Body = B>) {
        if let Some(conn) = self.conns[place].take() {
            conn.close(site.net());
        }
    }
}
