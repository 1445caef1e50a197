//! Snapshots of a relay for its operator, made on request.

use alloc::vec::Vec;

use super::{Counts, Engine, State};
use crate::id::Id;
use crate::pair::Side;
use crate::registry::Registered;
use crate::time::{Now, Span};

/// A snapshot of a relay. Its size depends only on the operator's list of IDs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The connections by state.
    pub connections: Connections,
    /// The limit of all connections.
    pub connections_max: u32,
    /// Whether the relay is shutting down, or another process has taken over.
    pub draining: bool,
    /// Counters since the start.
    pub counts: Counts,
    /// The number of tokens in the replay cache.
    pub tokens: u64,
    /// All enrolled IDs in their order.
    pub ids: Vec<IdSnapshot>,
}

/// The number of connections by state. Each connection is counted once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connections {
    /// In a TLS handshake, or waiting for a PROXY header.
    pub handshakes: u32,
    /// Waiting for a request head.
    pub heads: u32,
    /// Sending a response, or discarding the body of a request.
    pub answers: u32,
    /// Waiting connections of hidden servers.
    pub waiting: u32,
    /// Held clients.
    pub held: u32,
    /// Halves of pairs: two for each pair.
    pub paired: u32,
    /// Closed by the relay, but not yet by the peer.
    pub closing: u32,
}

/// A snapshot of an enrolled ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdSnapshot {
    /// The ID.
    pub id: Id,
    /// Its waiting connections.
    pub waiting: u32,
    /// Clients held for it.
    pub held: u32,
    /// Its current pairs.
    pub pairs: u32,
    /// Its pairs that have ended since the relay started.
    pub pairs_ended: u64,
    /// Bytes that clients sent after the request's head, in current and ended pairs.
    pub from_client: u64,
    /// Bytes that the hidden server sent, likewise.
    pub from_hidden: u64,
    /// The time since it was last connected; zero if it is connected; `None` if it was not since the relay started.
    pub seen: Option<Span>,
}

impl Connections {
    /// The number of all connections.
    #[must_use]
    pub const fn all(&self) -> u32 {
        let Self { handshakes, heads, answers, waiting, held, paired, closing } = *self;
        handshakes + heads + answers + waiting + held + paired + closing
    }
}

impl Engine {
    /// Makes a snapshot. It visits every connection and every ID once, and changes nothing.
    #[must_use]
    pub fn snapshot(&self, now: Now) -> Snapshot {
        let mut ids: Vec<_> = self.registry.registered().map(|it| IdSnapshot::new(it, now)).collect();
        debug_assert!(ids.is_sorted_by_key(|of| of.id), "they are searched");
        for (pair, hidden) in self.conns.pair_entries() {
            if let State::Hidden { id } = hidden
                && let Ok(place) = ids.binary_search_by_key(id, |of| of.id)
            {
                let of = &mut ids[place];
                of.from_client = of.from_client.saturating_add(pair.bytes_from(Side::Client));
                of.from_hidden = of.from_hidden.saturating_add(pair.bytes_from(Side::Hidden));
            }
        }
        Snapshot {
            connections: self.count_connections(),
            connections_max: self.config.connections_max,
            draining: self.is_draining(),
            counts: self.counts,
            tokens: self.registry.tokens(),
            ids,
        }
    }

    fn count_connections(&self) -> Connections {
        let mut count = Connections::default();
        for state in self.conns.states() {
            *match state {
                None => &mut count.closing,
                Some(State::Proxied | State::Hello { .. } | State::Securing | State::PlainHttp { .. }) => {
                    &mut count.handshakes
                }
                Some(State::Head { .. }) => &mut count.heads,
                Some(State::Answering { .. } | State::Discarding { .. }) => &mut count.answers,
                Some(State::Waiting { .. }) => &mut count.waiting,
                Some(State::Held { .. }) => &mut count.held,
                Some(State::Hidden { .. } | State::Client { .. }) => &mut count.paired,
            } += 1;
        }
        count
    }
}

impl IdSnapshot {
    fn new(it: Registered, now: Now) -> Self {
        let is_here = it.waiting > 0 || it.pairs > 0;
        Self {
            id: it.id,
            waiting: it.waiting,
            held: it.held,
            pairs: it.pairs,
            pairs_ended: it.tally.pairs,
            from_client: it.tally.from_client,
            from_hidden: it.tally.from_hidden,
            seen: if is_here { Some(Span::ZERO) } else { it.seen.map(|seen| now.mono.since(seen)) },
        }
    }
}
