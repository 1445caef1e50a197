//! Which unauthenticated connections make room for others.

use alloc::vec::Vec;

use super::{Config, Engine, OVERFLOW_MAX, State};
use crate::admission::AdmissionQueue;
use crate::limiter::{Source, exceeds_share};
use crate::machine::{Close, ConnId};
use crate::time::Now;

/// An address may open one of this many connections that may be in a stage at once.
const AT_ONCE_PART: u32 = 4;
/// One of this many connections may linger at most.
const LINGERING_PART: u32 = 8;
/// States that unauthenticated connections enter and leave, together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The header of the PROXY protocol is to come.
    ProxyHeader,
    /// TLS handshake.
    Handshake,
    /// A request head is to come, is being answered, or its body is being discarded.
    Request,
    /// All of them, and clients that are held.
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
    /// How many connections may linger.
    pub(super) fn lingering_max(config: &Config) -> u32 {
        (config.connections_max / LINGERING_PART).max(LINGERING_PART)
    }

    /// A connection entered this stage. If it is full, others are dropped.
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

    /// What is not taken by authenticated hidden servers, their clients, and connections that close. A few more may be
    /// there, to be told that the relay is full.
    fn unauthenticated_max(&self) -> u32 {
        let taken = self.established() + u32::try_from(self.conns.closing()).unwrap_or(u32::MAX);
        let few = OVERFLOW_MAX.min(self.config.connections_max / 4).max(1);
        self.config.connections_max.saturating_sub(taken).max(few)
    }

    /// Whether there is no place for a connection that was just accepted, even for an answer. Then half of the lingering
    /// connections are aborted, so that there is one soon.
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

    /// Connections of hidden servers that wait, and both connections of each pair.
    pub(super) fn established(&self) -> u32 {
        let paired = u32::try_from(2 * self.conns.pairs()).unwrap_or(u32::MAX);
        self.registry.waiting_of_all().saturating_add(paired)
    }

    /// How many connections an address may open at once without any being refused or dropped: it may have so many more,
    /// there is room for so many, and they fill no queue by themselves.
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

    /// Whether the relay can take no more hidden servers and clients.
    pub(super) fn is_full(&self) -> bool {
        self.established() >= self.config.connections_max
    }

    /// Whether the relay is so full that the address of this client gets no more. An address with few connections is
    /// served for longer than one with many.
    pub(super) fn is_over_share(&self, on: ConnId) -> bool {
        let of_address = self.per_address.get(&self.conns.source(on)).copied().unwrap_or(0);
        let free = self.config.connections_max.saturating_sub(self.established());
        self.config.connections_per_address_max > 0 && exceeds_share(of_address, free)
    }
}
