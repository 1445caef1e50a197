//! Bounds of what strangers can make the proxy keep, and of guessing.

use rendezvous_core::bytestream::stanza::{Condition, Query};
use rendezvous_core::machine::{Close, ConnId, Output};
use rendezvous_core::time::Span;

use crate::harness::Done;
use crate::{INITIATOR, TARGET, THIRD, claim, clear, error, jid, proxy, proxy_with, stanza};

fn closed(actions: &[Done]) -> Vec<ConnId> {
    let close = |did: &Done| match did {
        Done::Asked(Output::Close { on, how: Close::Abort }) => Some(*on),
        _ => None,
    };
    actions.iter().filter_map(close).collect()
}

#[test]
fn of_10_000_unclaimed_sockets_the_oldest_go() {
    let mut harness = proxy();
    let from = |n: u32| format!("10.{}.{}.{}:{}", 1 + n / 62_500, n / 250 % 250, n % 250, 1_000 + n % 60_000);
    let first: Vec<ConnId> = (0..10_000).map(|n| harness.accept(&from(n))).collect();
    assert_eq!(harness.machine.unclaimed(), 10_000);
    assert_eq!(closed(&harness.actions()), []);
    for n in 10_000..10_500 {
        harness.accept(&from(n));
    }
    assert_eq!(closed(&harness.actions()), first[..500]);
    assert_eq!((harness.machine.unclaimed(), harness.machine.connections()), (10_000, 10_000));
    // The sockets that are left can still be claimed.
    harness.claims(TARGET, "t", &format!("10.0.0.1:{}", 1_000 + 10_499));
    assert_eq!((harness.machine.unclaimed(), harness.machine.claimed()), (9_999, 1));
    harness.wait(Span::from_secs(60));
    assert_eq!(harness.machine.connections(), 0);
}

#[test]
fn one_address_pushes_out_its_own_sockets_and_nobody_elses() {
    let mut harness = proxy_with(|config| config.matching.unclaimed_per_address_max = 2);
    harness.accept("10.0.0.2:1001");
    let own = harness.accept("10.0.0.3:1001");
    harness.accept("10.0.0.3:1002");
    assert_eq!(closed(&harness.actions()), []);
    harness.accept("10.0.0.3:1003");
    assert_eq!(closed(&harness.actions()), [own]);
}

#[test]
fn one_connection_too_many_is_reset() {
    let mut harness = proxy_with(|config| config.connections_max = 2);
    harness.accept("10.0.0.2:1001");
    harness.accept("10.0.0.2:1002");
    harness.actions();
    let third = harness.accept("10.0.0.2:1003");
    assert_eq!(closed(&harness.actions()), [third]);
}

#[test]
fn of_early_claims_the_oldest_goes_with_500() {
    let mut harness = proxy_with(|config| config.matching.early_claims_max = 1);
    harness.claims(TARGET, "t", "10.0.0.1:1001");
    harness.claims(INITIATOR, "i", "10.0.0.1:1002");
    assert_eq!(harness.sent_stanzas(), [error(TARGET, "t", Condition::ResourceConstraint)]);
    harness.accept("10.0.0.3:1002");
    assert_eq!(harness.machine.claimed(), 1);
}

#[test]
fn one_claimed_socket_too_many_is_500_and_stays_unclaimed() {
    let mut harness = proxy_with(|config| config.claimed_max = 1);
    harness.claimed();
    harness.accept("10.0.0.4:1003");
    harness.deliver(stanza(THIRD, "x", claim("other", "10.0.0.1:1003")));
    assert_eq!(harness.sent_stanzas(), [error(THIRD, "x", Condition::ResourceConstraint)]);
    assert_eq!(harness.machine.unclaimed(), 1);
    harness.claims(INITIATOR, "i", "10.0.0.1:1003");
    assert_eq!(
        harness.sent_stanzas(),
        [clear(TARGET, "t"), clear(INITIATOR, "i")],
        "the other half needs no more room"
    );
}

#[test]
fn one_jid_has_so_many_claims_at_a_time_whatever_its_resource() {
    let mut harness = proxy_with(|config| config.claims_per_jid_max = 2);
    harness.claimed();
    harness.deliver(stanza("target@example.org/2", "2", claim("2", "10.0.0.1:1002")));
    harness.deliver(stanza("target@example.org/3", "3", claim("3", "10.0.0.1:1003")));
    assert_eq!(harness.sent_stanzas(), [error("target@example.org/3", "3", Condition::ResourceConstraint)]);
    harness.wait(Span::from_secs(2));
    assert_eq!(harness.sent_stanzas(), [error("target@example.org/2", "2", Condition::ItemNotFound)]);
    harness.deliver(stanza("target@example.org/3", "3", claim("3", "10.0.0.1:1003")));
    assert_eq!(harness.sent_stanzas(), [], "one was answered, one more may come");
}

