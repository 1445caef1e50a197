//! Events of the world: for one connection, and for all.

use std::net::SocketAddr;

use arbitrary::Arbitrary;
use rendezvous_core::dtcp::Fingerprint;
use rendezvous_core::machine::{ConnId, DialFailure, End, Machine, Secured, TlsFailure};
use rendezvous_core::time::{Span, Time};

use super::{Input, Shell, TURNS_MAX, address};
use crate::sock::Stage;

/// An event of one connection.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(crate) enum ConnStep {
    Resolve {
        addresses: u8,
    },
    Connect,
    DialFails(u8),
    Secure,
    /// With this certificate.
    SecureAs(u8),
    TlsFails(u8),
    /// From now on a receive returns at most this many bytes; 0: as many as there are.
    Pieces(u8),
    End(u8),
    Stall,
    Flow,
    /// The peer reads some of the queue.
    Take(u8),
    WriteFails,
    /// The last acknowledgement was this many seconds ago; 0: everything is acknowledged.
    Age(u8),
}

/// An event for all.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(crate) enum WorldStep {
    /// Advances to the next deadline, and this many milliseconds beyond it.
    Deadline(u8),
    Millis(u16),
    Seconds(u16),
    /// A spurious call.
    Spurious,
    /// The wall clock is set.
    Wall(i16),
    /// Whether sockets close slowly from now on.
    Slow(bool),
}

impl<M: Machine> Shell<M> {
    pub(crate) fn doing(&mut self, on: ConnId, what: ConnStep) {
        let Some(sock) = self.socks.get_mut(&on) else { return };
        if sock.buried {
            return;
        }
        let now = self.now;
        match (what, sock.stage) {
            (ConnStep::Resolve { addresses }, Stage::Resolving) => {
                let addresses: Vec<SocketAddr> = (0..1 + addresses % 4).map(address).collect();
                self.machine.handle_resolved(on, &addresses, now);
            }
            (ConnStep::Connect, Stage::Dialling) => {
                sock.stage = Stage::Up;
                self.machine.handle_connected(on, now);
                self.ready.push_back(on);
            }
            (ConnStep::DialFails(why), Stage::Resolving | Stage::Dialling) => {
                let why =
                    [DialFailure::Refused, DialFailure::Unreachable, DialFailure::Name, DialFailure::Local]
                        [usize::from(why % 4)];
                self.machine.handle_dial_failed(on, why, now);
            }
            (ConnStep::Secure | ConnStep::SecureAs(_), Stage::Securing) if sock.closing.is_none() => {
                let certificate = match what {
                    ConnStep::SecureAs(byte) => Some(Fingerprint([byte; 32])),
                    _ => None,
                };
                sock.stage = Stage::Up;
                self.machine.handle_secured(on, Secured { certificate, ..Secured::default() }, now);
                self.ready.push_back(on);
            }
            (ConnStep::TlsFails(why), Stage::Securing) if !sock.end_told && sock.closing.is_none() => {
                sock.end_told = true;
                sock.end = sock.end.or(Some(End::Reset));
                let why =
                    [TlsFailure::Certificate, TlsFailure::Ended, TlsFailure::Protocol][usize::from(why % 3)];
                self.machine.handle_tls_failed(on, why, now);
            }
            (_, Stage::Resolving | Stage::Dialling) => {}
            (ConnStep::Pieces(most), _) => sock.most = if most == 0 { usize::MAX } else { most.into() },
            (ConnStep::End(how), _) => {
                let how = [End::Clean, End::Truncated, End::Reset][usize::from(how % 3)];
                sock.end = sock.end.or(Some(how));
                self.ready.push_back(on);
            }
            (ConnStep::Stall, _) => sock.stalled = true,
            (ConnStep::Flow, _) => self.flow(on),
            (ConnStep::Take(some), _) => self.take(on, some.into()),
            (ConnStep::WriteFails, _) => self.write_fails(on),
            (ConnStep::Age(seconds), _) => {
                sock.age = (seconds > 0).then(|| Span::from_secs(seconds.into()));
            }
            _ => {}
        }
        self.run();
    }

