//! The half-close table against its model.

use arbitrary::{Arbitrary, Unstructured};
use rendezvous_core::machine::{Close, End};
use rendezvous_core::pair::{Act, EndReason, Flow, Limits, Pair, Side};
use rendezvous_core::time::{Span, Time};

use crate::pair_model::Model;

#[derive(Arbitrary, Debug)]
struct Setup {
    head_queued: bool,
    idle: Option<u8>,
    half_closed: u8,
    check: u8,
    silent: u8,
}

#[derive(Arbitrary, Debug)]
enum Operation {
    Moved {
        of_client: bool,
        read: u8,
        queued: u8,
    },
    Flushed {
        of_client: bool,
    },
    End {
        of_client: bool,
        how: u8,
    },
    WriteFailed {
        of_client: bool,
    },
    /// An answer to a check that was not requested.
    Acked {
        of_client: bool,
        age: Option<u8>,
    },
    Wait {
        ms: u16,
    },
    /// Advances to the deadline. A liveness check gets this answer.
    Deadline {
        age: Option<u8>,
    },
}

struct Story {
    pair: Pair,
    model: Model,
    limits: Limits,
    now: Time,
    /// When bytes, or an end, last moved.
    last: Time,
    bytes: [u64; 2],
    write_failed: [bool; 2],
    stopped: [bool; 2],
}

pub(crate) fn run(bytes: &[u8]) {
    let mut unstructured = Unstructured::new(bytes);
    let Ok(setup) = Setup::arbitrary(&mut unstructured) else { return };
    let seconds = |count: u8| Span::from_secs(u64::from(count % 64) + 1);
    let limits = Limits {
        half_closed: seconds(setup.half_closed),
        idle: setup.idle.map(seconds),
        check: seconds(setup.check),
        silent: seconds(setup.silent),
        hand_over: None,
    };
    let now = Time(5_000_000);
    let pair = Pair::new(limits, setup.head_queued, now);
    let model = Model::new(setup.head_queued);
    let (bytes, write_failed, stopped) = ([0; 2], [false; 2], [false; 2]);
    let mut shrinker = Story { pair, model, limits, now, last: now, bytes, write_failed, stopped };
    while !unstructured.is_empty() && !shrinker.model.over {
        let Ok(operation) = Operation::arbitrary(&mut unstructured) else { break };
        shrinker.perform(&operation);
        shrinker.check();
    }
    if !shrinker.model.over {
        shrinker.leave();
    }
}

const fn side(of_client: bool) -> Side {
    if of_client { Side::Client } else { Side::Hidden }
}

const fn place(side: Side) -> usize {
    match side {
        Side::Hidden => 0,
        Side::Client => 1,
    }
}

impl Story {
    fn perform(&mut self, operation: &Operation) {
        let now = self.now;
        match *operation {
            Operation::Moved { of_client, read, queued } => {
                let from = side(of_client);
                // After an end nothing is read, and nothing is queued for a side that reads no more.
                let read = if self.model.has_ended(from) { 0 } else { read };
                let queued = if self.write_failed[place(from.other())] { 0 } else { queued };
                self.bytes[place(from)] += u64::from(read);
                self.put_off(from);
                let act = self.pair.on_moved(from, read.into(), queued.into(), now);
                assert_eq!(act, self.model.moved(from, queued > 0));
            }
            Operation::Flushed { of_client } => {
                let to = side(of_client);
                self.put_off(to.other());
                assert_eq!(self.pair.on_flushed(to, now), self.model.moved(to.other(), false));
            }
            Operation::End { of_client, how } => {
                let from = side(of_client);
                let how = [End::Clean, End::Clean, End::Truncated, End::Reset][usize::from(how % 4)];
                // A clean end comes once, and not from a side that is not read any more.
                if how == End::Clean && (self.model.has_ended(from) || self.stopped[place(from)]) {
                    return;
                }
                self.last = now;
                assert_eq!(self.pair.on_end(from, how, now), self.model.ended(from, how));
            }
            Operation::WriteFailed { of_client } => {
                let to = side(of_client);
                if std::mem::replace(&mut self.write_failed[place(to)], true) {
                    return;
                }
                self.last = now;
                let act = self.pair.on_write_failed(to, now);
                assert_eq!(act, self.model.write_failed(to));
                self.stopped[place(to.other())] |= matches!(act, Some(Act::StopReading(_)));
            }
            Operation::Acked { of_client, age } => self.acked(side(of_client), age),
            Operation::Wait { ms } => self.wait_until(now + Span::from_millis(ms.into()), None),
            Operation::Deadline { age } => {
                if let Some(deadline) = self.pair.deadline() {
                    self.wait_until(deadline.max(now), age);
                }
            }
        }
    }

