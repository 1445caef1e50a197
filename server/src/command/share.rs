//! What a command that strangers connect to takes of the system: descriptors, and memory that it gives back.

use rendezvous_core::machine::Machine;
use rendezvous_core::time::{Span, Time};

use crate::daemon::Loop;
use crate::linux;
use crate::options::Opt;

/// `--max-connections N`.
pub(super) const MAX_CONNECTIONS: Opt =
    Opt::one("max-connections", "N", "10000", "connections in all; fewer where there are fewer descriptors");
/// `--buffer-memory OCTETS`.
pub(super) const BUFFER_MEMORY: Opt = Opt::one(
    "buffer-memory",
    "OCTETS",
    "48M",
    "of everything that peers make the program keep: handshakes, heads, answers, queues",
);

/// Descriptors that are not connections': listeners, the poller, files that a reload opens, whoever asks for the status.
/// Where there are few in all, three of eight.
const DESCRIPTORS_KEPT: u64 = 64;
/// Connections above the limit that are still told why they are refused; where there are few in all, a quarter.
const REFUSED_CONNECTIONS_MAX: u64 = 64;
/// When so many connections are gone, their memory is given back to the system.
const WAVE_MIN: usize = 256;
/// A spare buffer that nobody needed for so long is given back to the system.
const SPARE_TIME: Span = Span::from_secs(10);
/// Pipes at most, between connections in clear.
const PIPES_MAX: u64 = 64;

/// What the limit of descriptors leaves.
pub(super) struct Share {
    /// All of them; `None` where that can't be known.
    pub(super) descriptors: Option<u64>,
    /// Sockets of connections.
    pub(super) sockets: usize,
    /// Pipes beside them.
    pub(super) pipes: usize,
    /// Connections that are served; a few more are told why not.
    connections: u32,
}

impl Share {
    /// As many descriptors as there may be.
    pub(super) fn take() -> Self {
        let Some(descriptors) = linux::raise_descriptors() else {
            return Self { descriptors: None, sockets: usize::MAX, pipes: 0, connections: u32::MAX };
        };
        // Not more than every sixteenth descriptor.
        let pipes = PIPES_MAX.min(descriptors / 32);
        let kept = DESCRIPTORS_KEPT.min(descriptors / 8 * 3);
        let sockets = descriptors.saturating_sub(kept + 2 * pipes).max(8);
        let connections = sockets - REFUSED_CONNECTIONS_MAX.min(sockets / 4);
        Self {
            descriptors: Some(descriptors),
            sockets: usize::try_from(sockets).unwrap_or(usize::MAX),
            pipes: usize::try_from(pipes).unwrap_or(0),
            connections: u32::try_from(connections).unwrap_or(u32::MAX),
        }
    }

    /// Never more connections than descriptors.
    pub(super) fn limit(&self, connections_max: &mut u32) {
        if self.connections < *connections_max {
            let connections = self.connections;
            log::warn!("event=limits connections={connections} reason=\"no more descriptors (ulimit -n)\"");
            *connections_max = connections;
        }
    }
}

/// Connections that accepted direct connections may take, besides those of clients.
const DIRECT_MAX: usize = 256;
/// Connections that linger, besides those of clients; where there are few in all, an eighth.
const LINGERING_MAX: usize = 256;
/// Connections of one ticket's clients at most, however many descriptors there are.
const PER_TICKET_MAX: usize = 8_000;
/// A pool grows up to one of this many sockets.
const POOL_PART: usize = 8;
/// Local connections of a connector at most.
const LOCALS_MAX: usize = 4_000;

impl Share {
    /// How far the pool of each ticket may grow: so far that all pools, and as many connections on their way, take a
    /// quarter of the sockets at most, unless they are configured to be larger.
    pub(super) fn pool_max(&self, tickets: usize, pool: u16, pool_max: u16) -> u16 {
        let each = u16::try_from(self.sockets / tickets.max(1) / POOL_PART).unwrap_or(u16::MAX);
        pool_max.min(each).max(pool)
    }

    /// How many connections the clients of each ticket may have, where as many connections as `pool` wait for each of
    /// `tickets`. So many that no ticket's clients take the descriptors of another's.
    pub(super) fn per_ticket(&self, tickets: usize, pool: usize, is_direct: bool) -> u32 {
        let tickets = tickets.max(1);
        // One more is on its way for each connection that waits.
        let pools = tickets.saturating_mul(2 * pool);
        let each = self.beside(pools, is_direct) / tickets;
        let per_ticket = u32::try_from(each.clamp(2, PER_TICKET_MAX)).unwrap_or(u32::MAX);
        if per_ticket < 200 {
            let clients = per_ticket / 2;
            log::warn!(
                "event=limits clients-per-ticket={clients} reason=\"no more descriptors (ulimit -n)\""
            );
        }
        per_ticket
    }

