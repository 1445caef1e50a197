//! Between the rendezvous and the hidden server's first byte (docs/protocol.md §4.5).

use rendezvous_core::event::Event;
use rendezvous_core::machine::{Close, ConnId, End};
use rendezvous_core::pair::EndReason;
use rendezvous_core::time::Span;

use crate::world::World;
use crate::{ANSWER, FAILED, GET, ID, credential, get, post, world};

/// Whether a request is handed over to a second hidden server when the first ends.
fn is_retried(request: &str) -> bool {
    let mut world = world();
    let (second, first) = (world.register(ID), world.register(ID));
    let client = world.client_sends(request);
    assert_eq!(world.peer(client), Some(first), "{request}");
    world.end(first, End::Clean);
    if !world.is_open(client) {
        let whole = world.answer("502 Bad Gateway", "Connection: close\r\n", false, FAILED);
        assert_eq!(world.got(client), whole);
    }
    world.peer(client) == Some(second)
}

fn retries(world: &mut World) -> Vec<bool> {
    let events = world.take_events().into_iter();
    events
        .filter_map(|event| match event {
            Event::HandOverFailed { retried, .. } => Some(retried),
            _ => None,
        })
        .collect()
}

#[test]
fn at_the_rendezvous_the_kernel_s_patience_is_for_slow_readers_again() {
    let mut world = world();
    let hidden = world.register(ID);
    assert!(world.wire(hidden).user_timeout.is_some());
    let client = world.client_sends(get(ID));
    assert_eq!((world.peer(client), world.wire(hidden).user_timeout), (Some(hidden), None));
}

#[test]
fn a_waiting_connection_that_ends_before_its_first_byte_is_502() {
    for how in [End::Clean, End::Truncated, End::Reset] {
        let mut world = world();
        let (hidden, client) = world.pair(ID);
        world.end(hidden, how);
        world.assert_refused(client, "502 Bad Gateway", FAILED);
        assert!(!world.is_open(hidden));
        assert_eq!(retries(&mut world), [false]);
        assert_eq!(world.engine.pairs(), 0);
    }
}

#[test]
fn a_hidden_server_that_truncates_its_side_gets_no_clean_end_before_the_client_has_sent_one() {
    for (client_ends, close) in [(false, Close::Truncate), (true, Close::Linger)] {
        let mut world = world();
        let (hidden, client) = world.pair(ID);
        if client_ends {
            world.end(client, End::Clean);
        }
        world.end_at_once(hidden, End::Truncated);
        assert_eq!(world.closing(hidden), Some(close), "the client has ended: {client_ends}");
    }
}

#[test]
fn a_502_to_head_has_no_body() {
    let mut world = world();
    let hidden = world.register(ID);
    let client = world.client_sends(get(ID).replace("GET", "HEAD"));
    world.end(hidden, End::Reset);
    let whole = world.answer("502 Bad Gateway", "Connection: close\r\n", false, FAILED);
    assert_eq!(Some(world.got(client).as_str()), whole.split('{').next());
}

#[test]
fn a_get_goes_to_the_next_two_and_to_no_more() {
    let mut world = world();
    let mut waiting = [(); 4].map(|()| world.register(ID)).to_vec();
    let client = world.client_sends(get(ID));
    for _ in 0..3 {
        let hidden = waiting.pop().expect("one more");
        assert_eq!((world.peer(client), world.take(hidden).as_str()), (Some(hidden), GET));
        world.end(hidden, End::Reset);
    }
    world.assert_refused(client, "502 Bad Gateway", FAILED);
    assert_eq!(retries(&mut world), [true, true, false]);
    assert!(world.is_open(waiting[0]) && world.got(waiting[0]).is_empty());
}

#[test]
fn what_is_retried_is_answered_as_if_nothing_had_been() {
    let mut world = world();
    let (second, first) = (world.register(ID), world.register(ID));
    let client = world.client_sends(get(ID));
    world.end(first, End::Reset);
    world.write(second, ANSWER);
    world.write(client, "more");
    assert_eq!((world.got(client).as_str(), world.got(second)), (ANSWER, format!("{GET}more")));
    world.end(second, End::Clean);
    world.end(client, End::Clean);
    let Some(Event::PairEnded { hidden, why, from_hidden, .. }) = world.take_events().pop() else {
        panic!("the pair ended")
    };
    assert_eq!((hidden, why, from_hidden), (second, EndReason::Done, ANSWER.len() as u64));
}

