//! Drawing a run from its seed, and making one smaller.

use rendezvous_core::time::{Span, Time};

use super::{Blow, IDS, Person, Plan, id};
use crate::actors::{Ending, Habits, Style};
use crate::dice::Dice;
use crate::sim_net::Faults;

/// Clients have come by then.
const HOUR_OF_CLIENTS: u64 = 60_000_000;

impl Plan {
    /// Draws a run.
    #[must_use]
    pub fn draw(seed: u64, tls: bool) -> Self {
        let mut dice = Dice::new(seed ^ 0x5eed_0000);
        let mut rate = |most: u64| {
            let on = dice.below(2) == 0;
            if on { u32::try_from(dice.length(most)).unwrap_or(0) } else { 0 }
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
        faults.latency_max = Span(dice.length(200_000));
        faults.room_max = usize::try_from((256 << dice.below(11)) + dice.below(200)).unwrap_or(65_536);
        let magnitude = dice.between(4, 18);
        // Through a small window, not for ever.
        let octets_max = (1 << magnitude).min(faults.room_max as u64 * 64);
        let mut endings: Vec<Ending> =
            [Ending::AfterPeer, Ending::Close, Ending::Reset, Ending::Lost, Ending::Cut]
                .into_iter()
                .filter(|_| dice.below(3) == 0)
                .collect();
        endings.push(Ending::HalfClose);
        let mut plan = Self {
            seed,
            tls,
            faults,
            waiting_max: u32::try_from(dice.between(1, 8)).unwrap_or(8),
            pairs_max: u32::try_from(dice.length(30).max(1)).unwrap_or(8),
            held_max: u32::try_from(dice.length(10)).unwrap_or(8),
            hold: Span(dice.length(8_000_000)),
            ceiling: usize::try_from(dice.length(8 << 20).max(400_000)).unwrap_or(8 << 20),
            octets_max,
            silent: false,
            endings,
            received_max: None,
            people: Vec::new(),
            blows: Vec::new(),
        };
        plan.invite(&mut dice);
        plan.strike(&mut dice);
        plan.silent = dice.below(3) == 0;
        plan
    }

    fn invite(&mut self, dice: &mut Dice) {
        let some = |most: u64, dice: &mut Dice| if dice.below(3) == 0 { 0 } else { dice.length(most) };
        for number in 0..IDS {
            for _ in 0..dice.below(3) {
                let style = match dice.below(6) {
                    0 => Style::Old,
                    1 => Style::Talker,
                    2 => Style::Fickle,
                    _ => Style::Modern { pool: usize::try_from(dice.between(1, 4)).unwrap_or(1) },
                };
                self.people.push(Person::Hidden { id: id(number), style, seed: dice.throw() });
            }
            if dice.below(3) == 0 {
                self.people.push(Person::Agent {
                    id: id(number),
                    seed: dice.throw().to_le_bytes()[0],
                    pool: u16::try_from(dice.between(1, 4)).unwrap_or(1),
                    skew: if dice.below(4) == 0 { 5_000 } else { 0 },
                    named: dice.below(3) == 0,
                });
            }
        }
        // Some come before anybody waits for them.
        let moment = |dice: &mut Dice| match dice.below(4) {
            0 => Time(1_000_000 + dice.length(HOUR_OF_CLIENTS)),
            _ => Time(2_000_000 + dice.below(HOUR_OF_CLIENTS)),
        };
        for _ in 0..some(16, dice) {
            let methods = ["GET", "HEAD", "OPTIONS", "PATCH"];
            self.people.push(Person::Client {
                id: id(dice.below(IDS)),
                begins: moment(dice),
                habits: Habits::draw(dice, self.octets_max, &self.endings),
                coy: dice.below(4) == 0,
                method: methods[usize::try_from(dice.below(4)).unwrap_or(0)],
            });
        }
        for _ in 0..some(6, dice) {
            self.people.push(Person::Program {
                id: id(dice.below(IDS)),
                begins: moment(dice),
                habits: Habits::draw(dice, self.octets_max, &self.endings),
            });
        }
        for _ in 0..some(8, dice) {
            self.people.push(Person::Scanner { begins: moment(dice), seed: dice.throw() });
        }
    }

    fn strike(&mut self, dice: &mut Dice) {
        if dice.below(2) == 0 {
            return;
        }
        for _ in 0..dice.length(4) {
            let at = Time(1_000_000 + dice.below(HOUR_OF_CLIENTS));
            let blow = match dice.below(4) {
                0 => Blow::Clock(if dice.below(2) == 0 { 3_600 } else { -3_600 }),
                1 => Blow::Descriptors(u32::try_from(dice.length(16)).unwrap_or(0)),
                2 => Blow::Revoked(id(dice.below(IDS))),
                _ => Blow::Killed,
            };
            self.blows.push((at, blow));
        }
        self.blows.sort_by_key(|(at, _)| *at);
    }

    /// The same run without one or the other.
    #[must_use]
    pub fn smaller(&self) -> Vec<Self> {
        let mut all = Vec::new();
        let half = self.people.len() / 2;
        if half > 1 {
            all.push(Self { people: self.people[half..].to_vec(), ..self.clone() });
            all.push(Self { people: self.people[..half].to_vec(), ..self.clone() });
        }
        for at in 0..self.people.len() {
            let mut smaller = self.clone();
            smaller.people.remove(at);
            all.push(smaller);
        }
        for at in 0..self.blows.len() {
            let mut smaller = self.clone();
            smaller.blows.remove(at);
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
