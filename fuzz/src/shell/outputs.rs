//! Applies the machine's outputs, and checks them.

use rendezvous_core::machine::{Close, ConnId, Machine, Output, PASS_ALL};

use super::{Did, Input, Shell};
use crate::sock::{Sock, Stage};

impl<M: Machine> Shell<M> {
    pub(super) fn drain(&mut self) {
        // Each connection may be closed, logged and answered; a new list of IDs concerns all at once.
        let most = 64 + 16 * self.socks.len();
        let mut text = Vec::new();
        for _ in 0..most {
            text.clear();
            match self.machine.poll_output(&mut text) {
                Output::Idle { until, .. } => {
                    assert!(text.is_empty());
                    self.deadline = until;
                    return;
                }
                Output::Send { to, len } => {
                    assert!(
                        len > 0 && len as usize == text.len(),
                        "a Send of {len} bytes with {}",
                        text.len()
                    );
                    self.send(to, &text);
                }
                output => {
                    assert!(text.is_empty());
                    self.perform(output);
                }
            }
        }
        panic!("more than {most} outputs for one input");
    }

    /// A connection that the machine may still use.
    fn open_sock(&mut self, on: ConnId) -> &mut Sock {
        let sock = self.socks.get_mut(&on).expect("of a connection that there is");
        assert!(sock.closing.is_none(), "of a connection that is over");
        sock
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Read { on, wanted } => {
                let sock = self.open_sock(on);
                (sock.wanted, sock.fresh) = (wanted, wanted);
                self.ready.push_back(on);
            }
            Output::Pair { hidden, client } => {
                for (on, peer) in [(hidden, client), (client, hidden)] {
                    let sock = self.open_sock(on);
                    assert!(sock.peer.is_none() && sock.stage == Stage::Up, "paired twice, or too early");
                    (sock.peer, sock.gate, sock.wanted) = (Some(peer), None, true);
                    self.ready.push_back(on);
                }
                self.did.push(Did::Paired { hidden, client });
            }
            Output::Gate { on } => {
                let sock = self.open_sock(on);
                assert!(sock.peer.is_some() && sock.gate.is_none(), "a gate without a pair, or two");
                (sock.gate, sock.fresh, sock.last_told) = (Some(0), true, false);
            }
            Output::Pass { from, bytes } => {
                assert!(bytes > 0, "nothing passes");
                let sock = self.open_sock(from);
                let gate = sock.gate.expect("a gate that something passes");
                sock.gate = Some(gate.saturating_add(bytes)).filter(|gate| *gate != PASS_ALL);
                self.ready.push_back(from);
            }
            Output::StartTls { on, .. } => {
                let sock = self.open_sock(on);
                assert!(sock.peer.is_none() && sock.stage == Stage::Up, "TLS in the middle");
                // Unconsumed bytes belong to TLS already.
                sock.parked.clear();
                sock.incoming.clear();
                sock.stage = Stage::Securing;
            }
            Output::Resolve { on, .. } => {
                let new = self.socks.insert(on, Sock::new(Stage::Resolving)).is_none();
                assert!(new, "a name for a connection that there is");
            }
            Output::Dial { on, .. } => {
                let sock = self.socks.entry(on).or_insert_with(|| Sock::new(Stage::Resolving));
                assert!(sock.stage == Stage::Resolving && sock.closing.is_none(), "dialled twice");
                sock.stage = Stage::Dialling;
            }
            Output::UserTimeout { on, .. } => drop(self.open_sock(on).age),
            Output::LocalAddress { on } => panic!("{on:?} is none of a stream proxy's"),
            Output::CheckAck { on } => {
                self.open_sock(on);
                self.inputs.push_back(Input::Acked(on));
            }
            Output::CloseWrite { on } => {
                let sock = self.open_sock(on);
                assert!(!std::mem::replace(&mut sock.write_ended, true), "ended twice");
            }
            Output::Close { on, how } => self.close(on, how),
            Output::Event(event) => self.did.push(Did::Noted(event)),
            Output::Send { .. } | Output::Idle { .. } => unreachable!("seen to already"),
        }
    }

    fn send(&mut self, to: ConnId, text: &[u8]) {
        let sock = self.open_sock(to);
        assert!(!sock.write_ended, "bytes behind the end");
        assert!(sock.stage == Stage::Up, "bytes before there is a connection");
        if !sock.write_failed {
            if sock.stalled {
                sock.queued += text.len();
                sock.owes_flushed = true;
            } else {
                self.inputs.push_back(Input::Flushed(to));
            }
        }
        self.did.push(Did::Sent(to, text.to_vec()));
    }

    fn close(&mut self, on: ConnId, how: Close) {
        let Some(sock) = self.socks.get_mut(&on) else {
            // Its backoff ended without a socket.
            return self.bury(on);
        };
        let hastened = sock.closing.is_some_and(|before| before != Close::Abort) && how == Close::Abort;
        assert!(sock.closing.is_none() || hastened, "closed twice");
        sock.closing = Some(how);
        sock.parked.clear();
        let peer = sock.peer.take();
        let up = sock.stage == Stage::Up || sock.stage == Stage::Securing;
        if how == Close::Abort || !up {
            self.bury(on);
        }
        self.ready.push_back(on);
        if let Some(peer) = peer.and_then(|peer| self.socks.get_mut(&peer).map(|sock| (peer, sock))) {
            let (peer, sock) = peer;
            (sock.peer, sock.gate, sock.fresh) = (None, None, true);
            self.ready.push_back(peer);
        }
    }

    pub(super) fn bury(&mut self, on: ConnId) {
        let known = self.socks.get_mut(&on).map(|sock| std::mem::replace(&mut sock.buried, true));
        if known == Some(true) {
            return;
        }
        if self.slow { self.late.push(on) } else { self.inputs.push_back(Input::Closed(on)) }
    }
}
