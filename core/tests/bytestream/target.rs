//! The target's table, row by row.

use rendezvous_core::acl::Policy;
use rendezvous_core::bytestream::entity::Entity;
use rendezvous_core::bytestream::name::Allow;
use rendezvous_core::bytestream::role::StreamFailure;
use rendezvous_core::bytestream::stanza::{Condition, Connection, Query, Stanza};
use rendezvous_core::component_host::IqHandler;
use rendezvous_core::event::StreamEvent;
use rendezvous_core::machine::{Close, ConnId, End, Machine, Output};
use rendezvous_core::time::Span;

use crate::ends::{ME, PEER, PROXY, SERVICE, config, connection, entity, entity_with, just_under};
use crate::harness::{Harness, asked, dials};
use crate::{at, error, jid, sid, stanza};

fn offered() -> Vec<Connection> {
    vec![connection(PEER, "10.0.0.2:7000"), connection(PROXY, "10.0.0.9:4000")]
}

/// An entity that does not reverse roles, at T1. Returns its first dial.
fn dialling() -> (Harness<Entity>, ConnId) {
    let mut harness = entity_with(|config| config.reversal = false);
    harness.is_offered("s", offered());
    let (on, to) = harness.one_dial();
    assert_eq!(to, "10.0.0.2:7000");
    (harness, on)
}

/// T2.
fn claimed() -> (Harness<Entity>, ConnId, Stanza) {
    let (mut harness, on) = dialling();
    harness.connected(on, "10.0.0.1:3333");
    let claim = harness.stanzas().remove(0);
    (harness, on, claim)
}

#[test]
fn t0_a1_no_connection_is_404() {
    let mut harness = entity_with(|config| config.reversal = false);
    harness.is_offered("s", vec![]);
    assert_eq!(harness.stanzas(), [error(PEER, "pf2", Condition::ItemNotFound)]);
    harness.assert_failed(StreamFailure::Unreachable);
}

#[test]
fn t0_a1_3_then_it_makes_the_offer_with_the_same_stream_id() {
    let mut harness = entity();
    harness.is_offered("s", vec![]);
    let stanzas = harness.stanzas();
    assert_eq!(stanzas[0], error(PEER, "pf2", Condition::ItemNotFound));
    let connections = config().connections;
    assert_eq!(stanzas[1].query, Query::Offer { sid: Some(sid("s")), connections, malformed: 0 });
    let on = harness.accept("10.0.0.2:1001");
    harness.deliver(stanza(PEER, "pf4", crate::claim("s", "10.0.0.1:1001")));
    let used = Query::Result { sid: None, connection: Some(jid(ME)) };
    harness.deliver(Stanza { peer: jid(PEER), id: stanzas[1].id.clone(), query: used });
    harness.assert_clear(on);
}

#[test]
fn t0_a1_3_not_where_it_has_nothing_to_offer_either() {
    let mut harness = entity_with(|config| config.connections.clear());
    harness.is_offered("s", vec![]);
    assert_eq!(harness.stanzas(), [error(PEER, "pf2", Condition::ItemNotFound)]);
    harness.assert_failed(StreamFailure::Unreachable);
}

#[test]
fn t0_a1_3_roles_are_changed_once() {
    let mut harness = entity();
    harness.is_offered("s", vec![]);
    let offer = harness.stanzas().remove(1);
    harness.deliver(Stanza { peer: jid(PEER), id: offer.id, query: Query::Error(Condition::ItemNotFound) });
    harness.assert_failed(StreamFailure::Refused(Condition::ItemNotFound));
}

#[test]
fn t0_a5_not_wanted_is_406() {
    let mut harness = entity_with(|config| config.service = None);
    harness.is_offered("s", offered());
    assert_eq!(harness.stanzas(), [error(PEER, "pf2", Condition::NotAcceptable)]);
    assert_eq!((harness.machine.sessions(), dials(&harness.actions())), (0, vec![]));
}

#[test]
fn t0_a5_by_policy_is_403() {
    let mut harness = entity_with(|config| config.allow = Allow::These(vec![jid("example.org")]));
    harness.is_offered("s", offered());
    assert_eq!(harness.stanzas(), [error(PEER, "pf2", Condition::Forbidden)]);
}

#[test]
fn t0_too_many_streams_are_500_and_503_while_shutting_down() {
    let mut harness = entity_with(|config| config.sessions_max = 1);
    harness.is_offered("1", offered());
    harness.is_offered("2", offered());
    assert_eq!(harness.stanzas(), [error(PEER, "pf2", Condition::ResourceConstraint)]);
    harness.call(|entity, now| entity.handle_drain(now));
    harness.is_offered("3", offered());
    assert_eq!(harness.stanzas(), [error(PEER, "pf2", Condition::ServiceUnavailable)]);
}

