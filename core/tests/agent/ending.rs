//! Once, and shutting down.

use super::*;

#[test]
fn once_means_one_rendezvous_and_no_further_connection() {
    let (mut rig, pool) = pool_of(agent_with(|config| config.once = true));
    assert_eq!(pool.len(), 1);
    rig.hears(pool[0], GET);
    let (local, to) = one(&rig.news());
    assert_eq!(to, service());
    rig.tell(|agent, now| agent.handle_connected(local, now));
    rig.tell(|agent, now| agent.handle_end(local, End::Clean, now));
    assert!(!rig.machine.is_done());
    rig.tell(|agent, now| agent.handle_end(pool[0], End::Clean, now));
    assert!(rig.machine.is_done());
    assert!(dials(&rig.news()).is_empty());
}

#[test]
fn once_is_over_for_all_upstreams_when_one_was_taken() {
    let (mut rig, pool) = pool_of(agent_with(|config| {
        config.once = true;
        config.upstreams.push(upstream());
    }));
    assert_eq!(pool.len(), 2);
    rig.hears(pool[1], GET);
    assert!(asked(&rig.news(), Output::Close { on: pool[0], how: Close::Linger }));
}

#[test]
fn a_drain_closes_what_waits_and_lets_pairs_end() {
    let (mut rig, pool) = pool_of(agent());
    rig.hears(pool[0], GET);
    let local = dials(&rig.news())[1].0;
    rig.tell(|agent, now| agent.handle_connected(local, now));
    rig.tell(Agent::handle_drain);
    let news = rig.news();
    for on in &pool[1..] {
        assert!(asked(&news, Output::Close { on: *on, how: Close::Linger }));
    }
    assert_eq!((rig.machine.connections(), rig.machine.pairs()), (2, 1));
    assert!(!rig.machine.is_done());
    rig.tell(|agent, now| agent.handle_end(local, End::Reset, now));
    assert!(rig.machine.is_done());
    assert!(dials(&rig.news()).is_empty());
}

#[test]
fn a_drain_forgets_the_attempt_that_rests() {
    let mut rig = agent();
    let (on, _) = one(&rig.news());
    rig.tell(|agent, now| agent.handle_dial_failed(on, DialFailure::Name, now));
    assert_eq!(rig.machine.connections(), 0);
    rig.tell(Agent::handle_drain);
    assert!(rig.machine.is_done());
    rig.wait(Span::from_secs(100));
    assert!(dials(&rig.news()).is_empty());
}
