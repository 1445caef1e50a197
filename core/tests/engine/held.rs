//! Clients that are held until a connection waits again (docs/protocol.md §3.6).

use rendezvous_core::event::Event;
use rendezvous_core::machine::{Close, End};
use rendezvous_core::time::Span;

use crate::world::World;
use crate::{BUSY, GET, ID, NOBODY, OFFLINE, OTHER, STRANGER, both, config, get, post, world, world_with};

#[test]
fn while_all_connections_are_taken_a_client_is_held_for_the_next_one() {
    let mut world = world();
    world.pair(ID);
    world.take_events();
    let client = world.client_sends(get(ID));
    assert_eq!(world.take_events(), [Event::Held { on: client, id: ID }]);
    world.wait_ms(4_999);
    assert_eq!(world.got(client), "");
    let hidden = world.register(ID);
    assert_eq!((world.peer(client), world.got(hidden).as_str()), (Some(hidden), GET));
}

#[test]
fn first_come_first_served() {
    let mut world = world();
    world.pair(ID);
    let clients = [(); 4].map(|()| world.client_sends(get(ID)));
    for client in clients {
        let hidden = world.register(ID);
        assert_eq!(world.peer(hidden), Some(client));
    }
}

#[test]
fn whoever_is_held_for_another_id_is_not_served() {
    let mut world = world();
    world.pair(ID);
    let client = world.client_sends(get(ID));
    world.register(OTHER);
    assert_eq!(world.peer(client), None);
}

#[test]
fn nobody_came_in_time_is_503_for_each_at_its_own_time() {
    let mut world = world();
    world.pair(ID);
    let first = world.client_sends(get(ID));
    world.wait_secs(2);
    let second = world.client_sends(get(ID));
    world.wait_secs(3);
    world.assert_refused(first, "503 Service Unavailable", BUSY);
    assert!(world.is_open(second));
    let hidden = world.register(ID);
    assert_eq!(world.peer(hidden), Some(second));
}

#[test]
fn an_id_is_served_for_thirty_seconds_after_somebody_waited() {
    let mut world = world();
    let hidden = world.register(ID);
    world.wait_secs(100);
    world.end(hidden, End::Truncated);
    world.wait_ms(29_999);
    let client = world.client_sends(get(ID));
    assert!(world.is_open(client));
    world.wait_ms(1);
    let late = world.client_sends(get(ID));
    world.assert_refused(late, "404 Not Found", NOBODY);
    world.wait_ms(4_999);
    world.assert_refused(client, "404 Not Found", NOBODY);
}

#[test]
fn a_hidden_server_that_was_lost_is_offline_and_not_busy() {
    for how in [End::Truncated, End::Reset] {
        let mut world = world();
        let hidden = world.register(ID);
        world.end(hidden, how);
        let client = world.client_sends(get(ID));
        world.wait_ms(4_999);
        assert!(world.is_open(client));
        world.wait_ms(1);
        world.assert_refused(client, "503 Service Unavailable", OFFLINE);
    }
}

#[test]
fn a_hidden_server_that_left_in_order_is_absent_after_two_seconds() {
    let mut world = world();
    let pool = [(); 4].map(|()| world.register(ID));
    for hidden in pool {
        world.end(hidden, End::Clean);
    }
    let first = world.client_sends(get(ID));
    world.wait_ms(1_999);
    assert!(world.is_open(first));
    let second = world.client_sends(get(ID));
    world.wait_ms(1);
    for client in [first, second] {
        world.assert_refused(client, "404 Not Found", NOBODY);
    }
    let late = world.client_sends(get(ID));
    world.assert_refused(late, "404 Not Found", NOBODY);
    let stranger = world.client_sends(get(STRANGER));
    assert_eq!(world.got(late), world.got(stranger));
}

