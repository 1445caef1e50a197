//! Connections in a list for an operator.

use core::net::SocketAddr;

use super::{Conns, PairEntry, Phase};
use crate::conn::{NamedBy, Origin};
use crate::machine::ConnId;
use crate::pair::Pair;

/// A connection in a list.
pub(crate) struct Listed<'a, S> {
    pub(crate) conn: ConnId,
    pub(crate) from: Option<SocketAddr>,
    pub(crate) origin: Origin,
    /// `None`: it is closing.
    pub(crate) state: Option<&'a S>,
    /// Its pair, and the other half of it.
    pub(crate) pair: Option<(&'a Pair, ConnId)>,
}

impl<S> Conns<S> {
    /// The number of places in the table, including free ones.
    pub(crate) fn places(&self) -> usize {
        self.table.capacity()
    }

    /// The connection in a place of the table, for a list.
    pub(crate) fn listed(&self, place: usize) -> Option<Listed<'_, S>> {
        let conn = self.table.get(place)?;
        let on = ConnId { index: u32::try_from(place).ok()?, generation: conn.generation };
        let pair = conn.pair.and_then(|pair| self.pairs.get(pair as usize));
        let peer = |entry: &PairEntry| if entry.hidden == on { entry.client } else { entry.hidden };
        Some(Listed {
            conn: on,
            from: conn.from,
            origin: conn.origin,
            state: (conn.phase == Phase::Open).then_some(&conn.state),
            pair: pair.map(|entry| (&entry.pair, peer(entry))),
        })
    }

    /// Records which listener accepted a connection.
    pub(crate) fn set_listener(&mut self, on: ConnId, listener: u16) {
        if let Some(conn) = self.conn(on) {
            conn.origin.listener = listener;
        }
    }

    /// Records how a connection named its hidden server.
    pub(crate) fn set_named_by(&mut self, on: ConnId, named_by: NamedBy) {
        if let Some(conn) = self.conn(on) {
            conn.origin.named_by = named_by;
        }
    }
}
