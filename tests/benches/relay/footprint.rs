//! Start-up time and size of the binary.

use std::fs;

use crate::args::Args;
use crate::field::Field;
use crate::peers::{Relay, Transport};
use crate::report::{Quantity, Report};
use crate::{Failure, Scenario};

const START_UP: Quantity = Quantity { name: "start to first connection", unit: "ms" };
const SIZE: Quantity = Quantity { name: "size, without libraries", unit: "MB" };

pub(crate) fn scenarios() -> Vec<Scenario> {
    vec![Scenario { name: "footprint".to_owned(), run: Box::new(run) }]
}

fn run(field: &mut Field, args: &Args, report: &mut Report) -> Result<(), Failure> {
    let kinds: Vec<_> =
        field.kinds().iter().filter(|kind| kind.carries(Transport::TLS_TLS)).cloned().collect();
    for _ in 0..args.rounds {
        for kind in &kinds {
            let relay = Relay::start(kind.clone(), &field.ground)?;
            report.sample(relay.name(), START_UP, relay.process.start_up.as_secs_f64() * 1e3);
            report.sample(relay.name(), SIZE, fs::metadata(&relay.binary)?.len() as f64 / 1e6);
        }
    }
    Ok(())
}
