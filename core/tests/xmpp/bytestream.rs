//! The stream proxy's stanzas in XML, as in the mail of December 2002. docs/stream-proxy.md §5 resolves what it
//! leaves open.

use rendezvous_core::bytestream::name::StreamId;
use rendezvous_core::bytestream::stanza::{Condition, Connection, Query, Stanza};
use rendezvous_core::bytestream::xmpp::{NAMESPACE, read, write};

use super::{id, iq, jid, written};

fn sid(text: &str) -> Option<StreamId> {
    StreamId::new(text)
}

/// The contents of an IQ of this type with this payload.
fn query(kind: &str, inner: &str) -> Query {
    let text = format!("<iq type='{kind}' id='7' from='clientb@x/r' to='clienta@y/r'>{inner}</iq>");
    let stanza = read(&iq(&text), NAMESPACE).unwrap_or_else(|| panic!("not read: {text}"));
    assert_eq!((&stanza.peer, &stanza.id), (&jid("clientb@x/r"), &id("7")));
    stanza.query
}

/// It is written in this form, and parsed again.
fn both_ways(query: Query, wanted: &str) {
    let stanza = Stanza { peer: jid("clientb@x/r"), id: id("7"), query };
    let mut it = write(&stanza, &jid("clienta@y/r"), NAMESPACE);
    let text = written(&it);
    assert_eq!(text.split_once("id='7'>").expect("an id").1.strip_suffix("</iq>"), Some(wanted));
    (it.from, it.to) = (it.to, it.from);
    assert_eq!(read(&iq(&written(&it)), NAMESPACE), Some(stanza));
}

#[test]
fn pf2_an_offer_in_the_order_of_the_document() {
    let connection =
        |name: &str, to: &str| Connection { jid: jid(name), to: to.parse().expect("an address") };
    let connections =
        vec![connection("initiator", "127.0.0.1:5086"), connection("conn1", "[2001:db8::1]:3948")];
    both_ways(
        Query::Offer { sid: sid("ABDE"), connections, malformed: 0 },
        "<query xmlns='whoknows' sid='ABDE'><connection jid='initiator' ip='127.0.0.1' port='5086'/>\
         <connection jid='conn1' ip='2001:db8::1' port='3948'/></query>",
    );
}

#[test]
fn a1_an_offer_of_nothing() {
    both_ways(
        Query::Offer { sid: sid("A01"), connections: vec![], malformed: 0 },
        "<query xmlns='whoknows' sid='A01'/>",
    );
}

#[test]
fn pf4_a_claim() {
    both_ways(
        Query::Claim { sid: sid("A01"), endpoint: Some("192.168.4.1:4094".parse().unwrap()) },
        "<query xmlns='whoknows' sid='A01'><endpoint ip='192.168.4.1' port='4094'/></query>",
    );
}

#[test]
fn pf5_which_connection_was_used() {
    both_ways(
        Query::Result { sid: sid("A01"), connection: Some(jid("proxya")) },
        "<query xmlns='whoknows' sid='A01'><connection jid='proxya'/></query>",
    );
}

#[test]
fn pf7_clear_to_send() {
    both_ways(Query::CLEAR, "<query xmlns='whoknows'/>");
    assert_eq!(query("result", ""), Query::CLEAR);
}

#[test]
fn errors_in_both_forms_and_with_the_mails_codes() {
    for condition in [
        Condition::BadRequest,
        Condition::Forbidden,
        Condition::ItemNotFound,
        Condition::NotAcceptable,
        Condition::Conflict,
        Condition::ResourceConstraint,
        Condition::ServiceUnavailable,
        Condition::RemoteServerTimeout,
    ] {
        let stanza = Stanza { peer: jid("b"), id: id("7"), query: Query::Error(condition) };
        let text = written(&write(&stanza, &jid("a"), NAMESPACE));
        let code = condition.code();
        assert!(text.contains(&format!("<error code='{code}' type=")), "{text}");
        assert_eq!(query("error", &format!("<error code='{code}'/>")), Query::Error(condition));
    }
    assert_eq!(query("error", "<error code='501'/>"), Query::Error(Condition::Undefined));
    let lost = write(
        &Stanza { peer: jid("b"), id: id("7"), query: Query::Error(Condition::Undefined) },
        &jid("a"),
        NAMESPACE,
    );
    assert_eq!(read(&iq(&written(&lost)), NAMESPACE).unwrap().query, Query::Error(Condition::Undefined));
}

#[test]
fn reading_1_side_is_read_where_sid_is_missing() {
    let claim =
        |attributes: &str| query("set", &format!("<query xmlns='whoknows' {attributes}><endpoint/></query>"));
    assert_eq!(claim("side='A01'"), Query::Claim { sid: sid("A01"), endpoint: None });
    assert_eq!(claim("side='A01' sid='A02'"), Query::Claim { sid: sid("A02"), endpoint: None });
    assert_eq!(claim(""), Query::Claim { sid: None, endpoint: None });
    assert_eq!(claim("sid=''"), Query::Claim { sid: None, endpoint: None });
}

#[test]
fn reading_2_the_namespace_can_be_another() {
    let it = iq("<iq type='set' id='7' from='b' to='a'><query xmlns='urn:x' sid='1'/></iq>");
    assert_eq!(read(&it, NAMESPACE), None);
    assert!(read(&it, "urn:x").is_some());
    let stanza = Stanza { peer: jid("b"), id: id("7"), query: Query::CLEAR };
    assert!(written(&write(&stanza, &jid("a"), "urn:x")).contains("<query xmlns='urn:x'/>"));
}

#[test]
fn reading_3_a_request_without_an_id_is_read_and_answered_with_an_empty_one() {
    let it = iq("<iq type='set' from='b' to='a'><query xmlns='whoknows' sid='1'/></iq>");
    assert_eq!(read(&it, NAMESPACE).unwrap().id, id(""));
}

#[test]
fn reading_7_jids_are_normalised() {
    let Query::Result { connection, .. } =
        query("result", "<query xmlns='whoknows' sid='1'><connection jid='ClientA@X/R'/></query>")
    else {
        panic!("no result")
    };
    assert_eq!(connection, Some(jid("clienta@x/R")));
}

#[test]
fn reading_13_names_and_other_nonsense_in_a_connection_are_counted_and_skipped() {
    let inner = "<query xmlns='whoknows' sid='1'>\
        <connection jid='a' ip='example.org' port='1'/><connection ip='192.0.2.1' port='1'/>\
        <connection jid='a' ip='192.0.2.1'/><connection jid='a' ip='192.0.2.1' port='+1'/>\
        <connection jid='a' ip='192.0.2.1' port='65536'/><connection jid='@' ip='192.0.2.1' port='1'/>\
        <connection jid='a' ip='192.0.2.1' port='1'/></query>";
    let Query::Offer { connections, malformed, .. } = query("set", inner) else { panic!("no offer") };
    assert_eq!((connections.len(), malformed), (1, 6));
    let endpoint = "<query xmlns='whoknows' sid='1'><endpoint ip='localhost' port='1'/></query>";
    assert_eq!(query("set", endpoint), Query::Claim { sid: sid("1"), endpoint: None });
}

#[test]
fn eight_connections_are_kept() {
    let inner = "<connection jid='a' ip='192.0.2.1' port='1'/>".repeat(9);
    let Query::Offer { connections, .. } = query("set", &format!("<query xmlns='whoknows'>{inner}</query>"))
    else {
        panic!("no offer")
    };
    assert_eq!(connections.len(), 8);
}
