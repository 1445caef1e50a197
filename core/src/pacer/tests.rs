use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use super::{BucketId, Direction, Pacer};
use crate::conn::ConnId;
use crate::entropy::Entropy;
use crate::id::Id;
use crate::time::{Span, Time};

const HOME: Id = Id(7);

/// What a connection has to send.
#[derive(Clone, Copy, Debug)]
enum Demand {
    /// Always more.
    Bulk,
    /// This many bytes, again and again, this long after the last of them has moved.
    Small { bytes: u64, pause: Span },
}

#[derive(Debug)]
struct Flow {
    demand: Demand,
    /// Bytes that are left of a small request.
    left: u64,
    /// When the next small request begins.
    begins: Time,
    is_waiting: bool,
    is_light: bool,
    moved: u64,
    /// The longest time that a small request took.
    slowest: Span,
}

/// A driver that polls like the event loop: in whole milliseconds, and `late` after that.
struct Driver {
    pacer: Pacer,
    of: BucketId,
    now: Time,
    flows: Vec<Flow>,
    wakes: u32,
}

fn conn(index: usize) -> ConnId {
    ConnId { index: u32::try_from(index).expect("few"), generation: 1 }
}

impl Driver {
    fn new(rate: u64, demands: &[Demand]) -> Self {
        let mut pacer = Pacer::default();
        let now = Time(1_000_000);
        assert!(pacer.set_rates(&[(HOME, rate)], now).is_empty());
        let of = pacer.bucket(HOME, Direction::FromHidden).expect("it is limited");
        let flow = |&demand| Flow {
            demand,
            left: 0,
            begins: now,
            is_waiting: false,
            is_light: true,
            moved: 0,
            slowest: Span::ZERO,
        };
        Self { pacer, of, now, flows: demands.iter().map(flow).collect(), wakes: 0 }
    }

    /// One flow moves what it may, with this grant or with one that it takes.
    fn serve(&mut self, at: usize, mut grant: u64) {
        loop {
            let flow = &mut self.flows[at];
            if let (Demand::Small { bytes, .. }, 0) = (flow.demand, flow.left) {
                if flow.begins > self.now {
                    if grant > 0 {
                        flow.is_light = true;
                        self.pacer.put_back(self.of, grant, 0, self.now);
                    }
                    return;
                }
                flow.left = bytes;
            }
            if grant == 0 {
                grant = self.pacer.take(self.of, conn(at), flow.is_light, self.now);
                if grant == 0 {
                    flow.is_waiting = true;
                    return;
                }
            }
            let used = match flow.demand {
                Demand::Bulk => grant,
                Demand::Small { .. } => grant.min(flow.left),
            };
            flow.moved += used;
            flow.is_light = used < grant;
            if let Demand::Small { pause, .. } = flow.demand {
                flow.left -= used;
                if flow.left == 0 {
                    flow.slowest = flow.slowest.max(self.now.since(flow.begins));
                    flow.begins = self.now + pause;
                }
            }
            self.pacer.put_back(self.of, grant, i64::try_from(used).expect("few bytes"), self.now);
            grant = 0;
        }
    }

    /// Runs for this long, with polls that are late by what `late` returns.
    fn run(&mut self, span: Span, mut late: impl FnMut() -> Span) {
        let end = self.now + span;
        while self.now < end {
            for at in 0..self.flows.len() {
                if !self.flows[at].is_waiting {
                    self.serve(at, 0);
                }
            }
            let begins = |flow: &Flow| (!flow.is_waiting).then_some(flow.begins.max(self.now + Span(1)));
            let next = self.flows.iter().filter_map(begins).chain(self.pacer.due()).min().unwrap_or(end);
            let wait = Span(next.since(self.now).0.div_ceil(1_000) * 1_000) + late();
            self.now = (self.now + wait).min(end);
            self.wakes += 1;
            for woken in self.pacer.wake(self.now) {
                let at = woken.on.index as usize;
                assert!(core::mem::take(&mut self.flows[at].is_waiting), "woken although it does not wait");
                assert!(woken.bytes > 0 && woken.of == self.of);
                self.serve(at, woken.bytes);
            }
        }
    }

    fn moved(&self) -> u64 {
        self.flows.iter().map(|flow| flow.moved).sum()
    }
}

fn assert_within(actual: u64, expected: u64, percent: u64) {
    let difference = actual.abs_diff(expected) * 100;
    assert!(difference <= expected * percent, "{actual} instead of {expected}");
}

#[test]
fn a_rate_is_exact_within_two_percent_for_one_and_for_a_hundred() {
    for rate in [1_000, 100_000, 10_000_000, 200_000_000, 10_000_000_000] {
        for flows in [1, 100] {
            let mut driver = Driver::new(rate, &vec![Demand::Bulk; flows]);
            driver.run(Span::from_secs(10), || Span::ZERO);
            assert_within(driver.moved(), rate * 10, 1);
            assert!(driver.wakes <= 1_100, "{} wake-ups at {rate}", driver.wakes);
        }
    }
}

