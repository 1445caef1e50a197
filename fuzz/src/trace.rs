//! Traces: text that is parsed and written, and replayed by machines.

use rendezvous_core::trace::{Input, Replay, Setup, Trace};

/// Maximum pool of an agent of a trace, because the agent opens as many connections as its trace asks for.
const POOLS_MAX: u32 = 16;

pub(crate) fn run(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let trace = match Trace::parse(text) {
        Ok(trace) => trace,
        Err(error) => {
            let lines = text.lines().count().max(1);
            assert!((1..=lines).contains(&(error.line as usize)) && !error.why.is_empty(), "{error}");
            return;
        }
    };
    let printed = trace.to_string();
    assert_eq!(Trace::parse(&printed).as_ref(), Ok(&trace), "{printed}");
    if is_small(&trace) {
        play(trace);
    }
}

fn is_small(trace: &Trace) -> bool {
    let pools = match &trace.setup {
        Setup::Relay(_) => 0,
        Setup::Agent { config, .. } => {
            config.upstreams.iter().map(|upstream| u32::from(upstream.pool.max(upstream.pool_max))).sum()
        }
    };
    pools <= POOLS_MAX
}

/// The actions of a replay, recorded as expected ones, are those of the next replay.
fn play(mut trace: Trace) {
    let mut most = 64;
    let mut recorded = Vec::new();
    for played in Replay::new(&trace) {
        let Ok(actions) = played.actions else { continue };
        if let Input::Open { .. } = played.step.event {
            most += 16;
        }
        assert!(actions.len() <= most, "{} actions for one event", actions.len());
        let mut step = played.step.clone();
        step.outcomes = actions.iter().map(|action| action.outcome(step.now)).collect();
        recorded.push(step);
    }
    trace.steps = recorded;
    let printed = trace.to_string();
    let again = Trace::parse(&printed).expect("what was done can be written down");
    assert_eq!(again, trace, "{printed}");
    for played in Replay::new(&again) {
        assert_eq!(played.difference(), None, "{printed}");
    }
}
