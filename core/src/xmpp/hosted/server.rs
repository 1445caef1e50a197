//! The connection to the server: how it is reached, kept and lost.

use super::{
    Close, Component, ConnId, DIAL, DialFailure, Flight, Grade, HANDSHAKE, Hosted, IqHandler, KEEP_ALIVE,
    LASTING, Loss, Now, Output, Reach, Report, State, Step, StreamCondition, Vec,
};

impl<M: IqHandler> Hosted<M> {
    /// Dials the server, or its next address.
    pub(super) fn begin(&mut self, now: Now) {
        debug_assert!(self.conns.len() == 0, "two connections to the server");
        self.wake = None;
        let on = self.conns.insert(State::Closing, None);
        let (reach, output) = match self.rest.take() {
            Some(mut reach) => {
                let output = reach.next_address(on);
                (reach, output)
            }
            None => {
                let (reach, output) = Reach::begin(on, &self.config.server, None);
                (reach, Some(output))
            }
        };
        self.enter(on, State::Reaching(reach), Some(now.mono + DIAL));
        if let Some(output) = output {
            self.conns.say(output);
        }
    }

    pub(super) fn connected(&mut self, on: ConnId, now: Now) {
        let Some(State::Reaching(reach)) = self.conns.state(on) else { return };
        let next = reach.connected(on);
        debug_assert!(next.is_none(), "TLS to a server's component port");
        let (component, header) = Component::begin(self.config.name.as_str(), self.config.secret.clone());
        self.enter(on, State::Greeting(component), Some(now.mono + HANDSHAKE));
        self.conns.send(on, header);
    }

    /// An address, or the name, was of no use.
    pub(super) fn unreachable(&mut self, on: ConnId, why: DialFailure, now: Now) {
        let Some(State::Reaching(reach)) = self.conns.state(on) else { return };
        if reach.has_more() {
            self.rest = Some(reach.clone());
            self.shut(on, Close::Abort, now);
            self.wake = Some(now.mono);
        } else {
            self.lose(on, Loss::Unreachable(why), Close::Abort, now);
        }
    }

    pub(super) fn up(&mut self, on: ConnId, now: Now) {
        let Some(state) = self.conns.state(on) else { return };
        let State::Greeting(component) = core::mem::replace(state, State::Closing) else { return };
        self.enter(on, State::Up(component, now.mono), Some(now.mono + KEEP_ALIVE));
        self.conns.say(Output::UserTimeout { on, after: Some(KEEP_ALIVE) });
        self.flight = Flight::Idle;
        self.said = None;
        self.is_full = false;
        self.reports.push_back(Report::Up);
        self.inner.handle_online(now);
    }

    /// The connection is of no use any more, and another is made later.
    pub(super) fn lose(&mut self, on: ConnId, why: Loss, how: Close, now: Now) {
        let up_since = match self.conns.state(on) {
            Some(State::Up(_, since)) => Some(*since),
            Some(State::Leaving(_)) => return self.shut(on, how, now),
            Some(State::Reaching(_) | State::Greeting(_) | State::Closing) => None,
            None => return,
        };
        if up_since.is_some_and(|since| now.mono.since(since) >= LASTING) {
            self.backoff.reset();
        }
        self.shut(on, how, now);
        let again = self.backoff.next(grade(why), &mut self.entropy);
        if !self.leaving {
            self.wake = Some(now.mono + again);
        }
        if self.said.replace(why) != Some(why) {
            self.reports.push_back(Report::Down { why, again });
        }
        if up_since.is_some() {
            self.inner.handle_offline(now);
        }
    }

    pub(super) fn expire(&mut self, on: ConnId, now: Now) {
        match self.conns.state(on) {
            Some(State::Reaching(reach)) => match reach.step() {
                Step::Resolving => self.unreachable(on, DialFailure::Name, now),
                Step::Dialling | Step::Greeting | Step::Securing => {
                    self.unreachable(on, DialFailure::Unreachable, now)
                }
            },
            Some(State::Greeting(_)) => self.lose(on, Loss::Silent, Close::Abort, now),
            Some(State::Up(..)) => self.keep_alive(on, now),
            Some(State::Leaving(_)) => self.shut(on, Close::Linger, now),
            Some(State::Closing) | None => {}
        }
    }

    fn keep_alive(&mut self, on: ConnId, now: Now) {
        match self.flight {
            Flight::Overdue => return self.lose(on, Loss::Silent, Close::Abort, now),
            Flight::Sent => self.flight = Flight::Overdue,
            Flight::Idle => {
                self.conns.send(on, Vec::from(*b" "));
                self.flight = Flight::Sent;
            }
        }
        self.conns.set_due(on, Some(now.mono + KEEP_ALIVE));
    }
}

/// At what pace it is tried again.
const fn grade(why: Loss) -> Grade {
    match why {
        Loss::Refused(StreamCondition::NotAuthorized | StreamCondition::HostUnknown) => Grade::Refusal(None),
        // The other connection of our name may be our own last one, whose end the server has not seen yet.
        Loss::Refused(_)
        | Loss::Unreachable(_)
        | Loss::Silent
        | Loss::Closed
        | Loss::Ended(_)
        | Loss::Garbled(_) => Grade::Failure(None),
    }
}
