//! Dialling the relay: handles the results of [`Dialers`]. The first response wins a race.

use core::net::SocketAddr;

use super::{Connector, State};
use crate::conns::Conns;
use crate::dialer::{DialError, Dialers, Progress};
use crate::event::ConnectFailure;
use crate::machine::{Close, ConnId};
use crate::time::Now;

impl Connector {
    /// Passes an event to the dialers, and handles the result.
    pub(super) fn race(
        &mut self,
        on: ConnId,
        now: Now,
        happened: impl FnOnce(&mut Dialers, &mut Conns<State>, &dyn Fn() -> State) -> Progress,
    ) {
        let Some(local) = self.conns.state(on).and_then(|state| state.local()) else { return };
        let rival = || State::Reaching { local };
        match happened(&mut self.dialers, &mut self.conns, &rival) {
            Progress::Pending => {}
            Progress::Late { on, why } => self.attempt_failed(on, why, now),
            Progress::Greet(_) => debug_assert!(false, "a connector sends nothing in clear before TLS"),
            Progress::Reached { on, .. } => self.ask(on, now),
            Progress::Failed { lead, why } => self.fail(lead, why.into(), now),
        }
    }

    /// Handles bytes on a connection that is being established: those of a proxy. Returns how many were consumed.
    pub(super) fn tunnel(&mut self, on: ConnId, bytes: &[u8], now: Now) -> usize {
        let limits = self.config.head;
        let mut used = 0;
        self.race(on, now, |dialers, conns, rival| {
            let (consumed, progress) = dialers.bytes(on, bytes, &limits, conns, rival, now);
            used = consumed;
            progress
        });
        used
    }

    /// Handles addresses of a name. If the look-up is not complete, more may follow.
    pub(super) fn resolved(&mut self, on: ConnId, addresses: &[SocketAddr], is_complete: bool, now: Now) {
        match self.conns.state(on) {
            Some(&mut State::Link(link)) if is_complete => {
                self.with_dtcp_endpoint(now, |dtcp_endpoint| dtcp_endpoint.resolved(link, addresses));
            }
            _ => self.race(on, now, |dialers, conns, rival| {
                dialers.resolved(on, addresses, is_complete, conns, rival, now)
            }),
        }
    }

    /// An attempt failed: the next address is tried.
    pub(super) fn attempt_failed(&mut self, on: ConnId, why: DialError, now: Now) {
        self.forget_session(on, now);
        if let Some(&mut State::Asking { local, .. }) = self.conns.state(on) {
            self.conns.set_state(on, State::Reaching { local });
        }
        self.race(on, now, |dialers, conns, rival| dialers.failed(on, why, conns, rival, now));
    }

    /// The relay has answered on this connection: the others are closed.
    pub(super) fn settle_race(&mut self, on: ConnId, now: Now) {
        let Some(lead) = self.dialers.lead(on) else { return };
        for rival in self.dialers.attempts(lead) {
            if rival != on {
                self.forget_session(rival, now);
            }
        }
        if let Some(at) = self.dialers.settle(on, &mut self.conns, now) {
            self.dialers.book(&self.config.relay.place).answered(at);
        }
        self.conns.set_due(on, None);
        if lead != on {
            let local = self.conns.state(on).and_then(|state| state.local());
            if let Some(State::Local { relay }) = local.and_then(|local| self.conns.state(local)) {
                *relay = on;
            }
            self.conns.close(lead, Close::Abort, now);
        }
    }

    /// Cancels a race, or the work of its winner, because the local connection has gone.
    pub(super) fn cancel_race(&mut self, relay: ConnId, now: Now) {
        for on in self.dialers.attempts(relay) {
            self.forget_session(on, now);
        }
        self.forget_session(relay, now);
        self.dialers.cancel(relay, &mut self.conns, now);
    }
}

impl From<DialError> for ConnectFailure {
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
