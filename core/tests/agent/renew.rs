//! Waiting connections are renewed at an age, and when another relay answers.

use super::*;

const AGE: Span = Span::from_secs(300);

fn renewing() -> Harness<Agent> {
    agent_with(|config| config.renew = Some(AGE))
}

/// A relay with this number is reached, and accepts the connection.
fn accept_at(harness: &mut Harness<Agent>, on: ConnId, relay: u8) {
    harness.call(|agent, now| agent.handle_connected(on, now));
    let answer = format!("HTTP/1.1 200 OK\r\nRendezvous-Relay: 00000000000000{relay:02x}\r\n\r\n");
    assert_eq!(harness.receive(on, answer.as_bytes()), answer.len());
}

/// A full pool at one relay.
fn pool_at(harness: &mut Harness<Agent>, relay: u8) -> Vec<ConnId> {
    let mut pool = Vec::new();
    for _ in 0..2 {
        for (on, _) in dials(&harness.actions()) {
            accept_at(harness, on, relay);
            pool.push(on);
        }
    }
    assert_eq!(pool.len(), 4);
    pool
}

fn closed(actions: &[Done], pool: &[ConnId]) -> usize {
    pool.iter().filter(|on| asked(actions, Output::Close { on: **on, how: Close::Linger })).count()
}

#[test]
fn the_instance_is_asked_for_only_if_connections_are_renewed() {
    for (mut harness, asks) in [(renewing(), true), (agent(), false)] {
        let (on, _) = one(&harness.actions());
        harness.call(|agent, now| agent.handle_connected(on, now));
        let text = sent(&harness.actions(), on);
        assert_eq!(text.contains("\r\nRendezvous-Relay: ?\r\n"), asks, "{text}");
    }
}

#[test]
fn each_connection_is_replaced_around_its_age_and_never_missed() {
    let mut harness = renewing();
    let pool = pool_at(&mut harness, 1);
    let mut replaced = 0;
    let mut at = Vec::new();
    for second in 0..400_u64 {
        harness.wait(Span::from_secs(1));
        let actions = harness.actions();
        for (on, _) in dials(&actions) {
            assert_eq!(harness.machine.waiting(0), 4, "the old one waits until the new one does");
            accept_at(&mut harness, on, 1);
            at.push(second);
            replaced += closed(&harness.actions(), &pool);
            assert_eq!(harness.machine.waiting(0), 4);
        }
    }
    assert_eq!(replaced, 4, "{at:?}");
    assert!(at.iter().take(4).all(|second| (224..=376).contains(second)), "{at:?}");
    assert!(at.windows(2).take(3).any(|pair| pair[0] != pair[1]), "with jitter: {at:?}");
}

#[test]
fn another_relay_that_answers_renews_the_whole_pool_in_order() {
    let mut harness = renewing();
    let pool = pool_at(&mut harness, 1);
    harness.call(|agent, now| agent.handle_end(pool[0], End::Reset, now));
    harness.wait_for_deadline();
    let mut closings = 0;
    let mut opened = 0;
    for _ in 0..4 {
        let actions = harness.actions();
        closings += closed(&actions, &pool);
        for (on, _) in dials(&actions) {
            accept_at(&mut harness, on, 2);
            opened += 1;
        }
    }
    assert_eq!(opened, 4);
    assert_eq!(closings, 3);
    assert_eq!(harness.machine.waiting(0), 4);
}

#[test]
fn two_balancers_that_disagree_do_not_cause_a_storm() {
    let mut harness = renewing();
    pool_at(&mut harness, 1);
    let mut opened = 0;
    for turn in 0..600_u32 {
        harness.wait(Span::from_millis(100));
        for (on, _) in dials(&harness.actions()) {
            accept_at(&mut harness, on, (turn % 2 + 1) as u8);
            opened += 1;
        }
    }
    assert!(opened <= 4 * 20, "{opened} connections in a minute");
}

#[test]
fn without_an_age_connections_wait_for_ever() {
    let (mut harness, _) = pool_of(agent());
    harness.wait(Span::from_secs(36_000));
    assert!(dials(&harness.actions()).is_empty());
}
