//! The initiator's table, row by row.

use rendezvous_core::bytestream::entity::Entity;
use rendezvous_core::bytestream::role::StreamFailure;
use rendezvous_core::bytestream::stanza::{Condition, Query, Stanza};
use rendezvous_core::component_host::IqHandler;
use rendezvous_core::event::StreamEvent;
use rendezvous_core::machine::{Close, ConnId, End, Machine, Output};
use rendezvous_core::time::Span;

use crate::ends::{ME, Offer, PEER, PROXY, SERVICE, config, connection, entity, entity_with, just_under};
use crate::harness::{Harness, asked, dials};
use crate::{THIRD, at, clear, error, jid, stanza};

/// I4: on the way to the proxy. Returns its first dial.
fn following() -> (Harness<Entity>, Offer, ConnId) {
    let mut harness = entity();
    let offer = harness.begin();
    harness.is_used(&offer, PROXY);
    let (on, to) = harness.one_dial();
    assert_eq!(to, "10.0.0.9:4000");
    (harness, offer, on)
}

/// I4: the claim is at the proxy.
fn claiming() -> (Harness<Entity>, ConnId, Stanza) {
    let (mut harness, _, on) = following();
    harness.connected(on, "10.0.0.1:3333");
    let claim = harness.one_stanza();
    (harness, on, claim)
}

/// I5.
fn refused() -> (Harness<Entity>, Offer) {
    let mut harness = entity();
    let offer = harness.begin();
    harness.answers(&offer, Query::Error(Condition::ItemNotFound));
    harness.assert_waits();
    (harness, offer)
}

#[test]
fn i0_pf1_pf2_offers_its_own_address_first_and_proxies_next_with_128_random_bits() {
    let mut harness = entity();
    let first = harness.begin();
    assert_eq!(first.connections, config().connections);
    assert_eq!(first.sid.as_str().len(), 32);
    assert!(first.sid.as_str().bytes().all(|byte| byte.is_ascii_hexdigit()));
    let second = harness.begin();
    assert_ne!(first.sid, second.sid);
    assert_ne!(first.id, second.id);
}

#[test]
fn i0_no_more_than_8_connections_are_offered() {
    let mut harness = entity_with(|config| config.connections = vec![connection(ME, "10.0.0.1:5000"); 9]);
    assert_eq!(harness.begin().connections.len(), 8);
}

#[test]
fn i0_a1_1_nothing_to_offer_is_offered() {
    let mut harness = entity_with(|config| config.connections.clear());
    assert_eq!(harness.begin().connections, []);
}

#[test]
fn i1_accept_is_kept_unread_for_30_s() {
    let mut harness = entity();
    harness.begin();
    harness.actions();
    let on = harness.accept("10.0.0.2:1001");
    assert!(harness.asked(Output::Read { on, wanted: false }));
    harness.wait(Span::from_secs(29));
    assert!(!harness.asked(Output::Close { on, how: Close::Abort }));
    harness.wait(Span::from_secs(1));
    assert!(harness.asked(Output::Close { on, how: Close::Abort }));
}

#[test]
fn i1_pf6_the_claim_is_answered_and_nothing_relayed_before_pf5() {
    let mut harness = entity();
    let offer = harness.begin();
    let on = harness.accept("10.0.0.2:1001");
    harness.is_claimed(&offer, "10.0.0.1:1001");
    assert_eq!(harness.stanzas(), [clear(PEER, "pf4")]);
    harness.assert_waits();
    assert_eq!(dials(&harness.actions()), []);
    harness.is_used(&offer, ME);
    harness.assert_clear(on);
}

#[test]
fn i1_pf5_before_pf6() {
    let mut harness = entity();
    let offer = harness.begin();
    harness.is_used(&offer, ME);
    harness.assert_waits();
    let on = harness.accept("10.0.0.2:1001");
    harness.is_claimed(&offer, "10.0.0.1:1001");
    assert_eq!(harness.stanzas(), [clear(PEER, "pf4")]);
    harness.assert_clear(on);
}

#[test]
fn i2_pf5_is_waited_for_10_s_and_no_longer() {
    let mut harness = entity();
    let offer = harness.begin();
    let on = harness.accept("10.0.0.2:1001");
    harness.is_claimed(&offer, "10.0.0.1:1001");
    harness.wait(just_under(10));
    harness.assert_waits();
    harness.wait(Span(1));
    harness.assert_clear(on);
}

