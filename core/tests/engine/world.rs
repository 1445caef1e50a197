//! A world in memory for the relay: connections with a peer at the far end, one clock, no socket.
//!
//! It keeps the contract of `rendezvous_core::machine` as the event loop does, and asserts that the engine keeps its
//! half. Every test ends, when its world is dropped, with everyone leaving, and nothing may be left then.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use rendezvous_core::engine::{Config, Engine};
use rendezvous_core::machine::{Close, ConnId, End, Listener, Machine, Output, TlsRole};
use rendezvous_core::note::Note;
use rendezvous_core::registry::Enrolment;
use rendezvous_core::time::{Now, Span, Time};

/// Sun, 06 Nov 1994 08:49:37 GMT.
pub(crate) const WALL: u64 = 784_111_777;
/// More than any test needs; a machine that goes round in circles is caught here.
const STEPS_MAX: u32 = 200_000;

pub(crate) struct World {
    pub(crate) engine: Engine,
    pub(crate) now: Now,
    pub(crate) notes: Vec<Note>,
    pub(crate) deadline: Option<Time>,
    pub(crate) why: &'static str,
    /// What a connection's peer owes, for whoever asks.
    pub(crate) ages: BTreeMap<ConnId, Span>,
    pub(crate) checks: Vec<ConnId>,
    /// For nonces that are used once.
    pub(crate) counter: u32,
    wires: BTreeMap<ConnId, Wire>,
    events: VecDeque<Event>,
    ready: VecDeque<ConnId>,
}

/// A connection as its peer, and the shell between, see it.
#[derive(Debug)]
pub(crate) struct Wire {
    /// What the peer has got.
    pub(crate) got: Vec<u8>,
    /// What the peer has sent and nobody has taken.
    pub(crate) unread: Vec<u8>,
    pub(crate) wanted: bool,
    pub(crate) mate: Option<ConnId>,
    /// The writing side was ended in order.
    pub(crate) write_ended: bool,
    pub(crate) closing: Option<Close>,
    pub(crate) closed: bool,
    pub(crate) securing: bool,
    pub(crate) user_timeout: Option<Span>,
    /// The peer takes nothing: what is sent stays queued.
    stalled: bool,
    queued: usize,
    fresh: bool,
    end: Option<End>,
    end_told: bool,
}

enum Event {
    Flushed(ConnId),
    Acked(ConnId),
    Closed(ConnId),
}

impl World {
    /// A relay that started a minute ago, with these IDs.
    pub(crate) fn new(config: Config, ids: Vec<Enrolment>) -> Self {
        let mut world = Self::just_started(config, ids);
        world.now.mono = world.now.mono + Span::from_secs(60);
        world
    }

    pub(crate) fn just_started(config: Config, ids: Vec<Enrolment>) -> Self {
        let now = Now { mono: Time(7_000_000), wall: WALL };
        let mut world = Self {
            engine: Engine::new(config, [7; 32], now),
            now,
            notes: Vec::new(),
            deadline: None,
            why: "",
            ages: BTreeMap::new(),
            checks: Vec::new(),
            counter: 0,
            wires: BTreeMap::new(),
            events: VecDeque::new(),
            ready: VecDeque::new(),
        };
        world.enrol(ids);
        world
    }

    // ---- what peers and the operator do ----

    pub(crate) fn enrol(&mut self, ids: Vec<Enrolment>) {
        self.engine.handle_ids(ids, self.now);
        self.run();
    }

    pub(crate) fn drain(&mut self) {
        self.engine.handle_drain(self.now);
        self.run();
    }

    pub(crate) fn open(&mut self) -> ConnId {
        self.open_on(0, "192.0.2.1:1000")
    }

    pub(crate) fn open_from(&mut self, from: &str) -> ConnId {
        self.open_on(0, from)
    }

    pub(crate) fn open_on(&mut self, listener: u16, from: &str) -> ConnId {
        let from: SocketAddr = from.parse().expect("an address");
        let on = self.engine.handle_open(Listener(listener), from, self.now);
        let wire = Wire {
            got: Vec::new(),
            unread: Vec::new(),
            wanted: true,
            mate: None,
            write_ended: false,
            closing: None,
            closed: false,
            securing: false,
            user_timeout: None,
            stalled: false,
            queued: 0,
            fresh: false,
            end: None,
            end_told: false,
        };
        assert!(self.wires.insert(on, wire).is_none(), "an id is used twice");
        self.run();
        on
    }