    /// How many local connections a connector may take: each has one to the relay.
    pub(super) fn locals(&self, is_direct: bool) -> u32 {
        u32::try_from((self.beside(0, is_direct) / 2).clamp(1, LOCALS_MAX)).unwrap_or(u32::MAX)
    }

    /// Sockets that are left beside `others`, and those that peers may bring about.
    fn beside(&self, others: usize, is_direct: bool) -> usize {
        let direct = if is_direct { DIRECT_MAX.min(self.sockets / 4) } else { 0 };
        let lingering = LINGERING_MAX.min(self.sockets / 8);
        self.sockets.saturating_sub(others.saturating_add(direct + lingering))
    }
}

/// What connections and their octets have swollen. Those who serve few, and wake for nothing, keep the few spare buffers
/// they have.
#[derive(Default)]
pub(super) struct IdleMemory {
    /// The most connections since their memory was given back last.
    connections: usize,
    /// When spare buffers are looked at again.
    due: Time,
}

/// What is to be given back to the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Release {
    Nothing,
    /// Spare buffers that nobody needed.
    Spare,
    /// All that nobody uses.
    All,
}

impl IdleMemory {
    /// After a wave the memory is not as large as the wave was.
    pub(super) fn release_idle<M: Machine>(&mut self, event_loop: &mut Loop<M>) {
        let is_less = match self.look(event_loop.connections(), event_loop.now().mono) {
            Release::Nothing => false,
            Release::Spare => event_loop.release_idle() > 0,
            Release::All => {
                event_loop.shrink();
                true
            }
        };
        if is_less {
            linux::trim_heap();
        }
    }

    fn look(&mut self, connections: usize, now: Time) -> Release {
        if connections + WAVE_MIN <= self.connections {
            self.connections = connections;
            return Release::All;
        }
        self.connections = self.connections.max(connections);
        if now < self.due {
            return Release::Nothing;
        }
        self.due = now + SPARE_TIME;
        Release::Spare
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::default() + Span::from_secs(seconds)
    }

    fn share(sockets: usize) -> Share {
        Share { descriptors: None, sockets, pipes: 0, connections: 0 }
    }

    #[test]
    fn each_ticket_has_its_share_of_the_descriptors_and_the_pools_have_theirs() {
        for (sockets, tickets, pool, is_direct) in
            [(960, 2, 4, false), (960, 3, 16, true), (65_000, 8, 100, true)]
        {
            let per_ticket = share(sockets).per_ticket(tickets, pool, is_direct) as usize;
            assert!(tickets * (per_ticket + 2 * pool) < sockets, "{per_ticket} of {sockets}");
            assert!(per_ticket >= 100, "{per_ticket} of {sockets}");
        }
        assert_eq!(share(usize::MAX).per_ticket(1, 4, false), 8_000);
        assert_eq!(share(8).per_ticket(100, 100, true), 2, "one client is always served");
    }

    #[test]
    fn pools_grow_as_far_as_there_are_descriptors_for_them() {
        assert_eq!(share(960).pool_max(1, 4, 64), 64);
        assert_eq!(share(960).pool_max(8, 4, 64), 15);
        assert_eq!(share(960).pool_max(100, 4, 64), 4, "the configured size stays");
        assert_eq!(share(usize::MAX).pool_max(100, 100, 64), 100);
    }

    #[test]
    fn a_connector_takes_as_many_local_connections_as_it_can_take_to_the_relay() {
        assert_eq!(share(960).locals(false), 420);
        assert_eq!((share(usize::MAX).locals(true), share(0).locals(true)), (4_000, 1));
    }

    #[test]
    fn spare_buffers_are_looked_at_every_ten_seconds() {
        let mut idle_memory = IdleMemory::default();
        let looks: Vec<_> =
            (0..=20).filter(|&second| idle_memory.look(100, at(second)) == Release::Spare).collect();
        assert_eq!(looks, [0, 10, 20]);
    }

    #[test]
    fn when_many_connections_are_gone_all_is_given_back_once() {
        let mut idle_memory = IdleMemory::default();
        idle_memory.look(0, at(0));
        assert_eq!(idle_memory.look(1_000, at(1)), Release::Nothing);
        assert_eq!(idle_memory.look(1_000 - WAVE_MIN + 1, at(2)), Release::Nothing, "too few are gone");
        assert_eq!(idle_memory.look(1_000 - WAVE_MIN, at(3)), Release::All);
        assert_eq!(idle_memory.look(1_000 - WAVE_MIN, at(4)), Release::Nothing, "they are gone already");
    }
}
