//! A world in memory for the relay: connections with a peer at the far end, one clock, no socket.
//!
//! It keeps the contract of `rendezvous_core::machine` as the event loop does, and asserts that the engine keeps its
//! side. When the world is dropped at the end of a test, all peers leave, and nothing may be left then.

mod shell;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use rendezvous_core::engine::{Config, Engine, Kick, TakeOver};
use rendezvous_core::event::Event;
use rendezvous_core::machine::{Close, ConnId, End, Listener, Machine, Secured, TlsFailure};
use rendezvous_core::registry::Enrolment;
use rendezvous_core::time::{Now, Span, Time};

/// Sun, 06 Nov 1994 08:49:37 GMT.
pub(crate) const WALL: u64 = 784_111_777;
/// More than any test needs, to detect endless loops.
const STEPS_MAX: u32 = 200_000;

pub(crate) struct World {
    pub(crate) engine: Engine,
    pub(crate) now: Now,
    pub(crate) events: Vec<Event>,
    pub(crate) deadline: Option<Time>,
    pub(crate) why: &'static str,
    /// The age of each peer's unacknowledged bytes, for `CheckAck`.
    pub(crate) ages: BTreeMap<ConnId, Span>,
    /// The round-trip time of each connection, if it is known.
    pub(crate) round_trips: BTreeMap<ConnId, Span>,
    pub(crate) checks: Vec<ConnId>,
    /// For nonces that are used once.
    pub(crate) counter: u32,
    wires: BTreeMap<ConnId, Wire>,
    inputs: VecDeque<Input>,
    ready: VecDeque<ConnId>,
}

/// A connection, as its peer and the driver see it.
#[derive(Debug)]
pub(crate) struct Wire {
    /// The bytes that the peer has received.
    pub(crate) got: Vec<u8>,
    /// The bytes that the peer has sent and that were not consumed.
    pub(crate) unread: Vec<u8>,
    pub(crate) wanted: bool,
    pub(crate) peer: Option<ConnId>,
    /// How many bytes move before the next are offered; `None`: none are offered.
    gate: Option<u64>,
    last_told: bool,
    /// Whether the writing side was shut down cleanly.
    pub(crate) write_ended: bool,
    pub(crate) closing: Option<Close>,
    pub(crate) closed: bool,
    pub(crate) securing: bool,
    pub(crate) user_timeout: Option<Span>,
    /// Whether the peer reads nothing, so that what is sent stays queued.
    stalled: bool,
    pub(crate) failed: bool,
    queued: usize,
    fresh: bool,
    pub(crate) end: Option<End>,
    end_told: bool,
}

