//! Three machines on one event loop. The index of a connection selects its machine.

use std::net::SocketAddr;

use rendezvous_core::account::Owners;
use rendezvous_core::agent::Agent;
use rendezvous_core::engine::Engine;
use rendezvous_core::machine::{ConnId, DialFailure, End, Listener, Machine, Output, Secured, TlsFailure};
use rendezvous_core::time::{Now, Span};

use super::page::Ends;

/// Number of machines.
const COUNT: u32 = 3;

/// The machines of the relay, the agent and both ends.
#[derive(Debug)]
pub(super) struct DemoMachines {
    pub(super) relay: Engine,
    pub(super) agent: Agent,
    pub(super) ends: Ends,
    /// Whether the program is shutting down.
    pub(super) stopping: bool,
}

/// The relay's listener. The other listener is that of the page.
pub(super) const RELAY: Listener = Listener(0);

const OF_RELAY: u32 = 0;
const OF_AGENT: u32 = 1;
const OF_ENDS: u32 = 2;

impl DemoMachines {
    /// The machine of a connection, and the connection's ID in it.
    fn machine_of(&mut self, on: ConnId) -> (&mut dyn Machine, ConnId) {
        let inner = ConnId { index: on.index / COUNT, ..on };
        match on.index % COUNT {
            OF_RELAY => (&mut self.relay, inner),
            OF_AGENT => (&mut self.agent, inner),
            _ => (&mut self.ends, inner),
        }
    }
}

const fn outer(of: u32, inner: ConnId) -> ConnId {
    ConnId { index: inner.index * COUNT + of, ..inner }
}

impl Machine for DemoMachines {
    fn handle_open(&mut self, on: Listener, from: SocketAddr, now: Now) -> ConnId {
        if on == RELAY {
            outer(OF_RELAY, self.relay.handle_open(RELAY, from, now))
        } else {
            outer(OF_ENDS, self.ends.handle_open(on, from, now))
        }
    }

    fn handle_found(&mut self, on: ConnId, addresses: &[SocketAddr], now: Now) {
        let (machine, on) = self.machine_of(on);
        machine.handle_found(on, addresses, now);
    }

    fn handle_resolved(&mut self, on: ConnId, addresses: &[SocketAddr], now: Now) {
        let (machine, on) = self.machine_of(on);
        machine.handle_resolved(on, addresses, now);
    }

    fn handle_connected(&mut self, on: ConnId, now: Now) {
        let (machine, on) = self.machine_of(on);
        machine.handle_connected(on, now);
    }

    fn handle_dial_failed(&mut self, on: ConnId, why: DialFailure, now: Now) {
        let (machine, on) = self.machine_of(on);
        machine.handle_dial_failed(on, why, now);
    }

    fn handle_secured(&mut self, on: ConnId, tls: Secured, now: Now) {
        let (machine, on) = self.machine_of(on);
        machine.handle_secured(on, tls, now);
    }

    fn handle_tls_failed(&mut self, on: ConnId, why: TlsFailure, now: Now) {
        let (machine, on) = self.machine_of(on);
        machine.handle_tls_failed(on, why, now);
    }

    fn handle_bytes(&mut self, on: ConnId, bytes: &[u8], now: Now) -> usize {
        let (machine, on) = self.machine_of(on);
        machine.handle_bytes(on, bytes, now)
    }

    fn handle_last_bytes(&mut self, on: ConnId, now: Now) {
        let (machine, on) = self.machine_of(on);
        machine.handle_last_bytes(on, now);
    }

    fn handle_moved(&mut self, from: ConnId, read: u32, queued: u32, now: Now) {
        let (machine, from) = self.machine_of(from);
        machine.handle_moved(from, read, queued, now);
    }

    fn handle_flushed(&mut self, on: ConnId, now: Now) {
        let (machine, on) = self.machine_of(on);
        machine.handle_flushed(on, now);
    }

    fn handle_round_trip(&mut self, on: ConnId, round_trip: Span, now: Now) {
        let (machine, on) = self.machine_of(on);
        machine.handle_round_trip(on, round_trip, now);
    }

    fn handle_acked(&mut self, on: ConnId, age: Option<Span>, now: Now) {
        let (machine, on) = self.machine_of(on);
        machine.handle_acked(on, age, now);
    }

    fn handle_local_address(&mut self, on: ConnId, local: SocketAddr, now: Now) {
        let (machine, on) = self.machine_of(on);
        machine.handle_local_address(on, local, now);
    }

    fn handle_end(&mut self, on: ConnId, how: End, now: Now) {
        let (machine, on) = self.machine_of(on);
        machine.handle_end(on, how, now);
    }

    fn handle_write_failed(&mut self, on: ConnId, now: Now) {
        let (machine, on) = self.machine_of(on);
        machine.handle_write_failed(on, now);
    }

    fn handle_stalled(&mut self, on: ConnId, now: Now) {
        let (machine, on) = self.machine_of(on);
        machine.handle_stalled(on, now);
    }

    fn owners(&self, on: ConnId) -> Owners {
        let inner = ConnId { index: on.index / COUNT, ..on };
        match on.index % COUNT {
            OF_RELAY => self.relay.owners(inner),
            OF_AGENT => self.agent.owners(inner),
            _ => self.ends.owners(inner),
        }
    }

    fn kept(&self, on: ConnId) -> usize {
        let inner = ConnId { index: on.index / COUNT, ..on };
        match on.index % COUNT {
            OF_RELAY => self.relay.kept(inner),
            OF_AGENT => self.agent.kept(inner),
            _ => self.ends.kept(inner),
        }
    }

    fn handle_closed(&mut self, on: ConnId, now: Now) {
        let (machine, on) = self.machine_of(on);
        machine.handle_closed(on, now);
    }

    fn handle_timeout(&mut self, now: Now) {
        self.relay.handle_timeout(now);
        self.agent.handle_timeout(now);
        self.ends.handle_timeout(now);
    }

    fn poll_output(&mut self, text: &mut Vec<u8>) -> Output {
        let mut idle = Output::Idle { until: None, why: "nothing" };
        let machines: [(u32, &mut dyn Machine); 3] =
            [(OF_RELAY, &mut self.relay), (OF_AGENT, &mut self.agent), (OF_ENDS, &mut self.ends)];
        for (of, machine) in machines {
            match machine.poll_output(text) {
                Output::Idle { until: None, .. } => {}
                Output::Idle { until: Some(until), why } => match idle {
                    Output::Idle { until: Some(earlier), .. } if earlier <= until => {}
                    _ => idle = Output::Idle { until: Some(until), why },
                },
                output => return output.map_ids(|on| outer(of, on)),
            }
        }
        idle
    }
}
