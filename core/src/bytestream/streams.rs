//! The stream ids of claimed and paired sockets at a proxy.

use alloc::collections::BTreeMap;

use super::name::{Jid, StreamId};
use crate::machine::ConnId;

/// All stream ids with a claimed socket or a pair.
#[derive(Debug, Default)]
pub(super) struct Streams {
    streams: BTreeMap<StreamId, Stream>,
    claimed: usize,
}

#[derive(Debug)]
enum Stream {
    Claimed { on: ConnId, by: Jid },
    Paired,
}

/// The position of a claim with a stream id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claimant {
    First,
    /// The second, by another full JID; has the socket of the first.
    Second(ConnId),
    /// The first one again, or a third.
    Refused,
}

impl Streams {
    pub(super) fn claimant(&self, sid: &StreamId, jid: &Jid) -> Claimant {
        match self.streams.get(sid) {
            None => Claimant::First,
            Some(Stream::Claimed { on, by }) if by != jid => Claimant::Second(*on),
            Some(Stream::Claimed { .. } | Stream::Paired) => Claimant::Refused,
        }
    }

    pub(super) fn claim(&mut self, sid: StreamId, on: ConnId, by: Jid) {
        let before = self.streams.insert(sid, Stream::Claimed { on, by });
        debug_assert!(before.is_none(), "a stream id is claimed by one");
        self.claimed += 1;
    }

    pub(super) fn pair(&mut self, sid: &StreamId) {
        if let Some(stream) = self.streams.get_mut(sid) {
            debug_assert!(matches!(stream, Stream::Claimed { .. }), "paired twice");
            *stream = Stream::Paired;
            self.claimed -= 1;
        }
    }

    /// Frees the stream id, since the socket or the pair has ended.
    pub(super) fn end(&mut self, sid: &StreamId) {
        if let Some(Stream::Claimed { .. }) = self.streams.remove(sid) {
            self.claimed -= 1;
        }
    }

    pub(super) const fn claimed(&self) -> usize {
        self.claimed
    }

    pub(super) fn len(&self) -> usize {
        self.streams.len()
    }
}
