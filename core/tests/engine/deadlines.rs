//! Every state that is not idle has a deadline, and its effect.

use rendezvous_core::event::Event;
use rendezvous_core::machine::{Close, End, TlsFailure};
use rendezvous_core::pair::{EndReason, Side};
use rendezvous_core::time::Span;

use crate::{ANSWER, ID, get, world, world_with};

const ASK: &str = "GET / HTTP/1.1\r\nHost: relay\r\n\r\n";

#[test]
fn a_tls_handshake_has_ten_seconds() {
    let mut world = world();
    let on = world.open_on(1, "192.0.2.1:1000");
    assert!(world.wire(on).securing);
    world.wait_ms(9_999);
    assert!(world.is_open(on));
    world.wait_ms(1);
    assert_eq!(world.closing(on), Some(Close::Abort));
}

#[test]
fn a_tls_handshake_that_fails_closes_and_is_noted_once() {
    let mut world = world();
    let from = "192.0.2.1:1000".parse().ok();
    let on = world.open_on(1, "192.0.2.1:1000");
    let why = TlsFailure::Protocol;
    world.not_secured(on, why);
    assert!(!world.is_open(on));
    assert_eq!(world.take_events(), [Event::TlsFailed { on, from, upstream: None, why }]);

    let late = world.open_on(1, "192.0.2.1:1000");
    world.wait_secs(10);
    world.take_events();
    world.not_secured(late, why);
    assert_eq!(world.take_events(), [], "it was given up before");
}

#[test]
fn after_the_tls_handshake_a_head_has_ten_seconds_again() {
    let mut world = world();
    let on = world.open_on(1, "192.0.2.1:1000");
    world.wait_secs(9);
    world.secured(on);
    world.wait_ms(9_999);
    world.write(on, ASK);
    assert!(world.was_challenged(on));
}

#[test]
fn who_sends_nothing_is_closed_without_a_word() {
    let mut world = world();
    let on = world.open();
    world.wait_ms(9_999);
    assert!(world.is_open(on));
    world.wait_ms(1);
    assert_eq!((world.got(on).as_str(), world.closing(on)), ("", Some(Close::Linger)));
}

#[test]
fn a_head_that_does_not_arrive_in_time_is_408() {
    let mut world = world();
    let on = world.open();
    world.wait_secs(9);
    world.write(on, "G");
    for byte in ["E", "T", " ", "/", " ", "H", "T", "T", "P"] {
        world.wait_secs(1);
        world.write(on, byte);
        assert!(world.is_open(on));
    }
    world.wait_secs(1);
    world.assert_refused(on, "408 Request Timeout", "the request's head did not arrive in time");
}

#[test]
fn a_kept_connection_is_idle_for_a_minute_and_a_head_on_it_has_ten_seconds() {
    let mut world = world();
    let on = world.client_sends(ASK);
    assert!(world.was_challenged(on));
    world.wait_ms(59_999);
    world.write(on, "GET");
    world.wait_ms(9_999);
    assert!(world.is_open(on));
    world.wait_ms(1);
    world.assert_refused(on, "408 Request Timeout", "the request's head did not arrive in time");

    let on = world.client_sends(ASK);
    assert!(world.was_challenged(on));
    world.wait_secs(60);
    assert_eq!((world.got(on).as_str(), world.closing(on)), ("", Some(Close::Linger)));
}

#[test]
fn an_answer_that_is_not_taken_has_ten_seconds() {
    let mut world = world();
    let on = world.open();
    world.stall(on, true);
    world.write(on, ASK);
    world.wait_ms(9_999);
    assert!(world.is_open(on));
    world.wait_ms(1);
    assert_eq!(world.closing(on), Some(Close::Abort));
}

#[test]
fn a_200_that_is_not_taken_has_ten_seconds() {
    for plain in [false, true] {
        let mut world = world();
        let on = world.open();
        world.stall(on, true);
        let wall = world.now.wall;
        let bound = crate::bound_connect(ID, wall, "0123456789abcdef");
        world.write(on, if plain { crate::plain_connect(ID, wall) } else { bound });
        world.wait_ms(9_999);
        assert!(world.is_open(on));
        world.wait_ms(1);
        assert!(!world.is_open(on));
    }
}

#[test]
fn the_body_of_a_challenged_request_has_ten_seconds() {
    let mut world = world();
    let on = world.client_sends("POST / HTTP/1.1\r\nHost: relay\r\nContent-Length: 10\r\n\r\n12345");
    assert!(world.was_challenged(on));
    world.wait_ms(9_999);
    assert!(world.is_open(on));
    world.wait_ms(1);
    assert_eq!(world.closing(on), Some(Close::Linger));
}