#[test]
fn t0_the_same_stream_again_is_409() {
    let (mut harness, _) = dialling();
    harness.is_offered("s", offered());
    assert_eq!(harness.stanzas(), [error(PEER, "pf2", Condition::Conflict)]);
    harness.assert_waits();
}

#[test]
fn t0_no_stream_id_or_nothing_but_malformed_connections_is_400() {
    let mut harness = entity();
    for query in [
        Query::Offer { sid: None, connections: offered(), malformed: 0 },
        Query::Offer { sid: Some(sid("s")), connections: vec![], malformed: 1 },
    ] {
        harness.deliver(stanza(PEER, "pf2", query));
        assert_eq!(harness.stanzas(), [error(PEER, "pf2", Condition::BadRequest)]);
    }
}

#[test]
fn t0_malformed_connections_are_skipped_if_a_good_one_is_left() {
    let mut harness = entity();
    let query = Query::Offer { sid: Some(sid("s")), connections: offered(), malformed: 3 };
    harness.deliver(stanza(PEER, "pf2", query));
    assert_eq!(harness.one_dial().1, "10.0.0.2:7000");
}

#[test]
fn t0_connections_are_dialled_in_the_order_of_the_document() {
    let (mut harness, on) = dialling();
    harness.refused(on);
    assert_eq!(harness.one_dial().1, "10.0.0.9:4000");
}

#[test]
fn t0_a_dial_may_take_10_s() {
    let (mut harness, on) = dialling();
    assert_eq!(harness.wait_for_deadline(), Span::from_secs(10));
    let actions = harness.actions();
    assert!(asked(&actions, Output::Close { on, how: Close::Abort }));
    assert_eq!(dials(&actions)[0].1, at("10.0.0.9:4000"));
}

/// The addresses of these that an entity with this policy dials, one after the other.
fn dialled(policy: &Policy, offered: &[&str]) -> Vec<String> {
    let dialled = |to: &&str| {
        let mut harness = entity_with(|config| {
            (config.reversal, config.dial) = (false, policy.clone());
        });
        harness.is_offered("s", vec![connection(PEER, to)]);
        let any = dials(&harness.actions()).into_iter().next();
        if any.is_none() {
            assert_eq!(harness.stanzas(), [error(PEER, "pf2", Condition::ItemNotFound)]);
            harness.assert_failed(StreamFailure::Unreachable);
        }
        any.map(|(_, to)| to.to_string())
    };
    offered.iter().filter_map(dialled).collect()
}

/// Addresses that are never dialled, whatever the policy.
const NOBODY: [&str; 9] = [
    "0.0.0.0:1",
    "0.1.2.3:1",
    "[::]:1",
    "224.0.0.1:1",
    "[ff02::1]:1",
    "240.0.0.1:1",
    "255.255.255.255:1",
    "10.0.0.2:0",
    "8.8.8.8:0",
];
const LOOPBACK: [&str; 6] = [
    "127.0.0.1:22",
    "[::1]:22",
    "[::ffff:127.0.0.1]:22",
    "[::127.0.0.1]:22",
    "[64:ff9b::127.0.0.1]:22",
    "[2002:7f00:1::]:22",
];
const LINK_LOCAL: [&str; 2] = ["169.254.169.254:80", "[fe80::1]:80"];
const PRIVATE: [&str; 4] = ["10.0.0.1:80", "192.168.1.1:80", "[64:ff9b::10.0.0.1]:80", "[fc00::1]:80"];
const SHARED: [&str; 1] = ["100.64.0.1:80"];

#[test]
fn t0_addresses_that_would_make_a_port_scanner_of_us_are_not_dialled() {
    let anywhere =
        Policy { loopback: true, link_local: true, private: true, shared: true, ..Policy::default() };
    assert_eq!(dialled(&anywhere, &NOBODY), [""; 0]);
    for kind in [&LOOPBACK[..], &LINK_LOCAL, &PRIVATE, &SHARED] {
        assert_eq!(dialled(&Policy::default(), kind), [""; 0], "not by default");
        let shown: Vec<String> = kind.iter().map(|to| at(to).to_string()).collect();
        assert_eq!(dialled(&anywhere, kind), shown, "by policy");
    }
    let public = ["8.8.8.8:80", "[2001:4860:4860::8888]:80"];
    assert_eq!(dialled(&Policy::default(), &public), public);
}

