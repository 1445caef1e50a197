//! Waiting connections, and their replacement.

use super::*;
use rendezvous_core::agent::POOL_MAX;

#[test]
fn one_connection_tries_and_the_pool_follows_when_it_is_accepted() {
    let mut harness = agent();
    let (first, to) = one(&harness.actions());
    assert_eq!(to, relay());
    accept(&mut harness, first);
    let actions = harness.actions();
    assert_eq!(dials(&actions).len(), 3);
    let user_timeout = Output::UserTimeout { on: first, after: Some(rendezvous_core::machine::USER_TIMEOUT) };
    assert!(asked(&actions, user_timeout));
    assert!(events(&actions).contains(&Event::Registered { on: first, upstream: 0, waiting: 1 }));
    for (on, _) in dials(&actions) {
        accept(&mut harness, on);
    }
    assert_eq!(harness.machine.waiting(0), 4);
    assert!(dials(&harness.actions()).is_empty());
}

#[test]
fn each_connection_has_a_token_and_a_nonce_of_its_own() {
    let mut harness = agent();
    let mut texts = Vec::new();
    for _ in 0..2 {
        for (on, _) in dials(&harness.actions()) {
            harness.call(|agent, now| agent.handle_connected(on, now));
            let text = sent(&harness.actions(), on);
            assert!(
                text.ends_with(" HTTP/1.1\r\nHost: relay\r\nRendezvous-Challenge: next\r\n\r\n"),
                "{text}"
            );
            assert!(is_valid(&text, WALL));
            assert!(!texts.contains(&text));
            texts.push(text);
            harness.receive(on, OK);
        }
    }
    assert!(texts.len() >= 2);
}

#[test]
fn the_next_connection_is_opened_at_once_when_one_was_taken() {
    let (mut harness, pool) = pool_of(agent());
    harness.wait(Span::from_secs(3_600));
    assert_eq!(harness.receive(pool[2], GET), 0);
    let dials = dials(&harness.actions());
    assert_eq!(dials.iter().map(|(_, to)| *to).collect::<Vec<_>>(), [relay(), service()]);
    assert_eq!(harness.machine.waiting(0), 3);
}

#[test]
fn a_full_pool_waits_for_ever_without_a_deadline() {
    let (mut harness, _) = pool_of(agent());
    harness.wait(Span::from_secs(60));
    assert_eq!(harness.idle, None);
}

#[test]
fn plain_tokens_are_for_a_pool_of_one_and_an_answer_without_a_reason_is_one() {
    let mut harness = agent_with(|config| config.upstreams[0].plain = true);
    let (on, _) = one(&harness.actions());
    harness.call(|agent, now| agent.handle_connected(on, now));
    let text = sent(&harness.actions(), on);
    assert!(!text.contains("nonce"));
    assert!(is_valid(&text, WALL));
    harness.receive(on, b"HTTP/1.1 200\r\n\r\n");
    assert_eq!(harness.machine.waiting(0), 1);
    assert!(dials(&harness.actions()).is_empty());
}

