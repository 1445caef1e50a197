//! The connection to the server: dialling, keep-alives, loss.

use super::{
    Close, Component, ComponentEvent, ComponentHost, ConnId, DIAL, DIAL_NOT_LAST, DialFailure, ErrorClass,
    Event, Flight, HANDSHAKE, IqHandler, KEEP_ALIVE, LASTING, Loss, Now, Output, SocketAddr, State,
    StreamCondition, Vec,
};
use crate::dialer::ADDRESSES_MAX;
use crate::endpoint::Host;

impl<M: IqHandler> ComponentHost<M> {
    /// Dials the server, or its next address.
    pub(super) fn begin(&mut self, now: Now) {
        debug_assert!(self.conns.len() == 0, "two connections to the server");
        self.wake = None;
        let on = self.conns.insert(State::Closing, None);
        match (self.rest.pop_front(), &self.config.server.host) {
            (Some(to), _) => self.dial(on, to, now),
            (None, &Host::Address(address)) => {
                self.dial(on, SocketAddr::new(address, self.config.server.port), now);
            }
            (None, Host::Name(name)) => {
                let output = Output::Resolve { on, host: name.clone(), port: self.config.server.port };
                self.conns.set_state_until(on, State::Resolving, Some(now.mono + DIAL));
                self.conns.emit(output);
            }
        }
    }

    fn dial(&mut self, on: ConnId, to: SocketAddr, now: Now) {
        let timeout = if self.rest.is_empty() { DIAL } else { DIAL_NOT_LAST };
        self.conns.set_state_until(on, State::Dialling, Some(now.mono + timeout));
        self.conns.emit(Output::Dial { on, to });
    }

    /// Handles the addresses of the server's name.
    pub(super) fn resolved(&mut self, on: ConnId, addresses: &[SocketAddr], now: Now) {
        if let Some(State::Resolving) = self.conns.state(on)
            && let Some((first, rest)) = addresses.split_first()
        {
            self.rest = rest.iter().copied().take(ADDRESSES_MAX).collect();
            self.dial(on, *first, now);
        }
    }

    pub(super) fn connected(&mut self, on: ConnId, now: Now) {
        let Some(State::Dialling) = self.conns.state(on) else { return };
        self.rest.clear();
        let (component, header) = Component::begin(self.config.name.as_str(), self.config.secret.clone());
        self.conns.set_state_until(on, State::Greeting(component), Some(now.mono + HANDSHAKE));
        self.conns.send(on, header);
    }

    /// An address could not be connected to, or the name does not resolve.
    pub(super) fn unreachable(&mut self, on: ConnId, why: DialFailure, now: Now) {
        let Some(State::Resolving | State::Dialling) = self.conns.state(on) else { return };
        if self.rest.is_empty() {
            self.lose(on, Loss::Unreachable(why), Close::Abort, now);
        } else {
            self.shut(on, Close::Abort, now);
            self.wake = Some(now.mono);
        }
    }

    pub(super) fn up(&mut self, on: ConnId, now: Now) {
        let Some(state) = self.conns.state(on) else { return };
        let State::Greeting(component) = core::mem::replace(state, State::Closing) else { return };
        self.conns.set_state_until(on, State::Up(component, now.mono), Some(now.mono + KEEP_ALIVE));
        self.conns.emit(Output::UserTimeout { on, after: Some(KEEP_ALIVE) });
        self.flight = Flight::Idle;
        self.reported = None;
        self.is_full = false;
        self.conns.event(Event::Component(ComponentEvent::Up));
        self.inner.handle_online(now);
    }

    /// Closes the connection, and schedules the next one.
    pub(super) fn lose(&mut self, on: ConnId, why: Loss, how: Close, now: Now) {
        let up_since = match self.conns.state(on) {
            Some(State::Up(_, since)) => Some(*since),
            Some(State::Leaving(_)) => return self.shut(on, how, now),
            Some(State::Resolving | State::Dialling | State::Greeting(_) | State::Closing) => None,
            None => return,
        };
        if up_since.is_some_and(|since| now.mono.since(since) >= LASTING) {
            self.backoff.reset();
        }
        self.shut(on, how, now);
        let again = self.backoff.next(class(why), &mut self.entropy);
        if !self.leaving {
            self.wake = Some(now.mono + again);
        }
        if self.reported.replace(why) != Some(why) {
            self.conns.event(Event::Component(ComponentEvent::Down { why, again }));
        }
        if up_since.is_some() {
            self.inner.handle_offline(now);
        }
    }

    pub(super) fn expire(&mut self, on: ConnId, now: Now) {
        match self.conns.state(on) {
            Some(State::Resolving) => self.unreachable(on, DialFailure::Name, now),
            Some(State::Dialling) => self.unreachable(on, DialFailure::Unreachable, now),
            Some(State::Greeting(_)) => self.lose(on, Loss::TimedOut, Close::Abort, now),
            Some(State::Up(..)) => self.keep_alive(on, now),
            Some(State::Leaving(_)) => self.shut(on, Close::Linger, now),
            Some(State::Closing) | None => {}
        }
    }

    fn keep_alive(&mut self, on: ConnId, now: Now) {
        match self.flight {
            Flight::Overdue => return self.lose(on, Loss::TimedOut, Close::Abort, now),
            Flight::Sent => self.flight = Flight::Overdue,
            Flight::Idle => {
                self.conns.send(on, Vec::from(*b" "));
                self.flight = Flight::Sent;
            }
        }
        self.conns.set_due(on, Some(now.mono + KEEP_ALIVE));
    }
}

/// The error class for the backoff.
const fn class(why: Loss) -> ErrorClass {
    match why {
        Loss::Refused(StreamCondition::NotAuthorized | StreamCondition::HostUnknown) => {
            ErrorClass::Refusal(None)
        }
        // The other connection with our name may be our own last one, whose end the server has not noticed yet.
        Loss::Refused(_)
        | Loss::Unreachable(_)
        | Loss::TimedOut
        | Loss::Closed
        | Loss::Ended(_)
        | Loss::Malformed(_) => ErrorClass::Failure(None),
    }
}
