//! Peers that do anything at any time. The world asserts the contract at each step ([`World`]), and the engine its
//! invariants; at the end nothing is left.

use rendezvous_core::event::Event;
use rendezvous_core::id::Id;
use rendezvous_core::machine::{ConnId, End};
use rendezvous_core::time::Span;

use crate::world::World;
use crate::{ID, OTHER, STRANGER, both, bound_connect, config, enrolled, get, key, plain_connect, post};

/// xorshift64*: the same seed, the same run.
struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let draw = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(draw).expect("31 bits") % bound
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> Option<T> {
        if all.is_empty() { None } else { all.get(self.below(all.len())).copied() }
    }

    fn id(&mut self) -> Id {
        [ID, ID, ID, OTHER, OTHER, STRANGER][self.below(6)]
    }
}

fn small_world(rng: &mut Rng) -> World {
    let mut config = config();
    config.waiting_per_id_max = 3;
    config.pairs_per_id_max = 4;
    config.held_per_id_max = 3;
    config.connections_max = 24;
    config.connections_per_address_max = 20;
    config.one_time_strict = rng.below(4) == 0;
    config.pair.idle = (rng.below(2) == 0).then(|| Span::from_secs(90));
    World::new(config, both())
}

/// The first bytes of a peer.
fn opening(world: &mut World, rng: &mut Rng) -> String {
    let (id, wall) = (rng.id(), world.now.wall);
    let nonce = world.fresh_nonce();
    match rng.below(12) {
        0..4 => bound_connect(id, wall, &nonce),
        4 => plain_connect(id, wall),
        5..8 => get(id),
        8 => post(id, "body"),
        9 => "POST / HTTP/1.1\r\nHost: relay\r\nContent-Length: 4\r\n\r\nbo".to_owned(),
        10 => "GET / HTTP/1.1\r\nHost: relay\r\n\r\n".repeat(1 + rng.below(3)),
        _ => "rubbish\0".to_owned(),
    }
}

fn ids(rng: &mut Rng) -> Vec<rendezvous_core::registry::Enrolment> {
    let mut ids = both();
    match rng.below(4) {
        0 => ids.truncate(1),
        1 => ids[0].key = key(9),
        2 => ids = vec![enrolled(OTHER, &["home"])],
        _ => {}
    }
    ids
}

fn act(world: &mut World, rng: &mut Rng, all: &mut Vec<ConnId>) {
    all.retain(|on| world.is_open(*on));
    let what = rng.below(100);
    if what < 25 {
        let on = world.open_on(u16::from(rng.below(8) == 0), ["192.0.2.1:1", "192.0.2.2:1"][rng.below(2)]);
        all.push(on);
        let text = opening(world, rng);
        if !world.is_open(on) || world.wire(on).securing {
            return;
        }
        let cut = if rng.below(3) == 0 { rng.below(text.len()) } else { text.len() };
        return world.write(on, &text[..cut]);
    }
    if what < 40 {
        return world.wait_ms([1, 50, 100, 1_000, 5_000, 30_000][rng.below(6)]);
    }
    if what == 40 {
        let ids = ids(rng);
        return world.enrol(ids);
    }
    let Some(on) = rng.one_of(all) else { return };
    let wire = world.wire(on);
    let (ended, failed, securing) = (wire.end.is_some(), wire.failed, wire.securing);
    match what {
        41..45 if securing => world.secured(on),
        45..70 if !ended && !securing => {
            let text = if rng.below(3) == 0 { opening(world, rng) } else { "octets".to_owned() };
            world.write(on, text);
        }
        70..80 if !ended && !securing => world.end(on, End::Clean),
        80..84 if !ended && !securing => world.end(on, [End::Truncated, End::Reset][rng.below(2)]),
        84..86 if !ended && !securing => world.end_at_once(on, End::Reset),
        86..92 => world.stall(on, true),
        92..97 => world.stall(on, false),
        97 if !failed && !securing => world.write_fails(on),
        98 => drop(world.ages.insert(on, Span::from_secs(rng.below(40) as u64))),
        _ => {}
    }
}

#[test]
fn whatever_peers_do_the_contract_holds_and_nothing_is_left() {
    let mut paired = 0;
    for seed in 1..=300 {
        let mut rng = Rng(seed);
        let mut world = small_world(&mut rng);
        let mut all = Vec::new();
        for _ in 0..400 {
            act(&mut world, &mut rng, &mut all);
            assert!(world.engine.pairs() <= 8, "seed {seed}: more pairs than two IDs may have");
        }
        if rng.below(2) == 0 {
            world.drain();
        }
        world.clear();
        let count = |which: fn(&Event) -> bool| world.events.iter().filter(|event| which(event)).count();
        let began = count(|event| matches!(event, Event::Paired { .. }));
        let over = count(|event| matches!(event, Event::PairEnded { .. } | Event::HandOverFailed { .. }));
        assert_eq!(began, over, "seed {seed}: every pair's end is told");
        let waited = count(|event| matches!(event, Event::Waiting { .. }));
        let left = count(|event| matches!(event, Event::WaitingEnded { .. }));
        assert_eq!(waited, began + left, "seed {seed}: who waits meets a client or is told to have left");
        paired += began;
    }
    assert!(paired > 500, "only {paired} pairs: it proves nothing");
}

#[test]
fn the_same_inputs_give_the_same_outputs() {
    let run = |seed| {
        let mut rng = Rng(seed);
        let mut world = small_world(&mut rng);
        let mut all = Vec::new();
        (0..300).for_each(|_| act(&mut world, &mut rng, &mut all));
        (world.take_events(), all.iter().map(|on| world.wire(*on).got.clone()).collect::<Vec<_>>())
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}
