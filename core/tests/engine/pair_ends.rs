//! The effect of the end of one side of a pair on the other, in the whole engine (docs/protocol.md §4.2).

use rendezvous_core::event::Event;
use rendezvous_core::machine::{Close, ConnId, End};
use rendezvous_core::pair::{EndReason, Side};
use rendezvous_core::time::Span;

use crate::world::World;
use crate::{ANSWER, ID, get, world};

fn ends(world: &World, on: ConnId) -> (bool, Option<Close>) {
    (world.wire(on).write_ended, world.closing(on))
}

/// Why the last pair ended.
fn why(world: &mut World) -> Option<EndReason> {
    world.take_events().into_iter().rev().find_map(|event| match event {
        Event::PairEnded { why, .. } => Some(why),
        _ => None,
    })
}

#[test]
fn bytes_move_both_ways_and_later_requests_are_part_of_the_stream() {
    let mut world = world();
    let (hidden, client) = world.answered_pair(ID);
    let again = get(ID);
    world.write(client, &again);
    assert_eq!(world.take(hidden), again, "the credential of a later request stays");
    world.write(hidden, "\0\r\n\x7f");
    assert_eq!(world.take(client), "\0\r\n\x7f");
}

#[test]
fn a_client_s_clean_end_is_passed_on_and_the_answer_still_arrives() {
    let mut world = world();
    let (hidden, client) = world.pair(ID);
    world.write(client, "body");
    world.end(client, End::Clean);
    assert_eq!(world.take(hidden), "body");
    assert_eq!(ends(&world, hidden), (true, None));
    assert_eq!(ends(&world, client), (false, None));
    world.write(hidden, ANSWER);
    world.wait_secs(59);
    world.write(hidden, "more");
    world.end(hidden, End::Clean);
    assert_eq!(world.got(client), format!("{ANSWER}more"));
    assert_eq!((world.closing(hidden), world.closing(client)), (Some(Close::Linger), Some(Close::Linger)));
    assert_eq!(why(&mut world), Some(EndReason::Done));
}

#[test]
fn a_hidden_server_s_clean_end_is_passed_on_and_the_client_may_go_on() {
    let mut world = world();
    let (hidden, client) = world.answered_pair(ID);
    world.end(hidden, End::Clean);
    assert_eq!(ends(&world, client), (true, None));
    world.write(client, "more");
    assert_eq!(world.take(hidden), "more");
    world.end(client, End::Clean);
    assert_eq!((world.closing(hidden), world.closing(client)), (Some(Close::Linger), Some(Close::Linger)));
    assert_eq!(why(&mut world), Some(EndReason::Done));
}

#[test]
fn an_end_is_passed_on_behind_the_last_byte() {
    let mut world = world();
    let (hidden, client) = world.answered_pair(ID);
    world.stall(client, true);
    world.write(hidden, "last words");
    world.end(hidden, End::Clean);
    assert_eq!(ends(&world, client), (false, None));
    world.stall(client, false);
    assert_eq!(ends(&world, client), (true, None));
}

#[test]
fn a_reset_crosses_from_either_side_and_is_never_a_clean_end() {
    let mut world = world();
    let (hidden, client) = world.answered_pair(ID);
    world.end(hidden, End::Reset);
    assert_eq!((world.closing(hidden), world.closing(client)), (Some(Close::Abort), Some(Close::Truncate)));
    assert_eq!(why(&mut world), Some(EndReason::Reset(Side::Hidden)));

    let (hidden, client) = world.pair(ID);
    world.end(client, End::Reset);
    assert_eq!((world.closing(hidden), world.closing(client)), (Some(Close::Truncate), Some(Close::Abort)));
    assert_eq!(why(&mut world), Some(EndReason::Reset(Side::Client)));
}

#[test]
fn a_truncation_is_never_made_a_clean_end() {
    let mut world = world();
    let (hidden, client) = world.answered_pair(ID);
    world.end(hidden, End::Truncated);
    assert_eq!(ends(&world, client), (false, Some(Close::Truncate)));
    assert_eq!(why(&mut world), Some(EndReason::Truncated(Side::Hidden)));

    let (hidden, client) = world.pair(ID);
    world.end(client, End::Truncated);
    assert_eq!(ends(&world, hidden), (false, Some(Close::Truncate)));
    assert_eq!(why(&mut world), Some(EndReason::Truncated(Side::Client)));
}

