//! Proxy and entity behind a component: stanzas as IQs, and other IQs.

use rendezvous_core::bytestream::xmpp::{NAMESPACE, read, write};
use rendezvous_core::component_host::IqHandler;
use rendezvous_core::xmpp::condition::{self, StanzaError};
use rendezvous_core::xmpp::element::Element;
use rendezvous_core::xmpp::iq::{Iq, Kind};

use super::*;
use crate::ends::{ME, PEER, PROXY};

fn iqs<M: IqHandler>(harness: &mut Harness<M>) -> Vec<Iq> {
    std::iter::from_fn(|| harness.machine.poll_iq()).collect()
}

fn claim_iq(to: &str, namespace: &str) -> Iq {
    let stanza = stanza(to, "t", claim("s", "10.0.0.1:1001"));
    write(&stanza, &jid(TARGET), namespace)
}

fn get(to: &str, kind: Kind) -> Iq {
    let payload = Some(Element::new("jabber:iq:version", "query"));
    Iq { from: jid(TARGET), to: jid(to), id: Some(iq("v")), kind, payload }
}

#[test]
fn a_claim_and_its_answer_are_iqs() {
    let mut harness = proxy();
    harness.call(|proxy, now| proxy.handle_iq(claim_iq(PROXY, NAMESPACE), now));
    harness.wait(rendezvous_core::time::Span::from_secs(2));
    let answers = iqs(&mut harness);
    assert_eq!(answers.len(), 1);
    assert_eq!((&answers[0].from, &answers[0].to), (&jid(PROXY), &jid(TARGET)));
    let read = read(&answers[0], NAMESPACE).expect("a stanza");
    assert_eq!(read.query, Query::Error(Condition::ItemNotFound));
}

#[test]
fn the_namespace_is_what_was_configured() {
    let mut harness = proxy_with(|config| config.namespace = "urn:example:streams".into());
    harness.accept("10.0.0.2:1001");
    harness.call(|proxy, now| proxy.handle_iq(claim_iq(PROXY, "urn:example:streams"), now));
    assert_eq!(harness.machine.claimed(), 1);
}

#[test]
fn what_is_for_another_or_of_another_namespace_is_503_and_no_answer_is_answered() {
    let refused = Kind::Error(StanzaError::new(condition::Condition::ServiceUnavailable, ""));
    let mut harness = proxy();
    let other = format!("somebody@{PROXY}");
    for iq in [claim_iq(&other, NAMESPACE), claim_iq(PROXY, "another"), get(PROXY, Kind::Get)] {
        harness.call(|proxy, now| proxy.handle_iq(iq.clone(), now));
        let answers = iqs(&mut harness);
        assert_eq!(answers.len(), 1);
        assert_eq!((&answers[0].from, &answers[0].kind), (&iq.to, &refused));
    }
    for kind in [Kind::Result, refused] {
        harness.call(|proxy, now| proxy.handle_iq(get(&other, kind), now));
        assert_eq!(iqs(&mut harness), []);
    }
}

#[test]
fn an_entity_offers_and_is_refused_in_iqs() {
    let mut harness = ends::entity_with(|config| config.reversal = false);
    harness.call(|entity, now| entity.handle_begin(jid(PEER), None, now));
    let offer = iqs(&mut harness).remove(0);
    assert_eq!((&offer.from, &offer.to), (&jid(ME), &jid(PEER)));
    let refusal = offer.refusal(condition::Condition::NotAcceptable, "").expect("it was a request");
    harness.call(|entity, now| entity.handle_iq(refusal, now));
    harness
        .assert_failed(rendezvous_core::bytestream::role::StreamFailure::Refused(Condition::NotAcceptable));
    harness.call(IqHandler::handle_drain);
    assert!(harness.machine.is_done());
}