    pub(crate) fn secured(&mut self, on: ConnId) {
        self.wire_mut(on).securing = false;
        self.engine.handle_secured(on, self.now);
        self.run();
    }

    /// The peer sends.
    pub(crate) fn write(&mut self, on: ConnId, octets: impl AsRef<[u8]>) {
        let wire = self.wire_mut(on);
        assert!(wire.end.is_none(), "octets after the end");
        wire.unread.extend_from_slice(octets.as_ref());
        wire.fresh = true;
        self.ready.push_back(on);
        self.run();
    }

    /// The peer ends its writing side.
    pub(crate) fn end(&mut self, on: ConnId, how: End) {
        self.wire_mut(on).end = Some(how);
        self.ready.push_back(on);
        self.run();
    }

    /// Octets to the peer stay in the queue from now on, or go on.
    pub(crate) fn stall(&mut self, on: ConnId, stalled: bool) {
        let wire = self.wire_mut(on);
        wire.stalled = stalled;
        if !stalled && wire.queued > 0 {
            wire.queued = 0;
            self.events.push_back(Event::Flushed(on));
        }
        self.run();
    }

    pub(crate) fn write_fails(&mut self, on: ConnId) {
        self.wire_mut(on).queued = 0;
        self.engine.handle_write_failed(on, self.now);
        self.run();
    }

    /// Time passes; the engine is woken at its deadlines and at no other time.
    pub(crate) fn wait(&mut self, span: Span) {
        let until = self.now.mono + span;
        for _ in 0..STEPS_MAX {
            match self.deadline {
                Some(due) if due <= until => {
                    self.set_clock(due);
                    self.engine.handle_timeout(self.now);
                    self.run();
                    assert!(self.deadline != Some(due), "the same deadline again: {}", self.why);
                }
                _ => return self.set_clock(until),
            }
        }
        panic!("woken for ever: {}", self.why);
    }

    pub(crate) fn wait_ms(&mut self, ms: u64) {
        self.wait(Span::from_millis(ms));
    }

    pub(crate) fn wait_secs(&mut self, secs: u64) {
        self.wait(Span::from_secs(secs));
    }

    /// Everyone leaves, all deadlines pass, and nothing is left.
    pub(crate) fn clear(&mut self) {
        let all: Vec<ConnId> = self.wires.keys().copied().collect();
        for on in all {
            let wire = self.wire(on);
            if wire.end.is_none() && !wire.closed {
                self.end(on, End::Reset);
            }
            if self.wire(on).stalled {
                self.stall(on, false);
            }
        }
        self.wait_secs(24 * 3_600);
        assert_eq!(self.engine.pairs(), 0, "a pair without its two ends");
        assert_eq!(self.engine.connections(), 0, "a connection that nobody closes");
        assert_eq!(self.deadline, None, "a deadline of nobody's: {}", self.why);
        assert!(self.wires.values().all(|wire| wire.closed), "an id that was never closed");
    }

    // ---- what there is to see ----

    pub(crate) fn wire(&self, on: ConnId) -> &Wire {
        self.wires.get(&on).expect("a connection")
    }

    pub(crate) fn got(&self, on: ConnId) -> String {
        String::from_utf8(self.wire(on).got.clone()).expect("text")
    }

    /// What the peer got since this was asked last.
    pub(crate) fn take(&mut self, on: ConnId) -> String {
        String::from_utf8(std::mem::take(&mut self.wire_mut(on).got)).expect("text")
    }

    pub(crate) fn is_open(&self, on: ConnId) -> bool {
        self.wire(on).closing.is_none()
    }

    pub(crate) fn closing(&self, on: ConnId) -> Option<Close> {
        self.wire(on).closing
    }

    pub(crate) fn mate(&self, on: ConnId) -> Option<ConnId> {
        self.wire(on).mate
    }

    /// The notes since this was asked last.
    pub(crate) fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    fn wire_mut(&mut self, on: ConnId) -> &mut Wire {
        self.wires.get_mut(&on).expect("a connection")
    }

    fn set_clock(&mut self, to: Time) {
        let seconds = |time: Time| time.0 / 1_000_000;
        // A test may have set the wall clock: only what passes is added.
        self.now.wall += seconds(to) - seconds(self.now.mono);
        self.now.mono = to;
    }

    // ---- the shell ----

