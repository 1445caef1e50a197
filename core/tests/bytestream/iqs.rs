//! Proxy and entity behind a component: stanzas as IQs, and what is none.

use rendezvous_core::bytestream::xmpp::{NAMESPACE, read, write};
use rendezvous_core::xmpp::condition::{self, StanzaError};
use rendezvous_core::xmpp::element::Element;
use rendezvous_core::xmpp::hosted::IqHandler;
use rendezvous_core::xmpp::iq::{Iq, Kind};

use super::*;
use crate::ends::{ME, PEER, PROXY};

fn iqs<M: IqHandler>(rig: &mut Rig<M>) -> Vec<Iq> {
    std::iter::from_fn(|| rig.machine.poll_iq()).collect()
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
    let mut rig = proxy();
    rig.tell(|proxy, now| proxy.handle_iq(claim_iq(PROXY, NAMESPACE), now));
    rig.wait(rendezvous_core::time::Span::from_secs(2));
    let answers = iqs(&mut rig);
    assert_eq!(answers.len(), 1);
    assert_eq!((&answers[0].from, &answers[0].to), (&jid(PROXY), &jid(TARGET)));
    let read = read(&answers[0], NAMESPACE).expect("a stanza");
    assert_eq!(read.query, Query::Error(Condition::NotFound404));
}

#[test]
fn the_namespace_is_what_was_configured() {
    let mut rig = proxy_with(|config| config.namespace = "urn:example:streams".into());
    rig.accept("10.0.0.2:1001");
    rig.tell(|proxy, now| proxy.handle_iq(claim_iq(PROXY, "urn:example:streams"), now));
    assert_eq!(rig.machine.claimed(), 1);
}

#[test]
fn what_is_for_another_or_of_another_namespace_is_503_and_no_answer_is_answered() {
    let refused = Kind::Error(StanzaError::new(condition::Condition::ServiceUnavailable, ""));
    let mut rig = proxy();
    let other = format!("somebody@{PROXY}");
    for iq in [claim_iq(&other, NAMESPACE), claim_iq(PROXY, "another"), get(PROXY, Kind::Get)] {
        rig.tell(|proxy, now| proxy.handle_iq(iq.clone(), now));
        let answers = iqs(&mut rig);
        assert_eq!(answers.len(), 1);
        assert_eq!((&answers[0].from, &answers[0].kind), (&iq.to, &refused));
    }
    for kind in [Kind::Result, refused] {
        rig.tell(|proxy, now| proxy.handle_iq(get(&other, kind), now));
        assert_eq!(iqs(&mut rig), []);
    }
}

#[test]
fn an_entity_offers_and_is_refused_in_iqs() {
    let mut rig = ends::entity_with(|config| config.reversal = false);
    rig.tell(|entity, now| entity.handle_begin(jid(PEER), None, now));
    let offer = iqs(&mut rig).remove(0);
    assert_eq!((&offer.from, &offer.to), (&jid(ME), &jid(PEER)));
    let refusal = offer.refusal(condition::Condition::NotAcceptable, "").expect("it was a request");
    rig.tell(|entity, now| entity.handle_iq(refusal, now));
    rig.assert_failed(rendezvous_core::bytestream::role::Failure::Refused(Condition::NotAcceptable406));
    rig.tell(IqHandler::handle_drain);
    assert!(rig.machine.is_done());
}