#[test]
fn get_head_and_options_without_a_body_are_retried_and_nothing_else_is() {
    let request = |method: &str, target: &str, fields: &str| {
        format!("{method} {target} HTTP/1.1\r\nHost: relay\r\n{}{fields}\r\n", credential(ID))
    };
    assert!(is_retried(&request("GET", "/", "")));
    assert!(is_retried(&request("HEAD", "/", "")));
    assert!(is_retried(&request("OPTIONS", "*", "")));
    for method in ["POST", "PUT", "DELETE", "PATCH", "get", "PROPFIND"] {
        assert!(!is_retried(&request(method, "/", "")), "{method}");
    }
    for fields in ["Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n", "Expect: 100-continue\r\n"] {
        assert!(!is_retried(&request("GET", "/", fields)), "{fields}");
    }
    assert!(!is_retried(&post(ID, "body")));
}

#[test]
fn what_bytes_followed_is_not_retried() {
    assert!(!is_retried(&(get(ID) + "x")));
    let mut world = world();
    let (_, first) = (world.register(ID), world.register(ID));
    let client = world.client_sends(get(ID));
    world.write(client, "x");
    world.end(first, End::Reset);
    world.assert_refused(client, "502 Bad Gateway", FAILED);
}

#[test]
fn the_first_byte_ends_the_hand_over() {
    let mut world = world();
    let (second, first) = (world.register(ID), world.register(ID));
    let client = world.client_sends(get(ID));
    world.write(first, "H");
    world.end(first, End::Reset);
    assert_eq!((world.got(client).as_str(), world.closing(client)), ("H", Some(Close::Truncate)));
    assert!(world.is_open(second) && world.got(second).is_empty());
    assert_eq!(retries(&mut world), []);
}

#[test]
fn an_answer_that_was_on_its_way_when_writing_failed_still_arrives() {
    let mut world = world();
    let hidden = world.register(ID);
    let client = world.client_sends(post(ID, "a body that is"));
    world.write_fails(hidden);
    assert!(!world.wire(client).wanted);
    let answer = "HTTP/1.1 413 Content Too Large\r\n\r\n";
    world.write(hidden, answer);
    world.end(hidden, End::Reset);
    assert_eq!((world.got(client).as_str(), world.closing(client)), (answer, Some(Close::Truncate)));
}

#[test]
fn a_connection_that_can_t_be_written_to_and_ends_without_a_word_is_a_failed_hand_over() {
    let mut world = world();
    let hidden = world.register(ID);
    let client = world.client_sends(post(ID, "body"));
    world.write_fails(hidden);
    world.end(hidden, End::Reset);
    world.assert_refused(client, "502 Bad Gateway", FAILED);
}

#[test]
fn after_a_failed_write_the_next_hidden_server_hears_the_client_again() {
    let mut world = world();
    let (second, first) = (world.register(ID), world.register(ID));
    let client = world.client_sends(get(ID));
    world.write_fails(first);
    assert!(!world.wire(client).wanted);
    world.end(first, End::Reset);
    assert_eq!((world.peer(client), world.wire(client).wanted), (Some(second), true));
    world.write(client, "more");
    assert_eq!(world.got(second), format!("{GET}more"));
}

#[test]
fn a_connection_that_acknowledges_nothing_is_a_failed_hand_over_too() {
    let mut world = world();
    let (second, first) = (world.register(ID), world.register(ID));
    let client = world.client_sends(get(ID));
    world.ages.insert(first, Span::from_secs(30));
    world.wait_secs(10);
    assert_eq!((world.closing(first), world.peer(client)), (Some(Close::Abort), Some(second)));
}

#[test]
fn a_client_that_ended_its_side_is_retried_with_its_end() {
    let mut world = world();
    let (second, first) = (world.register(ID), world.register(ID));
    let client = world.client_sends(get(ID));
    world.end(client, End::Clean);
    assert!(world.wire(first).write_ended);
    world.end(first, End::Clean);
    assert_eq!((world.peer(client), world.got(second).as_str()), (Some(second), GET));
    assert!(world.wire(second).write_ended);
    world.write(second, ANSWER);
    world.end(second, End::Clean);
    assert_eq!((world.got(client).as_str(), world.closing(client)), (ANSWER, Some(Close::Linger)));
}

#[test]
fn a_client_that_ended_its_side_gets_its_502() {
    let mut world = world();
    let (hidden, client) = world.pair(ID);
    world.end(client, End::Clean);
    world.end(hidden, End::Clean);
    world.assert_refused(client, "502 Bad Gateway", FAILED);
}

#[test]
fn a_client_that_goes_before_the_first_byte_ends_the_pair_and_no_retry() {
    let mut world = world();
    world.register(ID);
    let (hidden, client) = world.pair(ID);
    world.end(client, End::Reset);
    assert_eq!(world.closing(hidden), Some(Close::Truncate));
    assert_eq!((retries(&mut world), world.engine.pairs()), (vec![], 0));
}

