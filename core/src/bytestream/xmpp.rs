//! The stream proxy's stanzas as IQs (docs/stream-proxy.md §1, §5).
//!
//! One `<query/>` has three uses, which differ by the IQ's type and its children. The mail's name for the namespace
//! is `whoknows`; there is no other (docs/stream-proxy.md §5.2).

use core::net::{IpAddr, SocketAddr};

use alloc::format;
use alloc::vec::Vec;

use super::initiator::CONNECTIONS_MAX;
use super::name::StreamId;
use super::stanza::{Condition, Connection, Query, Stanza};
use crate::xmpp::condition::StanzaError;
use crate::xmpp::element::Element;
use crate::xmpp::iq::{Iq, Kind};
use crate::xmpp::jid::{IqId, Jid};

/// The default namespace.
pub const NAMESPACE: &str = "whoknows";

/// Parses an IQ; `None` for one of another namespace, which [`Iq::not_understood`] answers. A request without an id
/// is treated as if its id were empty (docs/stream-proxy.md §5.3), and so is its answer. Errors and results need no
/// `<query/>`, since their id identifies the question.
#[must_use]
pub fn read(iq: &Iq, namespace: &str) -> Option<Stanza> {
    let query = iq.payload_of(namespace, "query");
    let query = match &iq.kind {
        Kind::Get => return None,
        Kind::Set => set(query?),
        Kind::Result => result(query),
        Kind::Error(error) => Query::Error(general(error.condition)),
    };
    let id = iq.id.clone().or_else(|| IqId::new(""))?;
    Some(Stanza { peer: iq.from.clone(), id, query })
}

/// [Parses](read) an IQ to one of the component's JIDs; `None` also if that is not `me`.
#[must_use]
pub fn receive(iq: &Iq, me: &Jid, namespace: &str) -> Option<Stanza> {
    if iq.to == *me { read(iq, namespace) } else { None }
}

/// Writes a stanza.
#[must_use]
pub fn write(stanza: &Stanza, from: &Jid, namespace: &str) -> Iq {
    let query = Element::new(namespace, "query");
    let (kind, payload) = match &stanza.query {
        Query::Offer { sid, connections, malformed: _ } => {
            let query = connections.iter().fold(with_sid(query, sid.as_ref()), |query, connection| {
                query.with_child(place(
                    Element::new(namespace, "connection").with("jid", connection.jid.to_text()),
                    connection.to,
                ))
            });
            (Kind::Set, Some(query))
        }
        Query::Claim { sid, endpoint } => {
            let query = with_sid(query, sid.as_ref());
            let endpoint = endpoint.map(|it| place(Element::new(namespace, "endpoint"), it));
            (Kind::Set, Some(endpoint.into_iter().fold(query, Element::with_child)))
        }
        Query::Result { sid, connection } => {
            let query = with_sid(query, sid.as_ref());
            let connection =
                connection.iter().map(|jid| Element::new(namespace, "connection").with("jid", jid.to_text()));
            (Kind::Result, Some(connection.fold(query, Element::with_child)))
        }
        Query::Error(condition) => (Kind::Error(StanzaError::new(*condition, "")), None),
    };
    Iq { from: from.clone(), to: stanza.peer.clone(), id: Some(stanza.id.clone()), kind, payload }
}

fn set(query: &Element) -> Query {
    let sid = sid(query);
    if let Some(endpoint) = query.each("endpoint").next() {
        return Query::Claim { sid, endpoint: address(endpoint) };
    }
    let read: Vec<_> = query.each("connection").map(connection).collect();
    let malformed = read.iter().filter(|it| it.is_none()).count();
    let connections = read.into_iter().flatten().take(CONNECTIONS_MAX).collect();
    Query::Offer { sid, connections, malformed: u32::try_from(malformed).unwrap_or(u32::MAX) }
}

fn result(query: Option<&Element>) -> Query {
    let connection = query.and_then(|query| query.each("connection").next());
    Query::Result {
        sid: query.and_then(sid),
        connection: connection.and_then(|it| it.attribute("jid")).and_then(Jid::parse),
    }
}

/// `sid`, or `side` if that is missing, as in the mail's samples (docs/stream-proxy.md §5.1).
fn sid(query: &Element) -> Option<StreamId> {
    query.attribute("sid").or_else(|| query.attribute("side")).and_then(StreamId::new)
}

fn with_sid(query: Element, sid: Option<&StreamId>) -> Element {
    match sid {
        Some(sid) => query.with("sid", sid.as_str()),
        None => query,
    }
}

fn connection(of: &Element) -> Option<Connection> {
    Some(Connection { jid: Jid::parse(of.attribute("jid")?)?, to: address(of)? })
}

/// `ip` and `port`, with a literal address, not a name (docs/stream-proxy.md §5.13).
fn address(of: &Element) -> Option<SocketAddr> {
    let ip: IpAddr = of.attribute("ip")?.parse().ok()?;
    let port = of.attribute("port")?;
    let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
    Some(SocketAddr::new(ip, port.parse().ok().filter(|_| is_number)?))
}

fn place(element: Element, at: SocketAddr) -> Element {
    element.with("ip", &format!("{}", at.ip())).with("port", &format!("{}", at.port()))
}

/// The condition of its kind by which a stream's ends and proxies decide.
const fn general(condition: Condition) -> Condition {
    match condition {
        Condition::BadRequest | Condition::JidMalformed | Condition::UnexpectedRequest => {
            Condition::BadRequest
        }
        Condition::Forbidden
        | Condition::NotAuthorized
        | Condition::NotAllowed
        | Condition::RegistrationRequired
        | Condition::SubscriptionRequired => Condition::Forbidden,
        Condition::ResourceConstraint | Condition::InternalServerError => Condition::ResourceConstraint,
        Condition::ServiceUnavailable
        | Condition::RecipientUnavailable
        | Condition::Gone
        | Condition::Redirect => Condition::ServiceUnavailable,
        Condition::FeatureNotImplemented | Condition::PolicyViolation | Condition::Undefined => {
            Condition::Undefined
        }
        Condition::ItemNotFound
        | Condition::NotAcceptable
        | Condition::Conflict
        | Condition::RemoteServerTimeout
        | Condition::RemoteServerNotFound => condition,
    }
}