#[test]
fn i1_a_claim_may_come_before_its_socket_and_is_404_after_2_s() {
    let mut harness = entity();
    let offer = harness.begin();
    harness.is_claimed(&offer, "10.0.0.1:1001");
    harness.wait(Span(1_999_999));
    assert_eq!(harness.stanzas(), []);
    harness.wait(Span(1));
    assert_eq!(harness.stanzas(), [error(PEER, "pf4", Condition::ItemNotFound)]);
    harness.assert_waits();
    harness.is_claimed(&offer, "10.0.0.1:1001");
    harness.accept("10.0.0.2:1001");
    assert_eq!(harness.stanzas(), [clear(PEER, "pf4")]);
}

#[test]
fn i1_a_claim_with_a_wrong_stream_id_or_a_wrong_jid_is_404() {
    let mut harness = entity();
    let offer = harness.begin();
    harness.accept("10.0.0.2:1001");
    let endpoint = Some(at("10.0.0.1:1001"));
    harness.deliver(stanza(PEER, "x", Query::Claim { sid: Some(crate::sid("wrong")), endpoint }));
    assert_eq!(harness.stanzas(), [error(PEER, "x", Condition::ItemNotFound)]);
    harness.deliver(stanza(THIRD, "x", Query::Claim { sid: Some(offer.sid), endpoint }));
    assert_eq!(harness.stanzas(), [error(THIRD, "x", Condition::ItemNotFound)]);
    harness.assert_waits();
}

#[test]
fn i2_a_second_claim_is_404() {
    let mut harness = entity();
    let offer = harness.begin();
    harness.accept("10.0.0.2:1001");
    harness.is_claimed(&offer, "10.0.0.1:1001");
    harness.stanzas();
    harness.is_claimed(&offer, "10.0.0.1:1002");
    assert_eq!(harness.stanzas(), [error(PEER, "pf4", Condition::ItemNotFound)]);
    harness.assert_waits();
}

#[test]
fn a_claim_without_stream_id_or_endpoint_is_400() {
    let mut harness = entity();
    let offer = harness.begin();
    harness.deliver(stanza(PEER, "x", Query::Claim { sid: Some(offer.sid), endpoint: None }));
    harness.deliver(stanza(PEER, "y", Query::Claim { sid: None, endpoint: Some(at("10.0.0.1:1001")) }));
    let bad = |id| error(PEER, id, Condition::BadRequest);
    assert_eq!(harness.stanzas(), [bad("x"), bad("y")]);
}

#[test]
fn i1_a6_3_a_proxy_is_named_so_nobody_listens_and_its_addresses_are_dialled_in_order() {
    let mut harness = entity();
    let offer = harness.begin();
    let unclaimed = harness.accept("10.0.0.2:1001");
    harness.is_used(&offer, PROXY);
    let actions = harness.actions();
    assert!(asked(&actions, Output::Close { on: unclaimed, how: Close::Abort }));
    let first = dials(&actions)[0];
    assert_eq!(first.1, at("10.0.0.9:4000"));
    harness.refused(first.0);
    assert_eq!(harness.one_dial().1, "10.0.1.9:4000");
    let late = harness.accept("10.0.0.2:1002");
    assert!(harness.asked(Output::Close { on: late, how: Close::Abort }));
}

#[test]
fn i4_a_dial_may_take_10_s() {
    let (mut harness, _, on) = following();
    assert_eq!(harness.wait_for_deadline(), Span::from_secs(10));
    let actions = harness.actions();
    assert!(asked(&actions, Output::Close { on, how: Close::Abort }));
    assert_eq!(dials(&actions)[0].1, at("10.0.1.9:4000"));
}

#[test]
fn i4_a6_4_claims_the_address_dialled_with_its_own_port() {
    let (mut harness, on, claim) = claiming();
    assert_eq!(claim.peer, jid(PROXY));
    let Query::Claim { sid: Some(_), endpoint } = claim.query else { panic!("{claim:?}") };
    assert_eq!(endpoint, Some(at("10.0.0.9:3333")));
    assert!(harness.asked(Output::Read { on, wanted: false }), "nothing is read before it is clear");
}

