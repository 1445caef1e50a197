//! All runs from one beginning: every interleaving of every step, not a sample of them.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::world::{Event, World};

/// Checks every world in which nothing can happen any more; how many different worlds there were.
pub(crate) fn all(world: World, check: &dyn Fn(&World)) -> usize {
    let mut seen = BTreeSet::new();
    walk(world, &mut Vec::new(), &mut seen, check);
    seen.len()
}

fn walk(world: World, path: &mut Vec<Event>, seen: &mut BTreeSet<(u64, u64)>, check: &dyn Fn(&World)) {
    if !seen.insert(name(&world)) {
        return;
    }
    let events = world.events();
    if events.is_empty() {
        let _shown_on_panic = Path(path);
        check(&world);
    }
    for event in events {
        let mut next = world.clone();
        path.push(event);
        {
            let _shown_on_panic = Path(path);
            next.step(event);
        }
        walk(next, path, seen, check);
        path.pop();
    }
}

/// One run, in which the dice say what happens next.
pub(crate) fn one(mut world: World, seed: u64) -> World {
    let mut dice = seed;
    let mut path = Vec::new();
    loop {
        let events = world.events();
        if events.is_empty() {
            return world;
        }
        // Knuth's MMIX; its upper half is good enough.
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let event = events[usize::try_from(dice >> 33).unwrap() % events.len()];
        path.push(event);
        let _shown_on_panic = Path(&path);
        world.step(event);
    }
}

fn name(world: &World) -> (u64, u64) {
    let text = format!("{world:?}");
    let hash = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, &text).hash(&mut hasher);
        hasher.finish()
    };
    (hash(0), hash(1))
}

/// What led to a failure.
struct Path<'a>(&'a [Event]);

impl Drop for Path<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("after {:#?}", self.0);
        }
    }
}