enum Input {
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
            events: Vec::new(),
            deadline: None,
            why: "",
            ages: BTreeMap::new(),
            round_trips: BTreeMap::new(),
            checks: Vec::new(),
            counter: 0,
            wires: BTreeMap::new(),
            inputs: VecDeque::new(),
            ready: VecDeque::new(),
        };
        world.enrol(ids);
        world
    }

    // ---- actions of peers and of the operator ----

    pub(crate) fn enrol(&mut self, ids: Vec<Enrolment>) {
        self.engine.handle_ids(ids, self.now);
        self.run();
    }

    pub(crate) fn configure(&mut self, config: Config) {
        self.engine.handle_config(config, self.now);
        self.run();
    }

    pub(crate) fn kick(&mut self, what: Kick) -> u32 {
        let ended = self.engine.handle_kick(&what, self.now);
        self.run();
        ended
    }

    pub(crate) fn take_over(&mut self, step: TakeOver) {
        self.engine.handle_take_over(step, self.now);
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
            peer: None,
            gate: None,
            last_told: false,
            write_ended: false,
            closing: None,
            closed: false,
            securing: false,
            user_timeout: None,
            stalled: false,
            failed: false,
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
        self.engine.handle_secured(on, Secured::default(), self.now);
        self.run();
    }

    /// The handshake fails.
    pub(crate) fn not_secured(&mut self, on: ConnId, why: TlsFailure) {
        self.wire_mut(on).securing &= why != TlsFailure::PlainHttp;
        self.engine.handle_tls_failed(on, why, self.now);
        self.run();
    }

    /// The peer sends.
    pub(crate) fn write(&mut self, on: ConnId, bytes: impl AsRef<[u8]>) {
        let wire = self.wire_mut(on);
        assert!(wire.end.is_none(), "octets after the end");
        wire.unread.extend_from_slice(bytes.as_ref());
        wire.fresh = true;
        self.ready.push_back(on);
        self.run();
    }

    /// The peer sends, and shuts down its writing side at once.
    pub(crate) fn write_last(&mut self, on: ConnId, bytes: impl AsRef<[u8]>) {
        let wire = self.wire_mut(on);
        wire.unread.extend_from_slice(bytes.as_ref());
        (wire.fresh, wire.end) = (true, Some(End::Clean));
        self.ready.push_back(on);
        self.run();
    }

    /// The peer shuts down its writing side.
    pub(crate) fn end(&mut self, on: ConnId, how: End) {
        self.wire_mut(on).end = Some(how);
        self.ready.push_back(on);
        self.run();
    }

    /// The same, noticed while nothing is read: a reset, or an end that came with the last bytes.
    pub(crate) fn end_at_once(&mut self, on: ConnId, how: End) {
        let wire = self.wire_mut(on);
        (wire.end, wire.end_told) = (Some(how), true);
        self.engine.handle_end(on, how, self.now);
        self.run();
    }

    /// Stops or resumes sending queued bytes to the peer.
    pub(crate) fn stall(&mut self, on: ConnId, stalled: bool) {
        let wire = self.wire_mut(on);
        wire.stalled = stalled;
        if !stalled && wire.queued > 0 {
            wire.queued = 0;
            self.inputs.push_back(Input::Flushed(on));
        }
        self.run();
    }

    pub(crate) fn write_fails(&mut self, on: ConnId) {
        let wire = self.wire_mut(on);
        assert!(!std::mem::replace(&mut wire.failed, true), "told twice");
        wire.queued = 0;
        self.engine.handle_write_failed(on, self.now);
        self.run();
    }

    /// Lets time pass; the engine is called only at its deadlines.
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

    /// All peers leave, all deadlines pass, and nothing is left.
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

    // ---- observations ----

    pub(crate) fn wire(&self, on: ConnId) -> &Wire {
        self.wires.get(&on).expect("a connection")
    }

    pub(crate) fn got(&self, on: ConnId) -> String {
        String::from_utf8(self.wire(on).got.clone()).expect("text")
    }

    /// The bytes that the peer has received since the last call.
    pub(crate) fn take(&mut self, on: ConnId) -> String {
        String::from_utf8(std::mem::take(&mut self.wire_mut(on).got)).expect("text")
    }

    /// Expects and removes the next bytes that the peer has received.
    #[track_caller]
    pub(crate) fn expect(&mut self, on: ConnId, text: &str) {
        let got = self.take(on);
        let rest = got.strip_prefix(text).unwrap_or_else(|| panic!("{text:?} expected, {got:?} came"));
        self.wire_mut(on).got = rest.into();
    }

    pub(crate) fn is_open(&self, on: ConnId) -> bool {
        self.wire(on).closing.is_none()
    }

    pub(crate) fn closing(&self, on: ConnId) -> Option<Close> {
        self.wire(on).closing
    }

    pub(crate) fn peer(&self, on: ConnId) -> Option<ConnId> {
        self.wire(on).peer
    }

    /// The events since the last call.
    pub(crate) fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    pub(crate) fn wire_mut(&mut self, on: ConnId) -> &mut Wire {
        self.wires.get_mut(&on).expect("a connection")
    }

    fn set_clock(&mut self, to: Time) {
        let seconds = |time: Time| time.0 / 1_000_000;
        // A test may have set the wall clock: only the elapsed time is added.
        self.now.wall += seconds(to) - seconds(self.now.mono);
        self.now.mono = to;
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.clear();
        }
    }
}