#[test]
fn a_client_that_breaks_off_behind_a_complete_answer_is_a_success() {
    for how in [End::Reset, End::Truncated] {
        let mut world = world();
        let (hidden, client) = world.answered_pair(ID);
        world.end(client, how);
        assert_eq!(world.closing(hidden), Some(Close::Truncate), "the hidden server sees what happened");
        assert_eq!(why(&mut world), Some(EndReason::Done), "{how:?}");

        // A response that the hidden server's end delimits.
        let (hidden, client) = world.pair(ID);
        world.write(hidden, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall");
        world.end(hidden, End::Clean);
        assert!(world.take(client).ends_with("all"));
        if world.is_open(client) {
            world.end(client, how);
        }
        assert_eq!(why(&mut world), Some(EndReason::Done), "{how:?}");
    }
}

#[test]
fn a_client_that_breaks_off_in_an_answer_is_no_success() {
    for (how, expected) in
        [(End::Reset, EndReason::Reset(Side::Client)), (End::Truncated, EndReason::Truncated(Side::Client))]
    {
        let mut world = world();
        let (hidden, client) = world.pair(ID);
        world.write(hidden, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhalf");
        assert!(world.take(client).ends_with("half"));
        world.end(client, how);
        assert_eq!(why(&mut world), Some(expected));

        // It was answered, but the response is still queued.
        let (hidden, client) = world.pair(ID);
        world.stall(client, true);
        world.write(hidden, ANSWER);
        world.end(client, how);
        assert_eq!(why(&mut world), Some(expected));
    }
}

#[test]
fn a_client_that_can_t_be_written_to_is_still_read_from_and_its_hidden_server_no_more() {
    let mut world = world();
    let (hidden, client) = world.answered_pair(ID);
    world.write_fails(client);
    assert!(world.is_open(hidden) && world.is_open(client));
    assert!(!world.wire(hidden).wanted, "nobody takes what it sends");
    world.write(client, "what was on its way");
    assert_eq!(world.take(hidden), "what was on its way");
    world.end(client, End::Reset);
    assert!(!world.is_open(hidden) && !world.is_open(client));
    assert_eq!(why(&mut world), Some(EndReason::Reset(Side::Client)));
}

#[test]
fn bytes_and_time_are_counted() {
    let mut world = world();
    let (hidden, client) = world.answered_pair(ID);
    world.write(client, "12345");
    world.wait_secs(2);
    world.end(client, End::Clean);
    world.end(hidden, End::Clean);
    let ended = world.take_events().pop();
    let expected = Event::PairEnded {
        hidden,
        client,
        from: Some("192.0.2.1:1000".parse().expect("an address")),
        id: ID,
        from_client: 5,
        from_hidden: ANSWER.len() as u64,
        after: Span::from_secs(2),
        why: EndReason::Done,
    };
    assert_eq!(ended, Some(expected));
}

#[test]
fn a_pair_that_idled_for_long_still_has_all_its_time_when_one_side_ends() {
    let mut world = world();
    let (hidden, client) = world.answered_pair(ID);
    world.wait_secs(3_600);
    world.end(client, End::Clean);
    world.wait_secs(59);
    assert!(world.is_open(hidden) && world.is_open(client));
    world.write(hidden, "at last");
    assert_eq!(world.take(client), "at last");
    world.wait_secs(59);
    assert!(world.is_open(client));
    world.wait_secs(2);
    assert_eq!(why(&mut world), Some(EndReason::HalfClosed));
}

#[test]
fn a_pair_that_idled_for_long_still_has_all_its_time_when_one_side_takes_no_more() {
    let mut world = world();
    let (hidden, client) = world.answered_pair(ID);
    world.wait_secs(3_600);
    world.write_fails(client);
    world.wait_secs(59);
    assert!(world.is_open(hidden) && world.is_open(client));
    world.wait_secs(1);
    assert!(!world.is_open(hidden) && !world.is_open(client));
}

#[test]
fn a_half_closed_pair_in_which_nothing_moves_is_closed_and_no_end_is_made_up() {
    let mut world = world();
    let (hidden, client) = world.answered_pair(ID);
    world.end(client, End::Clean);
    world.wait_secs(60);
    assert_eq!((world.closing(hidden), world.closing(client)), (Some(Close::Linger), Some(Close::Truncate)));
    assert_eq!(why(&mut world), Some(EndReason::HalfClosed));
}

#[test]
fn a_pair_of_many_turns_is_still_one_pair() {
    let mut world = world();
    let (hidden, client) = world.answered_pair(ID);
    for _ in 0..500 {
        world.write(client, "ping");
        world.write(hidden, "pong");
        world.wait_ms(700);
    }
    assert_eq!(world.got(hidden).len(), 2_000);
    assert_eq!(world.got(client).len(), 2_000);
    assert_eq!((world.engine.pairs(), world.engine.connections()), (1, 2));
}
