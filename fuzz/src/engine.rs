//! The relay.

use arbitrary::{Arbitrary, Unstructured};

use crate::engine_world::{World, ids};
use crate::shell::{ConnStep, WorldStep};

/// Few enough for the fuzzer to explore, and enough for a complete rendezvous.
const OPERATIONS_MAX: usize = 64;

#[derive(Arbitrary, Debug)]
enum Operation<'a> {
    Open { listener: u8, host: u8 },
    Connect { on: u8, token: Token, behind: bool },
    Request { on: u8, id: u8, way: u8, method: u8, behind: u8 },
    Raw { on: u8, bytes: &'a [u8] },
    On { on: u8, what: ConnStep },
    Pass(WorldStep),
    Enrol { which: u8, second: u8, plain: u8 },
    Config { strict: bool, hold: u8 },
    Drain,
    Steer { id: u8, access: u8, pairs: u8 },
    Kick { id: u8 },
    TakeOver { step: u8 },
}

#[derive(Arbitrary, Debug)]
struct Token {
    id: u8,
    /// Usually its own secret, sometimes that of another ID.
    of: u8,
    version: bool,
    off: i8,
    nonce: Option<u8>,
}

pub(crate) fn run(bytes: &[u8]) {
    let mut unstructured = Unstructured::new(bytes);
    let mut world = World::new();
    for _ in 0..OPERATIONS_MAX {
        if unstructured.is_empty() {
            break;
        }
        let Ok(operation) = Operation::arbitrary(&mut unstructured) else { break };
        perform(&mut world, operation);
    }
    world.clear();
}

fn perform(world: &mut World, operation: Operation<'_>) {
    match operation {
        Operation::Open { listener, host } => world.open(listener, host),
        Operation::Connect { on, token, behind } => {
            let Some(on) = world.shell.pick(on) else { return };
            let id = ids()[usize::from(token.id % 3)];
            let of = if token.of < 224 { id } else { ids()[usize::from(token.of % 3)] };
            // Most are for the current time.
            let off = if token.off % 4 == 0 { token.off / 32 } else { token.off % 2 };
            world.connect(on, id, of, token.version.into(), off, token.nonce.map(|nonce| nonce % 16));
            if behind {
                world.raw(on, b"behind");
            }
        }
        Operation::Request { on, id, way, method, behind } => {
            if let Some(on) = world.shell.pick(on) {
                world.request(on, id, way, method, behind % 8);
            }
        }
        Operation::Raw { on, bytes } => {
            if let Some(on) = world.shell.pick(on) {
                world.raw(on, bytes);
            }
        }
        Operation::On { on, what } => {
            if let Some(on) = world.shell.pick(on) {
                world.shell.doing(on, what);
            }
        }
        Operation::Pass(what) => world.shell.pass(what),
        Operation::Enrol { which, second, plain } => world.enrol(which, second, plain),
        Operation::Config { strict, hold } => world.strict(strict, hold),
        Operation::Drain => world.drain(),
        Operation::Steer { id, access, pairs } => world.steer(id, access, pairs),
        Operation::Kick { id } => world.kick(id),
        Operation::TakeOver { step } => world.take_over(step),
    }
    world.judge();
}