#[test]
fn i4_a6_8_the_result_of_the_proxy_is_clear_to_send() {
    let (mut harness, on, claim) = claiming();
    harness.deliver(Stanza { peer: jid(PROXY), id: claim.id, query: Query::CLEAR });
    harness.assert_clear(on);
    assert_eq!(harness.one_dial().1, SERVICE);
}

#[test]
fn i4_an_answer_of_somebody_else_or_with_another_id_is_none() {
    let (mut harness, _, claim) = claiming();
    harness.deliver(Stanza { peer: jid(PEER), id: claim.id, query: Query::CLEAR });
    harness.deliver(clear(PROXY, "guessed"));
    harness.assert_waits();
}

#[test]
fn i4_an_error_of_the_proxy_fails() {
    let (mut harness, on, claim) = claiming();
    harness.deliver(Stanza {
        peer: jid(PROXY),
        id: claim.id,
        query: Query::Error(Condition::RemoteServerTimeout),
    });
    assert!(harness.asked(Output::Close { on, how: Close::Abort }));
    harness.assert_failed(StreamFailure::Disowned(Condition::RemoteServerTimeout));
}

#[test]
fn i4_every_dial_failed() {
    let (mut harness, _, on) = following();
    harness.refused(on);
    let (on, _) = harness.one_dial();
    harness.refused(on);
    harness.assert_failed(StreamFailure::Unreachable);
}

#[test]
fn i4_a_reset_of_the_socket_fails() {
    let (mut harness, on, _) = claiming();
    harness.call(|entity, now| entity.handle_end(on, End::Reset, now));
    harness.assert_failed(StreamFailure::Reset);
}

#[test]
fn i4_a_clean_end_is_the_half_close_of_a_target_that_is_clear_before_us() {
    let (mut harness, on, claim) = claiming();
    harness.call(|entity, now| entity.handle_end(on, End::Clean, now));
    harness.assert_waits();
    harness.deliver(Stanza { peer: jid(PROXY), id: claim.id, query: Query::CLEAR });
    harness.assert_clear(on);
}

#[test]
fn i4_60_s_from_the_targets_word() {
    let (mut harness, _, on) = following();
    harness.wait(Span::from_secs(9));
    harness.connected(on, "10.0.0.1:3333");
    harness.stanzas();
    harness.wait(just_under(51));
    harness.assert_waits();
    harness.wait(Span(1));
    harness.assert_failed(StreamFailure::TimedOut);
}

#[test]
fn i1_an_unknown_or_missing_jid_fails() {
    for connection in [Some(jid(THIRD)), None] {
        let mut harness = entity();
        let offer = harness.begin();
        harness.answers(&offer, Query::Result { sid: None, connection });
        harness.assert_failed(StreamFailure::UnknownConnection);
    }
}

#[test]
fn i1_our_own_jid_is_unknown_where_it_was_not_offered() {
    let mut harness = entity_with(|config| config.connections.retain(|it| it.jid == jid(PROXY)));
    let offer = harness.begin();
    harness.is_used(&offer, ME);
    harness.assert_failed(StreamFailure::UnknownConnection);
}

#[test]
fn i2_a_proxy_named_after_a_claim_here_fails() {
    let mut harness = entity();
    let offer = harness.begin();
    harness.accept("10.0.0.2:1001");
    harness.is_claimed(&offer, "10.0.0.1:1001");
    harness.is_used(&offer, PROXY);
    harness.assert_failed(StreamFailure::UnknownConnection);
}

#[test]
fn i2_a_clean_end_is_the_half_close_of_a_target_that_is_clear_before_us() {
    let mut harness = entity();
    let offer = harness.begin();
    let on = harness.accept("10.0.0.2:1001");
    harness.is_claimed(&offer, "10.0.0.1:1001");
    assert_eq!(harness.stanzas(), [clear(PEER, "pf4")], "the target is clear, and may say all and end");
    harness.call(|entity, now| entity.handle_end(on, End::Clean, now));
    harness.assert_waits();
    harness.is_used(&offer, ME);
    harness.assert_clear(on);
    let (service, _) = harness.one_dial();
    harness.call(|entity, now| entity.handle_connected(service, now));
    assert!(harness.asked(Output::CloseWrite { on: service }));
}

