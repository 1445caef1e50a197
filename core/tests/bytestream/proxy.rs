//! The proxy's table, row by row.

use rendezvous_core::bytestream::name::Allow;
use rendezvous_core::bytestream::stanza::{Condition, Connection, Query};
use rendezvous_core::component_host::IqHandler;
use rendezvous_core::event::ProxyEvent;
use rendezvous_core::machine::{Close, End, Machine, Output};
use rendezvous_core::pair::{EndReason, Side};
use rendezvous_core::time::Span;

use crate::harness::{Done, asked};
use crate::{INITIATOR, TARGET, THIRD, at, claim, clear, error, jid, proxy, proxy_with, sid, stanza};

#[test]
fn accept_reads_nothing_and_is_unclaimed_for_30_s() {
    let mut harness = proxy();
    let on = harness.accept("10.0.0.2:1001");
    assert_eq!(harness.actions(), [Done::Asked(Output::Read { on, wanted: false })]);
    assert_eq!(harness.machine.unclaimed(), 1);
    assert_eq!(harness.wait_for_deadline(), Span::from_secs(30));
    harness.assert_closed(on, Close::Abort);
    assert_eq!(harness.machine.connections(), 0);
}

#[test]
fn a1_a2_the_first_claim_is_held_without_an_answer() {
    let mut harness = proxy();
    let on = harness.claimed();
    assert_eq!(harness.sent_stanzas(), []);
    assert_eq!(harness.machine.unclaimed(), 0);
    assert!(!asked(&harness.actions(), Output::Read { on, wanted: true }), "still nothing is read");
}

#[test]
fn a5_to_a8_the_second_claim_joins_first_and_then_tells_both_each_with_its_own_id() {
    let mut harness = proxy();
    let first = harness.claimed();
    let second = harness.accept("10.0.0.3:1002");
    harness.actions();
    harness.claims(INITIATOR, "i", "10.0.0.1:1002");
    let read = |on| Done::Asked(Output::Read { on, wanted: true });
    let pair = Done::Asked(Output::Pair { hidden: first, client: second });
    assert_eq!(harness.actions(), [read(first), read(second), pair]);
    assert_eq!(harness.sent_stanzas(), [clear(TARGET, "t"), clear(INITIATOR, "i")]);
    let paired =
        ProxyEvent::Paired { first: jid(TARGET), first_on: first, second: jid(INITIATOR), second_on: second };
    assert_eq!(harness.events(), [paired]);
}

#[test]
fn the_initiator_may_be_first() {
    let mut harness = proxy();
    harness.accept("10.0.0.3:1002");
    harness.claims(INITIATOR, "i", "10.0.0.1:1002");
    harness.accept("10.0.0.2:1001");
    harness.claims(TARGET, "t", "10.0.0.1:1001");
    assert_eq!(harness.sent_stanzas(), [clear(INITIATOR, "i"), clear(TARGET, "t")]);
    assert_eq!(harness.machine.pairs(), 1);
}

#[test]
fn both_claims_at_the_same_time_before_either_socket() {
    let mut harness = proxy();
    harness.claims(TARGET, "t", "10.0.0.1:1001");
    harness.claims(INITIATOR, "i", "10.0.0.1:1002");
    harness.accept("10.0.0.3:1002");
    assert_eq!(harness.machine.claimed(), 1);
    harness.accept("10.0.0.2:1001");
    assert_eq!(harness.sent_stanzas(), [clear(INITIATOR, "i"), clear(TARGET, "t")]);
}

#[test]
fn two_resources_of_one_account_are_two_sides() {
    let mut harness = proxy();
    harness.accept("10.0.0.2:1001");
    harness.accept("10.0.0.2:1002");
    harness.claims("me@example.org/a", "1", "10.0.0.1:1001");
    harness.claims("me@example.org/b", "2", "10.0.0.1:1002");
    assert_eq!(harness.machine.pairs(), 1);
}

#[test]
fn unclaimed_and_ended_is_closed() {
    for (end, close) in [(End::Clean, Close::Linger), (End::Reset, Close::Abort)] {
        let mut harness = proxy();
        let on = harness.accept("10.0.0.2:1001");
        harness.call(|proxy, now| proxy.handle_end(on, end, now));
        harness.assert_closed(on, close);
        assert_eq!(harness.machine.unclaimed(), 0);
        assert_eq!(harness.sent_stanzas(), []);
    }
}

#[test]
fn claimed_and_ended_is_404() {
    for (end, close) in [(End::Clean, Close::Linger), (End::Reset, Close::Abort)] {
        let mut harness = proxy();
        let on = harness.claimed();
        harness.call(|proxy, now| proxy.handle_end(on, end, now));
        harness.assert_closed(on, close);
        assert_eq!(harness.sent_stanzas(), [error(TARGET, "t", Condition::ItemNotFound)]);
        assert_eq!(harness.machine.claimed(), 0);
    }
}