#[test]
fn a_driver_that_is_late_makes_up_for_it() {
    let mut entropy = Entropy::new([3; 32]);
    for rate in [100_000, 200_000_000] {
        let mut driver = Driver::new(rate, &[Demand::Bulk; 3]);
        driver.run(Span::from_secs(10), || {
            Span(entropy.block()[0].into()).max(Span(1)) + Span::from_millis(80)
        });
        assert_within(driver.moved(), rate * 10, 2);
    }
}

#[test]
fn an_idle_bucket_has_no_more_than_twenty_milliseconds() {
    let mut pacer = Pacer::default();
    pacer.set_rates(&[(HOME, 1_000_000)], Time(0));
    let of = pacer.bucket(HOME, Direction::FromClient).expect("it is limited");
    let now = Time(3_600_000_000);
    assert_eq!(pacer.take(of, conn(0), true, now), 20_000);
    pacer.put_back(of, 20_000, 15_000, now);
    assert_eq!(pacer.take(of, conn(0), true, now), 5_000, "the rest was returned");
    pacer.put_back(of, 5_000, 5_000, now);
    assert_eq!(pacer.take(of, conn(0), false, now), 0);
    assert_eq!(pacer.due(), Some(now + Span(16_384)), "a worthwhile grant");
    assert_eq!(pacer.take(of, conn(1), true, now), 0);
    assert_eq!(pacer.due(), Some(now + Span::from_millis(10)), "a small request does not wait for that much");
}

#[test]
fn bulk_data_wakes_its_driver_seldom() {
    for (rate, flows, at_most) in
        [(100_000, 1, 26), (1_000_000, 1, 63), (200_000_000, 1, 101), (100_000, 100, 101)]
    {
        let mut driver = Driver::new(rate, &vec![Demand::Bulk; flows]);
        driver.run(Span::from_secs(1), || Span::ZERO);
        let before = driver.wakes;
        driver.run(Span::from_secs(10), || Span::ZERO);
        assert!(driver.wakes - before <= 10 * at_most, "{rate}: {} wakes", driver.wakes - before);
    }
}

#[test]
fn a_granted_part_counts_against_the_burst() {
    let mut pacer = Pacer::default();
    pacer.set_rates(&[(HOME, 1_000_000)], Time(0));
    let of = pacer.bucket(HOME, Direction::FromClient).expect("it is limited");
    let now = Time(1_000_000);
    assert_eq!(pacer.take(of, conn(0), true, now), 20_000);
    let now = now + Span::from_secs(1);
    pacer.put_back(of, 20_000, 0, now);
    assert_eq!(pacer.take(of, conn(0), true, now), 20_000);
}

#[test]
fn the_directions_of_an_id_are_apart_and_so_are_ids() {
    let mut pacer = Pacer::default();
    pacer.set_rates(&[(HOME, 1_000_000), (Id(8), 1_000_000)], Time(0));
    assert_eq!(pacer.bucket(Id(9), Direction::FromClient), None);
    let now = Time(1_000_000);
    for (id, direction) in
        [(HOME, Direction::FromClient), (HOME, Direction::FromHidden), (Id(8), Direction::FromClient)]
    {
        let of = pacer.bucket(id, direction).expect("it is limited");
        assert_eq!(pacer.take(of, conn(0), true, now), 20_000);
    }
}

#[test]
fn bulk_flows_share_equally_and_small_requests_do_not_wait_for_them() {
    for (rate, bulk) in [(10_000_000, 1), (10_000_000, 50), (100_000, 5)] {
        let mut demands = vec![Demand::Bulk; bulk];
        demands.push(Demand::Small { bytes: 500, pause: Span::from_millis(200) });
        let mut driver = Driver::new(rate, &demands);
        // At first no connection has moved bulk data.
        driver.run(Span::from_secs(1), || Span::ZERO);
        driver.flows.iter_mut().for_each(|flow| (flow.moved, flow.slowest) = (0, Span::ZERO));
        driver.run(Span::from_secs(10), || Span::ZERO);
        assert_within(driver.moved(), rate * 10, 2);
        let small = &driver.flows[bulk];
        assert!(small.slowest <= Span::from_millis(40), "{rate} {bulk}: {:?}", small.slowest);
        assert!(small.moved >= 40 * 500, "{} bytes", small.moved);
        let shares: Vec<u64> = driver.flows[..bulk].iter().map(|flow| flow.moved).collect();
        let (least, most) = (shares.iter().min().expect("one"), shares.iter().max().expect("one"));
        assert!(most - least <= most / 10, "{least} to {most}");
    }
}

