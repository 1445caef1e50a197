//! A machine, a clock that is set by hand, and everything that the machine has output.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use rendezvous_core::event::Event;
use rendezvous_core::machine::{ConnId, Machine, Output};
use rendezvous_core::time::{Now, Span, Time};

/// The start of every test: 2024-05-17T09:20:00Z.
pub(crate) const WALL: u64 = 1_715_937_600;

pub(crate) struct Harness<M> {
    pub(crate) machine: M,
    pub(crate) now: Now,
    pub(crate) idle: Option<Time>,
    log: Vec<Done>,
    reported: usize,
    /// Events of machines behind a component that were not taken yet.
    pub(crate) xmpp_events: Vec<Event>,
}

/// An action of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    Sent(ConnId, Vec<u8>),
    Asked(Output),
}

pub(crate) fn beginning() -> Now {
    Now { mono: Time(1_000_000), wall: WALL }
}

pub(crate) fn address(host: u8, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, host)), port)
}

impl<M: Machine> Harness<M> {
    pub(crate) fn new(machine: M) -> Self {
        let (now, xmpp_events) = (beginning(), Vec::new());
        let mut harness = Self { machine, now, idle: None, log: Vec::new(), reported: 0, xmpp_events };
        harness.drain();
        harness
    }

    /// Calls the machine, and logs all of its outputs. Whatever it closes is closed at once.
    pub(crate) fn call<R>(&mut self, what: impl FnOnce(&mut M, Now) -> R) -> R {
        let result = what(&mut self.machine, self.now);
        self.drain();
        result
    }

    fn drain(&mut self) {
        let mut closed = Vec::new();
        loop {
            let mut text = Vec::new();
            match self.machine.poll_output(&mut text) {
                Output::Idle { until, .. } => {
                    self.idle = until;
                    let Some(on) = closed.pop() else { return };
                    self.machine.handle_closed(on, self.now);
                }
                Output::Send { to, len } => {
                    assert_eq!(text.len(), len as usize);
                    self.log.push(Done::Sent(to, text));
                }
                Output::Event(
                    event @ (Event::Component(_) | Event::Dtcp(_) | Event::Stream(_) | Event::StreamProxy(_)),
                ) => self.xmpp_events.push(event),
                output => {
                    if let Output::Close { on, .. } = output
                        && !closed.contains(&on)
                    {
                        closed.push(on);
                    }
                    self.log.push(Done::Asked(output));
                }
            }
        }
    }

    pub(crate) fn receive(&mut self, on: ConnId, bytes: &[u8]) -> usize {
        self.call(|machine, now| machine.handle_bytes(on, bytes, now))
    }

    /// Lets time pass, from deadline to deadline.
    pub(crate) fn wait(&mut self, span: Span) {
        let until = self.now.mono + span;
        while self.idle.is_some_and(|idle| idle <= until) {
            self.go_to(self.idle.unwrap());
            self.call(Machine::handle_timeout);
        }
        self.go_to(until);
    }

    /// Advances to the next deadline at which anything is done. Returns the time that took.
    pub(crate) fn wait_for_deadline(&mut self) -> Span {
        let (before, done) = (self.now.mono, self.log.len());
        while self.log.len() == done {
            self.go_to(self.idle.expect("a deadline runs"));
            self.call(Machine::handle_timeout);
        }
        self.now.mono.since(before)
    }

    fn go_to(&mut self, time: Time) {
        let time = time.max(self.now.mono);
        // The wall clock's second began with the test.
        self.now = Now { mono: time, wall: WALL + time.since(beginning().mono).0 / 1_000_000 };
    }

    /// The actions since the last call.
    pub(crate) fn actions(&mut self) -> Vec<Done> {
        let actions = self.log[self.reported..].to_vec();
        self.reported = self.log.len();
        actions
    }
}

/// The dials among the news.
pub(crate) fn dials(actions: &[Done]) -> Vec<(ConnId, SocketAddr)> {
    let dial = |did: &Done| match did {
        Done::Asked(Output::Dial { on, to }) => Some((*on, *to)),
        _ => None,
    };
    actions.iter().filter_map(dial).collect()
}

/// The events among the news.
pub(crate) fn events(actions: &[Done]) -> Vec<Event> {
    let event = |did: &Done| match did {
        Done::Asked(Output::Event(event)) => Some(event.clone()),
        _ => None,
    };
    actions.iter().filter_map(event).collect()
}

/// The texts that were sent on a connection, concatenated.
pub(crate) fn sent(actions: &[Done], on: ConnId) -> String {
    let text = |did: &Done| match did {
        Done::Sent(to, text) if *to == on => Some(String::from_utf8(text.clone()).unwrap()),
        _ => None,
    };
    actions.iter().filter_map(text).collect()
}

/// Whether this output is among the news.
pub(crate) fn asked(actions: &[Done], output: Output) -> bool {
    actions.contains(&Done::Asked(output))
}
