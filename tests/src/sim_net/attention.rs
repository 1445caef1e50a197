//! Whether a process does in time what its sockets are ready for.

use rendezvous_core::machine::ConnId;

use super::tcp::Ep;
use super::world::{ProcessId, World};

/// What is to be done about a socket that a process was told of and has not called since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attention {
    /// The process has to do something, and time for it.
    Owed,
    /// Nothing now; but it may be its turn again without an edge.
    NotNow,
    /// Nothing until the next edge.
    Done,
}

impl World {
    /// A process attends to a socket, or is told that it should.
    pub(super) fn attend(&mut self, who: ProcessId, ep: Ep) {
        let resident = &mut self.residents[who.0];
        let tcp = &mut self.ends[ep.0];
        tcp.attended = resident.turns;
        if !std::mem::replace(&mut tcp.pending, true) {
            resident.pending.push(ep);
        }
    }

    /// Asks of every socket that a process has to attend to and did not in its last turn whether it owes it something.
    /// One to which it has owed that for more than `turns` turns, if there is one.
    pub fn neglected(
        &mut self,
        who: ProcessId,
        turns: u64,
        owes: impl Fn(&Self, Ep, ConnId) -> Attention,
    ) -> Option<ConnId> {
        let mut pending = std::mem::take(&mut self.residents[who.0].pending);
        let now = self.residents[who.0].turns;
        let mut neglected = None;
        pending.retain(|&ep| {
            let tcp = &self.ends[ep.0];
            let (Some(token), false) = (tcp.token, tcp.closed) else { return false };
            if tcp.attended == now {
                return true;
            }
            let attention = owes(self, ep, token);
            let tcp = &mut self.ends[ep.0];
            match attention {
                Attention::Owed if tcp.attended + turns < now => neglected = Some(token),
                Attention::Owed => {}
                Attention::NotNow => tcp.attended = now,
                Attention::Done => tcp.pending = false,
            }
            attention != Attention::Done
        });
        self.residents[who.0].pending = pending;
        neglected
    }
}
