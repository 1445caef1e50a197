//! The operator changes the list of IDs while the relay runs.

use rendezvous_core::event::{Event, WaitingEnd};
use rendezvous_core::machine::{Close, End};
use rendezvous_core::time::Span;

use crate::{
    ANSWER, BUSY, ID, NOBODY, OK, OTHER, STRANGER, both, bound_connect, enrolled, get, key, plain_connect,
    world, world_with,
};

const NONCE: &str = "0123456789abcdef";

#[test]
fn a_removed_id_s_waiting_connections_close_and_nobody_else_s() {
    let mut world = world();
    let (bound, plain, other) = (world.register(ID), world.register_plain(ID), world.register(OTHER));
    world.wait_secs(2);
    world.take_events();
    world.enrol(vec![enrolled(OTHER, &[])]);
    assert_eq!([bound, plain].map(|on| world.closing(on)), [Some(Close::Linger); 2]);
    assert!(world.is_open(other));
    let after = Span::from_secs(2);
    let gone = |on| Event::WaitingEnded { on, id: ID, why: WaitingEnd::Revoked, after };
    assert_eq!(world.take_events(), [gone(bound), gone(plain)]);
}

#[test]
fn a_removed_id_is_unknown_from_then_on() {
    let mut world = world();
    world.register(ID);
    world.enrol(vec![enrolled(OTHER, &[])]);
    let client = world.client_sends(get(ID));
    world.assert_refused(client, "404 Not Found", NOBODY);
    let client = world.client_sends("GET / HTTP/1.1\r\nHost: home.hidden.example\r\n\r\n");
    world.assert_refused(client, "404 Not Found", NOBODY);
    let hidden = world.client_sends(bound_connect(ID, world.now.wall, NONCE));
    world.assert_refused(hidden, "401 Unauthorized", "not authorized");
}

#[test]
fn a_client_held_for_a_removed_id_gets_404() {
    let mut world = world();
    world.pair(ID);
    let client = world.client_sends(get(ID));
    world.enrol(vec![enrolled(OTHER, &[])]);
    world.assert_refused(client, "404 Not Found", NOBODY);
}

#[test]
fn a_removed_id_s_pairs_go_on_to_their_own_end() {
    let mut world = world();
    let (hidden, client) = world.pair(ID);
    world.enrol(Vec::new());
    world.write(hidden, ANSWER);
    assert_eq!(world.got(client), ANSWER);
    world.end(client, End::Clean);
    world.end(hidden, End::Clean);
    assert_eq!(world.engine.pairs(), 0);
}

#[test]
fn a_failed_hand_over_of_a_removed_id_is_502() {
    let mut world = world();
    world.register(ID);
    let (hidden, client) = world.pair(ID);
    world.enrol(Vec::new());
    world.end(hidden, End::Clean);
    world.assert_refused(client, "502 Bad Gateway", crate::FAILED);
}

#[test]
fn after_a_rotation_the_old_secret_is_worth_nothing_and_what_waited_by_it_closes() {
    let mut world = world();
    let old = world.register(ID);
    let token = bound_connect(ID, world.now.wall, NONCE);
    let mut ids = both();
    ids[0].key = key(9);
    world.enrol(ids.clone());
    assert_eq!(world.closing(old), Some(Close::Linger));
    let again = world.client_sends(&token);
    world.assert_refused(again, "401 Unauthorized", "not authorized");
    // The secret is valid: after rotating back, the relay accepts the first token again.
    world.enrol(both());
    let again = world.client_sends(&token);
    assert_eq!(world.got(again), OK);
}

#[test]
fn after_a_rotation_a_client_is_held_for_whoever_waited_until_then() {
    let mut rotated = both();
    rotated[0].key = key(9);
    // One that waits at that time, one that ended ten seconds before, and one that ended too long ago to count.
    for (ended_before, is_served) in [(0, true), (10, true), (30, false)] {
        let mut world = world();
        world.wait_secs(60);
        let hidden = world.register(ID);
        world.wait_secs(60);
        if ended_before > 0 {
            world.end(hidden, End::Clean);
            world.wait_secs(ended_before);
        }
        world.enrol(rotated.clone());
        let client = world.client_sends(get(ID));
        if is_served {
            assert!(world.is_open(client), "{ended_before} s");
            assert_eq!(world.got(client), "");
        } else {
            world.assert_refused(client, "404 Not Found", NOBODY);
        }
    }
}

