//! The proxy's table, row by row.

use rendezvous_core::bytestream::name::Allow;
use rendezvous_core::bytestream::proxy::Report;
use rendezvous_core::bytestream::stanza::{Condition, Connection, Query};
use rendezvous_core::machine::{Close, End, Machine, Output};
use rendezvous_core::pair::{Side, Why};
use rendezvous_core::time::Span;
use rendezvous_core::xmpp::hosted::IqHandler;

use crate::rig::{Did, asked};
use crate::{INITIATOR, TARGET, THIRD, at, claim, clear, error, jid, proxy, proxy_with, sid, stanza};

#[test]
fn accept_reads_nothing_and_is_unclaimed_for_30_s() {
    let mut rig = proxy();
    let on = rig.accept("10.0.0.2:1001");
    assert_eq!(rig.news(), [Did::Asked(Output::Read { on, wanted: false })]);
    assert_eq!(rig.machine.unclaimed(), 1);
    assert_eq!(rig.wait_for_deadline(), Span::from_secs(30));
    rig.assert_closed(on, Close::Abort);
    assert_eq!(rig.machine.connections(), 0);
}

#[test]
fn a1_a2_the_first_claim_is_held_without_an_answer() {
    let mut rig = proxy();
    let on = rig.claimed();
    assert_eq!(rig.said(), []);
    assert_eq!(rig.machine.unclaimed(), 0);
    assert!(!asked(&rig.news(), Output::Read { on, wanted: true }), "still nothing is read");
}

#[test]
fn a5_to_a8_the_second_claim_joins_first_and_then_tells_both_each_with_its_own_id() {
    let mut rig = proxy();
    let first = rig.claimed();
    let second = rig.accept("10.0.0.3:1002");
    rig.news();
    rig.claims(INITIATOR, "i", "10.0.0.1:1002");
    let read = |on| Did::Asked(Output::Read { on, wanted: true });
    let pair = Did::Asked(Output::Pair { hidden: first, client: second });
    assert_eq!(rig.news(), [read(first), read(second), pair]);
    assert_eq!(rig.said(), [clear(TARGET, "t"), clear(INITIATOR, "i")]);
    let paired =
        Report::Paired { first: jid(TARGET), first_on: first, second: jid(INITIATOR), second_on: second };
    assert_eq!(rig.reports(), [paired]);
}

#[test]
fn the_initiator_may_be_first() {
    let mut rig = proxy();
    rig.accept("10.0.0.3:1002");
    rig.claims(INITIATOR, "i", "10.0.0.1:1002");
    rig.accept("10.0.0.2:1001");
    rig.claims(TARGET, "t", "10.0.0.1:1001");
    assert_eq!(rig.said(), [clear(INITIATOR, "i"), clear(TARGET, "t")]);
    assert_eq!(rig.machine.pairs(), 1);
}

#[test]
fn both_claims_at_the_same_time_before_either_socket() {
    let mut rig = proxy();
    rig.claims(TARGET, "t", "10.0.0.1:1001");
    rig.claims(INITIATOR, "i", "10.0.0.1:1002");
    rig.accept("10.0.0.3:1002");
    assert_eq!(rig.machine.claimed(), 1);
    rig.accept("10.0.0.2:1001");
    assert_eq!(rig.said(), [clear(INITIATOR, "i"), clear(TARGET, "t")]);
}

#[test]
fn two_resources_of_one_account_are_two_sides() {
    let mut rig = proxy();
    rig.accept("10.0.0.2:1001");
    rig.accept("10.0.0.2:1002");
    rig.claims("me@example.org/a", "1", "10.0.0.1:1001");
    rig.claims("me@example.org/b", "2", "10.0.0.1:1002");
    assert_eq!(rig.machine.pairs(), 1);
}

#[test]
fn unclaimed_and_ended_is_closed() {
    for (end, close) in [(End::Clean, Close::Linger), (End::Reset, Close::Abort)] {
        let mut rig = proxy();
        let on = rig.accept("10.0.0.2:1001");
        rig.tell(|proxy, now| proxy.handle_end(on, end, now));
        rig.assert_closed(on, close);
        assert_eq!(rig.machine.unclaimed(), 0);
        assert_eq!(rig.said(), []);
    }
}

#[test]
fn claimed_and_ended_is_404() {
    for (end, close) in [(End::Clean, Close::Linger), (End::Reset, Close::Abort)] {
        let mut rig = proxy();
        let on = rig.claimed();
        rig.tell(|proxy, now| proxy.handle_end(on, end, now));
        rig.assert_closed(on, close);
        assert_eq!(rig.said(), [error(TARGET, "t", Condition::NotFound404)]);
        assert_eq!(rig.machine.claimed(), 0);
    }
}