#[test]
fn a_hidden_server_that_comes_back_within_two_seconds_was_never_away() {
    let mut world = world();
    let hidden = world.register(ID);
    world.end(hidden, End::Clean);
    let client = world.client_sends(get(ID));
    world.wait_ms(1_900);
    let hidden = world.register(ID);
    assert_eq!(world.peer(hidden), Some(client));
}

#[test]
fn a_hidden_server_that_replaces_one_connection_of_several_is_there() {
    let mut world = world();
    let (old, kept) = (world.register(ID), world.register(ID));
    world.end(old, End::Clean);
    world.wait_secs(10);
    let client = world.client_sends(get(ID));
    assert_eq!(world.peer(client), Some(kept));
    // The one that stayed was taken: it is busy, and clients are held as usual.
    let next = world.client_sends(get(ID));
    world.wait_secs(5);
    world.assert_refused(next, "503 Service Unavailable", BUSY);
}

#[test]
fn while_an_agent_drains_clients_are_held_for_the_one_that_follows() {
    let mut world = world();
    let (hidden, client) = world.answered_pair(ID);
    let spare = world.register(ID);
    world.end(spare, End::Clean);
    world.wait_secs(60);
    let held = world.client_sends(get(ID));
    world.wait_ms(4_999);
    assert!(world.is_open(held));
    world.wait_ms(1);
    world.assert_refused(held, "503 Service Unavailable", OFFLINE);
    // Its last pair has ended: the two seconds begin.
    world.end(hidden, End::Clean);
    world.end(client, End::Clean);
    let held = world.client_sends(get(ID));
    world.wait_ms(1_999);
    assert!(world.is_open(held));
    world.wait_ms(1);
    world.assert_refused(held, "404 Not Found", NOBODY);
}

#[test]
fn after_a_relay_s_start_nobody_is_called_busy_whom_it_has_not_seen() {
    let mut world = World::just_started(config(), both());
    let client = world.client_sends(get(ID));
    world.wait_secs(5);
    world.assert_refused(client, "503 Service Unavailable", OFFLINE);
}

#[test]
fn an_id_is_served_for_as_long_as_it_has_a_pair_and_thirty_seconds_after_it_met() {
    let mut world = world();
    let (hidden, client) = world.answered_pair(ID);
    world.wait_secs(3_600);
    let held = world.client_sends(get(ID));
    assert!(world.is_open(held));
    world.end(held, End::Reset);
    world.end(hidden, End::Clean);
    world.end(client, End::Clean);
    world.wait_secs(5);
    let late = world.client_sends(get(ID));
    world.assert_refused(late, "404 Not Found", NOBODY);
}

#[test]
fn a_relay_that_just_started_holds_for_every_enrolled_id_and_for_no_other() {
    let mut world = World::just_started(config(), both());
    world.wait_ms(29_999);
    let client = world.client_sends(get(ID));
    assert!(world.is_open(client));
    let stranger = world.client_sends(get(STRANGER));
    world.assert_refused(stranger, "404 Not Found", NOBODY);
    world.wait_ms(1);
    let late = world.client_sends(get(OTHER));
    world.assert_refused(late, "404 Not Found", NOBODY);
    let hidden = world.register(ID);
    assert_eq!(world.peer(client), Some(hidden));
}

#[test]
fn of_a_held_client_nothing_more_is_read_and_what_came_goes_behind_the_head() {
    let mut world = world();
    world.pair(ID);
    let request = post(ID, "0123456789");
    let (head, body) = request.split_at(request.len() - 10);
    let client = world.client_sends(format!("{head}01234"));
    assert!(!world.wire(client).wanted);
    world.write(client, "56789");
    assert_eq!(world.wire(client).unread, body.as_bytes());
    let hidden = world.register(ID);
    assert!(world.wire(client).wanted);
    assert_eq!(world.got(hidden), request.replace(&crate::credential(ID), ""));
}

