//! Draws a plan from its seed, and makes a plan smaller.

use rendezvous_core::registry::Access;
use rendezvous_core::time::{Span, Time};

use super::{END_TO_END, IDS, Incident, Participant, Plan, Setting, id};
use crate::actors::{Behaviour, Ending, Style};
use crate::rng::Rng;
use crate::run::TakeOverStep;
use crate::sim_net::Faults;

/// All clients have started by then.
const HOUR_OF_CLIENTS: u64 = 60_000_000;

impl Plan {
    /// Draws a plan.
    #[must_use]
    pub fn draw(seed: u64, tls: bool) -> Self {
        let mut rng = Rng::new(seed ^ 0x5eed_0000);
        let mut rate = |most: u64| {
            let on = rng.below(2) == 0;
            if on { u32::try_from(rng.length(most)).unwrap_or(0) } else { 0 }
        };
        let mut faults = Faults {
            short_recv: rate(500),
            short_send: rate(500),
            would_block: rate(100),
            spurious: rate(200),
            stale: rate(500),
            late: rate(500),
            no_descriptor: rate(300),
            aborted: rate(1_000),
            latency_min: Span::ZERO,
            latency_max: Span::ZERO,
            room_max: 0,
        };
        faults.latency_max = Span(rng.length(200_000));
        faults.room_max = usize::try_from((256 << rng.below(11)) + rng.below(200)).unwrap_or(65_536);
        let magnitude = rng.between(4, 18);
        // Bounded, so that a small window does not make the run endless.
        let bytes_max = (1 << magnitude).min(faults.room_max as u64 * 64);
        let mut endings: Vec<Ending> =
            [Ending::AfterPeer, Ending::Close, Ending::Reset, Ending::Lost, Ending::Cut]
                .into_iter()
                .filter(|_| rng.below(3) == 0)
                .collect();
        endings.push(Ending::HalfClose);
        let mut plan = Self {
            seed,
            tls,
            faults,
            waiting_max: u32::try_from(rng.between(1, 8)).unwrap_or(8),
            pairs_max: u32::try_from(rng.length(30).max(1)).unwrap_or(8),
            held_max: u32::try_from(rng.length(10)).unwrap_or(8),
            hold: Span(rng.length(8_000_000)),
            ceiling: usize::try_from(rng.length(8 << 20).max(400_000)).unwrap_or(8 << 20),
            bytes_max,
            silent: false,
            endings,
            received_max: None,
            participants: Vec::new(),
            incidents: Vec::new(),
        };
        plan.invite(&mut rng);
        plan.strike(&mut rng);
        plan.silent = rng.below(3) == 0;
        plan.invite_raw(&mut Rng::new(seed ^ 0x7a77_0000));
        plan.steer(&mut Rng::new(seed ^ 0x57ee_0000));
        if tls {
            plan.invite_named(&mut Rng::new(seed ^ 0x4e57_0000));
        }
        plan
    }

    /// Adds clients of the relay's ports, with a generator of their own: the rest of a seed's plan stays as it was.
    fn invite_raw(&mut self, rng: &mut Rng) {
        for _ in 0..if rng.below(3) == 0 { 0 } else { rng.length(8) } {
            self.participants.push(Participant::Raw {
                id: id(rng.below(IDS)),
                begins: Time(2_000_000 + rng.below(HOUR_OF_CLIENTS)),
                behaviour: Behaviour::draw(rng, self.bytes_max, &self.endings),
            });
        }
    }

    /// Adds clients that name a hidden server in their ClientHello, which a relay reads only if it has TLS, and its agent.
    fn invite_named(&mut self, rng: &mut Rng) {
        if rng.below(3) == 0 {
            return;
        }
        if rng.below(4) > 0 {
            self.participants.push(Participant::Agent {
                id: END_TO_END,
                seed: rng.next_u64().to_le_bytes()[0],
                pool: u16::try_from(rng.between(1, 4)).unwrap_or(1),
                skew: 0,
                named: rng.below(3) == 0,
            });
        }
        for _ in 0..rng.length(8) {
            self.participants.push(Participant::Named {
                begins: Time(2_000_000 + rng.below(HOUR_OF_CLIENTS)),
                behaviour: Behaviour::draw(rng, self.bytes_max, &self.endings),
            });
        }
        for _ in 0..rng.below(2) {
            let at = Time(1_000_000 + rng.below(HOUR_OF_CLIENTS));
            self.incidents.push((at, Incident::Revoked(END_TO_END)));
        }
        self.incidents.sort_by_key(|(at, _)| *at);
    }

