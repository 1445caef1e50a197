//! How commands that accept connections share descriptors, and release idle memory.

use rendezvous_core::machine::Machine;
use rendezvous_core::time::{Span, Time};

use crate::daemon::Loop;
use crate::linux;
use crate::options::Opt;

/// `--max-connections N`.
pub(super) const MAX_CONNECTIONS: Opt =
    Opt::one("max-connections", "N", "10000", "limit of connections; lower if there are fewer descriptors");
/// `--buffer-memory BYTES`.
pub(super) const BUFFER_MEMORY: Opt = Opt::one(
    "buffer-memory",
    "BYTES",
    "48M",
    "limit of memory for peers' data: handshakes, heads, responses, queues",
);

/// Descriptors reserved for other uses: listeners, the poller, files of a reload, status connections. At most three
/// eighths of all descriptors.
const DESCRIPTORS_KEPT: u64 = 64;
/// Connections beyond the limit that still receive a response with the reason; at most a quarter.
const REFUSED_CONNECTIONS_MAX: u64 = 64;
/// Memory is released after this many connections have closed.
const WAVE_MIN: usize = 256;
/// Idle buffers are released after this long.
const SPARE_TIME: Span = Span::from_secs(10);
/// Limit of connections to the HTTP listeners; at most an eighth.
const HTTP_CONNECTIONS_MAX: u32 = 256;
/// Limit of pipes between cleartext connections.
const PIPES_MAX: u64 = 64;

/// The division of the descriptors.
pub(super) struct Share {
    /// The limit of descriptors; `None` if unknown.
    pub(super) descriptors: Option<u64>,
    /// Limit of connected sockets.
    pub(super) sockets: usize,
    /// Limit of pipes.
    pub(super) pipes: usize,
    /// Limit of served connections. Some more are accepted to refuse them with a reason.
    connections: u32,
}

impl Share {
    /// Raises the limit of descriptors and divides them.
    pub(super) fn take() -> Self {
        let Some(descriptors) = linux::raise_descriptors() else {
            return Self { descriptors: None, sockets: usize::MAX, pipes: 0, connections: u32::MAX };
        };
        // At most a sixteenth of the descriptors: two per pipe.
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

    /// The limit of connections to the HTTP listeners, beside those to the relay.
    pub(super) fn http(&self) -> u32 {
        (self.connections / 8).min(HTTP_CONNECTIONS_MAX)
    }

    /// Lowers `connections_max` to what the descriptors allow if `others` are used for other connections.
    pub(super) fn limit(&self, connections_max: &mut u32, others: u32) {
        if self.connections.saturating_sub(others) < *connections_max {
            let connections = self.connections.saturating_sub(others);
            log::warn!(
                "event=limits connections={connections} reason=\"not enough descriptors (ulimit -n)\""
            );
            *connections_max = connections;
        }
    }
}

/// Limit of accepted direct connections, in addition to those of clients.
const DIRECT_MAX: usize = 256;
/// Limit of lingering connections, in addition to those of clients; at most an eighth.
const LINGERING_MAX: usize = 256;
/// Limit of the connections of one ticket's clients, regardless of descriptors.
const PER_TICKET_MAX: usize = 8_000;
/// The pools of all tickets together may use one of this many parts of the sockets.
const POOL_PART: usize = 8;
/// Limit of a connector's local connections.
const LOCALS_MAX: usize = 4_000;

impl Share {
    /// Limit of each ticket's pool: all pools, with as many connections in progress, use at most a quarter of the
    /// sockets, unless they are configured to be larger.
    pub(super) fn pool_max(&self, tickets: usize, pool: u16, pool_max: u16) -> u16 {
        let each = u16::try_from(self.sockets / tickets.max(1) / POOL_PART).unwrap_or(u16::MAX);
        pool_max.min(each).max(pool)
    }

    /// Limit of the connections of each ticket's clients, if `pool` connections wait for each of `tickets`. The clients
    /// of one ticket cannot use up the descriptors of another.
    pub(super) fn per_ticket(&self, tickets: usize, pool: usize, is_direct: bool) -> u32 {
        let tickets = tickets.max(1);
        // For each waiting connection, another one may be in progress.
        let pools = tickets.saturating_mul(2 * pool);
        let each = self.left_after(pools, is_direct) / tickets;
        let per_ticket = u32::try_from(each.clamp(2, PER_TICKET_MAX)).unwrap_or(u32::MAX);
        if per_ticket < 200 {
            let clients = per_ticket / 2;
            log::warn!(
                "event=limits clients_per_ticket={clients} reason=\"not enough descriptors (ulimit -n)\""
            );
        }
        per_ticket
    }

    /// Limit of a connector's local connections; each needs another one to the relay.
    pub(super) fn locals(&self, is_direct: bool) -> u32 {
        u32::try_from((self.left_after(0, is_direct) / 2).clamp(1, LOCALS_MAX)).unwrap_or(u32::MAX)
    }

    /// Sockets left after `others`, lingering connections and direct connections.
    fn left_after(&self, others: usize, is_direct: bool) -> usize {
        let direct = if is_direct { DIRECT_MAX.min(self.sockets / 4) } else { 0 };
        let lingering = LINGERING_MAX.min(self.sockets / 8);
        self.sockets.saturating_sub(others.saturating_add(direct + lingering))
    }
}

/// Tracks memory that bursts of connections have left behind. A program with few connections keeps its few spare
/// buffers, because it does not wake up to release them.
#[derive(Default)]
pub(super) struct IdleMemory {
    /// The highest number of connections since memory was last released.
    connections: usize,
    /// When spare buffers are next checked.
    due: Time,
}

/// The memory to release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Release {
    Nothing,
    /// Spare buffers that were not used.
    Spare,
    /// All unused memory.
    All,
}

impl IdleMemory {
    /// Releases memory that is no longer used after a burst of connections.
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
