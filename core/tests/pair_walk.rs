//! A random walk of a pair beside a model that counts: no byte is lost or invented, and no end is invented.

use std::collections::BTreeMap;

use rendezvous_core::machine::End;
use rendezvous_core::pair::{Act, EndReason, Limits, Pair, Side};
use rendezvous_core::time::{Span, Time};

const LIMITS: Limits = Limits {
    half_closed: Span::from_secs(60),
    idle: None,
    check: Span::from_secs(10),
    silent: Span::from_secs(30),
    hand_over: None,
};
const START: Time = Time(1_000_000);
const SIDES: [Side; 2] = [Side::Client, Side::Hidden];

/// xorshift64*: the same seed, the same walk.
struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}

/// One direction, as a driver carries it out.
#[derive(Default)]
struct Pipe {
    sent: u64,
    delivered: u64,
    queue: u32,
    src_ended: bool,
    dst_ended: bool,
    dst_failed: bool,
    paused: bool,
}

struct Walk {
    pair: Pair,
    pipes: [Pipe; 2],
    now: Time,
}

impl Walk {
    fn pipe(&mut self, src: Side) -> &mut Pipe {
        &mut self.pipes[usize::from(src == Side::Hidden)]
    }

    /// A random event. Returns the pair's action.
    fn step(&mut self, rng: &mut Rng) -> Option<Act> {
        let src = SIDES[usize::from(rng.below(2) == 1)];
        let dst = src.other();
        self.now = self.now + Span::from_millis(rng.below(3_000));
        let now = self.now;
        if self.pair.deadline().is_some_and(|due| due <= now) {
            return self.pair.on_timeout(now);
        }
        let size = u32::try_from(rng.below(1_000) + 1).expect("small");
        let pipe = self.pipe(src);
        let open = !pipe.src_ended && !pipe.paused;
        match rng.below(100) {
            0..40 if open => {
                pipe.sent += u64::from(size);
                pipe.queue += size;
                let taken = if size.is_multiple_of(3) { pipe.queue } else { 0 };
                pipe.queue -= taken;
                pipe.delivered += u64::from(taken);
                let queue = pipe.queue;
                self.pair.on_moved(src, size, queue, now)
            }
            40..60 if pipe.queue > size && !pipe.dst_failed => {
                pipe.queue -= size;
                pipe.delivered += u64::from(size);
                let queue = pipe.queue;
                self.pair.on_moved(src, 0, queue, now)
            }
            60..90 if pipe.queue > 0 && !pipe.dst_failed => {
                pipe.delivered += u64::from(core::mem::take(&mut pipe.queue));
                self.pair.on_flushed(dst, now)
            }
            90..96 if open => {
                pipe.src_ended = true;
                self.pair.on_end(src, End::Clean, now)
            }
            96 if !pipe.src_ended && rng.below(4) == 0 => {
                pipe.src_ended = true;
                let how = if size.is_multiple_of(2) { End::Truncated } else { End::Reset };
                self.pair.on_end(src, how, now)
            }
            97 if !pipe.dst_failed && rng.below(4) == 0 => {
                (pipe.dst_failed, pipe.queue) = (true, 0);
                self.pair.on_write_failed(dst, now)
            }
            _ => None,
        }
    }

    /// Checks that an action is possible and correct, and carries it out.
    fn apply(&mut self, act: Act, seed: u64) -> Option<EndReason> {
        match act {
            Act::CloseWrite(dst) => {
                let pipe = self.pipe(dst.other());
                assert!(pipe.src_ended && !pipe.dst_ended && !pipe.dst_failed, "seed {seed}: an end made up");
                assert_eq!(
                    (pipe.queue, pipe.sent),
                    (0, pipe.delivered),
                    "seed {seed}: octets behind the end"
                );
                pipe.dst_ended = true;
            }
            Act::StopReading(src) => {
                let pipe = self.pipe(src);
                assert!(pipe.dst_failed && !pipe.src_ended, "seed {seed}");
                pipe.paused = true;
            }
            Act::CheckAck(side) => {
                assert_eq!(self.pair.on_acked(side, None, self.now), None, "seed {seed}");
            }
            Act::PairEnd(over) => {
                if over.why == EndReason::Done {
                    for pipe in &self.pipes {
                        assert!(pipe.src_ended && !pipe.dst_failed, "seed {seed}: not done");
                        assert_eq!(
                            (pipe.queue, pipe.sent),
                            (0, pipe.delivered),
                            "seed {seed}: octets got lost"
                        );
                    }
                }
                return Some(over.why);
            }
        }
        None
    }
}

#[test]
fn no_byte_is_lost_or_invented_on_any_walk() {
    let mut ways: BTreeMap<String, u32> = BTreeMap::new();
    for seed in 1..=2_000 {
        let mut rng = Rng(seed);
        let limits = Limits { idle: (seed % 2 == 0).then(|| Span::from_secs(30)), ..LIMITS };
        let mut walk = Walk { pair: Pair::new(limits, false, START), pipes: Default::default(), now: START };
        let mut ended = None;
        for _ in 0..20_000 {
            if let Some(act) = walk.step(&mut rng) {
                ended = walk.apply(act, seed);
            }
            for side in SIDES {
                assert_eq!(walk.pair.bytes_from(side), walk.pipe(side).sent, "seed {seed}");
            }
            if ended.is_some() {
                break;
            }
        }
        *ways.entry(format!("{ended:?}")).or_default() += 1;
    }
    // Every walk came to an end, and every kind of end occurs except silence.
    assert!(!ways.contains_key("None"), "{ways:?}");
    for way in
        ["Done", "Truncated(Hidden)", "Truncated(Client)", "Reset(Hidden)", "Reset(Client)", "HalfClosed"]
    {
        assert!(ways.contains_key(&format!("Some({way})")), "{way} never happened: {ways:?}");
    }
}
