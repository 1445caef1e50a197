//! Serving a single client, and shutting down.

use super::*;

#[test]
fn once_means_one_rendezvous_and_no_further_connection() {
    let (mut harness, pool) = pool_of(agent_with(|config| config.once = true));
    assert_eq!(pool.len(), 1);
    harness.receive(pool[0], GET);
    let (local, to) = one(&harness.actions());
    assert_eq!(to, service());
    harness.call(|agent, now| agent.handle_connected(local, now));
    harness.call(|agent, now| agent.handle_end(local, End::Clean, now));
    assert!(!harness.machine.is_done());
    harness.call(|agent, now| agent.handle_end(pool[0], End::Clean, now));
    assert!(harness.machine.is_done());
    assert!(dials(&harness.actions()).is_empty());
}

#[test]
fn once_is_over_for_all_upstreams_when_one_was_taken() {
    let (mut harness, pool) = pool_of(agent_with(|config| {
        config.once = true;
        config.upstreams.push(upstream());
    }));
    assert_eq!(pool.len(), 2);
    harness.receive(pool[1], GET);
    assert!(asked(&harness.actions(), Output::Close { on: pool[0], how: Close::Linger }));
}

#[test]
fn a_drain_closes_what_waits_and_lets_pairs_end() {
    let (mut harness, pool) = pool_of(agent());
    harness.receive(pool[0], GET);
    let local = dials(&harness.actions())[1].0;
    harness.call(|agent, now| agent.handle_connected(local, now));
    harness.call(Agent::handle_drain);
    let actions = harness.actions();
    for on in &pool[1..] {
        assert!(asked(&actions, Output::Close { on: *on, how: Close::Linger }));
    }
    assert_eq!((harness.machine.connections(), harness.machine.pairs()), (2, 1));
    assert!(!harness.machine.is_done());
    harness.call(|agent, now| agent.handle_end(local, End::Reset, now));
    assert!(harness.machine.is_done());
    assert!(dials(&harness.actions()).is_empty());
}

#[test]
fn a_drain_forgets_the_attempt_that_rests() {
    let mut harness = agent();
    let (on, _) = one(&harness.actions());
    harness.call(|agent, now| agent.handle_dial_failed(on, DialFailure::Name, now));
    assert_eq!(harness.machine.connections(), 0);
    harness.call(Agent::handle_drain);
    assert!(harness.machine.is_done());
    harness.wait(Span::from_secs(100));
    assert!(dials(&harness.actions()).is_empty());
}
