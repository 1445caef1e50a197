//! Claims at an initiator: guessing gets no peer another's socket, and cannot block another's claims.

use rendezvous_core::bytestream::entity::Entity;
use rendezvous_core::bytestream::stanza::{Condition, Query, Stanza};
use rendezvous_core::time::Span;

use crate::ends::{Offer, PEER, entity, entity_with};
use crate::harness::Harness;
use crate::{THIRD, claim, clear, error, stanza};

impl Harness<Entity> {
    /// A peer that offers nothing, so that we make an offer and wait for its claim.
    fn listens_for(&mut self, who: &str) {
        self.deliver(stanza(
            who,
            "pf2",
            Query::Offer { sid: Some(crate::sid("s")), connections: vec![], malformed: 0 },
        ));
        let [refusal, offer] = &self.stanzas()[..] else { panic!("no role reversal") };
        assert_eq!(*refusal, error(who, "pf2", Condition::ItemNotFound));
        assert!(matches!(offer.query, Query::Offer { .. }));
    }

    /// A claim of the stream of such a peer, with this id. Returns the answers that come at once.
    fn claims_of(&mut self, who: &str, id: &str, port: u16) -> Vec<Stanza> {
        self.deliver(stanza(who, id, claim("s", &format!("10.0.0.1:{port}"))));
        self.stanzas()
    }
}

/// An entity that waits for its peer, and for a stranger.
fn listening() -> (Harness<Entity>, Offer) {
    let mut harness = entity();
    let offer = harness.begin();
    harness.listens_for(THIRD);
    (harness, offer)
}

#[test]
fn another_peers_socket_is_not_to_be_guessed() {
    let (mut harness, offer) = listening();
    harness.accept("10.0.0.2:50123");
    let mut refused = 0;
    for port in 40_000..=50_123 {
        for answer in harness.claims_of(THIRD, "guess", port) {
            assert_eq!(answer, error(THIRD, "guess", Condition::ResourceConstraint));
            refused += 1;
        }
    }
    assert_eq!(refused, 10_124 - 32);
    harness.is_claimed(&offer, "10.0.0.1:50123");
    assert_eq!(harness.stanzas(), [clear(PEER, "pf4")]);
}

#[test]
fn five_failed_claims_a_minute_and_then_500() {
    let (mut harness, offer) = listening();
    for port in 1..=5 {
        assert_eq!(harness.claims_of(THIRD, "guess", port), []);
    }
    harness.wait(Span::from_secs(2));
    assert_eq!(harness.stanzas(), vec![error(THIRD, "guess", Condition::ItemNotFound); 5]);
    harness.accept("10.0.0.2:1001");
    assert_eq!(
        harness.claims_of(THIRD, "guess", 1001),
        [error(THIRD, "guess", Condition::ResourceConstraint)]
    );
    harness.is_claimed(&offer, "10.0.0.1:1001");
    assert_eq!(harness.stanzas(), [clear(PEER, "pf4")], "nobody else's matter");
    harness.accept("10.0.0.3:1002");
    harness.wait(Span::from_secs(12));
    assert_eq!(
        harness.claims_of(THIRD, "claim", 1002),
        [clear(THIRD, "claim")],
        "one more is forgiven after 12 s"
    );
}

#[test]
fn claims_on_no_stream_are_failures_too() {
    let mut harness = entity();
    harness.begin();
    for _ in 0..5 {
        assert_eq!(harness.claims_of(THIRD, "x", 1001), [error(THIRD, "x", Condition::ItemNotFound)]);
    }
    assert_eq!(harness.claims_of(THIRD, "x", 1001), [error(THIRD, "x", Condition::ResourceConstraint)]);
    assert_eq!(
        harness.claims_of("third@example.com/other", "x", 1001),
        [error("third@example.com/other", "x", Condition::ResourceConstraint)],
        "a resource more is no JID more"
    );
}

#[test]
fn early_claims_of_one_push_out_nobody_elses() {
    let mut harness = entity_with(|config| config.matching.early_claims_max = 3);
    let offer = harness.begin();
    harness.listens_for(THIRD);
    harness.is_claimed(&offer, "10.0.0.1:1001");
    for port in 1..=2 {
        assert_eq!(harness.claims_of(THIRD, &port.to_string(), port), []);
    }
    for port in 3..=7 {
        let oldest = (port - 2).to_string();
        assert_eq!(
            harness.claims_of(THIRD, &port.to_string(), port),
            [error(THIRD, &oldest, Condition::ResourceConstraint)]
        );
    }
    assert_eq!(
        harness.claims_of(THIRD, "8", 8),
        [error(THIRD, "8", Condition::ResourceConstraint)],
        "five have failed"
    );
    harness.accept("10.0.0.2:1001");
    assert_eq!(harness.stanzas(), [clear(PEER, "pf4")]);
}