#[test]
fn t0_where_we_listen_ourselves_is_not_dialled() {
    let own = vec![at("0.0.0.0:5000"), at("192.0.2.1:5000")];
    let policy = Policy { loopback: true, own, ..Policy::default() };
    let offered = ["127.0.0.1:5000", "192.0.2.1:5000", "[::ffff:192.0.2.1]:5000", "192.0.2.1:5001"];
    assert_eq!(dialled(&policy, &offered), ["192.0.2.1:5001"]);
}

#[test]
fn t1_a2_every_dial_failed_is_404() {
    let (mut harness, on) = dialling();
    harness.refused(on);
    let (on, _) = harness.one_dial();
    harness.refused(on);
    assert_eq!(harness.stanzas(), [error(PEER, "pf2", Condition::ItemNotFound)]);
    harness.assert_failed(StreamFailure::Unreachable);
}

#[test]
fn t1_a2_2_then_it_makes_the_offer_with_the_same_stream_id() {
    let mut harness = entity();
    harness.is_offered("s", vec![connection(PEER, "10.0.0.2:7000")]);
    let (on, _) = harness.one_dial();
    harness.refused(on);
    let stanzas = harness.stanzas();
    assert_eq!(stanzas[0], error(PEER, "pf2", Condition::ItemNotFound));
    assert!(matches!(&stanzas[1].query, Query::Offer { sid: Some(same), .. } if *same == sid("s")));
}

#[test]
fn t1_all_dials_together_may_take_60_s() {
    let mut harness = entity_with(|config| config.reversal = false);
    harness.is_offered("s", vec![connection(PEER, "10.0.0.2:7000"); 8]);
    harness.wait(just_under(60));
    harness.assert_waits();
    assert_eq!(dials(&harness.actions()).len(), 6);
    harness.wait(Span(1));
    assert_eq!(harness.stanzas(), [error(PEER, "pf2", Condition::ItemNotFound)]);
    harness.assert_failed(StreamFailure::Unreachable);
}

#[test]
fn t1_pf4_and_pf5_go_out_together() {
    let (mut harness, on) = dialling();
    harness.refused(on);
    let (on, _) = harness.one_dial();
    harness.connected(on, "10.0.0.1:3333");
    let stanzas = harness.stanzas();
    assert_eq!(stanzas[0].peer, jid(PROXY));
    assert_eq!(stanzas[0].query, crate::claim("s", "10.0.0.9:3333"));
    let used = Query::Result { sid: Some(sid("s")), connection: Some(jid(PROXY)) };
    assert_eq!(stanzas[1..], [stanza(PEER, "pf2", used)]);
}

#[test]
fn t1_a_socket_that_ends_at_once_is_a_dial_that_failed() {
    let (mut harness, on) = dialling();
    harness.call(|entity, now| entity.handle_connected(on, now));
    harness.call(|entity, now| entity.handle_end(on, End::Reset, now));
    assert_eq!(harness.one_dial().1, "10.0.0.9:4000");
}

#[test]
fn t2_pf7_the_result_is_clear_to_send_and_the_socket_is_handed_over() {
    let (mut harness, on, claim) = claimed();
    harness.actions();
    harness.deliver(Stanza { peer: claim.peer, id: claim.id, query: Query::CLEAR });
    harness.assert_clear(on);
    let (service, to) = harness.one_dial();
    assert_eq!(to, SERVICE);
    harness.call(|entity, now| entity.handle_connected(service, now));
    let actions = harness.actions();
    assert!(asked(&actions, Output::Read { on, wanted: true }));
    assert!(asked(&actions, Output::Pair { hidden: on, client: service }));
}

#[test]
fn t2_a4_an_error_closes() {
    let (mut harness, on, claim) = claimed();
    harness.deliver(Stanza { peer: claim.peer, id: claim.id, query: Query::Error(Condition::ItemNotFound) });
    assert!(harness.asked(Output::Close { on, how: Close::Abort }));
    harness.assert_failed(StreamFailure::Disowned(Condition::ItemNotFound));
}

#[test]
fn t2_nothing_is_read_before_it_is_clear() {
    let (mut harness, on, _) = claimed();
    let actions = harness.actions();
    assert!(asked(&actions, Output::LocalAddress { on }), "what it claims was asked for");
    assert!(asked(&actions, Output::Read { on, wanted: false }));
    assert!(!asked(&actions, Output::Read { on, wanted: true }));
    assert_eq!(harness.receive(on, b"early"), 0);
}

