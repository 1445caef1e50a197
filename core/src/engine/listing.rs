//! The list of a relay's connections for its operator, in parts.

use alloc::vec::Vec;
use core::net::SocketAddr;

use super::{Engine, State, Transport};
use crate::conn::{ConnId, NamedBy};
use crate::id::Id;
use crate::pair::Side;
use crate::time::{Now, Span};

/// A connection as its operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionInfo {
    /// Its id, which logs show too.
    pub conn: ConnId,
    /// The peer's address, as far as it is known.
    pub from: Option<SocketAddr>,
    /// How the connection began.
    pub transport: Option<Transport>,
    /// How its request named the hidden server.
    pub named_by: NamedBy,
    /// The hidden server that it is or is for.
    pub id: Option<Id>,
    /// Its state.
    pub state: ConnectionState,
    /// How long a waiting connection waits, a client is held or a pair lasts.
    pub age: Option<Span>,
    /// The other half of its pair.
    pub peer: Option<ConnId>,
    /// Bytes of the pair that were received from this half.
    pub received: u64,
    /// Bytes of the pair that were received for this half.
    pub sent: u64,
}

/// The state of a connection, as [`Connections`](super::Connections) counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionState {
    /// In a TLS handshake, or waiting for a PROXY header.
    Handshake,
    /// Waiting for a request head.
    Head,
    /// Sending a response, or discarding the body of a request.
    Answer,
    /// A hidden server's waiting connection.
    Waiting,
    /// A held client.
    Held,
    /// The hidden server's half of a pair.
    Hidden,
    /// The client's half of a pair.
    Client,
    /// Closed by the relay, but not yet by the peer.
    Closing,
}

impl Engine {
    /// The connections in the places of the table from `start` on, at most `places` of them, and the place after them;
    /// `None` at the end of the table. A connection that lasts during all calls is listed once.
    #[must_use]
    pub fn list(&self, start: usize, places: usize, now: Now) -> (Vec<ConnectionInfo>, Option<usize>) {
        let end = start.saturating_add(places);
        let listed =
            (start..end.min(self.conns.places())).filter_map(|place| self.info(place, now)).collect();
        (listed, (end < self.conns.places()).then_some(end))
    }

    fn info(&self, place: usize, now: Now) -> Option<ConnectionInfo> {
        let listed = self.conns.listed(place)?;
        let (id, state, since) = match listed.state {
            None => (None, ConnectionState::Closing, None),
            Some(State::Proxied | State::Hello { .. } | State::Securing | State::PlainHttp { .. }) => {
                (None, ConnectionState::Handshake, None)
            }
            Some(State::Head { .. }) => (None, ConnectionState::Head, None),
            Some(State::Answering { .. } | State::Discarding { .. }) => (None, ConnectionState::Answer, None),
            Some(State::Waiting { id, since, .. }) => (Some(*id), ConnectionState::Waiting, Some(*since)),
            Some(State::Held { id, request }) => {
                (Some(*id), ConnectionState::Held, Some(request.first_handed.unwrap_or(request.handed)))
            }
            Some(State::Hidden { id }) => (Some(*id), ConnectionState::Hidden, None),
            Some(State::Client { id, .. }) => (Some(*id), ConnectionState::Client, None),
        };
        let pair = listed.pair.map(|(pair, _)| pair);
        let bytes = |side| pair.map_or(0, |pair| pair.bytes_from(side));
        let (received, sent) = match state {
            ConnectionState::Hidden => (bytes(Side::Hidden), bytes(Side::Client)),
            _ => (bytes(Side::Client), bytes(Side::Hidden)),
        };
        Some(ConnectionInfo {
            conn: listed.conn,
            from: listed.from,
            transport: self.config.listeners.get(usize::from(listed.origin.listener)).copied(),
            named_by: listed.origin.named_by,
            id,
            state,
            age: since.or(pair.map(|pair| pair.began())).map(|since| now.mono.since(since)),
            peer: listed.pair.map(|(_, peer)| peer),
            received,
            sent,
        })
    }
}
