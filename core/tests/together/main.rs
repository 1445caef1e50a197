//! Relay, agent and connector against each other, in memory: whole rendezvous, byte for byte.

mod world;

#[allow(dead_code, reason = "shared with other tests")]
#[path = "../common/driver.rs"]
mod driver;

use rendezvous_core::connector::Outcome;
use rendezvous_core::event::ConnectFailure;
use rendezvous_core::machine::End;
use rendezvous_core::pair::{EndReason, Side};
use rendezvous_core::time::Span;

use world::{Hand, ID, World};

const REQUEST: &str = "GET /page HTTP/1.1\r\nhOsT:  relay \r\nX: 1\r\nX: 2\r\n\r\n";
const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

/// The request as it is sent to the relay, with the field that names the hidden server.
fn with_credentials(request: &str) -> String {
    let field = format!("\r\nAuthorization: Digest username=\"{ID}\", realm=\"rendezvous\"\r\nX: 1");
    request.replacen("\r\nX: 1", &field, 1)
}

fn request(world: &mut World, request: &str) -> Hand {
    let client = world.client();
    world.send(client, with_credentials(request).as_bytes());
    client
}

#[test]
fn a_request_reaches_the_hidden_server_byte_for_byte_and_its_answer_the_client() {
    for most in [usize::MAX, 100, 1] {
        let mut world = World::new(most, 0);
        assert_eq!(world.agent.machine.waiting(0), 4);
        let client = request(&mut world, REQUEST);
        let hidden = world.http[0];
        assert_eq!(world.received(hidden), REQUEST);
        world.send(hidden, ANSWER.as_bytes());
        assert_eq!(world.received(client), ANSWER);
        assert_eq!(world.agent.machine.waiting(0), 4, "the pool is full again");
    }
}

#[test]
fn a_body_that_comes_with_the_head_or_later_is_behind_it() {
    for most in [usize::MAX, 7] {
        let mut world = World::new(most, 0);
        let head = "POST / HTTP/1.1\r\nHost: relay\r\nX: 1\r\nContent-Length: 10\r\n\r\n";
        let client = request(&mut world, &format!("{head}01234"));
        world.send(client, b"56789");
        assert_eq!(world.received(world.http[0]), format!("{head}0123456789"));
    }
}

#[test]
fn a_half_close_is_passed_on_and_the_answer_still_comes() {
    for most in [usize::MAX, 1] {
        let mut world = World::new(most, 0);
        let client = request(&mut world, REQUEST);
        world.end(client, End::Clean);
        let hidden = world.http[0];
        assert_eq!(world.received(hidden), REQUEST);
        assert_eq!((world.ended(hidden), world.ended(client)), (Some(End::Clean), None));
        world.send(hidden, ANSWER.as_bytes());
        world.end(hidden, End::Clean);
        assert_eq!(world.received(client), ANSWER);
        assert_eq!(world.ended(client), Some(End::Clean));
        assert_eq!(world.ends(), [EndReason::Done]);
        assert_eq!((world.relay.machine.pairs(), world.agent.machine.pairs()), (0, 0));
        assert_eq!(world.agent.machine.connections(), 4);
    }
}

#[test]
fn a_client_that_says_all_at_once_and_ends_is_answered() {
    let mut world = World::new(usize::MAX, 0);
    let client = world.client();
    world.send_all(client, with_credentials(REQUEST).as_bytes());
    let hidden = world.http[0];
    assert_eq!(world.received(hidden), REQUEST);
    assert_eq!(world.ended(hidden), Some(End::Clean));
    world.send(hidden, ANSWER.as_bytes());
    world.end(hidden, End::Clean);
    assert_eq!(world.received(client), ANSWER);
}

#[test]
fn a_reset_crosses_and_is_no_clean_end() {
    let mut world = World::new(usize::MAX, 0);
    let client = request(&mut world, REQUEST);
    let hidden = world.http[0];
    world.send(hidden, b"HTTP/1.1 200 OK\r\n\r\nhalf of");
    world.end(hidden, End::Reset);
    assert_eq!(world.received(client), "HTTP/1.1 200 OK\r\n\r\nhalf of");
    assert!(matches!(world.ended(client), Some(End::Truncated | End::Reset)));
    assert_eq!(world.ends(), [EndReason::Reset(Side::Hidden)]);
}

#[test]
fn twenty_clients_at_once_are_all_served_by_a_pool_of_four() {
    let mut world = World::new(usize::MAX, 0);
    let clients: Vec<Hand> = (0..20).map(|_| request(&mut world, REQUEST)).collect();
    assert_eq!(world.http.len(), 20);
    for hidden in world.http.clone() {
        world.send(hidden, ANSWER.as_bytes());
        world.end(hidden, End::Clean);
    }
    for client in clients {
        assert_eq!(world.received(client), ANSWER);
    }
}