#[test]
fn five_failed_claims_a_minute_and_then_500() {
    let mut harness = proxy();
    for n in 0..5 {
        harness.claims(&format!("target@example.org/{n}"), "t", "10.0.0.1:1001");
    }
    harness.wait(Span::from_secs(2));
    assert_eq!(harness.sent_stanzas().len(), 5);
    // Its socket may exist, but is no longer checked.
    harness.accept("10.0.0.2:1001");
    harness.claims(TARGET, "6", "10.0.0.1:1001");
    assert_eq!(harness.sent_stanzas(), [error(TARGET, "6", Condition::ResourceConstraint)]);
    harness.claims(INITIATOR, "i", "10.0.0.1:1001");
    assert_eq!((harness.sent_stanzas(), harness.machine.claimed()), (vec![], 1), "nobody else's matter");
    harness.wait(Span::from_secs(12));
    harness.accept("10.0.0.2:1002");
    harness.claims(TARGET, "7", "10.0.0.1:1002");
    assert_eq!(
        harness.sent_stanzas(),
        [clear(INITIATOR, "i"), clear(TARGET, "7")],
        "one more is forgiven after 12 s"
    );
}

#[test]
fn claims_under_way_together_that_fail_all_count() {
    let mut harness = proxy();
    for _ in 0..33 {
        harness.claims(THIRD, "c", "10.0.0.1:1001");
    }
    assert_eq!(harness.sent_stanzas(), [error(THIRD, "c", Condition::ResourceConstraint)], "32 are let in");
    harness.wait(Span::from_secs(2));
    assert_eq!(harness.sent_stanzas(), vec![error(THIRD, "c", Condition::ItemNotFound); 32]);
    // At five a minute, 28 must be refilled before fewer than five are left.
    for _ in 0..27 {
        harness.wait(Span::from_secs(12));
        harness.claims(THIRD, "c", "10.0.0.1:1001");
        assert_eq!(harness.sent_stanzas(), [error(THIRD, "c", Condition::ResourceConstraint)]);
    }
    harness.wait(Span::from_secs(12));
    harness.claims(THIRD, "c", "10.0.0.1:1001");
    harness.claims(THIRD, "d", "10.0.0.1:1001");
    assert_eq!(harness.sent_stanzas(), [], "what is under way may be true");
    harness.wait(Span::from_secs(2));
    assert_eq!(harness.sent_stanzas().len(), 2);
}

#[test]
fn claims_that_are_pushed_out_have_failed() {
    let mut harness = proxy();
    let (mut refused, mut pushed_out) = (0, 0);
    for n in 0..20_000_u32 {
        let who = format!("{}@example.com/{n}", n % 40);
        harness.claims(&who, "c", &format!("10.0.0.1:{}", 1_024 + n));
        for answer in harness.sent_stanzas() {
            assert_eq!(answer.query, Query::Error(Condition::ResourceConstraint));
            *(if answer.peer == jid(&who) { &mut refused } else { &mut pushed_out }) += 1;
        }
    }
    // 1,000 wait, and five of each of the 40 were displaced.
    assert_eq!((refused, pushed_out), (20_000 - 1_000 - 200, 200));
}

#[test]
fn whoever_has_most_early_claims_makes_room() {
    let mut harness = proxy_with(|config| config.matching.early_claims_max = 3);
    harness.claims(TARGET, "t", "10.0.0.1:1001");
    for id in ["1", "2", "3", "4"] {
        harness.claims(&format!("{THIRD}{id}"), id, "10.0.0.1:1002");
    }
    let expected = ["1", "2"].map(|id| error(&format!("{THIRD}{id}"), id, Condition::ResourceConstraint));
    assert_eq!(harness.sent_stanzas(), expected, "a resource more is no JID more");
    harness.claims(INITIATOR, "i", "10.0.0.1:1003");
    assert_eq!(harness.sent_stanzas(), [error(&format!("{THIRD}3"), "3", Condition::ResourceConstraint)]);
    harness.accept("10.0.0.2:1001");
    harness.accept("10.0.0.3:1003");
    assert_eq!(harness.sent_stanzas(), [clear(TARGET, "t"), clear(INITIATOR, "i")]);
}

#[test]
fn guessing_stream_ids_is_a_failure_too() {
    let mut harness = proxy();
    harness.paired();
    for n in 0..6 {
        harness.claims(THIRD, &n.to_string(), "10.0.0.1:1009");
    }
    let mut expected: Vec<_> =
        (0..5).map(|n: u8| error(THIRD, &n.to_string(), Condition::Conflict)).collect();
    expected.push(error(THIRD, "5", Condition::ResourceConstraint));
    assert_eq!(harness.sent_stanzas(), expected);
}

#[test]
fn many_failing_jids_are_forgotten_one_by_one() {
    let mut harness = proxy_with(|config| config.failures_per_minute_max = 1);
    harness.paired();
    let who = |n: u32| format!("{n}@example.com/x");
    for n in 0..1_025 {
        harness.claims(&who(n), "f", "10.0.0.1:1009");
    }
    harness.sent_stanzas();
    harness.claims(&who(1_024), "f", "10.0.0.1:1009");
    harness.claims(&who(0), "f", "10.0.0.1:1009");
    assert_eq!(
        harness.sent_stanzas(),
        [error(&who(1_024), "f", Condition::ResourceConstraint), error(&who(0), "f", Condition::Conflict)]
    );
}
