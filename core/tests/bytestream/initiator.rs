//! The initiator's table, row by row.

use rendezvous_core::bytestream::entity::{Entity, Report};
use rendezvous_core::bytestream::role::Failure;
use rendezvous_core::bytestream::stanza::{Condition, Query, Stanza};
use rendezvous_core::machine::{Close, ConnId, End, Machine, Output};
use rendezvous_core::time::Span;
use rendezvous_core::xmpp::hosted::IqHandler;

use crate::ends::{ME, Offer, PEER, PROXY, SERVICE, config, connection, entity, entity_with, just_under};
use crate::rig::{Rig, asked, dials};
use crate::{THIRD, at, clear, error, jid, stanza};

/// I4: on the way to the proxy; its first dial.
fn following() -> (Rig<Entity>, Offer, ConnId) {
    let mut rig = entity();
    let offer = rig.begin();
    rig.is_used(&offer, PROXY);
    let (on, to) = rig.one_dial();
    assert_eq!(to, "10.0.0.9:4000");
    (rig, offer, on)
}

/// I4: the claim is at the proxy.
fn claiming() -> (Rig<Entity>, ConnId, Stanza) {
    let (mut rig, _, on) = following();
    rig.connected(on, "10.0.0.1:3333");
    let claim = rig.one_stanza();
    (rig, on, claim)
}

/// I5.
fn refused() -> (Rig<Entity>, Offer) {
    let mut rig = entity();
    let offer = rig.begin();
    rig.answers(&offer, Query::Error(Condition::NotFound404));
    rig.assert_waits();
    (rig, offer)
}

#[test]
fn i0_pf1_pf2_offers_its_own_address_first_and_proxies_next_with_128_random_bits() {
    let mut rig = entity();
    let first = rig.begin();
    assert_eq!(first.connections, config().connections);
    assert_eq!(first.sid.as_str().len(), 32);
    assert!(first.sid.as_str().bytes().all(|octet| octet.is_ascii_hexdigit()));
    let second = rig.begin();
    assert_ne!(first.sid, second.sid);
    assert_ne!(first.id, second.id);
}

#[test]
fn i0_no_more_than_8_connections_are_offered() {
    let mut rig = entity_with(|config| config.connections = vec![connection(ME, "10.0.0.1:5000"); 9]);
    assert_eq!(rig.begin().connections.len(), 8);
}

#[test]
fn i0_a1_1_nothing_to_offer_is_offered() {
    let mut rig = entity_with(|config| config.connections.clear());
    assert_eq!(rig.begin().connections, []);
}

#[test]
fn i1_accept_is_kept_unread_for_30_s() {
    let mut rig = entity();
    rig.begin();
    rig.news();
    let on = rig.accept("10.0.0.2:1001");
    assert!(rig.asked(Output::Read { on, wanted: false }));
    rig.wait(Span::from_secs(29));
    assert!(!rig.asked(Output::Close { on, how: Close::Abort }));
    rig.wait(Span::from_secs(1));
    assert!(rig.asked(Output::Close { on, how: Close::Abort }));
}

#[test]
fn i1_pf6_the_claim_is_answered_and_nothing_relayed_before_pf5() {
    let mut rig = entity();
    let offer = rig.begin();
    let on = rig.accept("10.0.0.2:1001");
    rig.is_claimed(&offer, "10.0.0.1:1001");
    assert_eq!(rig.stanzas(), [clear(PEER, "pf4")]);
    rig.assert_waits();
    assert_eq!(dials(&rig.news()), []);
    rig.is_used(&offer, ME);
    rig.assert_clear(on);
}

#[test]
fn i1_pf5_before_pf6() {
    let mut rig = entity();
    let offer = rig.begin();
    rig.is_used(&offer, ME);
    rig.assert_waits();
    let on = rig.accept("10.0.0.2:1001");
    rig.is_claimed(&offer, "10.0.0.1:1001");
    assert_eq!(rig.stanzas(), [clear(PEER, "pf4")]);
    rig.assert_clear(on);
}

