//! Connections that wait, and the next one.

use super::*;

#[test]
fn one_connection_tries_and_the_pool_follows_when_it_is_accepted() {
    let mut rig = agent();
    let (first, to) = one(&rig.news());
    assert_eq!(to, relay());
    accept(&mut rig, first);
    let news = rig.news();
    assert_eq!(dials(&news).len(), 3);
    let user_timeout = Output::UserTimeout { on: first, after: Some(rendezvous_core::machine::USER_TIMEOUT) };
    assert!(asked(&news, user_timeout));
    assert!(notes(&news).contains(&Note::Registered { on: first, upstream: 0, waiting: 1 }));
    for (on, _) in dials(&news) {
        accept(&mut rig, on);
    }
    assert_eq!(rig.machine.waiting(0), 4);
    assert!(dials(&rig.news()).is_empty());
}

#[test]
fn each_connection_has_a_token_and_a_nonce_of_its_own() {
    let mut rig = agent();
    let mut texts = Vec::new();
    for _ in 0..2 {
        for (on, _) in dials(&rig.news()) {
            rig.tell(|agent, now| agent.handle_connected(on, now));
            let text = sent(&rig.news(), on);
            assert!(
                text.ends_with(" HTTP/1.1\r\nHost: relay\r\nRendezvous-Challenge: next\r\n\r\n"),
                "{text}"
            );
            assert!(is_valid(&text, WALL));
            assert!(!texts.contains(&text));
            texts.push(text);
            rig.hears(on, OK);
        }
    }
    assert!(texts.len() >= 2);
}

#[test]
fn the_next_connection_is_opened_at_once_when_one_was_taken() {
    let (mut rig, pool) = pool_of(agent());
    rig.wait(Span::from_secs(3_600));
    assert_eq!(rig.hears(pool[2], GET), 0);
    let dials = dials(&rig.news());
    assert_eq!(dials.iter().map(|(_, to)| *to).collect::<Vec<_>>(), [relay(), service()]);
    assert_eq!(rig.machine.waiting(0), 3);
}

#[test]
fn a_full_pool_waits_for_ever_without_a_deadline() {
    let (mut rig, _) = pool_of(agent());
    rig.wait(Span::from_secs(60));
    assert_eq!(rig.idle, None);
}

#[test]
fn plain_tokens_are_for_a_pool_of_one_and_an_answer_without_a_reason_is_one() {
    let mut rig = agent_with(|config| config.upstreams[0].plain = true);
    let (on, _) = one(&rig.news());
    rig.tell(|agent, now| agent.handle_connected(on, now));
    let text = sent(&rig.news(), on);
    assert!(!text.contains("nonce"));
    assert!(is_valid(&text, WALL));
    rig.hears(on, b"HTTP/1.1 200\r\n\r\n");
    assert_eq!(rig.machine.waiting(0), 1);
    assert!(dials(&rig.news()).is_empty());
}

#[test]
fn an_interim_answer_is_no_answer() {
    let mut rig = agent();
    let (on, _) = one(&rig.news());
    rig.tell(|agent, now| agent.handle_connected(on, now));
    rig.hears(on, b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n\r\n");
    assert_eq!(rig.machine.waiting(0), 1);
}

#[test]
fn each_upstream_has_a_pool_of_its_own() {
    let mut rig = agent_with(|config| {
        let mut other = upstream();
        other.relay.place = address(3, 80).into();
        config.upstreams.push(other);
    });
    let first = dials(&rig.news());
    assert_eq!(first.iter().map(|(_, to)| *to).collect::<Vec<_>>(), [relay(), address(3, 80)]);
    accept(&mut rig, first[1].0);
    rig.tell(|agent, now| agent.handle_dial_failed(first[0].0, DialFailure::Refused, now));
    assert!(dials(&rig.news()).iter().all(|(_, to)| *to == address(3, 80)));
}