#[test]
fn a_held_client_that_ended_its_side_gets_its_answer_and_the_hidden_server_the_end() {
    for at_once in [false, true] {
        let mut world = world();
        world.pair(ID);
        let client = world.client_sends(get(ID));
        if at_once {
            world.end_at_once(client, End::Clean)
        } else {
            world.end(client, End::Clean)
        }
        assert!(world.is_open(client));
        let hidden = world.register(ID);
        assert_eq!(world.got(hidden), GET);
        assert!(world.wire(hidden).write_ended);
        world.write(hidden, crate::ANSWER);
        world.end(hidden, End::Clean);
        assert_eq!((world.got(client).as_str(), world.closing(client)), (crate::ANSWER, Some(Close::Linger)));
    }
}

#[test]
fn a_held_client_s_end_goes_out_behind_the_head_and_not_before() {
    let mut world = world();
    world.pair(ID);
    let client = world.client_sends(get(ID));
    world.end_at_once(client, End::Clean);
    let hidden = world.open();
    world.stall(hidden, true);
    let head = crate::bound_connect(ID, world.now.wall, "0123456789abcdef");
    world.write(hidden, head);
    assert_eq!(world.peer(client), Some(hidden));
    assert!(!world.wire(hidden).write_ended);
    world.stall(hidden, false);
    assert!(world.wire(hidden).write_ended);
}

#[test]
fn a_held_client_that_went_away_is_not_served() {
    // A truncated stream may be one whose peer broke TLS: the alert arrives.
    for (how, close) in [(End::Reset, Close::Abort), (End::Truncated, Close::Linger)] {
        let mut world = world();
        world.pair(ID);
        let (gone, next) = (world.client_sends(get(ID)), world.client_sends(get(ID)));
        world.end_at_once(gone, how);
        assert_eq!(world.closing(gone), Some(close));
        let hidden = world.register(ID);
        assert_eq!(world.peer(hidden), Some(next));
    }
}

#[test]
fn a_held_client_that_can_t_be_written_to_is_not_served() {
    let mut world = world();
    world.pair(ID);
    let client = world.client_sends(get(ID));
    world.write_fails(client);
    let hidden = world.register(ID);
    assert!(!world.is_open(client) && world.peer(hidden).is_none());
}

#[test]
fn as_many_are_held_as_the_limit_says() {
    let mut world = world_with(|config| config.held_per_id_max = 2);
    world.pair(ID);
    let held = [(); 2].map(|()| world.client_sends(get(ID)));
    let third = world.client_sends(get(ID));
    world.assert_refused(third, "503 Service Unavailable", BUSY);
    assert!(held.iter().all(|on| world.is_open(*on)));
    // The limit is that of an ID, not of the relay.
    world.pair(OTHER);
    let other = world.client_sends(get(OTHER));
    assert!(world.is_open(other));
}

#[test]
fn where_holding_is_off_the_answer_comes_at_once() {
    let mut world = world_with(|config| config.hold = Span::ZERO);
    world.pair(ID);
    let client = world.client_sends(get(ID));
    world.assert_refused(client, "503 Service Unavailable", BUSY);
}

#[test]
fn a_503_to_head_has_no_body() {
    let mut world = world();
    world.pair(ID);
    let client = world.client_sends(get(ID).replace("GET", "HEAD"));
    world.wait_secs(5);
    let extra = "Retry-After: 5\r\nConnection: close\r\n";
    let whole = world.answer("503 Service Unavailable", extra, false, BUSY);
    assert_eq!(Some(world.got(client).as_str()), whole.split('{').next());
}

#[test]
fn a_client_that_comes_later_does_not_pass_one_that_is_held() {
    let mut world = world();
    let plain = world.register_plain(ID);
    let (first, second) = (world.client_sends(get(ID)), world.client_sends(get(ID)));
    world.wait_ms(100);
    assert_eq!(world.peer(plain), Some(first));
    let hidden = world.register(ID);
    assert_eq!(world.peer(hidden), Some(second));
}
