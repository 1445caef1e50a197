//! Dialling a relay or a local service: handles the results of [`Dialers`].

use super::service::NoService;
use super::{Agent, Conn, State, conn_state};
use crate::conns::Conns;
use crate::dialer::{DialError, Dialers, Dialling, Progress};
use crate::event::RelayLoss;
use crate::machine::{Close, ConnId, TlsFailure};
use crate::relay_client::HostPort;
use crate::time::Now;

impl Agent {
    /// Begins to dial a relay or a local service with the connection `lead`.
    pub(super) fn dial(&mut self, lead: ConnId, place: &HostPort, how: Dialling, now: Now) {
        self.dialers.begin(lead, place, how, &mut self.conns, now);
    }

    /// Handles bytes on a connection that is being established: those of a proxy. Returns how many were consumed, and
    /// whether another step may follow.
    pub(super) fn tunnel(&mut self, on: ConnId, bytes: &[u8], now: Now) -> (usize, bool) {
        let limits = self.config.head;
        let mut used = 0;
        self.race(on, now, |dialers, conns, rival| {
            let (consumed, progress) = dialers.bytes(on, bytes, &limits, conns, rival, now);
            used = consumed;
            progress
        });
        (used, used > 0)
    }

    /// Passes an event to the dialers, and handles the result.
    pub(super) fn race(
        &mut self,
        on: ConnId,
        now: Now,
        happened: impl FnOnce(&mut Dialers, &mut Conns<Conn>, &dyn Fn() -> Conn) -> Progress,
    ) {
        let Some(&mut Conn { upstream, .. }) = self.conns.state(on) else { return };
        let rival = || Conn::new(upstream, State::Rival);
        match happened(&mut self.dialers, &mut self.conns, &rival) {
            Progress::Pending => {}
            Progress::Late { on, why } => self.attempt_failed(on, why, now),
            Progress::Greet(on) => self.greet_service(on),
            Progress::Reached { lead, on } => self.reached_host(lead, on, now),
            Progress::Failed { lead, why } => match conn_state(&mut self.conns, lead) {
                Some(State::Reaching) => self.lose(lead, why.into(), now),
                Some(State::Local { .. }) => self.no_service(lead, why.into(), now),
                _ => debug_assert!(false, "a race without its lead"),
            },
        }
    }

    /// An attempt failed.
    pub(super) fn attempt_failed(&mut self, on: ConnId, why: DialError, now: Now) {
        self.race(on, now, |dialers, conns, rival| dialers.failed(on, why, conns, rival, now));
    }

    /// `on` has won the race of `lead`, and takes its place.
    fn reached_host(&mut self, lead: ConnId, on: ConnId, now: Now) {
        let at = self.dialers.settle(on, &mut self.conns, now);
        if on != lead {
            let state = match conn_state(&mut self.conns, lead) {
                Some(&mut State::Local { relay, asked }) => {
                    if let Some(State::Meeting { local, .. }) = conn_state(&mut self.conns, relay) {
                        *local = on;
                    }
                    State::Local { relay, asked }
                }
                _ => State::Reaching,
            };
            self.close(lead, Close::Abort, now);
            self.enter(on, state, None);
        }
        match conn_state(&mut self.conns, on) {
            Some(State::Reaching) => self.register(on, at, now),
            Some(State::Local { .. }) => self.reached(on, now),
            _ => debug_assert!(false, "a race for no connection"),
        }
    }
}

impl From<DialError> for RelayLoss {
    fn from(why: DialError) -> Self {
        match why {
            DialError::Dial(why) => Self::Unreachable(why),
            DialError::Ended(how) => Self::Ended(how),
            DialError::TimedOut => Self::TimedOut,
            DialError::NotHttp => Self::NotHttp,
            DialError::Tls(why) => Self::Tls(why),
            DialError::Proxy(why) => Self::Proxy(why),
        }
    }
}

impl From<DialError> for NoService {
    fn from(why: DialError) -> Self {
        match why {
            DialError::Dial(why) => Self::Dial(why),
            DialError::Tls(why) => Self::Tls(why),
            DialError::Ended(_) | DialError::TimedOut | DialError::NotHttp | DialError::Proxy(_) => {
                Self::Tls(TlsFailure::Ended)
            }
        }
    }
}