    /// Bytes move in that direction: that restarts the timeout, unless the receiver is lost.
    fn put_off(&mut self, from: Side) {
        if self.model.flow(from) != Flow::Dead {
            self.last = self.now;
        }
    }

    fn acked(&mut self, side: Side, age: Option<u8>) {
        let age = age.map(|secs| Span::from_secs(secs.into()));
        let act = self.pair.on_acked(side, age, self.now);
        let silent = age.is_some_and(|age| age >= self.limits.silent);
        let wanted = silent.then(|| self.model.cut(side, Close::Abort, EndReason::Unreachable(side)));
        assert_eq!(act, wanted);
        assert_eq!(self.pair.is_silent(age), silent);
    }

    fn wait_until(&mut self, until: Time, age: Option<u8>) {
        // Both sides can be checked at one time, each once.
        let mut asked = Vec::new();
        while !self.model.over
            && let Some(deadline) = self.pair.deadline().filter(|deadline| *deadline <= until)
        {
            if let Some(early) = deadline.0.checked_sub(1).map(Time).filter(|early| *early > self.now) {
                assert_eq!(self.pair.on_timeout(early), None, "too early");
            }
            // A deadline can have passed when it is set: a queue became empty long after the last byte.
            self.now = self.now.max(deadline);
            match self.pair.on_timeout(self.now) {
                Some(Act::CheckAck(side)) => {
                    assert!(!asked.contains(&(self.now, side)), "the same check again");
                    asked.push((self.now, side));
                    self.acked(side, age);
                }
                Some(act) => self.gave_up(act),
                None => panic!("a deadline for nothing"),
            }
        }
        self.now = self.now.max(until);
    }

    fn gave_up(&mut self, act: Act) {
        let half_closed = self.model.is_half_closed();
        let patience = if half_closed { Some(self.limits.half_closed) } else { self.limits.idle };
        let due = self.last + patience.expect("patience that can end");
        assert!(due <= self.now && !self.model.is_expected(), "given up too early");
        let why = if half_closed { EndReason::HalfClosed } else { EndReason::Idle };
        assert_eq!(act, self.model.given_up(why));
    }

    fn check(&mut self) {
        for side in [Side::Hidden, Side::Client] {
            assert_eq!(self.pair.bytes_from(side), self.bytes[place(side)]);
            if !self.model.over {
                assert_eq!(self.pair.flow_from(side), self.model.flow(side));
            }
        }
        // If a side is half-closed and has nothing to send, the timeout runs.
        if !self.model.over && self.model.is_half_closed() && !self.model.is_expected() {
            let latest = self.last + self.limits.half_closed;
            assert!(self.pair.deadline().is_some_and(|deadline| deadline <= latest), "for ever half-closed");
        }
    }

    /// Everything queued is sent, and one side ends: the pair is over in time, whatever happened before.
    fn leave(&mut self) {
        self.perform(&Operation::Flushed { of_client: true });
        self.perform(&Operation::Flushed { of_client: false });
        if !self.model.over {
            self.perform(&Operation::End { of_client: true, how: 0 });
        }
        for _ in 0..200 {
            if self.model.over {
                return;
            }
            self.perform(&Operation::Deadline { age: None });
        }
        panic!("for ever half-closed");
    }
}