#[test]
fn i1_the_end_of_a_socket_that_nobody_claimed_is_its_end() {
    let mut harness = entity();
    let offer = harness.begin();
    let on = harness.accept("10.0.0.2:1001");
    harness.call(|entity, now| entity.handle_end(on, End::Clean, now));
    assert!(harness.asked(Output::Close { on, how: Close::Linger }));
    harness.is_claimed(&offer, "10.0.0.1:1001");
    harness.wait(Span::from_secs(2));
    assert_eq!(harness.stanzas(), [error(PEER, "pf4", Condition::ItemNotFound)]);
    harness.assert_waits();
}

#[test]
fn i2_a_reset_of_the_socket_fails() {
    let mut harness = entity();
    let offer = harness.begin();
    let on = harness.accept("10.0.0.2:1001");
    harness.is_claimed(&offer, "10.0.0.1:1001");
    harness.call(|entity, now| entity.handle_end(on, End::Reset, now));
    harness.assert_failed(StreamFailure::Reset);
}

#[test]
fn i1_60_s_without_an_answer_fail() {
    let mut harness = entity();
    harness.begin();
    harness.wait(just_under(60));
    harness.assert_waits();
    harness.wait(Span(1));
    harness.assert_failed(StreamFailure::TimedOut);
}

#[test]
fn i5_a1_3_a2_2_an_offer_with_the_same_stream_id_makes_a_target_of_it() {
    let (mut harness, offer) = refused();
    harness.actions();
    harness.is_offered(offer.sid.as_str(), vec![connection(PEER, "10.0.0.2:7000")]);
    let (on, to) = harness.one_dial();
    assert_eq!(to, "10.0.0.2:7000");
    harness.connected(on, "10.0.0.1:3333");
    let [claim, used] = &harness.stanzas()[..] else { panic!("both at once") };
    assert_eq!((&claim.peer, &used.peer), (&jid(PEER), &jid(PEER)));
    harness.deliver(Stanza { peer: jid(PEER), id: claim.id.clone(), query: Query::CLEAR });
    harness.assert_clear(on);
}

#[test]
fn i5_roles_are_changed_once() {
    let (mut harness, offer) = refused();
    harness.is_offered(offer.sid.as_str(), vec![]);
    assert_eq!(harness.stanzas(), [error(PEER, "pf2", Condition::ItemNotFound)]);
    harness.assert_failed(StreamFailure::Unreachable);
}

#[test]
fn i5_10_s_without_an_offer_fail_with_what_the_peer_said() {
    let (mut harness, _) = refused();
    assert_eq!(harness.wait_for_failure(), Span::from_secs(10));
    harness.assert_failed(StreamFailure::Refused(Condition::ItemNotFound));
}

#[test]
fn i5_an_offer_with_another_stream_id_is_another_stream() {
    let (mut harness, _) = refused();
    harness.actions();
    harness.is_offered("other", vec![connection(PEER, "10.0.0.2:7000")]);
    assert_eq!(harness.events(), [StreamEvent::Failed { peer: jid(PEER), why: StreamFailure::Replaced }]);
    assert_eq!(harness.one_dial().1, "10.0.0.2:7000");
    assert_eq!(harness.machine.sessions(), 1);
}

#[test]
fn i1_a5_1_without_reversal_an_error_is_the_end() {
    let mut harness = entity_with(|config| config.reversal = false);
    let offer = harness.begin();
    harness.answers(&offer, Query::Error(Condition::NotAcceptable));
    harness.assert_failed(StreamFailure::Refused(Condition::NotAcceptable));
}

#[test]
fn any_cancel_closes_all_sockets() {
    let mut harness = entity_with(|config| config.peer = Some(jid(PEER)));
    let local = harness.local();
    let offer = harness.offer();
    harness.accept("10.0.0.2:1001");
    harness.is_claimed(&offer, "10.0.0.1:1001");
    harness.call(|entity, now| entity.handle_end(local, End::Reset, now));
    harness.assert_failed(StreamFailure::Cancelled);
}