#[test]
fn a_claimed_socket_that_cannot_be_written_to_is_404() {
    let mut harness = proxy();
    let on = harness.claimed();
    harness.call(|proxy, now| proxy.handle_write_failed(on, now));
    harness.assert_closed(on, Close::Abort);
    assert_eq!(harness.sent_stanzas(), [error(TARGET, "t", Condition::ItemNotFound)]);
}

#[test]
fn claimed_for_60_s_is_504() {
    let mut harness = proxy();
    let on = harness.claimed();
    harness.actions();
    assert_eq!(harness.wait_for_deadline(), Span::from_secs(60));
    harness.assert_closed(on, Close::Abort);
    assert_eq!(harness.sent_stanzas(), [error(TARGET, "t", Condition::RemoteServerTimeout)]);
}

#[test]
fn a_socket_that_died_between_claim_and_pairing_leaves_the_stream_id_free() {
    let mut harness = proxy();
    let on = harness.claimed();
    harness.call(|proxy, now| proxy.handle_end(on, End::Reset, now));
    harness.sent_stanzas();
    harness.accept("10.0.0.3:1002");
    harness.claims(INITIATOR, "i", "10.0.0.1:1002");
    assert_eq!(harness.sent_stanzas(), [], "it is the first now");
    harness.accept("10.0.0.2:1003");
    harness.claims(TARGET, "t2", "10.0.0.1:1003");
    assert_eq!(harness.sent_stanzas(), [clear(INITIATOR, "i"), clear(TARGET, "t2")]);
}

#[test]
fn a_socket_that_died_unseen_before_pairing_ends_the_pair() {
    let mut harness = proxy();
    let (first, second) = harness.paired();
    // A claimed socket is not read; its reset is noticed now.
    harness.call(|proxy, now| proxy.handle_end(first, End::Reset, now));
    let actions = harness.actions();
    assert!(asked(&actions, Output::Close { on: first, how: Close::Abort }));
    assert!(asked(&actions, Output::Close { on: second, how: Close::Truncate }), "never a clean end");
    assert_eq!(harness.machine.pairs(), 0);
}

#[test]
fn the_same_jid_again_is_409_and_changes_nothing() {
    let mut harness = proxy();
    harness.claimed();
    harness.accept("10.0.0.2:1003");
    harness.actions();
    harness.claims(TARGET, "again", "10.0.0.1:1003");
    assert_eq!(harness.sent_stanzas(), [error(TARGET, "again", Condition::Conflict)]);
    harness.assert_not_closed();
    assert_eq!((harness.machine.claimed(), harness.machine.unclaimed()), (1, 1));
}

#[test]
fn the_same_jid_twice_before_its_socket_is_409_once() {
    let mut harness = proxy();
    harness.claims(TARGET, "t", "10.0.0.1:1001");
    harness.claims(TARGET, "again", "10.0.0.1:1003");
    harness.accept("10.0.0.2:1001");
    harness.accept("10.0.0.2:1003");
    assert_eq!(harness.sent_stanzas(), [error(TARGET, "again", Condition::Conflict)]);
}

#[test]
fn a_third_jid_after_pairing_is_409_and_the_pair_goes_on() {
    let mut harness = proxy();
    let (first, _) = harness.paired();
    harness.accept("10.0.0.4:1003");
    harness.claims(THIRD, "x", "10.0.0.1:1003");
    assert_eq!(harness.sent_stanzas(), [error(THIRD, "x", Condition::Conflict)]);
    harness.assert_not_closed();
    harness.call(|proxy, now| proxy.handle_moved(first, 5, 0, now));
    assert_eq!(harness.machine.pairs(), 1);
}

#[test]
fn a_stolen_stream_id_is_noticed_by_whom_it_was_stolen_from() {
    let mut harness = proxy();
    harness.claimed();
    harness.accept("10.0.0.4:1003");
    harness.claims(THIRD, "thief", "10.0.0.1:1003");
    assert_eq!(
        harness.sent_stanzas(),
        [clear(TARGET, "t"), clear(THIRD, "thief")],
        "who knows it can take part"
    );
    harness.accept("10.0.0.3:1002");
    harness.claims(INITIATOR, "i", "10.0.0.1:1002");
    assert_eq!(harness.sent_stanzas(), [error(INITIATOR, "i", Condition::Conflict)]);
}

#[test]
fn paired_bytes_and_ends_are_passed_on_and_closed_when_both_are_done() {
    let mut harness = proxy();
    let (first, second) = harness.paired();
    harness.call(|proxy, now| proxy.handle_moved(first, 5, 0, now));
    harness.call(|proxy, now| proxy.handle_end(first, End::Clean, now));
    assert_eq!(harness.actions(), [Done::Asked(Output::CloseWrite { on: second })], "half-close");
    harness.call(|proxy, now| proxy.handle_moved(second, 7, 0, now));
    harness.call(|proxy, now| proxy.handle_end(second, End::Clean, now));
    let close = |on| Done::Asked(Output::Close { on, how: Close::Linger });
    assert_eq!(harness.actions(), [close(first), close(second)]);
    let after = Span::ZERO;
    let ended = ProxyEvent::Ended {
        first_on: first,
        second_on: second,
        from_first: 5,
        from_second: 7,
        after,
        why: EndReason::Done,
    };
    assert_eq!(harness.events(), [ended]);
}

