//! All runs from one start: every interleaving of every step, not a sample.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::world::{Input, World};

/// Checks every world in which nothing more can happen. Returns the number of different worlds.
pub(crate) fn all(world: World, check: &dyn Fn(&World)) -> usize {
    let mut seen = BTreeSet::new();
    walk(world, &mut Vec::new(), &mut seen, check);
    seen.len()
}

fn walk(world: World, path: &mut Vec<Input>, seen: &mut BTreeSet<(u64, u64)>, check: &dyn Fn(&World)) {
    if !seen.insert(name(&world)) {
        return;
    }
    let inputs = world.inputs();
    if inputs.is_empty() {
        let _shown_on_panic = Path(path);
        check(&world);
    }
    for input in inputs {
        let mut next = world.clone();
        path.push(input);
        {
            let _shown_on_panic = Path(path);
            next.step(input);
        }
        walk(next, path, seen, check);
        path.pop();
    }
}

/// One run, in which a random generator chooses the next step.
pub(crate) fn one(mut world: World, seed: u64) -> World {
    let mut rng = seed;
    let mut path = Vec::new();
    loop {
        let inputs = world.inputs();
        if inputs.is_empty() {
            return world;
        }
        // Knuth's MMIX; its upper half is good enough.
        rng = rng.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let input = inputs[usize::try_from(rng >> 33).unwrap() % inputs.len()];
        path.push(input);
        let _shown_on_panic = Path(&path);
        world.step(input);
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
struct Path<'a>(&'a [Input]);

impl Drop for Path<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("after {:#?}", self.0);
        }
    }
}
