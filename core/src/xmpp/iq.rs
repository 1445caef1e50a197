//! IQs: requests and their answers (RFC 6120 §8.2.3). They are the only kind of stanza that is used.

use alloc::vec::Vec;

use super::condition::{Condition, StanzaError};
use super::element::Element;
use super::jid::{IqId, Jid};

/// The namespace of stanzas on a component's stream (XEP-0114).
pub const COMPONENT: &str = "jabber:component:accept";
/// The namespace of DTCP. Unsupported requests of it have an answer of their own.
pub const DTCP: &str = "http://jabber.org/protocol/dtcp";

/// An IQ. Both JIDs are normalised when it was [parsed](Iq::read).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Iq {
    /// The sender.
    pub from: Jid,
    /// The recipient.
    pub to: Jid,
    /// Its id; `None` if it has none, which servers seldom let pass.
    pub id: Option<IqId>,
    /// Its type.
    pub kind: Kind,
    /// The first child that is not an error.
    pub payload: Option<Element>,
}

/// The `type` of an IQ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A query.
    Get,
    /// A request.
    Set,
    /// A successful answer to either.
    Result,
    /// A failed answer to either.
    Error(StanzaError),
}

impl Iq {
    /// Parses a stanza. Returns `None` if it is not an IQ, if a JID or the type is missing or invalid, or if its id
    /// is too long.
    #[must_use]
    pub fn read(stanza: &Element) -> Option<Self> {
        if !stanza.is(COMPONENT, "iq") {
            return None;
        }
        let error = stanza.each("error").next();
        let kind = match stanza.attribute("type")? {
            "get" => Kind::Get,
            "set" => Kind::Set,
            "result" => Kind::Result,
            "error" => {
                Kind::Error(error.map_or(StanzaError::new(Condition::Undefined, ""), StanzaError::read))
            }
            _ => return None,
        };
        Some(Self {
            from: Jid::parse(stanza.attribute("from")?)?,
            to: Jid::parse(stanza.attribute("to")?)?,
            id: match stanza.attribute("id") {
                Some(id) => Some(IqId::new(id)?),
                None => None,
            },
            kind,
            payload: stanza.children().iter().find(|child| !child.is(COMPONENT, "error")).cloned(),
        })
    }

    /// Appends its XML for a component's stream.
    pub fn write(&self, out: &mut Vec<u8>) {
        let kind = match self.kind {
            Kind::Get => "get",
            Kind::Set => "set",
            Kind::Result => "result",
            Kind::Error(_) => "error",
        };
        let mut iq = Element::new(COMPONENT, "iq").with("type", kind);
        iq = iq.with("from", self.from.to_text()).with("to", self.to.to_text());
        if let Some(id) = &self.id {
            iq = iq.with("id", id.as_str());
        }
        if let Some(payload) = &self.payload {
            iq.add_child(payload.clone());
        }
        if let Kind::Error(error) = &self.kind {
            iq.add_child(error.to_element(COMPONENT));
        }
        iq.write(COMPONENT, out);
    }

    /// Whether it needs an answer.
    #[must_use]
    pub const fn is_request(&self) -> bool {
        matches!(self.kind, Kind::Get | Kind::Set)
    }

    /// Its payload, if that is the `name` of `namespace`.
    #[must_use]
    pub fn payload_of(&self, namespace: &str, name: &str) -> Option<&Element> {
        self.payload.as_ref().filter(|payload| payload.is(namespace, name))
    }

    /// The answer that refuses it; `None` if it is an answer itself, which is never answered (RFC 6120 §8.3.1).
    #[must_use]
    pub fn refusal(&self, condition: Condition, text: &str) -> Option<Self> {
        self.is_request().then(|| Self {
            from: self.to.clone(),
            to: self.from.clone(),
            id: self.id.clone(),
            kind: Kind::Error(StanzaError::new(condition, text)),
            payload: None,
        })
    }

    /// The answer to an IQ that is not supported: 501 to a request for DTCP, with the text of XEP-0046 §3.1, 503 to
    /// any other (RFC 6120 §8.4); `None` if it is an answer itself.
    #[must_use]
    pub fn not_understood(&self) -> Option<Self> {
        if self.payload_of(DTCP, "query").is_some() {
            self.refusal(Condition::FeatureNotImplemented, "DTCP not supported")
        } else {
            self.refusal(Condition::ServiceUnavailable, "")
        }
    }
}
