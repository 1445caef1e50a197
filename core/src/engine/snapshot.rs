//! What a relay is doing at one moment: numbers for its operator, made when they are asked for.

use alloc::vec::Vec;

use super::{Engine, State};
use crate::id::Id;
use crate::pair::Side;
use crate::registry::Registered;
use crate::time::{Now, Span};

/// A relay at one moment. It is as long as the operator's list of IDs, whatever peers do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// What the connections are.
    pub connections: Connections,
    /// How many connections there may be.
    pub connections_max: u32,
    /// Whether the relay shuts down.
    pub draining: bool,
    /// Everyone who is enrolled, in the order of their IDs.
    pub ids: Vec<IdSnapshot>,
}

/// How many connections are what. Each is one of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connections {
    /// In a TLS handshake, or about to say for whom it was opened (PROXY protocol).
    pub handshakes: u32,
    /// A request's head is to come.
    pub heads: u32,
    /// An answer goes out, or the body of a request that was answered is thrown away.
    pub answers: u32,
    /// Hidden servers' connections that wait.
    pub waiting: u32,
    /// Clients that are held.
    pub held: u32,
    /// Halves of pairs: two for each pair.
    pub paired: u32,
    /// Closed by us, and not yet by the peer.
    pub closing: u32,
}

/// An enrolled ID at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdSnapshot {
    /// The ID.
    pub id: Id,
    /// Its connections that wait.
    pub waiting: u32,
    /// Clients held for it.
    pub held: u32,
    /// Its pairs now.
    pub pairs: u32,
    /// Its pairs that ended since the relay started.
    pub pairs_ended: u64,
    /// Bytes that clients sent behind the request's head, in the pairs of now and in those that ended.
    pub from_client: u64,
    /// Bytes that the hidden server sent, likewise.
    pub from_hidden: u64,
    /// How long ago a connection of it was there; zero while one is; `None`: not since the relay started.
    pub seen: Option<Span>,
}

impl Connections {
    /// All of them.
    #[must_use]
    pub const fn all(&self) -> u32 {
        let Self { handshakes, heads, answers, waiting, held, paired, closing } = *self;
        handshakes + heads + answers + waiting + held + paired + closing
    }
}

impl Engine {
    /// What the relay is doing. Looks at every connection and every ID once, and changes nothing.
    #[must_use]
    pub fn snapshot(&self, now: Now) -> Snapshot {
        let mut ids: Vec<_> = self.registry.registered().map(|it| IdSnapshot::new(it, now)).collect();
        debug_assert!(ids.is_sorted_by_key(|of| of.id), "they are searched");
        for (pair, hidden) in self.conns.ties() {
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
            draining: self.draining,
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
