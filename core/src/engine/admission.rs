//! Limits of unauthenticated connections: those that are displaced by others.

use alloc::vec::Vec;

use super::{Config, Engine, OVERFLOW_MAX, State};
use crate::admission::AdmissionQueue;
use crate::limiter::{Source, exceeds_share};
use crate::machine::{Close, ConnId};
use crate::time::Now;

/// One address may open this fraction of the connections of a stage at once.
const AT_ONCE_PART: u32 = 4;
/// This fraction of all connections may linger.
const LINGERING_PART: u32 = 8;
/// A group of states that unauthenticated connections enter and leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Waiting for a PROXY protocol header.
    ProxyHeader,
    /// TLS handshake.
    Handshake,
    /// A request head is awaited or being answered, or its body is being discarded.
    Request,
    /// All of these, and held clients.
    Any,
}

/// A queue for each stage.
#[derive(Debug, Default)]
pub(super) struct Admission {
    proxy_headers: AdmissionQueue,
    handshakes: AdmissionQueue,
    requests: AdmissionQueue,
    any: AdmissionQueue,
}

impl Stage {
    const fn has(self, state: &State) -> bool {
        match state {
            State::Proxied => matches!(self, Self::ProxyHeader | Self::Any),
            State::Hello { .. } | State::Securing | State::PlainHttp { .. } => {
                matches!(self, Self::Handshake | Self::Any)
            }
            State::Head { .. } | State::Answering { .. } | State::Discarding { .. } => {
                matches!(self, Self::Request | Self::Any)
            }
            State::Held { .. } => matches!(self, Self::Any),
            State::Waiting { .. } | State::Hidden { .. } | State::Client { .. } => false,
        }
    }

    const fn why(self) -> &'static str {
        match self {
            Self::ProxyHeader => "too many connections without a PROXY header, and this one was slow",
            Self::Handshake => "too many handshakes in progress, and this one was slow",
            Self::Request => "too many requests in progress, and this one was slow",
            Self::Any => "too many connections, and this one was slow",
        }
    }
}

impl Admission {
    const fn queue(&mut self, stage: Stage) -> &mut AdmissionQueue {
        match stage {
            Stage::ProxyHeader => &mut self.proxy_headers,
            Stage::Handshake => &mut self.handshakes,
            Stage::Request => &mut self.requests,
            Stage::Any => &mut self.any,
        }
    }
}

impl Engine {
    /// The maximum number of lingering connections.
    pub(super) fn lingering_max(config: &Config) -> u32 {
        (config.connections_max / LINGERING_PART).max(LINGERING_PART)
    }

    /// A connection entered this stage. If the stage is full, other connections are dropped.
    pub(super) fn admit(&mut self, on: ConnId, stage: Stage, now: Now) {
        let max = match stage {
            Stage::ProxyHeader | Stage::Handshake => self.config.handshakes_max,
            Stage::Request => self.config.heads_max,
            Stage::Any => self.unauthenticated_max(),
        };
        let conns = &self.conns;
        let displaced =
            self.admission.queue(stage).enter(on, max, |on| conns.source_in(on, |state| stage.has(state)));
        self.displace(displaced, stage, now);
    }

    /// The number of connections that are left for unauthenticated ones. A few more are allowed, so that they can be
    /// told that the relay is full.
    fn unauthenticated_max(&self) -> u32 {
        let taken = self.established() + u32::try_from(self.conns.closing()).unwrap_or(u32::MAX);
        let few = OVERFLOW_MAX.min(self.config.connections_max / 4).max(1);
        self.config.connections_max.saturating_sub(taken).max(few)
    }

    /// Whether there is no room for a connection that was just accepted, not even for a response. Then half of the
    /// lingering connections are aborted to make room.
    pub(super) fn has_overflown(&mut self, now: Now) -> bool {
        let overflown = self.conns.len() > self.config.connections_max.saturating_add(OVERFLOW_MAX) as usize;
        if overflown && self.conns.closing() > 0 {
            self.conns.cut_lingering(self.conns.closing() / 2, now);
        }
        overflown
    }

    fn displace(&mut self, displaced: Vec<ConnId>, stage: Stage, now: Now) {
        for on in displaced {
            match self.conns.state(on) {
                Some(State::Held { id, .. }) => {
                    let id = *id;
                    self.unhold(id, on);
                }
                Some(state) if stage.has(state) => {}
                _ => continue,
            }
            self.drop_conn(on, Close::Abort, stage.why(), now);
        }
    }

    /// The number of waiting connections of hidden servers, and of both connections of each pair.
    pub(super) fn established(&self) -> u32 {
        let paired = u32::try_from(2 * self.conns.pairs()).unwrap_or(u32::MAX);
        self.registry.waiting_of_all().saturating_add(paired)
    }

    /// The number of connections that an address may open at once without any being refused or dropped. It is bounded
    /// by the limit per address, the total limit, and a fraction of the queues.
    pub(super) fn admitted_at_once(&self, source: Source) -> u32 {
        let of_address = self.per_address.get(&source).copied().unwrap_or(0);
        let per_address = match self.config.connections_per_address_max {
            0 => u32::MAX,
            max => max.saturating_sub(of_address),
        };
        let in_all = self.config.connections_max.saturating_sub(self.established());
        let queue = self.config.handshakes_max.min(self.config.heads_max) / AT_ONCE_PART;
        per_address.min(in_all).min(queue)
    }

    /// Whether the relay accepts no more hidden servers and clients.
    pub(super) fn is_full(&self) -> bool {
        self.established() >= self.config.connections_max
    }

    /// Whether the relay is so full that this client's address gets no more connections. An address with few
    /// connections is served for longer than one with many.
    pub(super) fn is_over_share(&self, on: ConnId) -> bool {
        let of_address = self.per_address.get(&self.conns.source(on)).copied().unwrap_or(0);
        let free = self.config.connections_max.saturating_sub(self.established());
        self.config.connections_per_address_max > 0 && exceeds_share(of_address, free)
    }
}
