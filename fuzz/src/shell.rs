//! A shell without sockets: it keeps its side of the contract of `rendezvous_core::machine` whatever the fuzzer
//! chooses, and asserts that the machine keeps the other.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use arbitrary::Arbitrary;
use rendezvous_core::machine::{Close, ConnId, DialFailure, End, Listener, Machine, Output, TlsFailure};
use rendezvous_core::note::Note;
use rendezvous_core::time::{Now, Span, Time};

use crate::sock::{Sock, Stage};

/// What may be received and not consumed: as much as the event loop's small buffers hold.
const PARKED_MAX: usize = 32 << 10;
/// A source is not read while so much waits for its destination.
const QUEUED_MAX: usize = 64 << 10;
/// More turns than any run of a few operations needs: a machine that goes round in circles is caught here.
const TURNS_MAX: u32 = 100_000;

/// What the world does to a connection.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(crate) enum Doing {
    Resolve {
        addresses: u8,
    },
    Connect,
    DialFails(u8),
    Secure,
    TlsFails(u8),
    /// Receiving brings at most so many octets from now on; 0: as many as there are.
    Pieces(u8),
    End(u8),
    Stall,
    Flow,
    /// The peer takes some of what is queued.
    Take(u8),
    WriteFails,
    /// The last acknowledgement was so many seconds ago; 0: none is owed.
    Age(u8),
}

/// What passes for everybody.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(crate) enum Passing {
    /// To the next deadline, and so many milliseconds beyond it.
    Deadline(u8),
    Millis(u16),
    Seconds(u16),
    /// A call that nothing called for.
    Spurious,
    /// The wall clock is set.
    Wall(i16),
    /// From now on sockets take their time to close, or no more.
    Slow(bool),
}

/// What a machine did, for whoever knows what it means.
#[derive(Debug)]
pub(crate) enum Did {
    Sent(ConnId, Vec<u8>),
    Noted(Note),
    Paired { hidden: ConnId, client: ConnId },
}

#[derive(Debug)]
enum Event {
    Flushed(ConnId),
    Moved { from: ConnId, read: usize, queued: usize },
    Acked(ConnId),
    WriteFailed(ConnId),
    TlsFailed(ConnId),
    Ended(ConnId, End),
    Closed(ConnId),
}

pub(crate) struct Shell<M> {
    pub(crate) machine: M,
    pub(crate) now: Now,
    pub(crate) deadline: Option<Time>,
    pub(crate) did: Vec<Did>,
    pub(crate) socks: BTreeMap<ConnId, Sock>,
    events: VecDeque<Event>,
    ready: VecDeque<ConnId>,
    slow: bool,
    late: Vec<ConnId>,
}

impl<M: Machine> Shell<M> {
    pub(crate) fn new(machine: M, now: Now) -> Self {
        let (events, ready) = (VecDeque::new(), VecDeque::new());
        let (did, socks) = (Vec::new(), BTreeMap::new());
        let mut shell =
            Self { machine, now, deadline: None, did, socks, events, ready, slow: false, late: Vec::new() };
        shell.run();
        shell
    }

    pub(crate) fn tell<R>(&mut self, what: impl FnOnce(&mut M, Now) -> R) -> R {
        let result = what(&mut self.machine, self.now);
        self.run();
        result
    }