#[test]
fn the_body_of_a_challenged_request_may_be_slow_but_not_stand_still() {
    let mut world = world();
    let on = world.client_sends("POST / HTTP/1.1\r\nHost: relay\r\nContent-Length: 65536\r\n\r\n");
    assert!(world.was_challenged(on));
    for _ in 0..7 {
        world.wait_ms(9_900);
        world.write(on, [b'x'; 8 << 10]);
        assert!(world.is_open(on));
    }
    // Less than a step does not restart the timeout.
    world.wait_secs(5);
    world.write(on, [b'x'; 8_000]);
    world.wait_ms(4_999);
    assert!(world.is_open(on));
    world.wait_ms(1);
    assert_eq!(world.closing(on), Some(Close::Linger));
}

#[test]
fn a_large_body_of_a_refused_request_is_read_to_its_end_at_a_mbit_a_second() {
    let mut world = world();
    let on = world.client_sends("POST / HTTP/1.1\r\nHost: relay\r\nContent-Length: 41943040\r\n\r\n");
    assert!(!world.was_challenged(on));
    for _ in 0..320 {
        world.wait_secs(1);
        assert!(!world.wire(on).closed);
        world.write(on, [b'x'; 128 << 10]);
    }
    world.end(on, End::Clean);
    assert!(world.wire(on).closed);
}

#[test]
fn a_refused_peer_that_drips_is_closed_after_thirty_seconds() {
    let mut world = world();
    let on = world.client_sends("POST / HTTP/1.1\r\nHost: relay\r\nContent-Length: 41943040\r\n\r\n");
    // Fast at first, which restarts one window only.
    world.write(on, vec![b'x'; 4 << 20]);
    for _ in 0..29 {
        world.wait_secs(1);
        assert!(!world.wire(on).closed);
        world.write(on, [b'x'; 8_000]);
    }
    world.wait_secs(1);
    assert!(world.wire(on).closed);
}

#[test]
fn a_refused_peer_that_never_ends_is_closed_after_half_an_hour() {
    let mut world = world();
    let on = world.client_sends("POST / HTTP/1.1\r\nHost: relay\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..1_799 {
        world.wait_secs(1);
        assert!(!world.wire(on).closed);
        world.write(on, [b'x'; 16 << 10]);
    }
    world.wait_secs(1);
    assert!(world.wire(on).closed);
}

#[test]
fn a_refused_peer_that_says_nothing_more_is_waited_for_for_five_seconds() {
    let mut world = world();
    let on = world.client_sends("rubbish\r\n");
    assert_eq!(world.closing(on), Some(Close::Linger));
    world.wait_ms(4_999);
    assert!(!world.wire(on).closed);
    world.wait_ms(1);
    assert!(world.wire(on).closed);
}