#[test]
fn paired_and_reset_is_closed_on_both_sides() {
    let mut harness = proxy();
    let (first, second) = harness.paired();
    harness.call(|proxy, now| proxy.handle_end(second, End::Reset, now));
    let actions = harness.actions();
    assert!(asked(&actions, Output::Close { on: first, how: Close::Truncate }), "{actions:?}");
    assert!(asked(&actions, Output::Close { on: second, how: Close::Abort }), "{actions:?}");
    assert!(matches!(harness.events()[..], [ProxyEvent::Ended { why: EndReason::Reset(Side::Client), .. }]));
}

#[test]
fn the_stream_id_of_a_pair_that_ended_is_free() {
    let mut harness = proxy();
    let (first, _) = harness.paired();
    harness.call(|proxy, now| proxy.handle_end(first, End::Reset, now));
    harness.paired();
}

#[test]
fn a_claim_without_a_socket_is_404_after_2_s() {
    let mut harness = proxy();
    harness.claims(TARGET, "t", "10.0.0.1:1001");
    assert_eq!(harness.sent_stanzas(), []);
    harness.wait(Span(1_999_999));
    assert_eq!(harness.sent_stanzas(), []);
    harness.wait(Span(1));
    assert_eq!(harness.sent_stanzas(), [error(TARGET, "t", Condition::ItemNotFound)]);
    assert_eq!(harness.idle, None);
}

#[test]
fn a_claim_may_come_before_its_socket() {
    let mut harness = proxy();
    harness.claims(TARGET, "t", "10.0.0.1:1001");
    harness.wait(Span(1_999_999));
    harness.accept("10.0.0.2:1001");
    assert_eq!(harness.machine.claimed(), 1);
    harness.wait(Span::from_secs(59));
    assert_eq!(harness.sent_stanzas(), []);
}

#[test]
fn no_stream_id_or_no_endpoint_is_400() {
    let mut harness = proxy();
    let (some_sid, some_endpoint) = (Some(sid("s")), Some(at("10.0.0.1:1001")));
    for query in [
        Query::Claim { sid: None, endpoint: some_endpoint },
        Query::Claim { sid: some_sid.clone(), endpoint: None },
        Query::Offer {
            sid: some_sid,
            connections: vec![Connection { jid: jid(TARGET), to: at("10.0.0.2:1") }],
            malformed: 0,
        },
    ] {
        harness.deliver(stanza(TARGET, "t", query));
        assert_eq!(harness.sent_stanzas(), [error(TARGET, "t", Condition::BadRequest)]);
    }
}

#[test]
fn answers_to_nothing_are_not_answered() {
    let mut harness = proxy();
    harness.deliver(clear(TARGET, "t"));
    harness.deliver(error(TARGET, "t", Condition::Undefined));
    assert_eq!(harness.sent_stanzas(), []);
}

#[test]
fn who_is_not_allowed_is_403() {
    let allow = ["example.org", "initiator@example.net", "x@example.com/1"].map(jid);
    let mut harness = proxy_with(|config| config.allow = Allow::These(allow.to_vec()));
    for who in [TARGET, INITIATOR, "x@example.com/1", "example.org", "example.org/r"] {
        harness.claims(who, "in", "10.0.0.1:1001");
        assert_eq!(harness.sent_stanzas(), [], "{who}");
    }
    for who in [THIRD, "x@example.com/2", "a@not.example.org/1", "other@example.net/initiator@example.net"] {
        harness.claims(who, "out", "10.0.0.1:1001");
        assert_eq!(harness.sent_stanzas(), [error(who, "out", Condition::Forbidden)]);
    }
}

#[test]
fn shutting_down_refuses_what_waits_and_lets_pairs_go_on() {
    let mut harness = proxy();
    let (first, second) = harness.paired();
    let unclaimed = harness.accept("10.0.0.5:1005");
    let claimed = harness.accept("10.0.0.6:1006");
    harness.deliver(stanza(THIRD, "c", claim("other", "10.0.0.1:1006")));
    harness.deliver(stanza(THIRD, "e", claim("early", "10.0.0.1:1007")));
    harness.actions();
    harness.call(|proxy, now| proxy.handle_drain(now));
    let unavailable = |id| error(THIRD, id, Condition::ServiceUnavailable);
    assert_eq!(harness.sent_stanzas(), [unavailable("c"), unavailable("e")]);
    let actions = harness.actions();
    for on in [unclaimed, claimed] {
        assert!(asked(&actions, Output::Close { on, how: Close::Abort }));
    }
    let late = harness.accept("10.0.0.8:1008");
    harness.assert_closed(late, Close::Abort);
    harness.deliver(stanza(THIRD, "l", claim("late", "10.0.0.1:1008")));
    assert_eq!(harness.sent_stanzas(), [unavailable("l")]);
    assert!(!harness.machine.is_done());
    for on in [first, second] {
        harness.call(|proxy, now| proxy.handle_end(on, End::Clean, now));
    }
    assert!(harness.machine.is_done());
}
