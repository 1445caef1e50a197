//! Answers of every entity: service discovery (XEP-0030) and ping (XEP-0199).

use alloc::string::String;

use crate::xmpp::condition::Condition;
use crate::xmpp::element::Element;
use crate::xmpp::iq::{Iq, Kind};

const INFO: &str = "http://jabber.org/protocol/disco#info";
const ITEMS: &str = "http://jabber.org/protocol/disco#items";
const PING: &str = "urn:xmpp:ping";

/// The answer to a query about the entity itself; `None` for anything else. `features` are the further namespaces
/// that it supports.
pub(super) fn answer(iq: &Iq, features: &[String]) -> Option<Iq> {
    if iq.kind != Kind::Get {
        return None;
    }
    let result = |payload| Iq {
        from: iq.to.clone(),
        to: iq.from.clone(),
        id: iq.id.clone(),
        kind: Kind::Result,
        payload,
    };
    if iq.payload_of(PING, "ping").is_some() {
        return Some(result(None));
    }
    if let Some(query) = iq.payload_of(ITEMS, "query") {
        return match query.attribute("node") {
            Some(_) => iq.refusal(Condition::ItemNotFound, ""),
            None => Some(result(Some(Element::new(ITEMS, "query")))),
        };
    }
    let query = iq.payload_of(INFO, "query")?;
    if query.attribute("node").is_some() {
        return iq.refusal(Condition::ItemNotFound, "");
    }
    let identity = Element::new(INFO, "identity");
    let identity = identity.with("category", "component").with("type", "generic").with("name", "rendezvous");
    let known = [INFO, ITEMS, PING].into_iter().chain(features.iter().map(String::as_str));
    let info = known.fold(Element::new(INFO, "query").with_child(identity), |info, feature| {
        info.with_child(Element::new(INFO, "feature").with("var", feature))
    });
    Some(result(Some(info)))
}
