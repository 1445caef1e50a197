//! IQs, and the two forms of their errors.

use rendezvous_core::xmpp::condition::{Condition, StanzaError};
use rendezvous_core::xmpp::element::Element;
use rendezvous_core::xmpp::iq::{Iq, Kind};

use super::{id, iq, jid, stanza, written};

fn error(inner: &str) -> StanzaError {
    match iq(&format!("<iq type='error' from='a@b' to='c@d'>{inner}</iq>")).kind {
        Kind::Error(error) => error,
        kind => panic!("{kind:?}"),
    }
}

#[test]
fn an_iq_is_read_and_written_the_same() {
    let text =
        "<iq type='set' from='joe@x/Home' to='proxy.localhost' id='a&apos;b'><query xmlns='n' sid='1'/></iq>";
    let read = iq(text);
    assert_eq!(
        (&read.from, &read.to, &read.id),
        (&jid("joe@x/Home"), &jid("proxy.localhost"), &Some(id("a'b")))
    );
    assert_eq!(read.payload, Some(Element::new("n", "query").with("sid", "1")));
    assert_eq!(written(&read), text);
    assert_eq!(iq(&written(&read)), read);
}

#[test]
fn an_id_may_be_missing_or_empty() {
    assert_eq!(iq("<iq type='get' from='a' to='b'/>").id, None);
    assert_eq!(iq("<iq type='get' from='a' to='b' id=''/>").id, Some(id("")));
    assert!(!written(&iq("<iq type='get' from='a' to='b'/>")).contains("id="));
}

#[test]
fn what_is_no_iq_is_none() {
    let long = format!("<iq type='get' from='a' to='b' id='{}'/>", "x".repeat(257));
    for text in [
        "<message type='get' from='a' to='b'/>",
        "<iq xmlns='jabber:client' type='get' from='a' to='b'/>",
        "<iq from='a' to='b'/>",
        "<iq type='ask' from='a' to='b'/>",
        "<iq type='get' to='b'/>",
        "<iq type='get' from='a'/>",
        "<iq type='get' from='a@' to='b'/>",
        &long,
    ] {
        assert_eq!(Iq::read(&stanza(text)), None, "{text}");
    }
}

#[test]
fn errors_are_read_in_the_old_form_and_in_the_new_one() {
    const NS: &str = "xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'";
    let old = error("<error code='501'>DTCP not supported</error>");
    assert_eq!(old, StanzaError::new(Condition::FeatureNotImplemented, "DTCP not supported"));
    let new = format!("<error type='cancel'><item-not-found {NS}/><text {NS}>Gone</text></error>");
    assert_eq!(error(&new), StanzaError::new(Condition::ItemNotFound, "Gone"));
    let both = format!("<error code='503' type='cancel'><conflict {NS}/></error>");
    assert_eq!(error(&both).condition, Condition::Conflict, "the condition counts");
    assert_eq!(
        error("<error code='502'>Could not connect to given hosts</error>").condition,
        Condition::ServiceUnavailable
    );
    assert_eq!(error("<error code='408'/>").condition, Condition::RemoteServerTimeout);
    assert_eq!(error(&format!("<error><gone {NS}/></error>")).condition, Condition::Gone);
    let no_server = format!("<error code='404'><remote-server-not-found {NS}/></error>");
    assert_eq!(error(&no_server).condition, Condition::RemoteServerNotFound);
    assert_eq!(error(&format!("<error><payment-required {NS}/></error>")).condition, Condition::Undefined);
    for (code, condition) in [
        (302, Condition::Redirect),
        (400, Condition::BadRequest),
        (404, Condition::ItemNotFound),
        (407, Condition::RegistrationRequired),
    ] {
        assert_eq!(error(&format!("<error code='{code}'/>")).condition, condition, "{code}");
    }
    for odd in ["", "<error/>", "<error code='x'/>", "<error code='0'/>", "<error code='99999999'/>"] {
        assert_eq!(error(odd), StanzaError::new(Condition::Undefined, ""), "{odd}");
    }
}

#[test]
fn every_condition_is_written_with_its_number_and_read_again() {
    use Condition as C;
    for (condition, code) in [
        (C::BadRequest, 400),
        (C::NotAuthorized, 401),
        (C::Forbidden, 403),
        (C::ItemNotFound, 404),
        (C::NotAllowed, 405),
        (C::NotAcceptable, 406),
        (C::PolicyViolation, 406),
        (C::RegistrationRequired, 407),
        (C::Conflict, 409),
        (C::InternalServerError, 500),
        (C::ResourceConstraint, 500),
        (C::FeatureNotImplemented, 501),
        (C::ServiceUnavailable, 503),
        (C::RemoteServerTimeout, 504),
        (C::Undefined, 500),
    ] {
        assert_eq!(condition.code(), code);
        let refusal = iq("<iq type='set' from='a' to='b' id='1'/>").refusal(condition, "Why").unwrap();
        let text = written(&refusal);
        assert!(text.contains(&format!("<error code='{code}' type='")), "{text}");
        assert_eq!(iq(&text), refusal);
    }
}

#[test]
fn requests_are_refused_and_answers_never() {
    let request = iq("<iq type='get' from='a@x/1' to='b@y' id='7'><query xmlns='jabber:iq:version'/></iq>");
    let refusal = request.not_understood().unwrap();
    assert_eq!(
        written(&refusal),
        "<iq type='error' from='b@y' to='a@x/1' id='7'><error code='503' type='cancel'>\
         <service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
    );
    for kind in ["result", "error"] {
        let answer = iq(&format!("<iq type='{kind}' from='a' to='b' id='7'/>"));
        assert_eq!(answer.not_understood(), None);
        assert_eq!(answer.refusal(Condition::Conflict, ""), None);
    }
}

#[test]
fn case_15_who_speaks_no_dtcp_says_so_in_the_words_of_the_seed() {
    let request = iq(
        "<iq type='set' from='a' to='b' id='dtcp_1'><query xmlns='http://jabber.org/protocol/dtcp'/></iq>",
    );
    let refusal = written(&request.not_understood().unwrap());
    assert!(refusal.contains("code='501'"), "{refusal}");
    assert!(refusal.contains("<feature-not-implemented "), "{refusal}");
    assert!(refusal.contains(">DTCP not supported</text>"), "{refusal}");
}