    pub(crate) fn open(&mut self, listener: u16, host: u8) -> ConnId {
        let from = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, host)), 1000);
        let on = self.machine.handle_open(Listener(listener), from, self.now);
        assert!(self.socks.insert(on, Sock::new(Stage::Up)).is_none(), "an id is used twice");
        self.run();
        on
    }

    /// One of the connections that are there.
    pub(crate) fn pick(&self, nth: u8) -> Option<ConnId> {
        let nth = usize::from(nth).checked_rem(self.socks.len())?;
        self.socks.keys().nth(nth).copied()
    }

    /// The peer sends.
    pub(crate) fn give(&mut self, on: ConnId, octets: &[u8]) {
        if let Some(sock) = self.socks.get_mut(&on)
            && sock.end.is_none()
            && matches!(sock.stage, Stage::Up)
        {
            sock.incoming.extend(octets);
            self.ready.push_back(on);
            self.run();
        }
    }

    pub(crate) fn doing(&mut self, on: ConnId, what: Doing) {
        let Some(sock) = self.socks.get_mut(&on) else { return };
        if sock.buried {
            return;
        }
        let now = self.now;
        match (what, sock.stage) {
            (Doing::Resolve { addresses }, Stage::Resolving) => {
                let addresses: Vec<SocketAddr> = (0..1 + addresses % 4).map(address).collect();
                self.machine.handle_resolved(on, &addresses, now);
            }
            (Doing::Connect, Stage::Dialling) => {
                sock.stage = Stage::Up;
                self.machine.handle_connected(on, now);
                self.ready.push_back(on);
            }
            (Doing::DialFails(why), Stage::Resolving | Stage::Dialling) => {
                let why =
                    [DialFailure::Refused, DialFailure::Unreachable, DialFailure::Name, DialFailure::Local]
                        [usize::from(why % 4)];
                self.machine.handle_dial_failed(on, why, now);
            }
            (Doing::Secure, Stage::Securing) if sock.closing.is_none() => {
                sock.stage = Stage::Up;
                self.machine.handle_secured(on, now);
                self.ready.push_back(on);
            }
            (Doing::TlsFails(why), Stage::Securing) if !sock.end_told && sock.closing.is_none() => {
                sock.end_told = true;
                sock.end = sock.end.or(Some(End::Reset));
                let why =
                    [TlsFailure::Certificate, TlsFailure::Ended, TlsFailure::Protocol][usize::from(why % 3)];
                self.machine.handle_tls_failed(on, why, now);
            }
            (_, Stage::Resolving | Stage::Dialling) => {}
            (Doing::Pieces(most), _) => sock.most = if most == 0 { usize::MAX } else { most.into() },
            (Doing::End(how), _) => {
                let how = [End::Clean, End::Truncated, End::Reset][usize::from(how % 3)];
                sock.end = sock.end.or(Some(how));
                self.ready.push_back(on);
            }
            (Doing::Stall, _) => sock.stalled = true,
            (Doing::Flow, _) => self.flow(on),
            (Doing::Take(some), _) => self.take(on, some.into()),
            (Doing::WriteFails, _) => self.write_fails(on),
            (Doing::Age(seconds), _) => {
                sock.age = (seconds > 0).then(|| Span::from_secs(seconds.into()));
            }
            _ => {}
        }
        self.run();
    }

    pub(crate) fn pass(&mut self, what: Passing) {
        match what {
            Passing::Deadline(beyond) => {
                if let Some(deadline) = self.deadline {
                    self.wake(deadline + Span::from_millis(beyond.into()));
                }
            }
            Passing::Millis(ms) => self.wait(Span::from_millis(ms.into())),
            Passing::Seconds(secs) => self.wait(Span::from_secs(secs.into())),
            Passing::Spurious => self.wake(self.now.mono),
            Passing::Wall(seconds) => self.now.wall = self.now.wall.saturating_add_signed(seconds.into()),
            Passing::Slow(slow) => {
                self.slow = slow;
                if !slow {
                    self.events.extend(std::mem::take(&mut self.late).into_iter().map(Event::Closed));
                    self.run();
                }
            }
        }
    }

    /// Time passes, and whoever sleeps is late now and then: half of the spans pass in one go.
    fn wait(&mut self, span: Span) {
        let until = self.now.mono + span;
        if span.0 % 2_000 == 0 {
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

    /// Everybody leaves, and all deadlines pass.
    pub(crate) fn clear(&mut self) {
        self.pass(Passing::Slow(false));
        for _ in 0..TURNS_MAX {
            for on in self.socks.keys().copied().collect::<Vec<_>>() {
                for what in
                    [Doing::Flow, Doing::DialFails(0), Doing::TlsFails(1), Doing::Pieces(0), Doing::End(2)]
                {
                    self.doing(on, what);
                }
            }
            let Some(deadline) = self.deadline else { break };
            self.wake(deadline);
        }
        assert_eq!(self.deadline, None, "a deadline of nobody's");
        assert!(self.socks.is_empty(), "an id that was never closed");
    }

    // ---- the peer's doings ----

    fn flow(&mut self, on: ConnId) {
        let Some(sock) = self.socks.get_mut(&on) else { return };
        sock.stalled = false;
        let had = std::mem::take(&mut sock.queued) > 0;
        if std::mem::take(&mut sock.owes_flushed) || had && sock.mate.is_some() {
            self.events.push_back(Event::Flushed(on));
        }
        self.ready.extend(sock.mate);
        self.ready.push_back(on);
    }

    fn take(&mut self, on: ConnId, some: usize) {
        let Some(sock) = self.socks.get_mut(&on) else { return };
        if some == 0 || some >= sock.queued {
            return;
        }
        sock.queued -= some;
        if let Some(from) = sock.mate {
            self.events.push_back(Event::Moved { from, read: 0, queued: sock.queued });
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
            self.events.push_back(Event::WriteFailed(on));
        }
        self.ready.push_back(on);
    }

    // ---- the loop ----

    fn run(&mut self) {
        for _ in 0..TURNS_MAX {
            self.drain();
            if let Some(event) = self.events.pop_front() {
                self.hand_in(&event);
            } else if let Some(on) = self.ready.pop_front() {
                self.serve(on);
            } else {
                return;
            }
        }
        panic!("no end of it");
    }

    fn drain(&mut self) {
        // Each connection may be closed, noted and answered; a new list of IDs concerns all at once.
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
                        "a Send of {len} octets with {}",
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

    /// A connection that the machine may still speak of.
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
                for (on, mate) in [(hidden, client), (client, hidden)] {
                    let sock = self.open_sock(on);
                    assert!(sock.mate.is_none() && sock.stage == Stage::Up, "paired twice, or too early");
                    (sock.mate, sock.wanted) = (Some(mate), true);
                    self.ready.push_back(on);
                }
                self.did.push(Did::Paired { hidden, client });
            }
            Output::StartTls { on, .. } => {
                let sock = self.open_sock(on);
                assert!(sock.parked.is_empty() && sock.stage == Stage::Up, "TLS in the middle");
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
            Output::CheckAck { on } => {
                self.open_sock(on);
                self.events.push_back(Event::Acked(on));
            }
            Output::CloseWrite { on } => {
                let sock = self.open_sock(on);
                assert!(!std::mem::replace(&mut sock.write_ended, true), "ended twice");
            }
            Output::Close { on, how } => self.close(on, how),
            Output::Note(note) => self.did.push(Did::Noted(note)),
            Output::Send { .. } | Output::Idle { .. } => unreachable!("seen to already"),
        }
    }

    fn send(&mut self, to: ConnId, text: &[u8]) {
        let sock = self.open_sock(to);
        assert!(!sock.write_ended, "octets behind the end");
        assert!(sock.stage == Stage::Up, "octets before there is a connection");
        if !sock.write_failed {
            if sock.stalled {
                sock.queued += text.len();
                sock.owes_flushed = true;
            } else {
                self.events.push_back(Event::Flushed(to));
            }
        }
        self.did.push(Did::Sent(to, text.to_vec()));
    }

    fn close(&mut self, on: ConnId, how: Close) {
        let Some(sock) = self.socks.get_mut(&on) else {
            // It rested, and never came to a socket.
            return self.bury(on);
        };
        let hastened = sock.closing.is_some_and(|before| before != Close::Abort) && how == Close::Abort;
        assert!(sock.closing.is_none() || hastened, "closed twice");
        sock.closing = Some(how);
        sock.parked.clear();
        let mate = sock.mate.take();
        let up = sock.stage == Stage::Up || sock.stage == Stage::Securing;
        if how == Close::Abort || !up {
            self.bury(on);
        }
        self.ready.push_back(on);
        if let Some(mate) = mate.and_then(|mate| self.socks.get_mut(&mate).map(|sock| (mate, sock))) {
            let (mate, sock) = mate;
            (sock.mate, sock.fresh) = (None, true);
            self.ready.push_back(mate);
        }
    }

    fn bury(&mut self, on: ConnId) {
        let known = self.socks.get_mut(&on).map(|sock| std::mem::replace(&mut sock.buried, true));
        if known == Some(true) {
            return;
        }
        if self.slow { self.late.push(on) } else { self.events.push_back(Event::Closed(on)) }
    }

    fn hand_in(&mut self, event: &Event) {
        let now = self.now;
        let short = |octets: usize| u32::try_from(octets).expect("far below 4 GiB");
        match *event {
            Event::Flushed(on) => self.machine.handle_flushed(on, now),
            Event::Moved { from, read, queued } => {
                self.machine.handle_moved(from, short(read), short(queued), now);
            }
            Event::Acked(on) => {
                let age = self.socks.get(&on).and_then(|sock| sock.age);
                self.machine.handle_acked(on, age, now);
            }
            Event::WriteFailed(on) => self.machine.handle_write_failed(on, now),
            Event::TlsFailed(on) => self.machine.handle_tls_failed(on, TlsFailure::Ended, now),
            Event::Ended(on, how) => self.machine.handle_end(on, how, now),
            Event::Closed(on) => {
                self.socks.remove(&on);
                self.machine.handle_closed(on, now);
            }
        }
    }

    /// One turn of one connection.
    fn serve(&mut self, on: ConnId) {
        let Some(sock) = self.socks.get_mut(&on) else { return };
        if sock.buried || matches!(sock.stage, Stage::Resolving | Stage::Dialling) {
            return;
        }
        if let Some(how) = sock.closing {
            let read = std::mem::take(&mut sock.incoming).len();
            let said = sock.queued == 0 || sock.write_failed;
            let over = said && (sock.end.is_some() || how == Close::Truncate);
            if read > 0 {
                self.events.push_back(Event::Moved { from: on, read, queued: 0 });
            }
            if over {
                self.bury(on);
            }
        } else if sock.stage == Stage::Securing {
            if sock.end.is_some() && !std::mem::replace(&mut sock.end_told, true) {
                self.events.push_back(Event::TlsFailed(on));
            }
        } else if sock.wanted {
            match sock.mate {
                Some(mate) => self.pump(on, mate),
                None => self.offer(on),
            }
        }
    }

    fn offer(&mut self, on: ConnId) {
        let Some(sock) = self.socks.get_mut(&on) else { return };
        let came = sock.receive(PARKED_MAX - sock.parked.len());
        sock.parked.extend_from_slice(&came);
        let offered = !came.is_empty() || std::mem::take(&mut sock.fresh) && !sock.parked.is_empty();
        if offered {
            sock.fresh = false;
            let parked = std::mem::take(&mut sock.parked);
            let used = self.machine.handle_bytes(on, &parked, self.now);
            assert!(used <= parked.len(), "more consumed than there was");
            if let Some(sock) = self.socks.get_mut(&on) {
                sock.parked = parked[used..].to_vec();
            }
            self.ready.push_back(on);
        } else if let Some(how) = sock.untold_end() {
            sock.end_told = true;
            self.events.push_back(Event::Ended(on, how));
        }
    }

    fn pump(&mut self, on: ConnId, mate: ConnId) {
        let Some(dst) = self.socks.get(&mate) else { return };
        let (queued, stalled, takes) = (dst.queued, dst.stalled, !dst.write_failed && !dst.write_ended);
        let Some(sock) = self.socks.get_mut(&on) else { return };
        if !takes || queued >= QUEUED_MAX {
            return;
        }
        let octets = match std::mem::take(&mut sock.parked) {
            parked if parked.is_empty() => sock.receive(PARKED_MAX),
            parked => parked,
        };
        if octets.is_empty() {
            if let Some(how) = sock.untold_end() {
                sock.end_told = true;
                self.events.push_back(Event::Ended(on, how));
            }
            return;
        }
        let queued = queued + octets.len();
        self.events.push_back(Event::Moved { from: on, read: octets.len(), queued });
        if stalled {
            self.socks.entry(mate).and_modify(|dst| dst.queued = queued);
        } else {
            self.events.push_back(Event::Flushed(mate));
        }
        self.ready.push_back(on);
    }
}

/// Where a name, or a service, may be.
pub(crate) fn address(host: u8) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, host)), 443)
}