#[test]
fn t2_a_reset_of_the_socket_closes() {
    let (mut harness, on, _) = claimed();
    harness.call(|entity, now| entity.handle_end(on, End::Reset, now));
    harness.assert_failed(StreamFailure::Reset);
}

#[test]
fn t2_a_clean_end_is_the_half_close_of_an_initiator_that_is_clear_before_us() {
    let (mut harness, on, claim) = claimed();
    harness.call(|entity, now| entity.handle_end(on, End::Clean, now));
    harness.assert_waits();
    harness.deliver(Stanza { peer: claim.peer, id: claim.id, query: Query::CLEAR });
    harness.assert_clear(on);
    let (service, _) = harness.one_dial();
    harness.call(|entity, now| entity.handle_connected(service, now));
    assert!(harness.asked(Output::CloseWrite { on: service }));
}

#[test]
fn t2_after_a_clean_end_60_s_without_an_answer_close_all_the_same() {
    let (mut harness, on, _) = claimed();
    harness.call(|entity, now| entity.handle_end(on, End::Clean, now));
    harness.wait(Span::from_secs(60));
    harness.assert_failed(StreamFailure::TimedOut);
}

#[test]
fn t2_60_s_without_an_answer_close() {
    let (mut harness, on, _) = claimed();
    harness.actions();
    assert_eq!(harness.wait_for_deadline(), Span::from_secs(60));
    assert!(harness.asked(Output::Close { on, how: Close::Abort }));
    harness.assert_failed(StreamFailure::TimedOut);
}

#[test]
fn t8_without_a_service_the_stream_is_truncated() {
    let (mut harness, on, claim) = claimed();
    harness.deliver(Stanza { peer: claim.peer, id: claim.id, query: Query::CLEAR });
    harness.events();
    let (service, _) = harness.one_dial();
    harness.refused(service);
    assert!(harness.asked(Output::Close { on, how: Close::Truncate }), "never a clean end");
    assert_eq!(harness.events(), [StreamEvent::NoService { on }]);
}

#[test]
fn t8_a_service_that_does_not_answer_is_none_after_10_s() {
    let (mut harness, on, claim) = claimed();
    harness.deliver(Stanza { peer: claim.peer, id: claim.id, query: Query::CLEAR });
    harness.actions();
    assert_eq!(harness.wait_for_deadline(), Span::from_secs(10));
    assert!(harness.asked(Output::Close { on, how: Close::Truncate }));
}

#[test]
fn t9_a_local_connection_outlives_the_failure_of_a_peers_stream() {
    let mut harness = entity_with(|config| (config.service, config.reversal) = (None, false));
    let local = harness.local();
    harness.is_offered("1", vec![]);
    assert_eq!(harness.events(), [StreamEvent::Failed { peer: jid(PEER), why: StreamFailure::Unreachable }]);
    harness.stanzas();
    harness.is_offered("2", offered());
    let (on, _) = harness.one_dial();
    harness.connected(on, "10.0.0.1:3333");
    let claim = harness.stanzas().remove(0);
    harness.deliver(Stanza { peer: claim.peer, id: claim.id, query: Query::CLEAR });
    assert!(harness.asked(Output::Pair { hidden: on, client: local }));
}

#[test]
fn pf7_without_an_id_is_for_the_one_claim_of_its_sender() {
    let (mut harness, on, claim) = claimed();
    let other = if claim.peer == jid(PEER) { PROXY } else { PEER };
    harness.deliver(stanza(other, "", Query::CLEAR));
    harness.assert_waits();
    harness.deliver(Stanza { peer: claim.peer, id: crate::iq(""), query: Query::CLEAR });
    harness.assert_clear(on);
}

#[test]
fn the_connection_is_named_as_the_offer_wrote_it() {
    let offer = connection("ClientA@Example.org/Home", "10.0.0.2:7000");
    let mut harness = entity_with(|config| config.reversal = false);
    let offer = Connection {
        jid: rendezvous_core::xmpp::jid::Jid::parse("ClientA@Example.org/Home").unwrap(),
        ..offer
    };
    harness.is_offered("s", vec![offer]);
    let (on, _) = harness.one_dial();
    harness.connected(on, "10.0.0.1:3333");
    for stanza in harness.stanzas() {
        let iq = rendezvous_core::bytestream::xmpp::write(&stanza, &jid(PEER), "whoknows");
        let mut text = Vec::new();
        iq.write(&mut text);
        let text = String::from_utf8(text).unwrap();
        if text.contains("<connection") {
            assert!(text.contains("jid='ClientA@Example.org/Home'"), "{text}");
        } else {
            assert!(text.contains("to='ClientA@Example.org/Home'"), "{text}");
        }
    }
}