    /// Until nothing is left to do at this moment.
    pub(crate) fn run(&mut self) {
        for _ in 0..STEPS_MAX {
            self.drain_outputs();
            if let Some(event) = self.events.pop_front() {
                self.tell(&event);
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
                wire.got.extend_from_slice(text);
                if wire.stalled {
                    wire.queued += text.len();
                } else {
                    self.events.push_back(Event::Flushed(to));
                }
            }
            Output::Read { on, wanted } => {
                let wire = self.wire_mut(on);
                wire.wanted = wanted;
                wire.fresh |= wanted;
                self.ready.push_back(on);
            }
            Output::Pair { hidden, client } => {
                for (on, mate) in [(hidden, client), (client, hidden)] {
                    let wire = self.wire_mut(on);
                    assert!(wire.mate.is_none() && wire.closing.is_none(), "paired twice, or too late");
                    wire.mate = Some(mate);
                    wire.wanted = true;
                    self.ready.push_back(on);
                }
            }
            Output::StartTls { on, role } => {
                assert_eq!(role, TlsRole::Server);
                self.wire_mut(on).securing = true;
            }
            Output::UserTimeout { on, after } => self.wire_mut(on).user_timeout = after,
            Output::CheckAck { on } => {
                self.checks.push(on);
                self.events.push_back(Event::Acked(on));
            }
            Output::CloseWrite { on } => {
                let wire = self.wire_mut(on);
                assert!(!wire.write_ended && wire.closing.is_none() && wire.queued == 0, "an end too early");
                wire.write_ended = true;
            }
            Output::Close { on, how } => self.close(on, how),
            Output::Note(note) => self.notes.push(note),
            Output::Resolve { .. } | Output::Dial { .. } | Output::Idle { .. } => {
                panic!("not from a relay: {output:?}")
            }
        }
    }

    fn close(&mut self, on: ConnId, how: Close) {
        let wire = self.wire_mut(on);
        assert!(!wire.closed && (wire.closing.is_none() || how == Close::Abort), "closed twice");
        // What a test wants to know is how it began.
        wire.closing.get_or_insert(how);
        let mate = wire.mate.take();
        if how == Close::Abort {
            wire.closed = true;
            self.events.push_back(Event::Closed(on));
        } else {
            self.ready.push_back(on);
        }
        if let Some(mate) = mate {
            let wire = self.wire_mut(mate);
            wire.mate = None;
            wire.fresh = true;
            self.ready.push_back(mate);
        }
    }

    fn tell(&mut self, event: &Event) {
        match *event {
            Event::Flushed(on) if self.wire(on).closed => {}
            Event::Flushed(on) => self.engine.handle_flushed(on, self.now),
            Event::Acked(on) => self.engine.handle_acked(on, self.ages.get(&on).copied(), self.now),
            Event::Closed(on) => self.engine.handle_closed(on, self.now),
        }
    }

    /// Octets and ends go where they belong.
    fn serve(&mut self, on: ConnId) {
        let wire = self.wire_mut(on);
        if wire.closed {
            return;
        }
        if wire.closing.is_some() {
            let dropped = u32::try_from(std::mem::take(&mut wire.unread).len()).expect("short");
            if wire.end.is_some() {
                wire.closed = true;
                self.events.push_back(Event::Closed(on));
            } else if dropped > 0 {
                self.engine.handle_moved(on, dropped, 0, self.now);
            }
            return;
        }
        if !wire.wanted || wire.securing && wire.end.is_none() {
            return;
        }
        if let Some(mate) = wire.mate {
            let octets = std::mem::take(&mut wire.unread);
            if !octets.is_empty() {
                let to = self.wire_mut(mate);
                to.got.extend_from_slice(&octets);
                if to.stalled {
                    to.queued += octets.len();
                }
                let lengths = [octets.len(), to.queued].map(|it| u32::try_from(it).expect("short"));
                self.engine.handle_moved(on, lengths[0], lengths[1], self.now);
                return self.ready.push_back(on);
            }
        } else if wire.fresh && !wire.unread.is_empty() {
            wire.fresh = false;
            let octets = wire.unread.clone();
            let used = self.engine.handle_bytes(on, &octets, self.now);
            self.wire_mut(on).unread.drain(..used);
            return self.ready.push_back(on);
        }
        let wire = self.wire_mut(on);
        if let (Some(how), false) = (wire.end, wire.end_told) {
            wire.end_told = true;
            self.engine.handle_end(on, how, self.now);
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.clear();
        }
    }
}
