//! All three roles against each other, in memory: whole streams, byte for byte.

use rendezvous_core::bytestream::role::StreamFailure;
use rendezvous_core::bytestream::stanza::Condition;
use rendezvous_core::event::StreamEvent;
use rendezvous_core::machine::End;
use rendezvous_core::pair::EndReason;
use rendezvous_core::time::Span;

use crate::ends::PROXY;
use crate::world::{ALICE, BOB, Hand, World};
use crate::{at, claim, jid, stanza};

/// Bytes both ways, half-close both ways, and nothing is left.
fn talk(world: &mut World, local: Hand) {
    let service = *world.service.last().expect("the stream is at Bob's service");
    let question: Vec<u8> = (0..=255).cycle().take(1_000).collect();
    world.send(local, &question);
    assert_eq!(world.received(service), question);
    world.send(service, b"while both talk");
    assert_eq!(world.received(local), b"while both talk");
    world.end(local, End::Clean);
    assert_eq!((world.ended(service), world.ended(local)), (Some(End::Clean), None), "half-close");
    world.send(service, b"the answer");
    world.end(service, End::Clean);
    assert_eq!(world.received(local), b"the answer");
    assert_eq!(world.ended(local), Some(End::Clean));
    assert!(world.is_empty());
    let ended = |event: &StreamEvent| matches!(event, StreamEvent::Ended { why: EndReason::Done, .. });
    assert!(ended(world.alice_reports.last().unwrap()) && ended(world.bob_reports.last().unwrap()));
}

#[test]
fn direct() {
    for most in [usize::MAX, 7] {
        let mut world = World::new(most);
        let local = world.open();
        assert_eq!(world.proxy.machine.connections(), 0);
        talk(&mut world, local);
    }
}

#[test]
fn by_proxy_where_the_first_connection_cannot_be_reached() {
    for most in [usize::MAX, 7] {
        let mut world = World::behind_firewalls(most);
        let local = world.open();
        assert_eq!(world.proxy.machine.pairs(), 1);
        talk(&mut world, local);
    }
}

#[test]
fn a1_with_role_reversal_direct() {
    let mut world = World::with(usize::MAX, |alice, _| alice.connections.clear());
    world.unreachable = vec![at("10.0.0.1:5000")];
    let local = world.open();
    assert_eq!(world.proxy.machine.connections(), 0);
    talk(&mut world, local);
}

#[test]
fn a2_with_role_reversal_by_the_targets_proxy() {
    let mut world = World::with(usize::MAX, |alice, _| alice.connections.truncate(1));
    world.unreachable = vec![at("10.0.0.1:5000"), at("10.0.0.2:5000")];
    let local = world.open();
    assert_eq!(world.proxy.machine.pairs(), 1);
    talk(&mut world, local);
}

#[test]
fn two_ends_that_cannot_be_reached_give_up_after_one_reversal() {
    let mut world = World::with(usize::MAX, |alice, bob| {
        alice.connections.truncate(1);
        bob.connections.truncate(1);
    });
    world.unreachable = vec![at("10.0.0.1:5000"), at("10.0.0.2:5000")];
    let local = world.open();
    assert_eq!(
        world.alice_reports,
        [StreamEvent::Failed { peer: jid(BOB), why: StreamFailure::Unreachable }]
    );
    let why = StreamFailure::Refused(Condition::ItemNotFound);
    assert_eq!(world.bob_reports, [StreamEvent::Failed { peer: jid(ALICE), why }]);
    assert_eq!(world.ended(local), Some(End::Reset), "no clean end");
}

#[test]
fn a4_behind_a_nat_that_rewrites_ports_the_proxy_finds_no_socket() {
    let mut world = World::behind_firewalls(usize::MAX);
    world.nat = true;
    world.open();
    world.wait(Span::from_secs(60));
    let disowned = StreamFailure::Disowned(Condition::ItemNotFound);
    assert_eq!(world.alice_reports, [StreamEvent::Failed { peer: jid(BOB), why: disowned }]);
    assert_eq!(world.bob_reports, [StreamEvent::Failed { peer: jid(ALICE), why: disowned }]);
    assert!(world.service.is_empty());
}

#[test]
fn a5_who_is_not_wanted_learns_it() {
    let mut world = World::with(usize::MAX, |alice, bob| {
        (alice.reversal, bob.service) = (false, None);
    });
    world.open();
    let why = StreamFailure::Refused(Condition::NotAcceptable);
    assert_eq!(world.alice_reports, [StreamEvent::Failed { peer: jid(BOB), why }]);
}