#[test]
fn an_id_that_was_removed_and_comes_back_is_a_new_one() {
    let mut world = world();
    world.wait_secs(60);
    let hidden = world.register(ID);
    world.end(hidden, End::Clean);
    world.enrol(vec![enrolled(OTHER, &[])]);
    world.enrol(both());
    let client = world.client_sends(get(ID));
    world.assert_refused(client, "404 Not Found", NOBODY);
}

#[test]
fn the_same_list_again_changes_nothing() {
    let mut world = world();
    let (hidden, client) = world.pair(ID);
    let (waiting, plain) = (world.register(OTHER), world.register_plain(OTHER));
    let held = world.client_sends(get(ID));
    let token = bound_connect(ID, world.now.wall, NONCE);
    world.take_events();
    world.enrol(both());
    assert_eq!(world.take_events(), []);
    assert!([hidden, client, waiting, plain, held].iter().all(|on| world.is_open(*on)));
    let first = world.client_sends(&token);
    assert_eq!(world.peer(first), Some(held));
    world.enrol(both());
    let again = world.client_sends(&token);
    world.assert_refused(again, "401 Unauthorized", "not authorized");
}

#[test]
fn a_label_goes_where_the_list_says_now() {
    let mut world = world();
    let request = "GET / HTTP/1.1\r\nHost: home.hidden.example\r\n\r\n";
    world.enrol(vec![enrolled(ID, &["cellar"]), enrolled(OTHER, &["home"])]);
    let (hidden, other) = (world.register(ID), world.register(OTHER));
    let client = world.client_sends(request);
    assert_eq!(world.peer(client), Some(other));
    let client = world.client_sends(request.replace("home", "cellar"));
    assert_eq!(world.peer(client), Some(hidden));
}

#[test]
fn plain_tokens_can_be_forbidden_and_what_was_let_in_by_one_stays() {
    let mut world = world();
    let waiting = world.register_plain(ID);
    let mut ids = both();
    ids[0].plain_tokens = false;
    world.enrol(ids);
    assert!(world.is_open(waiting));
    let on = world.client_sends(plain_connect(ID, world.now.wall));
    world.assert_refused(on, "401 Unauthorized", "not authorized");
}

#[test]
fn an_id_that_was_removed_and_came_back_still_knows_how_many_pairs_it_has() {
    let mut world = world_with(|config| config.pairs_per_id_max = 2);
    let (hidden, _) = world.answered_pair(ID);
    world.enrol(Vec::new());
    world.enrol(both());
    world.answered_pair(ID);
    world.register(ID);
    let third = world.client_sends(get(ID));
    world.assert_refused(third, "503 Service Unavailable", "too many pairs");
    // The end of the first does not affect the second.
    world.end(hidden, End::Reset);
    world.answered_pair(ID);
    world.register(ID);
    let fourth = world.client_sends(get(ID));
    world.assert_refused(fourth, "503 Service Unavailable", "too many pairs");
}

#[test]
fn an_id_that_came_back_is_served_as_long_as_its_pair_lasts() {
    let mut world = world();
    world.answered_pair(ID);
    world.enrol(Vec::new());
    world.enrol(both());
    world.wait_secs(100);
    let client = world.client_sends(get(ID));
    world.wait_secs(5);
    world.assert_refused(client, "503 Service Unavailable", BUSY);
}

#[test]
fn of_two_lines_with_one_id_the_first_counts_and_nothing_is_lost() {
    let mut world = world();
    let waiting = world.register(ID);
    let mut ids = both();
    ids.push(enrolled(ID, &["cellar"]));
    ids[2].key = key(9);
    world.enrol(ids);
    assert!(world.is_open(waiting));
    let client = world.client_sends(get(ID));
    assert_eq!(world.peer(client), Some(waiting));
    let client = world.client_sends("GET / HTTP/1.1\r\nHost: cellar.hidden.example\r\n\r\n");
    world.assert_refused(client, "404 Not Found", NOBODY);
}

#[test]
fn a_new_id_is_there_at_once() {
    let mut world = world();
    let mut ids = both();
    ids.push(enrolled(STRANGER, &[]));
    world.enrol(ids);
    let hidden = world.register(STRANGER);
    let client = world.client_sends(get(STRANGER));
    assert_eq!(world.peer(client), Some(hidden));
}