#[test]
fn many_small_requests_do_not_stop_bulk_data() {
    let mut demands = vec![Demand::Small { bytes: 5_000, pause: Span::ZERO }; 40];
    demands.push(Demand::Bulk);
    let mut driver = Driver::new(1_000_000, &demands);
    driver.run(Span::from_secs(10), || Span::ZERO);
    assert_within(driver.moved(), 10_000_000, 2);
    assert!(driver.flows[40].moved >= 10_000_000 / 50, "{}", driver.flows[40].moved);
}

#[test]
fn a_new_rate_holds_for_connections_that_wait() {
    let mut driver = Driver::new(1_000, &[Demand::Bulk]);
    driver.run(Span::from_secs(1), || Span::ZERO);
    let before = driver.moved();
    assert!(driver.flows[0].is_waiting);
    assert!(driver.pacer.set_rates(&[(HOME, 1_000_000)], driver.now).is_empty());
    driver.run(Span::from_secs(10), || Span::ZERO);
    assert_within(driver.moved() - before, 10_000_000, 2);
    while !driver.flows[0].is_waiting {
        driver.serve(0, 0);
    }
    assert_eq!(driver.pacer.set_rates(&[], driver.now), [conn(0)]);
    assert_eq!(driver.pacer.due(), None);
    assert_eq!(driver.pacer.take(driver.of, conn(0), true, driver.now), u64::MAX);
}

#[test]
fn a_forgotten_connection_is_not_woken() {
    let mut pacer = Pacer::default();
    pacer.set_rates(&[(HOME, 1_000_000)], Time(0));
    let of = pacer.bucket(HOME, Direction::FromClient).expect("it is limited");
    for at in 0..3 {
        assert_eq!(pacer.take(of, conn(at), false, Time(0)), 0);
    }
    pacer.forget(of, conn(1), Time(0));
    let now = Time(100_000);
    let woken: Vec<_> = pacer.wake(now).iter().map(|woken| woken.on.index).collect();
    assert_eq!(woken, [0, 2]);
    assert_eq!(pacer.due(), None);
}

#[test]
fn charged_bytes_are_made_up_for() {
    let mut pacer = Pacer::default();
    pacer.set_rates(&[(HOME, 1_000_000)], Time(0));
    let of = pacer.bucket(HOME, Direction::FromClient).expect("it is limited");
    let now = Time(1_000_000);
    pacer.charge(of, 120_000, now);
    assert_eq!(pacer.take(of, conn(0), true, now), 0);
    let due = pacer.due().expect("it waits");
    assert_eq!(due, now + Span::from_millis(110), "100 ms of debt, and 10 ms");
    assert_eq!(pacer.wake(due).len(), 1);
}

/// Whatever the order of calls, no bucket grants more than its rate, its burst and what it made up for.
#[test]
fn no_order_of_calls_exceeds_the_rate() {
    for seed in 0..60_u8 {
        let mut entropy = Entropy::new([seed; 32]);
        let mut pacer = Pacer::default();
        let rate = 50_000;
        pacer.set_rates(&[(HOME, rate)], Time(0));
        let of = pacer.bucket(HOME, Direction::FromClient).expect("it is limited");
        let mut now = Time(0);
        let mut waiting: BTreeMap<u32, ()> = BTreeMap::new();
        let mut grants: Vec<(u32, u64)> = Vec::new();
        let mut moved: i64 = 0;
        for _ in 0..2_000 {
            let block = entropy.block();
            let (dice, who) = (block[0] % 8, u32::from(block[1] % 6));
            match dice {
                0..3 => now = now + Span(u64::from(block[2]) * 50),
                3 if !waiting.contains_key(&who) && !grants.iter().any(|(on, _)| *on == who) => {
                    match pacer.take(of, conn(who as usize), block[3].is_multiple_of(2), now) {
                        0 => drop(waiting.insert(who, ())),
                        bytes => grants.push((who, bytes)),
                    }
                }
                4 if waiting.remove(&who).is_some() => pacer.forget(of, conn(who as usize), now),
                5 if !grants.is_empty() => {
                    let (_, granted) = grants.remove(usize::from(block[4]) % grants.len());
                    let used = i64::try_from(granted * u64::from(block[5]) / 255).expect("few");
                    moved += used;
                    pacer.put_back(of, granted, used, now);
                }
                6 => {
                    pacer.charge(of, 100, now);
                    moved += 100;
                }
                _ => {
                    for woken in pacer.wake(now) {
                        assert!(waiting.remove(&woken.on.index).is_some(), "woken although it does not wait");
                        grants.push((woken.on.index, woken.bytes));
                    }
                }
            }
            let free: u64 = grants.iter().map(|(_, bytes)| bytes).sum();
            let most = now.0 * rate / 1_000_000 + rate / 4 + free;
            assert!(moved <= i64::try_from(most).expect("few") + 100 * 2_000, "{moved} of {most}");
            assert_eq!(pacer.due().is_some(), !waiting.is_empty(), "a waiting connection has a deadline");
        }
    }
}