#[test]
fn bytes_before_clear_to_send_at_the_target_wait_unread() {
    let mut world = World::new(usize::MAX);
    world.held = vec![BOB];
    let local = world.open();
    // The offer is delivered, the result is not: TCP overtakes XMPP.
    world.held.clear();
    world.held.push(ALICE);
    world.run();
    world.held = vec![BOB];
    world.run();
    assert_eq!((world.alice_reports.len(), world.bob_reports.len()), (1, 0), "only Alice is clear");
    world.send(local, b"early");
    assert_eq!((world.service.len(), world.unread()), (0, 5), "unread at Bob");
    world.end(local, End::Clean);
    assert_eq!(world.bob_reports, [], "an end behind octets is no end before its time");
    world.release();
    let service = world.service[0];
    assert_eq!(world.received(service), b"early");
    assert_eq!(world.ended(service), Some(End::Clean));
    world.send(service, b"late");
    assert_eq!(world.received(local), b"late");
}

#[test]
fn bytes_before_clear_to_send_at_the_initiator_wait_unread() {
    let mut world = World::behind_firewalls(usize::MAX);
    world.held = vec![PROXY];
    let local = world.open();
    // Both claims are at the server; the proxy's answer to Alice will stay there.
    assert_eq!(world.waiting_for(PROXY), 2);
    world.held = vec![ALICE];
    world.run();
    let service = world.service[0];
    world.send(service, b"early");
    assert_eq!(world.received(local), b"");
    assert_eq!(world.unread(), 5, "through the proxy, and unread at Alice");
    world.release();
    assert_eq!(world.received(local), b"early");
    talk(&mut world, local);
}

#[test]
fn bytes_before_clear_to_send_at_the_proxy_wait_unread() {
    let mut world = World::new(usize::MAX);
    let (first, first_at) = world.connect_to_proxy();
    world.send(first, b"early ");
    world.tell_proxy(stanza("a@example.org/x", "1", claim("s", &first_at.to_string())));
    world.send(first, b"birds");
    let (second, second_at) = world.connect_to_proxy();
    world.send(second, b"too");
    world.end(second, End::Clean);
    assert_eq!(world.unread(), 14);
    assert_eq!((world.received(first), world.received(second)), (vec![], vec![]));
    world.tell_proxy(stanza("b@example.org/x", "2", claim("s", &second_at.to_string())));
    assert_eq!(world.received(second), b"early birds");
    assert_eq!(world.received(first), b"too");
    assert_eq!((world.ended(first), world.ended(second)), (Some(End::Clean), None));
    world.send(first, b"still");
    assert_eq!(world.received(second), b"still");
}

#[test]
fn what_a_local_program_said_before_the_stream_was_there_comes_first() {
    let mut world = World::new(usize::MAX);
    world.held = vec![BOB];
    let local = world.open();
    world.send(local, b"all there is");
    world.end(local, End::Clean);
    world.release();
    let service = world.service[0];
    assert_eq!(world.received(service), b"all there is");
    assert_eq!(world.ended(service), Some(End::Clean));
}

#[test]
fn a_local_program_that_only_listens_gets_its_stream() {
    let mut world = World::new(usize::MAX);
    world.held = vec![BOB];
    let local = world.open();
    world.end(local, End::Clean);
    world.release();
    let service = world.service[0];
    assert_eq!(world.ended(service), Some(End::Clean));
    world.send(service, b"time");
    assert_eq!(world.received(local), b"time");
}

#[test]
fn pairs_outlive_the_xmpp_server() {
    let mut world = World::behind_firewalls(usize::MAX);
    let local = world.open();
    world.held = vec![ALICE, BOB, PROXY];
    world.wait(Span::from_secs(3_600));
    talk(&mut world, local);
}

#[test]
fn many_streams_at_a_time_are_not_mixed_up() {
    let mut world = World::behind_firewalls(3);
    world.held = vec![PROXY];
    let locals: Vec<Hand> = (0..20).map(|_| world.open()).collect();
    world.release();
    assert_eq!((world.proxy.machine.pairs(), world.service.len()), (20, 20));
    for (n, local) in locals.iter().enumerate() {
        world.send(*local, format!("stream {n}").as_bytes());
    }
    for service in world.service.clone() {
        let question = world.received(service);
        world.send(service, &question);
    }
    for (n, local) in locals.iter().enumerate() {
        assert_eq!(world.received(*local), format!("stream {n}").as_bytes());
    }
}

#[test]
fn a_reset_is_passed_on_as_no_clean_end() {
    let mut world = World::behind_firewalls(usize::MAX);
    let local = world.open();
    let service = world.service[0];
    world.send(local, b"half of");
    world.end(local, End::Reset);
    assert_eq!(world.received(service), b"half of");
    assert_eq!(world.ended(service), Some(End::Reset));
}
