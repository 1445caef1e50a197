//! Whether a process serves its ready sockets in time.

use rendezvous_core::machine::ConnId;

use super::tcp::Ep;
use super::world::{ProcessId, World};

/// What is to be done about a socket that was reported to a process and not called since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attention {
    /// The process has to serve it within its time.
    Owed,
    /// Nothing now, but its turn may come without another edge.
    NotNow,
    /// Nothing until the next edge.
    Done,
}

impl World {
    /// Records that a process has called a socket, or got an edge for it.
    pub(super) fn attend(&mut self, who: ProcessId, ep: Ep) {
        let resident = &mut self.residents[who.0];
        let tcp = &mut self.ends[ep.0];
        tcp.attended = resident.turns;
        if !std::mem::replace(&mut tcp.pending, true) {
            resident.pending.push(ep);
        }
    }

    /// Checks every socket that its process has to serve and did not in its last turn. Returns one that has waited for
    /// more than `turns` turns, if any.
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