    fn invite(&mut self, rng: &mut Rng) {
        let some = |most: u64, rng: &mut Rng| if rng.below(3) == 0 { 0 } else { rng.length(most) };
        for number in 0..IDS {
            for _ in 0..rng.below(3) {
                let style = match rng.below(6) {
                    0 => Style::Old,
                    1 => Style::EarlySender,
                    2 => Style::Fickle,
                    _ => Style::Modern { pool: usize::try_from(rng.between(1, 4)).unwrap_or(1) },
                };
                self.participants.push(Participant::Hidden { id: id(number), style, seed: rng.next_u64() });
            }
            if rng.below(3) == 0 {
                self.participants.push(Participant::Agent {
                    id: id(number),
                    seed: rng.next_u64().to_le_bytes()[0],
                    pool: u16::try_from(rng.between(1, 4)).unwrap_or(1),
                    skew: if rng.below(4) == 0 { 5_000 } else { 0 },
                    named: rng.below(3) == 0,
                });
            }
        }
        // Some clients start before a hidden server waits for them.
        let moment = |rng: &mut Rng| match rng.below(4) {
            0 => Time(1_000_000 + rng.length(HOUR_OF_CLIENTS)),
            _ => Time(2_000_000 + rng.below(HOUR_OF_CLIENTS)),
        };
        for _ in 0..some(16, rng) {
            let methods = ["GET", "HEAD", "OPTIONS", "PATCH"];
            self.participants.push(Participant::Client {
                id: id(rng.below(IDS)),
                begins: moment(rng),
                behaviour: Behaviour::draw(rng, self.bytes_max, &self.endings),
                challenged: rng.below(4) == 0,
                method: methods[usize::try_from(rng.below(4)).unwrap_or(0)],
            });
        }
        for _ in 0..some(6, rng) {
            self.participants.push(Participant::Program {
                id: id(rng.below(IDS)),
                begins: moment(rng),
                behaviour: Behaviour::draw(rng, self.bytes_max, &self.endings),
            });
        }
        for _ in 0..some(8, rng) {
            self.participants.push(Participant::Scanner { begins: moment(rng), seed: rng.next_u64() });
        }
    }

    fn strike(&mut self, rng: &mut Rng) {
        if rng.below(2) == 0 {
            return;
        }
        for _ in 0..rng.length(4) {
            let at = Time(1_000_000 + rng.below(HOUR_OF_CLIENTS));
            let incident = match rng.below(4) {
                0 => Incident::Clock(if rng.below(2) == 0 { 3_600 } else { -3_600 }),
                1 => Incident::Descriptors(u32::try_from(rng.length(16)).unwrap_or(0)),
                2 => Incident::Revoked(id(rng.below(IDS))),
                _ => Incident::Killed,
            };
            self.incidents.push((at, incident));
        }
        self.incidents.sort_by_key(|(at, _)| *at);
    }

    /// Adds what an operator does, with a generator of its own, as [`Plan::invite_raw`] does.
    fn steer(&mut self, rng: &mut Rng) {
        if rng.below(2) == 0 {
            return;
        }
        let replays = rng.below(3) == 0;
        for number in (0..IDS).filter(|_| replays) {
            let style = Style::Replayer;
            self.participants.push(Participant::Hidden { id: id(number), style, seed: rng.next_u64() });
        }
        let hosts = self.participants.len() as u64 + 4;
        for _ in 0..1 + rng.length(12) {
            let at = Time(1_000_000 + rng.below(HOUR_OF_CLIENTS));
            let host = rng.below(hosts).to_le_bytes()[0];
            let is_set = rng.below(3) > 0;
            let id = id(rng.below(IDS));
            let setting = match rng.below(6) {
                0 => Setting::Access(if is_set { Access::Disabled } else { Access::Open }),
                1 => Setting::Access(if is_set { Access::QuotaUsed } else { Access::Open }),
                2 => Setting::Pairs(is_set.then(|| u32::try_from(rng.below(4)).unwrap_or(0))),
                3 | 4 => Setting::Rate(is_set.then(|| 2_000 + rng.length(2_000_000))),
                _ => Setting::Deny(is_set.then_some(host)),
            };
            let incident = match rng.below(9) {
                0 => Incident::KickedId(id),
                1 => Incident::KickedHosts(host),
                2 => Incident::KickedConn(u16::from(host)),
                3 => Incident::Denied(is_set.then_some(host)),
                4 => Incident::TakenOver(match rng.below(6) {
                    0 => Some(TakeOverStep::Load),
                    1 => Some(TakeOverStep::Tokens),
                    2 => Some(TakeOverStep::Commit),
                    _ => None,
                }),
                _ => Incident::Set(id, setting),
            };
            self.incidents.push((at, incident));
        }
        self.incidents.sort_by_key(|(at, _)| *at);
    }

    /// Plans that lack one part of this one each.
    #[must_use]
    pub fn smaller(&self) -> Vec<Self> {
        let mut all = Vec::new();
        let half = self.participants.len() / 2;
        if half > 1 {
            all.push(Self { participants: self.participants[half..].to_vec(), ..self.clone() });
            all.push(Self { participants: self.participants[..half].to_vec(), ..self.clone() });
        }
        for at in 0..self.participants.len() {
            let mut smaller = self.clone();
            smaller.participants.remove(at);
            all.push(smaller);
        }
        for at in 0..self.incidents.len() {
            let mut smaller = self.clone();
            smaller.incidents.remove(at);
            all.push(smaller);
        }
        for at in 0..self.faults.clone().rates().count() {
            let mut smaller = self.clone();
            let rate = smaller.faults.rates().nth(at).map(|(_, rate)| std::mem::take(rate));
            if rate.is_some_and(|rate| rate > 0) {
                all.push(smaller);
            }
        }
        all
    }
}
