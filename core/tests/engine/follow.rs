//! Later requests of a client that names its hidden server in each request.

use rendezvous_core::event::Event;
use rendezvous_core::machine::{Close, ConnId, End};
use rendezvous_core::pair::EndReason;

use crate::world::World;
use crate::{ANSWER, DOMAIN, FAILED, GET, ID, NOBODY, OTHER, STRANGER, credential, get, post, world};

/// A response with this body.
fn answer(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// A request that names no hidden server.
const NO_NAME: &str = "GET /next HTTP/1.1\r\nHost: relay\r\n\r\n";

/// A pair of ID's whose first exchange is complete, and a waiting connection of OTHER's.
fn between_exchanges() -> (World, ConnId, ConnId, ConnId) {
    let mut world = world();
    let (hidden, client) = world.answered_pair(ID);
    let other = world.register(OTHER);
    (world, hidden, client, other)
}

#[test]
fn a_later_request_that_names_another_hidden_server_is_handed_over_to_that_one() {
    let (mut world, hidden, client, other) = between_exchanges();
    world.write(client, post(OTHER, "for the other"));
    assert_eq!(world.got(hidden), "", "nothing of it reaches the first");
    assert_eq!(world.closing(hidden), Some(Close::Linger), "the first sees a clean end");
    assert_eq!(world.peer(client), Some(other));
    assert_eq!(
        world.take(other),
        "POST / HTTP/1.1\r\nHost: relay\r\nContent-Length: 13\r\n\r\nfor the other"
    );
    world.write(other, answer("theirs"));
    assert_eq!(world.take(client), answer("theirs"));
    let ended = world.take_events().into_iter().find_map(|event| match event {
        Event::PairEnded { id, why, .. } => Some((id, why)),
        _ => None,
    });
    assert_eq!(ended, Some((ID, EndReason::Done)));
}

#[test]
fn a_later_request_of_the_same_id_stays_in_the_pair_as_it_came() {
    let (mut world, hidden, client, _) = between_exchanges();
    let later = [get(ID), post(ID, "a body"), get(ID)];
    for request in &later {
        world.write(client, request);
        assert_eq!(world.take(hidden), *request);
        world.write(hidden, ANSWER);
        assert_eq!(world.take(client), ANSWER);
    }
    assert_eq!(world.peer(client), Some(hidden));
}

#[test]
fn a_head_that_names_another_waits_for_the_exchanges_in_front_of_it() {
    let mut world = world();
    let (hidden, client) = world.pair(ID);
    let other = world.register(OTHER);
    world.write(client, format!("{}{}", get(ID), get(OTHER)));
    assert_eq!(world.take(hidden), get(ID), "the requests in front of it pass");
    world.write(hidden, answer("one"));
    assert_eq!(world.peer(client), Some(hidden));
    let second = answer("two");
    let (front, back) = second.split_at(second.len() - 1);
    world.write(hidden, front);
    assert_eq!((world.peer(client), world.got(other).as_str()), (Some(hidden), ""));
    world.write(hidden, back);
    assert_eq!(world.take(client), answer("one") + &answer("two"), "in order and whole");
    assert_eq!(world.peer(client), Some(other));
    assert_eq!(world.take(other), GET);
}

#[test]
fn wherever_two_requests_are_cut_each_reaches_whom_it_names() {
    let requests = post(ID, "of one") + &post(OTHER, "of another");
    for cut in 1..requests.len() {
        let mut world = world();
        let (hidden, other) = (world.register(ID), world.register(OTHER));
        let client = world.client_sends(&requests[..cut]);
        world.write(client, &requests[cut..]);
        world.write(hidden, ANSWER);
        let without = |body: &str| {
            format!("POST / HTTP/1.1\r\nHost: relay\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        };
        assert_eq!(world.take(hidden), without("of one"), "cut at {cut}");
        assert_eq!(world.take(other), without("of another"), "cut at {cut}");
        assert_eq!(world.peer(client), Some(other));
    }
}

#[test]
fn a_client_may_go_back_and_forth() {
    let mut world = world();
    let client = world.open();
    for (turn, id) in [ID, OTHER, ID, OTHER, OTHER, ID].into_iter().enumerate() {
        if world.peer(client).is_none_or(|_| turn != 4) {
            world.register(id);
        }
        world.write(client, get(id));
        let hidden = world.peer(client).expect("a pair");
        world.take(hidden);
        world.write(hidden, answer(&format!("{turn}")));
        assert_eq!(world.take(client), answer(&format!("{turn}")));
    }
}

#[test]
fn a_later_request_that_names_nobody_is_challenged_and_asked_again() {
    let (mut world, hidden, client, other) = between_exchanges();
    world.write(client, NO_NAME);
    assert_eq!((world.got(hidden).as_str(), world.closing(hidden)), ("", Some(Close::Linger)));
    let challenge = world.take(client);
    assert!(challenge.starts_with("HTTP/1.1 401 "), "{challenge}");
    world.write(client, get(OTHER));
    assert_eq!((world.peer(client), world.take(other)), (Some(other), GET.to_owned()));
}

#[test]
fn a_later_request_with_malformed_credentials_is_400() {
    let (mut world, hidden, client, _) = between_exchanges();
    world.write(client, "GET / HTTP/1.1\r\nHost: relay\r\nAuthorization: Basic\r\n\r\n");
    assert_eq!(world.got(hidden), "");
    let answer = world.take(client);
    assert!(answer.starts_with("HTTP/1.1 40"), "{answer}");
}

#[test]
fn an_unknown_id_in_a_later_request_is_404_from_the_relay() {
    let (mut world, hidden, client, _) = between_exchanges();
    world.write(client, get(STRANGER));
    assert_eq!(world.got(hidden), "");
    world.assert_refused(client, "404 Not Found", NOBODY);
}

#[test]
fn a_label_of_another_hidden_server_counts_as_its_name() {
    let mut world = world();
    let (hidden, client) = world.answered_pair(OTHER);
    let home = world.register(ID);
    let request = format!("GET / HTTP/1.1\r\nHost: home.{DOMAIN}\r\n\r\n");
    world.write(client, &request);
    assert_eq!(world.got(hidden), "");
    assert_eq!((world.peer(client), world.take(home)), (Some(home), request));
}

#[test]
fn a_client_that_came_by_label_leaves_for_another_one_too() {
    let by_host = |host: &str| format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let home = by_host(&format!("home.{DOMAIN}"));
    for (next, to) in [(get(OTHER), GET.to_owned()), (by_host(&format!("{OTHER}.{DOMAIN}")), String::new())] {
        let mut world = world();
        let (hidden, other) = (world.register(ID), world.register(OTHER));
        let client = world.client_sends(&home);
        world.write(hidden, ANSWER);
        world.write(client, &home);
        world.write(hidden, ANSWER);
        assert_eq!(world.take(hidden), home.repeat(2));
        world.write(client, &next);
        assert_eq!((world.got(hidden).as_str(), world.closing(hidden)), ("", Some(Close::Linger)));
        assert_eq!(
            (world.peer(client), world.take(other)),
            (Some(other), if to.is_empty() { next } else { to })
        );
    }
}

#[test]
fn a_response_that_only_the_end_delimits_ends_the_connection_in_order() {
    let mut world = world();
    let (hidden, client) = world.pair(ID);
    world.register(OTHER);
    world.write(client, get(OTHER));
    world.write(hidden, "HTTP/1.1 200 OK\r\n\r\nuntil the end");
    assert_eq!(world.peer(client), Some(hidden));
    world.end(hidden, End::Clean);
    assert_eq!(world.take(client), "HTTP/1.1 200 OK\r\n\r\nuntil the end");
    assert_eq!((world.got(hidden).as_str(), world.closing(hidden)), ("", Some(Close::Linger)));
    assert_eq!(world.closing(client), Some(Close::Linger));
}

#[test]
fn the_end_of_a_followed_pair_waits_for_what_is_queued_for_the_client() {
    let malformed = get(ID).replace("\r\n\r\n", "\r\nTransfer-Encoding: chunked\r\n\r\nno size\r\n");
    for (next, ends) in [(get(OTHER), true), (malformed, false)] {
        let mut world = world();
        let (hidden, client) = world.pair(ID);
        world.register(OTHER);
        world.stall(client, true);
        let first = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi";
        world.write(hidden, if ends { first } else { ANSWER });
        world.write(client, next);
        if ends {
            world.end(hidden, End::Clean);
        }
        world.wait_secs(20);
        assert_eq!(
            world.closing(client),
            None,
            "{ends}: a slow client has more time than a connection that closes"
        );
        world.stall(client, false);
        assert_eq!(world.take(client), if ends { first } else { ANSWER });
        assert_eq!(world.closing(client), Some(Close::Linger));
    }
}

#[test]
fn a_connection_that_is_to_close_is_not_handed_over_anew() {
    let mut world = world();
    let (hidden, client) = world.pair(ID);
    world.register(OTHER);
    world.write(client, get(OTHER));
    let last = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi";
    world.write(hidden, last);
    assert_eq!(world.take(client), last);
    assert_eq!(world.closing(client), Some(Close::Linger));
}

#[test]
fn a_client_that_ends_behind_its_last_request_gets_the_answer() {
    let (mut world, _, client, other) = between_exchanges();
    world.write_last(client, get(OTHER));
    assert_eq!((world.peer(client), world.take(other)), (Some(other), GET.to_owned()));
    assert!(world.wire(other).write_ended, "its end is passed on behind the request");
    world.write(other, ANSWER);
    assert_eq!(world.take(client), ANSWER);
}

#[test]
fn part_of_a_head_at_the_end_reaches_nobody() {
    let whole = get(OTHER);
    for part in ["GET /par", &whole[..whole.len() - 1]] {
        let (mut world, hidden, client, other) = between_exchanges();
        world.write_last(client, part);
        assert_eq!(
            (world.got(hidden).as_str(), world.closing(hidden)),
            ("", Some(Close::Linger)),
            "{part:?}"
        );
        assert!(world.closing(client).is_some(), "{part:?}");
        assert_eq!(world.got(other), "");
    }
}

#[test]
fn part_of_a_head_does_not_cut_the_answer_in_front_of_it() {
    let mut world = world();
    let (hidden, client) = world.pair(ID);
    world.write_last(client, "GET /par");
    assert_eq!(world.peer(client), Some(hidden));
    world.write(hidden, ANSWER);
    assert_eq!(world.take(client), ANSWER);
    assert_eq!((world.got(hidden).as_str(), world.closing(hidden)), ("", Some(Close::Linger)));
}

#[test]
fn bytes_that_are_no_head_pass_at_the_end_as_they_always_did() {
    for part in ["bytes", "BYTES", "0 1"] {
        let (mut world, hidden, client, _) = between_exchanges();
        world.write_last(client, part);
        assert_eq!(world.take(hidden), part);
        assert!(world.wire(hidden).write_ended);
    }
}

#[test]
fn after_a_101_nothing_is_looked_at() {
    let mut world = world();
    let hidden = world.register(ID);
    let upgrade = format!(
        "GET / HTTP/1.1\r\nHost: relay\r\n{}Connection: Upgrade\r\nUpgrade: octet-stream\r\n\r\n",
        credential(ID)
    );
    let client = world.client_sends(upgrade + "early");
    assert!(!world.take(hidden).ends_with("early"), "what is behind an Upgrade waits for the 101");
    world.write(
        hidden,
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: octet-stream\r\n\r\n",
    );
    assert_eq!(world.take(hidden), "early");
    world.write(client, get(OTHER));
    assert_eq!(world.take(hidden), get(OTHER));
}

#[test]
fn an_upgrade_that_is_not_taken_is_followed_by_requests() {
    let mut world = world();
    let (hidden, other) = (world.register(ID), world.register(OTHER));
    let upgrade = format!(
        "GET / HTTP/1.1\r\nHost: relay\r\n{}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        credential(ID)
    );
    let client = world.client_sends(upgrade + &get(OTHER));
    world.write(hidden, ANSWER);
    assert_eq!((world.peer(client), world.take(other)), (Some(other), GET.to_owned()));
}

#[test]
fn a_failed_hand_over_is_repeated_with_its_gate() {
    let mut world = world();
    let (second, first) = (world.register(ID), world.register(ID));
    let other = world.register(OTHER);
    let client = world.client_sends(get(ID) + &get(OTHER));
    assert_eq!(world.peer(client), Some(first));
    world.end(first, End::Reset);
    assert_eq!(world.peer(client), Some(second));
    world.write(second, ANSWER);
    assert_eq!(world.take(client), ANSWER);
    assert_eq!((world.peer(client), world.take(other)), (Some(other), GET.to_owned()));
}

#[test]
fn a_later_hand_over_that_fails_is_502() {
    let (mut world, _, client, other) = between_exchanges();
    world.write(client, post(OTHER, "a body"));
    world.end(other, End::Reset);
    world.assert_refused(client, "502 Bad Gateway", FAILED);
}