#[test]
fn a_claimed_socket_that_cannot_be_written_to_is_404() {
    let mut rig = proxy();
    let on = rig.claimed();
    rig.tell(|proxy, now| proxy.handle_write_failed(on, now));
    rig.assert_closed(on, Close::Abort);
    assert_eq!(rig.said(), [error(TARGET, "t", Condition::NotFound404)]);
}

#[test]
fn claimed_for_60_s_is_504() {
    let mut rig = proxy();
    let on = rig.claimed();
    rig.news();
    assert_eq!(rig.wait_for_deadline(), Span::from_secs(60));
    rig.assert_closed(on, Close::Abort);
    assert_eq!(rig.said(), [error(TARGET, "t", Condition::Timeout504)]);
}

#[test]
fn a_socket_that_died_between_claim_and_pairing_leaves_the_stream_id_free() {
    let mut rig = proxy();
    let on = rig.claimed();
    rig.tell(|proxy, now| proxy.handle_end(on, End::Reset, now));
    rig.said();
    rig.accept("10.0.0.3:1002");
    rig.claims(INITIATOR, "i", "10.0.0.1:1002");
    assert_eq!(rig.said(), [], "it is the first now");
    rig.accept("10.0.0.2:1003");
    rig.claims(TARGET, "t2", "10.0.0.1:1003");
    assert_eq!(rig.said(), [clear(INITIATOR, "i"), clear(TARGET, "t2")]);
}

#[test]
fn a_socket_that_died_unseen_before_pairing_ends_the_pair() {
    let mut rig = proxy();
    let (first, second) = rig.paired();
    // Nobody reads a claimed socket; that it was reset is seen now.
    rig.tell(|proxy, now| proxy.handle_end(first, End::Reset, now));
    let news = rig.news();
    assert!(asked(&news, Output::Close { on: first, how: Close::Abort }));
    assert!(asked(&news, Output::Close { on: second, how: Close::Truncate }), "never a clean end");
    assert_eq!(rig.machine.pairs(), 0);
}

#[test]
fn the_same_jid_again_is_409_and_changes_nothing() {
    let mut rig = proxy();
    rig.claimed();
    rig.accept("10.0.0.2:1003");
    rig.news();
    rig.claims(TARGET, "again", "10.0.0.1:1003");
    assert_eq!(rig.said(), [error(TARGET, "again", Condition::Conflict409)]);
    rig.assert_not_closed();
    assert_eq!((rig.machine.claimed(), rig.machine.unclaimed()), (1, 1));
}

#[test]
fn the_same_jid_twice_before_its_socket_is_409_once() {
    let mut rig = proxy();
    rig.claims(TARGET, "t", "10.0.0.1:1001");
    rig.claims(TARGET, "again", "10.0.0.1:1003");
    rig.accept("10.0.0.2:1001");
    rig.accept("10.0.0.2:1003");
    assert_eq!(rig.said(), [error(TARGET, "again", Condition::Conflict409)]);
}

#[test]
fn a_third_jid_after_pairing_is_409_and_the_pair_goes_on() {
    let mut rig = proxy();
    let (first, _) = rig.paired();
    rig.accept("10.0.0.4:1003");
    rig.claims(THIRD, "x", "10.0.0.1:1003");
    assert_eq!(rig.said(), [error(THIRD, "x", Condition::Conflict409)]);
    rig.assert_not_closed();
    rig.tell(|proxy, now| proxy.handle_moved(first, 5, 0, now));
    assert_eq!(rig.machine.pairs(), 1);
}

#[test]
fn a_stolen_stream_id_is_noticed_by_whom_it_was_stolen_from() {
    let mut rig = proxy();
    rig.claimed();
    rig.accept("10.0.0.4:1003");
    rig.claims(THIRD, "thief", "10.0.0.1:1003");
    assert_eq!(rig.said(), [clear(TARGET, "t"), clear(THIRD, "thief")], "who knows it can take part");
    rig.accept("10.0.0.3:1002");
    rig.claims(INITIATOR, "i", "10.0.0.1:1002");
    assert_eq!(rig.said(), [error(INITIATOR, "i", Condition::Conflict409)]);
}

#[test]
fn paired_octets_and_ends_are_passed_on_and_closed_when_both_are_done() {
    let mut rig = proxy();
    let (first, second) = rig.paired();
    rig.tell(|proxy, now| proxy.handle_moved(first, 5, 0, now));
    rig.tell(|proxy, now| proxy.handle_end(first, End::Clean, now));
    assert_eq!(rig.news(), [Did::Asked(Output::CloseWrite { on: second })], "half-close");
    rig.tell(|proxy, now| proxy.handle_moved(second, 7, 0, now));
    rig.tell(|proxy, now| proxy.handle_end(second, End::Clean, now));
    let close = |on| Did::Asked(Output::Close { on, how: Close::Linger });
    assert_eq!(rig.news(), [close(first), close(second)]);
    let after = Span::ZERO;
    let ended = Report::Ended {
        first_on: first,
        second_on: second,
        from_first: 5,
        from_second: 7,
        after,
        why: Why::Done,
    };
    assert_eq!(rig.reports(), [ended]);
}