#[test]
fn a_refused_peer_that_goes_on_is_listened_to_for_thirty_seconds() {
    let mut world = world();
    let on = world.client_sends("POST / HTTP/1.1\r\nHost: relay\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert!(!world.was_challenged(on));
    for _ in 0..7 {
        world.wait_ms(4_200);
        assert!(!world.wire(on).closed);
        world.write(on, "5\r\nabcde\r\n");
    }
    world.wait_ms(599);
    assert!(!world.wire(on).closed);
    world.wait_ms(1);
    assert!(world.wire(on).closed);
}

#[test]
fn a_cut_side_has_five_seconds_to_take_what_is_queued_whatever_it_sends() {
    let mut world = world();
    let (hidden, client) = world.answered_pair(ID);
    world.end(hidden, End::Reset);
    assert_eq!(world.closing(client), Some(Close::Truncate));
    for _ in 0..4 {
        world.wait_secs(1);
        world.write(client, "more and more");
    }
    assert!(!world.wire(client).closed);
    world.wait_secs(1);
    assert!(world.wire(client).closed);
}

#[test]
fn a_pair_in_which_nothing_moves_stays_for_ever_where_the_operator_set_no_limit() {
    let mut world = world();
    let (hidden, client) = world.answered_pair(ID);
    world.wait_secs(7 * 24 * 3_600);
    assert!(world.is_open(hidden) && world.is_open(client));
    assert_eq!(world.deadline, None);
}

#[test]
fn a_pair_in_which_nothing_moves_is_closed_after_the_operator_s_limit() {
    let mut world = world_with(|config| config.pair.idle = Some(Span::from_secs(600)));
    let (hidden, client) = world.answered_pair(ID);
    world.wait_secs(599);
    world.write(client, "x");
    world.wait_secs(599);
    assert!(world.is_open(hidden) && world.is_open(client));
    world.wait_secs(1);
    assert_eq!(
        (world.closing(hidden), world.closing(client)),
        (Some(Close::Truncate), Some(Close::Truncate))
    );
    let why = world.take_events().into_iter().find_map(|event| match event {
        Event::PairEnded { why, .. } => Some(why),
        _ => None,
    });
    assert_eq!(why, Some(EndReason::Idle));
}

#[test]
fn it_is_asked_once_in_ten_seconds_whether_what_was_sent_was_acknowledged() {
    let mut world = world();
    let (hidden, client) = world.answered_pair(ID);
    world.wait_ms(9_999);
    assert_eq!(world.checks, []);
    world.wait_ms(1);
    world.checks.sort();
    assert_eq!(world.checks, [hidden, client]);
    world.wait_secs(3_600);
    assert_eq!(world.checks.len(), 2, "both owe nothing any more");
    world.ages.insert(hidden, Span::from_secs(1));
    world.write(client, "x");
    world.wait_secs(100);
    assert_eq!(world.checks.len(), 12, "as long as it owes, it is asked again");
}

#[test]
fn a_peer_that_acknowledges_nothing_for_thirty_seconds_is_dead() {
    let mut world = world();
    let (hidden, client) = world.answered_pair(ID);
    world.ages.insert(client, Span::from_millis(29_999));
    world.wait_secs(10);
    assert!(world.is_open(client));
    world.ages.insert(client, Span::from_secs(30));
    world.wait_secs(10);
    assert_eq!((world.closing(hidden), world.closing(client)), (Some(Close::Truncate), Some(Close::Abort)));
    let ended = world.take_events().into_iter().find_map(|event| match event {
        Event::PairEnded { why, .. } => Some(why),
        _ => None,
    });
    assert_eq!(ended, Some(EndReason::Unreachable(Side::Client)));
}

#[test]
fn a_reader_that_is_slow_and_acknowledges_is_never_given_up() {
    let mut world = world();
    let (hidden, client) = world.answered_pair(ID);
    world.stall(client, true);
    world.write(hidden, ANSWER);
    world.ages.insert(client, Span::from_secs(2));
    world.wait_secs(24 * 3_600);
    assert!(world.is_open(hidden) && world.is_open(client));
    world.ages.remove(&client);
}

#[test]
fn a_request_that_does_not_even_leave_is_looked_after_as_well() {
    let mut world = world();
    let hidden = world.register(ID);
    world.stall(hidden, true);
    let client = world.client_sends(get(ID));
    assert_eq!(world.peer(client), Some(hidden));
    world.ages.insert(hidden, Span::from_secs(30));
    world.wait_secs(5);
    world.assert_refused(client, "503 Service Unavailable", crate::OFFLINE);
}

#[test]
fn a_held_client_is_told_after_five_seconds_and_waits_no_longer() {
    let mut world = world();
    world.pair(ID);
    let client = world.client_sends(get(ID));
    world.wait_ms(4_999);
    assert!(world.is_open(client) && world.got(client).is_empty());
    world.wait_ms(1);
    world.assert_refused(client, "503 Service Unavailable", crate::BUSY);
}

#[test]
fn early_late_and_spurious_calls_do_no_harm() {
    use rendezvous_core::machine::Machine;
    let mut world = world();
    let on = world.open();
    for _ in 0..3 {
        world.engine.handle_timeout(world.now);
        world.run();
    }
    assert!(world.is_open(on));
    // No call was made for an hour.
    world.now.mono = world.now.mono + Span::from_secs(3_600);
    world.engine.handle_timeout(world.now);
    world.run();
    assert!(!world.is_open(on));
}

#[test]
fn a_request_in_clear_has_the_time_of_the_handshake_it_stands_for() {
    let mut world = world();
    let on = world.open_on(1, "192.0.2.1:1000");
    world.wait_secs(6);
    world.not_secured(on, TlsFailure::PlainHttp);
    world.write(on, "GET / HTTP/1.1\r\nHost: re");
    world.wait_ms(3_999);
    assert!(world.is_open(on) && world.got(on).is_empty());
    world.wait_ms(1);
    assert_eq!(world.closing(on), Some(Close::Abort));
}

#[test]
fn a_request_in_clear_is_redirected_and_noted_as_what_it_is() {
    let mut world = world();
    let on = world.open_on(1, "192.0.2.1:1000");
    world.not_secured(on, TlsFailure::PlainHttp);
    world.write(on, "GET /x HTTP/1.1\r\nHost: relay\r\n\r\nbehind");
    assert!(world.got(on).contains("\r\nLocation: https://relay/x\r\n"), "{}", world.got(on));
    assert_eq!(world.closing(on), Some(Close::Linger));
    let from = "192.0.2.1:1000".parse().ok();
    assert_eq!(
        world.take_events(),
        [Event::TlsFailed { on, from, upstream: None, why: TlsFailure::PlainHttp }]
    );
}