#[test]
fn i2_pf5_is_waited_for_10_s_and_no_longer() {
    let mut rig = entity();
    let offer = rig.begin();
    let on = rig.accept("10.0.0.2:1001");
    rig.is_claimed(&offer, "10.0.0.1:1001");
    rig.wait(just_under(10));
    rig.assert_waits();
    rig.wait(Span(1));
    rig.assert_clear(on);
}

#[test]
fn i1_a_claim_may_come_before_its_socket_and_is_404_after_2_s() {
    let mut rig = entity();
    let offer = rig.begin();
    rig.is_claimed(&offer, "10.0.0.1:1001");
    rig.wait(Span(1_999_999));
    assert_eq!(rig.stanzas(), []);
    rig.wait(Span(1));
    assert_eq!(rig.stanzas(), [error(PEER, "pf4", Condition::NotFound404)]);
    rig.assert_waits();
    rig.is_claimed(&offer, "10.0.0.1:1001");
    rig.accept("10.0.0.2:1001");
    assert_eq!(rig.stanzas(), [clear(PEER, "pf4")]);
}

#[test]
fn i1_a_claim_with_a_wrong_stream_id_or_a_wrong_jid_is_404() {
    let mut rig = entity();
    let offer = rig.begin();
    rig.accept("10.0.0.2:1001");
    let endpoint = Some(at("10.0.0.1:1001"));
    rig.hears_of(stanza(PEER, "x", Query::Claim { sid: Some(crate::sid("wrong")), endpoint }));
    assert_eq!(rig.stanzas(), [error(PEER, "x", Condition::NotFound404)]);
    rig.hears_of(stanza(THIRD, "x", Query::Claim { sid: Some(offer.sid), endpoint }));
    assert_eq!(rig.stanzas(), [error(THIRD, "x", Condition::NotFound404)]);
    rig.assert_waits();
}

#[test]
fn i2_a_second_claim_is_404() {
    let mut rig = entity();
    let offer = rig.begin();
    rig.accept("10.0.0.2:1001");
    rig.is_claimed(&offer, "10.0.0.1:1001");
    rig.stanzas();
    rig.is_claimed(&offer, "10.0.0.1:1002");
    assert_eq!(rig.stanzas(), [error(PEER, "pf4", Condition::NotFound404)]);
    rig.assert_waits();
}

#[test]
fn a_claim_without_stream_id_or_endpoint_is_400() {
    let mut rig = entity();
    let offer = rig.begin();
    rig.hears_of(stanza(PEER, "x", Query::Claim { sid: Some(offer.sid), endpoint: None }));
    rig.hears_of(stanza(PEER, "y", Query::Claim { sid: None, endpoint: Some(at("10.0.0.1:1001")) }));
    let bad = |id| error(PEER, id, Condition::BadRequest400);
    assert_eq!(rig.stanzas(), [bad("x"), bad("y")]);
}

#[test]
fn i1_a6_3_a_proxy_is_named_so_nobody_listens_and_its_addresses_are_dialled_in_order() {
    let mut rig = entity();
    let offer = rig.begin();
    let unclaimed = rig.accept("10.0.0.2:1001");
    rig.is_used(&offer, PROXY);
    let news = rig.news();
    assert!(asked(&news, Output::Close { on: unclaimed, how: Close::Abort }));
    let first = dials(&news)[0];
    assert_eq!(first.1, at("10.0.0.9:4000"));
    rig.refused(first.0);
    assert_eq!(rig.one_dial().1, "10.0.1.9:4000");
    let late = rig.accept("10.0.0.2:1002");
    assert!(rig.asked(Output::Close { on: late, how: Close::Abort }));
}

#[test]
fn i4_a_dial_may_take_10_s() {
    let (mut rig, _, on) = following();
    assert_eq!(rig.wait_for_deadline(), Span::from_secs(10));
    let news = rig.news();
    assert!(asked(&news, Output::Close { on, how: Close::Abort }));
    assert_eq!(dials(&news)[0].1, at("10.0.1.9:4000"));
}

