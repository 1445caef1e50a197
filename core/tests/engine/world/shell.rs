//! A driver in memory: carries out a machine's outputs, and delivers bytes and ends.

use rendezvous_core::machine::{Close, ConnId, Machine, Output, PASS_ALL, TlsRole};

use super::{Input, STEPS_MAX, World};

impl World {
    /// Runs until nothing is left to do at this time.
    pub(crate) fn run(&mut self) {
        for _ in 0..STEPS_MAX {
            self.drain_outputs();
            if let Some(input) = self.inputs.pop_front() {
                self.call(&input);
            } else if let Some(on) = self.ready.pop_front() {
                self.serve(on);
            } else {
                return;
            }
        }
        panic!("no end of it: {}", self.why);
    }

    fn drain_outputs(&mut self) {
        for _ in 0..STEPS_MAX {
            let mut text = Vec::new();
            match self.engine.poll_output(&mut text) {
                Output::Idle { until, why } => {
                    assert!(text.is_empty());
                    (self.deadline, self.why) = (until, why);
                    return;
                }
                output => self.perform(output, &text),
            }
        }
        panic!("outputs without end");
    }

    fn perform(&mut self, output: Output, text: &[u8]) {
        match output {
            Output::Send { to, len } => {
                assert!(len > 0 && len as usize == text.len(), "a Send of {len} octets with {}", text.len());
                let wire = self.wire_mut(to);
                assert!(wire.closing.is_none() && !wire.write_ended, "octets behind the end");
                if wire.failed {
                    return;
                }
                wire.got.extend_from_slice(text);
                if wire.stalled {
                    wire.queued += text.len();
                } else {
                    self.inputs.push_back(Input::Flushed(to));
                }
            }
            Output::Read { on, wanted } => {
                let wire = self.wire_mut(on);
                wire.wanted = wanted;
                wire.fresh |= wanted;
                self.ready.push_back(on);
            }
            Output::Pair { hidden, client } => {
                for (on, peer) in [(hidden, client), (client, hidden)] {
                    let wire = self.wire_mut(on);
                    assert!(wire.peer.is_none() && wire.closing.is_none(), "paired twice, or too late");
                    wire.peer = Some(peer);
                    wire.gate = None;
                    wire.wanted = true;
                    self.ready.push_back(on);
                }
            }
            Output::Gate { on } => {
                let wire = self.wire_mut(on);
                assert!(wire.peer.is_some(), "a gate without a pair");
                (wire.gate, wire.fresh, wire.last_told) = (Some(0), true, false);
            }
            Output::Pass { from, bytes } => {
                assert!(bytes > 0, "nothing passes");
                let wire = self.wire_mut(from);
                let gate = wire.gate.expect("a gate that something passes");
                wire.gate = Some(gate.saturating_add(bytes)).filter(|gate| *gate != PASS_ALL);
                self.ready.push_back(from);
            }
            Output::StartTls { on, role } => {
                assert_eq!(role, TlsRole::Server);
                self.wire_mut(on).securing = true;
            }
            Output::UserTimeout { on, after } => self.wire_mut(on).user_timeout = after,
            Output::LocalAddress { .. } => panic!("a relay knows where it is"),
            Output::CheckAck { on } => {
                self.checks.push(on);
                self.inputs.push_back(Input::Acked(on));
            }
            Output::CloseWrite { on } => {
                let wire = self.wire_mut(on);
                assert!(!wire.write_ended && wire.closing.is_none() && wire.queued == 0, "an end too early");
                wire.write_ended = true;
            }
            Output::Close { on, how } => self.close(on, how),
            Output::Event(event) => self.events.push(event),
            Output::Resolve { .. } | Output::Dial { .. } | Output::Idle { .. } => {
                panic!("not from a relay: {output:?}")
            }
        }
    }

    fn close(&mut self, on: ConnId, how: Close) {
        let wire = self.wire_mut(on);
        assert!(!wire.closed && (wire.closing.is_none() || how == Close::Abort), "closed twice");
        // Tests check how the closing began.
        wire.closing.get_or_insert(how);
        let peer = wire.peer.take();
        if how == Close::Abort {
            wire.closed = true;
            self.inputs.push_back(Input::Closed(on));
        } else {
            self.ready.push_back(on);
        }
        if let Some(peer) = peer {
            let wire = self.wire_mut(peer);
            wire.peer = None;
            wire.gate = None;
            wire.fresh = true;
            self.ready.push_back(peer);
        }
    }

    fn call(&mut self, input: &Input) {
        match *input {
            Input::Flushed(on) if self.wire(on).closed => {}
            Input::Flushed(on) => self.engine.handle_flushed(on, self.now),
            Input::Acked(on) => {
                if let Some(round_trip) = self.round_trips.get(&on) {
                    self.engine.handle_round_trip(on, *round_trip, self.now);
                }
                self.engine.handle_acked(on, self.ages.get(&on).copied(), self.now);
            }
            Input::Closed(on) => self.engine.handle_closed(on, self.now),
        }
    }

    /// Delivers bytes and ends.
    fn serve(&mut self, on: ConnId) {
        let wire = self.wire_mut(on);
        if wire.closed {
            return;
        }
        if wire.closing.is_some() {
            let dropped = u32::try_from(std::mem::take(&mut wire.unread).len()).expect("short");
            if wire.end.is_some() {
                wire.closed = true;
                self.inputs.push_back(Input::Closed(on));
            } else if dropped > 0 {
                self.engine.handle_moved(on, dropped, 0, self.now);
            }
            return;
        }
        if !wire.wanted || wire.securing && wire.end.is_none() {
            return;
        }
        if let Some(peer) = wire.peer.filter(|_| wire.gate != Some(0)) {
            let passes = wire.gate.map_or(usize::MAX, |gate| usize::try_from(gate).expect("64 bits"));
            let bytes: Vec<u8> = wire.unread.drain(..passes.min(wire.unread.len())).collect();
            wire.gate = wire.gate.map(|gate| gate - bytes.len() as u64);
            wire.fresh |= wire.gate == Some(0);
            if !bytes.is_empty() {
                let to = self.wire_mut(peer);
                if !to.failed {
                    to.got.extend_from_slice(&bytes);
                    to.queued += if to.stalled { bytes.len() } else { 0 };
                }
                let lengths = [bytes.len(), to.queued].map(|it| u32::try_from(it).expect("short"));
                self.engine.handle_moved(on, lengths[0], lengths[1], self.now);
                return self.ready.push_back(on);
            }
        } else if wire.fresh && !wire.unread.is_empty() {
            (wire.fresh, wire.last_told) = (false, false);
            let bytes = wire.unread.clone();
            let used = self.engine.handle_bytes(on, &bytes, self.now);
            self.wire_mut(on).unread.drain(..used);
            return self.ready.push_back(on);
        }
        let wire = self.wire_mut(on);
        if wire.gate == Some(0) && !wire.unread.is_empty() {
            if wire.end.is_some() && !std::mem::replace(&mut wire.last_told, true) {
                self.engine.handle_last_bytes(on, self.now);
            }
            return;
        }
        if let (Some(how), false) = (wire.end, wire.end_told) {
            wire.end_told = true;
            self.engine.handle_end(on, how, self.now);
        }
    }
}
