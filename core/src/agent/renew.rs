//! Renews waiting connections: at an age, and when another relay answers.
//!
//! A load balancer may select another relay for new connections while the waiting ones stay where they are. Clients then
//! find no hidden server at the new relay.

use super::{Agent, Conn, Path, State};
use crate::http::instance::Instance;
use crate::machine::{Close, ConnId};
use crate::time::{Now, Span, Time};

/// The cost of a renewal of the pool, which is the long-term interval.
const RELAY_CHANGE_COST: Span = Span::from_secs(5);
/// The tolerance of such costs: five renewals. Two load balancers that disagree cause no more.
const RELAY_CHANGE_TOLERANCE: Span = Span::from_secs(20);

impl Agent {
    /// When a connection that waits from now on is renewed: at the configured age, plus or minus a quarter, so that many
    /// agents do not reconnect at the same time.
    pub(super) fn renew_at(&mut self, now: Now) -> Option<Time> {
        let age = self.config.renew?;
        let [high, low, ..] = self.jitter.block();
        let share = u64::from(u16::from_be_bytes([high, low]));
        let spread = (age.0 / 2).saturating_mul(share) / u64::from(u16::MAX);
        Some(now.mono + Span(age.0 - age.0 / 4 + spread))
    }

    /// This connection is old: another one is opened, and takes its place once it waits.
    pub(super) fn renew_conn(&mut self, on: ConnId, now: Now) {
        let Some(&mut Conn { upstream, .. }) = self.conns.state(on) else { return };
        self.mark_for_renewal(on);
        self.fill(upstream, now);
    }

    /// A relay has accepted the connection `on`. If it is another relay than before, the other waiting connections are
    /// renewed. One connection that is being renewed is closed.
    pub(super) fn met_relay(&mut self, on: ConnId, instance: Option<Instance>, now: Now) {
        let Some(&mut Conn { upstream, .. }) = self.conns.state(on) else { return };
        let link = self.link(upstream);
        let before = link.instance;
        link.instance = instance.or(before);
        let is_other = instance.is_some() && before.is_some() && instance != before;
        let waiting: alloc::vec::Vec<_> =
            self.waiting_since(upstream).into_iter().map(|(_, on)| on).collect();
        if is_other && self.link(upstream).relay_changes.excess(RELAY_CHANGE_TOLERANCE, now) == Span::ZERO {
            self.link(upstream).relay_changes.add(RELAY_CHANGE_COST, now);
            for other in waiting.iter().copied().filter(|other| *other != on) {
                self.mark_for_renewal(other);
            }
        }
        let is_renewing = |agent: &mut Self, on: ConnId| {
            matches!(
                agent.conns.state(on),
                Some(Conn { state: State::Waiting { path: Path::Renewing, .. }, .. })
            )
        };
        if let Some(oldest) = waiting.into_iter().find(|other| is_renewing(self, *other)) {
            self.close(oldest, Close::Linger, now);
        }
    }

    fn mark_for_renewal(&mut self, on: ConnId) {
        let Some(Conn { upstream, state: State::Waiting { path, renew, .. }, .. }) = self.conns.state(on)
        else {
            return;
        };
        *renew = None;
        if *path == Path::Current {
            *path = Path::Renewing;
            let upstream = *upstream;
            self.link(upstream).old_path += 1;
        }
    }
}