#[test]
fn i4_a6_4_claims_the_address_dialled_with_its_own_port() {
    let (mut rig, on, claim) = claiming();
    assert_eq!(claim.peer, jid(PROXY));
    let Query::Claim { sid: Some(_), endpoint } = claim.query else { panic!("{claim:?}") };
    assert_eq!(endpoint, Some(at("10.0.0.9:3333")));
    assert!(rig.asked(Output::Read { on, wanted: false }), "nothing is read before it is clear");
}

#[test]
fn i4_a6_8_the_result_of_the_proxy_is_clear_to_send() {
    let (mut rig, on, claim) = claiming();
    rig.hears_of(Stanza { peer: jid(PROXY), id: claim.id, query: Query::CLEAR });
    rig.assert_clear(on);
    assert_eq!(rig.one_dial().1, SERVICE);
}

#[test]
fn i4_an_answer_of_somebody_else_or_with_another_id_is_none() {
    let (mut rig, _, claim) = claiming();
    rig.hears_of(Stanza { peer: jid(PEER), id: claim.id, query: Query::CLEAR });
    rig.hears_of(clear(PROXY, "guessed"));
    rig.assert_waits();
}

#[test]
fn i4_an_error_of_the_proxy_fails() {
    let (mut rig, on, claim) = claiming();
    rig.hears_of(Stanza { peer: jid(PROXY), id: claim.id, query: Query::Error(Condition::Timeout504) });
    assert!(rig.asked(Output::Close { on, how: Close::Abort }));
    rig.assert_failed(Failure::Disowned(Condition::Timeout504));
}

#[test]
fn i4_every_dial_failed() {
    let (mut rig, _, on) = following();
    rig.refused(on);
    let (on, _) = rig.one_dial();
    rig.refused(on);
    rig.assert_failed(Failure::Unreachable);
}

#[test]
fn i4_a_reset_of_the_socket_fails() {
    let (mut rig, on, _) = claiming();
    rig.tell(|entity, now| entity.handle_end(on, End::Reset, now));
    rig.assert_failed(Failure::Reset);
}

#[test]
fn i4_a_clean_end_is_the_half_close_of_a_target_that_is_clear_before_us() {
    let (mut rig, on, claim) = claiming();
    rig.tell(|entity, now| entity.handle_end(on, End::Clean, now));
    rig.assert_waits();
    rig.hears_of(Stanza { peer: jid(PROXY), id: claim.id, query: Query::CLEAR });
    rig.assert_clear(on);
}

#[test]
fn i4_60_s_from_the_targets_word() {
    let (mut rig, _, on) = following();
    rig.wait(Span::from_secs(9));
    rig.connected(on, "10.0.0.1:3333");
    rig.stanzas();
    rig.wait(just_under(51));
    rig.assert_waits();
    rig.wait(Span(1));
    rig.assert_failed(Failure::Silent);
}

#[test]
fn i1_an_unknown_or_missing_jid_fails() {
    for connection in [Some(jid(THIRD)), None] {
        let mut rig = entity();
        let offer = rig.begin();
        rig.answers(&offer, Query::Result { sid: None, connection });
        rig.assert_failed(Failure::UnknownConnection);
    }
}

#[test]
fn i1_our_own_jid_is_unknown_where_it_was_not_offered() {
    let mut rig = entity_with(|config| config.connections.retain(|it| it.jid == jid(PROXY)));
    let offer = rig.begin();
    rig.is_used(&offer, ME);
    rig.assert_failed(Failure::UnknownConnection);
}

#[test]
fn i2_a_proxy_named_after_a_claim_here_fails() {
    let mut rig = entity();
    let offer = rig.begin();
    rig.accept("10.0.0.2:1001");
    rig.is_claimed(&offer, "10.0.0.1:1001");
    rig.is_used(&offer, PROXY);
    rig.assert_failed(Failure::UnknownConnection);
}

