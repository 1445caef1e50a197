//! DTCP's signals as IQs (XEP-0046 §3.1 and §3.2), with the ids that servers require (docs/dtcp.md §6.13, §7.2).

use alloc::string::{String, ToString};

use super::negotiation::Refusal;
use super::{HOSTS_MAX, Key, KeyError, Offer};
use crate::xmpp::condition::{Condition, StanzaError};
use crate::xmpp::element::Element;
use crate::xmpp::iq::{self, Iq, Kind};
use crate::xmpp::jid::{IqId, Jid};

/// The namespace of DTCP.
pub const NAMESPACE: &str = iq::DTCP;

/// A DTCP signal in an IQ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A request for a session. Without a valid key it is answered with 400 (docs/dtcp.md §6.20).
    Request(Result<Offer, KeyError>),
    /// The answer to the request with this id. Without a valid key the session fails (docs/dtcp.md §6.16).
    Answer(Result<Offer, KeyError>),
    /// The refusal of a request, which the id identifies; or a give-up, for which the recipient's `key` identifies
    /// the session. An old peer sends the latter without an id, and with another code.
    Error {
        /// The sender's error.
        error: StanzaError,
        /// The key, if it is valid.
        key: Option<Key>,
    },
}

/// Parses an IQ; `None` if it is not about DTCP. An error can be about it without any payload.
#[must_use]
pub fn read(iq: &Iq) -> Option<Message> {
    let query = iq.payload_of(NAMESPACE, "query");
    match &iq.kind {
        Kind::Get => None,
        Kind::Set => Some(Message::Request(offer(query?))),
        // A result without a query has no key either.
        Kind::Result => Some(Message::Answer(query.map_or(Err(KeyError), offer))),
        Kind::Error(error) => {
            let key = query.and_then(|query| query.each("key").next());
            let key = key.and_then(|key| Key::new(key.text().as_bytes()).ok());
            Some(Message::Error { error: error.clone(), key })
        }
    }
}

/// A request for a session.
#[must_use]
pub fn request(from: &Jid, to: &Jid, id: IqId, ours: &Offer) -> Iq {
    Iq { from: from.clone(), to: to.clone(), id: Some(id), kind: Kind::Set, payload: Some(query(ours)) }
}

/// An answer to a request, with the request's id if it has one.
#[must_use]
pub fn answer(from: &Jid, to: &Jid, id: Option<IqId>, ours: &Offer) -> Iq {
    Iq { from: from.clone(), to: to.clone(), id, kind: Kind::Result, payload: Some(query(ours)) }
}

/// A give-up: we have stopped dialling (docs/dtcp.md §6.13). `key` is the peer's.
#[must_use]
pub fn give_up(from: &Jid, to: &Jid, id: IqId, key: &Key) -> Iq {
    let key = Element::new(NAMESPACE, "key").with_text(&text_of(key));
    let error = StanzaError::new(Condition::ServiceUnavailable, "Could not connect to any of the hosts.");
    Iq {
        from: from.clone(),
        to: to.clone(),
        id: Some(id),
        kind: Kind::Error(error),
        payload: Some(Element::new(NAMESPACE, "query").with_child(key)),
    }
}

/// The error of a refusal, for programs and humans (docs/dtcp.md §6.6, §6.15, §6.38).
#[must_use]
pub const fn refusal(why: Refusal) -> (Condition, &'static str) {
    match why {
        Refusal::Unreachable => (Condition::ServiceUnavailable, "Could not connect to any of the hosts."),
        Refusal::Conflict => (Condition::Conflict, "Key in use"),
        Refusal::Busy => (Condition::ResourceConstraint, "Too many sessions"),
    }
}

/// The contents of a `<query/>`. Hosts are kept as written, and not checked here.
fn offer(query: &Element) -> Result<Offer, KeyError> {
    let key = query.each("key").next().ok_or(KeyError)?;
    Ok(Offer {
        key: Key::new(key.text().as_bytes())?,
        hosts: query.each("host").take(HOSTS_MAX).map(|host| host.text().to_string()).collect(),
        fingerprint: None,
    })
}

fn query(offer: &Offer) -> Element {
    let key = Element::new(NAMESPACE, "key").with_text(&text_of(&offer.key));
    let query = Element::new(NAMESPACE, "query").with_child(key);
    let hosts = offer.hosts.iter().take(HOSTS_MAX);
    hosts.fold(query, |query, host| query.with_child(Element::new(NAMESPACE, "host").with_text(host)))
}

/// A key as XML text. Our keys are hexadecimal digits, and a peer's key was XML text.
fn text_of(key: &Key) -> String {
    String::from_utf8_lossy(key.as_bytes()).into_owned()
}