#[test]
fn any_shutting_down_cancels_and_begins_nothing() {
    let mut harness = entity();
    harness.begin();
    harness.call(|entity, now| entity.handle_drain(now));
    harness.assert_failed(StreamFailure::Cancelled);
    harness.call(|entity, now| entity.handle_begin(jid(PEER), None, now));
    assert_eq!(harness.stanzas(), []);
    harness.assert_failed(StreamFailure::Cancelled);
}

#[test]
fn a_local_connection_whose_stream_fails_sees_no_clean_end() {
    let mut harness = entity_with(|config| config.peer = Some(jid(PEER)));
    let local = harness.local();
    assert!(harness.asked(Output::Read { on: local, wanted: false }));
    harness.wait(Span::from_secs(60));
    assert!(harness.asked(Output::Close { on: local, how: Close::Truncate }));
}

impl Harness<Entity> {
    /// The time until a session fails.
    fn wait_for_failure(&mut self) -> Span {
        let before = self.now.mono;
        while self.machine.sessions() > 0 {
            let idle = self.idle.expect("a deadline runs");
            self.wait(idle.since(self.now.mono));
        }
        self.now.mono.since(before)
    }
}

/// A stanza as the mail's samples print it: without an id.
fn without_id(peer: &str, query: Query) -> Stanza {
    stanza(peer, "", query)
}

#[test]
fn pf5_without_an_id_is_known_by_its_sender_and_the_stream_id() {
    // Before the claim, and behind it.
    for (is_claimed_first, id) in [(false, ""), (true, ""), (false, "fresh"), (true, "fresh")] {
        let mut harness = entity();
        let offer = harness.begin();
        let on = harness.accept("10.0.0.2:1001");
        let used = Query::Result { sid: Some(offer.sid.clone()), connection: Some(jid(ME)) };
        if is_claimed_first {
            harness.is_claimed(&offer, "10.0.0.1:1001");
            harness.deliver(stanza(PEER, id, used));
        } else {
            harness.deliver(stanza(PEER, id, used));
            harness.is_claimed(&offer, "10.0.0.1:1001");
        }
        harness.assert_clear(on);
    }
    let mut harness = entity();
    let offer = harness.begin();
    let used = Query::Result { sid: Some(offer.sid), connection: Some(jid(PROXY)) };
    harness.deliver(without_id(PEER, used.clone()));
    assert_eq!(harness.one_dial().1, "10.0.0.9:4000");
    harness.deliver(without_id(PEER, used));
    harness.assert_waits();
}

#[test]
fn pf5_of_another_sender_or_with_another_stream_id_is_none() {
    let mut harness = entity();
    let offer = harness.begin();
    let used = |sid| Query::Result { sid: Some(sid), connection: Some(jid(PROXY)) };
    harness.deliver(without_id(THIRD, used(offer.sid)));
    harness.deliver(without_id(PEER, used(crate::sid("another"))));
    harness.deliver(without_id(PEER, Query::CLEAR));
    assert_eq!(dials(&harness.actions()), []);
    harness.assert_waits();
}

#[test]
fn a6_8_without_an_id_is_for_the_one_claim_of_its_sender() {
    let (mut harness, on, _) = claiming();
    harness.deliver(without_id(PEER, Query::CLEAR));
    harness.assert_waits();
    harness.deliver(without_id(PROXY, Query::CLEAR));
    harness.assert_clear(on);
}

#[test]
fn an_error_without_an_id_is_for_the_one_question_of_its_sender() {
    let (mut harness, _, _) = claiming();
    harness.deliver(without_id(PEER, Query::Error(Condition::ItemNotFound)));
    harness.assert_waits();
    harness.deliver(without_id(PROXY, Query::Error(Condition::RemoteServerTimeout)));
    harness.assert_failed(StreamFailure::Disowned(Condition::RemoteServerTimeout));
}

#[test]
fn a_refusal_that_no_offer_follows_fails_at_once() {
    for why in [
        Condition::BadRequest,
        Condition::Forbidden,
        Condition::ServiceUnavailable,
        Condition::RemoteServerTimeout,
        Condition::RemoteServerNotFound,
    ] {
        let mut harness = entity();
        let offer = harness.begin();
        harness.answers(&offer, Query::Error(why));
        harness.assert_failed(StreamFailure::Refused(why));
    }
}