#[test]
fn paired_and_reset_is_closed_on_both_sides() {
    let mut rig = proxy();
    let (first, second) = rig.paired();
    rig.tell(|proxy, now| proxy.handle_end(second, End::Reset, now));
    let news = rig.news();
    assert!(asked(&news, Output::Close { on: first, how: Close::Truncate }), "{news:?}");
    assert!(asked(&news, Output::Close { on: second, how: Close::Abort }), "{news:?}");
    assert!(matches!(rig.reports()[..], [Report::Ended { why: Why::Reset(Side::Client), .. }]));
}

#[test]
fn the_stream_id_of_a_pair_that_ended_is_free() {
    let mut rig = proxy();
    let (first, _) = rig.paired();
    rig.tell(|proxy, now| proxy.handle_end(first, End::Reset, now));
    rig.paired();
}

#[test]
fn a_claim_without_a_socket_is_404_after_2_s() {
    let mut rig = proxy();
    rig.claims(TARGET, "t", "10.0.0.1:1001");
    assert_eq!(rig.said(), []);
    rig.wait(Span(1_999_999));
    assert_eq!(rig.said(), []);
    rig.wait(Span(1));
    assert_eq!(rig.said(), [error(TARGET, "t", Condition::NotFound404)]);
    assert_eq!(rig.idle, None);
}

#[test]
fn a_claim_may_come_before_its_socket() {
    let mut rig = proxy();
    rig.claims(TARGET, "t", "10.0.0.1:1001");
    rig.wait(Span(1_999_999));
    rig.accept("10.0.0.2:1001");
    assert_eq!(rig.machine.claimed(), 1);
    rig.wait(Span::from_secs(59));
    assert_eq!(rig.said(), []);
}

#[test]
fn no_stream_id_or_no_endpoint_is_400() {
    let mut rig = proxy();
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
        rig.hear(stanza(TARGET, "t", query));
        assert_eq!(rig.said(), [error(TARGET, "t", Condition::BadRequest400)]);
    }
}

#[test]
fn answers_to_nothing_are_not_answered() {
    let mut rig = proxy();
    rig.hear(clear(TARGET, "t"));
    rig.hear(error(TARGET, "t", Condition::Other));
    assert_eq!(rig.said(), []);
}

#[test]
fn who_is_not_allowed_is_403() {
    let allow = ["example.org", "initiator@example.net", "x@example.com/1"].map(jid);
    let mut rig = proxy_with(|config| config.allow = Allow::These(allow.to_vec()));
    for who in [TARGET, INITIATOR, "x@example.com/1", "example.org", "example.org/r"] {
        rig.claims(who, "in", "10.0.0.1:1001");
        assert_eq!(rig.said(), [], "{who}");
    }
    for who in [THIRD, "x@example.com/2", "a@not.example.org/1", "other@example.net/initiator@example.net"] {
        rig.claims(who, "out", "10.0.0.1:1001");
        assert_eq!(rig.said(), [error(who, "out", Condition::Forbidden403)]);
    }
}

#[test]
fn shutting_down_refuses_what_waits_and_lets_pairs_go_on() {
    let mut rig = proxy();
    let (first, second) = rig.paired();
    let unclaimed = rig.accept("10.0.0.5:1005");
    let claimed = rig.accept("10.0.0.6:1006");
    rig.hear(stanza(THIRD, "c", claim("other", "10.0.0.1:1006")));
    rig.hear(stanza(THIRD, "e", claim("early", "10.0.0.1:1007")));
    rig.news();
    rig.tell(|proxy, now| proxy.handle_drain(now));
    let unavailable = |id| error(THIRD, id, Condition::Unavailable503);
    assert_eq!(rig.said(), [unavailable("c"), unavailable("e")]);
    let news = rig.news();
    for on in [unclaimed, claimed] {
        assert!(asked(&news, Output::Close { on, how: Close::Abort }));
    }
    let late = rig.accept("10.0.0.8:1008");
    rig.assert_closed(late, Close::Abort);
    rig.hear(stanza(THIRD, "l", claim("late", "10.0.0.1:1008")));
    assert_eq!(rig.said(), [unavailable("l")]);
    assert!(!rig.machine.is_done());
    for on in [first, second] {
        rig.tell(|proxy, now| proxy.handle_end(on, End::Clean, now));
    }
    assert!(rig.machine.is_done());
}
