//! Latency of small messages beside bulk pairs.

use std::time::{Duration, Instant};

use crate::args::Args;
use crate::bulk::{self, Aside, Flow};
use crate::exchange::{Exchange, PERIOD};
use crate::field::Field;
use crate::pair::Pair;
use crate::peers::Transport;
use crate::report::Report;
use crate::{Failure, Scenario};

const BULK_PAIRS: usize = 16;
/// Bytes of all bulk pairs together, in one measurement.
const BYTES: usize = 512 << 20;

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![Scenario { name: "fairness".to_owned(), run: Box::new(run) }]
}

fn run(field: &mut Field, args: &Args, report: &mut Report) -> Result<(), Failure> {
    let (relays, ground) = field.cast(|kind| kind.carries(Transport::TLS_TLS))?;
    let down = (args.load(BYTES) / BULK_PAIRS) as u64;
    for _ in 0..args.rounds {
        for relay in &relays {
            let mut flows = Vec::new();
            for _ in 0..BULK_PAIRS {
                flows.extend(Flow::pair(Pair::open(relay, ground, Transport::TLS_TLS)?, down, 0)?);
            }
            let exchange = Exchange::new(Pair::open(relay, ground, Transport::TLS_TLS)?)?;
            relay.process.settle()?;
            let mut among = Among { exchange, last: Instant::now() };
            bulk::run(&mut flows, &mut among)?;
            among.exchange.note(report, relay.name());
        }
    }
    Ok(())
}

/// A conversation among bulk pairs. It gets a turn between any two turns of theirs, so that the relay's delay is
/// measured and not that of the load.
struct Among {
    exchange: Exchange,
    last: Instant,
}

impl Aside for Among {
    fn descriptors(&self) -> Vec<std::os::fd::RawFd> {
        self.exchange.descriptors().to_vec()
    }

    fn pause(&self) -> Duration {
        PERIOD
    }

    fn turn(&mut self) -> Result<(), Failure> {
        self.exchange.ask_at_ease(&mut self.last)?;
        self.exchange.turn().map(drop)
    }
}