#[test]
fn i2_a_clean_end_is_the_half_close_of_a_target_that_is_clear_before_us() {
    let mut rig = entity();
    let offer = rig.begin();
    let on = rig.accept("10.0.0.2:1001");
    rig.is_claimed(&offer, "10.0.0.1:1001");
    assert_eq!(rig.stanzas(), [clear(PEER, "pf4")], "the target is clear, and may say all and end");
    rig.tell(|entity, now| entity.handle_end(on, End::Clean, now));
    rig.assert_waits();
    rig.is_used(&offer, ME);
    rig.assert_clear(on);
    let (service, _) = rig.one_dial();
    rig.tell(|entity, now| entity.handle_connected(service, now));
    assert!(rig.asked(Output::CloseWrite { on: service }));
}

#[test]
fn i1_the_end_of_a_socket_that_nobody_claimed_is_its_end() {
    let mut rig = entity();
    let offer = rig.begin();
    let on = rig.accept("10.0.0.2:1001");
    rig.tell(|entity, now| entity.handle_end(on, End::Clean, now));
    assert!(rig.asked(Output::Close { on, how: Close::Linger }));
    rig.is_claimed(&offer, "10.0.0.1:1001");
    rig.wait(Span::from_secs(2));
    assert_eq!(rig.stanzas(), [error(PEER, "pf4", Condition::NotFound404)]);
    rig.assert_waits();
}

#[test]
fn i2_a_reset_of_the_socket_fails() {
    let mut rig = entity();
    let offer = rig.begin();
    let on = rig.accept("10.0.0.2:1001");
    rig.is_claimed(&offer, "10.0.0.1:1001");
    rig.tell(|entity, now| entity.handle_end(on, End::Reset, now));
    rig.assert_failed(Failure::Reset);
}

#[test]
fn i1_60_s_without_an_answer_fail() {
    let mut rig = entity();
    rig.begin();
    rig.wait(just_under(60));
    rig.assert_waits();
    rig.wait(Span(1));
    rig.assert_failed(Failure::Silent);
}

#[test]
fn i5_a1_3_a2_2_an_offer_with_the_same_stream_id_makes_a_target_of_it() {
    let (mut rig, offer) = refused();
    rig.news();
    rig.is_offered(offer.sid.as_str(), vec![connection(PEER, "10.0.0.2:7000")]);
    let (on, to) = rig.one_dial();
    assert_eq!(to, "10.0.0.2:7000");
    rig.connected(on, "10.0.0.1:3333");
    let [claim, used] = &rig.stanzas()[..] else { panic!("both at once") };
    assert_eq!((&claim.peer, &used.peer), (&jid(PEER), &jid(PEER)));
    rig.hears_of(Stanza { peer: jid(PEER), id: claim.id.clone(), query: Query::CLEAR });
    rig.assert_clear(on);
}

#[test]
fn i5_roles_are_changed_once() {
    let (mut rig, offer) = refused();
    rig.is_offered(offer.sid.as_str(), vec![]);
    assert_eq!(rig.stanzas(), [error(PEER, "pf2", Condition::NotFound404)]);
    rig.assert_failed(Failure::Unreachable);
}

#[test]
fn i5_10_s_without_an_offer_fail_with_what_the_peer_said() {
    let (mut rig, _) = refused();
    assert_eq!(rig.wait_for_failure(), Span::from_secs(10));
    rig.assert_failed(Failure::Refused(Condition::NotFound404));
}

#[test]
fn i5_an_offer_with_another_stream_id_is_another_stream() {
    let (mut rig, _) = refused();
    rig.news();
    rig.is_offered("other", vec![connection(PEER, "10.0.0.2:7000")]);
    assert_eq!(rig.reports(), [Report::Failed { peer: jid(PEER), why: Failure::Replaced }]);
    assert_eq!(rig.one_dial().1, "10.0.0.2:7000");
    assert_eq!(rig.machine.sessions(), 1);
}

#[test]
fn i1_a5_1_without_reversal_an_error_is_the_end() {
    let mut rig = entity_with(|config| config.reversal = false);
    let offer = rig.begin();
    rig.answers(&offer, Query::Error(Condition::NotAcceptable406));
    rig.assert_failed(Failure::Refused(Condition::NotAcceptable406));
}