#[test]
fn an_interim_answer_is_no_answer() {
    let mut harness = agent();
    let (on, _) = one(&harness.actions());
    harness.call(|agent, now| agent.handle_connected(on, now));
    harness.receive(on, b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n\r\n");
    assert_eq!(harness.machine.waiting(0), 1);
}

#[test]
fn each_upstream_has_a_pool_of_its_own() {
    let mut harness = agent_with(|config| {
        let mut other = upstream();
        other.relay.place = address(3, 80).into();
        config.upstreams.push(other);
    });
    let first = dials(&harness.actions());
    assert_eq!(first.iter().map(|(_, to)| *to).collect::<Vec<_>>(), [relay(), address(3, 80)]);
    accept(&mut harness, first[1].0);
    harness.call(|agent, now| agent.handle_dial_failed(first[0].0, DialFailure::Refused, now));
    assert!(dials(&harness.actions()).iter().all(|(_, to)| *to == address(3, 80)));
}

/// An agent whose pool grows from 4 to 64.
fn growing() -> Harness<Agent> {
    agent_with(|config| config.upstreams[0].pool_max = POOL_MAX)
}

/// The relay is reached, and answers with 200 and the state of the pool.
fn accept_with(harness: &mut Harness<Agent>, on: ConnId, state: &str) {
    harness.call(|agent, now| agent.handle_connected(on, now));
    let answer = format!("HTTP/1.1 200 OK\r\nRendezvous-Pool: {state}\r\n\r\n");
    assert_eq!(harness.receive(on, answer.as_bytes()), answer.len());
}

/// A client takes each of these. Returns the connections to the relay that are opened then.
fn take(harness: &mut Harness<Agent>, taken: &[ConnId]) -> Vec<ConnId> {
    let mut opened = Vec::new();
    for on in taken {
        harness.receive(*on, GET);
        opened.extend(to_relay(harness));
    }
    opened
}

fn to_relay(harness: &mut Harness<Agent>) -> Vec<ConnId> {
    dials(&harness.actions()).into_iter().filter(|(_, to)| *to == relay()).map(|(on, _)| on).collect()
}

#[test]
fn a_pool_that_grows_asks_for_the_number_of_held_clients_and_a_fixed_one_does_not() {
    for (mut harness, asks) in [(growing(), true), (agent(), false)] {
        let (on, _) = one(&harness.actions());
        harness.call(|agent, now| agent.handle_connected(on, now));
        assert_eq!(sent(&harness.actions(), on).contains("\r\nRendezvous-Pool: ?\r\n"), asks);
    }
}

#[test]
fn the_pool_doubles_as_long_as_all_of_it_is_taken() {
    let (mut harness, mut pool) = pool_of(growing());
    for size in [8, 16, 32, 64, 64] {
        let opened = take(&mut harness, &pool);
        assert_eq!(opened.len(), size);
        for on in &opened {
            accept(&mut harness, *on);
        }
        assert!(to_relay(&mut harness).is_empty());
        pool = opened;
    }
    assert_eq!(harness.machine.waiting(0), 64);
}

#[test]
fn a_pool_of_which_one_connection_is_left_stays_as_it_is() {
    let (mut harness, pool) = pool_of(growing());
    let opened = take(&mut harness, &pool[..3]);
    assert_eq!(opened.len(), 3);
    for on in opened {
        accept(&mut harness, on);
    }
    assert_eq!(harness.machine.waiting(0), 4);
}

#[test]
fn as_many_connections_are_opened_as_clients_are_held() {
    let (mut harness, pool) = pool_of(growing());
    let opened = take(&mut harness, &pool);
    // Seven others are being opened.
    accept_with(&mut harness, opened[0], "held=20 room=31");
    assert_eq!(to_relay(&mut harness).len(), 13);
    accept_with(&mut harness, opened[1], "held=19 room=31");
    assert!(to_relay(&mut harness).is_empty(), "all of them are on their way");
}

#[test]
fn a_relay_that_tells_of_held_clients_for_ever_gets_no_more_connections() {
    let mut harness = growing();
    for _ in 0..10 {
        for on in to_relay(&mut harness) {
            accept_with(&mut harness, on, "held=256 room=256");
        }
    }
    assert_eq!(harness.machine.waiting(0), 4 + 64);
}

#[test]
fn no_more_are_opened_at_once_than_the_pool_may_grow_to() {
    let (mut harness, pool) = pool_of(growing());
    let opened = take(&mut harness, &pool);
    accept_with(&mut harness, opened[0], "held=250 room=31");
    assert_eq!(to_relay(&mut harness).len(), 64 - 7);
}

#[test]
fn no_more_wait_than_the_relay_has_room_for() {
    let (mut harness, mut pool) = pool_of(growing());
    for size in [8, 8, 8] {
        pool = take(&mut harness, &pool);
        assert_eq!(pool.len(), size);
        for (others, on) in (1..).zip(&pool) {
            accept_with(&mut harness, *on, &format!("held=0 room={}", 8 - others));
        }
    }
    assert_eq!(harness.machine.waiting(0), 8);
}

#[test]
fn a_pool_that_the_relay_has_no_room_for_shrinks_and_nothing_is_lost() {
    let (mut harness, pool) = pool_of(growing());
    let opened = take(&mut harness, &pool);
    for on in &opened {
        accept(&mut harness, *on);
    }
    harness.actions();
    for on in &opened[..3] {
        // An older relay, without this field: the oldest ones are replaced.
        harness.call(|agent, now| agent.handle_end(*on, End::Clean, now));
    }
    assert!(to_relay(&mut harness).is_empty());
    assert_eq!((harness.machine.waiting(0), harness.idle.is_some()), (5, true));
    let next = take(&mut harness, &opened[7..]);
    assert_eq!(next.len(), 1, "there is no back-off, and five wait again");
}

#[test]
fn a_pool_that_nobody_needs_for_a_minute_shrinks_to_its_configured_size() {
    let (mut harness, pool) = pool_of(growing());
    let opened = take(&mut harness, &pool);
    for on in &opened {
        accept(&mut harness, *on);
    }
    harness.actions();
    harness.wait(Span::from_secs(59));
    assert_eq!(harness.machine.waiting(0), 8);
    harness.wait(Span::from_secs(2));
    assert_eq!(harness.machine.waiting(0), 4);
    let actions = harness.actions();
    for on in &opened[..4] {
        assert!(asked(&actions, Output::Close { on: *on, how: Close::Linger }), "the oldest ones are closed");
    }
    harness.wait(Span::from_secs(3_600));
    assert_eq!(harness.machine.waiting(0), 4);
}

#[test]
fn a_pool_in_use_does_not_shrink() {
    let (mut harness, pool) = pool_of(growing());
    let mut waiting = take(&mut harness, &pool);
    waiting.iter().for_each(|on| accept(&mut harness, *on));
    for _ in 0..10 {
        harness.actions();
        harness.wait(Span::from_secs(50));
        assert_eq!(harness.machine.waiting(0), 8);
        let opened = take(&mut harness, &waiting[7..]);
        accept(&mut harness, opened[0]);
        waiting[7] = opened[0];
    }
}
