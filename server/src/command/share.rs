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
const COURTESY: u64 = 64;
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
        let connections = sockets - COURTESY.min(sockets / 4);
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
            log::warn!("event=limits connections={connections} why=\"no more descriptors (ulimit -n)\"");
            *connections_max = connections;
        }
    }
}

/// What connections and their octets have swollen. Those who serve few, and wake for nothing, keep the few spare buffers
/// they have.
#[derive(Default)]
pub(super) struct Wave {
    /// The most connections since their memory was given back last.
    connections: usize,
    /// When spare buffers are looked at again.
    due: Time,
}

/// What is to be given back to the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ebb {
    Nothing,
    /// Spare buffers that nobody needed.
    Spare,
    /// All that nobody uses.
    All,
}

impl Wave {
    /// After a wave the memory is not as large as the wave was.
    pub(super) fn ebb<M: Machine>(&mut self, event_loop: &mut Loop<M>) {
        let is_less = match self.look(event_loop.connections(), event_loop.now().mono) {
            Ebb::Nothing => false,
            Ebb::Spare => event_loop.ebb() > 0,
            Ebb::All => {
                event_loop.shrink();
                true
            }
        };
        if is_less {
            linux::trim_heap();
        }
    }

    fn look(&mut self, connections: usize, now: Time) -> Ebb {
        if connections + WAVE_MIN <= self.connections {
            self.connections = connections;
            return Ebb::All;
        }
        self.connections = self.connections.max(connections);
        if now < self.due {
            return Ebb::Nothing;
        }
        self.due = now + SPARE_TIME;
        Ebb::Spare
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::default() + Span::from_secs(seconds)
    }

    #[test]
    fn spare_buffers_are_looked_at_every_ten_seconds() {
        let mut wave = Wave::default();
        let looks: Vec<_> = (0..=20).filter(|&second| wave.look(100, at(second)) == Ebb::Spare).collect();
        assert_eq!(looks, [0, 10, 20]);
    }

    #[test]
    fn when_many_connections_are_gone_all_is_given_back_once() {
        let mut wave = Wave::default();
        wave.look(0, at(0));
        assert_eq!(wave.look(1_000, at(1)), Ebb::Nothing);
        assert_eq!(wave.look(1_000 - WAVE_MIN + 1, at(2)), Ebb::Nothing, "too few are gone");
        assert_eq!(wave.look(1_000 - WAVE_MIN, at(3)), Ebb::All);
        assert_eq!(wave.look(1_000 - WAVE_MIN, at(4)), Ebb::Nothing, "they are gone already");
    }
}