#[test]
fn for_a_client_that_takes_nothing_any_more_there_is_no_retry() {
    let mut world = world();
    let second = world.register(ID);
    let (first, client) = world.pair(ID);
    world.write_fails(client);
    world.end_at_once(first, End::Reset);
    assert!(!world.is_open(client) && world.is_open(second));
    assert_eq!((retries(&mut world), world.got(second).as_str()), (vec![false], ""));
}

#[test]
fn a_plain_connection_that_is_not_ready_is_not_retried_with() {
    let mut world = world();
    let (hidden, client) = world.pair(ID);
    let plain = world.register_plain(ID);
    world.end(hidden, End::Reset);
    world.assert_refused(client, "502 Bad Gateway", FAILED);
    assert!(world.is_open(plain));
}

/// This connection's peer stops acknowledging.
fn dies(world: &mut World, on: ConnId) {
    world.ages.insert(on, Span::from_secs(29));
}

#[test]
fn a_head_that_is_not_acknowledged_within_a_second_goes_to_the_next_connection() {
    let mut world = world();
    let (second, first) = (world.register(ID), world.register(ID));
    dies(&mut world, first);
    let client = world.client_sends(get(ID));
    world.wait_ms(999);
    assert_eq!(world.peer(client), Some(first));
    world.wait_ms(1);
    assert_eq!((world.closing(first), world.peer(client)), (Some(Close::Abort), Some(second)));
    assert_eq!((world.take(second).as_str(), retries(&mut world)), (GET, vec![true]));
    world.write(second, ANSWER);
    assert_eq!(world.got(client), ANSWER);
}

#[test]
fn at_a_far_agent_it_takes_four_round_trips() {
    let mut world = world();
    let (second, first) = (world.register(ID), world.register(ID));
    dies(&mut world, first);
    world.round_trips.insert(first, Span::from_millis(600));
    let client = world.client_sends(get(ID));
    world.wait_ms(2_399);
    assert_eq!(world.peer(client), Some(first));
    world.wait_ms(1);
    assert_eq!(world.peer(client), Some(second));
}

#[test]
fn without_another_connection_the_client_is_held_and_gets_the_next_one() {
    let mut world = world();
    let (first, client) = {
        let hidden = world.register(ID);
        dies(&mut world, hidden);
        (hidden, world.client_sends(get(ID)))
    };
    world.wait_secs(1);
    assert!(!world.is_open(first) && world.is_open(client));
    world.wait_secs(2);
    let next = world.register(ID);
    assert_eq!(world.peer(client), Some(next));
    world.write(next, ANSWER);
    assert_eq!(world.got(client), ANSWER);
}

#[test]
fn no_client_waits_longer_than_it_may_be_held_however_many_connections_are_dead() {
    for dead in [1, 3, 20] {
        let mut world = world();
        for _ in 0..dead {
            let hidden = world.register(ID);
            dies(&mut world, hidden);
        }
        let client = world.client_sends(get(ID));
        world.wait_ms(4_999);
        assert!(world.is_open(client), "{dead}");
        world.wait_ms(1);
        assert!(!world.is_open(client), "{dead}");
    }
}

#[test]
fn what_may_not_be_repeated_has_four_seconds_and_gets_502() {
    let mut world = world();
    let (second, first) = (world.register(ID), world.register(ID));
    dies(&mut world, first);
    let client = world.client_sends(post(ID, "body"));
    world.wait_ms(3_999);
    assert_eq!(world.peer(client), Some(first));
    world.wait_ms(1);
    world.assert_refused(client, "502 Bad Gateway", FAILED);
    assert!(world.is_open(second) && world.got(second).is_empty());
}

#[test]
fn a_head_that_was_acknowledged_is_never_handed_over_again() {
    let mut world = world();
    let (second, first) = (world.register(ID), world.register(ID));
    let client = world.client_sends(get(ID));
    // Some bytes were acknowledged since the hand-over, others were not.
    world.ages.insert(first, Span::from_millis(600));
    world.wait_secs(9);
    assert_eq!(world.peer(client), Some(first));
    world.write(first, ANSWER);
    assert_eq!((world.got(client).as_str(), world.got(second).as_str()), (ANSWER, ""));
}

#[test]
fn a_delayed_acknowledgement_of_earlier_bytes_is_none_of_the_head() {
    let mut world = world();
    let (second, first) = (world.register(ID), world.register(ID));
    let client = world.client_sends(get(ID));
    world.ages.insert(first, Span::from_millis(980));
    world.wait_secs(1);
    assert_eq!(world.peer(client), Some(second));
}