    pub(crate) fn pass(&mut self, what: WorldStep) {
        match what {
            WorldStep::Deadline(beyond) => {
                if let Some(deadline) = self.deadline {
                    self.wake(deadline + Span::from_millis(beyond.into()));
                }
            }
            WorldStep::Millis(ms) => self.wait(Span::from_millis(ms.into())),
            WorldStep::Seconds(secs) => self.wait(Span::from_secs(secs.into())),
            WorldStep::Spurious => self.wake(self.now.mono),
            WorldStep::Wall(seconds) => self.now.wall = self.now.wall.saturating_add_signed(seconds.into()),
            WorldStep::Slow(slow) => {
                self.slow = slow;
                if !slow {
                    self.inputs.extend(std::mem::take(&mut self.late).into_iter().map(Input::Closed));
                    self.run();
                }
            }
        }
    }

    /// Time passes. Sometimes half of the time passes at once, so that calls are late.
    fn wait(&mut self, span: Span) {
        let until = self.now.mono + span;
        if span.0.is_multiple_of(2_000) {
            while let Some(deadline) = self.deadline.filter(|deadline| *deadline <= until) {
                self.wake(deadline);
            }
        }
        self.wake(until);
    }

    fn wake(&mut self, at: Time) {
        let seconds = |time: Time| time.0 / 1_000_000;
        let at = at.max(self.now.mono);
        self.now.wall = self.now.wall.saturating_add(seconds(at) - seconds(self.now.mono));
        self.now.mono = at;
        self.machine.handle_timeout(self.now);
        self.run();
        assert!(self.deadline.is_none_or(|deadline| deadline > at), "a deadline in the past, again");
    }

    /// All peers leave, and all deadlines pass.
    pub(crate) fn clear(&mut self) {
        self.pass(WorldStep::Slow(false));
        for _ in 0..TURNS_MAX {
            for on in self.socks.keys().copied().collect::<Vec<_>>() {
                for what in [
                    ConnStep::Flow,
                    ConnStep::DialFails(0),
                    ConnStep::TlsFails(1),
                    ConnStep::Pieces(0),
                    ConnStep::End(2),
                ] {
                    self.doing(on, what);
                }
            }
            let Some(deadline) = self.deadline else { break };
            self.wake(deadline);
        }
        assert_eq!(self.deadline, None, "a deadline of nobody's");
        assert!(self.socks.is_empty(), "an id that was never closed");
    }

    fn flow(&mut self, on: ConnId) {
        let Some(sock) = self.socks.get_mut(&on) else { return };
        sock.stalled = false;
        let had = std::mem::take(&mut sock.queued) > 0;
        if std::mem::take(&mut sock.owes_flushed) || had && sock.peer.is_some() {
            self.inputs.push_back(Input::Flushed(on));
        }
        self.ready.extend(sock.peer);
        self.ready.push_back(on);
    }

    fn take(&mut self, on: ConnId, some: usize) {
        let Some(sock) = self.socks.get_mut(&on) else { return };
        if some == 0 || some >= sock.queued {
            return;
        }
        sock.queued -= some;
        if let Some(from) = sock.peer {
            self.inputs.push_back(Input::Moved { from, read: 0, queued: sock.queued });
            self.ready.push_back(from);
        }
    }

    fn write_fails(&mut self, on: ConnId) {
        let Some(sock) = self.socks.get_mut(&on) else { return };
        if std::mem::replace(&mut sock.write_failed, true) {
            return;
        }
        (sock.queued, sock.owes_flushed) = (0, false);
        if sock.closing.is_none() {
            self.inputs.push_back(Input::WriteFailed(on));
        }
        self.ready.push_back(on);
    }
}
