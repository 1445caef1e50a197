//! Races through a proxy: the exchange with it comes between connecting and TLS.

use super::{DialError, Dialers, Progress};
use crate::conns::Conns;
use crate::http::head::Limits;
use crate::machine::{Close, ConnId, Output};
use crate::time::Now;
use crate::tunnel::{Step, Tunnel};

impl Dialers {
    /// Handles bytes on a connection of a race. Returns how many were consumed. Those of the host are not.
    pub(crate) fn bytes<S>(
        &mut self,
        on: ConnId,
        bytes: &[u8],
        limits: &Limits,
        conns: &mut Conns<S>,
        rival: impl Fn() -> S,
        now: Now,
    ) -> (usize, Progress) {
        let Some(lead) = self.lead(on) else { return (0, Progress::Pending) };
        let Some((race, attempt)) = self.attempt(on) else { return (0, Progress::Pending) };
        let Some(tunnel) = &mut attempt.tunnel else { return (0, Progress::Pending) };
        let (used, step) = tunnel.read(bytes, limits);
        let progress = match step {
            Step::More => Progress::Pending,
            Step::Send(text) => {
                conns.send(on, text.into_bytes());
                Progress::Pending
            }
            Step::Open => {
                let tunnel = attempt.tunnel.take();
                race.connected(attempt.address, now.mono);
                if let (Some(tunnel), Some(running)) = (tunnel, self.races.get(&lead)) {
                    self.tunnels.insert(running.place.clone(), *tunnel);
                }
                self.begin_tls(lead, on, conns, now)
            }
            Step::Reconnect => self.reconnect(lead, on, conns, rival, now),
            Step::Failed(why) => self.failed(on, DialError::Proxy(why), conns, rival, now),
        };
        (used, progress)
    }

    /// Begins the exchange with the proxy, if there is one.
    pub(super) fn begin_tunnel<S>(&mut self, lead: ConnId, on: ConnId, conns: &mut Conns<S>) -> bool {
        let Some(running) = self.races.get_mut(&lead) else { return false };
        let Some(through) = &running.through else { return false };
        let (proxy, host) = &**through;
        let Some(attempt) = running.attempts.iter_mut().find(|it| it.on == on) else { return false };
        let known = self.tunnels.get_mut(&proxy.place);
        let tunnel = attempt.tunnel.get_or_insert_with(|| match known {
            Some(known) => known.next(host).into(),
            None => Tunnel::new(proxy, host).into(),
        });
        conns.send(on, tunnel.begin().into_bytes());
        true
    }

    /// The proxy ends the connection after a challenge: the exchange goes on with a new one to the same address.
    fn reconnect<S>(
        &mut self,
        lead: ConnId,
        on: ConnId,
        conns: &mut Conns<S>,
        rival: impl Fn() -> S,
        now: Now,
    ) -> Progress {
        let Some(running) = self.races.get_mut(&lead) else { return Progress::Pending };
        let Some(attempt) = running.attempts.iter_mut().find(|it| it.on == on) else {
            return Progress::Pending;
        };
        let again = conns.insert(rival(), None);
        attempt.on = again;
        let to = attempt.address;
        // The lead stays until the race is over.
        if self.rivals.remove(&on).is_some() {
            conns.close(on, Close::Abort, now);
        } else {
            conns.emit(Output::Read { on, wanted: false });
        }
        self.rivals.insert(again, lead);
        conns.emit(Output::Dial { on: again, to });
        Progress::Pending
    }
}