#[test]
fn any_cancel_closes_all_sockets() {
    let mut rig = entity_with(|config| config.peer = Some(jid(PEER)));
    let local = rig.local();
    let offer = rig.offer();
    rig.accept("10.0.0.2:1001");
    rig.is_claimed(&offer, "10.0.0.1:1001");
    rig.tell(|entity, now| entity.handle_end(local, End::Reset, now));
    rig.assert_failed(Failure::Cancelled);
}

#[test]
fn any_shutting_down_cancels_and_begins_nothing() {
    let mut rig = entity();
    rig.begin();
    rig.tell(|entity, now| entity.handle_drain(now));
    rig.assert_failed(Failure::Cancelled);
    rig.tell(|entity, now| entity.handle_begin(jid(PEER), None, now));
    assert_eq!(rig.stanzas(), []);
    rig.assert_failed(Failure::Cancelled);
}

#[test]
fn a_local_connection_whose_stream_fails_sees_no_clean_end() {
    let mut rig = entity_with(|config| config.peer = Some(jid(PEER)));
    let local = rig.local();
    assert!(rig.asked(Output::Read { on: local, wanted: false }));
    rig.wait(Span::from_secs(60));
    assert!(rig.asked(Output::Close { on: local, how: Close::Truncate }));
}

impl Rig<Entity> {
    /// How long until there is one session fewer.
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
        let mut rig = entity();
        let offer = rig.begin();
        let on = rig.accept("10.0.0.2:1001");
        let used = Query::Result { sid: Some(offer.sid.clone()), connection: Some(jid(ME)) };
        if is_claimed_first {
            rig.is_claimed(&offer, "10.0.0.1:1001");
            rig.hears_of(stanza(PEER, id, used));
        } else {
            rig.hears_of(stanza(PEER, id, used));
            rig.is_claimed(&offer, "10.0.0.1:1001");
        }
        rig.assert_clear(on);
    }
    let mut rig = entity();
    let offer = rig.begin();
    let used = Query::Result { sid: Some(offer.sid), connection: Some(jid(PROXY)) };
    rig.hears_of(without_id(PEER, used.clone()));
    assert_eq!(rig.one_dial().1, "10.0.0.9:4000");
    rig.hears_of(without_id(PEER, used));
    rig.assert_waits();
}

#[test]
fn pf5_of_another_sender_or_with_another_stream_id_is_none() {
    let mut rig = entity();
    let offer = rig.begin();
    let used = |sid| Query::Result { sid: Some(sid), connection: Some(jid(PROXY)) };
    rig.hears_of(without_id(THIRD, used(offer.sid)));
    rig.hears_of(without_id(PEER, used(crate::sid("another"))));
    rig.hears_of(without_id(PEER, Query::CLEAR));
    assert_eq!(dials(&rig.news()), []);
    rig.assert_waits();
}

#[test]
fn a6_8_without_an_id_is_for_the_one_claim_of_its_sender() {
    let (mut rig, on, _) = claiming();
    rig.hears_of(without_id(PEER, Query::CLEAR));
    rig.assert_waits();
    rig.hears_of(without_id(PROXY, Query::CLEAR));
    rig.assert_clear(on);
}

#[test]
fn an_error_without_an_id_is_for_the_one_question_of_its_sender() {
    let (mut rig, _, _) = claiming();
    rig.hears_of(without_id(PEER, Query::Error(Condition::NotFound404)));
    rig.assert_waits();
    rig.hears_of(without_id(PROXY, Query::Error(Condition::Timeout504)));
    rig.assert_failed(Failure::Disowned(Condition::Timeout504));
}

#[test]
fn a_refusal_that_no_offer_follows_fails_at_once() {
    for why in [
        Condition::BadRequest400,
        Condition::Forbidden403,
        Condition::Unavailable503,
        Condition::Timeout504,
        Condition::NoServer404,
    ] {
        let mut rig = entity();
        let offer = rig.begin();
        rig.answers(&offer, Query::Error(why));
        rig.assert_failed(Failure::Refused(why));
    }
}
