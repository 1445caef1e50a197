//! Another process takes over from the relay.

use rendezvous_core::engine::{Quiet, TakeOver};
use rendezvous_core::event::{Event, WaitingEnd};
use rendezvous_core::machine::{Close, ConnId, End};
use rendezvous_core::registry::UsedToken;
use rendezvous_core::time::Span;

use crate::world::World;
use crate::{ANSWER, ID, OK, OTHER, both, bound_connect, config, enrolled, get, plain_connect, world};

const TAKEN_OVER: &str = "another process of this relay has taken over: connect again";
const STOPPING: &str = "the relay is shutting down";
const NONCE: &str = "0123456789abcdef";
const CHALLENGED: &str = "GET / HTTP/1.1\r\nHost: relay\r\n\r\n";

impl World {
    fn assert_sent_away(&mut self, on: ConnId) {
        let fields = "Retry-After: 1\r\nConnection: close\r\n";
        let answer = self.answer("503 Service Unavailable", fields, false, TAKEN_OVER);
        assert_eq!(self.got(on), answer);
    }

    /// All tokens that the relay remembers, in pieces of two.
    fn used_tokens(&self) -> Vec<UsedToken> {
        let (mut all, mut from) = (Vec::new(), Some(0));
        while let Some(at) = from {
            let (tokens, next) = self.engine.used_tokens(at, 2, self.now);
            assert!(tokens.len() <= 2);
            all.extend(tokens);
            from = next;
        }
        all
    }
}

#[test]
fn a_relay_is_frozen_when_no_request_is_on_its_way_and_no_client_is_held() {
    let mut world = world();
    let quiet = |world: &World, paused, attempt| world.engine.quiet(Span::from_millis(paused), attempt);
    assert_eq!((quiet(&world, 49, 1), quiet(&world, 50, 1)), (Quiet::Wait, Quiet::Freeze));
    // A client over a distant path, or a slow stranger.
    let client = world.client_sends("GET / HT");
    assert_eq!((quiet(&world, 499, 1), quiet(&world, 500, 1)), (Quiet::Wait, Quiet::Freeze));
    world.end(client, End::Reset);
    assert_eq!(quiet(&world, 50, 1), Quiet::Freeze);
    // A client that is held until its hidden server is back, for which connections must be accepted.
    world.pair(ID);
    world.client_sends(get(ID));
    assert_eq!((quiet(&world, 599, 1), quiet(&world, 600, 9)), (Quiet::Wait, Quiet::Resume));
    let may_quiet =
        |world: &World, resumed, attempt| world.engine.may_quiet(Span::from_millis(resumed), attempt);
    assert!(!may_quiet(&world, 1_999, 1) && may_quiet(&world, 2_000, 1));
    assert_eq!(quiet(&world, 600, 10), Quiet::Freeze, "not for ever");
    world.register(ID);
    assert!(!may_quiet(&world, 599, 3) && may_quiet(&world, 600, 3));
}

#[test]
fn a_frozen_relay_accepts_no_registration_and_serves_clients() {
    let mut world = world();
    let waiting = world.register(ID);
    world.take_over(TakeOver::Freeze);
    let late = world.client_sends(bound_connect(ID, world.now.wall, NONCE));
    world.assert_sent_away(late);
    let client = world.client_sends(get(ID));
    assert_eq!(world.peer(client), Some(waiting));
    let held = world.client_sends(get(ID));
    assert!(world.is_open(held) && world.got(held).is_empty());
}

#[test]
fn a_relay_whose_take_over_failed_accepts_the_token_that_it_did_not_check() {
    let mut world = world();
    world.take_over(TakeOver::Freeze);
    let connect = bound_connect(ID, world.now.wall, NONCE);
    let refused = world.client_sends(&connect);
    world.assert_sent_away(refused);
    world.take_over(TakeOver::Cancel);
    let again = world.client_sends(&connect);
    assert_eq!(world.take(again), OK);
    world.take_over(TakeOver::Cancel);
    assert!(!world.engine.is_draining());
}

#[test]
fn a_token_used_at_one_process_is_refused_at_the_other() {
    let (mut old, mut new) = (world(), world());
    let connect = bound_connect(ID, old.now.wall, NONCE);
    let accepted = old.client_sends(&connect);
    assert_eq!(old.take(accepted), OK);
    for _ in 0..4 {
        old.register(OTHER);
    }
    old.take_over(TakeOver::Freeze);
    let tokens = old.used_tokens();
    assert_eq!(tokens.len(), 5);
    new.engine.handle_used_tokens(&tokens, new.now);
    new.engine.handle_used_tokens(&tokens, new.now);
    assert_eq!(new.engine.snapshot(new.now).tokens, 5, "each once");
    let again = new.client_sends(&connect);
    new.assert_refused(again, "401 Unauthorized", "not authorized");
    let fresh = new.client_sends(bound_connect(ID, new.now.wall, "another-nonce-of-it"));
    assert_eq!(new.take(fresh), OK);
    old.take_over(TakeOver::Retire);
    let back = old.client_sends(bound_connect(ID, old.now.wall, "another-nonce-of-it"));
    old.assert_sent_away(back);
}