#[test]
fn a_connector_carries_a_stream_both_ways_and_its_ends() {
    for most in [usize::MAX, 1] {
        let mut world = World::new(most, 0);
        let program = world.local_program();
        // The client sends first, before it is connected.
        world.send(program, b"SSH-2.0-client\r\n");
        let hidden = world.stream[0];
        assert_eq!(world.received(hidden), "SSH-2.0-client\r\n");
        world.send(hidden, b"SSH-2.0-server\r\n");
        assert_eq!(world.received(program), "SSH-2.0-server\r\n");
        world.end(program, End::Clean);
        assert_eq!((world.ended(hidden), world.ended(program)), (Some(End::Clean), None));
        world.send(hidden, b"the rest");
        world.end(hidden, End::Clean);
        assert_eq!(world.received(program), "the rest");
        assert_eq!(world.ended(program), Some(End::Clean));
        assert_eq!(world.connector.machine.last(), Some(Outcome::Ended(EndReason::Done)));
        assert!(world.http.is_empty());
    }
}

#[test]
fn a_connector_whose_input_has_ended_already_is_served() {
    let mut world = World::new(usize::MAX, 0);
    world.kill_relay();
    world.start_relay();
    let program = world.local_program();
    world.send_all(program, b"all of it");
    assert!(world.stream.is_empty(), "the agent is not back yet");
    world.wait(Span::from_secs(2));
    let hidden = world.stream[0];
    assert_eq!(world.received(hidden), "all of it");
    assert_eq!(world.ended(hidden), Some(End::Clean));
}

#[test]
fn a_connector_to_a_service_that_is_down_sees_a_502_and_an_http_client_too() {
    let mut world = World::new(usize::MAX, 0);
    world.services_up = false;
    let program = world.local_program();
    world.run();
    assert_eq!(world.connector.machine.last(), Some(Outcome::Failed(ConnectFailure::Refused(502))));
    assert_eq!(world.ended(program), Some(End::Reset), "no clean end");
    let client = request(&mut world, REQUEST);
    assert!(world.received(client).starts_with("HTTP/1.1 502 Bad Gateway\r\n"));
    assert_eq!(world.ended(client), Some(End::Clean));
}

#[test]
fn a_connector_to_a_hidden_server_that_is_away_sees_a_404_or_a_503() {
    let mut world = World::new(usize::MAX, 0);
    world.drain_agent();
    world.wait(Span::from_secs(60));
    world.local_program();
    world.run();
    assert_eq!(world.connector.machine.last(), Some(Outcome::Failed(ConnectFailure::Refused(404))));
    assert!(world.agent.machine.is_done());
}

#[test]
fn an_agent_whose_clock_is_years_off_serves() {
    for skew in [-7_200, 7_200, -30 * 365 * 86_400, 100 * 365 * 86_400] {
        let mut world = World::new(usize::MAX, skew);
        assert_eq!(world.agent.machine.waiting(0), 4, "at once");
        world.wait(Span::from_secs(600));
        let client = request(&mut world, REQUEST);
        world.send(world.http[0], ANSWER.as_bytes());
        assert_eq!(world.received(client), ANSWER);
        assert_eq!(world.agent.machine.waiting(0), 4);
    }
}

#[test]
fn a_restarted_relay_holds_its_clients_until_the_agent_is_back() {
    let mut world = World::new(usize::MAX, 0);
    world.wait(Span::from_secs(3_600));
    world.kill_relay();
    assert_eq!(world.agent.machine.waiting(0), 0);
    world.wait(Span::from_millis(300));
    world.start_relay();
    let client = request(&mut world, REQUEST);
    world.wait(Span::from_secs(1));
    assert_eq!(world.agent.machine.waiting(0), 4);
    assert_eq!(world.received(world.http[0]), REQUEST);
    world.send(world.http[0], ANSWER.as_bytes());
    assert_eq!(world.received(client), ANSWER);
}

#[test]
fn a_draining_agent_lets_its_pair_end() {
    let mut world = World::new(usize::MAX, 0);
    let client = request(&mut world, REQUEST);
    world.drain_agent();
    assert!(!world.agent.machine.is_done());
    let hidden = world.http[0];
    world.send(hidden, ANSWER.as_bytes());
    world.end(hidden, End::Clean);
    world.end(client, End::Clean);
    assert_eq!(world.received(client), ANSWER);
    assert!(world.agent.machine.is_done());
}
