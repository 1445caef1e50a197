//! An address or a route of the machine changes.

use super::*;

/// The dials of the relay since the last call.
fn to_relay(harness: &mut Harness<Agent>) -> Vec<ConnId> {
    dials(&harness.actions()).into_iter().filter(|(_, to)| *to == relay()).map(|(on, _)| on).collect()
}

fn change(harness: &mut Harness<Agent>) -> Vec<ConnId> {
    harness.call(Agent::handle_path_changed);
    to_relay(harness)
}

#[test]
fn a_new_connection_is_opened_at_once_and_a_pool_behind_it_and_the_old_ones_stay() {
    let (mut harness, _) = pool_of(agent());
    harness.wait(Span::from_secs(3_600));
    let first = change(&mut harness);
    assert_eq!(first.len(), 1);
    accept(&mut harness, first[0]);
    let others = to_relay(&mut harness);
    assert_eq!(others.len(), 3);
    for on in others {
        accept(&mut harness, on);
    }
    assert!(to_relay(&mut harness).is_empty());
    assert_eq!(harness.machine.waiting(0), 8, "the old ones may live");
}

#[test]
fn old_connections_that_die_are_no_failure_and_need_no_other() {
    let (mut harness, pool) = pool_of(agent());
    let first = change(&mut harness);
    accept(&mut harness, first[0]);
    for on in to_relay(&mut harness) {
        accept(&mut harness, on);
    }
    for on in pool {
        harness.call(|agent, now| agent.handle_end(on, End::Reset, now));
    }
    assert!(to_relay(&mut harness).is_empty());
    assert_eq!(harness.machine.waiting(0), 4);
    // There is no backoff: the next one that is taken is replaced at once.
    harness.receive(first[0], GET);
    assert_eq!(to_relay(&mut harness).len(), 1);
}

#[test]
fn old_connections_that_live_are_closed_after_a_minute_without_clients() {
    let (mut harness, pool) = pool_of(agent());
    let first = change(&mut harness);
    accept(&mut harness, first[0]);
    for on in to_relay(&mut harness) {
        accept(&mut harness, on);
    }
    harness.wait(Span::from_secs(120));
    assert_eq!(harness.machine.waiting(0), 4);
    let actions = harness.actions();
    for on in pool {
        assert!(asked(&actions, Output::Close { on, how: Close::Linger }));
    }
}

#[test]
fn the_back_off_ends_when_a_path_changes() {
    let mut harness = agent();
    for _ in 0..6 {
        for on in to_relay(&mut harness) {
            harness.call(|agent, now| agent.handle_dial_failed(on, DialFailure::Unreachable, now));
        }
        harness.wait_for_deadline();
    }
    for on in to_relay(&mut harness) {
        harness.call(|agent, now| agent.handle_dial_failed(on, DialFailure::Unreachable, now));
    }
    assert_eq!(change(&mut harness).len(), 1);
}

#[test]
fn a_connection_that_is_on_its_way_is_not_waited_for() {
    let mut harness = agent();
    one(&harness.actions());
    assert_eq!(change(&mut harness).len(), 1);
}

#[test]
fn paths_that_change_all_the_time_open_a_connection_every_five_seconds() {
    let (mut harness, _) = pool_of(agent());
    let mut opened = 0;
    for _ in 0..600 {
        opened += change(&mut harness).len();
        harness.wait(Span::from_millis(100));
    }
    assert!((10..=18).contains(&opened), "{opened}");
}

#[test]
fn an_agent_that_stops_opens_none() {
    let (mut harness, _) = pool_of(agent());
    harness.call(Agent::handle_drain);
    assert!(change(&mut harness).is_empty());
}