#[test]
fn expired_tokens_and_those_of_unknown_ids_are_not_copied() {
    let mut old = world();
    old.register(ID);
    old.register(OTHER);
    let tokens = old.used_tokens();
    let mut new = World::new(config(), vec![enrolled(ID, &[])]);
    new.engine.handle_used_tokens(&tokens, new.now);
    assert_eq!(new.engine.snapshot(new.now).tokens, 1);
    old.wait_secs(90);
    assert!(old.used_tokens().is_empty());
    let mut late = World::new(config(), both());
    late.wait_secs(90);
    late.engine.handle_used_tokens(&tokens, late.now);
    assert_eq!(late.engine.snapshot(late.now).tokens, 0);
}

#[test]
fn waiting_connections_are_released_the_oldest_of_each_id_first_and_pairs_go_on() {
    let mut world = world();
    let (hidden, client) = world.pair(ID);
    let waiting = [world.register(ID), world.register(ID), world.register(OTHER)];
    world.take_events();
    world.take_over(TakeOver::Retire);
    assert!(waiting.iter().all(|on| world.is_open(*on)), "one after the other");
    world.wait_ms(100);
    assert_eq!(waiting.map(|on| world.closing(on)), [Some(Close::Linger); 3]);
    let ended = world.take_events().into_iter().filter_map(|event| match event {
        Event::WaitingEnded { on, why: WaitingEnd::Drained, .. } => Some(on),
        _ => None,
    });
    assert_eq!(ended.collect::<Vec<_>>(), [waiting[0], waiting[2], waiting[1]]);
    world.wait_secs(3600);
    world.write(hidden, ANSWER);
    assert_eq!(world.got(client), ANSWER);
    assert!(world.engine.is_retired() && world.engine.is_draining());
}

#[test]
fn a_client_that_had_connected_before_gets_a_connection_that_still_waits() {
    let mut world = world();
    let (older, newer) = (world.register(ID), world.register(ID));
    let client = world.open();
    world.take_over(TakeOver::Retire);
    world.wait_ms(500);
    assert!(!world.is_open(older) && world.is_open(newer));
    world.write(client, get(ID));
    assert_eq!(world.peer(client), Some(newer));
    let second = world.client_sends(get(ID));
    world.assert_sent_away(second);
}

#[test]
fn a_silent_client_holds_back_no_waiting_connection_for_long() {
    let mut world = world();
    let (waiting, silent) = (world.register(ID), world.open());
    world.take_over(TakeOver::Retire);
    world.wait_ms(1_100);
    assert!(!world.is_open(waiting) && !world.is_open(silent));
}

#[test]
fn a_plain_token_gets_its_held_client_before_it_is_released() {
    let mut world = world();
    world.pair(ID);
    let held = world.client_sends(get(ID));
    let waiting = world.client_sends(plain_connect(ID, world.now.wall));
    assert_eq!(world.peer(held), None, "not eligible yet");
    world.take_over(TakeOver::Retire);
    world.wait_ms(200);
    assert_eq!(world.peer(held), Some(waiting));
}

#[test]
fn held_clients_for_whom_nothing_waits_are_sent_to_the_other_process() {
    let mut world = world();
    world.pair(ID);
    let held = world.client_sends(get(ID));
    assert_eq!(world.engine.held(), 1);
    world.take_over(TakeOver::Retire);
    world.assert_sent_away(held);
    assert_eq!(world.engine.held(), 0);
}

#[test]
fn a_client_without_a_name_is_challenged_and_comes_to_the_other_process() {
    let mut world = world();
    world.take_over(TakeOver::Retire);
    let client = world.client_sends(CHALLENGED);
    let answer = world.got(client);
    assert!(answer.starts_with("HTTP/1.1 401 ") && answer.contains("\r\nConnection: close\r\n"), "{answer}");
    assert!(!world.is_open(client));
}

#[test]
fn a_relay_that_was_taken_over_from_shuts_down_like_any_other() {
    let mut world = world();
    world.take_over(TakeOver::Retire);
    world.drain();
    world.take_over(TakeOver::Cancel);
    let client = world.client_sends(get(ID));
    world.assert_refused(client, "503 Service Unavailable", STOPPING);
}
