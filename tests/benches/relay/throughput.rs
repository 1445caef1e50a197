//! Throughput, and processor time per byte: one way (hidden server to client) and both ways at once.

use std::time::Instant;

use crate::args::Args;
use crate::bulk::{self, Flow, Nothing};
use crate::field::Field;
use crate::pair::Pair;
use crate::peers::Transport;
use crate::report::{BUSY, Quantity, Report};
use crate::{Failure, Scenario};

/// Bytes of one measurement, all streams and directions together.
const BYTES: usize = 256 << 20;

const THROUGHPUT: Quantity = Quantity { name: "throughput", unit: "MB/s" };
const CPU: Quantity = Quantity { name: "cpu per byte", unit: "ns" };

pub(crate) fn scenarios() -> Vec<Scenario> {
    let mut all = Vec::new();
    for transport in Transport::ALL {
        for streams in [1, 16] {
            for both in [false, true] {
                let ways = if both { "both" } else { "down" };
                all.push(Scenario {
                    name: format!("throughput/{}/{streams}/{ways}", transport.name()),
                    run: Box::new(move |field, args, report| {
                        run(field, args, report, transport, streams, both)
                    }),
                });
            }
        }
    }
    all
}

fn run(
    field: &mut Field,
    args: &Args,
    report: &mut Report,
    transport: Transport,
    streams: usize,
    both: bool,
) -> Result<(), Failure> {
    let (relays, ground) = field.cast(|kind| kind.carries(transport))?;
    let down = (args.load(BYTES) / streams / if both { 2 } else { 1 }) as u64;
    let up = if both { down } else { 0 };
    for _ in 0..args.rounds {
        for relay in &relays {
            let mut flows = Vec::new();
            for _ in 0..streams {
                flows.extend(Flow::pair(Pair::open(relay, ground, transport)?, down, up)?);
            }
            relay.process.settle()?;
            let (cpu, clock) = (relay.process.cpu()?, Instant::now());
            bulk::run(&mut flows, &mut Nothing)?;
            let (wall, cpu) = (clock.elapsed().as_secs_f64(), (relay.process.cpu()? - cpu).as_secs_f64());
            let bytes = (down + up) as f64 * streams as f64;
            let mut note = |quantity, value| report.sample(relay.name(), quantity, value);
            note(THROUGHPUT, bytes / wall / 1e6);
            note(CPU, cpu * 1e9 / bytes);
            note(BUSY, cpu / wall * 100.0);
        }
    }
    Ok(())
}
